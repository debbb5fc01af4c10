//! Curves, points, bars and boxes on their axes.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::super::scene::{Axis, Chart, Mark, MarkKind, Panel, Scale};
use super::super::ticks;
use super::{Drawn, GRID, INK, Page, Rect, SOFT, tone_color};

/// Room for the numbers and the name of a vertical axis.
const LEFT: f64 = 82.0;

impl<DB: DrawingBackend> Page<'_, DB> {
    pub(super) fn chart(&self, c: &Chart, inside: Rect) -> Drawn {
        let labels: &[String] = if let Scale::Names(names) = &c.x.scale { names } else { &[] };
        let right = if c.colors.is_some() { 104.0 } else { 24.0 };
        let width = (inside.w - LEFT - right).max(20.0);
        // The pixels from one position to the next, where positions have names.
        let slot = width / (c.x.range.1 - c.x.range.0);
        let names = Names { labels, slot, widest: labels.iter().map(|s| self.width(s, 11.0)).fold(0.0, f64::max) };
        let foot = if labels.is_empty() { 30.0 } else { names.height() } + if c.x.name.is_empty() { 0.0 } else { 18.0 };
        let legends: Vec<Vec<(usize, &str)>> = c.panels.iter().map(|p| legend_of(c, p)).collect();
        let legend_rows: Vec<usize> = legends.iter().map(|l| self.legend_rows(l, width).len()).collect();
        let gap = 16.0;
        let count = c.panels.len().max(1) as f64;
        let taken = legend_rows.iter().sum::<usize>() as f64 * 19.0 + gap * (count - 1.0) + foot;
        // Of several panels the first has twice the height of the others.
        let unit = ((inside.h - taken) / if count > 1.0 { count + 1.0 } else { 1.0 }).max(10.0);
        let mut top = inside.y;
        let mut images = Vec::new();
        for (i, panel) in c.panels.iter().enumerate() {
            let last = i + 1 == c.panels.len();
            top += legend_rows[i] as f64 * 19.0;
            let at = Rect { x: inside.x + LEFT, y: top, w: width, h: if i == 0 && !last { 2.0 * unit } else { unit } };
            top += at.h + gap;
            self.value_axis(&panel.y, at, inside.x)?;
            self.place_axis(c, &names, at, last)?;
            self.rules(c, panel, at)?;
            for mark in &panel.marks {
                self.mark(c, panel, mark, at)?;
            }
            self.legend(&legends[i], at)?;
            if let Some(bar) = c.colors.as_ref().filter(|_| i == 0) {
                let place = Rect { x: at.x + at.w + 14.0, y: at.y, w: 12.0, h: at.h.clamp(30.0, 300.0) };
                images.push(self.color_bar(bar.map, bar.range, place, &bar.name)?);
            }
        }
        let at = (inside.x + LEFT + width / 2.0, inside.y + inside.h - 2.0);
        self.text(&c.x.name, at, 12.5, INK, (HPos::Center, VPos::Bottom), false, inside.w)?;
        Ok(images)
    }

    /// Frame, horizontal grid, tick texts and name of a vertical axis; `left` is where its part begins.
    fn value_axis(&self, axis: &Axis, at: Rect, left: f64) -> Result<(), String> {
        let rows = (at.h / 28.0).max(2.0) as usize;
        for (mark, text) in tick_texts(axis, rows) {
            let y = at.y + at.h * (1.0 - (mark - axis.range.0) / (axis.range.1 - axis.range.0));
            self.path(&[(at.x, y), (at.x + at.w, y)], GRID, 1.0)?;
            self.text(&text, (at.x - 7.0, y), 11.0, SOFT, (HPos::Right, VPos::Center), false, 56.0)?;
        }
        self.path(&[(at.x, at.y), (at.x, at.y + at.h), (at.x + at.w, at.y + at.h)], SOFT, 1.0)?;
        self.text(&axis.name, (left + 10.0, at.y + at.h / 2.0), 12.5, INK, (HPos::Center, VPos::Top), true, at.h)
    }

    /// Vertical grid and, below the last panel, the texts of the horizontal axis.
    fn place_axis(&self, c: &Chart, names: &Names<'_>, at: Rect, last: bool) -> Result<(), String> {
        let to_x = |place: f64| at.x + (place - c.x.range.0) / (c.x.range.1 - c.x.range.0) * at.w;
        if let Scale::Names(labels) = &c.x.scale {
            let upright = names.upright();
            let anchor = if upright { (HPos::Right, VPos::Center) } else { (HPos::Center, VPos::Top) };
            for place in names.shown() {
                let x = to_x(place as f64);
                if !c.fixed_places {
                    self.path(&[(x, at.y), (x, at.y + at.h)], GRID, 1.0)?;
                }
                if last {
                    self.text(&labels[place], (x, at.y + at.h + 7.0), 11.0, SOFT, anchor, upright, 150.0)?;
                }
            }
            return Ok(());
        }
        for (mark, text) in tick_texts(&c.x, (at.w / 80.0).clamp(2.0, 10.0) as usize) {
            let x = to_x(mark);
            self.path(&[(x, at.y), (x, at.y + at.h)], GRID, 1.0)?;
            if last {
                self.text(&text, (x, at.y + at.h + 7.0), 11.0, SOFT, (HPos::Center, VPos::Top), false, 80.0)?;
            }
        }
        Ok(())
    }

    fn rules(&self, c: &Chart, panel: &Panel, at: Rect) -> Result<(), String> {
        let dashed = |from: (f64, f64), to: (f64, f64)| -> Result<(), String> {
            let length = (to.0 - from.0).hypot(to.1 - from.1);
            let along = |d: f64| (from.0 + (to.0 - from.0) * d / length, from.1 + (to.1 - from.1) * d / length);
            let mut done = 0.0;
            while done < length {
                self.path(&[along(done), along((done + 6.0).min(length))], SOFT, 1.0)?;
                done += 11.0;
            }
            Ok(())
        };
        let inside = |t: f64| (0.0..=1.0).contains(&t);
        let corners = panel.corners(&c.x, (at.w, at.h), |name| self.width(name, 10.5));
        for ((value, name), corner) in panel.rules.iter().zip(corners).filter(|(r, _)| inside(panel.y.at(r.0))) {
            let y = at.y + at.h * (1.0 - panel.y.at(*value));
            dashed((at.x, y), (at.x + at.w, y))?;
            let (x, end) = if corner.left { (at.x + 2.0, HPos::Left) } else { (at.x + at.w - 2.0, HPos::Right) };
            let (y, side) = if corner.below { (y + 2.0, VPos::Top) } else { (y - 3.0, VPos::Bottom) };
            self.text(name, (x, y), 10.5, SOFT, (end, side), false, at.w)?;
        }
        for (value, name) in panel.upright_rules.iter().filter(|r| inside(c.x.at(r.0))) {
            let x = at.x + at.w * c.x.at(*value);
            dashed((x, at.y), (x, at.y + at.h))?;
            self.text(name, (x + 3.0, at.y + 2.0), 10.5, SOFT, (HPos::Left, VPos::Top), false, at.x + at.w - x)?;
        }
        let points: Vec<_> = panel.diagonal.then(|| panel.diagonal_points(&c.x)).into_iter().flatten().collect();
        let place = |v: f64| (at.x + at.w * c.x.at(v), at.y + at.h * (1.0 - panel.y.at(v)));
        points.windows(2).try_for_each(|pair| dashed(place(pair[0]), place(pair[1])))
    }

    fn mark(&self, c: &Chart, panel: &Panel, mark: &Mark, at: Rect) -> Result<(), String> {
        let color = tone_color(mark.tone);
        let to_x = |v: f64| at.x + at.w * c.x.at(v);
        let to_y = |v: f64| at.y + at.h * (1.0 - panel.y.at(v));
        let clamped = |y: f64| y.clamp(at.y, at.y + at.h);
        match &mark.kind {
            MarkKind::Curve { markers, band } => {
                let points: Vec<_> = mark.x.iter().zip(&mark.y).map(|(&x, &y)| (to_x(x), to_y(y))).collect();
                if let Some((low, high)) = band {
                    let end = |values: &[f64]| -> Vec<(f64, f64)> {
                        mark.x.iter().zip(values).map(|(&x, &y)| (to_x(x), clamped(to_y(y)))).collect()
                    };
                    self.band(&end(low), &end(high), &points, color)?;
                }
                self.curve(&points, mark.tone, *markers, at)
            }
            MarkKind::Points { color: values, size, .. } => {
                for i in 0..mark.x.len() {
                    let p = (to_x(mark.x[i]), to_y(mark.y[i]));
                    if !(p.0.is_finite() && p.1.is_finite() && (at.y - 0.5..=at.y + at.h + 0.5).contains(&p.1)) {
                        continue;
                    }
                    let color = match (&c.colors, values.get(i)) {
                        (Some(bar), Some(v)) if v.is_finite() => {
                            let [r, g, b] = bar.map.at((v - bar.range.0) / (bar.range.1 - bar.range.0), false);
                            RGBColor(r, g, b)
                        }
                        (Some(_), Some(_)) => SOFT,
                        _ => color,
                    };
                    self.symbol(p, size.get(i).map_or(4.5, |d| d / 2.0), color, mark.tone)?;
                }
                Ok(())
            }
            MarkKind::Bars { width, overlaid, band, .. } => {
                let base = if panel.y.scale == Scale::Log { at.y + at.h } else { clamped(to_y(0.0)) };
                for (&x, &y) in mark.x.iter().zip(&mark.y).filter(|p| p.1.is_finite()) {
                    let (left, right, y) = (to_x(x - width / 2.0), to_x(x + width / 2.0), clamped(to_y(y)));
                    let air = if right - left > 8.0 { 1.0 } else { 0.0 };
                    let r = Rect { x: left, y: y.min(base), w: (right - left - air).max(0.5), h: (y - base).abs() };
                    if *overlaid {
                        self.veil(r, color)?;
                    } else {
                        self.rect(r, color, true)?;
                    }
                }
                if let Some((low, high)) = band {
                    for (&x, (&low, &high)) in mark.x.iter().zip(low.iter().zip(high)) {
                        if low.is_finite() && high.is_finite() {
                            let x = to_x(x);
                            self.path(&[(x, clamped(to_y(low))), (x, clamped(to_y(high)))], INK, 1.2)?;
                        }
                    }
                }
                Ok(())
            }
            MarkKind::Box(b) => {
                let (x, half) = (to_x(mark.x[0]), (at.w * 0.25 / (c.x.range.1 - c.x.range.0)).min(60.0));
                let [low, q1, median, q3, high] = [b.low, b.q1, b.median, b.q3, b.high].map(|v| clamped(to_y(v)));
                let r = Rect { x: x - half, y: q3, w: 2.0 * half, h: q1 - q3 };
                self.veil(r, color)?;
                for (a, e) in [((x, low), (x, q1)), ((x, q3), (x, high))] {
                    self.path(&[a, e], color, 1.5)?;
                }
                for y in [low, high] {
                    self.path(&[(x - half / 2.0, y), (x + half / 2.0, y)], color, 1.5)?;
                }
                self.path(
                    &[(r.x, r.y), (r.x + r.w, r.y), (r.x + r.w, r.y + r.h), (r.x, r.y + r.h), (r.x, r.y)],
                    color,
                    1.5,
                )?;
                self.path(&[(r.x, median), (r.x + r.w, median)], color, 2.5)?;
                b.outliers.iter().try_for_each(|&v| self.symbol((x, clamped(to_y(v))), 2.6, color, 0))
            }
        }
    }

    /// A rectangle that is seen through, with its outline.
    fn veil(&self, r: Rect, color: RGBColor) -> Result<(), String> {
        let corners = [self.at((r.x, r.y)), self.at((r.x + r.w, r.y + r.h))];
        self.root.draw(&Rectangle::new(corners, color.mix(0.35).filled())).map_err(|e| e.to_string())?;
        self.rect(r, color, false)
    }

    fn band(
        &self,
        low: &[(f64, f64)],
        high: &[(f64, f64)],
        curve: &[(f64, f64)],
        color: RGBColor,
    ) -> Result<(), String> {
        let whole = |i: &usize| [low[*i], high[*i], curve[*i]].iter().all(|p| p.0.is_finite() && p.1.is_finite());
        let at: Vec<usize> = (0..curve.len()).collect();
        for run in at.chunk_by(|a, b| whole(a) == whole(b)).filter(|run| whole(&run[0])) {
            let around = run.iter().map(|&i| self.at(high[i])).chain(run.iter().rev().map(|&i| self.at(low[i])));
            let shape = Polygon::new(around.collect::<Vec<_>>(), color.mix(0.2).filled());
            self.root.draw(&shape).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// A curve, cut to its axes, with gaps where a value is missing; beyond six colours it is dashed.
    fn curve(&self, points: &[(f64, f64)], tone: usize, markers: bool, at: Rect) -> Result<(), String> {
        let color = tone_color(tone);
        let mut run: Vec<(f64, f64)> = Vec::new();
        for &(x, y) in points.iter().chain([&(f64::NAN, f64::NAN)]) {
            if x.is_finite() && y.is_finite() {
                run.push((x, y.clamp(at.y, at.y + at.h)));
                continue;
            }
            for piece in dashes(&run, tone / 6) {
                self.path(&piece, color, 1.6)?;
            }
            if run.len() == 1 || markers {
                for p in &run {
                    self.symbol(*p, 2.6, color, 0)?;
                }
            }
            run.clear();
        }
        Ok(())
    }

    /// A disc, diamond or square of a radius in pixels.
    fn symbol(&self, p: (f64, f64), radius: f64, color: RGBColor, tone: usize) -> Result<(), String> {
        let style = color.filled();
        let corners = |turned: bool| -> Vec<(i32, i32)> {
            let r = radius * if turned { 1.25 } else { 0.9 };
            let around: [(f64, f64); 4] = match turned {
                true => [(0.0, -r), (r, 0.0), (0.0, r), (-r, 0.0)],
                false => [(-r, -r), (r, -r), (r, r), (-r, r)],
            };
            around.map(|(x, y)| self.at((p.0 + x, p.1 + y))).to_vec()
        };
        match tone % 3 {
            0 => self.root.draw(&Circle::new(self.at(p), (radius * self.k).round().max(1.0) as i32, style)),
            1 => self.root.draw(&Polygon::new(corners(true), style)),
            _ => self.root.draw(&Polygon::new(corners(false), style)),
        }
        .map_err(|e| e.to_string())
    }

    /// The names of a legend in rows that fit.
    fn legend_rows<'a>(&self, names: &[(usize, &'a str)], room: f64) -> Vec<Vec<(usize, &'a str, f64)>> {
        let mut rows: Vec<Vec<(usize, &str, f64)>> = Vec::new();
        let mut x = f64::INFINITY;
        for (tone, name) in names {
            let w = 40.0 + self.width(name, 11.5).min(200.0);
            if x + w > room + 18.0 {
                rows.push(Vec::new());
                x = 0.0;
            }
            if let Some(row) = rows.last_mut() {
                row.push((*tone, *name, x));
            }
            x += w;
        }
        rows
    }

    /// The legend above a panel, as many rows as it needs.
    fn legend(&self, names: &[(usize, &str)], at: Rect) -> Result<(), String> {
        let rows = self.legend_rows(names, at.w);
        let top = at.y - rows.len() as f64 * 19.0 + 6.0;
        for (i, row) in rows.iter().enumerate() {
            let y = top + i as f64 * 19.0;
            for (tone, name, x) in row {
                let x = at.x + x;
                for piece in dashes(&[(x, y), (x + 16.0, y)], tone / 6) {
                    self.path(&piece, tone_color(*tone), 3.0)?;
                }
                self.text(name, (x + 21.0, y), 11.5, INK, (HPos::Left, VPos::Center), false, 200.0)?;
            }
        }
        Ok(())
    }
}

/// The named marks of a panel, if there are several to tell apart.
fn legend_of<'a>(c: &Chart, panel: &'a Panel) -> Vec<(usize, &'a str)> {
    let named: Vec<_> = panel.marks.iter().filter(|m| !m.name.is_empty()).map(|m| (m.tone, m.name.as_str())).collect();
    if named.len() > 1 && !c.is_boxes() { named } else { Vec::new() }
}

/// Where an axis has its ticks, in its own scale, and what they say.
fn tick_texts(axis: &Axis, count: usize) -> Vec<(f64, String)> {
    let (lo, hi) = axis.range;
    if axis.scale != Scale::Log {
        return ticks::linear(lo, hi, count.min(8)).into_iter().map(|v| (v, ticks::number(v))).collect();
    }
    let decades = ticks::decades(lo, hi, count);
    if decades.len() > 1 {
        return decades.into_iter().map(|e| (e, ticks::power_of_ten(e))).collect();
    }
    let values = ticks::linear(10f64.powf(lo), 10f64.powf(hi), 4);
    values.into_iter().filter(|v| *v > 0.0).map(|v| (v.log10(), ticks::number(v))).collect()
}

/// A path in pieces: whole, or with gaps of `kind` (dashes, dots, long dashes).
fn dashes(path: &[(f64, f64)], kind: usize) -> Vec<Vec<(f64, f64)>> {
    let (on, off) = match kind % 4 {
        0 => return if path.len() > 1 { vec![path.to_vec()] } else { Vec::new() },
        1 => (7.0, 4.0),
        2 => (2.0, 3.0),
        _ => (12.0, 4.0),
    };
    let mut out: Vec<Vec<(f64, f64)>> = Vec::new();
    let (mut drawn, mut left) = (true, on);
    let mut piece: Vec<(f64, f64)> = path.first().copied().into_iter().collect();
    for pair in path.windows(2) {
        let (mut from, to) = (pair[0], pair[1]);
        loop {
            let length = (to.0 - from.0).hypot(to.1 - from.1);
            if length <= left {
                left -= length;
                piece.push(to);
                break;
            }
            let t = left / length;
            from = (from.0 + (to.0 - from.0) * t, from.1 + (to.1 - from.1) * t);
            piece.push(from);
            if drawn {
                out.push(std::mem::take(&mut piece));
            }
            piece = vec![from];
            drawn = !drawn;
            left = if drawn { on } else { off };
        }
    }
    if drawn && piece.len() > 1 {
        out.push(piece);
    }
    out
}

/// Names of places along a horizontal axis that are `slot` pixels apart; they stand upright where
/// the widest would not fit between two.
struct Names<'a> {
    labels: &'a [String],
    slot: f64,
    widest: f64,
}

impl Names<'_> {
    fn upright(&self) -> bool {
        self.widest > self.slot - 4.0
    }

    /// Pixels that they take below the axis.
    fn height(&self) -> f64 {
        if self.upright() { self.widest.min(150.0) + 14.0 } else { 26.0 }
    }

    /// The places whose names are drawn, so that none touches the next.
    fn shown(&self) -> impl Iterator<Item = usize> + use<> {
        let every = if self.upright() { (13.0 / self.slot).ceil().max(1.0) as usize } else { 1 };
        (0..self.labels.len()).step_by(every)
    }
}

//! Colour maps, each with a variant for dark pages.

/// A colour map for heatmaps.
///
/// Every map has a light and a dark variant in the page; in both, the colour of
/// zero (sequential maps) or of the midpoint (diverging maps) is the colour of
/// the page, so that "nothing here" looks like nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Colorscale {
    /// White to dark blue: the default for values of one sign, such as attention.
    #[default]
    Blues,
    /// Red (low) through white to blue (high), as `plotly.express` has it.
    RdBu,
    /// White to black.
    Greys,
    /// Dark violet through green to yellow; readable with any colour vision.
    Viridis,
}

type Rgb = [u8; 3];

impl Colorscale {
    /// All maps.
    pub const ALL: [Colorscale; 4] = [Self::Blues, Self::RdBu, Self::Greys, Self::Viridis];

    /// The name used in the page: `"blues"`, `"rdbu"`, …
    pub fn name(self) -> &'static str {
        match self {
            Self::Blues => "blues",
            Self::RdBu => "rdbu",
            Self::Greys => "greys",
            Self::Viridis => "viridis",
        }
    }

    /// Evenly spaced colours from low to high.
    pub(crate) fn stops(self, dark: bool) -> &'static [Rgb] {
        match (self, dark) {
            (Self::Blues, false) => &[
                [255, 255, 255],
                [222, 235, 247],
                [189, 215, 238],
                [133, 188, 220],
                [74, 152, 201],
                [30, 108, 178],
                [8, 48, 107],
            ],
            (Self::Blues, true) => &[
                [18, 23, 31],
                [17, 44, 78],
                [21, 73, 130],
                [38, 112, 184],
                [86, 158, 222],
                [150, 203, 245],
                [226, 243, 255],
            ],
            (Self::RdBu, false) => &[
                [103, 0, 31],
                [178, 24, 43],
                [214, 96, 77],
                [244, 165, 130],
                [253, 219, 199],
                [255, 255, 255],
                [209, 229, 240],
                [146, 197, 222],
                [67, 147, 195],
                [33, 102, 172],
                [5, 48, 97],
            ],
            (Self::RdBu, true) => &[
                [255, 196, 170],
                [246, 138, 104],
                [214, 84, 66],
                [150, 44, 46],
                [78, 28, 36],
                [18, 23, 31],
                [20, 44, 78],
                [28, 79, 136],
                [58, 130, 196],
                [120, 182, 230],
                [196, 228, 250],
            ],
            (Self::Greys, false) => &[[255, 255, 255], [150, 150, 150], [0, 0, 0]],
            (Self::Greys, true) => &[[18, 23, 31], [120, 126, 134], [245, 247, 250]],
            (Self::Viridis, _) => &[
                [68, 1, 84],
                [72, 40, 120],
                [62, 74, 137],
                [49, 104, 142],
                [38, 130, 142],
                [31, 158, 137],
                [53, 183, 121],
                [110, 206, 88],
                [181, 222, 43],
                [253, 231, 37],
            ],
        }
    }

    /// The colour at `t` in `[0, 1]`, clamped; not-a-number gives the low end.
    pub(crate) fn at(self, t: f64, dark: bool) -> Rgb {
        let stops = self.stops(dark);
        let last = stops.len() - 1;
        let x = if t.is_nan() { 0.0 } else { t.clamp(0.0, 1.0) } * last as f64;
        let i = (x.floor() as usize).min(last - 1);
        let f = x - i as f64;
        std::array::from_fn(|c| {
            let (a, b) = (f64::from(stops[i][c]), f64::from(stops[i + 1][c]));
            (a + (b - a) * f).round() as u8
        })
    }
}

/// What is drawn where a value may be noise: no colour of a map that has a colour.
pub(crate) const QUIET: Rgb = [226, 229, 233];

/// Whether black can be read better than white on a colour (WCAG luminance).
pub(crate) fn ink_on(rgb: Rgb) -> bool {
    luminance(rgb) > 0.179
}

/// The relative luminance of WCAG 2, 0 to 1.
fn luminance(c: Rgb) -> f64 {
    let lin = |v: u8| {
        let v = f64::from(v) / 255.0;
        if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * lin(c[0]) + 0.7152 * lin(c[1]) + 0.0722 * lin(c[2])
}

/// What is drawn where a value is not finite: not in any map.
pub(crate) const NOT_FINITE: Rgb = [214, 0, 147];

/// Line colours with a contrast of at least 4.5:1 on white, and their partners for dark pages.
pub(crate) const LINES: [&str; 6] = ["#0072B2", "#C44F00", "#00805E", "#AA4488", "#57606A", "#8A6D00"];
/// Line colours with a contrast of at least 7:1 on the dark page.
pub(crate) const LINES_DARK: [&str; 6] = ["#56B4E9", "#E69F00", "#2FBF96", "#E08BBB", "#9AA4AE", "#F0E442"];

/// `#rrggbb` to numbers; anything else is black.
pub(crate) fn parse_hex(hex: &str) -> Rgb {
    let byte = |i: usize| hex.get(i..i + 2).and_then(|s| u8::from_str_radix(s, 16).ok()).unwrap_or(0);
    [byte(1), byte(3), byte(5)]
}

pub(crate) fn to_hex([r, g, b]: Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequential_maps_are_monotone_in_luminance() {
        for map in [Colorscale::Blues, Colorscale::Greys, Colorscale::Viridis] {
            for dark in [false, true] {
                let lum: Vec<f64> = (0..256).map(|i| luminance(map.at(f64::from(i) / 255.0, dark))).collect();
                let up = lum[255] > lum[0];
                for pair in lum.windows(2) {
                    let step = if up { pair[1] - pair[0] } else { pair[0] - pair[1] };
                    assert!(step > -2e-3, "{map:?} dark {dark}: {pair:?}");
                }
            }
        }
    }

    #[test]
    fn ends_and_middle() {
        assert_eq!(Colorscale::Blues.at(0.0, false), [255, 255, 255]);
        assert_eq!(Colorscale::RdBu.at(0.0, false), [103, 0, 31]);
        assert_eq!(Colorscale::RdBu.at(0.5, false), [255, 255, 255]);
        assert_eq!(Colorscale::RdBu.at(1.0, false), [5, 48, 97]);
        assert_eq!(Colorscale::Blues.at(f64::NAN, false), [255, 255, 255]);
        assert_eq!(Colorscale::Blues.at(9.0, false), [8, 48, 107]);
        assert_eq!(Colorscale::Blues.at(0.0, true), Colorscale::RdBu.at(0.5, true));
    }

    #[test]
    fn lines_stand_out_from_the_page() {
        let contrast = |a: f64, b: f64| (a.max(b) + 0.05) / (a.min(b) + 0.05);
        for (light, dark) in LINES.iter().zip(LINES_DARK) {
            assert!(contrast(luminance(parse_hex(light)), 1.0) >= 4.5, "{light}");
            let page = luminance(Colorscale::Blues.at(0.0, true));
            assert!(contrast(luminance(parse_hex(dark)), page) >= 4.5, "{dark}");
        }
    }
}

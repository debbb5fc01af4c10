// Charts: plotly.js is inflated when the first chart comes near, and one chart is drawn at a time.
"use strict";
(() => {
  const root = document.documentElement;
  const report = () => window.__report;
  /** Between two pieces of work the page answers and scrolls. */
  const pause = () => new Promise((go) => setTimeout(go, 0));
  let loading = null;
  function loadPlotly() {
    loading ??= (async () => {
      const packed = document.getElementById("plotly-js");
      const source = new TextDecoder().decode(await Core.inflate(Core.bytes(packed.textContent)));
      await pause();
      const script = document.createElement("script");
      script.textContent = source;
      document.head.append(script);
      if (!window.Plotly) throw new Error("the chart library did not start");
      await pause();
    })();
    return loading;
  }

  function el(tag, props = {}, ...children) {
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children);
    return node;
  }

  /** Packed cells become rows of numbers, null where there is nothing. */
  async function unpack(data) {
    for (const trace of data) {
      if (!trace.z?.packed) continue;
      const info = trace.z;
      const [, rows, cols] = info.shape;
      const flat = Core.values(await Core.inflate(Core.bytes(info.packed)), info);
      const digits = info.codec === "u8" ? 4 : 6;
      trace.z = Array.from({ length: rows }, (_, r) => Array.from({ length: cols }, (_, c) => {
        const v = flat[r * cols + c];
        return Number.isNaN(v) ? null : Number(v.toPrecision(digits));
      }));
    }
    return data;
  }

  /** Data and layout in the colours of a theme ("light" or "dark"). */
  function colored(plot, mode, width) {
    const { spec } = plot;
    const { paint, maps, square } = spec.ironlens;
    const { lines, maps: palettes, ui } = report().palette;
    const c = ui[mode];
    const layout = structuredClone(spec.layout);
    const data = plot.data.map((trace, i) => {
      const out = { ...trace };
      const p = paint[i] ?? {};
      if (p.tone !== undefined) {
        const tone = lines[mode][p.tone % lines[mode].length];
        out.marker = { ...trace.marker, color: tone };
        out.line = { ...trace.line, color: tone };
        if (trace.type === "box") out.fillcolor = tone + "40";
        if (trace.type === "bar") delete out.line;
        if (trace.error_y) out.error_y = { ...trace.error_y, color: c.soft };
      } else if (p.band !== undefined) {
        out.fillcolor = lines[mode][p.band % lines[mode].length] + "33";
      } else if (p.mask) out.colorscale = [[0, c.mask], [1, c.mask]];
      else if (p.quiet) out.colorscale = [[0, c.quiet], [1, c.quiet]];
      else if (p.rule) out.line = { ...trace.line, color: c.soft };
      return out;
    });
    const cells = paint.some((p) => p?.cells);
    layout.paper_bgcolor = c.page;
    layout.plot_bgcolor = cells ? c.page : c.panel;
    layout.font = { ...layout.font, color: c.ink, family: getComputedStyle(root).fontFamily };
    layout.hoverlabel = { bgcolor: c.raised, bordercolor: c.line, font: { color: c.ink } };
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: c.soft, activecolor: c.accent };
    layout.uirevision = "kept"; // zoom and hidden curves outlive a change of theme
    layout.colorway = lines[mode];
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(key)) {
        layout[key] = { gridcolor: c.grid, linecolor: c.line, tickcolor: c.line, spikecolor: c.soft, ...layout[key] };
        if (cells) Object.assign(layout[key], { showline: true, mirror: true });
      } else if (/^coloraxis\d*$/.test(key) && maps[key]) {
        const stops = palettes[maps[key]][mode];
        layout[key].colorscale = stops.map((color, i) => [i / (stops.length - 1), color]);
      }
    }
    if (plot.cursor !== null) layout.shapes = withCursor(plot, mode);
    if (width) {
      // Asking for room beforehand draws every chart twice, and hiding labels at its edge takes as long as all else:
      // room is made where a label is cut off (`fit`).
      for (const key of Object.keys(layout)) if (/^[xy]axis/.test(key)) Object.assign(layout[key], { automargin: false, ticklabeloverflow: "allow" });
    }
    if (square && width) {
      // Square cells: a narrower page needs less height.
      const ratio = width / spec.ironlens.width;
      if (ratio < 1) layout.height = Math.max(220, Math.round(layout.height * ratio + 40 * (1 - ratio)));
    }
    if (width && width < 480) {
      layout.margin = { ...layout.margin, l: 48, r: 8 };
      layout.font.size = 11;
      for (const key of Object.keys(layout)) {
        if (/^coloraxis/.test(key)) layout[key].colorbar = { ...layout[key].colorbar, thickness: 10, tickfont: { size: 10 } };
      }
    }
    if (width) {
      layout.margin = withRoom(layout.margin, plot.room);
      for (const [axis, domain] of Object.entries(plot.domains)) layout[axis].domain = domain;
    }
    return { data, layout };
  }
  /** The shapes of a chart and an upright line at the step that is chosen. */
  function withCursor(plot, mode) {
    const line = { color: report().palette.ui[mode].accent, width: 2, dash: "dot" };
    return [...(plot.spec.layout.shapes ?? []), { type: "line", xref: "x", yref: "paper", x0: plot.cursor, x1: plot.cursor, y0: 0, y1: 1, line }];
  }
  const withRoom = (margin, room) => Object.fromEntries(Object.entries(margin).map(([side, n]) => [side, n + room[side]]));
  const mode = () => (report().isDark() ? "dark" : "light");
  const config = (plot) => ({
    ...plot.spec.config,
    // Maps are zoomed by a drag inside; handles at every edge are most of the nodes of many small ones.
    ...(plot.spec.ironlens.paint.some((p) => p?.cells) ? { showAxisDragHandles: false } : {}),
    ...(plot.div.clientWidth < 420 ? { displayModeBar: false } : {}),
  });

  /** Makes a frame what the chart shows: its data, and the layout and marks that go with them. */
  function turn(plot, i) {
    const { whole } = plot;
    const frame = whole.frames?.[i];
    plot.frame = i;
    plot.data = frame ? frame.data : whole.data;
    plot.spec = frame ? { ...whole, layout: frame.layout, ironlens: { ...whole.ironlens, paint: frame.paint, maps: frame.maps } } : whole;
  }
  function read(div) {
    const plot = { div, spec: null, data: null, drawn: null, frame: 0, cursor: null, nodes: 0, room: { l: 0, r: 0, t: 0, b: 0 }, domains: {} };
    plot.load = () => (plot.loading ??= (async () => {
      const spec = await Core.json(document.getElementById(div.dataset.plot));
      await unpack(spec.frames ? spec.frames.flatMap((f) => f.data) : spec.data);
      plot.whole = spec;
      turn(plot, plot.frame);
    })());
    plot.draw = () => (plot.drawn ??= draw(plot));
    return plot;
  }
  const plots = [...document.querySelectorAll("[data-plot]")].map(read);

  async function draw(plot) {
    const { div } = plot;
    try {
      await Promise.all([loadPlotly(), plot.load()]);
      const { spec } = plot;
      const { width, minWidth, stretched, paint } = spec.ironlens;
      if (minWidth) div.style.minWidth = `${Math.min(minWidth, width)}px`;
      div.style.maxWidth = `${!stretched && paint.some((p) => p?.cells) ? width : Math.max(width, 1100)}px`;
      const { data, layout } = colored(plot, mode(), div.clientWidth);
      await pause();
      div.style.minHeight = "";
      await Plotly.newPlot(div, data, layout, config(plot));
      await pause();
      await fit(plot);
      names(plot);
      document.getElementById("js-plotly-tester")?.setAttribute("aria-hidden", "true"); // where the library measures text
      div.on("plotly_click", (event) => {
        const point = event.points[0];
        const at = Array.isArray(point.pointIndex) ? point.pointIndex[0] * plot.data[point.curveNumber].z[0].length + point.pointIndex[1] : point.pointIndex;
        choose(plot, plot.data[point.curveNumber], at);
      });
      if (!div.closest("figure").classList.contains("ready")) tools(plot);
      div.classList.add("drawn");
      keepFew(plot);
      document.dispatchEvent(new CustomEvent("drawn"));
    } catch (error) {
      div.textContent = `This chart could not be drawn: ${error.message}. A current browser is needed.`;
      div.classList.add("failed");
      root.classList.remove("js"); // the pictures are there
    }
  }
  /** Labels that the edge of a chart cuts off get room, at most two fifths of it on a side. */
  async function fit(plot) {
    const { div, room } = plot;
    const edge = div.querySelector(".main-svg").getBoundingClientRect();
    const more = { l: 0, r: 0, t: 0, b: 0 };
    for (const text of div.querySelectorAll(".cartesianlayer text, .infolayer > [class^=g-] text")) {
      const { left, right, top, bottom, width } = text.getBoundingClientRect();
      if (!width) continue;
      const over = { l: edge.left - left, r: right - edge.right, t: edge.top - top, b: bottom - edge.bottom };
      for (const side of Object.keys(more)) if (over[side] > 1) more[side] = Math.max(more[side], Math.ceil(over[side]) + 4);
    }
    // A title is moved away from its labels, but not over the edge: there it would lie on them.
    for (const group of div.querySelectorAll(".infolayer > [class^=g-]")) {
      const [, axis, letter] = /^g-(([xy])\d*)title$/.exec(group.classList[0]) ?? [];
      if (!axis) continue;
      const own = group.getBoundingClientRect();
      const labels = [...div.querySelectorAll(`.${axis}tick text`)].map((text) => text.getBoundingClientRect());
      if (!own.width || !labels.length) continue;
      const [side, lies] = letter === "y" ? ["l", own.right - Math.min(...labels.map((b) => b.left))]
        : ["b", Math.max(...labels.map((b) => b.bottom)) - own.top];
      if (lies > 0) more[side] = Math.max(more[side], Math.ceil(lies) + 4);
    }
    const { margin: had } = div.layout;
    for (const side of Object.keys(more)) {
      const most = 0.4 * (side === "l" || side === "r" ? edge.width : edge.height) - had[side];
      more[side] = Math.max(0, Math.min(more[side], Math.floor(most)));
    }
    const change = belowLegends(plot);
    if (Object.values(more).some(Boolean)) change.margin = withRoom(had, more);
    if (!Object.keys(change).length) return;
    for (const side of Object.keys(room)) room[side] += more[side];
    await pause();
    await Plotly.relayout(div, change);
  }
  /** A legend between two panels that takes several rows needs more than their gap: the panel above it ends earlier. */
  function belowLegends(plot) {
    const { div, domains } = plot;
    const { t, h } = div._fullLayout._size;
    const change = {};
    for (const legend of div.querySelectorAll(".infolayer > :is(g.legend2, g.legend3, g.legend4)")) {
      const own = legend.getBoundingClientRect();
      const top = 1 - (own.top - div.getBoundingClientRect().top - t) / h;
      for (const key of Object.keys(div.layout).filter((name) => /^yaxis/.test(name))) {
        const [from, to] = div.layout[key].domain;
        if (own.height && from < top && to > top + 0.05) change[`${key}.domain`] = domains[key] = [top + 0.02, to];
      }
    }
    return change;
  }
  /** Charts far from view become empty again, so that a long page stays light; they are drawn anew when near. */
  const MOST_NODES = 2000;
  const drawnPlots = new Set();
  function keepFew(latest) {
    latest.nodes = latest.div.getElementsByTagName("*").length;
    drawnPlots.add(latest);
    if (window.parent !== window) return;
    while ([...drawnPlots].reduce((sum, p) => sum + p.nodes, 0) > MOST_NODES && empty(latest));
  }
  /** Empties the chart that is furthest from view, if there is one out of it. */
  function empty(latest) {
    const away = (plot) => {
      const { top, bottom } = plot.div.getBoundingClientRect();
      return Math.max(top - innerHeight, -bottom);
    };
    const far = [...drawnPlots].filter((p) => p !== latest).reduce((a, b) => (a && away(a) >= away(b) ? a : b), null);
    if (!far || away(far) < 900) return false;
    drawnPlots.delete(far);
    far.div.style.minHeight = `${far.div.offsetHeight}px`;
    Plotly.purge(far.div);
    far.div.classList.remove("drawn");
    far.drawn = null;
    near.observe(far.div);
    return true;
  }
  function react(plot) {
    const { data, layout } = colored(plot, mode(), plot.div.clientWidth);
    return Plotly.react(plot.div, data, layout, config(plot));
  }

  // --- One selection for the page: a cell of a head chooses the head, a step its snapshot ---
  function choose(plot, trace, at) {
    const { open, meta } = report();
    if (!open) return false;
    const { step, ...change } = Core.selects(plot.spec, trace, at);
    if (step !== undefined && meta.snapshots.length > 1) {
      const away = (i) => Math.abs(meta.snapshots[i].step - step);
      Object.assign(change, { s: meta.snapshots.reduce((best, _, i) => (away(i) < away(best) ? i : best), 0), e: null });
    }
    if (!Object.keys(change).length) return false;
    open(change, plot.div.closest("figure").id);
    return true;
  }
  document.addEventListener("selected", () => {
    const { state, meta } = report();
    if (!meta) return;
    const step = state.e === null ? meta.snapshots[state.s]?.step : undefined;
    for (const plot of plots) {
      if (!plot.div.closest("[data-cursor]") || meta.snapshots.length < 3) continue;
      plot.cursor = step ?? null;
      if (!plot.div.classList.contains("drawn")) continue;
      const now = mode();
      Plotly.relayout(plot.div, { shapes: step === undefined ? plot.spec.layout.shapes ?? [] : withCursor(plot, now) });
    }
  });

  // --- One chart at a time, those in view first ------------------------------------------
  const waiting = new Set();
  let working = false;
  async function work() {
    if (working) return;
    working = true;
    while (waiting.size) {
      const plot = waiting.values().next().value;
      waiting.delete(plot);
      // Between two charts the page answers and scrolls.
      await new Promise((go) => ("requestIdleCallback" in window ? requestIdleCallback(go, { timeout: 200 }) : setTimeout(go, 16)));
      await plot.draw();
    }
    working = false;
  }
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      near.unobserve(entry.target);
      waiting.add(plots.find((plot) => plot.div === entry.target));
    }
    work();
  }, { rootMargin: "900px" });
  document.addEventListener("pageready", () => {
    // A notebook's frame has no height until it is drawn, so nothing of it ever comes into view.
    if (window.parent !== window) { plots.forEach((plot) => waiting.add(plot)); work(); } else for (const plot of plots) near.observe(plot.div);
  });
  document.addEventListener("themechange", () => { for (const plot of plots) if (plot.div.classList.contains("drawn")) react(plot); });

  // --- Names, so that a screen reader meets one thing with a sentence -------------------
  function title(plot) {
    return plot.div.closest("figure")?.querySelector("[id$='-title']")?.textContent ?? "chart";
  }
  function names(plot) {
    const { div } = plot;
    div.tabIndex = 0;
    div.setAttribute("role", "application");
    div.setAttribute("aria-roledescription", "chart");
    div.setAttribute("aria-label", `${title(plot)}. ${Core.summary(plot.spec, plot.data)}${plot.data.every((t) => t.type === "box") ? "" : " Arrow keys read it point by point."}${report().open ? " Enter chooses what a point stands for on the whole page." : ""}`);
    for (const part of div.children) part.setAttribute("aria-hidden", "true");
    for (const link of div.querySelectorAll("a.modebar-btn")) { link.setAttribute("tabindex", "-1"); link.removeAttribute("href"); }
  }

  // --- Tools below a chart: frames, files, numbers, keys -------------------------------
  function tools(plot) {
    const { div, spec } = plot;
    const figure = div.closest("figure");
    const files = el("details", { className: "files" }, el("summary", { textContent: "Save" }));
    files.firstChild.setAttribute("aria-label", `Save ${title(plot)}`);
    files.addEventListener("toggle", () => files.append(menu(plot)), { once: true });
    const row = el("div", { className: "bar tools" });
    if (spec.frames) div.closest(".plot-scroll").after(el("div", { className: "bar tools" }, ...player(plot)));
    const numbers = el("div", { className: "numbers", hidden: true });
    const toggle = el("button", { type: "button", textContent: "Numbers", onclick: () => {
      numbers.hidden = !numbers.hidden;
      toggle.setAttribute("aria-expanded", String(!numbers.hidden));
      if (!numbers.hidden) table(plot, numbers);
    } });
    toggle.setAttribute("aria-expanded", "false");
    toggle.setAttribute("aria-label", `Numbers of ${title(plot)}`);
    row.append(toggle);
    row.append(files);
    // The choices close when they lose the reader.
    files.addEventListener("focusout", (event) => { if (!files.contains(event.relatedTarget)) files.open = false; });
    files.addEventListener("keydown", (event) => { if (event.key === "Escape") { files.open = false; files.firstChild.focus(); } });
    const heading = figure.querySelector("[id$='-title']");
    const top = el("div", { className: "figure-top" });
    heading.before(top);
    top.append(heading, row);
    figure.append(numbers);
    keys(plot, figure);
    figure.classList.add("ready");
  }
  /** What a chart can be saved as. */
  function menu(plot) {
    const text = (type, text) => file(new Blob([text], { type }), plot, type.split("/")[1]);
    const kinds = {
      PNG: () => picture(plot, "png"),
      SVG: () => picture(plot, "svg"),
      CSV: async () => text("text/csv", Core.tracesCsv(plot.spec, plot.data)),
      JSON: async () => text("application/json", JSON.stringify(plot.whole)),
    };
    return el("div", { className: "menu" }, ...Object.entries(kinds).map(([label, act]) => {
      const button = el("button", { type: "button", textContent: label, onclick: () => act().catch(() => { button.textContent = `${label}: failed`; }) });
      button.setAttribute("aria-label", `${label} of ${title(plot)}`);
      return button;
    }));
  }
  function table(plot, details) {
    details.querySelector(".table-wrap")?.remove();
    const rows = Core.tracesCsv(plot.spec, plot.data).trimEnd().split("\n").map(Core.csvRow);
    const cell = (tag) => (text) => el(tag, { textContent: text });
    const wrap = el("div", { className: "table-wrap", tabIndex: 0 }, el("table", {},
      el("thead", {}, el("tr", {}, ...rows[0].map(cell("th")))),
      el("tbody", {}, ...rows.slice(1, 201).map((r) => el("tr", {}, ...r.map(cell("td")))))));
    wrap.setAttribute("role", "region");
    wrap.setAttribute("aria-label", `Numbers of ${title(plot)}`);
    details.append(wrap);
    if (rows.length > 201) wrap.append(el("p", { className: "hint", textContent: `The first 200 of ${rows.length - 1} rows; the CSV has all.` }));
  }
  function player(plot) {
    const { frames } = plot.spec;
    const slider = el("input", { type: "range", min: 0, max: frames.length - 1, step: 1, value: plot.frame });
    slider.setAttribute("aria-label", "Frame");
    const shown = el("output");
    const show = (i) => {
      turn(plot, i);
      slider.value = i;
      shown.textContent = `${frames[i].name} (${i + 1} of ${frames.length})`;
      slider.setAttribute("aria-valuetext", frames[i].name);
      plot.redrawn = react(plot);
    };
    slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
    let timer = null;
    const play = el("button", { type: "button", textContent: "Play" });
    const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
    play.addEventListener("click", () => {
      if (timer) return stop();
      if (plot.frame === frames.length - 1) show(0);
      play.textContent = "Stop";
      timer = setInterval(() => (plot.frame < frames.length - 1 ? show(plot.frame + 1) : stop()), 600);
    });
    shown.textContent = `${frames[plot.frame].name} (${plot.frame + 1} of ${frames.length})`;
    plot.show = show;
    return [play, slider, shown];
  }
  function keys(plot, row) {
    const { div } = plot;
    const told = el("output", { className: "told" });
    told.setAttribute("aria-live", "polite");
    div.closest(".plot-scroll").after(told);
    let [curve, at] = [0, -1];
    const shown = () => plot.data.map((t, i) => [t, i])
      .filter(([t, i]) => Core.isShown(plot.spec, t, i) && (t.z || (t.y && t.type !== "box")));
    div.addEventListener("keydown", (event) => {
      const traces = shown();
      if (!traces.length) return;
      const [trace, index] = traces[curve = Math.min(curve, traces.length - 1)];
      const width = trace.z ? trace.z[0].length : 1;
      const count = trace.z ? trace.z.length * width : trace.y.length;
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: trace.z ? width : 0, ArrowUp: trace.z ? -width : 0 }[event.key];
      if (step) at = Math.max(0, Math.min(count - 1, at + step));
      else if (event.key === "Home") at = 0;
      else if (event.key === "End") at = count - 1;
      else if (event.key === "PageDown" || event.key === "PageUp") {
        curve = (curve + (event.key === "PageDown" ? 1 : traces.length - 1)) % traces.length;
        at = 0;
      } else if (event.key === "Enter" && at >= 0) {
        if (choose(plot, trace, at)) event.preventDefault();
        return;
      } else if (event.key === "Escape") { Plotly.Fx.unhover(div); told.textContent = ""; return; } else return;
      event.preventDefault();
      const [now, i] = traces[curve] ?? [trace, index];
      told.textContent = Core.describe(plot.spec, now, at);
      const point = now.z ? [Math.floor(at / now.z[0].length), at % now.z[0].length] : at;
      try {
        const subplot = `${now.xaxis ?? "x"}${now.yaxis ?? "y"}`;
        Plotly.Fx.hover(div, [{ curveNumber: i, pointNumber: point }], subplot);
      } catch { /* the text says it */ }
    });
  }

  // --- Files -------------------------------------------------------------------------------
  function file(blob, plot, extension) {
    const link = el("a", { href: URL.createObjectURL(blob), download: `${plot.spec.ironlens.name}.${extension}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  /** The chart as it is zoomed, in light colours on white, at its full size. */
  async function picture(plot, format) {
    const { data, layout } = colored(plot, "light", 0);
    const [width, height] = [plot.spec.ironlens.width, layout.height];
    const shown = plot.div.layout ?? {};
    for (const key of Object.keys(shown)) {
      if (/^[xy]axis\d*$/.test(key) && shown[key].range && layout[key]) layout[key] = { ...layout[key], range: [...shown[key].range], autorange: false };
    }
    plot.div.data?.forEach((trace, i) => { if (trace.visible !== undefined && data[i]) data[i].visible = trace.visible; });
    layout.paper_bgcolor = "#ffffff";
    const name = title(plot);
    if (name !== "Figure") {
      layout.title = { text: name.replace(/&/g, "&amp;").replace(/</g, "&lt;"), font: { size: 16 }, x: 0.5, y: 0.99, yanchor: "top" };
      layout.margin = { ...layout.margin, t: (layout.margin.t ?? 40) + 26 };
    }
    const url = await Plotly.toImage({ data, layout: { ...layout, width, height: height + 26 }, config: {} }, { format, width, height: height + 26, scale: format === "png" ? 2 : 1 });
    const comma = url.indexOf(",");
    const blob = format === "svg"
      ? new Blob([decodeURIComponent(url.slice(comma + 1))], { type: "image/svg+xml" })
      : new Blob([Core.bytes(url.slice(comma + 1))], { type: "image/png" });
    file(blob, plot, format);
  }

  document.addEventListener("pageready", () => {
    Object.assign(report(), { plots, drawAll: async () => { for (const plot of plots) await plot.draw(); } });
  });
})();

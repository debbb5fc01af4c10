// Theme, charts, tables: everything of the page but the attention explorer.
"use strict";
(() => {
  const root = document.documentElement;
  const palette = JSON.parse(document.getElementById("palette").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let printing = false;

  // --- Theme: the system's, unless chosen here -------------------------------------------
  function store(value) {
    try {
      if (value === undefined) return localStorage.getItem("ironlens-theme");
      localStorage.setItem("ironlens-theme", value);
    } catch { /* a page opened from a file may have no storage */ }
    return null;
  }
  const kept = store();
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  function isDark() {
    if (printing) return false;
    return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  }
  function themed() {
    const button = document.getElementById("theme");
    if (button) button.setAttribute("aria-pressed", String(isDark()));
    redraw();
    document.dispatchEvent(new CustomEvent("themechange"));
  }
  function toggleTheme() {
    root.dataset.theme = isDark() ? "light" : "dark";
    store(root.dataset.theme);
    themed();
  }
  dark.addEventListener("change", themed);
  document.getElementById("theme")?.addEventListener("click", toggleTheme);

  // --- Charts: plotly.js is inflated when the first chart comes near ----------------------
  const plots = [...document.querySelectorAll("[data-plot]")].map((div) => ({
    div, spec: JSON.parse(document.getElementById(div.dataset.plot).textContent), drawn: false,
  }));
  let loading = null;
  function loadPlotly() {
    loading ??= (async () => {
      const packed = document.getElementById("plotly-js");
      const source = new TextDecoder().decode(await Core.inflate(Core.bytes(packed.textContent)));
      const script = document.createElement("script");
      script.textContent = source;
      document.head.append(script);
      if (!window.Plotly) throw new Error("the chart library did not start");
    })();
    return loading;
  }
  function colored(spec, width) {
    const css = getComputedStyle(root);
    const color = (name) => css.getPropertyValue(name).trim();
    const mode = isDark() ? "dark" : "light";
    const data = structuredClone(spec.data);
    const layout = structuredClone(spec.layout);
    const { extra } = spec.ironlens;
    const lines = palette.lines[mode];
    data.forEach((trace, i) => {
      if (!extra.tones) return;
      const tone = lines[extra.tones[i] % lines.length];
      if (trace.type === "bar") trace.marker = { ...trace.marker, color: tone };
      else trace.line = { ...trace.line, color: tone };
    });
    layout.paper_bgcolor = "rgba(0,0,0,0)";
    layout.plot_bgcolor = extra.colors ? color("--page") : color("--panel");
    layout.font = { ...layout.font, color: color("--ink"), family: css.fontFamily };
    layout.hoverlabel = { bgcolor: color("--raised"), bordercolor: color("--line"), font: { color: color("--ink") } };
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: color("--line"), activecolor: color("--accent") };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(key)) {
        Object.assign(layout[key], { gridcolor: color("--grid"), linecolor: color("--line"), tickcolor: color("--line"), spikecolor: color("--soft") });
        if (extra.colors) Object.assign(layout[key], { showline: true, mirror: true });
      }
    }
    if (extra.colors) {
      const stops = palette.maps[extra.colors][mode];
      layout.coloraxis.colorscale = stops.map((c, i) => [i / (stops.length - 1), c]);
      // Square cells: a narrower page needs less height.
      const ratio = width / spec.ironlens.width;
      if (ratio < 1 && spec.ironlens.rows === 1) layout.height = Math.max(220, Math.round(layout.height * ratio + 40 * (1 - ratio)));
    }
    if (width < 480) {
      layout.margin = { ...layout.margin, l: 48, r: 8 };
      layout.font.size = 11;
    }
    return { data, layout };
  }
  /** On a narrow page the buttons would cover the legend. */
  function config(plot) {
    return { ...plot.spec.config, ...(plot.div.clientWidth < 420 ? { displayModeBar: false } : {}) };
  }
  async function draw(plot) {
    if (plot.drawn) return;
    plot.drawn = true;
    try {
      await loadPlotly();
      const { width, minWidth } = plot.spec.ironlens;
      if (minWidth) plot.div.style.minWidth = `${minWidth}px`;
      if (plot.spec.ironlens.extra.colors) plot.div.style.maxWidth = `${width}px`;
      const { data, layout } = colored(plot.spec, plot.div.clientWidth);
      plot.div.style.minHeight = "";
      await Plotly.newPlot(plot.div, data, layout, config(plot));
    } catch (error) {
      plot.div.textContent = `This chart could not be drawn: ${error.message}. A current browser is needed.`;
      plot.div.classList.add("failed");
    }
  }
  function redraw() {
    for (const plot of plots) {
      if (!plot.drawn || !window.Plotly || !plot.div.data) continue;
      const { data, layout } = colored(plot.spec, plot.div.clientWidth);
      Plotly.react(plot.div, data, layout, config(plot));
    }
  }
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      near.unobserve(entry.target);
      draw(plots.find((plot) => plot.div === entry.target));
    }
  }, { rootMargin: "600px" });
  for (const plot of plots) near.observe(plot.div);

  // --- Tables: filter and sort ------------------------------------------------------------
  for (const input of document.querySelectorAll("input[data-filter]")) {
    const table = document.getElementById(input.dataset.filter);
    const count = input.closest(".bar").querySelector("output");
    const rows = [...table.tBodies[0].rows];
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
        shown += row.hidden ? 0 : 1;
      }
      if (count) count.textContent = `${shown} of ${rows.length}`;
    };
    input.addEventListener("input", apply);
    apply();
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.append(...head.childNodes);
      button.type = "button";
      head.append(button);
      button.addEventListener("click", () => {
        const was = head.getAttribute("aria-sort");
        const now = was === "ascending" ? "descending" : was === "descending" ? null : "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        if (now) head.setAttribute("aria-sort", now);
        const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent;
        const order = now === "descending" ? -1 : 1;
        const sorted = now ? [...original].sort((a, b) => {
          const [x, y] = [key(a), key(b)];
          const [m, n] = [Number(x), Number(y)];
          return order * (Number.isNaN(m) || Number.isNaN(n) ? x.localeCompare(y) : m - n);
        }) : original;
        body.append(...sorted);
      });
    });
  }

  // --- Copy buttons -----------------------------------------------------------------------
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      let done = false;
      try {
        await navigator.clipboard.writeText(source.textContent);
        done = true;
      } catch {
        const range = document.createRange();
        range.selectNodeContents(source);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        try { done = document.execCommand("copy"); } catch { /* left selected for the reader */ }
      }
      const label = button.textContent;
      button.textContent = done ? "Copied" : "Selected";
      setTimeout(() => { button.textContent = label; }, 1200);
    });
  }

  // --- Print: light, everything open and drawn --------------------------------------------
  addEventListener("beforeprint", () => {
    printing = true;
    for (const details of document.querySelectorAll("details:not([open])")) {
      details.open = true;
      details.dataset.reopened = "";
    }
    themed();
    plots.forEach(draw);
  });
  addEventListener("afterprint", () => {
    printing = false;
    for (const details of document.querySelectorAll("details[data-reopened]")) {
      details.open = false;
      delete details.dataset.reopened;
    }
    themed();
  });

  window.__report = Object.assign(window.__report ?? {}, {
    palette, isDark, toggleTheme, drawAll: () => Promise.all(plots.map(draw)),
  });
  document.dispatchEvent(new CustomEvent("pageready"));
})();

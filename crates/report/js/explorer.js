// The attention explorer: layers x heads thumbnails, one large pattern, its tokens,
// its offset profile. One state, and every part draws from it.
"use strict";
var Explorer = (() => {
  const DIFFERENCE = "difference";

  /** Patterns by snapshot and layer, decoded when first asked for. */
  class Patterns {
    constructor(meta) {
      this.meta = meta;
      this.cache = new Map();
    }
    info(s, l) { return this.meta.arrays[s * this.meta.layers + l]; }
    async load(s, l) {
      const key = `${s}-${l}`;
      if (!this.cache.has(key)) {
        const info = this.info(s, l);
        const text = document.getElementById(info.id).textContent;
        this.cache.set(key, Core.inflate(Core.bytes(text)).then((raw) => Core.values(raw, info)));
      }
      return this.cache.get(key);
    }
    /** The head's values as { at(d, s), max, error }; null where the mask hides a cell. */
    async head(snapshot, l, h) {
      const last = this.meta.snapshots.length - 1;
      const [a, b] = snapshot === DIFFERENCE
        ? await Promise.all([this.load(last, l), this.load(0, l)])
        : [await this.load(snapshot, l), null];
      const info = this.info(b ? last : snapshot, l);
      const before = b ? this.info(0, l) : info;
      const [, dest, src] = info.shape;
      const base = h * dest * src;
      // Causal only if both are: else a cell stored in one of them would be hidden.
      const masked = info.causal && before.causal;
      // Cells that a causal one did not store are 0 beside one that has them.
      const read = (values, i, own, behind) => (own.causal && behind ? 0 : values[i]);
      const at = (d, s) => {
        if (masked && s > d) return null;
        const i = base + d * src + s;
        return b ? read(a, i, info, s > d) - read(b, i, before, s > d) : read(a, i, info, s > d);
      };
      return { at, dest, src, signed: Boolean(b) || info.lo < 0, error: info.error + (b ? before.error : 0) };
    }
  }

  function el(tag, props = {}, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(props)) {
      if (key === "class") node.className = value;
      else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (key in node && key !== "list") node[key] = value;
      else node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  }

  function start(root) {
    const meta = JSON.parse(document.getElementById(`${root.id}-meta`).textContent);
    const linked = root.dataset.linked !== undefined;
    const patterns = new Patterns(meta);
    const count = meta.snapshots.length;
    const heads = meta.arrays.slice(0, meta.layers).map((a) => a.shape[0]);
    const examples = meta.examples ?? [];
    let [, dest, src] = meta.arrays[0].shape;
    let tokens = meta.tokens ? meta.tokens.map(Core.tokenText) : null;

    // --- State: what is chosen, what is only looked at -------------------------------------
    const headName = (L, H) => meta.names?.[L]?.[H] ?? `L${L}H${H}`;
    const state = { s: count - 1, e: null, L: 0, H: 0, d: Math.floor(dest * 0.75), k: null, scale: "full", dir: "dest", at: null, locked: false };
    // A page of several runs has them in the place of one run's snapshots.
    const difference = meta.runs ? "last run − first" : "after − before";
    /** Which patterns are shown: an example's lie behind those of the snapshots. */
    const shownAt = () => (state.e === null ? state.s : count + state.e);
    const where = () => (state.e !== null ? examples[state.e].label : state.s === DIFFERENCE ? difference : meta.snapshots[state.s].label);
    let preview = null; // a head under the pointer: { L, H }
    let cell = null; // a cell under the pointer: { d, s }

    /** With scores known, the first head shown is the one with the clearest role. */
    function bestHead() {
      if (meta.roles?.length) return { L: meta.roles[0][0], H: meta.roles[0][1], v: 1 };
      let best = { L: 0, H: 0, v: -Infinity };
      // Without detectors, the head with most of what the first analysis measured.
      if (!meta.detectors.length && meta.facts?.length) {
        meta.facts[0].values.forEach((row, L) => row.forEach((v, H) => {
          if (L < meta.layers && H < heads[L] && v > best.v) best = { L, H, v };
        }));
      }
      for (const detector of meta.detectors) {
        if (/current|self/i.test(detector.name)) continue;
        detector.after.forEach((row, L) => row.forEach((v, H) => {
          if (L < meta.layers && H < heads[L] && v > best.v) best = { L, H, v };
        }));
      }
      return best;
    }
    function readHash() {
      if (!linked) return false;
      const hash = Core.parseHash(location.hash);
      const int = (text, n, otherwise) => {
        const v = Number.parseInt(text, 10);
        return v >= 0 && v < n ? v : otherwise;
      };
      if (hash.s === DIFFERENCE && count > 1) state.s = DIFFERENCE;
      else if (hash.s !== undefined) {
        const named = meta.snapshots.findIndex((x) => x.label === hash.s);
        if (named >= 0) state.s = named;
      }
      if (hash.e !== undefined) state.e = int(hash.e, examples.length, null);
      else if (hash.s !== undefined) state.e = null;
      if (hash.at) state.at = hash.at;
      state.L = int(hash.L, meta.layers, state.L);
      state.H = int(hash.H, heads[state.L], Math.min(state.H, heads[state.L] - 1));
      state.d = int(hash.d, dest, state.d);
      state.k = int(hash.k, src, state.k);
      if (["full", "fit", "log"].includes(hash.c)) state.scale = hash.c;
      if (["dest", "src"].includes(hash.dir)) state.dir = hash.dir;
      const told = hash.L !== undefined || hash.H !== undefined;
      if (told) state.locked = true;
      return told;
    }
    let own = "";
    function writeHash() {
      if (!linked) return;
      const label = state.s === DIFFERENCE ? DIFFERENCE : meta.snapshots[state.s].label;
      own = Core.formatHash({ at: state.at, s: label, e: state.e, L: state.L, H: state.H, d: state.d, k: state.k,
        c: state.scale === "full" ? null : state.scale, dir: state.dir === "dest" ? null : state.dir });
      try { history.replaceState(null, "", own); } catch { /* not allowed in a frame: the link is a nicety */ }
    }
    const head = () => preview ?? { L: state.L, H: state.H };

    // --- Parts ------------------------------------------------------------------------------
    root.textContent = "";
    const buttons = new Map();
    const choices = el("fieldset", {}, el("legend", {}, meta.runs ? "Run" : "Snapshot"));
    const shown = count <= 4 ? meta.snapshots.map((_, i) => i) : [0, count - 1];
    for (const i of shown) addChoice(i, meta.snapshots[i].label || `step ${meta.snapshots[i].step}`);
    if (count > 1) addChoice(DIFFERENCE, "difference");
    choices.hidden = count < 2;
    function addChoice(value, label) {
      const button = el("button", { type: "button", onclick: () => set({ s: value, e: null }) }, label);
      buttons.set(value, button);
      choices.append(button);
    }
    const slider = el("input", { type: "range", min: 0, max: count - 1, value: count - 1, step: 1,
      oninput: () => set({ s: Number(slider.value), e: null }) });
    slider.setAttribute("aria-label", meta.runs ? "Run" : "Snapshot by step of training");
    const sliderText = el("output");
    const scale = el("select", { onchange: () => set({ scale: scale.value }) },
      el("option", { value: "full" }, "0 to 1"), el("option", { value: "fit" }, "fit to head"), el("option", { value: "log" }, "logarithmic"));
    const sequence = el("select", { onchange: () => set({ e: sequence.value === "" ? null : Number(sequence.value) }) },
      el("option", { value: "" }, count > 1 || meta.source !== meta.snapshots[0].label ? "mean of many" : meta.snapshots[0].label),
      ...examples.map((e, i) => el("option", { value: i }, e.label)));
    if (count === 1 && meta.tokens) sequence.options[0].textContent = meta.snapshots[0].label;
    const bar = el("div", { class: "bar" }, choices,
      ...(count > 2 ? [el("label", { class: "bar", style: "margin:0" }, slider, sliderText)] : []),
      ...(examples.length ? [el("label", {}, "Sequence ", sequence)] : []),
      el("label", {}, "Colours ", scale));

    const overview = el("div", { role: "group" });
    overview.setAttribute("aria-label", "Heads of each layer; arrow keys move, Enter keeps a head");
    const thumbs = [];
    const roleOf = (L, H) => meta.roles?.find(([l, h]) => l === L && h === H)?.[2];
    // Many layers of a dozen heads: a row for each, and what a row says is not said of each head.
    const dense = meta.layers > 3 && Math.max(...heads) <= 16 && !meta.names?.length;
    const caption = (L, H) => (dense ? el("small", {}, el("span", {}, `L${L}`), `H${H}`) : el("small", {}, headName(L, H)));
    for (let L = 0; L < meta.layers; L++) {
      const row = el("div", { class: heads[L] <= 10 ? "thumbs few" : "thumbs" });
      thumbs.push([]);
      for (let H = 0; H < heads[L]; H++) {
        const canvas = el("canvas", { width: 8, height: 8 });
        canvas.setAttribute("aria-hidden", "true");
        const button = el("button", { type: "button", tabIndex: -1,
          onmouseenter: () => { preview = { L, H }; update(); },
          onmouseleave: () => { preview = null; update(); },
          onfocus: () => { if (button.matches(":focus-visible")) { preview = { L, H }; update(); } },
          onblur: () => { preview = null; update(); },
          onclick: () => lock(L, H) }, canvas, caption(L, H));
        const role = roleOf(L, H);
        if (role) button.append(el("small", { class: "role", title: role }, role.replace(/ token$/, "")));
        row.append(button);
        thumbs[L].push({ canvas, button, drawn: "" });
      }
      overview.append(el("div", { class: meta.layers > 1 ? "xl" : "xl one" }, ...(meta.layers > 1 ? [el("span", {}, dense ? `L${L}` : `Layer ${L}`)] : []), row));
    }
    overview.hidden = meta.layers === 1 && heads[0] === 1;
    overview.className = dense ? "overview dense" : "overview";
    overview.style.setProperty("--heads", Math.max(...heads));

    const title = el("h3");
    const map = el("canvas");
    const over = el("canvas", { tabIndex: 0 });
    over.setAttribute("role", "application");
    over.setAttribute("aria-roledescription", "attention pattern");
    over.setAttribute("aria-describedby", `${root.id}-readout`);
    const legend = el("canvas", { width: 256, height: 1 });
    legend.setAttribute("aria-hidden", "true");
    const [legendLo, legendHi] = [el("span"), el("span")];
    const readout = el("div", { class: "readout", id: `${root.id}-readout` });
    const live = el("div", { class: "sr-only" });
    live.setAttribute("aria-live", "polite");
    const direction = el("select", { onchange: () => set({ dir: direction.value }) },
      el("option", { value: "dest" }, "what the chosen destination looks at"),
      el("option", { value: "src" }, "who looks at the chosen source"));
    const strip = el("div", { class: "strip", role: "group" });
    strip.setAttribute("aria-label", "Positions, coloured by attention");
    const card = el("h3");
    const scores = el("div", { class: "table-wrap" });
    const known = el("div", { class: "table-wrap" });
    const partners = el("div", { class: "table-wrap" });
    for (const [part, label] of [[scores, "Scores of the head"], [known, "What else is known of the head"], [partners, "Heads that it builds on, and that build on it"]]) {
      part.tabIndex = 0;
      part.setAttribute("role", "region");
      part.setAttribute("aria-label", label);
    }
    const [profile, sources] = [el("div", { class: "profile" }), el("div", { class: "profile" })];
    const numbers = el("div", { class: "table-wrap" });
    const more = el("details", { ontoggle: () => more.open && update() }, el("summary", {}, "Numbers of the chosen row"), numbers);
    const tools = el("div", { class: "bar" },
      el("button", { type: "button", onclick: savePng }, "PNG"),
      el("button", { type: "button", onclick: saveCsv }, "CSV"),
      ...(linked ? [el("button", { type: "button", onclick: (event) => { writeHash(); copyLink(event.target); } }, "Copy link")] : []));
    const keys = el("details", {}, el("summary", {}, "Keys"), el("p", { class: "hint" }));
    const help = [["← ↑ → ↓", "move over heads or cells"], ["Enter", "keep the head"], ["Esc", "let go"], ["[ ]", "head"],
      ["PgUp PgDn", "layer"], ["b a d", "before, after, difference"], ["Home End", "ends of a row"], ["t", "theme"]];
    for (const [key, text] of help) keys.lastChild.append(el("kbd", {}, key), ` ${text}  `);
    const spot = el("div", { class: "spot" }, title, el("div", { class: "map" }, map, over),
      el("div", { class: "legend-bar" }, legendLo, legend, legendHi), readout, live, tools);
    const facts = el("div", { class: "facts" }, card, scores, known, partners);
    facts.hidden = !meta.detectors.length && !meta.facts?.length;
    const profiles = el("div", { class: "profiles" }, el("div", {}, el("h3", {}, "Mean attention by distance"), profile),
      el("div", {}, el("h3", {}, "Mean attention by source"), sources));
    root.append(bar, el("div", { class: overview.hidden && facts.hidden ? "focus alone" : "focus" }, overview, spot, facts), profiles, more,
      el("div", { class: "bar", style: "margin:.8rem 0 .3rem" }, el("label", {}, "Positions: ", direction)), strip, keys);

    function fillStrip() {
      strip.replaceChildren(...Array.from({ length: Math.min(src, 1024) }, (_, i) => position(i)));
    }
    function position(i) {
      const span = el("span", { title: `position ${i}`, tabIndex: -1, role: "button", onclick: () => choose(i), onmouseenter: () => { hoverToken = i; update(); },
        onmouseleave: () => { hoverToken = null; update(); }, onfocus: () => { if (span.matches(":focus-visible")) { hoverToken = i; update(); } },
        onblur: () => { hoverToken = null; update(); } }, tokens ? tokens[i] : String(i));
      return span;
    }
    let hoverToken = null;
    fillStrip();
    /** Another sequence has other tokens, and maybe another length. */
    let fitted = null;
    function fit() {
      if (fitted === state.e) return;
      fitted = state.e;
      [, dest, src] = patterns.info(state.e === null ? 0 : shownAt(), 0).shape;
      tokens = (state.e === null ? meta.tokens : examples[state.e].tokens)?.map(Core.tokenText) ?? null;
      Object.assign(state, { d: Math.min(state.d, dest - 1), k: state.k === null ? null : Math.min(state.k, src - 1) });
      pad = padding();
      cell = hoverToken = null;
      fillStrip();
    }
    const choose = (i) => set(state.dir === "dest" ? { d: Math.min(i, dest - 1), k: null } : { k: i });

    // --- Drawing ----------------------------------------------------------------------------
    const report = () => window.__report;
    const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
    function tables() {
      const mode = report().isDark() ? "dark" : "light";
      const maps = report().palette.maps;
      return { seq: Core.lut(maps.blues[mode], 256), div: Core.lut(maps.rdbu[mode], 256), mode };
    }
    function extent(view, skip = false) {
      let most = 0;
      // The first rows of a causal pattern have few to look at and reach 1, which says nothing of the head.
      for (let d = skip ? Math.min(Math.ceil(view.dest / 8), view.dest - 1) : 0; d < view.dest; d++) {
        for (let s = 0; s < view.src; s++) {
          const v = Math.abs(view.at(d, s) ?? 0);
          if (v > most && Number.isFinite(v)) most = v;
        }
      }
      return most;
    }
    function domain(view) {
      const fit = state.scale === "full" && !view.signed ? 1 : extent(view, true) || 1;
      if (view.signed) return { lo: -fit, hi: fit };
      if (state.scale === "log") return { lo: Math.max(view.error, 1e-4), hi: Math.max(extent(view), 1e-3), log: true };
      return { lo: 0, hi: state.scale === "full" ? Math.max(1, extent(view)) : fit };
    }
    /** One pixel for each cell; `size` smaller than the pattern takes the most extreme of several. */
    function paint(canvas, view, range, lut, size) {
      const [w, h] = [Math.min(view.src, size), Math.min(view.dest, size)];
      canvas.width = w;
      canvas.height = h;
      const context = canvas.getContext("2d");
      const image = context.createImageData(w, h);
      const table = view.signed ? lut.div : lut.seq;
      const mask = rgb(css("--mask"));
      for (let y = 0; y < h; y++) {
        for (let x = 0; x < w; x++) {
          let v = null;
          const [d0, d1] = [Math.floor((y * view.dest) / h), Math.max(Math.floor(((y + 1) * view.dest) / h), Math.floor((y * view.dest) / h) + 1)];
          const [s0, s1] = [Math.floor((x * view.src) / w), Math.max(Math.floor(((x + 1) * view.src) / w), Math.floor((x * view.src) / w) + 1)];
          for (let d = d0; d < d1; d++) {
            for (let s = s0; s < s1; s++) {
              const c = view.at(d, s);
              if (c !== null && (v === null || Number.isNaN(v) || Math.abs(c) > Math.abs(v))) v = c;
            }
          }
          let color;
          if (v === null) color = mask;
          else if (!Number.isFinite(v)) color = [214, 0, 147];
          else {
            const i = Math.round(Core.position(v, range) * 255) * 3;
            color = [table[i], table[i + 1], table[i + 2]];
          }
          const o = (y * w + x) * 4;
          image.data[o] = color[0];
          image.data[o + 1] = color[1];
          image.data[o + 2] = color[2];
          image.data[o + 3] = 255;
        }
      }
      context.putImageData(image, 0, 0);
      return canvas;
    }

    const padding = () => ({ l: tokens && src <= 48 ? 62 : 38, t: 4, r: 6, b: tokens && src <= 48 ? 62 : 34 });
    let pad = padding();
    let geometry = null;
    function layout() {
      const width = Math.max(220, Math.min(600, map.parentElement.clientWidth));
      let unit = Math.min((width - pad.l - pad.r) / src, (600 - pad.t - pad.b) / dest);
      const ratio = window.devicePixelRatio || 1;
      // Whole device pixels for each cell, or a diagonal would look uneven.
      if (unit * ratio >= 3) unit = Math.floor(unit * ratio) / ratio;
      const height = unit * dest + pad.t + pad.b;
      for (const canvas of [map, over]) {
        const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
        if (canvas.width !== w || canvas.height !== h) {
          canvas.width = w;
          canvas.height = h;
          canvas.style.aspectRatio = `${w} / ${h}`;
        }
        canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
      }
      geometry = { width, height, unit };
    }
    const small = document.createElement("canvas");
    function drawMap(view, range, lut) {
      layout();
      const { width, height, unit } = geometry;
      const c = map.getContext("2d");
      c.clearRect(0, 0, width, height);
      paint(small, view, range, lut, 4096);
      c.imageSmoothingEnabled = false;
      c.drawImage(small, pad.l, pad.t, unit * src, unit * dest);
      c.strokeStyle = css("--line");
      c.lineWidth = 1;
      c.strokeRect(pad.l - 0.5, pad.t - 0.5, unit * src + 1, unit * dest + 1);
      c.fillStyle = css("--soft");
      c.font = "11px " + getComputedStyle(root).fontFamily;
      const label = (i) => (tokens && src <= 48 ? tokens[i].slice(0, 8) : String(i));
      const every = tokens && src <= 48 ? Math.ceil(13 / unit) : Math.max(1, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512].find((n) => n * unit >= 34) ?? 1024);
      for (let i = 0; i < src; i += every) {
        const x = pad.l + (i + 0.5) * unit;
        c.save();
        c.translate(x, pad.t + unit * dest + 6);
        if (tokens && src <= 48) { c.rotate(-Math.PI / 2); c.textAlign = "right"; c.textBaseline = "middle"; } else { c.textAlign = "center"; c.textBaseline = "top"; }
        c.fillText(label(i), 0, 0);
        c.restore();
      }
      c.textAlign = "right";
      c.textBaseline = "middle";
      for (let i = 0; i < dest; i += every) c.fillText(label(i), pad.l - 6, pad.t + (i + 0.5) * unit);
      c.textAlign = "center";
      c.textBaseline = "bottom";
      c.fillText("source →", pad.l + (unit * src) / 2, height - 1);
      c.save();
      c.translate(2, pad.t + (unit * dest) / 2);
      c.rotate(-Math.PI / 2);
      c.textBaseline = "top";
      c.fillText("← destination", 0, 0);
      c.restore();
    }
    function drawCross() {
      const { width, height, unit } = geometry;
      const c = over.getContext("2d");
      c.clearRect(0, 0, width, height);
      const at = atHand();
      c.strokeStyle = css("--accent");
      c.lineWidth = 1.25;
      const wide = unit < 5 ? 1 : 0;
      c.strokeRect(pad.l - 1, pad.t + at.d * unit - wide, unit * src + 2, unit + 2 * wide);
      if (at.s !== null) c.strokeRect(pad.l + at.s * unit - wide, pad.t - 1, unit + 2 * wide, unit * dest + 2);
    }
    function drawLegend(view, range, lut) {
      const c = legend.getContext("2d");
      const image = c.createImageData(256, 1);
      const table = view.signed ? lut.div : lut.seq;
      for (let i = 0; i < 256; i++) image.data.set([table[i * 3], table[i * 3 + 1], table[i * 3 + 2], 255], i * 4);
      c.putImageData(image, 0, 0);
      const text = (v) => (range.log ? v.toExponential(0) : v.toFixed(2));
      legendLo.textContent = text(range.lo);
      legendHi.textContent = text(range.hi);
    }
    /** The row and column at hand: under the pointer, else chosen. */
    function atHand() {
      if (cell) return cell;
      if (hoverToken === null) return { d: state.d, s: state.k };
      return state.dir === "dest" ? { d: Math.min(hoverToken, dest - 1), s: null } : { d: state.d, s: hoverToken };
    }
    const name = (i) => (tokens ? `${i} “${tokens[i].slice(0, 24)}”` : String(i));
    function drawReadout(view) {
      const { L, H } = head();
      const at = atHand();
      let text;
      if (at.s !== null) {
        const v = view.at(at.d, at.s);
        const shown = v === null ? "N/A (masked: it lies ahead)" : Core.format(v, view.error);
        text = `destination ${name(at.d)} → source ${name(at.s)}: ${shown}`;
      } else {
        let [best, most] = [null, -Infinity];
        for (let s = 0; s < src; s++) {
          const v = view.at(at.d, s);
          if (v !== null && Math.abs(v) > most) { most = Math.abs(v); best = s; }
        }
        text = best === null ? `destination ${name(at.d)}`
          : `destination ${name(at.d)} → most at source ${name(best)}: ${Core.format(view.at(at.d, best), view.error)}`;
      }
      readout.textContent = `${text} (${[headName(L, H), where()].filter(Boolean).join(", ")})`;
      over.setAttribute("aria-label", `Attention of ${[headName(L, H), where()].filter(Boolean).join(", ")}`);
      say(text);
    }
    let saying = 0;
    function say(text) {
      clearTimeout(saying);
      saying = setTimeout(() => { live.textContent = text; }, 400);
    }
    function drawStrip(view, range, lut) {
      const table = view.signed ? lut.div : lut.seq;
      const row = state.dir === "dest";
      const at = hoverToken ?? (row ? (cell ? cell.d : state.d) : (cell ? cell.s : state.k ?? 0));
      [...strip.children].forEach((span, i) => {
        const v = row ? view.at(Math.min(at, dest - 1), i) : i < dest ? view.at(i, at) : null;
        if (v === null || !Number.isFinite(v)) {
          span.style.background = v === null ? "transparent" : "rgb(214,0,147)";
          span.style.color = "var(--soft)";
        } else {
          const k = Math.round(Core.position(v, range) * 255) * 3;
          const color = [table[k], table[k + 1], table[k + 2]];
          span.style.background = `rgb(${color})`;
          span.style.color = Core.inkOn(color);
        }
        span.className = i === at ? "at" : "";
        span.tabIndex = i === at ? 0 : -1;
        span.title = `position ${i}: ${v === null ? "N/A" : Core.format(v, view.error)}`;
      });
    }
    /** All that is known of the head: its role, its scores, and what analyses found. */
    function drawScores() {
      const { L, H } = head();
      const pick = (rows) => rows?.[L]?.[H];
      const text = (v) => (typeof v === "number" ? v.toFixed(2) : "–");
      const num = (v) => el("td", { class: "num" }, v);
      const role = roleOf(L, H);
      card.textContent = `What is known of ${headName(L, H)}${role ? `: ${role}` : meta.roles?.length ? ": no known role" : ""}`;
      const rows = meta.detectors.map((d) => el("tr", {}, el("td", { title: d.formula }, d.name), num(text(pick(d.before))),
        num(pick(d.spread) > 0 ? `${text(pick(d.after))} ± ${text(pick(d.spread))}` : text(pick(d.after))), num(text(d.uniform))));
      scores.hidden = rows.length === 0;
      const heading = (label, number) => el("th", { class: number ? "num" : "", scope: "col" }, label);
      scores.replaceChildren(el("table", {},
        el("thead", {}, el("tr", {}, heading("Kind of head"), heading("before", true), heading("after", true), heading("equal", true))),
        el("tbody", {}, ...rows)));
      const facts = (meta.facts ?? []).filter((f) => typeof pick(f.values) === "number");
      const all = (f) => f.values.flat().filter(Number.isFinite);
      known.hidden = facts.length === 0;
      known.replaceChildren(el("table", {},
        el("thead", {}, el("tr", {}, heading("Measured"), heading("value", true), heading("rank", true))),
        el("tbody", {}, ...facts.map((f) => {
          const [v, e] = [pick(f.values), pick(f.noise)];
          const quiet = e > 0 && Math.abs(v) < 2 * e;
          return el("tr", { class: quiet ? "quiet" : "" }, el("td", { class: "wrap" }, f.name),
            num(Core.three(v) + (e > 0 ? ` ± ${Core.three(e)}` : "")), num(`${1 + all(f).filter((other) => other > v).length} of ${all(f).length}`));
        }))));
    }
    /** Which heads the head builds on and which on it: how far above chance, and what other pairs have. */
    function drawPartners() {
      const { L, H } = head();
      const is = ([l, h]) => l === L && h === H;
      const pairs = (meta.pairs ?? []).filter((p) => is(p.writer) || is(p.reader));
      partners.hidden = pairs.length === 0;
      const heading = (label, number) => el("th", { class: number ? "num" : "", scope: "col" }, label);
      partners.replaceChildren(el("table", {},
        el("thead", {}, el("tr", {}, heading("Builds on"), heading("above chance", true), heading("all pairs", true))),
        el("tbody", {}, ...pairs.map((p) => {
          const [l, h] = is(p.reader) ? p.writer : p.reader;
          const other = linked ? el("a", { class: "head", href: `#L=${l}&H=${h}` }, headName(l, h)) : headName(l, h);
          const says = is(p.reader) ? ["reads ", other, ` by its ${p.by}`] : ["read by ", other, `, by its ${p.by}`];
          return el("tr", {}, el("td", { class: "wrap" }, ...says), el("td", { class: "num" }, Core.three(p.score)),
            el("td", { class: "num" }, `${Core.three(p.others[0])} ± ${Core.three(p.others[1])}`));
        }))));
    }
    const SVG = "http://www.w3.org/2000/svg";
    function svg(tag, attributes, text) {
      const node = document.createElementNS(SVG, tag);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      if (text !== undefined) node.textContent = text;
      return node;
    }
    const MOST_BARS = 128;
    function drawProfile(view) {
      // What equal attention gives is known where a position sees itself and all before it.
      const known = !view.signed && view.at(0, src - 1) === null;
      const uniform = known ? Core.uniformProfile(Math.min(dest, src)) : null;
      bars(profile, view, Core.profile(view.at, view.dest, view.src), uniform, "positions back", (k) => `${k} back`);
      const alike = known ? Core.uniformSources(dest, src) : null;
      bars(sources, view, Core.sources(view.at, view.dest, view.src), alike, "source position", (k) => `to ${name(k)}`);
    }
    /** Bars of a mean at each of some places, with what equal attention would give. */
    function bars(root, view, all, reference, label, says) {
      const n = Math.min(all.length, MOST_BARS);
      const values = all.slice(0, n);
      const finite = values.filter(Number.isFinite);
      const hi = view.signed ? Math.max(...finite.map(Math.abs), 1e-3) : Math.max(1, ...finite);
      const lo = view.signed ? -hi : 0;
      const [w, h, l, b] = [380, 128, 36, 30];
      const y = (v) => 6 + (h - 6 - b) * (1 - (v - lo) / (hi - lo));
      const slot = (w - l - 4) / n;
      const picture = svg("svg", { viewBox: `0 0 ${w} ${h}`, role: "img" });
      const best = values.reduce((m, v, k) => (Math.abs(v) > Math.abs(values[m]) || !Number.isFinite(values[m]) ? k : m), 0);
      picture.setAttribute("aria-label", `Mean attention, largest ${says(best)}: ${Core.format(values[best], view.error)}`);
      for (const v of view.signed ? [-hi, 0, hi] : [0, 0.5, 1]) {
        picture.append(svg("line", { x1: l, x2: w - 4, y1: y(v), y2: y(v), stroke: css("--grid") }));
        picture.append(svg("text", { x: l - 5, y: y(v) + 4, "text-anchor": "end" }, view.signed ? v.toFixed(2) : v.toFixed(1)));
      }
      // One path for all: a page of many heads stays light.
      const wide = slot * (n > 40 ? 1 : 0.72);
      const path = values.map((v, k) => (Number.isFinite(v) ? `M${l + (k + 0.5) * slot - wide / 2} ${y(0)}v${y(v) - y(0)}h${wide}V${y(0)}z` : "")).join("");
      picture.append(svg("path", { d: path, fill: css("--accent") }));
      for (let k = 0; k < n; k += Math.ceil(n / 12)) picture.append(svg("text", { x: l + (k + 0.5) * slot, y: h - b + 14, "text-anchor": "middle" }, k));
      if (reference) {
        const points = reference.slice(0, n).map((v, k) => (Number.isFinite(v) ? `${l + (k + 0.5) * slot},${y(v)}` : "")).join(" ");
        picture.append(svg("polyline", { points, fill: "none", stroke: css("--soft"), "stroke-width": 1.5, "stroke-dasharray": "4 3" }));
        picture.append(svg("text", { x: w - 6, y: 16, "text-anchor": "end" }, "dashed: equal attention"));
      }
      picture.append(svg("text", { x: l + (w - l) / 2, y: h - 3, "text-anchor": "middle" }, all.length > n ? `${label}, the first ${n} of ${all.length}` : label));
      root.replaceChildren(picture);
    }
    function drawNumbers(view) {
      if (!more.open) return;
      const d = cell ? cell.d : state.d;
      const row = Array.from({ length: src }, (_, s) => ({ s, v: view.at(d, s) })).filter((x) => x.v !== null);
      const top = row.sort((a, b) => Math.abs(b.v) - Math.abs(a.v)).slice(0, 200);
      numbers.replaceChildren(el("table", {}, el("caption", {}, `Destination ${name(d)}, largest first`),
        el("thead", {}, el("tr", {}, el("th", {}, "Source"), el("th", { class: "num" }, "Attention"))),
        el("tbody", {}, ...top.map((x) => el("tr", {}, el("td", {}, name(x.s)), el("td", { class: "num" }, Core.format(x.v, view.error)))))));
    }

    // --- Update -----------------------------------------------------------------------------
    let turn = 0;
    let heavy = "";
    async function update() {
      const mine = ++turn;
      fit();
      const { L, H } = head();
      const view = await patterns.head(shownAt(), L, H);
      if (mine !== turn) return;
      const lut = tables();
      const range = domain(view);
      const key = [shownAt(), L, H, state.scale, lut.mode, map.parentElement.clientWidth, window.devicePixelRatio].join();
      if (key !== heavy) {
        heavy = key;
        drawMap(view, range, lut);
        drawLegend(view, range, lut);
        drawProfile(view);
        drawScores();
        drawPartners();
        title.textContent = `${meta.names?.[L]?.[H] ?? `Layer ${L}, head ${H}`}${preview && !(L === state.L && H === state.H) ? " (preview)" : state.locked ? " (kept)" : ""}`;
      }
      drawCross();
      drawReadout(view);
      drawStrip(view, range, lut);
      drawNumbers(view);
      for (const [value, button] of buttons) button.setAttribute("aria-pressed", String(state.e === null && value === state.s));
      sequence.value = state.e === null ? "" : String(state.e);
      if (state.s !== DIFFERENCE) {
        slider.value = state.s;
        const snapshot = meta.snapshots[state.s];
        sliderText.textContent = meta.runs ? snapshot.label : `step ${snapshot.step}`;
        slider.setAttribute("aria-valuetext", meta.runs ? snapshot.label : `${snapshot.label}, step ${snapshot.step}`);
      } else sliderText.textContent = difference;
      scale.disabled = view.signed;
      thumbs.forEach((row, l) => row.forEach((t, h) => {
        t.button.className = l === L && h === H ? "shown" : "";
        t.button.setAttribute("aria-pressed", String(state.locked && l === state.L && h === state.H));
        t.button.tabIndex = l === state.L && h === state.H ? 0 : -1;
      }));
      if (linked && told !== own) {
        told = own;
        reveal();
        document.dispatchEvent(new CustomEvent("selected"));
      }
      await drawThumbs(lut);
    }
    let told = null; // the address when the rest of the page last heard of it
    /** The chosen head among those of many layers, which scroll by themselves: the page stays where it is. */
    function reveal() {
      const [frame, own] = [overview, thumbs[state.L][state.H].button].map((part) => part.getBoundingClientRect());
      if (own.top < frame.top) overview.scrollTop -= frame.top - own.top + 4;
      else if (own.bottom > frame.bottom) overview.scrollTop += own.bottom - frame.bottom + 4;
    }
    const visible = new Set();
    /** The largest change of any head, found once: thumbnails are drawn at every move. */
    let change = null;
    const largestChange = () => (change ??= Promise.all(thumbs.flatMap((row, l) => row.map((_, h) => patterns.head(DIFFERENCE, l, h))))
      .then((views) => Math.max(0, ...views.map((view) => extent(view, true)))));
    async function drawThumbs(lut) {
      // Of what may be negative all heads have one scale, so that loud ones are seen to be loud.
      const most = state.s === DIFFERENCE && state.e === null ? await largestChange() : 0;
      const range = (view) => (most > 0 ? { lo: -most, hi: most } : domain(view));
      for (const l of visible) {
        for (let h = 0; h < heads[l]; h++) {
          const t = thumbs[l][h];
          const key = [shownAt(), state.scale, lut.mode].join();
          if (t.drawn === key) continue;
          t.drawn = key;
          const view = await patterns.head(shownAt(), l, h);
          paint(t.canvas, view, range(view), lut, 48);
        }
      }
    }
    const watch = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const l = [...overview.children].indexOf(entry.target);
        if (entry.isIntersecting) visible.add(l); else visible.delete(l);
      }
      drawThumbs(tables());
    }, { rootMargin: "400px" });
    for (const row of overview.children) watch.observe(row);

    function set(change) {
      Object.assign(state, { at: null }, change);
      writeHash();
      return update();
    }
    /** A selection made elsewhere, such as in a chart; a link then opens there. Words and numbers of an address fit. */
    function open(change, at = null) {
      const label = change.s;
      if (typeof label === "string") {
        const named = meta.snapshots.findIndex((x) => x.label === label);
        change = { ...change, s: label === DIFFERENCE ? DIFFERENCE : named < 0 ? state.s : named };
      }
      const number = (key, n) => (change[key] === undefined || change[key] === null ? {} : { [key]: bound(Number(change[key]), n) });
      const L = number("L", meta.layers).L ?? state.L;
      heavy = "";
      return set({ ...change, ...number("L", meta.layers), ...number("H", heads[L]), ...number("d", dest), ...number("k", src), at,
        ...(change.L !== undefined ? { locked: true } : {}) });
    }
    function lock(L, H) {
      const again = state.locked && state.L === L && state.H === H;
      heavy = "";
      return set({ L, H, locked: !again });
    }

    // --- Pointer on the pattern -------------------------------------------------------------
    function cellAt(event) {
      const box = over.getBoundingClientRect();
      const zoom = geometry.width / box.width;
      const s = Math.floor(((event.clientX - box.left) * zoom - pad.l) / geometry.unit);
      const d = Math.floor(((event.clientY - box.top) * zoom - pad.t) / geometry.unit);
      return d >= 0 && d < dest && s >= 0 && s < src ? { d, s } : null;
    }
    over.addEventListener("pointermove", (event) => { cell = cellAt(event); update(); });
    over.addEventListener("pointerleave", () => { cell = null; update(); });
    over.addEventListener("click", (event) => {
      const at = cellAt(event);
      if (at) set({ d: at.d, k: at.s });
    });

    // --- Keys -------------------------------------------------------------------------------
    root.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || /^(SELECT|INPUT)$/.test(event.target.tagName)) return;
      if (handle(event.key, event.target)) event.preventDefault();
    });
    function handle(key, target) {
      const cells = target === over;
      const overThumb = target.closest(".thumbs") !== null;
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[key];
      if (step && cells) {
        set({ d: bound(state.d + step[0], dest), k: bound((state.k ?? state.d) + step[1], src) });
      } else if (step && overThumb) {
        const from = preview ?? state;
        const L = bound(from.L + step[0], meta.layers);
        const H = bound(from.H + step[1], heads[L]);
        thumbs[L][H].button.focus();
        preview = { L, H };
        update();
      } else if (step && target.closest(".strip")) {
        const to = [...strip.children].indexOf(target) + step[1] + step[0];
        if (strip.children[to]) { strip.children[to].tabIndex = 0; strip.children[to].focus(); }
      } else if (key === "Enter" && target.closest(".strip")) choose([...strip.children].indexOf(target));
      else if ((key === "Home" || key === "End") && cells) set({ k: key === "Home" ? 0 : Math.min(state.d, src - 1) });
      else if (key === "PageUp" || key === "PageDown") {
        const L = bound(state.L + (key === "PageUp" ? -1 : 1), meta.layers);
        set({ L, H: Math.min(state.H, heads[L] - 1), locked: true });
      } else if (key === "[" || key === "]") set({ H: bound(state.H + (key === "[" ? -1 : 1), heads[state.L]), locked: true });
      else if (key === "b") set({ s: 0, e: null });
      else if (key === "a") set({ s: count - 1, e: null });
      else if (key === "d" && count > 1) set({ s: DIFFERENCE, e: null });
      else if (key === "t") report().toggleTheme();
      else if (key === "?") keys.open = !keys.open;
      else if (key === "Escape") { preview = null; heavy = ""; set({ locked: false, k: null }); } else return false;
      return true;
    }
    const bound = (i, n) => Math.max(0, Math.min(n - 1, i));

    // --- Files and links --------------------------------------------------------------------
    function save(blob, extension) {
      const { L, H } = head();
      const label = state.e !== null ? where() : state.s === DIFFERENCE ? DIFFERENCE : meta.snapshots[state.s].label;
      const link = el("a", { href: URL.createObjectURL(blob), download: `attention-${headName(L, H)}-${label.replace(/[^\w-]+/g, "-")}.${extension}` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    }
    async function saveCsv() {
      const { L, H } = head();
      const view = await patterns.head(shownAt(), L, H);
      save(new Blob([Core.csv(view.at, view.dest, view.src, view.error)], { type: "text/csv" }), "csv");
    }
    /** The pattern at twice its size in light colours, with its name above and the legend below. */
    async function savePng() {
      const { L, H } = head();
      const view = await patterns.head(shownAt(), L, H);
      const maps = report().palette.maps;
      const lut = { seq: Core.lut(maps.blues.light, 256), div: Core.lut(maps.rdbu.light, 256) };
      const range = domain(view);
      const unit = Math.max(1, Math.floor(1100 / Math.max(src, dest)));
      const [w, h, left, top] = [unit * src, unit * dest, 110, 70];
      const out = el("canvas", { width: Math.max(w + left + 30, 640), height: h + top + 150 });
      const c = out.getContext("2d");
      c.fillStyle = "#fff";
      c.fillRect(0, 0, out.width, out.height);
      c.font = `22px ${getComputedStyle(root).fontFamily}`;
      const write = (text, x, y, align = "center") => { c.textAlign = align; c.fillStyle = "#1f252c"; c.fillText(text, x, y); };
      write([headName(L, H), where()].filter(Boolean).join(", "), out.width / 2, 42);
      const cells = el("canvas");
      paint(cells, view, range, lut, 4096);
      c.imageSmoothingEnabled = false;
      c.drawImage(cells, left, top, w, h);
      c.strokeStyle = "#767e87";
      c.strokeRect(left - 0.5, top - 0.5, w + 1, h + 1);
      const every = Math.max(1, Math.ceil(60 / unit));
      for (let i = 0; i < src; i += every) write(tokens ? tokens[i].slice(0, 6) : i, left + (i + 0.5) * unit, top + h + 28);
      for (let i = 0; i < dest; i += every) write(tokens ? tokens[i].slice(0, 8) : i, left - 10, top + (i + 0.5) * unit + 7, "right");
      write("source", left + w / 2, top + h + 62);
      drawLegend(view, range, lut);
      c.drawImage(legend, left, top + h + 90, w, 20);
      write(legendLo.textContent, left, top + h + 138, "left");
      write(legendHi.textContent, left + w, top + h + 138, "right");
      heavy = "";
      await update();
      out.toBlob((blob) => save(blob, "png"));
    }
    function copyLink(button) {
      const done = (text) => {
        button.textContent = text;
        live.textContent = text;
        setTimeout(() => { button.textContent = "Copy link"; }, 2000);
      };
      const copied = navigator.clipboard?.writeText(location.href) ?? Promise.reject(new Error("no clipboard"));
      copied.then(() => done("Link copied"), () => done("The address bar holds the link"));
    }

    document.addEventListener("themechange", () => { heavy = ""; update(); });
    addEventListener("hashchange", () => { if (location.hash !== own && readHash()) { scale.value = state.scale; direction.value = state.dir; heavy = ""; update(); } });
    new ResizeObserver(() => update()).observe(map.parentElement);
    const best = bestHead();
    if (best.v > -Infinity) Object.assign(state, { L: best.L, H: best.H });
    // A link opens where it was made.
    if (readHash()) {
      scale.value = state.scale;
      direction.value = state.dir;
      (document.getElementById(state.at ?? "") ?? root).scrollIntoView({ block: "start" });
    }
    return { ready: update(), patterns, state, update, set, open, lock, meta, root,
      geometry: () => ({ unit: geometry.unit, left: pad.l, top: pad.t, ratio: window.devicePixelRatio || 1 }),
      get: async (s, l, h, d, k) => (await patterns.head(s, l, h)).at(d, k) };
  }

  document.addEventListener("pageready", () => {
    const ready = [];
    for (const root of document.querySelectorAll(".explorer")) {
      if (typeof DecompressionStream === "undefined") {
        root.textContent = "The explorer needs a browser of 2023 or later (DecompressionStream).";
        continue;
      }
      const explorer = start(root);
      ready.push(explorer.ready);
      Object.assign(window.__report, explorer);
    }
    Object.assign(window.__report, { started: Promise.all(ready) });
  });
  return { start };
})();

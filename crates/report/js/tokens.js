// Views of tokens with numbers: coloured text, what is known of the token at hand, tables of the largest.
"use strict";
(() => {
  function el(tag, props = {}, ...children) {
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children);
    return node;
  }
  const short = (v) => (v === null || v === undefined ? "not finite" : Math.abs(v) >= 1e-4 && Math.abs(v) < 1e5 || v === 0 ? v.toFixed(4) : v.toExponential(3));
  const PER_PAGE = 10;

  async function start(root) {
    const data = await Core.json(document.getElementById(root.dataset.tokens));
    const chosen = data.choices.map(() => 0);
    let page = 0;
    let bounds = null; // what the reader set: [negative, positive]
    let at = null; // the token at hand: [text, index]
    let kept = false;

    const group = () => data.groups[chosen.reduce((i, c, k) => i * data.choices[k].labels.length + c, 0)] ?? [];
    function extent(texts) {
      let [lo, hi] = [0, 0];
      for (const t of texts) for (const v of t.values) if (v !== null) { lo = Math.min(lo, v); hi = Math.max(hi, v); }
      return [lo, hi];
    }
    // Log-probabilities end at -5, below which all are as unlikely.
    const whole = data.sequential ? [-5, 0] : data.shared ? extent(data.groups.flat()) : null;
    function color(v, [lo, hi], table) {
      // Each sign has its own bound.
      let t;
      if (data.sequential) t = Core.position(v, { lo, hi: Math.max(hi, lo + 1e-9) });
      else t = v >= 0 ? 0.5 + (hi > 0 ? Math.min(1, v / hi) / 2 : 0) : 0.5 - (lo < 0 ? Math.min(1, v / lo) / 2 : 0);
      const i = Math.round(t * 255) * 3;
      return [table[i], table[i + 1], table[i + 2]];
    }

    function turnTo(k, i) {
      chosen[k] = i;
      page = 0;
      at = null;
      kept = false;
      draw();
    }
    // One selection for the page: the sequence and the token that the attention is shown of.
    const rest = () => (data.linked && window.__report.open ? window.__report : null);
    function tell(change = {}) {
      const e = rest()?.meta.examples.findIndex((x) => x.of === chosen[0]) ?? -1;
      rest()?.open({ ...(e >= 0 ? { e } : {}), ...change }, root.closest("section")?.querySelector("h2")?.id);
    }
    function follow() {
      const e = rest()?.state.e ?? null;
      const of = e === null ? chosen[0] : rest().meta.examples[e].of;
      if (rest() && of !== chosen[0]) {
        selects[0].selectedIndex = of;
        turnTo(0, of);
      }
    }
    const controls = el("div", { className: "bar" });
    const selects = [];
    data.choices.forEach((choice, k) => {
      const select = el("select", { onchange: () => { turnTo(k, select.selectedIndex); tell(); } },
        ...choice.labels.map((label) => el("option", { textContent: label })));
      selects.push(select);
      controls.append(el("label", {}, `${choice.name} `, select));
    });
    const bound = (label, k) => {
      const input = el("input", { type: "number", step: "any", onchange: () => {
        const v = Number(input.value);
        if (input.value !== "" && Number.isFinite(v)) { bounds ??= [...(whole ?? extent(group()))]; bounds[k] = v; draw(); }
      } });
      controls.append(el("label", {}, `${label} `, input));
      return input;
    };
    const inputs = data.tables ? [] : [bound(data.sequential ? "From" : "Negative to", 0), bound(data.sequential ? "to" : "positive to", 1)];
    if (!data.tables) controls.append(el("button", { type: "button", textContent: "Reset", onclick: () => { bounds = null; draw(); } }));
    const pager = el("div", { className: "bar" });
    const strips = el("div");
    const readout = el("div", { className: "readout" });
    readout.setAttribute("aria-live", "polite");
    root.append(controls, strips, pager, readout);

    // Where a token is asked for and its value is not even a number, that is told.
    const isBlank = (t, i) => data.blanks && t.values[i] === null && t.details[i]?.[0]?.[0] !== "asked";
    function read() {
      if (!at) { readout.replaceChildren(el("p", { className: "hint", textContent: "Point at a token, or move with the arrow keys, to read it; click or Enter keeps it, Esc lets go." })); return; }
      const [t, i] = at;
      const rows = t.details[i] ?? [];
      const head = el("p", {}, el("b", { textContent: Core.tokenText(t.tokens[i]) }), ` (${i}): ${isBlank(t, i) ? "nothing is asked here" : short(t.values[i])}${kept ? ", kept" : ""}`);
      const table = el("table", {}, el("tbody", {}, ...rows.map((r, k) => el("tr", { className: data.sequential && k === 0 ? "first" : "" },
        ...r.filter((cell, c) => c < 2 || rows.some((x) => x[c])).map((cell, c) => el("td", { className: c === 1 && data.sequential ? "mono" : c > 0 ? "num" : "", textContent: cell }))))));
      readout.replaceChildren(head, ...(rows.length ? [el("div", { className: "table-wrap" }, table)] : []));
    }
    function strip(t, scale, table) {
      const row = el("div", { className: "strip text" });
      row.setAttribute("role", "group");
      row.setAttribute("aria-label", t.name || "Text, a token at a time");
      t.tokens.forEach((token, i) => {
        const v = t.values[i];
        const span = el("span", { textContent: Core.tokenText(token), tabIndex: i === 0 ? 0 : -1, title: short(v) });
        span.setAttribute("role", "button");
        span.setAttribute("aria-label", `${Core.tokenText(token)}, ${isBlank(t, i) ? "nothing is asked here" : short(v)}`);
        if (isBlank(t, i)) span.title = "nothing is asked here";
        else if (v === null) span.style.cssText = "background:rgb(214,0,147);color:#fff";
        else {
          const rgb = color(v, scale, table);
          span.style.background = `rgb(${rgb})`;
          span.style.color = Core.inkOn(rgb);
        }
        const look = () => { if (!kept) { at = [t, i]; read(); } };
        span.addEventListener("pointerenter", look);
        span.addEventListener("focus", look);
        const keep = () => {
          kept = !(kept && at[0] === t && at[1] === i);
          at = [t, i];
          mark(row, i);
          read();
          if (kept) tell({ d: i });
        };
        span.addEventListener("click", keep);
        span.addEventListener("keydown", (event) => {
          const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
          const to = event.key === "Home" ? 0 : event.key === "End" ? t.tokens.length - 1 : step ? i + step : null;
          if (to !== null && row.children[to]) {
            span.tabIndex = -1;
            row.children[to].tabIndex = 0;
            row.children[to].focus();
          } else if (event.key === "Enter" || event.key === " ") keep();
          else if (event.key === "Escape") { kept = false; mark(row, -1); read(); } else return;
          event.preventDefault();
        });
        row.append(span);
      });
      return row;
    }
    function mark(row, i) {
      for (const other of strips.querySelectorAll(".at")) other.classList.remove("at");
      if (kept && i >= 0) row.children[i].classList.add("at");
    }
    function draw() {
      const { maps } = window.__report.palette;
      const mode = window.__report.isDark() ? "dark" : "light";
      const lut = Core.lut(maps[data.sequential ? "blues" : "rdbu"][mode], 256);
      const texts = group();
      const scale = bounds ?? whole ?? extent(texts);
      inputs.forEach((input, k) => { input.value = Number(scale[k].toPrecision(4)); });
      if (data.tables) {
        const rows = Math.max(...texts.map((t) => t.tokens.length));
        const shown = texts.slice(page * PER_PAGE, (page + 1) * PER_PAGE);
        const cell = (t, r) => {
          if (t.values[r] === undefined) return el("td");
          const rgb = t.values[r] === null ? [214, 0, 147] : color(t.values[r], scale, lut);
          const td = el("td", { className: "mono", textContent: `${Core.tokenText(t.tokens[r])} ${short(t.values[r])}` });
          td.style.cssText = `background:rgb(${rgb});color:${Core.inkOn(rgb)}`;
          return td;
        };
        const wrap = el("div", { className: "table-wrap", tabIndex: 0 }, el("table", {},
          el("thead", {}, el("tr", {}, ...shown.map((t) => el("th", { textContent: t.name, scope: "col" })))),
          el("tbody", {}, ...Array.from({ length: rows }, (_, r) => el("tr", {}, ...shown.map((t) => cell(t, r)))))));
        wrap.setAttribute("role", "region");
        wrap.setAttribute("aria-label", "Top tokens");
        strips.replaceChildren(wrap);
        readout.hidden = true;
      } else {
        const shown = texts.slice(page * PER_PAGE, (page + 1) * PER_PAGE);
        strips.replaceChildren(...shown.map((t) => strip(t, scale, lut)));
        read();
      }
      const pages = Math.ceil(texts.length / PER_PAGE);
      pager.hidden = pages < 2;
      const turn = (by, label) => el("button", { type: "button", textContent: label, disabled: page + by < 0 || page + by >= pages, onclick: () => { page += by; draw(); } });
      pager.replaceChildren(turn(-1, "Earlier"), el("output", { textContent: `${page + 1} of ${pages}` }), turn(1, "Later"));
    }
    document.addEventListener("themechange", draw);
    document.addEventListener("selected", follow);
    draw();
    follow();
  }

  document.addEventListener("pageready", () => {
    const all = [...document.querySelectorAll("[data-tokens]")].map(start);
    window.__report.started = Promise.all([window.__report.started, ...all]);
  });
})();

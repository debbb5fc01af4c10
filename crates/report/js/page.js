// Theme, tables, copying, print: what a page has beside charts and views.
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
  const system = () => (dark.matches ? "dark" : "light");
  root.dataset.theme = kept === "dark" || kept === "light" ? kept : system();
  const isDark = () => !printing && root.dataset.theme === "dark";
  function themed() {
    name();
    document.dispatchEvent(new CustomEvent("themechange"));
  }
  function toggleTheme() {
    root.dataset.theme = isDark() ? "light" : "dark";
    store(root.dataset.theme);
    themed();
  }
  // A theme that was chosen here stays.
  dark.addEventListener("change", () => { if (!store()) { root.dataset.theme = system(); themed(); } });
  const button = document.getElementById("theme");
  const name = () => { if (button) button.textContent = isDark() ? "Light" : "Dark"; };
  name();
  button?.addEventListener("click", toggleTheme);

  // --- Tables: filter and sort ------------------------------------------------------------
  function filters(part) {
    for (const input of part.querySelectorAll("input[data-filter]")) filter(input);
    for (const table of part.querySelectorAll("table.sortable")) sortable(table);
  }
  function filter(input) {
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
  function sortable(table) {
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

  filters(document);

  // --- Closed parts are text until they are opened, so that a long page stays light -----------
  for (const text of document.querySelectorAll("details > noscript")) {
    const details = text.parentElement;
    details.addEventListener("toggle", () => {
      text.replaceWith(...new DOMParser().parseFromString(text.textContent, "text/html").body.childNodes);
      filters(details);
    }, { once: true });
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

  // --- Links within the page: what is chosen stays in the address, and a place beside it ---
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='#']:not(.skip)");
    const { open, root: explorer } = window.__report;
    if (!link || !open || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const hash = link.getAttribute("href").slice(1);
    event.preventDefault();
    if (hash.includes("=")) {
      open(Core.parseHash(hash));
      explorer.scrollIntoView({ block: "start" });
      return;
    }
    const target = document.getElementById(hash);
    open({}, hash);
    target?.scrollIntoView({ block: "start" });
    target?.setAttribute("tabindex", "-1");
    target?.focus({ preventScroll: true });
  });

  // --- Print: light, with the pictures that are in the page -------------------------------
  for (const [event, now] of [["beforeprint", true], ["afterprint", false]]) {
    addEventListener(event, () => { printing = now; document.dispatchEvent(new CustomEvent("themechange")); });
  }

  // --- In a notebook's frame the page says how high it is --------------------------------
  if (window.parent !== window) {
    root.classList.add("framed");
    const tell = () => {
      const height = document.querySelector("main").getBoundingClientRect().bottom + scrollY + 4;
      if (!document.querySelector(".plot:not(.drawn, .failed)")) window.parent.postMessage({ ironlensHeight: height }, "*");
    };
    new ResizeObserver(tell).observe(document.querySelector("main"));
    document.addEventListener("drawn", tell);
  }

  // Views add to `started` what they wait for.
  Object.assign(window.__report, { palette, isDark, toggleTheme, started: Promise.resolve() });
  document.dispatchEvent(new CustomEvent("pageready"));
})();

// Acceptance of pages in headless Chromium: node run.mjs DIR [RUN]..
//
// DIR holds what the examples `gallery`, `demo_report` and `notebook_output` wrote (gallery.html and the figures
// beside it, report.html, large-model.html, hostile.html, notebook.txt), and comparison.html if runs were compared; each RUN
// is a run's folder with report.html and snapshots. Every check prints one line with its figure; screenshots go to
// DIR/screenshots. The exit status is 1 if one fails.
import fs from "node:fs";
import path from "node:path";
import { browser, check, dir, drawAll, open, runs, shots, slowest, sleep, tally } from "./harness.mjs";
import { figures } from "./lib.mjs";
import * as pages from "./pages.mjs";
import * as reports from "./reports.mjs";

async function hostile(file) {
  const page = await open(file);
  await drawAll(page);
  const told = await page.evaluate(() => ({
    // What the text would have become as markup: an element that begins where its <b> ended, a script of its own.
    evil: [...document.querySelectorAll("b")].filter((e) => /^"'&/.test(e.textContent)).length + [...document.querySelectorAll("script")].filter((e) => e.textContent === "alert(1)").length,
    ran: Boolean(window.__evil), plots: document.querySelectorAll(".plot.failed").length,
  }));
  check("hostile: text stays text", page.seen.dialogs === 0 && told.evil === 0 && !told.ran && told.plots === 0 && page.seen.errors.length === 0, JSON.stringify({ ...told, errors: page.seen.errors.length }));
  await page.close();
}

async function notebook(file) {
  const text = fs.readFileSync(file, "utf8");
  const parts = [...text.matchAll(/EVCXR_BEGIN_CONTENT text\/html\n([\s\S]*?)\nEVCXR_END_CONTENT/g)].map((m) => m[1]);
  const displays = text.split("EVCXR_BEGIN_CONTENT text/html").slice(1).map((s) => s.length);
  check("notebook: below 100 KB after the first", parts.length > 1 && displays.slice(1).every((n) => n < 100_000), displays.map((n) => `${(n / 1000).toFixed(0)} KB`).join(", "));
  const page = await browser.newPage();
  await page.setViewport({ width: 1000, height: 3000 });
  const made = path.join(dir, "notebook.html");
  fs.writeFileSync(made, `<!doctype html><meta charset="utf-8"><body>${parts.map((p) => `<div class="cell">${p}</div><p class="after">next</p>`).join("")}`);
  await page.goto(`file://${made}`);
  for (let t = 0; t < 100; t++) {
    await sleep(200);
    if (await page.evaluate((n) => [...document.querySelectorAll("iframe")].filter((f) => f.clientHeight > 100).length === n, parts.length)) break;
  }
  const covered = await page.evaluate(() => [...document.querySelectorAll(".after")].filter((p) => {
    const at = p.getBoundingClientRect();
    return [...document.querySelectorAll("iframe")].some((f) => { const b = f.getBoundingClientRect(); return b.top < at.bottom - 1 && b.bottom > at.top + 1; });
  }).length);
  const drawn = await page.evaluate(() => [...document.querySelectorAll("iframe")].filter((f) => f.clientHeight > 100).length);
  await page.screenshot({ path: path.join(shots, "notebook.png") });
  check("notebook: every figure is drawn and covers nothing", covered === 0 && drawn === parts.length, `${drawn} of ${parts.length} drawn, ${covered} covered`);
  await page.close();
}

const in_dir = (name) => path.join(dir, name);
/** What is checked of which page, its most bytes beyond plotly.js and its most milliseconds. */
const all = [
  { name: "synthetic", file: in_dir("report.html"), most: 2e6, ready: 1500, report: true },
  { name: "large", file: in_dir("large-model.html"), most: 2e6, ready: 3000, report: true },
  { name: "gallery", file: in_dir("gallery.html"), most: 1.5e6, ready: 1500 },
  { name: "comparison", file: in_dir("comparison.html"), most: 1.5e6, ready: 1500 },
  ...runs.map((run) => ({ name: path.basename(run), file: path.join(run, "report.html"), most: 1.5e6, ready: 1500, report: true, run })),
].filter((p) => fs.existsSync(p.file));
// IRONLENS_PAGES="run,large" checks these alone, for work on them.
const wanted = process.env.IRONLENS_PAGES?.split(",");
const begun = Date.now();
try {
  for (const { name, file, most, ready, report, run } of all) {
    if (wanted && !wanted.includes(name)) continue;
    pages.size(name, file, most);
    await pages.speed(name, file, ready);
    // To draw a whole page takes seconds: what leaves it as it was shares one.
    const page = await open(file);
    await drawAll(page);
    await pages.offline(name, file, page);
    await pages.names(name, page);
    await pages.exportsOf(name, page, name === "gallery" ? 20 : 3);
    await pages.keyboard(name, page);
    await pages.access(name, page, "light");
    await pages.widths(name, page);
    await page.close();
    const dark = await open(file, { scheme: "dark" });
    await drawAll(dark);
    await pages.access(name, dark, "dark");
    await dark.close();
    await pages.colours(name, file);
    await pages.onPaper(name, file);
    await pages.withoutScripts(name, file);
    if (!report) continue;
    await reports.heads(name, file);
    await reports.selection(name, file);
    await reports.roles(name, file);
    await reports.tables(name, file);
    if (run) await reports.fidelity(name, file, run);
  }
  if (!wanted) {
    await hostile(in_dir("hostile.html"));
    for (const [file, bytes] of figures(dir)) check(`${file}: at most 0.8 MB`, bytes <= 800_000, `${(bytes / 1e6).toFixed(2)} MB`);
    await notebook(in_dir("notebook.txt"));
  }
} finally {
  await browser.close();
}
const long = slowest.sort((a, b) => b[1] - a[1]).slice(0, 8).map(([name, ms]) => `${name} ${(ms / 1000).toFixed(1)} s`);
console.log(`longest: ${long.join(", ")}`);
console.log(`${tally.done} checks in ${Math.round((Date.now() - begun) / 1000)} s, ${tally.failed} failed`);
process.exit(tally.failed ? 1 : 0);

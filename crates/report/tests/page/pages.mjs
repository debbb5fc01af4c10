// Checks of any page: network, size, speed, widths, accessibility, keys, files, paper, no scripts.
import fs from "node:fs";
import path from "node:path";
import { check, downloads, dir, drawAll, open, shots, sleep } from "./harness.mjs";
import { columns, textOf } from "./lib.mjs";

const axe = fs.readFileSync(new URL("./node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

export async function offline(name, file, page) {
  const csp = await page.evaluate(() => window.__csp.length);
  const failedCharts = await page.$$eval(".plot.failed", (all) => all.length);
  check(`${name}: offline, one request, no errors`, page.seen.requests.length === 1 && page.seen.errors.length === 0 && csp === 0 && failedCharts === 0,
    `${page.seen.requests.length} requests, ${page.seen.errors.length} errors, ${csp} violations ${page.seen.errors[0] ?? ""}`);
  const text = textOf(file);
  const loaded = /(?:src|href)=["'](?:https?:)?\/\/|@import|url\((?!["']?data:)/.exec(text);
  check(`${name}: nothing in it names a network address to load`, !loaded, loaded?.[0] ?? "");
}

export function size(name, file, most) {
  const html = fs.readFileSync(file, "utf8");
  const own = textOf(file).length;
  const packed = /id="page-js">([^<]*)/.exec(html)[1].length;
  const scripts = packed + [...html.matchAll(/<(script|style)>([\s\S]*?)<\/\1>/g)].reduce((n, m) => n + m[2].length, 0);
  check(`${name}: size beyond plotly.js at most ${(most / 1e6).toFixed(2)} MB`, own <= most, `${(own / 1e6).toFixed(2)} MB, whole ${(html.length / 1e6).toFixed(2)} MB`);
  check(`${name}: own scripts and style at most 64 KB`, scripts <= 64 * 1024, `${(scripts / 1024).toFixed(1)} KB`);
}

/** The longest task of the page's main thread in milliseconds of work: a busy machine makes tasks longer, not more. */
async function longestTask(page, act) {
  await page.tracing.start({ categories: ["toplevel", "disabled-by-default-devtools.timeline"] });
  await act();
  const { traceEvents } = JSON.parse(Buffer.from(await page.tracing.stop()).toString());
  const of = (e) => `${e.pid}:${e.tid}`;
  const main = new Set(traceEvents.filter((e) => e.name === "thread_name" && e.args.name === "CrRendererMain").map(of));
  return Math.max(0, ...traceEvents.filter((e) => e.name.endsWith("RunTask") && main.has(of(e))).map((e) => (e.tdur ?? e.dur ?? 0) / 1000));
}

export async function speed(name, file, most) {
  let best = null;
  // A busy machine is slow by chance, a slow page always: the best of three counts.
  for (let i = 0; i < 3; i++) {
    const page = await open(file);
    const ready = page.took;
    // The first chart is drawn when the page opens; then it is read.
    await page.waitForSelector(".plot.drawn", { timeout: 20_000 }).catch(() => null);
    const long = await longestTask(page, async () => {
      await page.evaluate(async () => {
        for (let y = 0; y < document.documentElement.scrollHeight; y += 300) {
          scrollTo(0, y);
          await new Promise((go) => setTimeout(go, 60));
        }
      });
      await sleep(500);
    });
    await drawAll(page);
    const told = await page.evaluate(async () => {
      const nodes = document.querySelectorAll("*").length;
      const report = window.__report;
      const switches = [];
      if (report.meta) {
        for (let i = 0; i < 20; i++) {
          const begun = performance.now();
          await report.set({ H: i % report.meta.arrays[0].shape[0] });
          switches.push(performance.now() - begun);
        }
      }
      switches.sort((a, b) => a - b);
      return { nodes, change: switches[10] ?? 0 };
    });
    await page.close();
    const now = { ready, long, ...told };
    best = best === null ? now : Object.fromEntries(Object.keys(now).map((k) => [k, Math.min(best[k], now[k])]));
    if (best.ready < most && best.long < 200 && best.change < 100) break;
  }
  check(`${name}: ready in ${most} ms`, best.ready < most, `${best.ready} ms`);
  check(`${name}: no task above 200 ms while scrolling`, best.long < 200, `${Math.round(best.long)} ms`);
  check(`${name}: another head in 100 ms`, best.change < 100, `${Math.round(best.change)} ms`);
  check(`${name}: below 5,000 nodes with all drawn`, best.nodes < 5000, `${best.nodes}`);
}

export async function widths(name, page) {
  const wide = [];
  for (const width of [320, 360, 480, 600, 800, 850, 900, 1100, 1280, 1400]) {
    await page.setViewport({ width, height: 900 });
    await sleep(120);
    const found = await page.evaluate(() => document.documentElement.scrollWidth);
    if (found > width) wide.push(`${width} -> ${found}`);
  }
  check(`${name}: no sideways scroll from 320 to 1,400 pixels`, wide.length === 0, wide.join(", "));
}

/** A drawn page in the colours of a scheme, wide and narrow. */
export async function access(name, page, scheme) {
  // The policy of the page keeps scripts out of it, but not those of the debugger.
  await page.evaluate(axe);
  for (const width of [1400, 360]) {
    await page.setViewport({ width, height: 900 });
    await sleep(200);
    await page.screenshot({ path: path.join(shots, `${name}-${width}-${scheme}.png`) });
    const found = await page.evaluate(async () => {
      const result = await axe.run(document, { resultTypes: ["violations"] });
      return result.violations.filter((v) => ["serious", "critical"].includes(v.impact)).map((v) => `${v.id} (${v.nodes.length}): ${v.nodes[0].html.slice(0, 120)}`);
    });
    check(`${name}: axe finds nothing serious, ${width} pixels, ${scheme}`, found.length === 0, found.join("; "));
  }
}

export async function keyboard(name, page) {
  await page.evaluate(() => scrollTo(0, 0));
  const stops = await page.$$eval("a[href], button, input, select, summary, [tabindex]", (all) =>
    all.filter((e) => e.tabIndex >= 0 && e.checkVisibility({ visibilityProperty: true }) && !e.disabled).length);
  const reached = new Set();
  let unseen = 0;
  for (let i = 0; i < Math.min(stops, 120); i++) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => {
      const e = document.activeElement;
      window.__stops ??= new Map();
      if (!window.__stops.has(e)) window.__stops.set(e, window.__stops.size);
      const style = getComputedStyle(e);
      return { id: window.__stops.get(e), ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 };
    });
    reached.add(at.id);
    if (!at.ring) unseen++;
  }
  check(`${name}: Tab reaches the controls, each with a ring`, reached.size >= Math.min(stops, 120) * 0.95 && unseen <= 1, `${reached.size} of ${stops}, ${unseen} without`);
  // One in view: those in closed parts of the page take no keys.
  const at = await page.$$eval(".plot.drawn", (all) => all.findIndex((e) => e.checkVisibility()));
  if (at >= 0) {
    const plot = (await page.$$(".plot.drawn"))[at];
    await plot.scrollIntoView();
    await plot.focus();
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    const told = await page.$eval(".told:not(:empty)", (e) => e.textContent).catch(() => "");
    check(`${name}: arrow keys read a chart`, /: -?[\d.]+/.test(told), told);
  }
}

export async function exportsOf(name, page, most) {
  const client = await page.createCDPSession();
  await client.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: downloads });
  const count = Math.min(most, await page.$$eval("figure.chart.ready", (all) => all.length));
  let problems = [];
  for (let i = 0; i < count; i++) {
    for (const kind of ["PNG", "SVG", "CSV", "JSON"]) {
      const spec = await page.evaluate((i) => { const p = window.__report.plots[i]; return { name: p.spec.ironlens.name, width: p.spec.ironlens.width, z: p.data.filter((t) => t.z).length, y: p.data.find((t) => t.type === "scatter" && t.hoverinfo !== "skip")?.y ?? null }; }, i);
      const target = path.join(downloads, `${spec.name}.${kind.toLowerCase()}`);
      fs.rmSync(target, { force: true });
      await page.evaluate(async (i, kind) => {
        const files = document.querySelectorAll("figure.chart.ready")[i].querySelector(".files");
        files.open = true;
        while (!files.querySelector("button")) await new Promise((go) => setTimeout(go));
        [...files.querySelectorAll("button")].find((b) => b.textContent === kind).click();
      }, i, kind);
      // The browser gives a file its name when it is whole.
      for (let t = 0; t < 1000 && !fs.existsSync(target); t++) await sleep(15);
      if (!fs.existsSync(target)) { problems.push(`${spec.name}.${kind} missing`); continue; }
      // The next one is lost where it begins before the browser is done with this one.
      await sleep(60);
      const bytes = fs.readFileSync(target);
      if (kind === "PNG" && (bytes.readUInt32BE(0) !== 0x89504e47 || bytes.readUInt32BE(16) !== 2 * spec.width)) problems.push(`${spec.name}.png is ${bytes.readUInt32BE(16)} wide`);
      if (kind === "SVG") {
        const bad = await page.evaluate((text) => Boolean(new DOMParser().parseFromString(text, "image/svg+xml").querySelector("parsererror")) || /(href|src)="http/.test(text), bytes.toString());
        if (bad) problems.push(`${spec.name}.svg`);
      }
      if (kind === "JSON") JSON.parse(bytes.toString());
      if (kind === "CSV") {
        const { head, rows } = columns(bytes.toString());
        if (spec.z === 0 && spec.y) {
          const shown = rows.slice(0, spec.y.length).map((r) => (r[2] === "" ? null : Number(r[2])));
          if (head[0] !== "series" || JSON.stringify(shown) !== JSON.stringify(spec.y)) problems.push(`${spec.name}.csv has other numbers`);
        } else if (spec.z) {
          // Curves of the same figure have a part of their own below the matrices.
          const end = rows.findIndex((r) => r[0] === "series");
          const cells = end < 0 ? rows : rows.slice(0, end);
          if (head.join() !== "matrix,row,column,value" || cells.some((r) => r.length !== 4 || Number.isNaN(Number(r[3])))) problems.push(`${spec.name}.csv`);
        }
      }
    }
  }
  check(`${name}: PNG at twice the size, SVG, CSV and JSON of ${count} figures parse back`, problems.length === 0 && count > 0, problems.join("; "));
}

export async function onPaper(name, file) {
  const page = await open(file, { scheme: "dark" });
  const pdf = await page.pdf({ format: "A4", printBackground: true });
  fs.writeFileSync(path.join(dir, `${name}.pdf`), pdf);
  await page.emulateMediaType("print");
  const told = await page.evaluate(() => {
    const seen = [...document.querySelectorAll("img.static")];
    return {
      paper: getComputedStyle(document.documentElement).backgroundColor, ink: getComputedStyle(document.body).color,
      pictures: seen.filter((i) => i.getBoundingClientRect().height > 20 && i.naturalWidth > 0).length,
      figures: document.querySelectorAll("figure.chart").length, plots: [...document.querySelectorAll(".plot")].filter((p) => p.offsetParent).length,
    };
  });
  check(`${name}: prints every figure as a picture, on white`, told.paper === "rgb(255, 255, 255)" && told.pictures >= told.figures - 1 && told.plots === 0 && pdf.length > 20_000,
    `${told.pictures} pictures of ${told.figures} figures, ink ${told.ink}, PDF of ${(pdf.length / 1e6).toFixed(2)} MB`);
  await page.close();
}

export async function withoutScripts(name, file) {
  const page = await open(file, { scripts: false });
  const told = await page.evaluate(() => {
    const seen = (e) => e.getBoundingClientRect().height > 0;
    return {
      pictures: [...document.querySelectorAll("img.static")].filter(seen).length,
      figures: [...document.querySelectorAll("figure.chart")].filter(seen).length,
      empty: [...document.querySelectorAll("details > noscript")].filter((e) => e.children.length === 0).length,
      dead: [...document.querySelectorAll(".needs-js, .plot, #theme, .bar")].filter(seen).length,
      white: getComputedStyle(document.documentElement).backgroundColor,
    };
  });
  await page.screenshot({ path: path.join(shots, `${name}-no-scripts.png`) });
  check(`${name}: pictures without scripts, and nothing that waits for them`, told.pictures >= told.figures && told.pictures > 0 && told.empty === 0 && told.dead === 0 && page.seen.errors.length === 0,
    `${told.pictures} pictures for ${told.figures} figures, ${told.dead} dead parts, ${told.empty} empty ones`);
  await page.close();
}

/** What a screen reader meets has a name, nothing moves by itself, and memory is small. */
export async function names(name, page) {
  const client = await page.createCDPSession();
  const { nodes } = await client.send("Accessibility.getFullAXTree");
  const nameless = nodes.filter((n) => !n.ignored && ["button", "link", "image", "img", "application", "combobox", "slider", "searchbox", "textbox", "checkbox", "spinbutton"].includes(n.role?.value) && !n.name?.value);
  check(`${name}: every control and picture has a name`, nameless.length === 0, `${nodes.length} nodes, ${nameless.length} without ${nameless[0]?.role.value ?? ""}`);
  await page.emulateMediaFeatures([{ name: "prefers-reduced-motion", value: "reduce" }]);
  const moving = await page.evaluate(() => document.getAnimations().filter((a) => a.playState === "running").length);
  check(`${name}: nothing moves where that is not wanted`, moving === 0, `${moving} animations`);
  const { JSHeapUsedSize } = await page.metrics();
  check(`${name}: below 150 MB of memory`, JSHeapUsedSize < 150e6, `${(JSHeapUsedSize / 1e6).toFixed(0)} MB`);
}

/** Colours: curves stand out, and maps go one way in brightness for every kind of sight. */
export async function colours(name, file) {
  for (const scheme of ["light", "dark"]) {
    const page = await open(file, { scheme });
    const worst = await page.evaluate((scheme) => {
      const { lines, ui } = window.__report.palette;
      const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255);
      const lin = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
      const lum = (hex) => { const [r, g, b] = rgb(hex).map(lin); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const contrast = (a, b) => { const [x, y] = [lum(a), lum(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
      return Math.min(...lines[scheme].flatMap((c) => [contrast(c, ui[scheme].page), contrast(c, ui[scheme].panel)]), contrast(ui[scheme].line, ui[scheme].panel));
    }, scheme);
    check(`${name}: curves and borders stand out, ${scheme}`, worst >= 3, `${worst.toFixed(2)} to 1 at least`);
    if (await page.$(".legend-bar canvas")) {
      const falls = [];
      for (const sight of ["none", "deuteranopia", "protanopia", "tritanopia", "achromatopsia"]) {
        await page.emulateVisionDeficiency(sight);
        const bar = await page.$(".legend-bar canvas");
        await bar.scrollIntoView();
        // Charts that come near are drawn, one after the other, and may move it: it is to stay for a while.
        let box = await bar.boundingBox();
        for (let still = 0; still < 4;) {
          await sleep(200);
          const now = await bar.boundingBox();
          still = now.y === box.y ? still + 1 : 0;
          box = now;
        }
        // A box is told from the corner of the window, a clip from that of the page.
        const y = box.y + 4 + await page.evaluate(() => scrollY);
        const picture = await page.screenshot({ clip: { x: box.x + 2, y, width: box.width - 4, height: 2 }, encoding: "base64" });
        await page.emulateVisionDeficiency("none");
        const steps = await page.evaluate(async (png) => {
          const image = await createImageBitmap(new Blob([Uint8Array.from(atob(png), (c) => c.charCodeAt(0))], { type: "image/png" }));
          const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: 1 });
          const c = canvas.getContext("2d");
          c.drawImage(image, 0, 0);
          const { data } = c.getImageData(0, 0, image.width, 1);
          const y = Array.from({ length: image.width }, (_, i) => 0.2126 * data[4 * i] + 0.7152 * data[4 * i + 1] + 0.0722 * data[4 * i + 2]);
          const rise = y[y.length - 1] - y[0];
          return Math.abs(rise) < 50 ? "no map" : y.slice(1).filter((v, i) => Math.sign(rise) * (v - y[i]) < -1).length;
        }, picture);
        if (steps !== 0) falls.push(`${sight}: ${steps}`);
      }
      check(`${name}: the map of attention goes one way in brightness, ${scheme}`, falls.length === 0, falls.join(", ") || "five kinds of sight");
    }
    await page.close();
  }
}

// Checks of a report of a run: the heads, one selection for the page, claims and charts that follow the data.
import fs from "node:fs";
import path from "node:path";
import { check, downloads, drawAll, open, sleep } from "./harness.mjs";
import { columns, safetensors } from "./lib.mjs";

const chosen = (page) => page.evaluate(() => ({ ...window.__report.state, title: document.querySelector(".spot h3").textContent, hash: location.hash }));

/** Preview, choice, keys, and an address that opens where it was made. */
export async function heads(name, file) {
  const page = await open(file);
  const thumbs = await page.$$(".thumbs button");
  const first = await chosen(page);
  // Whichever is not shown at first.
  const other = first.L === 0 && first.H === 1 ? 2 : 1;
  await thumbs[other].scrollIntoView();
  await thumbs[other].hover();
  await sleep(150);
  const hovered = (await chosen(page)).title;
  await page.mouse.move(5, 5);
  await sleep(150);
  const left = (await chosen(page)).title;
  await thumbs[other].click();
  await sleep(150);
  const kept = await chosen(page);
  check(`${name}: a head is previewed, let go and kept`, hovered.includes(`head ${other}`) && left === first.title && kept.locked && kept.H === other, `${hovered} / ${left} / ${kept.title}`);
  const card = await page.$eval(".facts h3", (e) => e.textContent);
  check(`${name}: it has a card`, card.includes(`L0H${other}`), card);
  // The heads that a head builds on are named on its card, and lead to theirs.
  const pair = await page.evaluate(() => window.__report.meta.pairs?.[0]);
  if (pair) {
    const name_of = ([L, H]) => `L${L}H${H}`;
    await page.mouse.move(5, 5); // off the head that was clicked, which is previewed as long
    await page.evaluate(([L, H]) => window.__report.open({ L, H }), pair.reader);
    const link = ".facts .table-wrap:not([hidden]) a.head";
    await page.waitForSelector(link);
    const told = await page.$eval(".facts", (e) => e.innerText);
    await page.$eval(link, (a) => a.click()); // the pointer stays away from the heads
    await sleep(150);
    const on = await chosen(page);
    check(`${name}: a card names the heads that it builds on`, told.includes(`reads ${name_of(pair.writer)} by its ${pair.by}`) && name_of([on.L, on.H]) === name_of(pair.writer), `${name_of(pair.reader)} -> ${name_of([on.L, on.H])}`);
    await page.evaluate(([L, H]) => window.__report.open({ L, H }), [kept.L, kept.H]);
    await sleep(150);
  }
  await page.focus(".map canvas + canvas");
  await page.keyboard.press("ArrowLeft");
  await sleep(100);
  const moved = await chosen(page);
  check(`${name}: arrow keys move the cell`, moved.k !== kept.k, `${kept.d},${kept.k} -> ${moved.d},${moved.k}`);
  const again = await open(file, { hash: moved.hash });
  const restored = await again.evaluate(() => ({ ...window.__report.state, top: document.getElementById("explorer").getBoundingClientRect().top }));
  check(`${name}: the address opens where it was made`, ["s", "e", "L", "H", "d", "k"].every((k) => restored[k] === moved[k]) && Math.abs(restored.top) < 900, moved.hash);
  await again.close();
  // The middle of a cell has the colour of its value.
  const pixels = await page.evaluate(async () => {
    const { state, palette, geometry } = window.__report;
    const view = await window.__report.patterns.head(state.s, state.L, state.H);
    const context = document.querySelector(".map canvas").getContext("2d");
    const lut = Core.lut(palette.maps.blues.light, 256);
    const { unit, left, top, ratio } = geometry();
    let [bad, seen] = [0, 0];
    for (let i = 0; i < 300; i++) {
      const [d, s] = [(i * 37) % view.dest, (i * 53) % view.src];
      const v = view.at(d, s);
      if (v === null) continue;
      const pixel = context.getImageData(Math.floor((left + (s + 0.5) * unit) * ratio), Math.floor((top + (d + 0.5) * unit) * ratio), 1, 1).data;
      const k = Math.round(Core.position(v, { lo: 0, hi: 1 }) * 255) * 3;
      seen++;
      if ([0, 1, 2].some((c) => pixel[c] !== lut[k + c])) bad++;
    }
    return { bad, seen };
  });
  check(`${name}: pixels have the colours of their values`, pixels.bad === 0 && pixels.seen > 50, `${pixels.seen} cells, ${pixels.bad} others`);
  const told = await page.evaluate(async () => {
    await window.__report.open({ d: 2, k: 5 });
    return document.querySelector(".spot .readout").textContent;
  });
  check(`${name}: a masked cell reads N/A`, /N\/A/.test(told), told);
  // Files of the explorer.
  const client = await page.createCDPSession();
  await client.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: downloads });
  for (const kind of ["csv", "png"]) {
    for (const old of fs.readdirSync(downloads).filter((f) => f.startsWith("attention-"))) fs.rmSync(path.join(downloads, old));
    await page.evaluate((kind) => [...document.querySelectorAll(".spot .bar button")].find((b) => b.textContent.toLowerCase() === kind).click(), kind);
    let saved;
    for (let t = 0; t < 100 && !(saved = fs.readdirSync(downloads).find((f) => f.startsWith("attention-") && f.endsWith(kind))); t++) await sleep(50);
    await sleep(80);
    const bytes = saved ? fs.readFileSync(path.join(downloads, saved)) : Buffer.alloc(0);
    if (kind === "png") check(`${name}: the pattern as PNG`, bytes.length > 1000 && bytes.readUInt32BE(0) === 0x89504e47 && bytes.readUInt32BE(16) >= 1000, `${bytes.length ? bytes.readUInt32BE(16) : 0} pixels wide`);
    else {
      const { rows } = columns(bytes.toString() || "a");
      const worst = await page.evaluate(async (rows) => {
        const { state } = window.__report;
        const view = await window.__report.patterns.head(state.s, state.L, state.H);
        let worst = rows.length === view.dest ? 0 : Infinity;
        rows.forEach((row, d) => row.slice(1).forEach((text, s) => {
          const v = view.at(d, s);
          if ((v === null) !== (text === "")) worst = Infinity;
          else if (v !== null) worst = Math.max(worst, Math.abs(v - Number(text)));
        }));
        return worst;
      }, rows);
      check(`${name}: the pattern as CSV parses back`, worst < 1e-4, `off by ${worst.toExponential(1)}`);
    }
  }
  await page.close();
}

/** A cell of a chart, a link in a sentence and a sequence choose for the whole page, and the address says where. */
export async function selection(name, file) {
  const page = await open(file);
  await drawAll(page);
  const links = await page.$$eval(".findings a.head", (all) => all.map((a) => a.textContent));
  if (links.length) {
    await page.evaluate(() => document.querySelector(".findings a.head").click());
    await sleep(200);
    const now = await chosen(page);
    check(`${name}: a head in a sentence opens its card`, `L${now.L}H${now.H}` === links[0], `${links[0]} -> L${now.L}H${now.H}`);
  }
  // A cell of a picture of heads, by the keys that choose it.
  const charts = await page.evaluate(() => window.__report.plots.map((plot, i) => {
    const trace = plot.data.findIndex((t) => t.z && t.hoverinfo !== "skip");
    const at = trace < 0 ? {} : Core.selects(plot.spec, plot.data[trace], 0);
    return { i, heads: at.L !== undefined, id: plot.div.closest("figure").id };
  }).filter((c) => c.heads));
  if (charts.length) {
    const { i, id } = charts[0];
    await page.evaluate((i) => { window.__report.open({ L: 1, H: 2 }); window.__report.plots[i].div.focus(); }, i);
    await page.keyboard.press("Home");
    await page.keyboard.press("Enter");
    await sleep(300);
    const now = await chosen(page);
    check(`${name}: a cell of a chart chooses its head`, now.L === 0 && now.H === 0 && now.hash.includes(`at=${id}`), now.hash);
    const again = await open(file, { hash: now.hash });
    const top = await again.evaluate((id) => document.getElementById(id).getBoundingClientRect().top, id);
    check(`${name}: a link opens at the chart where it was made`, Math.abs(top) < 900, `${Math.round(top)} pixels from the top`);
    await again.close();
  }
  const cursor = () => page.evaluate(() => window.__report.plots.find((p) => p.div.closest("[data-cursor]"))?.cursor);
  if ((await page.evaluate(() => window.__report.meta.snapshots.length)) > 2) {
    await page.evaluate(() => window.__report.open({ s: window.__report.meta.snapshots[1].label }));
    await sleep(200);
    const step = await page.evaluate(() => window.__report.meta.snapshots[1].step);
    check(`${name}: the snapshot's step is marked under the loss`, (await cursor()) === step, `step ${await cursor()}`);
  }
  const sequences = await page.evaluate(() => window.__report.meta.examples.length);
  if (sequences > 1) {
    await page.evaluate(() => { const select = document.querySelector("[data-tokens] select"); select.selectedIndex = 1; select.dispatchEvent(new Event("change")); });
    await sleep(300);
    const e = await page.evaluate(() => window.__report.state.e);
    check(`${name}: a sequence is chosen for the whole page`, e !== null, `example ${e} of ${sequences}`);
    await page.evaluate(() => document.querySelectorAll("[data-tokens] .strip span")[3].click());
    await sleep(200);
    const rows = await page.$$eval("[data-tokens] .readout tr", (all) => all.length);
    const d = await page.evaluate(() => window.__report.state.d);
    check(`${name}: a token tells its likeliest continuations and is the position everywhere`, rows >= 5 && d === 3, `${rows} rows, position ${d}`);
  }
  await page.close();
}

/** Beside the name of a role is its picture: dark where such a head looks, light elsewhere. */
export async function roles(name, file) {
  const page = await open(file);
  const found = await page.evaluate(async () => {
    const { meta, palette, patterns } = window.__report;
    const looks = { "previous token": (d, s) => s === d - 1, "current token": (d, s) => s === d, "first token": (d, s) => s === 0 };
    const paper = palette.maps.blues.light[0];
    const rgb = [1, 3, 5].map((i) => parseInt(paper.slice(i, i + 2), 16));
    const out = [];
    for (const [l, h, kind] of meta.roles ?? []) {
      if (!looks[kind]) continue;
      await window.__report.open({ s: meta.snapshots.length - 1, L: l, H: h });
      while (!document.querySelector(".spot h3").textContent.startsWith(`Layer ${l}, head ${h} (kept)`)) await new Promise((go) => setTimeout(go, 20));
      const card = document.querySelector(".facts h3").textContent;
      const { unit, left, top, ratio } = window.__report.geometry();
      const { dest } = await patterns.head(meta.snapshots.length - 1, l, h);
      const map = document.querySelector(".map canvas");
      const { data } = map.getContext("2d").getImageData(0, 0, map.width, map.height);
      const ink = { there: [0, 0], elsewhere: [0, 0] };
      // The first rows have few places to look at.
      for (let d = Math.ceil(dest / 8); d < dest; d++) for (let s = 0; s <= d; s++) {
        const at = 4 * (Math.floor((top + (d + 0.5) * unit) * ratio) * map.width + Math.floor((left + (s + 0.5) * unit) * ratio));
        const sum = ink[looks[kind](d, s) ? "there" : "elsewhere"];
        sum[0] += rgb.reduce((n, v, c) => n + Math.abs(v - data[at + c]), 0);
        sum[1]++;
      }
      const thumb = [...document.querySelectorAll(".thumbs button")].find((b) => b.querySelector("small").textContent === `L${l}H${h}`);
      out.push({ head: `L${l}H${h}`, kind, named: thumb?.querySelector(".role")?.title === kind && card === `What is known of L${l}H${h}: ${kind}`, times: ink.there[0] / ink.there[1] / Math.max(1, ink.elsewhere[0] / ink.elsewhere[1]) });
    }
    return { out, chance: Boolean(document.querySelector(".chance")), any: document.querySelectorAll(".thumbs .role").length };
  });
  if (found.chance) check(`${name}: a model at chance has no roles`, found.any === 0, `${found.any} named heads`);
  else if (found.out.length) {
    const bad = found.out.filter((r) => !r.named || r.times < 5);
    check(`${name}: beside the name of a role is its picture`, bad.length === 0, found.out.map((r) => `${r.head} ${r.kind} ${r.times.toFixed(0)} times as dark`).join(", "));
  }
  await page.close();
}

/** Patterns, scores and losses are those of the run's files. */
export async function fidelity(name, file, folder) {
  const page = await open(file);
  const meta = await page.evaluate(() => window.__report.meta);
  let random = 12345;
  const next = (n) => { random = (Math.imul(random, 1664525) + 1013904223) >>> 0; return Math.floor((random / 2 ** 32) * n); };
  const cells = Array.from({ length: 1000 }, () => {
    const s = next(meta.snapshots.length), l = next(meta.layers);
    const [heads, dest, src] = meta.arrays[s * meta.layers + l].shape;
    return [s, l, next(heads), next(dest), next(src)];
  });
  const shown = await page.evaluate((cells) => Promise.all(cells.map((c) => window.__report.get(...c))), cells);
  const truth = cells.map((c) => safetensors(folder, meta.snapshots[c[0]].step, c.slice(1)));
  let [worst, hidden, wrong] = [0, 0, 0];
  shown.forEach((v, i) => {
    const error = meta.arrays[cells[i][0] * meta.layers + cells[i][1]].error;
    if (v === null) { hidden++; if (cells[i][4] <= cells[i][3]) wrong++; } else {
      worst = Math.max(worst, Math.abs(v - truth[i]));
      if (Math.abs(v - truth[i]) > error + 1e-6) wrong++;
    }
  });
  const declared = Math.max(...meta.arrays.map((a) => a.error));
  check(`${name}: 1,000 random cells equal the snapshots`, wrong === 0 && hidden > 100, `worst ${worst.toExponential(1)}, declared at most ${declared.toExponential(1)}, ${hidden} hidden`);

  const [heads, dest] = meta.arrays[0].shape;
  const last = meta.snapshots[meta.snapshots.length - 1].step;
  const previous = meta.detectors.find((d) => d.name === "previous token");
  let off = 0, best = [0, 0, -1];
  for (let l = 0; l < meta.layers; l++) for (let h = 0; h < heads; h++) {
    let sum = 0;
    for (let d = 1; d < dest; d++) sum += safetensors(folder, last, [l, h, d, d - 1]);
    off = Math.max(off, Math.abs(sum / dest - previous.after[l][h]));
    if (sum / dest > best[2]) best = [l, h, sum / dest];
  }
  check(`${name}: scores are those of the snapshots`, off < 0.005, `off by ${off.toExponential(1)}`);
  const [l, h] = best;
  const says = await page.evaluate(async ([l, h]) => {
    await window.__report.open({ L: l, H: h });
    return { card: document.querySelector(".facts").textContent, found: document.querySelector(".findings")?.textContent ?? "", chance: Boolean(document.querySelector(".chance")) };
  }, [l, h]);
  const named = new RegExp(`L${l}H${h} \\(${previous.after[l][h].toFixed(2)}`).test(says.found);
  check(`${name}: the card and the findings have that score`, says.card.includes(previous.after[l][h].toFixed(2)) && (named || !/attends? to the previous token/.test(says.found)), `L${l}H${h} ${best[2].toFixed(2)}${says.chance ? ", at chance" : ""}`);

  const metrics = fs.readFileSync(path.join(folder, "metrics.jsonl"), "utf8").trim().split("\n").map((l) => JSON.parse(l));
  await drawAll(page);
  const told = await page.evaluate(() => {
    const plot = window.__report.plots.find((p) => p.div.closest("[data-cursor]"));
    const { spec, data, div } = plot;
    const trace = data.find((t) => t.name === "loss");
    div.scrollIntoView();
    div.focus();
    return { x: trace.x, y: trace.y, title: Object.values(spec.layout).map((a) => a?.title?.text).filter(Boolean), log: spec.layout.yaxis.type };
  });
  const right = [0, 7, metrics.length - 1].every((i) => { const k = told.x.indexOf(metrics[i].step); return k >= 0 && told.y[k] === metrics[i].loss; });
  check(`${name}: the loss chart has the logged numbers on a logarithmic axis`, right && told.log === "log" && told.title.includes("step") && told.title.includes("loss"), `${told.y.length} points`);
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowRight");
  const read = await page.$eval("[data-cursor] .told", (e) => e.textContent);
  const value = Number(read.split(": ").pop());
  check(`${name}: keys read it`, /^loss, step 1: /.test(read) && Math.abs(value / metrics[1].loss - 1) < 1e-3, read);
  // The legend hides, a drag zooms, a double click resets.
  const div = await page.$("[data-cursor] .plot");
  await page.evaluate(() => document.querySelector("[data-cursor] .plot").scrollIntoView());
  await sleep(200);
  const box = await (await div.$(".xy .nsewdrag, .nsewdrag")).boundingBox();
  const range = () => page.evaluate(() => [...document.querySelector("[data-cursor] .plot").layout.xaxis.range]);
  const before = await range();
  await page.mouse.move(box.x + box.width * 0.3, box.y + box.height * 0.3);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.6, box.y + box.height * 0.8, { steps: 6 });
  await page.mouse.up();
  await sleep(400);
  const zoomed = await range();
  await page.mouse.click(box.x + box.width * 0.5, box.y + box.height * 0.5, { count: 2 });
  await sleep(600);
  const reset = await range();
  check(`${name}: a drag zooms, a double click resets`, zoomed[1] - zoomed[0] < 0.5 * (before[1] - before[0]) && Math.abs(reset[1] - before[1]) < 0.1 * before[1], `${before.map(Math.round)} -> ${zoomed.map(Math.round)} -> ${reset.map(Math.round)}`);
  const legend = await div.$(".legendtoggle");
  if (legend) {
    const at = await legend.boundingBox();
    await page.mouse.click(at.x + at.width / 2, at.y + at.height / 2);
    await sleep(800);
    const hiddenNow = await page.evaluate(() => document.querySelector("[data-cursor] .plot").data.some((t) => t.visible === "legendonly"));
    check(`${name}: the legend hides a curve`, hiddenNow);
  }
  await page.close();
}

/** Tables filter and sort, and have a row for each hook. */
export async function tables(name, file) {
  const page = await open(file);
  const told = await page.evaluate(async () => {
    for (const d of document.querySelectorAll("details")) d.open = true;
    // What was closed becomes elements when it opens.
    while (document.querySelector("details > noscript")) await new Promise((go) => setTimeout(go));
    const table = document.getElementById("hooks-table");
    if (!table) return null;
    const filter = document.querySelector("input[data-filter=hooks-table]");
    const rows = table.tBodies[0].rows.length;
    filter.value = "attn";
    filter.dispatchEvent(new Event("input"));
    const shown = [...table.tBodies[0].rows].filter((r) => !r.hidden);
    const right = shown.every((r) => r.textContent.includes("attn"));
    filter.value = "";
    filter.dispatchEvent(new Event("input"));
    const head = [...table.tHead.rows[0].cells].findIndex((c) => c.textContent === "Numbers");
    table.tHead.rows[0].cells[head].querySelector("button").click();
    const numbers = [...table.tBodies[0].rows].map((r) => Number(r.cells[head].dataset.key));
    return { rows, shown: shown.length, right, sorted: numbers.every((v, i) => i === 0 || v >= numbers[i - 1]), sort: table.tHead.rows[0].cells[head].ariaSort };
  });
  if (told) check(`${name}: the table of activations filters and sorts`, told.right && told.shown > 0 && told.shown < told.rows && told.sorted && told.sort === "ascending", `${told.shown} of ${told.rows} rows`);
  await page.close();
}

// Reading what pages and runs hold, outside of a browser.
import fs from "node:fs";
import path from "node:path";

/** A page without the packed chart library. */
export function textOf(file) {
  return fs.readFileSync(file, "utf8").replace(/(id="plotly-js">)[^<]*/, "$1");
}

/** The fields of comma-separated text. */
export function columns(text) {
  const rows = text.trimEnd().split("\n").map((line) =>
    [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)].map(([, q, bare]) => (q !== undefined ? q.replace(/""/g, '"') : bare)));
  return { head: rows[0], rows: rows.slice(1) };
}

/** The standalone figures of a folder and their sizes. */
export function figures(dir) {
  return fs.readdirSync(dir)
    .filter((name) => name.endsWith(".html") && !["gallery.html", "report.html", "large-model.html", "hostile.html", "comparison.html", "notebook.html"].includes(name))
    .map((name) => [name, fs.statSync(path.join(dir, name)).size]);
}

const kept = new Map();
/** A cell [layer, head, dest, src] of a run's snapshot. */
export function safetensors(run, step, [l, h, d, s]) {
  const file = path.join(run, "snapshots", `step-${String(step).padStart(6, "0")}.safetensors`);
  if (!kept.has(file)) {
    const bytes = fs.readFileSync(file);
    const length = Number(bytes.readBigUInt64LE(0));
    kept.set(file, { bytes, start: 8 + length, header: JSON.parse(bytes.subarray(8, 8 + length).toString()) });
  }
  const { bytes, start, header } = kept.get(file);
  const names = Object.keys(header).filter((n) => n !== "__metadata__").sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const { shape, data_offsets: [from] } = header[names[l]];
  const [, dest, src] = shape.slice(-3);
  return bytes.readFloatLE(start + from + 4 * ((h * dest + d) * src + s));
}

// Pure functions of the page: no document, no state. Tested under node.
"use strict";
var Core = (() => {
  /** Base64 to bytes. */
  function bytes(base64) {
    const text = atob(base64.trim());
    const out = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) out[i] = text.charCodeAt(i);
    return out;
  }

  /** Raw deflate to bytes. */
  async function inflate(packed) {
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  /** What an element holds as JSON, plain or deflated. */
  async function json(element) {
    const text = element.textContent;
    return JSON.parse(element.type === "application/json" ? text : new TextDecoder().decode(await inflate(bytes(text))));
  }

  /** How many numbers of one head are stored. */
  function stored(info) {
    const [, dest, src] = info.shape;
    return info.causal ? (dest * (dest + 1)) / 2 : dest * src;
  }

  /**
   * Inflated bytes to values, Float32Array [head, dest, src] in full.
   * Byte planes (most significant first) hold codes; the highest code means "not finite".
   * A causal pattern is stored as triangles [dest][head][src]; cells above the diagonal were not: they become -1.
   */
  function values(raw, info) {
    const [heads, dest, src] = info.shape;
    const count = heads * stored(info);
    const flat = new Float32Array(count);
    if (info.codec === "f32") {
      const word = new DataView(new ArrayBuffer(4));
      for (let i = 0; i < count; i++) {
        for (let b = 0; b < 4; b++) word.setUint8(b, raw[b * count + i]);
        flat[i] = word.getFloat32(0);
      }
    } else {
      const code = {
        u8: (i) => raw[i],
        u12: (i) => raw[i] * 16 + ((raw[count + (i >> 1)] >> (i % 2 ? 0 : 4)) & 15),
        u16: (i) => raw[i] * 256 + raw[count + i],
      }[info.codec];
      const none = 2 ** Number(info.codec.slice(1)) - 1;
      const step = (info.hi - info.lo) / (none - 1);
      for (let i = 0; i < count; i++) {
        const c = code(i);
        flat[i] = c === none ? NaN : info.lo + c * step;
      }
    }
    if (!info.causal) return flat;
    const full = new Float32Array(heads * dest * src).fill(-1);
    let from = 0;
    for (let d = 0; d < dest; d++) {
      for (let h = 0; h < heads; h++) {
        full.set(flat.subarray(from, from + d + 1), (h * dest + d) * src);
        from += d + 1;
      }
    }
    return full;
  }

  /** A lookup table of n colours [r, g, b] from "#rrggbb" stops. */
  function lut(stops, n) {
    const rgb = stops.map((s) => [1, 3, 5].map((i) => parseInt(s.slice(i, i + 2), 16)));
    const out = new Uint8Array(n * 3);
    for (let i = 0; i < n; i++) {
      const x = (i / (n - 1)) * (rgb.length - 1);
      const k = Math.min(Math.floor(x), rgb.length - 2);
      for (let c = 0; c < 3; c++) {
        out[i * 3 + c] = Math.round(rgb[k][c] + (rgb[k + 1][c] - rgb[k][c]) * (x - k));
      }
    }
    return out;
  }

  /** Position of a value on a colour map, 0 to 1. */
  function position(v, domain) {
    const { lo, hi, log } = domain;
    if (log) {
      if (!(v > 0)) return 0;
      return clamp((Math.log10(v) - Math.log10(lo)) / (Math.log10(hi) - Math.log10(lo)));
    }
    return clamp((v - lo) / (hi - lo));
  }

  function clamp(x) {
    return x > 0 ? (x < 1 ? x : 1) : 0;
  }

  /** Mean of A[i, i - k] over i >= k, for each offset k; `at(i, j)` reads a cell. */
  function profile(at, dest, src) {
    const out = [];
    for (let k = 0; k < Math.min(dest, src); k++) {
      let sum = 0, n = 0;
      for (let i = k; i < dest && i - k < src; i++) {
        const v = at(i, i - k);
        if (Number.isFinite(v)) { sum += v; n++; }
      }
      out.push(n ? sum / n : NaN);
    }
    return out;
  }

  /** The profile of a head that attends equally to itself and all before it. */
  function uniformProfile(n) {
    const tail = new Array(n).fill(0);
    let sum = 0;
    const out = new Array(n);
    // Mean over i >= k of 1 / (i + 1).
    for (let k = n - 1; k >= 0; k--) {
      sum += 1 / (k + 1);
      tail[k] = sum;
      out[k] = tail[k] / (n - k);
    }
    return out;
  }

  /** Mean of A[i, s] over the i behind s, for each source s that an eighth of them see; of all i where nothing is hidden. `at(i, j)` reads a cell. */
  function sources(at, dest, src) {
    return Array.from({ length: src }, (_, s) => {
      let sum = 0, n = 0;
      for (let i = at(0, src - 1) === null ? s + 1 : 0; i < dest; i++) {
        const v = at(i, s);
        if (v !== null && Number.isFinite(v)) { sum += v; n++; }
      }
      // A mean over the last few destinations says little of the head.
      return n * 8 >= dest ? sum / n : NaN;
    });
  }

  /** The same of a head that attends equally to itself and all before it. */
  function uniformSources(dest, src) {
    return sources((i, j) => (j > i ? null : 1 / (i + 1)), dest, src);
  }

  /** A number in three digits. */
  function three(v) {
    if (!Number.isFinite(v)) return String(v);
    const size = Math.abs(v);
    return size !== 0 && (size < 0.01 || size >= 1e5) ? v.toExponential(1) : v.toFixed(size >= 100 ? 0 : 2);
  }

  /**
   * Which head, position or step a point of a chart stands for, as far as its axes and names tell: { L, H, d, step }.
   * Heads are named L0H1, or lie on axes called layer and head.
   */
  function selects(spec, trace, at) {
    const [x, y] = [axisOf(spec, trace.xaxis, "x"), axisOf(spec, trace.yaxis, "y")];
    const title = (axis) => plain(axis.title?.text);
    const titles = ["x", "y"].map((letter) => Object.keys(spec.layout).filter((key) => key.startsWith(`${letter}axis`))
      .map((key) => title(spec.layout[key])).find(Boolean));
    const out = {};
    const named = (text) => {
      const found = /^L(\d+)H(\d+)(?::|$)/.exec(String(text));
      if (found) Object.assign(out, { L: Number(found[1]), H: Number(found[2]) });
    };
    const cols = trace.z ? trace.z[0].length : 1;
    const [row, col] = trace.z ? [Math.floor(at / cols), at % cols] : [null, trace.x?.[at] ?? at];
    named(plain(/<extra>(.*)<\/extra>/.exec(trace.hovertemplate ?? "")?.[1] ?? ""));
    named(plain(trace.name));
    named(place(x, col));
    if (row !== null) named(place(y, row));
    if (titles[0] === "head" && titles[1] === "layer" && row !== null) Object.assign(out, { L: row, H: col });
    const number = Number.parseInt(place(x, col), 10);
    if (titles[0] === "position" && Number.isFinite(number)) out.d = number;
    if (titles[0] === "step" && !trace.z) out.step = col;
    return out;
  }

  /** A token so that it can be seen; the writer draws them the same way. */
  function tokenText(text) {
    const picture = (c) => /[\u2600-\u27bf\ufe0f\u{1f000}-\u{1faff}]/u.test(c ?? "");
    const all = [...text];
    let out = "";
    all.forEach((c, i) => {
      const code = c.codePointAt(0);
      if (c === " ") out += "·";
      else if (c === "\n") out += "⏎";
      else if (c === "\t") out += "→";
      else if (code === 0x200d && picture(all[i - 1]) && picture(all[i + 1])) out += c;
      else if (code < 32 || (code >= 127 && code < 160) || (code >= 0x200b && code <= 0x200f) ||
        (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x2069) || code === 0xfeff) {
        out += "\\x" + code.toString(16).padStart(2, "0");
      } else out += c;
    });
    return out || "∅";
  }

  /** "#s=after&L=1&H=0" to an object; what cannot be read is left out. */
  function parseHash(hash) {
    const out = {};
    for (const part of hash.replace(/^#/, "").split("&")) {
      const [key, value] = part.split("=");
      if (value === undefined) continue;
      try { out[key] = decodeURIComponent(value); } catch { /* a broken escape */ }
    }
    return out;
  }

  function formatHash(state) {
    return "#" + Object.entries(state).filter(([, v]) => v !== undefined && v !== null)
      .map(([k, v]) => `${k}=${encodeURIComponent(v)}`).join("&");
  }

  /** A number with as many digits as the codec carries. */
  function format(v, error) {
    if (!Number.isFinite(v)) return String(v);
    const digits = error > 1e-3 ? 2 : error > 1e-5 ? 4 : 6;
    return v.toFixed(digits);
  }

  /** Black or white, whichever can be read on the colour (WCAG luminance). */
  function inkOn([r, g, b]) {
    const lin = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const lum = 0.2126 * lin(r) + 0.7152 * lin(g) + 0.0722 * lin(b);
    return lum > 0.179 ? "#000" : "#fff";
  }

  /** A matrix as comma-separated text. */
  function csv(at, dest, src, error) {
    const head = ["dest\\src", ...Array.from({ length: src }, (_, j) => j)].join(",");
    const rows = Array.from({ length: dest }, (_, i) =>
      [i, ...Array.from({ length: src }, (_, j) => {
        const v = at(i, j);
        return v === null ? "" : Number.isFinite(v) ? Number(v.toFixed(error > 1e-5 ? 5 : 8)) : "nan";
      })].join(","));
    return [head, ...rows].join("\n") + "\n";
  }

  const quoted = (text) => (/[",\n]/.test(text) ? `"${String(text).replace(/"/g, '""')}"` : String(text));
  const plain = (text) => String(text ?? "").replace(/<[^>]*>/g, "").replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
  const axisOf = (spec, name, letter) => spec.layout[`${letter}axis${String(name ?? letter).slice(1)}`] ?? {};
  /** What an axis calls a place: its tick text, the name of one without a tick, or the number. */
  function place(axis, v) {
    const i = axis.tickvals?.indexOf(v) ?? -1;
    if (i >= 0) return plain(axis.ticktext[i]);
    const alias = axis.labelalias?.[v];
    return alias === undefined ? v : plain(alias);
  }

  /** The numbers of a chart as comma-separated text: a matrix for cells, a row for each point of others. */
  function tracesCsv(spec, data) {
    const cells = data.filter((t, i) => t.z && spec.ironlens.paint[i]?.cells);
    const others = data.filter((t) => !t.z && t.hoverinfo !== "skip" && (t.y || t.values));
    const out = [];
    if (cells.length) {
      out.push("matrix,row,column,value");
      cells.forEach((t, k) => {
        const [x, y] = [axisOf(spec, t.xaxis, "x"), axisOf(spec, t.yaxis, "y")];
        const name = plain(/<extra>(.*)<\/extra>/.exec(t.hovertemplate ?? "")?.[1] || k);
        t.z.forEach((row, r) => row.forEach((v, c) => out.push([name, place(y, r), place(x, c), v ?? ""].map(quoted).join(","))));
      });
    }
    if (others.length) {
      const spread = others.some((t) => t.error_y?.array);
      out.push(`series,x,y,text${spread ? ",low,high" : ""}`);
      const ends = (t, v, i) => {
        const [above, below] = [t.error_y?.array?.[i], t.error_y?.arrayminus?.[i] ?? t.error_y?.array?.[i]];
        return !spread ? [] : Number.isFinite(v) && Number.isFinite(above) ? [v - below, v + above] : ["", ""];
      };
      for (const t of others) {
        const x = axisOf(spec, t.xaxis, "x");
        const ys = t.type === "box" ? [] : t.y ?? t.values;
        ys.forEach((v, i) => out.push([plain(t.name), place(x, t.x?.[i] ?? i), v ?? "", plain(t.text?.[i]), ...ends(t, v, i)].map(quoted).join(",")));
        if (t.type === "box") {
          const parts = { low: t.lowerfence?.[0], q1: t.q1?.[0], median: t.median?.[0], q3: t.q3?.[0], high: t.upperfence?.[0] };
          for (const [part, v] of Object.entries(parts)) out.push([plain(t.name), part, v ?? "", ""].map(quoted).join(","));
          for (const v of t.q1 ? t.y?.[0] ?? [] : t.y ?? []) out.push([plain(t.name), t.q1 ? "outlier" : "sample", v, ""].map(quoted).join(","));
        }
      }
    }
    return out.join("\n") + "\n";
  }

  /** The fields of a row of comma-separated text. */
  function csvRow(line) {
    const out = [];
    for (const [, quoted_, bare] of line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)) out.push(quoted_ !== undefined ? quoted_.replace(/""/g, '"') : bare);
    return out;
  }

  const short = (v) => (v === null || v === undefined ? "nothing" : typeof v === "number" ? Number(v.toPrecision(4)).toString() : String(v));

  /** Whether a trace is what a chart shows, and not a mark laid over it. */
  const isShown = (spec, t, i) => t.hoverinfo !== "skip" && (!t.z || !spec.ironlens.paint[i] || Boolean(spec.ironlens.paint[i].cells));

  /** One sentence on what a chart holds. */
  function summary(spec, data) {
    const shown = data.filter((t, i) => isShown(spec, t, i));
    const numbers = shown.flatMap((t) => (t.z ? t.z.flat() : t.y ?? [])).flat().filter((v) => Number.isFinite(v));
    if (!numbers.length) return "It has no numbers.";
    const [lo, hi] = numbers.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
    const what = shown.some((t) => t.z) ? `${numbers.length} cells` : `${shown.length} ${shown.length === 1 ? "series" : "series"}, ${numbers.length} points`;
    return `${what}, from ${short(lo)} to ${short(hi)}.`;
  }

  /** A point of a trace in words: what the keys read out. */
  function describe(spec, trace, at) {
    const [x, y] = [axisOf(spec, trace.xaxis, "x"), axisOf(spec, trace.yaxis, "y")];
    // Of panels side by side the outer ones have the name.
    const titles = (letter) => Object.keys(spec.layout).filter((key) => key.startsWith(`${letter}axis`))
      .map((key) => plain(spec.layout[key].title?.text)).find(Boolean);
    const name = (axis, otherwise) => plain(axis.title?.text) || (trace.z && titles(axis === x ? "x" : "y")) || otherwise;
    if (trace.z) {
      const cols = trace.z[0].length;
      const [r, c] = [Math.floor(at / cols), at % cols];
      return `${name(y, "row")} ${place(y, r)}, ${name(x, "column")} ${place(x, c)}: ${short(trace.z[r][c])}`;
    }
    const where = trace.text?.[at] ? plain(trace.text[at]) : `${name(x, "x")} ${short(place(x, trace.x?.[at] ?? at))}`;
    return `${plain(trace.name)}, ${where}: ${short(trace.y[at])}`;
  }

  return { isShown, sources, uniformSources, three, selects, tracesCsv, csvRow, summary, describe, bytes, inflate, json, stored, values, lut, position, profile, uniformProfile, tokenText,
    parseHash, formatHash, format, inkOn, csv };
})();
if (typeof module !== "undefined") module.exports = Core;

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

  /** How many numbers of one head are stored. */
  function stored(info) {
    const [, dest, src] = info.shape;
    return info.causal ? (dest * (dest + 1)) / 2 : dest * src;
  }

  /**
   * Inflated bytes to values, Float32Array [head, dest, src] in full.
   * Byte planes (most significant first) hold codes; the highest code means "not finite".
   * Cells above the diagonal of a causal pattern were not stored: they become -1.
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
      const wide = info.codec === "u16";
      const none = wide ? 65535 : 255;
      const step = (info.hi - info.lo) / (none - 1);
      for (let i = 0; i < count; i++) {
        const code = wide ? raw[i] * 256 + raw[count + i] : raw[i];
        flat[i] = code === none ? NaN : info.lo + code * step;
      }
    }
    if (!info.causal) return flat;
    const full = new Float32Array(heads * dest * src).fill(-1);
    let from = 0;
    for (let h = 0; h < heads; h++) {
      for (let d = 0; d < dest; d++) {
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

  /** A token so that it can be seen; the writer draws them the same way. */
  function tokenText(text) {
    let out = "";
    for (const c of text) {
      const code = c.codePointAt(0);
      if (c === " ") out += "·";
      else if (c === "\n") out += "⏎";
      else if (c === "\t") out += "→";
      else if (code < 32 || (code >= 127 && code < 160) || (code >= 0x200b && code <= 0x200f) ||
        (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x2069) || code === 0xfeff) {
        out += "\\x" + code.toString(16).padStart(2, "0");
      } else out += c;
    }
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

  return { bytes, inflate, stored, values, lut, position, profile, uniformProfile, tokenText,
    parseHash, formatHash, format, inkOn, csv };
})();
if (typeof module !== "undefined") module.exports = Core;

// The page's pure functions: `node --test crates/report/js/`.
"use strict";
const test = require("node:test");
const assert = require("node:assert");
const zlib = require("node:zlib");
const Core = require("./core.js");

test("a causal u8 pattern comes back within its step, hidden cells as -1", async () => {
  // Two heads of [2, 2], lower triangles: 0, 127, 254 and 254, 0, 255 (not finite).
  const packed = zlib.deflateRawSync(Buffer.from([0, 127, 254, 254, 0, 255]));
  const raw = await Core.inflate(Core.bytes(packed.toString("base64")));
  const values = Core.values(raw, { shape: [2, 2, 2], causal: true, codec: "u8", lo: 0, hi: 1 });
  assert.deepStrictEqual([...values].slice(0, 4), [0, -1, 0.5, 1]);
  assert.ok(values[4] === 1 && values[5] === -1 && values[6] === 0 && Number.isNaN(values[7]));
});

test("a u16 plane pair and raw floats are read in the written order", () => {
  const wide = Core.values(new Uint8Array([0, 255, 0, 254]), { shape: [1, 1, 2], causal: false, codec: "u16", lo: 0, hi: 1 });
  assert.deepStrictEqual([...wide], [0, 1]);
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setFloat32(0, 0.25);
  assert.deepStrictEqual([...Core.values(bytes, { shape: [1, 1, 1], causal: false, codec: "f32" })], [0.25]);
});

test("the profile tells a previous-token head from a uniform one", () => {
  const previous = Core.profile((i, j) => (j === i - 1 ? 1 : 0), 4, 4);
  assert.deepStrictEqual(previous, [0, 1, 0, 0]);
  const uniform = Core.profile((i, j) => 1 / (i + 1), 4, 4);
  Core.uniformProfile(4).forEach((v, k) => assert.ok(Math.abs(v - uniform[k]) < 1e-12));
});

test("colours: ends, middle, out of range, logarithmic", () => {
  assert.deepStrictEqual([...Core.lut(["#000000", "#ff0000"], 3)], [0, 0, 0, 128, 0, 0, 255, 0, 0]);
  assert.strictEqual(Core.position(5, { lo: 0, hi: 1 }), 1);
  assert.strictEqual(Core.position(0.01, { lo: 0.0001, hi: 1, log: true }), 0.5);
  assert.strictEqual(Core.position(0, { lo: 0.0001, hi: 1, log: true }), 0);
  assert.strictEqual(Core.inkOn([255, 255, 255]), "#000");
  assert.strictEqual(Core.inkOn([0, 0, 80]), "#fff");
});

test("tokens can be seen and cannot hide", () => {
  assert.strictEqual(Core.tokenText(" a\n\t\u202e"), "·a⏎→\\x202e");
  assert.strictEqual(Core.tokenText(""), "∅");
});

test("the address keeps the state, and a broken one is survived", () => {
  const state = { s: "after", L: "1", H: "0" };
  assert.deepStrictEqual(Core.parseHash(Core.formatHash(state)), state);
  assert.deepStrictEqual(Core.parseHash("#a=%E0%A4%A&b=1&c"), { b: "1" });
});

test("CSV leaves hidden cells empty", () => {
  const text = Core.csv((i, j) => (j > i ? null : 0.5), 2, 2, 1e-3);
  assert.strictEqual(text, "dest\\src,0,1\n0,0.5,\n1,0.5,0.5\n");
});

// Run by `node --test`, and from `cargo test` where node is installed.
"use strict";
const test = require("node:test");
const assert = require("node:assert/strict");
const zlib = require("node:zlib");
const Core = require("./core.js");

test("bytes and inflate undo base64 and raw deflate", async () => {
  const raw = Uint8Array.from({ length: 1000 }, (_, i) => (i * 7) % 256);
  const text = zlib.deflateRawSync(raw).toString("base64");
  assert.deepEqual(await Core.inflate(Core.bytes(`\n${text}\n`)), raw);
});

test("JSON is read as it is, and deflated", async () => {
  const text = '{"a":[1,2]}';
  const packed = zlib.deflateRawSync(Buffer.from(text)).toString("base64");
  for (const element of [{ type: "application/json", textContent: text }, { type: "application/octet-stream", textContent: packed }]) {
    assert.deepEqual(await Core.json(element), { a: [1, 2] });
  }
});

test("u8 codes span lo to hi, and the highest means not finite", () => {
  const info = { codec: "u8", causal: false, shape: [1, 1, 3], lo: -1, hi: 1 };
  const [a, b, c] = Core.values(Uint8Array.of(0, 254, 255), info);
  assert.deepEqual([a, b, Number.isNaN(c)], [-1, 1, true]);
});

test("u16 and f32 are split into planes", () => {
  const u16 = Core.values(Uint8Array.of(0, 255, 0, 254), { codec: "u16", causal: false, shape: [1, 1, 2], lo: 0, hi: 1 });
  assert.deepEqual([...u16], [0, 1]);
  const f32 = Core.values(Uint8Array.of(0x3f, 0xbf, 0x80, 0x00, 0, 0, 0, 0), { codec: "f32", causal: false, shape: [1, 1, 2] });
  assert.deepEqual([...f32], [1, -0.5]);
});

test("u12 has the low halves of two codes in a byte", () => {
  const info = { codec: "u12", causal: false, shape: [1, 1, 3], lo: 0, hi: 4094 };
  const [a, b, c] = Core.values(Uint8Array.of(0x12, 0xff, 0x00, 0x3e, 0x50), info);
  assert.deepEqual([a, b, c], [0x123, 0xffe, 0x005]);
  assert.ok(Number.isNaN(Core.values(Uint8Array.of(0xff, 0xf0), { ...info, shape: [1, 1, 1] })[0]));
});

test("a causal pattern is a triangle for each head, rows of all heads together; what lies ahead is marked", () => {
  const info = { codec: "u8", causal: true, shape: [2, 2, 2], lo: 0, hi: 254 };
  assert.equal(Core.stored(info), 3);
  const values = Core.values(Uint8Array.of(1, 2, 3, 4, 5, 6), info);
  assert.deepEqual([...values], [1, -1, 3, 4, 2, -1, 5, 6]);
});

test("a colour table goes through its stops", () => {
  const lut = Core.lut(["#000000", "#ff0000", "#ffffff"], 5);
  assert.deepEqual([...lut], [0, 0, 0, 128, 0, 0, 255, 0, 0, 255, 128, 128, 255, 255, 255]);
});

test("position clamps, also for zero on a logarithmic map", () => {
  assert.equal(Core.position(5, { lo: 0, hi: 1 }), 1);
  assert.equal(Core.position(-5, { lo: 0, hi: 1 }), 0);
  assert.equal(Core.position(0, { lo: 1e-4, hi: 1, log: true }), 0);
  assert.ok(Math.abs(Core.position(1e-2, { lo: 1e-4, hi: 1, log: true }) - 0.5) < 1e-12);
  assert.equal(Core.position(NaN, { lo: 0, hi: 1 }), 0);
});

test("the profile tells kinds of heads apart", () => {
  const n = 16;
  const previous = Core.profile((i, j) => (j === Math.max(0, i - 1) ? 1 : 0), n, n);
  assert.equal(previous[1], 1);
  assert.ok(previous[0] < 0.1 && previous[2] === 0);
  const uniform = Core.profile((i, j) => (j <= i ? 1 / (i + 1) : 0), n, n);
  Core.uniformProfile(n).forEach((v, k) => assert.ok(Math.abs(v - uniform[k]) < 1e-12));
  assert.ok(Core.profile(() => NaN, 2, 2).every(Number.isNaN));
});

test("tokens can be seen", () => {
  assert.equal(Core.tokenText(" the\n"), "·the⏎");
  assert.equal(Core.tokenText("\u0000\u202e"), "\\x00\\x202e");
  assert.equal(Core.tokenText(""), "∅");
  assert.equal(Core.tokenText("<b>"), "<b>");
});

test("the address keeps the state, and bad addresses do no harm", () => {
  const state = { s: "step 100", L: 1, H: 0, k: null };
  assert.deepEqual(Core.parseHash(Core.formatHash(state)), { s: "step 100", L: "1", H: "0" });
  assert.deepEqual(Core.parseHash("#%&s=%E0%A4%A&x"), {});
});

test("numbers have no more digits than the codec carries", () => {
  assert.equal(Core.format(0.123456789, 2e-3), "0.12");
  assert.equal(Core.format(0.123456789, 1e-4), "0.1235");
  assert.equal(Core.format(0.123456789, 0), "0.123457");
  assert.equal(Core.format(NaN, 0), "NaN");
});

test("text on a colour is black or white", () => {
  assert.equal(Core.inkOn([255, 255, 255]), "#000");
  assert.equal(Core.inkOn([8, 48, 107]), "#fff");
});

test("a matrix as text", () => {
  const csv = Core.csv((i, j) => (j > i ? null : 0.5), 2, 2, 0);
  assert.equal(csv, "dest\\src,0,1\n0,0.5,\n1,0.5,0.5\n");
});

test("the numbers of a chart as text that reads back", () => {
  const spec = {
    layout: { xaxis: { tickvals: [0, 1], ticktext: ["a,b", "&lt;s&gt;"], title: { text: "token" } }, yaxis: { title: { text: "value" } } },
    ironlens: { paint: [{ cells: true }, { mask: true }] },
  };
  const cells = [{ z: [[1, null]], hovertemplate: "x<extra>one</extra>" }, { z: [[null, 1]] }];
  const lines = Core.tracesCsv(spec, cells).trimEnd().split("\n");
  assert.deepEqual(lines.map(Core.csvRow), [["matrix", "row", "column", "value"], ["one", "0", "a,b", "1"], ["one", "0", "<s>", ""]]);
  const curve = [{ type: "scatter", name: "loss", x: [0, 1], y: [0.5, null] }];
  assert.deepEqual(Core.tracesCsv(spec, curve).split("\n").slice(1, 3), ['loss,"a,b",0.5,', "loss,<s>,,"]);
  const box = [{ type: "box", name: "b", q1: [1], median: [2], q3: [3], lowerfence: [0], upperfence: [4], y: [[9]] }];
  assert.match(Core.tracesCsv(spec, box), /b,median,2,\n[\s\S]*b,outlier,9,/);
});

test("charts in words", () => {
  const spec = { layout: { xaxis: { title: { text: "step" } }, yaxis: { title: { text: "loss" } } } };
  assert.equal(Core.describe(spec, { name: "loss", x: [3], y: [0.123456] }, 0), "loss, step 3: 0.1235");
  assert.equal(Core.describe(spec, { z: [[1, 2], [3, null]] }, 3), "loss 1, step 1: nothing");
  const masked = { layout: {}, ironlens: { paint: [{ cells: true }, { mask: true }] } };
  assert.equal(Core.summary(masked, [{ z: [[1, 2], [3, null]] }, { z: [[null, 9], [null, null]] }]), "3 cells, from 1 to 3.");
  assert.equal(Core.summary({ layout: {}, ironlens: { paint: [] } }, [{ y: [] }]), "It has no numbers.");
  const thinned = { layout: { yaxis: { tickvals: [0, 2], ticktext: ["L0H0", "L0H2"], labelalias: { 0: "L0H0", 1: "L0H1", 2: "L0H2" } },
    xaxis: {}, xaxis2: { title: { text: "head" } } }, ironlens: { paint: [{ cells: true }] } };
  assert.equal(Core.describe(thinned, { z: [[1], [2], [3]] }, 1), "row L0H1, head 0: 2");
  assert.equal(Core.selects(thinned, { z: [[1], [2], [3]] }, 1).H, 1);
  const errors = { layout: { xaxis: {} }, ironlens: { paint: [{}] } };
  assert.match(Core.tracesCsv(errors, [{ name: "a", type: "bar", x: ["k"], y: [2], error_y: { array: [0.5] } }]), /text,low,high\na,k,2,,1.5,2.5\n/);
});

test("parts of one emoji stay together", () => {
  assert.equal(Core.tokenText("\u{1f469}\u200d\u{1f469}"), "\u{1f469}\u200d\u{1f469}");
  assert.equal(Core.tokenText("a\u200db"), "a\\x200db");
});

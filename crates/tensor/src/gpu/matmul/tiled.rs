//! Products by threads: a workgroup makes a tile of the result from tiles of both operands in
//! workgroup memory, kept as they lie in memory (no transposing stores); loops over a tile are
//! unrolled, since naga's are not by Metal's compiler. The inner dimension is summed in order,
//! whatever the tile (but see `few_rows.rs`).

use std::fmt::{self, Write};

use super::tile::Transposition;
use super::variant::{Epilogue, Variant};

/// An operand: `rows x cols` of it, `cols` dense, are in workgroup memory at a time.
struct Operand {
    shared: &'static str,
    buffer: &'static str,
    base: &'static str,
    /// First row and column of the tile, and the operand's numbers of both.
    start: [&'static str; 2],
    size: [&'static str; 2],
    /// Strides of rows and columns.
    strides: [&'static str; 2],
    rows: usize,
    cols: usize,
}

impl Operand {
    /// Vectors of four in a row of workgroup memory; one more than needed keeps rows off each
    /// other's banks.
    fn pitch(&self) -> usize {
        self.cols / 4 + 1
    }

    /// Fills workgroup memory; zeros lie outside of the operand.
    fn load(&self, text: &mut String, threads: usize, vec4: bool) -> fmt::Result {
        let Operand { shared, buffer, base, start, size, strides, .. } = self;
        let (wide, pitch) = (self.cols / 4, self.pitch());
        let count = self.rows * wide;
        for turn in 0..count.div_ceil(threads) {
            let guard = if (turn + 1) * threads > count { format!("if (e < {count}u) ") } else { String::new() };
            writeln!(text, "{{ let e = lid + {}u;", turn * threads)?;
            writeln!(
                text,
                "{guard}{{ let row = {} + e / {wide}u; let col = {} + (e % {wide}u) * 4u;",
                start[0], start[1]
            )?;
            writeln!(text, "let at = {base} + row * {} + col * {};", strides[0], strides[1])?;
            let to = format!("{shared}[(e / {wide}u) * {pitch}u + e % {wide}u]");
            if vec4 {
                writeln!(text, "let inside = row < {} && col < {};", size[0], size[1])?;
                writeln!(text, "{to} = select(vec4<f32>(0.0), {buffer}[select(0u, at / 4u, inside)], inside);")?;
            } else {
                let step = strides[1];
                for i in 0..4 {
                    writeln!(text, "let in{i} = row < {} && col + {i}u < {};", size[0], size[1])?;
                    writeln!(text, "let v{i} = select(0.0, {buffer}[select(0u, at + {i}u * {step}, in{i})], in{i});")?;
                }
                writeln!(text, "{to} = vec4<f32>(v0, v1, v2, v3);")?;
            }
            writeln!(text, "}} }}")?;
        }
        Ok(())
    }
}

fn operands(v: &Variant) -> [Operand; 2] {
    let t = v.tile;
    let a = Operand {
        shared: "ta",
        buffer: "r0",
        base: "item.a",
        start: ["row0", "k0"],
        size: ["m", "k"],
        strides: ["a_row()", "a_col()"],
        rows: t.rows,
        cols: t.k_tile,
    };
    let b = Operand {
        shared: "tb",
        buffer: "r1",
        base: "item.b",
        start: ["k0", "col0"],
        size: ["k", "n"],
        strides: ["b_row()", "b_col()"],
        rows: t.k_tile,
        cols: t.cols,
    };
    let turn = |on, x: Operand| {
        let ([s0, s1], [z0, z1], [w0, w1]) = (x.start, x.size, x.strides);
        match on {
            true => Operand { start: [s1, s0], size: [z1, z0], strides: [w1, w0], rows: x.cols, cols: x.rows, ..x },
            false => x,
        }
    };
    [turn(v.order.left_transposed(), a), turn(v.order.right_transposed(), b)]
}

/// The entry point, and `store` with the epilogue.
pub(super) fn body(v: &Variant, text: &mut String) -> fmt::Result {
    let (t, [a, b]) = (v.tile, operands(v));
    let ([tm, tn], threads) = (t.micro_tile, t.threads());
    let (groups, across) = (tn / 4, t.cols / tn);
    for x in [&a, &b] {
        writeln!(text, "var<workgroup> {}: array<vec4<f32>, {}>;", x.shared, x.rows * x.pitch())?;
    }
    writeln!(text, "@compute @workgroup_size({threads})")?;
    writeln!(text, "fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {{")?;
    writeln!(text, "let m = rows(); let n = cols(); let item = item_of(wid.z);")?;
    writeln!(
        text,
        "let row0 = (first_row_tile() + wid.y) * {}u; let col0 = (first_col_tile() + wid.x) * {}u;",
        t.rows, t.cols
    )?;
    match v.epilogue {
        // Nothing of a tile is seen whose first key comes after its last query.
        Epilogue::Scores => {
            writeln!(text, "let unseen = causal() && col0 > row0 + {}u + query_start();", t.rows - 1)?;
            writeln!(text, "let k = select(inner(), 0u, unseen);")?;
        }
        Epilogue::None | Epilogue::Bias | Epilogue::Residual | Epilogue::BiasResidual => {
            writeln!(text, "let k = inner();")?;
        }
    }
    writeln!(text, "let ty = lid / {across}u; let tx = lid % {across}u;")?;
    for (i, j) in (0..tm).flat_map(|i| (0..groups).map(move |j| (i, j))) {
        writeln!(text, "var c{i}_{j} = vec4<f32>(0.0);")?;
    }
    writeln!(text, "for (var k0 = 0u; k0 < k; k0 += {}u) {{", t.k_tile)?;
    a.load(text, threads, v.vec4)?;
    b.load(text, threads, v.vec4)?;
    writeln!(text, "workgroupBarrier();")?;
    let (pa, pb) = (a.pitch(), b.pitch());
    let part = ["x", "y", "z", "w"];
    let multiply = |text: &mut String, i: usize, a: &str, j: usize| {
        writeln!(text, "c{i}_{j} = fma(vec4<f32>({a}), b{j}, c{i}_{j});")
    };
    let columns = |text: &mut String, kk: usize| {
        (0..groups).try_for_each(|j| writeln!(text, "let b{j} = tb[{}u + tx * {groups}u + {j}u];", kk * pb))
    };
    match v.order {
        Transposition::LeftTransposed => {
            for kk in 0..t.k_tile {
                writeln!(text, "{{")?;
                for q in 0..tm / 4 {
                    writeln!(text, "let a{q} = ta[{}u + ty * {}u + {q}u];", kk * pa, tm / 4)?;
                }
                columns(text, kk)?;
                for (i, j) in (0..tm).flat_map(|i| (0..groups).map(move |j| (i, j))) {
                    multiply(text, i, &format!("a{}.{}", i / 4, part[i % 4]), j)?;
                }
                writeln!(text, "}}")?;
            }
        }
        Transposition::Plain | Transposition::RightTransposed => {
            for kk in 0..t.k_tile / 4 {
                writeln!(text, "{{")?;
                for i in 0..tm {
                    writeln!(text, "let a{i} = ta[(ty * {tm}u + {i}u) * {pa}u + {kk}u];")?;
                }
                for (s, part) in part.into_iter().enumerate() {
                    writeln!(text, "{{")?;
                    match v.order {
                        // Row `4 kk + s` of b, out of the columns that lie densely.
                        Transposition::RightTransposed => {
                            for j in 0..groups {
                                let of = |c| format!("tb[(tx * {tn}u + {}u) * {pb}u + {kk}u].{part}", 4 * j + c);
                                let [x, y, z, w] = [of(0), of(1), of(2), of(3)];
                                writeln!(text, "let b{j} = vec4<f32>({x}, {y}, {z}, {w});")?;
                            }
                        }
                        Transposition::Plain | Transposition::LeftTransposed => columns(text, 4 * kk + s)?,
                    }
                    for (i, j) in (0..tm).flat_map(|i| (0..groups).map(move |j| (i, j))) {
                        multiply(text, i, &format!("a{i}.{part}"), j)?;
                    }
                    writeln!(text, "}}")?;
                }
                writeln!(text, "}}")?;
            }
        }
    }
    writeln!(text, "workgroupBarrier();\n}}")?;
    for (i, j) in (0..tm).flat_map(|i| (0..groups).map(move |j| (i, j))) {
        writeln!(text, "store(item, row0 + ty * {tm}u + {i}u, col0 + tx * {tn}u + {}u, c{i}_{j});", 4 * j)?;
    }
    writeln!(text, "}}")?;
    store(v, text)
}

/// The product `c` and what is added to it, at the element `at` of the result, in the column `col`.
pub(super) fn sum(epilogue: Epilogue, at: &str, col: &str, c: &str) -> String {
    match epilogue {
        Epilogue::None | Epilogue::Scores => c.to_string(),
        Epilogue::Bias => format!("{c} + r2[{col}]"),
        Epilogue::Residual => format!("r2[{at}] + {c}"),
        Epilogue::BiasResidual => format!("r3[{at}] + ({c} + r2[{col}])"),
    }
}

fn store(v: &Variant, text: &mut String) -> fmt::Result {
    let part = ["x", "y", "z", "w"];
    let sum = |at: &str, col: &str, c: &str| sum(v.epilogue, at, col, c);
    writeln!(text, "fn store(item: Item, row: u32, col: u32, c: vec4<f32>) {{")?;
    writeln!(text, "let n = cols(); let at = item.out + row * out_row() + col;")?;
    match (v.epilogue, v.vec4) {
        (Epilogue::Scores, _) => {
            for (i, part) in part.into_iter().enumerate() {
                writeln!(text, "let s{i} = score(item, row, col + {i}u, c.{part});")?;
            }
            if v.vec4 {
                writeln!(text, "if (row < rows() && col < n) {{ w0[at / 4u] = vec4<f32>(s0, s1, s2, s3); }}")?;
            } else {
                for i in 0..4 {
                    writeln!(text, "if (row < rows() && col + {i}u < n) {{ w0[at + {i}u] = s{i}; }}")?;
                }
            }
        }
        (_, true) => {
            writeln!(text, "if (row < rows() && col < n) {{ w0[at / 4u] = {}; }}", sum("at / 4u", "col / 4u", "c"))?;
        }
        (_, false) => {
            for (i, part) in part.into_iter().enumerate() {
                let sum = sum(&format!("at + {i}u"), &format!("col + {i}u"), &format!("c.{part}"));
                writeln!(text, "if (row < rows() && col + {i}u < n) {{ w0[at + {i}u] = {sum}; }}")?;
            }
        }
    }
    writeln!(text, "}}")?;
    if v.epilogue == Epilogue::Scores {
        // A column beyond the last reads the last one's mask: what it gets is not stored.
        text.push_str(
            "fn score(item: Item, i: u32, j: u32, product: f32) -> f32 {\n\
             var s = capped(product);\n\
             var shown = 1.0;\n\
             if (has_key_mask()) { shown = r3[item.outer * cols() + min(j, cols() - 1u)]; }\n\
             if (alibi_bf16()) {\n\
             s += key_bias(r2[item.rest], select(f32(j), shown - 1.0, has_key_mask()));\n\
             } else if (has_alibi()) { s += r2[item.rest] * min(f32(j) - f32(i + query_start()), 0.0); }\n\
             return select(hidden_score(), s, visible(i, j, shown));\n}\n",
        );
    }
    Ok(())
}

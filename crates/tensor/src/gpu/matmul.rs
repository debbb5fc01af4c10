//! Matrix products: a generator of WGSL, and which of its variants a product takes.
//!
//! A workgroup makes a tile of the result from tiles of both operands in workgroup memory, kept as
//! they lie in memory (no transposing stores); loops over a tile are unrolled, since naga's are not
//! by Metal's compiler. The inner dimension is summed in order, whatever the tile.

use std::fmt::{self, Write};

use super::source::{Source, head};

/// The part of the result that a workgroup makes, and how its threads share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    /// Rows and columns of a workgroup.
    pub rows: usize,
    pub cols: usize,
    /// Of the inner dimension, how much is in workgroup memory at a time.
    inner: usize,
    /// Rows and columns of a thread.
    thread: [usize; 2],
}

impl Tile {
    const fn new(rows: usize, cols: usize, inner: usize, thread: [usize; 2]) -> Tile {
        Tile { rows, cols, inner, thread }
    }

    fn threads(self) -> usize {
        (self.rows / self.thread[0]) * (self.cols / self.thread[1])
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}/{}x{}", self.rows, self.cols, self.inner, self.thread[0], self.thread[1])
    }
}

/// Those that may be taken.
pub(super) const TILES: [Tile; 4] = [
    Tile::new(32, 32, 16, [4, 4]),
    Tile::new(64, 64, 16, [4, 4]),
    Tile::new(64, 64, 16, [8, 4]),
    Tile::new(128, 64, 16, [8, 4]),
];

/// Which axis of the operands is dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Order {
    /// The inner one of `a`, the columns of `b`. The scalar path takes any strides in this order.
    Plain,
    /// The inner one of both.
    RightTransposed,
    /// The rows of `a`, the columns of `b`.
    LeftTransposed,
}

impl Order {
    pub const ALL: [Order; 3] = [Order::Plain, Order::RightTransposed, Order::LeftTransposed];

    pub fn name(self) -> &'static str {
        match self {
            Order::Plain => "nn",
            Order::RightTransposed => "nt",
            Order::LeftTransposed => "tn",
        }
    }

    fn left_transposed(self) -> bool {
        self == Order::LeftTransposed
    }

    fn right_transposed(self) -> bool {
        self == Order::RightTransposed
    }
}

/// A kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Variant {
    pub tile: Tile,
    pub order: Order,
    /// Whether four neighbours are read and written at once.
    pub by_four: bool,
    /// Whether a row is added to every row of the result,
    pub bias: bool,
    /// and whether the result is then added to another matrix.
    pub residual: bool,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = |on, text| if on { text } else { "" };
        write!(f, "matmul {} {}", self.order.name(), self.tile)?;
        write!(f, "{}", flag(self.by_four, " by 4"))?;
        write!(f, "{}{}", flag(self.bias, " + bias"), flag(self.residual, " + residual"))
    }
}

/// An operand: `rows x cols` of it, `cols` dense, are in workgroup memory at a time.
struct Operand {
    shared: &'static str,
    buffer: &'static str,
    base: &'static str,
    /// First row and column of the tile, and the operand's numbers of both.
    start: [&'static str; 2],
    size: [&'static str; 2],
    /// Words of the parameters with the strides of rows and columns.
    strides: [u32; 2],
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
    fn load(&self, text: &mut String, threads: usize, by_four: bool) -> fmt::Result {
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
            writeln!(text, "let at = {base} + row * u({}u) + col * u({}u);", strides[0], strides[1])?;
            let to = format!("{shared}[(e / {wide}u) * {pitch}u + e % {wide}u]");
            if by_four {
                writeln!(text, "let inside = row < {} && col < {};", size[0], size[1])?;
                writeln!(text, "{to} = select(vec4<f32>(0.0), {buffer}[select(0u, at / 4u, inside)], inside);")?;
            } else {
                let step = strides[1];
                for i in 0..4 {
                    writeln!(text, "let in{i} = row < {} && col + {i}u < {};", size[0], size[1])?;
                    writeln!(
                        text,
                        "let v{i} = select(0.0, {buffer}[select(0u, at + {i}u * u({step}u), in{i})], in{i});"
                    )?;
                }
                writeln!(text, "{to} = vec4<f32>(v0, v1, v2, v3);")?;
            }
            writeln!(text, "}} }}")?;
        }
        Ok(())
    }
}

/// Parameters: 0 = m, 1 = k, 2 = n, 3, 4, 5 = strides of `a` over batch, rows and columns, 6 = its
/// offset, 7 to 10 = the same of `b`, 11 = first matrix of the result.
impl Variant {
    /// The kernel's WGSL.
    pub fn source(&self) -> Source {
        let element = if self.by_four { "vec4<f32>" } else { "f32" };
        let reads = 2 + usize::from(self.bias) + usize::from(self.residual);
        let mut text = head(&vec![element; reads], &[element]);
        self.body(&mut text).expect("strings take all that is written");
        Source { text, reads, writes: 1 }
    }

    fn operands(&self) -> [Operand; 2] {
        let t = self.tile;
        let a = Operand {
            shared: "ta",
            buffer: "r0",
            base: "base_a",
            start: ["row0", "k0"],
            size: ["m", "k"],
            strides: [4, 5],
            rows: t.rows,
            cols: t.inner,
        };
        let b = Operand {
            shared: "tb",
            buffer: "r1",
            base: "base_b",
            start: ["k0", "col0"],
            size: ["k", "n"],
            strides: [8, 9],
            rows: t.inner,
            cols: t.cols,
        };
        let turn = |on, x: Operand| {
            let ([s0, s1], [z0, z1], [w0, w1]) = (x.start, x.size, x.strides);
            match on {
                true => Operand { start: [s1, s0], size: [z1, z0], strides: [w1, w0], rows: x.cols, cols: x.rows, ..x },
                false => x,
            }
        };
        [turn(self.order.left_transposed(), a), turn(self.order.right_transposed(), b)]
    }

    fn body(&self, text: &mut String) -> fmt::Result {
        let (t, [a, b]) = (self.tile, self.operands());
        let ([tm, tn], threads) = (t.thread, t.threads());
        let (groups, across) = (tn / 4, t.cols / tn);
        for x in [&a, &b] {
            writeln!(text, "var<workgroup> {}: array<vec4<f32>, {}>;", x.shared, x.rows * x.pitch())?;
        }
        writeln!(text, "@compute @workgroup_size({threads})")?;
        writeln!(text, "fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {{")?;
        writeln!(text, "let m = u(0u); let k = u(1u); let n = u(2u);")?;
        writeln!(text, "let row0 = wid.y * {}u; let col0 = wid.x * {}u;", t.rows, t.cols)?;
        writeln!(text, "let item = u(11u) + wid.z;")?;
        writeln!(text, "let base_a = u(6u) + item * u(3u); let base_b = u(10u) + item * u(7u);")?;
        writeln!(text, "let ty = lid / {across}u; let tx = lid % {across}u;")?;
        for (i, j) in (0..tm).flat_map(|i| (0..groups).map(move |j| (i, j))) {
            writeln!(text, "var c{i}_{j} = vec4<f32>(0.0);")?;
        }
        writeln!(text, "for (var k0 = 0u; k0 < k; k0 += {}u) {{", t.inner)?;
        a.load(text, threads, self.by_four)?;
        b.load(text, threads, self.by_four)?;
        writeln!(text, "workgroupBarrier();")?;
        let (pa, pb) = (a.pitch(), b.pitch());
        let part = ["x", "y", "z", "w"];
        let multiply = |text: &mut String, i: usize, a: &str, j: usize| {
            writeln!(text, "c{i}_{j} = fma(vec4<f32>({a}), b{j}, c{i}_{j});")
        };
        let columns = |text: &mut String, kk: usize| {
            (0..groups).try_for_each(|j| writeln!(text, "let b{j} = tb[{}u + tx * {groups}u + {j}u];", kk * pb))
        };
        match self.order {
            Order::LeftTransposed => {
                for kk in 0..t.inner {
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
            _ => {
                for kk in 0..t.inner / 4 {
                    writeln!(text, "{{")?;
                    for i in 0..tm {
                        writeln!(text, "let a{i} = ta[(ty * {tm}u + {i}u) * {pa}u + {kk}u];")?;
                    }
                    for (s, part) in part.into_iter().enumerate() {
                        writeln!(text, "{{")?;
                        match self.order {
                            // Row `4 kk + s` of b, out of the columns that lie densely.
                            Order::RightTransposed => {
                                for j in 0..groups {
                                    let of = |c| format!("tb[(tx * {tn}u + {}u) * {pb}u + {kk}u].{part}", 4 * j + c);
                                    writeln!(
                                        text,
                                        "let b{j} = vec4<f32>({}, {}, {}, {});",
                                        of(0),
                                        of(1),
                                        of(2),
                                        of(3)
                                    )?;
                                }
                            }
                            _ => columns(text, 4 * kk + s)?,
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
        self.store(text)
    }

    fn store(&self, text: &mut String) -> fmt::Result {
        let residual = if self.bias { "r3" } else { "r2" };
        let value = |at: &str, col: &str, c: &str| {
            let sum = if self.bias { format!("({c} + r2[{col}])") } else { c.to_string() };
            if self.residual { format!("{residual}[{at}] + {sum}") } else { sum }
        };
        writeln!(text, "fn store(item: u32, row: u32, col: u32, c: vec4<f32>) {{")?;
        writeln!(text, "let n = u(2u); let at = (item * u(0u) + row) * n + col;")?;
        if self.by_four {
            writeln!(text, "if (row < u(0u) && col < n) {{ w0[at / 4u] = {}; }}", value("at / 4u", "col / 4u", "c"))?;
        } else {
            for (i, part) in ["x", "y", "z", "w"].into_iter().enumerate() {
                let value = value(&format!("at + {i}u"), &format!("col + {i}u"), &format!("c.{part}"));
                writeln!(text, "if (row < u(0u) && col + {i}u < n) {{ w0[at + {i}u] = {value}; }}")?;
            }
        }
        writeln!(text, "}}")
    }
}

/// Products that want the same tile: those of an order, by the size of their results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Class {
    pub order: Order,
    /// Times that a tile of 64 x 64 can be doubled before it is larger than the result (all
    /// matrices of a batch together), at most [`Class::LARGEST`].
    pub doublings: u32,
}

impl Class {
    pub const LARGEST: u32 = 10;

    pub fn of(order: Order, batch: usize, m: usize, n: usize) -> Class {
        let tiles = batch * m.div_ceil(64) * n.div_ceil(64);
        Class { order, doublings: tiles.max(1).ilog2().min(Class::LARGEST) }
    }

    /// The tile of devices that were not tuned: small ones where there are few, for more workgroups.
    pub fn usual(self) -> Tile {
        if self.doublings < 6 { TILES[0] } else { TILES[1] }
    }
}

/// Every kernel that may be made.
#[cfg(test)]
pub(super) fn every_variant() -> Vec<Variant> {
    let mut all = Vec::new();
    for tile in TILES {
        for order in Order::ALL {
            for flags in 0..8 {
                let [by_four, bias, residual] = [1, 2, 4].map(|bit| flags & bit != 0);
                all.push(Variant { tile, order, by_four, bias, residual });
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Device, Rng, Tensor};

    /// Every kernel at sizes that fit its tile and that do not.
    #[test]
    #[ignore = "needs an adapter"]
    fn every_tile_agrees_with_the_cpu() {
        let device = Device::gpu().expect("an adapter; IRONLENS_ADAPTER may name a software one");
        let Device::Gpu(gpu) = &device else { unreachable!("a GPU was asked for") };
        let sizes = [[1, 65, 130, 77], [1, 64, 48, 72], [3, 132, 36, 68], [2, 3, 20, 5], [1, 1, 5, 1]];
        for (tile, order) in TILES.into_iter().flat_map(|tile| Order::ALL.map(|order| (tile, order))) {
            for [batch, m, k, n] in sizes {
                let random = |shape: &[usize], stream| Rng::new(7, stream).normal(shape, 0.0, 1.0, &Device::Cpu);
                let turned = |on, x: &Tensor| if on { x.transpose(1, 2).contiguous() } else { x.clone() };
                let (a, b) = (random(&[batch, m, k], 0), random(&[batch, k, n], 1));
                let here = |on, x: &Tensor| {
                    let x = turned(on, x).to_device(&device);
                    if on { x.transpose(1, 2) } else { x }
                };
                let (ga, gb) = (here(order.left_transposed(), &a), here(order.right_transposed(), &b));
                let (bias, residual) = (random(&[n], 2), random(&[batch, m, n], 3));
                for (bias, residual) in [(Some(&bias), Some(&residual)), (None, Some(&residual)), (None, None)] {
                    let double = |x: &Tensor| x.to_dtype(DType::F64);
                    let mut right = double(&a).matmul(&double(&b));
                    for term in [bias, residual].into_iter().flatten() {
                        right = &right + &double(term);
                    }
                    let there = |x: Option<&Tensor>| x.map(|x| x.to_device(&device));
                    let found = gpu.ops.product_by(
                        tile,
                        order,
                        [&ga, &gb],
                        [batch, m, k, n],
                        &[batch, m, n],
                        there(bias).as_ref(),
                        there(residual).as_ref(),
                    );
                    let (difference, alike) = found.to_device(&Device::Cpu).to_dtype(DType::F64).max_abs_diff(&right);
                    let all: Vec<usize> = (0..3).collect();
                    // At least that of one product: a single sum may cancel.
                    let allowed = 4e-6 * right.abs().max(&all).item().max(1.0);
                    assert!(alike && difference <= allowed, "{tile} {order:?} {batch} {m} {k} {n}: {difference}");
                }
            }
        }
    }
}

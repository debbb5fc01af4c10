//! Matrix products: from tensors to the kernel that makes them.

mod cooperative;
mod few_rows;
mod tile;
mod tiled;
mod variant;

use super::backend::{Ops, memory};
use super::context::{MAX_GROUPS, MAX_WORK};
use super::words::Args;
use crate::backend::AttentionSpec;
use crate::{DType, Device, Rng, Tensor};
pub(super) use tile::{COOPERATIVE, Class, FEW_ROWS, TILES, Tile, Transposition};
#[cfg(test)]
pub(super) use variant::every_variant;
pub(super) use variant::{Epilogue, Variant};
use variant::{ProductWords, ScoredWords};

/// `out = a b` for every matrix of a batch of three axes, and what is done to it on its way.
pub(super) struct Product<'a> {
    /// `[n0, n1, n2, m, k]` and `[n0, n1, n2, k, n]`, of any strides.
    pub a: Tensor,
    pub b: Tensor,
    /// `[n0, n1, n2, m, n]`, from the start of its memory, columns dense.
    pub out: Tensor,
    pub epilogue: Epilogue,
    /// What the epilogue reads, dense.
    pub extras: Vec<Tensor>,
    /// How scores follow, for [`Epilogue::Scores`].
    pub spec: Option<&'a AttentionSpec>,
}

impl Product<'_> {
    /// Rows, inner dimension, columns.
    fn sizes(&self) -> [usize; 3] {
        let (a, b) = (self.a.shape(), self.b.shape());
        [a[3], a[4], b[4]]
    }

    fn batch(&self) -> usize {
        self.out.shape()[..3].iter().product()
    }

    fn order(&self) -> Transposition {
        let dense = |x: &Tensor, axis: usize| x.layout().strides()[axis] == 1;
        match (dense(&self.a, 4), dense(&self.b, 4), dense(&self.a, 3), dense(&self.b, 3)) {
            (true, false, _, true) => Transposition::RightTransposed,
            (false, true, true, _) => Transposition::LeftTransposed,
            _ => Transposition::Plain,
        }
    }

    /// Whether the axes that are read four at a time lie densely, and everything else at a multiple
    /// of four.
    fn vec4(&self, order: Transposition) -> bool {
        let [m, k, n] = self.sizes();
        let along = |x: &Tensor, dense: usize| {
            let s = x.layout().strides();
            s[dense] == 1
                && (0..5).all(|axis| axis == dense || s[axis].is_multiple_of(4))
                && x.layout().offset().is_multiple_of(4)
        };
        let (a, b) = match order {
            Transposition::Plain => (along(&self.a, 4) && k % 4 == 0, along(&self.b, 4)),
            Transposition::RightTransposed => (along(&self.a, 4), along(&self.b, 3) && k % 4 == 0),
            Transposition::LeftTransposed => (along(&self.a, 3) && m % 4 == 0, along(&self.b, 4)),
        };
        a && b && n % 4 == 0 && along(&self.out, 4)
    }

    /// The kernel of a tile, if it can make this product.
    fn variant(&self, tile: Tile) -> Option<Variant> {
        let order = self.order();
        let variant = Variant { tile, order, vec4: self.vec4(order), epilogue: self.epilogue };
        variant.is_possible(self.sizes()).then_some(variant)
    }

    /// By the tile of a few rows, if there are, or the one that the device's table has.
    pub fn run(&self, ops: &Ops) {
        let [m, _, n] = self.sizes();
        let class = Class::of(self.order(), self.batch(), m, n);
        let tiles = [FEW_ROWS, ops.0.tiles.of(class), class.plain()];
        let variant = tiles.into_iter().find_map(|tile| self.variant(tile));
        self.run_by(ops, variant.expect("a tile by threads makes any product"));
    }

    /// By a certain tile, if it can.
    pub fn run_with(&self, ops: &Ops, tile: Tile) -> bool {
        let variant = self.variant(tile);
        variant.inspect(|v| self.run_by(ops, *v)).is_some()
    }

    fn run_by(&self, ops: &Ops, variant: Variant) {
        let [m, k, n] = self.sizes();
        let strides = |x: &Tensor| match *x.layout().strides() {
            [b0, b1, b2, row, col] => ([b0, b1, b2], row, col),
            _ => panic!("operands have five axes, not {:?}", x.shape()),
        };
        let ((a_batch, a_row, a_col), (b_batch, b_row, b_col)) = (strides(&self.a), strides(&self.b));
        let (out_batch, out_row, _) = strides(&self.out);
        let lengths = [self.out.shape()[1], self.out.shape()[2]];
        let reads: Vec<_> = [&self.a, &self.b].into_iter().chain(&self.extras).map(|x| &**memory(x)).collect();
        let size = |x: usize| u32::try_from(x).expect("sizes of GPU tensors fit 32 bits");
        let tile = variant.tile;
        // A grid has so many groups along an axis: the batch, or tiles of rows or columns, may take several. Nor is
        // one kernel to take long.
        let parts = |count: usize, of: f64| {
            let most = MAX_GROUPS.min((MAX_WORK / of) as usize).max(1);
            (0..count).step_by(most).map(move |at| (at, most.min(count - at)))
        };
        let tiles = [n.div_ceil(tile.cols), m.div_ceil(tile.rows)];
        let work_of = |items: usize, rows: usize| 2.0 * items as f64 * rows as f64 * k as f64 * n as f64;
        for (item, items) in parts(self.batch(), work_of(1, m)) {
            let places = parts(tiles[1], work_of(1, tile.rows));
            for ((row, rows), (col, cols)) in places.flat_map(|r| parts(tiles[0], 1.0).map(move |c| (r, c))) {
                let product = ProductWords {
                    rows: m,
                    inner: k,
                    cols: n,
                    a_batch,
                    a_row,
                    a_col,
                    a_offset: self.a.layout().offset(),
                    b_batch,
                    b_row,
                    b_col,
                    b_offset: self.b.layout().offset(),
                    out_batch,
                    out_row,
                    lengths,
                    first_item: item,
                    first_row_tile: row,
                    first_col_tile: col,
                };
                let args = match self.spec {
                    Some(spec) => Args::of(&ScoredWords { product, scores: spec.into() }),
                    None => Args::of(&product),
                };
                let groups = [size(cols), size(rows), size(items)];
                let source = || variant.source();
                let work = work_of(items, rows * tile.rows);
                ops.0.dispatch_made(variant.to_string(), source, &reads, &[memory(&self.out)], &args, groups, work);
            }
        }
    }
}

/// Every kernel of a tile but that for scores, at multiples of four.
pub(super) fn sums_by(tile: Tile) -> Vec<Variant> {
    let of = |order| Epilogue::SUMS.map(|epilogue| Variant { tile, order, vec4: true, epilogue });
    Transposition::ALL.into_iter().flat_map(of).collect()
}

/// Every epilogue that adds, and what it reads.
fn sums_of(bias: &Tensor, residual: &Tensor) -> [(Epilogue, Vec<Tensor>); 4] {
    [
        (Epilogue::None, vec![]),
        (Epilogue::Bias, vec![bias.clone()]),
        (Epilogue::Residual, vec![residual.clone()]),
        (Epilogue::BiasResidual, vec![bias.clone(), residual.clone()]),
    ]
}

/// How far a tile's products are from those of a plain one: every order and every sum.
pub(super) fn largest_difference(ops: &Ops, device: &Device, tile: Tile) -> f64 {
    let [m, k, n] = [2 * tile.rows, 24, 2 * tile.cols];
    let mut rng = Rng::new(1, 0);
    let mut random = |shape: &[usize]| rng.normal(shape, 0.0, 1.0, &Device::Cpu).to_device(device);
    let (bias, residual) = (random(&[n]), random(&[1, 1, 1, m, n]));
    let sums = sums_of(&bias, &residual);
    let mut largest: f64 = 0.0;
    for order in Transposition::ALL {
        let mut matrix = |rows, cols, turned| match turned {
            true => random(&[1, 1, 1, cols, rows]).transpose(3, 4),
            false => random(&[1, 1, 1, rows, cols]),
        };
        let (a, b) = (matrix(m, k, order.left_transposed()), matrix(k, n, order.right_transposed()));
        for (epilogue, extras) in &sums {
            let made = |tile| {
                let out = Tensor::zeros(&[1, 1, 1, m, n], DType::F32, device);
                let (a, b, extras) = (a.clone(), b.clone(), extras.clone());
                let product = Product { a, b, out, epilogue: *epilogue, extras, spec: None };
                product.run_with(ops, tile).then(|| product.out.to_device(&Device::Cpu))
            };
            largest = match (made(tile), made(TILES[0])) {
                (Some(found), Some(right)) => match right.max_abs_diff(&found) {
                    (difference, true) => largest.max(difference),
                    (_, false) => f64::INFINITY,
                },
                _ => f64::INFINITY,
            };
        }
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kernel at sizes that fit its tile and that do not.
    #[test]
    #[ignore = "needs an adapter"]
    fn every_tile_agrees_with_the_cpu() {
        let device = Device::gpu().expect("an adapter; IRONLENS_ADAPTER may name a software one");
        let Device::Gpu(gpu) = &device else { unreachable!("a GPU was asked for") };
        let sizes =
            [[1, 65, 130, 77], [1, 64, 48, 72], [3, 132, 36, 68], [2, 3, 20, 5], [1, 1, 5, 1], [2, 128, 24, 64]]
                .into_iter()
                .chain([[1, 1, 300, 101], [2, 4, 132, 72]]);
        gpu.check_matrices(&TILES);
        let there = |tile: &Tile| gpu.ops.0.tiles.may_take(*tile);
        for (tile, order) in TILES
            .into_iter()
            .chain([FEW_ROWS])
            .filter(there)
            .flat_map(|tile| Transposition::ALL.map(|order| (tile, order)))
        {
            for [batch, m, k, n] in sizes.clone() {
                let random = |shape: &[usize], stream| Rng::new(7, stream).normal(shape, 0.0, 1.0, &Device::Cpu);
                let turned = |on, x: &Tensor| if on { x.transpose(3, 4).contiguous() } else { x.clone() };
                let (a, b) = (random(&[1, batch, 1, m, k], 0), random(&[1, batch, 1, k, n], 1));
                let here = |on, x: &Tensor| {
                    let x = turned(on, x).to_device(&device);
                    if on { x.transpose(3, 4) } else { x }
                };
                let (ga, gb) = (here(order.left_transposed(), &a), here(order.right_transposed(), &b));
                let (bias, residual) = (random(&[n], 2), random(&[1, batch, 1, m, n], 3));
                for (epilogue, terms) in sums_of(&bias, &residual) {
                    let double = |x: &Tensor| x.to_dtype(DType::F64);
                    let mut right = double(&a).matmul(&double(&b));
                    for term in &terms {
                        right = &right + &double(term);
                    }
                    let extras = terms.iter().map(|x| x.to_device(&device)).collect();
                    let out = Tensor::zeros(&[1, batch, 1, m, n], DType::F32, &device);
                    let product = Product { a: ga.clone(), b: gb.clone(), out, epilogue, extras, spec: None };
                    if !product.run_with(&gpu.ops, tile) {
                        assert!(tile.is_cooperative() || tile == FEW_ROWS, "{tile} makes anything");
                        continue;
                    }
                    let found = product.out.to_device(&Device::Cpu).to_dtype(DType::F64);
                    let (difference, alike) = found.max_abs_diff(&right);
                    let all: Vec<usize> = (0..5).collect();
                    // At least that of one product: a single sum may cancel.
                    let allowed = 4e-6 * right.abs().max(&all).item().max(1.0);
                    assert!(alike && difference <= allowed, "{tile} {order:?} {batch} {m} {k} {n}: {difference}");
                }
            }
        }
    }
}

//! Kernels of products: a generator of WGSL.

use std::fmt;

use super::tile::{Tile, Transposition, Unit};
use super::{cooperative, few_rows, tiled};
use crate::gpu::kernels::Scores;
use crate::gpu::source::{self, Source, head};
use crate::gpu::words::{declarations, words};

/// What is done to a product before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::gpu) enum Epilogue {
    None,
    /// A row, `r2`, is added to every row.
    Bias,
    /// The product is added to a matrix, `r2`.
    Residual,
    /// Both: the row is `r2`, the matrix `r3`.
    BiasResidual,
    /// The product of queries and keys becomes attention scores; slopes of heads are `r2`, the key
    /// mask is `r3`.
    Scores,
}

impl Epilogue {
    /// Those that add.
    pub const SUMS: [Epilogue; 4] = [Epilogue::None, Epilogue::Bias, Epilogue::Residual, Epilogue::BiasResidual];

    /// How many buffers it reads.
    fn reads(self) -> usize {
        match self {
            Epilogue::None => 0,
            Epilogue::Bias | Epilogue::Residual => 1,
            Epilogue::BiasResidual | Epilogue::Scores => 2,
        }
    }
}

words! {
    /// What kernels of products are told.
    ProductWords {
        rows: usize,
        inner: usize,
        cols: usize,
        /// Strides of `a` over the axes of the batch, over rows and columns, and where it begins.
        a_batch: [usize; 3],
        a_row: usize,
        a_col: usize,
        a_offset: usize,
        b_batch: [usize; 3],
        b_row: usize,
        b_col: usize,
        b_offset: usize,
        /// Strides of the result, whose columns are dense.
        out_batch: [usize; 3],
        out_row: usize,
        /// Lengths of the second and the third axis of the batch.
        lengths: [usize; 2],
        /// The first matrix of the batch, and the first tile of rows and of columns, of this dispatch.
        first_item: usize,
        first_row_tile: usize,
        first_col_tile: usize,
    }
    /// Of products that become scores.
    ScoredWords {
        product: ProductWords,
        scores: Scores,
    }
}

/// A kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::gpu) struct Variant {
    pub tile: Tile,
    pub order: Transposition,
    /// Whether everything lies at multiples of four: neighbours are read and written at once.
    pub vec4: bool,
    pub epilogue: Epilogue,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "matmul {} {}", self.order.name(), self.tile)?;
        write!(f, "{}", if self.vec4 { " by 4" } else { "" })?;
        match self.epilogue {
            Epilogue::None => Ok(()),
            Epilogue::Bias => f.write_str(" + bias"),
            Epilogue::Residual => f.write_str(" + residual"),
            Epilogue::BiasResidual => f.write_str(" + bias + residual"),
            Epilogue::Scores => f.write_str(" to scores"),
        }
    }
}

impl Variant {
    /// WGSL that reads its words.
    pub fn words(&self) -> String {
        match self.epilogue {
            Epilogue::Scores => declarations::<ScoredWords>(),
            Epilogue::None | Epilogue::Bias | Epilogue::Residual | Epilogue::BiasResidual => {
                declarations::<ProductWords>()
            }
        }
    }

    /// The kernel's WGSL.
    pub fn source(&self) -> Source {
        let wide = self.vec4 && !self.tile.is_cooperative();
        let element = if wide { "vec4<f32>" } else { "f32" };
        let more = if self.epilogue == Epilogue::Scores { "f32" } else { element };
        // Of a few rows one number is taken at a time.
        let left = if self.tile.unit == Unit::All { "f32" } else { element };
        let mut reads = vec![left, element];
        reads.extend(vec![more; self.epilogue.reads()]);
        let mut text = String::new();
        if self.tile.is_cooperative() {
            text += "enable wgpu_cooperative_matrix;\n";
        }
        text += &head(&self.words(), &reads, &[element]);
        text += include_str!("../kernels/shared/product.wgsl");
        if self.epilogue == Epilogue::Scores {
            text += source::MATH;
            text += source::SCORES;
        }
        let body = match self.tile.unit {
            Unit::Thread => tiled::body,
            Unit::Group => cooperative::body,
            Unit::All => few_rows::body,
        };
        body(self, &mut text).expect("strings take all that is written");
        Source { text, reads: reads.len(), writes: 1 }
    }

    /// Whether the tile can make it: matrix instructions take whole matrices, and neither they nor a few rows have
    /// other epilogues than sums.
    pub fn is_possible(&self, [m, k, n]: [usize; 3]) -> bool {
        let whole = m % self.tile.rows == 0 && n % self.tile.cols == 0 && k % self.tile.k_tile == 0;
        let sums = self.epilogue != Epilogue::Scores;
        match self.tile.unit {
            Unit::Thread => true,
            Unit::Group => self.vec4 && whole && sums,
            Unit::All => m <= self.tile.rows && self.order == Transposition::Plain && sums,
        }
    }
}

/// Every kernel that may be made.
#[cfg(test)]
pub(in crate::gpu) fn every_variant() -> Vec<Variant> {
    let epilogues = Epilogue::SUMS.into_iter().chain([Epilogue::Scores]);
    let mut all = Vec::new();
    for tile in super::tile::TILES.into_iter().chain([super::tile::FEW_ROWS]) {
        for order in Transposition::ALL {
            for (epilogue, vec4) in epilogues.clone().flat_map(|e| [(e, false), (e, true)]) {
                let variant = Variant { tile, order, vec4, epilogue };
                if variant.is_possible([tile.rows, tile.k_tile, tile.cols]) {
                    all.push(variant);
                }
            }
        }
    }
    all
}

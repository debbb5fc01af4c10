//! What a workgroup makes of a product, and which products want the same.

use std::fmt;

/// Who makes a micro-tile of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::gpu) enum Unit {
    /// A thread, by itself.
    Thread,
    /// The threads of a SIMD group together, by the matrix instructions of their device.
    Group,
    /// All threads of the workgroup together, each with a part of the inner dimension; there is one micro-tile.
    All,
}

/// The part of the result that a workgroup makes, and how it is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::gpu) struct Tile {
    /// Rows and columns of a workgroup.
    pub rows: usize,
    pub cols: usize,
    /// Of the inner dimension, how much is taken at a time.
    pub k_tile: usize,
    /// Rows and columns of a unit.
    pub micro_tile: [usize; 2],
    pub unit: Unit,
}

/// Threads of a workgroup with one micro-tile.
const ALL: usize = 256;

/// Threads of a SIMD group on the devices that [`Unit::Group`] is for. Only their number in a
/// workgroup follows from it, no result.
const GROUP: usize = 32;

impl Tile {
    const fn threads_of(rows: usize, cols: usize, micro_tile: [usize; 2]) -> Tile {
        Tile { rows, cols, k_tile: 16, micro_tile, unit: Unit::Thread }
    }

    const fn groups_of(rows: usize, cols: usize, micro_tile: [usize; 2]) -> Tile {
        Tile { rows, cols, k_tile: 8, micro_tile, unit: Unit::Group }
    }

    /// Micro-tiles of the tile.
    pub fn micro_tiles(self) -> usize {
        (self.rows / self.micro_tile[0]) * (self.cols / self.micro_tile[1])
    }

    /// Threads of a workgroup.
    pub fn threads(self) -> usize {
        match self.unit {
            Unit::Thread => self.micro_tiles(),
            Unit::Group => self.micro_tiles() * GROUP,
            Unit::All => ALL,
        }
    }

    pub fn is_cooperative(self) -> bool {
        self.unit == Unit::Group
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.unit {
            Unit::Thread => "",
            Unit::Group => "/simd",
            Unit::All => "/all",
        };
        write!(f, "{}x{}x{}/{}x{}{by}", self.rows, self.cols, self.k_tile, self.micro_tile[0], self.micro_tile[1])
    }
}

/// Those that may be taken. The last two need matrix instructions, and results that they divide.
pub(in crate::gpu) const TILES: [Tile; 6] = [
    Tile::threads_of(32, 32, [4, 4]),
    Tile::threads_of(64, 64, [4, 4]),
    Tile::threads_of(64, 64, [8, 4]),
    Tile::threads_of(128, 64, [8, 4]),
    Tile::groups_of(64, 32, [32, 16]),
    Tile::groups_of(64, 64, [32, 32]),
];

/// The tile of products of so few rows, where `b` lies row by row, on all devices. Which it is follows from the number
/// of rows alone, and not from the sizes by which others are chosen.
pub(in crate::gpu) const FEW_ROWS: Tile = Tile { rows: 4, cols: 32, k_tile: 1, micro_tile: [4, 32], unit: Unit::All };

/// The tile of devices that have matrix instructions and were not tuned.
pub(in crate::gpu) const COOPERATIVE: Tile = TILES[4];

/// Which axis of the operands is dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::gpu) enum Transposition {
    /// The inner one of `a`, the columns of `b`. The scalar path takes any strides in this order.
    Plain,
    /// The inner one of both.
    RightTransposed,
    /// The rows of `a`, the columns of `b`.
    LeftTransposed,
}

impl Transposition {
    pub const ALL: [Transposition; 3] =
        [Transposition::Plain, Transposition::RightTransposed, Transposition::LeftTransposed];

    pub fn name(self) -> &'static str {
        match self {
            Transposition::Plain => "nn",
            Transposition::RightTransposed => "nt",
            Transposition::LeftTransposed => "tn",
        }
    }

    pub fn left_transposed(self) -> bool {
        self == Transposition::LeftTransposed
    }

    pub fn right_transposed(self) -> bool {
        self == Transposition::RightTransposed
    }
}

/// Products that want the same tile: those of an order, by the size of their results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::gpu) struct Class {
    pub order: Transposition,
    /// Times that a tile of 64 x 64 can be doubled before it is larger than the result (all
    /// matrices of a batch together), at most [`Class::LARGEST`].
    pub doublings: u32,
}

impl Class {
    pub const LARGEST: u32 = 10;

    pub fn of(order: Transposition, batch: usize, m: usize, n: usize) -> Class {
        let tiles = batch * m.div_ceil(64) * n.div_ceil(64);
        Class { order, doublings: tiles.max(1).ilog2().min(Class::LARGEST) }
    }

    /// The tile by threads of devices that were not tuned: small ones where there are few, for more
    /// workgroups.
    pub fn plain(self) -> Tile {
        if self.doublings < 6 { TILES[0] } else { TILES[1] }
    }
}

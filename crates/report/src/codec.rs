//! Attention patterns, and other large matrices, as text in the page, as small as the page's budget asks.
//!
//! A causal pattern is zero above its diagonal: only the triangle is stored, the same row of all heads together,
//! because rows that see as much hold numbers of the same size. Codes of more than eight bits are split into planes
//! (all high bytes, then all low ones; of `u12` the low halves of two codes make a byte), which deflates better. The
//! highest code of `u8`, `u12` and `u16` means "not finite". `js/core.js` reads this.

use crate::Array;
use crate::array::finite_range;
use crate::deflate::pack_codes;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    U8,
    U12,
    U16,
    F32,
}

impl Codec {
    /// The most exact one that keeps `count` numbers small enough.
    pub(crate) fn for_budget(count: usize) -> Self {
        match count {
            0..=65_536 => Self::F32,
            65_537..=262_144 => Self::U16,
            262_145..=524_288 => Self::U12,
            _ => Self::U8,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::U12 => "u12",
            Self::U16 => "u16",
            Self::F32 => "f32",
        }
    }

    /// The highest code, which means "not finite".
    fn none(self) -> u16 {
        match self {
            Self::U8 => 0xff,
            Self::U12 => 0xfff,
            Self::U16 | Self::F32 => 0xffff,
        }
    }

    pub(crate) fn bits(self) -> u32 {
        match self {
            Self::U8 => 8,
            Self::U12 => 12,
            Self::U16 => 16,
            Self::F32 => 32,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    pub causal: bool,
    /// The values of the lowest and the highest code.
    pub lo: f64,
    pub hi: f64,
    /// The largest error a finite value can have.
    pub error: f64,
    pub base64: String,
}

/// Encodes an array `[head, dest, src]`.
pub(crate) fn encode(array: &Array, codec: Codec) -> Encoded {
    let (lo, hi) = array.finite_range().unwrap_or((0.0, 1.0));
    let (lo, hi) = (lo.min(0.0), if hi > lo.min(0.0) { hi } else { lo.min(0.0) + 1.0 });
    let causal = is_causal(array);
    packed(&stored(array, causal), (lo, hi), causal, codec)
}

fn packed(values: &[f32], (lo, hi): (f64, f64), causal: bool, codec: Codec) -> Encoded {
    let none = codec.none();
    let codes = || values.iter().map(|&v| code(v, lo, hi, none));
    let bytes = match codec {
        Codec::F32 => planes(values.iter().map(|v| v.to_be_bytes())),
        Codec::U16 => planes(codes().map(u16::to_be_bytes)),
        Codec::U12 => {
            let low: Vec<u8> = codes().map(|c| (c & 15) as u8).collect();
            let pair = |pair: &[u8]| pair[0] << 4 | pair.get(1).copied().unwrap_or(0);
            codes().map(|c| (c >> 4) as u8).chain(low.chunks(2).map(pair)).collect()
        }
        Codec::U8 => codes().map(|c| c as u8).collect(),
    };
    let error = if codec == Codec::F32 { 0.0 } else { (hi - lo) / f64::from(none - 1) / 2.0 };
    Encoded { causal, lo, hi, error, base64: pack_codes(&bytes) }
}

/// A matrix of which nothing is left out; the values of a figure. Without a finite value the range is 0 to 1.
pub(crate) fn pack_matrix(cells: &[f32], [rows, cols]: [usize; 2], codec: Codec) -> Encoded {
    let (lo, hi) = finite_range(cells.iter().map(|&v| f64::from(v))).unwrap_or((0.0, 1.0));
    let hi = if hi > lo { hi } else { lo + 1.0 };
    debug_assert_eq!(cells.len(), rows * cols);
    packed(cells, (lo, hi), false, codec)
}

/// From 0 at `lo` to `none - 1` at `hi`; `none` for what is not finite.
fn code(v: f32, lo: f64, hi: f64, none: u16) -> u16 {
    if v.is_finite() { ((f64::from(v) - lo) / (hi - lo) * f64::from(none - 1)).round() as u16 } else { none }
}

fn planes<const N: usize>(codes: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
    let codes: Vec<[u8; N]> = codes.collect();
    (0..N).flat_map(|plane| codes.iter().map(move |code| code[plane])).collect()
}

pub(crate) fn is_causal(array: &Array) -> bool {
    let [_, dest, src] = *array.shape() else { return false };
    dest == src
        && dest > 1
        && array
            .data()
            .chunks(dest * src)
            .all(|head| (0..dest).all(|d| head[d * src + d + 1..(d + 1) * src].iter().all(|v| *v == 0.0)))
}

/// How many numbers are stored for an array.
pub(crate) fn stored_len(array: &Array) -> usize {
    match *array.shape() {
        [heads, dest, _] if is_causal(array) => heads * dest * (dest + 1) / 2,
        _ => array.data().len(),
    }
}

/// All of the array; of a causal one the triangles as `[dest][head][src]`.
fn stored(array: &Array, causal: bool) -> Vec<f32> {
    let [heads, dest, src] = *array.shape() else { return Vec::new() };
    if !causal {
        return array.data().to_vec();
    }
    let row = |d: usize, h: usize| array.data()[(h * dest + d) * src..][..=d].iter().copied();
    (0..dest).flat_map(|d| (0..heads).flat_map(move |h| row(d, h))).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use base64::Engine as _;

    use super::*;

    /// What the page does, in Rust.
    fn decode(e: &Encoded, codec: Codec, shape: [usize; 3]) -> Vec<f32> {
        let packed = base64::engine::general_purpose::STANDARD.decode(&e.base64).unwrap();
        let mut raw = Vec::new();
        flate2::read::DeflateDecoder::new(&packed[..]).read_to_end(&mut raw).unwrap();
        let [heads, dest, src] = shape;
        let size = if e.causal { dest * (dest + 1) / 2 } else { dest * src };
        let n = heads * size;
        let value = |i: usize| match codec {
            Codec::F32 => f32::from_be_bytes([raw[i], raw[n + i], raw[2 * n + i], raw[3 * n + i]]),
            Codec::U16 => linear(u16::from_be_bytes([raw[i], raw[n + i]]), codec.none(), e),
            Codec::U12 => {
                let low = raw[n + i / 2] >> (4 * (1 - i % 2)) & 15;
                linear(u16::from(raw[i]) << 4 | u16::from(low), codec.none(), e)
            }
            Codec::U8 => linear(u16::from(raw[i]), codec.none(), e),
        };
        let flat: Vec<f32> = (0..n).map(value).collect();
        if !e.causal {
            return flat;
        }
        let mut full = vec![0.0; heads * dest * src];
        let mut from = 0;
        for d in 0..dest {
            for h in 0..heads {
                full[(h * dest + d) * src..][..=d].copy_from_slice(&flat[from..=from + d]);
                from += d + 1;
            }
        }
        full
    }

    fn linear(code: u16, none: u16, e: &Encoded) -> f32 {
        if code == none {
            return f32::NAN;
        }
        (e.lo + f64::from(code) * (e.hi - e.lo) / f64::from(none - 1)) as f32
    }

    fn pattern(causal: bool) -> Array {
        let (h, s) = (3, 9);
        let data = (0..h * s * s)
            .map(|i| {
                let (d, k) = (i / s % s, i % s);
                if causal && k > d { 0.0 } else { (i * 37 % 101) as f32 / 101.0 }
            })
            .collect();
        Array::from_vec([h, s, s], data).unwrap()
    }

    #[test]
    fn round_trip_within_the_declared_error() {
        for causal in [true, false] {
            let array = pattern(causal);
            for codec in [Codec::U8, Codec::U12, Codec::U16, Codec::F32] {
                let e = encode(&array, codec);
                assert_eq!(e.causal, causal);
                let back = decode(&e, codec, [3, 9, 9]);
                for (a, b) in array.data().iter().zip(&back) {
                    assert!(f64::from((a - b).abs()) <= e.error * 1.001 + 1e-7, "{codec:?}: {a} {b}");
                }
            }
        }
    }

    #[test]
    fn values_that_are_not_finite_stay_so() {
        let array = Array::new([1, 1, 3], &[f32::NAN, 0.5, f32::INFINITY]).unwrap();
        for codec in [Codec::U8, Codec::U12, Codec::U16] {
            let back = decode(&encode(&array, codec), codec, [1, 1, 3]);
            assert!(back[0].is_nan() && (back[1] - 0.5).abs() < 1e-6 && back[2].is_nan());
        }
    }

    #[test]
    fn constant_and_negative_patterns() {
        for v in [0.0, -2.0, 3.0] {
            let array = Array::new([1, 2, 2], &[v; 4]).unwrap();
            let back = decode(&encode(&array, Codec::U8), Codec::U8, [1, 2, 2]);
            assert!(back.iter().all(|b| (b - v).abs() < 1e-6), "{v}: {back:?}");
        }
    }

    #[test]
    fn the_budget_chooses() {
        assert_eq!(Codec::for_budget(1000), Codec::F32);
        assert_eq!(Codec::for_budget(200_000), Codec::U16);
        assert_eq!(Codec::for_budget(400_000), Codec::U12);
        assert_eq!(Codec::for_budget(12 * 12 * 128 * 128), Codec::U8);
    }
}

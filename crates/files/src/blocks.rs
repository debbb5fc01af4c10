//! Quantised blocks: numbers that share a scale, in the layouts of ggml (`block_q*` and `block_iq4_*` in
//! `ggml-common.h`).
//!
//! Decoding does what `dequantize_row_*` in `ggml-quants.c` does, in the same order of operations, so its
//! results have the same bits as ggml's where that is not compiled to fuse products and sums.

use half::f16;

/// Makes numbers of the bytes of any number of whole elements or blocks.
pub(crate) type Decode = fn(&[u8], &mut [f32]);

/// A way to quantise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, reason = "ggml's own names")]
pub enum BlockType {
    /// 32 numbers of 4 bits with a scale.
    Q4_0,
    /// 32 numbers of 4 bits with a scale and an offset.
    Q4_1,
    /// 32 numbers of 5 bits with a scale.
    Q5_0,
    /// 32 numbers of 5 bits with a scale and an offset.
    Q5_1,
    /// 32 numbers of 8 bits with a scale.
    Q8_0,
    /// 256 numbers of 2 bits, with scales and offsets of 4 bits for every 16.
    Q2_K,
    /// 256 numbers of 3 bits, with scales of 6 bits for every 16.
    Q3_K,
    /// 256 numbers of 4 bits, with scales and offsets of 6 bits for every 32.
    Q4_K,
    /// 256 numbers of 5 bits, with scales and offsets of 6 bits for every 32.
    Q5_K,
    /// 256 numbers of 6 bits, with scales of 8 bits for every 16.
    Q6_K,
    /// 32 numbers of 4 bits, which name one of 16 levels, with a scale.
    IQ4_NL,
    /// 256 of these, with scales of 6 bits for every 32.
    IQ4_XS,
}

use BlockType::*;

impl BlockType {
    /// All of them.
    pub const ALL: [BlockType; 12] = [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS];

    /// ggml's name.
    pub fn name(self) -> &'static str {
        match self {
            Q4_0 => "Q4_0",
            Q4_1 => "Q4_1",
            Q5_0 => "Q5_0",
            Q5_1 => "Q5_1",
            Q8_0 => "Q8_0",
            Q2_K => "Q2_K",
            Q3_K => "Q3_K",
            Q4_K => "Q4_K",
            Q5_K => "Q5_K",
            Q6_K => "Q6_K",
            IQ4_NL => "IQ4_NL",
            IQ4_XS => "IQ4_XS",
        }
    }

    /// Numbers in a block.
    pub fn elements(self) -> usize {
        match self {
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | IQ4_NL => 32,
            Q2_K | Q3_K | Q4_K | Q5_K | Q6_K | IQ4_XS => 256,
        }
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        match self {
            Q4_0 => 2 + 16,
            Q4_1 => 4 + 16,
            Q5_0 => 2 + 4 + 16,
            Q5_1 => 4 + 4 + 16,
            Q8_0 => 2 + 32,
            Q2_K => 16 + 64 + 4,
            Q3_K => 32 + 64 + 12 + 2,
            Q4_K => 4 + 12 + 128,
            Q5_K => 4 + 12 + 32 + 128,
            Q6_K => 128 + 64 + 16 + 2,
            IQ4_NL => 2 + 16,
            IQ4_XS => 2 + 2 + 4 + 128,
        }
    }

    /// What makes numbers of whole blocks.
    pub(crate) fn decoder(self) -> Decode {
        match self {
            Q4_0 => |blocks, out| each(blocks, out, q4_0),
            Q4_1 => |blocks, out| each(blocks, out, q4_1),
            Q5_0 => |blocks, out| each(blocks, out, q5_0),
            Q5_1 => |blocks, out| each(blocks, out, q5_1),
            Q8_0 => |blocks, out| each(blocks, out, q8_0),
            Q2_K => |blocks, out| each(blocks, out, q2_k),
            Q3_K => |blocks, out| each(blocks, out, q3_k),
            Q4_K => |blocks, out| each(blocks, out, q4_k),
            Q5_K => |blocks, out| each(blocks, out, q5_k),
            Q6_K => |blocks, out| each(blocks, out, q6_k),
            IQ4_NL => |blocks, out| each(blocks, out, iq4_nl),
            IQ4_XS => |blocks, out| each(blocks, out, iq4_xs),
        }
    }
}

/// Decodes each of some blocks of `B` bytes to `E` numbers.
fn each<const B: usize, const E: usize>(blocks: &[u8], out: &mut [f32], decode: fn(&[u8; B], &mut [f32; E])) {
    for (block, out) in blocks.as_chunks::<B>().0.iter().zip(out.as_chunks_mut::<E>().0) {
        decode(block, out);
    }
}

/// The half-precision number at byte `at`.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The 32 bits at byte `at`: the fifth bits of 32 numbers.
fn fifth_bits(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// A nibble, low ones first: numbers 0 to 15 lie in the low halves of 16 bytes, 16 to 31 in the high ones.
fn nibble(quants: &[u8], i: usize) -> u8 {
    (quants[i % 16] >> (4 * (i / 16))) & 15
}

/// Scale, 16 bytes of nibbles.
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half(block, 0);
    for (i, y) in out.iter_mut().enumerate() {
        *y = f32::from(nibble(&block[2..], i) as i8 - 8) * d;
    }
}

/// Scale, offset, 16 bytes of nibbles.
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for (i, y) in out.iter_mut().enumerate() {
        *y = f32::from(nibble(&block[4..], i)) * d + m;
    }
}

/// Scale, 32 fifth bits, 16 bytes of nibbles.
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let (d, high) = (half(block, 0), fifth_bits(block, 2));
    for (i, y) in out.iter_mut().enumerate() {
        let x = nibble(&block[6..], i) | ((high >> i) as u8 & 1) << 4;
        *y = f32::from(x as i8 - 16) * d;
    }
}

/// Scale, offset, 32 fifth bits, 16 bytes of nibbles.
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m, high) = (half(block, 0), half(block, 2), fifth_bits(block, 4));
    for (i, y) in out.iter_mut().enumerate() {
        let x = nibble(&block[8..], i) | ((high >> i) as u8 & 1) << 4;
        *y = f32::from(x) * d + m;
    }
}

/// Scale, 32 signed bytes.
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half(block, 0);
    for (y, x) in out.iter_mut().zip(&block[2..]) {
        *y = f32::from(*x as i8) * d;
    }
}

/// Two bits of number `i` of 256. Each half of the block has 32 bytes, whose lowest bits are its first 32
/// numbers, the next its next 32, and so on.
fn two_bits(quants: &[u8], i: usize) -> u8 {
    (quants[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32))) & 3
}

/// 16 bytes with a scale and an offset in nibbles, 64 bytes of two bits, scale of scales, scale of offsets.
fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (d, min) = (half(block, 80), half(block, 82));
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (scale, offset) = (d * f32::from(block[group] & 15), min * f32::from(block[group] >> 4));
        for (l, y) in out.iter_mut().enumerate() {
            *y = scale * f32::from(two_bits(&block[16..], 16 * group + l)) - offset;
        }
    }
}

/// 32 bytes of third bits, 64 bytes of two bits, 16 scales of 6 bits in 12 bytes, scale of scales.
fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let (third, quants, scales, d) = (&block[..32], &block[32..], &block[96..108], half(block, 108));
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        // Low nibbles of the first 8 bytes, then their high ones; two bits above them in the last 4 bytes.
        let low = (scales[group % 8] >> (4 * (group / 8))) & 15;
        let high = (scales[8 + group % 4] >> (2 * (group / 4))) & 3;
        let scale = d * f32::from((low | high << 4) as i8 - 32);
        for (l, y) in out.iter_mut().enumerate() {
            let i = 16 * group + l;
            // A third bit that is not set takes 4 off.
            let set = (third[i % 32] >> (i / 32)) & 1;
            *y = scale * f32::from(two_bits(quants, i) as i8 - 4 * (1 - set as i8));
        }
    }
}

/// The scale and the offset of group `j` of 8, in 6 bits each, from 12 bytes: those of the first four groups
/// fill 6 bits of bytes 0 to 3 and 4 to 7, whose two upper bits belong to the other four.
fn six_bits(scales: &[u8], j: usize) -> (f32, f32) {
    let (scale, offset) = match j {
        0..4 => (scales[j] & 63, scales[j + 4] & 63),
        _ => ((scales[j + 4] & 15) | (scales[j - 4] >> 6) << 4, (scales[j + 4] >> 4) | (scales[j] >> 6) << 4),
    };
    (scale.into(), offset.into())
}

/// Nibble of number `l` of group `j` of 8: 32 bytes have one group in their low halves, the next in the others.
fn group_nibble(quants: &[u8], j: usize, l: usize) -> u8 {
    (quants[j / 2 * 32 + l] >> (4 * (j % 2))) & 15
}

/// Scale of scales, scale of offsets, scales and offsets in 12 bytes, 128 bytes of nibbles.
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, min) = (half(block, 0), half(block, 2));
    for (j, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, offset) = six_bits(&block[4..16], j);
        let (scale, offset) = (d * scale, min * offset);
        for (l, y) in out.iter_mut().enumerate() {
            *y = scale * f32::from(group_nibble(&block[16..], j, l)) - offset;
        }
    }
}

/// As [`q4_k`], with 32 bytes of fifth bits (bit `j` of byte `l`) before the nibbles.
fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, min) = (half(block, 0), half(block, 2));
    for (j, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, offset) = six_bits(&block[4..16], j);
        let (scale, offset) = (d * scale, min * offset);
        for (l, y) in out.iter_mut().enumerate() {
            let x = group_nibble(&block[48..], j, l) | ((block[16 + l] >> j) & 1) << 4;
            *y = scale * f32::from(x) - offset;
        }
    }
}

/// 128 bytes of nibbles, 64 bytes of two upper bits, 16 signed scales, scale of scales.
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half(block, 208);
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(block[192 + group] as i8);
        for (l, y) in out.iter_mut().enumerate() {
            let i = 16 * group + l;
            // Each half has 64 bytes, whose low nibbles are its first 64 numbers, the high ones the others.
            let low = (block[i / 128 * 64 + i % 64] >> (4 * (i % 128 / 64))) & 15;
            let x = low | two_bits(&block[128..], i) << 4;
            *y = scale * f32::from(x as i8 - 32);
        }
    }
}

/// The levels that a nibble names in blocks of IQ4 (ggml's `kvalues_iq4nl`).
const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The levels that 16 bytes of nibbles name, with their scale.
fn levels(scale: f32, quants: &[u8], out: &mut [f32; 32]) {
    for (i, y) in out.iter_mut().enumerate() {
        *y = scale * f32::from(LEVELS[usize::from(nibble(quants, i))]);
    }
}

/// Scale, 16 bytes of nibbles that name levels.
fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    levels(half(block, 0), &block[2..], out);
}

/// Scale of scales, 8 scales of 6 bits (two upper bits of each in 2 bytes, then low nibbles in 4), 16 bytes of nibbles
/// for each.
fn iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let (d, upper) = (half(block, 0), u16::from_le_bytes([block[2], block[3]]));
    for (j, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let low = (block[4 + j / 2] >> (4 * (j % 2))) & 15;
        let scale = low | ((upper >> (2 * j)) as u8 & 3) << 4;
        levels(d * f32::from(scale as i8 - 32), &block[8 + 16 * j..], out);
    }
}

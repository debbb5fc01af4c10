//! Raw deflate in base64: how a page carries anything large, and inflates it by itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use miniz_oxide::deflate::core::{CompressionStrategy, CompressorOxide};
use miniz_oxide::deflate::stream::deflate;
use miniz_oxide::{DataFormat, MZFlush};

/// Text, deflated and in base64.
pub(crate) fn pack(bytes: &[u8]) -> String {
    STANDARD.encode(in_blocks(bytes, CompressionStrategy::Default, usize::MAX))
}

/// Codes of measured numbers, deflated and in base64.
///
/// Such codes hardly repeat as strings, and how they are spread changes from one part to the next: they are mostly
/// shortest without matches, with a Huffman table of their own for every few thousand. Patterns of trained heads,
/// which are mostly zeros, are shortest as text is. Whatever is the shortest is taken.
pub(crate) fn pack_codes(bytes: &[u8]) -> String {
    const BLOCK: usize = 4096;
    let ways = [
        (CompressionStrategy::Default, usize::MAX),
        (CompressionStrategy::Default, BLOCK),
        (CompressionStrategy::HuffmanOnly, BLOCK),
    ];
    let packed = ways.into_iter().map(|(strategy, block)| in_blocks(bytes, strategy, block)).min_by_key(Vec::len);
    STANDARD.encode(packed.unwrap_or_default())
}

/// Deflates with a new Huffman table every `block` bytes.
fn in_blocks(bytes: &[u8], strategy: CompressionStrategy, block: usize) -> Vec<u8> {
    let mut compressor = CompressorOxide::with_params(DataFormat::Raw, 9, strategy, 15);
    let mut out = Vec::new();
    let mut buffer = [0; 1 << 14];
    let mut feed = |mut part: &[u8], flush: MZFlush| {
        loop {
            let done = deflate(&mut compressor, part, &mut buffer, flush);
            out.extend_from_slice(&buffer[..done.bytes_written]);
            part = &part[done.bytes_consumed..];
            // A full buffer means that there may be more to come.
            if part.is_empty() && done.bytes_written < buffer.len() {
                break;
            }
        }
    };
    let mut parts = bytes.chunks(block).peekable();
    while let Some(part) = parts.next() {
        feed(part, if parts.peek().is_some() { MZFlush::Sync } else { MZFlush::Finish });
    }
    if bytes.is_empty() {
        feed(bytes, MZFlush::Finish);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn inflated(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let packed = STANDARD.decode(text).unwrap();
        flate2::read::DeflateDecoder::new(&packed[..]).read_to_end(&mut out).unwrap();
        out
    }

    /// Bytes without a pattern, of which each part has a range of its own.
    fn noise(n: usize) -> Vec<u8> {
        let mut seed = 1u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 16
        };
        (0..n).map(|i| (next() % (2 << (i * 7 / n))) as u8).collect()
    }

    #[test]
    fn all_bytes_come_back() {
        for n in [0, 1, 4095, 4096, 4097, 100_000] {
            let bytes = noise(n);
            assert_eq!(inflated(&pack(&bytes)), bytes);
            assert_eq!(inflated(&pack_codes(&bytes)), bytes);
        }
        let zeros = vec![0; 300_000];
        assert_eq!(inflated(&pack_codes(&zeros)), zeros);
    }

    #[test]
    fn codes_become_shorter_than_text_would() {
        let bytes = noise(100_000);
        assert!(pack_codes(&bytes).len() * 10 < pack(&bytes).len() * 9);
        assert!(pack_codes(&vec![0; 100_000]).len() < 300);
    }
}

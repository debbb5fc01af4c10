//! GPT-2's alphabet: one printable character for each byte, in which byte-level vocabularies are spelt.

use std::sync::LazyLock;

/// Bytes that are spelt as the Latin-1 character of that number; the other 68 follow from U+0100 on, in order.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

static SPELLING: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 0x100;
    std::array::from_fn(|byte| match is_plain(byte as u8) {
        true => char::from(byte as u8),
        false => {
            next += 1;
            char::from_u32(next - 1).expect("68 characters from U+0100 on are assigned")
        }
    })
});

/// The bytes in that alphabet.
pub(crate) fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| SPELLING[byte as usize]).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_byte_has_its_own_character() {
        let all: HashSet<char> = SPELLING.iter().copied().collect();
        assert_eq!(all.len(), 256);
        assert!(all.iter().all(|c| !c.is_whitespace() && !c.is_control()));
        assert_eq!(spell(b" \n\x00a\xff"), "ĠĊĀaÿ");
    }
}

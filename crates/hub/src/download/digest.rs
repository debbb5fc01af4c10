//! The hash of a file, as its etag says it.

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The hash of a file that comes in pieces: of the kind that its etag is.
#[derive(Clone)]
pub enum Hasher {
    /// The etag of a file in the large-file store is its SHA-256.
    Sha256(Sha256),
    /// That of another file is the SHA-1 of its blob in Git: of `blob <size>\0` and the bytes.
    Git(Sha1),
    /// Another etag (a mirror may have its own kind) says nothing of the bytes.
    Unknown,
}

impl Hasher {
    /// Nothing yet, of a file of so many bytes in the end.
    pub fn new(etag: &str, size: Option<u64>) -> Hasher {
        let hex = etag.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match (etag.len(), size) {
            (64, _) if hex => Hasher::Sha256(Sha256::new()),
            (40, Some(size)) if hex => Hasher::Git(Sha1::new_with_prefix(format!("blob {size}\0"))),
            _ => Hasher::Unknown,
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hash) => hash.update(bytes),
            Hasher::Git(hash) => hash.update(bytes),
            Hasher::Unknown => {}
        }
    }

    /// The hash's name and its digits; `None` if it is not known what to compare with.
    pub fn finish(self) -> Option<(&'static str, String)> {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
        match self {
            Hasher::Sha256(hash) => Some(("SHA-256", hex(&hash.finalize()))),
            Hasher::Git(hash) => Some(("SHA-1 in Git", hex(&hash.finalize()))),
            Hasher::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_say_which_hash() {
        let digits = |etag: &str, size, pieces: &[&str]| {
            let mut hasher = Hasher::new(etag, size);
            pieces.iter().for_each(|piece| hasher.update(piece.as_bytes()));
            hasher.finish()
        };
        // `git hash-object` and `sha256sum` of "hello\n".
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(digits(git, Some(6), &["hel", "lo\n"]), Some(("SHA-1 in Git", git.into())));
        assert_eq!(digits(sha256, None, &["hello", "\n"]), Some(("SHA-256", sha256.into())));
        assert_eq!(digits(git, None, &["hello\n"]), None);
        for other in ["5d41402abc4b2a76b9719d911017c592", "", &"g".repeat(64), &"A".repeat(40)] {
            assert_eq!(digits(other, Some(6), &["hello\n"]), None, "{other}");
        }
    }
}

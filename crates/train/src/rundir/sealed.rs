//! What notices damage: SHA-256 of files, and JSON files that hold the SHA-256 of their own fields.

use std::fs;
use std::io;
use std::path::Path;

use ironlens_files::open_ordinary;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The field that holds the hash of the others.
const SEAL: &str = "sha256";

/// What a file was when it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileHash {
    bytes: u64,
    sha256: String,
}

impl FileHash {
    /// Of a file as it is now.
    pub fn of(path: &Path) -> io::Result<FileHash> {
        let mut hash = Sha256::new();
        let bytes = io::copy(&mut open_ordinary(path)?, &mut hash)?;
        Ok(FileHash { bytes, sha256: hex(hash) })
    }

    /// Whether a file is there in its length; costs no reading.
    pub fn check_length(&self, path: &Path) -> Result<(), String> {
        let length = fs::metadata(path).map_err(|e| cannot_read(path, &e))?.len();
        match length == self.bytes {
            true => Ok(()),
            false => Err(format!("{} has {length} bytes, {} were written", name(path), self.bytes)),
        }
    }

    /// Whether a file is still what it was.
    pub fn check(&self, path: &Path) -> Result<(), String> {
        self.check_length(path)?;
        let now = FileHash::of(path).map_err(|e| cannot_read(path, &e))?;
        match now == *self {
            true => Ok(()),
            false => Err(format!("{} was changed after it was written (its SHA-256 is another)", name(path))),
        }
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

fn cannot_read(path: &Path, e: &io::Error) -> String {
    format!("{} cannot be read ({e})", name(path))
}

/// The bytes of a file, and of nothing else.
pub(crate) fn read_ordinary(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut open_ordinary(path)?, &mut bytes)?;
    Ok(bytes)
}

/// The hash of an object's fields but for the seal, sorted: it does not depend on how the text was written.
fn seal(fields: &Value) -> String {
    let mut fields = fields.clone();
    if let Some(object) = fields.as_object_mut() {
        object.remove(SEAL);
    }
    fields.sort_all_objects();
    hex(Sha256::new_with_prefix(fields.to_string()))
}

/// A JSON object with its seal; gives the text and the seal.
pub(crate) fn to_sealed_json(value: &impl Serialize) -> (String, String) {
    #[derive(Serialize)]
    struct Sealed<'a, T> {
        #[serde(flatten)]
        value: &'a T,
        sha256: &'a str,
    }
    let sha256 = seal(&serde_json::to_value(value).expect("plain data is always JSON"));
    let text = serde_json::to_string_pretty(&Sealed { value, sha256: &sha256 });
    (text.expect("plain data is always JSON"), sha256)
}

/// The fields of a JSON object and its seal, if it has one: a text of another format has none.
pub(crate) fn open_sealed_json(bytes: &[u8]) -> Result<(Value, Option<String>), String> {
    let mut fields: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let object = fields.as_object_mut().ok_or("it is no JSON object")?;
    let Some(written) = object.remove(SEAL) else { return Ok((fields, None)) };
    let now = seal(&fields);
    match written.as_str() == Some(&now) {
        true => Ok((fields, Some(now))),
        false => Err("it was changed after it was written (its SHA-256 is another)".into()),
    }
}

/// The value that a sealed JSON file holds; `Err` with what is wrong with it.
pub(crate) fn read_sealed_json<T: DeserializeOwned>(path: &Path) -> Result<(T, Option<String>), String> {
    let bytes = read_ordinary(path).map_err(|e| cannot_read(path, &e))?;
    let opened = open_sealed_json(&bytes).and_then(|(fields, seal)| {
        serde_json::from_value(fields).map_err(|e| e.to_string()).map(|value| (value, seal))
    });
    opened.map_err(|e| format!("{}: {e}", name(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_sealed_text_is_noticed_or_means_nothing() {
        #[derive(Serialize, Deserialize, Debug, PartialEq)]
        struct Example {
            steps: u64,
            lr: f64,
            name: String,
        }
        let example = Example { steps: 12_345_678_901, lr: 1e-8, name: "a \"name\"".into() };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.json");
        let (text, seal) = to_sealed_json(&example);
        fs::write(&path, &text).unwrap();
        assert_eq!(read_sealed_json::<Example>(&path).unwrap(), (example, Some(seal.clone())));
        let (fields, _) = open_sealed_json(text.as_bytes()).unwrap();
        for bit in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // White space may become other white space, and the seal's own name another name.
            match open_sealed_json(&bytes) {
                Ok((_, None)) | Err(_) => {}
                Ok((now, _)) => assert_eq!(now, fields, "bit {bit}"),
            }
        }
    }
}

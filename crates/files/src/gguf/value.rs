//! Metadata of a GGUF file: keys and typed values.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::error::FileError;
use crate::source::Input;

/// The format's number for an array.
const ARRAY: u32 = 9;

/// What a value or an element of an array can be.
trait Scalar: Sized {
    /// Bytes that every one has at least.
    const BYTES: u64;

    fn read(input: &mut Input<'_>) -> Result<Self, FileError>;

    fn write(&self, out: &mut Vec<u8>);
}

macro_rules! number {
    ($($type:ty)*) => {$(
        impl Scalar for $type {
            const BYTES: u64 = size_of::<$type>() as u64;

            fn read(input: &mut Input<'_>) -> Result<Self, FileError> {
                input.array().map(<$type>::from_le_bytes)
            }

            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

number!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);

impl Scalar for bool {
    const BYTES: u64 = 1;

    fn read(input: &mut Input<'_>) -> Result<Self, FileError> {
        match input.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(input.source().damaged(format!("a truth value is {other}, neither 0 nor 1"))),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push((*self).into());
    }
}

impl Scalar for String {
    const BYTES: u64 = 8;

    fn read(input: &mut Input<'_>) -> Result<Self, FileError> {
        let length = u64::read(input)?;
        let bytes = input.bytes(length)?;
        String::from_utf8(bytes)
            .map_err(|e| input.source().damaged(format!("a text is not UTF-8 ({})", e.utf8_error())))
    }

    fn write(&self, out: &mut Vec<u8>) {
        (self.len() as u64).write(out);
        out.extend_from_slice(self.as_bytes());
    }
}

/// A text: eight bytes of length, then UTF-8.
pub(super) fn read_text(input: &mut Input<'_>) -> Result<String, FileError> {
    String::read(input)
}

/// See [`read_text`].
pub(super) fn write_text(text: &str, out: &mut Vec<u8>) {
    text.to_owned().write(out);
}

fn read_array<T: Scalar>(input: &mut Input<'_>, count: u64) -> Result<Vec<T>, FileError> {
    if count > input.left() / T::BYTES {
        let text = format!("an array should have {count} elements, {} bytes are left", input.left());
        return Err(input.source().damaged(text));
    }
    (0..count).map(|_| T::read(input)).collect()
}

macro_rules! kinds {
    ($($kind:ident($type:ty) = $number:literal, $word:literal;)*) => {
        /// A value of a GGUF file's metadata.
        #[derive(Clone, Debug, PartialEq)]
        pub enum GgufValue {
            $(#[doc = concat!("A value of type `", stringify!($type), "`.")] $kind($type),)*
            /// Values of one type.
            Array(GgufArray),
        }

        /// Values of one type in a GGUF file's metadata.
        #[derive(Clone, Debug, PartialEq)]
        pub enum GgufArray {
            $(#[doc = concat!("Values of type `", stringify!($type), "`.")] $kind(Vec<$type>),)*
        }

        impl GgufValue {
            pub(super) fn read(input: &mut Input<'_>) -> Result<GgufValue, FileError> {
                Ok(match u32::read(input)? {
                    $($number => GgufValue::$kind(<$type>::read(input)?),)*
                    ARRAY => {
                        let (kind, count) = (u32::read(input)?, u64::read(input)?);
                        GgufValue::Array(match kind {
                            $($number => GgufArray::$kind(read_array(input, count)?),)*
                            ARRAY => return Err(input.source().damaged("an array of arrays is not read")),
                            other => return Err(unknown(input, other)),
                        })
                    }
                    other => return Err(unknown(input, other)),
                })
            }

            pub(super) fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(GgufValue::$kind(value) => {
                        u32::write(&$number, out);
                        value.write(out);
                    })*
                    GgufValue::Array(array) => {
                        ARRAY.write(out);
                        match array {
                            $(GgufArray::$kind(values) => {
                                u32::write(&$number, out);
                                (values.len() as u64).write(out);
                                values.iter().for_each(|v| v.write(out));
                            })*
                        }
                    }
                }
            }

            /// What it is, in words.
            fn kind(&self) -> String {
                match self {
                    $(GgufValue::$kind(_) => concat!("a ", $word).into(),)*
                    $(GgufValue::Array(GgufArray::$kind(v)) => format!(concat!("an array of {} ", $word, "s"), v.len()),)*
                }
            }
        }
    };
}

kinds! {
    U8(u8) = 0, "whole number";
    I8(i8) = 1, "whole number";
    U16(u16) = 2, "whole number";
    I16(i16) = 3, "whole number";
    U32(u32) = 4, "whole number";
    I32(i32) = 5, "whole number";
    F32(f32) = 6, "number";
    Bool(bool) = 7, "truth value";
    String(String) = 8, "text";
    U64(u64) = 10, "whole number";
    I64(i64) = 11, "whole number";
    F64(f64) = 12, "number";
}

fn unknown(input: &Input<'_>, kind: u32) -> FileError {
    input.source().damaged(format!("its metadata has a value of type {kind}, which the format does not have"))
}

/// What a [`GgufValue`] is read as. Whole numbers of any width and sign are read as `i64` and `u64`, numbers of
/// either width as `f64`, arrays of these as `Vec<i64>` and `Vec<f64>`, and texts as what they are.
pub trait FromGguf<'v>: Sized {
    /// What is expected, in words.
    const EXPECTED: &'static str;

    /// The value, if it is one of these.
    fn from_gguf(value: &'v GgufValue) -> Option<Self>;
}

impl FromGguf<'_> for i64 {
    const EXPECTED: &'static str = "a whole number below 2^63";

    fn from_gguf(value: &GgufValue) -> Option<i64> {
        Some(match *value {
            GgufValue::U8(x) => x.into(),
            GgufValue::I8(x) => x.into(),
            GgufValue::U16(x) => x.into(),
            GgufValue::I16(x) => x.into(),
            GgufValue::U32(x) => x.into(),
            GgufValue::I32(x) => x.into(),
            GgufValue::I64(x) => x,
            GgufValue::U64(x) => x.try_into().ok()?,
            _ => return None,
        })
    }
}

impl FromGguf<'_> for u64 {
    const EXPECTED: &'static str = "a whole number that is not negative";

    fn from_gguf(value: &GgufValue) -> Option<u64> {
        match *value {
            GgufValue::U64(x) => Some(x),
            _ => i64::from_gguf(value)?.try_into().ok(),
        }
    }
}

impl FromGguf<'_> for f64 {
    const EXPECTED: &'static str = "a number with a fraction";

    fn from_gguf(value: &GgufValue) -> Option<f64> {
        match *value {
            GgufValue::F32(x) => Some(x.into()),
            GgufValue::F64(x) => Some(x),
            _ => None,
        }
    }
}

impl FromGguf<'_> for bool {
    const EXPECTED: &'static str = "a truth value";

    fn from_gguf(value: &GgufValue) -> Option<bool> {
        if let GgufValue::Bool(x) = *value { Some(x) } else { None }
    }
}

impl<'v> FromGguf<'v> for &'v str {
    const EXPECTED: &'static str = "a text";

    fn from_gguf(value: &'v GgufValue) -> Option<&'v str> {
        if let GgufValue::String(x) = value { Some(x) } else { None }
    }
}

impl<'v> FromGguf<'v> for &'v [String] {
    const EXPECTED: &'static str = "an array of texts";

    fn from_gguf(value: &'v GgufValue) -> Option<&'v [String]> {
        if let GgufValue::Array(GgufArray::String(x)) = value { Some(x) } else { None }
    }
}

impl FromGguf<'_> for Vec<i64> {
    const EXPECTED: &'static str = "an array of whole numbers below 2^63";

    fn from_gguf(value: &GgufValue) -> Option<Vec<i64>> {
        let GgufValue::Array(array) = value else { return None };
        Some(match array {
            GgufArray::U8(x) => x.iter().map(|&x| x.into()).collect(),
            GgufArray::I8(x) => x.iter().map(|&x| x.into()).collect(),
            GgufArray::U16(x) => x.iter().map(|&x| x.into()).collect(),
            GgufArray::I16(x) => x.iter().map(|&x| x.into()).collect(),
            GgufArray::U32(x) => x.iter().map(|&x| x.into()).collect(),
            GgufArray::I32(x) => x.iter().map(|&x| x.into()).collect(),
            GgufArray::I64(x) => x.clone(),
            GgufArray::U64(x) => x.iter().map(|&x| x.try_into().ok()).collect::<Option<_>>()?,
            GgufArray::F32(_) | GgufArray::F64(_) | GgufArray::Bool(_) | GgufArray::String(_) => return None,
        })
    }
}

impl FromGguf<'_> for Vec<f64> {
    const EXPECTED: &'static str = "an array of numbers with fractions";

    fn from_gguf(value: &GgufValue) -> Option<Vec<f64>> {
        match value {
            GgufValue::Array(GgufArray::F32(x)) => Some(x.iter().map(|&x| x.into()).collect()),
            GgufValue::Array(GgufArray::F64(x)) => Some(x.clone()),
            _ => None,
        }
    }
}

/// The metadata of a GGUF file: what [the format's description] calls key-value pairs.
///
/// [the format's description]: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#[derive(Clone, Debug)]
pub struct GgufMetadata {
    path: PathBuf,
    /// In the order of the file.
    pairs: Vec<(String, GgufValue)>,
    /// Places in `pairs`.
    index: HashMap<String, usize>,
}

impl GgufMetadata {
    pub(super) fn read(input: &mut Input<'_>, count: u64) -> Result<GgufMetadata, FileError> {
        let mut metadata =
            GgufMetadata { path: input.source().path().into(), pairs: Vec::new(), index: HashMap::new() };
        for _ in 0..count {
            let key = read_text(input)?;
            let value = GgufValue::read(input)?;
            if metadata.index.insert(key.clone(), metadata.pairs.len()).is_some() {
                return Err(input.source().damaged(format!("its metadata has the key `{key}` twice")));
            }
            metadata.pairs.push((key, value));
        }
        Ok(metadata)
    }

    /// All keys and values, in the order of the file.
    pub fn pairs(&self) -> &[(String, GgufValue)] {
        &self.pairs
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&GgufValue> {
        self.index.get(key).map(|&i| &self.pairs[i].1)
    }

    /// The value of a key that may be absent.
    ///
    /// # Errors
    /// If there is one of another type.
    pub fn optional<'v, T: FromGguf<'v>>(&'v self, key: &str) -> Result<Option<T>, FileError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let wrong = || {
            let text = format!("its metadata has {} for `{key}`, expected {}", value.kind(), T::EXPECTED);
            FileError::refused(&self.path, text)
        };
        T::from_gguf(value).map(Some).ok_or_else(wrong)
    }

    /// The value of a key that must be there.
    ///
    /// # Errors
    /// If it is absent or of another type.
    pub fn required<'v, T: FromGguf<'v>>(&'v self, key: &str) -> Result<T, FileError> {
        let missing = || FileError::refused(&self.path, format!("its metadata lacks `{key}`, {}", T::EXPECTED));
        self.optional(key)?.ok_or_else(missing)
    }
}

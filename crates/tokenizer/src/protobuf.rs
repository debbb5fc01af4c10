//! As much of the protobuf wire format as a SentencePiece model needs: fields of a message, one after the other.
//!
//! A field is a number and a kind in one varint, then the value: a varint, 4 or 8 bytes, or a length and bytes
//! (<https://protobuf.dev/programming-guides/encoding>).

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Field<'b> {
    Varint(u64),
    Bytes(&'b [u8]),
    Fixed32([u8; 4]),
    Fixed64,
}

impl Field<'_> {
    /// A whole number with a sign: negative ones are varints of ten bytes.
    pub(crate) fn int(self) -> Option<i64> {
        match self {
            Field::Varint(value) => Some(value as i64),
            _ => None,
        }
    }

    pub(crate) fn float(self) -> Option<f32> {
        match self {
            Field::Fixed32(bytes) => Some(f32::from_le_bytes(bytes)),
            _ => None,
        }
    }

    pub(crate) fn flag(self) -> Option<bool> {
        self.int().map(|value| value != 0)
    }
}

impl<'b> Field<'b> {
    pub(crate) fn bytes(self) -> Option<&'b [u8]> {
        match self {
            Field::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// Numbers and values of the fields of a message; ends after `Err(reason)` where it is not one.
pub(crate) struct Fields<'b> {
    rest: &'b [u8],
}

impl<'b> Fields<'b> {
    pub(crate) fn of(message: &'b [u8]) -> Fields<'b> {
        Fields { rest: message }
    }

    fn take(&mut self, length: u64) -> Option<&'b [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u64, Field<'b>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => self.take(8).map(|_| Field::Fixed64)?,
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Fixed32(self.take(4)?.try_into().ok()?),
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'b> Iterator for Fields<'b> {
    type Item = Result<(u64, Field<'b>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or("it is cut short, or is no protobuf message"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_cuts_are_errors() {
        let message = [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1D, 0, 0, 0x80, 0x3F];
        let fields: Result<Vec<_>, _> = Fields::of(&message).collect();
        let expected = [(1, Field::Varint(150)), (2, Field::Bytes(b"hi")), (3, Field::Fixed32([0, 0, 0x80, 0x3F]))];
        assert_eq!(fields.unwrap(), expected);
        for end in [1, 2, 4, 5, 6, 8, 11] {
            assert!(Fields::of(&message[..end]).any(|field| field.is_err()), "{end}");
        }
        assert_eq!(Fields::of(&[0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]).count(), 1);
    }
}

//! [`Slice`]: some indices along an axis.

use ironlens_tensor::Tensor;

use crate::names::resolve_layer;

/// Which positions of activations to keep, or which neurons, or items of a batch: TransformerLens's `Slice`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Slice {
    /// All.
    #[default]
    All,
    /// One, negative counting from the end; the axis stays, with length 1.
    At(isize),
    /// From the first up to but without the second, negative counting from the end.
    Range(isize, isize),
    /// These, in this order, negative counting from the end.
    Indices(Vec<isize>),
}

/// An index that a [`Slice`] asks for and the axis does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a slice asks for index {index} of an axis of length {len}{}", range(*len))]
pub struct SliceError {
    /// What was asked for.
    pub index: isize,
    /// How many there are.
    pub len: usize,
}

fn range(len: usize) -> String {
    match len {
        0 => String::new(),
        _ => format!(", which has 0 to {} (or -{len} to -1, from the end)", len - 1),
    }
}

impl Slice {
    /// The indices that this names among `n`.
    ///
    /// # Errors
    /// If one does not exist.
    pub fn indices(&self, n: usize) -> Result<Vec<usize>, SliceError> {
        let at = |index: isize| resolve_layer(index, n).map_err(|_| SliceError { index, len: n });
        let clamp = |i: isize| if i < 0 { n.saturating_sub(i.unsigned_abs()) } else { n.min(i.unsigned_abs()) };
        match self {
            Slice::All => Ok((0..n).collect()),
            Slice::At(index) => Ok(vec![at(*index)?]),
            Slice::Range(from, to) => Ok((clamp(*from)..clamp(*to)).collect()),
            Slice::Indices(list) => list.iter().map(|index| at(*index)).collect(),
        }
    }

    /// These elements of `x`, along `axis`.
    ///
    /// # Errors
    /// If one does not exist.
    pub fn apply(&self, x: &Tensor, axis: usize) -> Result<Tensor, SliceError> {
        let indices = match self {
            Slice::All => return Ok(x.clone()),
            Slice::At(_) | Slice::Range(..) | Slice::Indices(_) => self.indices(x.dim(axis))?,
        };
        let consecutive = indices.windows(2).all(|w| w[1] == w[0] + 1);
        Ok(match (consecutive, indices.first()) {
            (true, Some(&first)) => x.narrow(axis, first, indices.len()),
            (_, None) => x.narrow(axis, 0, 0),
            _ => Tensor::cat(&indices.iter().map(|&i| x.narrow(axis, i, 1)).collect::<Vec<_>>(), axis),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_exist_is_told() {
        let told = Slice::Indices(vec![1, -6]).indices(5).unwrap_err().to_string();
        assert_eq!(
            told,
            "a slice asks for index -6 of an axis of length 5, which has 0 to 4 (or -5 to -1, from the end)"
        );
        assert_eq!(Slice::At(0).indices(0).unwrap_err().to_string(), "a slice asks for index 0 of an axis of length 0");
        assert_eq!(Slice::Range(-2, 9).indices(5), Ok(vec![3, 4]));
    }
}

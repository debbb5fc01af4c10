//! Sequences of unequal length side by side.

use ironlens_tensor::IndexTensor;

/// Which tokens of a batch are padding, and what that means for attention.
#[derive(Clone, Debug)]
pub struct Padding {
    pub(super) mask: IndexTensor,
    positions: IndexTensor,
    pub(super) seen_if_bidirectional: bool,
}

impl Padding {
    /// Of `mask` `[batch, pos]`, 0 at padding. No query attends to padding, and positions count from
    /// the first token that is none.
    pub fn new(mask: &IndexTensor) -> Padding {
        Padding { mask: mask.clone(), positions: positions_of(mask), seen_if_bidirectional: false }
    }

    /// As TransformerLens 2.18, where the code of the causal mask hides padding: bidirectional
    /// attention sees it. Positions count as ever.
    pub fn as_transformer_lens(self) -> Padding {
        Padding { seen_if_bidirectional: true, ..self }
    }

    /// `[batch, pos]`, 0 at padding.
    pub fn mask(&self) -> &IndexTensor {
        &self.mask
    }

    /// The position of every token, counted over those that are not padding:
    /// `max(cumsum(mask) - 1, 0)`, `[batch, pos]`.
    pub fn positions(&self) -> &IndexTensor {
        &self.positions
    }

    /// Length of the longest sequence, padding aside.
    pub fn longest(&self) -> usize {
        self.positions.as_slice().iter().max().map_or(0, |&last| last as usize + 1)
    }
}

/// Positions counted over the tokens that are not padding: `max(cumsum(mask) - 1, 0)`.
fn positions_of(mask: &IndexTensor) -> IndexTensor {
    let width = mask.shape().last().copied().unwrap_or(1).max(1);
    let mut positions = Vec::with_capacity(mask.numel());
    for row in mask.as_slice().chunks(width) {
        let mut count = 0u32;
        for &m in row {
            count += u32::from(m != 0);
            positions.push(count.saturating_sub(1));
        }
    }
    IndexTensor::new(positions, mask.shape())
}

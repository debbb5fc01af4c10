//! Keys and values of rows that were computed before.

use ironlens_tensor::{IndexTensor, Tensor};

use super::padding::Padding;

/// Rows are given up in steps of so many: those that stay keep their places in the lanes and blocks (of 256 keys) in
/// which the CPU adds over keys, and with them the bits of what sees them.
const STEP: usize = 256;

/// The rows `[batch, pos]` that a pass computes, and what their attention may look back on.
#[derive(Debug, Default)]
pub struct Rows<'p> {
    /// Of the rows and of those before.
    pub padding: Option<&'p Padding>,
    /// Those before. The rows are appended.
    pub past: Option<&'p mut Past>,
}

impl<'p> From<Option<&'p Padding>> for Rows<'p> {
    /// Whole sequences.
    fn from(padding: Option<&'p Padding>) -> Self {
        Rows { padding, past: None }
    }
}

impl Rows<'_> {
    /// Place of the first row in its sequence, padding counted.
    pub(super) fn start(&self) -> usize {
        self.past.as_ref().map_or(0, |past| past.len)
    }
}

/// The keys and values of the rows of one layer so far. Clones share memory until one of them grows.
///
/// Where attention sees a window only, rows that no row to come can see are given up.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// As `hook_k` left them, `[batch, pos, kv_head, d_head]`; none where attention reads just these.
    keys: Option<Grown>,
    /// As attention reads them: normalised and rotated.
    rotated_keys: Option<Grown>,
    /// As `hook_v` left them.
    values: Option<Grown>,
    /// How many rows there were.
    len: usize,
    /// How many of them were given up.
    dropped: usize,
}

impl Past {
    /// How many rows there were, given up ones included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many of the first rows were given up.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// Keys of the rows that are kept, as `hook_k` left them, `[batch, pos, kv_head, d_head]`.
    pub fn keys(&self) -> Option<Tensor> {
        self.keys.as_ref().or(self.rotated_keys.as_ref()).map(Grown::rows)
    }

    /// Their values, as `hook_v` left them.
    pub fn values(&self) -> Option<Tensor> {
        self.values.as_ref().map(Grown::rows)
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        let parts = [&self.keys, &self.rotated_keys, &self.values];
        parts.into_iter().flatten().map(|g| g.memory.numel() * g.memory.dtype().size()).sum()
    }

    /// Forgets all rows from `len` on; more than there are changes nothing. `false` if rows that the one at `len`
    /// sees through a `window` were given up already: then nothing is changed.
    pub fn truncate(&mut self, len: usize, window: Option<usize>) -> bool {
        if len >= self.len {
            return true;
        }
        let first_seen = window.map_or(0, |w| (len + 1).saturating_sub(w));
        if first_seen < self.dropped {
            return false;
        }
        let keep = len - self.dropped;
        self.parts().for_each(|part| part.len = keep);
        self.len = len;
        true
    }

    /// The sequences `items` of the batch, each as often as it is named.
    pub fn select(&self, items: &IndexTensor) -> Past {
        let of = |part: &Option<Grown>| part.as_ref().map(|part| part.select(items));
        Past { keys: of(&self.keys), rotated_keys: of(&self.rotated_keys), values: of(&self.values), ..*self }
    }

    /// Appends rows; `keys` and `ready` are one where attention reads what `hook_k` left. Gives all ready keys and
    /// all values that are kept.
    pub(super) fn append(
        &mut self,
        keys: &Tensor,
        ready: &Tensor,
        values: &Tensor,
        window: Option<usize>,
    ) -> (Tensor, Tensor) {
        // The first new row sees itself and `window - 1` rows before.
        let unseen = window.map_or(0, |w| (self.len + 1).saturating_sub(w)) / STEP * STEP;
        if unseen > self.dropped {
            let drop = unseen - self.dropped;
            self.parts().for_each(|part| part.drop_first(drop));
            self.dropped = unseen;
        }
        if !keys.shares_memory(ready) {
            push(&mut self.keys, keys);
        }
        push(&mut self.rotated_keys, ready);
        push(&mut self.values, values);
        self.len += keys.dim(1);
        let [ready, values] =
            [&self.rotated_keys, &self.values].map(|part| part.as_ref().expect("rows were appended to it").rows());
        (ready, values)
    }

    fn parts(&mut self) -> impl Iterator<Item = &mut Grown> {
        [&mut self.keys, &mut self.rotated_keys, &mut self.values].into_iter().flatten()
    }
}

fn push(part: &mut Option<Grown>, rows: &Tensor) {
    match part {
        Some(part) => part.push(rows),
        None => *part = Some(Grown::new(rows)),
    }
}

/// Room for twice as many rows, so that a row is moved once on average.
fn roomy(len: usize) -> usize {
    (2 * len).next_multiple_of(64)
}

/// Rows `[batch, pos, head, d_head]` in memory that has room for more.
#[derive(Clone, Debug)]
struct Grown {
    /// `[batch, capacity, head, d_head]`
    memory: Tensor,
    len: usize,
}

impl Grown {
    /// Without room: what is only read once stays as it is.
    fn new(rows: &Tensor) -> Grown {
        Grown { memory: rows.clone(), len: rows.dim(1) }
    }

    fn rows(&self) -> Tensor {
        self.memory.narrow(1, 0, self.len)
    }

    fn push(&mut self, rows: &Tensor) {
        let (at, n) = (self.len, rows.dim(1));
        if at + n > self.memory.dim(1) {
            self.memory = self.with_capacity(roomy(at + n), 0);
        }
        self.memory.assign(|memory| memory.narrow(1, at, n), rows);
        self.len += n;
    }

    fn drop_first(&mut self, n: usize) {
        self.memory = self.with_capacity(roomy(self.len - n), n);
        self.len -= n;
    }

    /// The rows from `first` on, in memory for `capacity`.
    fn with_capacity(&self, capacity: usize, first: usize) -> Tensor {
        let [batch, _, heads, width] = *self.memory.shape() else {
            unreachable!("rows are [batch, pos, head, d_head]")
        };
        let len = self.len - first;
        let mut memory = Tensor::zeros(&[batch, capacity, heads, width], self.memory.dtype(), &self.memory.device());
        memory.assign(|memory| memory.narrow(1, 0, len), self.memory.narrow(1, first, len));
        memory
    }

    fn select(&self, items: &IndexTensor) -> Grown {
        Grown { memory: self.rows().index_select(0, items), len: self.len }
    }
}

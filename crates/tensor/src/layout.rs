//! Where the elements of a tensor lie in its memory.

use crate::check;

/// Shape, strides and offset of a tensor, in elements. Strides are never negative; a stride of
/// 0 repeats one element along an axis.
///
/// The number of elements and the largest index fit into `isize` (constructors see to it), so
/// arithmetic on parts of a layout never wraps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
}

impl Layout {
    /// Row-major layout from the start of the memory.
    ///
    /// # Panics
    /// If there are more elements than can be addressed.
    #[track_caller]
    pub fn contiguous(shape: &[usize]) -> Layout {
        check::numel(shape);
        let mut strides = vec![1; shape.len()];
        for i in (0..shape.len().saturating_sub(1)).rev() {
            strides[i] = strides[i + 1] * shape[i + 1].max(1);
        }
        Layout { shape: shape.to_vec(), strides, offset: 0 }
    }

    /// A layout from its parts.
    ///
    /// # Panics
    /// If `shape` and `strides` differ in length, or reach further than can be addressed.
    #[track_caller]
    pub fn strided(shape: Vec<usize>, strides: Vec<usize>, offset: usize) -> Layout {
        check::strides(&shape, &strides, offset);
        Layout { shape, strides, offset }
    }

    /// The same elements, had the first of them the index `offset`.
    #[track_caller]
    pub fn starting_at(&self, offset: usize) -> Layout {
        Layout::strided(self.shape.clone(), self.strides.clone(), offset)
    }

    /// Length of every axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Distance between neighbours along every axis.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// Index of the first element.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Number of axes.
    pub fn ndim(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// One past the largest index that the layout reaches.
    pub fn end(&self) -> usize {
        if self.numel() == 0 {
            return self.offset;
        }
        self.offset + 1 + self.shape.iter().zip(&self.strides).map(|(n, s)| (n - 1) * s).sum::<usize>()
    }

    /// Whether the elements lie in row-major order without gaps (at any offset).
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        for (&n, &s) in self.shape.iter().zip(&self.strides).rev() {
            if n != 1 && s != expected {
                return self.numel() == 0;
            }
            expected *= n;
        }
        true
    }

    /// Whether elements may share a place in memory: along an axis of stride 0, or where axes run
    /// into one another, as those of overlapping windows do. A few layouts whose axes interleave
    /// without meeting count as well.
    pub fn repeats(&self) -> bool {
        if self.is_contiguous() {
            return false;
        }
        let mut axes: Vec<(usize, usize)> =
            self.strides.iter().copied().zip(self.shape.iter().copied()).filter(|(_, n)| *n > 1).collect();
        axes.sort_unstable();
        // How far the axes of smaller strides reach together: the next must step over all of it.
        let mut reach = 0;
        axes.into_iter().any(|(stride, n)| {
            let meets = stride <= reach;
            reach += (n - 1) * stride;
            meets
        })
    }

    /// Axes in the order `axes`.
    pub fn permute(&self, axes: &[usize]) -> Layout {
        Layout {
            shape: axes.iter().map(|&a| self.shape[a]).collect(),
            strides: axes.iter().map(|&a| self.strides[a]).collect(),
            offset: self.offset,
        }
    }

    /// Elements `start..start + len` along `axis`.
    pub fn narrow(&self, axis: usize, start: usize, len: usize) -> Layout {
        let mut out = self.clone();
        out.shape[axis] = len;
        // Of no elements, none is the first: the offset stays within the memory.
        if out.numel() > 0 {
            out.offset += start * self.strides[axis];
        }
        out
    }

    /// Without `axis`, at its element `index`.
    pub fn select(&self, axis: usize, index: usize) -> Layout {
        let mut out = self.narrow(axis, index, 1);
        out.shape.remove(axis);
        out.strides.remove(axis);
        out
    }

    /// With an axis of length 1 inserted before `axis`.
    pub fn unsqueeze(&self, axis: usize) -> Layout {
        let mut out = self.clone();
        let stride = if axis < self.ndim() { self.strides[axis] * self.shape[axis].max(1) } else { 1 };
        out.shape.insert(axis, 1);
        out.strides.insert(axis, stride);
        out
    }

    /// Repeated without copying to `shape`, aligned at the last axis; `None` if an axis is
    /// neither 1 nor already right.
    ///
    /// # Panics
    /// If there are then more elements than can be addressed.
    #[track_caller]
    pub fn expand(&self, shape: &[usize]) -> Option<Layout> {
        let extra = shape.len().checked_sub(self.ndim())?;
        let mut strides = vec![0; shape.len()];
        for (i, (&n, &s)) in self.shape.iter().zip(&self.strides).enumerate() {
            match (n, shape[extra + i]) {
                (a, b) if a == b => strides[extra + i] = s,
                (1, _) => strides[extra + i] = 0,
                _ => return None,
            }
        }
        check::numel(shape);
        Some(Layout { shape: shape.to_vec(), strides, offset: self.offset })
    }

    /// The same elements in the same order under another shape, if it has as many and strides can
    /// say so.
    pub fn reshape(&self, shape: &[usize]) -> Option<Layout> {
        if numel(shape) != Some(self.numel()) {
            return None;
        }
        if self.is_contiguous() {
            let mut out = Layout::contiguous(shape);
            out.offset = self.offset;
            return Some(out);
        }
        // Join old axes that are contiguous with one another into runs, then split each run.
        let mut runs: Vec<(usize, usize)> = Vec::new(); // (length, innermost stride)
        for (&n, &s) in self.shape.iter().zip(&self.strides).filter(|(n, _)| **n != 1) {
            match runs.last_mut() {
                Some((len, stride)) if *stride == n * s => {
                    *len *= n;
                    *stride = s;
                }
                _ => runs.push((n, s)),
            }
        }
        let mut strides = vec![1; shape.len()];
        let mut axis = shape.len();
        for &(len, stride) in runs.iter().rev() {
            let mut left = len;
            let mut step = stride;
            while left > 1 {
                axis = axis.checked_sub(1)?;
                if left % shape[axis] != 0 {
                    return None;
                }
                strides[axis] = step;
                step *= shape[axis];
                left /= shape[axis];
            }
        }
        Some(Layout { shape: shape.to_vec(), strides, offset: self.offset })
    }
}

/// Number of elements of a shape; `None` if even its axes of other lengths than 0 hold more than
/// can be addressed.
pub(crate) fn numel(shape: &[usize]) -> Option<usize> {
    let held = shape.iter().try_fold(1usize, |held, &n| held.checked_mul(n.max(1)))?;
    let all = if shape.contains(&0) { 0 } else { held };
    (held <= isize::MAX as usize).then_some(all)
}

/// The shape that two operands broadcast to, aligned at the last axis.
pub(crate) fn broadcast_shape(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let n = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(n).map_or(1, |j| s[j]);
    (0..n)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshape_splits_and_joins_strided_axes() {
        // Columns 4..12 of a [2, 3, 16] tensor: the last axis can split, the first two can join.
        let l = Layout::contiguous(&[2, 3, 16]).narrow(2, 4, 8);
        let r = l.reshape(&[6, 2, 4]).unwrap();
        assert_eq!((r.strides(), r.offset()), (&[16, 4, 1][..], 4));
        assert_eq!(l.reshape(&[2, 3, 2, 1, 4]).unwrap().numel(), 48);
        assert!(l.reshape(&[48]).is_none());
        assert!(l.permute(&[1, 0, 2]).reshape(&[6, 8]).is_none());
    }

    #[test]
    fn broadcasting_follows_numpy() {
        assert_eq!(broadcast_shape(&[3, 1], &[2, 1, 4]), Some(vec![2, 3, 4]));
        assert_eq!(broadcast_shape(&[3], &[2]), None);
        assert_eq!(Layout::contiguous(&[3, 1]).expand(&[2, 3, 4]).unwrap().strides(), &[0, 1, 0]);
    }

    #[test]
    fn layouts_know_whether_they_repeat_elements() {
        let l = Layout::contiguous(&[2, 3, 4]);
        assert!(!l.repeats() && !l.permute(&[2, 0, 1]).narrow(1, 1, 1).repeats());
        assert!(!l.narrow(2, 1, 2).unsqueeze(1).repeats());
        assert!(Layout::contiguous(&[3, 1]).expand(&[3, 4]).unwrap().repeats());
        assert!(!Layout::contiguous(&[3, 1]).expand(&[2, 3, 0]).unwrap().repeats());
        // Windows of four elements, three and five apart.
        assert!(Layout::strided(vec![3, 4], vec![3, 1], 0).repeats());
        assert!(!Layout::strided(vec![3, 4], vec![5, 1], 0).repeats());
        assert!(!Layout::strided(vec![4, 3], vec![1, 5], 0).repeats());
    }

    #[test]
    fn sizes_that_no_machine_has_are_refused() {
        for (shape, strides) in [
            (vec![17, 2], vec![1 << 60, 1]),
            (vec![1 << 32, 1 << 32], vec![0, 0]),
            (vec![0, 1 << 32, 1 << 32], vec![1, 1, 1]),
            (vec![2, 2], vec![1 << 62, 1 << 62]),
        ] {
            let refused = std::panic::catch_unwind(|| Layout::strided(shape.clone(), strides.clone(), 0)).unwrap_err();
            let message = refused.downcast_ref::<String>().unwrap();
            assert!(message.contains(&format!("{shape:?}")), "{message}");
        }
        assert!(Layout::contiguous(&[2, 3]).reshape(&[1 << 32, 1 << 32, 6]).is_none());
    }
}

//! Loops over pieces of memory, on rayon's threads.
//!
//! What is done with a piece is handed on as a trait object: rayon's machinery is compiled once for each type of element,
//! and not once for each loop, which was a fifth of this crate's code and of the time that it takes to build.

use rayon::prelude::*;

/// Elements per parallel task of a pass over memory.
pub(super) const CHUNK: usize = 1 << 14;

/// Runs `f` for each of `0..pieces`, in parallel.
pub(super) fn for_each(pieces: usize, f: &(dyn Fn(usize) + Sync)) {
    (0..pieces).into_par_iter().for_each(f);
}

/// Runs `f(i, chunk)` for each chunk of `size` elements (the last may be shorter), in parallel if there are several.
pub(super) fn par_chunks<E: Send>(out: &mut [E], size: usize, f: impl Fn(usize, &mut [E]) + Sync) {
    fn spread<E: Send>(out: &mut [E], size: usize, f: &(dyn Fn(usize, &mut [E]) + Sync)) {
        match out.len() {
            0 => {}
            len if len <= size => f(0, out),
            _ => out.par_chunks_mut(size).enumerate().for_each(|(i, chunk)| f(i, chunk)),
        }
    }
    spread(out, size, &f);
}

/// Runs `f(first_row, rows)` on groups of whole rows of `width` elements, in parallel if there are several.
pub(super) fn par_rows<E: Send>(out: &mut [E], width: usize, f: impl Fn(usize, &mut [E]) + Sync) {
    let rows = rows_per_task(width);
    par_chunks(out, rows * width, |i, chunk| f(i * rows, chunk));
}

/// Runs `f` on matching chunks of `out` and `x`, in parallel if there are several.
pub(super) fn par_zip<E: Send, X: Sync>(out: &mut [E], x: &[X], f: impl Fn(&mut [E], &[X]) + Sync) {
    debug_assert_eq!(out.len(), x.len());
    par_chunks(out, CHUNK, |i, out| f(out, &x[i * CHUNK..][..out.len()]));
}

pub(super) fn rows_per_task(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

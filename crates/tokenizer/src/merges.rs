//! The merges that scores or ranks mean: BPE vocabularies that come without a list of pairs.

use std::collections::HashSet;
use std::hash::Hash;

use crate::error::{Result, TokenizerError};

/// Longest token that may come of merges. Each is cut at every place, so time grows with the square.
const MAX_BYTES: usize = 512;

/// Every pair of tokens that makes up a token, the pairs of earlier tokens first.
///
/// `tokens` are in the order in which they may be made; `all` has their parts too. `cuts` lists the places where a
/// token may be cut. SentencePiece and tiktoken merge the pair whose union comes first; two pairs with one union
/// are in one place there, and here the one with the longer left half is before the other (as in transformers'
/// conversion), which no text of a trained vocabulary tells apart.
pub(crate) fn merges<'t, T: AsRef<[u8]> + Hash + Eq + ?Sized + 't>(
    tokens: impl IntoIterator<Item = &'t T>,
    all: &HashSet<&'t T>,
    cut: impl Fn(&'t T, usize) -> Option<(&'t T, &'t T)>,
) -> Result<Vec<(&'t T, &'t T)>> {
    let mut merges = Vec::new();
    for token in tokens {
        let length = token.as_ref().len();
        if length > MAX_BYTES {
            let reason = format!("a token of {length} bytes cannot come of merges: at most {MAX_BYTES} are taken");
            return Err(TokenizerError::vocabulary(reason));
        }
        let halves = (1..length).rev().filter_map(|place| cut(token, place));
        merges.extend(halves.filter(|(left, right)| all.contains(left) && all.contains(right)));
    }
    Ok(merges)
}

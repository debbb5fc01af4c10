//! Attention patterns in numbers: how spread out, how far back. Queries that are padding are left out.

use ironlens_tensor::Tensor;
use ironlens_transformer::ActivationCache;

use crate::error::LensError;

/// Entropy of each head's attention in nats, averaged over batch and queries: 0 looks at one key,
/// `ln n` at all of n alike. `[layer, head]`.
///
/// # Errors
/// If patterns are not cached.
pub fn attention_entropy(cache: &ActivationCache) -> Result<Tensor, LensError> {
    per_head(cache, |row, _| row.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum())
}

/// Mean distance from query to key, in positions, weighted by attention and averaged over batch and
/// queries (keys ahead count as much as keys behind). `[layer, head]`.
///
/// # Errors
/// If patterns are not cached, or not for the queries of all positions.
pub fn attention_distance(cache: &ActivationCache) -> Result<Tensor, LensError> {
    for l in 0..cache.model().config().n_layers {
        let pattern = cache.get(("pattern", l))?;
        let [.., queries, keys] = *pattern.shape() else { unreachable!("patterns are [.., query, key]") };
        if queries != keys {
            return Err(LensError::argument(
                "patterns to measure distances in",
                format!("{queries} queries of {keys} positions"),
                "the queries of all positions: a cache without a slice of positions, of whole sequences",
            ));
        }
    }
    per_head(cache, |row, query| row.iter().enumerate().map(|(key, p)| p * query.abs_diff(key) as f64).sum())
}

/// The mean of `f(row of the pattern, query)` for each head.
fn per_head(cache: &ActivationCache, f: impl Fn(&[f64], usize) -> f64) -> Result<Tensor, LensError> {
    let layers = cache.model().config().n_layers;
    let mask = cache.attention_mask();
    let mut values = Vec::new();
    let mut heads = 0;
    for l in 0..layers {
        let pattern = cache.get(("pattern", l))?;
        let pattern = if cache.has_batch_dim() { pattern.clone() } else { pattern.unsqueeze(0) };
        let [_, h, queries, keys] = *pattern.shape() else { unreachable!("patterns have four axes") };
        let all = pattern.to_vec_f64();
        // Rows go by [batch, head, query].
        let counts = |row: usize| mask.is_none_or(|m| m.as_slice()[row / (h * queries) * queries + row % queries] != 0);
        let (mut sums, mut rows) = (vec![0.0; h], vec![0usize; h]);
        for (i, row) in all.chunks(keys.max(1)).enumerate().filter(|(i, _)| counts(*i)) {
            sums[i / queries % h] += f(row, i % queries);
            rows[i / queries % h] += 1;
        }
        values.extend(sums.into_iter().zip(rows).map(|(sum, rows)| sum / rows.max(1) as f64));
        heads = h;
    }
    Ok(Tensor::from_vec_f64(values, &[layers, heads]).to_dtype(cache.model().params().dtype()))
}

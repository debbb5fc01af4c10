//! Head detectors: how much a head's attention looks like a known kind.
//!
//! Scores and built-in patterns are TransformerLens's `head_detector` (2.18), without its traps:
//! options hold for every sequence, and no cache is changed.

use ironlens_tensor::{Device, Tensor};
use ironlens_transformer::{HookedTransformer, Sequences};

use crate::error::LensError;

/// A kind of head, by the attention it gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// To the position before.
    PreviousToken,
    /// To earlier occurrences of the same token.
    DuplicateToken,
    /// To what came after earlier occurrences of the same token.
    Induction,
    /// To itself.
    CurrentToken,
    /// To position 0.
    FirstToken,
}

impl HeadKind {
    /// All kinds.
    pub const ALL: [HeadKind; 5] = [
        HeadKind::PreviousToken,
        HeadKind::DuplicateToken,
        HeadKind::Induction,
        HeadKind::CurrentToken,
        HeadKind::FirstToken,
    ];

    /// TransformerLens's name, such as `previous_token_head`; ours in the same form.
    pub fn name(self) -> &'static str {
        match self {
            HeadKind::PreviousToken => "previous_token_head",
            HeadKind::DuplicateToken => "duplicate_token_head",
            HeadKind::Induction => "induction_head",
            HeadKind::CurrentToken => "current_token_head",
            HeadKind::FirstToken => "first_token_head",
        }
    }

    /// The kind of a name.
    ///
    /// # Errors
    /// If it is none.
    pub fn from_name(name: &str) -> Result<HeadKind, LensError> {
        let names: Vec<&str> = HeadKind::ALL.iter().map(|k| k.name()).collect();
        HeadKind::ALL
            .into_iter()
            .find(|k| k.name() == name)
            .ok_or_else(|| LensError::argument("the kind of head", format!("`{name}`"), names.join(", ")))
    }

    /// In words, for people.
    pub fn label(self) -> &'static str {
        match self {
            HeadKind::PreviousToken => "previous token",
            HeadKind::DuplicateToken => "duplicate token",
            HeadKind::Induction => "induction",
            HeadKind::CurrentToken => "current token",
            HeadKind::FirstToken => "first token",
        }
    }

    /// What the score is, in a sentence.
    pub fn formula(self) -> &'static str {
        match self {
            HeadKind::PreviousToken => "share of all attention that goes from i to i - 1",
            HeadKind::DuplicateToken => "share of all attention that goes to earlier occurrences of the same token",
            HeadKind::Induction => {
                "share of all attention that goes to the token after an earlier occurrence of the same token"
            }
            HeadKind::CurrentToken => "share of all attention that goes from i to i",
            HeadKind::FirstToken => "share of all attention that goes to position 0",
        }
    }

    /// The attention pattern of an ideal head on `tokens` `[pos]`, `[pos, pos]`, 1 where it looks.
    pub fn pattern(self, tokens: &[u32]) -> Tensor {
        let n = tokens.len();
        let looks = |i: usize, j: usize| match self {
            HeadKind::PreviousToken => j + 1 == i,
            HeadKind::DuplicateToken => j < i && tokens[i] == tokens[j],
            HeadKind::Induction => j > 0 && j <= i && tokens[i] == tokens[j - 1],
            HeadKind::CurrentToken => i == j,
            HeadKind::FirstToken => j == 0,
        };
        let values = (0..n * n).map(|at| f32::from(looks(at / n, at % n))).collect();
        Tensor::from_vec(values, &[n, n], &Device::Cpu)
    }
}

/// What attention is compared with.
#[derive(Clone, Debug)]
pub enum Detection {
    /// A known kind.
    Kind(HeadKind),
    /// Own pattern `[pos, pos]`, lower triangular.
    Pattern(Tensor),
}

impl From<HeadKind> for Detection {
    fn from(kind: HeadKind) -> Self {
        Detection::Kind(kind)
    }
}

/// How attention and pattern are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ErrorMeasure {
    /// sum(A * D) / sum(A), the share of attention that the pattern covers.
    #[default]
    Mul,
    /// 1 - sum|A - D| / pos, rounded to three digits; can fall below -1. What is excluded is in no sum.
    Abs,
}

/// Options of [`detect_head`].
#[derive(Clone, Debug, Default)]
pub struct DetectOptions {
    /// Only these `(layer, head)`; others get -1. All if `None`.
    pub heads: Option<Vec<(usize, usize)>>,
    /// Leave out attention to position 0.
    pub exclude_bos: bool,
    /// Leave out attention of a position to itself.
    pub exclude_current_token: bool,
    /// How to compare.
    pub error_measure: ErrorMeasure,
}

/// Scores `[layer, head]` of every head on tokens `[batch, pos]`, mean over the batch. Padding counts for
/// nothing: a padded sequence has the scores that it has alone.
///
/// # Errors
/// If there are fewer than two positions or more than `n_ctx`, a sequence of fewer than two tokens, a pattern
/// of another shape or not lower triangular, a head that does not exist, or tokens the model does not know.
pub fn detect_head(
    model: &HookedTransformer,
    sequences: impl Into<Sequences>,
    detection: &Detection,
    options: &DetectOptions,
) -> Result<Tensor, LensError> {
    let (cfg, sequences) = (model.config(), sequences.into());
    if let Some(&(layer, head)) = options.heads.iter().flatten().find(|(l, h)| *l >= cfg.n_layers || *h >= cfg.n_heads)
    {
        return Err(LensError::argument(
            "a head",
            format!("L{layer}H{head}"),
            format!("a layer below {} and a head below {}", cfg.n_layers, cfg.n_heads),
        ));
    }
    if let Detection::Pattern(p) = detection {
        check_pattern(p, sizes(&sequences)?.1)?;
    }
    Attention::of(model, &sequences)?.scores(detection, options)
}

/// Scores `[layer, head]` for several kinds with default options, mean over the batch.
///
/// # Errors
/// As [`detect_head`].
pub fn head_scores(
    model: &HookedTransformer,
    sequences: impl Into<Sequences>,
    kinds: &[HeadKind],
) -> Result<Vec<Tensor>, LensError> {
    let sequences = sequences.into();
    let attention = Attention::of(model, &sequences)?;
    kinds.iter().map(|&kind| attention.scores(&kind.into(), &DetectOptions::default())).collect()
}

/// The shares of [`head_scores`] at each position, `[layer, head, pos]`: of what a query there attends to, how much
/// lies where a head of the kind would look. Means over the sequences that have a token at the position; without
/// padding, the mean over the positions is the score.
///
/// # Errors
/// As [`detect_head`].
pub fn head_scores_by_position(
    model: &HookedTransformer,
    sequences: impl Into<Sequences>,
    kinds: &[HeadKind],
) -> Result<Vec<Tensor>, LensError> {
    let sequences = sequences.into();
    let attention = Attention::of(model, &sequences)?;
    kinds.iter().map(|&kind| attention.shares_by_position(kind)).collect()
}

/// What every head attends to, of one pass.
struct Attention<'s> {
    sequences: &'s Sequences,
    /// By layer, `[batch, head, pos, pos]`.
    patterns: Vec<Vec<f32>>,
    n_heads: usize,
    pos: usize,
}

impl Attention<'_> {
    fn of<'s>(model: &HookedTransformer, sequences: &'s Sequences) -> Result<Attention<'s>, LensError> {
        let (cfg, (_, pos)) = (model.config(), sizes(sequences)?);
        if pos <= 1 || pos > cfg.n_ctx {
            return Err(LensError::argument(
                "the number of positions",
                pos.to_string(),
                format!("more than 1 and at most n_ctx = {}", cfg.n_ctx),
            ));
        }
        let (_, cache) = sequences.call(model).names(|n: &str| n.ends_with("hook_pattern")).cached()?;
        let patterns =
            (0..cfg.n_layers).map(|l| Ok(cache.get(("pattern", l))?.to_vec())).collect::<Result<_, LensError>>()?;
        Ok(Attention { sequences, patterns, n_heads: cfg.n_heads, pos })
    }

    /// Of sequence `item`, `[real, real]` of its tokens.
    fn pattern(&self, item: usize, layer: usize, head: usize, ideal: &Ideal) -> Vec<f32> {
        let size = self.pos * self.pos;
        ideal.without_padding(&self.patterns[layer][(item * self.n_heads + head) * size..][..size], self.pos)
    }

    /// What each sequence is compared with.
    fn ideals(&self, detection: &Detection) -> Result<Vec<Ideal>, LensError> {
        (0..self.sequences.tokens.shape()[0]).map(|item| Ideal::new(detection, self.sequences, item)).collect()
    }

    /// `[layer, head]`, means over the sequences.
    fn scores(&self, detection: &Detection, options: &DetectOptions) -> Result<Tensor, LensError> {
        let ideals = self.ideals(detection)?;
        let score = |(layer, head): (usize, usize)| {
            if options.heads.as_ref().is_some_and(|heads| !heads.contains(&(layer, head))) {
                return -1.0;
            }
            let of_item = |(item, ideal): (usize, &Ideal)| {
                compare(&self.pattern(item, layer, head, ideal), &ideal.pattern, ideal.real.len(), options)
            };
            (ideals.iter().enumerate().map(of_item).sum::<f64>() / ideals.len() as f64) as f32
        };
        Ok(Tensor::from_vec(self.heads().map(score).collect(), &[self.patterns.len(), self.n_heads], &Device::Cpu))
    }

    /// `[layer, head, pos]`, means over the sequences that have a token there.
    fn shares_by_position(&self, kind: HeadKind) -> Result<Tensor, LensError> {
        let pos = self.pos;
        let mut shares = vec![0f32; self.patterns.len() * self.n_heads * pos];
        let mut seen = vec![0f32; pos];
        for (item, ideal) in self.ideals(&kind.into())?.iter().enumerate() {
            let n = ideal.real.len();
            ideal.real.iter().for_each(|p| seen[*p] += 1.0);
            for ((layer, head), shares) in self.heads().zip(shares.chunks_mut(pos)) {
                let attention = self.pattern(item, layer, head, ideal);
                for (row, (a, d)) in attention.chunks(n).zip(ideal.pattern.chunks(n)).enumerate() {
                    let all: f32 = a.iter().sum();
                    let covered: f32 = a.iter().zip(d).map(|(a, d)| a * d).sum();
                    shares[ideal.real[row]] += if all > 0.0 { covered / all } else { 0.0 };
                }
            }
        }
        shares.iter_mut().enumerate().for_each(|(i, share)| *share /= seen[i % pos].max(1.0));
        Ok(Tensor::from_vec(shares, &[self.patterns.len(), self.n_heads, pos], &Device::Cpu))
    }

    /// All `(layer, head)`, in order.
    fn heads(&self) -> impl Iterator<Item = (usize, usize)> {
        let n_heads = self.n_heads;
        (0..self.patterns.len() * n_heads).map(move |at| (at / n_heads, at % n_heads))
    }
}

/// What attention of one sequence is compared with, over its tokens alone.
struct Ideal {
    /// `[real, real]`.
    pattern: Vec<f32>,
    /// The positions of its tokens.
    real: Vec<usize>,
}

impl Ideal {
    fn new(detection: &Detection, sequences: &Sequences, item: usize) -> Result<Ideal, LensError> {
        let real = sequences.real(item);
        if real.len() <= 1 {
            let given = format!("{} in sequence {item}", real.len());
            return Err(LensError::argument("the number of tokens that are no padding", given, "more than 1"));
        }
        let pos = sequences.tokens.shape()[1];
        let pattern = match detection {
            Detection::Kind(kind) => {
                let tokens: Vec<u32> = real.iter().map(|p| sequences.tokens.as_slice()[item * pos + p]).collect();
                kind.pattern(&tokens).to_vec()
            }
            Detection::Pattern(p) => among(&real, &p.to_vec(), pos),
        };
        Ok(Ideal { pattern, real })
    }

    fn without_padding(&self, attention: &[f32], pos: usize) -> Vec<f32> {
        among(&self.real, attention, pos)
    }
}

/// The rows and columns `real` of a matrix `[pos, pos]`.
fn among(real: &[usize], matrix: &[f32], pos: usize) -> Vec<f32> {
    real.iter().flat_map(|i| real.iter().map(move |j| matrix[i * pos + j])).collect()
}

/// The score of one pattern `[pos, pos]`.
fn compare(attention: &[f32], ideal: &[f32], pos: usize, options: &DetectOptions) -> f64 {
    let counts = |at: usize| {
        let (i, j) = (at / pos, at % pos);
        let excluded = options.exclude_bos && j == 0 || options.exclude_current_token && i == j;
        !excluded
    };
    let pairs = attention.iter().zip(ideal).enumerate();
    let pairs = pairs.filter(|(at, _)| counts(*at)).map(|(_, (&a, &d))| (f64::from(a), f64::from(d)));
    match options.error_measure {
        ErrorMeasure::Mul => {
            let (covered, all) = pairs.fold((0.0, 0.0), |(c, s), (a, d)| (c + a * d, s + a));
            covered / all
        }
        ErrorMeasure::Abs => {
            let difference: f64 = pairs.map(|(a, d)| (a - d).abs()).sum();
            1.0 - (difference / pos as f64 * 1000.0).round() / 1000.0
        }
    }
}

fn sizes(sequences: &Sequences) -> Result<(usize, usize), LensError> {
    let shape = sequences.tokens.shape();
    match *shape {
        [batch, pos] if batch > 0 => Ok((batch, pos)),
        _ => Err(LensError::argument("the tokens' shape", format!("{shape:?}"), "[batch, pos]")),
    }
}

fn check_pattern(pattern: &Tensor, pos: usize) -> Result<(), LensError> {
    let bad = |given: String| {
        LensError::argument("the detection pattern", given, format!("a lower-triangular [{pos}, {pos}]"))
    };
    if pattern.shape() != [pos, pos] {
        return Err(bad(format!("of shape {:?}", pattern.shape())));
    }
    let values = pattern.to_vec();
    match (0..pos * pos).find(|at| at % pos > at / pos && values[*at] != 0.0) {
        Some(at) => Err(bad(format!("{} at row {}, column {}", values[at], at / pos, at % pos))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(kind: HeadKind, attention: &[f32], tokens: &[u32], options: &DetectOptions) -> f64 {
        compare(attention, &kind.pattern(tokens).to_vec(), tokens.len(), options)
    }

    #[test]
    fn ideal_heads_score_one() {
        let tokens = [5, 3, 5, 3];
        let mut previous = vec![0.0; 16];
        for i in 1..4 {
            previous[i * 4 + i - 1] = 1.0;
        }
        let options = DetectOptions::default();
        assert_eq!(score(HeadKind::PreviousToken, &previous, &tokens, &options), 1.0);
        assert_eq!(score(HeadKind::CurrentToken, &previous, &tokens, &options), 0.0);
        // Position 2 repeats position 0: duplicate looks at 0, induction at 1.
        assert_eq!(HeadKind::DuplicateToken.pattern(&tokens).select(0, 2).to_vec(), [1., 0., 0., 0.]);
        assert_eq!(HeadKind::Induction.pattern(&tokens).select(0, 2).to_vec(), [0., 1., 0., 0.]);
        let bos = DetectOptions { exclude_bos: true, ..options };
        assert_eq!(score(HeadKind::PreviousToken, &previous, &tokens, &bos), 1.0);
        assert_eq!(score(HeadKind::FirstToken, &previous, &tokens, &bos), 0.0);
    }

    /// The numbers of TransformerLens's `compute_head_attention_similarity_score` for the same patterns.
    #[test]
    fn what_is_excluded_is_in_no_sum() {
        let attention = [1., 0., 0., 1., 0., 0., 0., 1., 0.];
        let uneven = [1., 0., 0., 0.6, 0.4, 0., 0.2, 0.5, 0.3];
        let tokens = [5, 3, 4];
        for (exclude_bos, exclude_current_token, previous, mul, abs) in [
            (false, false, 0.667, 0.366_667, 0.067),
            (true, false, 1.0, 0.416_667, 0.6),
            (false, true, 1.0, 0.846_154, 0.633),
            (true, true, 1.0, 1.0, 0.833),
        ] {
            let options = |error_measure| DetectOptions {
                exclude_bos,
                exclude_current_token,
                error_measure,
                ..DetectOptions::default()
            };
            let of = |attention: &[f32], measure| score(HeadKind::PreviousToken, attention, &tokens, &options(measure));
            let wanted = [
                (of(&attention, ErrorMeasure::Abs), previous),
                (of(&uneven, ErrorMeasure::Mul), mul),
                (of(&uneven, ErrorMeasure::Abs), abs),
            ];
            for (found, wanted) in wanted {
                assert!((found - wanted).abs() < 1e-6, "{exclude_bos} {exclude_current_token}: {found}, not {wanted}");
            }
        }
    }

    #[test]
    fn names_read_back() {
        for kind in HeadKind::ALL {
            assert_eq!(HeadKind::from_name(kind.name()).unwrap(), kind);
        }
        assert!(HeadKind::from_name("copy_head").unwrap_err().to_string().contains("previous_token_head"));
    }
}

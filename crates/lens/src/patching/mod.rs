//! Activation patching: run on corrupted tokens, put one activation of a clean run in its place,
//! and see how much of the clean run's answer comes back.
//!
//! ```
//! use ironlens_lens::Metric;
//! use ironlens_lens::patching::{self, PatchOptions, Patching};
//! # use ironlens_tensor::{Device, IndexTensor};
//! # use ironlens_transformer::{ActFn, Config, HookedTransformer};
//! # let cfg = Config { d_model: 16, d_head: 4, n_layers: 2, n_ctx: 8, d_vocab: 10, act_fn: ActFn::Gelu, ..Config::default() };
//! # let model = HookedTransformer::new(cfg, &Device::Cpu, 42)?;
//! let (clean, corrupted) = (IndexTensor::from([[0, 3, 1, 4]]), IndexTensor::from([[0, 2, 1, 4]]));
//! let (_, cache) = model.run_with_cache(&clean)?;
//! let metric = Metric::logit_diff(&[3], &[2])?;
//! let result = patching::get_act_patch_resid_pre(&model, &corrupted, &cache, &metric, PatchOptions::default())?;
//! assert_eq!(result.values.shape(), [2, 4]);        // [layer, pos]
//!
//! // Several sweeps share the corrupted run.
//! let patching = Patching::new(&model, &corrupted, &cache, &metric)?;
//! let heads = patching.attn_head_out_all_pos(PatchOptions::default())?;
//! let patterns = patching.attn_head_pattern_all_pos(PatchOptions::default())?;
//! assert_eq!((heads.corrupted, patterns.corrupted), (result.corrupted, result.corrupted));
//! # Ok::<(), ironlens_lens::LensError>(())
//! ```
//!
//! TransformerLens runs the whole model once per cell. Here only what a patch can reach is run
//! again ([`Rerun`]), many cells at a time, to the same numbers.

mod every;
pub mod path;
mod plain;
mod sweep;

use std::fmt;

use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::{ActivationCache, HookedTransformer, Rerun, Sequences, Site};

use crate::error::LensError;
use crate::metric::Metric;
pub use every::{
    Every, get_act_patch_attn_head_all_pos_every, get_act_patch_attn_head_by_pos_every, get_act_patch_block_every,
};

/// What a cell of a patching sweep is indexed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// The layer.
    Layer,
    /// The position.
    Pos,
    /// The head (of keys and values: the group that shares them).
    Head,
    /// The position of the query.
    DestPos,
    /// The position of the key.
    SrcPos,
}

impl Axis {
    /// TransformerLens's name.
    pub fn name(self) -> &'static str {
        match self {
            Axis::Layer => "layer",
            Axis::Pos => "pos",
            Axis::Head => "head",
            Axis::DestPos => "dest_pos",
            Axis::SrcPos => "src_pos",
        }
    }
}

/// Edits the corrupted activation `[batch, ..]` for a cell: its index along the sweep's axes, the
/// corrupted activation, the clean one.
pub type Setter<'s> = dyn Fn(&[usize], &mut Tensor, &Tensor) + Sync + 's;

/// How a sweep is run.
pub struct PatchOptions<'p> {
    /// Rows of the residual stream (a position of a cell) that are run together; more take more
    /// memory, about `20 d_model + 4 d_mlp` bytes each.
    pub max_rows: usize,
    /// Run the whole model for each cell, as TransformerLens does: to check, or to compare times.
    pub plain: bool,
    /// Told how many cells are done, and of how many.
    pub progress: Option<&'p mut dyn FnMut(usize, usize)>,
}

impl fmt::Debug for PatchOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PatchOptions")
            .field("max_rows", &self.max_rows)
            .field("plain", &self.plain)
            .field("progress", &self.progress.is_some())
            .finish()
    }
}

impl Default for PatchOptions<'_> {
    fn default() -> Self {
        PatchOptions { max_rows: 4096, plain: false, progress: None }
    }
}

impl PatchOptions<'_> {
    pub(crate) fn tell(&mut self, done: usize, total: usize) {
        if let Some(progress) = &mut self.progress {
            progress(done, total);
        }
    }
}

/// How a sweep was computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// By running again only what each patch reaches.
    Rerun,
    /// By a whole forward pass for each cell, and why.
    Plain(String),
}

/// What patching gave.
#[derive(Clone, Debug)]
pub struct PatchResult {
    /// The metric of each cell, by axis (or `[cell]` for a list of cells).
    pub values: Tensor,
    /// What the axes are; empty for a list of cells.
    pub axes: Vec<Axis>,
    /// How it was computed.
    pub method: Method,
    /// The metric of the corrupted run.
    pub corrupted: f64,
}

/// Mean and spread of a [`PatchResult`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PatchStatistics {
    /// Mean over the cells.
    pub mean: f64,
    /// Standard deviation over the cells.
    pub std: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl PatchResult {
    /// The share of the clean run's metric that each cell brings back: 0 as corrupted, 1 as clean.
    pub fn normalized(&self, clean: f64) -> Tensor {
        let range = clean - self.corrupted;
        self.values.affine(1.0 / range, -self.corrupted / range)
    }

    /// Mean and spread over the cells.
    pub fn statistics(&self) -> PatchStatistics {
        let values = self.values.to_vec_f64();
        let n = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / n;
        let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
        let (min, max) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v), b.max(v)));
        PatchStatistics { mean, std, min, max }
    }
}

/// Which cells a sweep has.
#[derive(Clone, Debug)]
pub enum Cells {
    /// Every combination along these axes, of which the first is the layer.
    Axes(Vec<Axis>),
    /// These, by index along axes of which the first is the layer.
    List(Vec<Vec<usize>>),
}

/// Sweeps over one corrupted run: it is run once, remembered, and every sweep starts from it. The
/// methods are TransformerLens's functions, which exist under their own names, too.
pub struct Patching<'p> {
    way: Way<'p>,
    model: &'p HookedTransformer,
    sequences: Sequences,
    clean: &'p ActivationCache,
    metric: &'p Metric<'p>,
    corrupted: f64,
}

/// How cells can be run.
enum Way<'p> {
    /// In part, from a remembered run.
    InPart(Box<Rerun<'p>>),
    /// As a whole only, and why.
    Whole(&'static str),
}

/// Why `model` cannot be run in part on `sequences`, if it cannot.
pub(crate) fn only_whole(model: &HookedTransformer, sequences: &Sequences) -> Option<&'static str> {
    match (&sequences.mask, model.params().perma_hooks().next()) {
        (_, Some(_)) => Some("the model has permanent hooks, which may look at anything"),
        (Some(_), None) => Some("the sequences are padded"),
        (None, None) => None,
    }
}

impl fmt::Debug for Patching<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Patching of {:?}, whose corrupted metric is {}", self.sequences.tokens, self.corrupted)
    }
}

impl<'p> Patching<'p> {
    /// Runs `model` on the corrupted tokens `[batch, pos]`, with their mask if they are padded. Sweeps take
    /// activations from `clean`, of as many sequences or of one for all, and are judged by `metric`, whose last
    /// position is that of each sequence's last token. A model with permanent hooks and padded sequences are run as a whole for
    /// each cell, which takes longer, and which the result says.
    ///
    /// # Errors
    /// If the tokens do not fit the model, or the metric does not fit them.
    pub fn new(
        model: &'p HookedTransformer,
        corrupted: impl Into<Sequences>,
        clean: &'p ActivationCache,
        metric: &'p Metric<'p>,
    ) -> Result<Patching<'p>, LensError> {
        let sequences = corrupted.into();
        metric.check(model, &sequences)?;
        let (way, corrupted) = match only_whole(model, &sequences) {
            None => {
                let rerun = Rerun::new(model, &sequences.tokens)?;
                let corrupted = metric.of(rerun.logits());
                (Way::InPart(Box::new(rerun)), corrupted)
            }
            Some(why) => {
                let output = sequences.call(model).output()?;
                (Way::Whole(why), metric.of_sequences(output.logits().value(), &sequences))
            }
        };
        Ok(Patching { way, model, sequences, clean, metric, corrupted })
    }

    /// The metric of the corrupted run.
    pub fn corrupted(&self) -> f64 {
        self.corrupted
    }

    /// A sweep with a setter of one's own: for each cell, `setter` edits the activation `name` (a short
    /// name, such as `"z"`) of the cell's layer. Whatever it changes is followed; activations that no
    /// [`Site`] names are patched by whole forward passes, which the result says. It is given the clean activation as
    /// it is: of one item, if the clean run was of one.
    ///
    /// # Errors
    /// If the model has no such activation, or it is not in the clean cache.
    pub fn generic(
        &self,
        name: &str,
        cells: &Cells,
        setter: &Setter<'_>,
        mut options: PatchOptions<'_>,
    ) -> Result<PatchResult, LensError> {
        let pos = self.sequences.tokens.shape()[1];
        let (list, shape) = enumerate(self.model, pos, name, cells)?;
        let site = Site::ALL.into_iter().find(|s| s.name() == name);
        let (values, method) = match (site, &self.way) {
            (Some(site), Way::InPart(rerun)) if !options.plain => {
                (sweep::run(self, rerun, site, &list, setter, &mut options)?, Method::Rerun)
            }
            (site, way) => {
                let why = match (site, way) {
                    _ if options.plain => "asked for".to_string(),
                    (_, Way::Whole(why)) => why.to_string(),
                    _ => format!("`{name}` is not among the activations whose reach is known"),
                };
                (plain::run(self, name, &list, setter, &mut options)?, Method::Plain(why))
            }
        };
        let axes = match cells {
            Cells::Axes(axes) => axes.clone(),
            Cells::List(_) => vec![],
        };
        let values = Tensor::from_vec_f64(values, &shape).to_dtype(self.model.params().dtype());
        Ok(PatchResult { values, axes, method, corrupted: self.corrupted })
    }

    /// A sweep along axes with a setter of this module.
    fn along(
        &self,
        name: &str,
        axes: &[Axis],
        setter: &Setter<'_>,
        options: PatchOptions<'_>,
    ) -> Result<PatchResult, LensError> {
        check_clean(self.clean, &self.sequences.tokens, name)?;
        self.generic(name, &Cells::Axes(axes.to_vec()), setter, options)
    }
}

/// One sweep by [`Patching::generic`].
///
/// # Errors
/// As [`Patching::new`] and [`Patching::generic`].
#[expect(clippy::too_many_arguments, reason = "those of TransformerLens, and options")]
pub fn generic_activation_patch(
    model: &HookedTransformer,
    corrupted: &IndexTensor,
    clean: &ActivationCache,
    metric: &Metric<'_>,
    name: &str,
    cells: &Cells,
    setter: &Setter<'_>,
    options: PatchOptions<'_>,
) -> Result<PatchResult, LensError> {
    Patching::new(model, corrupted, clean, metric)?.generic(name, cells, setter, options)
}

/// The cells one by one, and the shape of the result.
fn enumerate(
    model: &HookedTransformer,
    pos: usize,
    name: &str,
    cells: &Cells,
) -> Result<(Vec<Vec<usize>>, Vec<usize>), LensError> {
    let cfg = model.config();
    // Of an ungrouped model as many as it has groups, the first of its heads: TransformerLens's.
    let heads = if ["k", "v"].contains(&name) { cfg.n_key_value_heads() } else { cfg.n_heads() };
    let length = |axis: Axis| match axis {
        Axis::Layer => cfg.n_layers,
        Axis::Head => heads,
        Axis::Pos | Axis::DestPos | Axis::SrcPos => pos,
    };
    match cells {
        Cells::Axes(axes) => {
            if axes.first() != Some(&Axis::Layer) {
                return Err(LensError::argument("the first axis", format!("{:?}", axes.first()), "the layer"));
            }
            let shape: Vec<usize> = axes.iter().map(|a| length(*a)).collect();
            let at = |mut i: usize| {
                let mut index = vec![0; shape.len()];
                for (a, n) in shape.iter().enumerate().rev() {
                    index[a] = i % n;
                    i /= n;
                }
                index
            };
            Ok(((0..shape.iter().product()).map(at).collect(), shape))
        }
        Cells::List(list) => {
            if let Some(bad) = list.iter().find(|c| c.first().is_none_or(|l| *l >= cfg.n_layers)) {
                let expected = format!("an index that begins with a layer below {}", cfg.n_layers);
                return Err(LensError::argument("a cell", format!("{bad:?}"), expected));
            }
            Ok((list.clone(), vec![list.len()]))
        }
    }
}

/// A clean run must be of as many sequences and positions as the corrupted one, or of one sequence for all.
fn check_clean(clean: &ActivationCache, corrupted: &IndexTensor, name: &str) -> Result<(), LensError> {
    let shape = clean.get((name, 0))?.shape();
    let pos = shape.get(if name == "pattern" { 2 } else { 1 });
    let as_many = shape.first() == Some(&1) || shape.first() == corrupted.shape().first();
    if clean.has_batch_dim() && as_many && pos == corrupted.shape().get(1) {
        return Ok(());
    }
    Err(LensError::argument(
        "the clean cache's activations",
        format!("{shape:?} at `{name}`"),
        format!(
            "[batch, pos] = {:?} as the corrupted tokens, or a batch of one for all of them, with a batch axis",
            corrupted.shape()
        ),
    ))
}

/// Copies the view of `clean`, of one item or as many as `x`, that `part` gives over that of `x`.
fn copy(x: &mut Tensor, clean: &Tensor, part: impl Fn(&Tensor) -> Tensor) {
    let src = part(&clean.expand(x.shape()));
    x.assign(part, &src);
}

fn at_position(index: &[usize], x: &mut Tensor, clean: &Tensor) {
    copy(x, clean, |t| t.select(1, index[1]));
}

fn at_position_and_head(index: &[usize], x: &mut Tensor, clean: &Tensor) {
    copy(x, clean, |t| t.select(1, index[1]).select(1, index[2]));
}

fn at_head(index: &[usize], x: &mut Tensor, clean: &Tensor) {
    copy(x, clean, |t| t.select(2, index[1]));
}

fn pattern_of_head(index: &[usize], x: &mut Tensor, clean: &Tensor) {
    copy(x, clean, |t| t.select(1, index[1]));
}

fn pattern_of_head_and_query(index: &[usize], x: &mut Tensor, clean: &Tensor) {
    copy(x, clean, |t| t.select(1, index[1]).select(1, index[2]));
}

fn pattern_of_head_query_and_key(index: &[usize], x: &mut Tensor, clean: &Tensor) {
    copy(x, clean, |t| t.select(1, index[1]).select(1, index[2]).select(1, index[3]));
}

/// TransformerLens's function for a method of [`Patching`]: a session of one sweep.
macro_rules! function_of_method {
    ($(#[$doc:meta])* $function:ident, $method:ident, $found:ty) => {
        $(#[$doc])*
        ///
        /// # Errors
        #[doc = concat!("As [`Patching::new`] and [`Patching::", stringify!($method), "`].")]
        pub fn $function(
            model: &HookedTransformer,
            corrupted: &IndexTensor,
            clean: &ActivationCache,
            metric: &Metric<'_>,
            options: PatchOptions<'_>,
        ) -> Result<$found, LensError> {
            Patching::new(model, corrupted, clean, metric)?.$method(options)
        }
    };
}
use function_of_method;

/// Each sweep as a method of [`Patching`] and as TransformerLens's function.
macro_rules! act_patches {
    ($($(#[$doc:meta])* $function:ident, $method:ident($name:literal, $setter:ident, [$($axis:ident),+]);)*) => {
        impl Patching<'_> {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// As [`Patching::generic`]; and if the clean run is of other sizes.
            pub fn $method(&self, options: PatchOptions<'_>) -> Result<PatchResult, LensError> {
                self.along($name, &[$(Axis::$axis),+], &$setter, options)
            }
        )*}
        $(function_of_method!($(#[$doc])* $function, $method, PatchResult);)*
    };
}

act_patches! {
    /// The residual stream before each block, position by position: `[layer, pos]`.
    get_act_patch_resid_pre, resid_pre("resid_pre", at_position, [Layer, Pos]);
    /// The residual stream between attention and MLP: `[layer, pos]`.
    get_act_patch_resid_mid, resid_mid("resid_mid", at_position, [Layer, Pos]);
    /// What each attention writes: `[layer, pos]`.
    get_act_patch_attn_out, attn_out("attn_out", at_position, [Layer, Pos]);
    /// What each MLP writes: `[layer, pos]`.
    get_act_patch_mlp_out, mlp_out("mlp_out", at_position, [Layer, Pos]);
    /// What each head mixes (z), by position: `[layer, pos, head]`.
    get_act_patch_attn_head_out_by_pos, attn_head_out_by_pos("z", at_position_and_head, [Layer, Pos, Head]);
    /// Each head's queries, by position: `[layer, pos, head]`.
    get_act_patch_attn_head_q_by_pos, attn_head_q_by_pos("q", at_position_and_head, [Layer, Pos, Head]);
    /// Each head's keys, by position: `[layer, pos, head]`.
    get_act_patch_attn_head_k_by_pos, attn_head_k_by_pos("k", at_position_and_head, [Layer, Pos, Head]);
    /// Each head's values, by position: `[layer, pos, head]`.
    get_act_patch_attn_head_v_by_pos, attn_head_v_by_pos("v", at_position_and_head, [Layer, Pos, Head]);
    /// Each head's pattern, by position of the query: `[layer, head, dest_pos]`.
    get_act_patch_attn_head_pattern_by_pos, attn_head_pattern_by_pos("pattern", pattern_of_head_and_query, [Layer, Head, DestPos]);
    /// Each head's pattern, element by element: `[layer, head, dest_pos, src_pos]`.
    get_act_patch_attn_head_pattern_dest_src_pos, attn_head_pattern_dest_src_pos(
        "pattern",
        pattern_of_head_query_and_key,
        [Layer, Head, DestPos, SrcPos]
    );
    /// What each head mixes (z), all positions at once: `[layer, head]`.
    get_act_patch_attn_head_out_all_pos, attn_head_out_all_pos("z", at_head, [Layer, Head]);
    /// Each head's queries, all positions at once: `[layer, head]`.
    get_act_patch_attn_head_q_all_pos, attn_head_q_all_pos("q", at_head, [Layer, Head]);
    /// Each head's keys, all positions at once: `[layer, head]`.
    get_act_patch_attn_head_k_all_pos, attn_head_k_all_pos("k", at_head, [Layer, Head]);
    /// Each head's values, all positions at once: `[layer, head]`.
    get_act_patch_attn_head_v_all_pos, attn_head_v_all_pos("v", at_head, [Layer, Head]);
    /// Each head's pattern, all positions at once: `[layer, head]`.
    get_act_patch_attn_head_pattern_all_pos, attn_head_pattern_all_pos("pattern", pattern_of_head, [Layer, Head]);
}

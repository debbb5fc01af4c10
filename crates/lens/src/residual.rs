//! What the residual stream is a sum of: layers, sublayers, heads, neurons.
//!
//! Methods of [`ActivationCache`], through [`CacheExt`]; TransformerLens's methods of the same
//! names. Components come first: `[component, batch, pos, d_model]`, without `batch` if the cache
//! has none. Positions and items that are sliced keep their axis.

use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::names::act;
use ironlens_transformer::{
    ActivationCache, Config, HookedModel, HookedTransformer, ModelError, NormalizationType, Slice,
};

use crate::error::LensError;
use crate::weights::{TokenNames, WeightsExt, widened};

/// Vectors in the residual stream, and what each is called.
#[derive(Clone, Debug)]
pub struct Stack {
    /// `[component, batch, pos, d_model]`.
    pub values: Tensor,
    /// One per component, such as `0_attn_out`, `L1H3`, `embed`.
    pub labels: Vec<String>,
}

/// Up to where, and how, a stack is made. Each method says which fields it reads.
#[derive(Clone, Debug, Default)]
pub struct StackOptions {
    /// What goes into this layer; all of it (what goes into the final norm) if `None`.
    pub layer: Option<usize>,
    /// What goes into the MLP of `layer`, not into its attention.
    pub mlp_input: bool,
    /// Centre and divide each component as the norm that reads this point did
    /// ([`CacheExt::apply_ln_to_stack`]).
    pub apply_ln: bool,
    /// Which positions.
    pub pos_slice: Slice,
}

/// Which items of the batch a stack is scaled for, made of a [`Slice`]: `(&Slice::At(1)).into()` takes them from a
/// stack of all items, and [`BatchItems::of_sliced_stack`] is for a stack that is of these alone.
#[derive(Clone, Debug, Default)]
pub struct BatchItems {
    slice: Slice,
    /// Whether the stack is of these alone.
    sliced: bool,
}

impl BatchItems {
    /// Items that a stack is of: of the cache's, these belong to it (TransformerLens's `has_batch_dim=False`). A stack
    /// of one item may lack the batch's axis.
    pub fn of_sliced_stack(slice: &Slice) -> BatchItems {
        BatchItems { slice: slice.clone(), sliced: true }
    }
}

impl From<&Slice> for BatchItems {
    /// Items that are taken from a stack of all.
    fn from(slice: &Slice) -> BatchItems {
        BatchItems { slice: slice.clone(), sliced: false }
    }
}

/// Which sublayers [`CacheExt::decompose_resid`] lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Sublayers {
    /// Attention and MLP.
    #[default]
    All,
    /// Attention alone.
    Attn,
    /// The MLP alone.
    Mlp,
}

/// Sums that make up the residual stream.
pub trait CacheExt {
    /// The residual stream itself, layer by layer: `0_pre`, (with `incl_mid`) `0_mid`, `1_pre`, ..,
    /// `final_post`. With `apply_ln` at the end of the model each is put through the final norm
    /// itself, weights and all: the logit lens.
    ///
    /// # Errors
    /// If an activation is not cached, the layer does not exist, or the model has no `resid_mid`.
    fn accumulated_resid(&self, options: &StackOptions, incl_mid: bool) -> Result<Stack, LensError>;

    /// What each sublayer adds: `embed`, `pos_embed`, `0_attn_out`, `0_mlp_out`, .. Their sum is the
    /// residual stream (not in a shortformer model, whose positions are not in the stream, though
    /// listed here as in TransformerLens). Embeddings are left out unless `incl_embeds`.
    ///
    /// # Errors
    /// If an activation is not cached, or the layer does not exist.
    fn decompose_resid(&self, options: &StackOptions, of: Sublayers, incl_embeds: bool) -> Result<Stack, LensError>;

    /// What each head of each layer writes, `L0H0`, `L0H1`, .., without `b_O`; with `remainder`, the
    /// rest of the stream follows. Computed from `z` by one product per head where `hook_result` is
    /// not cached. Reads `layer`, `apply_ln` and `pos_slice`.
    ///
    /// # Errors
    /// If `z` is not cached, or the layer does not exist.
    fn stack_head_results(&self, options: &StackOptions, remainder: bool) -> Result<Stack, LensError>;

    /// Puts what each head writes into the cache as `hook_result` `[batch, pos, head, d_model]`, for every layer that
    /// has none there: `cache[("result", 3)]`, as of a model with `use_attn_result`. This takes `n_heads` times the
    /// memory of the stream for each layer; [`CacheExt::stack_head_results`] needs no such call.
    ///
    /// # Errors
    /// If `z` is not cached.
    fn compute_head_results(&mut self) -> Result<(), LensError>;

    /// What each of the `neurons` of every layer writes, `L0N0`, `L0N1`, .., without `b_out`; with
    /// `remainder`, the rest of the stream follows. Reads `layer`, `apply_ln` and `pos_slice`.
    ///
    /// # Errors
    /// If `post` is not cached, the layer or a neuron does not exist, or a layer has experts.
    fn stack_neuron_results(
        &self,
        options: &StackOptions,
        neurons: &Slice,
        remainder: bool,
    ) -> Result<Stack, LensError>;

    /// What the `neurons` of one layer write, `[batch, pos, neuron, d_model]`.
    ///
    /// # Errors
    /// As [`CacheExt::stack_neuron_results`].
    fn get_neuron_results(&self, layer: usize, neurons: &Slice, pos_slice: &Slice) -> Result<Tensor, LensError>;

    /// Heads, then neurons (or whole MLPs), embeddings, and all biases as one: the finest sum.
    ///
    /// # Errors
    /// As the methods for the parts.
    fn get_full_resid_decomposition(&self, options: &StackOptions, expand_neurons: bool) -> Result<Stack, LensError>;

    /// Components `[component, batch, pos, d_model]` as the norm before `layer` (or its MLP, or the
    /// final norm) scaled the whole: centred in a model of layer norms (also for a final RMS norm, as in
    /// TransformerLens), divided by its cached scale. Its
    /// weights are left out, as in TransformerLens; fold them first. The positions of the stack are
    /// those of `options.pos_slice` already; items of the batch are taken from it ([`BatchItems`]). It may lack its
    /// axis of components, and that of the batch or of positions where there is one item or one position; axes stay
    /// as given. A model without norms scales nothing.
    ///
    /// # Errors
    /// If the scale is not cached, or does not fit the stack.
    fn apply_ln_to_stack(
        &self,
        stack: &Tensor,
        options: &StackOptions,
        items: impl Into<BatchItems>,
    ) -> Result<Tensor, LensError>;

    /// How much each component adds to the logit of `tokens` (to its difference from the logit of
    /// `incorrect`, if given): `[component, batch, pos]`, without the axes that the stack lacks. Tokens are texts or
    /// ids, of shape `[]`, `[batch]` or `[batch, pos]`; stack and `items` as of [`CacheExt::apply_ln_to_stack`]. `b_U`
    /// and the final norm's weights are left out, as in TransformerLens; fold them first,
    /// or use [`crate::logits::direct_logit_attribution`].
    ///
    /// # Errors
    /// If the final norm's scale is not cached, a token does not exist, or shapes do not fit.
    fn logit_attrs(
        &self,
        stack: &Tensor,
        tokens: impl Into<TokenNames>,
        incorrect: Option<TokenNames>,
        pos_slice: &Slice,
        items: impl Into<BatchItems>,
    ) -> Result<Tensor, LensError>;
}

impl CacheExt for ActivationCache {
    fn accumulated_resid(&self, options: &StackOptions, incl_mid: bool) -> Result<Stack, LensError> {
        let (n, layer) = (layers(self), target(self, options)?);
        let mut parts = Parts::new(&options.pos_slice);
        for l in 0..=layer {
            if l == n {
                parts.push(self.get(("resid_post", -1))?, "final_post")?;
                continue;
            }
            parts.push(self.get(("resid_pre", l))?, format!("{l}_pre"))?;
            if (incl_mid && l < layer) || (options.mlp_input && l == layer) {
                parts.push(self.get(("resid_mid", l))?, format!("{l}_mid"))?;
            }
        }
        let mut stack = parts.stack();
        if options.apply_ln && layer == n {
            stack.values = self.model().ln_final(&stack.values);
            return Ok(stack);
        }
        scaled(self, stack, options)
    }

    fn decompose_resid(&self, options: &StackOptions, of: Sublayers, incl_embeds: bool) -> Result<Stack, LensError> {
        let layer = target(self, options)?;
        let incl_attn = of != Sublayers::Mlp;
        let incl_mlp = of != Sublayers::Attn && !self.model().config().attn_only;
        let mut parts = Parts::new(&options.pos_slice);
        if incl_embeds {
            for name in ["embed", "pos_embed"].into_iter().filter(|n| self.contains(*n)) {
                parts.push(self.get(name)?, name)?;
            }
        }
        for l in 0..layer {
            if incl_attn {
                parts.push(self.get(("attn_out", l))?, format!("{l}_attn_out"))?;
            }
            if incl_mlp {
                parts.push(self.get(("mlp_out", l))?, format!("{l}_mlp_out"))?;
            }
        }
        if options.mlp_input && incl_attn {
            parts.push(self.get(("attn_out", layer))?, format!("{layer}_attn_out"))?;
        }
        if parts.values.is_empty() {
            let stack = nothing(self, options)?;
            return scaled(self, stack, options);
        }
        scaled(self, parts.stack(), options)
    }

    fn stack_head_results(&self, options: &StackOptions, remainder: bool) -> Result<Stack, LensError> {
        let options = &options.at_attention();
        let layer = target(self, options)?;
        let mut parts = Vec::new();
        for l in 0..layer {
            parts.push(head_results(self, l, &options.pos_slice)?);
        }
        let labels = labels_before(self.model().config(), layer);
        scaled(self, joined(self, parts, labels, layer, options, remainder)?, options)
    }

    fn compute_head_results(&mut self) -> Result<(), LensError> {
        for l in 0..layers(self) {
            if !self.contains(("result", l)) {
                let results = head_results(self, l, &Slice::All)?;
                // [head, .., d_model] as [.., head, d_model].
                let n = results.ndim();
                let axes: Vec<usize> = (1..n - 1).chain([0, n - 1]).collect();
                self.insert(act("result", l), results.permute(&axes).contiguous());
            }
        }
        Ok(())
    }

    fn stack_neuron_results(
        &self,
        options: &StackOptions,
        neurons: &Slice,
        remainder: bool,
    ) -> Result<Stack, LensError> {
        let options = &options.at_attention();
        let layer = target(self, options)?;
        let (mut parts, mut labels) = (Vec::new(), Vec::new());
        for l in 0..layer {
            let results = self.get_neuron_results(l, neurons, &options.pos_slice)?;
            parts.push(components_first(&results));
            let width = self.model().config().d_mlp_of(l);
            labels.extend(neurons.indices(width)?.into_iter().map(|i| format!("L{l}N{i}")));
        }
        scaled(self, joined(self, parts, labels, layer, options, remainder)?, options)
    }

    fn get_neuron_results(&self, layer: usize, neurons: &Slice, pos_slice: &Slice) -> Result<Tensor, LensError> {
        LensError::unless_mlp(self.model().config(), layer, "what its neurons write")?;
        let post = self.get(("post", layer))?;
        let post = pos_slice.apply(post, post.ndim() - 2)?;
        let post = neurons.apply(&post, post.ndim() - 1)?;
        let w_out = self.model().param(&format!("blocks.{layer}.mlp.W_out"))?;
        let w_out = widened(neurons.apply(&w_out, 0)?);
        Ok(&post.unsqueeze(post.ndim()) * &w_out)
    }

    fn get_full_resid_decomposition(&self, options: &StackOptions, expand_neurons: bool) -> Result<Stack, LensError> {
        let (layer, cfg) = (target(self, options)?, self.model().config());
        let bare = StackOptions { apply_ln: false, ..options.clone() };
        let heads_to = layer + usize::from(options.mlp_input);
        let Stack { values, mut labels } =
            self.stack_head_results(&StackOptions { layer: Some(heads_to), mlp_input: false, ..bare.clone() }, false)?;
        let mut values = vec![values];
        if !cfg.attn_only && layer > 0 {
            let rest = match expand_neurons {
                true => self.stack_neuron_results(
                    &StackOptions { layer: Some(layer), mlp_input: false, ..bare.clone() },
                    &Slice::All,
                    false,
                )?,
                false => self.decompose_resid(
                    &StackOptions { layer: Some(layer), mlp_input: false, ..bare.clone() },
                    Sublayers::Mlp,
                    false,
                )?,
            };
            values.push(rest.values);
            labels.extend(rest.labels);
        }
        for name in ["embed", "pos_embed"].into_iter().filter(|n| self.contains(*n)) {
            let x = self.get(name)?;
            values.push(options.pos_slice.apply(x, x.ndim() - 2)?.unsqueeze(0));
            labels.push(name.into());
        }
        let bias = self.model().accumulated_bias(layer, options.mlp_input, expand_neurons)?;
        let mut shape = values[0].shape().to_vec();
        shape[0] = 1;
        values.push(bias.expand(&shape).contiguous());
        labels.push("bias".into());
        scaled(self, Stack { values: Tensor::cat(&values, 0), labels }, options)
    }

    fn apply_ln_to_stack(
        &self,
        stack: &Tensor,
        options: &StackOptions,
        items: impl Into<BatchItems>,
    ) -> Result<Tensor, LensError> {
        Ok(normalised(self, stack, options, &items.into())?.0)
    }

    fn logit_attrs(
        &self,
        stack: &Tensor,
        tokens: impl Into<TokenNames>,
        incorrect: Option<TokenNames>,
        pos_slice: &Slice,
        items: impl Into<BatchItems>,
    ) -> Result<Tensor, LensError> {
        let tokens = tokens.into().ids(self.model())?;
        let mut directions = residual_directions(self.model(), &tokens)?;
        if let Some(wrong) = incorrect {
            let wrong = wrong.ids(self.model())?;
            if wrong.shape() != tokens.shape() {
                return Err(LensError::argument(
                    "incorrect tokens of shape",
                    format!("{:?}", wrong.shape()),
                    format!("{:?}, as the tokens", tokens.shape()),
                ));
            }
            directions -= residual_directions(self.model(), &wrong)?;
        }
        let options = StackOptions { pos_slice: pos_slice.clone(), ..Default::default() };
        let (scaled, axes) = normalised(self, stack, &options, &items.into())?;
        if tokens.shape().len() == 1 && axes.batch && axes.pos {
            // One answer per item of the batch, at every position.
            directions = directions.unsqueeze(1);
        }
        let last = scaled.ndim() - 1;
        // The directions' places are the stack's, or one for many of them.
        let places = &scaled.shape()[usize::from(axes.component)..last];
        let given = &directions.shape()[..directions.ndim() - 1];
        let fits =
            given.len() <= places.len() && given.iter().rev().zip(places.iter().rev()).all(|(g, p)| g == p || *g == 1);
        // A single answer in a list is one for all.
        if !fits && tokens.numel() != 1 {
            return Err(LensError::argument(
                "tokens of shape",
                format!("{:?}", tokens.shape()),
                format!(
                    "one for each of the stack's places, {places:?}, or for each item of the batch, or one for all"
                ),
            ));
        }
        if !fits {
            directions = directions.reshape(&[directions.numel()]);
        }
        Ok((&scaled * &directions).sum(&[last]))
    }
}

impl StackOptions {
    /// The same up to the attention of the layer, for sums that know of no other input.
    fn at_attention(&self) -> StackOptions {
        StackOptions { mlp_input: false, ..self.clone() }
    }
}

/// Which axes a stack has before `d_model`, in this order.
#[derive(Clone, Copy, Debug)]
struct Axes {
    component: bool,
    batch: bool,
    pos: bool,
}

impl Axes {
    /// Those of a stack `lead`, without its last axis, of so many items (`None` of a cache without a batch) and
    /// positions: axes of length 1 may be missing. Where several readings are left they differ by axes of length 1.
    fn of(lead: &[usize], batch: Option<usize>, pos: usize) -> Option<Axes> {
        for component in [true, false] {
            for (with_batch, with_pos) in [(true, true), (true, false), (false, true), (false, false)] {
                let complete = (with_batch || batch.is_none_or(|b| b == 1)) && (with_pos || pos == 1);
                if !complete || (with_batch && batch.is_none()) {
                    continue;
                }
                let sizes = batch.filter(|_| with_batch).into_iter().chain(with_pos.then_some(pos));
                let given = lead.get(usize::from(component)..).unwrap_or_default();
                if lead.len() >= usize::from(component) && sizes.eq(given.iter().copied()) {
                    return Some(Axes { component, batch: with_batch, pos: with_pos });
                }
            }
        }
        None
    }
}

/// The scale of a model without norms, 1 everywhere, in the sizes of anything that is cached by item and position.
fn unscaled(cache: &ActivationCache, stack: &Tensor) -> Result<Tensor, LensError> {
    let registry = cache.model().registry();
    let sized = |name: &str| registry.hook_axes(name).is_some_and(|axes| axes.starts_with("batch pos"));
    let sizes = match cache.iter().find(|(name, _)| sized(name)) {
        Some((_, value)) => value.shape(),
        None => cache.get("embed")?.shape(),
    };
    let places = &sizes[..1 + usize::from(cache.has_batch_dim())];
    Ok(Tensor::ones(&[places, &[1]].concat(), stack.dtype(), &stack.device()))
}

/// A stack as [`CacheExt::apply_ln_to_stack`] gives it, and its axes.
fn normalised(
    cache: &ActivationCache,
    stack: &Tensor,
    options: &StackOptions,
    items: &BatchItems,
) -> Result<(Tensor, Axes), LensError> {
    let (n, layer, cfg) = (layers(cache), target(cache, options)?, cache.model().config());
    let scale = match (cfg.normalization_type, layer == n, options.mlp_input) {
        (NormalizationType::None, ..) => unscaled(cache, stack)?,
        (_, true, _) => cache.get("ln_final.hook_scale")?.clone(),
        (_, false, mlp) => cache.get(("scale", layer, if mlp { "ln2" } else { "ln1" }))?.clone(),
    };
    let whole = options.pos_slice.apply(&scale, scale.ndim() - 2)?;
    let scale = if cache.has_batch_dim() { items.slice.apply(&whole, 0)? } else { whole.clone() };
    let of_stack = if items.sliced { &scale } else { &whole };
    let batch = cache.has_batch_dim().then(|| of_stack.dim(0));
    let pos = of_stack.dim(of_stack.ndim() - 2);
    let axes = match stack.shape() {
        [lead @ .., d] if *d == cfg.d_model => Axes::of(lead, batch, pos),
        _ => None,
    };
    let Some(axes) = axes.filter(|axes| axes.batch || scale.numel() == pos) else {
        let batch = batch.map_or(String::new(), |b| format!("batch = {b}, "));
        return Err(LensError::argument(
            "the stack's shape",
            format!("{:?}", stack.shape()),
            format!(
                "[component, {batch}pos = {pos}, d_model = {}], as the norm's scale; axes of length 1 and that of \
                 components may be missing (a stack of some items alone: BatchItems::of_sliced_stack)",
                cfg.d_model
            ),
        ));
    };
    let of_items = match axes.batch && !items.sliced {
        true => items.slice.apply(stack, usize::from(axes.component))?,
        false => stack.clone(),
    };
    let centred = match cfg.normalization_type {
        NormalizationType::None => return Ok((of_items, axes)),
        NormalizationType::LN | NormalizationType::LNPre => of_items.center(),
        NormalizationType::RMS | NormalizationType::RMSPre => of_items,
    };
    let mut shape: Vec<usize> = if axes.batch { vec![scale.dim(0)] } else { vec![] };
    shape.extend(axes.pos.then_some(pos));
    shape.push(1);
    Ok((&centred / &scale.reshape(&shape), axes))
}

/// Number of layers of the model that was run.
fn layers(cache: &ActivationCache) -> usize {
    cache.model().config().n_layers
}

/// The layer that `options` names, at most the number of layers.
fn target(cache: &ActivationCache, options: &StackOptions) -> Result<usize, LensError> {
    let n = layers(cache);
    let layer = options.layer.unwrap_or(n);
    if layer > n || (options.mlp_input && layer == n) {
        let expected = match options.mlp_input {
            true => format!("a layer below {n} with mlp_input"),
            false => format!("at most {n}, the number of layers"),
        };
        return Err(LensError::argument("layer", layer.to_string(), expected));
    }
    Ok(layer)
}

/// Components of one shape, sliced as they come.
struct Parts<'a> {
    slice: &'a Slice,
    values: Vec<Tensor>,
    labels: Vec<String>,
}

impl<'a> Parts<'a> {
    fn new(slice: &'a Slice) -> Parts<'a> {
        Parts { slice, values: vec![], labels: vec![] }
    }

    fn push(&mut self, value: &Tensor, label: impl Into<String>) -> Result<(), LensError> {
        self.values.push(self.slice.apply(value, value.ndim() - 2)?);
        self.labels.push(label.into());
        Ok(())
    }

    fn stack(self) -> Stack {
        Stack { values: Tensor::stack(&self.values, 0), labels: self.labels }
    }
}

fn scaled(cache: &ActivationCache, stack: Stack, options: &StackOptions) -> Result<Stack, LensError> {
    if !options.apply_ln {
        return Ok(stack);
    }
    Ok(Stack { values: cache.apply_ln_to_stack(&stack.values, options, BatchItems::default())?, ..stack })
}

/// `[.., component, d_model]` as `[component, .., d_model]`.
fn components_first(x: &Tensor) -> Tensor {
    let n = x.ndim();
    let mut axes = vec![n - 2];
    axes.extend(0..n - 2);
    axes.push(n - 1);
    x.permute(&axes)
}

/// What each head of the layers before `layer` (of all, if `None`) writes, `L0H0`, `L0H1`, .., without `b_O`:
/// [`CacheExt::stack_head_results`] of a cache of any model, an encoder's, too.
///
/// # Errors
/// If neither `z` nor `result` is cached, or there is no such layer.
pub fn stack_heads<M: HookedModel>(
    cache: &ActivationCache<M>,
    layer: Option<usize>,
    pos_slice: &Slice,
) -> Result<Stack, LensError> {
    let n = cache.model().config().n_layers;
    let layer = layer.unwrap_or(n);
    if layer == 0 || layer > n {
        return Err(LensError::argument("layer", layer.to_string(), format!("1 to {n}, the number of layers")));
    }
    let parts = (0..layer).map(|l| head_results(cache, l, pos_slice)).collect::<Result<Vec<_>, _>>()?;
    Ok(Stack { values: Tensor::cat(&parts, 0), labels: labels_before(cache.model().config(), layer) })
}

/// Of the heads of the layers before `layer`.
fn labels_before(cfg: &Config, layer: usize) -> Vec<String> {
    cfg.head_labels().into_iter().take(layer * cfg.n_heads()).collect()
}

/// What each head of a layer writes, `[head, batch, pos, d_model]`.
fn head_results<M: HookedModel>(cache: &ActivationCache<M>, layer: usize, slice: &Slice) -> Result<Tensor, LensError> {
    if cache.contains(("result", layer)) {
        let result = cache.get(("result", layer))?;
        return Ok(components_first(&slice.apply(result, result.ndim() - 3)?));
    }
    let z = cache.get(("z", layer))?;
    let z = components_first(&slice.apply(z, z.ndim() - 3)?);
    let w_o = cache.model().params().get(&format!("blocks.{layer}.attn.W_O")).map_err(ModelError::from)?;
    let (h, e, d) = (w_o.dim(0), w_o.dim(1), w_o.dim(2));
    let rows = z.numel() / (h * e).max(1);
    let mut shape = z.shape().to_vec();
    shape[z.ndim() - 1] = d;
    Ok(z.reshape(&[h, rows, e]).matmul(&w_o).reshape(&shape))
}

/// No components, in the shape of the stream.
fn nothing(cache: &ActivationCache, options: &StackOptions) -> Result<Stack, LensError> {
    let embed = cache.get("embed")?;
    let mut shape = options.pos_slice.apply(embed, embed.ndim() - 2)?.shape().to_vec();
    shape.insert(0, 0);
    Ok(Stack { values: Tensor::zeros(&shape, embed.dtype(), &embed.device()), labels: vec![] })
}

/// Components of layers `0..layer`, `[component, .., d_model]` each, joined; with the rest of the
/// stream if asked for.
fn joined(
    cache: &ActivationCache,
    parts: Vec<Tensor>,
    mut labels: Vec<String>,
    layer: usize,
    options: &StackOptions,
    remainder: bool,
) -> Result<Stack, LensError> {
    let mut values = match parts.is_empty() {
        true => nothing(cache, options)?.values,
        false => Tensor::cat(&parts, 0),
    };
    if remainder {
        let stream = match layer {
            0 => cache.get(("resid_pre", 0))?,
            l => cache.get(("resid_post", l - 1))?,
        };
        let stream = options.pos_slice.apply(stream, stream.ndim() - 2)?;
        let rest = (&stream - &values.sum(&[0])).unsqueeze(0);
        values = Tensor::cat(&[values, rest], 0);
        labels.push("remainder".into());
    }
    Ok(Stack { values, labels })
}

/// The model's answer direction of each token: a column of `W_U`, `[tokens.., d_model]`.
pub(crate) fn residual_directions(model: &HookedTransformer, tokens: &IndexTensor) -> Result<Tensor, LensError> {
    let w_u = model.param("unembed.W_U")?;
    if let Some(bad) = tokens.as_slice().iter().find(|t| **t as usize >= w_u.dim(1)) {
        return Err(LensError::argument("token", bad.to_string(), format!("an id below d_vocab_out = {}", w_u.dim(1))));
    }
    Ok(w_u.t().contiguous().embed(tokens))
}

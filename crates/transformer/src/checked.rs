//! A call whose input and options fit the model and each other.

use ironlens_autograd::Var;
use ironlens_nn::{Ctx, Padding};
use ironlens_tensor::IndexTensor;

use crate::call::Call;
use crate::config::AttentionDir;
use crate::error::ModelError;
use crate::fit;
use crate::input::{Input, check_beside, check_tokens};
use crate::key_value_cache::KeyValueCache;
use crate::loss::{next_token_loss, next_token_losses, real_pairs};
use crate::model::HookedTransformer;
use crate::names::resolve_layer;
use crate::net::{Entry, Net, Pass};
use crate::output::{LogitsAt, Output, ReturnType};
use crate::sequences::Sequences;

/// A checked call.
pub(crate) struct Checked {
    input: Input,
    tokens: Option<IndexTensor>,
    /// Of the input, and of what came before.
    padding: Option<Padding>,
    pub batch: usize,
    pub pos: usize,
    /// How many positions came before.
    pub pos_offset: usize,
    start: usize,
    stop: Option<usize>,
    return_type: ReturnType,
    logits_at: LogitsAt,
    loss_per_token: bool,
}

impl Checked {
    pub fn new(call: &Call<'_, '_>) -> Result<Checked, ModelError> {
        let cfg = call.model.config();
        let mut attention_mask = call.attention_mask.clone();
        let input = match &call.input {
            Input::Texts(texts) => {
                let read = call.model.to_tokens_with(texts, &call.text)?;
                Input::from(&read)
            }
            Input::Sequences(_) | Input::Residual(_) => call.input.clone(),
        };
        if let Input::Sequences(Sequences { mask, .. }) = &input {
            attention_mask = attention_mask.or_else(|| mask.clone());
        }
        let (shape, tokens) = match &input {
            Input::Sequences(s) => (s.tokens.shape().to_vec(), Some(s.tokens.clone())),
            Input::Residual(r) => (r.shape().to_vec(), call.tokens.clone()),
            Input::Texts(_) => unreachable!("texts were turned into tokens"),
        };
        let residual = matches!(input, Input::Residual(_));
        if residual != call.start_at_layer.is_some() {
            return Err(ModelError::Options(match residual {
                true => "a residual stream as input needs start_at_layer to say where it enters".into(),
                false => "start_at_layer needs a residual stream [batch, pos, d_model] as input, not tokens; \
                          give the loss's tokens with .tokens()"
                    .into(),
            }));
        }
        let fits = match (residual, &shape[..]) {
            (false, [_, _]) => true,
            (true, [_, _, d]) => *d == cfg.d_model,
            _ => false,
        };
        let expected = match residual {
            false => "[batch, pos], with at least one of each".to_string(),
            true => format!("[batch, pos, {}], with at least one of each", cfg.d_model),
        };
        if !fits || shape.contains(&0) {
            return Err(ModelError::Shape { what: "the input", given: shape, expected });
        }
        let (batch, pos) = (shape[0], shape[1]);
        let pos_offset = call.past.as_ref().map_or(0, |past| past.len());
        if let Some(past) = &call.past {
            past.check(call.model, [batch, pos])?;
            if residual || call.stop_at_layer.is_some() {
                return Err(ModelError::Options(
                    "a cache of keys and values holds all layers: leave out start_at_layer and stop_at_layer".into(),
                ));
            }
            if cfg.attention_dir != AttentionDir::Causal {
                return Err(ModelError::Options(
                    "a model with bidirectional attention has no cache of keys and values: what follows would change \
                     what was computed before"
                        .into(),
                ));
            }
        }
        if pos > cfg.n_ctx {
            return Err(ModelError::TooLong { pos, n_ctx: cfg.n_ctx });
        }
        for (what, given) in [("the tokens", &tokens), ("the attention mask", &attention_mask)] {
            check_beside(what, given.as_ref(), [batch, pos])?;
        }
        if let Some(tokens) = &tokens {
            check_tokens(tokens, cfg.d_vocab)?;
        }
        let layers = cfg.n_layers;
        // One more than the last block is a place, too: before the final norm.
        let place = |l: isize| if l == layers as isize { Ok(layers) } else { resolve_layer(l, layers) };
        let start = call.start_at_layer.map_or(Ok(0), place)?;
        let stop = call.stop_at_layer.map(place).transpose()?;
        let wants_loss = stop.is_none() && matches!(call.return_type, ReturnType::Loss | ReturnType::Both);
        if wants_loss && call.logits_at != LogitsAt::All {
            return Err(ModelError::Options("the next-token loss needs the logits of all positions".into()));
        }
        if wants_loss {
            if tokens.is_none() {
                return Err(ModelError::Options(
                    "the loss of a residual stream needs its tokens: give .tokens()".into(),
                ));
            }
            if pos < 2 {
                return Err(ModelError::Options("the next-token loss needs at least two positions".into()));
            }
            let is_unpredictable = |id: &u32| *id as usize >= cfg.d_vocab_out;
            if let Some(id) = tokens.iter().find_map(|t| targets(t, attention_mask.as_ref()).find(is_unpredictable)) {
                return Err(ModelError::Options(format!(
                    "the next-token loss needs every token after the first among the predictions: token {id} is not \
                     below d_vocab_out = {}",
                    cfg.d_vocab_out
                )));
            }
        }
        let (blocks, logits) = (stop.unwrap_or(layers) > start, stop.is_none() && call.return_type != ReturnType::None);
        fit::activations(cfg, call.model.device(), [batch, pos], pos_offset + pos, blocks, logits)?;
        let mask = match &call.past {
            None => attention_mask,
            Some(past) => past.mask_with(attention_mask.as_ref(), pos),
        };
        let padding = mask.as_ref().map(|mask| match call.padding_as_transformer_lens {
            false => Padding::new(mask),
            true => Padding::new(mask).as_transformer_lens(),
        });
        if let Some(past) = &call.past {
            let after = padding.as_ref().map_or(pos_offset + pos, Padding::longest);
            if call.model.net.turns_otherwise(past.longest(), after) {
                return Err(ModelError::Options(format!(
                    "the model rotates all positions of a sequence of {after} by other angles than those of the {} \
                     that were read: start with an empty cache, and read the whole sequence",
                    past.longest()
                )));
            }
        }
        Ok(Checked {
            input,
            tokens,
            padding,
            batch,
            pos,
            pos_offset,
            start,
            stop,
            return_type: call.return_type,
            logits_at: call.logits_at,
            loss_per_token: call.loss_per_token,
        })
    }

    /// Runs; rows are appended to `past`, if there is one and nothing fails.
    pub fn run(
        &self,
        model: &HookedTransformer,
        ctx: &mut Ctx<'_, '_>,
        past: Option<&mut KeyValueCache>,
    ) -> Result<Output, ModelError> {
        match past {
            None => self.pass(&model.net, ctx, None),
            Some(past) => {
                let output = self.pass(&model.net, ctx, Some(&mut *past));
                past.finish(self.pos, self.padding.as_ref(), output.is_ok());
                output
            }
        }
    }

    fn pass(&self, net: &Net, ctx: &mut Ctx<'_, '_>, past: Option<&mut KeyValueCache>) -> Result<Output, ModelError> {
        let entry = match &self.input {
            Input::Sequences(sequences) => Entry::Tokens(&sequences.tokens),
            Input::Residual(residual) => Entry::Residual(residual),
            Input::Texts(_) => unreachable!("texts were turned into tokens"),
        };
        let mut residual = net.forward(
            ctx,
            entry,
            Pass {
                layers: self.start..self.stop.unwrap_or(net.blocks.len()),
                padding: self.padding.as_ref(),
                pos_offset: self.pos_offset,
                past: past.map(KeyValueCache::layers_mut),
            },
        )?;
        if self.stop.is_some() {
            return Ok(Output { residual: Some(residual), ..Output::default() });
        }
        if let Some(ln) = &net.ln_final {
            residual = ln.forward(ctx, &residual)?;
        }
        if self.return_type == ReturnType::None {
            return Ok(Output::default());
        }
        let logits = match self.logits_at {
            LogitsAt::All => net.logits(ctx, &residual),
            LogitsAt::Last => net.logits(ctx, &self.last_rows(&residual)),
        };
        let mask = self.mask();
        let loss = match (self.return_type, &self.tokens) {
            (ReturnType::Loss | ReturnType::Both, Some(tokens)) => Some(match self.loss_per_token {
                true => next_token_losses(&logits, tokens, mask.as_ref()),
                false => next_token_loss(&logits, tokens, mask.as_ref()),
            }),
            _ => None,
        };
        Ok(Output { logits: (self.return_type != ReturnType::Loss).then_some(logits), loss, residual: None })
    }

    /// Where the input is padding, `[batch, pos]`.
    pub fn mask(&self) -> Option<IndexTensor> {
        self.padding.as_ref().map(|padding| padding.mask().narrow(1, self.pos_offset, self.pos))
    }

    /// Of rows `[batch, pos, ..]`, the last of each sequence that is no padding, `[batch, 1, ..]`.
    fn last_rows(&self, rows: &Var) -> Var {
        let Some(padding) = &self.padding else { return rows.narrow(1, self.pos - 1, 1) };
        let of = |item: usize| {
            let mask = padding.mask().select(0, item);
            let last = mask.as_slice()[self.pos_offset..].iter().rposition(|&m| m != 0).unwrap_or(self.pos - 1);
            rows.narrow(0, item, 1).narrow(1, last, 1)
        };
        Var::cat(&(0..self.batch).map(of).collect::<Vec<_>>(), 0)
    }
}

/// The tokens `[batch, pos]` that the next-token loss asks for: none that is first or that a pair with padding has.
fn targets(tokens: &IndexTensor, mask: Option<&IndexTensor>) -> impl Iterator<Item = u32> {
    let next = tokens.narrow(1, 1, tokens.shape()[1] - 1);
    let counts = mask.map(|mask| real_pairs(mask).collect::<Vec<bool>>());
    (0..next.numel()).filter(move |i| counts.as_ref().is_none_or(|c| c[*i])).map(move |i| next.as_slice()[i])
}

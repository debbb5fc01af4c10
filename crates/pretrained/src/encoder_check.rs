//! What every loaded encoder must do, seen on a few tokens.

use std::collections::BTreeSet;

use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::{Head, HookedEncoder, ModelError};

use crate::check::{Check, TOKENS, Worst, finite, hook_points, passed, vocabulary};
use crate::error::PretrainedError;

/// Runs an encoder on a few tokens: every hook point that can fire does, with finite values; the residual stream is
/// the sum of what is written to it; its tokenizer has no tokens that the model lacks.
///
/// # Errors
/// If the model does not run.
pub fn check_encoder(model: &HookedEncoder) -> Result<Vec<Check>, ModelError> {
    let (cfg, heads) = (model.config(), model.heads());
    let pos = TOKENS.min(cfg.n_ctx);
    let ids: Vec<u32> = (0..pos).map(|i| (i % cfg.d_vocab) as u32).collect();
    let tokens = IndexTensor::new(ids, &[1, pos]);
    let types = IndexTensor::new((0..pos).map(|i| u32::from(2 * i >= pos)).collect::<Vec<_>>(), &[1, pos]);
    let run = |head| model.call(&tokens).token_types(&types).head(head).cached();

    let (_, cache) = run(Head::None)?;
    let mut fired: BTreeSet<String> = cache.names().map(String::from).collect();
    let mut not_finite = cache.first_not_finite().map(String::from);
    let mut results = true;
    let of_heads = [
        (Head::MaskedLanguage, heads.masked_language),
        (Head::Pooler, heads.pooler),
        (Head::NextSentence, heads.next_sentence),
    ];
    for (head, _) in of_heads.into_iter().filter(|(_, there)| *there) {
        let (output, cache) = run(head)?;
        fired.extend(cache.names().map(String::from));
        not_finite = not_finite.or(cache.first_not_finite().map(String::from));
        let given = [&output.logits, &output.pooled, &output.next_sentence];
        results &= given.into_iter().flatten().all(|x| x.value().all_finite());
    }
    let mut checks = vec![hook_points(model, fired.len()), finite(not_finite.as_deref(), results)];

    let mut worst = Worst::default();
    for l in 0..cfg.n_layers {
        let get = |name: &str| -> Result<Tensor, ModelError> { Ok(cache.get((name, l))?.clone()) };
        let mid = get("resid_pre")? + &get("attn_out")?;
        worst.compare(&mid, &get("resid_mid")?, format!("resid_mid of layer {l}"));
        let post = cache.get(("normalized", l, "ln1"))? + &get("mlp_out")?;
        worst.compare(&post, &get("resid_post")?, format!("resid_post of layer {l}"));
    }
    checks.push(worst.check(model));
    checks.extend(model.tokenizer().map(|tokenizer| vocabulary(model, tokenizer.tokenizer())));
    Ok(checks)
}

/// The model, or an error of what failed.
pub(crate) fn checked(model: HookedEncoder) -> Result<HookedEncoder, PretrainedError> {
    let checks = check_encoder(&model)?;
    passed(model, checks)
}

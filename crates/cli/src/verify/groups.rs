//! What each group of expected tensors means, and how close it must be.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use ironlens::autograd::Var;
use ironlens::lens::heads::{DetectOptions, ErrorMeasure, HeadKind, detect_head};
use ironlens::lens::patching::{self, PatchOptions};
use ironlens::lens::{CacheExt, Composition, Metric, Processing, StackOptions, Sublayers, WeightsExt, process_weights};
use ironlens::tensor::{Device, IndexTensor, Tensor};
use ironlens::train::{Optimizer, clip_coefficient, previous_token_loss};
use ironlens::transformer::{HookedTransformer, Hooks, Output, ReturnType, Slice};

use super::GroupResult;
use super::case::{Case, ids_of};

/// Relative tolerances on the CPU; a GPU gets five times as much.
const VALUES: f64 = 5e-6;
const GRADIENTS: f64 = 1e-5;
const TRAINING_LOSSES: f64 = 2e-6;
const FINAL_WEIGHTS: f64 = 3e-4;
/// Largest absolute value of a gradient that is zero.
const ZERO_GRADIENT: f64 = 1e-6;

/// Computed tensors by name.
type Tensors = BTreeMap<String, Tensor>;

/// One group: its name, how it is computed, and its tolerance.
struct Group {
    name: &'static str,
    tolerance: f64,
    compute: fn(&Case, &[&str]) -> Result<Tensors>,
}

const GROUPS: &[Group] = &[
    Group { name: "logits", tolerance: VALUES, compute: logits },
    Group { name: "cache", tolerance: VALUES, compute: cache },
    Group { name: "loss", tolerance: VALUES, compute: losses },
    Group { name: "grad", tolerance: GRADIENTS, compute: gradients },
    Group { name: "grad_norm", tolerance: GRADIENTS, compute: gradients },
    Group { name: "cache_grad", tolerance: GRADIENTS, compute: cache_gradients },
    Group { name: "ablate_head", tolerance: VALUES, compute: ablations },
    Group { name: "scale", tolerance: VALUES, compute: scales },
    Group { name: "stop_at_layer", tolerance: VALUES, compute: stops },
    Group { name: "detect", tolerance: VALUES, compute: detections },
    Group { name: "lens", tolerance: VALUES, compute: decompositions },
    Group { name: "patch", tolerance: VALUES, compute: patches },
    Group { name: "weights", tolerance: VALUES, compute: circuits },
    Group { name: "folded", tolerance: VALUES, compute: folded },
    Group { name: "train", tolerance: FINAL_WEIGHTS, compute: training },
];

/// All groups of a case, and the names that no group knows.
pub fn compare(name: &str, case: &Case) -> (Vec<GroupResult>, Vec<String>) {
    let mut results = Vec::new();
    let mut known = 0;
    let group_of = |n: &str| n.split('/').next().unwrap_or(n).to_string();
    for group in GROUPS {
        let names: Vec<&str> = case.expected.keys().filter(|n| group_of(n) == group.name).map(String::as_str).collect();
        if names.is_empty() {
            continue;
        }
        known += names.len();
        let factor = if *case.model.device() == Device::Cpu { 1.0 } else { 5.0 };
        let mut result = GroupResult {
            case: name.into(),
            group: group.name.into(),
            tensors: names.len(),
            error: 0.0,
            tolerance: group.tolerance * factor,
            place: String::new(),
            problem: None,
        };
        match (group.compute)(case, &names) {
            Ok(computed) => judge(&mut result, case, &names, &computed, group.tolerance),
            Err(error) => {
                result.error = f64::INFINITY;
                result.problem = Some(format!("{error:#}"));
            }
        }
        results.push(result);
    }
    debug_assert!(known <= case.expected.len());
    let unknown = case
        .expected
        .keys()
        .filter(|n| GROUPS.iter().all(|g| g.name != group_of(n)))
        .map(|n| format!("{name}: {n}"))
        .collect();
    (results, unknown)
}

/// Fills in the worst error, on the scale of the group's tolerance.
fn judge(result: &mut GroupResult, case: &Case, names: &[&str], computed: &Tensors, tolerance: f64) {
    for &name in names {
        let expected = &case.expected[name];
        if name.starts_with("train/final/") && name.ends_with("b_K") && case.key_bias_is_idle() {
            continue;
        }
        let error = match computed.get(name) {
            None => f64::INFINITY,
            Some(value) if value.shape() != expected.shape() => f64::INFINITY,
            Some(value) if is_zero_gradient(case, name) => {
                let largest = value.to_vec_f64().iter().fold(0f64, |m, v| m.max(v.abs()));
                // On the scale of the tolerance, since this bound is absolute.
                largest / ZERO_GRADIENT * tolerance
            }
            Some(value) if name.starts_with("train/final/") && name.ends_with("b_K") => {
                // Of a partly rotated key, the rest has no gradient either.
                let rotated = |t: &Tensor| match case.rotated_key_width() {
                    Some(width) => t.narrow(1, 0, width),
                    None => t.clone(),
                };
                error_of(&rotated(value), &rotated(expected)) * tolerance / tolerance_of(name, tolerance)
            }
            Some(value) => error_of(value, expected) * tolerance / tolerance_of(name, tolerance),
        };
        if error > result.error || result.place.is_empty() {
            result.error = error;
            result.place = name.into();
        }
    }
    if let Some(extra) = missing_from_file(result, computed, names) {
        result.error = f64::INFINITY;
        result.place = extra;
    }
}

/// A cached activation that TransformerLens does not have.
fn missing_from_file(result: &GroupResult, computed: &Tensors, names: &[&str]) -> Option<String> {
    let complete = result.group == "cache";
    complete.then(|| computed.keys().find(|n| !names.contains(&n.as_str())).map(|n| format!("{n} is not expected")))?
}

fn is_zero_gradient(case: &Case, name: &str) -> bool {
    name.starts_with("grad/") && name.ends_with("b_K") && case.key_bias_is_idle()
}

/// Within `train`, losses and norms are held closer than final weights.
fn tolerance_of(name: &str, group: f64) -> f64 {
    match name {
        "train/losses" | "train/learning_rates" | "train/tokens" => TRAINING_LOSSES,
        "train/grad_norms" => GRADIENTS,
        _ => group,
    }
}

/// Largest absolute difference over largest absolute expected value; infinite if non-finite
/// elements differ in kind.
pub fn error_of(value: &Tensor, expected: &Tensor) -> f64 {
    let (difference, alike) = value.to_dtype(expected.dtype()).max_abs_diff(expected);
    if !alike {
        return f64::INFINITY;
    }
    let largest = expected.to_vec_f64().iter().filter(|v| v.is_finite()).fold(0f64, |m, v| m.max(v.abs()));
    if difference == 0.0 { 0.0 } else { difference / largest }
}

/// The cases' loss: the previous token's, or -log p(token 3) where the vocabulary of predictions
/// is another.
fn case_loss(case: &Case) -> impl Fn(&Output) -> Var + use<> {
    let (tokens, loss) = (case.tokens.clone(), loss_of(case));
    move |out| loss(out.logits(), &tokens)
}

fn loss_of(case: &Case) -> fn(&Var, &IndexTensor) -> Var {
    let cfg = case.model.config();
    if cfg.d_vocab_out == cfg.d_vocab {
        return previous_token_loss;
    }
    |logits, tokens| {
        let threes = IndexTensor::new(vec![3; tokens.numel()], tokens.shape());
        logits.cross_entropy(&threes).mean_all()
    }
}

fn one(name: &str, value: Tensor) -> Tensors {
    BTreeMap::from([(name.to_string(), value)])
}

fn logits(case: &Case, _: &[&str]) -> Result<Tensors> {
    Ok(one("logits", case.model.forward(&case.tokens)?))
}

fn cache(case: &Case, _: &[&str]) -> Result<Tensors> {
    let (_, cache) = case.model.run_with_cache(&case.tokens)?;
    Ok(cache.iter().map(|(name, value)| (format!("cache/{name}"), value.clone())).collect())
}

fn losses(case: &Case, names: &[&str]) -> Result<Tensors> {
    let mut all = Tensors::new();
    for &name in names {
        let call = case.model.call(&case.tokens);
        let value = match name {
            "loss/prev_token" => case_loss(case)(&call.output()?),
            "loss/next_token" => call.return_type(ReturnType::Loss).output()?.loss().clone(),
            "loss/next_token_per_token" => call.return_type(ReturnType::Loss).loss_per_token().output()?.loss().clone(),
            _ => continue,
        };
        all.insert(name.into(), value.into_value());
    }
    Ok(all)
}

fn gradients(case: &Case, _: &[&str]) -> Result<Tensors> {
    let (_, grads) = case.model.call(&case.tokens).gradients(case_loss(case))?;
    let norm = Tensor::from_vec_f64(vec![grads.norm()], &[]);
    let mut all = one("grad_norm", norm);
    for (name, shape) in case.model.registry().params() {
        let zero = || Tensor::zeros(shape, case.model.params().dtype(), case.model.device());
        all.insert(format!("grad/{name}"), grads.get(name).unwrap_or_else(zero));
    }
    Ok(all)
}

fn cache_gradients(case: &Case, names: &[&str]) -> Result<Tensors> {
    let hooks: Vec<String> = names.iter().map(|n| n.trim_start_matches("cache_grad/").to_string()).collect();
    let (_, cache) = case.model.call(&case.tokens).names(hooks.clone()).cached_gradients(case_loss(case))?;
    hooks.iter().map(|h| Ok((format!("cache_grad/{h}"), cache.grad(h.as_str())?.clone()))).collect()
}

/// Logits with head N of a hook's activation set to 0: `ablate_head/HOOK.N`.
fn ablations(case: &Case, names: &[&str]) -> Result<Tensors> {
    with_hooks(case, names, "ablate_head/", |target| {
        let (hook, head) = target.rsplit_once('.').context("expected HOOK.HEAD")?;
        let head: usize = head.parse().context("expected a head's number")?;
        let heads = case.model.config().n_heads();
        if head >= heads {
            bail!("there is no head {head}: the model has {heads}");
        }
        Ok(Hooks::new().fwd(hook, move |z, _| {
            z.assign(move |z| z.select(2, head), 0.0);
            Ok(())
        }))
    })
}

/// Logits with an activation halved: `scale/HOOK`.
fn scales(case: &Case, names: &[&str]) -> Result<Tensors> {
    with_hooks(case, names, "scale/", |hook| {
        Ok(Hooks::new().fwd(hook, |x, _| {
            *x = &*x * 0.5;
            Ok(())
        }))
    })
}

fn with_hooks(
    case: &Case,
    names: &[&str],
    prefix: &str,
    hooks: impl Fn(&str) -> Result<Hooks<'static>>,
) -> Result<Tensors> {
    names
        .iter()
        .map(|name| {
            let mut hooks = hooks(name.trim_start_matches(prefix)).with_context(|| name.to_string())?;
            Ok((name.to_string(), case.model.run_with_hooks(&case.tokens, &mut hooks)?))
        })
        .collect()
}

fn stops(case: &Case, names: &[&str]) -> Result<Tensors> {
    names
        .iter()
        .map(|name| {
            let layer = name.trim_start_matches("stop_at_layer/").parse::<isize>().with_context(|| name.to_string())?;
            let out = case.model.call(&case.tokens).stop_at_layer(layer).output()?;
            Ok((name.to_string(), out.residual().value().clone()))
        })
        .collect()
}

/// `detect/KIND/{pattern,mul,abs}` on row 1 of the tokens.
fn detections(case: &Case, names: &[&str]) -> Result<Tensors> {
    if case.tokens.shape()[0] < 2 {
        bail!("detectors are compared on row 1 of the tokens, and there is only row 0");
    }
    let row = case.tokens.rows(&[1]);
    names
        .iter()
        .map(|name| {
            let mut parts = name.split('/').skip(1);
            let kind = HeadKind::from_name(parts.next().unwrap_or_default())?;
            let detect = |error_measure| {
                detect_head(&case.model, &row, &kind.into(), &DetectOptions { error_measure, ..Default::default() })
            };
            let value = match parts.next() {
                Some("pattern") => kind.pattern(row.as_slice()),
                Some("mul") => detect(ErrorMeasure::Mul)?,
                Some("abs") => detect(ErrorMeasure::Abs)?,
                other => bail!("{name}: {other:?} is none of pattern, mul, abs"),
            };
            Ok((name.to_string(), value))
        })
        .collect()
}

/// The answers of the cases: right ones against wrong ones, one for each item of the batch.
const ANSWERS: [[u32; 3]; 2] = [[3, 5, 7], [4, 6, 8]];

/// There is an answer for each sequence, and it is in the vocabulary.
fn check_answers(case: &Case) -> Result<()> {
    let (batch, d_vocab_out) = (case.tokens.shape()[0], case.model.config().d_vocab_out);
    if batch != ANSWERS[0].len() || ANSWERS.iter().flatten().any(|id| *id as usize >= d_vocab_out) {
        bail!(
            "the answers {ANSWERS:?} are those of {} sequences and a d_vocab_out above 8; this case has {batch} and \
             {d_vocab_out}",
            ANSWERS[0].len()
        );
    }
    Ok(())
}

/// `lens/METHOD`, of the whole cache; `logit_attrs` are those of the last position.
fn decompositions(case: &Case, names: &[&str]) -> Result<Tensors> {
    if names.contains(&"lens/logit_attrs") {
        check_answers(case)?;
    }
    let (_, cache) = case.model.run_with_cache(&case.tokens)?;
    let all = StackOptions::default();
    let incl_mid = case.model.config().has_resid_mid();
    names
        .iter()
        .map(|name| {
            let value = match name.trim_start_matches("lens/") {
                "decompose_resid" => cache.decompose_resid(&all, Sublayers::All, true)?.values,
                "labels_len" => {
                    let n = cache.decompose_resid(&all, Sublayers::All, true)?.labels.len();
                    Tensor::from_vec(vec![n as f32], &[1], &Device::Cpu)
                }
                "accumulated_resid" => cache.accumulated_resid(&all, incl_mid)?.values,
                "accumulated_resid_ln" => {
                    cache.accumulated_resid(&StackOptions { apply_ln: true, ..all.clone() }, false)?.values
                }
                "stack_head_results" => cache.stack_head_results(&all, false)?.values,
                "apply_ln_to_stack" => {
                    let stack = cache.stack_head_results(&all, false)?.values;
                    cache.apply_ln_to_stack(&stack, &all, &Slice::All)?
                }
                "logit_attrs" => {
                    let last = StackOptions { pos_slice: Slice::At(-1), ..all.clone() };
                    let stack = cache.decompose_resid(&last, Sublayers::All, true)?.values;
                    let [right, wrong] = ANSWERS.map(|ids| IndexTensor::new(ids.to_vec(), &[3]));
                    cache.logit_attrs(&stack, &right, Some((&wrong).into()), &last.pos_slice, &Slice::All)?.squeeze(2)
                }
                other => bail!("{other} is no method that this program knows"),
            };
            Ok((name.to_string(), value))
        })
        .collect()
}

/// `patch/X` is `get_act_patch_X` from the tokens to `patch/corrupted_tokens`, by the mean difference
/// of the answers' logits at the last position.
fn patches(case: &Case, names: &[&str]) -> Result<Tensors> {
    let given = case.expected.get("patch/corrupted_tokens").context("the case has no patch/corrupted_tokens")?;
    check_answers(case)?;
    if given.shape() != case.tokens.shape() {
        bail!("patch/corrupted_tokens has shape {:?}, the tokens have {:?}", given.shape(), case.tokens.shape());
    }
    let corrupted = ids_of("patch/corrupted_tokens", given)?;
    let (clean, cache) = case.model.run_with_cache(&case.tokens)?;
    let metric = Metric::logit_diff(&ANSWERS[0], &ANSWERS[1])?;
    let number = |x: f64| Tensor::from_vec_f64(vec![x], &[]);
    names
        .iter()
        .map(|name| {
            let patch = match name.trim_start_matches("patch/") {
                "corrupted_tokens" => return Ok((name.to_string(), given.clone())),
                "clean_metric" => return Ok((name.to_string(), number(metric.of(&clean)))),
                "corrupted_metric" => {
                    return Ok((name.to_string(), number(metric.of(&case.model.forward(&corrupted)?))));
                }
                "resid_pre" => patching::get_act_patch_resid_pre,
                "resid_mid" => patching::get_act_patch_resid_mid,
                "attn_out" => patching::get_act_patch_attn_out,
                "mlp_out" => patching::get_act_patch_mlp_out,
                "attn_head_out_by_pos" => patching::get_act_patch_attn_head_out_by_pos,
                "attn_head_q_by_pos" => patching::get_act_patch_attn_head_q_by_pos,
                "attn_head_k_by_pos" => patching::get_act_patch_attn_head_k_by_pos,
                "attn_head_v_by_pos" => patching::get_act_patch_attn_head_v_by_pos,
                "attn_head_pattern_by_pos" => patching::get_act_patch_attn_head_pattern_by_pos,
                "attn_head_pattern_dest_src_pos" => patching::get_act_patch_attn_head_pattern_dest_src_pos,
                "attn_head_out_all_pos" => patching::get_act_patch_attn_head_out_all_pos,
                "attn_head_q_all_pos" => patching::get_act_patch_attn_head_q_all_pos,
                "attn_head_k_all_pos" => patching::get_act_patch_attn_head_k_all_pos,
                "attn_head_v_all_pos" => patching::get_act_patch_attn_head_v_all_pos,
                "attn_head_pattern_all_pos" => patching::get_act_patch_attn_head_pattern_all_pos,
                other => bail!("{other} is no sweep that this program knows"),
            };
            let result = patch(&case.model, &corrupted, &cache, &metric, PatchOptions::default())?;
            Ok((name.to_string(), result.values))
        })
        .collect()
}

/// `weights/PROPERTY`: QK and OV multiplied out, their spectra, composition scores.
fn circuits(case: &Case, names: &[&str]) -> Result<Tensors> {
    let model = &case.model;
    names
        .iter()
        .map(|name| {
            let value = match name.trim_start_matches("weights/") {
                "QK" => model.qk()?.ab(),
                "OV" => model.ov()?.ab(),
                "QK_svals" => model.qk()?.singular_values(),
                "OV_eigenvalues_abs" => {
                    let (re, im) = model.ov()?.eigenvalues();
                    sorted_rows(&(re.square() + im.square()).sqrt())
                }
                "composition_Q" => model.all_composition_scores(Composition::Q)?,
                "composition_K" => model.all_composition_scores(Composition::K)?,
                "composition_V" => model.all_composition_scores(Composition::V)?,
                other => bail!("{other} is no property that this program knows"),
            };
            Ok((name.to_string(), value))
        })
        .collect()
}

/// Each row in rising order.
fn sorted_rows(x: &Tensor) -> Tensor {
    let mut values = x.to_vec_f64();
    values.chunks_mut(x.dim(x.ndim() - 1).max(1)).for_each(|row| row.sort_by(f64::total_cmp));
    Tensor::from_vec_f64(values, x.shape())
}

/// `folded/PARAMETER` after `process_weights_()`.
fn folded(case: &Case, _: &[&str]) -> Result<Tensors> {
    let processed = process_weights(&case.model, Processing::default())?;
    Ok(processed.params().iter().map(|(name, value)| (format!("folded/{name}"), value)).collect())
}

/// 30 steps of AdamW (lr 1e-3, betas 0.9 and 0.95, decay 0.1), clipped to 1, the rate times
/// max(i / 10, 1), on `train/tokens`.
fn training(case: &Case, _: &[&str]) -> Result<Tensors> {
    let given = case.expected.get("train/tokens").context("the case has no train/tokens")?;
    if given.ndim() != 3 {
        bail!("train/tokens has shape {:?}, expected [step, batch, pos]", given.shape());
    }
    let mut model: HookedTransformer = case.model.clone();
    let mut optimizer = Optimizer::adamw((0.9, 0.95), 1e-8, 0.1);
    let (mut losses, mut norms, mut rates) = (vec![], vec![], vec![]);
    for step in 0..given.dim(0) {
        let tokens = ids_of("train/tokens", &given.select(0, step))?;
        let (loss, grads) = model.call(&tokens).gradients(|out| loss_of(case)(out.logits(), &tokens))?;
        let norm = grads.norm_on_device();
        let lr = 1e-3 * (step as f64 / 10.0).max(1.0);
        optimizer.step(model.params_mut(), &grads.into_slots(), lr, Some(&clip_coefficient(&norm, 1.0)));
        losses.push(loss);
        norms.push(norm.item());
        rates.push(lr);
    }
    let curve = |values: Vec<f64>| {
        let n = values.len();
        Tensor::from_vec_f64(values, &[n])
    };
    let mut all = one("train/losses", curve(losses));
    all.insert("train/grad_norms".into(), curve(norms));
    all.insert("train/learning_rates".into(), curve(rates));
    all.insert("train/tokens".into(), given.clone());
    all.extend(model.params().iter().map(|(name, value)| (format!("train/final/{name}"), value)));
    Ok(all)
}

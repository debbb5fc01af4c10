//! Passes that keep activations, or are differentiated, of models of either kind. `pass` is what runs.

use ironlens_autograd::{Tape, Var};
use ironlens_nn::{Ctx, Hooks, Leaves, Params, Target};
use ironlens_tensor::Tensor;

use crate::cache::{ActivationCache, Recorder};
use crate::error::ModelError;
use crate::hooked::HookedModel;
use crate::output::ParamGradients;

/// Keeps activations, after the hooks of the call.
pub(crate) fn cached<'h, M: HookedModel, O>(
    params: &Params,
    recorder: Recorder<'_, M>,
    hooks: Hooks<'h>,
    names: Target<'h>,
    pass: impl FnOnce(Ctx<'_, '_>) -> Result<O, ModelError>,
) -> Result<(O, ActivationCache<M>), ModelError> {
    let output = {
        let mut hooks = hooks.fwd(names, |value, info| recorder.keep(info, value.value()));
        pass(Ctx::evaluate(params, &mut hooks)?)?
    };
    Ok((output, recorder.finish()))
}

/// Differentiates what `loss` makes of the output by `leaves` and by `own`, on `tape`.
pub(crate) fn differentiated<O>(
    params: &Params,
    (tape, own, leaves): (&Tape, &[&Var], &Leaves<'_>),
    mut hooks: Hooks<'_>,
    pass: impl FnOnce(&mut Ctx<'_, '_>) -> Result<O, ModelError>,
    loss: impl FnOnce(&O) -> Var,
) -> Result<(Tensor, ParamGradients, Vec<Option<Tensor>>), ModelError> {
    let mut ctx = Ctx::record_by(params, tape, leaves, &mut hooks)?;
    let loss = {
        let output = pass(&mut ctx)?;
        scalar(loss(&output))?
    };
    let (slots, own) = ctx.backward_with(&loss, own)?;
    Ok((loss.into_value(), ParamGradients::new(params, slots), own))
}

/// Keeps activations, and their gradients of what `loss` makes of the output.
pub(crate) fn cached_gradients<'h, M: HookedModel, O>(
    params: &Params,
    recorder: Recorder<'_, M>,
    hooks: Hooks<'h>,
    names: &Target<'h>,
    pass: impl FnOnce(&mut Ctx<'_, '_>) -> Result<O, ModelError>,
    loss: impl FnOnce(&O) -> Var,
) -> Result<(f64, ActivationCache<M>), ModelError> {
    let value = {
        let selected = names.names(params.registry())?;
        let hooks = hooks
            .fwd(Target::Names(selected.clone()), |value, info| recorder.keep(info, value.value()))
            .bwd(Target::Names(selected), |grad, info| recorder.keep_gradient(info, grad));
        let (value, ..) = differentiated(params, (&Tape::new(), &[], &Leaves::None), hooks, pass, loss)?;
        value.item()
    };
    Ok((value, recorder.finish()))
}

fn scalar(loss: Var) -> Result<Var, ModelError> {
    if loss.value().numel() == 1 {
        return Ok(loss);
    }
    Err(ModelError::Options(format!(
        "gradients need a loss of one number, this one has shape {:?}; take its mean or sum",
        loss.shape()
    )))
}

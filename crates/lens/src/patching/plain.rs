//! Patching by a whole forward pass for each cell.

use ironlens_autograd::Var;
use ironlens_tensor::IndexTensor;
use ironlens_transformer::names::get_act_name;
use ironlens_transformer::{ActivationCache, HookedTransformer, Hooks};

use super::{PatchOptions, Setter};
use crate::error::LensError;
use crate::metric::Metric;

#[expect(clippy::too_many_arguments, reason = "those of the sweep")]
pub(super) fn run(
    model: &HookedTransformer,
    corrupted: &IndexTensor,
    clean: &ActivationCache,
    metric: &Metric<'_>,
    name: &str,
    cells: &[Vec<usize>],
    setter: &Setter<'_>,
    options: &mut PatchOptions<'_>,
) -> Result<Vec<f64>, LensError> {
    let mut values = Vec::with_capacity(cells.len());
    for (done, cell) in cells.iter().enumerate() {
        let clean = clean.get((name, cell[0] as isize))?;
        let hook = get_act_name(name, Some(cell[0] as isize), None);
        let mut hooks = Hooks::new().fwd(hook, |x, _| {
            let mut value = x.value().clone();
            setter(cell, &mut value, clean);
            *x = Var::from(value);
            Ok(())
        });
        values.push(metric.of(&model.run_with_hooks(corrupted, &mut hooks)?));
        options.tell(done + 1, cells.len());
    }
    Ok(values)
}

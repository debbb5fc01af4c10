//! Patching by a whole forward pass for each cell.

use ironlens_autograd::Var;
use ironlens_transformer::Hooks;
use ironlens_transformer::names::act;

use super::{PatchOptions, Patching, Setter};
use crate::error::LensError;

pub(super) fn run(
    session: &Patching<'_>,
    name: &str,
    cells: &[Vec<usize>],
    setter: &Setter<'_>,
    options: &mut PatchOptions<'_>,
) -> Result<Vec<f64>, LensError> {
    let mut values = Vec::with_capacity(cells.len());
    for (done, cell) in cells.iter().enumerate() {
        let clean = session.clean.get((name, cell[0]))?;
        let hook = act(name, cell[0]);
        let mut hooks = Hooks::new().fwd(hook, |x, _| {
            let mut value = x.value().clone();
            setter(cell, &mut value, clean);
            *x = Var::from(value);
            Ok(())
        });
        let output = session.sequences.call(session.model).hooks(&mut hooks).output()?;
        values.push(session.metric.of_sequences(output.logits().value(), &session.sequences));
        options.tell(done + 1, cells.len());
    }
    Ok(values)
}

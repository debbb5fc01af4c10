//! Checking derivatives against central differences.

use ironlens_tensor::{DType, Tensor};

use crate::{Tape, Var};

/// Compares the gradients of `f` at `inputs` with central differences in `f64`, and returns the
/// largest difference relative to the largest gradient of that input (at least 1). `f` may return
/// any shape; its elements are weighted by fixed numbers and summed.
///
/// ```
/// use ironlens_autograd::check::gradient_error;
/// use ironlens_tensor::Tensor;
/// let x = Tensor::from_vec_f64(vec![0.3, -1.2], &[2]);
/// assert!(gradient_error(|v| v[0].softmax(), &[x]) < 1e-8);
/// ```
pub fn gradient_error(f: impl Fn(&[Var]) -> Var, inputs: &[Tensor]) -> f64 {
    let inputs: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(DType::F64).contiguous()).collect();
    let weigh = |y: &Var| {
        let n = y.value().numel();
        let weights = (0..n).map(|i| ((i * 7919 + 13) % 101) as f64 / 50.0 - 1.0).collect();
        (y * &Var::from(Tensor::from_vec_f64(weights, y.shape()))).sum_all()
    };
    let tape = Tape::new();
    let leaves: Vec<Var> = inputs.iter().map(|x| tape.leaf(x.clone())).collect();
    let mut grads = weigh(&f(&leaves)).backward();

    let mut worst = 0f64;
    for (i, leaf) in leaves.iter().enumerate() {
        let grad = grads.take(leaf).map_or(vec![0.0; inputs[i].numel()], |g| g.to_vec_f64());
        let scale = grad.iter().fold(1f64, |m, g| m.max(g.abs()));
        let base = inputs[i].to_vec_f64();
        for (at, &analytic) in grad.iter().enumerate() {
            const STEP: f64 = 1e-5;
            let shifted = |by: f64| {
                let mut values = base.clone();
                values[at] += by;
                let mut moved: Vec<Var> = inputs.iter().cloned().map(Var::from).collect();
                moved[i] = Var::from(Tensor::from_vec_f64(values, inputs[i].shape()));
                weigh(&f(&moved)).value().item()
            };
            let numeric = (shifted(STEP) - shifted(-STEP)) / (2.0 * STEP);
            worst = worst.max((analytic - numeric).abs() / scale);
        }
    }
    worst
}

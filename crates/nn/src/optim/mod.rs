//! Optimisers over [`Params`](crate::Params), and the clipping of gradients.

mod optimizer;
mod rule;

use ironlens_tensor::{DType, Device, Tensor, UnaryOp};
pub use optimizer::Optimizer;
pub use rule::Rule;

/// Euclidean norm of gradients by stored tensor, over all of them: one number that stays on their device.
/// Where there are none it is a 0 of `dtype` on `device`.
pub fn grad_norm(grads: &[Option<Tensor>], dtype: DType, device: &Device) -> Tensor {
    let squares: Vec<Tensor> = grads.iter().flatten().map(Tensor::sum_squares_on_device).collect();
    match squares.is_empty() {
        true => Tensor::scalar(0.0, dtype, device),
        false => Tensor::stack(&squares, 0).sum_all().sqrt(),
    }
}

/// What gradients of this norm (one number) are multiplied by to clip them to `max_norm`: PyTorch's
/// `clip_grad_norm_`, `min(1, max_norm / (norm + 1e-6))`. It stays on the device of the norm.
pub fn clip_coefficient(norm: &Tensor, max_norm: f64) -> Tensor {
    // 1 / max(1, (norm + 1e-6) / max_norm): a minimum by way of a maximum.
    let one = Tensor::scalar(1.0, norm.dtype(), &norm.device());
    let over = norm.reshape(&[]).affine(1.0 / max_norm, 1e-6 / max_norm);
    Tensor::stack(&[one, over], 0).max(&[0]).unary(UnaryOp::Recip)
}

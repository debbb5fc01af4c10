//! Figures of tensors; everything else is [`ironlens_report`]'s.

use ironlens_report::{Array, Figure, ToSeries};
use ironlens_tensor::Tensor;

/// A heatmap of a matrix `[row, column]`, row 0 at the top.
///
/// ```
/// use ironlens::plot::imshow;
/// use ironlens::tensor::{DType, Device, Tensor};
/// let svg = imshow(&Tensor::eye(3, DType::F32, &Device::Cpu)).title("identity").to_svg()?;
/// assert!(svg.contains("identity"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn imshow(matrix: &Tensor) -> Figure {
    ironlens_report::imshow(to_array(matrix))
}

/// A curve, or several.
pub fn line(values: impl ToSeries) -> Figure {
    ironlens_report::line(values)
}

/// A tensor as plain numbers, for figures.
pub fn to_array(x: &Tensor) -> Array {
    Array::from_vec(x.shape(), x.to_vec()).expect("a tensor's values fill its shape")
}

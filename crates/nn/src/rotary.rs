//! Tables of the rotary position embedding (Su et al. 2021).

use ironlens_tensor::{DType, Device, Tensor};

/// What a rotary table is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RotaryConfig {
    /// Dimensions of a head that are rotated: the first ones; even.
    pub dim: usize,
    /// Base of the wavelengths.
    pub base: f64,
    /// Rotate pairs (2i, 2i + 1) rather than (i, i + dim / 2).
    pub adjacent: bool,
    /// Stretched long wavelengths.
    pub stretch: Option<Stretch>,
}

/// Llama 3.1's "NTK by parts": wavelengths above `context / low` are multiplied by `factor`, those
/// below `context / high` stay, and between the two it goes over smoothly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// Multiplier of long wavelengths.
    pub factor: f64,
    /// Sets where "long" begins.
    pub low: f64,
    /// Sets where "short" ends.
    pub high: f64,
    /// Context length before stretching.
    pub context: usize,
}

/// cos and sin of every position's angles, `[n_ctx, dim / 2]`, in both element types: the `f32`
/// one rounds where TransformerLens's does, the `f64` one nowhere.
#[derive(Clone)]
pub struct RotaryTable {
    cos: [Tensor; 2],
    sin: [Tensor; 2],
    /// See [`RotaryConfig::adjacent`].
    pub adjacent: bool,
}

impl RotaryTable {
    /// For positions `0..n_ctx`.
    pub fn new(cfg: &RotaryConfig, n_ctx: usize) -> RotaryTable {
        let half = cfg.dim / 2;
        let wide = angles(cfg, n_ctx, |x| x);
        let narrow = angles(cfg, n_ctx, |x| f64::from(x as f32));
        let table = |angles: &[f64], f: fn(f64) -> f64, dtype| {
            let values = angles.iter().map(|&a| f(a)).collect();
            Tensor::from_vec_f64(values, &[n_ctx, half]).to_dtype(dtype)
        };
        RotaryTable {
            cos: [table(&narrow, f64::cos, DType::F32), table(&wide, f64::cos, DType::F64)],
            sin: [table(&narrow, f64::sin, DType::F32), table(&wide, f64::sin, DType::F64)],
            adjacent: cfg.adjacent,
        }
    }

    /// `(cos, sin)`, `[n_ctx, dim / 2]`.
    pub fn tables(&self, dtype: DType, device: &Device) -> (Tensor, Tensor) {
        let i = usize::from(dtype == DType::F64);
        (self.cos[i].to_device(device), self.sin[i].to_device(device))
    }
}

impl RotaryTable {
    /// `(cos, sin)` as state dicts hold them, `[n_ctx, dim]`: each angle at both of its pair.
    pub fn state_dict_tables(&self) -> (Tensor, Tensor) {
        let both = |t: &Tensor| match self.adjacent {
            true => Tensor::stack(&[t.clone(), t.clone()], 2).reshape(&[t.dim(0), 2 * t.dim(1)]),
            false => Tensor::cat(&[t.clone(), t.clone()], 1),
        };
        (both(&self.cos[0]), both(&self.sin[0]))
    }
}

/// position / wavelength for every position and pair; `round` is applied after every step.
fn angles(cfg: &RotaryConfig, n_ctx: usize, round: impl Fn(f64) -> f64) -> Vec<f64> {
    let half = cfg.dim / 2;
    let wavelengths: Vec<f64> = (0..half)
        .map(|i| {
            let Some(s) = cfg.stretch else {
                return round(cfg.base.powf(round(i as f64 / half as f64)));
            };
            let frequency = round(1.0 / round(cfg.base.powf(round(2.0 * i as f64 / cfg.dim as f64))));
            let wavelength = round(2.0 * std::f64::consts::PI / frequency);
            let (long, short) = (s.context as f64 / s.low, s.context as f64 / s.high);
            let stretched = if wavelength > long {
                round(frequency / s.factor)
            } else if wavelength < short {
                frequency
            } else {
                let smooth = round(round(round(s.context as f64 / wavelength) - s.low) / (s.high - s.low));
                let part = round(round(round(1.0 - smooth) * frequency) / s.factor);
                round(part + round(smooth * frequency))
            };
            round(1.0 / stretched)
        })
        .collect();
    (0..n_ctx).flat_map(|p| wavelengths.iter().map(|w| round(p as f64 / w)).collect::<Vec<_>>()).collect()
}

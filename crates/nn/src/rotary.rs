//! Tables of the rotary position embedding (Su et al. 2021).

use std::fmt;
use std::sync::{Mutex, PoisonError};

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

/// Rows of cos and sin by position, for one element type on one device.
struct Rows {
    dtype: DType,
    device: Device,
    /// `[pos, dim / 2]`
    cos: Tensor,
    sin: Tensor,
}

/// cos and sin of the angles of one kind of rotation, for all layers of a model that have it. Rows are
/// made when a position is first asked for, in the element type asked for (the `f32` ones round where
/// TransformerLens's do, the `f64` ones nowhere), and stay on the device where they are used.
pub struct RotaryTable {
    config: RotaryConfig,
    rows: Mutex<Vec<Rows>>,
}

impl RotaryTable {
    /// Without rows yet.
    pub fn new(config: RotaryConfig) -> RotaryTable {
        RotaryTable { config, rows: Mutex::default() }
    }

    /// What it is made of.
    pub fn config(&self) -> &RotaryConfig {
        &self.config
    }

    /// `(cos, sin)` of positions `0..len`, `[len, dim / 2]`.
    pub fn tables(&self, len: usize, dtype: DType, device: &Device) -> (Tensor, Tensor) {
        let mut all = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let at = all.iter().position(|r| r.dtype == dtype && r.device == *device && r.cos.dim(0) >= len);
        let at = at.unwrap_or_else(|| {
            // Doubled, so that a sequence that grows by one makes few tables.
            let [cos, sin] = self.make(len.next_power_of_two(), dtype).map(|t| t.to_device(device));
            all.retain(|r| r.dtype != dtype || r.device != *device);
            all.push(Rows { dtype, device: device.clone(), cos, sin });
            all.len() - 1
        });
        (all[at].cos.narrow(0, 0, len), all[at].sin.narrow(0, 0, len))
    }

    /// Number of positions whose rows are held, over all element types and devices.
    pub fn rows(&self) -> usize {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|r| r.cos.dim(0)).sum()
    }

    /// `(cos, sin)` as state dicts hold them, `[n_ctx, dim]`: each angle at both of its pair.
    pub fn state_dict_tables(&self, n_ctx: usize, dtype: DType) -> (Tensor, Tensor) {
        let [cos, sin] = self.make(n_ctx, dtype).map(|t| match self.config.adjacent {
            true => Tensor::stack(&[t.clone(), t.clone()], 2).reshape(&[t.dim(0), 2 * t.dim(1)]),
            false => Tensor::cat(&[t.clone(), t], 1),
        });
        (cos, sin)
    }

    /// cos and sin of positions `0..len`, on the CPU.
    fn make(&self, len: usize, dtype: DType) -> [Tensor; 2] {
        let angles = match dtype {
            DType::F32 => angles(&self.config, len, |x| f64::from(x as f32)),
            DType::F64 => angles(&self.config, len, |x| x),
        };
        [f64::cos, f64::sin].map(|f: fn(f64) -> f64| {
            let values = angles.iter().map(|&a| f(a)).collect();
            Tensor::from_vec_f64(values, &[len, self.config.dim / 2]).to_dtype(dtype)
        })
    }
}

impl fmt::Debug for RotaryTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RotaryTable with {} rows of {:?}", self.rows(), self.config)
    }
}

/// position / wavelength for every position and pair; `round` is applied after every step.
fn angles(cfg: &RotaryConfig, len: usize, round: impl Fn(f64) -> f64) -> Vec<f64> {
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
    (0..len).flat_map(|p| wavelengths.iter().map(|w| round(p as f64 / w)).collect::<Vec<_>>()).collect()
}

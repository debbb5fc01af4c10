//! Tables of the rotary position embedding (Su et al. 2021).

use std::f64::consts::PI;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ironlens_tensor::{DType, Device, Tensor};

/// What a rotary table is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct RotaryConfig {
    /// Dimensions of a head that are rotated: the first ones; even.
    pub dim: usize,
    /// Base of the wavelengths.
    pub base: f64,
    /// Rotate pairs (2i, 2i + 1) rather than (i, i + dim / 2).
    pub interleaved: bool,
    /// How wavelengths are stretched, so that a model reads longer texts than it was trained on.
    pub scaling: Option<RopeScaling>,
}

/// How the wavelengths of a rotation are stretched; formulas as in Hugging Face's `modeling_rope_utils`.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Every wavelength times `factor` (position interpolation, Chen et al. 2023).
    Linear {
        /// The multiplier.
        factor: f64,
    },
    /// Llama 3.1's "NTK by parts": wavelengths above `context / low` are multiplied by `factor`, those
    /// below `context / high` stay, and between the two it goes over smoothly.
    Llama3 {
        /// Multiplier of long wavelengths.
        factor: f64,
        /// Sets where "long" begins.
        low: f64,
        /// Sets where "short" ends.
        high: f64,
        /// Context length before stretching.
        context: usize,
    },
    /// YaRN (Peng et al. 2023): dimensions that turn more than `beta_fast` times within `context` stay,
    /// those that turn less than `beta_slow` times are multiplied by `factor`, with a ramp between.
    Yarn {
        /// Multiplier of long wavelengths.
        factor: f64,
        /// Turns within `context` above which a dimension stays as it is.
        beta_fast: f64,
        /// Turns below which it is stretched in full.
        beta_slow: f64,
        /// Context length before stretching.
        context: usize,
        /// Whether the ramp begins and ends at whole dimensions.
        truncate: bool,
        /// Multiplier of cos and sin.
        attention_factor: f64,
    },
    /// LongRoPE (Ding et al. 2024): a multiplier per pair of dimensions, another one for sequences that
    /// are longer than `context`.
    LongRope {
        /// Of sequences up to `context`; `dim / 2` of them.
        short: Vec<f64>,
        /// Of longer ones.
        long: Vec<f64>,
        /// Context length before stretching.
        context: usize,
        /// Multiplier of cos and sin.
        attention_factor: f64,
    },
}

impl RopeScaling {
    /// Multiplier of cos and sin.
    fn attention_factor(&self) -> f64 {
        match self {
            RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. } => 1.0,
            RopeScaling::Yarn { attention_factor, .. } | RopeScaling::LongRope { attention_factor, .. } => {
                *attention_factor
            }
        }
    }
}

/// Rows of cos and sin by position, for one element type on one device.
struct Rows {
    dtype: DType,
    device: Device,
    /// Whether they are for sequences beyond the context of [`RopeScaling::LongRope`].
    long: bool,
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

    /// `(cos, sin)` of positions `0..len` of sequences that are `len` long, `[len, dim / 2]`.
    pub fn tables(&self, len: usize, dtype: DType, device: &Device) -> (Tensor, Tensor) {
        let long = self.is_long(len);
        let alike = |r: &Rows| r.dtype == dtype && r.device == *device && r.long == long;
        let of = |all: &[Rows]| {
            let found = all.iter().find(|r| alike(r) && r.cos.dim(0) >= len)?;
            Some((found.cos.narrow(0, 0, len), found.sin.narrow(0, 0, len)))
        };
        if let Some(held) = of(&self.lock()) {
            return held;
        }
        // Made without the lock: this is shared among rayon's threads, and one that waits for its share may take up
        // another pass, which asks for these tables too. Doubled, so that a sequence that grows by one makes few.
        let [cos, sin] = self.make(len.next_power_of_two(), long, dtype).map(|t| t.to_device(device));
        let mut all = self.lock();
        // Another thread may have made them meanwhile.
        of(&all).unwrap_or_else(|| {
            all.retain(|r| !alike(r));
            let made = (cos.narrow(0, 0, len), sin.narrow(0, 0, len));
            all.push(Rows { dtype, device: device.clone(), long, cos, sin });
            made
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Rows>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether sequences of `len` positions are long ones for [`RopeScaling::LongRope`], which are rotated by
    /// multipliers of their own.
    pub fn is_long(&self, len: usize) -> bool {
        match &self.config.scaling {
            Some(RopeScaling::LongRope { context, .. }) => len > *context,
            Some(RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. } | RopeScaling::Yarn { .. }) | None => false,
        }
    }

    /// Number of positions whose rows are held, over all element types and devices.
    pub fn rows(&self) -> usize {
        self.lock().iter().map(|r| r.cos.dim(0)).sum()
    }

    /// `(cos, sin)` as state dicts hold them, `[n_ctx, dim]`: each angle at both of its pair.
    pub fn state_dict_tables(&self, n_ctx: usize, dtype: DType) -> (Tensor, Tensor) {
        let [cos, sin] = self.make(n_ctx, self.is_long(n_ctx), dtype).map(|t| match self.config.interleaved {
            true => Tensor::stack(&[t.clone(), t.clone()], 2).reshape(&[t.dim(0), 2 * t.dim(1)]),
            false => Tensor::cat(&[t.clone(), t], 1),
        });
        (cos, sin)
    }

    /// cos and sin of positions `0..len`, on the CPU.
    fn make(&self, len: usize, long: bool, dtype: DType) -> [Tensor; 2] {
        let angles = match dtype {
            DType::F32 | DType::Bf16 | DType::F16 => angles(&self.config, len, long, |x| f64::from(x as f32)),
            DType::F64 => angles(&self.config, len, long, |x| x),
        };
        let factor = self.config.scaling.as_ref().map_or(1.0, RopeScaling::attention_factor);
        [f64::cos, f64::sin].map(|f: fn(f64) -> f64| {
            let values = angles.iter().map(|&a| factor * f(a)).collect();
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
fn angles(cfg: &RotaryConfig, len: usize, long: bool, round: impl Fn(f64) -> f64) -> Vec<f64> {
    let wavelengths = wavelengths(cfg, long, &round);
    (0..len).flat_map(|p| wavelengths.iter().map(|w| round(p as f64 / w)).collect::<Vec<_>>()).collect()
}

/// Positions per radian of each pair of dimensions, `dim / 2` of them.
fn wavelengths(cfg: &RotaryConfig, long: bool, round: impl Fn(f64) -> f64) -> Vec<f64> {
    let half = cfg.dim / 2;
    let plain = |i: usize| round(cfg.base.powf(round(i as f64 / half as f64)));
    let pairs = 0..half;
    match &cfg.scaling {
        None => pairs.map(plain).collect(),
        Some(RopeScaling::Linear { factor }) => pairs.map(|i| round(plain(i) * factor)).collect(),
        Some(RopeScaling::Llama3 { factor, low, high, context }) => {
            let context = *context as f64;
            let stretched = |i: usize| {
                let frequency = round(1.0 / round(cfg.base.powf(round(2.0 * i as f64 / cfg.dim as f64))));
                let wavelength = round(2.0 * PI / frequency);
                let stretched = if wavelength > context / low {
                    round(frequency / factor)
                } else if wavelength < context / high {
                    frequency
                } else {
                    let smooth = round(round(round(context / wavelength) - low) / (high - low));
                    let part = round(round(round(1.0 - smooth) * frequency) / factor);
                    round(part + round(smooth * frequency))
                };
                round(1.0 / stretched)
            };
            pairs.map(stretched).collect()
        }
        Some(RopeScaling::Yarn { factor, beta_fast, beta_slow, context, truncate, .. }) => {
            // The (fractional) pair that turns so many times within the context.
            let pair_of =
                |turns: f64| (cfg.dim as f64 * (*context as f64 / (turns * 2.0 * PI)).ln()) / (2.0 * cfg.base.ln());
            let (mut first, mut last) = (pair_of(*beta_fast), pair_of(*beta_slow));
            if *truncate {
                (first, last) = (first.floor(), last.ceil());
            }
            let (first, mut last) = (first.max(0.0), last.min(cfg.dim as f64 - 1.0));
            if first == last {
                last += 0.001;
            }
            let stretched = |i: usize| {
                // 0 where the pair stays, 1 where it is stretched in full.
                let ramp = round(round((i as f64 - first) / (last - first)).clamp(0.0, 1.0));
                let (fast, slow) = (round(1.0 / plain(i)), round(1.0 / round(factor * plain(i))));
                round(1.0 / round(round(slow * ramp) + round(fast * round(1.0 - ramp))))
            };
            pairs.map(stretched).collect()
        }
        Some(RopeScaling::LongRope { short, long: long_factors, .. }) => {
            let factors = if long { long_factors } else { short };
            pairs.map(|i| round(round(factors[i]) * plain(i))).collect()
        }
    }
}

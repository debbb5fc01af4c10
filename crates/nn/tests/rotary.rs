//! Tables of rotations against the formulas of Hugging Face's `modeling_rope_utils`, written out in f64.

use std::f64::consts::PI;
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use ironlens_nn::{RopeScaling, RotaryConfig, RotaryTable};
use ironlens_tensor::{DType, Device, Tensor};

/// `base^(2i / dim)`: positions per radian of pair `i`, as they are without scaling.
fn plain(dim: usize, base: f64) -> Vec<f64> {
    (0..dim / 2).map(|i| base.powf(2.0 * i as f64 / dim as f64)).collect()
}

fn table(dim: usize, base: f64, scaling: Option<RopeScaling>) -> RotaryTable {
    RotaryTable::new(RotaryConfig { dim, base, interleaved: false, scaling })
}

/// Checks `factor * cos(p / w)` and `factor * sin(p / w)` at every position `p` of texts of `len` positions.
#[track_caller]
fn check(table: &RotaryTable, len: usize, wavelengths: &[f64], factor: f64) {
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 2e-5)] {
        let (cos, sin) = table.tables(len, dtype, &Device::Cpu);
        assert_eq!((cos.shape(), sin.shape()), (&[len, wavelengths.len()][..], &[len, wavelengths.len()][..]));
        for (found, f) in [(cos, f64::cos as fn(f64) -> f64), (sin, f64::sin)] {
            for (at, found) in found.to_vec_f64().into_iter().enumerate() {
                let (p, i) = (at / wavelengths.len(), at % wavelengths.len());
                let expected = factor * f(p as f64 / wavelengths[i]);
                assert!(
                    (found - expected).abs() < tolerance,
                    "{found}, expected {expected} at {p}, pair {i}, {dtype:?}"
                );
            }
        }
    }
}

#[test]
fn linear_scaling_multiplies_every_wavelength() {
    let stretched: Vec<f64> = plain(12, 1e4).into_iter().map(|w| 3.5 * w).collect();
    check(&table(12, 1e4, Some(RopeScaling::Linear { factor: 3.5 })), 50, &stretched, 1.0);
    check(&table(12, 1e4, None), 50, &plain(12, 1e4), 1.0);
}

#[test]
fn llama3_stretches_long_wavelengths_and_leaves_short_ones() {
    let (factor, low, high, context) = (8.0, 1.0, 4.0, 64);
    let mut kinds = [0; 3];
    let stretched: Vec<f64> = plain(24, 1e3)
        .into_iter()
        .map(|w| {
            let frequency = 1.0 / w;
            let wavelength = 2.0 * PI / frequency;
            let of_context = context as f64 / wavelength;
            let smooth = (of_context - low) / (high - low);
            let (kind, scaled) = if wavelength > context as f64 / low {
                (0, frequency / factor)
            } else if wavelength < context as f64 / high {
                (1, frequency)
            } else {
                (2, (1.0 - smooth) * frequency / factor + smooth * frequency)
            };
            kinds[kind] += 1;
            1.0 / scaled
        })
        .collect();
    assert!(kinds.iter().all(|n| *n > 0), "{kinds:?}");
    check(&table(24, 1e3, Some(RopeScaling::Llama3 { factor, low, high, context })), 40, &stretched, 1.0);
}

#[test]
fn yarn_ramps_from_kept_to_stretched_dimensions() {
    // Sizes and bases for which the ramp lies within the pairs, begins before the first, ends behind the last,
    // or has no width.
    let cases = [
        (16, 1e4, 4.0, 32.0, 1.0, 256, 1.2),
        (24, 1.5e5, 32.0, 32.0, 1.0, 4096, 1.3465735902799727),
        (8, 1e4, 2.0, 32.0, 1.0, 64, 1.0),
        (8, 100.0, 2.0, 2.0, 1e-3, 64, 1.0),
        (12, 1e4, 2.0, 4.0, 4.0, 128, 0.7),
    ];
    for (dim, base, factor, beta_fast, beta_slow, context, attention_factor) in cases {
        for truncate in [true, false] {
            let pair_of =
                |turns: f64| (dim as f64 * (context as f64 / (turns * 2.0 * PI)).ln()) / (2.0 * f64::ln(base));
            let (mut low, mut high) = (pair_of(beta_fast), pair_of(beta_slow));
            if truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            (low, high) = (low.max(0.0), high.min(dim as f64 - 1.0));
            if low == high {
                high += 0.001;
            }
            let stretched: Vec<f64> = plain(dim, base)
                .into_iter()
                .enumerate()
                .map(|(i, w)| {
                    let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    let kept = 1.0 - ramp;
                    1.0 / ((1.0 / (factor * w)) * (1.0 - kept) + (1.0 / w) * kept)
                })
                .collect();
            let scaling = RopeScaling::Yarn { factor, beta_fast, beta_slow, context, truncate, attention_factor };
            check(&table(dim, base, Some(scaling)), 33, &stretched, attention_factor);
        }
    }
}

#[test]
fn longrope_has_a_multiplier_for_each_pair_and_others_for_long_texts() {
    let (short, long) = (vec![1.0, 1.25, 2.0, 3.0], vec![1.5, 4.0, 9.0, 20.0]);
    let scaling =
        RopeScaling::LongRope { short: short.clone(), long: long.clone(), context: 16, attention_factor: 1.19 };
    let table = table(8, 1e4, Some(scaling));
    let times = |factors: &[f64]| plain(8, 1e4).iter().zip(factors).map(|(w, f)| w * f).collect::<Vec<_>>();
    // Every kind after every other: rows that are held are not taken for those of the other kind.
    for len in [16, 17, 5, 40, 16, 33, 1] {
        check(&table, len, &times(if len > 16 { &long } else { &short }), 1.19);
    }
}

#[test]
fn tables_of_state_dicts_have_each_angle_twice() {
    let scaling =
        RopeScaling::LongRope { short: vec![1.0; 2], long: vec![5.0, 6.0], context: 8, attention_factor: 1.0 };
    for interleaved in [false, true] {
        let table = RotaryTable::new(RotaryConfig { dim: 4, base: 1e4, interleaved, scaling: Some(scaling.clone()) });
        for n_ctx in [8, 9] {
            let (cos, sin) = table.state_dict_tables(n_ctx, DType::F64);
            let (half_cos, half_sin) = table.tables(n_ctx, DType::F64, &Device::Cpu);
            for (whole, half) in [(cos, half_cos), (sin, half_sin)] {
                assert_eq!(whole.shape(), [n_ctx, 4]);
                let column = |t: &Tensor, i: usize| t.select(1, i).to_vec_f64();
                for i in 0..2 {
                    let places = if interleaved { [2 * i, 2 * i + 1] } else { [i, i + 2] };
                    for place in places {
                        assert_eq!(column(&whole, place), column(&half, i), "interleaved {interleaved}, pair {i}");
                    }
                }
            }
        }
    }
}

/// Passes on all of rayon's threads and on one that is none of them, whose work these would have to do.
#[test]
fn passes_at_the_same_time_do_not_wait_for_each_other() {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for _ in 0..20 {
            let table = Arc::new(table(4, 1e4, None));
            let workers = rayon::current_num_threads();
            let start = Arc::new(Barrier::new(workers + 1));
            let (done, all_done) = mpsc::channel();
            for _ in 0..workers {
                let (table, start, done) = (table.clone(), start.clone(), done.clone());
                rayon::spawn(move || {
                    start.wait();
                    // Long enough that their conversion is shared among threads.
                    done.send(table.tables(1 << 14, DType::F32, &Device::Cpu).0.shape().to_vec()).unwrap();
                });
            }
            drop(done);
            start.wait();
            let here = table.tables(1 << 14, DType::F32, &Device::Cpu).0.shape().to_vec();
            assert!(all_done.iter().all(|there| there == here));
            assert_eq!(table.rows(), 1 << 14, "one table is kept");
        }
        tell.send(()).unwrap();
    });
    told.recv_timeout(Duration::from_secs(120)).expect("passes wait for each other");
}

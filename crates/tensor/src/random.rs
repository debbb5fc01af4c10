//! Seeded random tensors: the same seed gives the same numbers on every machine and device.

use ndarray::{ArrayD, IxDyn};
use ndarray_rand::RandomExt;
use ndarray_rand::rand::Rng as _;
use ndarray_rand::rand_distr::{Normal, Uniform};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::{Device, IndexTensor, Tensor, check};

/// A portable generator (ChaCha8). `Rng::new(seed, stream)` are independent for different
/// streams of one seed.
#[derive(Debug)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The generator of a seed and a stream.
    pub fn new(seed: u64, stream: u64) -> Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Rng(rng)
    }

    /// Normal numbers.
    ///
    /// # Panics
    /// If the mean or the deviation is not finite.
    #[track_caller]
    pub fn normal(&mut self, shape: &[usize], mean: f64, std: f64, device: &Device) -> Tensor {
        check::numel(shape);
        assert!(mean.is_finite(), "normal numbers need a finite mean and deviation, not {mean} and {std}");
        let distribution = Normal::new(mean as f32, std.abs() as f32)
            .unwrap_or_else(|_| panic!("normal numbers need a finite mean and deviation, not {mean} and {std}"));
        Tensor::from(ArrayD::random_using(IxDyn(shape), distribution, &mut self.0)).to_device(device)
    }

    /// Numbers spread evenly over `low..high`.
    ///
    /// # Panics
    /// If `low` is not below `high`, or one of them is not finite.
    #[track_caller]
    pub fn uniform(&mut self, shape: &[usize], low: f64, high: f64, device: &Device) -> Tensor {
        check::numel(shape);
        let distribution = Uniform::new(low as f32, high as f32)
            .unwrap_or_else(|_| panic!("uniform numbers need finite low < high, not {low} and {high}"));
        Tensor::from(ArrayD::random_using(IxDyn(shape), distribution, &mut self.0)).to_device(device)
    }

    /// Integers spread evenly over `low..high`.
    ///
    /// # Panics
    /// If there are none between the two.
    #[track_caller]
    pub fn integers(&mut self, shape: &[usize], low: u32, high: u32) -> IndexTensor {
        assert!(low < high, "integers are drawn from low to high, without high: there are none from {low} to {high}");
        let values: Vec<u32> = (0..check::numel(shape)).map(|_| self.0.random_range(low..high)).collect();
        IndexTensor::new(values, shape)
    }

    /// For each row of `weights` `[.., n]` an index below `n`, as likely as its weight: PyTorch's
    /// `Categorical(probs=weights).sample()`. Weights need not add up to 1.
    ///
    /// ```
    /// # use ironlens_tensor::{Rng, Tensor};
    /// let logits = Tensor::from([[0.0, 9.0, 0.0], [9.0, 0.0, 9.0]]);
    /// let tokens = Rng::new(0, 0).categorical(&(logits / 0.7).softmax());   // at temperature 0.7
    /// assert_eq!(tokens.as_slice()[0], 1);
    /// ```
    ///
    /// # Panics
    /// If there is no row, or one has a weight that is negative or not finite, or none above 0.
    #[track_caller]
    pub fn categorical(&mut self, weights: &Tensor) -> IndexTensor {
        let n = weights.dim(-1);
        assert!(n > 0, "categorical: weights of shape {:?} are of nothing", weights.shape());
        let drawn: Vec<u32> = weights.to_vec_f64().chunks(n.max(1)).map(|row| self.index(row)).collect();
        IndexTensor::new(drawn, &weights.shape()[..weights.ndim() - 1])
    }

    /// An index of `weights`, as likely as its weight.
    #[track_caller]
    fn index(&mut self, weights: &[f64]) -> u32 {
        let sum: f64 = weights.iter().sum();
        let fit = weights.iter().all(|w| *w >= 0.0) && sum.is_finite() && sum > 0.0;
        assert!(fit, "categorical: weights must be finite and at least 0, and one of a row above 0, not {weights:?}");
        let mut left = self.0.random::<f64>() * sum;
        let chosen = weights.iter().position(|w| {
            left -= w;
            left < 0.0
        });
        // Rounding may leave a rest behind the last.
        chosen.or_else(|| weights.iter().rposition(|w| *w > 0.0)).unwrap_or(0) as u32
    }

    /// The values in another order, each order as likely as any other.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        // Fisher-Yates; written out here so that the order never depends on another crate's version.
        for i in (1..values.len()).rev() {
            values.swap(i, self.0.random_range(0..=i as u64) as usize);
        }
    }

    /// 0, 1, .. `n - 1` in another order: for [`IndexTensor::index_select`] and its like.
    pub fn permutation(&mut self, n: usize) -> IndexTensor {
        let mut ids: Vec<u32> = (0..n as u32).collect();
        self.shuffle(&mut ids);
        IndexTensor::from(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_portable_and_streams_differ() {
        let x = Rng::new(7, 0).normal(&[1000], 0.0, 1.0, &Device::Cpu);
        assert_eq!(x.to_vec(), Rng::new(7, 0).normal(&[1000], 0.0, 1.0, &Device::Cpu).to_vec());
        assert_ne!(x.to_vec(), Rng::new(7, 1).normal(&[1000], 0.0, 1.0, &Device::Cpu).to_vec());
        assert!(x.mean_all().item().abs() < 0.1 && (x.square().mean_all().item() - 1.0).abs() < 0.1);
        // Pinned: a change of generator would change every seeded model.
        assert_eq!(Rng::new(137, 0).integers(&[6], 1, 300).as_slice(), PINNED);
        let bits = |x: Tensor| x.to_vec().into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(Rng::new(137, 1).normal(&[4], 0.0, 1.0, &Device::Cpu)), PINNED_NORMAL);
        assert_eq!(bits(Rng::new(137, 2).uniform(&[4], 0.0, 1.0, &Device::Cpu)), PINNED_UNIFORM);
        let mut order = [0, 1, 2, 3, 4, 5, 6, 7];
        Rng::new(137, 3).shuffle(&mut order);
        assert_eq!(order, PINNED_ORDER);
    }

    #[test]
    fn draws_are_as_likely_as_their_weights() {
        let weights = Tensor::from([[0.0, 3.0, 1.0], [0.5, 0.0, 0.0]]);
        let mut rng = Rng::new(5, 0);
        let mut counts = [0; 3];
        for _ in 0..4000 {
            let drawn = rng.categorical(&weights);
            assert_eq!((drawn.shape(), drawn.as_slice()[1]), (&[2][..], 0));
            counts[drawn.as_slice()[0] as usize] += 1;
        }
        // 3000 expected, with a standard deviation of 27.
        assert!(counts[0] == 0 && (2890..3110).contains(&counts[1]), "{counts:?}");
        assert_eq!(Rng::new(5, 0).categorical(&Tensor::from([0.0, 0.0, 2.0])).item(), 2);
        for wrong in [[0.0, 0.0], [1.0, -1.0], [f32::NAN, 1.0]] {
            assert!(std::panic::catch_unwind(|| Rng::new(0, 0).categorical(&Tensor::from(wrong))).is_err());
        }
    }

    #[test]
    fn permutations_are_of_all_and_seeded() {
        let p = Rng::new(3, 0).permutation(100);
        let mut sorted = p.as_slice().to_vec();
        assert_eq!(p, Rng::new(3, 0).permutation(100));
        assert_ne!(p, Rng::new(4, 0).permutation(100));
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<u32>>());
    }

    const PINNED: &[u32] = &[201, 266, 121, 202, 48, 45];
    const PINNED_NORMAL: [u32; 4] = [3202776103, 3206479886, 1010524325, 3217260475];
    const PINNED_UNIFORM: [u32; 4] = [1064999064, 1057739250, 1062669126, 1051398032];
    const PINNED_ORDER: [usize; 8] = [1, 7, 4, 0, 2, 5, 3, 6];
}

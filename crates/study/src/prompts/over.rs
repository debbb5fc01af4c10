//! Values of several prompts: their mean, and how far they spread.

use ironlens_tensor::Tensor;

use crate::picture::Picture;

/// Tensors of one shape, one for each prompt.
#[derive(Default)]
pub(super) struct Over(Vec<Tensor>);

impl Over {
    pub fn push(&mut self, value: Tensor) {
        self.0.push(value);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A picture of the mean, where cells that may be noise are grey, and, where there are several prompts, one of
    /// the standard deviation. `draw` is given a
    /// title and values.
    ///
    /// # Panics
    /// If there are no values.
    pub fn pictures(&self, title: &str, draw: impl Fn(String, &Tensor) -> Picture) -> Vec<Picture> {
        match self.0.as_slice() {
            [] => panic!("{title}: there is no prompt to show"),
            [one] => vec![draw(title.into(), one)],
            all => {
                let (n, all) = (all.len() as f64, Tensor::stack(all, 0));
                let spread = all.std(0);
                let mean = draw(format!("{title}, mean"), &all.mean(0)).noise(&spread.affine(1.0 / n.sqrt(), 0.0));
                vec![mean, draw(format!("{title}, standard deviation"), &spread).unsigned()]
            }
        }
    }
}

/// The mean over prompts of each number, given one list for each prompt.
pub(super) fn mean(all: &[Vec<f64>]) -> Vec<f64> {
    let mut sums = vec![0.0; all.first().map_or(0, Vec::len)];
    for one in all {
        sums.iter_mut().zip(one).for_each(|(sum, v)| *sum += v / all.len() as f64);
    }
    sums
}

/// The standard deviation over prompts of each number; 0 of a single prompt.
pub(super) fn spread(all: &[Vec<f64>]) -> Vec<f64> {
    let mean = mean(all);
    let squares = all.iter().map(|one| one.iter().zip(&mean).map(|(v, m)| (v - m) * (v - m)).collect());
    let squares: Vec<Vec<f64>> = squares.collect();
    let several = (all.len() as f64 / (all.len() as f64 - 1.0).max(1.0)).sqrt();
    self::mean(&squares).into_iter().map(|v| v.sqrt() * several).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_spreads_are_those_of_the_numbers() {
        let all = [vec![1.0, 5.0], vec![3.0, 5.0], vec![8.0, 5.0]];
        assert_eq!(mean(&all), [4.0, 5.0]);
        // (9 + 1 + 16) / 2 = 13.
        assert!((spread(&all)[0] - 13f64.sqrt()).abs() < 1e-12 && spread(&all)[1] < 1e-12);
        assert_eq!(spread(&all[..1]), [0.0, 0.0]);
    }
}

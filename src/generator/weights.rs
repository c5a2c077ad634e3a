//! Choice by weight.

use rand::Rng;

/// Things with weights, to choose from.
#[derive(Debug)]
pub(super) struct Weights {
    /// The sum of the weights up to and with each thing.
    cumulative: Vec<u64>,
}

impl Weights {
    pub(super) fn new(weights: impl IntoIterator<Item = u64>) -> Self {
        let sums = weights.into_iter().scan(0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self { cumulative: sums.collect() }
    }

    /// The index of one of them.
    pub(super) fn pick(&self, rng: &mut impl Rng) -> usize {
        let total = self.cumulative.last().copied().unwrap_or(0);
        if total == 0 {
            return 0;
        }
        let at = rng.random_range(0..total);
        self.cumulative.partition_point(|sum| *sum <= at)
    }
}

//! Chance that can be had again.
//!
//! Every part of a run draws from a stream of its own, made of the seed and
//! the stream's number, so that what one part does never shifts what another
//! draws. Which operations and faults come in which order is therefore the same
//! for the same seed; only their exact times are the machine's.

use std::time::Duration;

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// One part's stream of chance.
pub(crate) struct Chance(ChaCha8Rng);

impl Chance {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// One of `items`, which must not be empty.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.0.random_range(0..items.len())]
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        items.shuffle(&mut self.0);
    }

    /// A number of `range`, which must not be empty.
    pub(crate) fn within(&mut self, range: std::ops::RangeInclusive<u64>) -> u64 {
        self.0.random_range(range)
    }

    /// A time to wait: exponentially distributed, so that knowing how long it has
    /// been says nothing about how long it will be. Never above four means.
    pub(crate) fn around(&mut self, mean: Duration) -> Duration {
        let uniform: f64 = self.0.random();
        mean.mul_f64((-(1.0 - uniform).ln()).min(4.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_stream_draw_the_same() {
        let draw = |seed, stream| {
            let mut chance = Chance::new(seed, stream);
            let mut deck: Vec<u32> = (0..50).collect();
            chance.shuffle(&mut deck);
            (deck, chance.around(Duration::from_secs(1)))
        };
        assert_eq!(draw(7, 3), draw(7, 3));
        assert_ne!(draw(7, 3), draw(8, 3));
        assert_ne!(draw(7, 3), draw(7, 4));
    }

    #[test]
    fn times_keep_to_their_mean_and_bound() {
        let mut chance = Chance::new(1, 1);
        let mean = Duration::from_millis(100);
        let times: Vec<Duration> = (0..2_000).map(|_| chance.around(mean)).collect();
        let total: Duration = times.iter().sum();
        assert!((80..120).contains(&(total / 2_000).as_millis()), "{:?}", total / 2_000);
        assert!(times.iter().all(|&time| time <= mean * 4));
        assert_eq!(chance.around(Duration::ZERO), Duration::ZERO);
    }
}

//! Silence: how long no request was answered at all.
//!
//! Percentiles do not show an outage. While nobody is answered, closed-loop clients wait, so an outage of a second is
//! one slow request for each client among hundreds of thousands. What its users see is the time between two answers
//! that follow each other, whoever got them.
//!
//! Each worker notes the silences among its own clients. All of them are silent at once where the silences of every
//! worker overlap, so nothing has to be shared while it is measured.

use std::time::{Duration, Instant};

/// Silences that are shorter are not noted.
pub(super) const NOTED: Duration = Duration::from_millis(1);

/// When nobody was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Silences {
    /// Those that have ended, in their order; none touches another.
    ended: Vec<(Instant, Instant)>,
    /// The one that goes on: since the last answer, or the beginning.
    since: Instant,
}

impl Silences {
    /// Silence begins now.
    pub(super) fn from(begin: Instant) -> Self {
        Self { ended: Vec::new(), since: begin }
    }

    /// An answer, not earlier than those before.
    pub(super) fn answered(&mut self, at: Instant) {
        if at.saturating_duration_since(self.since) >= NOTED {
            self.ended.push((self.since, at));
        }
        self.since = self.since.max(at);
    }

    /// Silence of both.
    pub(super) fn and(&self, other: &Self) -> Self {
        // After the later of the two last answers, both are silent until the end.
        let since = self.since.max(other.since);
        let closed = |one: &Self| {
            let open = (one.since < since).then_some((one.since, since));
            one.ended.iter().copied().chain(open).collect::<Vec<_>>()
        };
        let (own, others) = (closed(self), closed(other));
        let (mut ended, mut i, mut j) = (Vec::new(), 0, 0);
        while let (Some(one), Some(another)) = (own.get(i), others.get(j)) {
            let (begin, end) = (one.0.max(another.0), one.1.min(another.1));
            if end.saturating_duration_since(begin) >= NOTED {
                ended.push((begin, end));
            }
            // The one that ends first meets no other.
            if one.1 <= another.1 { i += 1 } else { j += 1 }
        }
        Self { ended, since }
    }

    /// The longest until then; [`NOTED`] if all were shorter.
    pub(super) fn longest(&self, until: Instant) -> Duration {
        let open = until.saturating_duration_since(self.since);
        let ended = self.ended.iter().map(|(begin, end)| *end - *begin).max();
        ended.unwrap_or(NOTED).max(open).max(NOTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn silences(begin: Instant, answers: &[u32]) -> Silences {
        let mut silences = Silences::from(begin);
        answers.iter().for_each(|&at| silences.answered(begin + MILLI * at));
        silences
    }

    #[test]
    fn silence_is_between_two_answers_or_before_the_first_or_after_the_last() {
        let begin = Instant::now();
        let longest = |answers: &[u32], until| silences(begin, answers).longest(begin + MILLI * until);
        assert_eq!(longest(&[1, 2, 40, 41], 42), MILLI * 38);
        assert_eq!(longest(&[20, 30], 35), MILLI * 20);
        assert_eq!(longest(&[20, 30], 90), MILLI * 60);
        assert_eq!(longest(&[], 7), MILLI * 7);
        assert_eq!(longest(&[0, 0, 1], 1), NOTED);
    }

    #[test]
    fn workers_are_silent_together_where_their_silences_overlap() {
        let begin = Instant::now();
        let sets: [&[u32]; 5] = [&[], &[5], &[0, 10, 50, 60, 99], &[3, 4, 30, 70], &[1, 2, 3, 55, 56, 80]];
        for one in sets {
            for other in sets {
                let mut all = [one, other].concat();
                all.sort_unstable();
                let (expected, both) =
                    (silences(begin, &all), silences(begin, one).and(&silences(begin, other)));
                assert_eq!(both, expected, "{one:?} and {other:?}");
            }
        }
    }
}

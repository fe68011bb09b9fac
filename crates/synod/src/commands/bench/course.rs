//! When a measurement begins and ends, and what counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::schedule::Schedule;

/// How long is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// For a time.
    Time(Duration),
    /// Until so many requests were answered or failed.
    Requests(u64),
}

/// One measurement, as all clients see it. What they share is two counters.
#[derive(Debug)]
pub(super) struct Course {
    /// When what happens begins to count.
    pub(super) from: Instant,
    extent: Extent,
    /// When clients set out: until [`Course::from`] they warm up.
    pub(super) begin: Instant,
    /// Requests per second that are due, of all workers together, in an open loop.
    pub(super) rate: Option<u32>,
    /// Tickets given away.
    tickets: AtomicU64,
    /// Requests that have ended, for the progress to be shown.
    ended: AtomicU64,
}

/// The leave to send a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// It counts if it ends in the measured time.
    Timed,
    /// It counts, and is of this number.
    Ticket(u64),
    /// It does not count.
    WarmUp,
}

impl Course {
    pub(super) fn new(begin: Instant, warm_up: Duration, extent: Extent, rate: Option<u32>) -> Self {
        let from = begin + warm_up;
        Self { from, extent, begin, rate, tickets: AtomicU64::new(0), ended: AtomicU64::new(0) }
    }

    /// When the measured time ends, if it is known.
    pub(super) fn until(&self) -> Option<Instant> {
        match self.extent {
            Extent::Time(duration) => Some(self.from + duration),
            Extent::Requests(_) => None,
        }
    }

    /// When the requests of this worker are due, in an open loop, which has an end.
    pub(super) fn schedule(&self, worker: u64, workers: u64) -> Option<Schedule> {
        let (begin, from) = (self.begin, self.from);
        let until = self.until()?;
        self.rate.map(|rate| Schedule { begin, from, until, rate, workers, worker })
    }

    /// Asks to send a request now; `None` if it is over.
    pub(super) fn leave(&self, now: Instant) -> Option<Leave> {
        match self.extent {
            Extent::Time(duration) => (now < self.from + duration).then_some(Leave::Timed),
            Extent::Requests(_) if now < self.from => Some(Leave::WarmUp),
            Extent::Requests(all) => {
                let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
                (ticket < all).then_some(Leave::Ticket(ticket))
            }
        }
    }

    /// Whether a request counts that ended now. One that failed counts also if its end was not waited for in the
    /// measured time: what a server swallows must not go unseen.
    pub(super) fn counts(&self, leave: Leave, ended: Instant, failed: bool) -> bool {
        let counts = match (leave, self.until()) {
            (Leave::Ticket(_), _) => true,
            (Leave::Timed, Some(until)) => self.from <= ended && (ended < until || failed),
            (Leave::Timed, None) | (Leave::WarmUp, _) => false,
        };
        if counts {
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
        counts
    }

    /// How many requests have ended that count.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_time_counts_what_ends_in_it() {
        let from = Instant::now() + SECOND;
        let course = Course::new(from - SECOND, SECOND, Extent::Time(SECOND), None);
        assert_eq!(course.leave(from - SECOND), Some(Leave::Timed));
        assert_eq!(course.leave(from + SECOND), None);
        let counts = |at, failed| course.counts(Leave::Timed, at, failed);
        assert!(!counts(from - SECOND / 2, false) && !counts(from - SECOND / 2, true));
        assert!(counts(from, false) && counts(from + SECOND / 2, true));
        assert!(!counts(from + SECOND, false), "answered too late to count");
        assert!(counts(from + SECOND, true), "never answered");
        assert_eq!(course.ended(), 3);
    }

    #[test]
    fn a_number_of_requests_is_given_away_once() {
        let from = Instant::now() + SECOND;
        let course = Course::new(from - SECOND, SECOND, Extent::Requests(2), None);
        assert_eq!(course.leave(from - SECOND / 2), Some(Leave::WarmUp));
        assert_eq!(course.leave(from), Some(Leave::Ticket(0)));
        assert_eq!(course.leave(from + SECOND * 9), Some(Leave::Ticket(1)));
        assert_eq!((course.leave(from), course.leave(from)), (None, None));
        assert!(course.counts(Leave::Ticket(1), from + SECOND * 99, false));
        assert!(!course.counts(Leave::WarmUp, from, false));
    }
}

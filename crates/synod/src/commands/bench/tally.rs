//! What a worker writes down: latencies, and what went wrong.
//!
//! Each worker thread has a tally of its own and nobody else looks at it before the end, so counting takes no lock.
//! The tallies are added up then; histograms lose nothing by that.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use synod_client::{ClientError, Failure};
use tonic::Code;

use super::silence::Silences;

/// Latencies are told apart from half a microsecond on, in nanoseconds.
const FINEST: u64 = 1_000;
/// Longer ones count as this: ten minutes, in nanoseconds.
const LONGEST: u64 = 600_000_000_000;
/// Digits that are kept of a latency, so that percentiles are right within a thousandth.
const DIGITS: u8 = 3;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// What failures are counted by.
    pub(super) kind: String,
    pub(super) what: String,
    /// Whether the connection is of no use any more.
    pub(super) disconnected: bool,
}

impl Fault {
    fn new(kind: impl Into<String>, what: impl Display) -> Self {
        Self { kind: kind.into(), what: what.to_string(), disconnected: false }
    }

    pub(super) fn connect(address: &str, error: &dyn Display) -> Self {
        Self { disconnected: true, ..Self::new("no connection", format!("{address}: {error}")) }
    }

    pub(super) fn broken(error: &h2::Error) -> Self {
        // A reset ends one call; everything else ends the connection.
        let disconnected = !error.is_reset();
        Self { disconnected, ..Self::new("broken connection", error) }
    }

    pub(super) fn malformed(what: impl Display) -> Self {
        Self::new("malformed answer", what)
    }

    /// An answer that can be read, and cannot be true.
    pub(super) fn wrong(what: impl Display) -> Self {
        Self::new("wrong answer", what)
    }

    pub(super) fn status(code: i32, message: &str) -> Self {
        Self::new(format!("status {:?}", Code::from_i32(code)), message)
    }

    /// A call of the client that everybody uses.
    pub(super) fn client(error: &ClientError) -> Self {
        match error.failure {
            Failure::Status { code, .. } => Self::new(format!("status {code:?}"), error),
            Failure::BadEndpoint(_) | Failure::Connect(_) => Self::new("no connection", error),
            Failure::Broken(_) => Self::new("broken connection", error),
            Failure::Deadline(_) => Self::new("timeout", error),
        }
    }

    pub(super) fn timeout(limit: Duration) -> Self {
        Self::new("timeout", format!("no answer within {limit:?}"))
    }
}

/// Failures of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Failures {
    pub(super) kind: String,
    pub(super) count: u64,
    /// What the first one said.
    pub(super) first: String,
}

/// What failed, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults(BTreeMap<String, Failures>);

impl Faults {
    /// Counts one.
    pub(super) fn add(&mut self, fault: Fault) {
        let Fault { kind, what, .. } = fault;
        let fresh = || Failures { kind: kind.clone(), count: 0, first: what };
        self.0.entry(kind.clone()).or_insert_with(fresh).count += 1;
    }

    /// Takes over those of others.
    fn add_all(&mut self, others: Self) {
        for (kind, failures) in others.0 {
            match self.0.get_mut(&kind) {
                Some(known) => known.count += failures.count,
                None => drop(self.0.insert(kind, failures)),
            }
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.0.values().map(|failures| failures.count).sum()
    }

    /// The most frequent kind first.
    pub(super) fn kinds(&self) -> Vec<Failures> {
        let mut kinds: Vec<Failures> = self.0.values().cloned().collect();
        kinds.sort_by_key(|failures| std::cmp::Reverse(failures.count));
        kinds
    }
}

/// What was seen in the measured time.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// Of all that were answered rightly, in nanoseconds.
    pub(super) latencies: Histogram<u64>,
    /// Transactions among them whose condition did not hold.
    pub(super) conflicts: u64,
    pub(super) faults: Faults,
    /// When nobody was answered.
    pub(super) silences: Silences,
    /// When the last of them ended.
    pub(super) last: Option<Instant>,
    /// In an open loop: requests that were due, and those of them that no client was free for.
    pub(super) due: u64,
    pub(super) not_sent: u64,
}

impl Tally {
    /// An empty one, for what happens from then on.
    pub(super) fn from(begin: Instant) -> Self {
        let latencies = Histogram::new_with_bounds(FINEST, LONGEST, DIGITS).expect("the bounds are in order");
        Self {
            latencies,
            conflicts: 0,
            faults: Faults::default(),
            silences: Silences::from(begin),
            last: None,
            due: 0,
            not_sent: 0,
        }
    }

    /// Counts a request that was answered.
    pub(super) fn answered(&mut self, took: Duration, conflict: bool, at: Instant) {
        self.latencies.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(LONGEST));
        self.conflicts += u64::from(conflict);
        self.silences.answered(at);
        self.last = self.last.max(Some(at));
    }

    /// Counts a request that failed.
    pub(super) fn failed(&mut self, fault: Fault, at: Instant) {
        self.faults.add(fault);
        self.last = self.last.max(Some(at));
    }

    /// Takes over what another worker has counted.
    pub(super) fn add(&mut self, other: Self) {
        self.latencies.add(&other.latencies).expect("all have the same bounds");
        self.conflicts += other.conflicts;
        self.silences = self.silences.and(&other.silences);
        self.last = self.last.max(other.last);
        self.due += other.due;
        self.not_sent += other.not_sent;
        self.faults.add_all(other.faults);
    }

    pub(super) fn answers(&self) -> u64 {
        self.latencies.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn tallies_add_up() {
        let now = Instant::now();
        let (mut one, mut other) = (Tally::from(now), Tally::from(now));
        (1..=50).for_each(|i| one.answered(MILLI * i, false, now));
        (51..=100).for_each(|i| other.answered(MILLI * i, i == 60, now + MILLI));
        one.failed(Fault::wrong("a"), now);
        other.failed(Fault::wrong("b"), now);
        other.failed(Fault::timeout(MILLI), now);
        (one.due, one.not_sent, other.due, other.not_sent) = (60, 1, 50, 2);
        one.add(other);
        assert_eq!((one.due, one.not_sent), (110, 3));
        assert_eq!((one.answers(), one.conflicts, one.faults.count()), (100, 1, 3));
        assert_eq!(one.last, Some(now + MILLI));
        for (quantile, expected) in [(0.5, 50e6), (0.9, 90e6), (0.99, 99e6), (1.0, 100e6)] {
            let seen = one.latencies.value_at_quantile(quantile) as f64;
            assert!((seen / expected - 1.0).abs() < 0.001, "{quantile}: {seen}");
        }
        let kinds = one.faults.kinds();
        let first = Failures { kind: "wrong answer".to_owned(), count: 2, first: "a".to_owned() };
        assert_eq!(kinds[0], first);
        assert_eq!((kinds[1].kind.as_str(), kinds[1].count), ("timeout", 1));
    }

    #[test]
    fn what_took_too_long_for_the_histogram_counts_still() {
        let mut tally = Tally::from(Instant::now());
        tally.answered(Duration::from_secs(3_600), false, Instant::now());
        tally.answered(Duration::ZERO, false, Instant::now());
        assert_eq!(tally.answers(), 2);
        assert!(tally.latencies.max() >= LONGEST);
    }
}

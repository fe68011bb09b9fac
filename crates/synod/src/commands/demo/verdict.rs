//! What was found, counted and put into a sentence.

use serde::Serialize;
use synod_sim::{Call, Outcome};

use crate::cluster::call::Done;
use crate::cluster::judge::{Check, State, worst};

/// Everything that was found, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Findings {
    pub(super) operations: Vec<Row>,
    pub(super) faults: u32,
    /// Faults that struck while a client waited for an answer.
    pub(super) struck: u32,
    pub(super) leaders: u32,
    pub(super) checks: Vec<Check>,
    pub(super) verdict: String,
    pub(super) seed: u64,
    /// The command line that does it again.
    pub(super) again: String,
}

/// Operations of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    pub(super) kind: &'static str,
    pub(super) ok: usize,
    pub(super) failed: usize,
    pub(super) unknown: usize,
    pub(super) median_micros: Option<u64>,
    pub(super) longest_micros: Option<u64>,
}

impl Findings {
    pub(super) fn state(&self) -> State {
        worst(&self.checks)
    }
}

/// Counts what the clients did.
pub(super) fn rows(done: &[Done]) -> Vec<Row> {
    let kind_of = |done: &Done| match done.operation.call {
        Call::Put { .. } => "puts",
        Call::Get { .. } => "gets",
        Call::Delete { .. } => "deletes",
    };
    let row = |kind| {
        let of_kind: Vec<&Done> = done.iter().filter(|done| kind_of(done) == kind).collect();
        let count = |outcome: fn(&Outcome) -> bool| {
            of_kind.iter().filter(|done| outcome(&done.operation.outcome)).count()
        };
        let mut times: Vec<u64> = of_kind
            .iter()
            .filter(|done| done.operation.answer().is_some())
            .map(|done| u64::try_from(done.took.as_micros()).unwrap_or(u64::MAX))
            .collect();
        times.sort_unstable();
        Row {
            kind,
            ok: times.len(),
            failed: count(|outcome| *outcome == Outcome::NotApplied),
            unknown: count(|outcome| *outcome == Outcome::Unknown),
            median_micros: times.get(times.len() / 2).copied(),
            longest_micros: times.last().copied(),
        }
    };
    ["puts", "gets", "deletes"].into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::judge::stories::{answered, get, operation, put};
    use std::time::Duration;
    use synod_sim::Saw;

    #[test]
    fn rows_count_by_kind_and_outcome() {
        let done = |call, outcome, millis| Done {
            operation: operation(0, call, outcome),
            took: Duration::from_millis(millis),
            error: None,
        };
        let ok = || answered(5, 2, Saw::Absent);
        let rows = rows(&[
            done(put(), ok(), 3),
            done(put(), ok(), 9),
            done(put(), ok(), 1),
            done(put(), Outcome::Unknown, 5_000),
            done(get(), Outcome::NotApplied, 7),
        ]);
        assert_eq!((rows[0].ok, rows[0].failed, rows[0].unknown), (3, 0, 1));
        assert_eq!((rows[0].median_micros, rows[0].longest_micros), (Some(3_000), Some(9_000)));
        assert_eq!((rows[1].ok, rows[1].failed, rows[1].median_micros), (0, 1, None));
        assert_eq!(rows[2].ok, 0);
    }
}

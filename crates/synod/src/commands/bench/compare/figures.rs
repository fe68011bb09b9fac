//! What is compared, and how: medians over the rounds, and ratios within a round.
//!
//! Machines differ from hour to hour, and so do figures. A ratio is therefore made of what both systems did in the
//! same round, minutes apart, and it is told with the least and the most that was seen in any round.

use serde::{Serialize, Serializer};

use super::super::point::Point;
use super::super::workload::Workload;

/// The middle of some values, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    /// Of these values; `None` if there is none. Of an even number of values, the median is in the middle of the two
    /// in the middle.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Self { median, least, most })
    }
}

/// One of etcd, and one of synod.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Both<T> {
    pub(super) etcd: T,
    pub(super) synod: T,
}

impl<T> Both<T> {
    pub(super) fn map<U>(&self, of: impl Fn(&T) -> U) -> Both<U> {
        Both { etcd: of(&self.etcd), synod: of(&self.synod) }
    }
}

/// What the servers were put to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A workload with so many clients, for a time.
    Run(Workload, usize),
    /// So many puts that memory shows what stays.
    ManyPuts,
    /// Puts while the leader is killed.
    Kill,
}

impl Work {
    pub(super) fn name(self) -> String {
        match self {
            Self::Run(workload, _) => workload.name(),
            Self::ManyPuts => "many puts".to_owned(),
            Self::Kill => "leader killed".to_owned(),
        }
    }
}

impl Serialize for Work {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Run(workload, clients) => {
                serializer.collect_str(&format_args!("{} {clients}", workload.name()))
            }
            Self::ManyPuts => serializer.serialize_str("many_puts"),
            Self::Kill => serializer.serialize_str("leader_killed"),
        }
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Figure {
    AnsweredPerSecond,
    P50Us,
    P99Us,
    ServerCpuUs,
    ServerWrittenBytes,
    ServerResidentBytes,
    LongestSilenceUs,
    Failed,
}

impl Figure {
    /// As a heading.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AnsweredPerSecond => "ops/s",
            Self::P50Us => "p50",
            Self::P99Us => "p99",
            Self::ServerCpuUs => "CPU/op",
            Self::ServerWrittenBytes => "disk/op",
            Self::ServerResidentBytes => "memory",
            Self::LongestSilenceUs => "longest gap",
            Self::Failed => "failed calls",
        }
    }

    /// Its value; `None` if it was not seen, or means nothing because no request was answered.
    pub(super) fn of(self, point: &Point) -> Option<f64> {
        let answered = |value: f64| (point.answered > 0).then_some(value);
        match self {
            Self::AnsweredPerSecond => Some(point.answered_per_second),
            Self::P50Us => answered(point.latency_us.p50),
            Self::P99Us => answered(point.latency_us.p99),
            Self::ServerCpuUs => point.server_cpu_us,
            Self::ServerWrittenBytes => point.server_written_bytes,
            Self::ServerResidentBytes => point.server_resident_bytes.map(|bytes| bytes as f64),
            Self::LongestSilenceUs => Some(point.longest_silence_us),
            Self::Failed => Some(point.failed as f64),
        }
    }

    /// How many times better synod is: more of what there should be much of, less of all else. `None` where that is no
    /// number.
    pub(super) fn times_better(self, values: Both<f64>) -> Option<f64> {
        let Both { etcd, synod } = values;
        let (better, worse) = match self {
            Self::AnsweredPerSecond => (synod, etcd),
            _ => (etcd, synod),
        };
        (worse > 0.0).then_some(better / worse)
    }
}

/// What one system did in one round.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Played {
    pub(super) points: Vec<Point>,
    /// The memory is that in the end; `None` if it was not asked for.
    pub(super) many_puts: Option<Point>,
    /// One for each time that the leader was killed.
    pub(super) kills: Vec<Point>,
}

impl Played {
    fn values(&self, work: Work, figure: Figure) -> Vec<f64> {
        let of = |points: &[Point]| points.iter().filter_map(|point| figure.of(point)).collect();
        match work {
            Work::Run(workload, clients) => self
                .points
                .iter()
                .filter(|point| (point.workload, point.clients) == (workload, clients))
                .filter_map(|point| figure.of(point))
                .collect(),
            Work::ManyPuts => of(self.many_puts.as_slice()),
            Work::Kill => of(&self.kills),
        }
    }
}

/// One figure of both systems over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Compared {
    pub(super) work: Work,
    pub(super) figure: Figure,
    #[serde(flatten)]
    pub(super) seen: Both<Option<Spread>>,
    /// How many times better synod was, in rounds in which both were measured.
    pub(super) times_better: Option<Spread>,
}

impl Compared {
    /// Looks through all rounds.
    pub(super) fn over(rounds: &[Both<Played>], work: Work, figure: Figure) -> Self {
        let each: Vec<Both<Vec<f64>>> =
            rounds.iter().map(|round| round.map(|played| played.values(work, figure))).collect();
        let all =
            |of: fn(&Both<Vec<f64>>) -> &Vec<f64>| Spread::of(each.iter().flat_map(of).copied().collect());
        let ratio = |round: &Both<Vec<f64>>| {
            let Both { etcd, synod } = round.map(|values| Spread::of(values.clone()));
            figure.times_better(Both { etcd: etcd?.median, synod: synod?.median })
        };
        Self {
            work,
            figure,
            seen: Both { etcd: all(|both| &both.etcd), synod: all(|both| &both.synod) },
            times_better: Spread::of(each.iter().filter_map(ratio).collect()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, Instant};

    use super::super::super::client::Job;
    use super::super::super::course::Extent;
    use super::super::super::measure::{Effort, Measured};
    use super::super::super::tally::Tally;
    use super::*;
    use crate::process::Usage;

    /// Puts that were answered in this time each, at a CPU microsecond each for every microsecond.
    pub(in super::super) fn point(workload: Workload, clients: usize, answered: u32, micros: u64) -> Point {
        let began = Instant::now();
        let mut tally = Tally::from(began);
        (0..answered).for_each(|_| tally.answered(Duration::from_micros(micros), false, began));
        let job = Job::Measure { workload, reads: 90 };
        let extent = Extent::Time(Duration::from_secs(1));
        let effort = Effort { clients, job, warm_up: Duration::ZERO, extent, rate: None };
        let measured = Measured {
            tally,
            took: Duration::from_secs(1),
            longest_silence: Duration::from_micros(10 * micros),
            connections: 10,
            own_cpu: Duration::ZERO,
            servers: Some(Usage {
                cpu: Duration::from_micros(micros) * answered,
                resident: 1_000_000 * micros,
                written: 10 * micros * u64::from(answered),
            }),
            growth: None,
        };
        Point::new(workload, 90, &effort, &measured)
    }

    /// One round with puts of 64 clients.
    pub(in super::super) fn round(etcd: (u32, u64), synod: (u32, u64)) -> Both<Played> {
        Both { etcd, synod }.map(|&(answered, micros)| Played {
            points: vec![point(Workload::Put, 64, answered, micros)],
            ..Played::default()
        })
    }

    const PUTS: Work = Work::Run(Workload::Put, 64);

    fn spread(median: f64, least: f64, most: f64) -> Option<Spread> {
        Some(Spread { median, least, most })
    }

    #[test]
    fn a_median_lies_in_the_middle() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![4.0]), spread(4.0, 4.0, 4.0));
        assert_eq!(Spread::of(vec![9.0, 1.0]), spread(5.0, 1.0, 9.0));
        assert_eq!(Spread::of(vec![3.0, 10.0, 2.0]), spread(3.0, 2.0, 10.0));
    }

    #[test]
    fn more_answers_are_better_and_more_of_all_else_is_worse() {
        let values = Both { etcd: 2.0, synod: 8.0 };
        assert_eq!(Figure::AnsweredPerSecond.times_better(values), Some(4.0));
        assert_eq!(Figure::P99Us.times_better(values), Some(0.25));
        assert_eq!(Figure::Failed.times_better(Both { etcd: 940.0, synod: 0.0 }), None);
        assert_eq!(Figure::AnsweredPerSecond.times_better(Both { etcd: 0.0, synod: 8.0 }), None);
    }

    #[test]
    fn ratios_are_of_one_round_each() {
        // The machine was twice as slow in the second round, for both.
        let rounds = [round((100, 40), (400, 10)), round((50, 80), (200, 20))];
        let rate = Compared::over(&rounds, PUTS, Figure::AnsweredPerSecond);
        assert_eq!(rate.seen, Both { etcd: spread(75.0, 50.0, 100.0), synod: spread(300.0, 200.0, 400.0) });
        assert_eq!(rate.times_better, spread(4.0, 4.0, 4.0));
        let cpu = Compared::over(&rounds, PUTS, Figure::ServerCpuUs);
        assert_eq!(cpu.seen.synod, spread(15.0, 10.0, 20.0));
        assert_eq!(cpu.times_better, spread(4.0, 4.0, 4.0));
    }

    #[test]
    fn what_one_of_them_did_not_do_is_not_compared() {
        let compared = Compared::over(&[round((100, 40), (0, 10))], PUTS, Figure::P50Us);
        assert_eq!((compared.seen.synod, compared.times_better), (None, None));
        assert!(compared.seen.etcd.is_some());
        let other = Compared::over(&[round((100, 40), (400, 10))], Work::Kill, Figure::LongestSilenceUs);
        assert_eq!((other.seen.etcd, other.times_better), (None, None));
    }

    #[test]
    fn all_kills_count_and_a_round_has_one_ratio() {
        let kills = |micros: &[u64]| Played {
            kills: micros.iter().map(|&micros| point(Workload::Put, 64, 1, micros)).collect(),
            ..Played::default()
        };
        let rounds = [Both { etcd: kills(&[100, 140, 120]), synod: kills(&[10, 60, 40]) }];
        let gap = Compared::over(&rounds, Work::Kill, Figure::LongestSilenceUs);
        assert_eq!(gap.seen.synod, spread(400.0, 100.0, 600.0));
        assert_eq!(gap.times_better, spread(3.0, 3.0, 3.0));
    }
}

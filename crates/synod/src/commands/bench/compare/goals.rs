//! What synod wants to reach beside etcd, and whether it does.
//!
//! For each goal there is the least that must be reached and, for most, an aim beyond it. Ratios are judged by their
//! median over the rounds. A bound on an outage holds only if it was kept every time.

use serde::Serialize;

use super::super::workload::Workload;
use super::figures::{Compared, Figure, Work};

/// What a figure is held against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    /// So many times better than etcd.
    TimesBetter(f64),
    /// Mostly no more than this, in the figure's own unit.
    AtMost(f64),
    /// Never more than this.
    Never(f64),
}

impl Bound {
    /// Whether it was kept; `None` if that is not known.
    fn kept(self, compared: &Compared) -> Option<bool> {
        Some(match self {
            Self::TimesBetter(times) => compared.times_better?.median >= times,
            Self::AtMost(value) => compared.seen.synod?.median <= value,
            Self::Never(value) => compared.seen.synod?.most <= value,
        })
    }
}

/// Something to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Goal {
    pub(super) work: Work,
    pub(super) figure: Figure,
    /// `None` if there is only an aim.
    pub(super) least: Option<Bound>,
    pub(super) aim: Option<Bound>,
}

/// All of them.
pub(super) fn goals() -> Vec<Goal> {
    use Bound::{AtMost, Never, TimesBetter};
    use Figure::{
        AnsweredPerSecond, Failed, LongestSilenceUs, P50Us, P99Us, ServerCpuUs, ServerResidentBytes,
        ServerWrittenBytes,
    };
    use Workload::{Get, Mixed, Put, Serializable};
    let goal = |work, figure, least, aim| Goal { work, figure, least: Some(least), aim };
    let times = |workload, clients, figure, least, aim: Option<f64>| {
        goal(Work::Run(workload, clients), figure, TimesBetter(least), aim.map(TimesBetter))
    };
    let mut goals = vec![
        goal(Work::Run(Put, 1), P50Us, TimesBetter(2.5), Some(AtMost(400.0))),
        times(Put, 64, AnsweredPerSecond, 3.0, Some(6.0)),
        times(Put, 256, AnsweredPerSecond, 3.0, Some(6.0)),
        times(Put, 256, ServerCpuUs, 3.0, Some(8.0)),
        times(Get, 64, AnsweredPerSecond, 2.5, Some(4.0)),
        times(Get, 256, AnsweredPerSecond, 2.5, Some(4.0)),
        times(Get, 1, P50Us, 2.0, None),
        times(Serializable, 64, AnsweredPerSecond, 2.0, Some(3.0)),
        times(Mixed, 64, AnsweredPerSecond, 4.0, Some(8.0)),
    ];
    goals.extend([Put, Get, Serializable, Mixed].map(|workload| times(workload, 64, P99Us, 2.0, Some(4.0))));
    goals.extend([1, 64].map(|clients| times(Put, clients, ServerWrittenBytes, 2.0, None)));
    goals.extend([
        goal(Work::ManyPuts, ServerResidentBytes, TimesBetter(2.0), None),
        goal(Work::Kill, LongestSilenceUs, Never(300_000.0), Some(Never(100_000.0))),
        Goal { work: Work::Kill, figure: Failed, least: None, aim: Some(Never(0.0)) },
    ]);
    goals
}

/// What became of a goal; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Missed,
    NotMeasured,
    /// The least was reached.
    Met,
    /// And the aim beyond it.
    Aim,
}

impl Verdict {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NotMeasured => "not measured",
            Self::Missed => "missed",
            Self::Met => "met",
            Self::Aim => "aim reached",
        }
    }
}

impl Goal {
    /// What became of it, where `compared` is its figure.
    pub(super) fn judge(&self, compared: &Compared) -> Verdict {
        let least = match self.least {
            Some(least) => least.kept(compared),
            None => compared.seen.synod.map(|_| true),
        };
        match (least, self.aim.and_then(|aim| aim.kept(compared))) {
            (None, _) => Verdict::NotMeasured,
            (Some(false), _) => Verdict::Missed,
            (Some(true), Some(true)) => Verdict::Aim,
            (Some(true), _) => Verdict::Met,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::{Both, Spread};
    use super::*;

    const WORK: Work = Work::Run(Workload::Put, 64);

    fn compared(synod: f64, times_better: f64) -> Compared {
        // Far apart, so that it matters which of them is looked at.
        let around = |median: f64| Some(Spread { median, least: median / 10.0, most: median * 10.0 });
        let seen = Both { etcd: None, synod: around(synod) };
        Compared { work: WORK, figure: Figure::P50Us, seen, times_better: around(times_better) }
    }

    #[test]
    fn a_ratio_is_judged_by_its_median() {
        let goal = Goal {
            work: WORK,
            figure: Figure::P50Us,
            least: Some(Bound::TimesBetter(2.0)),
            aim: Some(Bound::AtMost(400.0)),
        };
        assert_eq!(goal.judge(&compared(500.0, 1.9)), Verdict::Missed);
        assert_eq!(goal.judge(&compared(300.0, 1.9)), Verdict::Missed, "the aim alone is not enough");
        assert_eq!(goal.judge(&compared(500.0, 2.0)), Verdict::Met);
        assert_eq!(goal.judge(&compared(400.0, 2.0)), Verdict::Aim);
        assert_eq!(Goal { aim: None, ..goal }.judge(&compared(1.0, 99.0)), Verdict::Met);
        let only_aim = Goal { least: None, ..goal };
        assert_eq!([300.0, 500.0].map(|us| only_aim.judge(&compared(us, 0.5))), [Verdict::Aim, Verdict::Met]);
        let none = Compared { times_better: None, ..compared(1.0, 1.0) };
        assert_eq!(goal.judge(&none), Verdict::NotMeasured);
    }

    #[test]
    fn never_is_judged_by_the_worst() {
        let goal = Goal {
            work: WORK,
            figure: Figure::P50Us,
            least: Some(Bound::Never(300.0)),
            aim: Some(Bound::Never(100.0)),
        };
        assert_eq!(goal.judge(&compared(31.0, 1.0)), Verdict::Missed);
        assert_eq!(goal.judge(&compared(30.0, 1.0)), Verdict::Met);
        assert_eq!(goal.judge(&compared(10.0, 1.0)), Verdict::Aim);
    }

    #[test]
    fn every_aim_is_beyond_the_least() {
        for goal in goals() {
            match (goal.least, goal.aim) {
                (Some(Bound::TimesBetter(least)), Some(Bound::TimesBetter(aim))) => {
                    assert!(aim > least, "{goal:?}")
                }
                (Some(Bound::Never(least)), Some(Bound::Never(aim))) => assert!(aim < least, "{goal:?}"),
                _ => {}
            }
        }
    }
}

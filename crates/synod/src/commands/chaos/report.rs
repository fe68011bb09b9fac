//! The figures of a run, from what was seen.
//!
//! An episode is the time from a fault's strike until the cluster is well again. In it count:
//!
//! - the *gap*: the longest time in which no write was acknowledged by any server, also if it began before the
//!   episode or ended after it;
//! - the requests that were under way in it, and those that *failed* among them if they were sent to a server in no
//!   trouble while a majority was well. A request whose outcome is unknown has failed too, as far as its client can
//!   tell;
//! - the *recovery*: from the end of the fault itself (the server is started, the link healed) until all is well.

use std::collections::BTreeMap;

use serde::Serialize;
use synod_sim::Moment;

use super::plan::Kind;
use crate::cluster::judge::{Check, State};
use crate::output::table::{self, Side};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Answered,
    Failed,
    Unknown,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// When it was sent.
    pub(super) sent: Moment,
    /// When its client had an answer, or gave up.
    pub(super) ended: Moment,
    /// Whether the cluster had to answer it.
    pub(super) counts: bool,
    pub(super) fate: Fate,
}

/// A fault and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Course {
    /// `None` for the calm between two faults.
    pub(super) kind: Option<Kind>,
    pub(super) what: String,
    pub(super) began: Moment,
    /// The fault itself has ended.
    pub(super) healed: Moment,
    pub(super) well: Moment,
}

/// Everything that was found, for people and programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) servers: usize,
    pub(super) clients: u32,
    pub(super) duration_micros: u64,
    /// `namespaces` or `built-in`: how links were cut.
    pub(super) links: &'static str,
    /// Kinds that could not be had here, and why.
    pub(super) skipped: Vec<Skipped>,
    pub(super) faults: Vec<Row>,
    pub(super) episodes: Vec<Line>,
    pub(super) checks: Vec<Check>,
    pub(super) verdict: &'static str,
    /// The command line that draws the same faults again.
    pub(super) again: String,
    /// Where data, logs and history are, if they were kept.
    pub(super) kept: Option<String>,
}

/// A kind of fault that could not be had here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Skipped {
    pub(super) kind: Kind,
    pub(super) why: String,
}

/// One episode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    pub(super) kind: Kind,
    pub(super) what: String,
    pub(super) at_micros: u64,
    #[serde(flatten)]
    pub(super) figures: Figures,
}

/// What was measured in one stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Figures {
    pub(super) gap_micros: u64,
    pub(super) recovery_micros: u64,
    /// Requests that the cluster had to answer.
    pub(super) requests: usize,
    /// How many of them it did not, those of unknown outcome included.
    pub(super) failed: usize,
    /// Requests of unknown outcome, also of those that nobody had to answer.
    pub(super) unknown: usize,
}

/// All episodes of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    /// The kind's name, or `calm` for the times between.
    pub(super) kind: String,
    pub(super) episodes: usize,
    pub(super) longest_gap_micros: u64,
    pub(super) median_gap_micros: u64,
    pub(super) requests: usize,
    pub(super) failed: usize,
    /// 0 to 1; absent if no request had to be answered.
    pub(super) failed_share: Option<f64>,
    pub(super) unknown: usize,
    pub(super) median_recovery_micros: u64,
    pub(super) longest_recovery_micros: u64,
}

/// The longest time without an acknowledged write that has a part in `from..upto`. The moments are in order. Before
/// the first of them, and after the last, it is counted from `from` and up to `upto`.
pub(super) fn longest_gap(acknowledged: &[Moment], from: Moment, upto: Moment) -> u64 {
    let after = acknowledged.partition_point(|&moment| moment <= from);
    let until = acknowledged.partition_point(|&moment| moment < upto);
    let last = acknowledged.get(until).copied().unwrap_or(upto);
    let mut previous = after.checked_sub(1).map_or(from, |before| acknowledged[before]);
    let mut longest = 0;
    for &moment in acknowledged[after..until].iter().chain([&last]) {
        longest = longest.max(moment.0 - previous.0);
        previous = moment;
    }
    longest
}

fn longest_between(acknowledged: &[Moment]) -> u64 {
    acknowledged.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or_default()
}

/// What was measured in the course of an episode. A calm has only what lies wholly in it: the rest is of the faults
/// before and after it.
pub(super) fn figures(course: &Course, acknowledged: &[Moment], samples: &[Sample]) -> Figures {
    let Course { began, well, .. } = *course;
    let calm = course.kind.is_none();
    let within = |moment: &Moment| began <= *moment && *moment < well;
    let gap_micros = if calm {
        let own: Vec<Moment> = acknowledged.iter().copied().filter(within).collect();
        longest_between(&own)
    } else {
        longest_gap(acknowledged, began, well)
    };
    let mut figures = Figures { gap_micros, recovery_micros: well.0 - course.healed.0, ..Figures::default() };
    let belongs = |sample: &&Sample| match calm {
        true => within(&sample.sent) && within(&sample.ended),
        false => sample.sent < well && began <= sample.ended,
    };
    for sample in samples.iter().filter(belongs) {
        figures.unknown += usize::from(sample.fate == Fate::Unknown);
        if sample.counts {
            figures.requests += 1;
            figures.failed += usize::from(sample.fate != Fate::Answered);
        }
    }
    figures
}

/// One row for each kind that there was, the calm first.
pub(super) fn rows(measured: &[(Option<Kind>, Figures)]) -> Vec<Row> {
    let mut by_kind: BTreeMap<Option<Kind>, Vec<Figures>> = BTreeMap::new();
    for &(kind, figures) in measured {
        by_kind.entry(kind).or_default().push(figures);
    }
    by_kind.into_iter().map(|(kind, all)| row(kind, &all)).collect()
}

fn row(kind: Option<Kind>, all: &[Figures]) -> Row {
    let sum = |of: fn(&Figures) -> usize| all.iter().map(of).sum::<usize>();
    let sorted = |of: fn(&Figures) -> u64| {
        let mut values: Vec<u64> = all.iter().map(of).collect();
        values.sort_unstable();
        values
    };
    let (gaps, recoveries) = (sorted(|one| one.gap_micros), sorted(|one| one.recovery_micros));
    let (requests, failed) = (sum(|one| one.requests), sum(|one| one.failed));
    Row {
        kind: kind.map_or_else(|| "calm".to_owned(), Kind::name),
        episodes: all.len(),
        longest_gap_micros: gaps.last().copied().unwrap_or_default(),
        median_gap_micros: median(&gaps),
        requests,
        failed,
        failed_share: (requests > 0).then(|| failed as f64 / requests as f64),
        unknown: sum(|one| one.unknown),
        median_recovery_micros: median(&recoveries),
        longest_recovery_micros: recoveries.last().copied().unwrap_or_default(),
    }
}

/// Of values in order: the middle one, or the mean of the two in the middle; 0 of none.
fn median(sorted: &[u64]) -> u64 {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0,
        odd if odd % 2 == 1 => sorted[middle],
        _ => sorted[middle - 1].midpoint(sorted[middle]),
    }
}

impl Report {
    /// For people.
    pub(super) fn text(&self) -> String {
        const TITLES: [(&str, Side); 9] = [
            ("FAULT", Side::Left),
            ("EPISODES", Side::Right),
            ("LONGEST GAP", Side::Right),
            ("MEDIAN GAP", Side::Right),
            ("REQUESTS", Side::Right),
            ("FAILED", Side::Right),
            ("UNKNOWN", Side::Right),
            ("RECOVERY", Side::Right),
            ("LONGEST", Side::Right),
        ];
        let cells = |row: &Row| {
            vec![
                row.kind.clone(),
                row.episodes.to_string(),
                millis(row.longest_gap_micros),
                millis(row.median_gap_micros),
                row.requests.to_string(),
                row.failed_share.map_or_else(|| "-".to_owned(), |share| format!("{:.2} %", share * 100.0)),
                row.unknown.to_string(),
                millis(row.median_recovery_micros),
                millis(row.longest_recovery_micros),
            ]
        };
        let rows: Vec<Vec<String>> = self.faults.iter().map(cells).collect();
        let mut text = format!("\n{}\n", table::columns(&TITLES, &rows));
        let leader = Kind::LeaderKill.name();
        if let Some(row) = self.faults.iter().find(|row| row.kind == leader) {
            text.push_str(&format!(
                "leader killed {} times: no write acknowledged for {} (median), {} at most\n",
                row.episodes,
                millis(row.median_gap_micros),
                millis(row.longest_gap_micros)
            ));
        }
        for Skipped { kind, why } in &self.skipped {
            text.push_str(&format!("skipped {}: {why}\n", kind.name()));
        }
        for check in &self.checks {
            let mark = match check.state {
                State::Right => "ok     ",
                State::Wrong => "WRONG  ",
                State::Unknown => "FAILED ",
            };
            let mut lines = check.text.lines();
            text.push_str(&format!("{mark}{}\n", lines.next().unwrap_or_default()));
            lines.for_each(|line| text.push_str(&format!("       {line}\n")));
        }
        text.push_str(&format!("{}          again: {}\n", self.verdict, self.again));
        if let Some(kept) = &self.kept {
            text.push_str(&format!("data, logs and history are in {kept}\n"));
        }
        text
    }
}

fn millis(micros: u64) -> String {
    format!("{:.0} ms", micros as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(all: &[u64]) -> Vec<Moment> {
        all.iter().copied().map(Moment).collect()
    }

    fn gap(all: &[u64], from: u64, upto: u64) -> u64 {
        longest_gap(&moments(all), Moment(from), Moment(upto))
    }

    #[test]
    fn the_gap_is_the_longest_that_touches_the_episode() {
        assert_eq!(gap(&[0, 10, 20, 90, 100, 500], 15, 95), 70);
        assert_eq!(gap(&[0, 10, 20, 90, 100, 500], 92, 98), 10, "a gap around the whole episode");
        assert_eq!(gap(&[0, 10, 20, 90, 100, 500], 92, 101), 400, "one that goes on after it");
        assert_eq!(gap(&[0, 10, 20, 90, 100, 500], 90, 100), 10, "one that only touches it is none of it");
        assert_eq!(gap(&[0, 10], 5, 95), 85, "nothing was acknowledged any more");
        assert_eq!(gap(&[], 5, 95), 90);
        assert_eq!(gap(&[50], 5, 95), 45);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), 0);
        assert_eq!(median(&[7]), 7);
        assert_eq!(median(&[1, 2, 9]), 2);
        assert_eq!(median(&[1, 2, 4, 9]), 3);
    }

    fn course(kind: Kind, began: u64, healed: u64, well: u64) -> Course {
        Course {
            kind: Some(kind),
            what: "kill n1".to_owned(),
            began: Moment(began),
            healed: Moment(healed),
            well: Moment(well),
        }
    }

    #[test]
    fn requests_count_in_the_episode_in_which_they_were_under_way() {
        let sample =
            |sent, ended, counts, fate| Sample { sent: Moment(sent), ended: Moment(ended), counts, fate };
        let samples = [
            sample(10, 12, true, Fate::Answered),
            sample(98, 99, true, Fate::Failed),
            sample(99, 101, true, Fate::Unknown),
            sample(100, 102, true, Fate::Answered),
            sample(150, 152, true, Fate::Failed),
            sample(170, 172, false, Fate::Unknown),
            sample(180, 182, false, Fate::Failed),
            sample(299, 999, true, Fate::Answered),
            sample(300, 301, true, Fate::Failed),
        ];
        let acknowledged = moments(&[50, 90, 140, 310]);
        let fault = figures(&course(Kind::Kill, 100, 200, 300), &acknowledged, &samples);
        let expected = Figures { gap_micros: 170, recovery_micros: 100, requests: 4, failed: 2, unknown: 2 };
        assert_eq!(fault, expected);
        let calm = Course { kind: None, ..course(Kind::Kill, 0, 100, 100) };
        let expected = Figures { gap_micros: 40, recovery_micros: 0, requests: 2, failed: 1, unknown: 0 };
        assert_eq!(
            figures(&calm, &acknowledged, &samples),
            expected,
            "what the fault cost is not the calm's"
        );
    }

    fn measured(gap_micros: u64, requests: usize, failed: usize) -> Figures {
        Figures { gap_micros, recovery_micros: gap_micros * 2, requests, failed, unknown: 1 }
    }

    #[test]
    fn rows_sum_up_by_kind() {
        let rows = rows(&[
            (Some(Kind::LeaderKill), measured(300, 100, 1)),
            (None, measured(5, 10, 0)),
            (Some(Kind::LeaderKill), measured(200, 100, 2)),
            (Some(Kind::RestartAll), measured(2_000, 0, 0)),
        ]);
        let kinds: Vec<&str> = rows.iter().map(|row| row.kind.as_str()).collect();
        assert_eq!(kinds, ["calm", "leader-kill", "restart-all"]);
        let kills = &rows[1];
        assert_eq!((kills.episodes, kills.longest_gap_micros, kills.median_gap_micros), (2, 300, 250));
        assert_eq!((kills.requests, kills.failed, kills.unknown), (200, 3, 2));
        assert_eq!(kills.failed_share, Some(0.015));
        assert_eq!((kills.median_recovery_micros, kills.longest_recovery_micros), (500, 600));
        assert_eq!(rows[2].failed_share, None, "nothing had to be answered");
    }

    #[test]
    fn the_report_says_what_broke_and_how_to_see_it_again() {
        let report = Report {
            seed: 7,
            servers: 5,
            clients: 8,
            duration_micros: 1_000_000,
            links: "built-in",
            skipped: vec![Skipped { kind: Kind::DiskFull, why: "needs root".to_owned() }],
            faults: rows(&[(Some(Kind::LeaderKill), measured(312_400, 200, 1))]),
            episodes: Vec::new(),
            checks: vec![Check::wrong("writes", "an acknowledged write is missing on n2\nput a = 1")],
            verdict: "THE STORE IS WRONG",
            again: "synod chaos --seed 7".to_owned(),
            kept: Some("/var/tmp/x".to_owned()),
        };
        assert_eq!(
            report.text(),
            "
FAULT        EPISODES  LONGEST GAP  MEDIAN GAP  REQUESTS  FAILED  UNKNOWN  RECOVERY  LONGEST
leader-kill         1       312 ms      312 ms       200  0.50 %        1    625 ms   625 ms

leader killed 1 times: no write acknowledged for 312 ms (median), 312 ms at most
skipped disk-full: needs root
WRONG  an acknowledged write is missing on n2
       put a = 1
THE STORE IS WRONG          again: synod chaos --seed 7
data, logs and history are in /var/tmp/x
"
        );
    }
}

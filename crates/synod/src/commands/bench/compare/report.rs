//! The comparison, for people and programs. Field names are documented in docs/benchmarking.md and stay.

use serde::Serialize;

use super::super::point::in_words;
use super::super::workload::Workload;
use super::Args;
use super::figures::{Both, Compared, Figure, Played, Spread, Work};
use super::goals::{Bound, Goal, Verdict, goals};
use super::machine::Machine;
use crate::output::go;
use crate::output::table::{Table, or_dash};

/// What every workload is looked at for, as columns.
const COLUMNS: [Figure; 4] = [Figure::AnsweredPerSecond, Figure::P50Us, Figure::P99Us, Figure::ServerCpuUs];

/// Everything of one comparison.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    servers: u8,
    keys: u64,
    value_bytes: u32,
    /// How long each workload was measured.
    seconds: f64,
    /// How many puts memory was looked at after; `None` if it was not.
    memory_puts: Option<u64>,
    /// All that was measured, in this order; etcd always before synod.
    rounds: Vec<Both<Played>>,
    compared: Vec<Compared>,
    goals: Vec<Judged>,
}

/// A goal and what became of it.
#[derive(Clone, Copy, Debug, Serialize)]
struct Judged {
    least: Option<Bound>,
    aim: Option<Bound>,
    verdict: Verdict,
    #[serde(flatten)]
    compared: Compared,
}

impl Report {
    pub(super) fn new(args: &Args, machine: Machine, rounds: Vec<Both<Played>>) -> Self {
        let judged = |goal: Goal| {
            let compared = Compared::over(&rounds, goal.work, goal.figure);
            Judged { least: goal.least, aim: goal.aim, verdict: goal.judge(&compared), compared }
        };
        let columns = [&COLUMNS[..], &[Figure::ServerWrittenBytes]].concat();
        let compared = Args::runs().into_iter().flat_map(|(workload, clients)| {
            let work = Work::Run(workload, clients);
            columns.iter().map(move |&figure| (work, figure))
        });
        Self {
            machine,
            servers: args.servers,
            keys: args.load.keys,
            value_bytes: args.load.value_size,
            seconds: args.duration.as_secs_f64(),
            memory_puts: (!args.no_memory).then_some(args.memory_puts),
            compared: compared.map(|(work, figure)| Compared::over(&rounds, work, figure)).collect(),
            goals: goals().into_iter().map(judged).collect(),
            rounds,
        }
    }

    /// For people at a terminal.
    pub(super) fn text(&self) -> String {
        let (facts, failures) = (self.facts().join("\n"), lines(&self.failures()));
        format!("{facts}\n\n{}\n{}{failures}", self.workloads().text(), self.judged().text())
    }

    /// For a page.
    pub(super) fn markdown(&self) -> String {
        let facts: String = self.facts().iter().map(|fact| format!("- {fact}\n")).collect();
        let failures: String = self.failures().iter().map(|failure| format!("\n{failure}\n")).collect();
        format!("{facts}\n{}\n{}{failures}", self.workloads().markdown(), self.judged().markdown())
    }

    fn facts(&self) -> Vec<String> {
        let mut facts = self.machine.facts();
        let (servers, rounds, seconds) = (self.servers, self.rounds.len(), self.seconds);
        let keys = thousands(self.keys as f64);
        facts.push(format!("{servers} servers of each, {keys} keys, values of {} bytes", self.value_bytes));
        facts.push(format!("rounds of etcd, then synod: {rounds}; each workload for {seconds} s"));
        facts.push(
            "the median of all rounds (the least to the most); \"x\": so many times better than etcd in the same round"
                .to_owned(),
        );
        facts
    }

    fn compared(&self, work: Work, figure: Figure) -> Option<&Compared> {
        self.compared.iter().find(|compared| (compared.work, compared.figure) == (work, figure))
    }

    /// One row for each workload and number of clients.
    fn workloads(&self) -> Table {
        const TITLES: [&str; 15] = [
            "WORK",
            "CLIENTS",
            "ETCD OPS/S",
            "ETCD P50",
            "ETCD P99",
            "ETCD CPU/OP",
            "SYNOD OPS/S",
            "SYNOD P50",
            "SYNOD P99",
            "SYNOD CPU/OP",
            "OPS/S X",
            "P50 X",
            "P99 X",
            "CPU X",
            "GOALS",
        ];
        let row = |(workload, clients): (Workload, usize)| {
            let work = Work::Run(workload, clients);
            let figures = COLUMNS.map(|figure| self.compared(work, figure));
            let mut cells = vec![workload.name(), clients.to_string()];
            for of in [|seen: &Both<Option<Spread>>| seen.etcd, |seen: &Both<Option<Spread>>| seen.synod] {
                cells.extend(figures.iter().map(|compared| {
                    let seen = compared.and_then(|compared| Some((compared.figure, of(&compared.seen)?)));
                    or_dash(seen, |(figure, spread)| match figure {
                        Figure::AnsweredPerSecond => range(spread, thousands),
                        figure => shown(figure, spread.median),
                    })
                }));
            }
            cells.extend(figures.map(|compared| times(compared.and_then(|compared| compared.times_better))));
            cells.push(self.verdict(work));
            cells
        };
        Table::new(&TITLES, &["WORK", "GOALS"], Args::runs().into_iter().map(row).collect())
    }

    /// What became of the goals of one row: the figures that missed theirs, if any did.
    fn verdict(&self, work: Work) -> String {
        let own: Vec<&Judged> = self.goals.iter().filter(|judged| judged.compared.work == work).collect();
        let missed = own.iter().filter(|judged| judged.verdict == Verdict::Missed);
        let missed: Vec<&str> = missed.map(|judged| judged.compared.figure.name()).collect();
        match own.iter().map(|judged| judged.verdict).min() {
            None => "-".to_owned(),
            Some(Verdict::Missed) => format!("missed: {}", missed.join(", ")),
            Some(least) => least.name().to_owned(),
        }
    }

    /// One row for each goal.
    fn judged(&self) -> Table {
        const TITLES: [&str; 7] = ["GOAL", "LEAST", "AIM", "ETCD", "SYNOD", "TIMES BETTER", "VERDICT"];
        let row = |judged: &Judged| {
            let Compared { work, figure, seen, times_better } = judged.compared;
            let bound = |bound: Option<Bound>| or_dash(bound, |bound| bounded(figure, bound));
            let seen = seen.map(|seen| or_dash(*seen, |seen| range(seen, |value| shown(figure, value))));
            vec![
                self.title(work, figure),
                bound(judged.least),
                bound(judged.aim),
                seen.etcd,
                seen.synod,
                times(times_better),
                judged.verdict.name().to_owned(),
            ]
        };
        Table::new(&TITLES, &["GOAL", "VERDICT"], self.goals.iter().map(row).collect())
    }

    fn title(&self, work: Work, figure: Figure) -> String {
        let figure = figure.name();
        match (work, self.memory_puts) {
            (Work::Run(workload, clients), _) => format!("{} with {clients}, {figure}", workload.name()),
            (Work::ManyPuts, Some(puts)) => format!("{figure} after {} puts", thousands(puts as f64)),
            (work, _) => format!("{}, {figure}", work.name()),
        }
    }

    /// What went wrong where nobody was killed.
    fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for (number, round) in self.rounds.iter().enumerate() {
            for (name, played) in [("etcd", &round.etcd), ("synod", &round.synod)] {
                for point in played.points.iter().chain(&played.many_puts) {
                    let (work, clients) = (point.workload.name(), point.clients);
                    failures.extend(point.failures.iter().map(|failure| {
                        let (count, kind, first) = (failure.count, &failure.kind, &failure.first);
                        let who = format!("round {}, {name}, {work} with {clients} clients", number + 1);
                        format!("{who}: {count} x {kind}, the first: {first}")
                    }));
                }
            }
        }
        failures
    }
}

fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// A value in the unit that people read it in.
fn shown(figure: Figure, value: f64) -> String {
    match figure {
        Figure::AnsweredPerSecond | Figure::Failed => thousands(value),
        Figure::P50Us | Figure::P99Us | Figure::ServerCpuUs | Figure::LongestSilenceUs => in_words(value),
        Figure::ServerWrittenBytes | Figure::ServerResidentBytes => go::bytes(value as u64),
    }
}

/// The median, and how far all lie apart, if that can be seen.
fn range(spread: Spread, shown: impl Fn(f64) -> String) -> String {
    let [median, least, most] = [spread.median, spread.least, spread.most].map(shown);
    if least == most { median } else { format!("{median} ({least} to {most})") }
}

fn times(spread: Option<Spread>) -> String {
    or_dash(spread, |spread| range(spread, |times| format!("{times:.1}")))
}

fn bounded(figure: Figure, bound: Bound) -> String {
    match bound {
        Bound::TimesBetter(times) => format!("{times} x"),
        Bound::AtMost(value) | Bound::Never(value) => shown(figure, value),
    }
}

/// A number without a fraction, its thousands apart.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::super::load::tests::parse;
    use super::super::super::machine::Machine as Allows;
    use super::super::figures::tests::{point, round};
    use super::*;

    fn report(rounds: Vec<Both<Played>>) -> Report {
        let machine = Machine {
            synod: "0.1.0",
            etcd: "3.5.30".to_owned(),
            kernel: "6.18".to_owned(),
            processors: 2,
            processor_model: "A".to_owned(),
            memory_bytes: 24_000_000_000,
            allows: Allows {
                data_dir: "/d".to_owned(),
                data_dir_in_memory: false,
                syncs: Vec::new(),
                no_op: Vec::new(),
            },
        };
        Report::new(&parse("").unwrap().0, machine, rounds)
    }

    /// Two rounds with puts of 64 clients, and one kill in the second.
    fn example() -> Report {
        let mut second = round((2_000, 840), (8_000, 200));
        second.etcd.kills.push(point(Workload::Put, 64, 1, 125_000));
        second.synod.kills.push(point(Workload::Put, 64, 1, 25_000));
        report(vec![round((1_000, 900), (5_000, 300)), second])
    }

    /// The line that begins like this, with one blank between words.
    fn row(text: &str, begin: &str) -> String {
        let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("{begin} in {text}"))
    }

    #[test]
    fn people_read_medians_ratios_and_verdicts() {
        let text = example().text();
        assert!(text.starts_with("synod 0.1.0, etcd 3.5.30\n2 x A, 24 GB of memory, Linux 6.18\n"), "{text}");
        assert_eq!(
            row(&text, "put 64 "),
            "put 64 1,500 (1,000 to 2,000) 870 us 870 us 870 us 6,500 (5,000 to 8,000) 250 us 250 us 250 us \
             4.5 (4.0 to 5.0) 3.6 (3.0 to 4.2) 3.6 (3.0 to 4.2) 3.6 (3.0 to 4.2) met"
        );
        assert_eq!(
            row(&text, "put with 64, ops/s"),
            "put with 64, ops/s 3 x 6 x 1,500 (1,000 to 2,000) 6,500 (5,000 to 8,000) 4.5 (4.0 to 5.0) met"
        );
        assert_eq!(
            row(&text, "leader killed, longest gap"),
            "leader killed, longest gap 300.0 ms 100.0 ms 1.25 s 250.0 ms 5.0 met"
        );
        assert_eq!(
            row(&text, "memory after 1,000,000 puts"),
            "memory after 1,000,000 puts 2 x - - - - not measured"
        );
        assert_eq!(row(&text, "leader killed, failed"), "leader killed, failed calls - 0 0 0 - aim reached");
    }

    #[test]
    fn a_row_says_which_of_its_goals_it_missed() {
        let text = report(vec![round((1_000, 60), (2_000, 40))]).text();
        let row = row(&text, "put 64 ");
        assert!(row.ends_with("missed: ops/s, p99, disk/op"), "{row}");
        assert!(row.contains(" 1,000 ") && !row.contains('('), "one round has no range: {row}");
    }

    #[test]
    fn a_page_gets_the_same_tables() {
        let markdown = example().markdown();
        assert!(markdown.starts_with("- synod 0.1.0, etcd 3.5.30\n"), "{markdown}");
        let row = row(&markdown, "| put with 64, p99 |");
        assert_eq!(
            row,
            "| put with 64, p99 | 2 x | 4 x | 870 us (840 us to 900 us) | 250 us (200 us to 300 us) | 3.6 (3.0 to 4.2) | met |"
        );
        assert!(markdown.contains("\n|---|---:|"), "{markdown}");
    }

    #[test]
    fn programs_read_names_that_stay() {
        let json = serde_json::to_value(example()).unwrap();
        assert_eq!(json["machine"]["etcd"], "3.5.30");
        assert_eq!(json["rounds"][1]["synod"]["points"][0]["answered"], 8_000);
        assert_eq!(json["rounds"][1]["etcd"]["kills"][0]["longest_silence_us"], 1_250_000.0);
        let compared = json["compared"].as_array().unwrap();
        let compared =
            compared.iter().find(|one| one["work"] == "put 64" && one["figure"] == "answered_per_second");
        let compared = compared.unwrap();
        assert_eq!(
            (&compared["etcd"]["least"], &compared["times_better"]["most"]),
            (&1_000.0.into(), &5.0.into())
        );
        let goals = json["goals"].as_array().unwrap();
        let goal = |work: &str, figure: &str| {
            goals.iter().find(|goal| goal["work"] == work && goal["figure"] == figure).unwrap()
        };
        assert_eq!(goal("put 64", "p99_us")["least"]["times_better"], 2.0);
        assert_eq!(goal("leader_killed", "longest_silence_us")["verdict"], "met");
        assert_eq!(goal("many_puts", "server_resident_bytes")["verdict"], "not_measured");
    }

    #[test]
    fn long_numbers_have_their_thousands_apart() {
        for (value, text) in [(0.4, "0"), (999.0, "999"), (1_000.0, "1,000"), (1_234_567.6, "1,234,568")] {
            assert_eq!(thousands(value), text);
        }
    }
}

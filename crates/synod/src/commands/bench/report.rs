//! All figures of one call, for people and programs. Field names are documented in docs/benchmarking.md and stay.

use serde::Serialize;

use super::compact::Compactions;
use super::growth::Growth;
use super::machine::Machine;
use super::measure::Target;
use super::point::Point;
use crate::output::table::Table;

/// Everything of one call.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) endpoints: Vec<String>,
    /// Logical processors of this machine.
    pub(super) processors: usize,
    pub(super) load_threads: usize,
    pub(super) keys: u64,
    pub(super) key_bytes: usize,
    pub(super) value_bytes: usize,
    pub(super) seed: u64,
    /// In the order in which they were measured.
    pub(super) points: Vec<Point>,
    /// Only if they were asked for.
    pub(super) compactions: Option<Compactions>,
    /// What the machine allows; only with servers of our own.
    pub(super) machine: Option<Machine>,
}

impl Report {
    pub(super) fn new(
        target: &Target,
        points: Vec<Point>,
        compactions: Option<Compactions>,
        machine: Option<Machine>,
    ) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            endpoints: target.endpoints.clone(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            load_threads: target.threads,
            keys: target.shape.keys,
            key_bytes: target.shape.key_size,
            value_bytes: target.shape.value_size,
            seed: target.seed,
            points,
            compactions,
            machine,
        }
    }

    /// Whether any request failed.
    pub(super) fn failed(&self) -> bool {
        self.points.iter().any(|point| point.failed > 0)
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let no_op = self.machine.iter().flat_map(|machine| &machine.no_op);
        let rows = self
            .points
            .iter()
            .map(|point| point.cells(point.workload.name()))
            .chain(no_op.map(|point| point.cells("no-op put".to_owned())))
            .collect();
        let mut text =
            format!("{}\n{}", self.spread(), Table::new(&Point::TITLES, &["WORKLOAD"], rows).text());
        self.points.iter().flat_map(Point::remarks).for_each(|remark| text.push_str(&remark));
        if let Some(table) = self.growth() {
            text.push_str(&format!("\n{}\n", table.text()));
        }
        text.extend(self.compactions.iter().map(Compactions::text));
        text.extend(self.machine.iter().map(Machine::text));
        text
    }

    /// Over what the load was spread.
    fn spread(&self) -> String {
        let names = self.endpoints.iter().map(|endpoint| endpoint.trim_start_matches("http://"));
        let names = names.collect::<Vec<_>>().join(", ");
        let own = if self.machine.is_some() { " of its own" } else { "" };
        let connections = self.points.iter().map(|point| point.connections);
        let connections = match (connections.clone().min(), connections.max()) {
            (Some(least), Some(most)) if least < most => format!("{least} to {most} connections"),
            (_, most) => several(most.unwrap_or_default(), "connection"),
        };
        let [threads, processors] = [(self.load_threads, "thread"), (self.processors, "processor")]
            .map(|(count, what)| several(count, what));
        let servers = several(self.endpoints.len(), "server");
        format!("the load: {threads} on {processors}, {connections}, spread over {servers}{own}: {names}\n")
    }

    /// What became of the servers' memory and disk, if they were looked at.
    fn growth(&self) -> Option<Table> {
        let row = |point: &Point| {
            let name = vec![point.workload.name(), point.clients.to_string()];
            point.growth.as_ref().map(|growth| [name, growth.cells()].concat())
        };
        let rows: Vec<Vec<String>> = self.points.iter().filter_map(row).collect();
        let titles = [&["WORKLOAD", "CLIENTS"][..], &Growth::TITLES].concat();
        (!rows.is_empty()).then(|| Table::new(&titles, &["WORKLOAD"], rows))
    }
}

fn several(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::client::Job;
    use super::super::course::Extent;
    use super::super::disk::Sync;
    use super::super::growth::Watched;
    use super::super::growth::tests::growth;
    use super::super::measure::{Effort, Measured};
    use super::super::tally::{Failures, Fault, Tally};
    use super::super::workload::{Shape, Workload};
    use super::*;
    use crate::process::Usage;

    fn effort(workload: Workload, rate: Option<u32>) -> Effort {
        let job = Job::Measure { workload, reads: 90 };
        let extent = Extent::Time(Duration::from_secs(2));
        Effort { clients: 64, job, warm_up: Duration::ZERO, extent, rate }
    }

    fn measured(fault: Option<Fault>) -> Measured {
        let now = Instant::now();
        let mut tally = Tally::from(now);
        (1..=1_000).for_each(|i| tally.answered(Duration::from_micros(20 * i), i == 7, now));
        fault.into_iter().for_each(|fault| tally.failed(fault, now));
        (tally.due, tally.not_sent) = (1_100, 99);
        Measured {
            tally,
            took: Duration::from_secs(2),
            longest_silence: Duration::from_millis(250),
            connections: 10,
            own_cpu: Duration::from_micros(9_040),
            servers: Some(Usage {
                cpu: Duration::from_millis(100),
                resident: 52_000_000,
                written: 6_200_000,
            }),
            growth: growth(&[
                (50_000_000, Some(1_000_000)),
                (51_000_000, Some(4_000_000)),
                (52_000_000, Some(3_000_000)),
            ]),
        }
    }

    fn compactions() -> Compactions {
        let failures = vec![Failures { kind: "timeout".to_owned(), count: 1, first: "no answer".to_owned() }];
        Compactions { every_seconds: 10.0, done: 3, revision: Some(900), failed: 1, failures }
    }

    fn report(points: Vec<Point>, machine: Option<Machine>) -> Report {
        let target = Target {
            endpoints: vec!["http://a:1".to_owned()],
            connections: None,
            threads: 1,
            shape: Shape { keys: 10, key_size: 16, value_size: 256 },
            seed: 1,
            limit: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(2),
            watched: Watched::default(),
        };
        Report::new(&target, points, Some(compactions()), machine)
    }

    #[test]
    fn people_read_one_row_for_each_point_and_what_went_wrong() {
        let fault = Fault::wrong("key bench/1 is not there");
        let put = Point::new(Workload::Put, 90, &effort(Workload::Put, None), &measured(Some(fault)));
        let no_op = Measured { servers: None, growth: None, ..measured(None) };
        let no_op = Point::new(Workload::Put, 90, &effort(Workload::Put, None), &no_op);
        let machine = Machine {
            data_dir: "/d".to_owned(),
            data_dir_in_memory: false,
            syncs: vec![
                Sync { writers: 1, syncs: 900, p50_us: 88.2, p99_us: 999.7 },
                Sync { writers: 5, syncs: 4_500, p50_us: 190.0, p99_us: 20_000.0 },
            ],
            no_op: vec![no_op],
        };
        let report = Report { processors: 2, ..report(vec![put], Some(machine)) };
        assert!(report.failed());
        assert_eq!(
            report.text(),
            "\
the load: 1 thread on 2 processors, 10 connections, spread over 1 server of its own: a:1

WORKLOAD   CLIENTS  OPS/S      P50      P90      P99    P99.9      MAX  ERRORS  SERVER CPU/OP  LOAD CPU/OP  DISK/OP
put             64    500  10.0 ms  18.0 ms  19.8 ms  20.0 ms  20.0 ms       1       100.0 us       9.0 us   6.2 kB
no-op put       64    500  10.0 ms  18.0 ms  19.8 ms  20.0 ms  20.0 ms       0              -       9.0 us        -
put with 64 clients: 1 conflicts (0.10 %)
put with 64 clients: nobody was answered for 250.0 ms
put with 64 clients: 1 x wrong answer, the first: key bench/1 is not there

WORKLOAD  CLIENTS  MEMORY BEGIN  HALF TIME    END  HIGHEST  DISK BEGIN  HALF TIME     END  HIGHEST
put            64         50 MB      51 MB  52 MB    52 MB      1.0 MB     4.0 MB  3.0 MB   4.0 MB

compactions, one every 10 s: 3, up to revision 900; 1 failed
compactions: 1 x timeout, the first: no answer
no-op put: one server that answers and does nothing, which is what gRPC allows
disk, 4 KiB and fdatasync, alone: p50 88 us, p99 1.00 ms of 900
disk, 4 KiB and fdatasync, 5 writers at once: p50 190 us, p99 20.0 ms of 4500
the servers' data was in /d
"
        );
    }

    #[test]
    fn an_open_loop_says_what_was_due() {
        let point = Point::new(Workload::Mixed, 90, &effort(Workload::Mixed, Some(550)), &measured(None));
        assert_eq!(point.reads_percent, Some(90));
        let text = report(vec![point], None).text();
        assert!(text.contains("1100 were due at 550 a second, 99 of them were not sent"), "{text}");
    }

    #[test]
    fn without_answers_there_are_no_figures() {
        let nothing = Measured { tally: Tally::from(Instant::now()), ..measured(None) };
        let point = Point::new(Workload::Get, 90, &effort(Workload::Get, None), &nothing);
        assert_eq!((point.server_cpu_us, point.load_cpu_us, point.answered_per_second), (None, None, 0.0));
        assert!(point.cells("get".to_owned())[3..8].iter().all(|cell| cell == "-"));
    }

    #[test]
    fn programs_read_names_that_stay() {
        let point = Point::new(Workload::Txn, 90, &effort(Workload::Txn, Some(550)), &measured(None));
        let json = serde_json::to_value(report(vec![point], None)).unwrap();
        let point = &json["points"][0];
        assert_eq!(point["workload"], "txn");
        assert_eq!((&point["answered"], &point["conflicts"]), (&1_000.into(), &1.into()));
        assert_eq!(point["open_loop"]["not_sent"], 99);
        assert_eq!(point["server_written_bytes"], 6_200.0);
        let growth = &point["growth"];
        assert_eq!(
            (&growth["resident_bytes"]["begin"], &growth["disk_bytes"]["highest"]),
            (&50_000_000.into(), &4_000_000.into())
        );
        assert_eq!(
            (&growth["samples"][2]["seconds"], &growth["samples"][2]["disk_bytes"]),
            (&2.0.into(), &3_000_000.into())
        );
        assert_eq!(json["compactions"]["revision"], 900);
        assert!(point["latency_us"]["p999"].as_f64().unwrap() > 19_000.0);
        assert!(point["reads_percent"].is_null() && json["machine"].is_null());
    }
}

//! The figures, for people and programs. Field names are documented in docs/benchmarking.md and stay.

use std::time::Duration;

use serde::Serialize;

use super::disk::Sync;
use super::measure::{Effort, Measured, Target};
use super::tally::Failures;
use super::workload::Workload;
use crate::output::go;
use crate::output::table::{self, Side};

/// A silence so long is worth a remark.
const SILENCE_SAID: Duration = Duration::from_millis(100);

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
    /// What the machine allows; only with servers of our own.
    pub(super) machine: Option<Machine>,
}

/// What the machine allows.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) data_dir: String,
    /// It is no disk, so syncs say nothing.
    pub(super) data_dir_in_memory: bool,
    pub(super) syncs: Vec<Sync>,
    /// Puts to one server that does nothing.
    pub(super) no_op: Vec<Point>,
}

/// One workload with so many clients.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Point {
    pub(super) workload: Workload,
    /// Reads of a hundred requests, if they are mixed.
    pub(super) reads_percent: Option<u8>,
    pub(super) clients: usize,
    pub(super) connections: usize,
    pub(super) seconds: f64,
    /// Requests that were answered rightly.
    pub(super) answered: u64,
    pub(super) answered_per_second: f64,
    pub(super) latency_us: Latency,
    /// The longest time in which no request was answered, in microseconds; 1000 if all were shorter.
    pub(super) longest_silence_us: f64,
    /// Transactions among those answered that wrote nothing, because another client had written meanwhile.
    pub(super) conflicts: u64,
    pub(super) failed: u64,
    pub(super) failures: Vec<Failures>,
    /// In an open loop only.
    pub(super) open_loop: Option<OpenLoop>,
    /// CPU of the load generator, for each request that was answered.
    pub(super) load_cpu_us: Option<f64>,
    /// CPU of all servers together, for each request that was answered.
    pub(super) server_cpu_us: Option<f64>,
    /// Memory of all servers together at the end.
    pub(super) server_resident_bytes: Option<u64>,
    /// Written to disks by all servers together, for each request that was answered.
    pub(super) server_written_bytes: Option<f64>,
}

/// How long answers took, in microseconds; all zero if there was none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

/// What was due, whether it was answered or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct OpenLoop {
    /// Requests per second.
    pub(super) rate: u32,
    pub(super) due: u64,
    /// Requests among them that all clients were too busy for until the end.
    pub(super) not_sent: u64,
}

impl Point {
    pub(super) fn new(workload: Workload, reads: u8, effort: &Effort, measured: &Measured) -> Self {
        let Measured { tally, took, longest_silence, connections, own_cpu, servers } = measured;
        let answered = tally.answers();
        let each = |sum: f64| (answered > 0).then(|| sum / answered as f64);
        let micros = |quantile| tally.latencies.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            workload,
            reads_percent: (workload == Workload::Mixed).then_some(reads),
            clients: effort.clients,
            connections: *connections,
            seconds: took.as_secs_f64(),
            answered,
            answered_per_second: if took.is_zero() { 0.0 } else { answered as f64 / took.as_secs_f64() },
            latency_us: Latency {
                mean: tally.latencies.mean() / 1e3,
                p50: micros(0.5),
                p90: micros(0.9),
                p99: micros(0.99),
                p999: micros(0.999),
                max: tally.latencies.max() as f64 / 1e3,
            },
            longest_silence_us: longest_silence.as_secs_f64() * 1e6,
            conflicts: tally.conflicts,
            failed: tally.failures(),
            failures: tally.kinds(),
            open_loop: effort.rate.map(|rate| OpenLoop { rate, due: tally.due, not_sent: tally.not_sent }),
            load_cpu_us: each(own_cpu.as_secs_f64() * 1e6),
            server_cpu_us: servers.and_then(|servers| each(servers.cpu.as_secs_f64() * 1e6)),
            server_resident_bytes: servers.map(|servers| servers.resident),
            server_written_bytes: servers.and_then(|servers| each(servers.written as f64)),
        }
    }

    fn cells(&self, name: String) -> Vec<String> {
        let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
        let micros = |value: Option<f64>| or_dash(value.map(|us| format!("{us:.1} us")));
        let latency = &self.latency_us;
        let mut cells = vec![name, self.clients.to_string(), format!("{:.0}", self.answered_per_second)];
        let times = [latency.p50, latency.p90, latency.p99, latency.p999, latency.max];
        cells.extend(times.map(|time| if self.answered > 0 { in_words(time) } else { "-".to_owned() }));
        cells.extend([
            self.failed.to_string(),
            micros(self.server_cpu_us),
            micros(self.load_cpu_us),
            or_dash(self.server_written_bytes.map(|bytes| go::bytes(bytes as u64))),
        ]);
        cells
    }

    /// What the table has no column for.
    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if let Some(OpenLoop { rate, due, not_sent }) = self.open_loop {
            remarks.push(format!("{due} were due at {rate} a second, {not_sent} of them were not sent"));
        }
        if self.conflicts > 0 {
            let share = self.conflicts as f64 / self.answered as f64 * 100.0;
            remarks.push(format!("{} conflicts ({share:.2} %)", self.conflicts));
        }
        if self.longest_silence_us >= SILENCE_SAID.as_micros() as f64 {
            remarks.push(format!("nobody was answered for {}", in_words(self.longest_silence_us)));
        }
        let failures = self.failures.iter();
        remarks.extend(
            failures.map(|Failures { kind, count, first }| format!("{count} x {kind}, the first: {first}")),
        );
        let who = format!("{} with {} clients", self.workload.name(), self.clients);
        remarks.into_iter().map(|remark| format!("{who}: {remark}\n")).collect()
    }
}

impl Report {
    pub(super) fn new(target: &Target, points: Vec<Point>, machine: Option<Machine>) -> Self {
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
            machine,
        }
    }

    /// Whether any request failed.
    pub(super) fn failed(&self) -> bool {
        self.points.iter().any(|point| point.failed > 0)
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        const TITLES: [(&str, Side); 12] = [
            ("WORKLOAD", Side::Left),
            ("CLIENTS", Side::Right),
            ("OPS/S", Side::Right),
            ("P50", Side::Right),
            ("P90", Side::Right),
            ("P99", Side::Right),
            ("P99.9", Side::Right),
            ("MAX", Side::Right),
            ("ERRORS", Side::Right),
            ("SERVER CPU/OP", Side::Right),
            ("LOAD CPU/OP", Side::Right),
            ("DISK/OP", Side::Right),
        ];
        let no_op = self.machine.iter().flat_map(|machine| &machine.no_op);
        let rows: Vec<Vec<String>> = self
            .points
            .iter()
            .map(|point| point.cells(point.workload.name()))
            .chain(no_op.map(|point| point.cells("no-op put".to_owned())))
            .collect();
        let mut text = table::columns(&TITLES, &rows);
        self.points.iter().flat_map(Point::remarks).for_each(|remark| text.push_str(&remark));
        if let Some(resident) = self.points.last().and_then(|last| last.server_resident_bytes) {
            text.push_str(&format!("the servers' memory in the end: {}\n", go::bytes(resident)));
        }
        if let Some(machine) = &self.machine {
            text.push_str(&machine.text());
        }
        text
    }
}

impl Machine {
    fn text(&self) -> String {
        let mut text =
            "no-op put: one server that answers and does nothing, which is what gRPC allows\n".to_owned();
        for Sync { writers, syncs, p50_us, p99_us } in &self.syncs {
            let who = if *writers == 1 { "alone".to_owned() } else { format!("{writers} writers at once") };
            let (p50, p99) = (in_words(*p50_us), in_words(*p99_us));
            text.push_str(&format!("disk, 4 KiB and fdatasync, {who}: p50 {p50}, p99 {p99} of {syncs}\n"));
        }
        text.push_str(&format!("the servers' data was in {}", self.data_dir));
        if self.data_dir_in_memory {
            text.push_str(", which is in memory: nothing here says anything about a disk");
        }
        text.push('\n');
        text
    }
}

/// A time of so many microseconds, in the unit that people read it in.
pub(super) fn in_words(micros: f64) -> String {
    match micros {
        ..999.5 => format!("{micros:.0} us"),
        ..9_995.0 => format!("{:.2} ms", micros / 1e3),
        ..999_500.0 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::client::Job;
    use super::super::course::Extent;
    use super::super::process::Usage;
    use super::super::tally::{Fault, Tally};
    use super::super::workload::Shape;
    use super::*;

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
        }
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
            pids: Vec::new(),
        };
        Report::new(&target, points, machine)
    }

    #[test]
    fn people_read_one_row_for_each_point_and_what_went_wrong() {
        let fault = Fault::wrong("key bench/1 is not there");
        let put = Point::new(Workload::Put, 90, &effort(Workload::Put, None), &measured(Some(fault)));
        let no_op = Measured { servers: None, ..measured(None) };
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
        let report = report(vec![put], Some(machine));
        assert!(report.failed());
        assert_eq!(
            report.text(),
            "\
WORKLOAD   CLIENTS  OPS/S      P50      P90      P99    P99.9      MAX  ERRORS  SERVER CPU/OP  LOAD CPU/OP  DISK/OP
put             64    500  10.0 ms  18.0 ms  19.8 ms  20.0 ms  20.0 ms       1       100.0 us       9.0 us   6.2 kB
no-op put       64    500  10.0 ms  18.0 ms  19.8 ms  20.0 ms  20.0 ms       0              -       9.0 us        -
put with 64 clients: 1 conflicts (0.10 %)
put with 64 clients: nobody was answered for 250.0 ms
put with 64 clients: 1 x wrong answer, the first: key bench/1 is not there
the servers' memory in the end: 52 MB
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
        assert!(point["latency_us"]["p999"].as_f64().unwrap() > 19_000.0);
        assert!(point["reads_percent"].is_null() && json["machine"].is_null());
    }
}

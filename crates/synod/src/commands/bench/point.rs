//! The figures of one measurement. Field names are documented in docs/benchmarking.md and stay.

use std::time::Duration;

use serde::Serialize;

use super::growth::Growth;
use super::measure::{Effort, Measured};
use super::tally::Failures;
use super::workload::Workload;
use crate::output::go;
use crate::output::table::or_dash;

/// A silence so long is worth a remark.
const SILENCE_SAID: Duration = Duration::from_millis(100);

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
    /// What became of the servers' memory and disk meanwhile.
    pub(super) growth: Option<Growth>,
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
    /// What [`Point::cells`] are.
    pub(super) const TITLES: [&str; 12] = [
        "WORKLOAD",
        "CLIENTS",
        "OPS/S",
        "P50",
        "P90",
        "P99",
        "P99.9",
        "MAX",
        "ERRORS",
        "SERVER CPU/OP",
        "LOAD CPU/OP",
        "DISK/OP",
    ];

    pub(super) fn new(workload: Workload, reads: u8, effort: &Effort, measured: &Measured) -> Self {
        let Measured { tally, took, longest_silence, connections, own_cpu, servers, growth } = measured;
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
            failed: tally.faults.count(),
            failures: tally.faults.kinds(),
            open_loop: effort.rate.map(|rate| OpenLoop { rate, due: tally.due, not_sent: tally.not_sent }),
            load_cpu_us: each(own_cpu.as_secs_f64() * 1e6),
            server_cpu_us: servers.and_then(|servers| each(servers.cpu.as_secs_f64() * 1e6)),
            server_resident_bytes: servers.map(|servers| servers.resident),
            server_written_bytes: servers.and_then(|servers| each(servers.written as f64)),
            growth: growth.clone(),
        }
    }

    /// One row of the table, under [`Point::TITLES`].
    pub(super) fn cells(&self, name: String) -> Vec<String> {
        let micros = |value| or_dash(value, |us: f64| format!("{us:.1} us"));
        let latency = &self.latency_us;
        let mut cells = vec![name, self.clients.to_string(), format!("{:.0}", self.answered_per_second)];
        let times = [latency.p50, latency.p90, latency.p99, latency.p999, latency.max];
        cells.extend(times.map(|time| or_dash((self.answered > 0).then_some(time), in_words)));
        cells.extend([
            self.failed.to_string(),
            micros(self.server_cpu_us),
            micros(self.load_cpu_us),
            or_dash(self.server_written_bytes, |bytes| go::bytes(bytes as u64)),
        ]);
        cells
    }

    /// What the table has no column for.
    pub(super) fn remarks(&self) -> Vec<String> {
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

/// A time of so many microseconds, in the unit that people read it in.
pub(super) fn in_words(micros: f64) -> String {
    match micros {
        ..999.5 => format!("{micros:.0} us"),
        ..9_995.0 => format!("{:.2} ms", micros / 1e3),
        ..999_500.0 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

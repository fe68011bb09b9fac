//! The figures, for people and programs. Field names are documented in docs/benchmarking.md and stay.

use serde::Serialize;

use super::measure::{Measured, Target};
use super::tally::Failures;
use super::workload::Workload;
use crate::output::table::{self, Side};

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
    /// Transactions among those answered that wrote nothing, because another client had written meanwhile.
    pub(super) conflicts: u64,
    pub(super) failed: u64,
    pub(super) failures: Vec<Failures>,
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

impl Point {
    pub(super) fn new(workload: Workload, reads: u8, clients: usize, measured: &Measured) -> Self {
        let Measured { tally, took, connections, own_cpu, servers } = measured;
        let answered = tally.answers();
        let each = |sum: f64| (answered > 0).then(|| sum / answered as f64);
        let micros = |quantile| tally.latencies.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            workload,
            reads_percent: (workload == Workload::Mixed).then_some(reads),
            clients,
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
            conflicts: tally.conflicts,
            failed: tally.failures(),
            failures: tally.kinds(),
            load_cpu_us: each(own_cpu.as_secs_f64() * 1e6),
            server_cpu_us: servers.and_then(|servers| each(servers.cpu.as_secs_f64() * 1e6)),
            server_resident_bytes: servers.map(|servers| servers.resident),
            server_written_bytes: servers.and_then(|servers| each(servers.written as f64)),
        }
    }
}

impl Report {
    pub(super) fn new(target: &Target) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            endpoints: target.endpoints.clone(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            load_threads: target.threads,
            keys: target.shape.keys,
            key_bytes: target.shape.key_size,
            value_bytes: target.shape.value_size,
            seed: target.seed,
            points: Vec::new(),
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
        let micros = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |us| format!("{us:.1} us"));
        let rows: Vec<Vec<String>> = self
            .points
            .iter()
            .map(|point| {
                let latency = &point.latency_us;
                vec![
                    point.workload.name(),
                    point.clients.to_string(),
                    format!("{:.0}", point.answered_per_second),
                    time(latency.p50),
                    time(latency.p90),
                    time(latency.p99),
                    time(latency.p999),
                    time(latency.max),
                    point.failed.to_string(),
                    micros(point.server_cpu_us),
                    micros(point.load_cpu_us),
                    point.server_written_bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.0} B")),
                ]
            })
            .collect();
        let mut text = table::columns(&TITLES, &rows);
        for point in &self.points {
            let who = format!("{} with {} clients", point.workload.name(), point.clients);
            if point.conflicts > 0 {
                let share = point.conflicts as f64 / point.answered as f64 * 100.0;
                text.push_str(&format!("{who}: {} conflicts ({share:.2} %)\n", point.conflicts));
            }
            for Failures { kind, count, first } in &point.failures {
                text.push_str(&format!("{who}: {count} x {kind}, first: {first}\n"));
            }
        }
        text
    }
}

/// A time of so many microseconds, in the unit that people read it in.
fn time(micros: f64) -> String {
    match micros {
        ..1_000.0 => format!("{micros:.0} us"),
        ..10_000.0 => format!("{:.2} ms", micros / 1e3),
        ..1_000_000.0 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

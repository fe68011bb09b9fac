//! `bench`: how much, how fast, and at what price.
//!
//! A load generator for any server that speaks etcd's API. It measures from outside, so etcd is measured by the same
//! code. Clients are tasks ([`client`]) on threads of their own ([`worker`]) that call over plain HTTP/2 ([`wire`]);
//! what they count ([`tally`]) becomes a report ([`report`]). What makes that worth believing: every answer is
//! looked at, latencies are never without the rate beside them, and the price of both sides is told, in
//! microseconds of CPU for each request.

mod client;
mod course;
mod measure;
mod process;
mod report;
mod tally;
mod wire;
mod worker;
mod workload;

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use self::client::Job;
use self::course::Extent;
use self::measure::Target;
use self::report::{Point, Report};
use self::workload::{Requests, Shape, Workload};
use crate::cluster::signals::Signals;
use crate::duration;
use crate::failed::{Failed, Why};
use crate::options::Context;
use crate::output::{self, Format, json};

const EXAMPLES: &str = "\
Examples:
  synod bench put --clients 64 --endpoints 127.0.0.1:2379,127.0.0.1:2381 --fill
  synod bench get --clients 1,64 --duration 30s --pids 4711,4712,4713
  synod bench mixed --reads 90 --requests 100000 --output json

Exit codes: 0 done, 1 a request failed or was answered wrongly (see --allow-errors), 2 wrong usage.";

/// What to measure.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to measure, one after the other [default: put get serializable mixed]
    #[arg(value_enum)]
    workloads: Vec<Workload>,

    /// How many clients, each with one request under way; one measurement for each number
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,64,256",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: Vec<u32>,

    /// How long each measurement lasts
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    duration: Duration,

    /// Measure so many requests instead
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,

    /// How long clients are busy before it counts
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration::parse)]
    warmup: Duration,

    /// How many connections [default: one for each client, but one to two for each endpoint]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: Option<u32>,

    /// Threads that make the load [default: half of the processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: Option<u32>,

    /// How many different keys
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    keys: u64,

    /// Length of a key in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    key_size: u32,

    /// Length of a value in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    value_size: u32,

    /// Reads of a hundred requests, where they are mixed
    #[arg(long, value_name = "PERCENT", default_value_t = 90, value_parser = clap::value_parser!(u8).range(0..=100))]
    reads: u8,

    /// Write every key before anything is measured
    #[arg(long)]
    fill: bool,

    /// Processes of the servers, to see what a request costs them
    #[arg(long, value_name = "PID,...", value_delimiter = ',')]
    pids: Vec<u32>,

    /// How long a client waits for an answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    timeout: Duration,

    /// What is random is made of this number
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Exit with 0 even if requests failed
    #[arg(long)]
    allow_errors: bool,
}

/// Measures, and reports.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failed> {
    args.check()?;
    let mut signals = Signals::listen()?;
    let report = tokio::select! {
        report = args.measure(context) => report?,
        code = signals.next() => {
            eprintln!("interrupted: no report");
            std::process::exit(code)
        }
    };
    output::emit(if context.format == Format::Json { json::line(&report) } else { report.text() })?;
    match report.failed() && !args.allow_errors {
        true => Err(Failed::new("requests failed").hint("The figures are those of the others.")),
        false => Ok(()),
    }
}

impl Args {
    /// What no single argument can be blamed for.
    fn check(&self) -> Result<(), Failed> {
        let wrong = |what: String| Err(Failed::usage(Why::Arguments, what));
        let least = Shape::least_key_size(self.keys);
        if (self.key_size as usize) < least {
            return wrong(format!("{} keys need --key-size {least} at least", self.keys));
        }
        for (name, time) in [("--duration", self.duration), ("--timeout", self.timeout)] {
            if time.is_zero() {
                return wrong(format!("{name} must be longer than that"));
            }
        }
        Ok(())
    }

    fn workloads(&self) -> Vec<Workload> {
        match self.workloads.is_empty() {
            true => vec![Workload::Put, Workload::Get, Workload::Serializable, Workload::Mixed],
            false => self.workloads.clone(),
        }
    }

    fn target(&self, context: &Context) -> Result<Target, Failed> {
        let client = context.client()?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Target {
            endpoints: client.replicas().iter().map(|replica| replica.endpoint().to_owned()).collect(),
            connections: self.connections.map(|connections| connections as usize),
            threads: self.threads.map_or((processors / 2).max(1), |threads| threads as usize),
            shape: Shape {
                keys: self.keys,
                key_size: self.key_size as usize,
                value_size: self.value_size as usize,
            },
            seed: self.seed,
            limit: self.timeout,
            dial_timeout: context.dial_timeout,
            pids: self.pids.clone(),
        })
    }

    async fn measure(&self, context: &Context) -> Result<Report, Failed> {
        let target = self.target(context)?;
        let extent = self.requests.map_or(Extent::Time(self.duration), Extent::Requests);
        if self.fill {
            let bar = bar(&format!("filling {} keys", self.keys), Requests::chunks(self.keys));
            target.fill(|done| bar.set_position(done)).await?;
            bar.finish_and_clear();
        }
        let mut report = Report::new(&target);
        for workload in self.workloads() {
            for &clients in &self.clients {
                let clients = clients as usize;
                let bar = bar(&format!("{} with {clients} clients", workload.name()), 0);
                let job = Job::Measure { workload, reads: self.reads };
                let measured =
                    target.measure(clients, job, self.warmup, extent, |done| bar.set_position(done)).await?;
                bar.finish_and_clear();
                report.points.push(Point::new(workload, self.reads, clients, &measured));
            }
        }
        Ok(report)
    }
}

/// Shows how far it is, on a terminal; of `all`, if that is known and not 0.
fn bar(what: &str, all: u64) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = if all > 0 { "{msg}  {pos} of {len}" } else { "{msg}  {pos} requests  {elapsed}" };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(all).with_style(style).with_message(what.to_owned())
}

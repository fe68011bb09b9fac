//! What can be asked for, and what cannot.

use std::time::Duration;

use super::client::Job;
use super::course::Extent;
use super::growth::Watched;
use super::load::LoadArgs;
use super::measure::{Effort, Target};
use super::workload::{Shape, Workload};
use crate::duration;
use crate::failed::{Failed, Why};
use crate::options::Context;

const EXAMPLES: &str = "\
Examples:
  synod bench                                              five servers of its own, and what the machine allows
  synod bench put get --clients 1,64 --duration 30s
  synod bench put --endpoints 127.0.0.1:2379,127.0.0.1:2381 --fill --pids 4711,4712
  synod bench mixed --reads 50 --rate 5000                 open loop: latency counts from when a request was due
  synod bench txn --keys 100 --requests 100000 --output json
  synod bench put --clients 64 --duration 30m --compact-every 10s    does it grow?

docs/benchmarking.md says what each column means, and how to measure etcd.

Exit codes: 0 done, 1 a request failed or was answered wrongly (see --allow-errors), 2 wrong usage.";

/// What to measure.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to measure, one after the other [default: put get serializable mixed]
    #[arg(value_enum)]
    pub(super) workloads: Vec<Workload>,

    /// How many clients, each with one request under way; one measurement for each number [default: 1,64,256; with --rate 256]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) clients: Vec<u32>,

    /// Requests per second that are due at fixed times, whether those before were answered or not
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) rate: Option<u32>,

    /// How long each measurement lasts
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    pub(super) duration: Duration,

    /// Measure so many requests instead
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) requests: Option<u64>,

    /// How many connections [default: one for each client, but one to two for each endpoint]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) connections: Option<u32>,

    /// Length of a key in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub(super) key_size: u32,

    /// Reads of a hundred requests, where they are mixed
    #[arg(long, value_name = "PERCENT", default_value_t = 90, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(super) reads: u8,

    #[command(flatten)]
    pub(super) load: LoadArgs,

    /// Write every key before anything is measured; own servers are always filled
    #[arg(long)]
    pub(super) fill: bool,

    /// How many servers to start, where there are no --endpoints [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(super) servers: Option<u8>,

    /// Processes of the servers, to see what a request costs them
    #[arg(long, value_name = "PID,...", value_delimiter = ',')]
    pub(super) pids: Vec<u32>,

    /// How long a client waits for an answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    pub(super) timeout: Duration,

    /// Compact the history so often meanwhile, up to the newest revision [default: never]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(super) compact_every: Option<Duration>,

    /// Exit with 0 even if requests failed
    #[arg(long)]
    pub(super) allow_errors: bool,
}

impl Args {
    /// Refuses what no single argument can be blamed for.
    ///
    /// # Errors
    /// With what is wrong.
    pub(super) fn check(&self, context: &Context) -> Result<(), Failed> {
        let wrong = |what: String| Err(Failed::usage(Why::Arguments, what));
        let least = Shape::least_key_size(self.load.keys);
        if (self.key_size as usize) < least {
            return wrong(format!("{} keys need --key-size {least} at least", self.load.keys));
        }
        let compact_every = self.compact_every.map(|time| ("--compact-every", time));
        let times = [("--duration", self.duration), ("--timeout", self.timeout)];
        for (name, time) in times.into_iter().chain(compact_every) {
            if time.is_zero() {
                return wrong(format!("{name} must be longer than that"));
            }
        }
        let own = !context.endpoints_given;
        if own && !self.pids.is_empty() {
            return wrong("--pids goes with --endpoints: the servers of its own are known".to_owned());
        }
        if !own && (self.servers.is_some() || self.load.data_dir.is_some()) {
            return wrong(
                "--servers and --data-dir are for servers of its own: leave --endpoints out".to_owned(),
            );
        }
        Ok(())
    }

    /// What is measured, in this order.
    pub(super) fn workloads(&self) -> Vec<Workload> {
        match self.workloads.is_empty() {
            true => vec![Workload::Put, Workload::Get, Workload::Serializable, Workload::Mixed],
            false => self.workloads.clone(),
        }
    }

    /// With so many clients each.
    pub(super) fn clients(&self) -> Vec<usize> {
        let clients: &[u32] = match (self.clients.as_slice(), self.rate) {
            ([], None) => &[1, 64, 256],
            ([], Some(_)) => &[256],
            (given, _) => given,
        };
        clients.iter().map(|&clients| clients as usize).collect()
    }

    pub(super) fn effort(&self, workload: Workload, clients: usize) -> Effort {
        Effort {
            clients,
            job: Job::Measure { workload, reads: self.reads },
            warm_up: self.load.warmup,
            extent: match (self.requests, self.rate) {
                (None, _) => Extent::Time(self.duration),
                (Some(requests), None) => Extent::Requests(requests),
                // As long as so many are due.
                (Some(requests), Some(rate)) => {
                    Extent::Time(Duration::from_secs_f64(requests as f64 / f64::from(rate)))
                }
            },
            rate: self.rate,
        }
    }

    /// Whom to ask.
    pub(super) fn target(&self, endpoints: Vec<String>, watched: Watched, context: &Context) -> Target {
        Target {
            connections: self.connections.map(|connections| connections as usize),
            ..self.load.target(endpoints, watched, self.key_size as usize, self.timeout, context)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::tests::parse;
    use super::*;
    use crate::failed::Personality;

    fn args(line: &str) -> Args {
        parse(line).unwrap().0
    }

    fn refusal(line: &str) -> String {
        let (args, context) = parse::<Args>(line).unwrap();
        let failed = args.check(&context).unwrap_err();
        assert_eq!(failed.code(Personality::Synod), 2, "{line}");
        failed.to_string()
    }

    #[test]
    fn nothing_asked_for_is_the_usual() {
        let (args, context) = parse::<Args>("").unwrap();
        args.check(&context).unwrap();
        let usual = [Workload::Put, Workload::Get, Workload::Serializable, Workload::Mixed];
        assert_eq!(args.workloads(), usual);
        assert_eq!(args.clients(), [1, 64, 256]);
        let effort = args.effort(Workload::Mixed, 64);
        assert_eq!(effort.job, Job::Measure { workload: Workload::Mixed, reads: 90 });
        assert_eq!((effort.extent, effort.rate), (Extent::Time(Duration::from_secs(10)), None));
    }

    #[test]
    fn several_workloads_and_numbers_of_clients_in_their_order() {
        let args = args("txn put txn --clients 16,1,64");
        assert_eq!(args.workloads(), [Workload::Txn, Workload::Put, Workload::Txn]);
        assert_eq!(args.clients(), [16, 1, 64]);
    }

    #[test]
    fn a_number_of_requests_at_a_rate_is_a_time() {
        assert_eq!(args("--requests 300").effort(Workload::Put, 1).extent, Extent::Requests(300));
        let args = args("--requests 300 --rate 200");
        assert_eq!(args.effort(Workload::Put, 1).extent, Extent::Time(Duration::from_millis(1_500)));
        assert_eq!(args.clients(), [256], "clients are only the bound then");
    }

    #[test]
    fn keys_must_be_told_apart() {
        assert!(refusal("--keys 100000 --key-size 10").contains("--key-size 11"));
        let (args, context) = parse::<Args>("--keys 100000 --key-size 11").unwrap();
        args.check(&context).unwrap();
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in
            ["delete", "--clients 0", "--rate 0", "--reads 101", "--requests 5 --duration 1s", "--keys 0"]
        {
            assert!(parse::<Args>(line).is_err(), "{line}");
        }
        assert!(refusal("--duration 0").contains("--duration"));
        assert!(refusal("--timeout 0s").contains("--timeout"));
        assert!(refusal("--compact-every 0s").contains("--compact-every"));
        assert!(refusal("--pids 1").contains("--endpoints"));
        assert!(refusal("--endpoints a:1 --servers 3").contains("--servers"));
        assert!(refusal("--endpoints a:1 --data-dir /x").contains("--data-dir"));
    }
}

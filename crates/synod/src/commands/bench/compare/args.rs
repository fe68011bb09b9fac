//! What can be asked for. Nothing needs to be: the defaults are what the published figures are made with.

use std::path::PathBuf;
use std::time::Duration;

use super::super::client::Job;
use super::super::course::Extent;
use super::super::growth::Watched;
use super::super::load::LoadArgs;
use super::super::measure::{Effort, Target};
use super::super::own::Servers;
use super::super::workload::Workload;
use crate::duration;
use crate::failed::{Failed, Why};
use crate::options::Context;

const EXAMPLES: &str = "\
Examples:
  synod compare                                    all of it, about half an hour
  synod compare --markdown > table.md
  synod compare --etcd ~/etcd-v3.5.30/etcd --rounds 5
  synod compare --rounds 1 --duration 2s --kills 0 --no-memory

docs/benchmarking.md says what is measured, and what each column means.

Exit codes: 0 measured, whatever came out; 1 could not be measured; 2 wrong usage.";

/// How long a client waits for an answer. etcd gives up after some seven seconds.
const LIMIT: Duration = Duration::from_secs(10);
/// In bytes.
const KEY_SIZE: usize = 16;
/// Reads of a hundred requests, where they are mixed.
pub(super) const READS: u8 = 90;
/// How many clients write so much that memory shows what stays.
const MANY_PUTS_CLIENTS: usize = 256;

/// How to compare.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The etcd to compare with: a path, or a name that is looked for in PATH
    #[arg(long, value_name = "PROGRAM", default_value = "etcd")]
    pub(super) etcd: PathBuf,

    /// How often both are measured, in turn, each time from nothing
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) rounds: u32,

    /// How long each workload is measured with each number of clients
    #[arg(long, value_name = "DURATION", default_value = "8s", value_parser = duration::parse)]
    pub(super) duration: Duration,

    /// How many servers of each
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(3..=9))]
    pub(super) servers: u8,

    #[command(flatten)]
    pub(super) load: LoadArgs,

    /// How often the leader is killed in each round
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub(super) kills: u32,

    /// How many puts memory is looked at after
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) memory_puts: u64,

    /// Do not look at memory after many puts, which takes minutes
    #[arg(long, conflicts_with = "memory_puts")]
    pub(super) no_memory: bool,

    /// Write the tables as Markdown
    #[arg(long)]
    pub(super) markdown: bool,
}

impl Args {
    /// Refuses what no single argument can be blamed for.
    ///
    /// # Errors
    /// With what is wrong.
    pub(super) fn check(&self) -> Result<(), Failed> {
        match self.duration.is_zero() {
            true => Err(Failed::usage(Why::Arguments, "--duration must be longer than that")),
            false => Ok(()),
        }
    }

    /// What is measured on one cluster, one after the other.
    pub(super) fn runs() -> [(Workload, usize); 9] {
        use Workload::{Get, Mixed, Put, Serializable};
        [
            (Put, 1),
            (Put, 16),
            (Put, 64),
            (Put, 256),
            (Get, 1),
            (Get, 64),
            (Get, 256),
            (Serializable, 64),
            (Mixed, 64),
        ]
    }

    /// A workload for the usual time.
    pub(super) fn effort(&self, workload: Workload, clients: usize) -> Effort {
        self.lasting(workload, clients, Extent::Time(self.duration))
    }

    /// So many puts that memory shows what stays.
    pub(super) fn many_puts(&self) -> Effort {
        let effort = self.lasting(Workload::Put, MANY_PUTS_CLIENTS, Extent::Requests(self.memory_puts));
        // They would come on top of what was asked for.
        Effort { warm_up: Duration::ZERO, ..effort }
    }

    pub(super) fn lasting(&self, workload: Workload, clients: usize, extent: Extent) -> Effort {
        let job = Job::Measure { workload, reads: READS };
        Effort { clients, job, warm_up: self.load.warmup, extent, rate: None }
    }

    /// Whom to ask: all of these servers.
    pub(super) fn target(&self, servers: &Servers, context: &Context) -> Target {
        self.target_at(servers.endpoints.clone(), servers.watched.clone(), context)
    }

    pub(super) fn target_at(&self, endpoints: Vec<String>, watched: Watched, context: &Context) -> Target {
        self.load.target(endpoints, watched, KEY_SIZE, LIMIT, context)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::load::tests::parse;
    use super::super::super::workload::Shape;
    use super::*;

    #[test]
    fn nothing_asked_for_is_what_is_published() {
        let args = parse::<Args>("").unwrap().0;
        args.check().unwrap();
        assert_eq!((args.rounds, args.kills, args.load.keys, args.servers), (3, 3, 100_000, 5));
        assert_eq!(args.effort(Workload::Put, 64).extent, Extent::Time(Duration::from_secs(8)));
        let many = args.many_puts();
        assert_eq!((many.extent, many.clients), (Extent::Requests(1_000_000), 256));
        assert_eq!(many.warm_up, Duration::ZERO);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in ["--rounds 0", "--servers 2", "--keys 0", "--no-memory --memory-puts 5", "put"] {
            assert!(parse::<Args>(line).is_err(), "{line}");
        }
        assert!(parse::<Args>("--duration 0").unwrap().0.check().is_err());
    }

    #[test]
    fn every_key_that_can_be_asked_for_fits() {
        assert!(Shape::least_key_size(1_000_000_000) <= KEY_SIZE);
    }
}

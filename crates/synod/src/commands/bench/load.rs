//! What `bench` and `compare` are both told: how the load is made, and where the servers' data lies.

use std::path::PathBuf;
use std::time::Duration;

use super::growth::Watched;
use super::measure::Target;
use super::workload::Shape;
use crate::duration;
use crate::options::Context;

/// What every load needs to know.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct LoadArgs {
    /// How long clients are busy before it counts
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration::parse)]
    pub(super) warmup: Duration,

    /// Threads that make the load [default: half of the processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: Option<u32>,

    /// How many different keys
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(super) keys: u64,

    /// Length of a value in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) value_size: u32,

    /// What is random is made of this number
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,

    /// Where the servers keep their data while they run [default: a temporary folder that is not in memory]
    #[arg(long, value_name = "FOLDER")]
    pub(super) data_dir: Option<PathBuf>,
}

impl LoadArgs {
    /// If nobody says otherwise, half of the processors, at least one.
    fn threads(&self) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or((processors / 2).max(1), |threads| threads as usize)
    }

    /// Whom to ask, with keys so long, in bytes, and a client that waits for an answer for no longer than `limit`.
    pub(super) fn target(
        &self,
        endpoints: Vec<String>,
        watched: Watched,
        key_size: usize,
        limit: Duration,
        context: &Context,
    ) -> Target {
        Target {
            endpoints,
            connections: None,
            threads: self.threads(),
            shape: Shape { keys: self.keys, key_size, value_size: self.value_size as usize },
            seed: self.seed,
            limit,
            dial_timeout: context.dial_timeout,
            watched,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use crate::failed::Personality;
    use crate::options::{Context, Options};
    use clap::Parser;

    #[derive(Parser)]
    struct Line<A: clap::Args> {
        #[command(flatten)]
        args: A,
        #[command(flatten)]
        options: Options,
    }

    /// The arguments of a subcommand, and the global options, as they would be typed behind its name.
    pub(in super::super) fn parse<A: clap::Args>(line: &str) -> Result<(A, Context), clap::Error> {
        let line = Line::try_parse_from(std::iter::once("synod").chain(line.split_whitespace()))?;
        Ok((line.args, line.options.resolve(Personality::Synod, |_| None).unwrap()))
    }
}

//! `synod server`: one replica, until it is told to stop.

use synod_server::config::{FIVE_SERVERS, ServerConfig, ServerFlags};
use synod_server::run;

use crate::allocator;
use crate::failed::{Failed, Why};

/// Flags that etcd has, too, bear its names, so that an etcd start line works with the program's name changed.
#[derive(clap::Args, Debug)]
#[command(after_help = FIVE_SERVERS)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: ServerFlags,
}

/// Runs a server on a runtime of its own: not to be called from within another.
pub(crate) fn run(args: Args) -> Result<(), Failed> {
    let config = ServerConfig::load(args.flags, |name| std::env::var(name).ok())
        .map_err(|error| Failed::usage(Why::Arguments, error.to_string()))?;
    allocator::watch();
    run::run_to_end(config).map_err(|error| {
        let failed = Failed::new(error.to_string());
        match error.advice() {
            Some(advice) => failed.hint(advice),
            None => failed,
        }
    })
}

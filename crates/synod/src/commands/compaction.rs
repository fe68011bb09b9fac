//! `compaction`: forgets the history up to a revision.

use crate::failed::{Call, Failed};
use crate::options::Context;
use crate::output;
use synod_rpc::etcdserverpb::CompactionRequest;

const EXAMPLES: &str = "\
Examples:
  synod get x -w fields             shows the revision of the store
  synod compaction 1842             get --rev 1841 fails from now on
  synod compaction 1842 --physical  also waits until the space is free

The newest value of every key stays, and everything after the revision.";

/// How much to forget.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The oldest revision that stays readable
    #[arg(allow_negative_numbers = true)]
    revision: i64,
    /// Wait until the old revisions are removed from the disk
    #[arg(long)]
    physical: bool,
}

/// Compacts the history.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failed> {
    let Args { revision, physical } = args;
    let request = CompactionRequest { revision, physical };
    context.client()?.compact(request).await.map_err(|error| Failed::call(&error, Call::Write))?;
    output::emit(format!("compacted revision {revision}\n"))
}

//! `member list`: who belongs to the cluster.

use clap::Subcommand;

use crate::failed::{Call, Failed};
use crate::options::Context;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  synod member list
  synod member list -w table";

/// What about the members.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// List the members: id, status, name, peer addresses, client addresses, learner or not
    #[command(after_help = EXAMPLES)]
    List,
}

/// Lists the members.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failed> {
    let Command::List = args.command;
    let list = context.client()?.member_list().await.map_err(|error| Failed::call(&error, Call::Read))?;
    output::emit(output::members(&list, context.format))
}

//! `fault`: breaks a running cluster on purpose.
//!
//! Faults are asked of the replica they befall, over its Admin service, and are
//! refused unless it was started with `--allow-faults`. Where a replica is, its
//! name tells, by the member list of any endpoint.

mod events;
mod nodes;
mod request;

use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use self::nodes::Nodes;
use crate::duration;
use crate::failed::{Call, Failed};
use crate::options::Context;
use crate::output::{self, Format, json};
use synod_client::Replica;
use synod_rpc::synodpb::inject_fault_request::Fault;
use synod_rpc::synodpb::{HealLinks, Role, StartRole, StopRandomFaults};

const EXAMPLES: &str = "\
Examples:
  synod fault stop acceptor --on n4 --for 2s     and it comes back, remembering
  synod fault stop acceptor --on n4 --forget     its memory is gone; it must be admitted again
  synod fault start acceptor --on n4
  synod fault cut n1 n2                          no message between the two, in either direction
  synod fault link n1 n2 --drop 0.1 --delay 50ms
  synod fault heal
  synod fault random --roles acceptor,proposer --up 5s --down 1s --seed 7
  synod fault random --stop
  synod fault events                             watch what happens, in another window

A node is named as in `synod status`, or by HOST:PORT. Servers refuse all this unless
they were started with --allow-faults.";

/// Which fault.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Stop a role of a replica in the middle of what it does
    Stop {
        /// proposer, acceptor or learner
        #[arg(value_enum, hide_possible_values = true)]
        role: RoleName,
        /// The replica
        #[arg(long, value_name = "NODE")]
        on: String,
        /// It wakes up without its memory
        #[arg(long)]
        forget: bool,
        /// Start it again after this time; without it, wait for `fault start`
        #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
        time: Option<Duration>,
    },
    /// Start a stopped role
    Start {
        /// proposer, acceptor or learner
        #[arg(value_enum, hide_possible_values = true)]
        role: RoleName,
        /// The replica
        #[arg(long, value_name = "NODE")]
        on: String,
    },
    /// Lose every message between two replicas
    Cut {
        /// One replica
        one: String,
        /// The other
        other: String,
        /// Lose only what ONE sends to OTHER
        #[arg(long)]
        one_way: bool,
    },
    /// Lose or delay some messages between two replicas
    Link {
        /// One replica
        one: String,
        /// The other
        other: String,
        /// Chance that a message is lost, from 0 to 1
        #[arg(long, value_name = "CHANCE", default_value_t = 0.0, value_parser = request::chance)]
        drop: f64,
        /// Hold each message back for this time
        #[arg(long, value_name = "DURATION", default_value = "0", value_parser = duration::parse)]
        delay: Duration,
    },
    /// End every cut, loss and delay
    Heal {
        /// Only at these replicas; without it, at all
        #[arg(long, value_name = "NODE,...", value_delimiter = ',')]
        on: Vec<String>,
    },
    /// Stop and restart roles at random times
    Random(request::Random),
    /// Print faults, restarts and leader changes as they happen
    Events {
        /// Only at these replicas; without it, at all
        #[arg(long, value_name = "NODE,...", value_delimiter = ',')]
        on: Vec<String>,
    },
}

/// A role, as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleName {
    /// Leads: gives values to slots
    Proposer,
    /// Votes: the memory of the cluster
    Acceptor,
    /// Applies what was chosen to the store
    Learner,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Proposer => Self::Proposer,
            RoleName::Acceptor => Self::Acceptor,
            RoleName::Learner => Self::Learner,
        }
    }
}

/// Causes or ends the fault, or watches.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failed> {
    let nodes = Nodes::find(&context.client()?).await?;
    match args.command {
        Command::Stop { role, on, forget, time } => {
            inject(nodes.one(&on).await?, request::stop(role, forget, time)?, context).await
        }
        Command::Start { role, on } => {
            let fault = Fault::StartRole(StartRole { role: Role::from(role).into() });
            inject(nodes.one(&on).await?, fault, context).await
        }
        Command::Cut { one, other, one_way } => {
            let peer = nodes.peer(&other).await?;
            inject(nodes.one(&one).await?, request::cut(peer, one_way), context).await
        }
        Command::Link { one, other, drop, delay } => {
            let peer = nodes.peer(&other).await?;
            inject(nodes.one(&one).await?, request::link(peer, drop, delay)?, context).await
        }
        Command::Heal { on } => {
            everywhere(nodes.some(&on).await?, &Fault::HealLinks(HealLinks {}), context).await
        }
        Command::Random(random) if random.stop => {
            let fault = Fault::StopRandomFaults(StopRandomFaults {});
            everywhere(nodes.some(&random.on).await?, &fault, context).await
        }
        Command::Random(random) => {
            let chosen = nodes.some(&random.on).await?;
            let spared = random.spared(chosen.len());
            let seed = random.seed.unwrap_or_else(rand::random);
            output::tell(format!("seed {seed}: repeat with --seed {seed}\n"));
            if spared > 0 {
                output::tell(format!(
                    "the last {spared} of {} replicas are spared, so that a majority remembers; \
                     name others with --on\n",
                    chosen.len()
                ));
            }
            let struck = chosen.len() - spared;
            for (replica, salt) in chosen.into_iter().take(struck).zip(0..) {
                inject(replica, random.fault(seed, salt)?, context).await?;
            }
            Ok(())
        }
        Command::Events { on } => events::watch(nodes.some(&on).await?, context).await,
    }
}

/// Asks one replica and prints what it did.
async fn inject(replica: Replica, fault: Fault, context: &Context) -> Result<(), Failed> {
    let done = replica.inject_fault(fault).await.map_err(|error| refused(&error))?.done;
    output::emit(match context.format {
        Format::Json => json::line(&serde_json::json!({ "endpoint": replica.endpoint(), "done": done })),
        _ => format!("{done}\n"),
    })
}

/// Asks all of them, also after one has failed: healing half is better than
/// healing nothing.
async fn everywhere(replicas: Vec<Replica>, fault: &Fault, context: &Context) -> Result<(), Failed> {
    let mut first_failure = None;
    for replica in replicas {
        if let Err(failed) = inject(replica, fault.clone(), context).await {
            output::tell(failed.message(context.personality));
            first_failure.get_or_insert(failed);
        }
    }
    first_failure.map_or(Ok(()), |_| Err(Failed::silently()))
}

fn refused(error: &synod_client::ClientError) -> Failed {
    match error.code() {
        Some(tonic::Code::FailedPrecondition) => Failed::new(error.failure.to_string())
            .hint("Faults are only for clusters that expect them: start the server with --allow-faults."),
        // A fault changes no data, so the advice about writes would mislead.
        _ => Failed::call(error, Call::Read),
    }
}

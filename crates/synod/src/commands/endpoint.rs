//! `endpoint status` and `endpoint health`: single servers, in etcd's terms.

use std::time::Instant;

use clap::Subcommand;

use crate::failed::{Call, Failed, Personality};
use crate::options::Context;
use crate::output::{self, EndpointHealth, EndpointStatus, Format};
use synod_client::{Client, ClientError, Failure, requests};
use tonic::Code;

const STATUS_EXAMPLES: &str = "\
Examples:
  synod endpoint status --cluster -w table
  synod status                              more, and a verdict";

const HEALTH_EXAMPLES: &str = "\
Examples:
  synod endpoint health
  synod endpoint health --cluster           all members, not only --endpoints

An endpoint is healthy if it answers a linearizable read: it works, and reaches a majority.";

/// What about the endpoints.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Ask every member of the cluster instead of --endpoints only
    #[arg(long, global = true)]
    cluster: bool,
}

#[derive(Subcommand, Clone, Copy, Debug)]
enum Command {
    /// Show endpoint, id, version, size, leader, term, slots and errors
    #[command(after_help = STATUS_EXAMPLES)]
    Status,
    /// Check that endpoints serve and reach a majority
    #[command(after_help = HEALTH_EXAMPLES)]
    Health,
}

/// Checks the endpoints.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failed> {
    let client = context.client()?;
    let endpoints = if args.cluster {
        let list = client.member_list().await.map_err(|error| Failed::call(&error, Call::Read))?;
        list.members.into_iter().flat_map(|member| member.client_urls).collect()
    } else {
        context.endpoints.clone()
    };
    match args.command {
        Command::Status => status(&client, endpoints, context).await,
        Command::Health => health(&client, endpoints, context).await,
    }
}

async fn status(client: &Client, endpoints: Vec<String>, context: &Context) -> Result<(), Failed> {
    let asked: Vec<_> = endpoints
        .into_iter()
        .map(|endpoint| {
            let client = client.clone();
            tokio::spawn(async move { (client.status(&endpoint).await, endpoint) })
        })
        .collect();
    let mut statuses = Vec::with_capacity(asked.len());
    let mut failed = false;
    for answer in asked {
        match answer.await.expect("asking for a status does not panic") {
            (Ok(status), endpoint) => statuses.push(EndpointStatus { endpoint, status }),
            (Err(error), endpoint) => {
                failed = true;
                let why = reason(&error, context.personality);
                output::tell(format!("Failed to get the status of endpoint {endpoint} ({why})\n"));
            }
        }
    }
    output::emit(output::statuses(&statuses, context.format))?;
    if failed { Err(Failed::silently()) } else { Ok(()) }
}

async fn health(client: &Client, endpoints: Vec<String>, context: &Context) -> Result<(), Failed> {
    let personality = context.personality;
    let asked: Vec<_> = endpoints
        .into_iter()
        .map(|endpoint| {
            let client = client.clone();
            tokio::spawn(async move {
                let started = Instant::now();
                let answer = match client.on(&endpoint) {
                    Ok(replica) => replica.range(requests::get("health")).await.map(|_| ()),
                    Err(error) => Err(error),
                };
                // A server that may not tell us was asked all the same (C-8).
                let error = answer
                    .err()
                    .filter(|error| error.code() != Some(Code::PermissionDenied))
                    .map(|error| reason(&error, personality));
                EndpointHealth { endpoint, took: started.elapsed(), error }
            })
        })
        .collect();
    let mut healths = Vec::with_capacity(asked.len());
    for answer in asked {
        healths.push(answer.await.expect("asking for a key does not panic"));
    }
    output::emit(output::healths(&healths, context.format))?;
    let unhealthy = healths.iter().filter_map(|health| Some((&health.endpoint, health.error.as_ref()?)));
    if context.format == Format::Simple {
        for (endpoint, error) in unhealthy.clone() {
            output::tell(format!("{endpoint} is unhealthy: failed to commit proposal: {error}\n"));
        }
    }
    match unhealthy.count() {
        0 => Ok(()),
        _ => Err(Failed::new("unhealthy cluster")),
    }
}

/// Why an endpoint did not answer, in the words of the program that was called.
fn reason(error: &ClientError, personality: Personality) -> String {
    match (&error.failure, personality) {
        (Failure::Connect(_) | Failure::Deadline(_), Personality::Etcdctl) => {
            "context deadline exceeded".to_owned()
        }
        (failure, _) => failure.to_string(),
    }
}

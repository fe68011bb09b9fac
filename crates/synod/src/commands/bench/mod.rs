//! `bench`: how much, how fast, and at what price.
//!
//! A load generator for any server that speaks etcd's API. It measures from outside, so etcd is measured by the same
//! code. Clients are tasks ([`client`]) on threads of their own ([`worker`]) that call over plain HTTP/2 ([`wire`]);
//! what they count ([`tally`]) becomes a report ([`report`]). What makes that worth believing: every answer is
//! looked at, latencies are never without the rate beside them, and the price of both sides is told, in
//! microseconds of CPU for each request.
//!
//! Over a long run, what matters is whether the servers grow ([`growth`]), also if history is forgotten ([`compact`]).
//!
//! Who has no servers gets some ([`own`]), and beside their figures those of the machine ([`machine`]): what its disk
//! ([`disk`]) and what gRPC ([`noop`]) take by themselves.

mod args;
mod client;
mod compact;
pub(crate) mod compare;
mod course;
mod disk;
mod growth;
mod load;
mod machine;
mod measure;
mod noop;
mod own;
mod point;
mod report;
mod schedule;
mod silence;
mod tally;
mod wire;
mod worker;
mod workload;

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

pub(crate) use self::args::Args;
use self::compact::{Compactions, Compactor};
use self::course::Extent;
use self::growth::Watched;
use self::machine::Machine;
use self::measure::{Effort, Target};
pub(crate) use self::noop::{SUBCOMMAND as NO_OP, serve as serve_no_op};
use self::own::Ground;
use self::point::Point;
use self::report::Report;
use self::workload::{Requests, Workload};
use crate::cluster::Program;
use crate::cluster::signals::Signals;
use crate::failed::Failed;
use crate::options::Context;
use crate::output::{self, Format, json};

/// How many servers there are, where nobody says otherwise.
const SERVERS: u8 = 5;
/// The server that does nothing is measured no longer than this for each number of clients.
const NO_OP_TIME: Duration = Duration::from_secs(3);

/// Measures, and reports.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failed> {
    args.check(context)?;
    let report = or_interrupted(measure(&args, context)).await?;
    output::emit(if context.format == Format::Json { json::line(&report) } else { report.text() })?;
    match report.failed() && !args.allow_errors {
        true => Err(Failed::new("requests failed").hint("The rates and latencies are those of the others.")),
        false => Ok(()),
    }
}

/// Does it, unless somebody ends it: then this process ends, too, with the code for that.
async fn or_interrupted<T>(work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let mut signals = Signals::listen()?;
    let done = tokio::select! {
        done = work => Ok(done?),
        code = signals.next() => Err(code),
    };
    Ok(done.unwrap_or_else(|code| {
        // What was under way was dropped: own servers are killed, and their data is gone.
        eprintln!("interrupted: no report");
        std::process::exit(code)
    }))
}

async fn measure(args: &Args, context: &Context) -> Result<Report, Failed> {
    if !context.endpoints_given {
        return on_own_servers(args, context).await;
    }
    let endpoints =
        context.client()?.replicas().iter().map(|replica| replica.endpoint().to_owned()).collect();
    let watched = Watched { pids: args.pids.clone(), data: None };
    let target = args.target(endpoints, watched, context);
    if args.fill {
        fill(&target).await?;
    }
    let (points, compactions) = points(args, &target).await?;
    Ok(Report::new(&target, points, compactions, None))
}

async fn on_own_servers(args: &Args, context: &Context) -> Result<Report, Failed> {
    // In this order, so that the servers have ended when their folder is removed.
    let ground = Ground::new(args.load.data_dir.as_deref())?;
    let count = usize::from(args.servers.unwrap_or(SERVERS));
    let target = |endpoints, watched| args.target(endpoints, watched, context);
    let machine = Machine::look(&ground, count, target, no_op_efforts(args)).await?;
    let waiting = bar(&format!("starting {count} servers in {}", ground.path().display()), 0);
    let servers = ground.servers(Program::Own, count).await?;
    waiting.finish_and_clear();
    let target = args.target(servers.endpoints.clone(), servers.watched.clone(), context);
    let measured = async {
        fill(&target).await?;
        points(args, &target).await
    };
    let (points, compactions) = tokio::select! {
        points = measured => points?,
        died = servers.cluster.until_one_dies() => return Err(died),
    };
    servers.end().await?;
    Ok(Report::new(&target, points, compactions, Some(machine)))
}

/// What a server that does nothing is put to.
fn no_op_efforts(args: &Args) -> Vec<Effort> {
    let effort = |clients| {
        let effort = args.effort(Workload::Put, clients);
        let extent = match effort.extent {
            Extent::Time(time) => Extent::Time(time.min(NO_OP_TIME)),
            requests => requests,
        };
        Effort { extent, rate: None, ..effort }
    };
    args.clients().into_iter().map(effort).collect()
}

async fn fill(target: &Target) -> Result<(), Failed> {
    let keys = target.shape.keys;
    let bar = bar(&format!("writing {keys} keys"), Requests::chunks(keys));
    target.fill(|done| bar.set_position(done)).await?;
    bar.finish_and_clear();
    Ok(())
}

/// Everything that was asked for, one after the other, and compactions beside it.
async fn points(args: &Args, target: &Target) -> Result<(Vec<Point>, Option<Compactions>), Failed> {
    let measuring = async {
        let mut points = Vec::new();
        for workload in args.workloads() {
            for clients in args.clients() {
                let effort = args.effort(workload, clients);
                points.push(point(target, workload, args.reads, effort, &workload.name()).await?);
            }
        }
        Ok(points)
    };
    match args.compact_every {
        None => Ok((measuring.await?, None)),
        Some(every) => {
            let (points, compactions) = Compactor::new(target, every)?.beside(measuring).await;
            Ok((points?, Some(compactions)))
        }
    }
}

/// One measurement; `what` is shown meanwhile.
async fn point(
    target: &Target,
    workload: Workload,
    reads: u8,
    effort: Effort,
    what: &str,
) -> Result<Point, Failed> {
    let bar = bar(&format!("{what} with {} clients", effort.clients), 0);
    let measured = target.measure(effort, |done| bar.set_position(done)).await?;
    bar.finish_and_clear();
    Ok(Point::new(workload, reads, &effort, &measured))
}

/// Shows how far it is, on a terminal; of `all`, if that is known and not 0.
fn bar(what: &str, all: u64) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = if all > 0 { "{msg}  {pos} of {len}" } else { "{msg}  {pos}  {elapsed}" };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(all).with_style(style).with_message(what.to_owned());
    bar.tick();
    bar
}

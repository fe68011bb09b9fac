//! `bench`: how much, how fast, and at what price.
//!
//! A load generator for any server that speaks etcd's API. It measures from outside, so etcd is measured by the same
//! code. Clients are tasks ([`client`]) on threads of their own ([`worker`]) that call over plain HTTP/2 ([`wire`]);
//! what they count ([`tally`]) becomes a report ([`report`]). What makes that worth believing: every answer is
//! looked at, latencies are never without the rate beside them, and the price of both sides is told, in
//! microseconds of CPU for each request.
//!
//! Who has no servers gets some ([`own`]), and beside their figures those of the machine: what its disk ([`disk`])
//! and what gRPC ([`noop`]) take by themselves.

mod args;
mod client;
pub(crate) mod compare;
mod course;
mod disk;
mod measure;
mod noop;
mod own;
mod process;
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
use self::course::Extent;
use self::measure::{Effort, Target};
use self::noop::NoOpServer;
pub(crate) use self::noop::{SUBCOMMAND as NO_OP, serve as serve_no_op};
use self::own::Ground;
use self::report::{Machine, Point, Report};
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
    let mut signals = Signals::listen()?;
    let report = tokio::select! {
        report = measure(&args, context) => Ok(report?),
        code = signals.next() => Err(code),
    };
    let report = report.unwrap_or_else(|code| {
        // What was under way was dropped: own servers are killed, and their data is gone.
        eprintln!("interrupted: no report");
        std::process::exit(code)
    });
    output::emit(if context.format == Format::Json { json::line(&report) } else { report.text() })?;
    match report.failed() && !args.allow_errors {
        true => Err(Failed::new("requests failed").hint("The rates and latencies are those of the others.")),
        false => Ok(()),
    }
}

async fn measure(args: &Args, context: &Context) -> Result<Report, Failed> {
    if !context.endpoints_given {
        return on_own_servers(args, context).await;
    }
    let endpoints =
        context.client()?.replicas().iter().map(|replica| replica.endpoint().to_owned()).collect();
    let target = args.target(endpoints, args.pids.clone(), context);
    if args.fill {
        fill(&target).await?;
    }
    let points = points(args, &target).await?;
    Ok(Report::new(&target, points, None))
}

async fn on_own_servers(args: &Args, context: &Context) -> Result<Report, Failed> {
    // In this order, so that the servers have ended when their folder is removed.
    let ground = Ground::new(args.data_dir.as_deref())?;
    let count = usize::from(args.servers.unwrap_or(SERVERS));
    let waiting = bar("measuring the disk", 0);
    let syncs = ground.syncs(count).await?;
    waiting.finish_and_clear();
    let machine = Machine {
        data_dir: ground.path().display().to_string(),
        data_dir_in_memory: ground.in_memory(),
        syncs,
        no_op: no_op(args, context).await?,
    };
    let waiting = bar(&format!("starting {count} servers in {}", ground.path().display()), 0);
    let servers = ground.servers(Program::Own, count).await?;
    waiting.finish_and_clear();
    let target = args.target(servers.endpoints.clone(), servers.pids.clone(), context);
    let measured = async {
        fill(&target).await?;
        points(args, &target).await
    };
    let points = tokio::select! {
        points = measured => points?,
        died = servers.cluster.until_one_dies() => return Err(died),
    };
    servers.end().await?;
    Ok(Report::new(&target, points, Some(machine)))
}

/// What a server that does nothing is capable of.
async fn no_op(args: &Args, context: &Context) -> Result<Vec<Point>, Failed> {
    let server = NoOpServer::start().await?;
    let target = args.target(vec![server.endpoint.clone()], vec![server.pid], context);
    let mut points = Vec::new();
    for clients in args.clients() {
        let effort = args.effort(Workload::Put, clients);
        let extent = match effort.extent {
            Extent::Time(time) => Extent::Time(time.min(NO_OP_TIME)),
            requests => requests,
        };
        let effort = Effort { extent, rate: None, ..effort };
        points.push(point(args, &target, Workload::Put, effort, "a server that does nothing").await?);
    }
    Ok(points)
}

async fn fill(target: &Target) -> Result<(), Failed> {
    let keys = target.shape.keys;
    let bar = bar(&format!("writing {keys} keys"), Requests::chunks(keys));
    target.fill(|done| bar.set_position(done)).await?;
    bar.finish_and_clear();
    Ok(())
}

/// Everything that was asked for, one after the other.
async fn points(args: &Args, target: &Target) -> Result<Vec<Point>, Failed> {
    let mut points = Vec::new();
    for workload in args.workloads() {
        for clients in args.clients() {
            let effort = args.effort(workload, clients);
            points.push(point(args, target, workload, effort, &workload.name()).await?);
        }
    }
    Ok(points)
}

async fn point(
    args: &Args,
    target: &Target,
    workload: Workload,
    effort: Effort,
    what: &str,
) -> Result<Point, Failed> {
    let bar = bar(&format!("{what} with {} clients", effort.clients), 0);
    let measured = target.measure(effort, |done| bar.set_position(done)).await?;
    bar.finish_and_clear();
    Ok(Point::new(workload, args.reads, &effort, &measured))
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

//! `compare`: synod and etcd in turn, on the same machine, by the same load.
//!
//! A round is etcd from nothing, then synod from nothing: five servers are started, filled, measured with one workload
//! after the other ([`turn`]), and lose their leader a few times ([`leader`]); five more take a million puts, for the
//! memory that takes. Then their data goes, and the next begins. What is told in the end is mostly ratios, each of
//! one round ([`figures`]), and whether they are what the project wants ([`goals`], [`report`]).

mod args;
mod figures;
mod goals;
mod leader;
mod machine;
mod report;
mod turn;

use std::path::{Path, PathBuf};

pub(crate) use self::args::Args;
use self::figures::Both;
use self::machine::Machine;
use self::report::Report;
use self::turn::Turn;
use super::course::Extent;
use super::noop::NoOpServer;
use super::own::Ground;
use super::report::Point;
use super::workload::Workload;
use super::{NO_OP_TIME, bar};
use crate::cluster::Program;
use crate::cluster::signals::Signals;
use crate::failed::Failed;
use crate::options::Context;
use crate::output::{self, Format, json};

/// How many clients a server that does nothing is measured with.
const NO_OP_CLIENTS: [usize; 3] = [1, 64, 256];

/// Compares, and reports.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failed> {
    args.check()?;
    let mut signals = Signals::listen()?;
    let report = tokio::select! {
        report = compare(&args, context) => Ok(report?),
        code = signals.next() => Err(code),
    };
    let report = report.unwrap_or_else(|code| {
        // What was under way was dropped: the servers are killed, and their data is gone.
        eprintln!("interrupted: no report");
        std::process::exit(code)
    });
    output::emit(match (context.format, args.markdown) {
        (Format::Json, _) => json::line(&report),
        (_, true) => report.markdown(),
        (_, false) => report.text(),
    })
}

async fn compare(args: &Args, context: &Context) -> Result<Report, Failed> {
    let program = found_from_anywhere(&args.etcd);
    let etcd = machine::etcd_version(&program).await?;
    let ground = Ground::new(args.data_dir.as_deref())?;
    let machine = look(args, context, &ground, etcd).await?;
    machine.facts().iter().for_each(|fact| eprintln!("{fact}"));
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        let turn = |program, name: &str| {
            let title = format!("round {number} of {}, {name}", args.rounds);
            Turn { args, context, folder: ground.path(), program, title }
        };
        let etcd = turn(Program::Etcd(program.clone()), "etcd").play().await?;
        let synod = turn(Program::Own, "synod").play().await?;
        rounds.push(Both { etcd, synod });
    }
    Ok(Report::new(args, machine, rounds))
}

/// The same program; a path no longer depends on the folder that we are in. A name alone is looked for in PATH.
fn found_from_anywhere(program: &Path) -> PathBuf {
    match program.components().count() {
        1 => program.to_owned(),
        // Without a folder to be in, a relative path is as good as any.
        _ => std::path::absolute(program).unwrap_or_else(|_| program.to_owned()),
    }
}

async fn look(args: &Args, context: &Context, ground: &Ground, etcd: String) -> Result<Machine, Failed> {
    let waiting = bar("measuring the disk", 0);
    let syncs = ground.syncs(usize::from(args.servers)).await?;
    waiting.finish_and_clear();
    Ok(Machine {
        synod: env!("CARGO_PKG_VERSION"),
        etcd,
        kernel: machine::kernel(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        processor_model: machine::processor_model(),
        memory_bytes: machine::memory_bytes(),
        data_dir: ground.path().display().to_string(),
        data_dir_in_memory: ground.in_memory(),
        syncs,
        no_op: no_op(args, context).await?,
    })
}

/// What a server that does nothing is capable of.
async fn no_op(args: &Args, context: &Context) -> Result<Vec<Point>, Failed> {
    let server = NoOpServer::start().await?;
    let target = args.target_at(vec![server.endpoint.clone()], vec![server.pid], context);
    let mut points = Vec::new();
    for clients in NO_OP_CLIENTS {
        let effort = args.lasting(Workload::Put, clients, Extent::Time(args.duration.min(NO_OP_TIME)));
        let waiting = bar(&format!("a server that does nothing with {clients} clients"), 0);
        let measured = target.measure(effort, |done| waiting.set_position(done)).await?;
        waiting.finish_and_clear();
        points.push(Point::new(Workload::Put, 0, &effort, &measured));
    }
    Ok(points)
}

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
use super::machine::Machine as Allows;
use super::own::Ground;
use super::workload::Workload;
use super::{NO_OP_TIME, or_interrupted};
use crate::cluster::Program;
use crate::failed::Failed;
use crate::options::Context;
use crate::output::{self, Format, json};

/// How many clients a server that does nothing is measured with.
const NO_OP_CLIENTS: [usize; 3] = [1, 64, 256];

/// Compares, and reports.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failed> {
    args.check()?;
    let report = or_interrupted(compare(&args, context)).await?;
    output::emit(match (context.format, args.markdown) {
        (Format::Json, _) => json::line(&report),
        (_, true) => report.markdown(),
        (_, false) => report.text(),
    })
}

async fn compare(args: &Args, context: &Context) -> Result<Report, Failed> {
    let program = found_from_anywhere(&args.etcd);
    let etcd = machine::etcd_version(&program).await?;
    let ground = Ground::new(args.load.data_dir.as_deref())?;
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
    let extent = Extent::Time(args.duration.min(NO_OP_TIME));
    let efforts = NO_OP_CLIENTS.map(|clients| args.lasting(Workload::Put, clients, extent)).to_vec();
    let target = |endpoints, watched| args.target_at(endpoints, watched, context);
    Ok(Machine {
        synod: env!("CARGO_PKG_VERSION"),
        etcd,
        kernel: machine::kernel(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        processor_model: machine::processor_model(),
        memory_bytes: machine::memory_bytes(),
        allows: Allows::look(ground, usize::from(args.servers), target, efforts).await?,
    })
}

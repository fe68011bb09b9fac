//! `sim`: whole clusters on virtual disks, networks and clocks, one after the other, each from one number.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use synod_sim::batch::{self, Report};
use synod_sim::shrink::{self, Effort};
use synod_sim::viewer;
use synod_sim::world::plan::Plan;
use synod_sim::world::{self, Outcome};

use crate::duration;
use crate::failed::Failed;
use crate::options::Context;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  synod sim                              a thousand seeds, from one that chance gives
  synod sim --seeds 10000 --seed 1       these ten thousand
  synod sim --time 1h                    as many as an hour takes
  synod sim --seed 42 --trace            one run as a diagram of messages, to its end or to what broke
  synod sim --seed 42 --shrink           the same, with what the failure does not need left out
  synod sim --seed 42 --trace-file run.jsonl
  synod trace run.jsonl --slot 7         another look at it

A seed gives the same run on every machine, as long as the program is the same.";

/// How many seeds are run if nobody says.
const SEEDS: u64 = 1_000;

/// A page that is no terminal is this wide.
const WIDTH: usize = 120;

/// How many of the last lines of a run are drawn if nobody says.
const LINES: usize = 200;

/// What to simulate.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The first seed, or the only one; chance gives one if this does not
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many seeds to run
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// Run seeds until this much time has passed
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, conflicts_with = "seeds")]
    time: Option<Duration>,
    /// On so many threads [default: one per processor]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Draw what happened in the run of one seed
    #[arg(long, conflicts_with_all = ["seeds", "time"])]
    trace: bool,
    /// Write what happened in the run of one seed, as lines of JSON
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "time"])]
    trace_file: Option<PathBuf>,
    /// Leave out of a failing run what its failure does not need, and draw the rest
    #[arg(long, conflicts_with_all = ["seeds", "time"])]
    shrink: bool,
    /// Draw only so many of the last lines
    #[arg(long, value_name = "N", default_value_t = LINES)]
    last: usize,
    /// Say how often each rare thing happened
    #[arg(long)]
    sometimes: bool,
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failed> {
    // What panics in there is a finding, and told as such.
    std::panic::set_hook(Box::new(|_| {}));
    let one = args.trace || args.shrink || args.trace_file.is_some();
    match args.seed {
        Some(seed) if one || (args.seeds.is_none() && args.time.is_none()) => look_at(seed, args, context),
        _ => run_many(args),
    }
}

fn run_many(args: &Args) -> Result<(), Failed> {
    let first = args.seed.unwrap_or_else(|| rand::random::<u64>() >> 16);
    let seeds = args.seeds.unwrap_or(if args.time.is_some() { u64::MAX - first } else { SEEDS });
    let range = first..first.saturating_add(seeds);
    let mut options = batch::Options { time: args.time, ..batch::Options::default() };
    options.threads = args.threads.unwrap_or(options.threads);
    eprintln!("seeds from {first} on");
    let bar = progress(&range, args.time);
    let report = batch::run(range, options, |done, failures| {
        bar.set_position(done);
        if failures > 0 {
            bar.set_message(format!("{failures} failed"));
        }
    });
    bar.finish_and_clear();
    tell(&report, args)?;
    let never = report.never();
    if let Some((seed, _)) = report.failures.first() {
        output::tell(format!("see what happened: synod sim --seed {seed} --trace\n"));
        return Err(Failed::wrong());
    }
    if !never.is_empty() {
        let never = never.join(", ");
        output::tell(format!(
            "too kind to prove anything, in {} seeds it never happened: {never}\n",
            report.seeds
        ));
        return Err(Failed::wrong());
    }
    Ok(())
}

fn tell(report: &Report, args: &Args) -> Result<(), Failed> {
    let mut text = String::new();
    if args.sometimes {
        for (what, count) in &report.sometimes {
            text += &format!("{count:>10}  {what}\n");
        }
    }
    for (seed, broken) in &report.failures {
        text += &format!("seed {seed}: {broken}\n");
    }
    text += &format!("{report}\n{} failed\n", report.failures.len());
    output::emit(text)
}

/// One seed, closely.
fn look_at(seed: u64, args: &Args, context: &Context) -> Result<(), Failed> {
    let mut plan = Plan::of(seed);
    if args.shrink {
        let began = Instant::now();
        let last = Mutex::new(began);
        let smaller = shrink::shrink(&plan, Effort::default(), |faults, requests| {
            let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if last.elapsed() > Duration::from_secs(1) {
                *last = Instant::now();
                eprintln!("{faults} faults and {requests} requests are left");
            }
        });
        let Some(smaller) = smaller else {
            return Err(Failed::new(format!("seed {seed} does not fail: there is nothing to shrink")));
        };
        plan = smaller;
        output::emit(format!("{plan:#?}\n"))?;
    }
    let drawn = args.trace || args.shrink;
    let outcome = world::run(&plan, drawn || args.trace_file.is_some());
    if let Some(path) = &args.trace_file {
        write(path, &outcome)
            .map_err(|error| Failed::new(format!("cannot write {}: {error}", path.display())))?;
    }
    let Outcome { broken, simulated, events, answered, record, fingerprint, .. } = outcome;
    if drawn {
        let options = viewer::Options {
            last: Some(args.last),
            width: WIDTH,
            colour: context.colour,
            ..viewer::Options::default()
        };
        let diagram = viewer::diagram(record, options).map_err(|error| Failed::new(error.to_string()))?;
        output::emit(diagram.to_string())?;
    }
    let seconds = simulated.as_secs_f64();
    output::emit(format!(
        "seed {seed}: {} replicas, {seconds:.1} simulated seconds, {events} events, {answered} requests answered, fingerprint {fingerprint:016x}\n",
        plan.replicas,
    ))?;
    match broken {
        None => Ok(()),
        Some(broken) => {
            output::tell(format!("seed {seed}: {broken}\n"));
            Err(Failed::wrong())
        }
    }
}

fn write(path: &Path, outcome: &Outcome) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for event in &outcome.record {
        serde_json::to_writer(&mut file, event)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

fn progress(range: &Range<u64>, time: Option<Duration>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = match time {
        Some(_) => ProgressBar::new_spinner(),
        None => ProgressBar::new(range.end - range.start),
    };
    let style = ProgressStyle::with_template("{elapsed} {wide_bar} {pos} seeds {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

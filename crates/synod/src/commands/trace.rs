//! `trace`: draws what servers, a simulation or a chaos run recorded.

use std::fs::File;
use std::io::{BufRead, BufReader, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use synod_server::trace::Event;
use synod_sim::viewer::{self, Options, Slot};

use crate::duration;
use crate::failed::{Failed, Why};
use crate::options::Context;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  synod server --name n1 --trace-file n1.jsonl ...       and so on, a file per server; then
  synod trace n1.jsonl n2.jsonl n3.jsonl
  synod trace n?.jsonl --from 1.5s --to 1.6s             a moment, counted from the first event
  synod trace n?.jsonl --slot 7                          how one slot was decided
  synod trace n?.jsonl --last 50 | less -R

The lines of all files are put together by their time.";

/// A page that is no terminal is this wide.
const WIDTH: usize = 120;

/// What to draw.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Traces: lines of JSON, as servers and simulations write them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only what concerns this slot, and what befell replicas
    #[arg(long, value_name = "N")]
    slot: Option<u64>,
    /// Only what this replica does, says and hears
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// From this time on, counted from the first event
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    from: Option<Duration>,
    /// Up to this time, counted from the first event
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    to: Option<Duration>,
    /// Of all that, only so many of the last lines
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Heartbeats, progress reports and what replicas tell themselves, too
    #[arg(long)]
    all: bool,
}

/// Draws it.
pub(crate) fn run(args: Args, context: &Context) -> Result<(), Failed> {
    let mut events = Vec::new();
    for path in &args.files {
        events.extend(read(path)?);
    }
    let options = Options {
        all: args.all,
        slot: args.slot.map(Slot),
        node: args.node,
        from: args.from,
        to: args.to,
        last: args.last,
        width: width(),
        colour: context.colour,
    };
    let diagram =
        viewer::diagram(events, options).map_err(|error| Failed::usage(Why::Arguments, error.to_string()))?;
    output::emit(diagram.to_string())
}

/// All events of one file.
///
/// # Errors
/// If it cannot be read, or a line of it is no event.
fn read(path: &Path) -> Result<Vec<Event>, Failed> {
    let unreadable = |error| Failed::new(format!("cannot read {}: {error}", path.display()));
    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut events = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if file.read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
            break;
        }
        match serde_json::from_slice(&line) {
            Ok(event) => events.push(event),
            Err(_) if !line.ends_with(b"\n") => {
                // A server that is killed may leave half a line; nothing can follow it.
                output::tell(format!("{} ends within line {number}, which is left out\n", path.display()));
            }
            Err(error) => {
                let why = reason(&error);
                return Err(Failed::new(format!("{} line {number}: {why}", path.display())));
            }
        }
    }
    Ok(events)
}

/// What is wrong with a line, with the column in it: serde takes every line for the first.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line ") {
        Some((why, _)) if error.column() > 0 => format!("{why} (column {})", error.column()),
        Some((why, _)) => why.to_owned(),
        None => text,
    }
}

/// How wide the page is.
fn width() -> usize {
    match rustix::termios::tcgetwinsize(stdout()) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => WIDTH,
    }
}

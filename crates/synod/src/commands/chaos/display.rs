//! What people see of a run while it lasts. With `--output json` that goes to standard error, so that standard
//! output is the report and nothing else.

use std::io::{Write, stderr, stdout};
use std::sync::Mutex;

use synod_sim::Moment;

use crate::failed::Failed;
use crate::output::{Reader, emit_to};

/// Where the story is told.
pub(super) struct Screen {
    as_json: bool,
    /// The reader of standard output closed the pipe. The run goes on: its exit code is wanted still.
    gone: Mutex<bool>,
}

impl Screen {
    pub(super) fn new(as_json: bool) -> Self {
        Self { as_json, gone: Mutex::default() }
    }

    /// One line, with the time if it is part of the run.
    pub(super) fn note(&self, at: Option<Moment>, text: &str) {
        let line = match at {
            Some(at) => format!("{:>7.2} s  {text}\n", at.0 as f64 / 1e6),
            None => format!("{text}\n"),
        };
        match self.as_json {
            // Nobody may be listening there.
            true => drop(stderr().lock().write_all(line.as_bytes())),
            false => self.print(&line),
        }
    }

    /// Writes to standard output.
    pub(super) fn print(&self, text: &str) {
        let mut gone = self.gone.lock().expect("nobody panics while printing");
        if *gone {
            return;
        }
        let mut out = stdout().lock();
        let told: Result<Reader, Failed> = emit_to(&mut out, text.as_bytes());
        *gone = !matches!(told, Ok(Reader::Listening)) || out.flush().is_err();
    }
}

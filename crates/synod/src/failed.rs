//! How a command fails, and what it says then.
//!
//! An error message has up to three parts: what happened, what that means for
//! the data, and what to do next. Scripts look at the exit code instead, and
//! that depends on the name the program was called by: see [`Personality`].

use std::fmt::{self, Display};
use std::process::ExitCode;

use crate::output;
use synod_client::{ClientError, Failure, Outcome};
use tonic::Code;

/// Which program the user believes to have started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Personality {
    /// Ourselves.
    #[default]
    Synod,
    /// etcdctl, through a link of that name: its verbs, words and exit codes.
    Etcdctl,
}

/// The kind of a failure, as far as exit codes tell kinds apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Refused, timed out, unreachable, unhealthy.
    Failed,
    /// The store itself is wrong: replicas differ, or a write was lost.
    Wrong,
    /// Arguments that are missing, too many, or contradict each other.
    Arguments,
    /// An option or subcommand that there is not, or a malformed number.
    Unknown,
    /// A known option with a value that is not offered.
    Unsupported,
    /// A transaction that cannot be read.
    Input,
}

/// A command that failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    why: Why,
    /// What happened. Empty if the command has said it already.
    what: String,
    /// The same in etcdctl's words, where it has its own.
    etcd: Option<String>,
    /// What it means, and what to do; a line each.
    hints: Vec<String>,
}

/// Whether a call was to change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Write,
}

impl Failed {
    /// The run failed.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { why: Why::Failed, what: what.into(), etcd: None, hints: Vec::new() }
    }

    /// The run failed and the reason is on the screen.
    pub(crate) fn silently() -> Self {
        Self::new("")
    }

    /// The command line, or what came with it, is wrong.
    pub(crate) fn usage(why: Why, what: impl Into<String>) -> Self {
        Self { why, ..Self::new(what) }
    }

    /// The store is wrong, and the reason is on the screen.
    pub(crate) fn wrong() -> Self {
        Self { why: Why::Wrong, ..Self::silently() }
    }

    /// Adds a line: what it means, or what to do.
    pub(crate) fn hint(mut self, line: impl Into<String>) -> Self {
        self.hints.push(line.into());
        self
    }

    /// Adds what etcdctl says in this case, for those who compare.
    pub(crate) fn etcd(mut self, what: impl Into<String>) -> Self {
        self.etcd = Some(what.into());
        self
    }

    /// A call to the cluster that failed. Says what became of the data, and
    /// never that a write did not happen unless that is certain.
    pub(crate) fn call(error: &ClientError, call: Call) -> Self {
        let endpoint = &error.endpoint;
        let failed = match &error.failure {
            Failure::BadEndpoint(why) => {
                return Self::usage(Why::Arguments, format!("{endpoint:?} is not an endpoint: {why}"));
            }
            Failure::Connect(why) => {
                Self::new(format!("cannot connect to {endpoint}: {why}")).etcd("context deadline exceeded")
            }
            Failure::Broken(why) => Self::new(format!("the connection to {endpoint} was lost: {why}")),
            Failure::Deadline(_) => Self::new(format!("no answer in time, last asked {endpoint}"))
                .etcd("context deadline exceeded"),
            Failure::Status { message, .. } => Self::new(message.clone()),
        };
        let failed = match (call, error.outcome) {
            (Call::Read, _) => failed,
            (Call::Write, Outcome::NotApplied) => failed.hint("Nothing was changed."),
            (Call::Write, Outcome::Unknown) => failed.hint(
                "The write may still take effect. \
                 Read the key before retrying anything that must not happen twice.",
            ),
        };
        match next_step(&error.failure) {
            Some(step) => failed.hint(step),
            None => failed,
        }
    }

    /// Prints the message on standard error and returns the exit code.
    pub(crate) fn report(&self, personality: Personality) -> ExitCode {
        output::tell(self.message(personality));
        ExitCode::from(self.code(personality))
    }

    /// The message with its final newline; empty if there is nothing left to say.
    pub(crate) fn message(&self, personality: Personality) -> String {
        if personality == Personality::Etcdctl {
            let what = self.etcd.as_ref().unwrap_or(&self.what);
            return if what.is_empty() { String::new() } else { format!("Error: {what}\n") };
        }
        let mut message = String::new();
        if !self.what.is_empty() {
            message.push_str(&format!("Error: {}\n", self.what));
        }
        for hint in &self.hints {
            message.push_str(&format!("       {hint}\n"));
        }
        message
    }

    /// The exit code by which scripts tell this failure from others.
    pub(crate) fn code(&self, personality: Personality) -> u8 {
        match personality {
            Personality::Synod => match self.why {
                Why::Failed => 1,
                Why::Wrong => 3,
                Why::Arguments | Why::Unknown | Why::Unsupported | Why::Input => 2,
            },
            // Measured on etcdctl 3.4 and 3.5.
            Personality::Etcdctl => match self.why {
                Why::Failed | Why::Wrong | Why::Unknown => 1,
                Why::Input => 3,
                Why::Unsupported => 4,
                Why::Arguments => 128,
            },
        }
    }
}

impl Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// What a user can do about it.
fn next_step(failure: &Failure) -> Option<&'static str> {
    match failure {
        Failure::BadEndpoint(_) => None,
        Failure::Connect(_) => Some(
            "Is a server running there? Name another with --endpoints, or see the cluster with `synod status`.",
        ),
        Failure::Broken(_) => Some("See which replicas are up with `synod status`."),
        Failure::Deadline(_) => {
            Some("See with `synod status` whether a majority is up; --command-timeout allows more time.")
        }
        Failure::Status { code, message } => match code {
            Code::Unavailable | Code::DeadlineExceeded => {
                Some("See with `synod status` whether a majority is up.")
            }
            Code::OutOfRange if message.contains("compacted") => Some(
                "History up to there is gone. Ask for a newer revision, or for the newest without --rev.",
            ),
            Code::OutOfRange if message.contains("future revision") => {
                Some("The store has not come that far: `synod get KEY -w fields` shows its revision.")
            }
            Code::Unimplemented => Some("This server does not offer the call; is it the version you expect?"),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(failure: Failure, outcome: Outcome) -> ClientError {
        ClientError { endpoint: "http://n1:2379".to_owned(), failure, outcome }
    }

    fn status(code: Code, message: &str, outcome: Outcome) -> ClientError {
        error(Failure::Status { code, message: message.to_owned() }, outcome)
    }

    #[test]
    fn a_timeout_on_a_write_never_claims_failure() {
        let deadline = Failure::Deadline(std::time::Duration::from_secs(5));
        let failed = Failed::call(&error(deadline, Outcome::Unknown), Call::Write);
        assert_eq!(
            failed.message(Personality::Synod),
            "\
Error: no answer in time, last asked http://n1:2379
       The write may still take effect. Read the key before retrying anything that must not happen twice.
       See with `synod status` whether a majority is up; --command-timeout allows more time.
"
        );
        assert_eq!(failed.code(Personality::Synod), 1);
    }

    #[test]
    fn a_write_that_was_never_sent_says_so() {
        let connect = Failure::Connect("Connection refused (os error 111)".to_owned());
        let message =
            Failed::call(&error(connect, Outcome::NotApplied), Call::Write).message(Personality::Synod);
        assert!(message.contains("Nothing was changed."), "{message}");
        assert!(message.contains("cannot connect to http://n1:2379: Connection refused"), "{message}");
    }

    #[test]
    fn a_failed_read_says_nothing_about_writes() {
        let message = Failed::call(
            &status(Code::Unavailable, "etcdserver: no leader", Outcome::NotApplied),
            Call::Read,
        )
        .message(Personality::Synod);
        assert!(!message.contains("write") && !message.contains("changed"), "{message}");
    }

    #[test]
    fn etcdctl_prints_etcds_words_alone() {
        let compacted = status(
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted",
            Outcome::NotApplied,
        );
        let failed = Failed::call(&compacted, Call::Read);
        assert_eq!(
            failed.message(Personality::Etcdctl),
            "Error: etcdserver: mvcc: required revision has been compacted\n"
        );
        let refused = error(Failure::Connect("refused".to_owned()), Outcome::NotApplied);
        let failed = Failed::call(&refused, Call::Read);
        assert_eq!(failed.message(Personality::Etcdctl), "Error: context deadline exceeded\n");
    }

    #[test]
    fn exit_codes_depend_on_the_name() {
        let codes = |why| {
            let failed = Failed::usage(why, "x");
            (failed.code(Personality::Synod), failed.code(Personality::Etcdctl))
        };
        assert_eq!(codes(Why::Failed), (1, 1));
        assert_eq!(codes(Why::Wrong), (3, 1));
        assert_eq!(codes(Why::Arguments), (2, 128));
        assert_eq!(codes(Why::Unknown), (2, 1));
        assert_eq!(codes(Why::Unsupported), (2, 4));
        assert_eq!(codes(Why::Input), (2, 3));
    }

    #[test]
    fn a_bad_endpoint_is_wrong_usage() {
        let bad = Failure::BadEndpoint("the port is missing, use host:port".to_owned());
        let failed = Failed::call(&error(bad, Outcome::NotApplied), Call::Write);
        assert_eq!(failed.code(Personality::Synod), 2);
    }
}

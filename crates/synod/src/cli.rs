//! The command line: its grammar under both names, and what is done with it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands;
use crate::failed::{Failed, Personality, Why};
use crate::options::{Context, Options};

const SYNOD_EXAMPLES: &str = "\
Examples:
  synod put fruit/kiwi green
  synod get --prefix fruit/
  synod --endpoints 127.0.0.1:2379,127.0.0.1:2381 status

Each command explains itself: synod help txn

Exit codes: 0 done (also when a key is missing), 1 failed, 2 wrong usage, 3 the store is wrong.
Called through a link named etcdctl, the program takes etcdctl's commands and gives its exit codes.";

/// A key-value store that five servers keep identical with Paxos
#[derive(Parser, Debug)]
#[command(name = "synod", version, after_help = SYNOD_EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Synod {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: SynodCommand,
}

/// Everything that synod does. What runs replicas (`server`, `demo`, `chaos`) joins the
/// client commands here.
#[derive(Subcommand, Debug)]
pub(crate) enum SynodCommand {
    #[command(flatten)]
    Client(ClientCommand),
    /// Show every replica, and say how many more may be lost
    Status(commands::status::Args),
    /// Break a running cluster on purpose
    Fault(commands::fault::Args),
    /// Run one replica
    Server(Box<commands::server::Args>),
    /// Start five replicas, let them fail, and prove that nothing was lost
    Demo(commands::demo::Args),
    /// Run real servers under real faults, and judge what clients saw
    Chaos(commands::chaos::Args),
    /// Measure how much a cluster does, how fast, and at what price
    Bench(Box<commands::bench::Args>),
    #[command(name = commands::bench::NO_OP, hide = true)]
    BenchNoOp,
    /// Measure synod and etcd in turn on this machine, and put them side by side
    Compare(commands::bench::compare::Args),
    #[command(name = crate::cluster::TIED, hide = true, disable_help_flag = true)]
    RunTied {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Simulate whole clusters under every fault there is, each from one number
    Sim(commands::sim::Args),
    /// Draw what servers recorded as a diagram of messages
    Trace(commands::trace::Args),
}

/// The command-line client of etcd, as far as synod serves its API
#[derive(Parser, Debug)]
#[command(name = "etcdctl", version, arg_required_else_help = true)]
pub(crate) struct Etcdctl {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: ClientCommand,
}

/// What etcdctl can do too, by the same names.
#[derive(Subcommand, Debug)]
pub(crate) enum ClientCommand {
    /// Write a key
    Put(commands::put::Args),
    /// Read a key or a range of keys
    Get(commands::get::Args),
    /// Delete a key or a range of keys
    Del(commands::del::Args),
    /// Run several requests as one, if conditions hold
    Txn(commands::txn::Args),
    /// Forget the history up to a revision
    Compaction(commands::compaction::Args),
    /// Show who belongs to the cluster
    Member(commands::member::Args),
    /// Check single servers
    Endpoint(commands::endpoint::Args),
    /// Write a completion script for a shell
    Completion(commands::completion::Args),
    /// Show the version
    Version,
}

/// Reads the command line, runs the command, and tells the exit code.
pub(crate) fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let personality = personality(args.first());
    match run(personality, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => failed.report(personality),
    }
}

fn run(personality: Personality, args: Vec<OsString>) -> Result<(), Failed> {
    let grammar = grammar(personality);
    let switches = switches(&grammar);
    let matches = match grammar.try_get_matches_from(without_truisms(args, &switches)) {
        Ok(matches) => matches,
        Err(error) => return refused(personality, &error),
    };
    let broken = "the matches come from the same definition";
    let (options, command) = match personality {
        Personality::Synod => {
            let synod = Synod::from_arg_matches(&matches).expect(broken);
            (synod.options, synod.command)
        }
        Personality::Etcdctl => {
            let etcdctl = Etcdctl::from_arg_matches(&matches).expect(broken);
            (etcdctl.options, SynodCommand::Client(etcdctl.command))
        }
    };
    let command = match command {
        // A server asks no cluster, and has a runtime of its own.
        SynodCommand::Server(args) => return commands::server::run(*args),
        SynodCommand::BenchNoOp => return commands::bench::serve_no_op(),
        SynodCommand::RunTied { words } => {
            return crate::cluster::run_tied(&words).map(|never| match never {});
        }
        command => command,
    };
    let context = options.resolve(personality, |name| std::env::var(name).ok())?;
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failed::new(format!("cannot start worker threads: {error}")))?;
    runtime.block_on(dispatch(command, &context))
}

async fn dispatch(command: SynodCommand, context: &Context) -> Result<(), Failed> {
    match command {
        SynodCommand::Status(args) => commands::status::run(args, context).await,
        SynodCommand::Fault(args) => commands::fault::run(args, context).await,
        SynodCommand::Server(_) | SynodCommand::BenchNoOp | SynodCommand::RunTied { .. } => {
            unreachable!("what needs no runtime is done before there is one")
        }
        SynodCommand::Demo(args) => commands::demo::run(args, context).await,
        SynodCommand::Chaos(args) => commands::chaos::run(args, context).await,
        SynodCommand::Compare(args) => commands::bench::compare::run(args, context).await,
        SynodCommand::Bench(args) => commands::bench::run(*args, context).await,
        SynodCommand::Sim(args) => commands::sim::run(&args, context),
        SynodCommand::Trace(args) => commands::trace::run(args, context),
        SynodCommand::Client(command) => match command {
            ClientCommand::Put(args) => commands::put::run(args, context).await,
            ClientCommand::Get(args) => commands::get::run(args, context).await,
            ClientCommand::Del(args) => commands::del::run(args, context).await,
            ClientCommand::Txn(args) => commands::txn::run(args, context).await,
            ClientCommand::Compaction(args) => commands::compaction::run(args, context).await,
            ClientCommand::Member(args) => commands::member::run(args, context).await,
            ClientCommand::Endpoint(args) => commands::endpoint::run(args, context).await,
            ClientCommand::Completion(args) => commands::completion::run(&args, context),
            ClientCommand::Version => commands::version::run(context),
        },
    }
}

/// The grammar of the command line under a name.
pub(crate) fn grammar(personality: Personality) -> Command {
    match personality {
        Personality::Synod => Synod::command(),
        Personality::Etcdctl => Etcdctl::command(),
    }
}

fn personality(program: Option<&OsString>) -> Personality {
    let name = program.and_then(|path| Path::new(path).file_stem());
    if name.is_some_and(|name| name == "etcdctl") { Personality::Etcdctl } else { Personality::Synod }
}

/// Every option without a value, as it is written.
fn switches(command: &Command) -> BTreeSet<String> {
    let own = command
        .get_arguments()
        .filter(|arg| matches!(arg.get_action(), ArgAction::SetTrue))
        .filter_map(|arg| arg.get_long())
        .map(|long| format!("--{long}"));
    own.chain(command.get_subcommands().flat_map(switches)).collect()
}

/// Rewrites `--prefix=true` as `--prefix` and drops `--prefix=false`: etcdctl's
/// switches take a value, and scripts give them one.
fn without_truisms(args: Vec<OsString>, switches: &BTreeSet<String>) -> Vec<OsString> {
    let mut options_ended = false;
    args.into_iter()
        .filter_map(|arg| {
            options_ended |= arg == "--";
            let assignment = arg.to_str().and_then(|arg| arg.split_once('='));
            match assignment {
                Some((switch, value)) if !options_ended && switches.contains(switch) => match value {
                    "true" | "1" => Some(switch.into()),
                    "false" | "0" => None,
                    _ => Some(arg),
                },
                _ => Some(arg),
            }
        })
        .collect()
}

/// A command line that is none, or asks for help.
fn refused(personality: Personality, error: &clap::Error) -> Result<(), Failed> {
    if !error.use_stderr() {
        // Help and version are answers. A reader that is gone has had enough of them.
        let _ = error.print();
        return Ok(());
    }
    if personality == Personality::Synod {
        let _ = error.print();
        return Err(Failed::usage(Why::Arguments, ""));
    }
    let given = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let why = match error.kind() {
        ErrorKind::UnknownArgument => match given(ContextKind::InvalidArg) {
            Some(arg) if !arg.starts_with('-') => Why::Arguments,
            _ => Why::Unknown,
        },
        ErrorKind::InvalidValue if error.get(ContextKind::ValidValue).is_some() => Why::Unsupported,
        ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict | ErrorKind::TooManyValues => {
            Why::Arguments
        }
        _ => Why::Unknown,
    };
    // The first paragraph says what is wrong; the others are advice.
    let text = error.render().to_string();
    let what = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    Err(Failed::usage(why, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn both_grammars_are_sound() {
        grammar(Personality::Synod).debug_assert();
        grammar(Personality::Etcdctl).debug_assert();
    }

    #[test]
    fn the_programs_name_decides_whom_we_speak_like() {
        for (program, expected) in [
            ("/usr/local/bin/etcdctl", Personality::Etcdctl),
            ("etcdctl", Personality::Etcdctl),
            ("./synod", Personality::Synod),
            ("etcdctl-backup", Personality::Synod),
        ] {
            assert_eq!(personality(Some(&program.into())), expected, "{program}");
        }
        assert_eq!(personality(None), Personality::Synod);
    }

    #[test]
    fn switches_may_be_given_a_value() {
        let switches = switches(&grammar(Personality::Synod));
        let rewrite = |line| without_truisms(words(line), &switches);
        assert_eq!(rewrite("get --prefix=true k"), words("get --prefix k"));
        assert_eq!(rewrite("get --prefix=false --hex=1 k"), words("get --hex k"));
        assert_eq!(rewrite("get --prefix=maybe k"), words("get --prefix=maybe k"));
        assert_eq!(rewrite("put -- --prefix=true k"), words("put -- --prefix=true k"));
        assert_eq!(rewrite("get --rev=1 k=true"), words("get --rev=1 k=true"));
    }

    #[test]
    fn options_may_stand_before_and_behind_the_command() {
        for line in ["synod --endpoints a:1,b:2 get k", "synod get k --endpoints=a:1,b:2"] {
            let synod = Synod::try_parse_from(words(line)).unwrap();
            let context = synod.options.resolve(Personality::Synod, |_| None).unwrap();
            assert_eq!(context.endpoints, ["a:1", "b:2"], "{line}");
        }
    }

    #[test]
    fn output_is_another_name_for_write_out() {
        for line in ["synod get k -w json", "synod get k --output json", "synod get k --write-out=json"] {
            let synod = Synod::try_parse_from(words(line)).unwrap();
            let context = synod.options.resolve(Personality::Synod, |_| None).unwrap();
            assert_eq!(context.format, crate::output::Format::Json, "{line}");
        }
    }

    #[test]
    fn etcdctls_exit_codes_for_wrong_usage() {
        let code = |line: &str| {
            let error = grammar(Personality::Etcdctl).try_get_matches_from(words(line)).unwrap_err();
            refused(Personality::Etcdctl, &error).unwrap_err().code(Personality::Etcdctl)
        };
        assert_eq!(code("etcdctl get"), 128);
        assert_eq!(code("etcdctl compaction 3 4"), 128);
        assert_eq!(code("etcdctl get k -w xml"), 4);
        assert_eq!(code("etcdctl get k --consistency x"), 4);
        assert_eq!(code("etcdctl get k --nonsense"), 1);
        assert_eq!(code("etcdctl get k --limit x"), 1);
        assert_eq!(code("etcdctl status"), 1);
    }
}

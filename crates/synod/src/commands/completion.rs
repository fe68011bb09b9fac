//! `completion`: a script that teaches a shell our commands.

use clap_complete::Shell;

use crate::cli;
use crate::failed::{Failed, Personality};
use crate::options::Context;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  source <(synod completion bash)                                  for this shell
  synod completion bash > ~/.local/share/bash-completion/completions/synod
  synod completion zsh > \"${fpath[1]}/_synod\"
  synod completion fish > ~/.config/fish/completions/synod.fish";

/// For which shell.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// Writes the script.
pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failed> {
    let name = match context.personality {
        Personality::Synod => "synod",
        Personality::Etcdctl => "etcdctl",
    };
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli::grammar(context.personality), name, &mut script);
    output::emit(script)
}

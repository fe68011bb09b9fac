//! The synod binary: one file per subcommand below `commands`.

mod allocator;
mod cli;
mod cluster;
mod commands;
mod duration;
mod failed;
mod options;
mod output;
mod process;

use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::tune();
    cli::main(std::env::args_os())
}

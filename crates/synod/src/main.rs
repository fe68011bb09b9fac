//! The synod binary: one file per subcommand below `commands`.

mod cli;
mod cluster;
mod commands;
mod duration;
mod failed;
mod options;
mod output;

use std::process::ExitCode;

/// A server allocates on one thread and frees on another all day long, which the system's allocator takes ill.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main(std::env::args_os())
}

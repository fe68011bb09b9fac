//! Which program the servers are: this one, or etcd, to be compared with.
//!
//! Both take the same flags for what both have, so a cluster of either is started, killed and started again by the
//! same code.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Signal, set_parent_process_death_signal};

use super::Memory;
use crate::failed::Failed;

/// The hidden subcommand that becomes another program, which then ends with its parent.
pub(crate) const TIED: &str = "run-tied";
/// How large etcd's store may become, in bytes: it stops at 2 GB unless told otherwise, and history counts.
const ETCD_QUOTA: &str = "8000000000";
/// The one variable that etcd is left: on some processors it does not start without.
const ETCD_KEEPS: &str = "ETCD_UNSUPPORTED_ARCH";

/// What the servers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// This executable.
    Own,
    /// The etcd that is found there, or by that name.
    Etcd(PathBuf),
}

/// What a server is told about itself and the others.
pub(super) struct Identity<'a> {
    pub(super) name: &'a str,
    /// The URL for clients.
    pub(super) clients: &'a str,
    /// The URL for other servers.
    pub(super) peers: &'a str,
    /// All of them, as `name=url,...`.
    pub(super) members: &'a str,
    pub(super) memory: Memory,
}

impl Program {
    /// What follows the name of this executable to start such a server.
    pub(super) fn arguments(&self, identity: &Identity<'_>, data: &Path) -> Vec<OsString> {
        let Identity { name, clients, peers, members, memory } = *identity;
        let pairs: [(&str, &OsStr); 7] = [
            ("--name", name.as_ref()),
            ("--data-dir", data.as_ref()),
            ("--listen-client-urls", clients.as_ref()),
            ("--advertise-client-urls", clients.as_ref()),
            ("--listen-peer-urls", peers.as_ref()),
            ("--initial-advertise-peer-urls", peers.as_ref()),
            ("--initial-cluster", members.as_ref()),
        ];
        let pairs = pairs.into_iter().flat_map(|(flag, value)| [flag.into(), value.to_owned()]);
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        match self {
            Self::Own => {
                let volatile: &[&str] =
                    if memory == Memory::Volatile { &["--memory", "volatile"] } else { &[] };
                let behind = [volatile, &["--allow-faults", "--exit-with-parent"]].concat();
                words(&["server"]).into_iter().chain(pairs).chain(words(&behind)).collect()
            }
            Self::Etcd(path) => [TIED.into(), path.clone().into_os_string()]
                .into_iter()
                .chain(pairs)
                .chain(words(&["--quota-backend-bytes", ETCD_QUOTA]))
                .collect(),
        }
    }

    /// Whether a variable must not reach the server: the start line alone says how it is to be.
    pub(super) fn ignores(&self, variable: &OsStr) -> bool {
        let prefix: &[u8] = match self {
            Self::Own => b"SYNOD_",
            Self::Etcd(_) => b"ETCD_",
        };
        variable.as_encoded_bytes().starts_with(prefix) && variable != ETCD_KEEPS
    }

    /// Whether servers answer the questions that only synod knows.
    pub(super) fn is_own(&self) -> bool {
        *self == Self::Own
    }
}

/// Where the executable is that this process runs, to start it once more. It is absolute.
///
/// Mostly that is its name, under which people look for processes. But the file may have been replaced or removed since
/// we were started, as a build does it. Then its name leads nowhere, or to another program than the one that is shown or
/// measured; the kernel still has the right one for as long as we live (proc(5), `/proc/PID/exe`).
///
/// # Errors
/// If the system does not tell.
pub(crate) fn own_executable() -> Result<PathBuf, Failed> {
    let named = std::env::current_exe()
        .map_err(|error| Failed::new(format!("cannot find the executable of synod: {error}")))?;
    // Not `/proc/self/exe`: what is started through another program, such as ip(8), would find that one there.
    let running = PathBuf::from(format!("/proc/{}/exe", std::process::id()));
    let identity = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
    Ok(if identity(&named) == identity(&running) { named } else { running })
}

/// Becomes the program that the first word names, with the others as its arguments. It is killed when its parent
/// ends, however that comes about.
///
/// # Errors
/// If it cannot be started.
pub(crate) fn run_tied(words: &[OsString]) -> Result<Infallible, Failed> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Failed::new(format!("{TIED} needs a program to run")));
    };
    let unable = |error: &dyn std::fmt::Display| {
        Failed::new(format!("cannot start {}: {error}", Path::new(program).display()))
    };
    // "Parent" is the thread that has started us: whoever starts a server does it on a thread that stays.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| unable(&error))?;
    Err(unable(&Command::new(program).args(arguments).exec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(program: &Program, memory: Memory) -> String {
        let identity =
            Identity { name: "n1", clients: "http://c", peers: "http://p", members: "n1=http://p", memory };
        let words = program.arguments(&identity, "/t/n1".as_ref());
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_server_is_started_as_by_hand() {
        assert_eq!(
            line(&Program::Own, Memory::Durable),
            "server --name n1 --data-dir /t/n1 --listen-client-urls http://c --advertise-client-urls http://c \
             --listen-peer-urls http://p --initial-advertise-peer-urls http://p --initial-cluster n1=http://p \
             --allow-faults --exit-with-parent"
        );
        assert!(line(&Program::Own, Memory::Volatile).contains("--memory volatile"));
    }

    #[test]
    fn etcd_gets_the_same_and_a_larger_quota() {
        assert_eq!(
            line(&Program::Etcd("/usr/bin/etcd".into()), Memory::Durable),
            "run-tied /usr/bin/etcd --name n1 --data-dir /t/n1 --listen-client-urls http://c \
             --advertise-client-urls http://c --listen-peer-urls http://p --initial-advertise-peer-urls http://p \
             --initial-cluster n1=http://p --quota-backend-bytes 8000000000"
        );
    }

    #[test]
    fn variables_do_not_change_what_a_server_is_like() {
        let ignores = |program: &Program, variable: &str| program.ignores(variable.as_ref());
        let etcd = Program::Etcd("etcd".into());
        assert!(ignores(&Program::Own, "SYNOD_NAME") && !ignores(&Program::Own, "ETCD_NAME"));
        assert!(ignores(&etcd, "ETCD_NAME") && !ignores(&etcd, "PATH"));
        assert!(!ignores(&etcd, "ETCD_UNSUPPORTED_ARCH"));
    }

    #[test]
    fn a_program_that_is_not_there_cannot_be_run() {
        let missing = tempfile::tempdir().unwrap().path().join("etcd");
        let failed = run_tied(&[missing.into_os_string()]).unwrap_err();
        assert!(failed.to_string().contains("cannot start"), "{failed}");
        assert!(run_tied(&[]).is_err());
    }
}

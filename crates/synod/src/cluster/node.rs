//! One server: a process that can be killed, paused, robbed of its memory and started again.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use synod_client::{Client, Config, Replica};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::Site;
use super::program::{Identity, Program, own_executable};
use crate::failed::Failed;

/// How long a client waits for an answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Looking at a replica takes no majority and no disk.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
const LOG_LINES_SHOWN: usize = 12;

/// One replica, in whichever process it lives now.
pub(crate) struct Node {
    pub(crate) name: String,
    /// Where clients reach it.
    pub(crate) url: String,
    /// For requests.
    pub(crate) replica: Replica,
    /// For looking and for faults: answers are quick or not worth waiting for.
    pub(crate) admin: Replica,
    namespace: Option<String>,
    data: PathBuf,
    log: PathBuf,
    program: Program,
    arguments: Vec<OsString>,
    child: Mutex<Option<Child>>,
}

impl Node {
    /// A server that is not started yet, with its log in `folder`, and its data there or on its own disk.
    pub(super) fn new(
        folder: &Path,
        site: &Site,
        program: &Program,
        identity: &Identity<'_>,
    ) -> Result<Self, Failed> {
        let Identity { name, clients, .. } = *identity;
        let connect = |request_timeout| {
            let config = Config { request_timeout, dial_timeout: LOOK_TIMEOUT, ..Config::new([clients]) };
            let client = Client::connect(config).map_err(|error| Failed::new(error.to_string()))?;
            Ok::<_, Failed>(client.replicas()[0].clone())
        };
        let data = site.disk.as_deref().unwrap_or(folder).join(name);
        let log = folder.join(format!("{name}.log"));
        Ok(Self {
            replica: connect(REQUEST_TIMEOUT)?,
            admin: connect(LOOK_TIMEOUT)?,
            arguments: program.arguments(identity, &data),
            program: program.clone(),
            url: clients.to_owned(),
            namespace: site.namespace.clone(),
            name: name.to_owned(),
            data,
            log,
            child: Mutex::default(),
        })
    }

    /// Starts the process. Its log goes on where it ended.
    pub(crate) async fn start(&self) -> Result<(), Failed> {
        let unable = |path: &Path, error| {
            Failed::new(format!("cannot start {}: {}: {error}", self.name, path.display()))
        };
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(|error| unable(&self.log, error))?;
        let own = own_executable()?;
        let (program, before): (&Path, Vec<&OsStr>) = match &self.namespace {
            None => (&own, Vec::new()),
            // It becomes the server: same process, same id.
            Some(namespace) => {
                (Path::new("ip"), vec!["netns".as_ref(), "exec".as_ref(), namespace.as_ref(), own.as_ref()])
            }
        };
        let mut command = Command::new(program);
        command
            .args(before)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(|error| unable(&self.log, error))?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        for (variable, _) in std::env::vars_os() {
            if self.program.ignores(&variable) {
                command.env_remove(variable);
            }
        }
        *self.child.lock().await = Some(command.spawn().map_err(|error| unable(program, error))?);
        Ok(())
    }

    /// Ends the process as a power cut would: without a word.
    pub(crate) async fn kill(&self) -> Result<(), Failed> {
        let mut child = self.child.lock().await;
        if let Some(mut child) = child.take() {
            child.kill().await.map_err(|error| Failed::new(format!("cannot kill {}: {error}", self.name)))?;
        }
        Ok(())
    }

    /// Stops the process where it stands.
    pub(crate) async fn pause(&self) -> Result<(), Failed> {
        self.signal(Signal::STOP).await
    }

    /// Lets a paused process go on.
    pub(crate) async fn resume(&self) -> Result<(), Failed> {
        self.signal(Signal::CONT).await
    }

    async fn signal(&self, signal: Signal) -> Result<(), Failed> {
        let unable = |why: &str| Failed::new(format!("cannot send {} a signal: {why}", self.name));
        let child = self.child.lock().await;
        let id = child.as_ref().and_then(Child::id).and_then(|id| i32::try_from(id).ok());
        let id = id.and_then(Pid::from_raw).ok_or_else(|| unable("it does not run"))?;
        kill_process(id, signal).map_err(|error| unable(&error.to_string()))
    }

    /// The id of the process, if it runs.
    pub(crate) async fn pid(&self) -> Option<u32> {
        self.child.lock().await.as_ref().and_then(Child::id)
    }

    /// Removes everything it knew. Only while the process is dead.
    pub(crate) fn forget(&self) -> Result<(), Failed> {
        match fs::remove_dir_all(&self.data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failed::new(format!("cannot remove {}: {error}", self.data.display())))
            }
            _ => Ok(()),
        }
    }

    /// Did the process end although nobody killed it?
    pub(super) fn ended(&self) -> bool {
        // Whoever holds the lock is about to kill or start it.
        self.child.try_lock().is_ok_and(|mut child| {
            child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|ended| ended.is_some()))
        })
    }

    /// Is there a process that has not ended?
    pub(super) fn runs(&self) -> bool {
        self.child.try_lock().is_ok_and(|mut child| {
            child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|ended| ended.is_none()))
        })
    }

    /// Kills the process without waiting for its end.
    pub(super) fn kill_now(&self) {
        if let Ok(mut child) = self.child.try_lock()
            && let Some(child) = child.as_mut()
        {
            // It fails only for a process that has ended already.
            let _ = child.start_kill();
        }
    }

    pub(super) fn log_tail(&self) -> Vec<String> {
        let text = fs::read(&self.log).unwrap_or_default();
        tail(&String::from_utf8_lossy(&text), LOG_LINES_SHOWN)
    }
}

fn tail(text: &str, lines: usize) -> Vec<String> {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), ["b", "c"]);
        assert_eq!(tail("a", 2), ["a"]);
        assert!(tail("", 2).is_empty());
    }
}

//! What the figures were made on and with.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde::Serialize;
use tokio::process::Command;

use super::super::disk::Sync;
use super::super::machine::Machine as Allows;
use super::super::point::in_words;
use crate::failed::Failed;
use crate::output::go;

/// The machine and the programs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    /// Of synod, which also makes the load.
    pub(super) synod: &'static str,
    pub(super) etcd: String,
    /// Its release.
    pub(super) kernel: String,
    /// Logical ones.
    pub(super) processors: usize,
    pub(super) processor_model: String,
    pub(super) memory_bytes: u64,
    #[serde(flatten)]
    pub(super) allows: Allows,
}

/// The version of the etcd at this path, or of this name.
///
/// # Errors
/// If there is none, with how to get one.
pub(super) async fn etcd_version(program: &Path) -> Result<String, Failed> {
    let shown = program.display();
    let output =
        Command::new(program).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|error| {
        Failed::new(format!("cannot run etcd as {shown}: {error}"))
            .hint("On Debian or Ubuntu: apt install etcd-server")
            .hint("Any other: unpack a release from https://github.com/etcd-io/etcd/releases and name it with --etcd.")
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    version(&said).map(str::to_owned).ok_or_else(|| {
        Failed::new(format!("{shown} does not tell its version as etcd does"))
            .hint("Name the server with --etcd, not etcdctl.")
    })
}

fn version(said: &str) -> Option<&str> {
    said.lines().find_map(|line| line.strip_prefix("etcd Version: ")).map(str::trim)
}

/// The release of the kernel.
pub(super) fn kernel() -> String {
    read("/proc/sys/kernel/osrelease").trim().to_owned()
}

/// How the processors call themselves; not all do.
pub(super) fn processor_model() -> String {
    field(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown").to_owned()
}

/// How much memory the machine has, in bytes; 0 if it does not tell.
pub(super) fn memory_bytes() -> u64 {
    field(&read("/proc/meminfo"), "MemTotal").and_then(kibibytes).unwrap_or_default()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value behind a name and a colon.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim())
    })
}

fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

impl Machine {
    /// For people, a fact on each line.
    pub(super) fn facts(&self) -> Vec<String> {
        let mut facts = vec![
            format!("synod {}, etcd {}", self.synod, self.etcd),
            format!(
                "{} x {}, {} of memory, Linux {}",
                self.processors,
                self.processor_model,
                go::bytes(self.memory_bytes),
                self.kernel
            ),
        ];
        facts.extend(self.allows.syncs.iter().map(Sync::text));
        for point in &self.allows.no_op {
            let (clients, rate) = (point.clients, point.answered_per_second);
            let p50 = in_words(point.latency_us.p50);
            facts.push(format!(
                "a gRPC server that does nothing, {clients} clients: {rate:.0} puts/s, p50 {p50}"
            ));
        }
        if self.allows.data_dir_in_memory {
            let folder = &self.allows.data_dir;
            facts.push(format!("{folder} is in memory: nothing here says anything about a disk"));
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_found_behind_their_names() {
        assert_eq!(version("etcd Version: 3.5.30\nGit SHA: 1\n"), Some("3.5.30"));
        assert_eq!(version("etcdctl version: 3.5.30\n"), None);
        let cpuinfo = "processor\t: 0\nmodel name\t: A: B 7\n\nprocessor\t: 1\n";
        assert_eq!(field(cpuinfo, "model name"), Some("A: B 7"));
        assert_eq!(field("MemFree: 1 kB\n", "MemTotal"), None);
        assert_eq!((kibibytes("3 kB"), kibibytes("3 MB")), (Some(3_072), None));
    }

    #[tokio::test]
    async fn without_etcd_it_says_where_to_get_one() {
        let missing = tempfile::tempdir().unwrap().path().join("etcd");
        let message = etcd_version(&missing).await.unwrap_err().message(Default::default());
        assert!(message.contains("apt install") && message.contains("--etcd"), "{message}");
        // A program that is there, and is not etcd.
        let message = etcd_version("true".as_ref()).await.unwrap_err().message(Default::default());
        assert!(message.contains("does not tell its version"), "{message}");
    }
}

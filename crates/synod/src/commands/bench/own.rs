//! Servers of our own, for those who have none, and what their machine allows.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::disk::{self, Sync};
use super::growth::Watched;
use crate::cluster::{Cluster, Memory, Plan, Program, Site};
use crate::failed::Failed;

/// The folder for the data of our own servers, gone when this is dropped.
pub(super) struct Ground(TempDir);

impl Ground {
    /// A new folder in `parent`, or else on a disk.
    ///
    /// # Errors
    /// If there can be none.
    pub(super) fn new(parent: Option<&Path>) -> Result<Self, Failed> {
        let parent = parent.map_or_else(disk::real_folder, PathBuf::from);
        // Servers are told it, and messages name it: it must not depend on where somebody stands.
        let folder = std::path::absolute(&parent)
            .and_then(|parent| tempfile::Builder::new().prefix("synod-bench-").tempdir_in(parent));
        folder.map(Self).map_err(|error| {
            Failed::new(format!("cannot make a folder in {}: {error}", parent.display()))
                .hint("Name a folder on a disk with --data-dir.")
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Whether this is no disk at all.
    pub(super) fn in_memory(&self) -> bool {
        disk::in_memory(self.path()) == Some(true)
    }

    /// How long a sync takes here: alone, and with as many writers as there will be servers.
    ///
    /// # Errors
    /// If the disk does not let us.
    pub(super) async fn syncs(&self, servers: usize) -> Result<Vec<Sync>, Failed> {
        let folder = self.path().to_owned();
        let measured = tokio::task::spawn_blocking(move || {
            let crowds = if servers > 1 { vec![1, servers] } else { vec![1] };
            crowds.into_iter().map(|writers| disk::measure(&folder, writers)).collect()
        });
        measured.await.map_err(|error| Failed::new(format!("cannot measure the disk: {error}")))?
    }

    /// Starts so many servers of this program here.
    ///
    /// # Errors
    /// If they do not answer in time.
    pub(super) async fn servers(&self, program: Program, count: usize) -> Result<Servers, Failed> {
        let site = Site { disk: Some(self.path().to_owned()), ..Site::loopback() };
        let plan = Plan {
            prefix: "synod-bench-logs-",
            program,
            sites: vec![site; count],
            memory: Memory::Durable,
            port_base: None,
        };
        let cluster = Cluster::start(&plan, |_| ()).await?;
        let mut pids = Vec::new();
        for node in &cluster.nodes {
            pids.extend(node.pid().await);
        }
        let endpoints = cluster.nodes.iter().map(|node| node.url.clone()).collect();
        // Their logs lie elsewhere.
        let watched = Watched { pids, data: Some(self.path().to_owned()) };
        Ok(Servers { endpoints, watched, cluster })
    }
}

/// Running servers. They end when this is dropped.
pub(super) struct Servers {
    pub(super) endpoints: Vec<String>,
    pub(super) watched: Watched,
    pub(super) cluster: Cluster,
}

impl Servers {
    /// Ends them, and waits for that.
    ///
    /// # Errors
    /// If one cannot be killed.
    pub(super) async fn end(self) -> Result<(), Failed> {
        for node in &self.cluster.nodes {
            node.kill().await?;
        }
        Ok(())
    }
}

//! What the machine allows: its disk, and a server that does nothing.

use serde::Serialize;

use super::disk::Sync;
use super::growth::Watched;
use super::measure::{Effort, Target};
use super::noop::NoOpServer;
use super::own::Ground;
use super::point::Point;
use super::workload::Workload;
use super::{bar, point};
use crate::failed::Failed;

/// What the servers' figures are to be seen beside.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) data_dir: String,
    /// It is no disk, so syncs say nothing.
    pub(super) data_dir_in_memory: bool,
    pub(super) syncs: Vec<Sync>,
    /// Puts to one server that does nothing.
    pub(super) no_op: Vec<Point>,
}

impl Machine {
    /// Looks at the disk under `ground` as so many servers will use it, and lets clients make these efforts of puts at a
    /// server that does nothing. Whom they ask is told to `target`: the endpoint, and what can be seen of its process.
    ///
    /// # Errors
    /// If the disk does not let us, or that server cannot be started or measured.
    pub(super) async fn look(
        ground: &Ground,
        servers: usize,
        target: impl FnOnce(Vec<String>, Watched) -> Target,
        efforts: Vec<Effort>,
    ) -> Result<Self, Failed> {
        let waiting = bar("measuring the disk", 0);
        let syncs = ground.syncs(servers).await?;
        waiting.finish_and_clear();
        let server = NoOpServer::start().await?;
        let watched = Watched { pids: vec![server.pid], data: None };
        let target = target(vec![server.endpoint.clone()], watched);
        let mut no_op = Vec::new();
        for effort in efforts {
            no_op.push(point(&target, Workload::Put, 0, effort, "a server that does nothing").await?);
        }
        Ok(Self {
            data_dir: ground.path().display().to_string(),
            data_dir_in_memory: ground.in_memory(),
            syncs,
            no_op,
        })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text =
            "no-op put: one server that answers and does nothing, which is what gRPC allows\n".to_owned();
        for sync in &self.syncs {
            text.push_str(&format!("{} of {}\n", sync.text(), sync.syncs));
        }
        text.push_str(&format!("the servers' data was in {}", self.data_dir));
        if self.data_dir_in_memory {
            text.push_str(", which is in memory: nothing here says anything about a disk");
        }
        text.push('\n');
        text
    }
}

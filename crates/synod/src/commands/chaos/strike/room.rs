//! A disk without room left: filled, felt, and freed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use synod_client::requests;
use synod_client::rpc::etcdserverpb::compare::{CompareResult, TargetUnion};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Field, POLL};
use crate::cluster::look::{missing, takes_part};

/// What goes through the log while a disk is full, at most, in bytes: more than the segments that a server keeps
/// ready, which it can write to without new room.
const LOAD: usize = 320 << 20;
const LOAD_PIECE: usize = 1 << 20;
const LOADERS: usize = 4;
const LOAD_WITHIN: Duration = Duration::from_secs(30);

impl Field<'_> {
    /// Fills the disk, writes through the log until the server notices, and gives the room back.
    pub(super) async fn disk_full(&self, victim: usize, lasts: Duration) -> Result<(), String> {
        let Some((_, disk)) = self.small_disk else { return Err("there is no small disk".to_owned()) };
        let taken = disk.fill()?;
        let noticed = self.load_until_noticed(victim).await;
        let what = match &noticed {
            Some(problem) => format!("it noticed: {problem}"),
            None => format!("it did not notice in {} MiB of log", LOAD >> 20),
        };
        self.stage.tell(&format!("  {} MiB filled; {what}", taken >> 20));
        sleep(lasts).await;
        disk.free()
    }

    /// Large transactions whose condition never holds go through the log and leave nothing in the store. Returns
    /// what is wrong with the victim.
    async fn load_until_noticed(&self, victim: usize) -> Option<String> {
        let mut load = JoinSet::new();
        for place in self.all_but(&[victim]).into_iter().cycle().take(LOADERS) {
            let node = Arc::clone(&self.stage.nodes[place]);
            load.spawn(async move {
                let value = Bytes::from(vec![b'x'; LOAD_PIECE]);
                let never = || requests::compare("chaos/load", CompareResult::Less, TargetUnion::Version(0));
                for _ in 0..LOAD / LOAD_PIECE / LOADERS {
                    let put = requests::put("chaos/load", value.clone());
                    // Whether it is answered does not matter.
                    let _ = node.replica.txn(requests::txn([never()], [requests::op(put)], [])).await;
                }
            });
        }
        let notice = async {
            loop {
                if let Ok(seen) = self.stage.nodes[victim].admin.inspect().await
                    && !takes_part(&seen)
                {
                    return missing(&seen);
                }
                sleep(POLL).await;
            }
        };
        let loaded = async { while load.join_next().await.is_some() {} };
        tokio::select! {
            problem = notice => Some(problem),
            () = loaded => None,
            () = sleep(LOAD_WITHIN) => None,
        }
    }
}

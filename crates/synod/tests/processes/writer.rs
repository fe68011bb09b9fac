//! A client that writes without pause and remembers what was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use synod_client::requests::{get_range, prefix, put};
use synod_client::{ClientError, Replica};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::cluster::{Cluster, until};

/// Writes through one server, one key after the other.
pub(crate) struct Writer {
    acknowledged: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<Written>,
}

/// What became of it.
pub(crate) struct Written {
    prefix: String,
    /// Number of the write, its revision, and when that was known.
    pub(crate) acknowledged: Vec<(usize, i64, Instant)>,
    pub(crate) errors: Vec<ClientError>,
}

impl Writer {
    pub(crate) fn start(replica: &Replica, prefix: &str) -> Self {
        let (acknowledged, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(write(
            replica.clone(),
            prefix.to_owned(),
            Arc::clone(&acknowledged),
            Arc::clone(&stop),
        ));
        Self { acknowledged, stop, task }
    }

    /// One writer at each server.
    pub(crate) fn at_each(cluster: &Cluster, round: &str) -> Vec<Self> {
        cluster
            .nodes
            .iter()
            .map(|node| Self::start(&node.replica, &format!("{round}/{}/", node.name)))
            .collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until `more` writes from now on are acknowledged.
    pub(crate) async fn goes_on(&self, more: usize) {
        let enough = self.count() + more;
        until("writes go on", async || self.count() >= enough).await;
    }

    pub(crate) async fn end(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn write(replica: Replica, prefix: String, count: Arc<AtomicUsize>, stop: Arc<AtomicBool>) -> Written {
    let mut written = Written { prefix, acknowledged: Vec::new(), errors: Vec::new() };
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        match replica.put(put(format!("{}{number}", written.prefix), number.to_string())).await {
            Ok(answer) => {
                let revision = answer.header.expect("every answer has a header").revision;
                written.acknowledged.push((number, revision, Instant::now()));
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                written.errors.push(error);
                sleep(Duration::from_millis(20)).await; // the server is down: do not spin
            }
        }
    }
    written
}

impl Written {
    /// Every acknowledged write must be there, under the revision that was told, at every server.
    pub(crate) async fn is_kept_by(&self, cluster: &Cluster) {
        assert!(!self.acknowledged.is_empty(), "{} wrote nothing", self.prefix);
        for node in &cluster.nodes {
            let all = node.replica.range(get_range(prefix(self.prefix.clone()))).await.unwrap();
            let mut there: Vec<(usize, i64)> =
                all.kvs.iter().map(|kv| (text(&kv.value).parse().unwrap(), kv.mod_revision)).collect();
            there.sort_unstable();
            for (number, revision, _) in &self.acknowledged {
                let found = there.binary_search(&(*number, *revision));
                assert!(found.is_ok(), "{}: {}{number} at {revision} is lost", node.name, self.prefix);
            }
        }
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The longest time without an acknowledgement to any of these.
pub(crate) fn longest_pause<'a>(written: impl IntoIterator<Item = &'a Written>) -> Duration {
    let mut at: Vec<Instant> =
        written.into_iter().flat_map(|one| one.acknowledged.iter().map(|(_, _, at)| *at)).collect();
    at.sort_unstable();
    at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

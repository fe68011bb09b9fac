//! The world of a server: the system's clock, its threads, and links over its network.

use super::State;
use super::checkpoint::read_machine;
use super::faults::LinkFault;
use super::host::{Arrived, Heard, Host, Job, Links};
use super::observation::Observation;
use super::roles::Life;
use crate::peers::{Transport, TransportError};
use crate::trace::Recorder;
use rand::RngExt;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use synod_kv::Restore;
use synod_paxos::formation::FormationMessage;
use synod_paxos::message::{Message, Outgoing};
use synod_paxos::types::{ClusterId, NodeId, Time};
use tokio::sync::mpsc;

/// The process this replica is alone in.
pub(crate) struct System {
    started: Instant,
    trace: Option<Recorder>,
}

impl System {
    pub(crate) fn new(trace: Option<Recorder>) -> System {
        System { started: Instant::now(), trace }
    }
}

impl Host for System {
    fn now(&self) -> Time {
        Time::default() + self.started.elapsed()
    }

    fn unix(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn random(&self) -> u64 {
        rand::rng().random()
    }

    fn run(&self, mut life: Life) -> io::Result<()> {
        Builder::new().name(life.role().name().into()).spawn(move || {
            while life.turn() {
                life.wait();
            }
        })?;
        Ok(())
    }

    fn begin(&self, name: &'static str, job: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Job>> {
        Ok(Box::new(Thread(Builder::new().name(name.into()).spawn(job)?)))
    }

    fn observe(&self, observation: &Observation<'_>) {
        if let Some(trace) = &self.trace {
            trace.observe(observation);
        }
    }
}

struct Thread(JoinHandle<()>);

impl Job for Thread {
    fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    fn join(self: Box<Self>) {
        let _ = self.0.join(); // a panic left no result behind, and whoever waits for that notices
    }
}

/// How many blocks of a checkpoint may wait to be restored.
const BLOCKS_AHEAD: usize = 4;

/// Links over the network. What takes several steps is done by tasks of the core's runtime, on which all of this
/// must be called, except for sending.
pub(crate) struct PeerLinks(pub(crate) Arc<Transport>);

impl Links for PeerLinks {
    fn send(&self, to: &[NodeId], message: &Message) {
        self.0.send(to, message);
    }

    fn send_all(&self, outgoing: &[Outgoing]) {
        self.0.send_here(outgoing);
    }

    fn set_peers(&self, urls: BTreeMap<NodeId, Vec<String>>) {
        self.0.set_peers(urls);
    }

    fn set_cluster(&self, cluster: ClusterId) {
        self.0.set_cluster(Some(cluster));
    }

    fn health(&self, node: NodeId) -> (bool, Option<Duration>) {
        let stats = self.0.peer_stats(node);
        (stats.connected, stats.last_heard)
    }

    fn disturb(&self, peer: NodeId, fault: Option<LinkFault>) {
        self.0.links().set(peer, fault);
    }

    fn form(&self, to: NodeId, message: FormationMessage, heard: Heard) {
        let transport = Arc::clone(&self.0);
        tokio::spawn(async move {
            // Lost messages are repeated by the next tick.
            heard(transport.form(to, &message).await.unwrap_or_default());
        });
    }

    fn fetch(&self, from: NodeId, arrived: Arrived) {
        let transport = Arc::clone(&self.0);
        tokio::spawn(async move { arrived(download(&transport, from).await) });
    }
}

async fn download(transport: &Transport, from: NodeId) -> Result<State, String> {
    let text = |error: TransportError| error.to_string();
    let mut download = transport.fetch_checkpoint(from).await.map_err(text)?;
    // Building the store takes a while: not on the core's thread.
    let (blocks, mut arriving) = mpsc::channel(BLOCKS_AHEAD);
    let restored = tokio::task::spawn_blocking(move || {
        let mut restore = Restore::new();
        while let Some(block) = arriving.blocking_recv() {
            restore.push(block).map_err(|error| error.to_string())?;
        }
        restore.finish().map_err(|error| error.to_string())
    });
    while let Some(block) = download.next().await.map_err(text)? {
        if blocks.send(block).await.is_err() {
            break; // it failed, and says why
        }
    }
    drop(blocks);
    let store = restored.await.map_err(|_| "restoring it panicked")??;
    let machine = read_machine(download.state().clone())?;
    State::of(store, machine, download.covered())
}

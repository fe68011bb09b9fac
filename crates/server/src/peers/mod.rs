//! How replicas reach each other.
//!
//! ```text
//!   this server                                             another
//!   ───────────                                             ───────
//!   send(to, message)   encoded once
//!      ├─> queue ── line ── HTTP/2 ── frames ────────────>  Inbox::deliver(from, messages)
//!      └─> queue ── line ── HTTP/2 ── ...
//!   Inbox::deliver  <── delivery ── frames ── HTTP/2 ── line ── queue <── send(...)
//! ```
//!
//! A stream carries messages one way. To each peer there are three *lanes*, each
//! with a queue and a connection of its own: the protocol's two phases; what is small
//! and pressing (heartbeats, reads); and catching up. A lane takes all that waits
//! into one frame whenever its connection can carry more, so batches grow with
//! the load and nothing ever waits for a timer.
//!
//! It is gRPC, and any gRPC library can be at the other end; but what such a library does
//! for a message costs more than what the protocol does for it, so these streams lie
//! directly on HTTP/2, and whoever sends may write to the socket himself.
//!
//! Nothing here is trusted to arrive. Queues drop what does not fit and what is
//! older than the last failed attempt to connect; the protocol sends again what
//! matters (PMS-14, PMS-37). In return, [`Transport::send`] never waits, and a
//! peer that is down costs a bounded amount of memory.
//!
//! A connection is dead once nothing moves on it and a ping stays unanswered: what is
//! slow gets its time (`wire.rs`).
//!
//! Two servers talk only if they agree on the cluster, on who calls whom, and on a
//! version; otherwise the callee says why not. Checkpoints and the messages of
//! formation travel beside the lanes, in calls of their own.

mod call;
mod checkpoint;
mod delivery;
mod dial;
mod error;
mod formation;
mod framing;
mod lane;
mod line;
mod links;
mod peer;
mod queue;
mod service;
#[cfg(test)]
mod tests;
mod wire;

pub use checkpoint::{CheckpointDownload, CheckpointSource, CheckpointStream};
pub use error::TransportError;
pub use formation::{FormationAnswers, FormationHandler};
pub use links::{Direction, LinkFault, LinkFaults};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use line::Line;
use links::{Fate, Way};
use peer::{Counters, Peer};
use queue::Lane;
use synod_paxos::formation::FormationMessage;
use synod_paxos::message::{Message, Outgoing};
use synod_paxos::types::{ClusterId, NodeId};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a shutdown waits for streams to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of messages that are late on purpose. Beyond it they are lost.
const MAX_LATE_BYTES: usize = 256 << 20;

/// Where messages go that arrive. Called on the transport's runtime, so it must
/// not wait.
pub trait Inbox: Send + Sync {
    /// Messages from `from`, all that one frame held.
    fn deliver(&self, from: NodeId, messages: Vec<Message>);

    /// `node` can be reached from now on. Whether it hears us it says itself.
    fn connected(&self, node: NodeId);

    /// The connection to `node` broke. If its process died, this comes within
    /// milliseconds; if it vanished without a word, within about two seconds.
    fn disconnected(&self, node: NodeId);
}

/// What a transport needs to know.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// This server.
    pub node: NodeId,
    /// Its cluster; none while that is still being formed. See
    /// [`Transport::set_cluster`].
    pub cluster: Option<ClusterId>,
    /// Where to listen for peers.
    pub listen: Vec<SocketAddr>,
    /// The other servers, with their URLs (`http://host:port`). This server itself
    /// may be among them.
    pub peers: BTreeMap<NodeId, Vec<String>>,
    /// Where chance comes from: jitter, and faults on purpose.
    pub seed: u64,
}

/// Whom a transport serves.
#[derive(Clone)]
pub struct Handlers {
    /// Takes what arrives.
    pub inbox: Arc<dyn Inbox>,
    /// Knows the newest checkpoint.
    pub checkpoints: Arc<dyn CheckpointSource>,
    /// Takes part in formation.
    pub formation: Arc<dyn FormationHandler>,
}

/// What is known about the link to a peer. Counts are since the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Are the lanes to it up that the protocol lives on?
    pub connected: bool,
    /// Why not, as far as known.
    pub problem: Option<String>,
    /// How long ago anything came from it, if ever.
    pub last_heard: Option<Duration>,
    /// Messages handed to a connection. They may be lost all the same.
    pub sent_messages: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Messages that arrived.
    pub received_messages: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Messages to it that were dropped because it could not be reached or did
    /// not keep up.
    pub dropped: u64,
    /// Messages from or to it that were lost on purpose.
    pub disturbed: u64,
    /// Messages from it that could not be read.
    pub malformed: u64,
}

/// What is known about all links together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportStats {
    /// Messages that were encoded to be sent, to however many.
    pub encoded: u64,
    /// Messages that arrived, from known peers or not, and could not be read.
    pub malformed: u64,
}

/// The links between this server and the others. Dropping it cuts them.
pub struct Transport {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    servers: Mutex<Vec<JoinHandle<()>>>,
}

/// What the tasks of a transport have in common.
struct Shared {
    node: NodeId,
    seed: u64,
    cluster: watch::Sender<Option<ClusterId>>,
    stopped: watch::Sender<bool>,
    peers: ArcSwap<BTreeMap<NodeId, Entry>>,
    /// Held while `peers` is being replaced.
    changing: Mutex<()>,
    links: LinkFaults,
    inbox: Arc<dyn Inbox>,
    checkpoints: Arc<dyn CheckpointSource>,
    formation: Arc<dyn FormationHandler>,
    runtime: Handle,
    caller_interval: Duration,
    encoded: AtomicU64,
    malformed: AtomicU64,
    late_bytes: AtomicUsize,
}

/// A peer and the tasks that keep its lanes.
#[derive(Clone)]
struct Entry {
    peer: Arc<Peer>,
    _lanes: Arc<Lanes>,
}

/// Ends the lanes of a peer when nobody sends to it any more.
struct Lanes(Vec<JoinHandle<()>>);

impl Drop for Lanes {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Transport {
    /// Listens for peers and dials them, from tasks on the current runtime.
    ///
    /// # Errors
    /// When an address cannot be listened on. Nothing runs then.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn start(config: TransportConfig, handlers: Handlers) -> Result<Transport, TransportError> {
        Transport::start_asking(config, handlers, service::CALLER_INTERVAL).await
    }

    /// As [`Transport::start`]; asks callers this often whether they live.
    async fn start_asking(
        config: TransportConfig,
        handlers: Handlers,
        caller_interval: Duration,
    ) -> Result<Transport, TransportError> {
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for address in config.listen {
            let failed = |source| TransportError::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            addresses.push(listener.local_addr().map_err(failed)?);
            listeners.push(listener);
        }
        let shared = Arc::new(Shared {
            node: config.node,
            seed: config.seed,
            cluster: watch::Sender::new(config.cluster),
            stopped: watch::Sender::new(false),
            peers: ArcSwap::default(),
            changing: Mutex::default(),
            links: LinkFaults::new(config.seed),
            inbox: handlers.inbox,
            checkpoints: handlers.checkpoints,
            formation: handlers.formation,
            runtime: Handle::current(),
            caller_interval,
            encoded: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            late_bytes: AtomicUsize::new(0),
        });
        let serve = |listener| tokio::spawn(service::serve(Arc::clone(&shared), listener));
        let servers = Mutex::new(listeners.into_iter().map(serve).collect());
        let transport = Transport { shared, addresses, servers };
        transport.set_peers(config.peers);
        Ok(transport)
    }

    /// Where it listens: the addresses of the configuration, with the ports that
    /// port 0 became.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Sends `message` to each of `to`, or drops it; never waits. This server and
    /// strangers in `to` are passed over. May be called from any thread.
    pub fn send(&self, to: &[NodeId], message: &Message) {
        self.queue(to, message, &mut |line| line.call());
    }

    /// As [`Transport::send`], and the calling thread writes to the sockets itself, as far
    /// as they take it at once: for a thread that would have to wake this transport's.
    pub fn send_here(&self, outgoing: &[Outgoing]) {
        let mut lines: Vec<Arc<Line>> = Vec::new();
        for Outgoing { to, message } in outgoing {
            self.queue(&[*to], message, &mut |line| {
                if !lines.iter().any(|known| Arc::ptr_eq(known, &line)) {
                    lines.push(line);
                }
            });
        }
        lines.iter().for_each(|line| line.carry());
    }

    /// Queues `message` for each of `to`; `queued` is told the lines that it can leave by.
    fn queue(&self, to: &[NodeId], message: &Message, queued: &mut dyn FnMut(Arc<Line>)) {
        let shared = &self.shared;
        let lane = Lane::of(message);
        let peers = shared.peers.load();
        let mut encoded: Option<Bytes> = None;
        for node in to {
            let Some(Entry { peer, .. }) = peers.get(node) else { continue };
            let fate = shared.links.fate(Way::Out, *node);
            if fate == Fate::Lost {
                peer.counters.disturbed();
                continue;
            }
            let bytes = encoded.get_or_insert_with(|| {
                shared.encoded.fetch_add(1, Ordering::Relaxed);
                synod_rpc::peer::encode(message)
            });
            let bytes = bytes.clone();
            match fate {
                Fate::Late(delay) => {
                    let peer = Arc::clone(peer);
                    shared.later(delay, bytes.len(), move || {
                        peer.push(lane, bytes);
                        peer.queue(lane).line().iter().for_each(|line| line.call());
                    });
                }
                Fate::Pass | Fate::Lost => {
                    peer.push(lane, bytes);
                    peer.queue(lane).line().into_iter().for_each(&mut *queued);
                }
            }
        }
    }

    /// These are the other servers from now on. Links to those that stay at
    /// their URLs stay; this server itself is passed over.
    pub fn set_peers(&self, urls: BTreeMap<NodeId, Vec<String>>) {
        let shared = &self.shared;
        let _changing = shared.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = shared.peers.load_full();
        let keep = |(node, urls): (NodeId, Vec<String>)| {
            let before = old.get(&node);
            if let Some(entry) = before.filter(|entry| entry.peer.urls == urls) {
                return (node, entry.clone());
            }
            let counters = before.map(|entry| Arc::clone(&entry.peer.counters)).unwrap_or_default();
            (node, shared.entry(node, urls, counters))
        };
        let stopped = *shared.stopped.borrow();
        let others = urls.into_iter().filter(|(node, _)| *node != shared.node && !stopped);
        shared.peers.store(Arc::new(others.map(keep).collect()));
    }

    /// The cluster this server belongs to from now on. Until there is one, lanes
    /// do not dial and streams are refused; when it becomes another, links to the
    /// servers of the former are cut.
    pub fn set_cluster(&self, cluster: Option<ClusterId>) {
        self.shared.cluster.send_if_modified(|now| std::mem::replace(now, cluster) != cluster);
    }

    /// The links to disturb on purpose.
    pub fn links(&self) -> &LinkFaults {
        &self.shared.links
    }

    /// What is known about the link to `node`; nothing about a stranger.
    pub fn peer_stats(&self, node: NodeId) -> PeerStats {
        self.shared.peers.load().get(&node).map(|entry| entry.peer.stats()).unwrap_or_default()
    }

    /// What is known about all links together.
    pub fn stats(&self) -> TransportStats {
        TransportStats {
            encoded: self.shared.encoded.load(Ordering::Relaxed),
            malformed: self.shared.malformed.load(Ordering::Relaxed),
        }
    }

    /// Asks `from` for its newest checkpoint. The answer's blocks are still to
    /// come.
    ///
    /// # Errors
    /// When it cannot be reached, or has none. Nothing happened then; ask again,
    /// or another.
    pub async fn fetch_checkpoint(&self, from: NodeId) -> Result<CheckpointDownload, TransportError> {
        checkpoint::fetch(&self.shared, from, &self.urls(from)?).await
    }

    /// Says `message` to `to` while there is no cluster, and returns what it
    /// answers.
    ///
    /// # Errors
    /// When no answer came. It may have heard the message all the same; formation
    /// can hear everything twice.
    pub async fn form(
        &self,
        to: NodeId,
        message: &FormationMessage,
    ) -> Result<Vec<FormationMessage>, TransportError> {
        formation::call(&self.shared, to, &self.urls(to)?, message).await
    }

    fn urls(&self, node: NodeId) -> Result<Vec<String>, TransportError> {
        if *self.shared.stopped.borrow() {
            return Err(TransportError::Stopped);
        }
        let peers = self.shared.peers.load();
        peers.get(&node).map(|entry| entry.peer.urls.clone()).ok_or(TransportError::UnknownPeer(node))
    }

    /// Stops listening, ends all streams and forgets what waits. Returns within
    /// about a second.
    pub async fn shutdown(&self) {
        self.cut();
        let servers = std::mem::take(&mut *self.servers.lock().unwrap_or_else(PoisonError::into_inner));
        let deadline = tokio::time::Instant::now() + SHUTDOWN_TIMEOUT;
        for mut server in servers {
            if tokio::time::timeout_at(deadline, &mut server).await.is_err() {
                server.abort();
            }
        }
    }

    fn cut(&self) {
        self.shared.stopped.send_replace(true);
        self.set_peers(BTreeMap::new());
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Shared {
    fn entry(self: &Arc<Self>, node: NodeId, urls: Vec<String>, counters: Arc<Counters>) -> Entry {
        let peer = Arc::new(Peer::new(node, urls, counters));
        let keep = |lane| self.runtime.spawn(lane::keep(Arc::clone(self), Arc::clone(&peer), lane));
        let lanes = Arc::new(Lanes(Lane::ALL.map(keep).into()));
        Entry { peer, _lanes: lanes }
    }

    /// Does `what` after `delay`, with messages of this many bytes; or drops them
    /// if too much is late already.
    fn later(self: &Arc<Self>, delay: Duration, bytes: usize, what: impl FnOnce() + Send + 'static) {
        // A message takes some memory however short it is.
        let bytes = bytes.saturating_add(256);
        if self.late_bytes.fetch_add(bytes, Ordering::Relaxed) > MAX_LATE_BYTES {
            self.late_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return;
        }
        let shared = Arc::clone(self);
        self.runtime.spawn(async move {
            tokio::time::sleep(delay).await;
            shared.late_bytes.fetch_sub(bytes, Ordering::Relaxed);
            if !*shared.stopped.borrow() {
                what();
            }
        });
    }
}

//! One other server: what waits for it, whether it can be reached, and what was
//! counted about it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use synod_paxos::types::NodeId;

use super::queue::{Lane, MAX_MESSAGE_BYTES, Queue};
use super::{Inbox, PeerStats};

/// A peer at its present addresses. When those change, another takes its place.
pub(super) struct Peer {
    pub(super) node: NodeId,
    pub(super) urls: Vec<String>,
    pub(super) counters: Arc<Counters>,
    queues: [Queue; 3],
    link: Mutex<Link>,
}

/// Which lanes are up, and what keeps the others down.
#[derive(Debug, Default)]
struct Link {
    up: [bool; 3],
    /// What the inbox was told last.
    connected: bool,
    problem: Option<String>,
}

/// What is counted about a peer. Outlives a change of its addresses.
#[derive(Debug, Default)]
pub(super) struct Counters {
    sent_messages: AtomicU64,
    sent_bytes: AtomicU64,
    received_messages: AtomicU64,
    received_bytes: AtomicU64,
    dropped: AtomicU64,
    disturbed: AtomicU64,
    malformed: AtomicU64,
    last_heard: Mutex<Option<Instant>>,
}

impl Counters {
    /// A frame arrived.
    pub(super) fn received(&self, messages: u64, bytes: u64) {
        self.received_messages.fetch_add(messages, Ordering::Relaxed);
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
        *self.last_heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// A frame was handed to a connection.
    pub(super) fn sent(&self, messages: u64, bytes: u64) {
        self.sent_messages.fetch_add(messages, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Messages were lost for want of room or of a connection.
    pub(super) fn dropped(&self, messages: u64) {
        self.dropped.fetch_add(messages, Ordering::Relaxed);
    }

    /// A message was lost on purpose.
    pub(super) fn disturbed(&self) {
        self.disturbed.fetch_add(1, Ordering::Relaxed);
    }

    /// A message could not be read.
    pub(super) fn malformed(&self) {
        self.malformed.fetch_add(1, Ordering::Relaxed);
    }

    fn last_heard(&self) -> Option<Duration> {
        self.last_heard.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }
}

impl Peer {
    pub(super) fn new(node: NodeId, urls: Vec<String>, counters: Arc<Counters>) -> Peer {
        let queues = Lane::ALL.map(Queue::new);
        Peer { node, urls, counters, queues, link: Mutex::default() }
    }

    pub(super) fn queue(&self, lane: Lane) -> &Queue {
        &self.queues[lane as usize]
    }

    /// Queues an encoded message, or drops it. It leaves once the lane's line is called or carries.
    pub(super) fn push(&self, lane: Lane, message: Bytes) {
        if message.len() > MAX_MESSAGE_BYTES {
            // Nobody would take it: a bug of ours, since values are bounded well below.
            tracing::error!(peer = %self.node, bytes = message.len(), "dropped a message that is too large to send");
            self.counters.dropped(1);
        } else if self.urls.is_empty() || !self.queue(lane).push(message) {
            self.counters.dropped(1);
        }
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a lane came up or went down. The peer counts as connected
    /// while both lanes that the protocol lives on are up; the inbox hears of
    /// changes in their order.
    pub(super) fn set_up(&self, lane: Lane, up: bool, inbox: &dyn Inbox) {
        let mut link = self.link();
        link.up[lane as usize] = up;
        let connected = link.up[Lane::Protocol as usize] && link.up[Lane::Urgent as usize];
        if connected == link.connected {
            return;
        }
        link.connected = connected;
        if connected {
            link.problem = None;
            tracing::info!(peer = %self.node, "connected to a peer");
            inbox.connected(self.node);
        } else {
            tracing::info!(peer = %self.node, "lost the connection to a peer");
            inbox.disconnected(self.node);
        }
    }

    /// Notes why a connection is not to be had. Logged when it is news.
    pub(super) fn trouble(&self, problem: String) {
        let mut link = self.link();
        if link.connected || link.problem.as_ref() == Some(&problem) {
            return;
        }
        tracing::warn!(peer = %self.node, "no connection to a peer, trying again: {problem}");
        link.problem = Some(problem);
    }

    pub(super) fn stats(&self) -> PeerStats {
        let link = self.link();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        PeerStats {
            connected: link.connected,
            problem: link.problem.clone(),
            last_heard: counters.last_heard(),
            sent_messages: read(&counters.sent_messages),
            sent_bytes: read(&counters.sent_bytes),
            received_messages: read(&counters.received_messages),
            received_bytes: read(&counters.received_bytes),
            dropped: read(&counters.dropped),
            disturbed: read(&counters.disturbed),
            malformed: read(&counters.malformed),
        }
    }
}

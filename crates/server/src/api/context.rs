//! What all services share: the replica, the header of every answer, the metrics, and when to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use synod_kv::{RangeRequest, Revision, Store, View};
use synod_rpc::convert::{Responder, ServerError};
use synod_rpc::etcdserverpb::ResponseHeader;
use tokio::sync::watch;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::errors::unanswered;
use super::{ApiOptions, Node};
use crate::metrics::{Methods, Metrics};
use crate::replica::{Consistency, ReplicaStatus};

/// For how long, in milliseconds, the numbers in headers may be out of date. Asking the replica is too
/// dear to be done for every answer, and nobody can tell a leader change that was answered a moment ago
/// from one that happened a moment later.
const HEADER_AGE: u64 = 100;

/// As many versions may be walked along while holding the store's lock. Whoever wants to look at more gets
/// a snapshot, and a thread that may take its time.
const SHORT_LOOK: u64 = 512;

/// A request that reads, as far as it matters where it is answered.
pub(super) trait Reads {
    /// Does this hold for all ranges that it may read?
    fn all(&self, holds: &dyn Fn(&RangeRequest) -> bool) -> bool;

    /// Does it name each key that it looks at?
    fn about_few_keys(&self) -> bool;
}

/// Shared by all services. Cheap to clone.
pub(crate) struct Context<N> {
    shared: Arc<Shared<N>>,
}

struct Shared<N> {
    node: N,
    limits: synod_kv::Limits,
    faults_allowed: bool,
    methods: Methods,
    closing: watch::Receiver<bool>,
    started: Instant,
    member_id: u64,
    cluster_id: AtomicU64,
    raft_term: AtomicU64,
    /// Milliseconds after `started` at which the numbers above are to be asked for again.
    stale_at: AtomicU64,
}

impl<N> Clone for Context<N> {
    fn clone(&self) -> Self {
        Context { shared: Arc::clone(&self.shared) }
    }
}

impl<N: Node> Context<N> {
    pub(crate) fn new(
        node: N,
        options: &ApiOptions,
        metrics: &Metrics,
        closing: watch::Receiver<bool>,
    ) -> Self {
        let status = node.status();
        let shared = Shared {
            node,
            limits: synod_kv::Limits {
                max_request_bytes: options.max_request_bytes,
                ..synod_kv::Limits::default()
            },
            faults_allowed: options.faults_allowed,
            methods: metrics.methods().clone(),
            closing,
            started: Instant::now(),
            member_id: status.node.0,
            cluster_id: AtomicU64::new(0),
            raft_term: AtomicU64::new(0),
            stale_at: AtomicU64::new(HEADER_AGE),
        };
        let context = Context { shared: Arc::new(shared) };
        context.note(&status);
        context
    }

    pub(super) fn node(&self) -> &N {
        &self.shared.node
    }

    pub(super) fn limits(&self) -> &synod_kv::Limits {
        &self.shared.limits
    }

    pub(super) fn faults_allowed(&self) -> bool {
        self.shared.faults_allowed
    }

    pub(super) fn methods(&self) -> &Methods {
        &self.shared.methods
    }

    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.shared.closing.clone()
    }

    /// Where the replica stands, right now.
    pub(super) fn status(&self) -> ReplicaStatus {
        let status = self.shared.node.status();
        self.note(&status);
        status
    }

    fn note(&self, status: &ReplicaStatus) {
        if let Some(cluster) = status.cluster {
            // etcd's ids have 64 bits; the low ones are as random as the others.
            self.shared.cluster_id.store(cluster.0 as u64, Ordering::Relaxed);
        }
        if let Some(leader) = status.leader {
            // H-4: it only grows, even while two replicas take themselves for the leader.
            self.shared.raft_term.fetch_max(leader.round, Ordering::Relaxed);
        }
    }

    /// Who answers (H-1).
    pub(super) fn responder(&self) -> Responder {
        let shared = &*self.shared;
        let now = u64::try_from(shared.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let stale_at = shared.stale_at.load(Ordering::Relaxed);
        let next = now.saturating_add(HEADER_AGE);
        let mine = || shared.stale_at.compare_exchange(stale_at, next, Ordering::Relaxed, Ordering::Relaxed);
        if now >= stale_at && mine().is_ok() {
            self.status();
        }
        Responder {
            cluster_id: shared.cluster_id.load(Ordering::Relaxed),
            member_id: shared.member_id,
            raft_term: shared.raft_term.load(Ordering::Relaxed),
        }
    }

    /// The header of an answer.
    pub(super) fn header(&self, revision: Revision) -> Option<ResponseHeader> {
        Some(self.responder().header(revision))
    }

    /// What a client can demand of a server before it is asked anything (T-4).
    pub(super) fn admit(&self, metadata: &MetadataMap) -> Result<(), Status> {
        if metadata.get("hasleader").is_some_and(|value| value == "true") && self.status().leader.is_none() {
            return Err(ServerError::NoLeader.into());
        }
        if metadata.get("client-api-version").is_some_and(|value| value.to_str().is_err()) {
            return Err(Status::invalid_argument("etcdserver: invalid client api version"));
        }
        Ok(())
    }

    /// Looks at the store: a short look on the spot, under the lock that the learner needs, any other at a
    /// snapshot, off the threads that serve clients. Short is one at a few versions, none of which is on disk.
    pub(super) async fn look<R: Reads + Send + 'static, T: Send + 'static>(
        &self,
        consistency: Consistency,
        request: R,
        look: impl FnOnce(&View, R) -> T + Send + 'static,
    ) -> Result<T, Status> {
        enum Seen<R, T, F> {
            Done(T),
            Later(Box<synod_kv::Snapshot>, R, F),
        }
        let glance = |store: &Store| {
            let few = store.stats().versions <= SHORT_LOOK || request.about_few_keys();
            if few && request.all(&|range| !store.may_wait(range)) {
                Seen::Done(look(store, request))
            } else {
                Seen::Later(Box::new(store.snapshot()), request, look)
            }
        };
        match self.shared.node.read(consistency, glance).await.map_err(unanswered)? {
            Seen::Done(seen) => Ok(seen),
            // The snapshot goes as soon as it was looked at: what it holds on to slows the writer.
            Seen::Later(snapshot, request, look) => {
                tokio::task::spawn_blocking(move || look(&snapshot, request))
                    .await
                    .map_err(|_| Status::internal("a read failed inside this server; its log says why"))
            }
        }
    }
}

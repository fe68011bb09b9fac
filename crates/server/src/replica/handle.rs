//! How the rest of the server reaches its replica: ask for a write, wait until a read may be answered, look
//! at the store, look at the roles, make them fail.

use super::faults::{FaultError, LinkFault, RandomFaults, RoleFault};
use super::status::{Event, ReplicaStatus};
use bytes::Bytes;
use std::sync::Arc;
use synod_kv::{Applied, KvError, StateHash, Store};
use synod_paxos::types::{NodeId, Prefix, Slot};
use tokio::sync::broadcast;

/// What applying a command answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The store's answer to a request.
    Store(Result<Applied, KvError>),
    /// Whether a change of the cluster did anything.
    Reconfigured(bool),
}

/// Why a request got no answer from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Too much waits already. Nothing was started; try again later.
    #[error("etcdserver: too many requests")]
    Busy,
    /// No majority could be reached, or no leader found, in time. A write may still take effect.
    #[error("etcdserver: request timed out")]
    TimedOut,
    /// No leader is known: there may be no majority. A write may still take effect.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// This server is shutting down. A write may still take effect.
    #[error("etcdserver: server stopped")]
    Stopped,
    /// The write was applied, but its answer is no longer known here.
    #[error("etcdserver: request timed out, waiting for the applied index took too long")]
    AnswerLost,
}

/// How new an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// At least as new as everything answered before.
    Linearizable,
    /// Whatever this replica has, at once, even without a majority.
    Serializable,
}

/// The replica of this process. Cheap to clone.
#[derive(Clone)]
pub struct Replica {
    pub(super) shared: Arc<super::Shared>,
}

impl Replica {
    /// Has the log decide an encoded [`synod_kv::Request`] and waits until it was applied here.
    ///
    /// # Errors
    /// See [`RequestError`]; the server's request timeout bounds the wait. Dropping the future does not
    /// take the request back.
    pub async fn propose(&self, request: Bytes) -> Result<Answer, RequestError> {
        self.shared.propose(synod_paxos::value::Action::App(request)).await
    }

    /// Looks at the store. With [`Consistency::Linearizable`], only once it has applied everything that was
    /// answered to anybody before this call (KV-6). `read` runs under a lock that the learner needs: for a
    /// long look, take a [`synod_kv::Snapshot`] in it, which is cheap, and look at that.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn read<T>(
        &self,
        consistency: Consistency,
        read: impl FnOnce(&Store) -> T,
    ) -> Result<T, RequestError> {
        self.shared.read(consistency, read).await
    }

    /// Where this replica stands, for people and metrics.
    pub fn status(&self) -> ReplicaStatus {
        self.shared.status()
    }

    /// The state hash right after `slot` was applied, if it is still remembered.
    pub fn state_hash_at(&self, slot: Slot) -> Option<StateHash> {
        self.shared.state_hash_at(slot)
    }

    /// How far the log is applied here.
    pub fn applied(&self) -> Prefix {
        self.shared.applied()
    }

    /// What happens to roles and leadership here, from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Makes a role fail, or lets it come back.
    ///
    /// # Errors
    /// When faults are not allowed on this server, or make no sense.
    pub fn fail_role(&self, fault: RoleFault) -> Result<String, FaultError> {
        self.shared.fail_role(fault)
    }

    /// Makes the links to `peers` (all when empty) lose, delay or stop messages; none heals them.
    ///
    /// # Errors
    /// As [`Replica::fail_role`].
    pub fn fail_links(&self, peers: &[NodeId], fault: Option<LinkFault>) -> Result<String, FaultError> {
        self.shared.fail_links(peers, fault)
    }

    /// Lets roles fail at random until told otherwise (none).
    ///
    /// # Errors
    /// As [`Replica::fail_role`].
    pub fn fail_at_random(&self, faults: Option<RandomFaults>) -> Result<String, FaultError> {
        self.shared.fail_at_random(faults)
    }

    /// Hands leadership over, finishes what is under way for a bounded time, syncs and stops every role.
    pub async fn shutdown(&self) {
        self.shared.shutdown().await;
    }
}

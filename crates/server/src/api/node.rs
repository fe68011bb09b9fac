//! What the services need of a replica.

use std::future::Future;

use bytes::Bytes;
use synod_kv::{StateHash, Store};
use synod_paxos::types::{NodeId, Slot};
use tokio::sync::broadcast;

use crate::replica::{
    Answer, Consistency, Event, FaultError, LinkFault, RandomFaults, Replica, ReplicaStatus, RequestError,
    RoleFault,
};

/// A replica, as far as its clients can tell. [`Replica`] is one; the methods mean what its methods mean.
pub trait Node: Clone + Send + Sync + 'static {
    /// Has an encoded [`synod_kv::Request`] decided and applied.
    fn propose(&self, request: Bytes) -> impl Future<Output = Result<Answer, RequestError>> + Send;

    /// Looks at the store, once it is as new as asked for.
    fn read<T: Send>(
        &self,
        consistency: Consistency,
        look: impl FnOnce(&Store) -> T + Send,
    ) -> impl Future<Output = Result<T, RequestError>> + Send;

    /// Where it stands. Costs some microseconds: not for every request.
    fn status(&self) -> ReplicaStatus;

    /// The state hash right after a slot, if it is still remembered.
    fn state_hash_at(&self, slot: Slot) -> Option<StateHash>;

    /// What happens to it from now on.
    fn events(&self) -> broadcast::Receiver<Event>;

    /// Makes a role fail, or lets it come back.
    ///
    /// # Errors
    /// When faults are not allowed, or make no sense.
    fn fail_role(&self, fault: RoleFault) -> Result<String, FaultError>;

    /// Disturbs the links to some peers (all if none is named), or heals them.
    ///
    /// # Errors
    /// As [`Node::fail_role`].
    fn fail_links(&self, peers: &[NodeId], fault: Option<LinkFault>) -> Result<String, FaultError>;

    /// Lets roles fail at random, or ends that.
    ///
    /// # Errors
    /// As [`Node::fail_role`].
    fn fail_at_random(&self, faults: Option<RandomFaults>) -> Result<String, FaultError>;
}

impl Node for Replica {
    async fn propose(&self, request: Bytes) -> Result<Answer, RequestError> {
        Replica::propose(self, request).await
    }

    async fn read<T: Send>(
        &self,
        consistency: Consistency,
        look: impl FnOnce(&Store) -> T + Send,
    ) -> Result<T, RequestError> {
        Replica::read(self, consistency, look).await
    }

    fn status(&self) -> ReplicaStatus {
        Replica::status(self)
    }

    fn state_hash_at(&self, slot: Slot) -> Option<StateHash> {
        Replica::state_hash_at(self, slot)
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        Replica::events(self)
    }

    fn fail_role(&self, fault: RoleFault) -> Result<String, FaultError> {
        Replica::fail_role(self, fault)
    }

    fn fail_links(&self, peers: &[NodeId], fault: Option<LinkFault>) -> Result<String, FaultError> {
        Replica::fail_links(self, peers, fault)
    }

    fn fail_at_random(&self, faults: Option<RandomFaults>) -> Result<String, FaultError> {
        Replica::fail_at_random(self, faults)
    }
}

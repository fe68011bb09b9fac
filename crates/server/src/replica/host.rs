//! What a replica asks of the world around it: time, chance, someone to run its roles, and links to the others.
//!
//! Everything that could differ between two runs with the same inputs comes through here, and nothing else does. A
//! server gives its replica the system's clock, threads and sockets ([`super::system`]); a simulator gives it
//! virtual ones and runs the same code, step by step and twice the same ([`super::stepped`]).

use super::State;
use super::faults::LinkFault;
use super::observation::Observation;
use super::roles::Life;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use synod_paxos::formation::FormationMessage;
use synod_paxos::message::{Message, Outgoing};
use synod_paxos::types::{ClusterId, NodeId, Time};

/// Time, chance, and whoever runs what a replica starts.
pub trait Host: Send + Sync {
    /// The time on this replica's monotonic clock. Other replicas have others.
    fn now(&self) -> Time;

    /// What the wall clock says, since 1970. It may be wrong, and jump.
    fn unix(&self) -> Duration;

    /// Chance that no other life of any replica gets.
    fn random(&self) -> u64;

    /// Runs a life of a role, turn by turn, until it ends.
    ///
    /// # Errors
    /// When the system refuses. The life then never began.
    fn run(&self, life: Life) -> io::Result<()>;

    /// Runs a job that may take long, beside everything else.
    ///
    /// # Errors
    /// When the system refuses. The job is dropped then.
    fn begin(&self, name: &'static str, job: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Job>>;

    /// Is told what happens, as it happens.
    fn observe(&self, observation: &Observation<'_>);
}

/// A job under way.
pub trait Job: Send {
    /// Has it ended?
    fn is_finished(&self) -> bool;

    /// Waits until it has.
    fn join(self: Box<Self>);
}

/// The way to the other replicas. Nothing given to it is sure to arrive, and it never waits.
pub trait Links: Send + Sync {
    /// Sends `message` to each of `to`. Strangers are passed over.
    fn send(&self, to: &[NodeId], message: &Message);

    /// Sends several messages, from a thread that is not the core's.
    fn send_all(&self, outgoing: &[Outgoing]) {
        for Outgoing { to, message } in outgoing {
            self.send(&[*to], message);
        }
    }

    /// These are the other members from now on, with their peer URLs.
    fn set_peers(&self, urls: BTreeMap<NodeId, Vec<String>>);

    /// The cluster this replica belongs to. Replicas of different clusters never talk.
    fn set_cluster(&self, cluster: ClusterId);

    /// Is there a connection, and how long ago was anything heard?
    fn health(&self, node: NodeId) -> (bool, Option<Duration>);

    /// Disturbs the link to a peer on purpose; none heals it.
    fn disturb(&self, peer: NodeId, fault: Option<LinkFault>);

    /// Says something about formation to a peer, and hands its answers to `heard`, if any come.
    fn form(&self, to: NodeId, message: FormationMessage, heard: Heard);

    /// Gets the applied state of a peer, and hands it, or why it could not be had, to `arrived`.
    fn fetch(&self, from: NodeId, arrived: Arrived);
}

/// Who waits for answers about formation.
pub type Heard = Box<dyn FnOnce(Vec<FormationMessage>) + Send>;

/// Who waits for another replica's state.
pub type Arrived = Box<dyn FnOnce(Result<State, String>) + Send>;

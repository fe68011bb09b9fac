//! What a replica tells about itself.

use std::time::Duration;
use synod_kv::{Revision, StateHash};
use synod_paxos::membership::Member;
use synod_paxos::types::{Ballot, ClusterId, NodeId, Prefix, Slot, VoterId};

/// One of the three roles of a replica (2.5: each process plays them all).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Proposes values.
    Proposer,
    /// Accepts and remembers them.
    Acceptor,
    /// Learns what was chosen, and applies it.
    Learner,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Proposer, Role::Acceptor, Role::Learner];

    /// Its name in commands, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Role::Proposer => "proposer",
            Role::Acceptor => "acceptor",
            Role::Learner => "learner",
        }
    }
}

/// Is a role at work?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleState {
    /// Yes.
    Running,
    /// Stopped on purpose.
    Stopped,
    /// Stopped by an error of its own, such as a failed disk, with the reason.
    Failed(String),
}

/// One role.
#[derive(Clone, Debug)]
pub struct RoleStatus {
    /// Which.
    pub role: Role,
    /// At work?
    pub state: RoleState,
    /// How often it was started again in this process.
    pub restarts: u64,
}

/// What this replica knows of another.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Which.
    pub node: NodeId,
    /// Is there a connection to it?
    pub connected: bool,
    /// When it was last heard, if ever.
    pub last_heard: Option<Duration>,
    /// Round trip of the last heartbeat, if any came back.
    pub round_trip: Option<Duration>,
    /// How far its log is known chosen.
    pub chosen: Prefix,
    /// How far it has applied.
    pub applied: Prefix,
}

/// One replica, as it sees itself.
#[derive(Clone, Debug)]
pub struct ReplicaStatus {
    /// Its operator's name for it.
    pub name: String,
    /// Its id.
    pub node: NodeId,
    /// The cluster it belongs to; none while that is still being formed.
    pub cluster: Option<ClusterId>,
    /// The state of formation, in words.
    pub formation: String,
    /// The name under which its acceptor votes.
    pub acceptor: Option<VoterId>,
    /// Its roles.
    pub roles: Vec<RoleStatus>,
    /// Is memory kept on disk?
    pub durable: bool,
    /// The leader it follows or is, if any.
    pub leader: Option<Ballot>,
    /// How far the log is known chosen here.
    pub chosen: Prefix,
    /// How far anybody called it chosen.
    pub known: Prefix,
    /// How far it is applied.
    pub applied: Prefix,
    /// The first slot whose value others can fetch here.
    pub log_start: Option<Slot>,
    /// How far the acceptor trimmed.
    pub trimmed: Prefix,
    /// How far the last durable checkpoint covers.
    pub checkpoint: Prefix,
    /// The store's revision.
    pub revision: Revision,
    /// Up to where it is compacted.
    pub compacted: Option<Revision>,
    /// The state hash, right after `applied`.
    pub state_hash: StateHash,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// Bytes of the store, live ones and all.
    pub store_bytes_in_use: u64,
    /// Bytes of the store, old versions included.
    pub store_bytes: u64,
    /// The 99th percentile of recent log syncs.
    pub sync_p99: Option<Duration>,
    /// The members as applied here. A voter listed there may not be in force yet.
    pub members: Vec<(NodeId, Member)>,
    /// Who voted in the last applied slot.
    pub voters: Vec<VoterId>,
    /// The window of this cluster, in slots.
    pub window: u64,
    /// The other replicas.
    pub peers: Vec<PeerStatus>,
    /// Since the process started.
    pub uptime: Duration,
    /// What is wrong, in words, if anything.
    pub problem: Option<String>,
    /// Leader changes seen.
    pub leader_changes: u64,
    /// Commands of this replica's clients that wait for an answer.
    pub waiting: u64,
}

/// Something that happened here, worth showing.
#[derive(Clone, Debug)]
pub struct Event {
    /// When, in microseconds since the Unix epoch.
    pub unix_micros: u64,
    /// What kind of thing: `role-stopped`, `role-started`, `leader`, `admitted`, `link`, `checkpoint`, ...
    pub kind: &'static str,
    /// In words.
    pub text: String,
}

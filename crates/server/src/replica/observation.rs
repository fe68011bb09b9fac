//! What can be seen of a replica while it works: everything that judges need, and nothing they could change.
//!
//! A simulator judges observations at once; a running server can write them to a file, one JSON object per line.
//! Observing costs a call per observation, and takes no part in the protocol.

use super::Role;
use synod_kv::StateHash;
use synod_paxos::acceptor::{Acceptor, Record};
use synod_paxos::machine::Machine;
use synod_paxos::membership::Genesis;
use synod_paxos::message::Message;
use synod_paxos::types::{Ballot, NodeId, Prefix, Slot, VoterId};
use synod_paxos::value::Value;

/// Something that happened at one replica.
#[derive(Clone, Copy)]
pub enum Observation<'a> {
    /// This replica takes part in a cluster from now on.
    Formed {
        /// How that cluster began.
        genesis: &'a Genesis,
        /// As a founder, or admitted since; otherwise it learns, and asks to be admitted.
        member: bool,
    },
    /// A message left for others or for this replica itself.
    Sent {
        /// To whom.
        to: &'a [NodeId],
        /// What.
        message: &'a Message,
    },
    /// A message arrived.
    Received {
        /// From whom.
        from: NodeId,
        /// What.
        message: &'a Message,
    },
    /// A role began a life, or ended one.
    Role {
        /// Which.
        role: Role,
        /// It is at work from now on; otherwise it no longer is.
        up: bool,
    },
    /// An acceptor began a life with what its log holds.
    Restored {
        /// Its memory.
        acceptor: &'a Acceptor,
    },
    /// Records became durable, as far as the disk is to be trusted.
    Persisted {
        /// Whose.
        voter: VoterId,
        /// In this order.
        records: &'a [Record],
    },
    /// The learner applied a slot.
    Applied {
        /// Which.
        slot: Slot,
        /// What it held.
        value: &'a Value,
        /// The store's hash behind it.
        hash: StateHash,
        /// Membership and sessions behind it.
        machine: &'a Machine<super::Answer>,
    },
    /// A state took the place of what the learner had: from this replica's disk, or from another replica.
    Loaded {
        /// Everything up to here is in it.
        applied: Prefix,
        /// The store's hash.
        hash: StateHash,
    },
    /// This replica's durable store covers this much from now on.
    Covered {
        /// Everything up to here.
        durable: Prefix,
    },
    /// The learner wrote a checkpoint.
    Checkpointed {
        /// Of so many runs it consists: one if it is of the whole store, more if what changed was put behind the others.
        runs: usize,
        /// Of so many the one before consisted.
        runs_before: usize,
    },
    /// This replica's proposer leads, or no longer does.
    Leads {
        /// With this ballot.
        ballot: Ballot,
        /// From now on; otherwise no longer.
        begins: bool,
    },
    /// Something worth telling people.
    Note {
        /// Its kind, as in [`super::Event::kind`].
        kind: &'static str,
        /// In words.
        text: &'a str,
    },
}

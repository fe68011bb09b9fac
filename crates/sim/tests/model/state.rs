//! One state of a world: what acceptors hold and have on disk, what proposers hold, and what was ever said.
//!
//! The machines are the production ones, and their fields are hashed by derived implementations: what the
//! compiler finds in a machine is in its fingerprint. Only [`Facts`] are left out, because they are computed
//! from what is hashed beside them.

use super::laws::{Broken, Facts};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use synod_paxos::acceptor::{Acceptor, Record};
use synod_paxos::message::{Acceptance, Chosen};
use synod_paxos::proposer::Proposer;
use synod_paxos::types::{Ballot, NodeId, Prefix, Slot, VoterId};
use synod_paxos::value::Value;

/// A part of a state, shared between the states that have it in common, and hashed once.
#[derive(Clone, Debug)]
pub(crate) struct Part<T> {
    hash: u64,
    value: Arc<T>,
}

impl<T: Hash> Part<T> {
    /// Takes `value` as it is from now on.
    pub(crate) fn new(value: T) -> Part<T> {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Part { hash: hasher.finish(), value: Arc::new(value) }
    }

    /// Makes another part out of this one.
    pub(crate) fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R)
    where
        T: Clone,
    {
        let mut value = T::clone(&self.value);
        change(&mut value);
        *self = Part::new(value);
    }
}

impl<T> Deref for Part<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Part<T> {
    fn eq(&self, other: &Part<T>) -> bool {
        self.hash == other.hash && (Arc::ptr_eq(&self.value, &other.value) || self.value == other.value)
    }
}

impl<T> Hash for Part<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// An answer to a Prepare, on its way to the ballot's node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Promised {
    /// The ballot promised.
    pub(crate) ballot: Ballot,
    /// By whom.
    pub(crate) voter: VoterId,
    /// From which slot on.
    pub(crate) from: Slot,
    /// What was accepted in which slot.
    pub(crate) accepted: Vec<(Slot, Ballot, Value)>,
}

impl Promised {
    /// What the message carries.
    pub(crate) fn acceptances(&self) -> Vec<Acceptance> {
        let one = |(slot, ballot, value): &(Slot, Ballot, Value)| Acceptance {
            slot: *slot,
            ballot: *ballot,
            value: value.clone(),
        };
        self.accepted.iter().map(one).collect()
    }
}

/// What an acceptor says once its record is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    /// An answer to a Prepare.
    Promised(Promised),
    /// An answer to an Accept.
    Accepted(Proposal),
}

/// A proposal: a slot, a ballot, a value. Two of one slot and ballot would break PMS-7, so they are told apart.
pub(crate) type Proposal = (Slot, Ballot, Value);

/// An acceptor and its disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Memory {
    /// The running acceptor.
    pub(crate) live: Acceptor,
    /// The acceptor that its disk would restore.
    pub(crate) disk: Acceptor,
    /// Written and not synced: the records, and the answers that wait for them.
    pub(crate) unsynced: Vec<(Record, Reply)>,
    /// The highest ballot that this memory, as its name says, ever spoke for.
    pub(crate) standing: Option<Ballot>,
    /// The memory that was here before, stopped for ever.
    pub(crate) lost: Option<Acceptor>,
}

/// A proposer's place: who sits there changes with every life.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seat {
    /// The proposer in its present life.
    pub(crate) proposer: Proposer,
    /// Lives so far.
    pub(crate) lives: u8,
    /// Ballots begun, in all lives.
    pub(crate) begun: u8,
    /// How far its present ballot has proposed.
    pub(crate) proposed: Prefix,
    /// What the learner beside it has applied.
    pub(crate) log: Vec<Value>,
}

/// Everything ever said that may still matter: each message may be delivered at any time, any number of times,
/// in any order, or never. So loss, delay, repetition and reordering need no steps of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Network {
    /// Prepares, by ballot, first slot and receiver.
    pub(crate) prepares: BTreeSet<(Ballot, Slot, NodeId)>,
    /// Promises that some proposer still waits for.
    pub(crate) promises: BTreeSet<Arc<Promised>>,
    /// Accepts and their receivers, with those who answered Accepted.
    pub(crate) proposals: BTreeMap<Proposal, Heard>,
    /// Words of leaders: ballot, first slot, last slot.
    pub(crate) words: BTreeSet<(Ballot, Slot, Prefix)>,
}

/// Whom an Accept reached, or may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Heard {
    /// To whom it was sent.
    pub(crate) to: BTreeSet<NodeId>,
    /// Who said to have accepted it.
    pub(crate) by: BTreeSet<VoterId>,
}

impl Network {
    /// The words in the form that learners hear.
    pub(crate) fn words(&self) -> impl Iterator<Item = Chosen> {
        self.words.iter().map(|&(ballot, from, upto)| Chosen { ballot, from, upto })
    }

    /// A word is said. Of one ballot's words, which all begin at one slot, the longest says what the others do.
    pub(crate) fn hear(&mut self, word: Chosen) {
        self.words
            .retain(|&(ballot, from, upto)| (ballot, from) != (word.ballot, word.from) || upto > word.upto);
        let longer = self.words.iter().any(|&(ballot, from, _)| (ballot, from) == (word.ballot, word.from));
        if !longer {
            self.words.insert((word.ballot, word.from, word.upto));
        }
    }
}

/// A state of the world.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// The acceptors of nodes 1, 2, ...
    pub(crate) acceptors: Vec<Part<Memory>>,
    /// The proposers of nodes 1, 2, ...
    pub(crate) seats: Vec<Part<Seat>>,
    /// What was said.
    pub(crate) network: Part<Network>,
    /// Crashes that may still happen.
    pub(crate) crashes: u8,
    /// Has a memory been lost?
    pub(crate) wiped: bool,
    /// The laws that were broken on the way here.
    pub(crate) broken: Broken,
    /// What follows from the rest.
    pub(crate) facts: Arc<Facts>,
}

impl State {
    /// The acceptor of a node.
    pub(crate) fn memory(&self, node: NodeId) -> &Memory {
        &self.acceptors[index(node)]
    }

    /// The proposer's place at a node.
    pub(crate) fn seat(&self, node: NodeId) -> &Seat {
        &self.seats[index(node)]
    }

    /// The memory of this name, wherever it is now.
    pub(crate) fn named(&self, voter: VoterId) -> Option<&Acceptor> {
        let memory = self.acceptors.get(index(voter.node))?;
        if memory.disk.id() == voter { Some(&memory.disk) } else { memory.lost.as_ref() }
            .filter(|acceptor| acceptor.id() == voter)
    }
}

/// Where node 1, 2, ... is found.
pub(crate) fn index(node: NodeId) -> usize {
    usize::try_from(node.0).expect("few nodes") - 1
}

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        self.acceptors == other.acceptors
            && self.seats == other.seats
            && self.network == other.network
            && (self.crashes, self.wiped, self.broken) == (other.crashes, other.wiped, other.broken)
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let State { acceptors, seats, network, crashes, wiped, broken, facts: _ } = self;
        (acceptors, seats, network, crashes, wiped, broken).hash(state);
    }
}

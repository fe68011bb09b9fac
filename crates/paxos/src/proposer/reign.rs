//! One ballot of a proposer: what was promised to it, and what it has proposed. Here stands what may be proposed in a
//! slot (P2c) and when it is chosen.

use super::telling::Telling;
use crate::membership::Configuration;
use crate::mutants::{Mutant, is};
use crate::types::{Ballot, NodeId, Prefix, Slot, Time, VoterId};
use crate::value::Value;
use std::collections::{BTreeMap, BTreeSet};

/// One ballot of this proposer, from its Prepare until it is given up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reign {
    pub(super) ballot: Ballot,
    /// When the last part of a promise came in; at first, when phase 1 began.
    pub(super) heard: Time,
    /// The first slot that this ballot proposes.
    pub(super) from: Slot,
    pub(super) promises: BTreeMap<VoterId, Promise>,
    /// When each node was last asked to promise, and how often in vain.
    pub(super) asked: BTreeMap<NodeId, (Time, u32)>,
    /// The next slot to propose.
    pub(super) next: Slot,
    /// Proposed, and not learned here yet, or not told to everybody. Kept that long even when chosen: nobody else
    /// may have heard it.
    pub(super) flights: BTreeMap<Slot, Flight>,
    /// Every slot from `from` up to here is chosen in this ballot.
    pub(super) chosen: Prefix,
    /// What of `chosen` the learners were told.
    pub(super) telling: Telling,
    /// The slots that were jumped over, because too few of those who had promised remembered them. They lie behind
    /// what is learned here.
    pub(super) jumped: Option<Jump>,
    pub(super) leads: bool,
}

/// Slots that a ballot jumped over and this replica has not learned yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Jump {
    pub(super) from: Slot,
    pub(super) upto: Prefix,
}

impl Jump {
    /// What is left of it once everything in `learned` is here.
    pub(super) fn behind(self, learned: Prefix) -> Option<Jump> {
        (learned < self.upto).then(|| Jump { from: self.from.max(learned.next()), ..self })
    }
}

/// What one acceptor answered to this ballot's Prepare.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Promise {
    /// The first slot the answer covers.
    pub(super) from: Slot,
    /// Where the next part of the answer begins; none when it is complete. Only then does it count.
    pub(super) rest: Option<Slot>,
    pub(super) trimmed: Prefix,
    pub(super) accepted: BTreeMap<Slot, (Ballot, Value)>,
}

/// A proposal under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    pub(super) value: Value,
    /// Who votes in this slot: fixed for ever, hence kept with it.
    pub(super) configuration: Configuration,
    pub(super) accepted: BTreeSet<VoterId>,
    pub(super) sent: Time,
    /// Who was sent the proposal.
    pub(super) asked: BTreeSet<NodeId>,
    /// Are these all who vote?
    pub(super) asked_all: bool,
    /// Whose commands are in it; none if nobody knows.
    pub(super) origins: Option<BTreeSet<NodeId>>,
    /// Who is told of the acceptances in this replica's place.
    pub(super) learner: Option<NodeId>,
    /// That one says that it is chosen.
    pub(super) counted: bool,
}

impl Flight {
    pub(super) fn is_chosen(&self) -> bool {
        if is(Mutant::MinorityChooses) {
            return self.accepted.len() >= self.configuration.len() / 2;
        }
        self.counted || self.configuration.has_majority(&self.accepted)
    }

    /// Would it be chosen if this node accepted it?
    pub(super) fn lacks_only(&self, node: NodeId) -> bool {
        let Some(incarnation) = self.configuration.incarnation(node) else { return false };
        let counted = self.accepted.iter().filter(|voter| self.configuration.contains(**voter)).count();
        !self.accepted.contains(&VoterId { node, incarnation })
            && counted + 1 >= self.configuration.majority()
    }

    /// Does a client of this node wait for it, as far as one can tell, and for this replica to say that it is chosen?
    pub(super) fn is_awaited_by(&self, node: NodeId) -> bool {
        self.learner != Some(node) && self.origins.as_ref().is_none_or(|origins| origins.contains(&node))
    }

    /// Is an answer of this node still to come, as far as one can tell?
    pub(super) fn awaits(&self, node: NodeId) -> bool {
        self.asked.contains(&node) && !self.accepted.iter().any(|voter| voter.node == node)
    }

    /// The proposal goes to everybody else who votes, too, and acceptances come here: those who must hear of it are
    /// returned.
    pub(super) fn ask_others(&mut self) -> Vec<NodeId> {
        self.asked_all = true;
        let elsewhere = self.learner.take().is_some();
        let silent = self.configuration.voters().filter(|voter| !self.accepted.contains(voter));
        let silent = silent.map(|voter| voter.node);
        let others: Vec<NodeId> = silent.filter(|node| elsewhere || !self.asked.contains(node)).collect();
        self.asked.extend(&others);
        others
    }
}

/// What the promises of a majority say about one slot.
pub(super) struct Promised<'a> {
    /// The value of the highest-ballot acceptance.
    pub(super) found: Option<&'a Value>,
    /// How far too few of them remember; empty if enough do.
    pub(super) trimmed: Prefix,
    /// There are voters that have not promised yet.
    pub(super) missing: bool,
    /// The last slot in which anything was accepted.
    pub(super) last: Option<Slot>,
}

impl Reign {
    /// Moves the chosen prefix on. A slot enters it after all below it, so that it has no hole.
    pub(super) fn count(&mut self) {
        while self.flights.get(&self.chosen.next()).is_some_and(Flight::is_chosen) {
            self.chosen = Prefix::through(self.chosen.next());
        }
    }

    /// What a majority of `configuration` promised about `slot`; none without a majority. Only voters of
    /// that very slot are listened to (rule R2).
    pub(super) fn promised_for(&self, slot: Slot, configuration: &Configuration) -> Option<Promised<'_>> {
        let counted = |voter: &VoterId, promise: &Promise| {
            configuration.contains(*voter) && promise.rest.is_none() && promise.from <= slot
        };
        let promises: Vec<&Promise> =
            self.promises.iter().filter(|(voter, promise)| counted(voter, promise)).map(|(_, p)| p).collect();
        if promises.len() + usize::from(is(Mutant::MinorityPromises)) < configuration.majority() {
            return None;
        }
        // Who trimmed the slot has nothing to say of it. That matters only if those who have not are too few: if
        // they are a majority themselves, they know what may be proposed (P2c), though somebody else forgot.
        let remembering = promises.iter().filter(|promise| !promise.trimmed.contains(slot));
        let trimmed = match remembering.clone().count() >= configuration.majority() {
            true => Prefix::EMPTY,
            false => promises.iter().map(|promise| promise.trimmed).max().unwrap_or_default(),
        };
        let acceptances = remembering.filter_map(|promise| promise.accepted.get(&slot));
        Some(Promised {
            found: if is(Mutant::HighestValueWins) {
                acceptances.map(|(_, value)| value).max_by_key(|value| value.len())
            } else {
                acceptances.max_by_key(|(ballot, _)| *ballot).map(|(_, value)| value)
            },
            trimmed,
            missing: promises.len() < configuration.len(),
            last: promises.iter().filter_map(|p| p.accepted.last_key_value()).map(|(&slot, _)| slot).max(),
        })
    }
}

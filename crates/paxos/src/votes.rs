//! Counting acceptances beside a learner (2.3).
//!
//! A leader counts for all, and tells the others. Where somebody waits it can have the acceptors tell that replica
//! instead, which then knows one message earlier. What is chosen is the same wherever it is counted: a majority of the
//! voters of that very slot, in one ballot. Who votes there this replica must know by itself; where it does not, it
//! counts nothing, and hears of it later.

use crate::membership::Configurations;
use crate::mutants::{Mutant, is};
use crate::types::{Ballot, Slot, VoterId};
use std::collections::{BTreeMap, BTreeSet};

/// The acceptances that a replica was told of in a leader's place.
#[derive(Clone, Debug, Default)]
pub struct Votes {
    /// As applied here; none before the learner's first word.
    configurations: Option<Configurations>,
    /// Those of the highest ballot heard of, for each slot that is not applied here.
    slots: BTreeMap<Slot, Tally>,
}

#[derive(Clone, Debug)]
struct Tally {
    ballot: Ballot,
    voters: BTreeSet<VoterId>,
}

impl Votes {
    /// This replica has applied more; or less, when its learner lost its memory.
    pub fn on_applied(&mut self, configurations: Configurations) {
        self.slots = self.slots.split_off(&configurations.applied().next());
        self.configurations = Some(configurations);
    }

    /// Counts an acceptance: for its own ballot and slot only (PMS-8), and once per voter (PMS-5). True if it is the
    /// one that makes a majority.
    pub fn on_accepted(&mut self, ballot: Ballot, slot: Slot, voter: VoterId) -> bool {
        let Some(configurations) = self.configurations.as_ref() else { return false };
        if configurations.applied().contains(slot) {
            return false;
        }
        // Only those within the window have one, so there are never many.
        let Some(configuration) = configurations.at(slot) else { return false };
        let tally = self.slots.entry(slot).or_insert_with(|| Tally { ballot, voters: BTreeSet::new() });
        if tally.ballot < ballot && !is(Mutant::CountsOtherBallots) {
            *tally = Tally { ballot, voters: BTreeSet::new() };
        }
        if tally.ballot > ballot && !is(Mutant::CountsOtherBallots) {
            return false;
        }
        let before = configuration.has_majority(&tally.voters);
        tally.voters.insert(voter);
        !before && configuration.has_majority(&tally.voters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Configuration;
    use crate::types::{Generation, Incarnation, NodeId, Prefix, Window};

    fn voter(node: u64, incarnation: u128) -> VoterId {
        VoterId { node: NodeId(node), incarnation: Incarnation(incarnation) }
    }

    fn ballot(round: u64) -> Ballot {
        Ballot { round, node: NodeId(1), generation: Generation(1) }
    }

    fn votes() -> Votes {
        let five = Configuration::new((1..=5).map(|node| voter(node, 1)));
        let mut votes = Votes::default();
        votes.on_applied(Configurations::genesis(Window::new(4), five));
        votes
    }

    #[test]
    fn a_majority_of_one_ballot_is_noticed_once() {
        let mut votes = votes();
        let mut told = |round, slot, node| votes.on_accepted(ballot(round), Slot(slot), voter(node, 1));
        assert!(!told(1, 1, 1) && !told(1, 1, 2) && !told(1, 1, 2) && !told(1, 2, 3), "PMS-5, PMS-8");
        assert!(!told(2, 1, 3) && !told(1, 1, 4), "acceptances of two ballots are not added up (PMS-8)");
        assert!(!told(2, 1, 2) && told(2, 1, 1));
        assert!(!told(2, 1, 4) && !told(2, 1, 5), "that was known");
    }

    #[test]
    fn only_the_memories_that_vote_in_the_slot_count() {
        let mut votes = votes();
        let first = Slot(1);
        assert!(!votes.on_accepted(ballot(1), first, voter(1, 1)));
        assert!(
            !votes.on_accepted(ballot(1), first, voter(2, 2))
                && !votes.on_accepted(ballot(1), first, voter(6, 1))
        );
        assert!(!votes.on_accepted(ballot(1), first, voter(2, 1)));
        assert!(votes.on_accepted(ballot(1), first, voter(3, 1)));
        let beyond = Slot(5);
        for node in 1..=5 {
            assert!(
                !votes.on_accepted(ballot(1), beyond, voter(node, 1)),
                "who votes there is not known yet"
            );
        }
        let mut ignorant = Votes::default();
        assert!((1..=5).all(|node| !ignorant.on_accepted(ballot(1), first, voter(node, 1))));
    }

    #[test]
    fn what_is_applied_is_not_counted() {
        let mut votes = votes();
        assert!(!votes.on_accepted(ballot(1), Slot(1), voter(1, 1)));
        let mut configurations = votes.configurations.clone().unwrap();
        configurations.advance(Prefix(1));
        assert_eq!(configurations.applied(), Prefix(1));
        votes.on_applied(configurations);
        assert!((1..=5).all(|node| !votes.on_accepted(ballot(1), Slot(1), voter(node, 1))));
        assert!(votes.slots.is_empty());
    }
}

//! Agreement: per slot one value is chosen, for all time (PMS-2, DESIGN 1).
//!
//! It breaks only where something else broke before, most often a memory: T1 to T7 of the fault catalogue each end
//! here. So this judge is the last resort, and believes nothing but disks.

use super::ledger::Ledger;
use super::{Invariant, Rule, Verdict, hold};
use synod_paxos::types::{Ballot, Slot};

const RULE: Rule = Rule { name: "agreement", clause: "PMS-2, DESIGN 1" };

/// See the module.
pub(super) struct Agreement;

impl Invariant for Agreement {
    fn on_chosen(&mut self, ledger: &Ledger, slot: Slot, ballot: Ballot) -> Verdict {
        let (first, now) = (ledger.chosen(slot), ledger.proposal(slot, ballot));
        if let (Some(first), Some(now)) = (first, now) {
            hold!(
                first.value == now.value,
                RULE,
                "{slot}: {:?} was chosen in {}, and now {:?} in {ballot}",
                first.value,
                first.ballot,
                now.value
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn the_same_value_may_be_chosen_again() {
        let mut story = Story::of(Agreement);
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        story.decide(ballot(2, 2), 1, &put(1)).unwrap();
        assert_eq!(story.court.chosen(), prefix(1));
        assert_eq!(story.court.chosen_value(slot(1)), Some(&put(1)));
    }

    #[test]
    fn pms_08_acceptances_of_several_ballots_choose_nothing() {
        let mut story = Story::of(Agreement);
        for (round, node) in [(1, 1), (2, 2), (3, 3)] {
            story.accept(ballot(round, node), 1, &put(1)).unwrap();
            story.durable(voter(node, u128::from(node)), accepted(ballot(round, node), 1, &put(1))).unwrap();
        }
        assert_eq!(story.court.chosen_value(slot(1)), None);
        story.durable(voter(2, 20), accepted(ballot(1, 1), 1, &put(1))).unwrap();
        assert_eq!(story.court.chosen_value(slot(1)), None, "a stranger");
        story.durable(voter(1, 1), accepted(ballot(1, 1), 1, &put(1))).unwrap();
        assert_eq!(story.court.chosen_value(slot(1)), None, "the same voter twice");
    }

    #[test]
    fn a_second_value_is_condemned() {
        let mut story = Story::of(Agreement);
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        broken(story.decide(ballot(2, 2), 1, &put(2)), RULE);
    }
}

//! Convergence: healed and at rest, every member has applied all that is chosen, and holds the same state (PMS-21,
//! PMS-22, PMS-34, DESIGN 3).
//!
//! How it breaks: a leader dies with the news of what it chose; a gap is never filled; a learner waits for a peer
//! that waits for it. In the meantime nobody does anything wrong, and so only the end shows it.

use super::ledger::Ledger;
use super::{Invariant, Rule, Verdict, hold};
use std::collections::BTreeMap;
use synod_kv::StateHash;
use synod_paxos::types::{NodeId, Prefix, Slot};

const RULE: Rule = Rule { name: "convergence", clause: "PMS-21, PMS-22, PMS-34, DESIGN 3" };

/// See the module.
pub(super) struct Convergence;

impl Invariant for Convergence {
    fn at_end(&mut self, ledger: &Ledger, applied: &BTreeMap<NodeId, (Prefix, StateHash)>) -> Verdict {
        let (book, chosen) = (ledger.book(), ledger.book().applied());
        for node in book.members().keys() {
            let told = applied.get(node).map(|(applied, _)| *applied);
            hold!(told == Some(chosen), RULE, "{node} has applied {told:?} of {chosen}");
        }
        for (node, (applied, hash)) in applied {
            let right = book.hash(*applied);
            hold!(right == Some(*hash), RULE, "{node} is at {applied} with {hash}, not {right:?}");
        }
        let behind = (chosen.next().0..=ledger.last_slot().0).map(Slot);
        let stray = behind.into_iter().find(|&slot| ledger.chosen(slot).is_some());
        hold!(stray.is_none(), RULE, "{stray:?} is chosen behind a hole that nobody filled; {chosen}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn lived() -> Story {
        let mut story = Story::of(Convergence);
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        story.decide(ballot(1, 1), 2, &remove(3)).unwrap();
        story
    }

    fn ends(story: &Story, upto: &[(u64, u64)]) -> BTreeMap<NodeId, (Prefix, StateHash)> {
        upto.iter().map(|&(n, applied)| (node(n), (prefix(applied), story.hash(applied)))).collect()
    }

    #[test]
    fn members_are_equal_and_the_removed_may_stay_behind() {
        let mut story = lived();
        let ends = ends(&story, &[(1, 2), (2, 2), (3, 1)]);
        story.court.at_end(&ends).unwrap();
    }

    #[test]
    fn a_member_that_stays_behind_or_astray_is_condemned() {
        let mut story = lived();
        let behind = ends(&story, &[(1, 2), (2, 1)]);
        broken(story.court.at_end(&behind), RULE);
        let missing = ends(&story, &[(1, 2)]);
        broken(story.court.at_end(&missing), RULE);
        let mut astray = ends(&story, &[(1, 2), (2, 2)]);
        astray.insert(node(2), (prefix(2), StateHash(7)));
        broken(story.court.at_end(&astray), RULE);
    }

    #[test]
    fn what_is_chosen_behind_a_hole_is_condemned() {
        let mut story = lived();
        story.decide(ballot(1, 1), 4, &put(4)).unwrap();
        let ends = ends(&story, &[(1, 2), (2, 2)]);
        broken(story.court.at_end(&ends), RULE);
    }
}

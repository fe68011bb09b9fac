//! The same order and the same state: each slot is applied once, behind the one below it, and makes of the store
//! what it makes of it everywhere (PMS-29, PMS-35, DESIGN 3).
//!
//! How it breaks: results are released before a lower slot is applied; a batch is applied twice around a restart;
//! applying depends on a clock, a map's order, or a release. The state's rolling hash shows it at the first slot
//! that differs, and keeps showing it.

use super::ledger::Ledger;
use super::{AppliedSlot, Invariant, Rule, Verdict, hold};
use synod_kv::StateHash;
use synod_paxos::types::{NodeId, Prefix};

const ORDER: Rule = Rule { name: "applied in order, each once", clause: "PMS-35, DESIGN 3" };
const STATE: Rule = Rule { name: "the same state everywhere", clause: "PMS-29, DESIGN 3" };

/// See the module.
pub(super) struct SameOrder;

fn check_state(ledger: &Ledger, node: NodeId, applied: Prefix, hash: StateHash) -> Verdict {
    let right = ledger.book().hash(applied);
    hold!(right == Some(hash), STATE, "{node} is at {applied} with {hash}; by the book it is {right:?}");
    Ok(())
}

impl Invariant for SameOrder {
    fn on_applied(&mut self, ledger: &Ledger, node: NodeId, applied: AppliedSlot<'_>) -> Verdict {
        let before = ledger.node(node).and_then(|node| node.applied);
        let slot = applied.slot;
        hold!(before == Some(Prefix::before(slot)), ORDER, "{node} applies {slot} behind {before:?}");
        let inside = applied.machine.applied();
        hold!(inside == Prefix::through(slot), ORDER, "{node} applied {slot}, its machine {inside}");
        check_state(ledger, node, Prefix::through(slot), applied.hash)
    }

    fn on_loaded(&mut self, ledger: &Ledger, node: NodeId, applied: Prefix, hash: StateHash) -> Verdict {
        check_state(ledger, node, applied, hash)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn lived() -> Story {
        let mut story = Story::of(SameOrder);
        for slot in 1..=3 {
            story.decide(ballot(1, 1), slot, &put(slot)).unwrap();
        }
        story
    }

    #[test]
    fn replicas_apply_at_their_own_pace_and_begin_again() {
        let mut story = lived();
        story.loaded(1, 0).unwrap();
        story.apply(1, 1, &put(1)).unwrap();
        story.apply(1, 2, &put(2)).unwrap();
        story.court.on_process_ended(node(1), false);
        story.loaded(1, 1).unwrap();
        story.apply(1, 2, &put(2)).unwrap();
        story.loaded(1, 3).unwrap();
    }

    #[test]
    fn applying_out_of_order_or_twice_is_condemned() {
        let mut story = lived();
        broken(story.apply(1, 1, &put(1)), ORDER);
        story.loaded(1, 0).unwrap();
        broken(story.apply(1, 2, &put(2)), ORDER);
        story.apply(1, 1, &put(1)).unwrap();
        broken(story.apply(1, 1, &put(1)), ORDER);
    }

    #[test]
    fn another_state_is_condemned() {
        let mut story = lived();
        story.loaded(1, 0).unwrap();
        broken(story.apply(1, 1, &put(2)), STATE);
        let wrong = story.hash(2);
        broken(story.loaded_as(2, 1, wrong), STATE);
    }
}

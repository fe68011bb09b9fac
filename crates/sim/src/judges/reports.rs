//! Whole reports: a promise leaves out nothing that its acceptor accepted in the slots it speaks of (PMS-15,
//! PMS-32).
//!
//! Silence about a slot means that nothing was accepted there, so silence must be true. How it breaks: an answer
//! stops at the acceptor's own mark of what is chosen, hiding what the candidate lacks; an old answer is sent again
//! as it was; a long answer is cut, and the rest is not asked for; what was read back after a restart is not yet
//! in.

use super::ledger::Ledger;
use super::{Invariant, Rule, Verdict, hold};
use synod_paxos::message::Message;
use synod_paxos::types::{NodeId, Slot};

const RULE: Rule = Rule { name: "a promise tells all that was accepted", clause: "PMS-15, PMS-32" };

/// See the module.
pub(super) struct WholeReports;

impl Invariant for WholeReports {
    fn on_sent(&mut self, ledger: &Ledger, _: NodeId, message: &Message) -> Verdict {
        let Message::Promise { ballot, voter, from, until, trimmed, accepted } = message else {
            return Ok(());
        };
        let first = (*from).max(trimmed.next());
        let end = until.map_or(ledger.last_slot().next(), |until| until.min(ledger.last_slot().next()));
        for slot in (first.0..end.0).map(Slot) {
            let Some(known) = ledger.accepted(*voter, slot, Some(*ballot)) else { continue };
            let told = accepted.iter().find(|told| told.slot == slot);
            hold!(
                told.is_some_and(|told| told.ballot >= known.ballot),
                RULE,
                "{voter} promises {ballot} and reports {told:?} of {slot}, where it had accepted {}",
                known.ballot
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn lived() -> Story {
        let mut story = Story::of(WholeReports);
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        story.decide(ballot(1, 1), 2, &put(2)).unwrap();
        story
    }

    #[test]
    fn a_whole_answer_may_come_in_parts_or_be_trimmed() {
        let mut story = lived();
        let (one, two) = (acceptance(ballot(1, 1), 1, &put(1)), acceptance(ballot(1, 1), 2, &put(2)));
        story.promise_with(ballot(2, 2), voter(2, 2), 1, None, 0, vec![one.clone(), two.clone()]).unwrap();
        story.promise_with(ballot(2, 2), voter(2, 2), 1, Some(2), 0, vec![one]).unwrap();
        story.promise_with(ballot(2, 2), voter(2, 2), 2, None, 0, vec![two.clone()]).unwrap();
        story.promise_with(ballot(2, 2), voter(2, 2), 1, None, 1, vec![two]).unwrap();
    }

    #[test]
    fn silence_that_is_not_true_is_condemned() {
        let mut story = lived();
        let one = acceptance(ballot(1, 1), 1, &put(1));
        broken(story.promise_with(ballot(2, 2), voter(2, 2), 1, None, 0, vec![one]), RULE);
        broken(story.promise_with(ballot(2, 2), voter(2, 2), 2, None, 1, vec![]), RULE);
    }

    #[test]
    fn an_outdated_answer_is_condemned() {
        let mut story = lived();
        story.decide(ballot(2, 2), 2, &put(2)).unwrap();
        let two = acceptance(ballot(1, 1), 2, &put(2));
        broken(story.promise_with(ballot(3, 3), voter(2, 2), 2, None, 0, vec![two]), RULE);
    }
}

//! Answers: what a client is told is what applying its command returned, once, in its slot (PMS-40).
//!
//! How it breaks: the answer is computed when the command is proposed; it is given when the value is chosen, with
//! lower slots still open; a repeated command is applied once more and that answer given; a session hands out
//! another command's answer.

use super::ledger::Ledger;
use super::{Invariant, Rule, Verdict, hold};
use bytes::Bytes;
use synod_paxos::types::{NodeId, Prefix};
use synod_server::replica::Answer;

const RULE: Rule = Rule { name: "the answer is what applying returned", clause: "PMS-40" };

/// See the module.
pub(super) struct Answers;

impl Invariant for Answers {
    fn on_write_answered(
        &mut self,
        ledger: &Ledger,
        node: NodeId,
        request: &Bytes,
        answer: &Answer,
    ) -> Verdict {
        let Some(outcome) = ledger.book().outcome(request) else {
            hold!(false, RULE, "{node} answers {answer:?} to a request that was not applied");
            return Ok(());
        };
        let (slot, right) = (outcome.slot, &outcome.answer);
        hold!(right == answer, RULE, "{node} answers {answer:?}; applied in {slot}, it was {right:?}");
        let reached = ledger.node(node).map_or(Prefix::EMPTY, |node| node.reached);
        hold!(reached.contains(slot), RULE, "{node} answers what {slot} did, and applied {reached}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn the_answer_of_the_slot_is_given_by_whoever_applied_it() {
        let mut story = Story::of(Answers);
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        story.apply(2, 1, &put(1)).unwrap();
        let answer = story.answer(1);
        story.court.on_write_answered(node(2), &request(1), &answer).unwrap();
    }

    #[test]
    fn an_answer_too_early_is_condemned() {
        let mut story = Story::of(Answers);
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        let answer = story.answer(1);
        broken(story.court.on_write_answered(node(2), &request(1), &answer), RULE);
        broken(story.court.on_write_answered(node(2), &request(2), &answer), RULE);
    }

    #[test]
    fn another_answer_is_condemned() {
        let mut story = Story::of(Answers);
        for slot in 1..=2 {
            story.decide(ballot(1, 1), slot, &put(slot)).unwrap();
            story.apply(1, slot, &put(slot)).unwrap();
        }
        let other = story.answer(2);
        broken(story.court.on_write_answered(node(1), &request(1), &other), RULE);
    }
}

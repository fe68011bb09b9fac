//! Reads: an acceptor that is asked how far it has accepted says no less than it has told a proposer (R8), and a
//! linearizable read sees everything that anybody was told before it began (DESIGN 4).
//!
//! How it breaks: an acceptor answers from what it showed before its last group; a dead incarnation's answer is
//! counted; a reader asks the newest voters about a slot that the old ones decided (T8); an answer to an earlier
//! question counts for a later read. Then a read misses a write that was answered.

use super::ledger::Ledger;
use super::{Invariant, Rule, Verdict, hold};
use synod_paxos::message::Message;
use synod_paxos::types::{NodeId, Prefix};

const ANSWER: Rule = Rule { name: "a read's answer covers what was accepted", clause: "R8" };
const FRESH: Rule = Rule { name: "linearizable reads", clause: "R8, DESIGN 4" };

/// See the module.
pub(super) struct Reads;

impl Invariant for Reads {
    fn on_sent(&mut self, ledger: &Ledger, node: NodeId, message: &Message) -> Verdict {
        if let Message::ReadAnswer { voter, accepted, .. } = message {
            let answered = ledger.memory(*voter).map_or(Prefix::EMPTY, |memory| memory.answered);
            hold!(
                *accepted >= answered && voter.node == node,
                ANSWER,
                "{node} answers {accepted} as {voter}, which told proposers of {answered}"
            );
        }
        Ok(())
    }

    fn on_read_answered(&mut self, ledger: &Ledger, node: NodeId, floor: Prefix, applied: Prefix) -> Verdict {
        hold!(applied >= floor, FRESH, "a read sees {applied}; {floor} was answered before it began");
        let reached = ledger.node(node).map_or(Prefix::EMPTY, |node| node.reached);
        hold!(applied <= reached, FRESH, "a read sees {applied}, and {node} never got beyond {reached}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use synod_paxos::message::QuestionId;
    use synod_paxos::types::{Generation, VoterId};

    fn answer(voter: VoterId, accepted: u64) -> Message {
        let question = QuestionId { generation: Generation(1), number: 1 };
        Message::ReadAnswer { question, voter, accepted: prefix(accepted) }
    }

    fn lived() -> Story {
        let mut story = Story::of(Reads);
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        story.decide(ballot(1, 1), 2, &put(2)).unwrap();
        story
    }

    #[test]
    fn r8_an_answer_covers_what_was_told() {
        let mut story = lived();
        story.sent(1, answer(voter(1, 1), 2)).unwrap();
        story.sent(1, answer(voter(1, 1), 5)).unwrap();
        story.sent(3, answer(voter(3, 3), 0)).unwrap();
        broken(story.sent(1, answer(voter(1, 1), 1)), ANSWER);
        broken(story.sent(2, answer(voter(1, 1), 2)), ANSWER);
    }

    #[test]
    fn a_read_sees_what_was_answered_before_it_began() {
        let mut story = lived();
        for slot in 1..=2 {
            story.apply(1, slot, &put(slot)).unwrap();
        }
        story.apply(2, 1, &put(1)).unwrap();
        let before = story.court.read_floor();
        let answer = story.answer(1);
        story.court.on_write_answered(node(1), &request(1), &answer).unwrap();
        let between = story.court.read_floor();
        assert_eq!((before, between), (prefix(0), prefix(1)));
        story.court.on_read_answered(node(2), before, prefix(0)).unwrap();
        broken(story.court.on_read_answered(node(2), between, prefix(0)), FRESH);
        story.court.on_read_answered(node(1), between, prefix(2)).unwrap();
        assert_eq!(story.court.read_floor(), prefix(2), "what a read saw, later reads see");
        broken(story.court.on_read_answered(node(2), prefix(0), prefix(2)), FRESH);
    }
}

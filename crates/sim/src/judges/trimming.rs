//! Trimming: an acceptor forgets only what is chosen, and what this replica's own durable store covers (R6).
//!
//! How it breaks: a trim point is taken from a checkpoint that is not on disk yet, or from another replica's; the
//! store claims to cover what it never applied. Agreement may hold all the same, but values then live on fewer
//! disks than their operators count, and the next failure loses them.

use super::ledger::Ledger;
use super::{Invariant, Rule, Verdict, hold};
use synod_paxos::acceptor::Record;
use synod_paxos::message::Message;
use synod_paxos::types::{NodeId, Prefix, VoterId};

const RULE: Rule = Rule { name: "only what the durable store covers is trimmed", clause: "R6" };

/// See the module.
pub(super) struct Trimming;

fn covered(ledger: &Ledger, node: NodeId) -> Prefix {
    ledger.node(node).map_or(Prefix::EMPTY, |node| node.covered)
}

impl Invariant for Trimming {
    fn on_durable(&mut self, ledger: &Ledger, voter: VoterId, record: &Record) -> Verdict {
        if let Record::Trimmed { upto } = record {
            let (chosen, covered) = (ledger.book().applied(), covered(ledger, voter.node));
            hold!(
                *upto <= chosen.min(covered),
                RULE,
                "{voter} trims {upto}; chosen is {chosen}, and its store covers {covered}"
            );
        }
        Ok(())
    }

    fn on_sent(&mut self, ledger: &Ledger, node: NodeId, message: &Message) -> Verdict {
        let claimed = match message {
            Message::Promise { trimmed, .. } => *trimmed,
            Message::Progress(progress) => progress.durable.max(progress.trimmed),
            _ => return Ok(()),
        };
        let covered = covered(ledger, node);
        hold!(claimed <= covered, RULE, "{node} claims {claimed}; its store covers {covered}");
        Ok(())
    }

    fn on_covered(&mut self, ledger: &Ledger, node: NodeId, durable: Prefix) -> Verdict {
        let reached = ledger.node(node).map_or(Prefix::EMPTY, |node| node.reached_on_disk);
        hold!(durable <= reached, RULE, "the store of {node} covers {durable}, and it applied {reached}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use synod_paxos::message::Progress;

    fn trim(upto: u64) -> Record {
        Record::Trimmed { upto: prefix(upto) }
    }

    /// Slots 1 to 3 are chosen, and node 1 has applied 1 and 2.
    fn lived() -> Story {
        let mut story = Story::of(Trimming);
        for slot in 1..=3 {
            story.decide(ballot(1, 1), slot, &put(slot)).unwrap();
        }
        story.apply(1, 1, &put(1)).unwrap();
        story.apply(1, 2, &put(2)).unwrap();
        story
    }

    #[test]
    fn what_is_covered_may_be_trimmed_even_behind_a_restart() {
        let mut story = lived();
        story.covered(1, 2).unwrap();
        story.durable(voter(1, 1), trim(1)).unwrap();
        story.court.on_process_ended(node(1), false);
        story.durable(voter(1, 1), trim(2)).unwrap();
        story.promise_with(ballot(2, 2), voter(1, 1), 1, None, 2, vec![]).unwrap();
    }

    #[test]
    fn trimming_what_no_disk_covers_is_condemned() {
        let mut story = lived();
        broken(story.durable(voter(1, 1), trim(1)), RULE);
        story.covered(1, 2).unwrap();
        broken(story.durable(voter(2, 2), trim(1)), RULE);
        broken(story.durable(voter(1, 1), trim(3)), RULE);
        broken(story.promise_with(ballot(2, 2), voter(1, 1), 1, None, 3, vec![]), RULE);
        story.court.on_process_ended(node(1), true);
        broken(story.durable(voter(1, 10), trim(1)), RULE);
    }

    #[test]
    fn a_store_that_covers_what_it_never_held_is_condemned() {
        let mut story = lived();
        broken(story.covered(1, 3), RULE);
        let progress = Progress { durable: prefix(1), ..Progress::default() };
        broken(story.sent(1, Message::Progress(progress)), RULE);
        story.covered(1, 1).unwrap();
        story.sent(1, Message::Progress(progress)).unwrap();
    }
}

//! No ballot twice: each belongs to one life of one proposer.
//!
//! How it breaks (T6 of the fault catalogue): a proposer has ballot 2 promised by a majority, proposes x, and
//! forgets. Its next life asks again with 2. Old promises and new ones add up, and y goes out under the same
//! ballot. So each life draws a generation that no other has (PMS-28), and numbers its ballots upwards.

use super::ledger::Ledger;
use super::{Invariant, Rule, Verdict, hold};
use std::collections::BTreeMap;
use synod_paxos::message::Message;
use synod_paxos::types::{Ballot, Generation, NodeId};

const RULE: Rule = Rule { name: "no ballot twice", clause: "R5, PMS-28" };

/// See the module.
#[derive(Default)]
pub(super) struct Ballots {
    lives: BTreeMap<(NodeId, Generation), Life>,
}

/// Who uses a generation.
struct Life {
    proposer_life: u64,
    /// The ballot it last asked promises for.
    prepared: Ballot,
}

impl Ballots {
    fn check(&mut self, ledger: &Ledger, node: NodeId, ballot: Ballot, prepares: bool) -> Verdict {
        hold!(ballot.node == node, RULE, "{node} uses {ballot}, which is another's");
        let now = ledger.node(node).map_or(0, |node| node.proposer_life);
        let life = self
            .lives
            .entry((node, ballot.generation))
            .or_insert(Life { proposer_life: now, prepared: ballot });
        let before = life.proposer_life;
        hold!(before == now, RULE, "life {now} of {node}'s proposer uses {ballot}, of its life {before}");
        if prepares {
            let prepared = life.prepared;
            hold!(ballot >= prepared, RULE, "{node} asks for {ballot} again, after {prepared}");
            life.prepared = ballot;
        }
        Ok(())
    }
}

impl Invariant for Ballots {
    fn on_sent(&mut self, ledger: &Ledger, node: NodeId, message: &Message) -> Verdict {
        match message {
            Message::Prepare { ballot, .. } => self.check(ledger, node, *ballot, true),
            Message::Accept { ballot, .. } => self.check(ledger, node, *ballot, false),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_life_may_repeat_itself_and_go_on() {
        let mut story = Story::of(Ballots::default());
        story.prepare(ballot(1, 1), 1).unwrap();
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        story.prepare(ballot(2, 1), 2).unwrap();
        story.court.on_process_ended(node(1), false);
        story.prepare(Ballot { generation: Generation(8), ..ballot(1, 1) }, 1).unwrap();
    }

    #[test]
    fn a_ballot_of_an_earlier_life_is_condemned() {
        let mut story = Story::of(Ballots::default());
        story.prepare(ballot(1, 1), 1).unwrap();
        story.court.on_process_ended(node(1), true);
        broken(story.prepare(ballot(1, 1), 1), RULE);
        broken(story.prepare(ballot(7, 1), 1), RULE);
        broken(story.accept(ballot(1, 1), 1, &put(1)), RULE);
    }

    #[test]
    fn a_role_that_failed_is_another_life() {
        let mut story = Story::of(Ballots::default());
        story.prepare(ballot(1, 1), 1).unwrap();
        story.proposer_failed(1).unwrap();
        broken(story.prepare(ballot(1, 1), 1), RULE);
    }

    #[test]
    fn going_back_to_an_abandoned_ballot_is_condemned() {
        let mut story = Story::of(Ballots::default());
        story.prepare(ballot(2, 1), 1).unwrap();
        broken(story.prepare(ballot(1, 1), 1), RULE);
    }

    #[test]
    fn anothers_ballot_is_condemned() {
        let mut story = Story::of(Ballots::default());
        broken(story.sent(2, Message::Prepare { ballot: ballot(1, 1), from: slot(1) }), RULE);
    }
}

//! Stable before sent: what an acceptor says, its disk has (PMS-25, PMS-26, PMS-27).
//!
//! How it breaks: an answer leaves before the sync, or with a group that it joined too late; a failed sync is
//! swallowed (D4); a leader counts its own vote before its own disk has it. After a power cut the acceptor denies
//! what others rely on. This holds for what an acceptor tells the proposer beside it, too.

use super::ledger::Ledger;
use super::{Invariant, Rule, Verdict, hold};
use synod_paxos::message::Message;
use synod_paxos::types::NodeId;

const RULE: Rule = Rule { name: "stable before sent", clause: "PMS-27" };

/// See the module.
pub(super) struct StableBeforeSent;

impl Invariant for StableBeforeSent {
    fn on_sent(&mut self, ledger: &Ledger, node: NodeId, message: &Message) -> Verdict {
        match message {
            Message::Promise { ballot, voter, accepted, .. } => {
                let promised = ledger.memory(*voter).is_some_and(|memory| memory.promised.contains(ballot));
                hold!(
                    promised && voter.node == node,
                    RULE,
                    "{node} promises {ballot} as {voter}, whose disk does not"
                );
                for acceptance in accepted {
                    let known = ledger.proposal(acceptance.slot, acceptance.ballot);
                    let durable = known.is_some_and(|known| {
                        known.accepted.contains(voter) && known.value == acceptance.value
                    });
                    hold!(durable, RULE, "{voter} reports {acceptance:?}, which its disk does not have");
                }
            }
            Message::Accepted { ballot, slot, voter } => {
                let known = ledger.proposal(*slot, *ballot);
                let durable = known.is_some_and(|known| known.accepted.contains(voter));
                hold!(
                    durable && voter.node == node,
                    RULE,
                    "{node} says that {voter} accepted {ballot} in {slot}, and its disk did not"
                );
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn what_is_on_disk_may_be_said() {
        let mut story = Story::of(StableBeforeSent);
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        story.durable(voter(2, 2), promised(ballot(2, 1))).unwrap();
        let report = vec![acceptance(ballot(1, 1), 1, &put(1))];
        story.promise_with(ballot(2, 1), voter(2, 2), 1, None, 0, report).unwrap();
    }

    #[test]
    fn a_promise_on_air_is_condemned() {
        let mut story = Story::of(StableBeforeSent);
        broken(story.promise(ballot(1, 1), voter(1, 1), 1), RULE);
        story.durable(voter(1, 1), promised(ballot(2, 1))).unwrap();
        broken(story.promise(ballot(1, 1), voter(1, 1), 1), RULE);
        let report = vec![acceptance(ballot(1, 1), 1, &put(1))];
        broken(story.promise_with(ballot(2, 1), voter(1, 1), 1, None, 0, report), RULE);
    }

    #[test]
    fn an_acceptance_on_air_is_condemned() {
        let mut story = Story::of(StableBeforeSent);
        story.accept(ballot(1, 1), 1, &put(1)).unwrap();
        broken(story.told_accepted(voter(1, 1), ballot(1, 1), 1), RULE);
        story.durable(voter(1, 1), accepted(ballot(1, 1), 1, &put(1))).unwrap();
        story.told_accepted(voter(1, 1), ballot(1, 1), 1).unwrap();
        broken(story.told_accepted(voter(1, 10), ballot(1, 1), 1), RULE);
        broken(story.told_accepted(voter(1, 1), ballot(2, 1), 1), RULE);
    }

    #[test]
    fn speaking_for_another_is_condemned() {
        let mut story = Story::of(StableBeforeSent);
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        let message = Message::Accepted { ballot: ballot(1, 1), slot: slot(1), voter: voter(1, 1) };
        broken(story.sent(2, message), RULE);
    }
}

//! Durable when answered: a write that a client was told of is on the disks of a majority of its slot's voters, in
//! one ballot (DESIGN 2).
//!
//! How it breaks: a write is answered when the leader's own disk has it, or when others have merely received it; a
//! vote is counted that its disk does not have. Nothing shows, until the wrong minority fails. This judge counts
//! disks by itself and does not ask what is chosen.

use super::ledger::{Ledger, is_majority};
use super::{Invariant, Rule, Verdict, hold};
use bytes::Bytes;
use synod_paxos::types::NodeId;
use synod_paxos::value::Action;
use synod_server::replica::Answer;

const RULE: Rule = Rule { name: "durable when answered", clause: "DESIGN 2" };

/// See the module.
pub(super) struct Durability;

impl Invariant for Durability {
    fn on_write_answered(&mut self, ledger: &Ledger, _: NodeId, request: &Bytes, _: &Answer) -> Verdict {
        let slot = ledger.book().outcome(request).map(|outcome| outcome.slot);
        let durable = slot.is_some_and(|slot| {
            let voters = ledger.book().voters(slot);
            ledger.proposals(slot).iter().any(|proposal| {
                is_majority(voters, proposal.accepted.iter().copied())
                    && proposal.value.commands().is_ok_and(|commands| {
                        commands.iter().any(|c| matches!(&c.action, Action::App(r) if r == request))
                    })
            })
        });
        hold!(durable, RULE, "a write of slot {slot:?} is answered that no majority of disks holds");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn what_a_majority_holds_may_be_answered() {
        let mut story = Story::of(Durability);
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        let answer = story.answer(1);
        story.court.on_write_answered(node(1), &request(1), &answer).unwrap();
    }

    #[test]
    fn what_one_disk_holds_may_not() {
        let mut story = Story::of(Durability);
        story.accept(ballot(1, 1), 1, &put(1)).unwrap();
        story.durable(voter(1, 1), accepted(ballot(1, 1), 1, &put(1))).unwrap();
        story.durable(voter(2, 20), accepted(ballot(1, 1), 1, &put(1))).unwrap();
        let answer = Answer::Reconfigured(true);
        broken(story.court.on_write_answered(node(1), &request(1), &answer), RULE);
    }
}

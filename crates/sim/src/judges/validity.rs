//! Validity: only what was proposed is accepted, each ballot proposes one value per slot, and what is chosen can
//! be read (PMS-1, PMS-7).
//!
//! How it breaks: a proposer makes a value anew from its queue when it sends it again; a batch is split or merged
//! on its way; a log record that fails to decode becomes an empty batch. Then one ballot stands for two values, and
//! a majority of acceptances in that ballot proves nothing.

use super::book::Page;
use super::ledger::Ledger;
use super::{Invariant, Rule, Verdict, hold};
use synod_paxos::acceptor::Record;
use synod_paxos::types::{Ballot, Slot, VoterId};
use synod_paxos::value::Value;

const ONE_VALUE: Rule = Rule { name: "one value per ballot", clause: "PMS-7" };
const PROPOSED: Rule = Rule { name: "validity", clause: "PMS-1" };

/// See the module.
pub(super) struct Validity;

impl Invariant for Validity {
    fn on_issued(&mut self, ledger: &Ledger, ballot: Ballot, slot: Slot, value: &Value) -> Verdict {
        let known = ledger.proposal(slot, ballot).map_or(value, |known| &known.value);
        hold!(known == value, ONE_VALUE, "{ballot} proposes {known:?} and {value:?} in {slot}");
        Ok(())
    }

    fn on_durable(&mut self, ledger: &Ledger, voter: VoterId, record: &Record) -> Verdict {
        if let Record::Accepted { ballot, slot, value } = record {
            let proposed = ledger.proposal(*slot, *ballot).map(|proposal| &proposal.value);
            hold!(
                proposed == Some(value),
                PROPOSED,
                "{voter} accepted {value:?} in {slot} of {ballot}, which proposed {proposed:?}"
            );
        }
        Ok(())
    }

    fn on_replayed(&mut self, _: &Ledger, page: &Page) -> Verdict {
        if let Some(why) = &page.unreadable {
            hold!(false, PROPOSED, "what {} decided cannot be read: {why}", page.slot);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_proposal_may_be_repeated_and_accepted() {
        let mut story = Story::of(Validity);
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        story.accept(ballot(1, 1), 1, &put(1)).unwrap();
        story.accept(ballot(2, 2), 1, &put(1)).unwrap();
    }

    #[test]
    fn pms_07_two_values_in_one_ballot_are_condemned() {
        let mut story = Story::of(Validity);
        story.accept(ballot(1, 1), 1, &put(1)).unwrap();
        broken(story.accept(ballot(1, 1), 1, &put(2)), ONE_VALUE);
    }

    #[test]
    fn pms_01_accepting_what_nobody_proposed_is_condemned() {
        let mut story = Story::of(Validity);
        broken(story.durable(voter(1, 1), accepted(ballot(1, 1), 1, &put(1))), PROPOSED);
        story.accept(ballot(1, 1), 1, &put(1)).unwrap();
        broken(story.durable(voter(1, 1), accepted(ballot(1, 1), 1, &put(2))), PROPOSED);
    }

    #[test]
    fn pms_01_choosing_what_cannot_be_read_is_condemned() {
        let mut story = Story::of(Validity);
        let garbage = Value::from_encoded(Bytes::from_static(b"garbage"));
        broken(story.decide(ballot(1, 1), 1, &garbage), PROPOSED);
        let mut story = Story::of(Validity);
        broken(story.decide(ballot(1, 1), 1, &batch(1, Bytes::from_static(b"garbage"))), PROPOSED);
    }
}

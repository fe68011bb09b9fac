//! Honest learning: nobody calls a value chosen unless it is (PMS-3, PMS-20).
//!
//! How it breaks: a learner takes "chosen up to 90" for its own proposal in slot 90, which is of another ballot;
//! acceptances of different ballots are added up; catching up hands over what was accepted but not chosen. So
//! whatever is said or believed about the chosen log is held against the disks: a leader's word, for each of its
//! slots; the values and marks of other learners; what is applied and loaded.

use super::ledger::Ledger;
use super::{AppliedSlot, Invariant, Rule, Verdict, hold};
use std::collections::BTreeMap;
use synod_kv::StateHash;
use synod_paxos::acceptor::Record;
use synod_paxos::message::{Chosen, Message};
use synod_paxos::types::{Ballot, NodeId, Prefix, Slot, VoterId};
use synod_paxos::value::Value;

const RULE: Rule = Rule { name: "honest learning", clause: "PMS-3, PMS-20" };

/// See the module.
#[derive(Default)]
pub(super) struct HonestLearning {
    /// What of each ballot's words was looked into already: a range of slots.
    words: BTreeMap<Ballot, (Slot, Prefix)>,
}

impl HonestLearning {
    fn word(&mut self, ledger: &Ledger, word: Option<Chosen>) -> Verdict {
        let Some(Chosen { ballot, from, upto }) = word else { return Ok(()) };
        mark(ledger, upto, "a leader")?;
        let known = self.words.get(&ballot).filter(|(first, _)| *first <= from);
        let (first, seen) = known.copied().unwrap_or((from, Prefix::before(from)));
        for slot in (from.0.max(seen.next().0)..=upto.0).map(Slot) {
            counted(ledger, ballot, slot)?;
        }
        // A word that begins behind what was seen says nothing of the slots between.
        let joined = from <= seen.next();
        let range = if joined { (first, seen.max(upto)) } else { (from, upto) };
        self.words.insert(ballot, range);
        Ok(())
    }
}

/// Somebody says that `slot` is chosen, with what `ballot` proposed.
fn counted(ledger: &Ledger, ballot: Ballot, slot: Slot) -> Verdict {
    let proposed = ledger.proposal(slot, ballot).map(|proposal| &proposal.value);
    let chosen = ledger.chosen(slot).map(|chosen| &chosen.value);
    hold!(
        proposed.is_some() && proposed == chosen,
        RULE,
        "{ballot} is said to have chosen {slot}, where it proposed {proposed:?}; chosen is {chosen:?}"
    );
    Ok(())
}

/// `who` says that the log is chosen up to `upto`.
fn mark(ledger: &Ledger, upto: Prefix, who: &str) -> Verdict {
    let chosen = ledger.book().applied();
    hold!(upto <= chosen, RULE, "{who} says that {upto} is chosen; it is {chosen}");
    Ok(())
}

fn value(ledger: &Ledger, slot: Slot, value: &Value, who: &str) -> Verdict {
    let chosen = ledger.chosen(slot).map(|chosen| &chosen.value);
    hold!(chosen == Some(value), RULE, "{who} takes {value:?} for what {slot} decided: {chosen:?}");
    Ok(())
}

impl Invariant for HonestLearning {
    fn on_sent(&mut self, ledger: &Ledger, _: NodeId, message: &Message) -> Verdict {
        match message {
            Message::Accept { chosen, .. } | Message::Heartbeat { chosen, .. } => self.word(ledger, *chosen),
            Message::Chosen(word) => self.word(ledger, Some(*word)),
            Message::Counted { ballot, slot } => counted(ledger, *ballot, *slot),
            Message::Learn { ballot, from, values } => {
                let upto = Prefix(from.0 + values.len() as u64 - 1);
                self.word(ledger, Some(Chosen { ballot: *ballot, from: *from, upto }))?;
                let mut slots = (from.0..).map(Slot).zip(values);
                slots.try_for_each(|(slot, entry)| value(ledger, slot, entry, "a leader with values"))
            }
            Message::Entries { from, values, chosen } => {
                mark(ledger, *chosen, "a learner with entries")?;
                let mut slots = (from.0..).map(Slot).zip(values);
                slots.try_for_each(|(slot, entry)| value(ledger, slot, entry, "a learner with entries"))
            }
            Message::TakeCheckpoint { applied } => mark(ledger, *applied, "a learner with a checkpoint"),
            Message::Progress(progress) => mark(ledger, progress.chosen, "a replica's progress"),
            _ => Ok(()),
        }
    }

    fn on_durable(&mut self, ledger: &Ledger, _: VoterId, record: &Record) -> Verdict {
        match record {
            Record::Chosen(word) => self.word(ledger, Some(*word)),
            _ => Ok(()),
        }
    }

    fn on_applied(&mut self, ledger: &Ledger, _: NodeId, applied: AppliedSlot<'_>) -> Verdict {
        value(ledger, applied.slot, applied.value, "a learner")
    }

    fn on_loaded(&mut self, ledger: &Ledger, _: NodeId, applied: Prefix, _: StateHash) -> Verdict {
        mark(ledger, applied, "a loaded state")
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use synod_paxos::message::Progress;
    use synod_paxos::types::Time;

    fn word(ballot: Ballot, from: u64, upto: u64) -> Chosen {
        Chosen { ballot, from: slot(from), upto: prefix(upto) }
    }

    /// Slots 1 to 3 are chosen, and 4 is proposed.
    fn lived() -> Story {
        let mut story = Story::of(HonestLearning::default());
        for slot in 1..=3 {
            story.decide(ballot(1, 1), slot, &put(slot)).unwrap();
        }
        story.accept(ballot(1, 1), 4, &put(4)).unwrap();
        story
    }

    #[test]
    fn what_is_chosen_may_be_told_and_believed() {
        let mut story = lived();
        story.sent(1, Message::Chosen(word(ballot(1, 1), 1, 2))).unwrap();
        let heartbeat = |chosen| Message::Heartbeat { ballot: ballot(1, 1), chosen, sent: Time(0) };
        story.sent(1, heartbeat(Some(word(ballot(1, 1), 2, 3)))).unwrap();
        story.sent(1, heartbeat(None)).unwrap();
        let values = vec![put(2), put(3)];
        story.sent(2, Message::Entries { from: slot(2), values, chosen: prefix(3) }).unwrap();
        story.durable(voter(2, 2), Record::Chosen(word(ballot(1, 1), 1, 3))).unwrap();
        story.sent(2, Message::TakeCheckpoint { applied: prefix(3) }).unwrap();
        for slot in 1..=3 {
            story.apply(1, slot, &put(slot)).unwrap();
        }
        story.loaded(2, 3).unwrap();
    }

    #[test]
    fn a_word_too_many_is_condemned() {
        let mut story = lived();
        story.sent(1, Message::Chosen(word(ballot(1, 1), 1, 3))).unwrap();
        broken(story.sent(1, Message::Chosen(word(ballot(1, 1), 1, 4))), RULE);
        broken(story.sent(1, Message::Chosen(word(ballot(2, 2), 3, 3))), RULE);
        broken(story.durable(voter(2, 2), Record::Chosen(word(ballot(1, 1), 4, 4))), RULE);
    }

    #[test]
    fn a_word_on_slots_that_another_ballot_proposed_is_condemned_whatever_was_said_before() {
        let mut story = lived();
        story.decide(ballot(2, 2), 4, &put(4)).unwrap();
        story.decide(ballot(2, 2), 5, &put(5)).unwrap();
        story.sent(2, Message::Chosen(word(ballot(2, 2), 5, 5))).unwrap();
        story.sent(2, Message::Chosen(word(ballot(2, 2), 4, 5))).unwrap();
        broken(story.sent(2, Message::Chosen(word(ballot(2, 2), 3, 5))), RULE);
    }

    #[test]
    fn false_entries_and_marks_are_condemned() {
        let mut story = lived();
        let entries = |from, value, chosen| Message::Entries { from, values: vec![value], chosen };
        broken(story.sent(2, entries(slot(2), put(3), prefix(3))), RULE);
        broken(story.sent(2, entries(slot(4), put(4), prefix(3))), RULE);
        broken(story.sent(2, entries(slot(3), put(3), prefix(4))), RULE);
        broken(story.sent(2, Message::TakeCheckpoint { applied: prefix(4) }), RULE);
        let progress = Progress { chosen: prefix(4), ..Progress::default() };
        broken(story.sent(2, Message::Progress(progress)), RULE);
    }

    #[test]
    fn believing_too_much_is_condemned() {
        let mut story = lived();
        broken(story.apply(1, 1, &put(2)), RULE);
        broken(story.apply(1, 4, &put(4)), RULE);
        broken(story.loaded(2, 4), RULE);
    }
}

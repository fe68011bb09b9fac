//! An unbroken memory: what an acceptor has on disk survives everything, or that acceptor is dead (PMS-11, PMS-16,
//! R1).
//!
//! How it breaks: a value is kept without its ballot; a trim or a new segment drops the promise; a torn tail is cut
//! that was acknowledged (R9, D6, D7); a stale copy of a directory is started under the same name (D10); an
//! acceptor that lost its disk comes back as itself (T1). Then a late message of an old ballot is accepted that was
//! promised away, and two values are chosen.

use super::ledger::Ledger;
use super::{Invariant, Rule, Verdict, hold};
use std::collections::BTreeMap;
use synod_paxos::acceptor::{Acceptor, Record};
use synod_paxos::types::{Ballot, NodeId, Slot, VoterId};
use synod_paxos::value::Value;

const PROMISE: Rule = Rule { name: "a promise never goes back", clause: "PMS-11, PMS-16" };
const ACCEPTANCE: Rule = Rule { name: "an acceptance is never forgotten", clause: "PMS-16" };
const DEAD: Rule = Rule { name: "a lost memory never speaks again", clause: "R1" };

/// See the module.
pub(super) struct UnbrokenMemory;

impl Invariant for UnbrokenMemory {
    fn on_durable(&mut self, ledger: &Ledger, voter: VoterId, record: &Record) -> Verdict {
        let (Record::Promised { ballot } | Record::Accepted { ballot, .. }) = record else { return Ok(()) };
        let Some(standing) = ledger.memory(voter).and_then(|memory| memory.standing) else { return Ok(()) };
        hold!(standing <= *ballot, PROMISE, "{voter} promised {standing}, and then writes {record:?}");
        Ok(())
    }

    fn on_restored(&mut self, ledger: &Ledger, node: NodeId, acceptor: &Acceptor) -> Verdict {
        let voter = acceptor.id();
        let dead = ledger.node(node).is_some_and(|node| node.dead.contains(&voter.incarnation));
        hold!(!dead && voter.node == node, DEAD, "{node} comes back as {voter}, which is dead or another's");
        let Some(memory) = ledger.memory(voter) else { return Ok(()) };
        let (before, now) = (memory.standing, acceptor.promised());
        hold!(now >= before, PROMISE, "{voter} promised {before:?}, and comes back with {now:?}");
        let open = acceptor.trimmed().next();
        let kept: BTreeMap<Slot, (Ballot, Value)> =
            acceptor.acceptances(open).map(|a| (a.slot, (a.ballot, a.value))).collect();
        for slot in (open.0..=ledger.last_slot().0).map(Slot) {
            let Some(known) = ledger.accepted(voter, slot, None) else { continue };
            let kept = kept.get(&slot);
            let good = kept.is_some_and(|(ballot, value)| {
                *ballot > known.ballot || (*ballot == known.ballot && *value == known.value)
            });
            hold!(
                good,
                ACCEPTANCE,
                "{voter} accepted {:?} in {slot} of {}, and comes back with {kept:?}",
                known.value,
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
        let mut story = Story::of(UnbrokenMemory);
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        story.decide(ballot(1, 1), 2, &put(2)).unwrap();
        story
    }

    #[test]
    fn a_whole_memory_may_come_back_and_with_more_than_was_told() {
        let mut story = lived();
        story.court.on_process_ended(node(2), false);
        story.formed(2, &genesis(), true).unwrap();
        let whole = vec![accepted(ballot(1, 1), 1, &put(1)), accepted(ballot(1, 1), 2, &put(2))];
        story.restored(voter(2, 2), whole.clone()).unwrap();
        let trimmed = vec![Record::Trimmed { upto: prefix(1) }, accepted(ballot(1, 1), 2, &put(2))];
        story.restored(voter(2, 2), trimmed).unwrap();
        let more = whole.into_iter().chain([
            accepted(ballot(3, 3), 2, &put(2)),
            accepted(ballot(4, 3), 3, &put(4)),
            promised(ballot(5, 1)),
        ]);
        story.restored(voter(2, 2), more.collect()).unwrap();
        assert_eq!(story.court.standing(voter(2, 2)), Some(ballot(5, 1)));
        assert_eq!(story.court.living_voter(node(2)), Some(voter(2, 2)));
    }

    #[test]
    fn what_comes_to_light_after_a_crash_counts() {
        let mut story = Story::of(UnbrokenMemory);
        story.accept(ballot(1, 1), 1, &put(1)).unwrap();
        story.durable(voter(1, 1), accepted(ballot(1, 1), 1, &put(1))).unwrap();
        story.restored(voter(2, 2), vec![accepted(ballot(1, 1), 1, &put(1))]).unwrap();
        assert_eq!(story.court.chosen(), prefix(1));
    }

    #[test]
    fn a_regressed_promise_is_condemned() {
        let mut story = lived();
        story.durable(voter(2, 2), promised(ballot(4, 1))).unwrap();
        broken(story.durable(voter(2, 2), promised(ballot(3, 1))), PROMISE);
        broken(story.durable(voter(2, 2), accepted(ballot(3, 1), 3, &put(3))), PROMISE);
        let old = vec![accepted(ballot(1, 1), 1, &put(1)), accepted(ballot(1, 1), 2, &put(2))];
        broken(story.restored(voter(2, 2), old), PROMISE);
    }

    #[test]
    fn a_forgotten_acceptance_is_condemned() {
        let mut story = lived();
        broken(story.restored(voter(1, 1), vec![accepted(ballot(1, 1), 2, &put(2))]), ACCEPTANCE);
        let other = vec![accepted(ballot(1, 1), 1, &put(9)), accepted(ballot(1, 1), 2, &put(2))];
        broken(story.restored(voter(1, 1), other), ACCEPTANCE);
    }

    #[test]
    fn a_dead_memory_that_speaks_is_condemned() {
        let mut story = lived();
        story.restored(voter(3, 3), vec![promised(ballot(1, 1))]).unwrap();
        story.court.on_process_ended(node(3), true);
        broken(story.restored(voter(3, 3), vec![promised(ballot(1, 1))]), DEAD);
        story.restored(voter(3, 30), vec![]).unwrap();
        story.restored(voter(3, 31), vec![]).unwrap();
        broken(story.restored(voter(3, 30), vec![]), DEAD);
    }
}

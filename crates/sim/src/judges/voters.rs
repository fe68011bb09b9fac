//! Who votes: every replica that applied the same prefix knows the same members, and the same voters for each slot
//! of the window (PMS-39).
//!
//! How it breaks: a new voter counts at once, or at acceptance; one set is used for all slots in flight; a
//! checkpoint carries the newest voters and forgets those of the slots that are still open (T7, T8). Two replicas
//! then count majorities that need not meet.

use super::book::Book;
use super::ledger::Ledger;
use super::{AppliedSlot, Invariant, Rule, Verdict, Voters, hold};
use synod_paxos::membership::{Configuration, Configurations};
use synod_paxos::types::{NodeId, Prefix, Slot};

const RULE: Rule = Rule { name: "who votes where", clause: "PMS-39" };

/// See the module.
pub(super) struct WhoVotes;

fn same(configuration: &Configuration, voters: &Voters) -> bool {
    configuration.len() == voters.len()
        && configuration.voters().all(|voter| voters.get(&voter.node) == Some(&voter.incarnation))
}

/// The first slot of the window behind `applied` of which the two know different voters.
fn differs(configurations: &Configurations, book: &Book, applied: Prefix) -> Option<Slot> {
    let (first, last) = (applied.next(), book.horizon_behind(applied));
    let right = |slot: &Slot| configurations.at(*slot).is_some_and(|there| same(there, book.voters(*slot)));
    // Nearly always the same set votes in all slots of the window.
    if book.is_settled(first, last) && configurations.from(first).count() == 1 {
        return [first, last].into_iter().find(|slot| !right(slot));
    }
    (first.0..=last.0).map(Slot).find(|slot| !right(slot))
}

impl Invariant for WhoVotes {
    fn on_applied(&mut self, ledger: &Ledger, node: NodeId, applied: AppliedSlot<'_>) -> Verdict {
        let (book, membership) = (ledger.book(), applied.machine.membership());
        let prefix = Prefix::through(applied.slot);
        let (known, right) = (membership.members(), book.members_behind(prefix));
        hold!(known == right, RULE, "behind {prefix}, {node} knows the members {known:?}, not {right:?}");
        let configurations = membership.configurations();
        if let Some(slot) = differs(configurations, book, prefix) {
            let (known, right) = (configurations.at(slot), book.voters(slot));
            hold!(false, RULE, "behind {prefix}, {node} lets {known:?} vote in {slot}, not {right:?}");
        }
        let beyond = book.horizon_behind(prefix).next();
        let known = configurations.at(beyond);
        hold!(known.is_none(), RULE, "behind {prefix}, {node} knows who votes in {beyond}: {known:?}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use synod_paxos::types::Window;

    #[test]
    fn changes_come_into_force_a_window_later_for_everybody() {
        let mut story = Story::of(WhoVotes);
        let log = [put(1), replace(3, Some(3), 30), put(2), add(4), remove(2), put(3), put(4), put(5)];
        for (slot, value) in (1..).zip(&log) {
            story.decide_by_all(ballot(1, 1), slot, value).unwrap();
            story.apply(1, slot, value).unwrap();
        }
        assert!(story.court.was_removed(node(2)));
        assert_eq!(story.court.members().keys().copied().collect::<Vec<_>>(), [1, 3, 4].map(node));
        assert_eq!(story.court.voters(slot(1 + WINDOW)).len(), 3);
        assert_eq!(story.court.voters(slot(5 + WINDOW)).len(), 2);
    }

    #[test]
    fn other_voters_are_condemned() {
        let mut story = Story::of(WhoVotes);
        let change = replace(3, Some(3), 30);
        story.decide(ballot(1, 1), 1, &change).unwrap();
        // This replica has applied something else in its place: a change of another, then of nobody.
        broken(story.apply(1, 1, &replace(2, Some(2), 20)), RULE);
        broken(story.apply(1, 1, &put(1)), RULE);
        story.apply(1, 1, &change).unwrap();
    }

    #[test]
    fn another_window_is_condemned() {
        for window in [WINDOW - 1, WINDOW + 1] {
            let mut story = Story::of(WhoVotes);
            story.window(1, Window::new(window));
            let change = replace(3, Some(3), 30);
            story.decide(ballot(1, 1), 1, &change).unwrap();
            broken(story.apply(1, 1, &change), RULE);
        }
    }
}

//! The window: with slots 1 to i applied, nothing behind slot i + window is proposed (PMS-36, rule R3).
//!
//! How it breaks: slots are counted from the highest *proposed* one, or the count is lost when leaders change. Then
//! somebody proposes in a slot whose voters a change that is still to be applied may decide, and two sets of
//! acceptors choose in it (PMS-39).

use super::ledger::Ledger;
use super::{Invariant, Rule, Verdict, hold};
use synod_paxos::types::{Ballot, Slot};
use synod_paxos::value::Value;

const RULE: Rule = Rule { name: "the window", clause: "PMS-36, R3" };

/// See the module.
pub(super) struct TheWindow;

impl Invariant for TheWindow {
    fn on_issued(&mut self, ledger: &Ledger, ballot: Ballot, slot: Slot, _: &Value) -> Verdict {
        let (horizon, chosen) = (ledger.book().horizon(), ledger.book().applied());
        let inside = Slot::FIRST <= slot && slot <= horizon;
        hold!(inside, RULE, "{ballot} proposes in {slot}; chosen is {chosen}, the last open slot {horizon}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn the_last_slot_of_the_window_is_open_and_the_next_is_not() {
        let mut story = Story::of(TheWindow);
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        story.accept(ballot(1, 1), 1 + WINDOW, &put(2)).unwrap();
        broken(story.accept(ballot(1, 1), 2 + WINDOW, &put(3)), RULE);
    }

    #[test]
    fn what_is_chosen_behind_a_hole_opens_nothing() {
        let mut story = Story::of(TheWindow);
        story.decide(ballot(1, 1), 2, &put(2)).unwrap();
        broken(story.accept(ballot(1, 1), 1 + WINDOW, &put(3)), RULE);
    }

    #[test]
    fn before_there_is_a_cluster_no_slot_is_open() {
        let mut story = Story::before_formation(TheWindow);
        broken(story.accept(ballot(1, 1), 1, &put(1)), RULE);
    }
}

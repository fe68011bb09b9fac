//! Once: what a client asked for once takes effect once (PMS-30, DESIGN 3).
//!
//! How it breaks: a front gives a command a new name although the old one may have been applied; a session is
//! forgotten while copies of its commands are under way; a client repeats a write of unknown fate (X8). The book
//! knows each request by its bytes, under whatever name it comes.

use super::book::{Deed, Page};
use super::ledger::Ledger;
use super::{Invariant, Rule, Verdict, hold};

const RULE: Rule = Rule { name: "each request takes effect once", clause: "PMS-30, DESIGN 3" };

/// See the module.
pub(super) struct AppliedOnce;

impl Invariant for AppliedOnce {
    fn on_replayed(&mut self, _: &Ledger, page: &Page) -> Verdict {
        for deed in &page.deeds {
            if let Deed::AppliedAgain { name, before } = deed {
                hold!(
                    false,
                    RULE,
                    "what {} did in {} as {}, it does again in {} as {name}",
                    before.name.origin,
                    before.slot,
                    before.name,
                    page.slot
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_command_may_be_chosen_twice() {
        let mut story = Story::of(AppliedOnce);
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        story.decide(ballot(1, 1), 2, &put(1)).unwrap();
        assert_eq!(story.court.chosen(), prefix(2));
        assert_eq!(story.court.outcome(&request(1)).map(|(slot, _)| slot), Some(slot(1)));
    }

    #[test]
    fn the_same_request_under_two_names_is_condemned() {
        let mut story = Story::of(AppliedOnce);
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        broken(story.decide(ballot(1, 1), 2, &batch(2, request(1))), RULE);
    }
}

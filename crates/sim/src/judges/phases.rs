//! Two phases, in order, with the right acceptors, and the right value in the second (PMS-9, PMS-10, PMS-18,
//! PMS-39).
//!
//! This is Paxos itself. A proposal may leave only when a majority of *its slot's* voters has promised its ballot,
//! for that slot, to the proposer; and it must carry what the highest acceptance among some majority of them
//! carries (P2c). If promises are kept, it follows that once a value is chosen every later proposal carries it (P2b);
//! and if they are not, some value is chosen behind the back of a later proposal that carries another.
//!
//! How it breaks: a leader "knows" that it may skip phase 1; it counts a dead incarnation, or the newest voters for
//! an older slot (R2, T5, T7); it takes the first, the latest or the most frequent reply for the highest; it mixes
//! promises of two of its ballots; it reads silence about a trimmed slot as "nothing accepted" (PMS-32).

use super::ledger::{Ledger, Proposal, votes};
use super::{Invariant, Rule, Verdict, hold};
use synod_paxos::types::{Ballot, Slot, VoterId};
use synod_paxos::value::Value;

const PHASES: Rule =
    Rule { name: "phase 2 after phase 1, with the slot's own voters", clause: "PMS-18, PMS-39, R2" };
const P2C: Rule = Rule { name: "P2c", clause: "PMS-10" };
const P2B: Rule = Rule { name: "P2b", clause: "PMS-9" };

/// See the module.
pub(super) struct TwoPhases;

impl Invariant for TwoPhases {
    fn on_issued(&mut self, ledger: &Ledger, ballot: Ballot, slot: Slot, value: &Value) -> Verdict {
        let voters = ledger.book().voters(slot);
        let mut promised: Vec<VoterId> = Vec::with_capacity(voters.len());
        for report in ledger.reports(ballot) {
            let voter = report.voter;
            if report.covers(slot) && votes(voters, voter) && !promised.contains(&voter) {
                promised.push(voter);
            }
        }
        hold!(
            promised.len() > voters.len() / 2,
            PHASES,
            "{ballot} proposes in {slot} with promises of {promised:?} among {voters:?}"
        );
        check_witness(ledger, ballot, slot, value, &promised)
    }

    fn on_chosen(&mut self, ledger: &Ledger, slot: Slot, ballot: Ballot) -> Verdict {
        let Some(chosen) = ledger.proposal(slot, ballot) else { return Ok(()) };
        for later in ledger.proposals(slot).iter().filter(|later| later.ballot > ballot) {
            hold!(
                later.value == chosen.value,
                P2B,
                "{slot}: {:?} is chosen in {ballot}, when {} has proposed {:?}",
                chosen.value,
                later.ballot,
                later.value
            );
        }
        Ok(())
    }
}

/// Some majority of the slot's voters promised `ballot`, and the highest acceptance below it among them either
/// carries `value`, or does not exist.
fn check_witness(
    ledger: &Ledger,
    ballot: Ballot,
    slot: Slot,
    value: &Value,
    promised: &[VoterId],
) -> Verdict {
    if ledger.proposals(slot).is_empty() {
        return Ok(()); // nobody accepted anything
    }
    let voters = ledger.book().voters(slot).len();
    let highest: Vec<Option<&Proposal>> =
        promised.iter().map(|&voter| ledger.accepted(voter, slot, Some(ballot))).collect();
    // The majorities that accepted nothing above `top`, for each `top` that leaves the value free or imposes it.
    let witnessed = std::iter::once(None).chain(highest.iter().copied()).any(|top| {
        let allowed = top.is_none_or(|top| top.value == *value);
        let top = top.map(|top| top.ballot);
        allowed && highest.iter().filter(|other| other.map(|other| other.ballot) <= top).count() > voters / 2
    });
    hold!(
        witnessed,
        P2C,
        "{ballot} proposes {value:?} in {slot}, but of those who promised it, {:?}",
        promised.iter().zip(&highest).collect::<Vec<_>>()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_found_value_is_proposed_again_under_the_new_ballot() {
        let mut story = Story::of(TwoPhases);
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        story.phase_1(ballot(2, 2), 1, &[2, 3]).unwrap();
        story.accept(ballot(2, 2), 1, &put(1)).unwrap();
        story.accept(ballot(2, 2), 2, &put(2)).unwrap();
    }

    #[test]
    fn pms_10_what_a_minority_accepted_may_be_overruled_by_those_who_did_not() {
        let mut story = Story::of(TwoPhases);
        story.phase_1(ballot(1, 1), 1, &[1, 2]).unwrap();
        story.accept(ballot(1, 1), 1, &put(1)).unwrap();
        story.durable(voter(1, 1), accepted(ballot(1, 1), 1, &put(1))).unwrap();
        story.phase_1(ballot(2, 2), 1, &[2, 3]).unwrap();
        story.accept(ballot(2, 2), 1, &put(2)).unwrap();
    }

    #[test]
    fn pms_18_a_skipped_or_lost_phase_1_is_condemned() {
        let mut story = Story::of(TwoPhases);
        broken(story.accept(ballot(1, 1), 1, &put(1)), PHASES);
        story.phase_1(ballot(1, 1), 1, &[1]).unwrap();
        broken(story.accept(ballot(1, 1), 1, &put(1)), PHASES);
        story.phase_1(ballot(1, 1), 1, &[1]).unwrap();
        broken(story.accept(ballot(1, 1), 1, &put(1)), PHASES);
        story.promise(ballot(1, 1), voter(2, 20), 1).unwrap();
        broken(story.accept(ballot(1, 1), 1, &put(1)), PHASES);
        story.promise(ballot(1, 1), voter(2, 2), 2).unwrap();
        broken(story.accept(ballot(1, 1), 1, &put(1)), PHASES);
        story.phase_1(ballot(1, 1), 1, &[3]).unwrap();
        story.accept(ballot(1, 1), 1, &put(1)).unwrap();
    }

    #[test]
    fn pms_39_voters_of_other_slots_do_not_count() {
        let mut story = Story::of(TwoPhases);
        let change = replace(3, Some(3), 30);
        story.decide(ballot(1, 1), 1, &change).unwrap();
        story.promise(ballot(2, 2), voter(2, 2), 2).unwrap();
        story.promise(ballot(2, 2), voter(3, 30), 2).unwrap();
        broken(story.accept(ballot(2, 2), WINDOW, &put(2)), PHASES);
        story.accept(ballot(2, 2), 1 + WINDOW, &put(2)).unwrap();
        broken(story.accept(ballot(2, 2), WINDOW, &put(3)), PHASES);
    }

    #[test]
    fn pms_10_the_value_of_the_highest_acceptance_it_is_or_condemned() {
        let mut story = Story::of(TwoPhases);
        story.phase_1(ballot(1, 1), 1, &[1, 2]).unwrap();
        story.accept(ballot(1, 1), 1, &put(1)).unwrap();
        story.durable(voter(1, 1), accepted(ballot(1, 1), 1, &put(1))).unwrap();
        story.phase_1(ballot(2, 2), 1, &[2, 3]).unwrap();
        story.accept(ballot(2, 2), 1, &put(2)).unwrap();
        story.durable(voter(2, 2), accepted(ballot(2, 2), 1, &put(2))).unwrap();
        story.phase_1(ballot(3, 3), 1, &[1, 2]).unwrap();
        broken(story.accept(ballot(3, 3), 1, &put(1)), P2C);
        broken(story.accept(ballot(3, 3), 1, &put(3)), P2C);
        story.accept(ballot(3, 3), 1, &put(2)).unwrap();
    }

    #[test]
    fn pms_09_another_value_behind_a_chosen_one_is_condemned() {
        let mut story = Story::of(TwoPhases);
        story.phase_1(ballot(1, 1), 1, &[1, 2]).unwrap();
        story.accept(ballot(1, 1), 1, &put(1)).unwrap();
        // Promised by two who had accepted nothing; one of them breaks its promise afterwards.
        story.phase_1(ballot(2, 2), 1, &[2, 3]).unwrap();
        story.accept(ballot(2, 2), 1, &put(2)).unwrap();
        story.durable(voter(1, 1), accepted(ballot(1, 1), 1, &put(1))).unwrap();
        broken(story.durable(voter(2, 2), accepted(ballot(1, 1), 1, &put(1))), P2B);
    }

    #[test]
    fn pms_32_silence_about_a_trimmed_slot_is_no_answer() {
        let mut story = Story::of(TwoPhases);
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        story.promise(ballot(2, 2), voter(2, 2), 1).unwrap();
        story.promise_with(ballot(2, 2), voter(3, 3), 1, None, 1, vec![]).unwrap();
        broken(story.accept(ballot(2, 2), 1, &put(1)), PHASES);
        story.accept(ballot(2, 2), 2, &put(2)).unwrap();
    }
}

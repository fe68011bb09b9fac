//! # The model checker
//!
//! Tests pick a few of the things that can happen; here all of them happen, in worlds small enough for that.
//! `stateright` walks through every order of every step, and looks at every state. What it walks through are
//! the acceptor, proposer, learner and membership of `synod-paxos` themselves, not a copy of them.
//!
//! * [`world`] says who is there and what may happen how often: the bounds.
//! * [`state`] is what a state consists of. The network keeps everything that was said, and any of it may be
//!   heard at any time, again, in any order, or never.
//! * [`steps`] is what can happen, and [`turn`] wires the machines for it.
//! * [`laws`] judges, from what was said alone.
//!
//! A search proves nothing about what it does not visit. So the number of different states is part of each
//! test: a step that gets lost or a fingerprint that forgets a field makes it smaller, and a change of the
//! protocol has to be looked at anyway. No search is cut short by time or depth. Things that must be able to
//! happen (`sometimes`) are properties, too. And the rules of [`world::Wrong`] show that the checker can fail.
//!
//! *Is everything that matters in a fingerprint?* It is made by derived `Hash` implementations all the way into
//! the private fields of the machines, and [`state::State`] is taken apart without `..` where it is hashed, so
//! that a new field does not compile before it is in. There is one clock time, so none is left out either.
//!
//! `docs/model-checking.md` lists the worlds, what bounds them, and what is therefore not shown.

mod laws;
mod state;
mod steps;
mod turn;
mod world;

use laws::Law;
use state::State;
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};
use std::collections::BTreeSet;
use std::time::Instant;
use steps::Step;
use synod_paxos::membership::Change;
use synod_paxos::types::{NodeId, Slot};
use synod_paxos::value::Value;
use world::{World, Wrong};

impl Model for World {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.beginning()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.steps(state, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        self.take(state, step)
    }

    fn properties(&self) -> Vec<Property<World>> {
        vec![
            Property::always("PMS-1 validity", |_, s: &State| !s.broken.has(Law::Validity)),
            Property::always("PMS-2 agreement", |_, s: &State| !s.broken.has(Law::Agreement)),
            Property::always("PMS-3 honest learning", |_, s: &State| !s.broken.has(Law::HonestLearning)),
            Property::always("PMS-7 one value per ballot", |_, s: &State| !s.broken.has(Law::OneValue)),
            Property::always("PMS-9 P2b", |_, s: &State| !s.broken.has(Law::P2b)),
            Property::always("PMS-10 P2c, R2", |_, s: &State| !s.broken.has(Law::P2c)),
            Property::always("PMS-16 a promise stays", |_, s: &State| !s.broken.has(Law::Promise)),
            Property::always("PMS-17 late answers", |_, s: &State| !s.broken.has(Law::LateAnswers)),
            Property::always("PMS-36 the window", |_, s: &State| !s.broken.has(Law::Window)),
            Property::always("PMS-39 who votes", |_, s: &State| !s.broken.has(Law::Voters)),
            Property::sometimes(CHOSEN, |world: &World, s: &State| {
                world.log().any(|slot| s.facts.chosen(slot).is_some())
            }),
            Property::sometimes(ALL_CHOSEN, |world: &World, s: &State| {
                world.log().all(|slot| s.facts.chosen(slot).is_some())
            }),
            Property::sometimes(ADOPTED, |_, s: &State| rivals(s, |one, other| one == other)),
            Property::sometimes(COMPETED, |_, s: &State| rivals(s, |one, other| one != other)),
            Property::sometimes(GAP_FILLED, |_, s: &State| {
                s.network.proposals.keys().any(|(_, _, value)| value.is_no_op())
            }),
            Property::sometimes(NEW_LIFE, |_, s: &State| {
                let of_new_life = |seat: &state::Seat| {
                    let ballot = seat.proposer.ballot();
                    s.network.proposals.keys().any(|(_, by, _)| seat.lives > 1 && Some(*by) == ballot)
                };
                s.seats.iter().any(|seat| of_new_life(seat))
            }),
            Property::sometimes(UNSYNCED_LOST, |world: &World, s: &State| s.crashes < world.crashes),
            Property::sometimes(NEWCOMER_VOTED, |world: &World, s: &State| {
                let newcomer = world.newcomer();
                let mut decided = world.log().filter_map(|slot| Some((slot, s.facts.chosen(slot)?)));
                decided.any(|(slot, (ballot, value))| {
                    let by = &s.network.proposals[&(slot, *ballot, value.clone())].by;
                    let votes = |voter| s.facts.voters(slot).is_some_and(|voters| voters.contains(&voter));
                    newcomer.is_some_and(|newcomer| votes(newcomer) && by.contains(&newcomer))
                })
            }),
            Property::sometimes(VOTERS_CHANGED, |world: &World, s: &State| {
                let changed = |slot| s.facts.voters(slot) != s.facts.voters(Slot::FIRST);
                world.log().any(|slot| s.facts.chosen(slot).is_some() && changed(slot))
            }),
        ]
    }
}

const CHOSEN: &str = "a value is chosen";
const ALL_CHOSEN: &str = "every slot is chosen";
const ADOPTED: &str = "a value is adopted from a promise";
const COMPETED: &str = "two ballots compete with two values";
const GAP_FILLED: &str = "a no-op is proposed";
const NEW_LIFE: &str = "a proposer leads in a new life";
const UNSYNCED_LOST: &str = "an acceptor loses what it had not synced";
const NEWCOMER_VOTED: &str = "a newcomer's vote counts";
const VOTERS_CHANGED: &str = "others vote in a later slot, and decide it";

/// Are there two ballots with proposals for one slot, whose values are like that?
fn rivals(state: &State, like: fn(&Value, &Value) -> bool) -> bool {
    let all: Vec<_> = state.network.proposals.keys().collect();
    let rival = |(a, b): (&state::Proposal, &state::Proposal)| a.0 == b.0 && a.1 < b.1 && like(&a.2, &b.2);
    all.iter().any(|one| all.iter().any(|other| rival((one, other))))
}

/// Visits everything there is in `world`: it must be `states` states, break no law, and show what may happen,
/// all of `sometimes` and nothing else.
fn explore(world: World, states: usize, sometimes: &[&str]) {
    let begun = Instant::now();
    let checker = world.checker().threads(2).spawn_bfs().join();
    let seconds = begun.elapsed().as_secs_f64();
    let (unique, all) = (checker.unique_state_count(), checker.state_count());
    println!("{unique} states, {all} steps, depth {}, {seconds:.1} s", checker.max_depth());
    let discoveries = checker.discoveries();
    for property in checker.model().properties() {
        let Some(path) = discoveries.get(property.name) else { continue };
        let law = matches!(property.expectation, Expectation::Always);
        assert!(!law, "{} is broken: {:#?}", property.name, path.clone().into_actions());
    }
    let seen: BTreeSet<&str> = discoveries.keys().copied().collect();
    assert_eq!(seen, sometimes.iter().copied().collect(), "what happens in this world");
    assert_eq!(unique, states, "the search has another size: say why, and correct the number");
}

/// The checker must find that `law` is broken. One thread, so that the path is a shortest one.
fn refute(world: World, law: &'static str, steps: usize) {
    let wrong = world.wrong.expect("something is wrong");
    let enough = HasDiscoveries::AnyOf(BTreeSet::from([law]));
    let checker = world.checker().threads(1).finish_when(enough).spawn_bfs().join();
    let path = checker.discovery(law).unwrap_or_else(|| panic!("{wrong:?} was not noticed")).into_actions();
    println!("{wrong:?}: {law} broken in {} steps, {} states seen", path.len(), checker.unique_state_count());
    path.iter().for_each(|step| println!("    {step:?}"));
    assert_eq!(path.len(), steps, "the way to it has another length");
}

// -- choosing: three acceptors, two proposers -------------------------------------------------------------

#[test]
fn two_ballots_and_two_slots() {
    explore(World::small(), 51_057, &[CHOSEN, ALL_CHOSEN, ADOPTED, COMPETED, GAP_FILLED]);
}

#[test]
fn three_ballots_and_new_lives_of_proposers() {
    let world = World { slots: 1, window: 1, ballots: vec![2, 1], ..World::small() };
    explore(world, 44_473, &[CHOSEN, ALL_CHOSEN, ADOPTED, COMPETED, NEW_LIFE]);
}

#[test]
fn an_acceptor_crashes_with_unsynced_records() {
    let world = World { slots: 1, window: 1, crashes: 1, ..World::small() };
    explore(world, 11_265, &[CHOSEN, ALL_CHOSEN, ADOPTED, COMPETED, UNSYNCED_LOST]);
}

#[test]
#[ignore = "343,009 states: for releases (cargo test --release)"]
fn an_acceptor_crashes_between_three_ballots() {
    let world = World { slots: 1, window: 1, ballots: vec![2, 1], crashes: 1, ..World::small() };
    explore(world, 343_009, &[CHOSEN, ALL_CHOSEN, ADOPTED, COMPETED, NEW_LIFE, UNSYNCED_LOST]);
}

#[test]
#[ignore = "675,665 states: for releases (cargo test --release)"]
fn an_acceptor_crashes_between_two_ballots_and_two_slots() {
    let world = World { crashes: 1, ..World::small() };
    explore(world, 675_665, &[CHOSEN, ALL_CHOSEN, ADOPTED, COMPETED, GAP_FILLED, UNSYNCED_LOST]);
}

// -- lost memory ------------------------------------------------------------------------------------------

/// The last acceptor may forget everything; a leader is asked to let the newcomer vote in its place.
fn amnesia() -> World {
    let world = World { window: 1, applied: 1, wipe: true, ..World::small() };
    World { change: Some(world.readmission()), ..world }
}

#[test]
fn r1_an_acceptor_forgets_and_is_not_readmitted() {
    let world = World { change: None, slots: 1, applied: 0, ..amnesia() };
    explore(world, 11_410, &[CHOSEN, ALL_CHOSEN, ADOPTED, COMPETED]);
}

#[test]
fn r4_an_acceptor_forgets_and_another_votes_in_its_place() {
    let world = World { ballots: vec![1], ..amnesia() };
    explore(world, 3_768, &[CHOSEN, ALL_CHOSEN, NEWCOMER_VOTED, VOTERS_CHANGED]);
}

// -- changes of members -----------------------------------------------------------------------------------

#[test]
fn pms_39_a_voter_is_removed() {
    let change = Some(Change::Remove { node: NodeId(3) });
    let world = World { window: 1, applied: 1, change, ballots: vec![2], ..World::small() };
    explore(world, 12_005, &[CHOSEN, ALL_CHOSEN, ADOPTED, COMPETED, NEW_LIFE, VOTERS_CHANGED]);
}

#[test]
#[ignore = "250,447 states: for releases (cargo test --release)"]
fn pms_39_a_voter_is_added() {
    let world = World { window: 1, applied: 1, learner: true, ballots: vec![2], ..World::small() };
    let world = World { change: Some(world.admission()), ..world };
    explore(
        world,
        250_447,
        &[CHOSEN, ALL_CHOSEN, ADOPTED, COMPETED, NEW_LIFE, NEWCOMER_VOTED, VOTERS_CHANGED],
    );
}

#[test]
#[ignore = "386,988 states: for releases (cargo test --release)"]
fn r4_an_acceptor_forgets_between_two_ballots() {
    let world = World { ballots: vec![2], ..amnesia() };
    explore(
        world,
        386_988,
        &[CHOSEN, ALL_CHOSEN, ADOPTED, COMPETED, NEW_LIFE, NEWCOMER_VOTED, VOTERS_CHANGED],
    );
}

#[test]
#[ignore = "200,341 states: for releases (cargo test --release)"]
fn pms_39_a_voter_is_removed_between_two_proposers() {
    let change = Some(Change::Remove { node: NodeId(3) });
    let world = World { window: 1, applied: 1, change, ..World::small() };
    explore(world, 200_341, &[CHOSEN, ALL_CHOSEN, ADOPTED, COMPETED, VOTERS_CHANGED]);
}

// -- the checker can fail ---------------------------------------------------------------------------------

fn one_slot(wrong: Wrong) -> World {
    World { slots: 1, window: 1, wrong: Some(wrong), ..World::small() }
}

#[test]
fn a_promise_forgotten_in_a_crash_is_noticed() {
    refute(World { crashes: 1, ..one_slot(Wrong::PromiseForgotten) }, "PMS-2 agreement", 14);
}

#[test]
fn an_answer_ahead_of_the_disk_is_noticed() {
    refute(World { crashes: 1, ..one_slot(Wrong::AnswerBeforeDisk) }, "PMS-2 agreement", 13);
}

#[test]
fn the_highest_value_in_place_of_the_highest_ballots_is_noticed() {
    refute(World { ballots: vec![1, 1, 1], ..one_slot(Wrong::HighestValue) }, "PMS-2 agreement", 17);
}

#[test]
fn a_ballot_used_twice_is_noticed() {
    refute(World { ballots: vec![2, 1], ..one_slot(Wrong::BallotReused) }, "PMS-2 agreement", 17);
}

#[test]
fn acceptances_of_two_ballots_counted_together_are_noticed() {
    let world = World { ballots: vec![2, 1], ..one_slot(Wrong::BallotsCountedTogether) };
    refute(world, "PMS-3 honest learning", 10);
}

#[test]
fn a_proposal_of_a_lower_ballot_taken_on_a_word_is_noticed() {
    refute(one_slot(Wrong::AnyProposalBelieved), "PMS-3 honest learning", 12);
}

#[test]
fn a_lost_memory_under_its_old_name_is_noticed() {
    refute(World { wipe: true, ..one_slot(Wrong::IdentityKept) }, "PMS-2 agreement", 13);
}

#[test]
fn the_newest_voters_in_an_older_slot_are_noticed() {
    let wrong = Some(Wrong::NewestVotersCounted);
    let world = World { window: 2, ballots: vec![3], wrong, ..amnesia() };
    refute(world, "PMS-10 P2c, R2", 12);
}

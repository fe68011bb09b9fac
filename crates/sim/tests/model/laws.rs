//! The judge: what is chosen and who votes, computed from what was said alone, and the laws held against it.
//!
//! It asks the machines nothing, and reads the log by code of its own. A step that breaks a law leaves a mark
//! in the state, and the properties look at the marks.

use super::state::{Network, Proposal, State};
use super::world::{NOW, World, Wrong};
use std::collections::BTreeSet;
use synod_paxos::acceptor::Acceptor;
use synod_paxos::learner::{Effect, Learner, Options};
use synod_paxos::membership::Change;
use synod_paxos::message::Chosen;
use synod_paxos::types::{Ballot, NodeId, Prefix, Slot, VoterId};
use synod_paxos::value::{Action, Command, Value};

/// What no step may break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Law {
    /// PMS-2: one value per slot.
    Agreement,
    /// PMS-1: chosen, accepted and told is only what was proposed, and proposed what somebody asked for.
    Validity,
    /// PMS-3: what leaders call chosen is, and what learners take for it.
    HonestLearning,
    /// PMS-16, PMS-27: what a memory spoke for, it has on disk and never takes back.
    Promise,
    /// PMS-7: one value per slot and ballot.
    OneValue,
    /// PMS-9, P2b: proposals above a chosen one carry its value.
    P2b,
    /// PMS-10, P2c: a majority promised, and leaves the value free or imposes it; PMS-39, R2: a majority of
    /// that very slot's voters.
    P2c,
    /// PMS-36, R3: nothing is proposed beyond the window, where nobody can know who votes.
    Window,
    /// PMS-39: replicas derive from the log who votes, and the same as the judge.
    Voters,
    /// PMS-17: answers to an earlier ballot do nothing.
    LateAnswers,
}

/// Laws that were broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Broken(u16);

impl Broken {
    /// Notes that `law` is broken unless `held`.
    pub(crate) fn note(&mut self, law: Law, held: bool) {
        self.0 |= u16::from(!held) << law as u16;
    }

    /// Is this law broken?
    pub(crate) fn has(self, law: Law) -> bool {
        self.0 >> law as u16 & 1 == 1
    }
}

/// What follows from what was said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    chosen: Vec<Option<(Ballot, Value)>>,
    voters: Vec<Option<BTreeSet<VoterId>>>,
}

impl Facts {
    /// The lowest ballot in which a value of `slot` was chosen, and that value.
    pub(crate) fn chosen(&self, slot: Slot) -> Option<&(Ballot, Value)> {
        self.chosen.get(at(slot))?.as_ref()
    }

    /// Who votes in `slot`; none while that is not determined.
    pub(crate) fn voters(&self, slot: Slot) -> Option<&BTreeSet<VoterId>> {
        self.voters.get(at(slot))?.as_ref()
    }

    /// Is this the value of `slot`?
    fn is_chosen(&self, slot: Slot, value: &Value) -> bool {
        self.chosen(slot).is_some_and(|(_, chosen)| chosen == value)
    }

    /// Concludes who votes and what is chosen, slot after slot.
    pub(crate) fn of(world: &World, network: &Network, broken: &mut Broken) -> Facts {
        let mut facts = Facts::default();
        let mut members: BTreeSet<VoterId> =
            world.nodes().filter(|node| node.0 <= world.voters).map(|node| world.voter(node)).collect();
        let mut known = true;
        for slot in world.log() {
            if let Some(decided) = slot.0.checked_sub(world.window).filter(|&decided| decided > 0) {
                match facts.chosen(Slot(decided)) {
                    Some((_, value)) => apply(value, &mut members),
                    None => known = false,
                }
            }
            facts.voters.push(known.then(|| members.clone()));
            let chosen = if known { chosen_in(slot, &members, network, broken) } else { None };
            facts.chosen.push(chosen);
        }
        facts
    }
}

fn at(slot: Slot) -> usize {
    usize::try_from(slot.0).expect("logs are short") - 1
}

/// What a majority of `voters` accepted in one ballot.
fn chosen_in(
    slot: Slot,
    voters: &BTreeSet<VoterId>,
    network: &Network,
    broken: &mut Broken,
) -> Option<(Ballot, Value)> {
    let mut first: Option<(Ballot, Value)> = None;
    for ((of, ballot, value), heard) in &network.proposals {
        if *of != slot || heard.by.intersection(voters).count() <= voters.len() / 2 {
            continue;
        }
        match &first {
            None => first = Some((*ballot, value.clone())),
            Some((_, chosen)) => broken.note(Law::Agreement, chosen == value),
        }
    }
    if let Some((chosen, value)) = &first {
        let above = network.proposals.keys().filter(|(of, ballot, _)| *of == slot && ballot > chosen);
        broken.note(Law::P2b, above.into_iter().all(|(_, _, proposed)| proposed == value));
    }
    first
}

/// The log's effect on who votes, by the book (R4).
fn apply(value: &Value, voters: &mut BTreeSet<VoterId>) {
    for command in value.commands().expect("only proposers make values") {
        match command.action {
            Action::Reconfigure(Change::Replace { node, old, new }) => {
                let votes = voters.iter().find(|voter| voter.node == node).copied();
                if votes.map(|voter| voter.incarnation) == old {
                    voters.retain(|voter| voter.node != node);
                    voters.insert(VoterId { node, incarnation: new });
                }
            }
            Action::Reconfigure(Change::Remove { node }) => voters.retain(|voter| voter.node != node),
            Action::Reconfigure(Change::Add { .. } | Change::Publish { .. }) | Action::App(_) => {}
        }
    }
}

/// A proposal is about to be sent. `asked` is what this ballot's proposer was asked to propose.
pub(crate) fn on_proposed(
    world: &World,
    state: &State,
    proposal: &Proposal,
    asked: &[Command],
    broken: &mut Broken,
) {
    let (slot, ballot, value) = proposal;
    let rivals: Vec<&Proposal> = state.network.proposals.keys().filter(|(of, _, _)| of == slot).collect();
    broken.note(Law::OneValue, rivals.iter().all(|(_, of, other)| of != ballot || other == value));
    let inside = value.commands().expect("only proposers make values");
    let adopted = rivals.iter().any(|(_, _, other)| other == value);
    broken.note(Law::Validity, adopted || inside.iter().all(|command| asked.contains(command)));
    let prefix = world.log().take_while(|&slot| state.facts.chosen(slot).is_some()).count() as u64;
    broken.note(Law::Window, slot.0 <= prefix + world.window);
    let Some(voters) = state.facts.voters(*slot) else { return broken.note(Law::Window, false) };
    broken.note(Law::P2c, has_witness(state, voters, proposal, &rivals));
    let chosen = state.facts.chosen(*slot).filter(|(chosen, _)| chosen < ballot);
    broken.note(Law::P2b, chosen.is_none_or(|(_, chosen)| chosen == value));
}

/// Did a majority of `voters` promise the ballot that had accepted nothing below it, or whose highest
/// acceptance below it carries the value?
fn has_witness(
    state: &State,
    voters: &BTreeSet<VoterId>,
    (_, ballot, value): &Proposal,
    rivals: &[&Proposal],
) -> bool {
    let promised = |voter: &&VoterId| state.named(**voter).and_then(Acceptor::promised) >= Some(*ballot);
    let highest_below = |voter: &VoterId| {
        let voted =
            |rival: &&&Proposal| rival.1 < *ballot && state.network.proposals[**rival].by.contains(voter);
        rivals.iter().filter(voted).map(|(_, of, _)| *of).max()
    };
    let heights: Vec<Option<Ballot>> = voters.iter().filter(promised).map(highest_below).collect();
    let imposing = rivals.iter().filter(|(_, of, other)| of < ballot && other == value);
    imposing
        .map(|(_, of, _)| Some(*of))
        .chain([None])
        .any(|top| heights.iter().filter(|&&height| height <= top).count() > voters.len() / 2)
}

/// A proposal or a word is new: is every word true, and would no learner that can be, with these in its ears,
/// take anything for chosen that is not? What a learner releases next follows from one proposal and one word,
/// so pairs of them are all that can be heard.
pub(crate) fn on_heard(world: &World, state: &State, broken: &mut Broken) {
    for word in state.network.words() {
        for slot in (word.from.0..=word.upto.0).map(Slot) {
            let of_slot = || state.network.proposals.keys().filter(|(of, _, _)| *of == slot);
            let mut meant = of_slot().filter(|(_, ballot, _)| *ballot == word.ballot);
            let honest = meant.any(|(_, _, value)| state.facts.is_chosen(slot, value));
            broken.note(Law::HonestLearning, honest);
            for proposal in of_slot() {
                let taken = learn(world, NodeId(1), Prefix::before(slot), proposal, word);
                let right = taken.is_none_or(|value| state.facts.is_chosen(slot, &value));
                broken.note(Law::HonestLearning, right);
            }
        }
    }
}

/// A word or an acceptance is new: could a restarted replica take anything for chosen on its own log's word
/// that is not?
pub(crate) fn on_vouched(state: &State, broken: &mut Broken) {
    for word in state.network.words() {
        for memory in &state.acceptors {
            let mut acceptor = memory.disk.clone();
            acceptor.on_chosen(word);
            let vouched = acceptor.chosen_after(Prefix::before(word.from));
            let right = vouched.iter().all(|(slot, value)| state.facts.is_chosen(*slot, value));
            broken.note(Law::HonestLearning, right);
        }
    }
}

/// What a learner that has `applied` takes for the value of the next slot, if it hears just this.
pub(crate) fn learn(
    world: &World,
    node: NodeId,
    applied: Prefix,
    (slot, ballot, value): &Proposal,
    word: Chosen,
) -> Option<Value> {
    let mut learner = Learner::new(node, Options::default(), applied);
    let ballot = if world.wrong == Some(Wrong::AnyProposalBelieved) { word.ballot } else { *ballot };
    let mut effects = learner.on_accept(ballot, *slot, value.clone(), None, NOW);
    effects.extend(learner.on_chosen(word, NOW));
    effects.into_iter().find_map(|effect| match effect {
        Effect::Apply { slot: applied, value } if applied == *slot => Some(value),
        _ => None,
    })
}

//! What can happen in a world.
//!
//! Three kinds of steps are left out because another order shows the same:
//!
//! * An acceptance is counted as soon as it is said. Counting later shows a proposer that knows less, and it
//!   proposes the same.
//! * A majority of promises is heard at once, since a proposer says nothing before it has one. Each choice of
//!   a majority is a step of its own, and promises that come late are heard when they make it say something.
//! * A leader that stops, a refusal, and silence are one and the same until the next campaign: that step says
//!   what came before it.

use super::laws::{Broken, Facts};
use super::state::{Memory, Network, Part, Promised, Proposal, Seat, State, index};
use super::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use synod_paxos::acceptor::{self, Acceptor, Limits};
use synod_paxos::message::{Chosen, Message};
use synod_paxos::types::{Ballot, NodeId, Prefix, Slot};

/// Something that can happen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// An acceptor hears a Prepare.
    Prepare(Ballot, Slot, NodeId),
    /// An acceptor hears an Accept.
    Accept(Proposal, NodeId),
    /// The oldest unsynced record of the acceptor that may crash is on disk; its answer leaves.
    Sync,
    /// That acceptor crashes, loses what is unsynced, and starts again.
    Crash,
    /// That acceptor loses its memory, and another one takes its place.
    Wipe,
    /// A proposer begins a ballot.
    Campaign(NodeId, Before),
    /// A proposer hears promises, the last of which lets it lead.
    Lead(NodeId, Vec<Arc<Promised>>),
    /// A leader hears another promise, and goes on.
    Late(NodeId, Arc<Promised>),
    /// The learner beside a proposer hears a proposal and a word, and releases the next slot; before that, the
    /// proposer heard these late promises.
    Learn(NodeId, Proposal, Chosen, Vec<Arc<Promised>>),
}

/// What happened to a proposer before it campaigns.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Before {
    /// Nothing, or it gave up.
    Silence,
    /// It was refused in favour of this ballot.
    Refusal(Ballot),
    /// It crashed: this is a new life.
    Crash,
}

impl World {
    /// Where everything begins.
    pub(crate) fn beginning(&self) -> State {
        let acceptors = self.nodes().map(|node| {
            let acceptor = Acceptor::new(self.voter(node), Limits::default());
            Part::new(Memory {
                live: acceptor.clone(),
                disk: acceptor,
                unsynced: Vec::new(),
                standing: None,
                lost: None,
            })
        });
        let seats = (1..).map(NodeId).zip(&self.ballots).map(|(node, _)| {
            let proposer = self.proposer(node, 1, &[]);
            Part::new(Seat { proposer, lives: 1, begun: 0, proposed: Prefix::EMPTY, log: Vec::new() })
        });
        let network = Network::default();
        let mut broken = Broken::default();
        let facts = Arc::new(Facts::of(self, &network, &mut broken));
        State {
            acceptors: acceptors.collect(),
            seats: seats.collect(),
            network: Part::new(network),
            crashes: self.crashes,
            wiped: false,
            broken,
            facts,
        }
    }

    /// Everything that can happen in `state`. Some of it will turn out to change nothing.
    pub(crate) fn steps(&self, state: &State, steps: &mut Vec<Step>) {
        let prepares = state.network.prepares.iter();
        steps.extend(prepares.map(|&(ballot, from, to)| Step::Prepare(ballot, from, to)));
        for (proposal, heard) in &state.network.proposals {
            steps.extend(heard.to.iter().map(|&to| Step::Accept(proposal.clone(), to)));
        }
        if !state.memory(self.last()).unsynced.is_empty() {
            steps.push(Step::Sync);
        }
        if state.crashes > 0 {
            steps.push(Step::Crash);
        }
        if self.wipe && !state.wiped {
            steps.push(Step::Wipe);
        }
        for node in (1..=state.seats.len() as u64).map(NodeId) {
            self.campaigns(state, node, steps);
            let heard = self.hearings(state, node);
            if state.seat(node).proposer.leads().is_none() {
                steps.extend(heard.into_iter().map(|promises| Step::Lead(node, promises)));
                self.lessons(state, node, &[], steps);
            } else {
                let one = heard.iter().filter(|promises| promises.len() == 1);
                steps.extend(one.map(|promises| Step::Late(node, promises[0].clone())));
                self.lessons(state, node, &heard, steps);
            }
        }
    }

    /// What the learner at `node` can hear that may let it release a slot, after its proposer heard nothing
    /// more, or one choice of `late`.
    fn lessons(&self, state: &State, node: NodeId, late: &[Vec<Arc<Promised>>], steps: &mut Vec<Step>) {
        let seat = state.seat(node);
        let slot = Slot(seat.log.len() as u64 + 1);
        if seat.log.len() >= self.applied {
            return;
        }
        for word in state.network.words().filter(|word| word.from <= slot && word.upto.contains(slot)) {
            let proposals = state.network.proposals.iter();
            for (proposal, _) in proposals.filter(|(p, heard)| p.0 == slot && heard.to.contains(&node)) {
                let late = late.iter().cloned().chain([Vec::new()]);
                steps.extend(late.map(|late| Step::Learn(node, proposal.clone(), word, late)));
            }
        }
    }

    fn campaigns(&self, state: &State, node: NodeId, steps: &mut Vec<Step>) {
        let seat = state.seat(node);
        if seat.begun >= self.ballots[index(node)] {
            return;
        }
        steps.push(Step::Campaign(node, Before::Silence));
        let Some(ballot) = seat.proposer.ballot() else { return };
        steps.push(Step::Campaign(node, Before::Crash));
        let refusals: BTreeSet<Ballot> = state
            .acceptors
            .iter()
            .filter_map(|memory| match memory.live.clone().on_prepare(node, ballot, Slot::FIRST) {
                acceptor::Effect::Send(refusal) => match refusal.message {
                    Message::Refused { promised, .. } => Some(promised),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        steps.extend(refusals.into_iter().map(|by| Step::Campaign(node, Before::Refusal(by))));
    }

    /// The choices of promises that were made to this proposer's ballot: of each voter one, or none.
    fn hearings(&self, state: &State, node: NodeId) -> Vec<Vec<Arc<Promised>>> {
        let ballot = state.seat(node).proposer.ballot();
        let mut choices: Vec<Vec<Arc<Promised>>> = vec![Vec::new()];
        let mut by_voter: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for promise in state.network.promises.iter().filter(|promise| Some(promise.ballot) == ballot) {
            by_voter.entry(promise.voter).or_default().push(promise);
        }
        for promises in by_voter.values() {
            for choice in 0..choices.len() {
                let with =
                    |promise: &&Arc<Promised>| choices[choice].iter().chain([*promise]).cloned().collect();
                let more: Vec<_> = promises.iter().map(with).collect();
                choices.extend(more);
            }
        }
        choices.retain(|choice| !choice.is_empty());
        choices
    }

    /// Will this leader be asked for the change? For a newcomer's admission only once there is a newcomer.
    pub(crate) fn can_change(&self, state: &State, node: NodeId) -> bool {
        node == self.change_by && (state.wiped || !self.wipe)
    }
}

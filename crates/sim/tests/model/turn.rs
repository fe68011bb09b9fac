//! One step: a machine hears what it may hear at this moment, and what it says is sent and judged.

use super::laws::{self, Broken, Facts, Law};
use super::state::{Memory, Part, Promised, Proposal, Reply, Seat, State, index};
use super::steps::{Before, Step};
use super::world::{GROUP_MAX, NOW, World, Wrong};
use std::sync::Arc;
use synod_paxos::acceptor::{self, Acceptor, Limits, Record};
use synod_paxos::machine::{Admission, Machine};
use synod_paxos::membership::{Configurations, Genesis, Membership};
use synod_paxos::message::{Chosen, Message};
use synod_paxos::proposer::{self, Proposer};
use synod_paxos::types::{Ballot, Generation, NodeId, Prefix, Slot};
use synod_paxos::value::{Action, Value};

/// A state in the making.
struct Turn<'a> {
    world: &'a World,
    state: State,
    broken: Broken,
    /// What the step changed, apart from machines.
    /// The proposer to whom an acceptance was said.
    voted: Option<NodeId>,
    said: bool,
    spoke: bool,
}

impl World {
    /// What `step` makes of `state`; nothing if it changes nothing.
    pub(crate) fn take(&self, state: &State, step: Step) -> Option<State> {
        let turn = Turn {
            world: self,
            state: state.clone(),
            broken: state.broken,
            voted: None,
            said: false,
            spoke: false,
        };
        match step {
            Step::Prepare(ballot, from, to) => turn.prepare(ballot, from, to),
            Step::Accept(proposal, to) => turn.accept(proposal, to),
            Step::Sync => turn.sync(),
            Step::Crash => turn.crash(),
            Step::Wipe => turn.wipe(),
            Step::Campaign(node, before) => turn.campaign(node, &before),
            Step::Lead(node, promises) => turn.lead(node, &promises),
            Step::Late(node, promise) => turn.late(node, &promise),
            Step::Learn(node, proposal, word, late) => turn.learn(node, &proposal, word, &late),
        }
    }

    /// A proposer that knows this much of the log.
    pub(crate) fn proposer(&self, node: NodeId, life: u8, log: &[Value]) -> Proposer {
        let (configurations, members) = self.membership(log);
        let life = if self.wrong == Some(Wrong::BallotReused) { 1 } else { life };
        let generation = Generation(u64::from(life));
        let mut proposer = Proposer::new(node, generation, self.pipeline(), configurations.clone());
        proposer.on_applied(configurations, members);
        proposer
    }

    /// Who votes where and who listens, by the log applied.
    fn membership(&self, log: &[Value]) -> (Configurations, Vec<NodeId>) {
        let mut machine: Machine<()> = Machine::genesis(&self.genesis());
        for (slot, value) in (1..).map(Slot).zip(log) {
            for command in value.commands().expect("only proposers make values") {
                if machine.admit(&command) == Admission::Fresh {
                    if let Action::Reconfigure(change) = &command.action {
                        machine.reconfigure(slot, change);
                    }
                    machine.answered(command.id, ());
                }
            }
            machine.advance(slot);
        }
        let members = machine.membership().members();
        let nodes = members.keys().copied().collect();
        if self.wrong == Some(Wrong::NewestVotersCounted) {
            let mut newest = Membership::genesis(&Genesis { members: members.clone(), ..self.genesis() });
            (1..=log.len() as u64).for_each(|slot| newest.advance(Slot(slot)));
            return (newest.configurations().clone(), nodes);
        }
        (machine.membership().configurations().clone(), nodes)
    }
}

impl Turn<'_> {
    // -- acceptors ----------------------------------------------------------------------------------

    fn prepare(self, ballot: Ballot, from: Slot, to: NodeId) -> Option<State> {
        let mut live = self.state.memory(to).live.clone();
        let effect = live.on_prepare(ballot.node, ballot, from);
        self.written(to, live, effect, None)
    }

    fn accept(self, proposal: Proposal, to: NodeId) -> Option<State> {
        let mut live = self.state.memory(to).live.clone();
        let (slot, ballot, value) = proposal.clone();
        let effect = live.on_accept(ballot.node, ballot, slot, value)?;
        self.written(to, live, effect, Some(proposal))
    }

    /// An acceptor has answered: now, or when its disk has it.
    fn written(
        mut self,
        node: NodeId,
        live: Acceptor,
        effect: acceptor::Effect,
        proposal: Option<Proposal>,
    ) -> Option<State> {
        let acceptor::Effect::PersistThenSend { record, reply } = effect else {
            return None; // a refusal, which counts when its receiver campaigns again
        };
        let reply = match (reply.message, proposal) {
            (Message::Promise { ballot, voter, from, accepted, .. }, None) => {
                let accepted = accepted.into_iter().map(|a| (a.slot, a.ballot, a.value)).collect();
                Reply::Promised(Promised { ballot, voter, from, accepted })
            }
            (Message::Accepted { .. }, Some(proposal)) => Reply::Accepted(proposal),
            (message, _) => unreachable!("{message:?} is no answer to that"),
        };
        let mut memory = Memory { live, ..self.state.memory(node).clone() };
        if node == self.world.last() && self.state.crashes > 0 {
            let pending = (record, reply);
            if memory.unsynced.len() == GROUP_MAX || memory.unsynced.contains(&pending) {
                return None;
            }
            if self.world.wrong == Some(Wrong::AnswerBeforeDisk) {
                self.say(&mut memory, pending.1.clone());
            }
            memory.unsynced.push(pending);
        } else {
            memory.disk = memory.live.clone();
            self.say(&mut memory, reply);
        }
        let changed = self.remember(node, memory) || self.said;
        changed.then(|| self.finish())?
    }

    fn sync(mut self) -> Option<State> {
        let node = self.world.last();
        let mut memory = self.state.memory(node).clone();
        self.sync_first(&mut memory);
        self.remember(node, memory);
        self.finish()
    }

    fn sync_first(&mut self, memory: &mut Memory) {
        let (record, reply) = memory.unsynced.remove(0);
        let records = records_of(&memory.disk).into_iter().chain([record]);
        memory.disk = Acceptor::restore(memory.disk.id(), Limits::default(), records);
        let restorable = !memory.unsynced.is_empty() || memory.disk == memory.live;
        self.broken.note(Law::Promise, restorable);
        self.say(memory, reply);
    }

    fn crash(mut self) -> Option<State> {
        let node = self.world.last();
        let before = self.state.memory(node);
        let mut memory = before.clone();
        let mut records = records_of(&memory.disk);
        if self.world.wrong == Some(Wrong::PromiseForgotten) {
            records.retain(|record| !matches!(record, Record::Promised { .. }));
        }
        memory.live = Acceptor::restore(memory.disk.id(), Limits::default(), records);
        memory.disk = memory.live.clone();
        memory.unsynced.clear();
        if memory == *before {
            return None; // nothing was lost, so nothing happened
        }
        self.state.crashes -= 1;
        self.remember(node, memory);
        self.finish()
    }

    fn wipe(mut self) -> Option<State> {
        let node = self.world.last();
        let mut memory = self.state.memory(node).clone();
        let reborn = Acceptor::new(self.world.reborn(node), Limits::default());
        if reborn.id() != memory.disk.id() {
            memory.standing = None;
        }
        memory.lost = Some(std::mem::replace(&mut memory.disk, reborn.clone()));
        memory.live = reborn;
        memory.unsynced.clear();
        self.state.wiped = true;
        self.remember(node, memory);
        self.finish()
    }

    /// An answer leaves.
    fn say(&mut self, memory: &mut Memory, reply: Reply) {
        let network = &self.state.network;
        let ballot = match reply {
            Reply::Promised(promise) => {
                let ballot = promise.ballot;
                let known = promise.accepted.iter().all(|proposal| network.proposals.contains_key(proposal));
                self.broken.note(Law::Validity, known);
                if self.waits_for_promises(ballot) && !network.promises.contains(&promise) {
                    self.state.network.change(|network| network.promises.insert(Arc::new(promise)));
                    self.said = true;
                }
                ballot
            }
            Reply::Accepted(proposal) => {
                let voter = memory.live.id();
                if !network.proposals[&proposal].by.contains(&voter) {
                    self.state.network.change(|network| {
                        network.proposals.get_mut(&proposal).expect("it was heard").by.insert(voter)
                    });
                    self.said = true;
                    self.voted = Some(proposal.1.node);
                }
                proposal.1
            }
        };
        memory.standing = memory.standing.max(Some(ballot));
    }

    /// Puts an acceptor into the state. True if it is another than before.
    fn remember(&mut self, node: NodeId, memory: Memory) -> bool {
        self.broken.note(Law::Promise, memory.disk.promised() >= memory.standing);
        let changed = memory != *self.state.memory(node);
        if changed {
            self.state.acceptors[index(node)] = Part::new(memory);
        }
        changed
    }

    /// Can a promise for `ballot` still matter? Not to a ballot that is over, nor to one that has proposed
    /// the last slot.
    fn waits_for_promises(&self, ballot: Ballot) -> bool {
        let seat = self.state.seats.get(index(ballot.node));
        seat.is_some_and(|seat| {
            seat.proposer.ballot() == Some(ballot) && seat.proposed < Prefix(self.world.slots)
        })
    }

    // -- proposers ----------------------------------------------------------------------------------

    fn campaign(mut self, node: NodeId, before: &Before) -> Option<State> {
        let mut seat = self.state.seat(node).clone();
        match before {
            Before::Silence => {
                seat.proposer.abdicate();
            }
            Before::Refusal(by) => {
                let ballot = seat.proposer.ballot()?;
                seat.proposer.on_refused(ballot, *by);
            }
            Before::Crash => {
                seat.lives += 1;
                seat.proposer = self.world.proposer(node, seat.lives, &seat.log);
            }
        }
        let effects = seat.proposer.campaign(NOW)?;
        seat.begun += 1;
        seat.proposed = Prefix::EMPTY;
        let mut deaf = seat.proposer.clone();
        let present = deaf.ballot();
        for promise in self.state.network.promises.iter().filter(|promise| Some(promise.ballot) != present) {
            let (voter, accepted) = (promise.voter, promise.acceptances());
            deaf.on_promise(promise.ballot, voter, promise.from, None, Prefix::EMPTY, accepted, NOW);
        }
        for ((slot, ballot, _), heard) in &self.state.network.proposals {
            heard.by.iter().for_each(|&voter| deaf.on_accepted(*ballot, *slot, voter));
        }
        let wrong = self.world.wrong.is_some();
        self.broken.note(Law::LateAnswers, wrong || deaf == seat.proposer);
        self.sit(node, seat, effects)
    }

    fn lead(mut self, node: NodeId, promises: &[Arc<Promised>]) -> Option<State> {
        let mut seat = self.state.seat(node).clone();
        let ballot = seat.proposer.ballot()?;
        let change = self.world.can_change(&self.state, node);
        seat.proposer.on_submit(self.world.commands(ballot, seat.begun, change));
        let (last, first) = promises.split_last()?;
        for promise in first {
            if !self.hear(&mut seat, promise, promises).is_empty() {
                return None; // fewer were enough, and that is a step of its own
            }
        }
        let effects = self.hear(&mut seat, last, promises);
        if effects.is_empty() {
            return None; // not enough yet, and nobody can tell the difference
        }
        self.spoke = true;
        self.sit(node, seat, effects)
    }

    fn late(self, node: NodeId, promise: &Promised) -> Option<State> {
        let mut seat = self.state.seat(node).clone();
        let effects = self.hear(&mut seat, promise, &[]);
        if effects.is_empty() {
            return None; // it may matter once more slots are open: until then it is as good as on its way
        }
        self.sit(node, seat, effects)
    }

    fn hear(&self, seat: &mut Seat, promise: &Promised, all: &[Arc<Promised>]) -> Vec<proposer::Effect> {
        let mut accepted = promise.acceptances();
        if self.world.wrong == Some(Wrong::HighestValue) {
            for acceptance in &mut accepted {
                let others = all.iter().flat_map(|promise| &promise.accepted);
                let values =
                    others.filter(|(slot, _, _)| *slot == acceptance.slot).map(|(_, _, value)| value);
                acceptance.value = values.max().unwrap_or(&acceptance.value).clone();
            }
        }
        seat.proposer.on_promise(
            promise.ballot,
            promise.voter,
            promise.from,
            None,
            Prefix::EMPTY,
            accepted,
            NOW,
        )
    }

    fn learn(
        mut self,
        node: NodeId,
        proposal: &Proposal,
        word: Chosen,
        late: &[Arc<Promised>],
    ) -> Option<State> {
        let mut seat = self.state.seat(node).clone();
        for promise in late {
            let before = seat.clone();
            if !self.hear(&mut seat, promise, &[]).is_empty() || seat == before {
                return None; // a step of its own, or none
            }
        }
        let applied = Prefix(seat.log.len() as u64);
        let value = laws::learn(self.world, node, applied, proposal, word)?;
        seat.log.push(value);
        let applied = Prefix::through(applied.next());
        let (configurations, members) = self.world.membership(&seat.log);
        let horizon = configurations.window().last_open(applied);
        let voters = configurations.at(horizon).map(|configuration| configuration.voters().collect());
        let right = horizon.0 > self.world.slots || voters.as_ref() == self.state.facts.voters(horizon);
        self.broken.note(Law::Voters, right);
        seat.proposer.on_learned(applied);
        seat.proposer.on_applied(configurations, members);
        let effects = seat.proposer.flush(NOW);
        self.sit(node, seat, effects)
    }

    /// A proposer has done something: what it says is sent, and what nobody waits for any more is forgotten.
    fn sit(mut self, node: NodeId, seat: Seat, effects: Vec<proposer::Effect>) -> Option<State> {
        self.state.seats[index(node)] = Part::new(seat);
        self.send(node, effects);
        self.count(node);
        let gone = |promise: &Arc<Promised>| !self.waits_for_promises(promise.ballot);
        if self.state.network.promises.iter().any(gone) {
            let mut network = (*self.state.network).clone();
            network.promises.retain(|promise| !gone(promise));
            self.state.network = Part::new(network);
        }
        self.finish()
    }

    fn send(&mut self, node: NodeId, effects: Vec<proposer::Effect>) {
        if effects.is_empty() {
            return;
        }
        let mut network = (*self.state.network).clone();
        let mut seat = self.state.seat(node).clone();
        for effect in effects {
            let proposer::Effect::Send { to, message } = effect else { continue };
            match message {
                Message::Prepare { ballot, from } => {
                    network.prepares.extend(to.into_iter().map(|to| (ballot, from, to)));
                }
                Message::Accept { slot, .. } if slot.0 > self.world.slots => {}
                Message::Accept { ballot, slot, value, chosen, .. } => {
                    let asked = self.world.commands(ballot, seat.begun, true);
                    let proposal = (slot, ballot, value);
                    laws::on_proposed(self.world, &self.state, &proposal, &asked, &mut self.broken);
                    network.proposals.entry(proposal).or_default().to.extend(to);
                    chosen.into_iter().for_each(|word| network.hear(word));
                    seat.proposed = Prefix::through(slot);
                    self.spoke = true;
                }
                Message::Chosen(word) => {
                    network.hear(word);
                    self.spoke = true;
                }
                message => unreachable!("no proposer says {message:?}"),
            }
        }
        self.state.network = Part::new(network);
        self.state.seats[index(node)] = Part::new(seat);
    }

    /// The proposer of `node` hears every acceptance there is, those of other ballots, too (PMS-17).
    fn count(&mut self, node: NodeId) {
        let Some(seat) = self.state.seats.get(index(node)) else { return };
        let mut counting = (**seat).clone();
        let current = counting.proposer.ballot();
        for ((slot, ballot, _), heard) in &self.state.network.proposals {
            let together = self.world.wrong == Some(Wrong::BallotsCountedTogether);
            let ballot = current.filter(|_| together).unwrap_or(*ballot);
            heard.by.iter().for_each(|&voter| counting.proposer.on_accepted(ballot, *slot, voter));
        }
        let effects = counting.proposer.flush(NOW);
        if counting != **seat {
            self.state.seats[index(node)] = Part::new(counting);
        }
        self.send(node, effects);
    }

    // -- the end of a step --------------------------------------------------------------------------

    fn finish(mut self) -> Option<State> {
        if let Some(node) = self.voted {
            self.state.facts = Arc::new(Facts::of(self.world, &self.state.network, &mut self.broken));
            self.count(node);
        }
        if self.spoke {
            laws::on_heard(self.world, &self.state, &mut self.broken);
        }
        if self.spoke || self.voted.is_some() {
            laws::on_vouched(&self.state, &mut self.broken);
        }
        self.state.broken = self.broken;
        Some(self.state)
    }
}

/// What a disk holds from which this acceptor can be restored, as after a change of segments.
fn records_of(acceptor: &Acceptor) -> Vec<Record> {
    let accepted = acceptor.acceptances(Slot::FIRST);
    let accepted = accepted.map(|a| Record::Accepted { ballot: a.ballot, slot: a.slot, value: a.value });
    acceptor.summary().into_iter().chain(accepted).collect()
}

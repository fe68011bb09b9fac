//! The learner role: a thread that learns what was chosen and applies it.
//!
//! It owns the applied state for writing; everybody else reads it under the lock. After each turn it answers
//! the clients of this replica whose commands it just applied, and tells the core how far it has come. Now
//! and then it has the state written to disk in the background, so that the log can be trimmed.
//!
//! At one place it waits for its disk: before the first slot in which this replica's acceptor votes. Of what was
//! decided before, that acceptor remembers nothing, so this replica's store has to.

use super::checkpoint::{Checkpointer, Loaded, Snapshot, Written};
use super::handle::{Answer, RequestError};
use super::mailbox::Mailbox;
use super::observation::Observation;
use super::roles::{Next, Worker};
use super::{Applied, CoreInput, Shared, State};
use std::sync::Arc;
use std::time::Duration;
use synod_kv::{Request, Retired};
use synod_paxos::learner::{Effect, Learner};
use synod_paxos::machine::Admission;
use synod_paxos::message::{Chosen, Message};
use synod_paxos::mutants::{Mutant, is};
use synod_paxos::types::{Ballot, CommandId, NodeId, Prefix, Slot};
use synod_paxos::value::{Action, Value};

/// What the learner role is told.
pub(crate) enum Input {
    /// A proposal, perhaps with its leader's word on earlier ones.
    Accept { ballot: Ballot, slot: Slot, value: Value, chosen: Option<Chosen> },
    /// A leader's word.
    Chosen(Chosen),
    /// A majority accepted what that ballot proposed there.
    Counted { ballot: Ballot, slot: Slot },
    /// Another learner's message.
    Message { from: NodeId, message: Message },
    /// A peer can be reached, or no longer can.
    Connected { peer: NodeId, up: bool },
    /// What this replica's own log vouches for.
    Recovered(Vec<(Slot, Value)>),
    /// A checkpoint arrived from another replica; none if it could not be had.
    Arrived(Option<Box<State>>),
    /// Write a checkpoint soon, whatever the log's size: something waits for it.
    Checkpoint,
}

/// How often a learner looks for holes.
const TICK: Duration = Duration::from_millis(10);

/// How many slots are applied under one hold of the lock, so that readers get their turn.
const APPLY_AT_ONCE: usize = 64;

/// How many keys are looked at at a time for compacted history to remove.
const SWEEP_BUDGET: usize = 256;

/// About how many old versions leave memory at a time.
const RETIRED_AT_ONCE: usize = 512;

/// One life of the role.
pub(crate) struct LearnerLife {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox<Input>>,
    life: u64,
    forget: bool,
    /// The role, once its files are open.
    open: Option<LearnerRole>,
    /// A checkpoint shall be written, when the one under way is done.
    wanted: bool,
}

impl LearnerLife {
    pub(crate) fn new(
        shared: Arc<Shared>,
        mailbox: Arc<Mailbox<Input>>,
        life: u64,
        forget: bool,
    ) -> LearnerLife {
        LearnerLife { shared, mailbox, life, forget, open: None, wanted: false }
    }

    fn begin(&mut self) -> Result<(), String> {
        let (checkpointer, loaded) = Checkpointer::open(&self.shared, self.forget)?;
        let Loaded { state, durable } = loaded;
        let applied = state.machine.applied();
        let mut role = LearnerRole {
            shared: Arc::clone(&self.shared),
            learner: Learner::new(self.shared.node, self.shared.config.limits.learner, applied),
            checkpointer,
            durable,
            unsaved_bytes: 0,
            sweeping: true,
            retired: Retired::default(),
            life: self.life,
        };
        role.show(state);
        self.shared.core.push(CoreInput::LearnerUp { life: self.life, applied, durable });
        role.report();
        self.open = Some(role);
        Ok(())
    }

    fn work(&mut self, inputs: Vec<Input>) -> Result<(), String> {
        let Some(role) = &mut self.open else { return Ok(()) };
        if inputs.is_empty() && role.sweeping {
            role.sweep();
        }
        let now = self.shared.now();
        let mut effects = Vec::new();
        for input in inputs {
            match input {
                Input::Checkpoint => self.wanted = true,
                Input::Arrived(Some(state)) => {
                    // What was released before it arrived comes first, or the slots would be out of order.
                    if !is(Mutant::InstallsOutOfOrder) {
                        role.carry_out(std::mem::take(&mut effects))?;
                    }
                    let arrived = state.machine.applied();
                    role.install(*state, &mut effects)?;
                    self.wanted |= role.durable < arrived; // not durable here before it is on this disk
                }
                input => effects.extend(role.step(input)),
            }
        }
        effects.extend(role.learner.tick(now));
        role.carry_out(effects)?;
        if let Some(written) = role.checkpointer.poll()? {
            role.on_written(written);
        }
        let due = role.unsaved_bytes >= self.shared.config.checkpoint_bytes;
        if !role.checkpointer.busy() && (self.wanted || due) {
            role.unsaved_bytes = 0;
            self.wanted = false;
            role.checkpointer.start(&self.shared);
        }
        // At the end of a turn, when everybody has their answers.
        role.sweeping |= role.retired.let_go(RETIRED_AT_ONCE);
        Ok(())
    }
}

impl Worker for LearnerLife {
    fn patience(&self) -> Duration {
        match &self.open {
            Some(role) if role.sweeping => Duration::ZERO,
            _ => TICK,
        }
    }

    fn is_ready(&self) -> bool {
        self.mailbox.is_ready()
    }

    fn wait(&self) {
        self.mailbox.wait(self.patience());
    }

    fn turn(&mut self) -> Result<Next, String> {
        if self.open.is_none() {
            self.begin()?;
            return Ok(Next::Again);
        }
        match self.mailbox.take() {
            Some(inputs) => self.work(inputs).map(|()| Next::Again),
            None => {
                self.shared.hide_state();
                Ok(Next::Ended)
            }
        }
    }

    fn close(&self) {
        self.mailbox.close();
    }
}

struct LearnerRole {
    shared: Arc<Shared>,
    learner: Learner,
    checkpointer: Checkpointer,
    /// How far the disk covers.
    durable: Prefix,
    /// Bytes of values applied since the last checkpoint began.
    unsaved_bytes: u64,
    /// There may be something left to remove: compacted history, or old versions that a checkpoint holds.
    sweeping: bool,
    /// Old versions that a checkpoint holds, on their way out of memory.
    retired: Retired,
    life: u64,
}

impl LearnerRole {
    fn step(&mut self, input: Input) -> Vec<Effect> {
        let now = self.shared.now();
        match input {
            Input::Accept { ballot, slot, value, chosen } => {
                self.learner.on_accept(ballot, slot, value, chosen, now)
            }
            Input::Chosen(word) => self.learner.on_chosen(word, now),
            Input::Counted { ballot, slot } => self.learner.on_counted(ballot, slot, now),
            Input::Connected { peer, up: false } => self.learner.on_disconnected(peer, now),
            Input::Connected { peer, up: true } => {
                self.learner.on_connected(peer);
                Vec::new()
            }
            Input::Recovered(entries) => self.learner.on_recovered(entries, now),
            Input::Arrived(None) => {
                self.learner.on_not_installed(now);
                Vec::new()
            }
            Input::Message { from, message } => match message {
                Message::Fetch { from: slot } => {
                    let applied = self.shared.applied();
                    self.learner.on_fetch(from, slot, applied).into_iter().collect()
                }
                Message::Learn { from: first, values, .. } => self.learner.on_learn(first, values, now),
                Message::Entries { from: first, values, chosen } => {
                    self.learner.on_entries(first, values, chosen, now)
                }
                Message::TakeCheckpoint { applied } => self.learner.on_take_checkpoint(from, applied, now),
                Message::Progress(progress) => {
                    self.learner.on_known(progress.chosen, now);
                    Vec::new()
                }
                _ => Vec::new(),
            },
            Input::Arrived(Some(_)) | Input::Checkpoint => Vec::new(),
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), String> {
        let mut chosen = Vec::new();
        for effect in effects {
            match effect {
                Effect::Apply { slot, value } => chosen.push((slot, value)),
                Effect::Send(outgoing) => self.shared.send_one(outgoing),
                Effect::Install { from } => {
                    self.shared.core.push(CoreInput::Install { life: self.life, from })
                }
            }
        }
        let mut rest = chosen.as_slice();
        while !rest.is_empty() {
            self.wait_at_threshold()?;
            let applied = self.apply(&rest[..rest.len().min(APPLY_AT_ONCE)])?;
            rest = &rest[applied..];
        }
        Ok(())
    }

    /// Before the first slot that this replica's acceptor votes in, everything decided so far comes to be durable here.
    ///
    /// Once that slot is applied here this replica no longer counts as failed, and another one may lose its memory.
    /// Then nobody may be left of those who voted before, and what this replica merely has applied ends with its
    /// process: three servers wiped one after the other, then a restart of all, and everything would be lost. So it
    /// waits, while the others go on. If the disk cannot take it, this life ends and the next one tries again.
    fn wait_at_threshold(&mut self) -> Result<(), String> {
        if !self.shared.read_state().as_ref().is_some_and(|state| self.is_at_threshold(state)) {
            return Ok(());
        }
        let Some(snapshot) = Snapshot::take(&self.shared) else { return Ok(()) };
        let written = self.checkpointer.write_now(snapshot)?;
        self.on_written(written);
        Ok(())
    }

    /// Does this replica's acceptor vote in the next slot, and not before it, and is something before it not durable?
    fn is_at_threshold(&self, state: &State) -> bool {
        if is(Mutant::VotesWithoutStore) {
            return false;
        }
        let (applied, configurations) =
            (state.machine.applied(), state.machine.membership().configurations());
        let me = self.shared.voter();
        let votes = |slot| configurations.at(slot).is_some_and(|voters| voters.contains(me));
        self.durable < applied && votes(applied.next()) && !votes(Slot(applied.0))
    }

    /// Would this replica be behind that threshold with this state, and perhaps never have waited there?
    fn is_behind_threshold(&self, state: &State) -> bool {
        let (last, configurations) =
            (Slot(state.machine.applied().0), state.machine.membership().configurations());
        let votes = configurations.at(last).is_some_and(|voters| voters.contains(self.shared.voter()));
        votes && configurations.since(last).is_some_and(|since| self.durable < Prefix::before(since))
    }

    /// The state that everybody reads was written, as it was a while ago.
    fn on_written(&mut self, written: Written) {
        let settle = |state: &mut State| state.store.settle(written.revision, written.cold.clone());
        let retired = self.shared.write_state().as_mut().map(settle);
        self.tell_written(&written, retired.unwrap_or_default());
    }

    fn tell_written(&mut self, written: &Written, retired: Retired) {
        let Written { runs, runs_before, .. } = *written;
        self.durable = written.covered;
        self.retired.append(retired);
        self.sweeping = true;
        self.shared.observe(&Observation::Checkpointed { runs, runs_before });
        self.shared.core.push(CoreInput::Durable { life: self.life, prefix: written.covered });
    }

    /// Applies chosen values in order, answers this replica's clients, and reports. Returns how many: it stops where
    /// the disk has to follow first.
    fn apply(&mut self, batch: &[(Slot, Value)]) -> Result<usize, String> {
        let mut answers: Vec<(CommandId, Result<Answer, RequestError>)> = Vec::new();
        let mut applied = 0;
        let heard = {
            // Taken out and put back only when it is whole again: should this fail half-way, nobody sees, or
            // gives away, a state that is neither before a slot nor after it.
            let mut guard = self.shared.write_state();
            let mut state = guard.take().ok_or("the state is gone although this life showed one")?;
            for (slot, value) in batch {
                if applied > 0 && self.is_at_threshold(&state) {
                    break;
                }
                applied += 1;
                self.unsaved_bytes += value.len() as u64;
                apply_slot(self.shared.node, &mut state, *slot, value, &mut answers)?;
                let hash = state.store.state_hash();
                self.shared.remember_hash(*slot, hash);
                self.shared.observe(&Observation::Applied {
                    slot: *slot,
                    value,
                    hash,
                    machine: &state.machine,
                });
            }
            let heard = state.machine.generation(self.shared.node);
            self.sweeping |= state.store.sweep(0);
            *guard = Some(state);
            heard
        };
        self.shared.answer(answers, heard);
        self.report();
        Ok(applied)
    }

    /// Another replica's state takes the place of this one's.
    fn install(&mut self, mut state: State, effects: &mut Vec<Effect>) -> Result<(), String> {
        let applied = state.machine.applied();
        if applied <= self.shared.applied() {
            self.learner.on_not_installed(self.shared.now());
            return Ok(());
        }
        if self.is_behind_threshold(&state) && !is(Mutant::VotesWithoutStore) {
            let written = self.checkpointer.write_now(Snapshot::of(&state))?; // shown only then, as if it had waited
            let retired = state.store.settle(written.revision, written.cold.clone());
            self.tell_written(&written, retired);
        }
        self.show(state);
        effects.extend(self.learner.on_installed(applied, self.shared.now()));
        self.report();
        Ok(())
    }

    /// Makes `state` what everybody reads, and settles what clients wait for and it already contains.
    fn show(&mut self, state: State) {
        self.learner.on_members(state.machine.membership().members().keys().copied());
        self.sweeping = true;
        let (applied, hash) = (state.machine.applied(), state.store.state_hash());
        self.shared.observe(&Observation::Loaded { applied, hash });
        self.shared.show_state(state);
    }

    fn report(&mut self) {
        let guard = self.shared.read_state();
        let Some(state) = guard.as_ref() else { return };
        let membership = state.machine.membership().clone();
        drop(guard);
        self.shared.votes().on_applied(membership.configurations().clone());
        self.learner.on_members(membership.members().keys().copied());
        self.shared.core.push_quietly(CoreInput::Applied(Applied {
            life: self.life,
            membership,
            chosen: self.learner.chosen(),
            known: self.learner.known(),
            log_start: self.learner.log_start(),
        }));
    }

    fn sweep(&mut self) {
        let mut guard = self.shared.write_state();
        self.sweeping = guard.as_mut().is_some_and(|state| state.store.sweep(SWEEP_BUDGET));
    }
}

/// Applies one chosen value. An error means that this replica cannot go on without diverging.
fn apply_slot(
    node: NodeId,
    state: &mut State,
    slot: Slot,
    value: &Value,
    answers: &mut Vec<(CommandId, Result<Answer, RequestError>)>,
) -> Result<(), String> {
    let unreadable = |what: &dyn std::fmt::Display| {
        format!("slot {slot} holds what this release cannot read: {what}; a newer release may be at work")
    };
    for command in value.commands().map_err(|error| unreadable(&error))? {
        let id = command.id;
        let answer = match state.machine.admit(&command) {
            Admission::Stale => continue,
            Admission::Repeated(answer) => answer.ok_or(RequestError::AnswerLost),
            Admission::Fresh => {
                let answer = match command.action {
                    Action::App(payload) => {
                        let request = Request::decode(payload).map_err(|error| unreadable(&error))?;
                        // No answer is an answer that other replicas may have: this life must not go on.
                        let outcome = state.store.apply(&request).map_err(|error| {
                            format!(
                                "slot {slot} reads what this replica should remember and does not: {error}"
                            )
                        })?;
                        Answer::Store(outcome)
                    }
                    Action::Reconfigure(change) => {
                        Answer::Reconfigured(state.machine.reconfigure(slot, &change))
                    }
                };
                state.machine.answered(id, answer.clone());
                Ok(answer)
            }
        };
        if id.origin == node {
            answers.push((id, answer));
        }
    }
    state.machine.advance(slot);
    Ok(())
}

/// How far the state is applied; nothing while there is none.
pub(crate) fn applied_in(state: Option<&State>) -> Prefix {
    state.map_or(Prefix::EMPTY, |state| state.machine.applied())
}

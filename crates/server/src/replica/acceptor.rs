//! The acceptor role: a thread that owns the acceptor and its log.
//!
//! It takes whatever arrived while the last sync ran, writes all of it as one group, syncs once, and only
//! then lets the answers go (PMS-27). A write or sync that fails ends the role: nothing more is promised on
//! a disk that has lied, and what it holds is read again before it is trusted.

use super::mailbox::Mailbox;
use super::observation::Observation;
use super::roles::{Next, Worker};
use super::status::Role;
use super::{AcceptorView, CoreInput, Shared};
use std::sync::Arc;
use std::time::Duration;
use synod_paxos::acceptor::{Acceptor, Effect, Record};
use synod_paxos::message::{Message, Outgoing};
use synod_paxos::mutants::{Mutant, is};
use synod_paxos::types::{NodeId, Prefix, VoterId};
use synod_storage::wal::{WalError, WriteAheadLog};

/// What the acceptor role is told.
pub(crate) enum Input {
    /// A message for an acceptor.
    Message { from: NodeId, message: Message },
    /// This replica's durable store covers this much.
    Trim(Prefix),
    /// Tell the learner beside it what the log alone can vouch for behind this prefix.
    Vouch { applied: Prefix },
    /// The server stops cleanly: confirm the last group on disk.
    Seal,
}

/// How long the log may be idle before its last group is sealed (rule R9).
const SEAL_AFTER: Duration = Duration::from_millis(100);

/// One life of the role.
pub(crate) struct AcceptorRole {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox<Input>>,
    life: u64,
    forget: bool,
    /// The acceptor and its log, once they are open.
    open: Option<Open>,
}

struct Open {
    acceptor: Acceptor,
    log: WriteAheadLog,
    /// The last group was confirmed on disk.
    sealed: bool,
    /// How many groups this life wrote.
    groups: u64,
    /// What waits to be written, and for no answer's sake.
    records: Vec<Record>,
}

impl AcceptorRole {
    pub(crate) fn new(
        shared: Arc<Shared>,
        mailbox: Arc<Mailbox<Input>>,
        life: u64,
        forget: bool,
    ) -> AcceptorRole {
        AcceptorRole { shared, mailbox, life, forget, open: None }
    }

    fn begin(&mut self) -> Result<(), String> {
        let (voter, log, records) = open(&self.shared, self.forget)?;
        let acceptor = Acceptor::restore(voter, self.shared.config.limits.acceptor, records);
        self.shared.observe(&Observation::Restored { acceptor: &acceptor });
        self.shared.show_acceptor(Some(view(&acceptor, &log)));
        self.shared.core.push(CoreInput::AcceptorUp { life: self.life, voter });
        self.open = Some(Open { acceptor, log, sealed: true, groups: 0, records: Vec::new() });
        Ok(())
    }
}

impl Worker for AcceptorRole {
    fn patience(&self) -> Duration {
        match &self.open {
            Some(open) if open.sealed => Duration::from_secs(1),
            _ => SEAL_AFTER,
        }
    }

    fn is_ready(&self) -> bool {
        self.mailbox.is_ready()
    }

    fn wait(&self) {
        self.mailbox.wait(self.patience());
    }

    fn turn(&mut self) -> Result<Next, String> {
        let Some(open) = &mut self.open else {
            self.begin()?;
            return Ok(Next::Again);
        };
        match self.mailbox.take() {
            Some(inputs) => open.turn(&self.shared, inputs).map(|()| Next::Again),
            None => Ok(Next::Ended),
        }
    }

    fn close(&self) {
        self.mailbox.close();
    }
}

impl Open {
    fn turn(&mut self, shared: &Shared, inputs: Vec<Input>) -> Result<(), String> {
        let idle = inputs.is_empty();
        let mut replies: Vec<Outgoing> = Vec::new();
        let mut must_sync = idle && !self.records.is_empty();
        let mut trim = None;
        let mut seal = idle && !self.sealed;
        for input in inputs {
            seal |= matches!(input, Input::Seal);
            if let Input::Trim(upto) = input {
                trim = Some(upto);
                must_sync = true; // a log lets go of segments only once it says so itself
            }
            for effect in step(shared, &mut self.acceptor, input) {
                match effect {
                    Effect::PersistThenSend { record, reply } => {
                        self.records.push(record);
                        replies.push(reply);
                        must_sync = true;
                    }
                    Effect::Persist(record) => self.records.push(record),
                    Effect::Send(reply) => shared.send_one(reply),
                }
            }
        }
        // Shown before any acceptance is answered, so that a reader never hears of less than was answered.
        shared.show_acceptor(Some(view(&self.acceptor, &self.log)));
        if must_sync && !self.records.is_empty() {
            if is(Mutant::AnswersBeforeDisk) {
                shared.send_all(std::mem::take(&mut replies));
            }
            let started = shared.now();
            self.log.append(&self.records).map_err(|error| error.to_string())?;
            shared.observe(&Observation::Persisted { voter: self.acceptor.id(), records: &self.records });
            shared.note_sync(shared.now().since(started));
            self.records.clear();
            self.sealed = false;
            self.groups += 1;
            shared.send_all(replies);
        }
        if seal {
            self.log.seal().map_err(|error| error.to_string())?;
            self.sealed = true;
        }
        if idle {
            prepare(&mut self.log, PREPARE_IDLE)?;
        } else if must_sync && self.groups.is_multiple_of(PREPARE_EVERY) {
            prepare(&mut self.log, PREPARE_BUSY)?;
        }
        if let Some(upto) = trim {
            self.log.trim(upto).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

fn step(shared: &Shared, acceptor: &mut Acceptor, input: Input) -> Vec<Effect> {
    match input {
        Input::Message { from, message } => match message {
            Message::Prepare { ballot, from: first } => vec![acceptor.on_prepare(from, ballot, first)],
            Message::Accept { ballot, slot, value, chosen, learner } => {
                let accepted = acceptor.on_accept_for(from, learner.unwrap_or(from), ballot, slot, value);
                let mut effects: Vec<Effect> = accepted.into_iter().collect();
                effects.extend(chosen.and_then(|chosen| acceptor.on_chosen(chosen)));
                effects
            }
            Message::Chosen(chosen) => acceptor.on_chosen(chosen).into_iter().collect(),
            _ => Vec::new(),
        },
        Input::Trim(upto) => acceptor.trim(upto).into_iter().collect(),
        Input::Vouch { applied } => {
            shared.tell_learner_surely(super::learner::Input::Recovered(acceptor.chosen_after(applied)));
            Vec::new()
        }
        Input::Seal => Vec::new(),
    }
}

fn view(acceptor: &Acceptor, log: &WriteAheadLog) -> AcceptorView {
    AcceptorView {
        voter: acceptor.id(),
        highest: acceptor.highest(),
        trimmed: acceptor.trimmed(),
        log_bytes: log.bytes(),
    }
}

/// How much of the next segment is filled with zeroes at a time, in bytes: much when there is nothing else to
/// do, little under load, and then only after every so many groups, because it costs a sync.
const PREPARE_IDLE: u64 = 4 << 20;
const PREPARE_BUSY: u64 = 512 << 10;
const PREPARE_EVERY: u64 = 16;

/// Writes some of the next segment ahead, so that no group has to wait for it. A disk without room for that
/// may still have room in the segment at hand.
fn prepare(log: &mut WriteAheadLog, budget: u64) -> Result<(), String> {
    match log.prepare_next(budget) {
        Ok(_) | Err(WalError::Full { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Opens the log of the present incarnation. If its memory is lost or in doubt, that acceptor is dead, and
/// another one begins, with an empty log (rule R1).
fn open(shared: &Shared, forget: bool) -> Result<(VoterId, WriteAheadLog, Vec<Record>), String> {
    if forget {
        shared.home.new_incarnation().map_err(|error| error.to_string())?;
    }
    for _ in 0..2 {
        let identity = shared.home.log_identity().ok_or("the acceptor started before there was a cluster")?;
        match WriteAheadLog::open(shared.home.disk(), identity, shared.home.log_options()) {
            Ok(opened) => {
                let voter = VoterId { node: identity.node, incarnation: identity.incarnation };
                return Ok((voter, opened.log, opened.records));
            }
            Err(error) if error.is_lost_memory() => {
                tracing::error!(role = Role::Acceptor.name(), %error, "a new incarnation begins");
                shared.event("memory-lost", format!("acceptor: {error}; a new incarnation begins"));
                shared.home.new_incarnation().map_err(|error| error.to_string())?;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Err("a new log was lost at once; the disk cannot be trusted".into())
}

//! The replica's front desk: the protocol's [`Front`] and the clients that wait at it.
//!
//! It belongs to the replica, not to a role. A client's thread names its command here, a learner that
//! applied it answers here, and the core sends on to the leader what the front still holds.

use super::handle::{Answer, RequestError};
use std::collections::BTreeMap;
use synod_paxos::front::{self, Front};
use synod_paxos::machine::Machine;
use synod_paxos::types::{CommandId, Generation, NodeId, Time};
use synod_paxos::value::Action;
use tokio::sync::oneshot;

/// How a client learns its answer.
pub(crate) type Waiter = oneshot::Sender<Result<Answer, RequestError>>;

/// Front and waiters, under one lock.
pub(crate) struct Desk {
    pub(crate) front: Front,
    waiters: BTreeMap<CommandId, Waiter>,
    /// Nothing new is taken in: the server is shutting down.
    closed: bool,
}

impl Desk {
    pub(crate) fn new(node: NodeId, generation: Generation, options: front::Options, now: Time) -> Desk {
        let front = Front::new(node, generation, options, now);
        Desk { front, waiters: BTreeMap::new(), closed: false }
    }

    /// Takes a command in. Without a waiter nobody is told what became of it.
    pub(crate) fn submit(
        &mut self,
        action: Action,
        waiter: Option<Waiter>,
        now: Time,
    ) -> Result<(), RequestError> {
        if self.closed {
            return Err(RequestError::Stopped);
        }
        let id = self.front.submit(action, now).map_err(|front::Busy| RequestError::Busy)?;
        if let Some(waiter) = waiter {
            self.waiters.insert(id, waiter);
        }
        Ok(())
    }

    /// A command was applied here; returns who waits for its answer.
    pub(crate) fn answer(&mut self, id: CommandId, now: Time) -> Option<Waiter> {
        self.front.on_applied(id, now);
        self.waiters.remove(&id)
    }

    /// The learner jumped over part of the log, by a checkpoint or by a new life: settle what was applied in
    /// there. `fresh` makes a life above one that was heard of in there, if that is above this one.
    pub(crate) fn settle(
        &mut self,
        machine: &Machine<Answer>,
        fresh: impl Fn(Generation) -> Generation,
        now: Time,
    ) {
        for id in self.front.names() {
            if machine.has_applied(id) {
                let answer = machine.answer(id).cloned().ok_or(RequestError::AnswerLost);
                if let Some(waiter) = self.answer(id, now) {
                    let _ = waiter.send(answer); // the client may have left
                }
            }
        }
        if let Some(heard) =
            machine.generation(self.front.node()).filter(|&heard| heard > self.front.generation())
        {
            for id in self.front.on_gap(heard, fresh(heard), now) {
                if let Some(waiter) = self.waiters.remove(&id) {
                    let _ = waiter.send(Err(RequestError::AnswerLost));
                }
            }
        }
    }

    /// The log has heard of another life of this front. See [`Front::on_generation`].
    pub(crate) fn on_generation(&mut self, heard: Generation, fresh: Generation, now: Time) {
        for (old, new) in self.front.on_generation(heard, fresh, now) {
            if let Some(waiter) = self.waiters.remove(&old) {
                self.waiters.insert(new, waiter);
            }
        }
    }

    /// How many clients' commands wait.
    pub(crate) fn waiting(&self) -> usize {
        self.front.waiting()
    }

    /// Takes nothing new in.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Tells everybody who still waits that this server stops.
    pub(crate) fn dismiss(&mut self) {
        for (_, waiter) in std::mem::take(&mut self.waiters) {
            let _ = waiter.send(Err(RequestError::Stopped));
        }
    }
}

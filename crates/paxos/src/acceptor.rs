//! The acceptor: Paxos' memory.
//!
//! A value is chosen once a majority of acceptors accept it in one ballot, whether or not anybody has
//! noticed. So an acceptor must never forget what it has said, and this module is careful about little else.
//!
//! ```text
//!   proposer              acceptor
//!      | --- Prepare(b) ----> |   "who accepted what from here on?"
//!      | <-- Promise(b) ----- |   durable before it leaves
//!      | --- Accept(b, v) --> |
//!      | <-- Accepted(b) ---- |   durable before it leaves
//! ```
//!
//! Follows "Paxos Made Simple", 2.2, with two departures. One promise covers every slot, also those that do
//! not exist yet (section 3), so there is a single promised ballot. And slots that a durable store covers
//! are trimmed; the trim point is part of every promise, since silence about a trimmed slot means nothing.
//!
//! An acceptor does not know who votes. It answers everybody under its own name, and those who count
//! answers count only the names that the slot's configuration lists.

use crate::message::{Acceptance, Chosen, Message, Outgoing};
use crate::mutants::{Mutant, is};
use crate::types::{Ballot, NodeId, Prefix, Slot, VoterId};
use crate::value::Value;
use std::collections::BTreeMap;

/// A durable change of an acceptor's memory. Replayed in order, records restore it (PMS-16).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// Nothing below `ballot` is accepted from now on.
    Promised {
        /// The ballot promised.
        ballot: Ballot,
    },
    /// A proposal was accepted, which promises its ballot, too (PMS-11).
    Accepted {
        /// The ballot of the proposal.
        ballot: Ballot,
        /// Its slot.
        slot: Slot,
        /// Its value.
        value: Value,
    },
    /// Slots up to here are chosen and covered by this replica's durable store.
    Trimmed {
        /// The trim point.
        upto: Prefix,
    },
    /// A leader's word on what is chosen. Lets a restarted replica apply its own log without asking;
    /// nothing depends on it, so it waits for no sync.
    Chosen(Chosen),
}

/// What an acceptor asks of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make `record` durable; only then may `reply` leave (PMS-27).
    PersistThenSend {
        /// What must be on disk.
        record: Record,
        /// What may then be said.
        reply: Outgoing,
    },
    /// Write `record` some time; nothing waits for it.
    Persist(Record),
    /// May leave at once: harmless even if a crash makes us forget it.
    Send(Outgoing),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Accepted {
    ballot: Ballot,
    value: Value,
}

/// Limits that keep an acceptor's answers and memory bounded. Refusing to answer is always safe (PMS-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// About how many bytes of values one promise carries; longer answers come in parts.
    pub promise_bytes: usize,
    /// Above this many bytes of values that are not trimmed yet, new slots are ignored.
    pub log_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { promise_bytes: 4 << 20, log_bytes: 2 << 30 }
    }
}

/// One acceptor, for all slots.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acceptor {
    id: VoterId,
    limits: Limits,
    promised: Option<Ballot>,
    accepted: BTreeMap<Slot, Accepted>,
    accepted_bytes: usize,
    trimmed: Prefix,
    chosen: Option<Chosen>,
}

impl Acceptor {
    /// An acceptor without a past. `id` must be a fresh incarnation (rule R1), or one that never spoke.
    pub fn new(id: VoterId, limits: Limits) -> Acceptor {
        Acceptor {
            id,
            limits,
            promised: None,
            accepted: BTreeMap::new(),
            accepted_bytes: 0,
            trimmed: Prefix::EMPTY,
            chosen: None,
        }
    }

    /// An acceptor with the memory that `records` hold, in the order in which they were written.
    pub fn restore(id: VoterId, limits: Limits, records: impl IntoIterator<Item = Record>) -> Acceptor {
        let mut acceptor = Acceptor::new(id, limits);
        for record in records {
            acceptor.remember(record);
        }
        acceptor
    }

    /// Under which name this acceptor votes.
    pub fn id(&self) -> VoterId {
        self.id
    }

    /// The highest ballot promised, if any.
    pub fn promised(&self) -> Option<Ballot> {
        self.promised
    }

    /// The trim point.
    pub fn trimmed(&self) -> Prefix {
        self.trimmed
    }

    /// Bytes of values held.
    pub fn bytes(&self) -> usize {
        self.accepted_bytes
    }

    /// Everything this acceptor ever accepted lies in here: the answer to a read's question.
    pub fn highest(&self) -> Prefix {
        let last = self.accepted.last_key_value().map_or(Prefix::EMPTY, |(&slot, _)| Prefix::through(slot));
        if is(Mutant::AnswersReadsLate) { self.trimmed } else { last.max(self.trimmed) }
    }

    /// The latest word of a leader on what is chosen.
    pub fn chosen(&self) -> Option<Chosen> {
        self.chosen
    }

    /// What is accepted in the slots from `from` on.
    pub fn acceptances(&self, from: Slot) -> impl Iterator<Item = Acceptance> + '_ {
        self.accepted.range(from..).map(|(&slot, accepted)| Acceptance {
            slot,
            ballot: accepted.ballot,
            value: accepted.value.clone(),
        })
    }

    /// The chosen values behind `applied` that this memory alone can vouch for: what a restarted learner
    /// may apply before anybody speaks to it. Only where the proposal accepted here is of the ballot in
    /// which the slot was chosen, or higher (PMS-3).
    pub fn chosen_after(&self, applied: Prefix) -> Vec<(Slot, Value)> {
        let Some(chosen) = self.chosen else { return Vec::new() };
        let mut out = Vec::new();
        let mut slot = applied.next();
        while slot >= chosen.from && chosen.upto.contains(slot) {
            match self.accepted.get(&slot) {
                Some(accepted) if accepted.ballot >= chosen.ballot || is(Mutant::VouchesForAnyBallot) => {
                    out.push((slot, accepted.value.clone()))
                }
                _ => break,
            }
            slot = slot.next();
        }
        out
    }

    /// Phase 1 (2.2, P1a). May promise `ballot` unless a higher one was promised. A prepare that comes
    /// twice is answered twice, with the present state (PMS-15).
    pub fn on_prepare(&mut self, from: NodeId, ballot: Ballot, first: Slot) -> Effect {
        if let Some(promised) = self.promised.filter(|&promised| promised > ballot)
            && !is(Mutant::PromisesBelowPromise)
        {
            return self.refuse(from, ballot, promised);
        }
        let reply = self.promise(from, ballot, first);
        if self.promised == Some(ballot) {
            // Said before, hence recorded before; but perhaps in a group whose sync is still under way, so
            // the answer must wait for the disk like the first one did.
            return Effect::PersistThenSend { record: Record::Promised { ballot }, reply };
        }
        self.promised = self.promised.max(Some(ballot));
        if is(Mutant::ForgetsPromise) {
            return Effect::Send(reply);
        }
        Effect::PersistThenSend { record: Record::Promised { ballot }, reply }
    }

    /// Phase 2 (2.2, P1). May accept unless a higher ballot was promised; no prepare of this ballot need
    /// have come before (PMS-6), an equal ballot is accepted (PMS-13), and accepting is promising (PMS-11).
    pub fn on_accept(&mut self, from: NodeId, ballot: Ballot, slot: Slot, value: Value) -> Option<Effect> {
        self.on_accept_for(from, from, ballot, slot, value)
    }

    /// As [`Acceptor::on_accept`], for a proposal whose acceptance is to be told to `learner` (2.3). A refusal goes
    /// to the proposer all the same.
    pub fn on_accept_for(
        &mut self,
        from: NodeId,
        learner: NodeId,
        ballot: Ballot,
        slot: Slot,
        value: Value,
    ) -> Option<Effect> {
        if let Some(promised) = self.promised.filter(|&promised| promised > ballot)
            && !is(Mutant::AcceptsBelowPromise)
        {
            return Some(self.refuse(from, ballot, promised));
        }
        if self.trimmed.contains(slot) {
            return None; // chosen long ago; the proposer will learn it from a learner
        }
        let mutant = is(Mutant::AcceptsBelowPromise) || is(Mutant::AcceptingIsNoPromise);
        if let Some(earlier) = self.accepted.get(&slot).filter(|_| !mutant) {
            assert!(earlier.ballot <= ballot, "slot {slot}: accepted {} above our promise", earlier.ballot);
            if earlier.ballot == ballot {
                if earlier.value != value {
                    // A peer broke PMS-7. Whatever the reason, this memory stays what it was.
                    return None;
                }
                // A repetition. The value is recorded already, perhaps in a group whose sync is under way:
                // a small record behind it makes the answer wait without writing the value again.
                let reply = self.accepted_reply(learner, ballot, slot);
                return Some(Effect::PersistThenSend { record: Record::Promised { ballot }, reply });
            }
        } else if self.accepted_bytes.saturating_add(value.len()) > self.limits.log_bytes {
            return None;
        }
        let record = Record::Accepted { ballot, slot, value };
        self.remember(record.clone());
        let reply = self.accepted_reply(learner, ballot, slot);
        Some(Effect::PersistThenSend { record, reply })
    }

    /// Keeps a leader's word on what is chosen, for this replica's next start.
    pub fn on_chosen(&mut self, chosen: Chosen) -> Option<Effect> {
        let news = self.chosen.is_none_or(|old| (old.ballot, old.upto) < (chosen.ballot, chosen.upto));
        if !news || !chosen.upto.contains(chosen.from) {
            return None; // a newer ballot that has nothing chosen yet says less than an older one
        }
        self.chosen = Some(chosen);
        Some(Effect::Persist(Record::Chosen(chosen)))
    }

    /// Forgets the slots up to `upto`, which must be chosen and covered by this replica's durable store.
    /// The promise stays (PMS-16).
    pub fn trim(&mut self, upto: Prefix) -> Option<Effect> {
        if upto <= self.trimmed {
            return None;
        }
        let record = Record::Trimmed { upto };
        self.remember(record.clone());
        Some(Effect::Persist(record))
    }

    /// Everything that a fresh log must hold for this acceptor to be restored from it, slots apart: what
    /// a log writes when it starts a segment, so that older segments can go.
    pub fn summary(&self) -> Vec<Record> {
        let promised = self.promised.map(|ballot| Record::Promised { ballot });
        let trimmed = (self.trimmed != Prefix::EMPTY).then_some(Record::Trimmed { upto: self.trimmed });
        let chosen = self.chosen.map(Record::Chosen);
        promised.into_iter().chain(trimmed).chain(chosen).collect()
    }

    fn accepted_reply(&self, to: NodeId, ballot: Ballot, slot: Slot) -> Outgoing {
        Outgoing { to, message: Message::Accepted { ballot, slot, voter: self.id } }
    }

    fn promise(&self, to: NodeId, ballot: Ballot, first: Slot) -> Outgoing {
        let mut accepted = Vec::new();
        let mut bytes = 0;
        let mut until = None;
        for acceptance in self.acceptances(first) {
            if is(Mutant::PromiseHidesAcceptances) && acceptance.slot > first {
                break;
            }
            bytes += acceptance.value.len() + 64;
            if bytes > self.limits.promise_bytes && !accepted.is_empty() {
                until = Some(acceptance.slot);
                break;
            }
            accepted.push(acceptance);
        }
        let trimmed = if is(Mutant::PromiseHidesTrimPoint) { Prefix::EMPTY } else { self.trimmed };
        let message = Message::Promise { ballot, voter: self.id, from: first, until, trimmed, accepted };
        Outgoing { to, message }
    }

    fn refuse(&self, to: NodeId, ballot: Ballot, promised: Ballot) -> Effect {
        Effect::Send(Outgoing { to, message: Message::Refused { ballot, promised } })
    }

    /// The one place where memory changes, for live input and replay alike.
    fn remember(&mut self, record: Record) {
        match record {
            Record::Promised { ballot } => self.promised = self.promised.max(Some(ballot)),
            Record::Accepted { ballot, slot, value } => {
                if !is(Mutant::AcceptingIsNoPromise) {
                    self.promised = self.promised.max(Some(ballot));
                }
                if self.trimmed.contains(slot) {
                    return;
                }
                self.accepted_bytes += value.len();
                if let Some(old) = self.accepted.insert(slot, Accepted { ballot, value }) {
                    self.accepted_bytes -= old.value.len();
                }
            }
            Record::Trimmed { upto } => {
                self.trimmed = self.trimmed.max(upto);
                let kept = self.accepted.split_off(&self.trimmed.next());
                let gone = std::mem::replace(&mut self.accepted, kept);
                self.accepted_bytes -= gone.values().map(|a| a.value.len()).sum::<usize>();
            }
            Record::Chosen(chosen) => self.chosen = Some(chosen),
        }
    }
}

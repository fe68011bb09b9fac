//! From a log of batches to commands applied once (section 3, PMS-29, PMS-30).
//!
//! A command may be chosen more than once, because its front sends it again whenever it cannot know whether
//! it was chosen. The machine applies each name once, and keeps the answer as long as its front may still
//! wait for it, so that a front whose learner lost its memory still gets the one true answer. What an older
//! life of a front left behind is refused once a newer one has spoken.
//!
//! Everything here is replicated state: the same on every replica that applied the same prefix, and part of
//! every checkpoint. The store itself stays outside; `A` is whatever it answers.

use crate::membership::{Change, Genesis, Membership};
use crate::mutants::{Mutant, is};
use crate::types::{CommandId, Generation, NodeId, Prefix, Sequence, Slot};
use crate::value::Command;
use crate::wire::{DecodeError, Reader, Writer};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// What is to be done with a command that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission<A> {
    /// Apply it, then tell the answer to [`Machine::answered`].
    Fresh,
    /// It was applied before. The answer, if it is still kept.
    Repeated(Option<A>),
    /// It was left behind by an older life of its front, and never will be applied.
    Stale,
}

/// What the machine remembers of one front.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Session<A> {
    generation: Generation,
    /// Every sequence below this one was applied.
    applied_below: Sequence,
    /// Applied ahead of their turn.
    ahead: BTreeSet<Sequence>,
    /// Answers that the front may still wait for.
    answers: BTreeMap<Sequence, A>,
}

impl<A> Session<A> {
    fn new(generation: Generation) -> Session<A> {
        Session {
            generation,
            applied_below: Sequence::FIRST,
            ahead: BTreeSet::new(),
            answers: BTreeMap::new(),
        }
    }

    fn has_applied(&self, sequence: Sequence) -> bool {
        sequence < self.applied_below || self.ahead.contains(&sequence)
    }

    fn note_applied(&mut self, sequence: Sequence) {
        self.ahead.insert(sequence);
        while self.ahead.remove(&self.applied_below) {
            self.applied_below = self.applied_below.next();
        }
    }
}

/// The replicated state around the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine<A> {
    membership: Membership,
    sessions: BTreeMap<NodeId, Session<A>>,
}

impl<A: Clone> Machine<A> {
    const FORMAT: u8 = 1;

    /// Before the first slot.
    pub fn genesis(genesis: &Genesis) -> Machine<A> {
        Machine { membership: Membership::genesis(genesis), sessions: BTreeMap::new() }
    }

    /// How far the log is applied.
    pub fn applied(&self) -> Prefix {
        self.membership.configurations().applied()
    }

    /// Who belongs to the cluster, and who votes.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The newest life of `node`'s front that the log has heard of.
    pub fn generation(&self, node: NodeId) -> Option<Generation> {
        self.sessions.get(&node).map(|session| session.generation)
    }

    /// Was this command applied?
    pub fn has_applied(&self, id: CommandId) -> bool {
        self.sessions
            .get(&id.origin)
            .is_some_and(|session| session.generation == id.generation && session.has_applied(id.sequence))
    }

    /// The answer kept for a command, if it was applied and its front may still wait.
    pub fn answer(&self, id: CommandId) -> Option<&A> {
        let session = self.sessions.get(&id.origin).filter(|session| session.generation == id.generation)?;
        session.answers.get(&id.sequence)
    }

    /// A command was chosen in the next slot: what is to be done with it?
    pub fn admit(&mut self, command: &Command) -> Admission<A> {
        let id = command.id;
        let session = self.sessions.entry(id.origin).or_insert_with(|| Session::new(id.generation));
        if id.generation < session.generation && !is(Mutant::AppliesStaleLives) {
            return Admission::Stale;
        }
        if id.generation > session.generation {
            *session = Session::new(id.generation);
        }
        while session.answers.first_key_value().is_some_and(|(&kept, _)| kept < command.waiting_from) {
            session.answers.pop_first();
        }
        if session.has_applied(id.sequence) && !is(Mutant::AppliesTwice) {
            return Admission::Repeated(session.answers.get(&id.sequence).cloned());
        }
        session.note_applied(id.sequence);
        Admission::Fresh
    }

    /// Keeps the answer to a command that was just applied.
    pub fn answered(&mut self, id: CommandId, answer: A) {
        if let Some(session) = self.sessions.get_mut(&id.origin) {
            session.answers.insert(id.sequence, answer);
        }
    }

    /// Applies a change of the cluster, chosen in `slot`. True if it did anything.
    pub fn reconfigure(&mut self, slot: Slot, change: &Change) -> bool {
        let changed = self.membership.apply(slot, change);
        if let (true, Change::Remove { node }) = (changed, change)
            && let Some(session) = self.sessions.get_mut(node)
        {
            // Nobody waits there any more. Which names were applied stays known: copies may be under way.
            session.answers.clear();
        }
        changed
    }

    /// Everything chosen in `slot` is applied.
    pub fn advance(&mut self, slot: Slot) {
        assert_eq!(slot, self.applied().next(), "slots are applied in order");
        self.membership.advance(slot);
    }

    /// The form for a checkpoint; `encode` writes one answer.
    pub fn encode(&self, encode: impl Fn(&A) -> Bytes) -> Bytes {
        let mut out = Writer::default();
        out.u8(Self::FORMAT);
        self.membership.encode(&mut out);
        let known = if is(Mutant::CheckpointForgetsSessions) { 0 } else { self.sessions.len() };
        out.u32(u32::try_from(known).expect("one session per node"));
        for (node, session) in self.sessions.iter().take(known) {
            out.u64(node.0);
            out.u64(session.generation.0);
            out.u64(session.applied_below.0);
            out.u32(u32::try_from(session.ahead.len()).expect("bounded by what a front has under way"));
            for sequence in &session.ahead {
                out.u64(sequence.0);
            }
            out.u32(u32::try_from(session.answers.len()).expect("bounded by what a front has under way"));
            for (sequence, answer) in &session.answers {
                out.u64(sequence.0);
                out.bytes(&encode(answer));
            }
        }
        out.finish()
    }

    /// Reads what [`Machine::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not that, or `decode` refuses an answer.
    pub fn decode(
        bytes: Bytes,
        decode: impl Fn(Bytes) -> Result<A, DecodeError>,
    ) -> Result<Machine<A>, DecodeError> {
        let mut input = Reader::new(bytes);
        input.format(Self::FORMAT)?;
        let membership = Membership::decode(&mut input)?;
        let mut sessions = BTreeMap::new();
        for _ in 0..input.count(32)? {
            let node = NodeId(input.u64()?);
            let mut session = Session::new(Generation(input.u64()?));
            session.applied_below = Sequence(input.number("sequence", Sequence::FIRST.0)?);
            for _ in 0..input.count(8)? {
                let sequence = Sequence(input.u64()?);
                if sequence <= session.applied_below {
                    return Err(DecodeError::OutOfRange {
                        what: "sequence ahead of its turn",
                        value: sequence.0,
                    });
                }
                session.ahead.insert(sequence);
            }
            for _ in 0..input.count(12)? {
                let sequence = Sequence(input.u64()?);
                session.answers.insert(sequence, decode(input.bytes()?)?);
            }
            sessions.insert(node, session);
        }
        input.end()?;
        Ok(Machine { membership, sessions })
    }
}

//! What a slot decides: a batch of commands, or nothing at all.
//!
//! A value is encoded once, by the proposer that issues it. From then on the same bytes go to peers, to
//! the log, back into a later leader's phase 2, and only the learner that applies them takes them apart:
//! a value is never re-encoded, split or merged (PMS-1). Bytes that do not decode are an error and never
//! a no-op.

use crate::membership::Change;
use crate::types::{CommandId, Generation, NodeId, Sequence};
pub use crate::wire::{DecodeError, MAX_VALUE_BYTES};
use crate::wire::{Reader, Writer};
use bytes::Bytes;
use std::fmt;

/// The format written by this version. Another first byte is refused.
const FORMAT: u8 = 1;

const KIND_NO_OP: u8 = 0;
const KIND_BATCH: u8 = 1;

const ACTION_APP: u8 = 0;
const ACTION_CHANGE: u8 = 1;

/// One thing to do, exactly once, in the order of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Command {
    /// Its name, under which it is applied once however often it is chosen.
    pub id: CommandId,
    /// The lowest sequence of the same life that still waits for its answer: answers kept for lower
    /// ones may be forgotten.
    pub waiting_from: Sequence,
    /// What to do.
    pub action: Action,
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A request to the store, opaque here.
    App(Bytes),
    /// A change of who belongs to the cluster (section 3 of the paper).
    Reconfigure(Change),
}

/// What one slot decides, in its encoded form. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(Bytes);

impl Value {
    /// The value that does nothing and fills gaps (PMS-34). There is one.
    pub fn no_op() -> Value {
        Value(Bytes::from_static(&[FORMAT, KIND_NO_OP]))
    }

    /// A batch, in the order in which it will be applied.
    pub fn batch(commands: &[Command]) -> Value {
        let payload: usize = commands.iter().map(Command::encoded_len).sum();
        let mut out = Writer::with_capacity(8 + payload);
        out.u8(FORMAT);
        out.u8(KIND_BATCH);
        out.u32(u32::try_from(commands.len()).expect("a batch is bounded by its bytes"));
        for command in commands {
            command.encode(&mut out);
        }
        Value(out.finish())
    }

    /// Takes bytes from a log or a peer for a value. They are not looked into until they are applied.
    pub fn from_encoded(bytes: Bytes) -> Value {
        Value(bytes)
    }

    /// The bytes that stand for this value everywhere.
    pub fn encoded(&self) -> &Bytes {
        &self.0
    }

    /// Length of the encoded form, in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: even a no-op has a form.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Is this the one no-op?
    pub fn is_no_op(&self) -> bool {
        *self == Value::no_op()
    }

    /// The commands inside; none for a no-op. Payloads are slices of the value's own bytes.
    ///
    /// # Errors
    /// When the bytes are no value of this format: the copy is damaged, or was written by a newer release.
    pub fn commands(&self) -> Result<Vec<Command>, DecodeError> {
        let mut input = Reader::new(self.0.clone());
        input.format(FORMAT)?;
        let commands = match input.u8()? {
            KIND_NO_OP => Vec::new(),
            KIND_BATCH => {
                let count = input.count(Command::ENCODED_MIN)?;
                (0..count).map(|_| Command::decode(&mut input)).collect::<Result<_, _>>()?
            }
            kind => return Err(DecodeError::Unknown { what: "kind of value", tag: kind }),
        };
        input.end()?;
        Ok(commands)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.commands() {
            Ok(commands) if commands.is_empty() => write!(f, "no-op"),
            Ok(commands) => f.debug_list().entries(commands.iter().map(|c| c.id)).finish(),
            Err(error) => write!(f, "undecodable value ({error})"),
        }
    }
}

impl Command {
    /// Bytes before the payload.
    pub(crate) const ENCODED_MIN: usize = 8 * 4 + 1;

    /// How many bytes this command adds to a batch, roughly for changes, exactly for requests.
    pub fn encoded_len(&self) -> usize {
        Self::ENCODED_MIN
            + match &self.action {
                Action::App(payload) => 4 + payload.len(),
                Action::Reconfigure(_) => 64,
            }
    }

    /// Writes the command as it stands in a batch and in a forwarded submission.
    pub fn encode(&self, out: &mut Writer) {
        out.u64(self.id.origin.0);
        out.u64(self.id.generation.0);
        out.u64(self.id.sequence.0);
        out.u64(self.waiting_from.0);
        match &self.action {
            Action::App(payload) => {
                out.u8(ACTION_APP);
                out.bytes(payload);
            }
            Action::Reconfigure(change) => {
                out.u8(ACTION_CHANGE);
                change.encode(out);
            }
        }
    }

    /// Reads what [`Command::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are no command.
    pub fn decode(input: &mut Reader) -> Result<Command, DecodeError> {
        let id = CommandId {
            origin: NodeId(input.u64()?),
            generation: Generation(input.u64()?),
            sequence: Sequence(input.u64()?),
        };
        let waiting_from = Sequence(input.u64()?);
        let action = match input.u8()? {
            ACTION_APP => Action::App(input.bytes()?),
            ACTION_CHANGE => Action::Reconfigure(Change::decode(input)?),
            tag => return Err(DecodeError::Unknown { what: "kind of command", tag }),
        };
        Ok(Command { id, waiting_from, action })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(sequence: u64, payload: &'static [u8]) -> Command {
        Command {
            id: CommandId { origin: NodeId(1), generation: Generation(2), sequence: Sequence(sequence) },
            waiting_from: Sequence(1),
            action: Action::App(Bytes::from_static(payload)),
        }
    }

    #[test]
    fn a_batch_comes_back_as_it_went_in() {
        let commands = vec![command(1, b"a"), command(2, b"")];
        assert_eq!(Value::batch(&commands).commands().unwrap(), commands);
        assert_eq!(Value::no_op().commands().unwrap(), vec![]);
    }

    #[test]
    fn pms_01_damaged_bytes_are_an_error_and_never_a_no_op() {
        let good = Value::batch(&[command(1, b"abc")]);
        for cut in 0..good.len() {
            assert!(Value::from_encoded(good.encoded().slice(..cut)).commands().is_err(), "cut at {cut}");
        }
        let mut longer = good.encoded().to_vec();
        longer.push(0);
        assert!(Value::from_encoded(longer.into()).commands().is_err());
        assert!(Value::from_encoded(Bytes::from_static(&[9, 0])).commands().is_err());
    }

    #[test]
    fn a_count_that_the_bytes_cannot_hold_reserves_nothing() {
        let bytes = Bytes::from_static(&[FORMAT, KIND_BATCH, 0xff, 0xff, 0xff, 0xff]);
        assert!(Value::from_encoded(bytes).commands().is_err());
    }
}

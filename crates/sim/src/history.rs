//! What clients asked, what they were told, and when.
//!
//! An [`Operation`] is one call of one client. Its answer is either known, or
//! the call certainly had no effect, or nobody knows: a timeout says nothing
//! about whether the write is on its way. Keeping the three apart is what makes
//! the judges fair. Recorders that are unsure must say [`Outcome::Unknown`].
//!
//! All moments of one history come from one monotonic clock, so that "returned
//! before the other was invoked" means something. Equal moments count as
//! overlapping: a coarse clock may hide a violation, but never invents one.
//!
//! On disk a history is JSON lines, one operation each:
//!
//! ```
//! # use synod_sim::History;
//! let text = r#"{"client":1,"via":"n2","invoked":10,"call":{"put":{"key":"a","value":"1"}},"outcome":{"answered":{"returned":25,"revision":2,"saw":"not_asked"}}}
//! {"client":2,"via":"n1","invoked":30,"call":{"get":{"key":"a"}},"outcome":"unknown"}
//! "#;
//! let history = History::read(text.as_bytes()).unwrap();
//! assert_eq!(history.operations().len(), 2);
//! let mut again = Vec::new();
//! history.write(&mut again).unwrap();
//! assert_eq!(String::from_utf8(again).unwrap(), text);
//! ```

use std::fmt;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text;

/// Who asked. Only for people; the judges do not care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(pub u32);

/// Microseconds on the one monotonic clock of the recorder (or ticks of a
/// simulated one).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

/// etcd's revision: counts changes of the whole store. A new store has 1, its
/// first write makes 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision of a store that nobody has written to.
    pub const NEW_STORE: Revision = Revision(1);
}

/// How many puts a key has seen since it was last created; the creating put
/// makes 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

/// A key. Shown and stored as text, with `\xNN` for what is not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub Vec<u8>);

/// A value. Shown and stored as text, with `\xNN` for what is not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub Vec<u8>);

/// Both are bytes that want to be read; they differ only in what they mean.
macro_rules! readable_bytes {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&text::escape(&self.0))
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.as_bytes().to_vec())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&text::escape(&self.0))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text::unescape(&text).map(Self).map_err(serde::de::Error::custom)
            }
        }
    };
}

readable_bytes!(Key);
readable_bytes!(Value);

/// A key's value with what etcd tells about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The value.
    pub value: Value,
    /// Puts since creation.
    pub version: Version,
    /// The revision that created the key.
    pub created: Revision,
    /// The revision of the last put.
    pub modified: Revision,
}

/// What a client asked for, of one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Call {
    /// Set the key.
    Put {
        /// Which key.
        key: Key,
        /// To what. The judges see most when no two puts write the same value.
        value: Value,
    },
    /// Read the key, linearizably, at the newest revision. (Serializable reads
    /// may be stale by contract and do not belong in a history.)
    Get {
        /// Which key.
        key: Key,
    },
    /// Remove the key.
    Delete {
        /// Which key.
        key: Key,
    },
}

impl Call {
    /// The key it is about.
    pub fn key(&self) -> &Key {
        match self {
            Call::Put { key, .. } | Call::Get { key } | Call::Delete { key } => key,
        }
    }

    /// True if it may change the store.
    pub fn writes(&self) -> bool {
        !matches!(self, Call::Get { .. })
    }
}

/// What an answer told about the key as it was just before the call took effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Saw {
    /// Nothing: a put that did not ask for the previous value.
    NotAsked,
    /// There was no such key: a get that found nothing, a delete that deleted 0,
    /// a put that asked for the previous value and got none.
    Absent,
    /// There was one, but we were not told its value: a delete that deleted 1.
    Present,
    /// There was one, and this is it.
    Was(Entry),
}

/// A successful answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// When the client had it.
    pub returned: Moment,
    /// The revision in its header: of the write itself, or the one that the read
    /// was served at.
    pub revision: Revision,
    /// What it told about the key.
    pub saw: Saw,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With an answer.
    Answered(Answer),
    /// With an error, or not at all, so that it may take effect at any moment
    /// after its invocation, or never.
    Unknown,
    /// With an error that promises that it had no effect and never will.
    NotApplied,
}

/// One call of one client, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Who asked.
    pub client: ClientId,
    /// The replica that was asked, where that is known. Only for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// When the call was sent, or a little earlier.
    pub invoked: Moment,
    /// What was asked.
    pub call: Call,
    /// What came of it.
    pub outcome: Outcome,
}

impl Operation {
    /// The answer, if there was one.
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Answered(answer) => Some(answer),
            Outcome::Unknown | Outcome::NotApplied => None,
        }
    }

    /// True if it was answered and made a revision of its own: every put does,
    /// and a delete that found its key (etcd's behaviour: deleting nothing
    /// changes nothing).
    pub fn made_revision(&self) -> bool {
        self.answer().is_some_and(|answer| match self.call {
            Call::Put { .. } => true,
            Call::Get { .. } => false,
            Call::Delete { .. } => answer.saw != Saw::Absent,
        })
    }

    fn check(&self) -> Result<(), Malformed> {
        let Some(answer) = self.answer() else { return Ok(()) };
        if answer.returned < self.invoked {
            return Err(Malformed::AnsweredBeforeAsked);
        }
        match (&self.call, &answer.saw) {
            (Call::Put { .. }, Saw::Present)
            | (Call::Get { .. }, Saw::NotAsked | Saw::Present)
            | (Call::Delete { .. }, Saw::NotAsked) => Err(Malformed::AnswerToAnotherQuestion),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Operation {
    /// One line: `0.001200 .. 0.004100 s  client 1  put a = 1  ok rev 2  via n3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |moment: Moment| moment.0 as f64 / 1e6;
        write!(f, "{:.6} .. ", seconds(self.invoked))?;
        match self.answer() {
            Some(answer) => write!(f, "{:.6} s", seconds(answer.returned))?,
            None => f.write_str("       ? s")?,
        }
        write!(f, "  client {}  ", self.client.0)?;
        match &self.call {
            Call::Put { key, value } => write!(f, "put {key} = {value}")?,
            Call::Get { key } => write!(f, "get {key}")?,
            Call::Delete { key } => write!(f, "del {key}")?,
        }
        match &self.outcome {
            Outcome::Unknown => f.write_str("  outcome unknown")?,
            Outcome::NotApplied => f.write_str("  refused")?,
            Outcome::Answered(answer) => {
                match (&self.call, &answer.saw) {
                    (_, Saw::NotAsked) => {}
                    (Call::Get { .. }, Saw::Was(entry)) => write!(
                        f,
                        " -> {} (mod {}, version {})",
                        entry.value, entry.modified.0, entry.version.0
                    )?,
                    (Call::Get { .. }, _) => f.write_str(" -> (no such key)")?,
                    (_, Saw::Absent) => f.write_str(" (there was none)")?,
                    (_, Saw::Present) => f.write_str(" (there was one)")?,
                    (_, Saw::Was(entry)) => write!(f, " (was {})", entry.value)?,
                }
                write!(f, "  ok rev {}", answer.revision.0)?;
            }
        }
        match &self.via {
            Some(via) => write!(f, "  via {via}"),
            None => Ok(()),
        }
    }
}

/// Why an operation cannot be part of a history. Always the recorder's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The answer came before the question.
    #[error("it was answered before it was asked")]
    AnsweredBeforeAsked,
    /// For example a get whose answer does not say what it found.
    #[error("its answer does not fit its question")]
    AnswerToAnotherQuestion,
}

/// Why a history could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The reader or writer failed.
    #[error("the history could not be read or written: {0}")]
    Io(#[from] io::Error),
    /// A line is not an operation in JSON.
    #[error("line {line} is not an operation: {source}")]
    Json {
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A line is an operation that makes no sense.
    #[error("line {line} makes no sense: {source}")]
    Malformed {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: Malformed,
    },
}

/// What was asked and answered in one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    operations: Vec<Operation>,
}

impl History {
    /// The operations, in the order in which they were recorded.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Records one more. The order of recording does not matter.
    ///
    /// # Errors
    /// If the operation contradicts itself; it is then not recorded.
    pub fn push(&mut self, operation: Operation) -> Result<(), Malformed> {
        operation.check()?;
        self.operations.push(operation);
        Ok(())
    }

    /// Records them all.
    ///
    /// # Errors
    /// With the first that contradicts itself.
    pub fn from_operations(operations: impl IntoIterator<Item = Operation>) -> Result<Self, Malformed> {
        let mut history = Self::default();
        operations.into_iter().try_for_each(|operation| history.push(operation))?;
        Ok(history)
    }

    /// Reads JSON lines; empty lines are skipped.
    ///
    /// # Errors
    /// With the number of the first line that is not a sensible operation.
    pub fn read(from: impl BufRead) -> Result<Self, HistoryError> {
        let mut history = Self::default();
        for (index, text) in from.lines().enumerate() {
            let (text, line) = (text?, index + 1);
            if text.trim().is_empty() {
                continue;
            }
            let operation =
                serde_json::from_str(&text).map_err(|source| HistoryError::Json { line, source })?;
            history.push(operation).map_err(|source| HistoryError::Malformed { line, source })?;
        }
        Ok(history)
    }

    /// Writes JSON lines.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, mut to: impl Write) -> Result<(), HistoryError> {
        for operation in &self.operations {
            serde_json::to_writer(&mut to, operation).map_err(io::Error::from)?;
            to.write_all(b"\n")?;
        }
        Ok(to.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(invoked: u64, returned: u64, saw: Saw) -> Operation {
        Operation {
            client: ClientId(1),
            via: Some("n3".into()),
            invoked: Moment(invoked),
            call: Call::Get { key: "a".into() },
            outcome: Outcome::Answered(Answer { returned: Moment(returned), revision: Revision(7), saw }),
        }
    }

    #[test]
    fn an_operation_reads_as_a_sentence() {
        let entry =
            Entry { value: "1".into(), version: Version(2), created: Revision(3), modified: Revision(5) };
        assert_eq!(
            get(1_200, 4_100, Saw::Was(entry)).to_string(),
            "0.001200 .. 0.004100 s  client 1  get a -> 1 (mod 5, version 2)  ok rev 7  via n3"
        );
    }

    #[test]
    fn nonsense_is_refused_with_its_line() {
        let mut history = History::default();
        assert_eq!(history.push(get(9, 8, Saw::Absent)), Err(Malformed::AnsweredBeforeAsked));
        assert_eq!(history.push(get(8, 9, Saw::NotAsked)), Err(Malformed::AnswerToAnotherQuestion));
        history.push(get(8, 8, Saw::Absent)).unwrap();

        let mut text = Vec::new();
        history.write(&mut text).unwrap();
        text.extend_from_slice(b"\n{\"client\":1}\n");
        let error = History::read(&text[..]).unwrap_err();
        assert!(matches!(error, HistoryError::Json { line: 3, .. }), "{error}");

        let late = serde_json::to_string(&get(9, 8, Saw::Absent)).unwrap();
        let error = History::read(late.as_bytes()).unwrap_err();
        assert!(matches!(error, HistoryError::Malformed { line: 1, .. }), "{error}");
    }
}

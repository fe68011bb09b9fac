//! Do the answers agree with the order that the revisions give?
//!
//! etcd's API reveals its order: every change of the store makes one revision,
//! every answer names the revision it belongs to. So no search is needed. The
//! judge lays all writes out by revision (the *log*), replays a model of the
//! store along it once, and compares every answer with the model at its revision:
//! value, version, create and mod revision, previous value. Then it demands that
//! revisions respect real time: of two operations, one answered before the other
//! was asked, the second has no smaller revision, and a larger one if it wrote.
//!
//! **Writes of unknown fate** are looked up in the log: whoever saw their value
//! also saw its mod revision. Those that nobody saw may have made one of the
//! *gaps*, revisions that no known write made. There may be no more gaps than
//! such writes: a gap too many was made by nobody, for example by one put applied
//! twice. And where a gap might be a write to the key in question, the judge is
//! lenient in what that write could have changed, and in nothing else.
//!
//! The history must begin with the store as it was at the given revision, empty,
//! and hold every write made to it since.

mod log;
mod replay;

use std::fmt;

use crate::history::{History, Key, Operation, Revision, Value};

/// What a good history was found to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Writes whose revision is known.
    pub writes: usize,
    /// How many of these are of unknown fate, and were found because somebody
    /// saw what they wrote.
    pub found: usize,
    /// Writes of unknown fate of which nothing was seen.
    pub unresolved: usize,
    /// The largest revision that any answer named.
    pub last: Revision,
}

/// Why no store could have answered so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Two writes were told the same revision.
    SharedRevision {
        /// That revision.
        revision: Revision,
        /// One of them.
        one: Operation,
        /// The other.
        other: Operation,
    },
    /// A write was told a revision that the store had before it, or a read one
    /// smaller than the store began with.
    BeforeTheBeginning {
        /// Which.
        operation: Operation,
        /// The revision of the store when the history began.
        beginning: Revision,
    },
    /// Somebody saw a value that nobody wrote at that revision.
    NeverWritten {
        /// Who saw it.
        operation: Operation,
        /// What it saw.
        value: Value,
        /// And where.
        revision: Revision,
    },
    /// An answer differs from what the key held at its revision.
    WrongAnswer {
        /// Which.
        operation: Operation,
        /// What the model of the store says.
        expected: Expected,
    },
    /// More revisions were made than writes can have made them.
    MadeByNobody {
        /// The first revision that no known write made.
        revision: Revision,
        /// How many such revisions there are.
        gaps: u64,
        /// How many writes of unknown fate could have made them.
        unresolved: usize,
    },
    /// Revisions contradict real time.
    AgainstTime {
        /// It was answered before the other was asked,
        earlier: Operation,
        /// and has too large a revision for that.
        earlier_revision: Revision,
        /// It was asked after the other was answered,
        later: Operation,
        /// and has too small a revision for that.
        later_revision: Revision,
    },
}

/// What the model says a key held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Absent,
    /// This.
    Present(crate::history::Entry),
    /// This value, written at this revision. (Its version and create revision
    /// may depend on writes of unknown fate.)
    Value(Value, Revision),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Absent => f.write_str("no such key"),
            Expected::Present(entry) => write!(
                f,
                "{} (mod {}, version {}, created {})",
                entry.value, entry.modified.0, entry.version.0, entry.created.0
            ),
            Expected::Value(value, modified) => write!(f, "{value} (mod {})", modified.0),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::SharedRevision { revision, one, other } => {
                write!(f, "two writes were told revision {}:\n  {one}\n  {other}", revision.0)
            }
            Violation::BeforeTheBeginning { operation, beginning } => write!(
                f,
                "a revision from before this history, which began after revision {}:\n  {operation}",
                beginning.0
            ),
            Violation::NeverWritten { operation, value, revision } => write!(
                f,
                "nobody can have written {value} at revision {} before it was seen:\n  {operation}",
                revision.0
            ),
            Violation::WrongAnswer { operation, expected } => {
                write!(f, "a wrong answer:\n  {operation}\n  at that revision it was: {expected}")
            }
            Violation::MadeByNobody { revision, gaps, unresolved } => write!(
                f,
                "revision {} was made by nobody: {gaps} such revisions, and only {unresolved} \
                 writes of unknown fate",
                revision.0
            ),
            Violation::AgainstTime { earlier, earlier_revision, later, later_revision } => write!(
                f,
                "revisions against time: this was answered at revision {}\n  {earlier}\n\
                 before this was asked, which has revision {}\n  {later}",
                earlier_revision.0, later_revision.0
            ),
        }
    }
}

impl std::error::Error for Violation {}

/// Judges a history of a store that was empty at revision `beginning`
/// ([`Revision::NEW_STORE`] for a new one). Takes n log n.
///
/// # Errors
/// With the first violation found.
pub fn check(history: &History, beginning: Revision) -> Result<Order, Box<Violation>> {
    let operations = history.operations();
    let log = log::Log::build(operations, beginning)?;
    replay::compare(operations, &log)?;
    respect_time(operations, &log)?;
    Ok(Order { writes: log.len(), found: log.found(), unresolved: log.unresolved(), last: log.last() })
}

/// Of two operations, one answered before the other was asked, the later has no
/// smaller revision, and a larger one if it made one.
fn respect_time(operations: &[Operation], log: &log::Log) -> Result<(), Box<Violation>> {
    let mut asked: Vec<(&Operation, Revision)> = operations
        .iter()
        .enumerate()
        .filter_map(|(index, operation)| Some((operation, log.revision_of(index, operation)?)))
        .collect();
    let mut answered: Vec<_> = asked
        .iter()
        .filter_map(|&(operation, revision)| Some((operation.answer()?.returned, operation, revision)))
        .collect();
    asked.sort_by_key(|(operation, _)| operation.invoked);
    answered.sort_by_key(|&(returned, ..)| returned);

    let mut answered = answered.into_iter().peekable();
    let mut newest: Option<(&Operation, Revision)> = None;
    for (later, later_revision) in asked {
        while let Some((_, operation, revision)) =
            answered.next_if(|&(returned, ..)| returned < later.invoked)
        {
            if newest.is_none_or(|(_, newest)| newest < revision) {
                newest = Some((operation, revision));
            }
        }
        let Some((earlier, earlier_revision)) = newest else { continue };
        // An operation that is not a read and has a place in the log is a write.
        let writes = later.made_revision() || later.answer().is_none();
        if later_revision < earlier_revision || writes && later_revision == earlier_revision {
            return Err(Box::new(Violation::AgainstTime {
                earlier: earlier.clone(),
                earlier_revision,
                later: later.clone(),
                later_revision,
            }));
        }
    }
    Ok(())
}

/// A change of one key at one revision.
#[derive(Clone, Debug)]
struct Change<'a> {
    key: &'a Key,
    /// `None`: deleted.
    value: Option<&'a Value>,
    /// Which operation made it.
    operation: usize,
}

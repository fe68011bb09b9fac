//! Could one single copy of each key have answered so?
//!
//! A history is linearizable if every operation can be given one instant between
//! its invocation and its answer such that, executed one after another in that
//! order, the operations give exactly the answers that the clients got. Keys are
//! independent of each other, so each is judged alone (Herlihy and Wing's
//! locality).
//!
//! The judge looks only at values and times. Revisions are used as a *hint* for
//! where to search first and never as evidence: with honest revisions the first
//! attempt succeeds, and lying ones only make the search longer.
//!
//! The search itself is `search.rs`; when it fails, `shrink.rs` removes from the
//! history whatever the contradiction does not need, until a handful of
//! operations is left that a person can check by hand.
//!
//! ```
//! use synod_sim::{History, linearizable::{self, Verdict}};
//!
//! // The put was acknowledged before the get was asked, and yet:
//! let stale = History::read(br#"
//! {"client":1,"invoked":10,"call":{"put":{"key":"a","value":"1"}},"outcome":{"answered":{"returned":20,"revision":2,"saw":"not_asked"}}}
//! {"client":2,"invoked":30,"call":{"get":{"key":"a"}},"outcome":{"answered":{"returned":40,"revision":1,"saw":"absent"}}}
//! "#.as_slice()).unwrap();
//! let verdict = linearizable::check(&stale, linearizable::Effort::default());
//! assert!(matches!(verdict, Verdict::Contradiction(_)));
//! ```

mod search;
mod shrink;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::history::{Call, History, Key, Moment, Operation, Outcome, Revision, Saw, Value};
use search::Found;

/// How many moves the search may try per key before it gives up. Good histories
/// need about one per operation; bad or strange ones can need
/// exponentially many in the number of clients that work on one key at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effort(pub u64);

impl Default for Effort {
    /// Some seconds and some hundred megabytes in the worst case.
    fn default() -> Self {
        Self(2_000_000)
    }
}

/// What the judge says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes: one copy of each key could have answered so.
    Linearizable,
    /// No, and these operations show it.
    Contradiction(Contradiction),
    /// The search gave up. This says nothing about the history.
    Undecided {
        /// On this key.
        key: Key,
        /// After this effort.
        effort: Effort,
    },
}

/// A few operations on one key that no order explains.
///
/// Everything else that happened to the key may be thought of as optional
/// (writes) or absent (reads): the contradiction needs none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The key they are all about.
    pub key: Key,
    /// The operations, by invocation; those that wrote what others saw included.
    pub operations: Vec<Operation>,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operations.len() {
            1 => write!(f, "key {}: nothing explains this answer:", self.key)?,
            n => write!(f, "key {}: no order of these {n} operations explains the answers:", self.key)?,
        }
        self.operations.iter().try_for_each(|operation| write!(f, "\n  {operation}"))
    }
}

impl std::error::Error for Contradiction {}

/// Judges a history that begins with an empty store and holds every write to it.
///
/// Stops at the first key, in key order, that is not linearizable. A key on
/// which the search gave up is only reported if no other key is in contradiction.
pub fn check(history: &History, effort: Effort) -> Verdict {
    let mut undecided = None;
    for (key, steps) in by_key(history.operations()) {
        match search::search(&steps, &mut effort.clone()) {
            Found::Order => {}
            Found::NoOrder => {
                return Verdict::Contradiction(explain(key, &steps, history.operations()));
            }
            Found::GaveUp => undecided = undecided.or(Some(key)),
        }
    }
    match undecided {
        Some(key) => Verdict::Undecided { key: key.clone(), effort },
        None => Verdict::Linearizable,
    }
}

fn explain(key: &Key, steps: &[Step], operations: &[Operation]) -> Contradiction {
    let core = shrink::shrink(steps.to_vec());
    let writers = core.iter().flat_map(|kept| {
        let puts = steps.iter().filter(|step| step.writes.is_some_and(|to| to != KeyState::ABSENT));
        match kept.needs {
            Needs::Nothing => Vec::new(),
            // Any put would do; show the last that may have come before.
            Needs::Something => puts
                .filter(|put| Some(put.invoked) <= kept.returned && put.operation != kept.operation)
                .max_by_key(|put| put.invoked)
                .into_iter()
                .collect(),
            Needs::Exactly(state) => puts.filter(|put| put.writes == Some(state)).collect(),
        }
    });
    let mut shown: Vec<usize> = core.iter().chain(writers).map(|step| step.operation).collect();
    shown.sort_by_key(|&index| (operations[index].invoked, index));
    shown.dedup();
    Contradiction {
        key: key.clone(),
        operations: shown.into_iter().map(|index| operations[index].clone()).collect(),
    }
}

/// What a key holds: nothing, or a value, given as its number in a table of the
/// values that occur (comparing and hashing numbers is cheaper).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct KeyState(Option<u32>);

impl KeyState {
    const ABSENT: Self = Self(None);
    /// Some value that no answer tells.
    const UNTOLD: Self = Self(Some(u32::MAX));
}

/// What an operation must find just before its instant for its answer to be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// It did not say what it found.
    Nothing,
    /// Some value, it did not say which.
    Something,
    /// Exactly this.
    Exactly(KeyState),
}

impl Needs {
    fn exactly(self) -> Option<KeyState> {
        match self {
            Needs::Exactly(state) => Some(state),
            Needs::Nothing | Needs::Something => None,
        }
    }

    fn met_by(self, state: KeyState) -> bool {
        match self {
            Needs::Nothing => true,
            Needs::Something => state != KeyState::ABSENT,
            Needs::Exactly(needed) => state == needed,
        }
    }
}

/// An operation as the search sees it.
#[derive(Clone, Debug)]
struct Step {
    /// Which operation of the history this is.
    operation: usize,
    invoked: Moment,
    /// `None`: nobody knows whether or when it happened.
    returned: Option<Moment>,
    needs: Needs,
    /// What it leaves behind; `None` if it changes nothing.
    writes: Option<KeyState>,
    /// Where it may be in the order, if revisions can be believed.
    hint: Option<Revision>,
}

/// Splits a history into the steps of each key, ordered by invocation. What
/// cannot matter is left out: refused calls, and reads without an answer.
fn by_key(operations: &[Operation]) -> BTreeMap<&Key, Vec<Step>> {
    let mut numbers: HashMap<&Value, u32> = HashMap::new();
    let mut number_of = |value| {
        let next = numbers.len() as u32;
        KeyState(Some(*numbers.entry(value).or_insert(next)))
    };
    let mut keys: BTreeMap<&Key, Vec<Step>> = BTreeMap::new();
    for (index, operation) in operations.iter().enumerate() {
        let writes = match &operation.call {
            Call::Put { value, .. } => Some(number_of(value)),
            Call::Delete { .. } => Some(KeyState::ABSENT),
            Call::Get { .. } => None,
        };
        let step = match &operation.outcome {
            Outcome::NotApplied => continue,
            Outcome::Unknown if writes.is_none() => continue,
            Outcome::Unknown => Step {
                operation: index,
                invoked: operation.invoked,
                returned: None,
                needs: Needs::Nothing,
                writes,
                hint: None,
            },
            Outcome::Answered(answer) => Step {
                operation: index,
                invoked: operation.invoked,
                returned: Some(answer.returned),
                needs: match &answer.saw {
                    Saw::NotAsked => Needs::Nothing,
                    Saw::Absent => Needs::Exactly(KeyState::ABSENT),
                    Saw::Present => Needs::Something,
                    Saw::Was(entry) => Needs::Exactly(number_of(&entry.value)),
                },
                // A delete that found nothing is a read.
                writes: writes.filter(|_| operation.made_revision()),
                hint: Some(answer.revision),
            },
        };
        keys.entry(operation.call.key()).or_default().push(step);
    }
    for steps in keys.values_mut() {
        steps.sort_by_key(|step| (step.invoked, step.operation));
    }
    keys
}

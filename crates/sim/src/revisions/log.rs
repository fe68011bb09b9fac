//! Every write at its revision, as far as answers tell.

use std::collections::{BTreeMap, HashMap};

use super::{Change, Violation};
use crate::history::{Call, Key, Moment, Operation, Outcome, Revision, Saw, Value};

/// The writes of a history by revision, and what is not known about them.
pub(super) struct Log<'a> {
    beginning: Revision,
    last: Revision,
    /// By revision, ascending.
    changes: Vec<(Revision, Change<'a>)>,
    /// The revisions of writes of unknown fate that somebody saw.
    found: HashMap<usize, Revision>,
    /// How many writes of unknown fate nobody saw,
    unresolved: usize,
    /// and which kinds of them each key has.
    suspects: HashMap<&'a Key, Suspects>,
}

/// Kinds of unseen writes of unknown fate to one key.
#[derive(Clone, Copy, Default)]
pub(super) struct Suspects {
    pub(super) put: bool,
    pub(super) delete: bool,
}

/// Somebody saw a value at a revision that no answered write has.
struct Sighting<'a> {
    key: &'a Key,
    value: &'a Value,
    /// The earliest answer that tells of it.
    seen: Moment,
    by: &'a Operation,
}

impl<'a> Log<'a> {
    pub(super) fn build(operations: &'a [Operation], beginning: Revision) -> Result<Self, Box<Violation>> {
        let mut changes = answered_writes(operations, beginning)?;
        let sightings = sightings(operations, &changes)?;

        let mut unseen: HashMap<(&Key, &Value), Vec<usize>> = HashMap::new();
        let mut by_invocation: Vec<usize> = (0..operations.len()).collect();
        by_invocation.sort_by_key(|&index| std::cmp::Reverse(operations[index].invoked));
        for index in by_invocation {
            if let (Outcome::Unknown, Call::Put { key, value }) =
                (&operations[index].outcome, &operations[index].call)
            {
                unseen.entry((key, value)).or_default().push(index);
            }
        }
        let mut found = HashMap::new();
        for (revision, Sighting { key, value, seen, by }) in sightings {
            // Of puts of the same value the one asked first made the smallest
            // revision, as far as anybody can tell.
            let put = unseen.get_mut(&(key, value)).and_then(Vec::pop);
            match put.filter(|&index| operations[index].invoked <= seen && revision > beginning) {
                Some(index) => {
                    found.insert(index, revision);
                    changes.insert(revision, Change { key, value: Some(value), operation: index });
                }
                None => {
                    return Err(Box::new(Violation::NeverWritten {
                        operation: by.clone(),
                        value: value.clone(),
                        revision,
                    }));
                }
            }
        }

        let mut suspects: HashMap<&Key, Suspects> = HashMap::new();
        let mut unresolved = 0;
        for (index, operation) in operations.iter().enumerate() {
            if operation.outcome != Outcome::Unknown || !operation.call.writes() || found.contains_key(&index)
            {
                continue;
            }
            unresolved += 1;
            let kinds = suspects.entry(operation.call.key()).or_default();
            match operation.call {
                Call::Delete { .. } => kinds.delete = true,
                Call::Put { .. } | Call::Get { .. } => kinds.put = true,
            }
        }

        let told = operations.iter().filter_map(|operation| Some(operation.answer()?.revision));
        let last = told.chain(changes.keys().copied()).max().unwrap_or(beginning);
        let log =
            Self { beginning, last, changes: changes.into_iter().collect(), found, unresolved, suspects };
        log.no_gap_too_many()?;
        Ok(log)
    }

    fn no_gap_too_many(&self) -> Result<(), Box<Violation>> {
        let gaps = self.last.0 - self.beginning.0 - self.changes.len() as u64;
        if gaps <= self.unresolved as u64 {
            return Ok(());
        }
        let mut first = self.beginning.0 + 1;
        for (revision, _) in &self.changes {
            if revision.0 != first {
                break;
            }
            first += 1;
        }
        Err(Box::new(Violation::MadeByNobody {
            revision: Revision(first),
            gaps,
            unresolved: self.unresolved,
        }))
    }

    pub(super) fn changes(&self) -> &[(Revision, Change<'a>)] {
        &self.changes
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn found(&self) -> usize {
        self.found.len()
    }

    pub(super) fn unresolved(&self) -> usize {
        self.unresolved
    }

    pub(super) fn beginning(&self) -> Revision {
        self.beginning
    }

    pub(super) fn last(&self) -> Revision {
        self.last
    }

    /// The place of an operation in the order; `None` if it is not known.
    pub(super) fn revision_of(&self, index: usize, operation: &Operation) -> Option<Revision> {
        match operation.answer() {
            Some(answer) => Some(answer.revision),
            None => self.found.get(&index).copied(),
        }
    }

    /// Which unseen writes to `key` may have happened after `after` and not after
    /// `until`: none at all if every revision between is accounted for.
    pub(super) fn suspects(&self, key: &Key, after: Revision, until: Revision) -> Suspects {
        let Some(&suspects) = self.suspects.get(key) else { return Suspects::default() };
        let place = |revision| self.changes.partition_point(|&(other, _)| other <= revision);
        let known = place(until).saturating_sub(place(after)) as u64;
        match until.0.saturating_sub(after.0) > known {
            true => suspects,
            false => Suspects::default(),
        }
    }
}

fn answered_writes(
    operations: &[Operation],
    beginning: Revision,
) -> Result<BTreeMap<Revision, Change<'_>>, Box<Violation>> {
    let mut changes: BTreeMap<Revision, Change> = BTreeMap::new();
    for (index, operation) in operations.iter().enumerate() {
        let Some(answer) = operation.answer() else { continue };
        let writes = operation.made_revision();
        if answer.revision < beginning || writes && answer.revision == beginning {
            let operation = operation.clone();
            return Err(Box::new(Violation::BeforeTheBeginning { operation, beginning }));
        }
        if !writes {
            continue;
        }
        let value = match &operation.call {
            Call::Put { value, .. } => Some(value),
            Call::Get { .. } | Call::Delete { .. } => None,
        };
        let change = Change { key: operation.call.key(), value, operation: index };
        if let Some(other) = changes.insert(answer.revision, change) {
            return Err(Box::new(Violation::SharedRevision {
                revision: answer.revision,
                one: operations[other.operation].clone(),
                other: operation.clone(),
            }));
        }
    }
    Ok(changes)
}

/// What was seen at revisions that no answered write has.
fn sightings<'a>(
    operations: &'a [Operation],
    changes: &BTreeMap<Revision, Change>,
) -> Result<BTreeMap<Revision, Sighting<'a>>, Box<Violation>> {
    let mut sightings: BTreeMap<Revision, Sighting> = BTreeMap::new();
    for operation in operations {
        let Some(answer) = operation.answer() else { continue };
        let Saw::Was(entry) = &answer.saw else { continue };
        if changes.contains_key(&entry.modified) {
            continue; // whether it is the same is for the replay to say
        }
        let key = operation.call.key();
        let sighting = sightings.entry(entry.modified).or_insert(Sighting {
            key,
            value: &entry.value,
            seen: answer.returned,
            by: operation,
        });
        if (sighting.key, sighting.value) != (key, &entry.value) {
            return Err(Box::new(Violation::NeverWritten {
                operation: operation.clone(),
                value: entry.value.clone(),
                revision: entry.modified,
            }));
        }
        sighting.seen = sighting.seen.min(answer.returned);
    }
    Ok(sightings)
}

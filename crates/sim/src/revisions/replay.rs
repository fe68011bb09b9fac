//! The model of the store, led along the log once.

use std::collections::HashMap;

use super::log::Log;
use super::{Expected, Violation};
use crate::history::{Entry, Key, Operation, Revision, Saw, Value, Version};

/// Compares every answer with the model at its revision.
pub(super) fn compare(operations: &[Operation], log: &Log<'_>) -> Result<(), Box<Violation>> {
    // A write saw the key just before its own revision, a read at its revision.
    let mut answered: Vec<(Revision, &Operation)> = operations
        .iter()
        .filter_map(|operation| {
            let revision = operation.answer()?.revision;
            let sees = match operation.made_revision() {
                true => Revision(revision.0 - 1),
                false => revision,
            };
            Some((sees, operation))
        })
        .collect();
    answered.sort_by_key(|&(sees, _)| sees);

    let mut model = Model { keys: HashMap::new(), log };
    let mut changes = log.changes().iter().peekable();
    for (sees, operation) in answered {
        while let Some((revision, change)) = changes.next_if(|(revision, _)| *revision <= sees) {
            model.apply(*revision, change.key, change.value);
        }
        let answer = operation.answer().expect("only answered ones are here");
        model.explain(operation.call.key(), &answer.saw, sees).map_err(|expected| {
            Box::new(Violation::WrongAnswer { operation: operation.clone(), expected })
        })?;
    }
    Ok(())
}

struct Model<'a> {
    keys: HashMap<&'a Key, Known<'a>>,
    log: &'a Log<'a>,
}

/// What is known about a key.
struct Known<'a> {
    /// Of its last change in the log.
    since: Revision,
    /// What that change left behind.
    state: State<'a>,
}

enum State<'a> {
    Absent,
    Present(Entry),
    /// An unseen write of unknown fate may have come between the last two
    /// changes, so version and create revision are open until somebody tells.
    PresentSomehow(&'a Value),
}

impl<'a> Model<'a> {
    fn apply(&mut self, revision: Revision, key: &'a Key, value: Option<&'a Value>) {
        let beginning = self.log.beginning();
        let known = self.keys.entry(key).or_insert(Known { since: beginning, state: State::Absent });
        let before = Revision(revision.0 - 1);
        let between = self.log.suspects(key, known.since, before);
        let state = match (value, &known.state) {
            (None, _) => State::Absent,
            (Some(value), State::PresentSomehow(_)) => State::PresentSomehow(value),
            (Some(value), _) if between.put || between.delete => State::PresentSomehow(value),
            (Some(value), State::Absent) => State::Present(Entry {
                value: value.clone(),
                version: Version(1),
                created: revision,
                modified: revision,
            }),
            (Some(value), State::Present(old)) => State::Present(Entry {
                value: value.clone(),
                version: Version(old.version.0 + 1),
                created: old.created,
                modified: revision,
            }),
        };
        *known = Known { since: revision, state };
    }

    /// Could the key have looked like this at `at`? `Err`: no, but so.
    fn explain(&mut self, key: &'a Key, saw: &Saw, at: Revision) -> Result<(), Expected> {
        let beginning = self.log.beginning();
        let known = self.keys.entry(key).or_insert(Known { since: beginning, state: State::Absent });
        let since_then = self.log.suspects(key, known.since, at);
        let expected = match &known.state {
            State::Absent => Expected::Absent,
            State::Present(entry) => Expected::Present(entry.clone()),
            State::PresentSomehow(value) => Expected::Value((*value).clone(), known.since),
        };
        let explained = match (saw, &known.state) {
            (Saw::NotAsked, _) => true,
            (Saw::Absent, State::Absent) => true,
            (Saw::Absent, _) if since_then.delete => {
                // So it was deleted; whoever looks next must not see it again.
                *known = Known { since: at, state: State::Absent };
                true
            }
            (Saw::Absent, _) => false,
            (Saw::Present, State::Absent) => since_then.put,
            (Saw::Present, _) => true,
            // A write of unknown fate that was seen is in the log by now.
            (Saw::Was(_), State::Absent) => false,
            (Saw::Was(seen), State::Present(entry)) => seen == entry,
            (Saw::Was(seen), State::PresentSomehow(value)) => {
                let possible = seen.value == **value
                    && seen.modified == known.since
                    && beginning < seen.created
                    && seen.created <= seen.modified
                    && (1..=seen.modified.0 - seen.created.0 + 1).contains(&seen.version.0);
                if possible {
                    // Whoever looks next must see the same.
                    known.state = State::Present(seen.clone());
                }
                possible
            }
        };
        if explained { Ok(()) } else { Err(expected) }
    }
}

//! An honest store, histories made with it, and the slowest judges there are.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test file uses its part

use std::collections::BTreeMap;

use proptest::prelude::*;
use synod_sim::{
    Answer, Call, ClientId, Entry, History, Key, Moment, Operation, Outcome, Revision, Saw, Value, Version,
};

/// etcd's rules for one put, get or delete at a time.
#[derive(Clone)]
pub struct HonestStore {
    pub revision: u64,
    pub keys: BTreeMap<Key, Entry>,
}

impl Default for HonestStore {
    fn default() -> Self {
        Self { revision: Revision::NEW_STORE.0, keys: BTreeMap::new() }
    }
}

impl HonestStore {
    /// Executes `call`; returns the revision of the answer and what was there before.
    pub fn execute(&mut self, call: &Call) -> (Revision, Option<Entry>) {
        let before = self.keys.get(call.key()).cloned();
        match call {
            Call::Get { .. } => {}
            Call::Put { key, value } => {
                self.revision += 1;
                let revision = Revision(self.revision);
                let (version, created) =
                    before.as_ref().map_or((1, revision), |old| (old.version.0 + 1, old.created));
                self.keys.insert(
                    key.clone(),
                    Entry { value: value.clone(), version: Version(version), created, modified: revision },
                );
            }
            Call::Delete { key } => {
                if self.keys.remove(key).is_some() {
                    self.revision += 1;
                }
            }
        }
        (Revision(self.revision), before)
    }
}

/// One call of a script, and what shall become of it.
#[derive(Clone, Debug)]
pub struct Line {
    pub call: Call,
    pub fate: Fate,
    /// Does it ask for the previous value?
    pub curious: bool,
    /// Ticks between invocation and effect, and between effect and answer;
    /// effects are ten ticks apart.
    pub lead: u64,
    pub lag: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Answered,
    UnknownButApplied,
    UnknownAndLost,
    Refused,
}

/// Executes the lines in their order, and records what clients would see.
pub fn execute(script: &[Line]) -> Vec<Operation> {
    let mut store = HonestStore::default();
    let mut operations = Vec::new();
    for (index, line) in script.iter().enumerate() {
        let effect = 1_000 + 10 * index as u64;
        let outcome = match line.fate {
            Fate::UnknownAndLost => Outcome::Unknown,
            Fate::Refused => Outcome::NotApplied,
            Fate::UnknownButApplied => {
                store.execute(&line.call);
                Outcome::Unknown
            }
            Fate::Answered => {
                let (revision, before) = store.execute(&line.call);
                let saw = match (&line.call, before, line.curious) {
                    (Call::Put { .. }, _, false) => Saw::NotAsked,
                    (Call::Delete { .. }, Some(_), false) => Saw::Present,
                    (_, Some(entry), _) => Saw::Was(entry),
                    (_, None, _) => Saw::Absent,
                };
                Outcome::Answered(Answer { returned: Moment(effect + line.lag), revision, saw })
            }
        };
        operations.push(Operation {
            client: ClientId(index as u32),
            via: None,
            invoked: Moment(effect.saturating_sub(line.lead)),
            call: line.call.clone(),
            outcome,
        });
    }
    operations
}

pub fn history(operations: impl IntoIterator<Item = Operation>) -> History {
    History::from_operations(operations).unwrap()
}

/// Calls on few keys with few values, so that much collides.
pub fn a_call(keys: u8, values: u8) -> impl Strategy<Value = Call> {
    let key = (0..keys).prop_map(|n| Key(vec![b'a' + n]));
    (key, 0..4u8, 0..values).prop_map(|(key, kind, value)| match kind {
        0 | 1 => Call::Put { key, value: Value(vec![b'0' + value]) },
        2 => Call::Get { key },
        _ => Call::Delete { key },
    })
}

pub fn a_line(keys: u8, values: u8, reach: u64) -> impl Strategy<Value = Line> {
    let fate = prop_oneof![
        6 => Just(Fate::Answered),
        1 => Just(Fate::UnknownButApplied),
        1 => Just(Fate::UnknownAndLost),
        1 => Just(Fate::Refused),
    ];
    (a_call(keys, values), fate, any::<bool>(), 0..reach, 0..reach)
        .prop_map(|(call, fate, curious, lead, lag)| Line { call, fate, curious, lead, lag })
}

/// Gives every put a value of its own.
pub fn with_distinct_values(mut script: Vec<Line>) -> Vec<Line> {
    for (index, line) in script.iter_mut().enumerate() {
        if let Call::Put { value, .. } = &mut line.call {
            *value = Value(format!("v{index}").into_bytes());
        }
    }
    script
}

/// What a brute-force judge compares of each answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Values alone.
    Values,
    /// Every field.
    Everything,
}

/// Tries every order, of every subset of the unknown. For at most 7 operations.
pub fn brute_force(operations: &[Operation], trust: Trust) -> bool {
    assert!(operations.len() <= 7, "too many for every order");
    let matter: Vec<&Operation> =
        operations.iter().filter(|operation| operation.outcome != Outcome::NotApplied).collect();
    any_order(&matter, &HonestStore::default(), trust)
}

fn any_order(rest: &[&Operation], store: &HonestStore, trust: Trust) -> bool {
    if rest.iter().all(|operation| operation.answer().is_none()) {
        return true;
    }
    (0..rest.len()).any(|index| {
        let operation = rest[index];
        let too_late =
            rest.iter().filter_map(|other| other.answer()).any(|answer| answer.returned < operation.invoked);
        if too_late {
            return false;
        }
        let mut store = store.clone();
        let (revision, before) = store.execute(&operation.call);
        if let Some(answer) = operation.answer() {
            let same = match (&answer.saw, &before) {
                (Saw::NotAsked, _) | (Saw::Absent, None) | (Saw::Present, Some(_)) => true,
                (Saw::Was(seen), Some(entry)) if trust == Trust::Values => seen.value == entry.value,
                (Saw::Was(seen), Some(entry)) => seen == entry,
                _ => false,
            };
            if !same || trust == Trust::Everything && revision != answer.revision {
                return false;
            }
        }
        let mut rest = rest.to_vec();
        rest.remove(index);
        any_order(&rest, &store, trust)
    })
}

/// Small lies about one answer.
#[derive(Clone, Copy, Debug)]
pub enum Lie {
    Revision(i8),
    Modified(i8),
    Created(i8),
    Version(i8),
    Value(u8),
    Gone,
    Earlier(u64),
    Later(u64),
}

pub fn a_lie() -> impl Strategy<Value = Lie> {
    let shift = || prop_oneof![Just(-2i8), Just(-1), Just(1), Just(2)];
    prop_oneof![
        shift().prop_map(Lie::Revision),
        shift().prop_map(Lie::Modified),
        shift().prop_map(Lie::Created),
        shift().prop_map(Lie::Version),
        (0..4u8).prop_map(Lie::Value),
        Just(Lie::Gone),
        (1..60u64).prop_map(Lie::Earlier),
        (1..60u64).prop_map(Lie::Later),
    ]
}

/// Tells the lie about one operation, as far as it can be told about it.
pub fn tell(lie: Lie, operation: &mut Operation) {
    let shift = |number: u64, by: i8| number.saturating_add_signed(i64::from(by)).max(1);
    match lie {
        // The whole interval moves: what was true in its order may be false in time.
        Lie::Earlier(by) => operation.invoked.0 = operation.invoked.0.saturating_sub(by),
        Lie::Later(by) => operation.invoked.0 += by,
        _ => {}
    }
    let is_get = matches!(operation.call, Call::Get { .. });
    let Outcome::Answered(answer) = &mut operation.outcome else { return };
    match (lie, &mut answer.saw) {
        (Lie::Revision(by), _) => answer.revision = Revision(shift(answer.revision.0, by)),
        (Lie::Modified(by), Saw::Was(entry)) => {
            entry.modified = Revision(shift(entry.modified.0, by));
        }
        (Lie::Created(by), Saw::Was(entry)) => {
            entry.created = Revision(shift(entry.created.0, by));
        }
        (Lie::Version(by), Saw::Was(entry)) => {
            entry.version = Version(shift(entry.version.0, by));
        }
        (Lie::Value(value), Saw::Was(entry)) => entry.value = Value(vec![b'0' + value]),
        (Lie::Gone, saw @ Saw::Was(_)) if is_get => *saw = Saw::Absent,
        (Lie::Earlier(by), _) => {
            answer.returned.0 = answer.returned.0.saturating_sub(by).max(operation.invoked.0);
        }
        (Lie::Later(by), _) => answer.returned.0 += by,
        _ => {}
    }
}

/// Numbers that look random and are the same every time (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % sides
    }
}

/// A long run of clients on many keys, with a few unknown outcomes, executed
/// honestly.
pub fn a_long_run(seed: u64, lines: usize, keys: u64) -> Vec<Operation> {
    let mut dice = Dice(seed);
    let script = (0..lines)
        .map(|index| {
            let key = Key(format!("key/{:02}", dice.roll(keys)).into_bytes());
            let call = match dice.roll(10) {
                0..=3 => Call::Put { key, value: Value(format!("v{index}").into_bytes()) },
                4..=7 => Call::Get { key },
                _ => Call::Delete { key },
            };
            let fate = match dice.roll(200) {
                0 => Fate::UnknownButApplied,
                1 => Fate::UnknownAndLost,
                _ => Fate::Answered,
            };
            // Effects are ten ticks apart, so up to 40 calls overlap.
            Line { call, fate, curious: dice.roll(2) == 0, lead: dice.roll(200), lag: dice.roll(200) }
        })
        .collect::<Vec<_>>();
    execute(&script)
}

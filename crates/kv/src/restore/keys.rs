//! Histories by key, while keys come in any order: a hash table, of which a tree is made
//! at the end.
//!
//! With a million keys, memory that is not in the processor's cache costs more than all
//! else. So the table holds no more than hashes and numbers of keys, and need not look at
//! keys to grow; and keys are put in order by eight bytes beside each other wherever these
//! tell them apart.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use imbl::OrdMap;

use crate::history::{Change, History};
use crate::revision::Position;
use crate::store::IndexKey;

/// See the module.
#[derive(Default)]
pub(super) struct Keys {
    /// Nobody who names keys knows how they are hashed.
    chance: RandomState,
    table: HashTable<Numbered>,
    /// By number.
    histories: Vec<(IndexKey, History)>,
}

/// The number of a key, and half its hash.
#[derive(Clone, Copy)]
struct Numbered {
    hash: u32,
    number: u32,
}

impl Numbered {
    /// The table looks at both ends of a hash.
    fn spread(self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }
}

/// Where a key is, or would be.
pub(super) struct Entry<'k> {
    keys: &'k mut Keys,
    key: &'k [u8],
    hash: u32,
    number: Option<usize>,
}

impl Keys {
    /// Looks a key up.
    pub(super) fn entry<'k>(&'k mut self, key: &'k [u8]) -> Entry<'k> {
        let hash = self.chance.hash_one(key) as u32;
        let spread = Numbered { hash, number: 0 }.spread();
        let is_key = |at: &Numbered| at.hash == hash && self.histories[at.number as usize].0[..] == *key;
        let number = self.table.find(spread, is_key).map(|at| at.number as usize);
        Entry { keys: self, key, hash, number }
    }

    pub(super) fn into_tree(self) -> OrdMap<IndexKey, History> {
        drop(self.table);
        let histories = self.histories;
        let shared = shared_prefix(&histories);
        let mut order: Vec<(u64, u32)> =
            histories.iter().map(|(key, _)| eight_bytes(&key[shared..])).zip(0..).collect();
        order.sort_unstable_by(|(eight, number), (other_eight, other)| {
            let key = |number: u32| &histories[number as usize].0;
            eight.cmp(other_eight).then_with(|| key(*number).cmp(key(*other)))
        });
        let mut histories: Vec<Option<(IndexKey, History)>> = histories.into_iter().map(Some).collect();
        let mut tree = OrdMap::new();
        // In order, but every other one first. A full node is split into halves. Were all put in order, nothing would
        // ever come into the left ones again; so the second half of the keys fills them.
        for first in [0, 1] {
            for (_, number) in order.iter().skip(first).step_by(2) {
                let (key, history) =
                    histories[*number as usize].take().expect("each number stands there once");
                tree.insert(key, history);
            }
        }
        tree
    }
}

impl Entry<'_> {
    /// What is known of the key so far.
    pub(super) fn history(&self) -> Option<&History> {
        self.number.map(|number| &self.keys.histories[number].1)
    }

    /// Adds a change of the key behind all others.
    pub(super) fn push(self, position: Position, change: Arc<Change>) {
        let Keys { table, histories, .. } = self.keys;
        if let Some(number) = self.number {
            return histories[number].1.push(position, change);
        }
        let number = u32::try_from(histories.len()).expect("four billion keys do not fit into memory");
        let numbered = Numbered { hash: self.hash, number };
        table.insert_unique(numbered.spread(), numbered, |at| at.spread());
        histories.push((IndexKey::from_slice(self.key), History::new(position, change)));
    }
}

/// How many bytes all keys begin with in common.
fn shared_prefix(histories: &[(IndexKey, History)]) -> usize {
    let mut keys = histories.iter().map(|(key, _)| key);
    let Some(first) = keys.next() else { return 0 };
    keys.fold(first.len(), |shared, key| {
        first[..shared].iter().zip(key).take_while(|(one, other)| one == other).count()
    })
}

/// The first eight bytes as a number of the same order; a shorter key as if zeroes followed.
fn eight_bytes(key: &[u8]) -> u64 {
    let mut eight = [0; 8];
    let length = key.len().min(eight.len());
    eight[..length].copy_from_slice(&key[..length]);
    u64::from_be_bytes(eight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revision::Revision;
    use bytes::Bytes;

    fn tree(names: &[&'static str]) -> Vec<Bytes> {
        let mut keys = Keys::default();
        for name in names {
            let (key, revision) = (name.as_bytes(), Revision(2));
            let change = Arc::new(Change::Delete { key: Bytes::from_static(key), revision });
            let position = Position { revision, sub: 0 };
            let entry = keys.entry(key);
            assert!(entry.history().is_none());
            entry.push(position, change);
            assert_eq!(keys.entry(key).history().map(|history| history.position()), Some(position));
        }
        keys.into_tree().keys().map(|key| Bytes::copy_from_slice(key)).collect()
    }

    #[test]
    fn keys_come_out_in_order() {
        let sets: [&[&str]; 6] = [
            &[],
            &["one"],
            &["b", "ab", "a", "abc", "a\0", "a\0\0"],
            &["/dir/123456789", "/dir/12345678", "/dir/1234567", "/dir/12345678\0", "/dir/123456780"],
            &["same", "same/9", "same/10", "same/1", "same/\u{ff}"],
            &["\u{ff}", "\u{7f}", "", "\0"],
        ];
        for names in sets {
            let mut expected: Vec<Bytes> =
                names.iter().map(|name| Bytes::from_static(name.as_bytes())).collect();
            expected.sort();
            assert_eq!(tree(names), expected);
        }
    }
}

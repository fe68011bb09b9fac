//! Histories by key, while keys come in any order: a hash table, of which a tree is made
//! at the end.
//!
//! With a million keys, memory that is not in the processor's cache costs more than all
//! else. So the table remembers the hash of each key and need not look at it to grow, and
//! keys are put in order by eight bytes beside each other wherever these tell them apart.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

use bytes::Bytes;
use imbl::OrdMap;

use crate::history::History;
use crate::store::IndexKey;

/// See the module.
#[derive(Default)]
pub(super) struct Keys {
    /// Nobody who names keys knows how they are hashed.
    chance: RandomState,
    table: HashMap<Key, History, BuildHasherDefault<Ready>>,
}

impl Keys {
    pub(super) fn get_mut(&mut self, key: &Bytes) -> Option<&mut History> {
        self.table.get_mut(&Key { hash: self.chance.hash_one(key), bytes: key.clone() })
    }

    /// Adds a key that is not there yet.
    pub(super) fn insert(&mut self, key: Bytes, history: History) {
        self.table.insert(Key { hash: self.chance.hash_one(&key), bytes: key }, history);
    }

    pub(super) fn into_tree(self) -> OrdMap<IndexKey, History> {
        let shared = self.shared_prefix();
        let entries = self.table.into_iter().map(|(key, history)| (key.bytes, history));
        let mut entries: Vec<_> =
            entries.map(|(key, history)| (eight_bytes(&key[shared..]), key, history)).collect();
        entries.sort_unstable_by(|(eight, key, _), (other_eight, other, _)| {
            eight.cmp(other_eight).then_with(|| key.cmp(other))
        });
        entries.into_iter().map(|(_, key, history)| (IndexKey::from_slice(&key), history)).collect()
    }

    /// How many bytes all keys begin with in common.
    fn shared_prefix(&self) -> usize {
        let mut keys = self.table.keys().map(|key| &key.bytes);
        let Some(first) = keys.next() else { return 0 };
        keys.fold(first.len(), |shared, key| {
            first[..shared].iter().zip(key).take_while(|(one, other)| one == other).count()
        })
    }
}

/// The first eight bytes as a number of the same order; a shorter key as if zeroes followed.
fn eight_bytes(key: &[u8]) -> u64 {
    let mut eight = [0; 8];
    let length = key.len().min(eight.len());
    eight[..length].copy_from_slice(&key[..length]);
    u64::from_be_bytes(eight)
}

/// A key and its hash.
#[derive(PartialEq, Eq)]
struct Key {
    hash: u64,
    bytes: Bytes,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Hands on a hash that is there already.
#[derive(Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a key is hashed before it comes here");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Change;
    use crate::revision::{Position, Revision};
    use std::sync::Arc;

    fn tree(names: &[&'static str]) -> Vec<Bytes> {
        let mut keys = Keys::default();
        for name in names {
            let (key, revision) = (Bytes::from_static(name.as_bytes()), Revision(2));
            let change = Arc::new(Change::Delete { key: key.clone(), revision });
            assert!(keys.get_mut(&key).is_none());
            keys.insert(key.clone(), History::new(Position { revision, sub: 0 }, change));
            assert!(keys.get_mut(&key).is_some());
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

//! The fingerprint by which replicas compare themselves.
//!
//! Every change that is applied is folded into a rolling hash, and so is every
//! compaction; what was refused folds nothing. Two replicas that applied the same
//! requests have the same hash, and one that ever went astray keeps a different one
//! for good. It is a hash of the store's *biography*: it costs as much as the change,
//! and how far the sweep has come does not show in it.
//!
//! It guards against our own mistakes, not against malice; nor against a bad disk,
//! which has checksums of its own.

use std::fmt;

use xxhash_rust::xxh3::xxh3_128;

use crate::history::Change;
use crate::revision::{LeaseId, Position, Revision};

/// A hash of everything a store has been through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StateHash(pub u128);

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

const PUT: u64 = 1;
const DELETE: u64 = 2;
const COMPACT: u64 = 3;

impl StateHash {
    /// The hash after `change` at `position`.
    pub(crate) fn after_change(self, position: Position, change: &Change) -> StateHash {
        let Position { revision, sub } = position;
        match change {
            Change::Put(kv) => self.fold(
                xxh3_128(&kv.key),
                xxh3_128(&kv.value),
                [
                    PUT,
                    revision.0,
                    u64::from(sub),
                    kv.create_revision.0,
                    kv.version,
                    LeaseId::to_wire(kv.lease).cast_unsigned(),
                ],
            ),
            Change::Delete { key, .. } => {
                self.fold(xxh3_128(key), 0, [DELETE, revision.0, u64::from(sub), 0, 0, 0])
            }
        }
    }

    /// The hash after compaction at `revision`.
    pub(crate) fn after_compaction(self, revision: Revision) -> StateHash {
        self.fold(0, 0, [COMPACT, revision.0, 0, 0, 0, 0])
    }

    /// Keys and values come in as hashes of their own, so that a large value is read
    /// where it lies; everything else has a fixed place.
    fn fold(self, key: u128, value: u128, numbers: [u64; 6]) -> StateHash {
        let mut record = [0; 3 * 16 + 6 * 8];
        for (place, hash) in record.chunks_exact_mut(16).zip([self.0, key, value]) {
            place.copy_from_slice(&hash.to_le_bytes());
        }
        for (place, number) in record[48..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        StateHash(xxh3_128(&record))
    }
}

//! What may be asked of the store.
//!
//! One [`Request`] is one command: what a replica hands to the others, what each
//! of them applies. The types leave out what cannot be meant (an unknown sort
//! order, a lease called zero); what remains to be refused is in `validate`.

use std::num::NonZeroU64;
use std::ops::Bound;

use bytes::Bytes;

use crate::error::KvError;
use crate::revision::{LeaseId, Revision};

/// One command to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Give a key a value.
    Put(PutRequest),
    /// Remove the keys of an interval.
    DeleteRange(DeleteRangeRequest),
    /// Compare, then do one thing or the other, all at one revision.
    Txn(TxnRequest),
    /// Forget the past before a revision. Not inside a transaction.
    Compact(CompactRequest),
    /// Read the keys of an interval.
    Range(RangeRequest),
}

impl Request {
    /// True if applying this can change nothing, whatever the store holds, so that
    /// it needs no place in the log (TX-8). etcd looks at the top level only; a
    /// nested transaction that merely reads is no less read-only.
    pub fn is_read_only(&self) -> bool {
        match self {
            Request::Range(_) => true,
            Request::Txn(txn) => txn.is_read_only(),
            Request::Put(_) | Request::DeleteRange(_) | Request::Compact(_) => false,
        }
    }

    /// True if the client is content with whatever this replica knows (KV-6). A
    /// transaction is serializable if it reads, and all its reads are. One that
    /// only compares is not (TX-8).
    pub fn is_serializable(&self) -> bool {
        match self {
            Request::Range(range) => range.serializable,
            Request::Txn(txn) => {
                let mut ops = txn.success.iter().chain(&txn.failure).peekable();
                ops.peek().is_some() && ops.all(Request::is_serializable)
            }
            Request::Put(_) | Request::DeleteRange(_) | Request::Compact(_) => false,
        }
    }
}

/// The bounds that a server sets on the requests it takes in.
///
/// They are a matter of admission, not of meaning: [`crate::Store::apply`] does not
/// ask for them, because two replicas started with different bounds must still
/// agree on every command that one of them let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most compares, or operations in one branch, along a path of nested
    /// transactions (TX-3).
    pub max_txn_ops: usize,
    /// Largest encoded request that changes something, in bytes (T-2).
    pub max_request_bytes: usize,
}

impl Default for Limits {
    /// etcd's: 128 operations, 1.5 MiB.
    fn default() -> Limits {
        Limits { max_txn_ops: 128, max_request_bytes: 3 << 19 }
    }
}

/// An interval of keys, in byte order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key of the interval. Empty is refused (KV-1).
    pub key: Bytes,
    /// How far the interval reaches.
    pub end: RangeEnd,
}

/// How far a [`KeyRange`] reaches from its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RangeEnd {
    /// That key alone.
    Single,
    /// That key and every later one.
    FromKey,
    /// Up to, but without, this key. Not later than the first: nothing.
    Before(Bytes),
}

/// An interval of keys as an ordered map takes it.
pub(crate) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

impl KeyRange {
    /// One key.
    pub fn single(key: impl Into<Bytes>) -> KeyRange {
        KeyRange { key: key.into(), end: RangeEnd::Single }
    }

    /// Every key there is.
    pub fn all() -> KeyRange {
        KeyRange { key: Bytes::from_static(b"\0"), end: RangeEnd::FromKey }
    }

    /// The interval that etcd's pair (key, range_end) stands for (KV-1): no end is
    /// one key, an end of one zero byte is everything from the key on.
    pub fn from_wire(key: Bytes, range_end: Bytes) -> KeyRange {
        let end = match &range_end[..] {
            [] => RangeEnd::Single,
            [0] => RangeEnd::FromKey,
            _ => RangeEnd::Before(range_end),
        };
        KeyRange { key, end }
    }

    /// True if `key` lies in the interval.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => *key == self.key[..],
            RangeEnd::FromKey => *key >= self.key[..],
            RangeEnd::Before(end) => *key >= self.key[..] && *key < end[..],
        }
    }

    /// The interval as bounds for an ordered map; `None` if it is empty.
    pub(crate) fn bounds(&self) -> Option<Bounds<'_>> {
        let start = Bound::Included(&self.key[..]);
        match &self.end {
            RangeEnd::Single => Some((start, Bound::Included(&self.key[..]))),
            RangeEnd::FromKey => Some((start, Bound::Unbounded)),
            RangeEnd::Before(end) if *end > self.key => Some((start, Bound::Excluded(&end[..]))),
            RangeEnd::Before(_) => None,
        }
    }
}

/// Gives a key a value (KV-9 to KV-11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutRequest {
    /// The key. Empty is refused.
    pub key: Bytes,
    /// The value. May be empty; must be, with `ignore_value`.
    pub value: Bytes,
    /// The lease that the key shall hang on; `None` detaches it from any.
    pub lease: Option<LeaseId>,
    /// Answer with the pair before the change, if there was one.
    pub prev_kv: bool,
    /// Keep the present value; the key must exist.
    pub ignore_value: bool,
    /// Keep the present lease; the key must exist.
    pub ignore_lease: bool,
}

impl PutRequest {
    /// A plain put.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> PutRequest {
        PutRequest {
            key: key.into(),
            value: value.into(),
            lease: None,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        }
    }
}

/// Removes the keys of an interval, all at one revision (KV-12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// Answer with the removed pairs.
    pub prev_kv: bool,
}

impl DeleteRangeRequest {
    /// A plain removal.
    pub fn new(range: KeyRange) -> DeleteRangeRequest {
        DeleteRangeRequest { range, prev_kv: false }
    }
}

/// Forgets what happened before a revision (CP-1, CP-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactRequest {
    /// The oldest revision that stays readable.
    pub revision: Revision,
    /// The client wants to wait until the space is given back (CP-3). Of interest
    /// to whoever answers; the meaning is the same.
    pub physical: bool,
}

impl CompactRequest {
    /// The request on etcd's wire.
    ///
    /// # Errors
    /// A negative revision lies before every compaction there could have been, so
    /// it is refused as compacted (CP-1).
    pub fn from_wire(revision: i64, physical: bool) -> Result<CompactRequest, KvError> {
        match u64::try_from(revision) {
            Ok(number) => Ok(CompactRequest { revision: Revision(number), physical }),
            Err(_) => Err(KvError::Compacted { requested: Revision(0), oldest: Revision(0) }),
        }
    }
}

/// Reads the keys of an interval (KV-1 to KV-7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// As of when; `None` is now (KV-2).
    pub revision: Option<Revision>,
    /// Most pairs to return; `None` is all of them.
    pub limit: Option<NonZeroU64>,
    /// Which way to sort.
    pub order: SortOrder,
    /// What to sort by.
    pub target: SortTarget,
    /// Return pairs without their values.
    pub keys_only: bool,
    /// Return the number of keys and no pairs (KV-5).
    pub count_only: bool,
    /// Content with what this replica knows (KV-6). Decides where and when the read
    /// is done, not what it means.
    pub serializable: bool,
    /// Leave out pairs by the revision of their last change.
    pub modified: RevisionBounds,
    /// Leave out pairs by the revision of their creation.
    pub created: RevisionBounds,
}

impl RangeRequest {
    /// A plain read of the newest state.
    pub fn new(range: KeyRange) -> RangeRequest {
        RangeRequest {
            range,
            revision: None,
            limit: None,
            order: SortOrder::None,
            target: SortTarget::Key,
            keys_only: false,
            count_only: false,
            serializable: false,
            modified: RevisionBounds::default(),
            created: RevisionBounds::default(),
        }
    }
}

/// A filter on revisions; both bounds are inclusive, `None` is no bound (KV-3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevisionBounds {
    /// Leave out what is older.
    pub at_least: Option<Revision>,
    /// Leave out what is newer.
    pub at_most: Option<Revision>,
}

impl RevisionBounds {
    /// etcd's pair of minimum and maximum, where zero switches a bound off. Below a
    /// negative maximum lies nothing, above a negative minimum everything.
    pub fn from_wire(min: i64, max: i64) -> RevisionBounds {
        RevisionBounds {
            at_least: Revision::from_wire(min),
            at_most: (max != 0).then(|| Revision(u64::try_from(max).unwrap_or(0))),
        }
    }

    /// True if `revision` passes.
    pub(crate) fn admit(&self, revision: Revision) -> bool {
        self.at_least.is_none_or(|bound| revision >= bound)
            && self.at_most.is_none_or(|bound| revision <= bound)
    }
}

/// Which way a range is sorted (KV-4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// As it comes. Means ascending, whatever the target (KV-4).
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// What a range is sorted by (KV-4). Ties stand in ascending order of the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortTarget {
    /// The key's bytes.
    #[default]
    Key,
    /// The number of puts since the key was created.
    Version,
    /// The revision of the key's creation.
    Create,
    /// The revision of the key's last change.
    Mod,
    /// The value's bytes, shown or not.
    Value,
}

/// Compares, then runs one of two lists (section TX of etcd's behaviours).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnRequest {
    /// All must hold, on the state before the transaction (TX-1).
    pub compares: Vec<Compare>,
    /// Runs in order if they do.
    pub success: Vec<Request>,
    /// Runs in order if one does not.
    pub failure: Vec<Request>,
}

impl TxnRequest {
    /// True if neither branch can change anything; see [`Request::is_read_only`].
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(Request::is_read_only)
    }
}

/// One condition of a transaction (TX-2): every key of the interval satisfies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Which keys. If none of them exists, they count as one key of all zeros,
    /// except that no comparison of a missing value ever holds.
    pub range: KeyRange,
    /// How the key's property must stand to the operand.
    pub relation: Relation,
    /// Which property, and what it is compared with.
    pub operand: Operand,
}

/// How two things must stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The key's is the same.
    Equal,
    /// The key's is different.
    NotEqual,
    /// The key's is larger.
    Greater,
    /// The key's is smaller.
    Less,
}

/// A property of a key, with what to compare it with. Numbers are signed, because a
/// client may well compare with a negative one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// Puts since creation; 0 for a missing key.
    Version(i64),
    /// Revision of creation; 0 for a missing key.
    Create(i64),
    /// Revision of the last change; 0 for a missing key.
    Mod(i64),
    /// The value's bytes.
    Value(Bytes),
    /// The lease; 0 for none.
    Lease(i64),
}

//! What the store answers.
//!
//! Answers share their bytes with the store: a pair in a response is the pair that
//! the store holds, not a copy.

use bytes::Bytes;

use crate::revision::{LeaseId, Revision};

/// A key with its value, as of some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key, never empty.
    pub key: Bytes,
    /// The value, maybe empty.
    pub value: Bytes,
    /// When this life of the key began.
    pub create_revision: Revision,
    /// When it was last put.
    pub mod_revision: Revision,
    /// How many puts this life has seen: 1 at creation.
    pub version: u64,
    /// The lease it hangs on.
    pub lease: Option<LeaseId>,
}

/// What applying one request brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The answer for the client.
    pub response: Response,
    /// The store's revision after the request, for the answer's header (H-1, R-2).
    pub revision: Revision,
}

/// The answer to a [`crate::Request`], variant for variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// To a put.
    Put(PutResponse),
    /// To a removal.
    DeleteRange(DeleteRangeResponse),
    /// To a transaction.
    Txn(TxnResponse),
    /// To a compaction: there is nothing to say.
    Compact,
    /// To a read.
    Range(RangeResponse),
}

/// The answer to a put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutResponse {
    /// The pair before the change, if asked for and existing (KV-11).
    pub prev: Option<KeyValue>,
}

/// The answer to a removal (KV-12).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRangeResponse {
    /// How many keys were removed.
    pub deleted: u64,
    /// The removed pairs in key order, if asked for.
    pub prev_kvs: Vec<KeyValue>,
}

/// The answer to a transaction (TX-1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnResponse {
    /// True if all compares held, so that the success list ran.
    pub succeeded: bool,
    /// One answer per operation of the list that ran, in its order.
    pub responses: Vec<NestedResponse>,
}

/// The answer to one operation inside a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NestedResponse {
    /// What the operation's own header says (H-3): the revision of the transaction
    /// once it has changed something, the one before it until then.
    pub revision: Revision,
    /// The answer itself.
    pub response: Response,
}

/// The answer to a read (KV-5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResponse {
    /// The pairs, sorted and cut as requested.
    pub kvs: Vec<KeyValue>,
    /// True if the limit cut something off.
    pub more: bool,
    /// How many keys the interval holds, whatever limit and filters say.
    pub count: u64,
}

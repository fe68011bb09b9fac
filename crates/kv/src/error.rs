//! What may go wrong, in the words that etcd's clients know.
//!
//! Every error here is decided by the request and the store alone, so each replica
//! meets it alike, and an error always means: nothing was changed. What a replica
//! cannot promise of itself (its disk, its peers) is none of this crate's business.

use crate::revision::{LeaseId, Revision};

/// The gRPC status codes that [`KvError`]s travel under. The numbers are gRPC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request can never succeed as it is.
    InvalidArgument = 3,
    /// What it names does not exist.
    NotFound = 5,
    /// It asks for a revision that cannot be read.
    OutOfRange = 11,
}

/// Why a request was refused. Nothing has been changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub enum KvError {
    /// A key is missing where one is needed (KV-1, KV-9). Name one.
    EmptyKey,
    /// A put that keeps the present value or lease found no such key (KV-10); or a
    /// transaction holds an operation that is none (TX-7).
    KeyNotFound,
    /// A put both keeps the value and brings one (KV-10).
    ValueProvided,
    /// A put both keeps the lease and names one (KV-10).
    LeaseProvided,
    /// A transaction has too many compares or operations, or nests too deep (TX-3).
    TooManyOps,
    /// A transaction would change a key twice (TX-4).
    DuplicateKey,
    /// The request exceeds the server's limit (T-2). Split it.
    RequestTooLarge,
    /// A read asks for an order or a target that does not exist (T-8).
    InvalidSortOption,
    /// The revision was compacted away (KV-2, CP-1). Read at a newer one.
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision that can be read.
        oldest: Revision,
    },
    /// The revision lies in the future (KV-2, CP-1).
    FutureRevision {
        /// What was asked for.
        requested: Revision,
        /// The newest revision there is.
        current: Revision,
    },
    /// No lease has this id (KV-9).
    LeaseNotFound(LeaseId),
}

impl KvError {
    /// The text that etcd sends, byte for byte: its clients tell errors apart by it.
    pub fn message(&self) -> &'static str {
        match self {
            KvError::EmptyKey => "etcdserver: key is not provided",
            KvError::KeyNotFound => "etcdserver: key not found",
            KvError::ValueProvided => "etcdserver: value is provided",
            KvError::LeaseProvided => "etcdserver: lease is provided",
            KvError::TooManyOps => "etcdserver: too many operations in txn request",
            KvError::DuplicateKey => "etcdserver: duplicate key given in txn request",
            KvError::RequestTooLarge => "etcdserver: request is too large",
            KvError::InvalidSortOption => "etcdserver: invalid sort option",
            KvError::Compacted { .. } => "etcdserver: mvcc: required revision has been compacted",
            KvError::FutureRevision { .. } => "etcdserver: mvcc: required revision is a future revision",
            KvError::LeaseNotFound(_) => "etcdserver: requested lease not found",
        }
    }

    /// The status code that goes with it.
    pub fn code(&self) -> Code {
        match self {
            KvError::EmptyKey
            | KvError::KeyNotFound
            | KvError::ValueProvided
            | KvError::LeaseProvided
            | KvError::TooManyOps
            | KvError::DuplicateKey
            | KvError::RequestTooLarge
            | KvError::InvalidSortOption => Code::InvalidArgument,
            KvError::Compacted { .. } | KvError::FutureRevision { .. } => Code::OutOfRange,
            KvError::LeaseNotFound(_) => Code::NotFound,
        }
    }
}

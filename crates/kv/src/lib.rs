//! What a command means: a key-value store that remembers.
//!
//! synod's replicas agree on a sequence of requests. This crate says what each of
//! them does, and says it the same way on every replica: [`Store::apply`] is a
//! function of the store and the request, of nothing else. There is no clock in
//! here, no I/O of its own, no randomness that could show, and not a word about how agreement came about.
//!
//! The meaning is etcd's. Every request that changes something takes the next
//! [`Revision`], and nothing is overwritten: a put adds a version, a delete adds a
//! tombstone, so that a reader may ask how things stood at an earlier revision,
//! until a compaction says that the past before some revision is no longer wanted.
//!
//! ```text
//!   Request ──validate──▶ encode ──▶ (agreed on elsewhere) ──▶ decode ──▶ apply
//!                                                                          │
//!             Response, Revision, StateHash  ◀─────────────────────────────┘
//! ```
//!
//! # The shape of the store
//!
//! An ordered map and a series share one set of [`Change`]s:
//!
//! ```text
//!   by key         "a" ─▶ History { newest: ●──┐  older: [2.0] }
//!                  "b" ─▶ History { newest: ●┐ │
//!                                            │ │
//!   by position    2.0 ─▶    put a=1         │ │    in a run, on disk
//!                  3.0 ─▶ ●  put a=2 ◀───────┼─┘
//!                  3.1 ─▶ ●  put b=7 ◀───────┘
//! ```
//!
//! By key answers reads; by position (revision, then order within the revision)
//! is the log of everything that is still remembered: what a watcher replays, what
//! a checkpoint writes out. Whatever a checkpoint holds and is not the newest of its
//! key need not be in memory: it is read again when somebody asks for it. Copies of
//! both share what they hold, so a [`Snapshot`] costs a few pointers, and whoever
//! reads from one never holds up the writer.
//!
//! # In reading order
//!
//! * [`revision`]: the nouns, [`Revision`], [`Position`], [`LeaseId`];
//! * [`request`] and [`response`]: what may be asked, and what is answered;
//! * [`error`]: what may go wrong, in etcd's words;
//! * `validate`: what can be told from a request alone;
//! * `wire` and `codec`: a request as bytes;
//! * `record` and [`cold`]: a change as bytes, and what is on disk only;
//! * `series`, `history` and [`store`]: changes in order; those of one key; all of
//!   them; [`Store::apply`];
//! * `range`, `txn`, `compact`: reading, branching, forgetting;
//! * [`hash`]: the fingerprint by which replicas compare themselves;
//! * [`image`] and [`restore`]: a snapshot as bytes, whole or what changed, and back.
//!
//! Comments name the behaviours of etcd that a line answers for (`KV-3`, `TX-4`);
//! tests carry the same names.
//!
//! What is not here yet: leases, so that every put naming one is refused; watches,
//! though [`View::changes_from`] is what they will read; users and permissions.

pub mod cold;
pub mod error;
pub mod hash;
pub mod image;
pub mod request;
pub mod response;
pub mod restore;
pub mod revision;
pub mod store;

mod codec;
mod compact;
mod history;
mod range;
mod record;
mod series;
mod txn;
mod validate;
mod wire;

pub use cold::{ReadBlocks, Run, Unreadable};
pub use error::{Code, KvError};
pub use hash::StateHash;
pub use history::Change;
pub use image::{Blocks, Chunks, Head};
pub use request::{
    CompactRequest, Compare, DeleteRangeRequest, KeyRange, Limits, Operand, PutRequest, RangeEnd,
    RangeRequest, Relation, Request, RevisionBounds, SortOrder, SortTarget, TxnRequest,
};
pub use response::{
    Applied, DeleteRangeResponse, KeyValue, NestedResponse, PutResponse, RangeResponse, Response, TxnResponse,
};
pub use restore::{Restore, RestoreError};
pub use revision::{LeaseId, Position, Revision};
pub use series::Retired;
pub use store::{Snapshot, Stats, Store, View};
pub use wire::DecodeError;

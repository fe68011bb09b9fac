//! How we know: histories of what clients asked and were told, and the judges
//! that decide whether one honest store could have answered so.
//!
//! A run against a cluster is recorded as a [`History`]: one [`Operation`] per
//! call, with the moments of its invocation and its answer. Two judges read it,
//! and they trust different things:
//!
//! - [`linearizable`] believes only values and times. It searches for an order
//!   of the operations that one single copy of each key could have produced
//!   (Wing and Gong's search with Lowe's memory of what failed before).
//! - [`revisions`] believes that etcd's revisions *are* the order, replays a
//!   model of the store along them once, and compares every answer field by
//!   field: values, versions, create and mod revisions, previous values. Then
//!   it demands that revisions respect real time.
//!
//! The first finds wrong answers even where revisions lie; the second sees what
//! values alone cannot show, such as one put applied twice. Neither ever blames
//! a store for an operation whose fate is unknown: that may have taken effect at
//! any moment after it was sent, or never.
//!
//! What is not here: clocks, sockets, randomness. Whoever records a run brings
//! those, so that the same judges serve a real cluster and a simulated one.

pub mod batch;
pub mod fuzz;
pub mod history;
pub mod judges;
pub mod linearizable;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod revisions;
pub mod shrink;
mod text;
pub mod viewer;

pub use history::{
    Answer, Call, ClientId, Entry, History, HistoryError, Key, Malformed, Moment, Operation, Outcome,
    Revision, Saw, Value, Version,
};
pub mod world;

//! How we know: synod simulated, judged, searched and broken on purpose.
//!
//! ```text
//!   seed ──> plan ──> world: replicas of a server on virtual disks, networks and clocks
//!                       │ what each replica does        │ what clients were told
//!                       v                               v
//!                     judges                          history ──> linearizable, revisions
//! ```
//!
//! [`world`] runs a whole cluster in one thread, from one number: the production code of every role, taking its turns
//! in an order that chance chooses, while everything fails that may; then all is healed and has to become well.
//! [`judges`] watch every step and hold the laws of the protocol against it, one law each, from the facts alone.
//!
//! A client sees less, and that is what counts for it. What clients asked and were told is a [`History`]: one
//! [`Operation`] per call, with the moments of its invocation and its answer. Two judges read it, and they trust
//! different things:
//!
//! - [`linearizable`] believes only values and times. It searches for an order of the operations that one single copy
//!   of each key could have produced (Wing and Gong's search with Lowe's memory of what failed before).
//! - [`revisions`] believes that etcd's revisions *are* the order, replays a model of the store along them once, and
//!   compares every answer field by field: values, versions, create and mod revisions, previous values. Then it
//!   demands that revisions respect real time.
//!
//! The first finds wrong answers even where revisions lie; the second sees what values alone cannot show, such as one
//! put applied twice. Neither ever blames a store for an operation whose fate is unknown: that may have taken effect
//! at any moment after it was sent, or never. They have no clocks and sockets of their own, so that they serve the
//! demo and the chaos, with real servers, as well as the simulator.
//!
//! Around these: [`batch`] runs many seeds and adds up what they saw, [`shrink`] makes a failing plan smaller, and
//! [`viewer`] draws what happened. `mutants`, which only builds with the feature of that name have, breaks synod on
//! purpose and asks whether anybody notices. [`fuzz`] feeds any bytes to everything that reads bytes. And
//! `tests/model` does not pick runs by chance but walks through all of them, in worlds small enough for that.
//!
//! What is simulated and what is not, and how to read a failure: `docs/simulation.md`.

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
pub mod world;

pub use history::{
    Answer, Call, ClientId, Entry, History, HistoryError, Key, Malformed, Moment, Operation, Outcome,
    Revision, Saw, Value, Version,
};

//! Any bytes at all, into everything that reads bytes.
//!
//! A replica reads what three kinds of strangers wrote: its own disk, which rots; its peers, which may run
//! another release or be somebody else entirely; and clients. Each reader has a *target* here: a function that
//! takes bytes, hands them to the reader, and demands of it
//!
//! - that it answers, with what the bytes say or with a typed error, and never panics;
//! - that it takes memory in proportion to its input;
//! - and the strongest thing that is true of what it lets through. What was decoded can be encoded again and is
//!   still the same; what a log yields was once written to it; what a store is asked, another store that is
//!   asked the same answers alike.
//!
//! The package `fuzz/` gives these functions to libFuzzer, which looks for bytes that break a demand. The
//! inputs that it found worth keeping lie in `fuzz/corpus/<target>`, beside [seeds](seeds::seeds) made from
//! the production encoders, and `cargo test` runs them all. See `docs/fuzzing.md`.
//!
//! ```text
//!   disk      wal, checkpoint, identity
//!   peers     peer_message, value, formation_message, machine, restore
//!   clients   client_request, kv_request
//! ```

mod checkpoint;
mod damage;
mod formation;
mod identity;
mod input;
mod machine;
mod peer;
mod requests;
mod restore;
pub mod seeds;
mod value;
mod wal;

pub use checkpoint::checkpoint;
pub use formation::formation_message;
pub use identity::identity;
pub use machine::machine;
pub use peer::peer_message;
pub use requests::{client_request, kv_request};
pub use restore::restore;
pub use value::value;
pub use wal::wal;

/// Targets look at this many bytes of their input and ignore the rest, which bounds their time and memory.
pub const MAX_INPUT_BYTES: usize = 16 << 10;

/// What a reader made of an input. Either is fine; a corpus should have both, or it does not test much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It was turned away, with an error.
    Refused,
    /// It meant something.
    Understood,
}

/// A reader under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of the function, of the file in `fuzz/fuzz_targets` and of the directory in `fuzz/corpus`.
    pub name: &'static str,
    /// Tries one input. Panics if the reader does not keep its word.
    pub run: fn(&[u8]) -> Outcome,
}

/// All of them.
pub const TARGETS: [Target; 10] = [
    Target { name: "wal", run: wal },
    Target { name: "checkpoint", run: checkpoint },
    Target { name: "identity", run: identity },
    Target { name: "peer_message", run: peer_message },
    Target { name: "value", run: value },
    Target { name: "formation_message", run: formation_message },
    Target { name: "machine", run: machine },
    Target { name: "restore", run: restore },
    Target { name: "client_request", run: client_request },
    Target { name: "kv_request", run: kv_request },
];

/// The part of an input that targets look at.
fn bounded(data: &[u8]) -> &[u8] {
    &data[..data.len().min(MAX_INPUT_BYTES)]
}

//! What replicas say to each other: between the protocol's own types and
//! [`synodpb`](crate::synodpb)'s.
//!
//! - [`encode`] makes the bytes of one message. They are made once and shared
//!   by everybody it goes to.
//! - [`decode`] takes them apart. Values stay slices of the bytes received.
//!
//! Whatever bytes arrive, decoding answers with a message or an error: what
//! cannot be read counts as lost, which the protocol survives (PMS-4). What it
//! lets through makes sense as far as one message can tell: the parts are all
//! there, slots count from 1, and no number is so large that counting on from
//! it could overflow.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{cluster_from_wire, decode};
pub use encode::{cluster_to_wire, encode};

use synod_paxos::value::DecodeError;

/// The version of `peer.proto` that this release speaks, and the only one.
pub const PROTOCOL_VERSION: u32 = 1;

/// The highest slot and the highest round there are. No log gets here, and
/// whoever counts on from a number below does not overflow.
pub const MAX_NUMBER: u64 = 1 << 62;

/// Why bytes are no message. Nothing was done with them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerDecodeError {
    /// They are no protobuf message of this kind.
    #[error("not a peer message: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A kind of message that a newer release may know, or none at all.
    #[error("a peer message of unknown kind")]
    UnknownKind,
    /// A part that no message of this kind lacks.
    #[error("a peer message lacks its {0}")]
    Missing(&'static str),
    /// A number that makes no sense.
    #[error("a peer message has {value} for its {what}")]
    OutOfRange {
        /// What it should be.
        what: &'static str,
        /// What it is.
        value: u64,
    },
    /// A command in it cannot be read.
    #[error("a peer message carries a bad command: {0}")]
    Command(#[from] DecodeError),
}

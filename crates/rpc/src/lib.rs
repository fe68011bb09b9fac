//! How it travels.
//!
//! Two languages leave a replica. Clients speak etcd's v3 API, whose messages
//! are in [`etcdserverpb`], [`mvccpb`] and [`authpb`]: names and numbers are
//! etcd's, so that every etcd client is a synod client. Everything of our own
//! is in [`synodpb`]. The `.proto` files below `proto/` explain each message,
//! and `build.rs` turns them into the modules of this crate, with `bytes`
//! fields as [`bytes::Bytes`], so that a value is shared and not copied on its
//! way through. [`convert`] is where the first language meets that of the store,
//! and [`peer`] where the second meets that of the protocol.

pub mod convert;
pub mod peer;

// Generated, documented in the .proto files as far as there is something to say.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}

pub use generated::*;

/// All services and messages as an encoded `FileDescriptorSet`, for gRPC
/// reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

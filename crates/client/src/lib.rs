//! The client: endpoints, and retries that are safe.
//!
//! A [`Client`] knows several replicas and talks to one of them at a time. Any
//! replica takes any request, so which one it is matters only when it fails.
//! Then the question is whether to ask the next one, and the answer depends on
//! what may already have happened:
//!
//! - A *read* changes nothing. It is asked again, of the next endpoint, after
//!   `Unavailable`, a failed connection or one that broke, until the deadline.
//!   An endpoint that does not answer at all gets its fair share of the time:
//!   what is left, divided by the endpoints not yet tried in this round.
//! - A *write* is sent once. The next endpoint is tried only if no connection
//!   could be established, because then the write surely never left. After
//!   anything else it may sit in some replica's queue and take effect later,
//!   and sending it again could apply it twice (C-1 of etcd's client).
//!
//! Whatever remains is a [`ClientError`]. It keeps the server's words and says,
//! as [`Outcome`], whether the write may have taken effect.
//!
//! [`Client::on`] pins calls to one endpoint: a [`Replica`] tries exactly once
//! and offers what concerns one server only, such as its status, the look
//! inside it, and the faults it can be given. Requests and responses are
//! etcd's messages; [`requests`] builds the common ones.

mod calls;
mod client;
mod config;
mod dial;
mod error;
mod replica;
pub mod requests;

pub use client::Client;
pub use config::Config;
pub use error::{ClientError, Failure, Outcome};
pub use replica::Replica;
pub use requests::prefix_end;
/// The messages: etcd's in `etcdserverpb` and `mvccpb`, ours in `synodpb`.
pub use synod_rpc as rpc;

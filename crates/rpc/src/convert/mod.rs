//! Where the dialects meet: etcd's messages on one side, what the store
//! understands on the other.
//!
//! - [`request`]: what clients send, into `synod_kv` requests. The wire can say
//!   things that mean nothing, such as a sort order of 7; those end here.
//! - [`response`]: what the store answers, into etcd's messages, each with the
//!   header that says who answered and when.
//! - [`status`]: what went wrong, into gRPC statuses with etcd's words.
//!
//! Pure functions, all of them. What a request means is none of their business.

pub mod request;
pub mod response;
pub mod status;

pub use request::RequestError;
pub use response::Responder;
pub use status::ServerError;

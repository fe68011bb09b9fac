//! What clients can ask, over gRPC.
//!
//! ```text
//!   client ── etcdserverpb.KV ──────────> kv ──────────┐
//!          ── etcdserverpb.Maintenance ─> maintenance ─┤
//!          ── etcdserverpb.Cluster ─────> cluster ─────┼──> Node (the replica of this process)
//!          ── synodpb.Admin ────────────> admin ───────┘
//! ```
//!
//! The services translate and check; what a request means is the store's business, and when it may be
//! answered the replica's. They reach it through [`Node`], so that tests can put something simpler behind
//! them. What etcd offers and synod does not yet is answered Unimplemented, and says so.
//!
//! Beside these, every server offers gRPC's health service and reflection.

mod admin;
mod cluster;
mod context;
mod errors;
mod kv;
mod maintenance;
mod node;

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use synod_rpc::etcdserverpb as pb;
use synod_rpc::etcdserverpb::cluster_server::ClusterServer;
use synod_rpc::etcdserverpb::kv_server::KvServer;
use synod_rpc::etcdserverpb::maintenance_server::MaintenanceServer;
use synod_rpc::synodpb::admin_server::AdminServer;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::{Code, Status};

use crate::express::{Front, Limits};
use crate::metrics::Metrics;

use context::Context;
pub(crate) use maintenance::votes;
pub use node::Node;

/// The release of etcd whose API this is, as clients compare it (K8S-1, G-1).
pub const ETCD_VERSION: &str = "3.6.5";

/// The release of etcd whose data this could be, as far as its API says.
pub const ETCD_STORAGE_VERSION: &str = "3.6.0";

/// What gRPC adds to a message of the largest size: T-2 allows for it.
const ENVELOPE_BYTES: usize = 512 * 1024;

/// The largest answer that gRPC can carry.
const MOST_ANSWER_BYTES: usize = i32::MAX as usize;

/// What the services need to be told.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// The largest encoded request that writes, in bytes (T-2).
    pub max_request_bytes: usize,
    /// Do the calls that cause faults work?
    pub faults_allowed: bool,
}

/// All gRPC services.
pub struct Grpc<N> {
    kv: Arc<kv::Kv<N>>,
    limits: Limits,
    router: Router,
}

impl<N: Node> Grpc<N> {
    /// These services and what `router` has.
    pub(crate) fn beside(self, router: Router) -> Front<impl pb::kv_server::Kv + use<N>> {
        Front::new(self.kv, self.limits, router.merge(self.router))
    }
}

/// All gRPC services over `node`. Streams that would never end by themselves end when `closing` turns true.
///
/// # Panics
/// If the descriptors compiled into this program cannot be read.
pub fn router<N: Node>(
    node: N,
    options: &ApiOptions,
    metrics: &Metrics,
    closing: watch::Receiver<bool>,
) -> Grpc<N> {
    let context = Context::new(node, options, metrics, closing);
    let limits = Limits { request: options.max_request_bytes + ENVELOPE_BYTES, answer: MOST_ANSWER_BYTES };
    let short = Arc::new(kv::Kv::new(context.clone()));
    let kv = KvServer::from_arc(Arc::clone(&short))
        .max_decoding_message_size(limits.request)
        .max_encoding_message_size(limits.answer);
    let maintenance = MaintenanceServer::new(maintenance::Maintenance::new(context.clone()));
    let cluster = ClusterServer::new(cluster::Cluster::new(context.clone()));
    let admin = AdminServer::new(admin::Admin::new(context));
    let (_, health) = tonic_health::server::health_reporter();
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(synod_rpc::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = "the descriptors were compiled into this program";
    let router = Routes::new(kv)
        .add_service(maintenance)
        .add_service(cluster)
        .add_service(admin)
        .add_service(health)
        .add_service(descriptors().build_v1().expect(broken))
        .add_service(descriptors().build_v1alpha().expect(broken))
        .into_axum_router()
        .reset_fallback()
        .layer(axum::middleware::map_response(in_grpcs_words));
    Grpc { kv: short, limits, router }
}

/// Answers a call of a service that is not offered.
pub(crate) fn no_such_service(path: &str) -> Response {
    let method = path.trim_start_matches('/');
    Status::unimplemented(format!("synod does not offer {method} yet")).into_http()
}

/// Is it a gRPC call, rather than somebody with a browser?
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    headers.get(CONTENT_TYPE).is_some_and(grpc)
}

/// A message beyond the limit is refused before any service sees it. Every other implementation of gRPC
/// calls that ResourceExhausted (T-2), and so do we; tonic has another code for it.
async fn in_grpcs_words(response: Response) -> Response {
    let headers = response.headers();
    let has = |name, start: &str| {
        headers.get(name).is_some_and(|value: &HeaderValue| value.as_bytes().starts_with(start.as_bytes()))
    };
    // The text is percent-encoded, so only its first word can be relied on.
    if has(Status::GRPC_STATUS, "11") && has(Status::GRPC_MESSAGE, "Error,%20decoded%20message%20length") {
        let status = Status::new(Code::ResourceExhausted, "grpc: received message larger than max");
        return status.into_http::<axum::body::Body>().into_response();
    }
    response
}

//! What a server answers to plain HTTP, on the same port as gRPC: is it well, which version is it, and its
//! metrics.
//!
//! ```text
//!   /health          etcd's: {"health":"true","reason":""}, 200 or 503          (G-2)
//!   /livez           would a restart help? then 503                             (G-3)
//!   /readyz          should clients be sent here? else 503                      (G-3)
//!   /livez/CHECK     one check alone; /readyz/CHECK, too
//!   /version         as etcd says it                                            (G-1)
//!   /metrics         for Prometheus                                             (G-5)
//! ```
//!
//! `?verbose` lists every check, `?exclude=CHECK` leaves one out, as etcd and Kubernetes have it. The checks:
//!
//! * `serializable_read`: the store can be read at all.
//! * `linearizable_read`: a majority answers, and this server keeps up with it.
//! * `data_corruption`: no role has stopped over its own data or disk.
//! * `non_learner`: the acceptor here votes.

use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use synod_rpc::etcdserverpb::kv_server::Kv;

use crate::api::{self, ETCD_STORAGE_VERSION, ETCD_VERSION, Grpc, Node};
use crate::express::Front;
use crate::metrics::{self, Metrics};
use crate::replica::{Consistency, RoleState};

/// How long a check may take. A server that cannot read its own store for this long is not well.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything on the client port: gRPC (`grpc`) and the endpoints of this module.
pub fn router<N: Node>(node: N, metrics: Metrics, grpc: Grpc<N>) -> Front<impl Kv + use<N>> {
    let healths = Router::new()
        .route("/health", get(health::<N>))
        .route("/livez", get(livez::<N>))
        .route("/livez/{check}", get(livez_one::<N>))
        .route("/readyz", get(readyz::<N>))
        .route("/readyz/{check}", get(readyz_one::<N>))
        .with_state(node);
    let scrape = move || async move { ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics.scrape()) };
    let plain = Router::new()
        .route("/version", get(version))
        .route("/metrics", get(scrape))
        .merge(healths)
        .fallback(nothing_here);
    grpc.beside(plain)
}

async fn nothing_here(headers: HeaderMap, uri: Uri) -> Response {
    if api::is_grpc(&headers) {
        return api::no_such_service(uri.path());
    }
    let text = "404 not found; there are /health, /livez, /readyz, /version and /metrics\n";
    (StatusCode::NOT_FOUND, text).into_response()
}

/// G-1. Names as etcd has them; kubeadm reads the first.
#[derive(Serialize)]
struct Version {
    etcdserver: &'static str,
    etcdcluster: &'static str,
    storage: &'static str,
    synod: &'static str,
}

async fn version() -> Json<Version> {
    Json(Version {
        etcdserver: ETCD_VERSION,
        etcdcluster: ETCD_STORAGE_VERSION,
        storage: ETCD_STORAGE_VERSION,
        synod: env!("CARGO_PKG_VERSION"),
    })
}

/// G-2. The truth is text, as etcd has it.
#[derive(Serialize)]
struct Health {
    health: &'static str,
    reason: String,
}

async fn health<N: Node>(State(node): State<N>, RawQuery(query): RawQuery) -> Response {
    let serializable = parameters(&query).any(|(key, value)| key == "serializable" && value == "true");
    let outcome = if serializable {
        Check::SerializableRead.run(&node).await
    } else if node.status().leader.is_none() {
        Err("NO LEADER".to_owned())
    } else {
        Check::LinearizableRead.run(&node).await
    };
    let (status, health, reason) = match outcome {
        Ok(()) => (StatusCode::OK, "true", String::new()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, "false", reason),
    };
    (status, Json(Health { health, reason })).into_response()
}

/// One question about a server's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

/// If one of these fails, a restart may help. A missing majority is none of them.
const LIVE: [Check; 1] = [Check::SerializableRead];

/// If one of these fails, clients are better served elsewhere.
const READY: [Check; 4] =
    [Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    async fn run<N: Node>(self, node: &N) -> Result<(), String> {
        match self {
            Check::DataCorruption => {
                let failed = |role: &crate::replica::RoleStatus| match &role.state {
                    RoleState::Failed(why) => Some(format!("{} failed: {why}", role.role.name())),
                    RoleState::Running | RoleState::Stopped => None,
                };
                node.status().roles.iter().find_map(failed).map_or(Ok(()), Err)
            }
            Check::SerializableRead => read(node, Consistency::Serializable).await,
            Check::LinearizableRead => read(node, Consistency::Linearizable).await,
            Check::NonLearner if api::votes(&node.status()) => Ok(()),
            Check::NonLearner => Err("the acceptor of this server does not vote yet".to_owned()),
        }
    }
}

async fn read<N: Node>(node: &N, consistency: Consistency) -> Result<(), String> {
    match tokio::time::timeout(PATIENCE, node.read(consistency, |_| ())).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    }
}

async fn livez<N: Node>(State(node): State<N>, RawQuery(query): RawQuery) -> Response {
    run("livez", &LIVE, &query, &node).await
}

async fn readyz<N: Node>(State(node): State<N>, RawQuery(query): RawQuery) -> Response {
    run("readyz", &READY, &query, &node).await
}

async fn livez_one<N: Node>(State(node): State<N>, Path(check): Path<String>) -> Response {
    run_one("livez", &LIVE, &check, &node).await
}

async fn readyz_one<N: Node>(State(node): State<N>, Path(check): Path<String>) -> Response {
    run_one("readyz", &READY, &check, &node).await
}

async fn run<N: Node>(endpoint: &str, checks: &[Check], query: &Option<String>, node: &N) -> Response {
    let verbose = parameters(query).any(|(key, _)| key == "verbose");
    let excluded: Vec<&str> =
        parameters(query).filter(|(key, _)| *key == "exclude").map(|(_, value)| value).collect();
    let mut report = String::new();
    let mut healthy = true;
    for check in checks {
        let name = check.name();
        if excluded.contains(&name) {
            report.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match check.run(node).await {
            Ok(()) => report.push_str(&format!("[+]{name} ok\n")),
            Err(reason) => {
                healthy = false;
                report.push_str(&format!("[-]{name} failed: {reason}\n"));
            }
        }
    }
    let unknown: Vec<_> =
        excluded.into_iter().filter(|name| checks.iter().all(|check| check.name() != *name)).collect();
    if !unknown.is_empty() {
        report.push_str(&format!("warn: there is no such check to exclude: {}\n", unknown.join(", ")));
    }
    match (healthy, verbose) {
        (true, false) => (StatusCode::OK, "ok\n".to_owned()),
        (true, true) => (StatusCode::OK, format!("{report}{endpoint} check passed\n")),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, format!("{report}{endpoint} check failed\n")),
    }
    .into_response()
}

async fn run_one<N: Node>(endpoint: &str, checks: &[Check], name: &str, node: &N) -> Response {
    let Some(check) = checks.iter().find(|check| check.name() == name) else {
        let known: Vec<_> = checks.iter().map(|check| check.name()).collect();
        let text = format!("404 {endpoint} has no check {name:?}; it has {}\n", known.join(", "));
        return (StatusCode::NOT_FOUND, text).into_response();
    };
    match check.run(node).await {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{name} failed: {reason}\n")).into_response()
        }
    }
}

/// The pairs of a query. Nothing that means something here needs percent-encoding.
fn parameters(query: &Option<String>) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.as_deref().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

//! What a server counts, for Prometheus.
//!
//! Names are etcd's where the meaning is etcd's, so that its dashboards and alerts work (G-5); ours start
//! with `synod_`. Calls of clients are counted as they happen, through handles that are made once. All that
//! the replica knows about itself is asked for when somebody scrapes ([`Metrics::watch`]).
//!
//! What is served is the classic text format. The library writes OpenMetrics, which differs in two ways that
//! matter: there, a counter's family has a name without the `_total` that its samples have; and there, no
//! gauge may be called `_total`, as several of etcd's are.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;
use tonic::{Code, Response, Status};

use crate::api::Node;
use crate::replica::{ReplicaStatus, RoleState};

/// What a scrape is labelled with, as HTTP says it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the buckets for how long a call took, in seconds.
const CALL_SECONDS: [f64; 14] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MethodLabels {
    grpc_type: &'static str,
    grpc_service: &'static str,
    grpc_method: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabels {
    grpc_type: &'static str,
    grpc_service: &'static str,
    grpc_method: &'static str,
    grpc_code: &'static str,
}

/// Every gRPC code, with its name in labels, in the order of the numbers.
const CODES: [(Code, &str); 17] = [
    (Code::Ok, "OK"),
    (Code::Cancelled, "Canceled"),
    (Code::Unknown, "Unknown"),
    (Code::InvalidArgument, "InvalidArgument"),
    (Code::DeadlineExceeded, "DeadlineExceeded"),
    (Code::NotFound, "NotFound"),
    (Code::AlreadyExists, "AlreadyExists"),
    (Code::PermissionDenied, "PermissionDenied"),
    (Code::ResourceExhausted, "ResourceExhausted"),
    (Code::FailedPrecondition, "FailedPrecondition"),
    (Code::Aborted, "Aborted"),
    (Code::OutOfRange, "OutOfRange"),
    (Code::Unimplemented, "Unimplemented"),
    (Code::Internal, "Internal"),
    (Code::Unavailable, "Unavailable"),
    (Code::DataLoss, "DataLoss"),
    (Code::Unauthenticated, "Unauthenticated"),
];

/// The counters of one method. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MethodMetrics {
    started: Counter,
    handled: [Counter; CODES.len()],
    seconds: Histogram,
}

impl MethodMetrics {
    /// Counts a call: that it began, how it ended and how long it took. One whose client went away before
    /// it ended is counted as cancelled.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn track<T>(
        &self,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<Response<T>, Status> {
        self.started.inc();
        let mut call_ends = CallEnds { metrics: self, began: Instant::now(), code: Code::Cancelled };
        let answer = call.await;
        call_ends.code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        answer.map(Response::new)
    }
}

/// Counts the end of a call when dropped, which also happens when its client goes away.
struct CallEnds<'m> {
    metrics: &'m MethodMetrics,
    began: Instant,
    code: Code,
}

impl Drop for CallEnds<'_> {
    fn drop(&mut self) {
        self.metrics.handled[self.code as usize].inc();
        self.metrics.seconds.observe(self.began.elapsed().as_secs_f64());
    }
}

macro_rules! methods {
    ($($field:ident: $service:literal $method:literal,)*) => {
        /// The counters of all methods that are served.
        #[derive(Clone, Debug)]
        pub struct Methods {
            $(#[doc = concat!($service, ".", $method)] pub $field: MethodMetrics,)*
        }

        impl Methods {
            fn new(families: &Families) -> Methods {
                Methods { $($field: families.method($service, $method),)* }
            }
        }
    };
}

methods! {
    range: "etcdserverpb.KV" "Range",
    put: "etcdserverpb.KV" "Put",
    delete_range: "etcdserverpb.KV" "DeleteRange",
    txn: "etcdserverpb.KV" "Txn",
    compact: "etcdserverpb.KV" "Compact",
    status: "etcdserverpb.Maintenance" "Status",
    alarm: "etcdserverpb.Maintenance" "Alarm",
    member_list: "etcdserverpb.Cluster" "MemberList",
    inspect: "synodpb.Admin" "Inspect",
    state_at: "synodpb.Admin" "StateAt",
    inject_fault: "synodpb.Admin" "InjectFault",
}

struct Families {
    started: Family<MethodLabels, Counter>,
    handled: Family<CodeLabels, Counter>,
    seconds: Family<MethodLabels, Histogram>,
}

impl Families {
    fn method(&self, grpc_service: &'static str, grpc_method: &'static str) -> MethodMetrics {
        let grpc_type = "unary";
        let labels = MethodLabels { grpc_type, grpc_service, grpc_method };
        let handled = CODES.map(|(_, grpc_code)| {
            let labels = CodeLabels { grpc_type, grpc_service, grpc_method, grpc_code };
            self.handled.get_or_create(&labels).clone()
        });
        MethodMetrics {
            started: self.started.get_or_create(&labels).clone(),
            handled,
            seconds: self.seconds.get_or_create(&labels).clone(),
        }
    }
}

/// The counters of the client port.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    /// Connections that are open.
    pub open: Gauge,
    /// Connections that were accepted.
    pub accepted: Counter,
    /// Bytes that came in.
    pub received: Counter,
    /// Bytes that went out.
    pub sent: Counter,
}

/// All metrics of one server. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    methods: Methods,
    connections: Connections,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// The metrics of a server whose replica is `node`: it is asked at every scrape.
    pub fn watch<N: Node>(node: N) -> Metrics {
        let mut registry = Registry::default();
        let families = Families {
            started: Family::default(),
            handled: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(CALL_SECONDS)),
        };
        registry.register("grpc_server_started", "Calls that began", families.started.clone());
        registry.register("grpc_server_handled", "Calls that ended, by code", families.handled.clone());
        registry.register(
            "grpc_server_handling_seconds",
            "How long calls took, in seconds",
            families.seconds.clone(),
        );
        let connections = Connections::default();
        registry.register(
            "synod_client_connections",
            "Connections that clients hold open",
            connections.open.clone(),
        );
        registry.register(
            "synod_client_connections_accepted",
            "Connections that clients have made",
            connections.accepted.clone(),
        );
        registry.register(
            "etcd_network_client_grpc_received_bytes",
            "Bytes received from clients",
            connections.received.clone(),
        );
        registry.register(
            "etcd_network_client_grpc_sent_bytes",
            "Bytes sent to clients",
            connections.sent.clone(),
        );
        registry.register_collector(Box::new(Standing(node)));
        Metrics { registry: Arc::new(registry), methods: Methods::new(&families), connections }
    }

    /// Where calls are counted.
    pub fn methods(&self) -> &Methods {
        &self.methods
    }

    /// Where connections are counted.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// All metrics as they are now, in Prometheus' text format.
    pub fn scrape(&self) -> String {
        let mut openmetrics = String::new();
        text::encode_registry(&mut openmetrics, &self.registry).expect("a string takes any text");
        classic(&openmetrics)
    }
}

/// OpenMetrics as the classic format has it: a counter's comments bear the name that its samples bear.
fn classic(openmetrics: &str) -> String {
    let mut classic = String::with_capacity(openmetrics.len() + 1024);
    let mut lines = openmetrics.lines().peekable();
    while let Some(line) = lines.next() {
        let family = |line: &str, comment: &str| -> Option<(String, String)> {
            let (name, rest) = line.strip_prefix(comment)?.split_once(' ')?;
            Some((name.to_owned(), rest.to_owned()))
        };
        if let Some((name, help)) = family(line, "# HELP ") {
            let next = lines.peek().and_then(|next| family(next, "# TYPE "));
            let suffix = if next.is_some_and(|(_, kind)| kind == "counter") { "_total" } else { "" };
            classic.push_str(&format!("# HELP {name}{suffix} {help}\n"));
        } else if let Some((name, kind)) = family(line, "# TYPE ") {
            let suffix = if kind == "counter" { "_total" } else { "" };
            classic.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else {
            classic.push_str(line);
            classic.push('\n');
        }
    }
    classic
}

/// What the replica says of itself, asked at each scrape.
struct Standing<N>(N);

impl<N> fmt::Debug for Standing<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Standing")
    }
}

impl<N: Node> Collector for Standing<N> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = self.0.status();
        let mut page = Page { encoder };
        page.etcd(&status)?;
        page.ours(&status)?;
        page.roles(&status)?;
        page.peers(&status)
    }
}

struct Page<'e> {
    encoder: DescriptorEncoder<'e>,
}

impl Page<'_> {
    fn etcd(&mut self, status: &ReplicaStatus) -> fmt::Result {
        let leads = status.leader.is_some_and(|leader| leader.node == status.node);
        self.gauge("etcd_server_has_leader", "1 if a leader is known", status.leader.is_some())?;
        self.gauge("etcd_server_is_leader", "1 if this server leads", leads)?;
        self.counter("etcd_server_leader_changes_seen", "Changes of the leader", status.leader_changes)?;
        self.gauge("etcd_server_proposals_committed_total", "Last slot known chosen", status.chosen.0)?;
        self.gauge("etcd_server_proposals_applied_total", "Last slot applied", status.applied.0)?;
        self.gauge("etcd_server_proposals_pending", "Commands waiting for an answer", status.waiting)?;
        self.gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes of the store", status.store_bytes)?;
        self.gauge(
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Bytes of the store that the newest revision needs",
            status.store_bytes_in_use,
        )?;
        self.gauge("etcd_debugging_mvcc_current_revision", "The store's revision", status.revision.0)?;
        self.gauge(
            "etcd_debugging_mvcc_compact_revision",
            "The revision of the last compaction, 0 if there was none",
            status.compacted.map_or(0, |revision| revision.0),
        )
    }

    fn ours(&mut self, status: &ReplicaStatus) -> fmt::Result {
        let round = status.leader.map_or(0, |leader| leader.round);
        self.gauge("synod_ballot_round", "Round of the leader's ballot", round)?;
        self.gauge("synod_slot_chosen", "Last slot known chosen here", status.chosen.0)?;
        self.gauge("synod_slot_known", "Last slot that anybody called chosen", status.known.0)?;
        self.gauge("synod_slot_applied", "Last slot applied", status.applied.0)?;
        self.gauge("synod_slot_trimmed", "Last slot that the acceptor trimmed", status.trimmed.0)?;
        self.gauge("synod_slot_checkpoint", "Last slot that a checkpoint covers", status.checkpoint.0)?;
        self.gauge("synod_log_bytes", "Bytes of the log", status.log_bytes)?;
        self.gauge("synod_uptime_seconds", "Since the process started", status.uptime.as_secs())?;
        self.gauge("synod_healthy", "1 unless something is wrong here", status.problem.is_none())?;
        let voters = status.members.iter().filter(|(_, member)| member.voter.is_some()).count();
        self.gauge("synod_voters", "Servers that vote", voters as u64)?;
        if let Some(p99) = status.sync_p99 {
            let help = "99th percentile of recent log syncs";
            self.sample("synod_fsync_p99_seconds", help, &ConstGauge::new(p99.as_secs_f64()))?;
        }
        Ok(())
    }

    fn roles(&mut self, status: &ReplicaStatus) -> fmt::Result {
        let roles = || status.roles.iter();
        let help = "1 if the role is at work";
        let mut metric = self.encoder.encode_descriptor("synod_role_up", help, None, MetricType::Gauge)?;
        for role in roles() {
            let up = ConstGauge::new(u64::from(role.state == RoleState::Running));
            up.encode(metric.encode_family(&[("role", role.role.name())])?)?;
        }
        let help = "Starts of the role after the first";
        let mut metric =
            self.encoder.encode_descriptor("synod_role_restarts", help, None, MetricType::Counter)?;
        for role in roles() {
            let restarts = ConstCounter::new(role.restarts);
            restarts.encode(metric.encode_family(&[("role", role.role.name())])?)?;
        }
        Ok(())
    }

    fn peers(&mut self, status: &ReplicaStatus) -> fmt::Result {
        let help = "1 if there is a connection to the peer";
        let mut metric =
            self.encoder.encode_descriptor("synod_peer_connected", help, None, MetricType::Gauge)?;
        for peer in &status.peers {
            let connected = ConstGauge::new(u64::from(peer.connected));
            connected.encode(metric.encode_family(&[("peer", peer.node.to_string())])?)?;
        }
        let help = "Round trip of the last heartbeat";
        let mut metric =
            self.encoder.encode_descriptor("synod_peer_rtt_seconds", help, None, MetricType::Gauge)?;
        for peer in &status.peers {
            let Some(round_trip) = peer.round_trip else { continue };
            let round_trip = ConstGauge::new(round_trip.as_secs_f64());
            round_trip.encode(metric.encode_family(&[("peer", peer.node.to_string())])?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Into<u64>) -> fmt::Result {
        self.sample(name, help, &ConstGauge::new(value.into()))
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.sample(name, help, &ConstCounter::new(value))
    }

    fn sample<M: EncodeMetric + TypedMetric>(&mut self, name: &str, help: &str, metric: &M) -> fmt::Result {
        metric.encode(self.encoder.encode_descriptor(name, help, None, M::TYPE)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g_5_codes_are_counted_under_their_own_names() {
        for (index, (code, name)) in CODES.into_iter().enumerate() {
            assert_eq!(code as usize, index, "{name}");
        }
    }

    #[test]
    fn g_5_counters_bear_one_name_in_the_classic_format() {
        let openmetrics = "# HELP a Things.\n# TYPE a counter\na_total 1\n# HELP b_total Level.\n# TYPE b_total gauge\nb_total 2\n";
        let expected = "# HELP a_total Things.\n# TYPE a_total counter\na_total 1\n# HELP b_total Level.\n# TYPE b_total gauge\nb_total 2\n";
        assert_eq!(classic(openmetrics), expected);
    }
}

//! `status` and `fault` against three fake replicas: what is asked of whom, and
//! what is made of the answers.

use std::net::SocketAddr;
use std::process::Output;
use std::sync::{Arc, Mutex};

use assert_cmd::cargo::cargo_bin;
use tonic::codegen::BoxStream;
use tonic::codegen::tokio_stream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use synod_rpc::etcdserverpb::cluster_server::{Cluster, ClusterServer};
use synod_rpc::etcdserverpb::{Member, MemberListRequest, MemberListResponse};
use synod_rpc::synodpb::admin_server::{Admin, AdminServer};
use synod_rpc::synodpb::fault_event::Kind;
use synod_rpc::synodpb::inject_fault_request::Fault;
use synod_rpc::synodpb::*;

/// A replica that says what it was told to say, and remembers its faults.
#[derive(Clone)]
struct Fake {
    id: u64,
    endpoints: Arc<Vec<String>>,
    faults: Arc<Mutex<Vec<(u64, Fault)>>>,
    faults_allowed: bool,
}

fn name(id: u64) -> String {
    format!("n{id}")
}

#[tonic::async_trait]
impl Cluster for Fake {
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            return Err(Status::unavailable("etcdserver: no leader"));
        }
        let members = self.endpoints.iter().zip(1..).map(|(endpoint, id)| Member {
            id,
            name: name(id),
            client_urls: vec![format!("http://{endpoint}")],
            ..Member::default()
        });
        Ok(Response::new(MemberListResponse { header: None, members: members.collect() }))
    }
}

#[tonic::async_trait]
impl Admin for Fake {
    async fn inspect(&self, _: Request<InspectRequest>) -> Result<Response<InspectResponse>, Status> {
        let voter =
            |node_id| Voter { node_id, name: name(node_id), incarnation: "a".to_owned(), votes: true };
        Ok(Response::new(InspectResponse {
            name: name(self.id),
            node_id: self.id,
            cluster_id: 7,
            incarnation: "a".to_owned(),
            leader: Some(2),
            ballot: "4.n2".to_owned(),
            ballot_round: 4,
            chosen_slot: 90,
            applied_slot: 90,
            voters: (1..=3).map(voter).collect(),
            ..InspectResponse::default()
        }))
    }

    async fn inject_fault(
        &self,
        request: Request<InjectFaultRequest>,
    ) -> Result<Response<InjectFaultResponse>, Status> {
        if !self.faults_allowed {
            return Err(Status::failed_precondition("faults are not allowed here"));
        }
        let fault = request.into_inner().fault.ok_or_else(|| Status::invalid_argument("no fault"))?;
        self.faults.lock().unwrap().push((self.id, fault));
        Ok(Response::new(InjectFaultResponse { done: format!("done at n{}", self.id), roles: Vec::new() }))
    }

    async fn fault_events(
        &self,
        _: Request<FaultEventsRequest>,
    ) -> Result<Response<BoxStream<FaultEvent>>, Status> {
        let event = FaultEvent {
            node: name(self.id),
            kind: Kind::LeaderChanged.into(),
            text: "n2 leads".to_owned(),
            ..FaultEvent::default()
        };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(event)))))
    }
}

/// Three fakes, of which only the first `up` are started; the addresses of the
/// others are taken by sockets that refuse.
struct Three {
    endpoints: Arc<Vec<String>>,
    faults: Arc<Mutex<Vec<(u64, Fault)>>>,
    _refusing: Vec<tokio::net::TcpSocket>,
}

impl Three {
    async fn start(up: usize, faults_allowed: bool) -> Self {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (mut listening, mut refusing, mut endpoints) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..3 {
            if index < up {
                let incoming = TcpIncoming::bind(any).unwrap();
                endpoints.push(incoming.local_addr().unwrap().to_string());
                listening.push(incoming);
            } else {
                let socket = tokio::net::TcpSocket::new_v4().unwrap();
                socket.bind(any).unwrap();
                endpoints.push(socket.local_addr().unwrap().to_string());
                refusing.push(socket);
            }
        }
        let (endpoints, faults) = (Arc::new(endpoints), Arc::default());
        for (incoming, id) in listening.into_iter().zip(1..) {
            let fake =
                Fake { id, endpoints: Arc::clone(&endpoints), faults: Arc::clone(&faults), faults_allowed };
            let server = Server::builder()
                .add_service(ClusterServer::new(fake.clone()))
                .add_service(AdminServer::new(fake));
            tokio::spawn(server.serve_with_incoming(incoming));
        }
        Self { endpoints, faults, _refusing: refusing }
    }

    /// Runs the binary; it is told the first endpoint only.
    async fn run(&self, args: &[&str]) -> Output {
        let mut command = std::process::Command::new(cargo_bin("synod"));
        command.args(["--endpoints", &self.endpoints[0]]).args(args);
        command.env_remove("SYNOD_WRITE_OUT").env_remove("ETCDCTL_WRITE_OUT");
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    fn faults(&self) -> Vec<(u64, Fault)> {
        self.faults.lock().unwrap().clone()
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_endpoint_is_enough_to_see_all() {
    let cluster = Three::start(3, false).await;
    let output = cluster.run(&["status"]).await;
    let shown = text(&output.stdout);
    let names: Vec<_> =
        shown.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).take(3).collect();
    assert_eq!(names, ["n1", "n2", "n3"], "{shown}");
    assert_eq!(shown.lines().last(), Some("healthy: 3 of 3 voters up, 1 more may fail"), "{shown}");
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_the_status_still_answers_and_fails() {
    let cluster = Three::start(1, false).await;
    let output = cluster.run(&["status", "-w", "json"]).await;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&status["up"], &status["voters"]), (&1.into(), &3.into()), "{status}");
    assert!(status["verdict"].as_str().unwrap().starts_with("NO QUORUM: 1 of 3 voters up, 2 needed"));
    assert_eq!(status["replicas"][1]["name"], "n2");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_is_asked_of_the_named_replica() {
    let cluster = Three::start(3, true).await;
    let output = cluster.run(&["fault", "stop", "acceptor", "--on", "n3", "--for", "2s", "--forget"]).await;
    assert_eq!(text(&output.stdout), "done at n3\n");
    let stop = StopRole {
        role: Role::Acceptor.into(),
        memory: FaultMemory::Forget.into(),
        restart_after_ms: Some(2_000),
    };
    assert_eq!(cluster.faults(), [(3, Fault::StopRole(stop))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_names_the_peer_though_it_was_given_by_address() {
    let cluster = Three::start(3, true).await;
    cluster.run(&["fault", "cut", "n1", &cluster.endpoints[1]]).await;
    let faults = cluster.faults();
    let [(1, Fault::Link(link))] = &faults[..] else { panic!("{faults:?}") };
    assert_eq!((link.peer.as_str(), link.cut), ("n2", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn healing_reaches_whoever_is_up_and_tells_who_is_not() {
    let cluster = Three::start(2, true).await;
    let output = cluster.run(&["--command-timeout", "2s", "fault", "heal"]).await;
    assert_eq!(text(&output.stdout), "done at n1\ndone at n2\n");
    assert!(text(&output.stderr).contains(&cluster.endpoints[2]), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn random_forgetting_spares_a_majority() {
    let cluster = Three::start(3, true).await;
    let output = cluster.run(&["fault", "random", "--forget", "--seed", "7"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let struck: Vec<u64> = cluster.faults().into_iter().map(|(id, _)| id).collect();
    assert_eq!(struck, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_allows_no_faults_is_told_how_to() {
    let cluster = Three::start(3, false).await;
    let output = cluster.run(&["fault", "heal", "--on", "n2"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--allow-faults"), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_all_replicas_are_printed() {
    let cluster = Three::start(3, false).await;
    let output = cluster.run(&["fault", "events"]).await;
    let shown = text(&output.stdout);
    for name in ["n1", "n2", "n3"] {
        assert!(
            shown.lines().any(|line| line.contains(name) && line.ends_with("LEADER   n2 leads")),
            "{shown}"
        );
    }
    // The fakes end their streams; then nobody is left to listen to.
    assert_eq!(output.status.code(), Some(1));
}

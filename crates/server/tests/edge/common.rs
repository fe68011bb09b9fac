//! A server whose replica is a store in memory: what it is asked is recorded, what it answers can be set.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use synod_kv::{Request, StateHash, Store};
use synod_paxos::membership::Member;
use synod_paxos::types::{Ballot, ClusterId, Generation, Incarnation, NodeId, Prefix, Slot, VoterId};
use synod_server::api::{self, ApiOptions, Node};
use synod_server::config::HttpUrl;
use synod_server::metrics::Metrics;
use synod_server::replica::{
    Answer, Consistency, Event, FaultError, LinkFault, PeerStatus, RandomFaults, ReplicaStatus, RequestError,
    Role, RoleFault, RoleState, RoleStatus,
};
use synod_server::{http, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// More than 64 bits, to see which of them a header shows.
pub(crate) const CLUSTER: ClusterId = ClusterId(0xabcd_0000_0000_0000_1234);

/// What the fake was asked, and what it is to answer.
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) proposals: u64,
    pub(crate) reads: Vec<Consistency>,
    /// Why writes and linearizable reads fail, if they do.
    pub(crate) failing: Option<RequestError>,
    /// Writes wait until this turns true.
    pub(crate) gate: Option<watch::Receiver<bool>>,
    pub(crate) status: ReplicaStatus,
    pub(crate) faults: Vec<String>,
    pub(crate) faults_allowed: bool,
}

#[derive(Clone)]
pub(crate) struct FakeNode {
    inner: Arc<Mutex<Inner>>,
    pub(crate) events: broadcast::Sender<Event>,
}

fn member(name: &str, port: u16, voter: Option<u128>) -> Member {
    Member {
        name: name.to_owned(),
        peer_urls: vec![format!("http://127.0.0.1:{port}")],
        client_urls: vec![format!("http://127.0.0.1:{}", port - 1)],
        voter: voter.map(Incarnation),
    }
}

fn status() -> ReplicaStatus {
    let role = |role| RoleStatus { role, state: RoleState::Running, restarts: 0 };
    ReplicaStatus {
        name: "n1".to_owned(),
        node: NodeId(1),
        cluster: Some(CLUSTER),
        formation: "formed".to_owned(),
        acceptor: Some(VoterId { node: NodeId(1), incarnation: Incarnation(0xa1) }),
        roles: Role::ALL.map(role).to_vec(),
        durable: true,
        leader: Some(Ballot { round: 7, node: NodeId(2), generation: Generation(1) }),
        chosen: Prefix(30),
        known: Prefix(31),
        applied: Prefix(29),
        log_start: Some(Slot(11)),
        trimmed: Prefix(10),
        checkpoint: Prefix(20),
        revision: Default::default(),
        compacted: None,
        state_hash: StateHash::default(),
        log_bytes: 4096,
        store_bytes_in_use: 100,
        store_bytes: 200,
        sync_p99: Some(Duration::from_micros(1500)),
        members: vec![
            (NodeId(2), member("n2", 2382, Some(0xa2))),
            (NodeId(1), member("n1", 2380, Some(0xa1))),
            (NodeId(3), member("n3", 2384, None)),
        ],
        voters: vec![
            VoterId { node: NodeId(1), incarnation: Incarnation(0xa1) },
            VoterId { node: NodeId(2), incarnation: Incarnation(0xa2) },
        ],
        window: 64,
        peers: vec![PeerStatus {
            node: NodeId(2),
            connected: true,
            last_heard: Some(Duration::from_millis(3)),
            round_trip: Some(Duration::from_micros(250)),
            chosen: Prefix(30),
            applied: Prefix(28),
        }],
        uptime: Duration::from_secs(9),
        problem: None,
        leader_changes: 2,
        waiting: 0,
    }
}

impl FakeNode {
    pub(crate) fn new() -> FakeNode {
        let inner = Inner {
            store: Store::new(),
            proposals: 0,
            reads: Vec::new(),
            failing: None,
            gate: None,
            status: status(),
            faults: Vec::new(),
            faults_allowed: true,
        };
        FakeNode { inner: Arc::new(Mutex::new(inner)), events: broadcast::channel(16).0 }
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn fault(&self, fault: String) -> Result<String, FaultError> {
        let mut inner = self.inner();
        if !inner.faults_allowed {
            return Err(FaultError::NotAllowed);
        }
        inner.faults.push(fault.clone());
        Ok(fault)
    }
}

impl Node for FakeNode {
    async fn propose(&self, request: Bytes) -> Result<Answer, RequestError> {
        let gate = {
            let mut inner = self.inner();
            inner.proposals += 1;
            if let Some(error) = inner.failing {
                return Err(error);
            }
            inner.gate.clone()
        };
        if let Some(mut gate) = gate {
            gate.wait_for(|open| *open).await.map_err(|_| RequestError::Stopped)?;
        }
        let request = Request::decode(request).expect("the server encodes what it proposes");
        Ok(Answer::Store(self.inner().store.apply(&request).expect("all of it is in memory")))
    }

    async fn read<T: Send>(
        &self,
        consistency: Consistency,
        look: impl FnOnce(&Store) -> T + Send,
    ) -> Result<T, RequestError> {
        let mut inner = self.inner();
        inner.reads.push(consistency);
        match inner.failing {
            Some(error) if consistency == Consistency::Linearizable => Err(error),
            _ => Ok(look(&inner.store)),
        }
    }

    fn status(&self) -> ReplicaStatus {
        let inner = self.inner();
        ReplicaStatus { revision: inner.store.revision(), ..inner.status.clone() }
    }

    fn state_hash_at(&self, slot: Slot) -> Option<StateHash> {
        (slot == Slot(29)).then_some(StateHash(0x29))
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    fn fail_role(&self, fault: RoleFault) -> Result<String, FaultError> {
        self.fault(format!("{fault:?}"))
    }

    fn fail_links(&self, peers: &[NodeId], fault: Option<LinkFault>) -> Result<String, FaultError> {
        self.fault(format!("{peers:?} {fault:?}"))
    }

    fn fail_at_random(&self, faults: Option<RandomFaults>) -> Result<String, FaultError> {
        self.fault(format!("{faults:?}"))
    }
}

/// A server on a port of its own.
pub(crate) struct Server {
    pub(crate) node: FakeNode,
    pub(crate) metrics: Metrics,
    pub(crate) port: u16,
    pub(crate) close: watch::Sender<bool>,
    pub(crate) serving: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Server {
        Server::start_with(FakeNode::new(), Duration::from_secs(5)).await
    }

    pub(crate) async fn start_with(node: FakeNode, grace: Duration) -> Server {
        let url: HttpUrl = "http://127.0.0.1:0".parse().unwrap();
        let listener = listen::bind(&url, "--listen-client-urls").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (close, closing) = watch::channel(false);
        let metrics = Metrics::watch(node.clone());
        let options = ApiOptions { max_request_bytes: 1 << 20, faults_allowed: true };
        let grpc = api::router(node.clone(), &options, &metrics, closing.clone());
        let router = http::router(node.clone(), metrics.clone(), grpc);
        let connections = metrics.connections().clone();
        let serving = tokio::spawn(listen::serve(listener, router, connections, closing, grace));
        Server { node, metrics, port, close, serving }
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port)).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// Status and body of what HTTP/1.1 has at `path`.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.raw(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// Everything that comes back for `request`, until the server closes the connection.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }
}

//! Two or three transports on loopback. Every wait is for an event, with a limit
//! that only a failure reaches.

mod calls;
mod faults;
mod former;
mod slow;
mod streams;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use synod_paxos::formation::FormationMessage;
use synod_paxos::message::Message;
use synod_paxos::types::{Ballot, ClusterId, Generation, NodeId, Prefix, Slot};
use synod_paxos::value::Value;
use tokio::sync::mpsc;

use super::*;

const CLUSTER: ClusterId = ClusterId(0xc1);
const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

/// What an inbox was told.
#[derive(Debug, PartialEq)]
enum Event {
    Arrived(NodeId, Vec<Message>),
    Connected(NodeId),
    Disconnected(NodeId),
}

struct Told(mpsc::UnboundedSender<Event>);

impl Inbox for Told {
    fn deliver(&self, from: NodeId, messages: Vec<Message>) {
        let _ = self.0.send(Event::Arrived(from, messages));
    }

    fn connected(&self, node: NodeId) {
        let _ = self.0.send(Event::Connected(node));
    }

    fn disconnected(&self, node: NodeId) {
        let _ = self.0.send(Event::Disconnected(node));
    }
}

/// A checkpoint of some blocks, of which reading may fail in the end.
#[derive(Clone, Default)]
struct Blocks {
    blocks: Option<Vec<Bytes>>,
    fails: bool,
}

impl CheckpointSource for Blocks {
    fn open(&self) -> io::Result<Option<CheckpointStream>> {
        let Some(blocks) = self.blocks.clone() else { return Ok(None) };
        let failure = self.fails.then(|| Err(io::Error::other("bad sector")));
        Ok(Some(CheckpointStream {
            covered: Prefix(77),
            state: Bytes::from_static(b"protocol"),
            blocks: Box::new(blocks.into_iter().map(Ok).chain(failure)),
        }))
    }
}

/// Answers every message of formation with itself.
struct Echo;

impl FormationHandler for Echo {
    fn hear(&self, message: FormationMessage) -> FormationAnswers {
        Box::pin(async { vec![message] })
    }
}

struct Server {
    transport: Transport,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Server {
    async fn start(node: NodeId) -> Server {
        Server::start_with(node, Some(CLUSTER), "127.0.0.1:0", Blocks::default()).await
    }

    async fn start_with(
        node: NodeId,
        cluster: Option<ClusterId>,
        listen: &str,
        checkpoints: Blocks,
    ) -> Server {
        Server::start_asking(node, cluster, listen, checkpoints, service::CALLER_INTERVAL).await
    }

    /// One that asks its callers this often whether they live.
    async fn start_asking(
        node: NodeId,
        cluster: Option<ClusterId>,
        listen: &str,
        checkpoints: Blocks,
        interval: Duration,
    ) -> Server {
        let (told, events) = mpsc::unbounded_channel();
        let listen = vec![listen.parse().unwrap()];
        let config = TransportConfig { node, cluster, listen, peers: BTreeMap::new(), seed: 1 };
        let handlers = Handlers {
            inbox: Arc::new(Told(told)),
            checkpoints: Arc::new(checkpoints),
            formation: Arc::new(Echo),
        };
        Server { transport: Transport::start_asking(config, handlers, interval).await.unwrap(), events }
    }

    fn address(&self) -> SocketAddr {
        self.transport.addresses()[0]
    }

    fn knows(&self, others: &[(NodeId, SocketAddr)]) {
        let urls = others.iter().map(|(node, address)| (*node, vec![format!("http://{address}")]));
        self.transport.set_peers(urls.collect());
    }

    async fn event(&mut self) -> Event {
        soon(self.events.recv()).await.expect("the transport lives")
    }

    /// The next messages, whatever else happens before.
    async fn arrived(&mut self) -> (NodeId, Vec<Message>) {
        loop {
            if let Event::Arrived(from, messages) = self.event().await {
                return (from, messages);
            }
        }
    }

    /// Waits until `count` messages arrived.
    async fn arrive(&mut self, count: usize) -> Vec<Message> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(self.arrived().await.1);
        }
        all
    }

    async fn is_told(&mut self, expected: Event) {
        while self.event().await != expected {}
    }

    /// Waits until the problem with `peer` says `words`.
    async fn complains(&self, peer: NodeId, words: &str) {
        soon(async {
            while !self.transport.peer_stats(peer).problem.is_some_and(|problem| problem.contains(words)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

/// Two servers that are connected both ways.
async fn pair() -> (Server, Server) {
    let (mut a, mut b) = (Server::start(A).await, Server::start(B).await);
    a.knows(&[(B, b.address())]);
    b.knows(&[(A, a.address())]);
    a.is_told(Event::Connected(B)).await;
    b.is_told(Event::Connected(A)).await;
    (a, b)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("this takes forever")
}

fn ballot() -> Ballot {
    Ballot { round: 1, node: A, generation: Generation(1) }
}

/// A message that can be told from others by its number.
fn numbered(slot: u64) -> Message {
    Message::Decide { slot: Slot(slot) }
}

fn accept(slot: u64, bytes: usize) -> Message {
    let value = Value::from_encoded(vec![7; bytes].into());
    Message::Accept { ballot: ballot(), slot: Slot(slot), value, chosen: None, learner: None }
}

//! The receiving side: what other servers may ask on the peer port.
//!
//! A connection is one task. It reads the streams of messages itself, since those
//! come by the hundred thousand; calls that are rare go to tonic.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection};
use synod_paxos::types::{ClusterId, NodeId};
use synod_rpc::peer::{PROTOCOL_VERSION, cluster_from_wire};
use synod_rpc::synodpb as pb;
use synod_rpc::synodpb::paxos_server::{Paxos, PaxosServer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::call::answer;
use super::delivery::Delivery;
use super::framing::DELIVER;
use super::lane::{DIAL_TIMEOUT, WINDOW_BYTES, silent};
use super::links::Way;
use super::queue::MAX_FRAME_BYTES;
use super::wire::Wire;
use super::{Shared, checkpoint, formation};

/// Longer pieces than HTTP/2's 16 KiB, so that a large value has few headers.
const PIECE_BYTES: u32 = 1 << 20;

/// How many streams a connection may have, and how long their heads may be, in bytes.
const MOST_STREAMS: u32 = 64;
const MOST_HEADER_BYTES: u32 = 16 << 10;

/// How often a caller is asked whether it lives. Nothing but a socket waits for the
/// answer: whoever calls asks more often.
pub(super) const CALLER_INTERVAL: Duration = Duration::from_secs(10);

/// After a failed accept, such as when file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves peers on `listener` until the transport stops. A failure is waited out: a
/// peer port that gives up after one would never come back.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let mut stopped = shared.stopped.subscribe();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        match accepted.and_then(|(stream, address)| Wire::new(stream).map(|wire| (wire, address))) {
            Ok((wire, address)) => drop(connections.spawn(converse(Arc::clone(&shared), wire, address))),
            Err(error) => {
                tracing::warn!("cannot take a connection from a peer: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// One connection, from its first byte to its end.
async fn converse(shared: Arc<Shared>, wire: Wire, address: SocketAddr) {
    let signs = wire.signs();
    let mut builder = Builder::new();
    builder
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(PIECE_BYTES)
        .max_header_list_size(MOST_HEADER_BYTES)
        .max_concurrent_streams(MOST_STREAMS);
    let Ok(Ok(mut connection)) = timeout(DIAL_TIMEOUT, builder.handshake(wire)).await else {
        return tracing::debug!(%address, "not a peer: it does not speak HTTP/2");
    };
    let (mut stopped, mut cluster) = (shared.stopped.subscribe(), shared.cluster.subscribe());
    let mut silence = std::pin::pin!(silent(connection.ping_pong(), &signs, shared.caller_interval));
    let mut conversation = Conversation { shared, address, deliveries: Vec::new(), calls: JoinSet::new() };
    loop {
        tokio::select! {
            biased;
            end = poll_fn(|cx| conversation.poll(&mut connection, cx)) => {
                return tracing::debug!(%address, ?end, "a peer's connection ended");
            }
            _ = stopped.wait_for(|stopped| *stopped) => break,
            Ok(()) = cluster.changed() => conversation.moved(*cluster.borrow_and_update()),
            silence = &mut silence => return tracing::debug!(%address, "a peer vanished: {silence}"),
        }
    }
    conversation.close("the server is shutting down");
    connection.graceful_shutdown();
    let _ = poll_fn(|cx| connection.poll_closed(cx)).await; // it is over in any case
}

/// What happens on one connection.
struct Conversation {
    shared: Arc<Shared>,
    address: SocketAddr,
    deliveries: Vec<Delivery>,
    calls: JoinSet<()>,
}

impl Conversation {
    /// Reads what has come, and acts on it. Ready once the connection has ended.
    fn poll(
        &mut self,
        connection: &mut Connection<Wire, Bytes>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), h2::Error>> {
        let end = loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) if request.uri().path() == DELIVER => {
                    self.deliveries.push(Delivery::new(request.into_body(), respond));
                }
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let service = PaxosServer::new(PeerService { shared: Arc::clone(&self.shared) })
                        .max_decoding_message_size(MAX_FRAME_BYTES)
                        .max_encoding_message_size(MAX_FRAME_BYTES);
                    while self.calls.try_join_next().is_some() {}
                    self.calls.spawn(answer(service, request, respond));
                }
                Poll::Ready(Some(Err(error))) => break Poll::Ready(Err(error)),
                Poll::Ready(None) => break Poll::Ready(Ok(())),
                Poll::Pending => break Poll::Pending,
            }
        };
        let (shared, address) = (&self.shared, self.address);
        // Also what came before the connection ended.
        self.deliveries.retain_mut(|delivery| delivery.poll(shared, address, cx).is_pending());
        end
    }

    /// This server belongs to another cluster from now on.
    fn moved(&mut self, now: Option<ClusterId>) {
        self.deliveries.retain_mut(|delivery| {
            let stays = delivery.cluster().is_none_or(|theirs| now == Some(theirs));
            if !stays {
                delivery.end(&Status::failed_precondition("this server no longer belongs to that cluster"));
            }
            stays
        });
    }

    /// Ends all streams of messages.
    fn close(&mut self, why: &str) {
        for mut delivery in self.deliveries.drain(..) {
            delivery.end(&Status::unavailable(why));
        }
    }
}

struct PeerService {
    shared: Arc<Shared>,
}

#[tonic::async_trait]
impl Paxos for PeerService {
    async fn checkpoint(
        &self,
        request: Request<pb::CheckpointRequest>,
    ) -> Result<Response<BoxStream<pb::CheckpointChunk>>, Status> {
        let request = request.into_inner();
        self.shared.check_version(request.version_min, request.version_max)?;
        let (from, _) = self.shared.check_caller(request.cluster, request.from_node, request.to_node)?;
        if !self.shared.links.pass(Way::In, from).await {
            return Err(Status::unavailable("the link is cut"));
        }
        checkpoint::serve(&self.shared).await.map(Response::new)
    }

    async fn form(
        &self,
        request: Request<pb::FormationEnvelope>,
    ) -> Result<Response<pb::FormationReply>, Status> {
        formation::serve(&self.shared, request.into_inner()).await.map(Response::new)
    }
}

impl Shared {
    /// Whom a stream comes from, if it may.
    pub(super) fn check_hello(&self, hello: &pb::Hello) -> Result<(NodeId, ClusterId), Status> {
        self.check_version(hello.version_min, hello.version_max)?;
        self.check_caller(hello.cluster, hello.from_node, hello.to_node)
    }

    /// Do both sides have a version in common?
    pub(super) fn check_version(&self, min: u32, max: u32) -> Result<(), Status> {
        if (min..=max).contains(&PROTOCOL_VERSION) {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "no common version of the peer protocol: you speak {min} to {max}, this server speaks {PROTOCOL_VERSION}"
        )))
    }

    /// Is the call meant for this server, by another one of its cluster? Servers
    /// of different clusters never talk.
    fn check_caller(
        &self,
        cluster: Option<pb::Id128>,
        from: u64,
        to: u64,
    ) -> Result<(NodeId, ClusterId), Status> {
        let (from, to) = (NodeId(from), NodeId(to));
        let refuse = |why: String| Err(Status::failed_precondition(why));
        let theirs = cluster_from_wire(cluster)
            .ok_or_else(|| Status::invalid_argument("the caller names no cluster"))?;
        let Some(ours) = *self.cluster.borrow() else {
            return refuse(format!(
                "this server, {}, belongs to no cluster yet; you belong to {theirs}",
                self.node
            ));
        };
        if theirs != ours {
            return refuse(format!("this server belongs to cluster {ours}, and you to {theirs}"));
        }
        if to != self.node {
            return refuse(format!(
                "this server is {}, and you look for {to}; check its peer URLs",
                self.node
            ));
        }
        if from == self.node {
            return refuse(format!("this server is {from} itself; two servers must not share an identity"));
        }
        Ok((from, ours))
    }
}

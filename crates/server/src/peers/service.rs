//! The receiving side: what other servers may ask on the peer port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use synod_paxos::message::Message;
use synod_paxos::types::{ClusterId, NodeId};
use synod_rpc::peer::{self, PROTOCOL_VERSION, cluster_from_wire};
use synod_rpc::synodpb as pb;
use synod_rpc::synodpb::paxos_server::{Paxos, PaxosServer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::lane::{DIAL_TIMEOUT, PING_INTERVAL, PING_TIMEOUT, WINDOW_BYTES};
use super::links::{Fate, Way};
use super::queue::MAX_FRAME_BYTES;
use super::{Shared, checkpoint, formation};

/// Longer pieces than HTTP/2's 16 KiB, so that a large value has few headers.
const PIECE_BYTES: u32 = 1 << 20;

/// After a failed accept, such as when file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves peers on `listener` until the transport stops.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let (connections, accepted) = mpsc::channel(16);
    let mut stopped = shared.stopped.subscribe();
    let stop = async move {
        let _ = stopped.wait_for(|stopped| *stopped).await; // an error: nobody is left who could stop us
    };
    tokio::spawn(accept(Arc::clone(&shared), listener, connections));
    let service = PaxosServer::new(PeerService { shared })
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .max_encoding_message_size(MAX_FRAME_BYTES);
    let served = Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(PIECE_BYTES)
        .max_concurrent_streams(64)
        .add_service(service)
        .serve_with_incoming_shutdown(ReceiverStream::new(accepted), stop)
        .await;
    if let Err(error) = served {
        tracing::error!("the peer port is no longer served: {error}");
    }
}

/// Takes connections until the transport stops. A failure is waited out: a peer
/// port that gives up after one would never come back.
async fn accept(
    shared: Arc<Shared>,
    listener: TcpListener,
    connections: mpsc::Sender<std::io::Result<TcpStream>>,
) {
    let mut stopped = shared.stopped.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        match accepted.and_then(|(stream, _)| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => {
                if connections.send(Ok(stream)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!("cannot take a connection from a peer: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct PeerService {
    shared: Arc<Shared>,
}

#[tonic::async_trait]
impl Paxos for PeerService {
    async fn deliver(
        &self,
        request: Request<Streaming<pb::Frame>>,
    ) -> Result<Response<BoxStream<pb::Welcome>>, Status> {
        let address = request.remote_addr();
        let mut frames = request.into_inner();
        let first = timeout(DIAL_TIMEOUT, frames.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello came"))??
            .and_then(|frame| frame.hello)
            .ok_or_else(|| Status::invalid_argument("the first frame must carry a Hello"))?;
        let (from, cluster) = self.shared.check_hello(&first).inspect_err(|refusal| {
            let why = refusal.message();
            tracing::warn!(peer = %NodeId(first.from_node), ?address, "refused a peer: {why}");
        })?;

        let (answers, stream) = mpsc::channel(1);
        let welcome = pb::Welcome { version: PROTOCOL_VERSION };
        answers.try_send(Ok(welcome)).map_err(|_| Status::internal("a new channel has no room"))?;
        tokio::spawn(receive(Arc::clone(&self.shared), from, cluster, frames, answers, address));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

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

/// Hands what arrives to the inbox, frame by frame, until the stream ends or
/// must end.
async fn receive(
    shared: Arc<Shared>,
    from: NodeId,
    cluster: ClusterId,
    mut frames: Streaming<pb::Frame>,
    answers: mpsc::Sender<Result<pb::Welcome, Status>>,
    address: Option<SocketAddr>,
) {
    let mut stopped = shared.stopped.subscribe();
    let mut moved = shared.cluster.subscribe();
    let end = loop {
        let frame = tokio::select! {
            frame = frames.message() => frame,
            _ = stopped.wait_for(|stopped| *stopped) => break Status::unavailable("the server is shutting down"),
            _ = moved.wait_for(|now| *now != Some(cluster)) => {
                break Status::failed_precondition("this server no longer belongs to that cluster");
            }
        };
        match frame {
            Ok(Some(frame)) => take(&shared, from, frame),
            Ok(None) => return,
            Err(status) => {
                tracing::debug!(peer = %from, ?address, "a peer's stream broke: {}", status.message());
                break status;
            }
        }
    };
    let _ = answers.try_send(Err(end)); // the peer may be gone
}

/// Decodes a frame and hands over what is not lost on purpose.
fn take(shared: &Arc<Shared>, from: NodeId, frame: pb::Frame) {
    let peers = shared.peers.load();
    let counters = peers.get(&from).map(|entry| &entry.peer.counters);
    let bytes: usize = frame.messages.iter().map(bytes::Bytes::len).sum();
    if let Some(counters) = counters {
        counters.received(frame.messages.len() as u64, bytes as u64);
    }

    let mut messages = Vec::with_capacity(frame.messages.len());
    let mut late: Vec<(Duration, Vec<Message>)> = Vec::new();
    for bytes in frame.messages {
        let message = match peer::decode(bytes) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(peer = %from, "dropped a message: {error}");
                shared.malformed.fetch_add(1, Ordering::Relaxed);
                if let Some(counters) = counters {
                    counters.malformed();
                }
                continue;
            }
        };
        match shared.links.fate(Way::In, from) {
            Fate::Pass => messages.push(message),
            Fate::Lost => {
                if let Some(counters) = counters {
                    counters.disturbed();
                }
            }
            Fate::Late(delay) => match late.last_mut().filter(|(last, _)| *last == delay) {
                Some((_, together)) => together.push(message),
                None => late.push((delay, vec![message])),
            },
        }
    }
    if !messages.is_empty() {
        shared.inbox.deliver(from, messages);
    }
    for (delay, messages) in late {
        let inbox = Arc::clone(&shared.inbox);
        shared.later(delay, bytes, move || inbox.deliver(from, messages));
    }
}

impl Shared {
    fn check_hello(&self, hello: &pb::Hello) -> Result<(NodeId, ClusterId), Status> {
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

//! The sending side: one task per peer and lane keeps one connection, for as
//! long as the peer belongs to this server's world.

use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong, RecvStream, SendStream};
use hyper::header::{CONTENT_TYPE, HeaderValue, TE};
use hyper::http::uri::{InvalidUri, PathAndQuery, Scheme};
use hyper::{Method, Request, StatusCode, Uri};
use prost::Message;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use synod_paxos::types::ClusterId;
use synod_rpc::peer::{PROTOCOL_VERSION, cluster_to_wire};
use synod_rpc::synodpb as pb;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tonic::Status;

use super::framing::{self, DELIVER, Unwrap};
use super::line::Line;
use super::peer::Peer;
use super::queue::Lane;
use super::wire::{Signs, Wire};
use super::{Shared, TransportError};

/// How long a connection, and then the peer's welcome, may take to come.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that answers no ping and shows no other sign of life for the timeout is dead. Together they
/// say how long a peer may vanish unnoticed when its machine sends no reset.
pub(super) const PING_INTERVAL: Duration = Duration::from_millis(500);
pub(super) const PING_TIMEOUT: Duration = Duration::from_millis(1500);

/// How often signs of life are looked for in that time, when an answer is late.
const LOOKS: u32 = 5;

/// How much may be under way before the receiver took it.
pub(super) const WINDOW_BYTES: u32 = 8 << 20;

/// Between attempts to connect: doubles from the first to the second, and is
/// cut by up to half at random, so that peers do not knock in step.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Keeps the lane to `peer` connected. Ends only by being aborted: a panic ends one connection, and the next is
/// dialled. Otherwise nothing would reach the peer by this lane any more until this server is restarted.
pub(super) async fn keep(shared: Arc<Shared>, peer: Arc<Peer>, lane: Lane) {
    let mut chance = ChaCha8Rng::seed_from_u64(shared.seed ^ peer.node.0.rotate_left(8) ^ lane as u64);
    let mut cluster = shared.cluster.subscribe();
    let mut backoff = BACKOFF.0;
    for url in peer.urls.iter().cycle() {
        let Ok(id) = cluster.wait_for(Option::is_some).await.map(|id| *id) else { return };
        let Some(id) = id else { continue };
        let attempt = Attempt { shared: &shared, peer: &peer, lane, up: false };
        let (error, was_up) = tokio::select! {
            end = caught(attempt.run(url, id)) => end.unwrap_or_else(|| (panicked(), false)),
            // The server found itself in another cluster: introduce it anew.
            _ = cluster.changed() => continue,
        };
        if was_up {
            backoff = BACKOFF.0;
        }
        peer.trouble(error.to_string());
        sleep(backoff.mul_f64(1.0 - chance.random::<f64>() / 2.0)).await;
        backoff = (backoff * 2).min(BACKOFF.1);
    }
}

/// One connection, from dialling to its end. However it ends, be it by being
/// dropped, what waits for it is forgotten.
struct Attempt<'a> {
    shared: &'a Shared,
    peer: &'a Arc<Peer>,
    lane: Lane,
    up: bool,
}

impl Attempt<'_> {
    /// Why the connection ended, and whether it had come to be one.
    async fn run(mut self, url: &str, cluster: ClusterId) -> (TransportError, bool) {
        let error = match self.talk(url, cluster).await {
            Ok(()) => {
                TransportError::Unreachable { url: url.to_owned(), reason: "it closed the stream".into() }
            }
            Err(error) => error,
        };
        (error, self.up)
    }

    async fn talk(&mut self, url: &str, cluster: ClusterId) -> Result<(), TransportError> {
        let (head, mut connection, sender, signs) = connect(url).await?;
        let pings = connection.ping_pong();
        let hello = pb::Hello {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            cluster: Some(cluster_to_wire(cluster)),
            from_node: self.shared.node.0,
            to_node: self.peer.node.0,
            lane: pb::Lane::from(self.lane).into(),
        };
        let (stream, mut answers) = tokio::select! {
            introduced = introduce(sender, head, hello) => introduced?,
            end = &mut connection => return Err(broken(end)),
            () = sleep(DIAL_TIMEOUT) => return Err(TransportError::Silent(DIAL_TIMEOUT)),
        };
        let line = Arc::new(Line::new(Arc::clone(self.peer), self.lane, stream, connection).await);
        self.peer.queue(self.lane).open(Arc::clone(&line));
        self.up = true;
        self.peer.set_up(self.lane, true, &*self.shared.inbox);
        tokio::select! {
            biased;
            end = line.run() => {
                // What it was told before it broke says more.
                let told = poll_once(answers.message()).await;
                told.and_then(Result::err).map_or_else(|| Err(broken(end)), Err)
            }
            end = answers.message() => end.map(drop),
            silence = silent(pings, &signs, PING_INTERVAL) => Err(silence),
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.peer.counters.dropped(self.peer.queue(self.lane).reset());
        self.peer.set_up(self.lane, false, &*self.shared.inbox);
    }
}

type Connected = (Request<()>, Connection<Wire, Bytes>, SendRequest<Bytes>, Arc<Signs>);

/// A new connection to `url`, the head of the request that opens a stream there, and signs of life from there.
async fn connect(url: &str) -> Result<Connected, TransportError> {
    let wrong = |reason: String| TransportError::Address { url: url.to_owned(), reason };
    let uri: Uri = url.parse().map_err(|error: InvalidUri| wrong(error.to_string()))?;
    let host = uri.host().filter(|_| uri.scheme() == Some(&Scheme::HTTP));
    let host = host.ok_or_else(|| wrong("no http:// and a host".into()))?;
    let address = (host.trim_start_matches('[').trim_end_matches(']'), uri.port_u16().unwrap_or(80));

    let unreachable = |reason| TransportError::Unreachable { url: url.to_owned(), reason };
    let dial = async {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let wire = Wire::new(stream).map_err(|error| error.to_string())?;
        let signs = wire.signs();
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .enable_push(false);
        let (sender, connection) = builder.handshake(wire).await.map_err(|error| error.to_string())?;
        Ok((sender, connection, signs))
    };
    let (sender, connection, signs) = timeout(DIAL_TIMEOUT, dial)
        .await
        .map_err(|_| unreachable(format!("no connection within {DIAL_TIMEOUT:?}")))?
        .map_err(unreachable)?;

    let mut path = uri.into_parts();
    path.path_and_query = Some(PathAndQuery::from_static(DELIVER));
    let mut head = Request::new(());
    *head.method_mut() = Method::POST;
    *head.uri_mut() = Uri::from_parts(path).map_err(|error| wrong(error.to_string()))?;
    head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    Ok((head, connection, sender, signs))
}

/// Says hello on a new stream and waits for the welcome.
async fn introduce(
    sender: SendRequest<Bytes>,
    head: Request<()>,
    hello: pb::Hello,
) -> Result<(SendStream<Bytes>, Answers), TransportError> {
    let mut sender = sender.ready().await.map_err(lost)?;
    let (response, mut stream) = sender.send_request(head, false).map_err(lost)?;
    let first = pb::Frame { messages: Vec::new(), hello: Some(hello) };
    stream.send_data(framing::wrap(&first), false).map_err(lost)?;
    let (head, body) = response.await.map_err(lost)?.into_parts();
    if head.status != StatusCode::OK {
        return Err(TransportError::Failed(format!("it answered with HTTP status {}", head.status)));
    }
    // A refusal has its status in the head.
    if head.headers.contains_key(Status::GRPC_STATUS) {
        framing::ended(Some(&head.headers)).map_err(|status| TransportError::from_status(&status))?;
    }
    let mut answers = Answers { body, messages: Unwrap::default() };
    let welcome = answers.message().await?;
    let welcome =
        welcome.ok_or_else(|| TransportError::Failed("it closed the stream without a welcome".into()))?;
    pb::Welcome::decode(welcome).map_err(|_| TransportError::Failed("its welcome is none".into()))?;
    Ok((stream, answers))
}

/// What the peer says on a stream that carries messages to it.
struct Answers {
    body: RecvStream,
    messages: Unwrap,
}

impl Answers {
    /// The next message; none once the stream has ended well.
    async fn message(&mut self) -> Result<Option<Bytes>, TransportError> {
        loop {
            match self.messages.next() {
                Ok(None) => {}
                message => return message.map_err(|status| TransportError::from_status(&status)),
            }
            let Some(piece) = self.body.data().await else { break };
            let piece = piece.map_err(lost)?;
            self.body.flow_control().release_capacity(piece.len()).map_err(lost)?;
            self.messages.push(piece);
        }
        let trailers = self.body.trailers().await.map_err(lost)?;
        framing::ended(trailers.as_ref()).map_err(|status| TransportError::from_status(&status))?;
        Ok(None)
    }
}

/// What `future` comes to; nothing if it panics, which is its end.
async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

fn panicked() -> TransportError {
    TransportError::Failed("it panicked here; the log says where".into())
}

/// What `future` has to say already.
async fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(said) => Poll::Ready(Some(said)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Ends when the other side neither answers a ping in time nor shows otherwise that it lives.
pub(super) async fn silent(pings: Option<PingPong>, signs: &Signs, interval: Duration) -> TransportError {
    let Some(mut pings) = pings else { return pending().await };
    loop {
        sleep(interval).await;
        let mut answer = pin!(pings.ping(Ping::opaque()));
        let (mut seen, mut looks) = (signs.count(), 0);
        // Behind a long message an answer is late on a slow link: asking goes on for as long as something moves.
        while looks < LOOKS {
            match timeout(PING_TIMEOUT / LOOKS, &mut answer).await {
                Ok(Ok(_)) => break,
                Ok(Err(error)) => return lost(error),
                Err(_) => looks += 1,
            }
            let now = signs.count();
            if std::mem::replace(&mut seen, now) != now {
                looks = 0;
            }
        }
        if looks == LOOKS {
            return TransportError::Silent(PING_TIMEOUT);
        }
    }
}

fn lost(error: h2::Error) -> TransportError {
    TransportError::Failed(format!("the connection broke: {error}"))
}

fn broken(end: Result<(), h2::Error>) -> TransportError {
    end.map_or_else(lost, |()| TransportError::Failed("it closed the connection".into()))
}

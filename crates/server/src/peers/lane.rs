//! The sending side: one task per peer and lane keeps one connection, for as
//! long as the peer belongs to this server's world.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use synod_paxos::types::{ClusterId, NodeId};
use synod_rpc::peer::{PROTOCOL_VERSION, cluster_to_wire};
use synod_rpc::synodpb as pb;
use synod_rpc::synodpb::paxos_client::PaxosClient;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};

use super::peer::Peer;
use super::queue::{Lane, MAX_FRAME_BYTES};
use super::{Shared, TransportError};

/// How long a connection, and then the peer's welcome, may take to come.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that answers no ping within the timeout is dead. Together they
/// say how long a peer may vanish unnoticed when its machine sends no reset.
pub(super) const PING_INTERVAL: Duration = Duration::from_millis(500);
pub(super) const PING_TIMEOUT: Duration = Duration::from_millis(1500);

/// How much may be under way before the receiver took it.
pub(super) const WINDOW_BYTES: u32 = 8 << 20;

/// Between attempts to connect: doubles from the first to the second, and is
/// cut by up to half at random, so that peers do not knock in step.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Keeps the lane to `peer` connected. Ends only by being aborted.
pub(super) async fn keep(shared: Arc<Shared>, peer: Arc<Peer>, lane: Lane) {
    let mut chance = ChaCha8Rng::seed_from_u64(shared.seed ^ peer.node.0.rotate_left(8) ^ lane as u64);
    let mut cluster = shared.cluster.subscribe();
    let mut backoff = BACKOFF.0;
    for url in peer.urls.iter().cycle() {
        let Ok(id) = cluster.wait_for(Option::is_some).await.map(|id| *id) else { return };
        let Some(id) = id else { continue };
        let attempt = Attempt { shared: &shared, peer: &peer, lane, up: false };
        let (error, was_up) = tokio::select! {
            end = attempt.run(url, id) => end,
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
    peer: &'a Peer,
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
        let mut client = connect(url).await?;
        let hello = pb::Hello {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            cluster: Some(cluster_to_wire(cluster)),
            from_node: self.shared.node.0,
            to_node: self.peer.node.0,
            lane: pb::Lane::from(self.lane).into(),
        };
        let queue = self.peer.queue(self.lane);
        let frames = queue.stream(hello, self.peer.taken());
        let mut answers = within(DIAL_TIMEOUT, client.deliver(frames)).await?.into_inner();
        within(DIAL_TIMEOUT, answers.message())
            .await?
            .ok_or_else(|| TransportError::Failed("it closed the stream without a welcome".into()))?;

        queue.welcomed();
        self.up = true;
        self.peer.set_up(self.lane, true, &*self.shared.inbox);
        // hyper pulls frames from the queue by itself; here is only left to wait for the end.
        answers.message().await.map_err(|status| TransportError::from_status(&status))?;
        Ok(())
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.peer.counters.dropped(self.peer.queue(self.lane).reset());
        self.peer.set_up(self.lane, false, &*self.shared.inbox);
    }
}

/// A new connection to `url`.
pub(super) async fn connect(url: &str) -> Result<PaxosClient<Channel>, TransportError> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|error| TransportError::Address { url: url.to_owned(), reason: reason(&error) })?
        .connect_timeout(DIAL_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let unreachable = |reason| TransportError::Unreachable { url: url.to_owned(), reason };
    let channel = timeout(DIAL_TIMEOUT, endpoint.connect())
        .await
        .map_err(|_| unreachable(format!("no connection within {DIAL_TIMEOUT:?}")))?
        .map_err(|error| unreachable(reason(&error)))?;
    Ok(PaxosClient::new(channel)
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .max_encoding_message_size(MAX_FRAME_BYTES))
}

/// The answer to a call, if it comes in time.
pub(super) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<T, TransportError> {
    let answer = timeout(limit, call).await.map_err(|_| TransportError::Silent(limit))?;
    answer.map_err(|status| TransportError::from_status(&status))
}

/// The innermost cause, which is the one that says something ("connection
/// refused" rather than "transport error").
fn reason(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The URLs of a peer, tried in turn until one can be connected to.
pub(super) async fn connect_any(
    node: NodeId,
    urls: &[String],
) -> Result<PaxosClient<Channel>, TransportError> {
    let mut last = TransportError::UnknownPeer(node);
    for url in urls {
        match connect(url).await {
            Ok(client) => return Ok(client),
            Err(error) => last = error,
        }
    }
    Err(last)
}

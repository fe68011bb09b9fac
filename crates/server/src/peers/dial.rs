//! Calls beside the lanes, each on a connection of its own.

use std::future::Future;
use std::time::Duration;

use synod_paxos::types::NodeId;
use synod_rpc::synodpb::paxos_client::PaxosClient;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use super::TransportError;
use super::lane::{DIAL_TIMEOUT, PING_INTERVAL, PING_TIMEOUT, WINDOW_BYTES};
use super::queue::MAX_FRAME_BYTES;

/// A new connection to `url`.
async fn connect(url: &str) -> Result<PaxosClient<Channel>, TransportError> {
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

//! Establishing connections, so that a failure to do so is told apart from a
//! failure afterwards.
//!
//! A write may go to another endpoint only if it surely never left. tonic marks
//! whatever its connector returns as a `ConnectError`, but its own connect
//! timeout fires outside of that mark; so the timeout is kept in here.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

/// Pings on a connection with open calls: a peer that vanished without a word
/// is noticed. etcd's servers tolerate one ping in five seconds (T-3).
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// A channel that connects when first used, and again whenever it must.
pub(crate) fn channel(uri: &Uri, dial_timeout: Duration) -> Channel {
    Endpoint::from(uri.clone())
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .connect_with_connector_lazy(Dial { timeout: dial_timeout })
}

/// Connects within a time limit.
#[derive(Clone, Copy)]
struct Dial {
    timeout: Duration,
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let timeout = self.timeout;
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            let port = uri.port_u16().unwrap_or_default();
            let connecting = tokio::time::timeout(timeout, TcpStream::connect((host, port)));
            let stream = connecting.await.map_err(|_| {
                io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {timeout:?}"))
            })??;
            // Requests are small and waited for: send them at once.
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}

//! The client port: one for everything, told apart by the first bytes of a connection.
//!
//! gRPC comes as HTTP/2, people and probes come as HTTP/1.1 (T-1). The accept loop is our own, because
//! answers are small and must not wait for the next segment (`TCP_NODELAY`), and because a server that is
//! out of file descriptors has to wait and go on rather than give up or spin.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use synod_rpc::etcdserverpb::kv_server::Kv;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::config::HttpUrl;
use crate::express::Front;
use crate::lastly::Lastly;
use crate::metrics::Connections;

/// So many connections are served at once; others wait to be accepted.
const MOST_CONNECTIONS: usize = 16_384;

/// So many calls may be under way on one connection.
const MOST_STREAMS: u32 = 16_384;

/// How long a client may take to say its first word, and to finish the head of an HTTP/1.1 request.
const FIRST_WORD: Duration = Duration::from_secs(15);

/// A head larger than this is refused, in bytes.
const MOST_HEADER_BYTES: u32 = 64 * 1024;

/// A connection on which nothing came for so long is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// A connection that was asked and has not answered for so long is dead.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How far a client may send ahead, per call and per connection, in bytes.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A port that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {url} ({flag}): {reason}")]
pub struct ListenError {
    /// Where to.
    pub url: HttpUrl,
    /// The flag that says so.
    pub flag: &'static str,
    /// Why not, in words.
    pub reason: String,
}

impl ListenError {
    fn new(url: &HttpUrl, flag: &'static str, error: &io::Error) -> ListenError {
        let reason = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "the port is taken; is a server running there already? Stop it, or pick another port"
                    .to_owned()
            }
            io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "not permitted; ports below 1024 need special rights".to_owned()
            }
            _ => error.to_string(),
        };
        ListenError { url: url.clone(), flag, reason }
    }
}

/// The address to listen on for `url`. A name that has several is listened on at its first, IPv4 preferred,
/// as etcd does.
///
/// # Errors
/// If the host is unknown. `flag` says which setting named it.
pub fn resolve(url: &HttpUrl, flag: &'static str) -> Result<SocketAddr, ListenError> {
    let host = url.host().trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> =
        (host, url.port()).to_socket_addrs().map_err(|error| ListenError::new(url, flag, &error))?.collect();
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    first.copied().ok_or_else(|| ListenError {
        url: url.clone(),
        flag,
        reason: "the name has no address".to_owned(),
    })
}

/// Starts to listen on `url`. From here on the port is this process's own.
///
/// # Errors
/// If that cannot be; `flag` says which setting to change.
pub async fn bind(url: &HttpUrl, flag: &'static str) -> Result<TcpListener, ListenError> {
    let address = resolve(url, flag)?;
    TcpListener::bind(address).await.map_err(|error| ListenError::new(url, flag, &error))
}

/// Serves `front` on `listener` until `closing` turns true; then accepts no more, lets calls end for at
/// most `grace`, and returns.
pub async fn serve<K: Kv>(
    listener: TcpListener,
    front: Front<K>,
    connections: Connections,
    mut closing: watch::Receiver<bool>,
    grace: Duration,
) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let builder = builder();
    let mut trouble = Trouble::default();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                let pause = trouble.pause(&error);
                tokio::select! {
                    () = tokio::time::sleep(pause) => continue,
                    _ = closing.wait_for(|closing| *closing) => break,
                }
            }
        };
        trouble.over();
        connections.accepted.inc();
        let open = Open::new(&connections);
        let service = front.clone();
        let (builder, watcher) = (builder.clone(), graceful.watcher());
        let counted = Counted { stream, connections: connections.clone(), written: false };
        tokio::spawn(async move {
            let _both = (place, open);
            // Whoever says nothing occupies no more than a socket, and not for long.
            match tokio::time::timeout(FIRST_WORD, counted.stream.readable()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return,
            }
            let connection = builder.serve_connection(TokioIo::new(counted), service).into_owned();
            if let Err(error) = Lastly::new(watcher.watch(connection)).await {
                tracing::debug!(%error, "a client's connection ended");
            }
        });
    }
    drop(listener);
    let open = graceful.count();
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::info!(connections = open, took = ?grace, "calls still under way were cut off");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    let (stream, _) = listener.accept().await?;
    // The peer may be gone already; then the first read says so.
    let _ = stream.set_nodelay(true);
    Ok((stream, place))
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(FIRST_WORD)
        .max_buf_size(MOST_HEADER_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .max_header_list_size(MOST_HEADER_BYTES);
    builder
}

/// Accepting fails for two kinds of reasons: that one connection is gone already, or this process may open
/// no more. The first is nothing; the second takes a while.
#[derive(Default)]
struct Trouble {
    pause: Duration,
    said: Option<Instant>,
}

impl Trouble {
    /// How long to wait before the next try. Says what is wrong, but not each time.
    fn pause(&mut self, error: &io::Error) -> Duration {
        let passing =
            [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted];
        if passing.contains(&error.kind()) {
            return Duration::ZERO;
        }
        if self.said.is_none_or(|said| said.elapsed() > Duration::from_secs(10)) {
            self.said = Some(Instant::now());
            tracing::warn!(%error, "cannot accept connections; will go on trying");
        }
        self.pause = (self.pause * 2).clamp(Duration::from_millis(10), Duration::from_secs(1));
        self.pause
    }

    fn over(&mut self) {
        self.pause = Duration::ZERO;
    }
}

/// Counts a connection for as long as it is open.
struct Open(Connections);

impl Open {
    fn new(connections: &Connections) -> Open {
        connections.open.inc();
        Open(connections.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.dec();
    }
}

/// A connection whose bytes are counted.
struct Counted {
    stream: TcpStream,
    connections: Connections,
    /// Was anything written yet?
    written: bool,
}

impl Counted {
    fn sent(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &result {
            self.connections.sent.inc_by(*bytes as u64);
        }
        result
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.connections.received.inc_by((buffer.filled().len() - before) as u64);
        result
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written = true;
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sent(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.written = true;
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.sent(result)
    }

    /// HTTP/2 asks twice. When a connection begins, to decide how long an answer may be that is copied, so as
    /// to leave in one write with others: 1023 bytes, or 255 where slices can be written, which is less than
    /// most answers have, and a system call for each. And at each write, whether to write slices: it should,
    /// since whatever is longer was not copied.
    fn is_write_vectored(&self) -> bool {
        self.written && self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_out_of_descriptors_waits_longer_each_time_and_one_aborted_connection_is_nothing() {
        let mut trouble = Trouble::default();
        assert_eq!(trouble.pause(&io::ErrorKind::ConnectionAborted.into()), Duration::ZERO);
        let full = io::Error::from_raw_os_error(24); // EMFILE
        let pauses: Vec<_> = (0..10).map(|_| trouble.pause(&full)).collect();
        assert!(pauses.is_sorted() && pauses[0] == Duration::from_millis(10), "{pauses:?}");
        assert_eq!(pauses[9], Duration::from_secs(1));
        trouble.over();
        assert_eq!(trouble.pause(&full), Duration::from_millis(10));
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_flag() {
        let free: HttpUrl = "http://127.0.0.1:0".parse().unwrap();
        let taken = bind(&free, "--listen-client-urls").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let url: HttpUrl = format!("http://127.0.0.1:{port}").parse().unwrap();
        let error = bind(&url, "--listen-client-urls").await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {url} (--listen-client-urls): ")), "{error}");
        assert!(error.contains("taken"), "{error}");
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_refused() {
        // 192.0.2.0/24 is for documentation; no machine has such an address.
        let url: HttpUrl = "http://192.0.2.1:2379".parse().unwrap();
        let error = bind(&url, "--listen-client-urls").await.unwrap_err().to_string();
        assert!(error.contains("does not have that address"), "{error}");
    }
}

//! Calls over HTTP/2, as thin as a well-kept library lets them be.
//!
//! Whoever loads a server on its own machine takes from it what the load costs. So this is not a gRPC client but the
//! part of one that a load generator needs, straight on `h2`: unary calls, bodies that are encoded already, and the
//! status read from the trailers. Puts to a server that does nothing cost it half the CPU that they cost tonic's client
//! (12 against 24 us with 256 clients on two busy processors).
//!
//! A link is one connection. It belongs to one thread, so nothing here is shared.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Method, Request, StatusCode, Uri, Version};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::tally::Fault;

/// How far a server may answer ahead, per call and per connection, in bytes: so far that windows need no care.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;
/// A call that timed out is reset, and its stream remembered for a while; so many at most.
const MOST_RESET: usize = 4_096;
/// In front of a message: one byte that says whether it is compressed, and its length in four
/// (gRPC over HTTP/2, "Length-Prefixed-Message").
pub(super) const PREFIX: usize = 5;
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Procedure {
    Put,
    Range,
    Txn,
}

impl Procedure {
    fn path(self) -> &'static str {
        match self {
            Procedure::Put => "/etcdserverpb.KV/Put",
            Procedure::Range => "/etcdserverpb.KV/Range",
            Procedure::Txn => "/etcdserverpb.KV/Txn",
        }
    }
}

/// One connection to one endpoint, made when it is first needed and again when it is lost.
pub(super) struct Link {
    /// `host:port`.
    address: String,
    dial_timeout: Duration,
    heads: [Request<()>; 3],
    /// As long as the connection lives.
    sender: RefCell<Option<SendRequest<Bytes>>>,
}

impl Link {
    /// A link that is not connected yet, to `http://host:port`.
    ///
    /// # Errors
    /// If that is no endpoint.
    pub(super) fn new(endpoint: &str, dial_timeout: Duration) -> Result<Rc<Self>, Fault> {
        let head = |procedure| head(endpoint, procedure).map_err(|error| Fault::connect(endpoint, &error));
        let heads = [head(Procedure::Put)?, head(Procedure::Range)?, head(Procedure::Txn)?];
        let address = heads[0].uri().authority().map(ToString::to_string).unwrap_or_default();
        Ok(Rc::new(Self { address, dial_timeout, heads, sender: RefCell::default() }))
    }

    /// A sender of its own for one client. Whoever comes while the connection is down dials it again.
    ///
    /// # Errors
    /// If the endpoint cannot be reached within the dial timeout.
    pub(super) async fn sender(self: &Rc<Self>) -> Result<SendRequest<Bytes>, Fault> {
        if let Some(sender) = &*self.sender.borrow() {
            return Ok(sender.clone());
        }
        match timeout(self.dial_timeout, self.dial()).await {
            Ok(dialled) => dialled,
            Err(_) => Err(Fault::connect(&self.address, &"timed out")),
        }
    }

    async fn dial(self: &Rc<Self>) -> Result<SendRequest<Bytes>, Fault> {
        let failed = |error: &dyn std::fmt::Display| Fault::connect(&self.address, error);
        let stream = TcpStream::connect(&self.address).await.map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        let (sender, connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_reset_streams(MOST_RESET)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(|error| failed(&error))?;
        let own = Rc::clone(self);
        tokio::task::spawn_local(async move {
            // How it ended is told to every call that was under way.
            let _ = connection.await;
            own.sender.replace(None);
        });
        // Others may have dialled meanwhile: then there is one connection more, and the newest is used.
        self.sender.replace(Some(sender.clone()));
        Ok(sender)
    }

    /// One call: `body` with its prefix, and the answer without.
    ///
    /// # Errors
    /// If there is no answer, or one that is none.
    pub(super) async fn call(
        &self,
        sender: &mut SendRequest<Bytes>,
        procedure: Procedure,
        body: Bytes,
    ) -> Result<Bytes, Fault> {
        poll_fn(|cx| sender.poll_ready(cx)).await.map_err(|error| Fault::broken(&error))?;
        let head = self.heads[procedure as usize].clone();
        let (response, mut request) =
            sender.send_request(head, false).map_err(|error| Fault::broken(&error))?;
        request.send_data(body, true).map_err(|error| Fault::broken(&error))?;
        let (head, mut body) = response.await.map_err(|error| Fault::broken(&error))?.into_parts();
        if head.status != StatusCode::OK {
            return Err(Fault::malformed(format!("HTTP status {}", head.status)));
        }
        let mut message = Bytes::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(|error| Fault::broken(&error))?;
            body.flow_control().release_capacity(chunk.len()).map_err(|error| Fault::broken(&error))?;
            message = if message.is_empty() { chunk } else { joined(&message, &chunk) };
        }
        let trailers = body.trailers().await.map_err(|error| Fault::broken(&error))?;
        // A call that failed at once has its status in the head ("Trailers-Only").
        succeeded(trailers.as_ref().unwrap_or(&head.headers))?;
        unframed(message)
    }
}

fn head(endpoint: &str, procedure: Procedure) -> Result<Request<()>, http::Error> {
    let uri: Uri = format!("{endpoint}{}", procedure.path()).parse()?;
    let mut head = Request::new(());
    *head.method_mut() = Method::POST;
    *head.version_mut() = Version::HTTP_2;
    *head.uri_mut() = uri;
    head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    Ok(head)
}

fn joined(one: &Bytes, other: &Bytes) -> Bytes {
    let mut both = BytesMut::with_capacity(one.len() + other.len());
    both.extend_from_slice(one);
    both.extend_from_slice(other);
    both.freeze()
}

/// Reads the status of a call.
fn succeeded(trailers: &HeaderMap) -> Result<(), Fault> {
    match trailers.get(GRPC_STATUS).map(HeaderValue::as_bytes) {
        Some(b"0") => Ok(()),
        Some(code) => {
            let code = std::str::from_utf8(code).ok().and_then(|code| code.parse().ok()).unwrap_or(2);
            let message = trailers.get(GRPC_MESSAGE).map(HeaderValue::as_bytes).unwrap_or_default();
            Err(Fault::status(code, &String::from_utf8_lossy(message)))
        }
        None => Err(Fault::malformed("an answer without grpc-status")),
    }
}

/// The message behind its prefix: exactly one, not compressed.
fn unframed(mut body: Bytes) -> Result<Bytes, Fault> {
    let length = match body.get(..PREFIX) {
        Some([0, a, b, c, d]) => u32::from_be_bytes([*a, *b, *c, *d]) as usize,
        Some(_) => return Err(Fault::malformed("a compressed answer that was not asked for")),
        None => return Err(Fault::malformed("an answer without a message")),
    };
    let message = body.split_off(PREFIX);
    match message.len() == length {
        true => Ok(message),
        false => Err(Fault::malformed("an answer of another length than it says")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_whole_message() {
        assert_eq!(unframed(Bytes::from_static(b"\0\0\0\0\x02ab")).unwrap(), "ab");
        assert_eq!(unframed(Bytes::from_static(b"\0\0\0\0\0")).unwrap(), "");
        for wrong in [&b""[..], b"\0\0\0", b"\x01\0\0\0\x02ab", b"\0\0\0\0\x03ab", b"\0\0\0\0\x01ab"] {
            let fault = unframed(Bytes::from_static(wrong)).unwrap_err();
            assert_eq!(fault.kind, "malformed answer", "{wrong:?}");
        }
    }

    #[test]
    fn the_status_decides_and_must_be_there() {
        let trailers = |pairs: &[(HeaderName, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            succeeded(&pairs.collect())
        };
        assert!(trailers(&[(GRPC_STATUS, "0")]).is_ok());
        let fault = trailers(&[(GRPC_STATUS, "14"), (GRPC_MESSAGE, "no leader")]).unwrap_err();
        assert_eq!((fault.kind.as_str(), fault.what.as_str()), ("status Unavailable", "no leader"));
        assert_eq!(trailers(&[]).unwrap_err().kind, "malformed answer");
    }

    #[test]
    fn calls_go_to_etcds_names() {
        let link = Link::new("http://127.0.0.1:2379", Duration::from_secs(1)).unwrap();
        assert_eq!(link.address, "127.0.0.1:2379");
        let head = &link.heads[Procedure::Txn as usize];
        assert_eq!(head.uri(), "http://127.0.0.1:2379/etcdserverpb.KV/Txn");
    }
}

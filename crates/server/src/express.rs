//! The short way through the client port, for the calls that come by the hundred thousand.
//!
//! ```text
//!   POST /etcdserverpb.KV/{Range,Put,DeleteRange,Txn},     ── Kv ──> one frame, and "grpc-status: 0"
//!   one whole plain message in one frame
//!   everything else                                        ── router (axum, tonic)
//! ```
//!
//! What a general gRPC server does for a call (routing, boxing its body thrice, gathering its message in a
//! buffer of its own) costs more than what the store does for it. The short way does without, but only where
//! nothing can be said against a call: a message that is compressed, too large, in pieces or malformed, or
//! whose sender gives up, goes the long way with all that was read of it, so that there is one place only that
//! knows what to answer to it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::Service;
use hyper::{HeaderMap, Method, Request, Response, Version};
use hyper_util::service::TowerToHyperService;
use prost::Message;
use synod_rpc::etcdserverpb::kv_server::Kv;
use synod_rpc::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest};
use tonic::Status;
use tonic::metadata::MetadataMap;

/// A message is preceded by whether it is compressed (one byte) and by its length (four bytes).
const PREFIX_BYTES: usize = 5;

/// Everything that the client port offers. Cheap to clone.
#[derive(Debug)]
pub struct Front<K> {
    kv: Arc<K>,
    limits: Limits,
    router: Router,
}

/// How large messages may be, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests.
    pub request: usize,
    /// Answers.
    pub answer: usize,
}

/// A call whose future is made: in a box, because it is moved several times before it is first polled.
type Call = Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>> + Send>>;

impl<K> Clone for Front<K> {
    fn clone(&self) -> Self {
        Front { kv: Arc::clone(&self.kv), limits: self.limits, router: self.router.clone() }
    }
}

impl<K: Kv> Front<K> {
    /// `kv` by the short way, `router` for the rest; `router` must offer `kv`, too.
    pub fn new(kv: Arc<K>, limits: Limits, router: Router) -> Self {
        Front { kv, limits, router }
    }

    fn long_way<B>(&self, request: Request<B>) -> Call
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let answer = TowerToHyperService::new(self.router.clone()).call(request);
        Box::pin(async move { answer.await.map(|answer| answer.map(Answer::Other)) })
    }

    /// The short way of a call of one method: read, decode, `handle`, encode.
    fn short_way<M, A, F>(
        &self,
        request: Request<Incoming>,
        handle: fn(Arc<K>, tonic::Request<M>) -> F,
    ) -> Call
    where
        M: Message + Default + 'static,
        A: Message,
        F: Future<Output = Result<tonic::Response<A>, Status>> + Send + 'static,
    {
        let front = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let whole = match read(body, front.limits.request).await {
                Ok(whole) => whole,
                Err(read) => return front.long_way(Request::from_parts(parts, read)).await,
            };
            let Ok(message) = M::decode(whole.slice(PREFIX_BYTES..)) else {
                return front.long_way(Request::from_parts(parts, Read::all(whole))).await;
            };
            drop(whole);
            let Parts { headers, extensions, .. } = parts;
            let Front { kv, limits, router: _ } = front;
            let request = tonic::Request::from_parts(MetadataMap::from_headers(headers), extensions, message);
            let answer = handle(kv, request).await.and_then(|answer| encode(answer.get_ref(), limits.answer));
            Ok(answer.map_or_else(Status::into_http, Answer::ok))
        })
    }
}

impl<K: Kv> Service<Request<Incoming>> for Front<K> {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Call;

    fn call(&self, request: Request<Incoming>) -> Call {
        if !is_plain(&request) {
            return self.long_way(request);
        }
        match request.uri().path() {
            "/etcdserverpb.KV/Range" => self
                .short_way(request, |kv, request: tonic::Request<RangeRequest>| async move {
                    kv.range(request).await
                }),
            "/etcdserverpb.KV/Put" => self
                .short_way(request, |kv, request: tonic::Request<PutRequest>| async move {
                    kv.put(request).await
                }),
            "/etcdserverpb.KV/DeleteRange" => self
                .short_way(request, |kv, request: tonic::Request<DeleteRangeRequest>| async move {
                    kv.delete_range(request).await
                }),
            "/etcdserverpb.KV/Txn" => self
                .short_way(request, |kv, request: tonic::Request<TxnRequest>| async move {
                    kv.txn(request).await
                }),
            _ => self.long_way(request),
        }
    }
}

/// Is it gRPC without anything special?
fn is_plain(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    request.version() == Version::HTTP_2
        && request.method() == Method::POST
        && matches!(kind, Some(b"application/grpc" | b"application/grpc+proto"))
        && !headers.contains_key("grpc-encoding")
}

/// Reads a body that is nothing but one uncompressed message of at most `most` bytes, in one frame: gives
/// that frame, prefix and all.
///
/// # Errors
/// If it is anything else. What was read is in the error, to be read again.
async fn read(mut body: Incoming, most: usize) -> Result<Bytes, Read> {
    let mut whole: Option<Bytes> = None;
    while !body.is_end_stream() {
        let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await else { break };
        match frame.map(Frame::into_data) {
            // Many clients end their stream with an empty frame.
            Ok(Ok(data)) if data.is_empty() => {}
            Ok(Ok(data)) if whole.is_none() && is_one_message(&data, most) => whole = Some(data),
            Ok(Ok(data)) => return Err(Read::part(whole, Ok(Frame::data(data)), body)),
            Ok(Err(other)) => return Err(Read::part(whole, Ok(other), body)),
            Err(error) => return Err(Read::part(whole, Err(error), body)),
        }
    }
    whole.ok_or_else(|| Read { frames: VecDeque::new(), rest: Some(body) })
}

fn is_one_message(data: &[u8], most: usize) -> bool {
    let Some((&[compressed, a, b, c, d], message)) = data.split_first_chunk() else { return false };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    compressed == 0 && length == message.len() && length <= most
}

/// A body, the start of which was read before.
struct Read {
    frames: VecDeque<Result<Frame<Bytes>, hyper::Error>>,
    rest: Option<Incoming>,
}

impl Read {
    fn all(data: Bytes) -> Read {
        Read { frames: VecDeque::from([Ok(Frame::data(data))]), rest: None }
    }

    fn part(first: Option<Bytes>, second: Result<Frame<Bytes>, hyper::Error>, rest: Incoming) -> Read {
        let first = first.map(|data| Ok(Frame::data(data)));
        Read { frames: first.into_iter().chain([second]).collect(), rest: Some(rest) }
    }
}

impl Body for Read {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match (self.frames.pop_front(), &mut self.rest) {
            (Some(frame), _) => Poll::Ready(Some(frame)),
            (None, Some(rest)) => Pin::new(rest).poll_frame(cx),
            (None, None) => Poll::Ready(None),
        }
    }
}

/// A message as it travels, prefix and all.
fn encode(message: &impl Message, most: usize) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let prefix = u32::try_from(length).ok().filter(|_| length <= most).ok_or_else(|| {
        Status::out_of_range(format!("the answer has {length} bytes, and gRPC carries at most {most}"))
    })?;
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(prefix);
    message.encode(&mut bytes).expect("a buffer grows as needed");
    Ok(bytes.freeze())
}

/// The body of an answer.
#[derive(Debug, Default)]
pub enum Answer {
    /// A message is yet to come, and then that all went well.
    Message(Bytes),
    /// That all went well is yet to come.
    Trailers,
    /// Nothing is yet to come.
    #[default]
    End,
    /// Whatever the router made.
    Other(axum::body::Body),
}

impl Answer {
    fn ok(message: Bytes) -> Response<Answer> {
        let mut response = Response::new(Answer::Message(message));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Answer::Other(body) = &mut *self {
            return Pin::new(body).poll_frame(cx);
        }
        match std::mem::take(&mut *self) {
            Answer::Message(message) => {
                *self = Answer::Trailers;
                Poll::Ready(Some(Ok(Frame::data(message))))
            }
            Answer::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Answer::End | Answer::Other(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Message(_) | Answer::Trailers => false,
            Answer::End => true,
            Answer::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            // No length is announced for what is followed by trailers.
            Answer::Message(_) | Answer::Trailers => hyper::body::SizeHint::default(),
            Answer::End => hyper::body::SizeHint::with_exact(0),
            Answer::Other(body) => body.size_hint(),
        }
    }
}

//! A stream of messages from another server.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use prost::Message as _;
use synod_paxos::message::Message;
use synod_paxos::types::{ClusterId, NodeId};
use synod_rpc::peer::{self, PROTOCOL_VERSION};
use synod_rpc::synodpb as pb;
use tokio::time::{Sleep, sleep};
use tonic::Status;

use super::Shared;
use super::framing::{self, Unwrap};
use super::lane::DIAL_TIMEOUT;
use super::links::{Fate, Way};

/// See the module. Polled by the task of its connection whenever that has read.
pub(super) struct Delivery {
    body: RecvStream,
    frames: Unwrap,
    state: State,
}

enum State {
    /// Who calls is to be said until then.
    New(SendResponse<Bytes>, Pin<Box<Sleep>>),
    /// It was welcomed.
    Welcomed {
        from: NodeId,
        cluster: ClusterId,
        answers: SendStream<Bytes>,
    },
    Ended,
}

impl Delivery {
    pub(super) fn new(body: RecvStream, respond: SendResponse<Bytes>) -> Delivery {
        Delivery {
            body,
            frames: Unwrap::default(),
            state: State::New(respond, Box::pin(sleep(DIAL_TIMEOUT))),
        }
    }

    /// The cluster that the caller said it belongs to.
    pub(super) fn cluster(&self) -> Option<ClusterId> {
        match &self.state {
            State::Welcomed { cluster, .. } => Some(*cluster),
            State::New(..) | State::Ended => None,
        }
    }

    /// Hands what arrived to the inbox, frame by frame. Ready once the stream has ended.
    pub(super) fn poll(
        &mut self,
        shared: &Arc<Shared>,
        address: SocketAddr,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let end = match self.read(shared, address, cx) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => Status::ok(""),
            Err(status) => {
                tracing::debug!(%address, "a peer's stream ended: {}", status.message());
                status
            }
        };
        self.end(&end);
        Poll::Ready(())
    }

    fn read(
        &mut self,
        shared: &Arc<Shared>,
        address: SocketAddr,
        cx: &mut Context<'_>,
    ) -> Result<Poll<()>, Status> {
        let broken = |error: h2::Error| Status::unavailable(format!("the stream broke: {error}"));
        loop {
            while let Some(frame) = self.frames.next()? {
                let frame = pb::Frame::decode(frame)
                    .map_err(|error| Status::internal(format!("a frame that is none: {error}")))?;
                match &self.state {
                    State::New(..) => self.introduce(shared, address, frame)?,
                    State::Welcomed { from, .. } => take(shared, *from, frame),
                    State::Ended => return Ok(Poll::Ready(())),
                }
            }
            // Nobody needs to be woken: pieces come only when this very task looks at the connection, and it
            // looks here afterwards.
            match self.body.poll_data(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(piece)) => {
                    let piece = piece.map_err(broken)?;
                    self.body.flow_control().release_capacity(piece.len()).map_err(broken)?;
                    self.frames.push(piece);
                }
                Poll::Ready(None) if matches!(self.state, State::New(..)) => return Err(no_hello()),
                Poll::Ready(None) => return Ok(Poll::Ready(())),
                Poll::Pending => break,
            }
        }
        if let State::New(_, deadline) = &mut self.state
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Err(Status::deadline_exceeded("no Hello came"));
        }
        Ok(Poll::Pending)
    }

    /// Welcomes the caller, or says why not.
    fn introduce(&mut self, shared: &Shared, address: SocketAddr, first: pb::Frame) -> Result<(), Status> {
        let hello = first.hello.ok_or_else(no_hello)?;
        let (from, cluster) = shared.check_hello(&hello).inspect_err(|refusal| {
            let why = refusal.message();
            tracing::warn!(peer = %NodeId(hello.from_node), %address, "refused a peer: {why}");
        })?;
        let State::New(respond, _) = &mut self.state else { return Ok(()) };
        let mut head = Response::new(());
        head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let lost = |error: h2::Error| Status::unavailable(format!("it does not wait for a welcome: {error}"));
        let mut answers = respond.send_response(head, false).map_err(lost)?;
        answers.send_data(framing::wrap(&pb::Welcome { version: PROTOCOL_VERSION }), false).map_err(lost)?;
        self.state = State::Welcomed { from, cluster, answers };
        Ok(())
    }

    /// Ends the stream. The caller may be gone already.
    pub(super) fn end(&mut self, status: &Status) {
        let _ = match std::mem::replace(&mut self.state, State::Ended) {
            State::New(mut respond, _) => respond.send_response(status.clone().into_http(), true).map(drop),
            State::Welcomed { mut answers, .. } => answers.send_trailers(framing::trailers(status)),
            State::Ended => Ok(()),
        };
    }
}

fn no_hello() -> Status {
    Status::invalid_argument("the first frame must carry a Hello")
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

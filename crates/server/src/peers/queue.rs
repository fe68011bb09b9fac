//! What waits for a peer, and the stream that takes it there.
//!
//! A queue never makes the sender wait: what does not fit is dropped, which the
//! protocol takes for a lost message (PMS-14). The stream takes *all* that waits
//! whenever the connection can carry more, so that a busy link carries few, large
//! frames and an idle one small, prompt ones, without a timer.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use synod_paxos::message::Message;
use synod_rpc::synodpb as pb;
use tokio_stream::Stream;

/// A frame is closed once it holds this many bytes of messages.
const FRAME_BYTES: usize = 4 << 20;

/// The largest message that is sent, in bytes. Values are at most 8 MiB.
pub(super) const MAX_MESSAGE_BYTES: usize = 24 << 20;

/// The largest frame that is received.
pub(super) const MAX_FRAME_BYTES: usize = MAX_MESSAGE_BYTES + (8 << 20);

/// What a stream is for. Lanes to one peer share no connection, so that a long
/// message delays only its like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// The two phases, and commands on their way to the leader.
    Protocol,
    /// Who leads, and what reads wait for.
    Urgent,
    /// Catching up.
    Bulk,
}

impl Lane {
    pub(super) const ALL: [Lane; 3] = [Lane::Protocol, Lane::Urgent, Lane::Bulk];

    /// Where a message belongs.
    pub(super) fn of(message: &Message) -> Lane {
        match message {
            Message::Prepare { .. }
            | Message::Promise { .. }
            | Message::Accept { .. }
            | Message::Accepted { .. }
            | Message::Refused { .. }
            | Message::Chosen(_)
            | Message::Submit { .. }
            | Message::Decide { .. } => Lane::Protocol,
            Message::ReadQuery { .. }
            | Message::ReadAnswer { .. }
            | Message::Heartbeat { .. }
            | Message::HeartbeatReply { .. }
            | Message::Abdicate { .. }
            | Message::HandOver { .. }
            | Message::LeaderQuery { .. }
            | Message::LeaderReply { .. } => Lane::Urgent,
            Message::Fetch { .. }
            | Message::Entries { .. }
            | Message::TakeCheckpoint { .. }
            | Message::Progress(_) => Lane::Bulk,
        }
    }

    /// Most bytes and messages that wait for one peer.
    fn bounds(self) -> (usize, usize) {
        match self {
            Lane::Protocol => (64 << 20, 64 << 10),
            Lane::Urgent => (4 << 20, 16 << 10),
            Lane::Bulk => (32 << 20, 4 << 10),
        }
    }
}

impl From<Lane> for pb::Lane {
    fn from(lane: Lane) -> pb::Lane {
        match lane {
            Lane::Protocol => pb::Lane::Protocol,
            Lane::Urgent => pb::Lane::Urgent,
            Lane::Bulk => pb::Lane::Bulk,
        }
    }
}

/// Encoded messages that wait for one peer on one lane.
#[derive(Debug)]
pub(super) struct Queue {
    max_bytes: usize,
    max_messages: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    /// The stream that may take from here. Streams of earlier connections end.
    stream: u64,
    /// Has the peer welcomed that stream?
    welcomed: bool,
    waker: Option<Waker>,
}

impl Queue {
    pub(super) fn new(lane: Lane) -> Queue {
        let (max_bytes, max_messages) = lane.bounds();
        Queue { max_bytes, max_messages, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message. False if there was no room; it is lost then.
    #[must_use]
    pub(super) fn push(&self, message: Bytes) -> bool {
        let mut state = self.state();
        if state.bytes.saturating_add(message.len()) > self.max_bytes
            || state.waiting.len() >= self.max_messages
        {
            return false;
        }
        state.bytes += message.len();
        state.waiting.push_back(message);
        let waker = if state.welcomed { state.waker.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// A stream for a new connection, which begins with `hello` and goes on once
    /// [`Queue::welcomed`] is called. Earlier streams end.
    pub(super) fn stream(self: &Arc<Self>, hello: pb::Hello, taken: Taken) -> Outbox {
        let mut state = self.state();
        state.stream += 1;
        state.welcomed = false;
        wake(&mut state);
        Outbox { queue: Arc::clone(self), stream: state.stream, hello: Some(hello), taken }
    }

    /// The peer wants to hear from the present stream.
    pub(super) fn welcomed(&self) {
        let mut state = self.state();
        state.welcomed = true;
        wake(&mut state);
    }

    /// The connection broke, or was not to be had: ends its stream and forgets
    /// what waits, which is old by now. Answers how many messages that were.
    pub(super) fn reset(&self) -> u64 {
        let mut state = self.state();
        let forgotten = state.waiting.len();
        // Not cleared: a queue that was long once should give its memory back.
        state.waiting = VecDeque::new();
        state.bytes = 0;
        state.stream += 1;
        state.welcomed = false;
        wake(&mut state);
        forgotten as u64
    }
}

fn wake(state: &mut State) {
    if let Some(waker) = state.waker.take() {
        waker.wake();
    }
}

/// Is told how many messages and bytes went into a frame.
pub(super) type Taken = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// The frames of one connection.
pub(super) struct Outbox {
    queue: Arc<Queue>,
    stream: u64,
    hello: Option<pb::Hello>,
    taken: Taken,
}

impl Stream for Outbox {
    type Item = pb::Frame;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<pb::Frame>> {
        let this = &mut *self;
        let mut state = this.queue.state();
        if state.stream != this.stream {
            return Poll::Ready(None);
        }
        if let Some(hello) = this.hello.take() {
            return Poll::Ready(Some(pb::Frame { messages: Vec::new(), hello: Some(hello) }));
        }
        if state.waiting.is_empty() || !state.welcomed {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut messages = Vec::with_capacity(state.waiting.len());
        let mut bytes = 0;
        // The first goes whatever its size.
        while bytes < FRAME_BYTES
            && let Some(message) =
                state.waiting.pop_front_if(|next| bytes == 0 || bytes + next.len() <= FRAME_BYTES)
        {
            bytes += message.len();
            messages.push(message);
        }
        state.bytes -= bytes;
        drop(state);
        (this.taken)(messages.len() as u64, bytes as u64);
        Poll::Ready(Some(pb::Frame { messages, hello: None }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio_stream::StreamExt;

    use super::*;

    fn outbox(queue: &Arc<Queue>) -> (Outbox, Arc<AtomicU64>) {
        let taken = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&taken);
        let hello = pb::Hello { version_min: 1, ..Default::default() };
        let outbox = queue.stream(
            hello,
            Arc::new(move |messages, _| {
                count.fetch_add(messages, Ordering::Relaxed);
            }),
        );
        (outbox, taken)
    }

    fn poll(outbox: &mut Outbox) -> Poll<Option<pb::Frame>> {
        Pin::new(outbox).poll_next(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn all_that_waits_goes_into_one_frame_after_the_welcome() {
        let queue = Arc::new(Queue::new(Lane::Protocol));
        let (mut outbox, taken) = outbox(&queue);
        for number in 0..100u8 {
            assert!(queue.push(Bytes::from(vec![number; 10])));
        }
        assert!(outbox.next().await.unwrap().hello.is_some());
        assert!(poll(&mut outbox).is_pending(), "nothing before the welcome");
        queue.welcomed();
        let frame = outbox.next().await.unwrap();
        assert_eq!(frame.messages.len(), 100);
        assert_eq!((frame.messages[0][0], frame.messages[99][0]), (0, 99), "in order");
        assert_eq!(taken.load(Ordering::Relaxed), 100);
        assert!(poll(&mut outbox).is_pending());
    }

    #[tokio::test]
    async fn frames_are_bounded_but_a_single_message_always_goes() {
        let queue = Arc::new(Queue::new(Lane::Protocol));
        let (mut outbox, _) = outbox(&queue);
        queue.welcomed();
        for size in [FRAME_BYTES + 1, FRAME_BYTES / 2, FRAME_BYTES / 2, 1] {
            assert!(queue.push(Bytes::from(vec![0; size])));
        }
        outbox.next().await;
        let mut sizes = Vec::new();
        for _ in 0..3 {
            sizes.push(outbox.next().await.unwrap().messages.len());
        }
        assert_eq!(sizes, [1, 2, 1]);
    }

    #[test]
    fn what_does_not_fit_is_dropped() {
        let queue = Queue::new(Lane::Urgent);
        let (max_bytes, max_messages) = Lane::Urgent.bounds();
        assert!(queue.push(Bytes::from(vec![0; max_bytes])));
        assert!(!queue.push(Bytes::from_static(b"x")), "too many bytes");
        assert_eq!(queue.reset(), 1);
        for _ in 0..max_messages {
            assert!(queue.push(Bytes::new()));
        }
        assert!(!queue.push(Bytes::new()), "too many messages");
    }

    #[tokio::test]
    async fn a_new_connection_ends_the_stream_of_the_old_one() {
        let queue = Arc::new(Queue::new(Lane::Bulk));
        let (mut old, _) = outbox(&queue);
        let (mut new, _) = outbox(&queue);
        queue.welcomed();
        assert!(queue.push(Bytes::from_static(b"x")));
        assert_eq!(old.next().await, None);
        assert!(new.next().await.unwrap().hello.is_some());
        assert_eq!(new.next().await.unwrap().messages.len(), 1);
        assert!(queue.push(Bytes::from_static(b"y")));
        assert_eq!(queue.reset(), 1, "what waited for a broken connection is old");
        assert_eq!(new.next().await, None);
    }
}

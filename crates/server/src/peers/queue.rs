//! What waits for a peer.
//!
//! A queue never makes the sender wait: what does not fit is dropped, which the
//! protocol takes for a lost message (PMS-14). *All* that waits is taken whenever the
//! connection can carry more, so that a busy link carries few, large frames and an
//! idle one small, prompt ones, without a timer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use synod_paxos::message::Message;
use synod_rpc::synodpb as pb;

use super::framing;
use super::line::Line;

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
            | Message::Counted { .. }
            | Message::Chosen(_)
            | Message::Learn { .. }
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
pub(super) struct Queue {
    max_bytes: usize,
    max_messages: usize,
    state: Mutex<State>,
}

/// The time of one connection: from one [`Queue::reset`] to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Era(u64);

#[derive(Default)]
struct State {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    era: Era,
    /// The way out, while there is one. It refers to this queue, until [`Queue::reset`].
    line: Option<Arc<Line>>,
}

/// Messages that leave together.
pub(super) struct Frame {
    /// As they travel.
    pub(super) bytes: Bytes,
    /// How many they are.
    pub(super) messages: u64,
    /// Their own bytes.
    pub(super) message_bytes: u64,
}

impl Queue {
    pub(super) fn new(lane: Lane) -> Queue {
        let (max_bytes, max_messages) = lane.bounds();
        Queue { max_bytes, max_messages, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message, for whoever calls or carries afterwards. False if there was no room; it is lost then.
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
        true
    }

    /// The way out; none while there is no connection.
    pub(super) fn line(&self) -> Option<Arc<Line>> {
        self.state().line.clone()
    }

    /// From now on messages leave by `line`.
    pub(super) fn open(&self, line: Arc<Line>) {
        self.state().line = Some(line);
    }

    /// In which era is this?
    pub(super) fn era(&self) -> Era {
        self.state().era
    }

    /// Does nothing wait?
    pub(super) fn is_empty(&self) -> bool {
        self.state().waiting.is_empty()
    }

    /// All that waits, or as much as a frame holds; nothing if nothing waits. Nothing either for a connection of an
    /// earlier era, which somebody may still be at: what waits now is for its successor.
    pub(super) fn take(&self, era: Era) -> Option<Frame> {
        let mut state = self.state();
        if state.era != era {
            return None;
        }
        let mut messages = Vec::with_capacity(state.waiting.len());
        let mut bytes = 0;
        // The first goes whatever its size.
        while bytes < FRAME_BYTES
            && let Some(message) =
                state.waiting.pop_front_if(|next| messages.is_empty() || bytes + next.len() <= FRAME_BYTES)
        {
            bytes += message.len();
            messages.push(message);
        }
        state.bytes -= bytes;
        drop(state);
        let count = messages.len() as u64;
        (count > 0).then(|| Frame {
            bytes: framing::wrap(&pb::Frame { messages, hello: None }),
            messages: count,
            message_bytes: bytes as u64,
        })
    }

    /// The connection broke, or was not to be had: forgets it and what waits, which
    /// is old by now. Answers how many messages that were.
    pub(super) fn reset(&self) -> u64 {
        let mut state = self.state();
        let next = State { era: Era(state.era.0 + 1), ..State::default() };
        // Not cleared: a queue that was long once should give its memory back.
        let old = std::mem::replace(&mut *state, next);
        drop(state);
        old.waiting.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn taken(queue: &Queue) -> Vec<Bytes> {
        let frame = queue.take(queue.era()).expect("something waits");
        let mut unwrap = framing::Unwrap::default();
        unwrap.push(frame.bytes);
        let messages = pb::Frame::decode(unwrap.next().unwrap().unwrap()).unwrap().messages;
        assert_eq!(frame.messages, messages.len() as u64);
        assert_eq!(frame.message_bytes, messages.iter().map(|message| message.len() as u64).sum::<u64>());
        messages
    }

    #[test]
    fn all_that_waits_goes_into_one_frame() {
        let queue = Queue::new(Lane::Protocol);
        let messages: Vec<Bytes> = (0..100u8).map(|number| Bytes::from(vec![number; 10])).collect();
        assert!(messages.iter().all(|message| queue.push(message.clone())));
        assert_eq!(taken(&queue), messages);
        assert!(queue.is_empty() && queue.take(queue.era()).is_none());
    }

    #[test]
    fn frames_are_bounded_but_a_single_message_always_goes() {
        let queue = Queue::new(Lane::Protocol);
        for size in [FRAME_BYTES + 1, FRAME_BYTES / 2, FRAME_BYTES / 2, 1] {
            assert!(queue.push(Bytes::from(vec![0; size])));
        }
        assert_eq!([taken(&queue).len(), taken(&queue).len(), taken(&queue).len()], [1, 2, 1]);
    }

    #[test]
    fn what_waits_is_for_the_present_connection() {
        let queue = Queue::new(Lane::Protocol);
        let before = queue.era();
        assert!(queue.push(Bytes::from_static(b"old")));
        assert_eq!(queue.reset(), 1);
        assert!(queue.push(Bytes::from_static(b"new")));
        assert!(queue.take(before).is_none());
        assert_eq!(taken(&queue), ["new"]);
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
}

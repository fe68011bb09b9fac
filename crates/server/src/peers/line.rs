//! The connection by which a lane's messages leave, and who carries them there.
//!
//! ```text
//!   push ──> queue ──┬── its task: woken, and runs when its runtime comes to it
//!                    └── whoever pushed: here and now, if nobody else is at it      ──> h2 ──> socket
//! ```
//!
//! To wake the task costs the other thread a system call, and the core's thread two and a change of threads, before
//! a message of a few bytes leaves. A thread that has nothing better to do, such as the acceptor's, which has just
//! waited for its disk, carries its messages itself. Whoever finds somebody else at it wakes the task instead, so
//! nothing is left lying and nobody waits.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use h2::SendStream;
use h2::client::Connection;

use super::peer::Peer;
use super::queue::{Era, Lane};
use super::wire::Wire;

/// How often whoever carries looks whether others brought more meanwhile. Then it is for the task: the acceptor has
/// its disk to see to, and the task shares a thread with the core.
const ROUNDS: usize = 4;

/// A stream that the other side has welcomed, and the connection under it.
pub(super) struct Line {
    ends: Mutex<Ends>,
    /// Of the task that keeps the lane.
    waker: Waker,
    /// The task came while somebody else was at it.
    missed: AtomicBool,
    /// Why the connection ended, until the task has heard of it.
    end: Mutex<Option<Result<(), h2::Error>>>,
}

struct Ends {
    peer: Arc<Peer>,
    lane: Lane,
    era: Era,
    stream: SendStream<Bytes>,
    connection: Connection<Wire, Bytes>,
    bell: Arc<Bell>,
}

/// What h2 wakes the task by.
struct Bell {
    task: Waker,
    /// Messages are being handed to h2, which says that they should be written: they will be, at once.
    busy: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // What happens elsewhere meanwhile is not missed: the connection is looked at afterwards.
        if !self.busy.load(Ordering::SeqCst) {
            self.task.wake_by_ref();
        }
    }
}

impl Line {
    /// A line whose task is the one that awaits this.
    pub(super) async fn new(
        peer: Arc<Peer>,
        lane: Lane,
        stream: SendStream<Bytes>,
        connection: Connection<Wire, Bytes>,
    ) -> Line {
        let task = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let bell = Arc::new(Bell { task: task.clone(), busy: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&bell));
        Line {
            ends: Mutex::new(Ends { era: peer.queue(lane).era(), peer, lane, stream, connection, bell }),
            waker,
            missed: AtomicBool::new(false),
            end: Mutex::default(),
        }
    }

    /// Has the task carry what waits.
    pub(super) fn call(&self) {
        self.waker.wake_by_ref();
    }

    /// Carries what waits, as far as the connection takes it.
    pub(super) fn carry(&self) {
        match self.look() {
            None => self.call(),
            Some(Poll::Ready(end)) => {
                self.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(end);
                self.call();
            }
            Some(Poll::Pending) => {}
        }
    }

    /// Carries what waits and what will, until the connection ends.
    ///
    /// # Errors
    /// If it did so badly.
    pub(super) async fn run(&self) -> Result<(), h2::Error> {
        poll_fn(|_| {
            if let Some(end) = self.end.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Poll::Ready(end);
            }
            if let Some(looked) = self.look() {
                return looked;
            }
            // The system may have taken its processor from whoever is at it: not to be waited for, but asked to
            // call when it is done. It may have been done before it could be asked.
            self.missed.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            self.look().unwrap_or(Poll::Pending)
        })
        .await
    }

    /// Panics while it looks after the connection.
    #[cfg(test)]
    pub(super) fn panic(&self) {
        let _ends = self.ends.lock();
        panic!("on purpose");
    }

    /// Looks after the connection, unless somebody else does.
    fn look(&self) -> Option<Poll<Result<(), h2::Error>>> {
        let looked = match self.ends.try_lock() {
            Ok(mut ends) => ends.poll(&self.waker),
            Err(TryLockError::WouldBlock) => return None,
            // Who was at it panicked half-way: nobody knows what is left of the connection.
            Err(TryLockError::Poisoned(_)) => Poll::Ready(Err(h2::Reason::INTERNAL_ERROR.into())),
        };
        fence(Ordering::SeqCst);
        if self.missed.swap(false, Ordering::SeqCst) {
            self.call();
        }
        Some(looked)
    }
}

impl Ends {
    fn poll(&mut self, waker: &Waker) -> Poll<Result<(), h2::Error>> {
        let mut cx = Context::from_waker(waker);
        for _ in 0..ROUNDS {
            self.bell.busy.store(true, Ordering::SeqCst);
            let filled = self.fill();
            self.bell.busy.store(false, Ordering::SeqCst);
            // After an error the connection knows best what is wrong.
            if let Poll::Ready(end) = Pin::new(&mut self.connection).poll(&mut cx) {
                return Poll::Ready(end);
            }
            filled?;
            if self.peer.queue(self.lane).is_empty() || !self.has_room(&mut cx)? {
                return Poll::Pending;
            }
        }
        self.bell.task.wake_by_ref();
        Poll::Pending
    }

    /// Moves frames from the queue to the connection's own buffer while that is not full.
    fn fill(&mut self) -> Result<(), h2::Error> {
        let queue = self.peer.queue(self.lane);
        while !queue.is_empty() {
            self.stream.reserve_capacity(1);
            if self.stream.capacity() == 0 {
                break;
            }
            let Some(frame) = queue.take(self.era) else { break };
            self.peer.counters.sent(frame.messages, frame.message_bytes);
            self.stream.send_data(frame.bytes, false)?;
        }
        Ok(())
    }

    /// Can more be taken? If not, the task is woken once it can.
    fn has_room(&mut self, cx: &mut Context<'_>) -> Result<bool, h2::Error> {
        self.stream.reserve_capacity(1);
        if self.stream.capacity() > 0 {
            return Ok(true);
        }
        match self.stream.poll_capacity(cx) {
            Poll::Ready(Some(capacity)) => capacity.map(|bytes| bytes > 0),
            Poll::Ready(None) | Poll::Pending => Ok(false),
        }
    }
}

//! How roles hand things to each other: whatever arrived while the receiver was busy is taken as one batch.
//! Nothing here sleeps to gather more; under load batches grow by themselves.
//!
//! To wake a thread costs more than most of what it is then told. So what the receiver can do nothing with by
//! itself is put in quietly, and lies there until something else wakes the receiver or its patience ends.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// A queue with one receiving thread.
pub(crate) struct Mailbox<T> {
    inner: Mutex<Inner<T>>,
    arrived: Condvar,
    limit: usize,
}

struct Inner<T> {
    queue: Vec<T>,
    /// Bytes of what waits and may be lost.
    bytes: usize,
    /// The receiver shall look.
    called: bool,
    closed: bool,
}

impl<T> Mailbox<T> {
    /// A mailbox that refuses what may be lost once it holds `limit` bytes of it.
    pub(crate) fn new(limit: usize) -> Mailbox<T> {
        let inner = Inner { queue: Vec::new(), bytes: 0, called: false, closed: false };
        Mailbox { inner: Mutex::new(inner), arrived: Condvar::new(), limit }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // A panicking holder leaves the queue whole: every critical section is a push or a swap.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts in something that must arrive, unless the receiver is gone.
    pub(crate) fn push(&self, item: T) {
        self.put(self.lock(), item, true);
    }

    /// Puts in something of about `bytes` bytes that may be lost, and is when the receiver does not keep up.
    pub(crate) fn offer(&self, item: T, bytes: usize) {
        self.put_if_room(item, bytes, true);
    }

    /// As [`Mailbox::offer`], without waking the receiver.
    pub(crate) fn offer_quietly(&self, item: T, bytes: usize) {
        self.put_if_room(item, bytes, false);
    }

    /// Wakes the receiver if something lies here.
    pub(crate) fn call(&self) {
        let mut inner = self.lock();
        let wake = !inner.queue.is_empty() && !std::mem::replace(&mut inner.called, true);
        drop(inner);
        if wake {
            self.arrived.notify_one();
        }
    }

    fn put_if_room(&self, item: T, bytes: usize, call: bool) {
        let mut inner = self.lock();
        if inner.bytes < self.limit {
            inner.bytes += bytes;
            self.put(inner, item, call);
        }
    }

    fn put(&self, mut inner: MutexGuard<'_, Inner<T>>, item: T, call: bool) {
        if inner.closed {
            return;
        }
        inner.queue.push(item);
        // Whoever was called takes everything, and is not called again before.
        let wake = call && !std::mem::replace(&mut inner.called, true);
        drop(inner);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// Ends the receiver's life as a crash would: what waits is lost, nothing more comes in.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.queue.clear();
        self.arrived.notify_one();
    }

    /// Waits until there is something to look at, or `patience` ends.
    pub(crate) fn wait(&self, patience: Duration) {
        let inner = self.lock();
        let _ = self.arrived.wait_timeout_while(inner, patience, |inner| !inner.called && !inner.closed);
    }

    /// Is there something to look at, be it the end?
    pub(crate) fn is_ready(&self) -> bool {
        let inner = self.lock();
        inner.closed || inner.called
    }

    /// Everything that waits. None once closed.
    pub(crate) fn take(&self) -> Option<Vec<T>> {
        let mut inner = self.lock();
        inner.bytes = 0;
        inner.called = false;
        if inner.closed { None } else { Some(std::mem::take(&mut inner.queue)) }
    }
}

/// How much may wait for a task before what may be lost is.
const TASK_LIMIT: usize = 50_000;

/// A queue whose receiver is a task.
pub(crate) struct TaskMailbox<T> {
    inner: Mutex<TaskInner<T>>,
    arrived: Notify,
}

struct TaskInner<T> {
    queue: Vec<T>,
    /// The receiver shall look, whether or not anything is in the queue.
    woken: bool,
    /// The receiver waits for what is otherwise put in quietly.
    eager: bool,
}

impl<T> TaskMailbox<T> {
    pub(crate) fn new() -> TaskMailbox<T> {
        let inner = TaskInner { queue: Vec::new(), woken: false, eager: false };
        TaskMailbox { inner: Mutex::new(inner), arrived: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, TaskInner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts something in. Wakes the receiver only if it was not woken already.
    pub(crate) fn push(&self, item: T) {
        let mut inner = self.lock();
        inner.queue.push(item);
        self.notify(inner);
    }

    /// Puts in something that can lie until the receiver looks anyway, unless it said that it waits for that.
    pub(crate) fn push_quietly(&self, item: T) {
        let mut inner = self.lock();
        inner.queue.push(item);
        if inner.eager {
            self.notify(inner);
        }
    }

    /// Says whether the receiver waits for what is put in quietly. What lies there already wakes it, too.
    pub(crate) fn set_eager(&self, eager: bool) {
        let mut inner = self.lock();
        inner.eager = eager;
        if eager && !inner.queue.is_empty() {
            self.notify(inner);
        }
    }

    /// Puts in something that may be lost, and is when the receiver does not keep up.
    pub(crate) fn offer(&self, item: T) {
        let full = self.lock().queue.len() >= TASK_LIMIT;
        if !full {
            self.push(item);
        }
    }

    /// Wakes the receiver although nothing is in the queue: something waits for it elsewhere.
    pub(crate) fn wake(&self) {
        self.notify(self.lock());
    }

    fn notify(&self, mut inner: MutexGuard<'_, TaskInner<T>>) {
        let asleep = !std::mem::replace(&mut inner.woken, true);
        drop(inner);
        if asleep {
            self.arrived.notify_one();
        }
    }

    /// Was the receiver woken since it last took?
    pub(crate) fn is_ready(&self) -> bool {
        self.lock().woken
    }

    /// Until something arrives.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Everything that waits.
    pub(crate) fn take(&self) -> Vec<T> {
        let mut inner = self.lock();
        inner.woken = false;
        std::mem::take(&mut inner.queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_quietly_comes_along_and_calls_nobody() {
        let mailbox = Mailbox::new(100);
        mailbox.call();
        mailbox.offer_quietly(1, 10);
        assert!(!mailbox.is_ready());
        mailbox.call();
        assert!(mailbox.is_ready());
        mailbox.offer(2, 10);
        mailbox.offer_quietly(3, 100);
        mailbox.offer_quietly(4, 10);
        assert!(mailbox.is_ready());
        assert_eq!(mailbox.take(), Some(vec![1, 2, 3]), "in order, and no more than there is room for");
        assert!(!mailbox.is_ready());
        mailbox.wait(Duration::ZERO);
        assert_eq!(mailbox.take(), Some(vec![]));
    }

    #[test]
    fn who_waits_for_what_lies_quietly_is_woken() {
        let mailbox = TaskMailbox::new();
        mailbox.push_quietly(1);
        assert!(!mailbox.is_ready());
        mailbox.set_eager(true);
        assert!(mailbox.is_ready(), "it lay there already");
        assert_eq!(mailbox.take(), vec![1]);
        mailbox.push_quietly(2);
        assert!(mailbox.is_ready());
        assert_eq!(mailbox.take(), vec![2]);
        mailbox.set_eager(false);
        mailbox.push_quietly(3);
        assert!(!mailbox.is_ready());
    }
}

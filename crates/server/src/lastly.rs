//! A connection's turn comes last.
//!
//! Every call that is answered wakes the task of its connection, which writes the answer to the socket. The
//! runtime runs what was woken last first: so each answer would be written alone, with a system call of its
//! own, though the next answer for the same connection is about to be ready. [`Lastly`] lets all tasks that
//! are ready go first; what they have to say then leaves together. Nothing waits for anything that is not
//! ready: when there is no other task, its turn comes at once.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

/// Runs a future whenever it was woken and no other task of this runtime is ready.
pub(crate) struct Lastly<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    waker: Waker,
    /// Its turn comes when it is polled the next time.
    yielded: bool,
}

/// What the future is woken by.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    task: OnceLock<Waker>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Whoever rings first wakes the task. Another wake would bring it to the front again.
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Some(task) = self.task.get()
        {
            task.wake_by_ref();
        }
    }
}

impl<F: Future> Lastly<F> {
    /// To be spawned as a task of its own: it must not share its waker with other futures, and must stay where
    /// it was polled first.
    pub(crate) fn new(future: F) -> Self {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: OnceLock::new() });
        let waker = Waker::from(Arc::clone(&bell));
        Lastly { future: Box::pin(future), bell, waker, yielded: false }
    }
}

impl<F: Future> Future for Lastly<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.bell.task.get_or_init(|| cx.waker().clone());
        if !self.yielded {
            self.yielded = true;
            // The runtime wakes the task again once it has run out of others.
            return pin!(tokio::task::yield_now()).poll(cx).map(|()| unreachable!("it yields once"));
        }
        self.yielded = false;
        // Before the future looks around: what happens while it does must ring again.
        self.bell.rung.store(false, Ordering::Release);
        let this = &mut *self;
        this.future.as_mut().poll(&mut Context::from_waker(&this.waker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::{mpsc, oneshot};

    #[test]
    fn all_that_is_ready_is_heard_in_one_turn() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        // In a task, so that all of it happens on the one thread that runs tasks.
        let turns = runtime.spawn(async {
            let (say, mut heard) = mpsc::unbounded_channel();
            let (ready, asleep) = oneshot::channel();
            let listener = tokio::spawn(Lastly::new(async move {
                heard.recv().await.unwrap();
                ready.send(()).unwrap();
                let (mut words, mut turns) = (Vec::new(), Vec::new());
                while heard.recv_many(&mut words, 100).await > 0 {
                    turns.push(words.drain(..).count());
                }
                turns
            }));
            say.send(()).unwrap();
            asleep.await.unwrap();
            // The runtime prefers what was woken last a few times in a row only: start afresh.
            tokio::task::yield_now().await;
            for _ in 0..20 {
                let say = say.clone();
                tokio::spawn(async move { say.send(()).unwrap() });
            }
            drop(say);
            listener.await.unwrap()
        });
        assert_eq!(runtime.block_on(turns).unwrap(), [20]);
    }

    #[tokio::test]
    async fn what_happens_during_a_turn_brings_another() {
        let mut turns = 0;
        let three = std::future::poll_fn(move |cx| {
            turns += 1;
            cx.waker().wake_by_ref();
            if turns == 3 { Poll::Ready(turns) } else { Poll::Pending }
        });
        assert_eq!(tokio::spawn(Lastly::new(three)).await.unwrap(), 3);
    }
}

//! One client: a task that has one request under way.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::time::{Sleep, sleep};

use super::course::{Course, Leave};
use super::schedule::Gate;
use super::tally::{Fault, Tally};
use super::wire::{Link, Procedure};
use super::workload::{self, FILL_CHUNK, Requests, Workload};
use crate::cluster::chance::Chance;

/// After it lost its connection, a client rests so long: a server that is down is not to be asked all the time.
const REST: Duration = Duration::from_millis(50);

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Write every key once; the ticket says which.
    Fill,
    /// What is measured, with so many reads of a hundred if it is mixed.
    Measure { workload: Workload, reads: u8 },
}

/// A link as one client uses it.
struct Line {
    link: Rc<Link>,
    sender: Option<SendRequest<Bytes>>,
}

impl Line {
    async fn call(&mut self, procedure: Procedure, body: Bytes) -> Result<Bytes, Fault> {
        let sender = match &mut self.sender {
            Some(sender) => sender,
            empty => empty.insert(self.link.sender().await?),
        };
        self.link.call(sender, procedure, body).await
    }
}

/// A deadline for one request after the other, with one timer for all of them.
///
/// Nearly every request is answered long before its deadline. So the timer is not set anew for each: when it fires,
/// it is set to the deadline that counts by then.
struct Patience(Pin<Box<Sleep>>);

impl Patience {
    fn new(limit: Duration) -> Self {
        Self(Box::pin(sleep(limit)))
    }

    /// What the future yields; `None` if it does not by `deadline`.
    async fn await_until<F: Future>(
        &mut self,
        deadline: Instant,
        mut future: Pin<&mut F>,
    ) -> Option<F::Output> {
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            while self.0.as_mut().poll(cx).is_ready() {
                if Instant::now() >= deadline {
                    return Poll::Ready(None);
                }
                self.0.as_mut().reset(deadline.into());
            }
            Poll::Pending
        })
        .await
    }
}

/// One client.
pub(super) struct Client {
    /// Used in turn.
    lines: Vec<Line>,
    turn: usize,
    requests: Rc<Requests>,
    chance: Chance,
    job: Job,
    /// How long it waits for an answer.
    limit: Duration,
}

impl Client {
    /// A client that uses these links in turn, of which there is at least one.
    pub(super) fn new(
        links: impl Iterator<Item = Rc<Link>>,
        requests: Rc<Requests>,
        chance: Chance,
        job: Job,
        limit: Duration,
    ) -> Self {
        let lines = links.map(|link| Line { link, sender: None }).collect();
        Self { lines, turn: 0, requests, chance, job, limit }
    }

    /// Sends one request after the other, each when the one before was answered.
    pub(super) async fn run_closed(mut self, course: &Course, tally: &RefCell<Tally>) {
        let mut patience = Patience::new(self.limit);
        loop {
            let sent = Instant::now();
            let Some(leave) = course.leave(sent) else { return };
            self.request(&mut patience, (leave, sent, sent), course, tally).await;
        }
    }

    /// Sends the requests that the gate lets pass.
    pub(super) async fn run_open(mut self, course: &Course, gate: &Gate, tally: &RefCell<Tally>) {
        let mut patience = Patience::new(self.limit);
        while let Some((leave, due)) = gate.pass().await {
            self.request(&mut patience, (leave, due, Instant::now()), course, tally).await;
        }
    }

    /// One request, from sending to counting: it was due, and is sent.
    async fn request(
        &mut self,
        patience: &mut Patience,
        (leave, due, sent): (Leave, Instant, Instant),
        course: &Course,
        tally: &RefCell<Tally>,
    ) {
        self.turn = (self.turn + 1) % self.lines.len();
        let result = patience.await_until(sent + self.limit, pin!(self.perform(leave))).await;
        let ended = Instant::now();
        let result = result.unwrap_or_else(|| Err(Fault::timeout(self.limit)));
        let disconnected = result.as_ref().is_err_and(|fault| fault.disconnected);
        if course.counts(leave, ended, result.is_err()) {
            let mut tally = tally.borrow_mut();
            match result {
                Ok(conflict) => tally.answered(ended - due, conflict, ended),
                Err(fault) => tally.failed(fault, ended),
            }
        }
        if disconnected {
            self.lines[self.turn].sender = None;
            sleep(REST).await;
        }
    }

    /// Does what comes next. Returns whether that met a conflict.
    async fn perform(&mut self, leave: Leave) -> Result<bool, Fault> {
        let key = self.chance.within(0..=self.requests.shape.keys - 1);
        match self.job {
            Job::Fill => match leave {
                Leave::Ticket(chunk) => self.fill(chunk).await,
                Leave::Timed | Leave::WarmUp => Ok(false),
            },
            Job::Measure { workload, reads } => match workload {
                Workload::Put => self.put(key).await,
                Workload::Get => self.get(key, false).await.map(|_| false),
                Workload::Serializable => self.get(key, true).await.map(|_| false),
                Workload::Mixed if self.chance.within(0..=99) < u64::from(reads) => {
                    self.get(key, false).await.map(|_| false)
                }
                Workload::Mixed => self.put(key).await,
                Workload::Txn => self.swap(key).await,
            },
        }
    }

    async fn call(&mut self, procedure: Procedure, body: Bytes) -> Result<Bytes, Fault> {
        self.lines[self.turn].call(procedure, body).await
    }

    fn fresh(&mut self) -> u64 {
        self.chance.within(0..=u64::MAX)
    }

    async fn put(&mut self, key: u64) -> Result<bool, Fault> {
        let fresh = self.fresh();
        let body = self.requests.put(key, fresh);
        workload::written(self.call(Procedure::Put, body).await?).map(|()| false)
    }

    async fn get(&mut self, key: u64, serializable: bool) -> Result<i64, Fault> {
        let body = self.requests.get(key, serializable);
        let answer = self.call(Procedure::Range, body).await?;
        self.requests.read(key, answer)
    }

    async fn swap(&mut self, key: u64) -> Result<bool, Fault> {
        let modified = self.get(key, false).await?;
        let fresh = self.fresh();
        let body = self.requests.swap(key, modified, fresh);
        workload::swapped(self.call(Procedure::Txn, body).await?, 1).map(|swapped| !swapped)
    }

    async fn fill(&mut self, chunk: u64) -> Result<bool, Fault> {
        let fresh = self.fresh();
        let body = self.requests.fill(chunk, fresh);
        let keys = FILL_CHUNK.min(self.requests.shape.keys - chunk * FILL_CHUNK);
        workload::swapped(self.call(Procedure::Txn, body).await?, keys).map(|_| false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test]
    async fn every_request_has_its_own_deadline() {
        let mut patience = Patience::new(Duration::from_millis(1));
        let begin = Instant::now();
        let late = begin + Duration::from_secs(600);
        assert_eq!(patience.await_until(late, pin!(ready(7))).await, Some(7));
        for _ in 0..3 {
            assert_eq!(patience.await_until(begin, pin!(pending::<()>())).await, None);
        }
        // The timer has fired, which is no reason to give up what is due later.
        let soon = tokio::time::sleep(Duration::from_millis(2));
        assert_eq!(patience.await_until(late, pin!(soon)).await, Some(()));
    }
}

//! What the clients do, written down for the judges.
//!
//! A call is noted before it is sent and after its answer came, on one clock, so
//! that the recorded interval is never shorter than the real one: the judges may
//! then take "returned before the other was invoked" at its word. A call that is
//! never ended, because its task was dropped, counts as one of unknown fate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use synod_sim::{Answer, Call, ClientId, History, Moment, Operation, Outcome, Revision, Saw};
use tokio::sync::watch;

/// The notebook of one run.
pub(crate) struct Recorder {
    started: Instant,
    book: Mutex<Book>,
    /// How many calls are under way.
    open: watch::Sender<usize>,
}

#[derive(Default)]
struct Book {
    history: History,
    open: BTreeMap<u64, Moment>,
    next: u64,
}

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), book: Mutex::default(), open: watch::Sender::new(0) })
    }

    /// Time since the run began.
    pub(crate) fn now(&self) -> Moment {
        Moment(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Notes that a call is about to be sent.
    pub(crate) fn begin(self: &Arc<Self>, client: ClientId, via: &str, call: Call) -> Open {
        let mut book = self.book();
        let (invoked, id) = (self.now(), book.next);
        book.next += 1;
        book.open.insert(id, invoked);
        self.open.send_replace(book.open.len());
        let via = Some(via.to_owned());
        let operation = Operation { client, via, invoked, call, outcome: Outcome::Unknown };
        Open { recorder: Arc::clone(self), id, operation: Some(operation) }
    }

    /// Was any of the calls that are under way now already under way then?
    pub(crate) fn open_since(&self, moment: Moment) -> bool {
        self.book().open.values().any(|&invoked| invoked <= moment)
    }

    /// Waits until a call is under way, but no longer than `at_most`.
    pub(crate) async fn until_open(&self, at_most: Duration) {
        let mut open = self.open.subscribe();
        // The sender lives as long as `self`; and a time-out is as good as a call.
        let _ = tokio::time::timeout(at_most, open.wait_for(|&open| open > 0)).await;
    }

    /// Everything that ended so far.
    pub(crate) fn history(&self) -> History {
        self.book().history.clone()
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().expect("nobody panics while writing")
    }
}

/// A call that is under way.
pub(crate) struct Open {
    recorder: Arc<Recorder>,
    id: u64,
    operation: Option<Operation>,
}

impl Open {
    /// Notes the answer.
    pub(crate) fn answered(self, revision: Revision, saw: Saw) -> Operation {
        let returned = self.recorder.now();
        self.end(Outcome::Answered(Answer { returned, revision, saw }))
    }

    /// Notes the answer to a call that turned out to be another one, such as a transaction that only read.
    pub(crate) fn answered_as(mut self, call: Call, revision: Revision, saw: Saw) -> Operation {
        if let Some(operation) = &mut self.operation {
            operation.call = call;
        }
        self.answered(revision, saw)
    }

    /// Notes that it had no effect.
    pub(crate) fn not_applied(self) -> Operation {
        self.end(Outcome::NotApplied)
    }

    /// Notes that nobody knows.
    pub(crate) fn unknown(self) -> Operation {
        self.end(Outcome::Unknown)
    }

    fn end(mut self, outcome: Outcome) -> Operation {
        let mut operation = self.operation.take().expect("ends once");
        operation.outcome = outcome;
        self.close(operation.clone());
        operation
    }

    fn close(&self, operation: Operation) {
        let mut book = self.recorder.book();
        book.open.remove(&self.id);
        self.recorder.open.send_replace(book.open.len());
        book.history.push(operation).expect("the clock goes forward, and answers fit their calls");
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(operation) = self.operation.take() {
            self.close(operation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put() -> Call {
        Call::Put { key: "a".into(), value: "1".into() }
    }

    #[test]
    fn a_call_is_open_from_before_it_is_sent_until_after_it_ended() {
        let recorder = Recorder::new();
        assert!(!recorder.open_since(recorder.now()));
        let open = recorder.begin(ClientId(1), "n2", put());
        let during = recorder.now();
        assert!(recorder.open_since(during));
        assert_eq!(recorder.history().operations(), []);
        let operation = open.answered(Revision(2), Saw::NotAsked);
        assert!(!recorder.open_since(during));
        assert_eq!(recorder.history().operations(), std::slice::from_ref(&operation));
        assert!(operation.invoked <= during && during <= operation.answer().unwrap().returned);
    }

    #[test]
    fn a_call_that_is_dropped_is_of_unknown_fate() {
        let recorder = Recorder::new();
        drop(recorder.begin(ClientId(1), "n2", put()));
        assert_eq!(recorder.history().operations()[0].outcome, Outcome::Unknown);
        recorder.begin(ClientId(1), "n2", put()).not_applied();
        assert_eq!(recorder.history().operations()[1].outcome, Outcome::NotApplied);
    }

    #[tokio::test]
    async fn waiting_for_a_call_ends_with_one_or_with_the_time() {
        let recorder = Recorder::new();
        recorder.until_open(Duration::from_millis(1)).await;
        let open = recorder.begin(ClientId(1), "n2", put());
        recorder.until_open(Duration::MAX).await;
        open.unknown();
    }
}

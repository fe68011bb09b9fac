//! Compaction beside a load, so that a long one does not drown in its own history.
//!
//! A store keeps every version of every key until it is told to forget. At full load that is gigabytes within minutes,
//! in synod as in etcd. So one call every so often asks the cluster to forget what is older than now. It is none of
//! the requests that are measured, and its failures are told apart from theirs; what it costs the servers is in
//! everybody's figures, as it would be in real life.

use std::pin::pin;
use std::time::Duration;

use serde::Serialize;
use synod_client::rpc::etcdserverpb::CompactionRequest;
use synod_client::{Client, ClientError, Config, requests};
use tokio::time::sleep;

use super::measure::Target;
use super::tally::{Failures, Fault, Faults};
use super::workload::KEY_PREFIX;
use crate::failed::Failed;

/// What became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Compactions {
    /// As asked for.
    pub(super) every_seconds: f64,
    /// Compactions that were acknowledged.
    pub(super) done: u64,
    /// Of the last of them: history up to there is forgotten.
    pub(super) revision: Option<i64>,
    pub(super) failed: u64,
    pub(super) failures: Vec<Failures>,
}

/// Compacts, one call after the other.
pub(super) struct Compactor {
    client: Client,
    every: Duration,
    done: u64,
    revision: Option<i64>,
    faults: Faults,
}

impl Compactor {
    /// For the cluster of this target. Nothing is asked yet.
    ///
    /// # Errors
    /// If one of its endpoints is malformed.
    pub(super) fn new(target: &Target, every: Duration) -> Result<Self, Failed> {
        let config = Config {
            endpoints: target.endpoints.clone(),
            dial_timeout: target.dial_timeout,
            request_timeout: target.limit,
        };
        let client = Client::connect(config).map_err(|error| Failed::new(error.to_string()))?;
        Ok(Self { client, every, done: 0, revision: None, faults: Faults::default() })
    }

    /// Compacts for as long as the work goes on. What is under way when that ends is given up.
    pub(super) async fn beside<T>(mut self, work: impl Future<Output = T>) -> (T, Compactions) {
        let mut work = pin!(work);
        let done = loop {
            let next = async {
                sleep(self.every).await;
                if let Err(error) = self.compact().await {
                    self.faults.add(Fault::client(&error));
                }
            };
            tokio::select! {
                done = &mut work => break done,
                () = next => {}
            }
        };
        let compactions = Compactions {
            every_seconds: self.every.as_secs_f64(),
            done: self.done,
            revision: self.revision,
            failed: self.faults.count(),
            failures: self.faults.kinds(),
        };
        (done, compactions)
    }

    /// Asks for the newest revision, and to forget what is older.
    async fn compact(&mut self) -> Result<(), ClientError> {
        let answer = self.client.range(requests::get(KEY_PREFIX)).await?;
        let revision = answer.header.map(|header| header.revision);
        // Where nobody has written since, there is nothing to forget, and a store says so with an error.
        let Some(revision) = revision.filter(|_| revision > self.revision) else { return Ok(()) };
        self.client.compact(CompactionRequest { revision, physical: false }).await?;
        (self.done, self.revision) = (self.done + 1, Some(revision));
        Ok(())
    }
}

impl Compactions {
    /// For people.
    pub(super) fn text(&self) -> String {
        let up_to = self.revision.map_or_else(String::new, |revision| format!(", up to revision {revision}"));
        let mut text = format!("compactions, one every {} s: {}{up_to}", self.every_seconds, self.done);
        if self.failed > 0 {
            text.push_str(&format!("; {} failed", self.failed));
        }
        text.push('\n');
        for Failures { kind, count, first } in &self.failures {
            text.push_str(&format!("compactions: {count} x {kind}, the first: {first}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use synod_client::rpc::etcdserverpb::kv_server::Kv;
    use synod_client::rpc::etcdserverpb::{CompactionResponse, RangeRequest, RangeResponse, ResponseHeader};
    use tokio::net::TcpListener;
    use tokio::sync::watch;
    use tonic::{Request, Response, Status};

    use super::super::growth::Watched;
    use super::super::noop::serve_on;
    use super::super::workload::Shape;
    use super::*;

    /// The revision of the store, each time somebody asks.
    const REVISIONS: [i64; 5] = [5, 5, 7, 9, 9];
    /// It cannot be compacted up to there.
    const REFUSED: i64 = 7;

    struct Store {
        asked: watch::Sender<usize>,
        compacted: &'static Mutex<Vec<i64>>,
    }

    #[tonic::async_trait]
    impl Kv for Store {
        async fn range(&self, _: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
            let place = *self.asked.borrow();
            self.asked.send_replace(place + 1);
            let revision = *REVISIONS.get(place).unwrap_or(&9);
            let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
            Ok(Response::new(RangeResponse { header, ..RangeResponse::default() }))
        }

        async fn compact(
            &self,
            request: Request<CompactionRequest>,
        ) -> Result<Response<CompactionResponse>, Status> {
            let revision = request.into_inner().revision;
            self.compacted.lock().unwrap().push(revision);
            match revision {
                REFUSED => Err(Status::out_of_range("not this one")),
                _ => Ok(Response::new(CompactionResponse::default())),
            }
        }
    }

    #[tokio::test]
    async fn history_is_forgotten_up_to_the_newest_revision_where_there_is_a_newer_one() {
        static COMPACTED: Mutex<Vec<i64>> = Mutex::new(Vec::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target {
            endpoints: vec![format!("http://{}", listener.local_addr().unwrap())],
            connections: None,
            threads: 1,
            shape: Shape { keys: 1, key_size: 16, value_size: 1 },
            seed: 1,
            limit: Duration::from_secs(60),
            dial_timeout: Duration::from_secs(60),
            watched: Watched::default(),
        };
        let (asked, mut asking) = watch::channel(0);
        let (_open, closing) = watch::channel(false);
        tokio::spawn(serve_on(listener, Store { asked, compacted: &COMPACTED }, closing));

        let compactor = Compactor::new(&target, Duration::from_millis(1)).unwrap();
        // Whoever asks for the fifth time knows what became of the calls before.
        let work = async { *asking.wait_for(|&times| times >= REVISIONS.len()).await.unwrap() };
        let (times, compactions) = compactor.beside(work).await;
        assert!(times >= REVISIONS.len());
        assert_eq!(*COMPACTED.lock().unwrap(), [5, 7, 9]);
        let [refused] = &compactions.failures[..] else { panic!("{compactions:?}") };
        assert_eq!((refused.kind.as_str(), refused.count), ("status OutOfRange", 1));
        assert!(refused.first.contains("not this one"), "{refused:?}");
        assert_eq!((compactions.done, compactions.revision, compactions.failed), (2, Some(9), 1));
    }
}

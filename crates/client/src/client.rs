//! Several endpoints: which one to ask, and whom after that.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::calls;
use crate::config::{Config, parse_endpoint};
use crate::error::{ClientError, Effect, Failure};
use crate::replica::Replica;
use synod_rpc::etcdserverpb::*;

/// Pause once every endpoint has failed, so that a cluster without a majority
/// is not asked in a tight loop; it doubles with each round up to the maximum.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// A cluster, by its endpoints. Cloning is cheap and shares the connections.
#[derive(Clone, Debug)]
pub struct Client {
    replicas: Arc<[Replica]>,
    /// Index of the endpoint that answered last.
    preferred: Arc<AtomicUsize>,
    config: Arc<Config>,
}

impl Client {
    /// Prepares one connection per endpoint; each is established when first
    /// needed, so this neither waits nor notices dead servers.
    ///
    /// # Errors
    /// [`Failure::BadEndpoint`] if an endpoint is malformed or there is none.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn connect(config: Config) -> Result<Self, ClientError> {
        let mut replicas: Vec<Replica> = Vec::with_capacity(config.endpoints.len());
        for endpoint in &config.endpoints {
            let uri = parse_endpoint(endpoint)?;
            if replicas.iter().all(|known| *known.uri() != uri) {
                replicas.push(Replica::new(uri, config.dial_timeout, config.request_timeout));
            }
        }
        if replicas.is_empty() {
            let none = Failure::BadEndpoint("none was given, use host:port".to_owned());
            return Err(ClientError::before_sending("", none));
        }
        Ok(Self {
            replicas: replicas.into(),
            preferred: Arc::new(AtomicUsize::new(0)),
            config: Arc::new(config),
        })
    }

    /// Every endpoint, in the order given.
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// One endpoint, to be asked exactly once per call. It need not be among the
    /// configured ones.
    ///
    /// # Errors
    /// [`Failure::BadEndpoint`] if it is malformed.
    pub fn on(&self, endpoint: &str) -> Result<Replica, ClientError> {
        let uri = parse_endpoint(endpoint)?;
        let known = self.replicas.iter().find(|replica| *replica.uri() == uri).cloned();
        Ok(known.unwrap_or_else(|| Replica::new(uri, self.config.dial_timeout, self.config.request_timeout)))
    }

    /// Reads keys.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, ClientError> {
        self.call(Effect::Reads, request, calls::range).await
    }

    /// Writes a key.
    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, ClientError> {
        self.call(Effect::Writes, request, calls::put).await
    }

    /// Deletes keys.
    pub async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, ClientError> {
        self.call(Effect::Writes, request, calls::delete_range).await
    }

    /// Runs a transaction; one that can only read is retried like a read.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, ClientError> {
        self.call(calls::effect_of(&request), request, calls::txn).await
    }

    /// Compacts the history.
    pub async fn compact(&self, request: CompactionRequest) -> Result<CompactionResponse, ClientError> {
        self.call(Effect::Writes, request, calls::compact).await
    }

    /// Who belongs to the cluster, as a majority sees it.
    pub async fn member_list(&self) -> Result<MemberListResponse, ClientError> {
        self.call(Effect::Reads, MemberListRequest { linearizable: true }, calls::member_list).await
    }

    /// How the replica at `endpoint` is.
    pub async fn status(&self, endpoint: &str) -> Result<StatusResponse, ClientError> {
        self.on(endpoint)?.status().await
    }

    /// Asks one endpoint after the other, for as long as that is safe and the
    /// deadline allows.
    async fn call<Req, Resp, Fut>(
        &self,
        effect: Effect,
        request: Req,
        send: impl Fn(Channel, Req) -> Fut,
    ) -> Result<Resp, ClientError>
    where
        Req: Clone,
        Fut: Future<Output = Result<Response<Resp>, Status>>,
    {
        let count = self.replicas.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let deadline = Instant::now() + self.config.request_timeout;
        let mut backoff = BACKOFF_MIN;
        let mut told: Option<ClientError> = None;
        let mut attempt = 0;
        // Ends at the deadline: every round but the last one sleeps.
        loop {
            let index = (first + attempt) % count;
            let replica = &self.replicas[index];
            let give_up = match effect {
                Effect::Reads => fair_share(Instant::now(), deadline, count - attempt % count),
                // A write that was sent has nowhere else to go.
                Effect::Writes => deadline,
            };
            let error = match replica.until(give_up, effect, request.clone(), &send).await {
                Ok(response) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(error) => error,
            };
            let round_ends = (attempt + 1) % count == 0;
            let pause = if round_ends { backoff } else { Duration::ZERO };
            if !error.may_retry(effect) || Instant::now() + pause >= deadline {
                return Err(most_telling(effect, told, error));
            }
            tracing::debug!(%error, "asking the next endpoint");
            if told.as_ref().is_none_or(|told| told.tells() <= error.tells()) {
                told = Some(error);
            }
            if round_ends {
                sleep(pause).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
            attempt += 1;
        }
    }
}

/// Of a read that ran out of time, what some server last said about it tells more than that another did not
/// answer, and that more than that at a third address there is nobody. Of a write, only what became of it
/// matters; and a definite answer is never passed over.
fn most_telling(effect: Effect, told: Option<ClientError>, last: ClientError) -> ClientError {
    match told {
        Some(told) if effect == Effect::Reads && last.may_retry(effect) && told.tells() > last.tells() => {
            told
        }
        _ => last,
    }
}

/// Until when one of `endpoints` may take its time, if all are to have a turn.
fn fair_share(now: Instant, deadline: Instant, endpoints: usize) -> Instant {
    let share = deadline.saturating_duration_since(now) / u32::try_from(endpoints.max(1)).unwrap_or(u32::MAX);
    now + share
}

//! One endpoint: every call is tried exactly once.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::codegen::http::Uri;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::config::display;
use crate::error::{ClientError, Effect, Failure};
use crate::{calls, dial};
use synod_rpc::etcdserverpb::maintenance_client::MaintenanceClient;
use synod_rpc::etcdserverpb::*;
use synod_rpc::synodpb::admin_client::AdminClient;
use synod_rpc::synodpb::*;

/// One endpoint. Calls are tried once and fail as that endpoint fails; cloning
/// shares the connection.
#[derive(Clone, Debug)]
pub struct Replica {
    uri: Uri,
    name: String,
    channel: Channel,
    request_timeout: Duration,
}

impl Replica {
    pub(crate) fn new(uri: Uri, dial_timeout: Duration, request_timeout: Duration) -> Self {
        let channel = dial::channel(&uri, dial_timeout);
        Self { name: display(&uri), uri, channel, request_timeout }
    }

    /// The endpoint, as `http://host:port`.
    pub fn endpoint(&self) -> &str {
        &self.name
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Reads keys.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, ClientError> {
        self.once(Effect::Reads, request, calls::range).await
    }

    /// Writes a key.
    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, ClientError> {
        self.once(Effect::Writes, request, calls::put).await
    }

    /// Deletes keys.
    pub async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, ClientError> {
        self.once(Effect::Writes, request, calls::delete_range).await
    }

    /// Runs a transaction.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, ClientError> {
        self.once(calls::effect_of(&request), request, calls::txn).await
    }

    /// Compacts the history.
    pub async fn compact(&self, request: CompactionRequest) -> Result<CompactionResponse, ClientError> {
        self.once(Effect::Writes, request, calls::compact).await
    }

    /// Who belongs to the cluster, as a majority sees it.
    pub async fn member_list(&self) -> Result<MemberListResponse, ClientError> {
        self.once(Effect::Reads, MemberListRequest { linearizable: true }, calls::member_list).await
    }

    /// Who belongs to the cluster, as this replica alone knows it: possibly out
    /// of date, but answered without a majority too.
    pub async fn known_members(&self) -> Result<MemberListResponse, ClientError> {
        self.once(Effect::Reads, MemberListRequest { linearizable: false }, calls::member_list).await
    }

    /// How this replica is, in etcd's terms.
    pub async fn status(&self) -> Result<StatusResponse, ClientError> {
        self.once(Effect::Reads, StatusRequest {}, |channel, request| async move {
            MaintenanceClient::new(channel).status(request).await
        })
        .await
    }

    /// How this replica is, in full.
    pub async fn inspect(&self) -> Result<InspectResponse, ClientError> {
        self.once(Effect::Reads, InspectRequest {}, |channel, request| async move {
            AdminClient::new(channel).inspect(request).await
        })
        .await
    }

    /// The state hash right after `slot`, if this replica remembers it.
    pub async fn state_at(&self, slot: u64) -> Result<StateAtResponse, ClientError> {
        self.once(Effect::Reads, StateAtRequest { slot }, |channel, request| async move {
            AdminClient::new(channel).state_at(request).await
        })
        .await
    }

    /// Causes a fault or ends one. Servers refuse with `FailedPrecondition`
    /// unless they were started to allow it.
    pub async fn inject_fault(
        &self,
        fault: inject_fault_request::Fault,
    ) -> Result<InjectFaultResponse, ClientError> {
        let request = InjectFaultRequest { fault: Some(fault) };
        self.once(Effect::Writes, request, |channel, request| async move {
            AdminClient::new(channel).inject_fault(request).await
        })
        .await
    }

    /// What befalls this replica from now on. Only opening the stream is bound
    /// by the request timeout; it lasts as long as the connection.
    pub async fn fault_events(&self) -> Result<Streaming<FaultEvent>, ClientError> {
        self.once(Effect::Reads, FaultEventsRequest {}, |channel, request| async move {
            AdminClient::new(channel).fault_events(request).await
        })
        .await
    }

    async fn once<Req, Resp, Fut>(
        &self,
        effect: Effect,
        request: Req,
        send: impl FnOnce(Channel, Req) -> Fut,
    ) -> Result<Resp, ClientError>
    where
        Fut: Future<Output = Result<Response<Resp>, Status>>,
    {
        self.until(Instant::now() + self.request_timeout, effect, request, send).await
    }

    /// One attempt, given up at `deadline`.
    pub(crate) async fn until<Req, Resp, Fut>(
        &self,
        deadline: Instant,
        effect: Effect,
        request: Req,
        send: impl FnOnce(Channel, Req) -> Fut,
    ) -> Result<Resp, ClientError>
    where
        Fut: Future<Output = Result<Response<Resp>, Status>>,
    {
        let started = Instant::now();
        let failure = match timeout_at(deadline, send(self.channel.clone(), request)).await {
            Ok(Ok(response)) => return Ok(response.into_inner()),
            Ok(Err(status)) => Failure::from_status(&status),
            // Dropping the call resets its stream, which tells the server to stop too.
            Err(_) => Failure::Deadline(deadline.saturating_duration_since(started)),
        };
        Err(ClientError::new(&self.name, failure, effect))
    }
}

//! etcd's Maintenance service, as far as it is about looking.

use synod_rpc::convert::ServerError;
use synod_rpc::etcdserverpb as pb;
use synod_rpc::etcdserverpb::alarm_request::AlarmAction;
use tonic::{Request, Response, Status};

use super::errors::not_offered;
use super::{Context, ETCD_STORAGE_VERSION, ETCD_VERSION, Node};
use crate::replica::ReplicaStatus;

/// See the module.
pub(super) struct Maintenance<N> {
    context: Context<N>,
}

impl<N: Node> Maintenance<N> {
    pub(super) fn new(context: Context<N>) -> Self {
        Maintenance { context }
    }

    /// MT-1. Raft's indexes are slots (H-4).
    fn status(&self) -> pb::StatusResponse {
        let status = self.context.status();
        let no_leader = status.leader.is_none().then(|| ServerError::NoLeader.to_string());
        pb::StatusResponse {
            header: self.context.header(status.revision),
            version: ETCD_VERSION.to_owned(),
            db_size: signed(status.store_bytes),
            leader: status.leader.map_or(0, |leader| leader.node.0),
            raft_index: status.chosen.0,
            raft_term: self.context.responder().raft_term,
            raft_applied_index: status.applied.0,
            errors: no_leader.into_iter().chain(status.problem.clone()).collect(),
            db_size_in_use: signed(status.store_bytes_in_use),
            is_learner: !votes(&status),
            storage_version: ETCD_STORAGE_VERSION.to_owned(),
            db_size_quota: 0,
            downgrade_info: None,
        }
    }
}

/// Does the memory that this replica's acceptor answers from vote, as far as the log is applied here?
pub(crate) fn votes(status: &ReplicaStatus) -> bool {
    status.acceptor.is_some_and(|voter| status.voters.contains(&voter))
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[tonic::async_trait]
impl<N: Node> pb::maintenance_server::Maintenance for Maintenance<N> {
    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        self.context.methods().status.track(async { Ok(self.status()) }).await
    }

    /// There are no alarms yet; etcd's own tools ask before they call a server healthy (MT-2).
    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        let answer = async {
            if request.get_ref().action != AlarmAction::Get as i32 {
                return Err(not_offered("changing alarms"));
            }
            let header = self.context.header(self.context.status().revision);
            Ok(pb::AlarmResponse { header, alarms: Vec::new() })
        };
        self.context.methods().alarm.track(answer).await
    }

    /// The store gives back what it can by itself (MT-7).
    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        let header = self.context.header(self.context.status().revision);
        Ok(Response::new(pb::DefragmentResponse { header }))
    }

    async fn hash(&self, _: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        Err(not_offered("Maintenance.Hash"))
    }

    async fn hash_kv(&self, _: Request<pb::HashKvRequest>) -> Result<Response<pb::HashKvResponse>, Status> {
        Err(not_offered("Maintenance.HashKV"))
    }

    async fn move_leader(
        &self,
        _: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        Err(not_offered("Maintenance.MoveLeader"))
    }

    async fn downgrade(
        &self,
        _: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        Err(not_offered("Maintenance.Downgrade"))
    }
}

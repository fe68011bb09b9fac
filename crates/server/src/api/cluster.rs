//! etcd's Cluster service, as far as it is about looking: who belongs to the cluster.

use synod_rpc::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::errors::{not_offered, unanswered};
use super::{Context, Node};
use crate::replica::Consistency;

/// See the module.
pub(super) struct Cluster<N> {
    context: Context<N>,
}

impl<N: Node> Cluster<N> {
    pub(super) fn new(context: Context<N>) -> Self {
        Cluster { context }
    }

    /// M-1.
    async fn member_list(&self, request: pb::MemberListRequest) -> Result<pb::MemberListResponse, Status> {
        let consistency =
            if request.linearizable { Consistency::Linearizable } else { Consistency::Serializable };
        if request.linearizable {
            self.context.node().read(consistency, |_| ()).await.map_err(unanswered)?;
        }
        let status = self.context.status();
        let header = self.context.header(status.revision);
        let mut members: Vec<pb::Member> = status
            .members
            .into_iter()
            .map(|(node, member)| pb::Member {
                id: node.0,
                name: member.name,
                peer_urls: member.peer_urls,
                client_urls: member.client_urls,
                is_learner: member.voter.is_none(),
            })
            .collect();
        members.sort_by_key(|member| member.id);
        Ok(pb::MemberListResponse { header, members })
    }
}

#[tonic::async_trait]
impl<N: Node> pb::cluster_server::Cluster for Cluster<N> {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let answer = async {
            self.context.admit(request.metadata())?;
            self.member_list(request.into_inner()).await
        };
        self.context.methods().member_list.track(answer).await
    }

    async fn member_add(
        &self,
        _: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(not_offered("Cluster.MemberAdd"))
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(not_offered("Cluster.MemberRemove"))
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(not_offered("Cluster.MemberUpdate"))
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(not_offered("Cluster.MemberPromote"))
    }
}

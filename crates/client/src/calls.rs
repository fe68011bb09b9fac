//! The calls that go to one endpoint or to any, each said once.

use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::error::Effect;
use synod_rpc::etcdserverpb::cluster_client::ClusterClient;
use synod_rpc::etcdserverpb::kv_client::KvClient;
use synod_rpc::etcdserverpb::request_op::Request;
use synod_rpc::etcdserverpb::*;

type Answer<T> = Result<Response<T>, Status>;

/// Answers are as large as the server says they may be; a limit here would only
/// turn a write that was applied into an error.
fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(usize::MAX)
}

pub(crate) async fn range(channel: Channel, request: RangeRequest) -> Answer<RangeResponse> {
    kv(channel).range(request).await
}

pub(crate) async fn put(channel: Channel, request: PutRequest) -> Answer<PutResponse> {
    kv(channel).put(request).await
}

pub(crate) async fn delete_range(
    channel: Channel,
    request: DeleteRangeRequest,
) -> Answer<DeleteRangeResponse> {
    kv(channel).delete_range(request).await
}

pub(crate) async fn txn(channel: Channel, request: TxnRequest) -> Answer<TxnResponse> {
    kv(channel).txn(request).await
}

pub(crate) async fn compact(channel: Channel, request: CompactionRequest) -> Answer<CompactionResponse> {
    kv(channel).compact(request).await
}

pub(crate) async fn member_list(channel: Channel, request: MemberListRequest) -> Answer<MemberListResponse> {
    ClusterClient::new(channel).member_list(request).await
}

/// A transaction reads if both its branches hold nothing but ranges (TX-8).
pub(crate) fn effect_of(txn: &TxnRequest) -> Effect {
    let reads = |op: &RequestOp| matches!(op.request, Some(Request::RequestRange(_)));
    if txn.success.iter().chain(&txn.failure).all(reads) { Effect::Reads } else { Effect::Writes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests;

    #[test]
    fn a_transaction_that_can_put_in_either_branch_writes() {
        let get = || requests::op(requests::get("k"));
        let put = || requests::op(requests::put("k", "v"));
        assert_eq!(effect_of(&requests::txn([], [get()], [get()])), Effect::Reads);
        assert_eq!(effect_of(&requests::txn([], [get()], [put()])), Effect::Writes);
        assert_eq!(effect_of(&requests::txn([], [put()], [])), Effect::Writes);
        let nested = requests::op(requests::txn([], [get()], []));
        assert_eq!(effect_of(&requests::txn([], [nested], [])), Effect::Writes);
    }
}

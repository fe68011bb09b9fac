//! etcdctl's `fields` format: every field on a line of its own, as `"Name" : value`.

use super::{Answer, EndpointHealth, EndpointStatus, go};
use synod_rpc::etcdserverpb::response_op::Response;
use synod_rpc::etcdserverpb::{MemberListResponse, ResponseHeader};
use synod_rpc::mvccpb::KeyValue;

/// A missing header is shown as zeroes, as it is for the answers inside a
/// transaction, which carry a revision only (H-3).
fn header(out: &mut String, header: Option<&ResponseHeader>) {
    let header = header.copied().unwrap_or_default();
    field(out, "ClusterID", header.cluster_id);
    field(out, "MemberID", header.member_id);
    field(out, "Revision", header.revision);
    field(out, "RaftTerm", header.raft_term);
}

fn pair(out: &mut String, prefix: &str, pair: &KeyValue) {
    field(out, &format!("{prefix}Key"), go::quote(&pair.key));
    field(out, &format!("{prefix}CreateRevision"), pair.create_revision);
    field(out, &format!("{prefix}ModRevision"), pair.mod_revision);
    field(out, &format!("{prefix}Version"), pair.version);
    field(out, &format!("{prefix}Value"), go::quote(&pair.value));
    field(out, &format!("{prefix}Lease"), pair.lease);
}

pub(super) fn render(out: &mut String, answer: Answer<'_>) {
    match answer {
        Answer::Put(put) => {
            header(out, put.header.as_ref());
            put.prev_kv.iter().for_each(|kv| pair(out, "Prev", kv));
        }
        Answer::Range(range) => {
            header(out, range.header.as_ref());
            range.kvs.iter().for_each(|kv| pair(out, "", kv));
            field(out, "More", range.more);
            field(out, "Count", range.count);
        }
        Answer::Delete(delete) => {
            header(out, delete.header.as_ref());
            field(out, "Deleted", delete.deleted);
            delete.prev_kvs.iter().for_each(|kv| pair(out, "Prev", kv));
        }
        Answer::Txn(txn) => {
            header(out, txn.header.as_ref());
            field(out, "Succeeded", txn.succeeded);
            for response in txn.responses.iter().filter_map(|op| op.response.as_ref()) {
                let answer = match response {
                    Response::ResponseRange(range) => Answer::Range(range),
                    Response::ResponsePut(put) => Answer::Put(put),
                    Response::ResponseDeleteRange(delete) => Answer::Delete(delete),
                    Response::ResponseTxn(txn) => Answer::Txn(txn),
                };
                render(out, answer);
            }
        }
    }
}

pub(super) fn members(list: &MemberListResponse) -> String {
    let mut out = String::new();
    header(&mut out, list.header.as_ref());
    for member in &list.members {
        field(&mut out, "ID", member.id);
        field(&mut out, "Name", go::quote(member.name.as_bytes()));
        for url in &member.peer_urls {
            field(&mut out, "PeerURL", go::quote(url.as_bytes()));
        }
        for url in &member.client_urls {
            field(&mut out, "ClientURL", go::quote(url.as_bytes()));
        }
        field(&mut out, "IsLearner", member.is_learner);
        out.push('\n');
    }
    out
}

pub(super) fn statuses(statuses: &[EndpointStatus]) -> String {
    let mut out = String::new();
    for EndpointStatus { endpoint, status } in statuses {
        header(&mut out, status.header.as_ref());
        field(&mut out, "Version", go::quote(status.version.as_bytes()));
        field(&mut out, "DBSize", status.db_size);
        field(&mut out, "Leader", status.leader);
        field(&mut out, "IsLearner", status.is_learner);
        field(&mut out, "RaftIndex", status.raft_index);
        field(&mut out, "RaftTerm", status.raft_term);
        field(&mut out, "RaftAppliedIndex", status.raft_applied_index);
        field(&mut out, "Errors", format!("[{}]", status.errors.join(" ")));
        field(&mut out, "Endpoint", go::quote(endpoint.as_bytes()));
        out.push('\n');
    }
    out
}

pub(super) fn healths(healths: &[EndpointHealth]) -> String {
    let mut out = String::new();
    for health in healths {
        field(&mut out, "Endpoint", go::quote(health.endpoint.as_bytes()));
        field(&mut out, "Health", health.error.is_none());
        field(&mut out, "Took", go::duration(health.took));
        field(&mut out, "Error", health.error.as_deref().unwrap_or_default());
        out.push('\n');
    }
    out
}

fn field(out: &mut String, name: &str, value: impl std::fmt::Display) {
    out.push_str(&format!("\"{name}\" : {value}\n"));
}

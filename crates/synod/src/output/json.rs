//! etcdctl's `json` format: one line, byte strings in base64, zeroes left out.
//!
//! Names and order of the fields are those of Go's encoding of the protobuf
//! messages, not of protobuf's own JSON: numbers are numbers, and the answers of
//! a transaction sit in a `Response` object named by their Go type.

use serde::Serialize;

use super::{Answer, EndpointHealth, EndpointStatus, go};
use synod_rpc::etcdserverpb as pb;
use synod_rpc::etcdserverpb::response_op::Response;
use synod_rpc::mvccpb::KeyValue;

/// One line of JSON. Go escapes what could end a script element in a web
/// page; these characters only occur inside strings.
pub(crate) fn line(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string(value).expect("plain structs and string keys always encode");
    for (char, escaped) in [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ] {
        if text.contains(char) {
            text = text.replace(char, escaped);
        }
    }
    text.push('\n');
    text
}

pub(super) fn answer(answer: Answer<'_>) -> String {
    match answer {
        Answer::Put(put) => line(&Put::from(put)),
        Answer::Range(range) => line(&Range::from(range)),
        Answer::Delete(delete) => line(&Delete::from(delete)),
        Answer::Txn(txn) => line(&Txn::from(txn)),
    }
}

pub(super) fn members(list: &pb::MemberListResponse) -> String {
    line(&Members {
        header: list.header.as_ref().map(Header::from),
        members: list.members.iter().map(Member::from).collect(),
    })
}

pub(super) fn statuses(statuses: &[EndpointStatus]) -> String {
    let statuses: Vec<_> = statuses
        .iter()
        .map(|one| AtEndpoint { endpoint: &one.endpoint, status: Status::from(&one.status) })
        .collect();
    line(&statuses)
}

pub(super) fn healths(healths: &[EndpointHealth]) -> String {
    let healths: Vec<_> = healths
        .iter()
        .map(|one| Health {
            endpoint: &one.endpoint,
            health: one.error.is_none(),
            took: go::duration(one.took),
            error: one.error.as_deref(),
        })
        .collect();
    line(&healths)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn base64<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&go::base64(bytes))
}

#[derive(Serialize)]
struct Header {
    #[serde(skip_serializing_if = "is_default")]
    cluster_id: u64,
    #[serde(skip_serializing_if = "is_default")]
    member_id: u64,
    #[serde(skip_serializing_if = "is_default")]
    revision: i64,
    #[serde(skip_serializing_if = "is_default")]
    raft_term: u64,
}

impl From<&pb::ResponseHeader> for Header {
    fn from(header: &pb::ResponseHeader) -> Self {
        Self {
            cluster_id: header.cluster_id,
            member_id: header.member_id,
            revision: header.revision,
            raft_term: header.raft_term,
        }
    }
}

#[derive(Serialize)]
struct Pair<'a> {
    #[serde(serialize_with = "base64", skip_serializing_if = "<[u8]>::is_empty")]
    key: &'a [u8],
    #[serde(skip_serializing_if = "is_default")]
    create_revision: i64,
    #[serde(skip_serializing_if = "is_default")]
    mod_revision: i64,
    #[serde(skip_serializing_if = "is_default")]
    version: i64,
    #[serde(serialize_with = "base64", skip_serializing_if = "<[u8]>::is_empty")]
    value: &'a [u8],
    #[serde(skip_serializing_if = "is_default")]
    lease: i64,
}

impl<'a> From<&'a KeyValue> for Pair<'a> {
    fn from(pair: &'a KeyValue) -> Self {
        Self {
            key: &pair.key,
            create_revision: pair.create_revision,
            mod_revision: pair.mod_revision,
            version: pair.version,
            value: &pair.value,
            lease: pair.lease,
        }
    }
}

#[derive(Serialize)]
struct Put<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_kv: Option<Pair<'a>>,
}

impl<'a> From<&'a pb::PutResponse> for Put<'a> {
    fn from(put: &'a pb::PutResponse) -> Self {
        Self { header: put.header.as_ref().map(Header::from), prev_kv: put.prev_kv.as_ref().map(Pair::from) }
    }
}

#[derive(Serialize)]
struct Range<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kvs: Vec<Pair<'a>>,
    #[serde(skip_serializing_if = "is_default")]
    more: bool,
    #[serde(skip_serializing_if = "is_default")]
    count: i64,
}

impl<'a> From<&'a pb::RangeResponse> for Range<'a> {
    fn from(range: &'a pb::RangeResponse) -> Self {
        Self {
            header: range.header.as_ref().map(Header::from),
            kvs: range.kvs.iter().map(Pair::from).collect(),
            more: range.more,
            count: range.count,
        }
    }
}

#[derive(Serialize)]
struct Delete<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "is_default")]
    deleted: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prev_kvs: Vec<Pair<'a>>,
}

impl<'a> From<&'a pb::DeleteRangeResponse> for Delete<'a> {
    fn from(delete: &'a pb::DeleteRangeResponse) -> Self {
        Self {
            header: delete.header.as_ref().map(Header::from),
            deleted: delete.deleted,
            prev_kvs: delete.prev_kvs.iter().map(Pair::from).collect(),
        }
    }
}

#[derive(Serialize)]
struct Txn<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "is_default")]
    succeeded: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    responses: Vec<Op<'a>>,
}

impl<'a> From<&'a pb::TxnResponse> for Txn<'a> {
    fn from(txn: &'a pb::TxnResponse) -> Self {
        let op = |op: &'a pb::ResponseOp| Op { response: op.response.as_ref().map(OpResponse::from) };
        Self {
            header: txn.header.as_ref().map(Header::from),
            succeeded: txn.succeeded,
            responses: txn.responses.iter().map(op).collect(),
        }
    }
}

#[derive(Serialize)]
struct Op<'a> {
    #[serde(rename = "Response")]
    response: Option<OpResponse<'a>>,
}

#[derive(Serialize)]
enum OpResponse<'a> {
    #[serde(rename = "ResponseRange")]
    Range(Range<'a>),
    #[serde(rename = "ResponsePut")]
    Put(Put<'a>),
    #[serde(rename = "ResponseDeleteRange")]
    Delete(Delete<'a>),
    #[serde(rename = "ResponseTxn")]
    Txn(Txn<'a>),
}

impl<'a> From<&'a Response> for OpResponse<'a> {
    fn from(response: &'a Response) -> Self {
        match response {
            Response::ResponseRange(range) => Self::Range(range.into()),
            Response::ResponsePut(put) => Self::Put(put.into()),
            Response::ResponseDeleteRange(delete) => Self::Delete(delete.into()),
            Response::ResponseTxn(txn) => Self::Txn(txn.into()),
        }
    }
}

#[derive(Serialize)]
struct Members<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    members: Vec<Member<'a>>,
}

#[derive(Serialize)]
struct Member<'a> {
    #[serde(rename = "ID", skip_serializing_if = "is_default")]
    id: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "peerURLs", skip_serializing_if = "<[String]>::is_empty")]
    peer_urls: &'a [String],
    #[serde(rename = "clientURLs", skip_serializing_if = "<[String]>::is_empty")]
    client_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "is_default")]
    is_learner: bool,
}

impl<'a> From<&'a pb::Member> for Member<'a> {
    fn from(member: &'a pb::Member) -> Self {
        Self {
            id: member.id,
            name: &member.name,
            peer_urls: &member.peer_urls,
            client_urls: &member.client_urls,
            is_learner: member.is_learner,
        }
    }
}

#[derive(Serialize)]
struct AtEndpoint<'a> {
    #[serde(rename = "Endpoint")]
    endpoint: &'a str,
    #[serde(rename = "Status")]
    status: Status<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    db_size: i64,
    #[serde(skip_serializing_if = "is_default")]
    leader: u64,
    #[serde(skip_serializing_if = "is_default")]
    raft_index: u64,
    #[serde(skip_serializing_if = "is_default")]
    raft_term: u64,
    #[serde(skip_serializing_if = "is_default")]
    raft_applied_index: u64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    errors: &'a [String],
    #[serde(skip_serializing_if = "is_default")]
    db_size_in_use: i64,
    #[serde(skip_serializing_if = "is_default")]
    is_learner: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    storage_version: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    db_size_quota: i64,
}

impl<'a> From<&'a pb::StatusResponse> for Status<'a> {
    fn from(status: &'a pb::StatusResponse) -> Self {
        Self {
            header: status.header.as_ref().map(Header::from),
            version: &status.version,
            db_size: status.db_size,
            leader: status.leader,
            raft_index: status.raft_index,
            raft_term: status.raft_term,
            raft_applied_index: status.raft_applied_index,
            errors: &status.errors,
            db_size_in_use: status.db_size_in_use,
            is_learner: status.is_learner,
            storage_version: &status.storage_version,
            db_size_quota: status.db_size_quota,
        }
    }
}

#[derive(Serialize)]
struct Health<'a> {
    endpoint: &'a str,
    health: bool,
    took: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

//! What the store answers, into etcd's messages.

use synod_kv as kv;
use synod_kv::{LeaseId, Revision};

use crate::etcdserverpb as pb;
use crate::etcdserverpb::ResponseHeader;
use crate::etcdserverpb::response_op::Response as Op;
use crate::mvccpb;

/// Who answers: what every header of one replica has in common (H-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Responder {
    /// The cluster that this replica is in.
    pub cluster_id: u64,
    /// The replica that answers, whoever proposed or chose (H-1).
    pub member_id: u64,
    /// A number that grows with each change of leader (H-4).
    pub raft_term: u64,
}

impl Responder {
    /// The header of an answer: to a change, with the revision after it; to a read,
    /// with the store's revision at the read, whichever was asked for (H-1).
    pub fn header(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision: revision.to_wire(),
            raft_term: self.raft_term,
        }
    }

    /// The answer to a read, made when the store was at `revision`.
    pub fn range(&self, revision: Revision, response: kv::RangeResponse) -> pb::RangeResponse {
        range(self.header(revision), response)
    }

    /// The answer to a put that made `revision`.
    pub fn put(&self, revision: Revision, response: kv::PutResponse) -> pb::PutResponse {
        put(self.header(revision), response)
    }

    /// The answer to a removal, after which the store was at `revision`.
    pub fn delete_range(
        &self,
        revision: Revision,
        response: kv::DeleteRangeResponse,
    ) -> pb::DeleteRangeResponse {
        delete_range(self.header(revision), response)
    }

    /// The answer to a transaction, after which the store was at `revision`.
    pub fn txn(&self, revision: Revision, response: kv::TxnResponse) -> pb::TxnResponse {
        txn(self.header(revision), response)
    }

    /// The answer to a compaction, carried out when the store was at `revision`.
    pub fn compact(&self, revision: Revision) -> pb::CompactionResponse {
        pb::CompactionResponse { header: Some(self.header(revision)) }
    }
}

impl From<kv::KeyValue> for mvccpb::KeyValue {
    fn from(kv: kv::KeyValue) -> Self {
        mvccpb::KeyValue {
            key: kv.key,
            create_revision: kv.create_revision.to_wire(),
            mod_revision: kv.mod_revision.to_wire(),
            version: signed(kv.version),
            value: kv.value,
            lease: LeaseId::to_wire(kv.lease),
        }
    }
}

fn range(header: ResponseHeader, response: kv::RangeResponse) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header),
        kvs: response.kvs.into_iter().map(Into::into).collect(),
        more: response.more,
        count: signed(response.count),
    }
}

fn put(header: ResponseHeader, response: kv::PutResponse) -> pb::PutResponse {
    pb::PutResponse { header: Some(header), prev_kv: response.prev.map(Into::into) }
}

fn delete_range(header: ResponseHeader, response: kv::DeleteRangeResponse) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header: Some(header),
        deleted: signed(response.deleted),
        prev_kvs: response.prev_kvs.into_iter().map(Into::into).collect(),
    }
}

fn txn(header: ResponseHeader, response: kv::TxnResponse) -> pb::TxnResponse {
    pb::TxnResponse {
        header: Some(header),
        succeeded: response.succeeded,
        responses: response.responses.into_iter().map(nested).collect(),
    }
}

/// One answer inside a transaction: its header says the revision and nothing else,
/// and that of a transaction inside says nothing at all, as with etcd (H-3).
fn nested(response: kv::NestedResponse) -> pb::ResponseOp {
    let header = ResponseHeader { revision: response.revision.to_wire(), ..Default::default() };
    let op = match response.response {
        kv::Response::Range(response) => Op::ResponseRange(range(header, response)),
        kv::Response::Put(response) => Op::ResponsePut(put(header, response)),
        kv::Response::DeleteRange(response) => Op::ResponseDeleteRange(delete_range(header, response)),
        kv::Response::Txn(response) => Op::ResponseTxn(txn(ResponseHeader::default(), response)),
        kv::Response::Compact => unreachable!("the store refuses compactions inside transactions"),
    };
    pb::ResponseOp { response: Some(op) }
}

/// Counts are signed on the wire. No store lives long enough for this to matter.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const RESPONDER: Responder = Responder { cluster_id: 1, member_id: 2, raft_term: 4 };
    const HEADER: ResponseHeader = ResponseHeader { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 };

    fn pair() -> kv::KeyValue {
        kv::KeyValue {
            key: "k".into(),
            value: "v".into(),
            create_revision: Revision(5),
            mod_revision: Revision(6),
            version: 7,
            lease: LeaseId::from_wire(-8),
        }
    }

    fn wire_pair() -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            key: "k".into(),
            value: "v".into(),
            create_revision: 5,
            mod_revision: 6,
            version: 7,
            lease: -8,
        }
    }

    #[test]
    fn h_01_every_answer_says_who_and_when() {
        let now = Revision(3);
        assert_eq!(RESPONDER.header(now), HEADER);
        assert_eq!(RESPONDER.range(now, Default::default()).header, Some(HEADER));
        assert_eq!(RESPONDER.put(now, Default::default()).header, Some(HEADER));
        assert_eq!(RESPONDER.delete_range(now, Default::default()).header, Some(HEADER));
        assert_eq!(RESPONDER.txn(now, Default::default()).header, Some(HEADER));
        assert_eq!(RESPONDER.compact(now).header, Some(HEADER));
    }

    #[test]
    fn h_03_headers_inside_a_transaction_say_the_revision_at_most() {
        let at = |response| kv::NestedResponse { revision: Revision(9), response };
        let response = kv::TxnResponse {
            succeeded: true,
            responses: vec![
                at(kv::Response::Range(Default::default())),
                at(kv::Response::Put(Default::default())),
                at(kv::Response::DeleteRange(Default::default())),
                at(kv::Response::Txn(Default::default())),
            ],
        };
        let response = RESPONDER.txn(Revision(3), response);
        assert!(response.succeeded);
        let headers: Vec<_> = response
            .responses
            .into_iter()
            .map(|op| match op.response.unwrap() {
                Op::ResponseRange(response) => ("range", response.header),
                Op::ResponsePut(response) => ("put", response.header),
                Op::ResponseDeleteRange(response) => ("delete", response.header),
                Op::ResponseTxn(response) => ("txn", response.header),
            })
            .collect();
        let revision_only = Some(ResponseHeader { revision: 9, ..Default::default() });
        assert_eq!(
            headers,
            [
                ("range", revision_only),
                ("put", revision_only),
                ("delete", revision_only),
                ("txn", Some(ResponseHeader::default()))
            ]
        );
    }

    #[test]
    fn r_04_a_pair_keeps_all_its_numbers() {
        assert_eq!(mvccpb::KeyValue::from(pair()), wire_pair());
        let unleased = kv::KeyValue { lease: None, ..pair() };
        assert_eq!(mvccpb::KeyValue::from(unleased).lease, 0);
    }

    #[test]
    fn kv_05_more_and_count_travel_with_the_pairs() {
        let response = kv::RangeResponse { kvs: vec![pair()], more: true, count: 12 };
        let wire = RESPONDER.range(Revision(3), response);
        assert_eq!((wire.kvs, wire.more, wire.count), (vec![wire_pair()], true, 12));
    }

    #[test]
    fn kv_11_12_pairs_from_before_travel_along() {
        let put = RESPONDER.put(Revision(3), kv::PutResponse { prev: Some(pair()) });
        assert_eq!(put.prev_kv, Some(wire_pair()));
        let deleted = kv::DeleteRangeResponse { deleted: 1, prev_kvs: vec![pair()] };
        let deleted = RESPONDER.delete_range(Revision(3), deleted);
        assert_eq!((deleted.deleted, deleted.prev_kvs), (1, vec![wire_pair()]));
    }

    #[test]
    fn values_are_shared_with_the_store() {
        let value = Bytes::from(vec![7; 1000]);
        let wire = mvccpb::KeyValue::from(kv::KeyValue { value: value.clone(), ..pair() });
        assert_eq!(wire.value.as_ptr(), value.as_ptr());
    }
}

//! What clients send, into what the store understands.
//!
//! etcd's wire has numbers where we have types: zero for "none", any integer for
//! an enum. Each such number is read here, once, so that nothing behind this file
//! has to wonder what a zero means.

use std::num::NonZeroU64;

use synod_kv as kv;
use synod_kv::{KeyRange, KvError, LeaseId, Revision, RevisionBounds};

use crate::etcdserverpb as pb;
use crate::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::etcdserverpb::request_op::Request as Op;

/// A message that says nothing the store could understand. Nothing was changed,
/// and sending it again does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// etcd has an error for it.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A compare has a target or a result that does not exist. etcd lets some of
    /// these pass as true; we would rather say so (T-8).
    #[error("etcdserver: invalid compare option")]
    InvalidCompareOption,
}

impl TryFrom<pb::RangeRequest> for kv::RangeRequest {
    type Error = RequestError;

    /// # Errors
    /// An unknown sort order or target is an invalid sort option (T-8).
    fn try_from(wire: pb::RangeRequest) -> Result<Self, RequestError> {
        let order = SortOrder::try_from(wire.sort_order).map_err(|_| KvError::InvalidSortOption)?;
        let target = SortTarget::try_from(wire.sort_target).map_err(|_| KvError::InvalidSortOption)?;
        Ok(kv::RangeRequest {
            range: KeyRange::from_wire(wire.key, wire.range_end),
            // KV-2, TX-9: zero and less are the newest.
            revision: Revision::from_wire(wire.revision),
            // KV-4: zero and less are no limit.
            limit: u64::try_from(wire.limit).ok().and_then(NonZeroU64::new),
            order: match order {
                SortOrder::None => kv::SortOrder::None,
                SortOrder::Ascend => kv::SortOrder::Ascend,
                SortOrder::Descend => kv::SortOrder::Descend,
            },
            target: match target {
                SortTarget::Key => kv::SortTarget::Key,
                SortTarget::Version => kv::SortTarget::Version,
                SortTarget::Create => kv::SortTarget::Create,
                SortTarget::Mod => kv::SortTarget::Mod,
                SortTarget::Value => kv::SortTarget::Value,
            },
            keys_only: wire.keys_only,
            count_only: wire.count_only,
            serializable: wire.serializable,
            modified: RevisionBounds::from_wire(wire.min_mod_revision, wire.max_mod_revision),
            created: RevisionBounds::from_wire(wire.min_create_revision, wire.max_create_revision),
        })
    }
}

impl From<pb::PutRequest> for kv::PutRequest {
    fn from(wire: pb::PutRequest) -> Self {
        kv::PutRequest {
            key: wire.key,
            value: wire.value,
            lease: LeaseId::from_wire(wire.lease),
            prev_kv: wire.prev_kv,
            ignore_value: wire.ignore_value,
            ignore_lease: wire.ignore_lease,
        }
    }
}

impl From<pb::DeleteRangeRequest> for kv::DeleteRangeRequest {
    fn from(wire: pb::DeleteRangeRequest) -> Self {
        kv::DeleteRangeRequest { range: KeyRange::from_wire(wire.key, wire.range_end), prev_kv: wire.prev_kv }
    }
}

impl TryFrom<pb::CompactionRequest> for kv::CompactRequest {
    type Error = RequestError;

    /// # Errors
    /// A negative revision is compacted already (CP-1).
    fn try_from(wire: pb::CompactionRequest) -> Result<Self, RequestError> {
        Ok(kv::CompactRequest::from_wire(wire.revision, wire.physical)?)
    }
}

impl TryFrom<pb::TxnRequest> for kv::TxnRequest {
    type Error = RequestError;

    /// Recurses as deep as transactions are nested, which decoding has bounded:
    /// prost refuses messages nested deeper than a hundred levels.
    ///
    /// # Errors
    /// Whatever one of the compares or operations is refused for.
    fn try_from(wire: pb::TxnRequest) -> Result<Self, RequestError> {
        Ok(kv::TxnRequest {
            compares: wire.compare.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            success: wire.success.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            failure: wire.failure.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<pb::RequestOp> for kv::Request {
    type Error = RequestError;

    /// # Errors
    /// An operation that is none, or of a kind we do not know, is to etcd a key
    /// that was not found (TX-7).
    fn try_from(wire: pb::RequestOp) -> Result<Self, RequestError> {
        Ok(match wire.request.ok_or(KvError::KeyNotFound)? {
            Op::RequestRange(range) => kv::Request::Range(range.try_into()?),
            Op::RequestPut(put) => kv::Request::Put(put.into()),
            Op::RequestDeleteRange(delete) => kv::Request::DeleteRange(delete.into()),
            Op::RequestTxn(txn) => kv::Request::Txn(txn.try_into()?),
        })
    }
}

impl TryFrom<pb::Compare> for kv::Compare {
    type Error = RequestError;

    /// # Errors
    /// An unknown target or result (T-8).
    fn try_from(wire: pb::Compare) -> Result<Self, RequestError> {
        let unknown = |_| RequestError::InvalidCompareOption;
        let result = CompareResult::try_from(wire.result).map_err(unknown)?;
        let target = CompareTarget::try_from(wire.target).map_err(unknown)?;
        Ok(kv::Compare {
            range: KeyRange::from_wire(wire.key, wire.range_end),
            relation: match result {
                CompareResult::Equal => kv::Relation::Equal,
                CompareResult::NotEqual => kv::Relation::NotEqual,
                CompareResult::Greater => kv::Relation::Greater,
                CompareResult::Less => kv::Relation::Less,
            },
            operand: operand(target, wire.target_union),
        })
    }
}

/// The target says what is compared. An operand that is absent, or is meant for
/// another target, counts as zero or empty.
fn operand(target: CompareTarget, union: Option<TargetUnion>) -> kv::Operand {
    match (target, union) {
        (CompareTarget::Version, Some(TargetUnion::Version(number))) => kv::Operand::Version(number),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(number))) => kv::Operand::Create(number),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(number))) => kv::Operand::Mod(number),
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => kv::Operand::Value(value),
        (CompareTarget::Lease, Some(TargetUnion::Lease(number))) => kv::Operand::Lease(number),
        (CompareTarget::Version, _) => kv::Operand::Version(0),
        (CompareTarget::Create, _) => kv::Operand::Create(0),
        (CompareTarget::Mod, _) => kv::Operand::Mod(0),
        (CompareTarget::Value, _) => kv::Operand::Value(bytes::Bytes::new()),
        (CompareTarget::Lease, _) => kv::Operand::Lease(0),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;
    use synod_kv::RangeEnd;

    use super::*;

    fn range(wire: pb::RangeRequest) -> Result<kv::RangeRequest, RequestError> {
        kv::RangeRequest::try_from(wire)
    }

    fn range_of_k(change: impl FnOnce(&mut pb::RangeRequest)) -> kv::RangeRequest {
        let mut wire = pb::RangeRequest { key: "k".into(), ..Default::default() };
        change(&mut wire);
        range(wire).unwrap()
    }

    #[test]
    fn kv_01_the_end_of_an_interval() {
        assert_eq!(range_of_k(|_| ()).range.end, RangeEnd::Single);
        assert_eq!(range_of_k(|wire| wire.range_end = "\0".into()).range.end, RangeEnd::FromKey);
        assert_eq!(range_of_k(|wire| wire.range_end = "l".into()).range.end, RangeEnd::Before("l".into()));
        let delete = pb::DeleteRangeRequest { key: "k".into(), range_end: "\0".into(), prev_kv: true };
        let delete = kv::DeleteRangeRequest::from(delete);
        assert_eq!((delete.range.end, delete.prev_kv), (RangeEnd::FromKey, true));
    }

    #[test]
    fn kv_02_tx_09_a_revision_of_zero_or_less_is_the_newest() {
        assert_eq!(range_of_k(|wire| wire.revision = 0).revision, None);
        assert_eq!(range_of_k(|wire| wire.revision = i64::MIN).revision, None);
        assert_eq!(range_of_k(|wire| wire.revision = 7).revision, Some(Revision(7)));
    }

    #[test]
    fn kv_03_each_revision_bound_goes_where_it_belongs() {
        let request = range_of_k(|wire| {
            wire.min_mod_revision = 1;
            wire.max_mod_revision = 2;
            wire.min_create_revision = 3;
            wire.max_create_revision = 4;
        });
        assert_eq!(request.modified, RevisionBounds::from_wire(1, 2));
        assert_eq!(request.created, RevisionBounds::from_wire(3, 4));
    }

    #[test]
    fn kv_04_a_limit_of_zero_or_less_is_none() {
        assert_eq!(range_of_k(|wire| wire.limit = -1).limit, None);
        assert_eq!(range_of_k(|wire| wire.limit = 0).limit, None);
        assert_eq!(range_of_k(|wire| wire.limit = 3).limit, NonZeroU64::new(3));
    }

    #[test]
    fn kv_04_sort_options_keep_their_meaning() {
        let sorted = |order: SortOrder, target: SortTarget| {
            let request = range_of_k(|wire| {
                wire.set_sort_order(order);
                wire.set_sort_target(target);
            });
            (request.order, request.target)
        };
        assert_eq!(sorted(SortOrder::None, SortTarget::Key), (kv::SortOrder::None, kv::SortTarget::Key));
        assert_eq!(
            sorted(SortOrder::Ascend, SortTarget::Version),
            (kv::SortOrder::Ascend, kv::SortTarget::Version)
        );
        assert_eq!(
            sorted(SortOrder::Descend, SortTarget::Create),
            (kv::SortOrder::Descend, kv::SortTarget::Create)
        );
        assert_eq!(sorted(SortOrder::None, SortTarget::Mod), (kv::SortOrder::None, kv::SortTarget::Mod));
        assert_eq!(sorted(SortOrder::None, SortTarget::Value), (kv::SortOrder::None, kv::SortTarget::Value));
    }

    #[test]
    fn kv_06_07_the_flags_of_a_range_are_not_mixed_up() {
        let flags = |change: fn(&mut pb::RangeRequest)| {
            let request = range_of_k(change);
            (request.serializable, request.keys_only, request.count_only)
        };
        assert_eq!(flags(|wire| wire.serializable = true), (true, false, false));
        assert_eq!(flags(|wire| wire.keys_only = true), (false, true, false));
        assert_eq!(flags(|wire| wire.count_only = true), (false, false, true));
    }

    #[test]
    fn kv_09_10_11_a_put_keeps_its_flags_and_lease_zero_is_none() {
        let wire = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        assert_eq!(kv::PutRequest::from(wire.clone()), kv::PutRequest::new("k", "v"));

        let put = kv::PutRequest::from(pb::PutRequest { lease: -5, prev_kv: true, ..wire.clone() });
        assert_eq!(put.lease, LeaseId::from_wire(-5));
        assert_eq!((put.prev_kv, put.ignore_value, put.ignore_lease), (true, false, false));
        let put = kv::PutRequest::from(pb::PutRequest { ignore_value: true, ..wire.clone() });
        assert_eq!((put.prev_kv, put.ignore_value, put.ignore_lease), (false, true, false));
        let put = kv::PutRequest::from(pb::PutRequest { ignore_lease: true, ..wire });
        assert_eq!((put.prev_kv, put.ignore_value, put.ignore_lease), (false, false, true));
    }

    #[test]
    fn t_08_an_unknown_sort_option_is_refused_nested_too() {
        for (order, target) in [(7, 0), (0, 7), (-1, 0), (0, i32::MIN)] {
            let wire = pb::RangeRequest {
                key: "k".into(),
                sort_order: order,
                sort_target: target,
                ..Default::default()
            };
            assert_eq!(range(wire.clone()), Err(RequestError::Kv(KvError::InvalidSortOption)));

            let op = pb::RequestOp { request: Some(Op::RequestRange(wire)) };
            let inner = pb::TxnRequest { failure: vec![op], ..Default::default() };
            let op = pb::RequestOp { request: Some(Op::RequestTxn(inner)) };
            let txn = pb::TxnRequest { success: vec![op], ..Default::default() };
            let error = kv::TxnRequest::try_from(txn).unwrap_err();
            assert_eq!(error.to_string(), "etcdserver: invalid sort option");
        }
    }

    #[test]
    fn t_08_an_unknown_compare_option_is_refused() {
        for (result, target) in [(4, 0), (0, 5), (-1, 0), (0, -1)] {
            let compare = pb::Compare { result, target, key: "k".into(), ..Default::default() };
            assert_eq!(kv::Compare::try_from(compare), Err(RequestError::InvalidCompareOption));
        }
    }

    #[test]
    fn tx_02_compare_targets_and_results_keep_their_meaning() {
        let compare = |target: CompareTarget, union| {
            let wire = pb::Compare { target: target.into(), target_union: union, ..Default::default() };
            kv::Compare::try_from(wire).unwrap().operand
        };
        use CompareTarget::*;
        assert_eq!(compare(Version, Some(TargetUnion::Version(1))), kv::Operand::Version(1));
        assert_eq!(compare(Create, Some(TargetUnion::CreateRevision(2))), kv::Operand::Create(2));
        assert_eq!(compare(Mod, Some(TargetUnion::ModRevision(-3))), kv::Operand::Mod(-3));
        assert_eq!(compare(Value, Some(TargetUnion::Value("v".into()))), kv::Operand::Value("v".into()));
        assert_eq!(compare(Lease, Some(TargetUnion::Lease(4))), kv::Operand::Lease(4));

        let relation = |result: CompareResult| {
            let wire = pb::Compare { result: result.into(), ..Default::default() };
            kv::Compare::try_from(wire).unwrap().relation
        };
        assert_eq!(relation(CompareResult::Equal), kv::Relation::Equal);
        assert_eq!(relation(CompareResult::NotEqual), kv::Relation::NotEqual);
        assert_eq!(relation(CompareResult::Greater), kv::Relation::Greater);
        assert_eq!(relation(CompareResult::Less), kv::Relation::Less);
    }

    #[test]
    fn tx_02_an_operand_for_another_target_counts_as_zero() {
        for union in [None, Some(TargetUnion::Version(9))] {
            assert_eq!(operand(CompareTarget::Mod, union.clone()), kv::Operand::Mod(0));
            assert_eq!(operand(CompareTarget::Create, union.clone()), kv::Operand::Create(0));
            assert_eq!(operand(CompareTarget::Lease, union.clone()), kv::Operand::Lease(0));
            assert_eq!(operand(CompareTarget::Value, union), kv::Operand::Value(Bytes::new()));
        }
        assert_eq!(operand(CompareTarget::Version, Some(TargetUnion::Lease(9))), kv::Operand::Version(0));
    }

    #[test]
    fn tx_02_a_compare_may_span_an_interval() {
        let wire = pb::Compare { key: "k".into(), range_end: "\0".into(), ..Default::default() };
        assert_eq!(kv::Compare::try_from(wire).unwrap().range.end, RangeEnd::FromKey);
    }

    #[test]
    fn tx_07_an_operation_that_is_none_is_a_key_not_found() {
        let txn = pb::TxnRequest { success: vec![pb::RequestOp { request: None }], ..Default::default() };
        assert_eq!(kv::TxnRequest::try_from(txn), Err(RequestError::Kv(KvError::KeyNotFound)));
        let empty = kv::TxnRequest::try_from(pb::TxnRequest::default()).unwrap();
        assert_eq!(empty, kv::TxnRequest::default());
    }

    #[test]
    fn tx_01_branches_are_not_swapped() {
        let put = |key: &'static str| pb::RequestOp {
            request: Some(Op::RequestPut(pb::PutRequest { key: key.into(), ..Default::default() })),
        };
        let txn = pb::TxnRequest { success: vec![put("s")], failure: vec![put("f")], ..Default::default() };
        let txn = kv::TxnRequest::try_from(txn).unwrap();
        assert_eq!(txn.success, [kv::Request::Put(kv::PutRequest::new("s", ""))]);
        assert_eq!(txn.failure, [kv::Request::Put(kv::PutRequest::new("f", ""))]);
    }

    #[test]
    fn t_08_the_nesting_that_decoding_lets_through_is_bounded() {
        let nested = |depth| {
            let mut txn = pb::TxnRequest::default();
            for _ in 0..depth {
                let op = pb::RequestOp { request: Some(Op::RequestTxn(txn)) };
                txn = pb::TxnRequest { success: vec![op], ..Default::default() };
            }
            pb::TxnRequest::decode(Bytes::from(txn.encode_to_vec()))
        };
        assert!(kv::TxnRequest::try_from(nested(40).unwrap()).is_ok());
        assert!(nested(60).is_err());
    }

    #[test]
    fn cp_01_a_negative_compaction_is_refused() {
        let compact =
            |revision| kv::CompactRequest::try_from(pb::CompactionRequest { revision, physical: true });
        assert_eq!(compact(5), Ok(kv::CompactRequest { revision: Revision(5), physical: true }));
        let error = compact(-1).unwrap_err();
        assert_eq!(error.to_string(), "etcdserver: mvcc: required revision has been compacted");
    }

    #[test]
    fn values_are_shared_with_the_message_they_came_in() {
        let value = Bytes::from(vec![7; 1000]);
        let wire = pb::PutRequest { key: "k".into(), value: value.clone(), ..Default::default() };
        let message = Bytes::from(wire.encode_to_vec());
        let put = kv::PutRequest::from(pb::PutRequest::decode(message.clone()).unwrap());
        assert_eq!(put.value, value);
        assert!(message.as_ptr_range().contains(&put.value.as_ptr()));
    }
}

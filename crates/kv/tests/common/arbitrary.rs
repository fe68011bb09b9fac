//! Requests as proptest invents them: few keys and small revisions, so that they meet.

use std::num::NonZeroU64;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use synod_kv::{
    CompactRequest, Compare, DeleteRangeRequest, KeyRange, LeaseId, Operand, PutRequest, RangeEnd,
    RangeRequest, Relation, Request, Revision, RevisionBounds, SortOrder, SortTarget, TxnRequest,
};

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        1 => Just(Bytes::new()),
        60 => "[a-e]".prop_map(Bytes::from),
        20 => "[a-e][a-c\0]".prop_map(Bytes::from),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    "[x-z]{0,2}".prop_map(Bytes::from)
}

fn interval() -> impl Strategy<Value = KeyRange> {
    let end = prop_oneof![
        3 => Just(RangeEnd::Single),
        1 => Just(RangeEnd::FromKey),
        2 => key().prop_map(RangeEnd::Before),
    ];
    (key(), end).prop_map(|(key, end)| KeyRange { key, end })
}

fn revision() -> impl Strategy<Value = Revision> {
    (0..24_u64).prop_map(Revision)
}

fn bounds() -> impl Strategy<Value = RevisionBounds> {
    prop_oneof![
        3 => Just(RevisionBounds::default()),
        1 => (prop::option::of(revision()), prop::option::of(revision()))
            .prop_map(|(at_least, at_most)| RevisionBounds { at_least, at_most }),
    ]
}

fn put() -> impl Strategy<Value = Request> {
    let lease = prop::option::weighted(0.03, any::<i64>());
    let flags = (any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    (key(), value(), lease, flags).prop_map(|(key, value, lease, (prev_kv, ignore_value, ignore_lease))| {
        // Mostly such that it is not refused.
        let value = if ignore_value && value.len() < 2 { Bytes::new() } else { value };
        let lease = lease.and_then(LeaseId::from_wire);
        Request::Put(PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease })
    })
}

fn delete() -> impl Strategy<Value = Request> {
    (interval(), any::<bool>())
        .prop_map(|(range, prev_kv)| Request::DeleteRange(DeleteRangeRequest { range, prev_kv }))
}

pub fn range() -> impl Strategy<Value = RangeRequest> {
    let order = prop_oneof![Just(SortOrder::None), Just(SortOrder::Ascend), Just(SortOrder::Descend)];
    let target = prop_oneof![
        3 => Just(SortTarget::Key),
        1 => Just(SortTarget::Version),
        1 => Just(SortTarget::Create),
        1 => Just(SortTarget::Mod),
        1 => Just(SortTarget::Value),
    ];
    let when = prop::option::weighted(0.3, revision());
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.1), any::<bool>());
    (interval(), when, 0..4_u64, order, target, flags, bounds(), bounds()).prop_map(
        |(range, revision, limit, order, target, flags, modified, created)| RangeRequest {
            range,
            revision,
            limit: NonZeroU64::new(limit),
            order,
            target,
            keys_only: flags.0,
            count_only: flags.1,
            serializable: flags.2,
            modified,
            created,
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> {
    let relation = prop_oneof![
        Just(Relation::Equal),
        Just(Relation::NotEqual),
        Just(Relation::Greater),
        Just(Relation::Less)
    ];
    let operand = prop_oneof![
        (-1..4_i64).prop_map(Operand::Version),
        (-1..9_i64).prop_map(Operand::Create),
        (-1..9_i64).prop_map(Operand::Mod),
        value().prop_map(Operand::Value),
        (-1..2_i64).prop_map(Operand::Lease),
    ];
    (interval(), relation, operand).prop_map(|(range, relation, operand)| Compare {
        range,
        relation,
        operand,
    })
}

/// What a transaction can hold, and itself.
fn op() -> impl Strategy<Value = Request> {
    let leaf = prop_oneof![4 => put(), 1 => delete(), 2 => range().prop_map(Request::Range)];
    leaf.prop_recursive(2, 12, 3, |op| {
        (vec(compare(), 0..2), vec(op.clone(), 0..3), vec(op, 0..3))
            .prop_map(|(compares, success, failure)| Request::Txn(TxnRequest { compares, success, failure }))
    })
}

pub fn request() -> impl Strategy<Value = Request> {
    let compact = (revision(), any::<bool>())
        .prop_map(|(revision, physical)| Request::Compact(CompactRequest { revision, physical }));
    let txn = (vec(compare(), 0..2), vec(op(), 0..4), vec(op(), 0..4))
        .prop_map(|(compares, success, failure)| Request::Txn(TxnRequest { compares, success, failure }));
    prop_oneof![4 => put(), 2 => delete(), 3 => range().prop_map(Request::Range), 1 => compact, 4 => txn]
}

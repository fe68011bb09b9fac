//! etcd's behaviours TX, one test each, under their names.

mod common;

use bytes::Bytes;
use common::*;
use synod_kv::{
    Code, Compare, KeyRange, KvError, LeaseId, Limits, Operand, PutRequest, RangeRequest, Relation, Request,
    Response, Revision, Store, TxnRequest,
};

fn get_at(key: &str, revision: u64) -> Request {
    Request::Range(RangeRequest { revision: Some(Revision(revision)), ..read(key, "") })
}

fn get_op(key: &str) -> Request {
    Request::Range(read(key, ""))
}

fn all_of(ops: Vec<Request>) -> Request {
    txn(vec![], ops, vec![])
}

/// Which branch a transaction with this one condition takes.
fn takes(store: &Store, compare: Compare) -> bool {
    store
        .txn_read(&TxnRequest { compares: vec![compare], ..TxnRequest::default() })
        .unwrap()
        .unwrap()
        .succeeded
}

fn verdict(request: Request) -> Result<(), KvError> {
    request.validate(&Limits::default())
}

#[test]
fn tx_01_compares_see_the_state_before_and_reads_the_state_so_far() {
    let mut store = Store::new();
    apply(&mut store, put("a", "old"));
    let is_old = || compare("a", Relation::Equal, Operand::Value(bytes("old")));
    let is_new = || compare("a", Relation::Equal, Operand::Value(bytes("new")));
    let nested = txn(vec![is_old()], vec![get_op("a")], vec![]);
    let request =
        txn(vec![is_old()], vec![get_op("a"), put("a", "new"), get_op("a"), get_at("a", 2), nested], vec![]);
    let response = apply_txn(&mut store, request);
    assert!(response.succeeded);
    let value = |response: &Response| match response {
        Response::Range(range) => text(&range.kvs[0].value),
        other => panic!("{other:?}"),
    };
    let [before, _, after, past, nested] = &response.responses[..] else { panic!() };
    assert_eq!(value(&before.response), "old");
    assert_eq!(value(&after.response), "new");
    assert_eq!(value(&past.response), "old");
    let Response::Txn(inner) = &nested.response else { panic!() };
    assert!(inner.succeeded, "a nested comparison, too, sees the state before");
    assert_eq!(value(&inner.responses[0].response), "new");

    // All compares must hold.
    let both = txn(vec![is_new(), is_old()], vec![put("yes", "")], vec![put("no", "")]);
    assert!(!apply_txn(&mut store, both).succeeded);
    assert!(get(&store, "no").is_some() && get(&store, "yes").is_none());
}

#[test]
fn tx_02_compare_targets_and_relations() {
    let mut store = Store::new();
    apply(&mut store, put("a", "1"));
    apply(&mut store, put("a", "2")); // create 2, mod 3, version 2
    for (operand, ordering) in [
        (Operand::Version(2), 0),
        (Operand::Version(1), 1),
        (Operand::Create(2), 0),
        (Operand::Create(3), -1),
        (Operand::Mod(3), 0),
        (Operand::Mod(-5), 1),
        (Operand::Lease(0), 0),
        (Operand::Lease(1), -1),
        (Operand::Value(bytes("2")), 0),
        (Operand::Value(bytes("10")), 1),
        (Operand::Value(bytes("20")), -1),
    ] {
        let holds = |relation| takes(&store, compare("a", relation, operand.clone()));
        assert_eq!(holds(Relation::Equal), ordering == 0, "{operand:?}");
        assert_eq!(holds(Relation::NotEqual), ordering != 0, "{operand:?}");
        assert_eq!(holds(Relation::Greater), ordering > 0, "{operand:?}");
        assert_eq!(holds(Relation::Less), ordering < 0, "{operand:?}");
    }
}

#[test]
fn tx_02_missing_keys_are_zeros_without_a_value() {
    let mut store = Store::new();
    apply(&mut store, put("dead", "1"));
    apply(&mut store, delete("dead", ""));
    for key in ["never", "dead"] {
        for zero in [Operand::Version(0), Operand::Create(0), Operand::Mod(0), Operand::Lease(0)] {
            assert!(takes(&store, compare(key, Relation::Equal, zero)));
        }
        assert!(takes(&store, compare(key, Relation::Greater, Operand::Mod(-1))));
        for relation in [Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::Less] {
            assert!(!takes(&store, compare(key, relation, Operand::Value(Bytes::new()))));
        }
    }
}

#[test]
fn tx_02_intervals_hold_if_every_key_does() {
    let mut store = Store::new();
    for key in ["a", "b", "c"] {
        apply(&mut store, put(key, "same"));
    }
    apply(&mut store, put("b", "same"));
    apply(&mut store, delete("c", ""));
    let over = |key: &str, end: &str, operand| {
        let range = interval(key, end);
        takes(&store, Compare { range, relation: Relation::Equal, operand })
    };
    assert!(over("a", "d", Operand::Value(bytes("same"))));
    assert!(!over("a", "d", Operand::Version(1)));
    assert!(over("a", "b", Operand::Version(1)));
    assert!(over("c", "\0", Operand::Version(0)), "nothing there counts as a missing key");
    assert!(over("d", "a", Operand::Create(0)));
    assert!(!over("d", "a", Operand::Value(Bytes::new())));
}

#[test]
fn tx_03_too_many_operations() {
    let puts = |count: usize| (0..count).map(|i| put(&format!("k{i}"), "")).collect::<Vec<_>>();
    assert_eq!(verdict(all_of(puts(128))), Ok(()));
    assert_eq!(verdict(all_of(puts(129))), Err(KvError::TooManyOps));
    let compares = vec![compare("a", Relation::Equal, Operand::Mod(0)); 129];
    assert_eq!(verdict(txn(compares, vec![], vec![])), Err(KvError::TooManyOps));
    assert_eq!(verdict(txn(vec![], puts(64), puts(128))), Ok(()));
    // A nested transaction has what its parent left.
    assert_eq!(verdict(all_of(vec![all_of(puts(127))])), Ok(()));
    assert_eq!(verdict(all_of(vec![all_of(puts(128))])), Err(KvError::TooManyOps));
    // However generous the server, the stack is bounded.
    let generous = Limits { max_txn_ops: usize::MAX, ..Limits::default() };
    let nest = |depth| (1..depth).fold(all_of(vec![]), |inner, _| all_of(vec![inner]));
    assert_eq!(nest(128).validate(&generous), Ok(()));
    assert_eq!(nest(129).validate(&generous), Err(KvError::TooManyOps));
    assert_eq!(refused(&mut Store::new(), nest(129)), KvError::TooManyOps);
}

#[test]
fn tx_04_a_key_changes_once() {
    let then_else = |then: Vec<Request>, otherwise: Vec<Request>| txn(vec![], then, otherwise);
    let clash = [
        vec![put("a", ""), put("a", "")],
        vec![put("a", ""), delete("a", "")],
        vec![delete("a", ""), put("a", "")],
        vec![put("b", ""), delete("a", "c")],
        vec![delete("a", "\0"), put("b", "")],
        vec![all_of(vec![put("a", "")]), put("a", "")],
        vec![all_of(vec![put("a", "")]), all_of(vec![put("a", "")])],
        vec![delete("a", "c"), all_of(vec![put("b", "")])],
        vec![all_of(vec![delete("a", "c")]), put("b", "")],
        // etcd misses this one when the delete comes second.
        vec![all_of(vec![put("b", "")]), all_of(vec![delete("a", "c")])],
        vec![all_of(vec![delete("a", "c")]), all_of(vec![put("b", "")])],
        vec![put("x", ""), then_else(vec![put("y", "")], vec![put("x", "")])],
        vec![then_else(vec![all_of(vec![put("a", ""), put("a", "")])], vec![])],
        vec![delete("a", "c"), delete("e", "g"), delete("b", "f"), put("d", "")],
        vec![delete("a", "f"), delete("c", "d"), put("e", "")],
        vec![delete("b", "\0"), delete("a", "c"), put("e", "")],
    ];
    for ops in clash {
        let request = all_of(ops.clone());
        assert_eq!(verdict(request.clone()), Err(KvError::DuplicateKey), "{ops:?}");
        assert_eq!(refused(&mut Store::new(), request), KvError::DuplicateKey);
        // In the branch that will not be taken just as well: the check is static.
        assert_eq!(verdict(txn(vec![], vec![], ops)), Err(KvError::DuplicateKey));
    }
    let fine = [
        vec![delete("a", "c"), delete("b", "d"), delete("b", "")],
        vec![put("c", ""), delete("a", "c"), put("0", "")],
        vec![delete("a", "b"), delete("e", "f"), put("c", "")],
        vec![delete("e", "f"), delete("a", "b"), put("c", ""), put("f", "")],
        vec![delete("c", "a"), put("b", "")],
        vec![then_else(vec![put("a", "")], vec![put("a", "")])],
        vec![then_else(vec![put("a", "")], vec![delete("\0", "\0")])],
        vec![put("a", ""), get_op("a")],
        vec![put("d", ""), delete("a", "b"), delete("b", "d"), delete("d\0", "\0")],
    ];
    for ops in fine {
        assert_eq!(verdict(all_of(ops.clone())), Ok(()), "{ops:?}");
    }
    // The two branches of the outermost transaction exclude each other, too.
    assert_eq!(verdict(then_else(vec![put("a", "")], vec![put("a", "")])), Ok(()));
}

#[test]
fn tx_05_one_objection_rejects_all_of_it() {
    let mut store = Store::new();
    apply(&mut store, put("a", "1"));
    apply(&mut store, put("a", "2"));
    apply(&mut store, compact(3));
    let lease = LeaseId::from_wire(9);
    let leased = Request::Put(PutRequest { lease, ..PutRequest::new("l", "") });
    let keeping = Request::Put(PutRequest { ignore_value: true, ..PutRequest::new("nobody", "") });
    let objections = [
        (get_at("a", 2), Code::OutOfRange),
        (get_at("a", 4), Code::OutOfRange), // its own revision is the future
        (leased.clone(), Code::NotFound),
        (keeping.clone(), Code::InvalidArgument),
    ];
    for (op, code) in objections {
        let nested = all_of(vec![put("y", ""), all_of(vec![op.clone()])]);
        let error = refused(&mut store, all_of(vec![put("x", ""), nested]));
        assert_eq!(error.code(), code);
        // On a branch that is not taken nobody minds.
        assert_eq!(apply_txn(&mut store, txn(vec![], vec![], vec![op])).responses, []);
    }
    // Puts are looked at before reads.
    assert_eq!(refused(&mut store, all_of(vec![get_at("a", 2), leased])).code(), Code::NotFound);
    // What the transaction itself creates is not there yet when it is checked.
    let creating = all_of(vec![put("other", ""), keeping]);
    assert_eq!(refused(&mut store, creating), KvError::KeyNotFound);
}

#[test]
fn tx_06_reading_transactions_are_validated_like_writing_ones() {
    let mut store = Store::new();
    apply(&mut store, put("a", "1"));
    for bad in [get_at("a", 3), get_op("")] {
        let request = all_of(vec![bad]);
        let Request::Txn(txn) = &request else { panic!() };
        let (locally, applied) = (store.txn_read(txn).unwrap(), store.apply(&request).unwrap());
        assert_eq!(locally.unwrap_err(), applied.unwrap_err());
    }
}

#[test]
fn tx_07_empty_transactions_and_impossible_operations() {
    let mut store = Store::new();
    let applied = apply(&mut store, all_of(vec![]));
    assert_eq!(applied.revision, Revision(1));
    let Response::Txn(response) = applied.response else { panic!() };
    assert!(response.succeeded && response.responses.is_empty());
    assert_eq!(refused(&mut store, all_of(vec![compact(1)])), KvError::KeyNotFound);
    assert_eq!(KvError::KeyNotFound.message(), "etcdserver: key not found");
}

#[test]
fn tx_08_what_needs_no_place_in_the_log() {
    let reading = || vec![get_op("a"), all_of(vec![get_op("b")])];
    assert!(all_of(reading()).is_read_only());
    assert!(all_of(vec![]).is_read_only());
    assert!(!txn(vec![], reading(), vec![delete("a", "")]).is_read_only());
    assert!(!all_of(vec![all_of(vec![put("a", "")])]).is_read_only());
    assert!(!compact(1).is_read_only());

    let serializable = || Request::Range(RangeRequest { serializable: true, ..read("a", "") });
    assert!(all_of(vec![serializable()]).is_serializable());
    assert!(!all_of(vec![serializable(), get_op("a")]).is_serializable());
    let only_compares = txn(vec![compare("a", Relation::Equal, Operand::Mod(0))], vec![], vec![]);
    assert!(!only_compares.is_serializable(), "somebody wants to know");

    let mut store = Store::new();
    apply(&mut store, put("a", "1"));
    let request = all_of(reading());
    let Request::Txn(txn) = &request else { panic!() };
    let locally = store.txn_read(txn).unwrap();
    assert_eq!(locally, store.snapshot().txn_read(txn).unwrap());
    assert_eq!(locally, Ok(apply_txn(&mut store, request.clone())));
}

#[test]
fn tx_09_revisions_below_one_mean_the_newest() {
    let mut store = Store::new();
    apply(&mut store, put("a", "1"));
    apply(&mut store, compact(2));
    for number in [0, -1, i64::MIN] {
        let request = RangeRequest { revision: Revision::from_wire(number), ..read("a", "") };
        let response = apply_txn(&mut store, all_of(vec![Request::Range(request)]));
        assert!(matches!(&response.responses[0].response, Response::Range(range) if range.count == 1));
    }
}

#[test]
fn h_03_nested_answers_say_the_revision_so_far() {
    let mut store = Store::new();
    apply(&mut store, put("a", "1"));
    let ops =
        vec![get_op("a"), delete("nobody", ""), put("b", ""), get_op("a"), all_of(vec![delete("a", "")])];
    let response = apply_txn(&mut store, all_of(ops));
    let revisions: Vec<_> = response.responses.iter().map(|nested| nested.revision.0).collect();
    assert_eq!(revisions, [2, 2, 3, 3, 3]);
}

#[test]
fn tx_04_is_checked_quickly_however_a_request_is_nested() {
    // 40^3 deletes and puts at the bottom of three levels, all different.
    let mut number = 0;
    let mut leaf = || {
        number += 2;
        vec![
            delete(&format!("{number:09}"), &format!("{:09}", number + 1)),
            put(&format!("{:09}", number + 1), ""),
        ]
    };
    let level = |ops: Vec<Request>| txn(vec![], ops, vec![]);
    let request = level(
        (0..40)
            .map(|_| level((0..40).map(|_| level((0..20).flat_map(|_| leaf()).collect())).collect()))
            .collect(),
    );
    let limits = Limits { max_request_bytes: usize::MAX, ..Limits::default() };
    assert_eq!(request.validate(&limits), Ok(()));
    let range = KeyRange::single(format!("{:09}", 4_001));
    let with_one_more = level(vec![request, Request::DeleteRange(synod_kv::DeleteRangeRequest::new(range))]);
    let limits = Limits { max_txn_ops: 200, ..limits };
    assert_eq!(with_one_more.validate(&limits), Err(KvError::DuplicateKey));
}

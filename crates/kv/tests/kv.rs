//! etcd's behaviours R, KV and CP, one test each, under their names.

mod common;

use std::num::NonZeroU64;

use bytes::Bytes;
use common::*;
use synod_kv::{
    Code, CompactRequest, DeleteRangeRequest, KeyRange, KvError, LeaseId, Limits, PutRequest, RangeEnd,
    RangeRequest, Request, Response, Revision, RevisionBounds, SortOrder, SortTarget, Store,
};

/// b=1 (revision 2), a=3 (3), c=2 (4), a=0 (5).
fn small_store() -> Store {
    let mut store = Store::new();
    for (key, value) in [("b", "1"), ("a", "3"), ("c", "2"), ("a", "0")] {
        apply(&mut store, put(key, value));
    }
    store
}

#[test]
fn r_01_fresh_store_has_revision_one() {
    let mut store = Store::new();
    assert_eq!(store.revision(), Revision(1));
    assert_eq!(store.compacted(), None);
    assert_eq!(apply(&mut store, put("a", "1")).revision, Revision(2));
}

#[test]
fn r_02_one_revision_per_request_that_changes() {
    let mut store = small_store();
    let revision = |applied: synod_kv::Applied| applied.revision.0;
    assert_eq!(revision(apply(&mut store, Request::Range(read("a", "")))), 5);
    assert_eq!(revision(apply(&mut store, delete("nobody", ""))), 5);
    assert_eq!(revision(apply(&mut store, txn(vec![], vec![], vec![]))), 5);
    assert_eq!(revision(apply(&mut store, txn(vec![], vec![delete("nobody", "")], vec![]))), 5);
    assert_eq!(refused(&mut store, put("", "1")), KvError::EmptyKey);
    assert_eq!(revision(apply(&mut store, txn(vec![], vec![put("x", ""), put("y", "")], vec![]))), 6);
    assert_eq!(revision(apply(&mut store, delete("a", "z"))), 7);
    assert_eq!(store.revision(), Revision(7));
}

#[test]
fn r_03_changes_of_a_revision_keep_their_order() {
    let mut store = small_store();
    apply(&mut store, txn(vec![], vec![put("z", "1"), delete("a", "c"), put("m", "2")], vec![]));
    let changes: Vec<_> = changes_from(&store, 5)
        .iter()
        .map(|(position, change)| (position.to_string(), text(change.key()), change.pair().is_some()))
        .collect();
    let expected = [("5.0", "a", true), ("6.0", "z", true), ("6.1", "a", false), ("6.2", "b", false)];
    let expected = expected.into_iter().chain([("6.3", "m", true)]);
    assert_eq!(changes, expected.map(|(p, k, put)| (p.into(), k.into(), put)).collect::<Vec<_>>());
}

#[test]
fn r_04_versions_count_within_a_life() {
    let mut store = small_store();
    let life =
        |store: &Store| get(store, "a").map(|kv| (kv.create_revision.0, kv.mod_revision.0, kv.version));
    assert_eq!(life(&store), Some((3, 5, 2)));
    apply(&mut store, delete("a", ""));
    assert_eq!(life(&store), None);
    apply(&mut store, put("a", "again"));
    assert_eq!(life(&store), Some((7, 7, 1)));
}

#[test]
fn r_05_compaction_of_a_trailing_tombstone_keeps_the_revision() {
    let mut store = small_store();
    apply(&mut store, delete("a", "z"));
    assert_eq!(apply(&mut store, compact(6)).revision, Revision(6));
    sweep_all(&mut store, 1);
    let restored = restore(&image(&store.snapshot()), 7).unwrap();
    assert_eq!(restored.revision(), Revision(6));
}

#[test]
fn kv_01_intervals() {
    let store = small_store();
    let found = |key: &str, end: &str| keys(&range(&store, &read(key, end)).unwrap()).concat();
    assert_eq!(found("a", ""), "a");
    assert_eq!(found("b", "\0"), "bc");
    assert_eq!(found("\0", "\0"), "abc");
    assert_eq!(found("a", "c"), "ab");
    assert_eq!(found("b", "b"), "");
    assert_eq!(found("c", "a"), "");
    assert_eq!(found("nobody", ""), "");
    assert_eq!(range(&store, &read("", "\0")), Err(KvError::EmptyKey));
    assert_eq!(KeyRange::from_wire(Bytes::new(), Bytes::from_static(b"\0")).end, RangeEnd::FromKey);
    assert!(interval("a", "c").contains(b"b") && !interval("a", "c").contains(b"c"));
    assert!(KeyRange::all().contains(b"\0") && !interval("a", "").contains(b"a\0"));
}

#[test]
fn kv_02_revisions_that_can_be_read() {
    let mut store = small_store();
    apply(&mut store, compact(4));
    let newest = RangeRequest { revision: Revision::from_wire(-3), ..read("a", "") };
    assert_eq!(text(&range(&store, &newest).unwrap().kvs[0].value), "0");
    let at_boundary = all_at(&store, 4).unwrap();
    assert_eq!(keys(&at_boundary).concat(), "abc");
    assert_eq!(text(&at_boundary.kvs[0].value), "3");
    let compacted = KvError::Compacted { requested: Revision(3), oldest: Revision(4) };
    assert_eq!(all_at(&store, 3), Err(compacted));
    let future = KvError::FutureRevision { requested: Revision(6), current: Revision(5) };
    assert_eq!(all_at(&store, 6), Err(future));
}

#[test]
fn kv_03_order_of_work() {
    let store = small_store();
    let everything = read("\0", "\0");
    // Filters come before the limit, the limit before the values are stripped, and
    // the count heeds neither.
    let request = RangeRequest {
        modified: RevisionBounds { at_least: Some(Revision(4)), at_most: None },
        order: SortOrder::Descend,
        target: SortTarget::Value,
        limit: NonZeroU64::new(1),
        keys_only: true,
        ..everything.clone()
    };
    let response = range(&store, &request).unwrap();
    assert_eq!(keys(&response).concat(), "c");
    assert!(response.kvs[0].value.is_empty());
    assert_eq!((response.more, response.count), (true, 3));

    // Bounds are inclusive.
    let by_creation = |min, max| {
        let request = RangeRequest { created: RevisionBounds::from_wire(min, max), ..everything.clone() };
        keys(&range(&store, &request).unwrap()).concat()
    };
    assert_eq!(by_creation(3, 3), "a");
    assert_eq!(by_creation(0, 3), "ab");
    assert_eq!(by_creation(3, 0), "ac");
    assert_eq!(by_creation(0, -1), "");
    assert_eq!(by_creation(-1, 0), "abc");
}

#[test]
fn kv_04_sorting() {
    let store = small_store();
    let sorted = |order, target| {
        let request = RangeRequest { order, target, ..read("\0", "\0") };
        keys(&range(&store, &request).unwrap()).concat()
    };
    assert_eq!(sorted(SortOrder::None, SortTarget::Key), "abc");
    assert_eq!(sorted(SortOrder::Ascend, SortTarget::Key), "abc");
    assert_eq!(sorted(SortOrder::Descend, SortTarget::Key), "cba");
    assert_eq!(sorted(SortOrder::None, SortTarget::Create), "bac");
    assert_eq!(sorted(SortOrder::Ascend, SortTarget::Mod), "bca");
    assert_eq!(sorted(SortOrder::Descend, SortTarget::Mod), "acb");
    assert_eq!(sorted(SortOrder::Ascend, SortTarget::Value), "abc");
    assert_eq!(sorted(SortOrder::Descend, SortTarget::Value), "cba");
    assert_eq!(sorted(SortOrder::Descend, SortTarget::Version), "abc");
    assert_eq!(sorted(SortOrder::Ascend, SortTarget::Version), "bca");
}

#[test]
fn kv_05_more_and_count() {
    let store = small_store();
    for order in [SortOrder::None, SortOrder::Descend] {
        for target in [SortTarget::Key, SortTarget::Create] {
            for (limit, length, more) in [(0, 3, false), (1, 1, true), (2, 2, true), (3, 3, false)] {
                let limit = NonZeroU64::new(limit);
                let request = RangeRequest { limit, order, target, ..read("\0", "\0") };
                let response = range(&store, &request).unwrap();
                assert_eq!((response.kvs.len(), response.more, response.count), (length, more, 3));
            }
        }
    }
    let request = RangeRequest { count_only: true, limit: NonZeroU64::new(1), ..read("\0", "\0") };
    let response = range(&store, &request).unwrap();
    assert_eq!((response.kvs.len(), response.more, response.count), (0, false, 3));
    let request = RangeRequest { count_only: true, revision: Some(Revision(2)), ..read("\0", "\0") };
    assert_eq!(range(&store, &request).unwrap().count, 1);
}

#[test]
fn kv_06_serializable_is_a_property_of_the_request() {
    let mut request = read("a", "");
    assert!(!Request::Range(request.clone()).is_serializable());
    request.serializable = true;
    assert!(Request::Range(request).is_serializable());
    assert!(!put("a", "").is_serializable());
}

#[test]
fn kv_07_keys_only_keeps_everything_but_the_value() {
    let store = small_store();
    let full = get(&store, "a").unwrap();
    let request = RangeRequest { keys_only: true, ..read("a", "") };
    let stripped = range(&store, &request).unwrap().kvs.remove(0);
    assert!(stripped.value.is_empty());
    assert_eq!(synod_kv::KeyValue { value: full.value.clone(), ..stripped }, full);
}

#[test]
fn kv_09_put_needs_a_key_and_an_existing_lease() {
    let mut store = small_store();
    assert_eq!(refused(&mut store, put("", "x")), KvError::EmptyKey);
    for id in [7, -7] {
        let lease = LeaseId::from_wire(id);
        let request = Request::Put(PutRequest { lease, ..PutRequest::new("a", "x") });
        let error = refused(&mut store, request);
        assert_eq!(error, KvError::LeaseNotFound(lease.unwrap()));
        assert_eq!(
            (error.message(), error.code()),
            ("etcdserver: requested lease not found", Code::NotFound)
        );
    }
    assert_eq!(LeaseId::from_wire(0), None);
    assert_eq!(get(&store, "a").unwrap().lease, None);
}

#[test]
fn kv_10_keeping_value_or_lease() {
    let mut store = small_store();
    let keep_value = PutRequest { ignore_value: true, ..PutRequest::new("a", "") };
    let keep_lease = PutRequest { ignore_lease: true, ..PutRequest::new("a", "new") };

    let with_value = PutRequest { value: bytes("x"), ..keep_value.clone() };
    assert_eq!(refused(&mut store, Request::Put(with_value)), KvError::ValueProvided);
    let with_lease = PutRequest { lease: LeaseId::from_wire(1), ..keep_lease.clone() };
    assert_eq!(refused(&mut store, Request::Put(with_lease)), KvError::LeaseProvided);
    for request in [&keep_value, &keep_lease] {
        let request = PutRequest { key: bytes("nobody"), ..request.clone() };
        let error = refused(&mut store, Request::Put(request));
        assert_eq!((error.message(), error.code()), ("etcdserver: key not found", Code::InvalidArgument));
    }

    apply(&mut store, Request::Put(keep_value));
    let kv = get(&store, "a").unwrap();
    assert_eq!((text(&kv.value), kv.version, kv.mod_revision), ("0".into(), 3, Revision(6)));
    apply(&mut store, Request::Put(keep_lease));
    assert_eq!(text(&get(&store, "a").unwrap().value), "new");
}

#[test]
fn kv_11_prev_kv_of_a_put() {
    let mut store = small_store();
    let before = get(&store, "a");
    let mut prev = |key: &'static str, prev_kv| {
        let request = Request::Put(PutRequest { prev_kv, ..PutRequest::new(key, "x") });
        match apply(&mut store, request).response {
            Response::Put(response) => response.prev,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(prev("new", true), None);
    assert_eq!(prev("a", true), before);
    assert_eq!(prev("a", false), None);
}

#[test]
fn kv_12_delete_range() {
    let mut store = small_store();
    let gone: Vec<_> = ["a", "b"].map(|key| get(&store, key).unwrap()).into();
    let request = DeleteRangeRequest { prev_kv: true, ..DeleteRangeRequest::new(interval("a", "c")) };
    let Response::DeleteRange(response) = apply(&mut store, Request::DeleteRange(request)).response else {
        panic!("another answer");
    };
    assert_eq!((response.deleted, response.prev_kvs), (2, gone));
    assert_eq!(store.revision(), Revision(6));
    assert_eq!(keys(&all_at(&store, 6).unwrap()).concat(), "c");
    assert_eq!(keys(&all_at(&store, 5).unwrap()).concat(), "abc");
    let tombstones = changes_from(&store, 6);
    assert!(tombstones.iter().all(|(_, change)| change.pair().is_none()));
    assert_eq!(tombstones.iter().map(|(_, change)| text(change.key())).collect::<String>(), "ab");
    assert_eq!(refused(&mut store, delete("", "\0")), KvError::EmptyKey);
    let Response::DeleteRange(nothing) = apply(&mut store, delete("z", "c")).response else { panic!() };
    assert_eq!(nothing.deleted, 0);
}

#[test]
fn cp_01_bounds_of_a_compaction() {
    let mut store = small_store();
    let future = KvError::FutureRevision { requested: Revision(6), current: Revision(5) };
    assert_eq!(refused(&mut store, compact(6)), future);
    let hash = store.state_hash();
    assert_eq!(apply(&mut store, compact(0)).revision, Revision(5), "the first may be at zero");
    assert_ne!(store.state_hash(), hash);
    assert!(matches!(refused(&mut store, compact(0)), KvError::Compacted { .. }));
    apply(&mut store, compact(5));
    let compacted = KvError::Compacted { requested: Revision(4), oldest: Revision(5) };
    assert_eq!(refused(&mut store, compact(4)), compacted);
    assert!(CompactRequest::from_wire(-1, false).is_err());
    assert_eq!(store.compacted(), Some(Revision(5)));
}

#[test]
fn cp_02_what_a_compaction_keeps() {
    for budget in [1, 2, 3, 1000] {
        let mut store = small_store();
        apply(&mut store, delete("b", "")); // 6
        apply(&mut store, delete("c", "")); // 7
        apply(&mut store, put("a", "9")); // 8
        let (hash, image_before) = {
            apply(&mut store, compact(7));
            (store.state_hash(), image(&store.snapshot()))
        };
        let before = [7, 8].map(|revision| all_at(&store, revision).unwrap());
        assert_eq!(keys(&before[0]).concat(), "a");
        assert_eq!(store.stats().versions, 7);
        sweep_all(&mut store, budget);
        // a=0 (visible at 7), the tombstone of c at 7 itself, and a=9.
        assert_eq!(store.stats().versions, 3);
        assert_eq!([7, 8].map(|revision| all_at(&store, revision).unwrap()), before);
        assert_eq!(store.state_hash(), hash);
        assert_eq!(image(&store.snapshot()), image_before);
        let replay: Vec<_> = changes_from(&store, 7).iter().map(|(p, _)| p.to_string()).collect();
        assert_eq!(replay, ["7.0", "8.0"]);
        assert!(matches!(store.changes_from(Revision(6)).err(), Some(KvError::Compacted { .. })));

        // The tombstone spared at the boundary goes with the next compaction.
        apply(&mut store, compact(8));
        sweep_all(&mut store, budget);
        assert_eq!(store.stats().versions, 1);
        assert!(!store.sweep(1), "nothing left to do");
    }
}

#[test]
fn cp_02_a_sweep_overtaken_by_the_next_compaction() {
    let mut store = small_store();
    apply(&mut store, delete("a", "z")); // 6.0 to 6.2
    apply(&mut store, compact(6));
    assert!(store.sweep(2)); // stops between two keys
    apply(&mut store, put("b", "back"));
    apply(&mut store, compact(7));
    sweep_all(&mut store, 2);
    assert_eq!(store.stats().versions, 1);
    assert_eq!(keys(&all_at(&store, 7).unwrap()), ["b"]);
}

#[test]
fn snapshots_stay_as_they_are() {
    let mut store = small_store();
    let snapshot = store.snapshot();
    let image_before = image(&snapshot);
    apply(&mut store, delete("\0", "\0"));
    apply(&mut store, compact(6));
    sweep_all(&mut store, 10);
    assert_eq!(store.stats().keys, 0);
    assert_eq!(snapshot.revision(), Revision(5));
    assert_eq!(snapshot.range(&read("\0", "\0")).unwrap().unwrap().count, 3);
    assert_eq!(image(&snapshot), image_before);
}

#[test]
fn stats_follow_the_store() {
    let mut store = small_store();
    assert_eq!((store.stats().keys, store.stats().versions), (3, 4));
    assert!(store.stats().bytes_in_use < store.stats().bytes_total);
    apply(&mut store, delete("\0", "\0"));
    assert_eq!((store.stats().keys, store.stats().versions, store.stats().bytes_in_use), (0, 7, 0));
    apply(&mut store, compact(6));
    apply(&mut store, put("z", ""));
    apply(&mut store, compact(7));
    sweep_all(&mut store, 2);
    let stats = store.stats();
    assert_eq!((stats.keys, stats.versions), (1, 1));
    assert_eq!(stats.bytes_in_use, stats.bytes_total);
}

#[test]
fn stored_bytes_are_copies_and_answers_are_not() {
    let buffer = put("key", "value").encode();
    let within = |bytes: &Bytes| buffer.as_ptr_range().contains(&bytes.as_ptr());
    let request = Request::decode(buffer.clone()).unwrap();
    let Request::Put(decoded) = &request else { panic!() };
    assert!(within(&decoded.key) && within(&decoded.value));
    let mut store = Store::new();
    apply(&mut store, request);
    let (one, other) = (get(&store, "key").unwrap(), get(&store, "key").unwrap());
    assert!(!within(&one.key) && !within(&one.value));
    assert_eq!(one.value.as_ptr(), other.value.as_ptr());
}

#[test]
fn t_02_requests_that_are_too_large() {
    let limits = Limits { max_request_bytes: 100, ..Limits::default() };
    let large = put("a", &"x".repeat(100));
    assert_eq!(large.validate(&limits), Err(KvError::RequestTooLarge));
    assert_eq!(put("a", "x").validate(&limits), Ok(()));
    // Reads are not logged, and so are not bounded by what a log entry may be.
    assert_eq!(Request::Range(read(&"x".repeat(200), "")).validate(&limits), Ok(()));
    // A limit is a server's own; what another has let in is applied.
    assert!(Store::new().apply(&large).unwrap().is_ok());
}

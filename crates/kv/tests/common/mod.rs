//! Short ways to say what the tests say often.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

pub mod arbitrary;
pub mod model;
pub mod runs;

use std::sync::Arc;

use bytes::Bytes;
use synod_kv::{
    Applied, Change, CompactRequest, Compare, DeleteRangeRequest, KeyRange, KeyValue, KvError, Operand,
    Position, PutRequest, RangeRequest, RangeResponse, Relation, Request, Response, Restore, RestoreError,
    Revision, Snapshot, Store, TxnRequest, TxnResponse,
};

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn put(key: &str, value: &str) -> Request {
    Request::Put(PutRequest::new(bytes(key), bytes(value)))
}

/// `[key, end)`, in etcd's terms: an empty end is one key, "\0" everything later.
pub fn interval(key: &str, end: &str) -> KeyRange {
    KeyRange::from_wire(bytes(key), bytes(end))
}

pub fn delete(key: &str, end: &str) -> Request {
    Request::DeleteRange(DeleteRangeRequest::new(interval(key, end)))
}

pub fn compact(revision: u64) -> Request {
    Request::Compact(CompactRequest { revision: Revision(revision), physical: false })
}

pub fn read(key: &str, end: &str) -> RangeRequest {
    RangeRequest::new(interval(key, end))
}

pub fn compare(key: &str, relation: Relation, operand: Operand) -> Compare {
    Compare { range: KeyRange::single(bytes(key)), relation, operand }
}

pub fn txn(compares: Vec<Compare>, success: Vec<Request>, failure: Vec<Request>) -> Request {
    Request::Txn(TxnRequest { compares, success, failure })
}

pub fn apply(store: &mut Store, request: Request) -> Applied {
    store.apply(&request).expect("all is in memory").expect("the request is fine")
}

pub fn apply_txn(store: &mut Store, request: Request) -> TxnResponse {
    match apply(store, request).response {
        Response::Txn(response) => response,
        other => panic!("not the answer to a transaction: {other:?}"),
    }
}

/// Refused, and without a trace.
pub fn refused(store: &mut Store, request: Request) -> KvError {
    let before = (store.revision(), store.compacted(), store.state_hash(), store.stats());
    let outcome = store.apply(&request).expect("all is in memory");
    let error = outcome.expect_err("the request should be refused");
    assert_eq!(before, (store.revision(), store.compacted(), store.state_hash(), store.stats()));
    error
}

pub fn get(store: &Store, key: &str) -> Option<KeyValue> {
    range(store, &read(key, "")).expect("readable").kvs.pop()
}

/// A read whose answer is in memory, or on a disk that is well.
pub fn range(store: &Store, request: &RangeRequest) -> Result<RangeResponse, KvError> {
    store.range(request).expect("it can be read")
}

/// All changes from a revision on, which can be had.
pub fn changes_from(store: &Store, revision: u64) -> Vec<(Position, Arc<Change>)> {
    let changes = store.changes_from(Revision(revision)).expect("not forgotten");
    changes.map(|change| change.expect("it can be read")).collect()
}

pub fn keys(response: &RangeResponse) -> Vec<String> {
    response.kvs.iter().map(|kv| text(&kv.key)).collect()
}

pub fn all_at(store: &Store, revision: u64) -> Result<RangeResponse, KvError> {
    range(store, &RangeRequest { revision: Some(Revision(revision)), ..RangeRequest::new(KeyRange::all()) })
}

/// An image of the snapshot, in one piece.
pub fn image(snapshot: &Snapshot) -> Vec<u8> {
    snapshot.chunks(1000).flat_map(|piece| piece.expect("it can be read")).collect()
}

pub fn restore(image: &[u8], cut: usize) -> Result<Store, RestoreError> {
    let mut restore = Restore::new();
    for piece in image.chunks(cut) {
        restore.push(Bytes::copy_from_slice(piece))?;
    }
    restore.finish()
}

pub fn sweep_all(store: &mut Store, budget: usize) {
    for _ in 0..100_000 {
        if !store.sweep(budget) {
            return;
        }
    }
    panic!("the sweep does not end");
}

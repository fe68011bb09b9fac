//! Requests, in etcd's words and in our own, and what stores made of them.

use super::{Seed, seed, string};
use crate::fuzz::requests::{KINDS, at_hand, image_of};
use bytes::Bytes;
use pb::request_op::Request as Op;
use prost::Message;
use synod_kv::{
    CompactRequest, Compare, DeleteRangeRequest, KeyRange, LeaseId, Operand, PutRequest, RangeRequest,
    Relation, Request, Revision, Store, TxnRequest,
};
use synod_rpc::etcdserverpb as pb;

pub(super) fn add(all: &mut Vec<Seed>) {
    for (name, requests) in in_etcds_words() {
        let frames = requests.iter().map(|(kind, bytes)| [vec![*kind], string(bytes)].concat());
        all.push(seed("client_request", name, frames.collect::<Vec<_>>().concat()));
    }
    for kinds in (5..KINDS).collect::<Vec<u8>>().chunks(12) {
        // A first field that is a number, and one that is a string: most requests have one or the other.
        let fields: [&[u8]; 3] = [&[8, 5], b"\x0a\x02ab", &[]];
        let frames = kinds.iter().flat_map(|kind| fields.map(|field| [vec![*kind], string(field)].concat()));
        let bytes = frames.collect::<Vec<_>>().concat();
        all.push(seed("client_request", format!("others-from-{:02}", kinds[0]), bytes));
    }
    for (name, bytes) in [
        ("half", &[1, 9, 0, 8, 5][..]),
        ("no-protobuf", &[0, 1, 0, 7]),
        ("unknown-sort", &[0, 5, 0, 10, 1, b'k', 40, 9]),
    ] {
        all.push(seed("client_request", name, bytes));
    }
    for (name, requests) in in_our_words() {
        let frames = requests.iter().map(|request| [vec![0], string(&request.encode())].concat());
        all.push(seed("kv_request", name, frames.collect::<Vec<_>>().concat()));
        let mut store = Store::new();
        for request in &requests {
            // Some are refused, and meant to be.
            let _ = store.apply(request);
        }
        let image = image_of(&store);
        all.push(seed("restore", name, [&[7, 0], &image[..]].concat()));
        // Without what the forger puts around it: magic and version, and an end of nineteen bytes.
        all.push(seed("restore", format!("forged-{name}"), [&[0, 1], &image[9..image.len() - 19]].concat()));
    }
    for (name, parts) in parts() {
        let records = parts.map(|part| part[9..part.len() - 19].to_vec());
        all.push(seed("restore", format!("forged-{name}"), [vec![0, 1], records.join(&0)].concat()));
    }
    let header = [1, 5, 0].into_iter().chain([0; 16]).chain([0]).collect::<Vec<u8>>();
    // A put whose place within its revision is the last there is, at a compaction.
    let compacted = [1, 5, 1, 5].into_iter().chain([0; 16]).chain([1]).collect::<Vec<u8>>();
    let last = [2, 5, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, b'k', 5, 1, 0, 1, b'v'];
    for (name, records) in [
        ("nothing", vec![]),
        ("header-only", vec![&header[..]]),
        ("last-place-of-a-revision", vec![&compacted[..], &last]),
    ] {
        let framed = records.iter().map(|record| [&[record.len() as u8], *record].concat());
        all.push(seed(
            "restore",
            format!("made-{name}"),
            [vec![0, 1], framed.collect::<Vec<_>>().concat()].concat(),
        ));
    }
}

/// A store, and what changed since, in two parts.
fn parts() -> Vec<(&'static str, [Vec<u8>; 3])> {
    let put = |key: &'static str| Request::Put(PutRequest::new(key, "v"));
    let delete = |key: &'static str| Request::DeleteRange(DeleteRangeRequest::new(KeyRange::single(key)));
    let compact =
        |revision| Request::Compact(CompactRequest { revision: Revision(revision), physical: false });
    let mut parts = Vec::new();
    for (name, requests) in [
        ("parts", [vec![put("a"), put("b")], vec![put("a"), delete("b")], vec![put("b"), put("c")]]),
        (
            "parts-of-graves",
            [vec![put("a")], vec![delete("a"), put("b"), compact(4)], vec![compact(5), put("a")]],
        ),
        ("parts-of-nothing", [vec![put("a")], vec![], vec![compact(2)]]),
    ] {
        let mut store = Store::new();
        let mut head = None;
        parts.push((
            name,
            requests.map(|requests| {
                for request in &requests {
                    let _ = at_hand(store.apply(request)); // a compaction of the future is refused
                }
                let part = head.map(|head| store.snapshot().part(head).expect("all is in memory"));
                let bytes = part.map_or_else(|| image_of(&store), |part| part.flat_map(at_hand).collect());
                head = Some(store.head());
                bytes
            }),
        ));
    }
    parts
}

/// The number of a kind of request, and its bytes.
type Asked = (u8, Vec<u8>);

fn in_etcds_words() -> Vec<(&'static str, Vec<Asked>)> {
    let put = |key: &'static str, value: &'static str| pb::PutRequest {
        key: key.into(),
        value: value.into(),
        prev_kv: true,
        ..Default::default()
    };
    let all = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    let sorted = pb::RangeRequest { sort_order: 2, sort_target: 4, limit: 1, keys_only: true, ..all.clone() };
    let past = pb::RangeRequest { revision: 2, min_mod_revision: 1, max_create_revision: 2, ..all.clone() };
    let delete = pb::DeleteRangeRequest { key: "a".into(), range_end: "c".into(), prev_kv: true };
    let compare = pb::Compare {
        key: "a".into(),
        result: 1,
        target: 1,
        target_union: Some(pb::compare::TargetUnion::CreateRevision(1)),
        ..Default::default()
    };
    let op = |request| pb::RequestOp { request: Some(request) };
    let inner = pb::TxnRequest { failure: vec![op(Op::RequestPut(put("d", "4")))], ..Default::default() };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Op::RequestPut(put("a", "9"))), op(Op::RequestRange(all.clone()))],
        failure: vec![op(Op::RequestDeleteRange(delete.clone())), op(Op::RequestTxn(inner))],
    };
    let reads = pb::TxnRequest { success: vec![op(Op::RequestRange(sorted.clone()))], ..Default::default() };
    let puts = vec![
        (1, put("a", "1").encode_to_vec()),
        (1, put("b", "2").encode_to_vec()),
        (1, put("a", "3").encode_to_vec()),
    ];
    let after = |kind, message: Vec<u8>| puts.iter().cloned().chain([(kind, message)]).collect::<Vec<_>>();
    let kept = pb::PutRequest { ignore_value: true, value: Bytes::new(), ..put("a", "") };
    vec![
        ("puts", puts.clone()),
        ("put-kept", after(1, kept.encode_to_vec())),
        ("put-leased", after(1, pb::PutRequest { lease: -5, ..put("a", "1") }.encode_to_vec())),
        ("range", after(0, all.encode_to_vec())),
        ("range-sorted", after(0, sorted.encode_to_vec())),
        ("range-past", after(0, past.encode_to_vec())),
        ("delete", after(2, delete.encode_to_vec())),
        ("txn", after(3, txn.encode_to_vec())),
        ("txn-reads", after(3, reads.encode_to_vec())),
        ("compact", after(4, pb::CompactionRequest { revision: 3, physical: true }.encode_to_vec())),
        ("compact-future", after(4, pb::CompactionRequest { revision: 99, physical: false }.encode_to_vec())),
    ]
}

fn in_our_words() -> Vec<(&'static str, Vec<Request>)> {
    let put = |key: &'static str, value: &'static str| Request::Put(PutRequest::new(key, value));
    let delete = |range| Request::DeleteRange(DeleteRangeRequest { range, prev_kv: true });
    let from = |key: &'static str, end: &'static str| KeyRange::from_wire(key.into(), end.into());
    let compact =
        |revision| Request::Compact(CompactRequest { revision: Revision(revision), physical: false });
    let range = |revision| Request::Range(RangeRequest { revision, ..RangeRequest::new(KeyRange::all()) });
    let compare = |range, operand| Compare { range, relation: Relation::Greater, operand };
    let txn = TxnRequest {
        compares: vec![
            compare(KeyRange::single("a"), Operand::Version(0)),
            compare(from("a", "c"), Operand::Mod(i64::MIN)),
        ],
        success: vec![put("c", "3"), delete(KeyRange::single("a")), range(None)],
        failure: vec![put("a", "")],
    };
    let mut nested = TxnRequest::default();
    for _ in 0..127 {
        nested = TxnRequest { success: vec![Request::Txn(nested)], ..TxnRequest::default() };
    }
    let twice = TxnRequest { success: vec![put("a", "1"), delete(KeyRange::all())], ..TxnRequest::default() };
    let leased = PutRequest { lease: LeaseId::from_wire(i64::MIN), ..PutRequest::new("a", "1") };
    let kept = PutRequest { ignore_value: true, prev_kv: true, ..PutRequest::new("a", "") };
    let life =
        vec![put("a", "1"), put("b", "2"), put("a", "3"), delete(KeyRange::single("a")), put("a", "4")];
    let then = |more: &[Request]| [&life[..], more].concat();
    vec![
        ("nothing", vec![]),
        ("life", life.clone()),
        ("reads", then(&[range(None), range(Some(Revision(2))), range(Some(Revision(0)))])),
        ("compacted", then(&[compact(4), range(Some(Revision(3))), compact(3), put("z", "")])),
        ("compacted-whole", then(&[delete(KeyRange::all()), compact(7), put("a", "5")])),
        ("compacted-to-nothing", vec![compact(0), compact(1), put("a", "1")]),
        ("txn", then(&[Request::Txn(txn.clone()), Request::Txn(txn)])),
        ("nested", then(&[Request::Txn(nested)])),
        ("refused", then(&[Request::Txn(twice), Request::Put(leased), Request::Put(kept), put("", "")])),
    ]
}

//! What the borders cost: messages between replicas as bytes and back, clients' requests into the store's words, and
//! its answers into theirs.

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use prost::Message as _;
use std::hint::black_box;
use std::time::Duration;
use synod_kv::{self as kv, KeyValue, Request, Revision};
use synod_paxos::message::{Chosen, Message};
use synod_paxos::types::{
    Ballot, CommandId, Generation, Incarnation, NodeId, Prefix, Sequence, Slot, VoterId,
};
use synod_paxos::value::{Action, Command, Value};
use synod_rpc::convert::Responder;
use synod_rpc::{etcdserverpb as pb, peer};

const VALUE_BYTES: usize = 256;
/// How many commands a message carries when a server is busy.
const COMMANDS: u64 = 64;
/// How many pairs a long answer has.
const PAIRS: u64 = 100;

fn commands() -> Vec<Command> {
    let payload =
        Request::Put(kv::PutRequest::new(&b"bench/key/0000000001"[..], vec![7; VALUE_BYTES])).encode();
    (1..=COMMANDS)
        .map(|sequence| Command {
            id: CommandId { origin: NodeId(2), generation: Generation(1), sequence: Sequence(sequence) },
            waiting_from: Sequence::FIRST,
            action: Action::App(payload.clone()),
        })
        .collect()
}

fn peers(criterion: &mut Criterion) {
    // As in life: identities are random, numbers have grown.
    let ballot = Ballot { round: 12, node: NodeId(0x9e37_79b9_7f4a_7c15), generation: Generation(34) };
    let slot = Slot(1_000_000);
    let chosen = Chosen { ballot, from: Slot(900_000), upto: Prefix::before(slot) };
    let voter = VoterId { node: ballot.node, incarnation: Incarnation(u128::MAX / 3) };
    let messages = [
        (
            "accept",
            COMMANDS,
            Message::Accept {
                ballot,
                slot,
                value: Value::batch(&commands()),
                chosen: Some(chosen),
                learner: None,
            },
        ),
        ("submit", COMMANDS, Message::Submit { commands: commands() }),
        ("accepted", 1, Message::Accepted { ballot, slot, voter }),
    ];
    let mut group = criterion.benchmark_group("peer");
    for (name, elements, message) in messages {
        let encoded = peer::encode(&message);
        group.throughput(Throughput::Elements(elements));
        group.bench_function(BenchmarkId::new("encode", name), |bencher| {
            bencher.iter(|| peer::encode(black_box(&message)));
        });
        group.bench_function(BenchmarkId::new("decode", name), |bencher| {
            bencher.iter_batched(|| encoded.clone(), peer::decode, BatchSize::SmallInput);
        });
    }
}

fn clients(criterion: &mut Criterion) {
    let wire = pb::PutRequest {
        key: "bench/key/0000000001".into(),
        value: vec![7; VALUE_BYTES].into(),
        ..Default::default()
    };
    let bytes = Bytes::from(wire.encode_to_vec());
    let mut group = criterion.benchmark_group("put");
    group.throughput(Throughput::Elements(1));
    group.bench_function("convert", |bencher| {
        bencher.iter_batched(|| wire.clone(), kv::PutRequest::from, BatchSize::SmallInput);
    });
    // From the bytes that a client sent to those that are agreed on.
    group.bench_function("take", |bencher| {
        bencher.iter_batched(
            || bytes.clone(),
            |bytes| {
                let wire = pb::PutRequest::decode(bytes).expect("encoded above");
                Request::Put(wire.into()).encode()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();

    let responder = Responder { cluster_id: u64::MAX / 3, member_id: u64::MAX / 5, raft_term: 12 };
    let revision = Revision(1_000_000);
    let pair = |number: u64| KeyValue {
        key: format!("bench/key/{number:010}").into(),
        value: vec![7; VALUE_BYTES].into(),
        create_revision: Revision(number + 2),
        mod_revision: revision,
        version: 3,
        lease: None,
    };
    let found = |count| kv::RangeResponse { kvs: (0..count).map(pair).collect(), more: false, count };
    let mut group = criterion.benchmark_group("answer");
    group.throughput(Throughput::Elements(1)).bench_function("put", |bencher| {
        bencher.iter_batched(
            kv::PutResponse::default,
            |response| responder.put(revision, response).encode_to_vec(),
            BatchSize::SmallInput,
        );
    });
    for count in [1, PAIRS] {
        let response = found(count);
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("range", count), |bencher| {
            bencher.iter_batched(
                || response.clone(),
                |response| responder.range(revision, response).encode_to_vec(),
                BatchSize::SmallInput,
            );
        });
    }
}

/// Short runs: a change that matters is larger than what longer ones would bring to light.
fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .nresamples(10_000)
        .without_plots()
        .configure_from_args();
    peers(&mut criterion);
    clients(&mut criterion);
    criterion.final_summary();
}

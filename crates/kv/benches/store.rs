//! What requests cost the store, one at a time, once it holds something.
//!
//! A store lives on from request to request, as in a replica, and is compacted now and then, so that it holds as much
//! at the end as at the beginning; compacting is not counted.

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput};
use std::cell::RefCell;
use std::hint::black_box;
use std::time::Duration;
use synod_kv::{
    CompactRequest, Compare, KeyRange, Operand, PutRequest, RangeEnd, RangeRequest, Relation, Request,
    Restore, Store, TxnRequest,
};

const VALUE_BYTES: usize = 256;
const SMALL: u64 = 100_000;
const LARGE: u64 = 1_000_000;

/// How much history gathers before it is compacted, in requests; and how much of it goes in one sweep.
const COMPACTED_AFTER: u64 = 10_000;
const SWEEP_BUDGET: usize = 256;
/// The pieces of an image: those that a server writes and sends.
const CHUNK_BYTES: usize = 1 << 20;

/// Twenty bytes long, in the order of the numbers.
fn key(number: u64) -> Bytes {
    format!("bench/key/{number:010}").into()
}

fn value() -> Bytes {
    vec![7; VALUE_BYTES].into()
}

fn put(number: u64) -> Request {
    Request::Put(PutRequest::new(key(number), value()))
}

/// "If the key has the value that it has, put it again."
fn swap(number: u64) -> Request {
    Request::Txn(TxnRequest {
        compares: vec![Compare {
            range: KeyRange::single(key(number)),
            relation: Relation::Equal,
            operand: Operand::Value(value()),
        }],
        success: vec![put(number)],
        failure: vec![Request::Range(RangeRequest::new(KeyRange::single(key(number))))],
    })
}

fn range(number: u64, keys: u64) -> RangeRequest {
    RangeRequest::new(match keys {
        1 => KeyRange::single(key(number)),
        keys => KeyRange { key: key(number), end: RangeEnd::Before(key(number + keys)) },
    })
}

/// Numbers below a bound that jump about, the same ones in every run.
struct Jumps {
    state: u64,
    bound: u64,
}

impl Jumps {
    fn below(bound: u64) -> Jumps {
        Jumps { state: 1, bound }
    }

    fn next(&mut self) -> u64 {
        // Knuth's linear congruential generator (MMIX); its upper half is good enough.
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 32) % self.bound
    }
}

fn apply(store: &mut Store, request: &Request) {
    store.apply(request).expect("all is in memory").expect("nothing is wrong with it");
}

/// A store of `keys` keys, put once each, in an order that jumps about but misses none.
fn filled(keys: u64) -> Store {
    // Coprime to both sizes, which have no prime factors but 2 and 5.
    const STRIDE: u64 = 618_033_987;
    let mut store = Store::new();
    for step in 0..keys {
        apply(&mut store, &put(step * STRIDE % keys));
    }
    assert_eq!(store.stats().keys, keys);
    store
}

fn compact(store: &mut Store) {
    let oldest = store.compacted().unwrap_or_default();
    if store.revision().0 - oldest.0 < COMPACTED_AFTER {
        return;
    }
    let request = CompactRequest { revision: store.revision(), physical: false };
    apply(store, &Request::Compact(request));
    while store.sweep(SWEEP_BUDGET) {}
}

fn requests(criterion: &mut Criterion, keys: u64) {
    let mut store = filled(keys);
    compact(&mut store);
    let store = RefCell::new(store);
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(1));
    for (name, request) in [("put", put as fn(u64) -> Request), ("swap", swap)] {
        let mut jumps = Jumps::below(keys);
        group.bench_function(BenchmarkId::new(name, keys), |bencher| {
            bencher.iter_batched(
                || {
                    compact(&mut store.borrow_mut());
                    request(jumps.next())
                },
                |request| {
                    let applied = store.borrow_mut().apply(&request);
                    (applied, request)
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();

    let store = store.into_inner();
    let mut group = criterion.benchmark_group("range");
    for count in [1, 100] {
        let mut jumps = Jumps::below(keys - count);
        group.throughput(Throughput::Elements(count)).bench_function(
            BenchmarkId::new(count.to_string(), keys),
            |bencher| {
                bencher.iter_batched(
                    || range(jumps.next(), count),
                    |request| store.range(&request),
                    BatchSize::SmallInput,
                );
            },
        );
    }
    group.finish();
    if keys == SMALL {
        images(criterion, &store);
    }
}

fn images(criterion: &mut Criterion, store: &Store) {
    criterion.bench_function("snapshot", |bencher| bencher.iter(|| store.snapshot()));

    let snapshot = store.snapshot();
    let whole = || snapshot.chunks(CHUNK_BYTES).map(|chunk| chunk.expect("all is in memory"));
    let image: Vec<Bytes> = whole().collect();
    let mut group = criterion.benchmark_group("image");
    // Each takes too long for more.
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.throughput(Throughput::Elements(store.stats().keys));
    group.bench_function("write", |bencher| {
        bencher.iter(|| whole().map(|chunk| chunk.len()).sum::<usize>());
    });
    group.bench_function("restore", |bencher| {
        bencher.iter_batched(
            || image.clone(),
            |image| {
                let mut restore = Restore::new();
                image.into_iter().try_for_each(|chunk| restore.push(chunk)).expect("a good image");
                restore.finish()
            },
            BatchSize::PerIteration,
        );
    });
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request");
    group.throughput(Throughput::Elements(1));
    for (name, request) in [("put", put(1)), ("swap", swap(1))] {
        let encoded = request.encode();
        group.bench_function(BenchmarkId::new("encode", name), |bencher| {
            bencher.iter(|| black_box(&request).encode());
        });
        group.bench_function(BenchmarkId::new("decode", name), |bencher| {
            bencher.iter_batched(|| encoded.clone(), Request::decode, BatchSize::SmallInput);
        });
    }
}

/// Short runs: a change that matters is larger than what longer ones would bring to light.
fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .nresamples(10_000)
        .without_plots()
        .configure_from_args();
    codec(&mut criterion);
    requests(&mut criterion, SMALL);
    requests(&mut criterion, LARGE);
    criterion.final_summary();
}

//! What it costs to append to the write-ahead log, per record: on a disk in memory, which leaves only what this
//! crate does, and on the real one, sync and all.
//!
//! The log lives on from group to group, as in a server. What a server does meanwhile in the background, or once in
//! a while, is not counted: preparing the next segment, trimming. The change to the next segment is.

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;
use synod_paxos::acceptor::Record;
use synod_paxos::types::{Ballot, ClusterId, Generation, Incarnation, NodeId, Prefix, Slot};
use synod_paxos::value::Value;
use synod_storage::disk::{MemoryDisk, RealDisk, SharedDisk};
use synod_storage::segment::LogIdentity;
use synod_storage::wal::{WalError, WalOptions, WriteAheadLog};

const VALUE_BYTES: usize = 300;
/// How many records arrive while a sync runs: one client at a time, and a busy server's share.
const GROUPS: [u64; 2] = [1, 64];
/// Shorter than a server's, so that a short run sees many of them.
const SEGMENT_BYTES: u64 = 8 << 20;

const BALLOT: Ballot = Ballot { round: 1, node: NodeId(1), generation: Generation(1) };

/// A log, and the slots that go into it.
struct Logged {
    log: WriteAheadLog,
    next: Slot,
    value: Value,
}

impl Logged {
    fn new(disk: SharedDisk) -> Logged {
        let identity = LogIdentity { cluster: ClusterId(1), node: NodeId(1), incarnation: Incarnation(1) };
        let options = WalOptions { segment_bytes: SEGMENT_BYTES };
        Logged {
            log: WriteAheadLog::create(disk, identity, options).expect("a log can be made here"),
            next: Slot::FIRST,
            value: Value::from_encoded(Bytes::from(vec![7; VALUE_BYTES])),
        }
    }

    /// The next group; and what is done in between, when it is time.
    fn group(&mut self, records: u64) -> Vec<Record> {
        self.tidy().expect("the disk works");
        let first = self.next;
        self.next = Slot(first.0 + records);
        (first.0..self.next.0)
            .map(|slot| Record::Accepted { ballot: BALLOT, slot: Slot(slot), value: self.value.clone() })
            .collect()
    }

    fn tidy(&mut self) -> Result<(), WalError> {
        if self.log.segments() > 2 {
            // Also slots that are on their way to the log: of the segments that go none has those.
            let upto = Prefix::before(self.next);
            self.log.append(&[Record::Trimmed { upto }])?;
            self.log.trim(upto)?;
        }
        self.log.prepare_next(SEGMENT_BYTES)?;
        Ok(())
    }
}

fn append(criterion: &mut Criterion, name: &str, size: BatchSize, mut disk: impl FnMut() -> SharedDisk) {
    let mut group = criterion.benchmark_group("append");
    for records in GROUPS {
        let logged = RefCell::new(Logged::new(disk()));
        group.throughput(Throughput::Elements(records)).bench_function(
            BenchmarkId::new(name, records),
            |bencher| {
                bencher.iter_batched(
                    || logged.borrow_mut().group(records),
                    |records| {
                        logged.borrow_mut().log.append(&records).expect("the disk works");
                        records
                    },
                    size,
                );
            },
        );
    }
}

/// Short runs: a change that matters is larger than what longer ones would bring to light.
fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .nresamples(10_000)
        .without_plots()
        .configure_from_args();
    // Few at a time, so that the next segment is ready before the last one is full.
    let few = BatchSize::NumIterations(64);
    append(&mut criterion, "memory", few, || Arc::new(MemoryDisk::new()));
    // Each log in a directory of its own; all go with the last of them.
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let mut logs = 0;
    append(&mut criterion, "disk", BatchSize::PerIteration, || {
        logs += 1;
        let root = dir.path().join(logs.to_string());
        std::fs::create_dir(&root).expect("the directory is ours");
        Arc::new(RealDisk::new(root))
    });
    criterion.final_summary();
}

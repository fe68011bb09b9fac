//! How much memory a store takes after many puts with checkpoints in between, and how long a start takes.
//!
//! `cargo run --release -p synod-kv --example footprint [puts] [keys]`: a million puts of 256 bytes over 100,000 keys,
//! unless told otherwise; a checkpoint every 200,000 puts, as after 64 MiB of log. Runs are written to a file in the
//! system's temporary directory, which is gone afterwards. Memory is what the kernel says this process has in RAM, and
//! time that of the processor.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use bytes::Bytes;
use synod_kv::{Blocks, PutRequest, ReadBlocks, Request, Restore, Run, Store, Unreadable};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CHECKPOINT_AFTER: u64 = 200_000;
const PAGE: u64 = 4096;

/// A run in a file without a name.
struct RunFile {
    file: File,
    /// Where each block begins, and where the last one ends.
    places: Vec<u64>,
}

impl RunFile {
    fn write(blocks: &mut Blocks) -> RunFile {
        let file = tempfile::tempfile().expect("a temporary file");
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let mut places = vec![0];
        for block in blocks {
            let block = block.expect("the disk works");
            out.write_all(&block).expect("there is room");
            places.push(places[places.len() - 1] + block.len() as u64);
        }
        RunFile { file: out.into_inner().expect("there is room"), places }
    }
}

impl ReadBlocks for RunFile {
    fn read(&self, number: u32) -> Result<Bytes, Unreadable> {
        let (start, end) = (self.places[number as usize], self.places[number as usize + 1]);
        let mut block = vec![0; (end - start) as usize];
        let failed = |error: std::io::Error| Unreadable::Failed { why: error.to_string() };
        self.file.read_exact_at(&mut block, start).map_err(failed)?;
        Ok(block.into())
    }
}

fn resident_mebibytes() -> u64 {
    let mut text = String::new();
    File::open("/proc/self/statm").and_then(|mut file| file.read_to_string(&mut text)).expect("Linux");
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    (pages * PAGE) >> 20
}

/// For how long this thread was on a processor: others may be busy, too.
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds =
        text.split(' ').next().and_then(|number| number.parse().ok()).expect("a number of nanoseconds");
    Duration::from_nanos(nanoseconds)
}

fn put(store: &mut Store, number: u64, keys: u64) {
    let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys;
    let request = Request::Put(PutRequest::new(format!("bench/key/{key:010}"), vec![7; 256]));
    store.apply(&request).expect("all is in memory").expect("a plain put");
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let puts: u64 = arguments.next().unwrap_or(1_000_000);
    let keys: u64 = arguments.next().unwrap_or(100_000);
    println!("empty: {} MiB", resident_mebibytes());
    let mut store = Store::new();
    let mut runs: Vec<Run> = Vec::new();
    let mut written = None;
    let mut applying = Duration::ZERO;
    for first in (0..puts).step_by(CHECKPOINT_AFTER as usize) {
        let begun = busy();
        let last = puts.min(first + CHECKPOINT_AFTER);
        (first..last).for_each(|number| put(&mut store, number, keys));
        applying += busy() - begun;
        let before = resident_mebibytes();
        let snapshot = store.snapshot();
        let mut blocks = written.map_or_else(|| snapshot.run(), |head| snapshot.part(head).expect("known"));
        let file = RunFile::write(&mut blocks);
        runs.push(blocks.finish(file));
        written = Some(snapshot.head());
        let revision = snapshot.revision();
        drop(snapshot);
        let begun = busy();
        let mut retired = store.settle(revision, runs.clone());
        let settled = busy() - begun;
        while retired.let_go(512) {}
        let gone = busy() - begun - settled;
        println!(
            "{last} puts: {before} MiB, with a checkpoint {} MiB; settled in {settled:?}, let go in {gone:?}",
            resident_mebibytes()
        );
    }
    println!("{:?} a put; {:?}", applying / puts as u32, store.stats());

    let mut blocks = store.snapshot().run();
    let file = RunFile::write(&mut blocks);
    drop(blocks);
    drop(store);
    drop(runs);
    println!("all of it gone: {} MiB", resident_mebibytes());
    let begun = busy();
    let mut restore = Restore::new();
    for number in 0..file.places.len() as u32 - 1 {
        restore.push_block(file.read(number).expect("the disk works")).expect("a good run");
    }
    let read = busy() - begun;
    restore.end_run(file);
    let store = restore.finish().expect("a good run");
    println!(
        "loaded {} keys, {} versions: {read:?} to read, {:?} in all; {} MiB",
        store.stats().keys,
        store.stats().versions,
        busy() - begun,
        resident_mebibytes()
    );
}

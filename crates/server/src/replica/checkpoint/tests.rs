use super::files::MAX_RUNS;
use super::*;
use std::collections::BTreeMap;
use synod_kv::{
    CompactRequest, DeleteRangeRequest, KeyRange, PutRequest, RangeRequest, Request, Revision, TxnRequest,
    Unreadable, View,
};
use synod_paxos::membership::Genesis;
use synod_paxos::types::{ClusterId, Window};
use synod_storage::checkpoint::{CheckpointStore, Manifest};
use synod_storage::disk::{Disk, FaultRates, FaultyDisk, MemoryDisk, SharedDisk};

const SLACK: u64 = 1_000;

fn state() -> State {
    let genesis = Genesis { cluster: ClusterId(1), window: Window::new(4), members: BTreeMap::new() };
    State { store: Store::new(), machine: Machine::genesis(&genesis) }
}

fn files(disk: &SharedDisk) -> Files {
    Files::reset(Arc::clone(disk), SLACK, &Alarm::default()).unwrap()
}

fn open(disk: &SharedDisk) -> Result<(Files, Option<Loaded>), CheckpointError> {
    Files::open(Arc::clone(disk), SLACK, &Alarm::default())
}

/// Applies a request, and a slot goes by.
fn apply(state: &mut State, request: &Request) {
    state.store.apply(request).unwrap().unwrap();
    let slot = state.machine.applied().next();
    state.machine.advance(slot);
}

fn put(state: &mut State, key: &str, bytes: usize) {
    apply(state, &Request::Put(PutRequest::new(key.to_owned(), vec![7; bytes])));
}

/// What the learner does when a checkpoint is due.
fn write(files: &mut Files, state: &mut State) -> Written {
    let written = files.write(Snapshot::of(state)).unwrap();
    drop(state.store.settle(written.revision, written.cold.clone()));
    while state.store.sweep(100) {}
    written
}

/// A disk that holds a checkpoint of slot 1.
fn disk() -> (FaultyDisk, SharedDisk) {
    let mut state = state();
    put(&mut state, "a", 1);
    let faulty = FaultyDisk::new(1);
    let disk: SharedDisk = Arc::new(faulty.clone());
    write(&mut files(&disk), &mut state);
    (faulty, disk)
}

/// Is what a start finds on the disk this state?
fn assert_found(disk: &SharedDisk, state: &State) -> Files {
    let (files, loaded) = open(disk).unwrap();
    let loaded = loaded.expect("there is a checkpoint");
    assert_eq!(loaded.durable, state.machine.applied());
    assert_eq!(loaded.state.store.head(), state.store.head());
    let image =
        |state: &State| state.store.snapshot().chunks(1 << 20).map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(image(&loaded.state), image(state));
    files
}

#[test]
fn a_checkpoint_writes_what_changed() {
    let disk: SharedDisk = Arc::new(MemoryDisk::new());
    let (mut files, mut state) = (files(&disk), state());
    put(&mut state, "large", 100_000);
    put(&mut state, "doomed", 10);
    assert_eq!(write(&mut files, &mut state).runs, 1);
    put(&mut state, "small", 10);
    apply(&mut state, &Request::DeleteRange(DeleteRangeRequest::new(KeyRange::single("doomed"))));
    put(&mut state, "another", 10);
    let revision = state.store.revision();
    apply(&mut state, &Request::Compact(CompactRequest { revision, physical: false }));
    while state.store.sweep(100) {}
    assert_eq!(write(&mut files, &mut state).runs, 2);
    assert!(files.runs[1].bytes < 500, "{} bytes", files.runs[1].bytes);
    let mut files = assert_found(&disk, &state);
    put(&mut state, "small", 20);
    assert_eq!(write(&mut files, &mut state).runs, 3, "after a restart, too");
    assert_found(&disk, &state);

    // Nothing is written where only slots went by, or a request was refused.
    let slot = state.machine.applied().next();
    state.machine.advance(slot);
    assert_eq!(write(&mut files, &mut state).runs, 3);
    assert_found(&disk, &state);
}

#[test]
fn all_is_written_anew_when_most_of_it_is_dead() {
    let disk: SharedDisk = Arc::new(MemoryDisk::new());
    let (mut files, mut state) = (files(&disk), state());
    let mut wholes = 0;
    for _ in 0..100 {
        put(&mut state, "a", 300);
        let revision = state.store.revision();
        apply(&mut state, &Request::Compact(CompactRequest { revision, physical: false }));
        while state.store.sweep(100) {}
        wholes += usize::from(write(&mut files, &mut state).runs == 1);
        let bytes: u64 = files.runs.iter().map(|run| run.bytes).sum();
        assert!(bytes < 2 * state.store.stats().bytes_total + SLACK + 500, "{bytes}");
        files = assert_found(&disk, &state);
    }
    assert!((5..50).contains(&wholes), "{wholes} of 100");
}

#[test]
fn all_is_written_anew_when_there_are_many_runs() {
    let disk: SharedDisk = Arc::new(MemoryDisk::new());
    let (mut files, mut state) = (files(&disk), state());
    put(&mut state, "large", 100_000);
    for runs in (1..=MAX_RUNS).chain(1..3) {
        put(&mut state, "a", 1);
        assert_eq!(write(&mut files, &mut state).runs, runs);
    }
    assert_found(&disk, &state);
}

#[test]
fn a_state_from_elsewhere_is_written_as_a_whole() {
    let disk: SharedDisk = Arc::new(MemoryDisk::new());
    let (mut files, mut state) = (files(&disk), state());
    put(&mut state, "a", 5_000);
    write(&mut files, &mut state);
    put(&mut state, "a", 1);
    let snapshot = Snapshot::of(&state);
    let blocks = snapshot.store.chunks(PIECE_BYTES).map(Result::unwrap).collect();
    let (covered, machine) = (snapshot.covered, snapshot.machine);
    let mut state = State::restore(crate::replica::Checkpoint { covered, machine, blocks }).unwrap();
    assert_eq!(write(&mut files, &mut state).runs, 1);
    assert_found(&disk, &state);
    put(&mut state, "a", 2);
    assert_eq!(write(&mut files, &mut state).runs, 2);
    assert_found(&disk, &state);
}

#[test]
fn d7_a_run_too_many_or_too_few_is_damage() {
    let disk: SharedDisk = Arc::new(MemoryDisk::new());
    let (mut files, mut state) = (files(&disk), state());
    put(&mut state, "large", 10_000);
    for _ in 0..3 {
        put(&mut state, "a", 1);
        write(&mut files, &mut state);
    }
    let (covered, meta) = (state.machine.applied(), Snapshot::of(&state).machine);
    let good = files.runs.clone();
    let wrong: [&[usize]; 6] = [&[], &[1, 2], &[0, 2], &[0, 2, 1], &[0, 1, 1, 2], &[0, 0, 1, 2]];
    for order in wrong {
        let runs = order.iter().map(|&run| good[run]).collect();
        // Its own store, because a commit removes what it does not name.
        let copy: SharedDisk = Arc::new(copy_of(&disk));
        let (mut store, _) = CheckpointStore::open(Arc::clone(&copy)).unwrap();
        store.commit(&Manifest { covered, meta: meta.clone(), runs }).unwrap();
        let error = open(&copy).err().expect("not what was written");
        assert!(error.is_damage(), "{order:?}: {error}");
    }
    assert_found(&disk, &state);
}

fn copy_of(disk: &SharedDisk) -> MemoryDisk {
    let copy = MemoryDisk::new();
    for name in disk.list("store").unwrap() {
        let path = format!("store/{name}");
        let file = disk.open(&path).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
        copy.create(&path).unwrap().write_at(0, &bytes).unwrap();
    }
    copy
}

#[test]
fn d4_a_disk_that_cannot_be_read_now_has_lost_nothing() {
    let (faulty, disk) = disk();
    let (store, manifest) = CheckpointStore::open(Arc::clone(&disk)).unwrap();
    faulty.set_rates(FaultRates { read_error: 10_000, ..FaultRates::default() });
    let error = Files::load(store, manifest, SLACK, &Alarm::default()).err().expect("every read fails");
    assert!(!error.is_damage(), "what may be whole is not thrown away: {error}");

    faulty.set_rates(FaultRates::default());
    let (_, loaded) = open(&disk).unwrap();
    assert_eq!(loaded.map(|loaded| loaded.durable), Some(Prefix(1)));
}

#[test]
fn d2_a_block_that_rotted_is_damage() {
    let (faulty, disk) = disk();
    let run = faulty.paths().into_iter().find(|path| path.ends_with(".run")).unwrap();
    let (store, manifest) = CheckpointStore::open(disk).unwrap();
    faulty.rot(&run, faulty.contents(&run).unwrap().len() / 2, 4);
    let error = Files::load(store, manifest, SLACK, &Alarm::default()).err().expect("the checksum is wrong");
    assert!(error.is_damage(), "{error}");
}

fn value_at(view: &View, key: &str, revision: Revision) -> Result<usize, Unreadable> {
    let request =
        RangeRequest { revision: Some(revision), ..RangeRequest::new(KeyRange::single(key.to_owned())) };
    view.range(&request).map(|found| found.expect("not compacted").kvs[0].value.len())
}

/// A store with one key, of which only the newest version is in memory: that of revision 201, of 200 bytes.
fn cold(disk: &SharedDisk) -> (Files, State) {
    let (mut files, mut state) = (files(disk), state());
    for bytes in 1..=200 {
        put(&mut state, "a", bytes);
        if bytes % 40 == 0 {
            write(&mut files, &mut state);
        }
    }
    assert_eq!(state.store.revision(), Revision(201));
    (files, state)
}

#[test]
fn old_versions_are_read_from_the_disk_before_and_after_a_start() {
    let disk: SharedDisk = Arc::new(MemoryDisk::new());
    let (mut files, mut state) = cold(&disk);
    assert!(state.store.runs().is_some_and(|runs| runs.len() == 5), "nothing else is in memory");
    let earlier = state.store.snapshot();
    for _ in 0..3 {
        for bytes in 1..=200 {
            let revision = Revision(bytes as u64 + 1);
            assert_eq!(value_at(&state.store, "a", revision), Ok(bytes));
            assert_eq!(value_at(&earlier, "a", revision), Ok(bytes), "also from files that are gone");
        }
        put(&mut state, "b", 500);
        (files, state) = {
            write(&mut files, &mut state);
            let (files, loaded) = open(&disk).unwrap();
            (files, loaded.unwrap().state)
        };
        files.forget_head();
        assert_eq!(write(&mut files, &mut state).runs, 1);
    }
}

/// As the releases before wrote them: blocks that end anywhere.
#[test]
fn runs_of_earlier_releases_are_read_and_replaced() {
    let disk: SharedDisk = Arc::new(MemoryDisk::new());
    let (_, state) = cold(&disk);
    let snapshot = Snapshot::of(&state);
    let mut store = CheckpointStore::reset(disk.clone()).unwrap();
    let blocks = snapshot.store.chunks(1_000).map(|piece| Ok(piece.unwrap()));
    let (run, _) = store.write_run(0, 201, blocks).unwrap();
    let (covered, meta) = (snapshot.covered, snapshot.machine);
    store.commit(&Manifest { covered, meta, runs: vec![run] }).unwrap();
    drop(store);

    let (mut files, loaded) = open(&disk).unwrap();
    let mut state = loaded.unwrap().state;
    assert!(state.store.runs().is_none(), "all of it is in memory");
    put(&mut state, "a", 1);
    assert_eq!(write(&mut files, &mut state).runs, 1, "by a run that can be read block by block");
    assert!(state.store.runs().is_some());
    assert_found(&disk, &state);
    put(&mut state, "a", 2);
    assert_eq!(write(&mut files, &mut state).runs, 2);
    assert_found(&disk, &state);
}

/// A request that reads the first version of a key, and writes.
fn looks_back() -> Request {
    let first = RangeRequest { revision: Some(Revision(2)), ..RangeRequest::new(KeyRange::single("a")) };
    let success = vec![Request::Put(PutRequest::new("b", "new")), Request::Range(first)];
    Request::Txn(TxnRequest { success, ..TxnRequest::default() })
}

#[test]
fn d4_an_old_version_that_cannot_be_read_for_a_moment_is_an_error_and_no_reason_for_alarm() {
    let faulty = FaultyDisk::new(1);
    let disk: SharedDisk = Arc::new(faulty.clone());
    let (mut files, mut state) = cold(&disk);
    let head = state.store.head();
    faulty.set_rates(FaultRates { read_error: 10_000, ..FaultRates::default() });
    assert_eq!(value_at(&state.store, "a", Revision(201)), Ok(200), "the newest needs no disk");
    let error = value_at(&state.store, "a", Revision(2)).unwrap_err();
    assert!(matches!(error, Unreadable::Failed { .. }), "{error}");
    assert!(state.store.apply(&looks_back()).is_err(), "no answer, and not another one");
    assert_eq!(state.store.head(), head);
    let error = files.write(Snapshot::of(&state)).map(|_| ()); // nothing changed: no block is read
    assert!(error.is_ok());
    files.forget_head();
    let error = files.write(Snapshot::of(&state)).expect_err("a whole image reads all blocks");
    assert!(!error.is_damage(), "{error}");
    assert_eq!(files.alarm.raised(), None);

    faulty.set_rates(FaultRates::default());
    assert_eq!(value_at(&state.store, "a", Revision(2)), Ok(1));
    apply(&mut state, &looks_back());
    write(&mut files, &mut state);
    assert_found(&disk, &state);
}

#[test]
fn d2_an_old_version_that_rotted_is_damage_now_and_after_a_start() {
    let faulty = FaultyDisk::new(1);
    let disk: SharedDisk = Arc::new(faulty.clone());
    let (mut files, mut state) = cold(&disk);
    let run = faulty.paths().into_iter().find(|path| path.ends_with(".run")).unwrap();
    faulty.rot(&run, faulty.contents(&run).unwrap().len() / 2, 4);
    let error = value_at(&state.store, "a", Revision(2)).unwrap_err();
    assert!(matches!(error, Unreadable::Damaged { .. }), "{error}");
    assert!(state.store.apply(&looks_back()).is_err());
    assert_eq!(value_at(&state.store, "a", Revision(100)), Ok(99), "that one is in another run");
    assert!(files.alarm.raised().is_some_and(|why| why.contains("damaged")));
    put(&mut state, "b", 1);
    assert_eq!(write(&mut files, &mut state).runs, 6, "what changed can be written all the same");
    files.forget_head();
    let error = files.write(Snapshot::of(&state)).expect_err("all of it cannot");
    assert!(error.is_damage(), "{error}");
    let error = open(&disk).err().expect("a start reads everything");
    assert!(error.is_damage(), "{error}");
}

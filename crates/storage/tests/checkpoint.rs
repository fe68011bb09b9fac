//! Checkpoints: whole or not at all, and never wrong.

use bytes::Bytes;
use std::sync::Arc;
use synod_paxos::types::Prefix;
use synod_storage::checkpoint::{CheckpointError, CheckpointStore, Manifest, RunMeta};
use synod_storage::disk::{
    CrashPoint, Disk, Fault, FaultRates, FaultyDisk, MemoryDisk, SharedDisk, Survivors,
};

type Contents = Vec<Bytes>;

fn shared(disk: &FaultyDisk) -> SharedDisk {
    Arc::new(disk.clone())
}

fn block(key: u64, len: usize) -> Bytes {
    (0..len).map(|n| (n as u64 * 3 + key) as u8).collect()
}

fn blocks(keys: std::ops::Range<u64>) -> Contents {
    keys.map(|key| block(key, 10 + key as usize * 150)).collect()
}

fn manifest(covered: u64, runs: &[RunMeta]) -> Manifest {
    let meta = Bytes::from(format!("state at {covered}"));
    Manifest { covered: Prefix(covered), meta, runs: runs.to_vec() }
}

/// Writes a run, and leaves it at that.
fn write(
    store: &mut CheckpointStore,
    first: u64,
    last: u64,
    blocks: impl IntoIterator<Item = Bytes>,
) -> Result<RunMeta, CheckpointError> {
    store.write_run(first, last, blocks.into_iter().map(Ok)).map(|(run, _)| run)
}

fn read(store: &CheckpointStore, manifest: &Manifest) -> Result<Contents, CheckpointError> {
    let mut contents = Vec::new();
    for run in &manifest.runs {
        for block in store.read_run(run)? {
            contents.push(block?);
        }
    }
    Ok(contents)
}

/// What is found after a start: the checkpoint and all that is in it.
fn found(disk: &FaultyDisk) -> Result<Option<(Manifest, Contents)>, CheckpointError> {
    let (store, manifest) = CheckpointStore::open(shared(disk))?;
    manifest.map(|manifest| Ok((manifest.clone(), read(&store, &manifest)?))).transpose()
}

/// Checkpoints that grow, rewrite and start over. Calls `commits` before and after each.
fn story(
    disk: &FaultyDisk,
    mut commits: impl FnMut(bool, Option<(Manifest, Contents)>),
) -> Result<(), CheckpointError> {
    let (mut store, _) = CheckpointStore::open(shared(disk))?;
    let mut commit = |store: &mut CheckpointStore, manifest: &Manifest| {
        let contents = read(store, manifest)?;
        commits(false, Some((manifest.clone(), contents.clone())));
        store.commit(manifest)?;
        commits(true, Some((manifest.clone(), contents)));
        Ok::<(), CheckpointError>(())
    };
    let first = write(&mut store, 0, 4, blocks(0..5))?;
    commit(&mut store, &manifest(10, &[first]))?;
    let second = write(&mut store, 5, 6, blocks(5..7))?;
    commit(&mut store, &manifest(20, &[RunMeta { live_bytes: 10, ..first }, second]))?;
    let rest = write(&mut store, 3, 4, blocks(3..5))?;
    commit(&mut store, &manifest(20, &[rest, second]))?;
    commit(&mut store, &manifest(30, &[rest, second]))?;
    commits(false, None);
    store.clear()?;
    commits(true, None);
    let mut commit = |store: &mut CheckpointStore, manifest: &Manifest| {
        let contents = read(store, manifest)?;
        commits(false, Some((manifest.clone(), contents.clone())));
        store.commit(manifest)?;
        commits(true, Some((manifest.clone(), contents)));
        Ok::<(), CheckpointError>(())
    };
    let fetched = write(&mut store, 0, 9, blocks(0..10))?;
    commit(&mut store, &manifest(99, &[fetched]))
}

#[test]
fn checkpoints_are_kept_and_dropped_runs_are_deleted() {
    let disk = FaultyDisk::new(1);
    story(&disk, |_, _| {}).unwrap();
    let (last, contents) = found(&disk).unwrap().unwrap();
    assert_eq!((last.covered, contents), (Prefix(99), blocks(0..10)));
    assert_eq!(disk.paths().len(), 2, "a manifest and a run: {:?}", disk.paths());
}

#[test]
fn c1_c2_c3_a_crash_at_any_operation_leaves_the_old_checkpoint_or_the_new() {
    let mut crashes = 0;
    for operation in 1..1000 {
        for point in [CrashPoint::Before, CrashPoint::During, CrashPoint::After] {
            let disk = FaultyDisk::new(operation);
            disk.crash_at(operation, point);
            let (mut old, mut new) = (None, None);
            let ended = story(&disk, |done, checkpoint| {
                if done {
                    old.clone_from(&checkpoint);
                }
                new = checkpoint;
            });
            if ended.is_ok() {
                assert!(crashes > 120, "{crashes}");
                return;
            }
            crashes += 1;
            for seed in 0..16 {
                let context = format!("crash {point:?} operation {operation}, seed {seed}");
                let disk = disk.fork(seed);
                match seed {
                    0 => disk.process_crash(),
                    1 => disk.power_cut(Survivors::None),
                    2 => disk.power_cut(Survivors::All),
                    _ => disk.power_cut(Survivors::Some),
                }
                let now = found(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert!(now == old || now == new, "{context}: {:?}", now.map(|(manifest, _)| manifest));
                let runs = now.as_ref().map_or(0, |(manifest, _)| manifest.runs.len());
                let files = disk.paths().iter().filter(|path| path.ends_with(".run")).count();
                assert_eq!(files, runs, "{context}: what is left over is swept away");
                disk.power_cut(Survivors::None);
                assert!(found(&disk).unwrap() == now, "{context}: what was acted on stays");
                story(&disk, |_, _| {}).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert_eq!(found(&disk).unwrap().unwrap().1, blocks(0..10), "{context}");
            }
        }
    }
    panic!("it does not end");
}

/// A checkpoint of two small runs.
fn small() -> FaultyDisk {
    let disk = FaultyDisk::new(1);
    let (mut store, _) = CheckpointStore::open(shared(&disk)).unwrap();
    let first = write(&mut store, 0, 2, blocks(0..3)).unwrap();
    let second = write(&mut store, 3, 3, [Bytes::new(), block(3, 100)]).unwrap();
    store.commit(&manifest(5, &[first, second])).unwrap();
    disk
}

fn is_damage(error: &CheckpointError) -> bool {
    matches!(error, CheckpointError::DamagedManifest { .. } | CheckpointError::DamagedRun { .. })
}

#[test]
fn d7_every_flipped_byte_is_noticed_and_the_store_can_start_over() {
    let disk = small();
    for path in disk.paths() {
        let good = disk.contents(&path).unwrap();
        for offset in 0..good.len() {
            let disk = disk.fork(0);
            disk.rot(&path, offset, 1 << (offset % 8));
            let error = found(&disk).expect_err("noticed");
            assert!(is_damage(&error), "{path} byte {offset}: {error}");
            if offset % 50 == 0 {
                CheckpointStore::reset(shared(&disk)).unwrap();
                assert_eq!(found(&disk).unwrap(), None);
                story(&disk, |_, _| {}).unwrap();
            }
        }
    }
}

#[test]
fn d9_missing_and_shortened_files_are_noticed() {
    let disk = small();
    let paths = disk.paths();
    assert_eq!(paths.len(), 3);
    for path in &paths {
        let good = disk.contents(path).unwrap();
        for len in (0..good.len()).step_by(7) {
            let disk = disk.fork(0);
            disk.create(path).unwrap().write_at(0, &good[..len]).unwrap();
            let error = found(&disk).expect_err("noticed");
            assert!(is_damage(&error), "{path} {len}: {error}");
        }
        let disk = disk.fork(0);
        disk.remove(path).unwrap();
        match found(&disk) {
            // Without a manifest there is no checkpoint: the log or the peers have it all.
            Ok(checkpoint) => assert!(checkpoint.is_none() && path.ends_with("MANIFEST")),
            Err(error) => assert!(is_damage(&error), "{error}"),
        }
    }
}

#[test]
fn d8_a_run_in_the_place_of_another_is_noticed() {
    let disk = FaultyDisk::new(1);
    let (mut store, _) = CheckpointStore::open(shared(&disk)).unwrap();
    let runs = [1u64, 2].map(|n| write(&mut store, n, n, [block(n, 200), block(n + 5, 200)]).unwrap());
    store.commit(&manifest(5, &runs)).unwrap();
    let [first, second] = [0, 1].map(|n| disk.contents(&format!("store/{}", runs[n].id)).unwrap());
    let path = format!("store/{}", runs[0].id);
    for (offset, bytes) in
        [(0, &second[..]), (24, &second[24..232]), (24, &first[232..440]), (232, &first[24..232])]
    {
        let disk = disk.fork(0);
        disk.misdirect(&path, offset, bytes);
        assert!(is_damage(&found(&disk).expect_err("noticed")));
    }
}

#[test]
fn d2_a_full_disk_keeps_the_last_checkpoint_and_is_retried_with_space() {
    let disk = small();
    let before = found(&disk).unwrap();
    let (mut store, last) = CheckpointStore::open(shared(&disk)).unwrap();
    let last = last.unwrap();
    let used: usize = disk.paths().iter().map(|path| disk.contents(path).unwrap().len()).sum();
    disk.set_capacity(Some(used as u64 + 50));
    let error = write(&mut store, 4, 9, blocks(4..10)).unwrap_err();
    assert!(matches!(error, CheckpointError::Full { .. }), "{error}");
    let error = store.commit(&manifest(6, &last.runs)).unwrap_err();
    assert!(matches!(error, CheckpointError::Full { .. }), "{error}");
    assert_eq!(found(&disk.fork(0)).unwrap(), before);
    disk.set_capacity(None);
    let run = write(&mut store, 4, 9, blocks(4..10)).unwrap();
    store.commit(&manifest(6, &[run])).unwrap();
    disk.power_cut(Survivors::None);
    assert_eq!(found(&disk).unwrap().unwrap().1, blocks(4..10));
}

#[test]
fn d4_no_failed_operation_costs_the_last_checkpoint() {
    let mut in_doubt = 0;
    for nth in 1..200 {
        let disk = FaultyDisk::new(nth);
        disk.fail_at(nth, Fault::Error);
        let (mut old, mut new) = (None, None);
        let ended = story(&disk, |done, checkpoint| {
            if done {
                old.clone_from(&checkpoint);
            }
            new = checkpoint;
        });
        let Err(error) = ended else {
            // A removal may fail in silence; the last operation of all is one.
            if disk.operations() < nth {
                assert!(in_doubt > 5, "{in_doubt}");
                return;
            }
            continue;
        };
        in_doubt += usize::from(matches!(error, CheckpointError::Disk { in_doubt: true, .. }));
        for seed in 0..8 {
            let disk = disk.fork(seed);
            disk.power_cut(Survivors::Some);
            let now = found(&disk).unwrap_or_else(|error| panic!("operation {nth}: {error}"));
            assert!(now == old || now == new, "operation {nth}");
        }
    }
    panic!("it does not end");
}

#[test]
fn a_commit_in_doubt_stops_the_store_until_it_is_opened_again() {
    let disk = small();
    let (mut store, last) = CheckpointStore::open(shared(&disk)).unwrap();
    let next = manifest(6, &last.unwrap().runs);
    disk.fail_at(disk.operations() + 5, Fault::Error);
    assert!(matches!(store.commit(&next), Err(CheckpointError::Disk { in_doubt: true, .. })));
    let operations = disk.operations();
    assert!(store.commit(&next).is_err() && write(&mut store, 0, 0, []).is_err() && store.clear().is_err());
    assert_eq!(disk.operations(), operations);
    assert!(found(&disk).unwrap().is_some());
}

#[test]
fn a_manifest_names_only_runs_that_are_there() {
    let disk: SharedDisk = Arc::new(MemoryDisk::new());
    let (mut store, _) = CheckpointStore::open(disk.clone()).unwrap();
    let run = write(&mut store, 1, 1, blocks(0..1)).unwrap();
    for wrong in [RunMeta { bytes: 5, ..run }, RunMeta { blocks: 2, ..run }] {
        let error = store.commit(&manifest(1, &[wrong])).unwrap_err();
        assert!(matches!(error, CheckpointError::UnknownRun { run: id } if id == run.id));
    }
    store.commit(&manifest(1, &[])).unwrap();
    store.commit(&manifest(2, &[run])).expect("a run that was written waits for its manifest");
    store.commit(&manifest(3, &[])).unwrap();
    assert!(store.commit(&manifest(4, &[run])).is_err(), "gone");
    assert!(store.read_run(&run).is_err());
}

/// Has a file say that it is of another format.
fn claim_format(disk: &FaultyDisk, path: &str, format: u32) {
    let (crc_at, crc_of) = match path {
        MANIFEST => (16, None),
        _ => (20, Some(20)),
    };
    let mut bytes = disk.contents(path).unwrap();
    bytes[8..12].copy_from_slice(&format.to_le_bytes());
    let crc = match crc_of {
        Some(end) => crc32c::crc32c(&bytes[..end]),
        None => crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[20..]),
    };
    bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    disk.misdirect(path, 0, &bytes);
}

const MANIFEST: &str = "store/MANIFEST";

#[test]
fn m3_earlier_formats_of_manifests_are_read_and_not_written() {
    for format in [1, 2] {
        let disk = small();
        let before = found(&disk).unwrap();
        let written = disk.contents(MANIFEST).unwrap();
        claim_format(&disk, MANIFEST, format);
        assert_ne!(disk.contents(MANIFEST).unwrap(), written);
        assert_eq!(found(&disk).unwrap(), before);
        let (mut store, manifest) = CheckpointStore::open(shared(&disk)).unwrap();
        store.commit(&manifest.unwrap()).unwrap();
        assert_eq!(disk.contents(MANIFEST).unwrap(), written);
    }
}

/// Lengths of blocks that end before, at and behind the end of what is read ahead; one is larger than that.
const LENGTHS: [usize; 7] = [600_000, 0, 448_544, 17, 3_000_000, 1, 1_048_568];

#[test]
fn single_blocks_are_read_whatever_became_of_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = FaultyDisk::new(1);
    let disks: [SharedDisk; 3] = [
        Arc::new(synod_storage::disk::RealDisk::new(dir.path())),
        Arc::new(MemoryDisk::new()),
        Arc::new(faulty.clone()),
    ];
    for disk in disks {
        let (mut store, _) = CheckpointStore::open(disk).unwrap();
        let contents: Contents = LENGTHS.iter().zip(1..).map(|(&len, key)| block(key, len)).collect();
        let (run, written) = store.write_run(0, 9, contents.iter().cloned().map(Ok)).unwrap();
        store.commit(&manifest(1, &[run])).unwrap();
        let mut reader = store.read_run(&run).unwrap();
        assert!(reader.by_ref().map(Result::unwrap).eq(contents.iter().cloned()));
        let read = reader.into_blocks().expect("all were read");
        store.commit(&manifest(2, &[])).unwrap();
        assert!(store.read_run(&run).is_err(), "it is gone");
        for blocks in [written, read] {
            assert_eq!(blocks.count(), LENGTHS.len() as u64);
            for number in [3, 0, 6, 1, 5, 2, 4] {
                assert_eq!(blocks.read(number as u64).unwrap(), contents[number]);
            }
        }
    }
}

#[test]
fn d2_a_single_block_that_rotted_is_damage_and_one_that_cannot_be_read_is_not() {
    let disk = FaultyDisk::new(1);
    let (mut store, _) = CheckpointStore::open(shared(&disk)).unwrap();
    let contents = blocks(0..5);
    let (run, blocks) = store.write_run(0, 9, contents.iter().cloned().map(Ok)).unwrap();
    let path = format!("store/{}", run.id);
    // The head of the file, then the first block, of ten bytes, behind its own head; and so on.
    let second = 24 + 8 + 10;
    for place in second..second + 8 + 160 {
        disk.rot(&path, place, 1);
        assert!(is_damage(&blocks.read(1).unwrap_err()), "byte {place}");
        assert_eq!(blocks.read(2).unwrap(), contents[2]);
        disk.rot(&path, place, 1);
        assert_eq!(blocks.read(1).unwrap(), contents[1]);
    }
    disk.set_rates(FaultRates { read_error: 10_000, ..FaultRates::default() });
    assert!(matches!(blocks.read(1), Err(CheckpointError::Disk { in_doubt: false, .. })));
    disk.set_rates(FaultRates::default());
    assert_eq!(blocks.read(1).unwrap(), contents[1]);
}

#[test]
fn a_run_whose_blocks_cannot_be_had_is_not_written() {
    let disk = FaultyDisk::new(1);
    let (mut store, _) = CheckpointStore::open(shared(&disk)).unwrap();
    let missing = || CheckpointError::DamagedContents { why: "for a test".into() };
    let error = store.write_run(0, 9, [Ok(block(1, 100)), Err(missing())]).err().expect("it is not whole");
    assert!(matches!(error, CheckpointError::DamagedContents { .. }), "{error}");
    assert!(disk.paths().iter().all(|path| !path.ends_with(".run")), "what was begun is removed");
    let mut reader = {
        let run = write(&mut store, 0, 9, blocks(0..3)).unwrap();
        store.read_run(&run).unwrap()
    };
    reader.next().unwrap().unwrap();
    assert!(reader.into_blocks().is_none(), "not all were read");
}

#[test]
fn m3_newer_formats_are_refused_and_left_alone() {
    for path in [MANIFEST, "store/0000000000000001.run"] {
        let disk = small();
        claim_format(&disk, path, 9);
        let files: Vec<_> = disk.paths().iter().map(|path| disk.contents(path)).collect();
        let error = found(&disk).unwrap_err();
        assert!(matches!(error, CheckpointError::Format { found: 9, .. }), "{error}");
        assert_eq!(files, disk.paths().iter().map(|path| disk.contents(path)).collect::<Vec<_>>());
    }
}

#[test]
fn large_runs_are_written_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let disk: SharedDisk = Arc::new(synod_storage::disk::RealDisk::new(dir.path()));
    let (mut store, _) = CheckpointStore::open(disk.clone()).unwrap();
    let run = write(&mut store, 0, 0, (0..40u64).map(|key| block(key, 300_000))).unwrap();
    assert_eq!(run.bytes, 40 * 300_000);
    store.commit(&manifest(1, &[run])).unwrap();
    let (store, last) = CheckpointStore::open(disk).unwrap();
    let last = last.unwrap();
    for (key, found) in store.read_run(&last.runs[0]).unwrap().enumerate() {
        assert_eq!(found.unwrap(), block(key as u64, 300_000));
    }
}

//! The reader of checkpoints: a manifest, and the runs that it names.
//!
//! ```text
//!   input = how: rot or forgery, faults
//! ```

use super::Outcome::{Refused, Understood};
use super::damage::{Image, reseal_small};
use super::input::Input;
use super::{Outcome, bounded};
use bytes::Bytes;
use std::sync::{Arc, OnceLock};
use synod_paxos::types::Prefix;
use synod_storage::checkpoint::{CheckpointError, CheckpointStore, Manifest, RunMeta};
use synod_storage::disk::{MemoryDisk, SharedDisk};

/// Opens a damaged checkpoint and reads all of it.
///
/// After rot it is the one that was committed, block for block, or damaged; none only if the manifest is gone.
/// After forgery it is whatever it says, within the bytes that are there. A store that opened takes another
/// checkpoint, and one that did not can be thrown away and used again.
pub fn checkpoint(data: &[u8]) -> Outcome {
    let mut input = Input::new(bounded(data));
    let good = committed();
    let mut image = good.image.clone();
    let rot = input.u8().is_multiple_of(2);
    let changed = if rot { image.rot(input, None) > 0 } else { image.forge(input, reseal) };
    let bytes: usize = image.files.values().map(Vec::len).sum();
    let disk = image.disk();
    let damage = match CheckpointStore::open(disk.clone()) {
        Ok((mut store, manifest)) => match read(&store, manifest.as_ref(), bytes) {
            Ok(blocks) => {
                let gone = !image.files.contains_key("store/MANIFEST");
                assert_eq!(manifest.is_none(), gone, "overlooked, or from nowhere");
                if rot && !gone {
                    assert_eq!((manifest.as_ref(), &blocks), (Some(&good.manifest), &good.blocks));
                }
                goes_on(&mut store, &disk, manifest.map(|manifest| manifest.runs).unwrap_or_default());
                return if gone { Refused } else { Understood };
            }
            Err(error) => error,
        },
        Err(error) => error,
    };
    assert!(changed, "a good checkpoint was refused: {damage}");
    let format = matches!(damage, CheckpointError::Format { .. });
    let damaged =
        matches!(damage, CheckpointError::DamagedManifest { .. } | CheckpointError::DamagedRun { .. });
    assert!(format && !rot || damaged, "{damage}");
    let mut store = CheckpointStore::reset(disk.clone()).expect("a disk in memory does not fail");
    goes_on(&mut store, &disk, Vec::new());
    Refused
}

/// All blocks of all runs.
fn read(
    store: &CheckpointStore,
    manifest: Option<&Manifest>,
    most: usize,
) -> Result<Vec<Vec<Bytes>>, CheckpointError> {
    let mut all = Vec::new();
    for run in manifest.iter().flat_map(|manifest| &manifest.runs) {
        let blocks = store.read_run(run)?.collect::<Result<Vec<Bytes>, _>>()?;
        let bytes: usize = blocks.iter().map(Bytes::len).sum();
        assert!(bytes <= most && blocks.len() <= most, "more than there is on the disk");
        all.push(blocks);
    }
    Ok(all)
}

/// Commits another checkpoint, with one run more.
fn goes_on(store: &mut CheckpointStore, disk: &SharedDisk, mut runs: Vec<RunMeta>) {
    let blocks = [Bytes::from_static(b"more"), Bytes::new()];
    let (run, _) = store.write_run(90, 91, blocks.clone().map(Ok)).expect("a disk in memory does not fail");
    assert!(runs.iter().all(|old| old.id != run.id), "{} serves twice", run.id);
    runs.push(run);
    let manifest = Manifest { covered: Prefix(91), meta: Bytes::from_static(b"new"), runs };
    store.commit(&manifest).expect("it names runs that are there");
    let (store, found) = CheckpointStore::open(disk.clone()).expect("just committed");
    assert_eq!(found.as_ref(), Some(&manifest));
    let last = store.read_run(&run).expect("just written");
    assert_eq!(last.collect::<Result<Vec<_>, _>>().expect("just written"), blocks);
}

fn reseal(path: &str, bytes: &mut [u8]) {
    if path.ends_with("MANIFEST") {
        reseal_small(bytes);
    }
}

struct Committed {
    image: Image,
    manifest: Manifest,
    blocks: Vec<Vec<Bytes>>,
}

fn committed() -> &'static Committed {
    static COMMITTED: OnceLock<Committed> = OnceLock::new();
    COMMITTED.get_or_init(|| {
        let disk: SharedDisk = Arc::new(MemoryDisk::new());
        let mut store = CheckpointStore::reset(disk.clone()).expect("an empty disk");
        let block = |byte, len| Bytes::from(vec![byte; len]);
        let blocks = vec![vec![block(1, 700), block(2, 3), block(3, 0)], vec![block(4, 100)], vec![]];
        let runs = blocks.iter().zip(1..).map(|(blocks, key)| {
            let run = store.write_run(key, key, blocks.iter().cloned().map(Ok));
            run.expect("a disk in memory does not fail").0
        });
        let runs = runs.collect();
        let manifest = Manifest { covered: Prefix(12), meta: Bytes::from_static(b"meta"), runs };
        store.commit(&manifest).expect("a disk in memory does not fail");
        // One that no manifest names, as a crash leaves it.
        store.write_run(9, 9, [Ok(block(5, 50))]).expect("a disk in memory does not fail");
        Committed { image: Image::of(&*disk, &["store"]), manifest, blocks }
    })
}

//! The learner's durable side: the applied state, written to disk in the background and read at the start.
//!
//! Taking a checkpoint costs the learner a moment: the store's maps are shared with the writer, not copied.
//! The writer has a thread of its own for the length of one checkpoint.

use super::host::Job;
use super::shared::Shared;
use super::{State, answer};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use synod_kv::{Restore, Store};
use synod_paxos::machine::Machine;
use synod_paxos::types::Prefix;
use synod_storage::checkpoint::{CheckpointError, CheckpointStore, Manifest};

/// The size of one block of a run, and of one piece on its way to a peer, in bytes.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;

/// What was on disk, or the beginning of everything.
pub(crate) struct Loaded {
    pub(crate) state: State,
    pub(crate) durable: Prefix,
}

/// See the module.
pub(crate) struct Checkpointer {
    /// Here, or with the writer.
    store: Option<CheckpointStore>,
    writer: Option<Writer>,
    /// Why no more checkpoints are written in this life.
    broken: bool,
}

/// A checkpoint that is being written.
struct Writer {
    job: Box<dyn Job>,
    written: Receiver<(CheckpointStore, Result<Prefix, CheckpointError>)>,
}

impl Checkpointer {
    /// Reads what is on disk. A checkpoint that is damaged is thrown away: the peers have better ones.
    pub(crate) fn open(shared: &Shared, forget: bool) -> Result<(Checkpointer, Loaded), String> {
        let disk = shared.home.disk();
        let reset = || CheckpointStore::reset(shared.home.disk()).map_err(|error| error.to_string());
        let (store, loaded) = if forget {
            (reset()?, None)
        } else {
            match CheckpointStore::open(disk).and_then(load) {
                Ok(opened) => opened,
                Err(error) if error.is_damage() => {
                    tracing::error!(%error, "the checkpoint is damaged: another will be fetched");
                    (reset()?, None)
                }
                // What cannot be read now may be whole. This acceptor has trimmed on its account: to throw it away
                // would be to forget.
                Err(error) => return Err(error.to_string()),
            }
        };
        let loaded = match loaded {
            Some(loaded) => loaded,
            None => {
                let genesis = shared.genesis.get().ok_or("the learner started before there was a cluster")?;
                let state = State { store: Store::new(), machine: Machine::genesis(genesis) };
                Loaded { state, durable: Prefix::EMPTY }
            }
        };
        Ok((Checkpointer { store: Some(store), writer: None, broken: false }, loaded))
    }

    /// Is one being written?
    pub(crate) fn busy(&self) -> bool {
        self.writer.is_some()
    }

    /// Writes the state as it is now, in the background.
    pub(crate) fn start(&mut self, shared: &Arc<Shared>) {
        let Some(snapshot) = Snapshot::take(shared).filter(|_| !self.broken) else { return };
        let Some(mut store) = self.store.take() else { return };
        let (result, written) = channel();
        let job = move || {
            let covered = write(&mut store, snapshot);
            let _ = result.send((store, covered)); // the learner may be gone
        };
        match shared.host.begin("checkpoint", Box::new(job)) {
            Ok(job) => self.writer = Some(Writer { job, written }),
            Err(error) => {
                tracing::error!(%error, "no thread for a checkpoint");
                self.broken = true; // the store went with the thread that never was
            }
        }
    }

    /// Writes this state while the caller waits, behind a checkpoint that is under way.
    pub(crate) fn write_now(&mut self, snapshot: Snapshot) -> Result<Prefix, String> {
        self.collect()?;
        let store = self.store.as_mut().ok_or("checkpoints can no longer be written")?;
        write(store, snapshot).map_err(|error| error.to_string())
    }

    /// How far the disk covers, if a checkpoint was just completed. An error if none can be written any more in
    /// this life: another one may open the files afresh.
    pub(crate) fn poll(&mut self) -> Result<Option<Prefix>, String> {
        if self.broken {
            return Err("checkpoints can no longer be written".into());
        }
        if !self.writer.as_ref().is_some_and(|writer| writer.job.is_finished()) {
            return Ok(None);
        }
        self.collect()
    }

    fn collect(&mut self) -> Result<Option<Prefix>, String> {
        let Some(writer) = self.writer.take() else { return Ok(None) };
        writer.job.join();
        let (store, result) = writer.written.try_recv().map_err(|_| "the writer of checkpoints panicked")?;
        self.store = Some(store);
        match result {
            Ok(covered) => Ok(Some(covered)),
            Err(error @ CheckpointError::Disk { in_doubt: true, .. }) => Err(error.to_string()),
            Err(error) => {
                // The learner serves on; the log grows until there is room, or somebody looks.
                tracing::error!(%error, "no checkpoint was written");
                Ok(None)
            }
        }
    }
}

/// Waits for the writer however a life ends, so that no two lives write at once.
impl Drop for Checkpointer {
    fn drop(&mut self) {
        let _ = self.collect(); // nobody is left to be told
    }
}

/// The applied state at one slot, shared with the learner and not copied.
pub(crate) struct Snapshot {
    /// Everything up to here is in it.
    pub(crate) covered: Prefix,
    /// Membership and sessions.
    pub(crate) machine: Bytes,
    /// The store.
    pub(crate) store: synod_kv::Snapshot,
}

impl Snapshot {
    /// The state as it is now; none while there is none.
    pub(crate) fn take(shared: &Shared) -> Option<Snapshot> {
        shared.read_state().as_ref().map(Snapshot::of)
    }

    /// This state.
    pub(crate) fn of(state: &State) -> Snapshot {
        let machine = state.machine.encode(answer::encode);
        Snapshot { covered: state.machine.applied(), machine, store: state.store.snapshot() }
    }
}

fn write(store: &mut CheckpointStore, snapshot: Snapshot) -> Result<Prefix, CheckpointError> {
    let revision = snapshot.store.revision().0;
    let run = store.write_run(0, revision, snapshot.store.chunks(BLOCK_BYTES))?;
    store.commit(&Manifest { covered: snapshot.covered, meta: snapshot.machine, runs: vec![run] })?;
    Ok(snapshot.covered)
}

/// What an opened store holds.
fn load(
    (store, manifest): (CheckpointStore, Option<Manifest>),
) -> Result<(CheckpointStore, Option<Loaded>), CheckpointError> {
    let Some(manifest) = manifest else { return Ok((store, None)) };
    let mut restore = Restore::new();
    for run in &manifest.runs {
        for block in store.read_run(run)? {
            restore.push(block?).map_err(|error| unusable(&error))?;
        }
    }
    let state = restore.finish().map_err(|error| unusable(&error))?;
    let machine = read_machine(manifest.meta.clone()).map_err(|error| unusable(&error))?;
    let state = State::of(state, machine, manifest.covered).map_err(|error| unusable(&error))?;
    Ok((store, Some(Loaded { state, durable: manifest.covered })))
}

fn unusable(why: &dyn std::fmt::Display) -> CheckpointError {
    CheckpointError::DamagedContents { why: why.to_string() }
}

/// Membership and sessions from their form in a checkpoint.
pub(crate) fn read_machine(bytes: Bytes) -> Result<Machine<super::Answer>, String> {
    Machine::decode(bytes, answer::decode).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use synod_paxos::membership::Genesis;
    use synod_paxos::types::{ClusterId, Slot, Window};
    use synod_storage::disk::{FaultRates, FaultyDisk, SharedDisk};

    /// A disk that holds a checkpoint of slot 1.
    fn disk() -> (FaultyDisk, SharedDisk) {
        let genesis = Genesis { cluster: ClusterId(1), window: Window::new(4), members: BTreeMap::new() };
        let mut machine = Machine::genesis(&genesis);
        machine.advance(Slot(1));
        let state = State { store: Store::new(), machine };
        let faulty = FaultyDisk::new(1);
        let disk: SharedDisk = Arc::new(faulty.clone());
        let mut store = CheckpointStore::reset(Arc::clone(&disk)).unwrap();
        write(&mut store, Snapshot::of(&state)).unwrap();
        (faulty, disk)
    }

    #[test]
    fn d4_a_disk_that_cannot_be_read_now_has_lost_nothing() {
        let (faulty, disk) = disk();
        let opened = CheckpointStore::open(Arc::clone(&disk)).unwrap();
        faulty.set_rates(FaultRates { read_error: 10_000, ..FaultRates::default() });
        let error = load(opened).err().expect("every read fails");
        assert!(!error.is_damage(), "what may be whole is not thrown away: {error}");

        faulty.set_rates(FaultRates::default());
        let (_, loaded) = CheckpointStore::open(disk).and_then(load).unwrap();
        assert_eq!(loaded.map(|loaded| loaded.durable), Some(Prefix(1)));
    }

    #[test]
    fn d2_a_block_that_rotted_is_damage() {
        let (faulty, disk) = disk();
        let run = faulty.paths().into_iter().find(|path| path.ends_with(".run")).unwrap();
        let opened = CheckpointStore::open(disk).unwrap();
        faulty.rot(&run, faulty.contents(&run).unwrap().len() / 2, 4);
        let error = load(opened).err().expect("the checksum is wrong");
        assert!(error.is_damage(), "{error}");
    }
}

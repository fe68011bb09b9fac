//! The learner's durable side: the applied state, written to disk in the background and read at the start.
//!
//! Taking a checkpoint costs the learner a moment: the store's maps are shared with the writer, not copied.
//! The writer has a thread of its own for the length of one checkpoint.
//!
//! A checkpoint writes what changed since the last one, as a run behind the runs of that one. Now and then it writes
//! the whole store instead, and drops the others: when too much in them is dead, or they are too many, or what
//! changed is not known, because the state came from another replica or nothing was written yet.

use super::host::Job;
use super::shared::Shared;
use super::{State, answer};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use synod_kv::{Head, Restore, Revision, Store};
use synod_paxos::machine::Machine;
use synod_paxos::types::Prefix;
use synod_storage::checkpoint::{CheckpointError, CheckpointStore, Manifest, RunMeta};

/// The size of one block of a run, and of one piece on its way to a peer, in bytes.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;

/// A checkpoint has no more runs than this: each is a file to open, and some bytes of the manifest.
const MAX_RUNS: usize = 64;

/// What was on disk, or the beginning of everything.
pub(crate) struct Loaded {
    pub(crate) state: State,
    pub(crate) durable: Prefix,
}

/// See the module.
pub(crate) struct Checkpointer {
    /// Here, or with the writer.
    files: Option<Files>,
    writer: Option<Writer>,
    /// Why no more checkpoints are written in this life.
    broken: bool,
}

/// A checkpoint that is being written.
struct Writer {
    job: Box<dyn Job>,
    written: Receiver<(Files, Result<Written, CheckpointError>)>,
}

/// The files, and what the checkpoint in them consists of.
struct Files {
    store: CheckpointStore,
    /// Its runs, in their order.
    runs: Vec<RunMeta>,
    /// The state that they make together; none before the first checkpoint.
    head: Option<Head>,
    /// How many bytes of what is dead may lie in the runs whatever the store's size.
    slack: u64,
}

/// A checkpoint that was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// The slots that it covers.
    pub(crate) covered: Prefix,
    /// The store's revision in it.
    pub(crate) revision: Revision,
    /// How many runs it consists of.
    pub(crate) runs: usize,
    /// How many the one before consisted of.
    pub(crate) runs_before: usize,
}

impl Checkpointer {
    /// Reads what is on disk. A checkpoint that is damaged is thrown away: the peers have better ones.
    pub(crate) fn open(shared: &Shared, forget: bool) -> Result<(Checkpointer, Loaded), String> {
        let disk = shared.home.disk();
        let slack = shared.config.checkpoint_bytes;
        let reset = || {
            let store = CheckpointStore::reset(shared.home.disk()).map_err(|error| error.to_string())?;
            Ok::<Files, String>(Files { store, runs: Vec::new(), head: None, slack })
        };
        let (files, loaded) = if forget {
            (reset()?, None)
        } else {
            match CheckpointStore::open(disk).and_then(|opened| load(opened, slack)) {
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
        Ok((Checkpointer { files: Some(files), writer: None, broken: false }, loaded))
    }

    /// Is one being written?
    pub(crate) fn busy(&self) -> bool {
        self.writer.is_some()
    }

    /// Writes the state as it is now, in the background.
    pub(crate) fn start(&mut self, shared: &Arc<Shared>) {
        let Some(snapshot) = Snapshot::to_write(shared).filter(|_| !self.broken) else { return };
        let Some(mut files) = self.files.take() else { return };
        let (result, written) = channel();
        let job = move || {
            let outcome = files.write(snapshot);
            let _ = result.send((files, outcome)); // the learner may be gone
        };
        match shared.host.begin("checkpoint", Box::new(job)) {
            Ok(job) => self.writer = Some(Writer { job, written }),
            Err(error) => {
                tracing::error!(%error, "no thread for a checkpoint");
                self.broken = true; // the files went with the thread that never was
            }
        }
    }

    /// Writes this state while the caller waits, behind a checkpoint that is under way. Its store holds tombstones.
    pub(crate) fn write_now(&mut self, snapshot: Snapshot) -> Result<Written, String> {
        self.collect()?;
        let files = self.files.as_mut().ok_or("checkpoints can no longer be written")?;
        files.write(snapshot).map_err(|error| error.to_string())
    }

    /// What was written, if a checkpoint was just completed. An error if none can be written any more in this life:
    /// another one may open the files afresh.
    pub(crate) fn poll(&mut self) -> Result<Option<Written>, String> {
        if self.broken {
            return Err("checkpoints can no longer be written".into());
        }
        if !self.writer.as_ref().is_some_and(|writer| writer.job.is_finished()) {
            return Ok(None);
        }
        self.collect()
    }

    fn collect(&mut self) -> Result<Option<Written>, String> {
        let Some(writer) = self.writer.take() else { return Ok(None) };
        writer.job.join();
        let (files, result) = writer.written.try_recv().map_err(|_| "the writer of checkpoints panicked")?;
        self.files = Some(files);
        match result {
            Ok(written) => Ok(Some(written)),
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

    /// The state as it is now, which checkpoints to come may continue. To be called by the learner, who alone changes it.
    pub(crate) fn to_write(shared: &Shared) -> Option<Snapshot> {
        // Two locks in a row, so that readers need not wait while the machine is spelled out.
        shared.write_state().as_mut()?.store.hold_tombstones();
        Snapshot::take(shared)
    }

    /// This state.
    pub(crate) fn of(state: &State) -> Snapshot {
        let machine = state.machine.encode(answer::encode);
        Snapshot { covered: state.machine.applied(), machine, store: state.store.snapshot() }
    }
}

impl Files {
    /// Makes this state the checkpoint: by what changed, if that will do.
    fn write(&mut self, snapshot: Snapshot) -> Result<Written, CheckpointError> {
        let Snapshot { covered, machine, store } = snapshot;
        let (head, runs_before) = (store.head(), self.runs.len());
        let part = self.head.filter(|_| self.takes_another(&store));
        let part = part.and_then(|after| Some((after, store.part(after, BLOCK_BYTES)?)));
        let mut runs = self.runs.clone();
        match part {
            Some((after, _)) if after == head => {} // only slots went by
            Some((after, blocks)) => {
                runs.push(self.store.write_run(after.revision.0 + 1, head.revision.0, blocks)?);
            }
            None => runs = vec![self.store.write_run(0, head.revision.0, store.chunks(BLOCK_BYTES))?],
        }
        self.store.commit(&Manifest { covered, meta: machine, runs: runs.clone() })?;
        (self.runs, self.head) = (runs, Some(head));
        Ok(Written { covered, revision: head.revision, runs: self.runs.len(), runs_before })
    }

    /// May there be one more run, beside this store? A start reads them all, so what is dead in them must not be much
    /// more than what is alive; and since a run takes less than the store estimates of itself, a whole image is due
    /// only after changes that are larger than it.
    fn takes_another(&self, store: &synod_kv::Snapshot) -> bool {
        let bytes: u64 = self.runs.iter().map(|run| run.bytes).sum();
        self.runs.len() < MAX_RUNS && bytes <= 2 * store.stats().bytes_total + self.slack
    }
}

/// What an opened store holds.
fn load(
    (store, manifest): (CheckpointStore, Option<Manifest>),
    slack: u64,
) -> Result<(Files, Option<Loaded>), CheckpointError> {
    let Some(manifest) = manifest else {
        return Ok((Files { store, runs: Vec::new(), head: None, slack }, None));
    };
    let mut restore = Restore::new();
    for (number, run) in manifest.runs.iter().enumerate() {
        if number > 0 {
            restore.next_part().map_err(|error| unusable(&error))?;
        }
        for block in store.read_run(run)? {
            restore.push(block?).map_err(|error| unusable(&error))?;
        }
    }
    let mut restored = restore.finish().map_err(|error| unusable(&error))?;
    restored.hold_tombstones(); // the next checkpoint continues this one
    let head = Some(restored.head());
    let machine = read_machine(manifest.meta).map_err(|error| unusable(&error))?;
    let state = State::of(restored, machine, manifest.covered).map_err(|error| unusable(&error))?;
    let files = Files { store, runs: manifest.runs, head, slack };
    Ok((files, Some(Loaded { state, durable: manifest.covered })))
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
    use synod_kv::{CompactRequest, DeleteRangeRequest, KeyRange, PutRequest, Request};
    use synod_paxos::membership::Genesis;
    use synod_paxos::types::{ClusterId, Window};
    use synod_storage::disk::{Disk, FaultRates, FaultyDisk, MemoryDisk, SharedDisk};

    const SLACK: u64 = 1_000;

    fn state() -> State {
        let genesis = Genesis { cluster: ClusterId(1), window: Window::new(4), members: BTreeMap::new() };
        State { store: Store::new(), machine: Machine::genesis(&genesis) }
    }

    fn files(disk: &SharedDisk) -> Files {
        let store = CheckpointStore::reset(Arc::clone(disk)).unwrap();
        Files { store, runs: Vec::new(), head: None, slack: SLACK }
    }

    fn open(disk: &SharedDisk) -> Result<(Files, Option<Loaded>), CheckpointError> {
        CheckpointStore::open(Arc::clone(disk)).and_then(|opened| load(opened, SLACK))
    }

    /// Applies a request, and a slot goes by.
    fn apply(state: &mut State, request: &Request) {
        state.store.apply(request).unwrap();
        let slot = state.machine.applied().next();
        state.machine.advance(slot);
    }

    fn put(state: &mut State, key: &str, bytes: usize) {
        apply(state, &Request::Put(PutRequest::new(key.to_owned(), vec![7; bytes])));
    }

    /// What the learner does when a checkpoint is due.
    fn write(files: &mut Files, state: &mut State) -> Written {
        state.store.hold_tombstones();
        let written = files.write(Snapshot::of(state)).unwrap();
        state.store.release_tombstones(written.revision);
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
        let image = |state: &State| state.store.snapshot().chunks(1 << 20).collect::<Vec<_>>();
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
        let blocks = snapshot.store.chunks(BLOCK_BYTES).collect();
        let (covered, machine) = (snapshot.covered, snapshot.machine);
        let mut state = State::restore(super::super::Checkpoint { covered, machine, blocks }).unwrap();
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
        let opened = CheckpointStore::open(Arc::clone(&disk)).unwrap();
        faulty.set_rates(FaultRates { read_error: 10_000, ..FaultRates::default() });
        let error = load(opened, SLACK).err().expect("every read fails");
        assert!(!error.is_damage(), "what may be whole is not thrown away: {error}");

        faulty.set_rates(FaultRates::default());
        let (_, loaded) = open(&disk).unwrap();
        assert_eq!(loaded.map(|loaded| loaded.durable), Some(Prefix(1)));
    }

    #[test]
    fn d2_a_block_that_rotted_is_damage() {
        let (faulty, disk) = disk();
        let run = faulty.paths().into_iter().find(|path| path.ends_with(".run")).unwrap();
        let opened = CheckpointStore::open(disk).unwrap();
        faulty.rot(&run, faulty.contents(&run).unwrap().len() / 2, 4);
        let error = load(opened, SLACK).err().expect("the checksum is wrong");
        assert!(error.is_damage(), "{error}");
    }
}

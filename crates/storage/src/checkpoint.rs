//! What the state machine holds, on disk, so that the log may be trimmed.
//!
//! A checkpoint is a short list of *runs* and a *manifest* that names them. A run is an immutable file of
//! blocks, opaque here, in the order of some key (for synod, the revision). What changed since the last
//! checkpoint goes into a new run; the others stay as they are. When too much of them is dead, their owner writes
//! the rest to a new run and leaves the old ones out of the next manifest. So a checkpoint costs what changed,
//! nothing is ever rewritten in place, and space comes back as soon as a manifest no longer names a file.
//!
//! ```text
//!   store/MANIFEST                covers the log up to slot 812: runs 3, 7, 8, and the protocol's state
//!   store/0000000000000003.run    revisions 1 to 9,000, a third of them dead
//!   store/0000000000000007.run    revisions 9,001 to 12,000
//!   store/0000000000000008.run    revisions 12,001 to 12,040
//!   store/0000000000000009.run    being written; not part of anything yet
//! ```
//!
//! The manifest is replaced atomically, after the runs it names are durable and before those it no longer
//! names are deleted. Whatever is damaged can be fetched from a peer: nothing here is a promise.

mod run;

pub use run::{RunBlocks, RunReader};

use crate::disk::{SharedDisk, is_full};
use crate::small::{NotReplaced, SmallFile, Unreadable};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use synod_paxos::types::Prefix;
use synod_paxos::wire::{DecodeError, Reader, Writer};

/// Of runs.
const FORMAT: u32 = 1;

/// Formats 1 and 2 are the same, but those who wrote format 1 knew of checkpoints of one run only, and those who wrote
/// format 2 of no part that buries a key twice. They would take that for damage.
const MANIFEST: SmallFile =
    SmallFile { dir: "store", name: "MANIFEST", magic: b"synodman", format: 3, oldest: 1 };

/// The largest block, in bytes.
pub const MAX_BLOCK_BYTES: usize = 1 << 30;

/// Names a run, within one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

impl RunId {
    fn path(self) -> String {
        format!("store/{self}")
    }

    fn of(name: &str) -> Option<RunId> {
        let digits = name.strip_suffix(".run").filter(|digits| digits.len() == 16)?;
        u64::from_str_radix(digits, 16).ok().map(RunId)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.run", self.0)
    }
}

/// What is known of a run without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunMeta {
    /// Its name.
    pub id: RunId,
    /// The lowest key inside.
    pub first: u64,
    /// The highest key inside.
    pub last: u64,
    /// How many blocks it has.
    pub blocks: u64,
    /// Their length, in bytes.
    pub bytes: u64,
    /// How many of these bytes still matter. All, when it is written; its owner keeps count from manifest to
    /// manifest.
    pub live_bytes: u64,
}

/// A checkpoint: everything up to a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The slots it covers.
    pub covered: Prefix,
    /// The state of the protocol, and the head of the store's; opaque here.
    pub meta: Bytes,
    /// The runs, in the order in which they are to be read.
    pub runs: Vec<RunMeta>,
}

/// Why a checkpoint cannot be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The manifest is not what was written. [Reset](CheckpointStore::reset) the store and fetch a checkpoint
    /// from a peer.
    #[error("the checkpoint's manifest is damaged: {why}")]
    DamagedManifest {
        /// How one can tell.
        why: String,
    },
    /// A run is not what was written, or is missing. [Reset](CheckpointStore::reset) the store and fetch a
    /// checkpoint from a peer.
    #[error("run {run} is damaged: {why}")]
    DamagedRun {
        /// The run.
        run: RunId,
        /// How one can tell.
        why: &'static str,
    },
    /// Every byte is as it was written, but together they make no sense to their owner. [Reset](CheckpointStore::reset)
    /// the store and fetch a checkpoint from a peer.
    #[error("the checkpoint's contents are damaged: {why}")]
    DamagedContents {
        /// How their owner can tell.
        why: String,
    },
    /// Written by another release. Nothing was changed; run that release.
    #[error("{file} has format {found}, which this release does not read")]
    Format {
        /// The file.
        file: String,
        /// Its format.
        found: u32,
    },
    /// A manifest was to be committed that names a run which this store does not have. Nothing was changed.
    #[error("run {run} is not in this store")]
    UnknownRun {
        /// The run.
        run: RunId,
    },
    /// A block larger than [`MAX_BLOCK_BYTES`]. Nothing was changed.
    #[error("a block of {bytes} bytes is too large")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// There is no space. The last checkpoint is as it was; try again when there is some.
    #[error("no space left for a checkpoint while {doing}")]
    Full {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        error: Arc<io::Error>,
    },
    /// The disk failed. If `in_doubt`, a restart may find the new checkpoint or the old one, and the store does
    /// nothing more until then; otherwise the last checkpoint is as it was.
    #[error("a checkpoint: {doing} failed: {error}")]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        error: Arc<io::Error>,
        /// May the change have taken place?
        in_doubt: bool,
    },
}

impl CheckpointError {
    /// Is what was written gone for good, whatever the disk does next? Other errors say nothing of that.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            CheckpointError::DamagedManifest { .. }
                | CheckpointError::DamagedRun { .. }
                | CheckpointError::DamagedContents { .. }
        )
    }
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> CheckpointError {
    move |error| {
        let full = is_full(&error);
        let error = Arc::new(error);
        match full {
            true => CheckpointError::Full { doing, error },
            false => CheckpointError::Disk { doing, error, in_doubt: false },
        }
    }
}

/// The checkpoints of one replica: one that counts, and runs that may become part of the next.
pub struct CheckpointStore {
    disk: SharedDisk,
    /// The runs of the checkpoint.
    committed: BTreeMap<RunId, RunMeta>,
    /// Durable, but not part of a checkpoint.
    written: BTreeMap<RunId, RunMeta>,
    next: RunId,
    /// A commit of unknown outcome.
    doubt: Option<CheckpointError>,
}

impl CheckpointStore {
    /// Opens the store on `disk`, with its checkpoint, if it has one. Files that are not part of it are removed.
    /// Of the runs, presence, length, head and foot are checked here, and every block when it is read.
    ///
    /// # Errors
    /// When there is a checkpoint that cannot be used.
    pub fn open(disk: SharedDisk) -> Result<(CheckpointStore, Option<Manifest>), CheckpointError> {
        disk.create_dir("store").map_err(failed("making its directory"))?;
        let manifest = MANIFEST.load(&disk).map_err(|unreadable| match unreadable {
            Unreadable::Damaged(why) => CheckpointError::DamagedManifest { why: why.into() },
            Unreadable::Format(found) => CheckpointError::Format { file: MANIFEST.name.into(), found },
            Unreadable::Disk(doing, error) => CheckpointError::Disk { doing, error, in_doubt: false },
        })?;
        let manifest = manifest
            .map(Manifest::decode)
            .transpose()
            .map_err(|error| CheckpointError::DamagedManifest { why: error.to_string() })?;
        let mut committed = BTreeMap::new();
        for run in manifest.iter().flat_map(|manifest| &manifest.runs) {
            run::settle(&disk, run)?;
            committed.insert(run.id, *run);
        }
        let mut store =
            CheckpointStore { disk, committed, written: BTreeMap::new(), next: RunId(1), doubt: None };
        store.sweep()?;
        Ok((store, manifest))
    }

    /// Throws away whatever is in the store on `disk`, readable or not.
    ///
    /// # Errors
    /// When the disk fails; then some of it may be left, and can be thrown away again.
    pub fn reset(disk: SharedDisk) -> Result<CheckpointStore, CheckpointError> {
        disk.create_dir("store").map_err(failed("making its directory"))?;
        let (committed, written) = (BTreeMap::new(), BTreeMap::new());
        let mut store = CheckpointStore { disk, committed, written, next: RunId(1), doubt: None };
        store.clear()?;
        Ok(store)
    }

    /// Forgets the checkpoint and all runs, durably.
    ///
    /// # Errors
    /// When the disk fails; the outcome may be in doubt as that of a commit.
    pub fn clear(&mut self) -> Result<(), CheckpointError> {
        self.doubt.clone().map_or(Ok(()), Err)?;
        let names = self.disk.list("store").map_err(failed("listing its directory"))?;
        // The manifest goes first, and for good, so that no manifest ever names a run that is gone.
        let removed = match names.iter().any(|name| name == MANIFEST.name) {
            true => self.disk.remove("store/MANIFEST"),
            false => Ok(()),
        };
        if let Err(error) = removed.and_then(|()| self.disk.sync_dir("store")) {
            let (doing, error) = ("removing the manifest", Arc::new(error));
            let error = CheckpointError::Disk { doing, error, in_doubt: true };
            self.doubt = Some(error.clone());
            return Err(error);
        }
        self.committed.clear();
        self.written.clear();
        self.sweep()
    }

    /// Writes a run of `blocks`, whose keys are `first` to `last`, durably. It counts once a manifest that names
    /// it is committed, and is gone after a restart otherwise. The blocks are taken one by one, so they
    /// need not all be in memory. Also returns what reads single blocks of it, from now on.
    ///
    /// # Errors
    /// When it cannot be written, or one of the blocks cannot be had; nothing else is changed, and what was begun is
    /// removed.
    pub fn write_run(
        &mut self,
        first: u64,
        last: u64,
        blocks: impl IntoIterator<Item = Result<Bytes, CheckpointError>>,
    ) -> Result<(RunMeta, RunBlocks), CheckpointError> {
        self.doubt.clone().map_or(Ok(()), Err)?;
        let id = self.next;
        // Not used again, also if this fails.
        self.next = RunId(id.0 + 1);
        match run::write(&self.disk, id, blocks) {
            Ok((blocks, bytes)) => {
                let meta = RunMeta { id, first, last, blocks: blocks.count(), bytes, live_bytes: bytes };
                self.written.insert(id, meta);
                Ok((meta, blocks))
            }
            Err(error) => {
                // If even this fails, the next start sweeps it away.
                let _ = self.disk.remove(&id.path());
                Err(error)
            }
        }
    }

    /// Makes `manifest` the checkpoint, durably; then deletes the runs of the last one that it does not name.
    ///
    /// # Errors
    /// When it names an unknown run, or the disk fails.
    pub fn commit(&mut self, manifest: &Manifest) -> Result<(), CheckpointError> {
        self.doubt.clone().map_or(Ok(()), Err)?;
        for run in &manifest.runs {
            let known = self.committed.get(&run.id).or_else(|| self.written.get(&run.id));
            // What is alive, and how keys are told, may change; the file may not.
            if known.is_none_or(|known| (known.blocks, known.bytes) != (run.blocks, run.bytes)) {
                return Err(CheckpointError::UnknownRun { run: run.id });
            }
        }
        if let Err(NotReplaced { doing, error, in_doubt }) = MANIFEST.replace(&self.disk, &manifest.encode())
        {
            let full = !in_doubt && is_full(&error);
            let error = match full {
                true => CheckpointError::Full { doing, error },
                false => CheckpointError::Disk { doing, error, in_doubt },
            };
            self.doubt = Some(error.clone()).filter(|_| in_doubt);
            return Err(error);
        }
        let named: BTreeMap<RunId, RunMeta> = manifest.runs.iter().map(|run| (run.id, *run)).collect();
        let old = std::mem::replace(&mut self.committed, named);
        self.written.retain(|id, _| !self.committed.contains_key(id));
        for id in old.into_keys().filter(|id| !self.committed.contains_key(id)) {
            // The checkpoint is committed, whatever becomes of this; the next start sweeps again.
            let _ = self.disk.remove(&id.path());
        }
        Ok(())
    }

    /// Reads a run, block by block. It may be committed or just written.
    ///
    /// # Errors
    /// When it is damaged from the start; damage further in is an error of the block.
    pub fn read_run(&self, run: &RunMeta) -> Result<RunReader, CheckpointError> {
        RunReader::open(&self.disk, run)
    }

    /// Removes every file that nothing refers to, and finds the first run id that no file has.
    fn sweep(&mut self) -> Result<(), CheckpointError> {
        for name in self.disk.list("store").map_err(failed("listing its directory"))? {
            if let Some(id) = RunId::of(&name) {
                self.next = self.next.max(RunId(id.0.saturating_add(1)));
                if self.committed.contains_key(&id) || self.written.contains_key(&id) {
                    continue;
                }
            } else if name != format!("{}.new", MANIFEST.name) {
                continue;
            }
            self.disk.remove(&format!("store/{name}")).map_err(failed("removing what is left over"))?;
        }
        Ok(())
    }
}

impl Manifest {
    fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.u64(self.covered.0);
        out.bytes(&self.meta);
        out.u32(u32::try_from(self.runs.len()).expect("runs are few"));
        for run in &self.runs {
            for field in [run.id.0, run.first, run.last, run.blocks, run.bytes, run.live_bytes] {
                out.u64(field);
            }
        }
        out.finish()
    }

    fn decode(body: Bytes) -> Result<Manifest, DecodeError> {
        let mut input = Reader::new(body);
        let covered = Prefix(input.u64()?);
        let meta = input.bytes()?;
        let mut runs = Vec::new();
        for _ in 0..input.count(48)? {
            runs.push(RunMeta {
                id: RunId(input.u64()?),
                first: input.u64()?,
                last: input.u64()?,
                blocks: input.u64()?,
                bytes: input.u64()?,
                live_bytes: input.u64()?,
            });
        }
        input.end()?;
        Ok(Manifest { covered, meta, runs })
    }
}

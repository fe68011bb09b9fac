//! A disk having a very bad day, and exactly the same one every time it gets the same seed.
//!
//! Every file has three layers. Writing changes what the page cache *has*; a sync hands the dirty sectors
//! to the *device*, and the device's flush makes them *durable*:
//!
//! ```text
//!            write           sync             flush (part of an honest sync)
//!   process ------> cached ------> device ---------------------------------> durable
//!                     |              |                                          |
//!                     |              +-- a device that lies stops here          |
//!                     +-- a failed sync calls its sectors clean all the same    |
//!   a process crash keeps everything; a power cut keeps this ------------------+
//!                             and whatever subset of the other sectors it likes
//! ```
//!
//! Names have two: as the running system sees them, and durable. A power cut keeps some of the changes that
//! no directory sync has covered.
//!
//! Operations that change something are counted, so that a test can crash before, in the middle of or
//! after each in turn. There are no threads and no clocks in here; directories exist by themselves.

use super::memory::{names_in, read_slice, write_slice};
use super::{Disk, DiskFile, SECTOR};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where, relative to one counted operation, the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPoint {
    /// The operation does not happen.
    Before,
    /// A part of the bytes is written; other operations do not happen.
    During,
    /// It happens, but nobody lives to see that it did.
    After,
}

/// What a power cut spares of that which was never synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// Chosen by chance, sector by sector and name by name.
    Some,
}

/// A fault of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with an input/output error. A write wrote nothing; a sync made some sectors durable, forgot
    /// about the others and calls them all clean.
    Error,
    /// It fails because there is no space; a write got some of the way.
    NoSpace,
    /// A write writes a part, then fails.
    ShortWrite,
    /// A sync is reported done, but the bytes stay in the device's volatile cache.
    LyingSync,
}

/// How often things go wrong by themselves, in units of one in 10,000 operations.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultRates {
    /// Reads that fail.
    pub read_error: u32,
    /// Writes, creations, renames and removals that fail with nothing done.
    pub write_error: u32,
    /// Writes that fail half way.
    pub short_write: u32,
    /// Syncs that fail.
    pub sync_error: u32,
    /// Syncs that lie.
    pub lying_sync: u32,
}

/// The disk. Clones are handles on the same one.
#[derive(Clone)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

type Inode = u64;

#[derive(Clone, Default)]
struct Layers {
    cached: Vec<u8>,
    device: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors the cache has and the device may not.
    dirty: BTreeSet<usize>,
    /// Sectors the device has and would lose with its power.
    unflushed: BTreeSet<usize>,
}

#[derive(Clone)]
enum NameChange {
    Link { name: String, inode: Inode },
    Rename { from: String, to: String, inode: Inode },
    Unlink { name: String },
}

#[derive(Clone)]
struct State {
    rng: ChaCha8Rng,
    files: BTreeMap<Inode, Layers>,
    next_inode: Inode,
    names: BTreeMap<String, Inode>,
    durable_names: BTreeMap<String, Inode>,
    unsynced_names: Vec<NameChange>,
    /// Counts crashes: what was opened in an earlier life is closed.
    life: u64,
    crashed: bool,
    crash_at: Option<(u64, CrashPoint)>,
    faults: BTreeMap<u64, Fault>,
    rates: FaultRates,
    capacity: Option<u64>,
    read_only: bool,
    operations: u64,
}

/// What is to become of one operation.
enum Verdict {
    Go,
    GoThenCrash,
    Part,
    Fail(Fault),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Names,
    Write,
    Sync,
}

impl FaultyDisk {
    /// An empty disk whose whims follow from `seed`, and which behaves until told otherwise.
    pub fn new(seed: u64) -> FaultyDisk {
        let state = State {
            rng: ChaCha8Rng::seed_from_u64(seed),
            files: BTreeMap::new(),
            next_inode: 1,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            life: 0,
            crashed: false,
            crash_at: None,
            faults: BTreeMap::new(),
            rates: FaultRates::default(),
            capacity: None,
            read_only: false,
            operations: 0,
        };
        FaultyDisk { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A disk of its own with the same contents and counters, whose later whims follow from `seed`.
    pub fn fork(&self, seed: u64) -> FaultyDisk {
        let mut state = self.state().clone();
        state.rng = ChaCha8Rng::seed_from_u64(seed);
        FaultyDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// How many operations that change something were begun: creations, writes, syncs, renames, removals.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Lets the process die at operation number `operation`, counted from 1. From then on everything fails
    /// until [`FaultyDisk::process_crash`] or [`FaultyDisk::power_cut`].
    pub fn crash_at(&self, operation: u64, point: CrashPoint) {
        self.state().crash_at = Some((operation, point));
    }

    /// Did the planned crash happen, and is nothing restarted yet?
    pub fn crashed(&self) -> bool {
        self.state().crashed
    }

    /// Lets operation number `operation` suffer `fault`.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.state().faults.insert(operation, fault);
    }

    /// Lets things go wrong by chance from now on.
    pub fn set_rates(&self, rates: FaultRates) {
        self.state().rates = rates;
    }

    /// Bounds the sum of all files' lengths, in bytes; `None` for no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Makes every change fail, as after a remount that the kernel did for our protection.
    pub fn set_read_only(&self, read_only: bool) {
        self.state().read_only = read_only;
    }

    /// The process is killed and can be started again. The page cache lives on.
    pub fn process_crash(&self) {
        self.state().restart();
    }

    /// The power goes and comes back: what was not durable is lost, except for `survivors`.
    pub fn power_cut(&self, survivors: Survivors) {
        let mut state = self.state();
        state.lose_power(survivors);
        state.restart();
    }

    /// Every path, sorted.
    pub fn paths(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// What a reader of `path` would see, if it exists.
    pub fn contents(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.files[state.names.get(path)?].cached.clone())
    }

    /// Rot: changes the bits of `mask` in one byte of a file, wherever it is kept. Nothing happens beyond
    /// its end.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn rot(&self, path: &str, offset: usize, mask: u8) {
        self.scribble(path, |layer| {
            if let Some(byte) = layer.get_mut(offset) {
                *byte ^= mask;
            }
        });
    }

    /// A misdirected or stale write: bytes of a file turn into others, wherever they are kept. What would lie
    /// beyond its end is left out.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn misdirect(&self, path: &str, offset: usize, bytes: &[u8]) {
        self.scribble(path, |layer| {
            let end = (offset + bytes.len()).min(layer.len());
            let start = offset.min(end);
            layer[start..end].copy_from_slice(&bytes[..end - start]);
        });
    }

    fn scribble(&self, path: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = *state.names.get(path).unwrap_or_else(|| panic!("no file {path}"));
        let file = state.files.get_mut(&inode).expect("named files exist");
        for layer in [&mut file.cached, &mut file.device, &mut file.durable] {
            change(layer);
        }
    }
}

impl State {
    fn restart(&mut self) {
        self.life += 1;
        self.crashed = false;
        self.crash_at = None;
    }

    fn chance(&mut self, in_ten_thousand: u32) -> bool {
        in_ten_thousand > 0 && self.rng.random_ratio(in_ten_thousand.min(10_000), 10_000)
    }

    /// Counts an operation and decides its fate.
    fn begin(&mut self, kind: Kind) -> io::Result<Verdict> {
        if self.crashed {
            return Err(dead());
        }
        self.operations += 1;
        if let Some((operation, point)) = self.crash_at
            && operation == self.operations
        {
            match point {
                CrashPoint::After => return Ok(Verdict::GoThenCrash),
                CrashPoint::During if kind == Kind::Write => {
                    self.crashed = true;
                    return Ok(Verdict::Part);
                }
                _ => {
                    self.crashed = true;
                    return Err(dead());
                }
            }
        }
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if let Some(fault) = self.faults.remove(&self.operations) {
            return Ok(Verdict::Fail(fault));
        }
        let rates = self.rates;
        let fault = match kind {
            Kind::Sync if self.chance(rates.sync_error) => Some(Fault::Error),
            Kind::Sync if self.chance(rates.lying_sync) => Some(Fault::LyingSync),
            Kind::Write if self.chance(rates.short_write) => Some(Fault::ShortWrite),
            Kind::Write | Kind::Names if self.chance(rates.write_error) => Some(Fault::Error),
            _ => None,
        };
        Ok(fault.map_or(Verdict::Go, Verdict::Fail))
    }

    /// The end of an operation that took place.
    fn end(&mut self, verdict: &Verdict) -> io::Result<()> {
        match verdict {
            Verdict::GoThenCrash => {
                self.crashed = true;
                Err(dead())
            }
            _ => Ok(()),
        }
    }

    /// An operation on names, which happens or does not.
    fn change_names(&mut self, change: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        match self.begin(Kind::Names)? {
            Verdict::Fail(fault) => Err(fault.error()),
            verdict => {
                change(self)?;
                self.end(&verdict)
            }
        }
    }

    fn room(&self) -> u64 {
        let used: u64 = self.names.values().map(|inode| self.files[inode].cached.len() as u64).sum();
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(used))
    }

    fn write(&mut self, inode: Inode, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let verdict = self.begin(Kind::Write)?;
        let len = self.files[&inode].cached.len() as u64;
        let fits = usize::try_from(len.saturating_add(self.room()).saturating_sub(offset))
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let (keep, error) = match verdict {
            Verdict::Fail(Fault::Error) => (0, Some(Fault::Error.error())),
            Verdict::Fail(fault) => (self.rng.random_range(0..=fits), Some(fault.error())),
            Verdict::Part => (self.rng.random_range(0..=fits), Some(dead())),
            _ if fits < bytes.len() => (fits, Some(Fault::NoSpace.error())),
            _ => (fits, None),
        };
        let file = self.files.get_mut(&inode).expect("open files exist");
        if keep > 0 {
            let old_end = file.cached.len();
            write_slice(&mut file.cached, offset, &bytes[..keep]);
            let start = old_end.min(offset as usize);
            file.dirty.extend(start / SECTOR..=(offset as usize + keep - 1) / SECTOR);
        }
        match error {
            Some(error) => Err(error),
            None => self.end(&verdict),
        }
    }

    fn sync(&mut self, inode: Inode) -> io::Result<()> {
        let verdict = self.begin(Kind::Sync)?;
        let State { files, rng, .. } = self;
        let file = files.get_mut(&inode).expect("open files exist");
        let dirty = std::mem::take(&mut file.dirty);
        if let Verdict::Fail(fault @ (Fault::Error | Fault::NoSpace | Fault::ShortWrite)) = verdict {
            for sector in dirty {
                if rng.random() {
                    copy_sector(&file.cached, &mut file.device, sector);
                    copy_sector(&file.cached, &mut file.durable, sector);
                }
            }
            return Err(fault.error());
        }
        for sector in dirty {
            copy_sector(&file.cached, &mut file.device, sector);
            file.unflushed.insert(sector);
        }
        if !matches!(verdict, Verdict::Fail(Fault::LyingSync)) {
            for sector in std::mem::take(&mut file.unflushed) {
                copy_sector(&file.device, &mut file.durable, sector);
            }
        }
        self.end(&verdict)
    }

    fn sync_names(&mut self, dir: &str) -> io::Result<()> {
        let verdict = self.begin(Kind::Sync)?;
        match verdict {
            Verdict::Fail(Fault::LyingSync) => return Ok(()),
            Verdict::Fail(fault) => return Err(fault.error()),
            _ => {}
        }
        let changes = std::mem::take(&mut self.unsynced_names);
        let (here, elsewhere) = changes.into_iter().partition(|change| parent(change.name()) == dir);
        self.unsynced_names = elsewhere;
        let here: Vec<NameChange> = here;
        here.iter().for_each(|change| change.apply(&mut self.durable_names));
        self.end(&verdict)
    }

    fn lose_power(&mut self, survivors: Survivors) {
        let State { files, rng, .. } = self;
        for file in files.values_mut() {
            let mut spared = |_: &usize| match survivors {
                Survivors::None => false,
                Survivors::All => true,
                Survivors::Some => rng.random(),
            };
            for sector in std::mem::take(&mut file.unflushed).into_iter().filter(&mut spared) {
                copy_sector(&file.device, &mut file.durable, sector);
            }
            for sector in std::mem::take(&mut file.dirty).into_iter().filter(&mut spared) {
                copy_sector(&file.cached, &mut file.durable, sector);
            }
            file.cached.clone_from(&file.durable);
            file.device.clone_from(&file.durable);
        }
        let changes = std::mem::take(&mut self.unsynced_names);
        // A journal keeps the first so many changes; other file systems keep any.
        let journal: bool = self.rng.random();
        let first = self.rng.random_range(0..=changes.len());
        for (number, change) in changes.iter().enumerate() {
            let spared = match survivors {
                Survivors::None => false,
                Survivors::All => true,
                Survivors::Some if journal => number < first,
                Survivors::Some => self.rng.random(),
            };
            if spared {
                change.apply(&mut self.durable_names);
            }
        }
        self.names.clone_from(&self.durable_names);
        let State { files, names, .. } = self;
        files.retain(|inode, _| names.values().any(|named| named == inode));
    }
}

impl NameChange {
    fn name(&self) -> &str {
        match self {
            NameChange::Link { name, .. } | NameChange::Unlink { name } => name,
            NameChange::Rename { to, .. } => to,
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, Inode>) {
        match self {
            NameChange::Link { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            NameChange::Rename { from, to, inode } => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            NameChange::Unlink { name } => {
                names.remove(name);
            }
        }
    }
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Fault::NoSpace => io::ErrorKind::StorageFull.into(),
            Fault::Error => io::Error::other("injected input/output error"),
            Fault::ShortWrite | Fault::LyingSync => io::Error::other("injected short write"),
        }
    }
}

fn dead() -> io::Error {
    io::Error::other("the process has crashed")
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn copy_sector(from: &[u8], to: &mut Vec<u8>, sector: usize) {
    let start = (sector * SECTOR).min(from.len());
    let end = (start + SECTOR).min(from.len());
    write_slice(to, start as u64, &from[start..end]);
}

impl Disk for FaultyDisk {
    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let inode = state.next_inode;
        state.change_names(|state| {
            state.next_inode += 1;
            state.files.insert(inode, Layers::default());
            state.names.insert(path.into(), inode);
            state.unsynced_names.push(NameChange::Link { name: path.into(), inode });
            Ok(())
        })?;
        Ok(Box::new(FaultyFile { disk: self.clone(), inode, life: state.life }))
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state();
        if state.crashed {
            return Err(dead());
        }
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(FaultyFile { disk: self.clone(), inode, life: state.life }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        assert_eq!(parent(from), parent(to), "this model moves files within one directory");
        self.state().change_names(|state| {
            let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(to.into(), inode);
            state.unsynced_names.push(NameChange::Rename { from: from.into(), to: to.into(), inode });
            Ok(())
        })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.state().change_names(|state| {
            state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
            state.unsynced_names.push(NameChange::Unlink { name: path.into() });
            Ok(())
        })
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let state = self.state();
        if state.crashed { Err(dead()) } else { Ok(names_in(dir, state.names.keys())) }
    }

    fn create_dir(&self, _dir: &str) -> io::Result<()> {
        if self.state().crashed { Err(dead()) } else { Ok(()) }
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.state().sync_names(dir)
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    inode: Inode,
    life: u64,
}

impl FaultyFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.life == self.life && !state.crashed { Ok(state) } else { Err(dead()) }
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state()?;
        let rate = state.rates.read_error;
        if state.chance(rate) {
            return Err(Fault::Error.error());
        }
        Ok(read_slice(&state.files[&self.inode].cached, offset, buffer))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.state()?.write(self.inode, offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.state()?.sync(self.inode)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.files[&self.inode].cached.len() as u64)
    }

    fn drop_cache(&self) -> io::Result<()> {
        let mut state = self.state()?;
        let file = state.files.get_mut(&self.inode).expect("open files exist");
        let mut fresh = file.device.clone();
        for &sector in &file.dirty {
            copy_sector(&file.cached, &mut fresh, sector);
        }
        file.cached = fresh;
        Ok(())
    }
}

#[cfg(test)]
mod tests;

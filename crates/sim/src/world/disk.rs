//! A virtual disk: [`FaultyDisk`] with a price on every operation.
//!
//! Bytes change at once, and the time that took is added up; whoever ran the turn that asked for it charges it to
//! the virtual clock afterwards. So a turn is one event, and yet what it sends behind a sync leaves after that sync.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use synod_storage::disk::{Disk, DiskFile, FaultyDisk};

/// How long things take, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// The shortest sync, and the longest but for stalls.
    pub sync: (u64, u64),
    /// The share of syncs that stall, in ten thousand.
    pub stalls: u32,
    /// The longest stall.
    pub stall: u64,
}

impl Speed {
    /// A good disk.
    pub const GOOD: Speed = Speed { sync: (60, 400), stalls: 0, stall: 0 };
}

struct Meter {
    /// Microseconds since the last [`VirtualDisk::charge`].
    spent: AtomicU64,
    chance: Mutex<(ChaCha8Rng, Speed)>,
}

impl Meter {
    fn spend(&self, micros: u64) {
        self.spent.fetch_add(micros, Ordering::Relaxed);
    }

    fn sync(&self) {
        let mut guard = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        let (rng, speed) = &mut *guard;
        let mut micros = rng.random_range(speed.sync.0..=speed.sync.1);
        if speed.stalls > 0 && rng.random_ratio(speed.stalls, 10_000) {
            micros += rng.random_range(0..=speed.stall);
        }
        drop(guard);
        self.spend(micros);
    }
}

/// See the module. Clones are the same disk.
#[derive(Clone)]
pub(super) struct VirtualDisk {
    /// What the bytes are on, and what goes wrong with them.
    pub(super) faulty: FaultyDisk,
    meter: Arc<Meter>,
}

impl VirtualDisk {
    /// An empty one.
    pub(super) fn new(seed: u64) -> VirtualDisk {
        let chance = Mutex::new((ChaCha8Rng::seed_from_u64(seed ^ 0xd15c), Speed::GOOD));
        let meter = Arc::new(Meter { spent: AtomicU64::new(0), chance });
        VirtualDisk { faulty: FaultyDisk::new(seed), meter }
    }

    /// How fast it is from now on.
    pub(super) fn set_speed(&self, speed: Speed) {
        self.meter.chance.lock().unwrap_or_else(PoisonError::into_inner).1 = speed;
    }

    /// The time that operations took since the last charge.
    pub(super) fn spent(&self) -> Duration {
        Duration::from_micros(self.meter.spent.load(Ordering::Relaxed))
    }

    /// [`VirtualDisk::spent`], which begins anew.
    pub(super) fn charge(&self) -> Duration {
        Duration::from_micros(self.meter.spent.swap(0, Ordering::Relaxed))
    }

    /// Gives time back to be charged.
    pub(super) fn owe(&self, time: Duration) {
        self.meter.spend(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}

/// What one operation on names or one write costs, in microseconds.
const SMALL: u64 = 4;

impl Disk for VirtualDisk {
    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        self.meter.spend(SMALL);
        Ok(Box::new(VirtualFile { file: self.faulty.create(path)?, meter: Arc::clone(&self.meter) }))
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        self.meter.spend(SMALL);
        Ok(Box::new(VirtualFile { file: self.faulty.open(path)?, meter: Arc::clone(&self.meter) }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.meter.spend(SMALL);
        self.faulty.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.meter.spend(SMALL);
        self.faulty.remove(path)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.faulty.list(dir)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.faulty.create_dir(dir)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.meter.sync();
        self.faulty.sync_dir(dir)
    }
}

struct VirtualFile {
    file: Box<dyn DiskFile>,
    meter: Arc<Meter>,
}

impl DiskFile for VirtualFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.meter.spend(SMALL + bytes.len() as u64 / 1_000);
        self.file.write_at(offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.meter.sync();
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.file.drop_cache()
    }
}

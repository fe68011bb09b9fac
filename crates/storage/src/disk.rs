//! The disk, as far as this crate needs one: a handful of file operations below one root directory.
//!
//! Three implementations. [`RealDisk`] is the file system. [`MemoryDisk`] forgets when the process ends, for
//! replicas that run without a disk, and for tests. [`FaultyDisk`] is a disk having a very bad day, and the
//! same one every time it is given the same seed.
//!
//! What survives what, and what callers must therefore do:
//!
//! * Written bytes survive a power cut once [`DiskFile::sync`] returned. Before that, any subset of their
//!   512-byte sectors may.
//! * A created, renamed or removed name survives once [`Disk::sync_dir`] returned.
//! * A failed sync says nothing about what was kept, and a later one that succeeds says nothing about the
//!   bytes of the first: the kernel has marked the pages clean meanwhile. Reading them back proves nothing
//!   either, because the page cache answers. Hence [`DiskFile::settle`] before every first read.

mod direct;
mod faulty;
mod memory;
mod real;

pub use faulty::{CrashPoint, Fault, FaultRates, FaultyDisk, Survivors};
pub use memory::MemoryDisk;
pub use real::RealDisk;

use std::io;
use std::sync::Arc;
use synod_paxos::mutants::{Mutant, is};

/// What a disk writes as a whole or not at all, in bytes. Larger units of real disks are multiples of it.
pub const SECTOR: usize = 512;

/// A handle on a disk. Clones speak to the same one.
pub type SharedDisk = Arc<dyn Disk>;

/// A directory tree. Paths are relative to its root, with `/` between their parts. Every operation may fail
/// with whatever the file system says; an operation that failed may have taken effect.
pub trait Disk: Send + Sync {
    /// Creates an empty file, in place of any file of that name. The name lasts after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the file system says.
    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is none.
    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name, in place of any file that had it. Atomic; lasts after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the file system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Lasts after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the file system says.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// The names of the files in a directory (`""` for the root), sorted; none if there is no such directory.
    ///
    /// # Errors
    /// What the file system says.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// Makes a directory below the root, durably, unless it is there.
    ///
    /// # Errors
    /// What the file system says.
    fn create_dir(&self, dir: &str) -> io::Result<()>;

    /// Makes the names in a directory (`""` for the root) durable.
    ///
    /// # Errors
    /// What the file system says. After a failure nothing is known about any name changed since the last
    /// success.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
}

/// An open file. It stays what it is, and readable, when another file takes its name or its name is removed.
pub trait DiskFile: Send + Sync {
    /// Reads from `offset` on until `buffer` is full or the file ends; returns how many bytes it read.
    ///
    /// # Errors
    /// What the file system says.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`; the file grows as needed.
    ///
    /// # Errors
    /// What the file system says; a part may have been written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Writes `len` zeroes from `offset` on, in the way that suits a file which is then overwritten a little at a
    /// time.
    ///
    /// # Errors
    /// As [`DiskFile::write_at`].
    fn write_zeroes(&mut self, offset: u64, len: u64) -> io::Result<()> {
        in_pieces(offset, len, &ZEROES, |at, zeroes| self.write_at(at, zeroes))
    }

    /// From now on, whole sectors that are written at a sector's start need not go through the page cache: a hint. Who
    /// appends a little at a time and syncs each time saves that every sync writes whole pages.
    fn bypass_cache(&mut self) {}

    /// Makes the bytes written so far, and the length needed to read them, durable (`fdatasync`).
    ///
    /// # Errors
    /// What the file system says. Never try again: see the module's story.
    fn sync(&mut self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// What the file system says.
    fn len(&self) -> io::Result<u64>;

    /// Is it empty?
    ///
    /// # Errors
    /// What the file system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Drops what the page cache holds of this file and does not have to write any more, so that the next
    /// read comes from the disk.
    ///
    /// # Errors
    /// What the file system says.
    fn drop_cache(&self) -> io::Result<()>;

    /// To be called before the first read after a start: what the predecessor left in the page cache is
    /// written out or, if its sync failed, dropped, so that we act only on what the disk itself has (fault
    /// catalogue, C3 and D4).
    ///
    /// # Errors
    /// What the file system says.
    fn settle(&mut self) -> io::Result<()> {
        if is(Mutant::TrustsPageCache) {
            return Ok(());
        }
        self.sync()?;
        self.drop_cache()
    }
}

/// Zeroes are written in pieces of this size, in bytes.
const PIECE: usize = 256 << 10;
static ZEROES: [u8; PIECE] = [0; PIECE];

/// Covers `len` bytes from `offset` on with copies of `piece`, the last of them perhaps cut.
fn in_pieces(
    offset: u64,
    len: u64,
    piece: &[u8],
    mut write: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let now = piece.len().min(usize::try_from(len - done).unwrap_or(usize::MAX));
        write(offset + done, &piece[..now])?;
        done += now as u64;
    }
    Ok(())
}

/// Reads a whole file.
///
/// # Errors
/// What the file system says.
pub(crate) fn read_all(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; len];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Is this the kind of failure that freeing space cures?
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

//! What the disk allows: how long it takes until 4 KiB are safe.
//!
//! Every write that a replica acknowledges waits for one such sync at least. It is measured the way a log does it:
//! over blocks that were written before, so that no sync has to write down where a block lies.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::fs::statfs;
use serde::Serialize;

use super::point::in_words;
use crate::failed::Failed;

/// What is written at once, in bytes.
const BLOCK: usize = 4_096;
/// Blocks in the file of one writer.
const BLOCKS: usize = 1_024;
/// Each writer syncs so often at most.
const SYNCS: usize = 1_000;
/// And for so long at most.
const PATIENCE: Duration = Duration::from_secs(2);
/// What statfs(2) says of a file system in memory.
const TMPFS_MAGIC: i128 = 0x0102_1994;

/// How long it took to write a block and sync it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Sync {
    /// Writers at once, each in a file of its own.
    pub(super) writers: usize,
    pub(super) syncs: u64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

impl Sync {
    /// For people, without the number of syncs.
    pub(super) fn text(&self) -> String {
        let Self { writers, p50_us, p99_us, .. } = *self;
        let who = if writers == 1 { "alone".to_owned() } else { format!("{writers} writers at once") };
        format!("disk, 4 KiB and fdatasync, {who}: p50 {}, p99 {}", in_words(p50_us), in_words(p99_us))
    }
}

/// A folder for data that is on a disk, as far as we can tell: the first of the usual ones that is not in memory.
pub(super) fn real_folder() -> PathBuf {
    let usual = [std::env::temp_dir(), PathBuf::from("/var/tmp")];
    let on_disk = usual.iter().find(|folder| in_memory(folder) == Some(false));
    on_disk.unwrap_or(&usual[0]).clone()
}

/// Whether a folder is in memory only; `None` if there is no such folder.
pub(super) fn in_memory(folder: &Path) -> Option<bool> {
    // The type of the field differs from machine to machine.
    statfs(folder).ok().map(|system| i128::from(system.f_type) == TMPFS_MAGIC)
}

/// Measures with so many writers at once, in files below `folder` that are gone afterwards. Blocks the thread for
/// some seconds at most.
///
/// # Errors
/// If the disk does not let us.
pub(super) fn measure(folder: &Path, writers: usize) -> Result<Sync, Failed> {
    let failed =
        |error: io::Error| Failed::new(format!("cannot measure the disk of {}: {error}", folder.display()));
    let files: Vec<File> =
        (0..writers).map(|_| written_before(folder)).collect::<Result<_, _>>().map_err(failed)?;
    let together = Barrier::new(writers);
    let histograms: Vec<io::Result<Histogram<u64>>> = thread::scope(|scope| {
        let threads: Vec<_> = files.iter().map(|file| scope.spawn(|| overwrite(file, &together))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a writer does not panic")).collect()
    });
    let mut all = empty();
    for histogram in histograms {
        all.add(histogram.map_err(failed)?).expect("all have the same bounds");
    }
    let micros = |quantile| all.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Sync { writers, syncs: all.len(), p50_us: micros(0.5), p99_us: micros(0.99) })
}

/// In nanoseconds, up to a minute.
fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("the bounds are in order")
}

fn written_before(folder: &Path) -> io::Result<File> {
    let file = tempfile::tempfile_in(folder)?;
    file.write_all_at(&vec![0xa5; BLOCK * BLOCKS], 0)?;
    file.sync_all()?;
    Ok(file)
}

fn overwrite(file: &File, together: &Barrier) -> io::Result<Histogram<u64>> {
    let mut histogram = empty();
    let block = [0x5a; BLOCK];
    together.wait();
    let deadline = Instant::now() + PATIENCE;
    for turn in 0..SYNCS {
        let began = Instant::now();
        if began >= deadline {
            break;
        }
        file.write_all_at(&block, (turn % BLOCKS * BLOCK) as u64)?;
        file.sync_data()?;
        histogram.saturating_record(began.elapsed().as_nanos() as u64);
    }
    Ok(histogram)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_writer_counts() {
        let folder = tempfile::tempdir().unwrap();
        let sync = measure(folder.path(), 2).unwrap();
        assert_eq!(sync.writers, 2);
        assert!(sync.syncs >= 2 && sync.p50_us > 0.0 && sync.p50_us <= sync.p99_us, "{sync:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
    }

    #[test]
    fn a_folder_that_is_not_there_is_no_place_for_data() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        assert_eq!(in_memory(&missing), None);
        assert!(in_memory(folder.path()).is_some());
        assert!(measure(&missing, 1).unwrap_err().to_string().contains("missing"));
        assert!(real_folder().is_dir());
    }
}

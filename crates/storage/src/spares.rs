//! Segments to be: files that are as long as a segment already.
//!
//! Syncing a file that grows also writes its length and where its blocks lie, which doubles the time; so
//! segments are filled with zeroes ahead of their use, a slice at a time. Once the log is being trimmed,
//! dropped segments serve again and nothing needs filling.

use crate::disk::{DiskFile, SharedDisk, is_full};
use crate::segment::SegmentNumber;
use std::io;

/// How many files are kept ready.
const KEPT: usize = 3;

/// Written with zeroes so far; worthless after a restart.
const FILLING: &str = "wal/filling";

pub(crate) struct Spares {
    disk: SharedDisk,
    segment_bytes: u64,
    ready: Vec<String>,
    filling: Option<(Box<dyn DiskFile>, u64)>,
    /// Names are never used twice within a process.
    named: u64,
}

impl Spares {
    /// Takes stock. What is not usable is removed.
    pub(crate) fn open(disk: &SharedDisk, segment_bytes: u64) -> io::Result<Spares> {
        let mut spares =
            Spares { disk: disk.clone(), segment_bytes, ready: Vec::new(), filling: None, named: 0 };
        for name in disk.list("wal")? {
            let path = format!("wal/{name}");
            let number = name.strip_prefix("spare-").map(|digits| u64::from_str_radix(digits, 16));
            match number {
                Some(Ok(number)) => {
                    spares.named = spares.named.max(number);
                    let fits = disk.open(&path)?.len()? == segment_bytes;
                    if fits && spares.ready.len() < KEPT {
                        spares.ready.push(path);
                    } else {
                        disk.remove(&path)?;
                    }
                }
                _ if path == FILLING => disk.remove(&path)?,
                _ => {}
            }
        }
        Ok(spares)
    }

    fn fresh_name(&mut self) -> String {
        self.named += 1;
        format!("wal/spare-{:016x}", self.named)
    }

    /// Writes up to `budget` bytes of zeroes towards the next spare, unless there is one. Says whether there
    /// is one now. What a failed call has begun is thrown away, never synced again.
    pub(crate) fn prepare(&mut self, budget: u64) -> io::Result<bool> {
        if !self.ready.is_empty() {
            return Ok(true);
        }
        let result = self.fill(budget);
        if result.is_err() {
            self.filling = None;
            let full = result.as_ref().is_err_and(is_full);
            // On a full disk the half-made file is in everybody's way.
            if full && self.disk.list("wal")?.iter().any(|name| FILLING.ends_with(name)) {
                self.disk.remove(FILLING)?;
            }
        }
        result
    }

    fn fill(&mut self, budget: u64) -> io::Result<bool> {
        let (mut file, mut filled) = match self.filling.take() {
            Some(filling) => filling,
            None => (self.disk.create(FILLING)?, 0),
        };
        let end = self.segment_bytes.min(filled.saturating_add(budget.max(1)));
        file.write_zeroes(filled, end - filled)?;
        filled = end;
        // Synced slice by slice, so that no sync of the log has to wait for all of it.
        file.sync()?;
        if filled < self.segment_bytes {
            self.filling = Some((file, filled));
            return Ok(false);
        }
        let path = self.fresh_name();
        self.disk.rename(FILLING, &path)?;
        self.disk.sync_dir("wal")?;
        self.ready.push(path);
        Ok(true)
    }

    /// A file for a segment of `capacity` bytes, of that length. What it holds is worthless. One that is larger
    /// than usual serves one group, and is not worth filling: its blocks come as they are written.
    pub(crate) fn take(&mut self, capacity: u64) -> io::Result<(String, Box<dyn DiskFile>)> {
        if capacity != self.segment_bytes {
            let path = self.fresh_name();
            let mut file = self.disk.create(&path)?;
            file.write_at(capacity.saturating_sub(1), &[0])?;
            return Ok((path, file));
        }
        while !self.prepare(u64::MAX)? {}
        let path = self.ready.pop().expect("prepared above");
        let file = self.disk.open(&path)?;
        Ok((path, file))
    }

    /// Takes a segment out of the log, durably, and keeps its file if it is of use.
    pub(crate) fn recycle(&mut self, segment: SegmentNumber, capacity: u64) -> io::Result<()> {
        if capacity == self.segment_bytes && self.ready.len() < KEPT {
            let path = self.fresh_name();
            self.disk.rename(&segment.path(), &path)?;
            // Before the file is written to again, or its old name might show the new contents.
            self.disk.sync_dir("wal")?;
            self.ready.push(path);
            // There is a spare now; a half-made one would only take space.
            if self.filling.take().is_some() {
                self.disk.remove(FILLING)?;
            }
        } else {
            self.disk.remove(&segment.path())?;
            // One at a time: a power cut that kept a later removal without an earlier one would leave a gap.
            self.disk.sync_dir("wal")?;
        }
        Ok(())
    }
}

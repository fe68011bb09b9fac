//! Writing past the page cache (`O_DIRECT`).
//!
//! Through the page cache, a sync writes whole pages, however little of them changed: a group of the log that takes
//! one sector costs eight. Past it, the disk gets the very sectors, from memory that begins at a page; and what was
//! written is as durable as before, after a sync and not sooner. Not every file system can do it, and none has to.

use super::SECTOR;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

/// Where memory has to begin, in bytes: what the strictest of disks may ask for.
const ALIGNMENT: usize = 4096;

/// More than this at once goes through the page cache, in bytes: then pages do not matter.
const MOST: usize = 1 << 20;

/// A second handle on a file, for writing whole sectors past the page cache.
pub(super) struct Direct {
    file: File,
    /// What is being written, from an aligned place in it on.
    memory: Vec<u8>,
}

impl Direct {
    /// The way past the page cache, if there is one for this file.
    #[cfg(target_os = "linux")]
    pub(super) fn open(file: &File) -> Option<Direct> {
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::OpenOptionsExt;
        let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
        // By its descriptor, because its name may have changed.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let file = File::options().write(true).custom_flags(flags).open(path).ok()?;
        Some(Direct { file, memory: Vec::new() })
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn open(_: &File) -> Option<Direct> {
        None
    }

    /// Writes `bytes` at `offset`, or the first of them. Returns how many: none if it cannot be done like this.
    ///
    /// # Errors
    /// What the file system says; a part may have been written.
    pub(super) fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let whole = offset.is_multiple_of(SECTOR as u64) && bytes.len().is_multiple_of(SECTOR);
        if !whole || bytes.len() > MOST {
            return Ok(0);
        }
        if self.memory.len() < bytes.len() + ALIGNMENT {
            self.memory = vec![0; bytes.len().next_power_of_two() + ALIGNMENT];
        }
        let start = self.memory.as_ptr().align_offset(ALIGNMENT);
        let Some(aligned) = self.memory.get_mut(start..start + bytes.len()) else { return Ok(0) };
        aligned.copy_from_slice(bytes);
        match self.file.write_at(aligned, offset) {
            // This file system does not do it after all, or only in larger pieces; or a signal came first. Nothing
            // was written.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::Interrupted
                ) =>
            {
                Ok(0)
            }
            written => written,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_sectors_of_no_great_length_go_past_the_cache() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 << 20).unwrap();
        let Some(mut direct) = Direct::open(&file) else { return }; // not here
        for (offset, len) in [(1, SECTOR), (0, SECTOR + 1), (0, MOST + SECTOR)] {
            assert_eq!(direct.write_at(offset, &vec![1; len]).unwrap(), 0, "{len} at {offset}");
        }
        for (offset, len) in [(0, ALIGNMENT), (ALIGNMENT as u64, MOST), (SECTOR as u64, SECTOR)] {
            let bytes = vec![7; len];
            let written = direct.write_at(offset, &bytes).unwrap();
            // A disk of larger sectors, or another file system, may refuse; nobody writes a part.
            assert!(written == len || written == 0, "{written} of {len} at {offset}");
            let mut found = vec![0; written];
            file.read_exact_at(&mut found, offset).unwrap();
            assert_eq!(found, bytes[..written]);
        }
    }
}

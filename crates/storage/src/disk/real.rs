//! The file system.

use super::direct::Direct;
use super::{Disk, DiskFile, ZEROES, in_pieces};
use rustix::fs::{Advice, fadvise};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Files below a directory of the file system.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// The disk below `root`, which must exist.
    pub fn new(root: impl Into<PathBuf>) -> RealDisk {
        RealDisk { root: root.into() }
    }

    /// The directory that paths are relative to.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(self.path(path))?;
        Ok(Box::new(RealFile::new(file)))
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile::new(OpenOptions::new().read(true).write(true).open(self.path(path))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.path(path))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.path(dir)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                // A name that is no text is none of ours.
                names.extend(entry.file_name().into_string().ok());
            }
        }
        names.sort();
        Ok(names)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        match fs::create_dir(self.path(dir)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            // Also when it was there: its maker may have died before its name was durable.
            _ => self.sync_dir(""),
        }
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        File::open(self.path(dir))?.sync_all()
    }
}

/// The size of a page of memory, in bytes.
const PAGE: usize = 4096;

struct RealFile {
    file: File,
    /// The way past the page cache, if it is wanted and there is one.
    direct: Option<Direct>,
}

impl RealFile {
    fn new(file: File) -> RealFile {
        RealFile { file, direct: None }
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let done = self.direct.as_mut().map_or(Ok(0), |direct| direct.write_at(offset, bytes))?;
        self.file.write_all_at(&bytes[done..], offset + done as u64)
    }

    fn bypass_cache(&mut self) {
        self.direct = Direct::open(&self.file);
    }

    /// Page by page: the kernel keeps what one call wrote as one piece, and would from then on take all of it as
    /// changed whenever a few bytes of it are.
    fn write_zeroes(&mut self, offset: u64, len: u64) -> io::Result<()> {
        in_pieces(offset, len, &ZEROES[..PAGE], |at, zeroes| self.write_at(at, zeroes))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(fadvise(&self.file, 0, None, Advice::DontNeed)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sectors past the page cache and other bytes through it, in any order: one file all the same.
    #[test]
    fn a_file_is_the_same_whichever_way_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        let mut file = disk.create("file").unwrap();
        file.write_zeroes(0, 100_000).unwrap();
        file.bypass_cache();
        let mut expected = vec![0; 100_000];
        let pieces = [
            (0, 512),
            (512, 1_024),
            (1_000, 7),
            (512, 512),
            (90, 3_000),
            (4_096, 50_000),
            (8_192, 4_096),
            (99_840, 512),
        ];
        for (number, (offset, len)) in pieces.into_iter().enumerate() {
            let piece = vec![number as u8 + 1; len];
            file.write_at(offset as u64, &piece).unwrap();
            if number % 2 == 0 {
                file.sync().unwrap();
            }
            expected.resize(expected.len().max(offset + len), 0);
            expected[offset..offset + len].copy_from_slice(&piece);
            let mut found = vec![0; expected.len()];
            assert_eq!(file.read_at(0, &mut found).unwrap(), expected.len());
            assert!(found == expected, "after piece {number}");
        }
    }

    #[test]
    fn files_are_written_renamed_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        assert_eq!(disk.list("wal").unwrap(), Vec::<String>::new());
        disk.create_dir("wal").unwrap();
        disk.create_dir("wal").unwrap();
        let mut file = disk.create("wal/b").unwrap();
        file.write_zeroes(0, 9_999).unwrap();
        assert_eq!(file.len().unwrap(), 9_999);
        let mut file = disk.create("wal/b").unwrap();
        file.write_at(3, b"abc").unwrap();
        file.settle().unwrap();
        assert_eq!(file.len().unwrap(), 6);
        disk.rename("wal/b", "wal/a").unwrap();
        disk.create("wal/c").unwrap();
        disk.sync_dir("wal").unwrap();
        assert_eq!(disk.list("wal").unwrap(), ["a", "c"]);
        let mut buffer = [9; 8];
        assert_eq!(disk.open("wal/a").unwrap().read_at(0, &mut buffer).unwrap(), 6);
        assert_eq!(&buffer, b"\0\0\0abc\x09\x09");
        disk.remove("wal/a").unwrap();
        assert_eq!(disk.open("wal/a").err().unwrap().kind(), io::ErrorKind::NotFound);
    }
}

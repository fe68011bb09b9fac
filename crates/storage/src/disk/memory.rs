//! Files that last as long as the process.

use super::{Disk, DiskFile};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Contents = Arc<Mutex<Vec<u8>>>;

/// A disk in memory, for replicas that run volatile. Clones are the same disk; when the last one goes, so
/// does every file. Syncs do nothing, directories need not be made, and nothing ever fails.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<String, Contents>>>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }
}

/// No update below leaves anything half done, so a panic elsewhere does not matter here.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_found(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {path}"))
}

/// The names directly below `dir` among sorted full paths.
pub(super) fn names_in<'a>(dir: &str, paths: impl Iterator<Item = &'a String>) -> Vec<String> {
    paths
        .filter_map(|path| match dir {
            "" => Some(path.as_str()),
            dir => path.strip_prefix(dir)?.strip_prefix('/'),
        })
        .filter(|name| !name.contains('/'))
        .map(String::from)
        .collect()
}

impl Disk for MemoryDisk {
    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let contents = Contents::default();
        locked(&self.files).insert(path.into(), contents.clone());
        Ok(Box::new(MemoryFile(contents)))
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let contents = locked(&self.files).get(path).cloned().ok_or_else(|| not_found(path))?;
        Ok(Box::new(MemoryFile(contents)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = locked(&self.files);
        let contents = files.remove(from).ok_or_else(|| not_found(from))?;
        files.insert(to.into(), contents);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        locked(&self.files).remove(path).map(drop).ok_or_else(|| not_found(path))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        Ok(names_in(dir, locked(&self.files).keys()))
    }

    fn create_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }
}

struct MemoryFile(Contents);

impl DiskFile for MemoryFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(read_slice(&locked(&self.0), offset, buffer))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        write_slice(&mut locked(&self.0), offset, bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(locked(&self.0).len() as u64)
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Copies what `from` has at `offset`; returns how much that is.
pub(super) fn read_slice(from: &[u8], offset: u64, buffer: &mut [u8]) -> usize {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(from.len());
    let len = buffer.len().min(from.len() - start);
    buffer[..len].copy_from_slice(&from[start..start + len]);
    len
}

/// Copies `bytes` to `offset`, behind zeroes where there was nothing before.
pub(super) fn write_slice(to: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = usize::try_from(offset).expect("files in memory are addressable");
    let end = start + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    to[start..end].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_are_the_same_disk() {
        let disk = MemoryDisk::new();
        disk.create("a/x").unwrap().write_at(2, b"yz").unwrap();
        disk.create("top").unwrap();
        let other = disk.clone();
        assert_eq!(other.list("a").unwrap(), ["x"]);
        assert_eq!(other.list("").unwrap(), ["top"]);
        other.rename("a/x", "a/y").unwrap();
        let mut buffer = [7; 3];
        assert_eq!(disk.open("a/y").unwrap().read_at(1, &mut buffer).unwrap(), 3);
        assert_eq!(&buffer, b"\0yz");
        assert!(disk.remove("a/x").is_err());
    }
}

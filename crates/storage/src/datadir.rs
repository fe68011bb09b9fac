//! The data directory of one replica, and the lock on it.
//!
//! ```text
//!   LOCK       who runs on it: process id and name; held as long as the process lives
//!   identity   who the replica is            (crate::identity)
//!   wal/       what its acceptor said        (crate::wal)
//!   store/     what its state machine holds  (crate::checkpoint)
//! ```
//!
//! Two servers on one directory would each be the same acceptor with half of its memory, so the second is
//! turned away. The system drops the lock with the process, however it ends: there is no stale lock to
//! remove by hand.

use crate::disk::{Disk, RealDisk};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another server runs on it.
    #[error("{} is in use by {holder}: stop that server, or give this one a directory of its own", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who holds it, as far as it says.
        holder: String,
    },
    /// It cannot be made, read or written.
    #[error("cannot use {}: {doing} failed: {error}", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// How it failed.
        error: io::Error,
    },
}

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    disk: RealDisk,
    _lock: File,
}

impl DataDir {
    /// Takes the directory `path` for the replica called `name`, and makes what is missing of it.
    ///
    /// # Errors
    /// When another server has it, or the system refuses. Nothing of the other server is touched.
    pub fn open(path: impl Into<PathBuf>, name: &str) -> Result<DataDir, DataDirError> {
        let path = path.into();
        let failed = |doing| {
            let path = path.clone();
            move |error| DataDirError::Unusable { path, doing, error }
        };
        fs::create_dir_all(&path).map_err(failed("making it"))?;
        if let Some(parent) = path.canonicalize().map_err(failed("finding it"))?.parent() {
            sync_parent(parent).map_err(failed("syncing its parent"))?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut lock = options.open(path.join("LOCK")).map_err(failed("opening its lock"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Whatever it says; it is for people.
                let _ = lock.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another server".into(),
                    holder => holder.into(),
                };
                return Err(DataDirError::InUse { path, holder });
            }
            Err(errno) => return Err(failed("locking it")(errno.into())),
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "process {} ({name})", process::id()))
            .map_err(failed("signing its lock"))?;
        let disk = RealDisk::new(&path);
        for dir in ["wal", "store"] {
            disk.create_dir(dir).map_err(failed("making its parts"))?;
        }
        Ok(DataDir { disk, _lock: lock })
    }

    /// The files inside. A handle does not hold the lock: keep the directory as long as any is in use.
    pub fn disk(&self) -> &RealDisk {
        &self.disk
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.disk.root()
    }
}

/// Makes the directory's own name last. A parent that we may not even read was not made by us.
fn sync_parent(parent: &Path) -> io::Result<()> {
    match File::open(parent) {
        Ok(parent) => parent.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d10_a_second_server_is_told_who_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = DataDir::open(&path, "n1").unwrap();
        let error = DataDir::open(&path, "n2").unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, DataDirError::InUse { .. }));
        assert!(text.contains("(n1)") && text.contains(&process::id().to_string()), "{text}");
        drop(first);
        let second = DataDir::open(&path, "a name that is longer").unwrap();
        drop(second);
        let third = DataDir::open(&path, "n3").unwrap();
        let lock = fs::read_to_string(path.join("LOCK")).unwrap();
        assert_eq!(lock, format!("process {} (n3)\n", process::id()));
        assert!(third.path().join("wal").is_dir() && third.path().join("store").is_dir());
        assert_eq!(third.disk().list("").unwrap(), ["LOCK"]);
    }

    #[test]
    fn d11_a_path_that_is_no_directory_is_a_clear_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "x").unwrap();
        let error = DataDir::open(&path, "n1").unwrap_err();
        assert!(matches!(error, DataDirError::Unusable { .. }), "{error}");
    }
}

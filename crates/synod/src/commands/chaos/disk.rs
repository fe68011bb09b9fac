//! A small disk that can be filled: a tmpfs of its own for one server.
//!
//! On it everything is as on a real one except that a sync costs nothing and that it ends with the machine. It is
//! the running out of room that counts here.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Room for a server's log and store as they are after hours of chaos, and little more; in MiB.
pub(super) const ROOM: u64 = 512;
/// What takes up the room.
const FILLER: &str = "filler";

/// A mounted tmpfs, unmounted when this is dropped.
pub(super) struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts one of so many MiB.
    ///
    /// # Errors
    /// If this process may not.
    pub(super) fn mount(room: u64) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("mounting a small disk needs root".to_owned());
        }
        let folder = tempfile::Builder::new()
            .prefix("synod-chaos-disk-")
            .tempdir()
            .map_err(|error| format!("cannot make a temporary folder: {error}"))?;
        let size = format!("size={room}m,mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "synod-chaos"]).arg(folder.path()))?;
        Ok(Self { folder })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join(FILLER)
    }

    /// Writes until there is no room left. Returns how many bytes that took.
    pub(super) fn fill(&self) -> Result<u64, String> {
        let unable = |error| format!("cannot fill the small disk: {error}");
        let mut filler = File::create(self.filler()).map_err(unable)?;
        // Smaller and smaller pieces, so that not even a small write of the server finds room.
        let piece = vec![0_u8; 1 << 20];
        let mut written = 0;
        for size in [1 << 20, 4 << 10, 1] {
            loop {
                match filler.write(&piece[..size]) {
                    Ok(bytes) => written += bytes as u64,
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(unable(error)),
                }
            }
        }
        Ok(written)
    }

    /// Gives the room back.
    pub(super) fn free(&self) -> Result<(), String> {
        fs::remove_file(self.filler()).map_err(|error| format!("cannot empty the small disk: {error}"))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that was just killed may not have let go of its files yet.
        let _ = run(Command::new("umount").arg("-l").arg(self.path()));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("cannot run mount: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_takes_nothing_more_until_it_is_freed() {
        let disk = match SmallDisk::mount(16) {
            Ok(disk) => disk,
            Err(why) => return eprintln!("skipped: {why}"),
        };
        let path = disk.path().to_owned();
        assert!(disk.fill().unwrap() > 15 << 20);
        let error = fs::write(path.join("more"), b"more").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        disk.free().unwrap();
        fs::write(path.join("more"), b"more").unwrap();
        drop(disk);
        assert!(!path.exists(), "unmounted and removed");
    }
}

//! Small files that are replaced as a whole: the identity, the manifest of the checkpoints.
//!
//! Written aside, synced, renamed over the old one, and the directory synced: a reader sees the old contents
//! or the new, whatever happens in between. The first bytes (magic, format, length, checksum) are laid out
//! alike in every format, so that a newer one can be told from damage.

use crate::disk::{SharedDisk, read_all};
use bytes::{Buf, BufMut, Bytes};
use std::io;
use std::sync::Arc;

const HEADER: usize = 20;

/// A file, and what its first bytes are.
pub(crate) struct SmallFile {
    pub(crate) dir: &'static str,
    pub(crate) name: &'static str,
    pub(crate) magic: &'static [u8; 8],
    pub(crate) format: u32,
    /// Formats from this one on are read.
    pub(crate) oldest: u32,
}

/// Why a file cannot be read.
#[derive(Debug)]
pub(crate) enum Unreadable {
    Damaged(&'static str),
    Format(u32),
    Disk(&'static str, Arc<io::Error>),
}

/// Why a file could not be replaced.
#[derive(Debug)]
pub(crate) struct NotReplaced {
    pub(crate) doing: &'static str,
    pub(crate) error: Arc<io::Error>,
    /// May the new contents be there after a restart all the same?
    pub(crate) in_doubt: bool,
}

impl SmallFile {
    fn path(&self) -> String {
        if self.dir.is_empty() { self.name.into() } else { format!("{}/{}", self.dir, self.name) }
    }

    /// What the file holds, from the disk itself, or none if there is no such file.
    pub(crate) fn load(&self, disk: &SharedDisk) -> Result<Option<Bytes>, Unreadable> {
        let failed = |doing| move |error| Unreadable::Disk(doing, Arc::new(error));
        // What we act on must last, also if our predecessor died between a rename and its sync (C3).
        disk.sync_dir(self.dir).map_err(failed("syncing its directory"))?;
        let mut file = match disk.open(&self.path()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("opening it")(error)),
        };
        file.settle().map_err(failed("settling it"))?;
        let bytes = Bytes::from(read_all(&*file).map_err(failed("reading it"))?);
        self.check(&bytes).map(Some)
    }

    fn check(&self, bytes: &Bytes) -> Result<Bytes, Unreadable> {
        if bytes.len() < HEADER {
            return Err(Unreadable::Damaged("it is cut short"));
        }
        if !bytes.starts_with(self.magic) {
            return Err(Unreadable::Damaged("it does not begin as it should"));
        }
        let mut head = &bytes[self.magic.len()..HEADER];
        let format = head.get_u32_le();
        let len = head.get_u32_le() as usize;
        let body = bytes.slice(HEADER..);
        if head.get_u32_le() != checksum(&bytes[..HEADER - 4], &body) {
            return Err(Unreadable::Damaged("its checksum is wrong"));
        }
        if !(self.oldest..=self.format).contains(&format) {
            return Err(Unreadable::Format(format));
        }
        if len == body.len() { Ok(body) } else { Err(Unreadable::Damaged("its length is wrong")) }
    }

    /// Puts `body` in place of what the file holds, durably.
    pub(crate) fn replace(&self, disk: &SharedDisk, body: &[u8]) -> Result<(), NotReplaced> {
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.put_slice(self.magic);
        bytes.put_u32_le(self.format);
        bytes.put_u32_le(u32::try_from(body.len()).expect("small files are small"));
        bytes.put_u32_le(checksum(&bytes, body));
        bytes.put_slice(body);

        let failed = |doing, in_doubt| move |error| NotReplaced { doing, error: Arc::new(error), in_doubt };
        let aside = format!("{}.new", self.path());
        let mut file = disk.create(&aside).map_err(failed("creating it", false))?;
        file.write_at(0, &bytes).map_err(failed("writing it", false))?;
        file.sync().map_err(failed("syncing it", false))?;
        disk.rename(&aside, &self.path()).map_err(failed("renaming it", true))?;
        disk.sync_dir(self.dir).map_err(failed("syncing its directory", true))
    }
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), body)
}

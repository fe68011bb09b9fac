//! The file of one run.
//!
//! ```text
//!   head    magic, format, run id, CRC
//!   block   length, CRC, bytes         the CRC starts from run id and number of the block
//!   ...
//!   foot    magic, number of blocks, bytes in them, CRC of their CRCs, CRC
//! ```

use super::{CheckpointError, FORMAT, MAX_BLOCK_BYTES, RunId, RunMeta, failed};
use crate::disk::{DiskFile, SharedDisk};
use bytes::{Buf, BufMut, Bytes};
use std::io;

const MAGIC: &[u8; 8] = b"synodrun";
const END: &[u8; 8] = b"nurdonys";
const HEAD: usize = 24;
const BLOCK_HEAD: usize = 8;
const FOOT: usize = 32;

/// Handed to the disk in pieces of about this size, in bytes.
const PIECE: usize = 256 << 10;

/// A reader of all blocks reads about so many bytes at a time.
const READ_AHEAD: usize = 1 << 20;

/// Synced every so many bytes, so that no sync of the log has to wait behind a whole run.
const SYNC_EVERY: u64 = 8 << 20;

fn head(id: RunId) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    let mut out = &mut head[..];
    out.put_slice(MAGIC);
    out.put_u32_le(FORMAT);
    out.put_u64_le(id.0);
    let crc = crc32c::crc32c(&head[..HEAD - 4]);
    head[HEAD - 4..].copy_from_slice(&crc.to_le_bytes());
    head
}

fn foot(id: RunId, blocks: u64, bytes: u64, digest: u32) -> [u8; FOOT] {
    let mut foot = [0; FOOT];
    let mut out = &mut foot[..];
    out.put_slice(END);
    out.put_u64_le(blocks);
    out.put_u64_le(bytes);
    out.put_u32_le(digest);
    let crc = crc32c::crc32c_append(block_seed(id, blocks), &foot[..FOOT - 4]);
    foot[FOOT - 4..].copy_from_slice(&crc.to_le_bytes());
    foot
}

fn block_seed(id: RunId, number: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&id.0.to_le_bytes()), &number.to_le_bytes())
}

fn block_crc(id: RunId, number: u64, len: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(block_seed(id, number), &len.to_le_bytes()), bytes)
}

fn file_bytes(run: &RunMeta) -> Option<u64> {
    let blocks = run.blocks.checked_mul(BLOCK_HEAD as u64)?;
    run.bytes.checked_add(blocks)?.checked_add((HEAD + FOOT) as u64)
}

/// Writes a run, durably. Returns its blocks, and the number of bytes in them.
pub(super) fn write(
    disk: &SharedDisk,
    id: RunId,
    blocks: impl IntoIterator<Item = Result<Bytes, CheckpointError>>,
) -> Result<(RunBlocks, u64), CheckpointError> {
    let mut out = Appender {
        file: disk.create(&id.path()).map_err(failed("creating a run"))?,
        position: 0,
        synced: 0,
        buffer: head(id).to_vec(),
    };
    let mut places = Places::default();
    let (mut number, mut bytes, mut digest) = (0, 0, 0);
    for block in blocks {
        let block = block?;
        let len = u32::try_from(block.len())
            .ok()
            .filter(|_| block.len() <= MAX_BLOCK_BYTES)
            .ok_or(CheckpointError::TooLarge { bytes: block.len() })?;
        let crc = block_crc(id, number, len, &block);
        out.buffer.put_u32_le(len);
        out.buffer.put_u32_le(crc);
        out.buffer.put_slice(&block);
        digest = crc32c::crc32c_append(digest, &crc.to_le_bytes());
        number += 1;
        bytes += u64::from(len);
        places.push(len);
        if out.buffer.len() >= PIECE {
            out.write().map_err(failed("writing a run"))?;
        }
    }
    out.buffer.put_slice(&foot(id, number, bytes, digest));
    out.write().map_err(failed("writing a run"))?;
    out.file.sync().map_err(failed("syncing a run"))?;
    disk.sync_dir("store").map_err(failed("naming a run"))?;
    Ok((RunBlocks { file: out.file, id, places }, bytes))
}

/// Where the blocks of a run end in its file. The first begins behind the head, each of the others where the one
/// before it ends.
#[derive(Debug, Default)]
struct Places {
    ends: Vec<u64>,
}

impl Places {
    fn push(&mut self, len: u32) {
        self.ends.push(self.end() + BLOCK_HEAD as u64 + u64::from(len));
    }

    /// Where the next block begins.
    fn end(&self) -> u64 {
        self.ends.last().copied().unwrap_or(HEAD as u64)
    }

    /// Where block `number` begins, and how long it is with its head.
    fn get(&self, number: usize) -> Option<(u64, usize)> {
        let end = *self.ends.get(number)?;
        let start = number.checked_sub(1).map_or(HEAD as u64, |before| self.ends[before]);
        Some((start, usize::try_from(end - start).expect("a block fits into memory")))
    }
}

/// The blocks of a run that was written or read as a whole, each for itself and in any order.
///
/// They stay readable as long as this lives, also when a later checkpoint did without the run: a file lasts as long
/// as somebody has it open.
pub struct RunBlocks {
    file: Box<dyn DiskFile>,
    id: RunId,
    places: Places,
}

impl RunBlocks {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.places.ends.len() as u64
    }

    /// Reads block `number`, counted from 0.
    ///
    /// # Errors
    /// When it is not what was written, or the disk fails.
    ///
    /// # Panics
    /// When there is no such block.
    pub fn read(&self, number: u64) -> Result<Bytes, CheckpointError> {
        let place = usize::try_from(number).ok().and_then(|number| self.places.get(number));
        let (start, len) = place.expect("whoever asks for a block knows that it is there");
        let mut bytes = vec![0; len];
        let read = self.file.read_at(start, &mut bytes).map_err(failed("reading a run"))?;
        let (found, crc) = ((&bytes[..]).get_u32_le(), (&bytes[4..]).get_u32_le());
        let block = Bytes::from(bytes).slice(BLOCK_HEAD..);
        let whole = read == len && block.len() == found as usize;
        if !whole || block_crc(self.id, number, found, &block) != crc {
            return Err(CheckpointError::DamagedRun { run: self.id, why: "a block is damaged" });
        }
        Ok(block)
    }
}

struct Appender {
    file: Box<dyn DiskFile>,
    position: u64,
    synced: u64,
    buffer: Vec<u8>,
}

impl Appender {
    fn write(&mut self) -> io::Result<()> {
        self.file.write_at(self.position, &self.buffer)?;
        self.position += self.buffer.len() as u64;
        self.buffer.clear();
        if self.position - self.synced >= SYNC_EVERY {
            self.file.sync()?;
            self.synced = self.position;
        }
        Ok(())
    }
}

/// To be called once after a start: what a predecessor left in the page cache is not the disk's word.
pub(super) fn settle(disk: &SharedDisk, run: &RunMeta) -> Result<(), CheckpointError> {
    match disk.open(&run.id.path()) {
        Ok(mut file) => file.settle().map_err(failed("settling a run"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(CheckpointError::DamagedRun { run: run.id, why: "it is missing" });
        }
        Err(error) => return Err(failed("opening a run")(error)),
    }
    RunReader::open(disk, run).map(drop)
}

/// The blocks of a run, in order, each as it was written or an error, after which nothing more comes.
pub struct RunReader {
    file: Box<dyn DiskFile>,
    run: RunMeta,
    /// Read, and not yet looked at.
    ahead: Bytes,
    places: Places,
    number: u64,
    digest: u32,
    expected_digest: u32,
    done: bool,
}

impl RunReader {
    pub(super) fn open(disk: &SharedDisk, run: &RunMeta) -> Result<RunReader, CheckpointError> {
        let damaged = |why| CheckpointError::DamagedRun { run: run.id, why };
        let file = match disk.open(&run.id.path()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged("it is missing")),
            Err(error) => return Err(failed("opening a run")(error)),
        };
        let len = file.len().map_err(failed("reading a run"))?;
        if len < (HEAD + FOOT) as u64 {
            return Err(damaged("its length is wrong"));
        }
        let mut found = [0; HEAD];
        file.read_at(0, &mut found).map_err(failed("reading a run"))?;
        if found != head(run.id) {
            let crc = crc32c::crc32c(&found[..HEAD - 4]).to_le_bytes();
            let format = (&found[MAGIC.len()..]).get_u32_le();
            let readable = found.starts_with(MAGIC) && found[HEAD - 4..] == crc;
            return Err(match readable && format != FORMAT {
                true => CheckpointError::Format { file: run.id.to_string(), found: format },
                false => damaged("its head is wrong"),
            });
        }
        if file_bytes(run) != Some(len) {
            return Err(damaged("its length is wrong"));
        }
        let mut end = [0; FOOT];
        file.read_at(len - FOOT as u64, &mut end).map_err(failed("reading a run"))?;
        let expected_digest = (&end[FOOT - 8..]).get_u32_le();
        if end != foot(run.id, run.blocks, run.bytes, expected_digest) {
            return Err(damaged("its foot is wrong"));
        }
        let (ahead, places) = (Bytes::new(), Places::default());
        Ok(RunReader { file, run: *run, ahead, places, number: 0, digest: 0, expected_digest, done: false })
    }

    /// The same blocks, each for itself; none before all of them were read and found good.
    pub fn into_blocks(self) -> Option<RunBlocks> {
        let good = self.number == self.run.blocks && self.digest == self.expected_digest;
        good.then_some(RunBlocks { file: self.file, id: self.run.id, places: self.places })
    }

    /// The file from the next block on: at least `len` bytes. Reads more than that, because blocks may be small.
    fn ahead(&mut self, len: usize) -> Result<&[u8], CheckpointError> {
        if self.ahead.len() < len {
            let start = self.places.end();
            let left = file_bytes(&self.run).map_or(0, |end| end.saturating_sub(start));
            let mut bytes = vec![0; len.max(READ_AHEAD).min(usize::try_from(left).unwrap_or(usize::MAX))];
            let read = self.file.read_at(start, &mut bytes).map_err(failed("reading a run"))?;
            bytes.truncate(read);
            self.ahead = bytes.into();
        }
        if self.ahead.len() < len {
            return Err(CheckpointError::DamagedRun { run: self.run.id, why: "a block is damaged" });
        }
        Ok(&self.ahead)
    }

    fn read(&mut self) -> Result<Option<Bytes>, CheckpointError> {
        let id = self.run.id;
        let damaged = |why| CheckpointError::DamagedRun { run: id, why };
        if self.number == self.run.blocks {
            let good = self.digest == self.expected_digest;
            return if good { Ok(None) } else { Err(damaged("its blocks are not those it was made of")) };
        }
        let mut fields = self.ahead(BLOCK_HEAD)?;
        let (len, crc) = (fields.get_u32_le(), fields.get_u32_le());
        // A damaged length must not make us reserve more than the run can hold.
        if u64::from(len) > self.run.bytes {
            return Err(damaged("a block is damaged"));
        }
        self.ahead(BLOCK_HEAD + len as usize)?;
        let bytes = self.ahead.split_to(BLOCK_HEAD + len as usize).slice(BLOCK_HEAD..);
        if block_crc(self.run.id, self.number, len, &bytes) != crc {
            return Err(damaged("a block is damaged"));
        }
        self.digest = crc32c::crc32c_append(self.digest, &crc.to_le_bytes());
        self.number += 1;
        self.places.push(len);
        Ok(Some(bytes))
    }
}

impl Iterator for RunReader {
    type Item = Result<Bytes, CheckpointError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.read().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

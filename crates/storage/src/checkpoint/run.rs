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

/// Writes a run, durably. Returns the number of its blocks and of the bytes in them.
pub(super) fn write(
    disk: &SharedDisk,
    id: RunId,
    blocks: impl IntoIterator<Item = Bytes>,
) -> Result<(u64, u64), CheckpointError> {
    let mut out = Appender {
        file: disk.create(&id.path()).map_err(failed("creating a run"))?,
        position: 0,
        synced: 0,
        buffer: head(id).to_vec(),
    };
    let (mut number, mut bytes, mut digest) = (0, 0, 0);
    for block in blocks {
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
        if out.buffer.len() >= PIECE {
            out.write().map_err(failed("writing a run"))?;
        }
    }
    out.buffer.put_slice(&foot(id, number, bytes, digest));
    out.write().map_err(failed("writing a run"))?;
    out.file.sync().map_err(failed("syncing a run"))?;
    disk.sync_dir("store").map_err(failed("naming a run"))?;
    Ok((number, bytes))
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
    position: u64,
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
        let position = HEAD as u64;
        Ok(RunReader { file, run: *run, position, number: 0, digest: 0, expected_digest, done: false })
    }

    fn read(&mut self) -> Result<Option<Bytes>, CheckpointError> {
        let damaged = |why| CheckpointError::DamagedRun { run: self.run.id, why };
        if self.number == self.run.blocks {
            let good = self.digest == self.expected_digest;
            return if good { Ok(None) } else { Err(damaged("its blocks are not those it was made of")) };
        }
        let mut head = [0; BLOCK_HEAD];
        self.file.read_at(self.position, &mut head).map_err(failed("reading a run"))?;
        let mut fields = &head[..];
        let (len, crc) = (fields.get_u32_le(), fields.get_u32_le());
        // A damaged length must not make us reserve more than the run can hold.
        if u64::from(len) > self.run.bytes {
            return Err(damaged("a block is damaged"));
        }
        let start = self.position + BLOCK_HEAD as u64;
        if file_bytes(&self.run).is_none_or(|end| start + u64::from(len) > end) {
            return Err(damaged("a block is damaged"));
        }
        let mut bytes = vec![0; len as usize];
        self.file.read_at(start, &mut bytes).map_err(failed("reading a run"))?;
        if block_crc(self.run.id, self.number, len, &bytes) != crc {
            return Err(damaged("a block is damaged"));
        }
        self.digest = crc32c::crc32c_append(self.digest, &crc.to_le_bytes());
        self.number += 1;
        self.position = start + u64::from(len);
        Ok(Some(bytes.into()))
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

//! A snapshot as bytes, and back.
//!
//! ```text
//!   image  = magic version header change* end
//!   each of the latter behind its length:
//!   header = revision, compacted revision, state hash, number of keys
//!   change = position, then put or delete with its fields
//!   end    = number of changes, digest of everything before
//! ```
//!
//! An image is a stream: it may be cut anywhere, and the pieces need not arrive in
//! the cuts they were sent in. Changes stand in the order in which they happened.
//! Dead ones are left out, swept or not, so the image tells about the store and not
//! about its housekeeping: equal stores make equal images.
//!
//! Reading one back is all or nothing. Each change must fit what came before it, the
//! counts must be right and the digest too; else there is an error and no store.

use bytes::{Buf, Bytes, BytesMut};
use xxhash_rust::xxh3::Xxh3Default;

use crate::hash::StateHash;
use crate::history::Change;
use crate::response::KeyValue;
use crate::revision::{LeaseId, Position, Revision};
use crate::store::{Snapshot, Store};
use crate::wire::{DecodeError, Reader, Sink, peek_number};

const MAGIC: &[u8; 8] = b"synod-kv";
const VERSION: u8 = 1;

const HEADER: u8 = 1;
const PUT: u8 = 2;
const DELETE: u8 = 3;
const END: u8 = 4;

/// No store gets this far, and beyond it revisions would not fit etcd's wire.
const MAX_REVISION: u64 = 1 << 62;

impl Snapshot {
    /// This snapshot as an image, in pieces of at most `max_bytes` (at least one).
    /// Pieces are made as they are asked for.
    pub fn chunks(&self, max_bytes: usize) -> Chunks {
        let mut chunks = Chunks {
            snapshot: self.clone(),
            max_bytes: max_bytes.max(1),
            next: Some(Position::default()),
            written: 0,
            digest: Xxh3Default::new(),
            ready: BytesMut::new(),
        };
        chunks.begin();
        chunks
    }
}

/// The pieces of an image; see [`Snapshot::chunks`].
pub struct Chunks {
    snapshot: Snapshot,
    max_bytes: usize,
    /// The change to go on with; `None` once the end is written.
    next: Option<Position>,
    /// How many changes were written.
    written: u64,
    digest: Xxh3Default,
    /// Written, but not yet given out.
    ready: BytesMut,
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.fill();
        let length = self.ready.len().min(self.max_bytes);
        (length > 0).then(|| self.ready.split_to(length).freeze())
    }
}

impl Chunks {
    fn begin(&mut self) {
        self.append(MAGIC);
        self.append(&[VERSION]);
        let view = &self.snapshot;
        let mut record = vec![HEADER];
        record.number(view.revision.0);
        record.option(view.compacted.map(|revision| revision.0));
        record.bytes(&view.hash.0.to_le_bytes());
        record.number(view.stats.keys);
        self.append_record(&record);
    }

    /// Writes until there is enough for a piece, or nothing left to write.
    fn fill(&mut self) {
        let Some(next) = self.next else { return };
        // A second handle, because writing changes `self`.
        let snapshot = self.snapshot.clone();
        let mut record = Vec::new();
        for (position, change) in snapshot.changes.from(next) {
            if self.ready.len() >= self.max_bytes {
                self.next = Some(position);
                return;
            }
            if snapshot.is_readable(position, change) {
                record.clear();
                write_change(&mut record, position, change);
                self.append_record(&record);
                self.written += 1;
            }
        }
        let mut record = vec![END];
        record.number(self.written);
        record.bytes(&self.digest.digest128().to_le_bytes());
        self.append_record(&record);
        self.next = None;
    }

    fn append_record(&mut self, record: &[u8]) {
        let mut length = Vec::with_capacity(10);
        length.number(record.len() as u64);
        self.append(&length);
        self.append(record);
    }

    fn append(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.ready.extend_from_slice(bytes);
    }
}

fn write_change(out: &mut Vec<u8>, position: Position, change: &Change) {
    out.byte(if change.pair().is_some() { PUT } else { DELETE });
    out.number(position.revision.0);
    out.number(u64::from(position.sub));
    out.string(change.key());
    if let Some(kv) = change.pair() {
        out.number(kv.create_revision.0);
        out.number(kv.version);
        out.signed(LeaseId::to_wire(kv.lease));
        out.string(&kv.value);
    }
}

/// Why an image was not made into a store. Fetch it again, from elsewhere if need be;
/// the store that it was to replace is untouched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// It does not begin as images do.
    #[error("this is not an image of a store")]
    NotAnImage,
    /// Written by a version of synod that this one does not know.
    #[error("the image has format version {0}; this program reads version {VERSION}")]
    UnknownVersion(u8),
    /// It ends too early.
    #[error("the image is incomplete")]
    Truncated,
    /// A record of it cannot be read.
    #[error("a record of the image cannot be read: {0}")]
    Malformed(#[from] DecodeError),
    /// A record can be read, but says something that no store would.
    #[error("the image contradicts itself: {0}")]
    Inconsistent(&'static str),
    /// The digest at its end is not that of what came before.
    #[error("the image was altered: its digest does not match")]
    Altered,
    /// It goes on after its end.
    #[error("the image goes on after its end")]
    TrailingBytes,
}

/// A store in the making, from the pieces of an image.
pub struct Restore {
    store: Store,
    expect: Expect,
    /// Received, but not yet a whole record.
    pending: BytesMut,
    digest: Xxh3Default,
    /// How many keys the header announced.
    keys: u64,
    /// How many changes were read.
    read: u64,
    /// The last of them.
    last: Position,
    /// What was wrong, once something was.
    failed: Option<RestoreError>,
}

/// What the next bytes must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Preamble,
    Header,
    Changes,
    Nothing,
}

impl Default for Restore {
    fn default() -> Restore {
        Restore::new()
    }
}

impl Restore {
    /// Nothing received yet.
    pub fn new() -> Restore {
        Restore {
            store: Store::new(),
            expect: Expect::Preamble,
            pending: BytesMut::new(),
            digest: Xxh3Default::new(),
            keys: 0,
            read: 0,
            last: Position::default(),
            failed: None,
        }
    }

    /// Takes the next bytes of the image, however they were cut.
    ///
    /// # Errors
    /// As soon as something is wrong, and from then on always the same.
    pub fn push(&mut self, chunk: Bytes) -> Result<(), RestoreError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.read(&chunk).inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn read(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        self.pending.extend_from_slice(chunk);
        if self.expect == Expect::Preamble {
            let given = &self.pending[..self.pending.len().min(MAGIC.len())];
            if !MAGIC.starts_with(given) {
                return Err(RestoreError::NotAnImage);
            }
            let Some(&version) = self.pending.get(MAGIC.len()) else { return Ok(()) };
            if version != VERSION {
                return Err(RestoreError::UnknownVersion(version));
            }
            self.digest.update(&self.pending[..=MAGIC.len()]);
            self.pending.advance(MAGIC.len() + 1);
            self.expect = Expect::Header;
        }
        while self.read_record()? {}
        Ok(())
    }

    /// The store, once all of the image is there.
    ///
    /// # Errors
    /// If it is not, or if anything was wrong.
    pub fn finish(self) -> Result<Store, RestoreError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.expect == Expect::Nothing => Ok(self.store),
            None => Err(RestoreError::Truncated),
        }
    }

    /// Reads one record if there is a whole one.
    fn read_record(&mut self) -> Result<bool, RestoreError> {
        if self.pending.is_empty() {
            return Ok(false);
        }
        if self.expect == Expect::Nothing {
            return Err(RestoreError::TrailingBytes);
        }
        let (length, prefix) = match peek_number(&self.pending) {
            Ok(found) => found,
            Err(DecodeError::Truncated) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        // A length beyond all that will ever come shows as a truncated image.
        let end = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(prefix);
        if end > self.pending.len() {
            return Ok(false);
        }
        let bytes = self.pending.split_to(end).freeze();
        let mut record = Reader(bytes.slice(prefix..));
        match (self.expect, record.byte()?) {
            (Expect::Header, HEADER) => self.read_header(&mut record)?,
            (Expect::Changes, tag @ (PUT | DELETE)) => self.read_change(tag, &mut record)?,
            (Expect::Changes, END) => self.read_end(&mut record)?,
            (_, tag) => return Err(DecodeError::UnknownTag { what: "record", tag }.into()),
        }
        record.finish()?;
        // Only now, because the end holds the digest of what came before it.
        self.digest.update(&bytes);
        Ok(true)
    }

    fn read_header(&mut self, record: &mut Reader) -> Result<(), RestoreError> {
        let view = &mut self.store.view;
        view.revision = Revision(record.number()?);
        view.compacted = record.option()?.map(Revision);
        view.hash = StateHash(record.u128()?);
        view.sweep_from = Position::first_of(view.compacted.unwrap_or_default());
        self.keys = record.number()?;
        let revisions = Revision::FIRST..=Revision(MAX_REVISION);
        ensure(revisions.contains(&view.revision), "a revision that no store has")?;
        ensure(view.compacted <= Some(view.revision), "compacted in the future")?;
        self.expect = Expect::Changes;
        Ok(())
    }

    fn read_change(&mut self, tag: u8, record: &mut Reader) -> Result<(), RestoreError> {
        let view = &mut self.store.view;
        let revision = Revision(record.number()?);
        let sub = u32::try_from(record.number()?).map_err(|_| DecodeError::BadNumber)?;
        let position = Position { revision, sub };
        ensure(revision > Revision::FIRST, "a change before the first")?;
        ensure(position > self.last, "changes out of order")?;
        // Whoever counts on within the revision must not overflow.
        ensure(sub < u32::MAX, "more changes than a revision has")?;
        ensure(revision <= view.revision, "a change in the future")?;
        let key = record.string()?;
        ensure(!key.is_empty(), "a key without a name")?;
        // What was there before may be forgotten only up to the compaction.
        let forgotten = view.compacted.is_some_and(|boundary| revision <= boundary);
        let history = view.keys.get(&key[..]);
        ensure(
            history.is_none_or(|history| history.position().revision < revision),
            "a key that changed twice in one revision",
        )?;
        let prev = history.and_then(|history| history.current());
        let key = match prev {
            Some(prev) => prev.key.clone(),
            None => Bytes::copy_from_slice(&key),
        };
        let change = if tag == PUT {
            let create_revision = Revision(record.number()?);
            let version = record.number()?;
            let lease = LeaseId::from_wire(record.signed()?);
            let value = Bytes::copy_from_slice(&record.string()?);
            ensure(
                match prev {
                    Some(prev) => create_revision == prev.create_revision && version == prev.version + 1,
                    None if forgotten && history.is_none() => {
                        create_revision <= revision && (1..=revision.0).contains(&version)
                    }
                    None => create_revision == revision && version == 1,
                },
                "a put that does not continue its key's history",
            )?;
            Change::Put(KeyValue {
                key: key.clone(),
                value,
                create_revision,
                mod_revision: revision,
                version,
                lease,
            })
        } else {
            ensure(prev.is_some() || forgotten && history.is_none(), "a removal of nothing")?;
            Change::Delete { key: key.clone(), revision }
        };
        view.record(position, &key, |_| change);
        self.last = position;
        self.read += 1;
        Ok(())
    }

    fn read_end(&mut self, record: &mut Reader) -> Result<(), RestoreError> {
        ensure(record.number()? == self.read, "another number of changes than it says")?;
        if record.u128()? != self.digest.digest128() {
            return Err(RestoreError::Altered);
        }
        ensure(self.store.view.stats.keys == self.keys, "another number of keys than it says")?;
        self.expect = Expect::Nothing;
        Ok(())
    }
}

fn ensure(condition: bool, otherwise: &'static str) -> Result<(), RestoreError> {
    if condition { Ok(()) } else { Err(RestoreError::Inconsistent(otherwise)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_of_a_revision_is_nobodys() {
        for (sub, good) in [(u32::MAX - 1, true), (u32::MAX, false)] {
            let mut store = Store::new();
            let revision = Revision(2);
            store.view.revision = revision;
            store.view.compacted = Some(revision);
            store.view.record(Position { revision, sub }, b"k", |_| {
                Change::Put(KeyValue {
                    key: "k".into(),
                    value: Bytes::new(),
                    create_revision: revision,
                    mod_revision: revision,
                    version: 1,
                    lease: None,
                })
            });
            let mut restore = Restore::new();
            let pushed = store.snapshot().chunks(1 << 10).try_for_each(|chunk| restore.push(chunk));
            assert_eq!(pushed.is_ok(), good);
            let Ok(mut restored) = restore.finish() else { continue };
            assert!(restored.sweep(1));
            assert!(!restored.sweep(1), "the sweep comes to an end");
        }
    }
}

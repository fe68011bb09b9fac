//! An image, or one and its parts, as a store again.
//!
//! Reading is all or nothing. Each change must fit what came before it, a part must
//! continue exactly the state that was read so far, the counts must be right and the
//! digest of each part too; else there is an error and no store.
//!
//! What was dead when a later part was written may still stand in an earlier one. It is
//! read like everything else, and left to the sweep.
//!
//! An image comes in pieces, however they were cut, and then all of it is in memory. A run
//! comes in its blocks, and says at its end who can read them again: then of the versions
//! in it only the newest of each key stay in memory. Earlier releases cut blocks in the
//! middle of records. Such a block cannot be read for itself, so what is in it stays.
//!
//! Changes come in the order of time, so their keys come in any order, and to look each
//! of them up in a large tree would be most of the work; see `keys`.

mod keys;

use std::sync::Arc;

use bytes::Bytes;
use keys::Keys;
use xxhash_rust::xxh3::Xxh3Default;

use crate::cold::{Index, ReadBlocks, Run};
use crate::compact::Sweep;
use crate::hash::StateHash;
use crate::history::Change;
use crate::image::{END, HEADER, Head, MAGIC, PART, WHOLE};
use crate::record::{DELETE, PUT, Record};
use crate::revision::{Position, Revision};
use crate::series::Series;
use crate::store::Store;
use crate::wire::{DecodeError, Scan, peek_number};

/// No store gets this far, and beyond it revisions would not fit etcd's wire.
const MAX_REVISION: u64 = 1 << 62;

/// Why an image was not made into a store. Fetch it again, from elsewhere if need be;
/// the store that it was to replace is untouched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// It does not begin as images do.
    #[error("this is not an image of a store")]
    NotAnImage,
    /// Written by a version of synod that this one does not know.
    #[error("the image has format version {0}; this program reads versions {WHOLE} and {PART}")]
    UnknownVersion(u8),
    /// A part, but not of what follows on what was read; or a whole image behind another.
    #[error("the part does not continue what comes before it")]
    OutOfPlace,
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

/// A store in the making, from the pieces of an image and of the parts that continue it.
pub struct Restore {
    /// All but its keys.
    store: Store,
    keys: Keys,
    expect: Expect,
    /// What the part being read continues; none in the whole image that comes first.
    after: Option<Head>,
    /// Received, but not yet a whole record.
    pending: Vec<u8>,
    digest: Xxh3Default,
    /// How many keys the header announced.
    announced: u64,
    /// How many changes were read of this part.
    read: u64,
    /// The last of them, or where the part begins.
    last: Position,
    /// The runs that were read.
    runs: Vec<Run>,
    /// What is in which block of the run being read.
    index: Index,
    /// The changes of the block being read, until it is known whether it can be read for itself.
    block: Vec<(Position, Arc<Change>)>,
    /// Changes that came in no such block, and whatever stands behind them.
    hot: Series,
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
            keys: Keys::default(),
            expect: Expect::Preamble,
            after: None,
            pending: Vec::new(),
            digest: Xxh3Default::new(),
            announced: 0,
            read: 0,
            last: Position::default(),
            runs: Vec::new(),
            index: Index::default(),
            block: Vec::new(),
            hot: Series::default(),
            failed: None,
        }
    }

    /// Takes the next bytes of the image, or of the part, however they were cut.
    ///
    /// # Errors
    /// As soon as something is wrong, and from then on always the same.
    pub fn push(&mut self, chunk: Bytes) -> Result<(), RestoreError> {
        self.unless_failed(|restore| {
            restore.read(chunk)?;
            restore.keep_block();
            Ok(())
        })
    }

    /// Takes the next block of a run.
    ///
    /// # Errors
    /// As [`push`](Restore::push).
    pub fn push_block(&mut self, block: Bytes) -> Result<(), RestoreError> {
        self.unless_failed(|restore| {
            let between = |restore: &Restore| restore.expect == Expect::Changes && restore.pending.is_empty();
            let begins = between(restore);
            restore.read(block)?;
            let stands_alone = begins && between(restore) && restore.hot.is_cold();
            let last = restore.block.last().map(|(last, _)| *last);
            restore.index.block(last.filter(|_| stands_alone));
            if stands_alone {
                restore.block.clear();
            } else {
                restore.keep_block();
            }
            Ok(())
        })
    }

    /// All blocks of the run were pushed; from now on they are to be had from `reader`. What is pushed next belongs to
    /// the part behind it, which also has to be [announced](Restore::next_part).
    pub fn end_run(&mut self, reader: impl ReadBlocks + 'static) {
        self.runs.push(std::mem::take(&mut self.index).finish(Box::new(reader)));
    }

    /// What is pushed from now on is the part behind what was read so far.
    ///
    /// # Errors
    /// If that is not complete, or something was wrong with it; from then on always the
    /// same.
    pub fn next_part(&mut self) -> Result<(), RestoreError> {
        self.unless_failed(|restore| {
            if restore.expect != Expect::Nothing {
                return Err(RestoreError::Truncated);
            }
            let head = restore.store.view.head();
            restore.expect = Expect::Preamble;
            restore.after = Some(head);
            restore.digest = Xxh3Default::new();
            restore.read = 0;
            restore.last = Position::last_of(head.revision);
            Ok(())
        })
    }

    /// The store, once all of the image is there.
    ///
    /// # Errors
    /// If it is not, or if anything was wrong.
    pub fn finish(self) -> Result<Store, RestoreError> {
        match self.failed {
            Some(error) => return Err(error),
            None if self.expect == Expect::Nothing => {}
            None => return Err(RestoreError::Truncated),
        }
        let mut store = self.store;
        store.view.keys = self.keys.into_tree();
        store.view.kept_behind = store.view.revision;
        store.view.changes = self.hot;
        // Of what these hold, nothing is in memory.
        let _ = store.view.changes.settle(Revision::default(), self.runs);
        store.sweep = Sweep::everything();
        Ok(store)
    }

    /// The changes read last stay in memory.
    fn keep_block(&mut self) {
        for (position, change) in self.block.drain(..) {
            self.hot.push(position, change);
        }
    }

    fn unless_failed(
        &mut self,
        step: impl FnOnce(&mut Restore) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None => step(self).inspect_err(|error| self.failed = Some(error.clone())),
        }
    }

    fn read(&mut self, mut chunk: Bytes) -> Result<(), RestoreError> {
        // A record that was cut is put together, and only that one.
        while !self.pending.is_empty() && !chunk.is_empty() {
            let wanted = self.wanted(&self.pending)?.unwrap_or(self.pending.len() + 1);
            let missing = wanted.saturating_sub(self.pending.len()).min(chunk.len());
            self.pending.extend_from_slice(&chunk.split_to(missing));
            let pending = std::mem::take(&mut self.pending);
            self.read_whole(&pending)?;
        }
        self.read_whole(&chunk)
    }

    /// How long what comes next is, with its length in front; none if that cannot be told yet.
    fn wanted(&self, bytes: &[u8]) -> Result<Option<usize>, RestoreError> {
        match self.expect {
            Expect::Preamble => Ok(Some(MAGIC.len() + 1)),
            Expect::Nothing => Err(RestoreError::TrailingBytes),
            Expect::Header | Expect::Changes => match peek_number(bytes) {
                // A length beyond all that will ever come shows as a truncated image.
                Ok((length, prefix)) => {
                    Ok(Some(usize::try_from(length).unwrap_or(usize::MAX).saturating_add(prefix)))
                }
                Err(DecodeError::Truncated) => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// Reads whatever is there as a whole, and keeps the rest.
    fn read_whole(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let (mut at, mut digested) = (0, 0);
        while at < bytes.len() {
            let rest = &bytes[at..];
            if self.expect == Expect::Preamble && !MAGIC.starts_with(&rest[..rest.len().min(MAGIC.len())]) {
                return Err(RestoreError::NotAnImage);
            }
            let Some(wanted) = self.wanted(rest)?.filter(|wanted| *wanted <= rest.len()) else { break };
            if self.expect == Expect::Preamble {
                self.read_version(rest[MAGIC.len()])?;
            } else {
                let (_, prefix) = peek_number(rest)?;
                let mut record = Scan(&bytes[at + prefix..at + wanted]);
                match (self.expect, record.byte()?) {
                    (Expect::Header, HEADER) => self.read_header(&mut record)?,
                    (Expect::Changes, tag @ (PUT | DELETE)) => self.read_change(tag, &mut record)?,
                    (Expect::Changes, END) => {
                        // The digest is of all before the end.
                        self.digest.update(&bytes[digested..at]);
                        digested = at;
                        self.read_end(&mut record)?;
                    }
                    (_, tag) => return Err(DecodeError::UnknownTag { what: "record", tag }.into()),
                }
                record.finish()?;
            }
            at += wanted;
        }
        self.digest.update(&bytes[digested..at]);
        self.pending.extend_from_slice(&bytes[at..]);
        Ok(())
    }

    fn read_version(&mut self, version: u8) -> Result<(), RestoreError> {
        match (version, self.after) {
            (WHOLE, None) | (PART, Some(_)) => self.expect = Expect::Header,
            (WHOLE | PART, _) => return Err(RestoreError::OutOfPlace),
            _ => return Err(RestoreError::UnknownVersion(version)),
        }
        Ok(())
    }

    fn read_header(&mut self, record: &mut Scan<'_>) -> Result<(), RestoreError> {
        if let Some(after) = self.after {
            let follows = Head { revision: Revision(record.number()?), hash: StateHash(record.u128()?) };
            if follows != after {
                return Err(RestoreError::OutOfPlace);
            }
        }
        let view = &mut self.store.view;
        let before = (view.revision, view.compacted);
        view.revision = Revision(record.number()?);
        view.compacted = record.option()?.map(Revision);
        view.hash = StateHash(record.u128()?);
        self.announced = record.number()?;
        let revisions = Revision::FIRST..=Revision(MAX_REVISION);
        ensure(revisions.contains(&view.revision), "a revision that no store has")?;
        ensure(view.compacted <= Some(view.revision), "compacted in the future")?;
        if self.after.is_some() {
            let (revision, compacted) = before;
            ensure(revision <= view.revision && compacted <= view.compacted, "a part that goes back")?;
        }
        self.expect = Expect::Changes;
        Ok(())
    }

    fn read_change(&mut self, tag: u8, record: &mut Scan<'_>) -> Result<(), RestoreError> {
        let view = &mut self.store.view;
        let record = Record::read(tag, record)?;
        let position = record.position;
        let Position { revision, sub } = position;
        ensure(revision > Revision::FIRST, "a change before the first")?;
        ensure(position > self.last, "changes out of order")?;
        // Whoever counts on within the revision must not overflow.
        ensure(sub < u32::MAX, "more changes than a revision has")?;
        ensure(revision <= view.revision, "a change in the future")?;
        ensure(!record.key.is_empty(), "a key without a name")?;
        let entry = self.keys.entry(record.key);
        let history = entry.history();
        let before = history.map(|history| history.position().revision);
        ensure(before.is_none_or(|before| before < revision), "a key that changed twice in one revision")?;
        // What came before it in this part may be forgotten, but only up to the compaction; and behind a tombstone
        // that nobody could see any more, a whole life.
        let after = self.after.map(|after| after.revision);
        let leaps = view.compacted.is_some_and(|boundary| revision <= boundary)
            && history.is_none_or(|history| {
                after.is_some_and(|after| history.position().revision <= after || !history.is_alive())
            });
        let prev = history.and_then(|history| history.current());
        if let Some(put) = &record.put {
            let (create_revision, version) = (put.create_revision, put.version);
            let same_life = prev.filter(|prev| prev.create_revision == create_revision);
            ensure(
                match (same_life, prev) {
                    (Some(prev), _) if leaps => (prev.version + 1..=revision.0).contains(&version),
                    (Some(prev), _) => version == prev.version + 1,
                    (None, _) if leaps => {
                        let born = before < Some(create_revision) && create_revision <= revision;
                        born && (1..=revision.0).contains(&version)
                    }
                    (None, Some(_)) => false,
                    (None, None) => create_revision == revision && version == 1,
                },
                "a put that does not continue its key's history",
            )?;
        } else {
            ensure(prev.is_some() || leaps, "a removal of nothing")?;
        }
        let key = prev.map_or_else(|| Bytes::copy_from_slice(record.key), |prev| prev.key.clone());
        let change = Arc::new(record.change_of(key));
        view.stats.count(history.and_then(|history| history.newest_if_alive()), &change);
        self.block.push((position, Arc::clone(&change)));
        entry.push(position, change);
        self.last = position;
        self.read += 1;
        Ok(())
    }

    fn read_end(&mut self, record: &mut Scan<'_>) -> Result<(), RestoreError> {
        ensure(record.number()? == self.read, "another number of changes than it says")?;
        if record.u128()? != self.digest.digest128() {
            return Err(RestoreError::Altered);
        }
        ensure(self.store.view.stats.keys == self.announced, "another number of keys than it says")?;
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
    use crate::response::KeyValue;

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
            let pushed = store.snapshot().chunks(1 << 10).try_for_each(|chunk| restore.push(chunk.unwrap()));
            assert_eq!(pushed.is_ok(), good);
            let Ok(restored) = restore.finish() else { continue };
            assert_eq!(restored.changes_from(revision).unwrap().count(), 1);
        }
    }
}

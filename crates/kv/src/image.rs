//! A snapshot as bytes, all of it or what changed; `restore` reads them back.
//!
//! ```text
//!   image  = magic version header change* end
//!   each of the latter behind its length:
//!   header = in a part only: revision and hash of the head that it follows;
//!            then its own head: revision, compacted revision, state hash, number of keys
//!   change = position, then put or delete with its fields
//!   end    = number of changes, digest of everything before
//! ```
//!
//! An image is a stream: it may be cut anywhere, and the pieces need not arrive in
//! the cuts they were sent in. Changes stand in the order in which they happened.
//! Dead ones are left out, swept or not, so the image tells about the store and not
//! about its housekeeping: equal stores make equal images.
//!
//! A *part* is an image of what changed behind an earlier snapshot. Behind the image of
//! that one, or behind its parts, it makes the store of this one. It leaves out less:
//! what is dead now may have been alive in what came before, and has to be buried there.
//! So of every key that changed, the last change up to the compaction is in the part,
//! even where it is a tombstone that no reader could see any more. Once it is swept, the
//! store cannot tell whether it was its key's last one, so all tombstones are.
//!
//! ```text
//!   whole, at 40      3.0 put a   9.0 put b   40.0 put c
//!   part, 40 to 60    52.0 delete a   58.0 put c          compacted at 55: nobody sees 52.0,
//!   part, 60 to 61    61.0 put d                          but without it, `a` would be back
//! ```
//!
//! A *run* is an image, or a part, in blocks that end where records end: header first, then
//! changes and nothing else, then the end. So a block can be read for itself later, when
//! memory no longer holds the versions in it (see `cold`).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::Xxh3Default;

use crate::cold::{Index, ReadBlocks, Run, Unreadable, damaged};
use crate::hash::StateHash;
use crate::history::Change;
use crate::record::{self, Record};
use crate::revision::{Position, Revision};
use crate::series::Block;
use crate::store::{Snapshot, View};
use crate::wire::Sink;

pub(crate) const MAGIC: &[u8; 8] = b"synod-kv";

/// The format of an image that stands for itself.
pub(crate) const WHOLE: u8 = 1;
/// The format of one that continues others.
pub(crate) const PART: u8 = 2;

pub(crate) const HEADER: u8 = 1;
pub(crate) const END: u8 = 4;

/// A block of a run holds no more changes than this: whoever wants one of them goes past the others.
const BLOCK_CHANGES: usize = 128;

/// A block of a run with more than one change in it is no longer than this, in bytes: whoever wants one of them has
/// the others read, too.
const BLOCK_BYTES: usize = 16 << 10;

/// Which state of a store: one that has been through the same has the same head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its newest revision.
    pub revision: Revision,
    /// The hash of all that it has been through.
    pub hash: StateHash,
}

impl View {
    /// Which state this is.
    pub fn head(&self) -> Head {
        Head { revision: self.revision, hash: self.hash }
    }
}

impl Snapshot {
    /// This snapshot as an image, in pieces of at most `max_bytes` (at least one).
    /// Pieces are made as they are asked for.
    pub fn chunks(&self, max_bytes: usize) -> Chunks {
        Chunks {
            image: Image::new(self, None),
            max_bytes: max_bytes.max(1),
            ready: BytesMut::new(),
            failed: false,
        }
    }

    /// This snapshot as a run.
    pub fn run(&self) -> Blocks {
        Blocks::new(Image::new(self, None))
    }

    /// What changed behind `after`, an earlier state of the same store, as a run that is a part. None if that is no
    /// longer known, because the store forgot changes behind `after`: when a later checkpoint was
    /// [settled](crate::Store::settle), or because it came from elsewhere. Then only a whole image will do.
    pub fn part(&self, after: Head) -> Option<Blocks> {
        let known = self.kept_behind <= after.revision && after.revision <= self.revision;
        known.then(|| Blocks::new(Image::new(self, Some(after))))
    }
}

/// The pieces of an image; see [`Snapshot::chunks`]. An error is the last.
pub struct Chunks {
    image: Image,
    max_bytes: usize,
    /// Written, but not yet given out.
    ready: BytesMut,
    failed: bool,
}

impl Iterator for Chunks {
    type Item = Result<Bytes, Unreadable>;

    fn next(&mut self) -> Option<Result<Bytes, Unreadable>> {
        while self.ready.len() < self.max_bytes && !self.failed {
            match self.image.next() {
                Ok(Some(_)) => self.ready.extend_from_slice(&self.image.spelled),
                Ok(None) => break,
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        let length = self.ready.len().min(self.max_bytes);
        (length > 0 && !self.failed).then(|| Ok(self.ready.split_to(length).freeze()))
    }
}

/// The blocks of a run; see [`Snapshot::run`] and [`Snapshot::part`]. An error is the last.
pub struct Blocks {
    image: Image,
    index: Index,
    /// What comes next was made, and is still in `image.spelled`.
    made: Option<Piece>,
    done: bool,
}

impl Blocks {
    fn new(image: Image) -> Blocks {
        Blocks { image, index: Index::default(), made: None, done: false }
    }

    /// The run, once all of it was written where `reader` finds it. It has to be read to the end before.
    ///
    /// # Panics
    /// If it was not.
    pub fn finish(self, reader: impl ReadBlocks + 'static) -> Run {
        assert!(self.done && matches!(self.image.next, Next::Nothing), "the run is written");
        self.index.finish(Box::new(reader))
    }

    fn fill(&mut self) -> Result<Option<Bytes>, Unreadable> {
        let (mut block, mut changes, mut last) = (Vec::new(), 0, None);
        loop {
            let made = match self.made.take() {
                Some(made) => Some(made),
                None => self.image.next()?,
            };
            let Some(made) = made else { break };
            let fits = match made {
                Piece::Change(_) => {
                    let bytes = block.len() + self.image.spelled.len();
                    changes < BLOCK_CHANGES && bytes <= BLOCK_BYTES
                }
                Piece::Other => false,
            };
            if !fits && !block.is_empty() {
                self.made = Some(made);
                break;
            }
            block.extend_from_slice(&self.image.spelled);
            match made {
                Piece::Change(position) => {
                    (changes, last) = (changes + 1, Some(position));
                }
                Piece::Other => break,
            }
        }
        if block.is_empty() {
            return Ok(None);
        }
        self.index.block(last);
        Ok(Some(block.into()))
    }
}

impl Iterator for Blocks {
    type Item = Result<Bytes, Unreadable>;

    fn next(&mut self) -> Option<Result<Bytes, Unreadable>> {
        if self.done {
            return None;
        }
        let block = self.fill().transpose();
        self.done = !matches!(block, Some(Ok(_)));
        block
    }
}

/// An image or a part, record by record.
struct Image {
    snapshot: Snapshot,
    /// Of a part, what it follows.
    after: Option<Head>,
    next: Next,
    /// How many changes were written.
    written: u64,
    digest: Xxh3Default,
    /// How the last piece is spelled.
    spelled: Vec<u8>,
    scratch: Vec<u8>,
}

/// What an image consists of.
#[derive(Clone, Copy)]
enum Piece {
    Change(Position),
    /// Header or end.
    Other,
}

/// What comes next.
enum Next {
    Header,
    /// The first change from this position on.
    From(Position),
    /// A block from the disk, from this byte on; and where to go on behind it.
    Cold {
        block: Bytes,
        at: usize,
        then: Position,
    },
    /// A block in memory, from this index on.
    Hot {
        block: Arc<Vec<(Position, Arc<Change>)>>,
        at: usize,
    },
    Nothing,
}

impl Image {
    fn new(snapshot: &Snapshot, after: Option<Head>) -> Image {
        Image {
            snapshot: snapshot.clone(),
            after,
            next: Next::Header,
            written: 0,
            digest: Xxh3Default::new(),
            spelled: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Spells the next piece; none behind the end.
    fn next(&mut self) -> Result<Option<Piece>, Unreadable> {
        self.spelled.clear();
        let piece = loop {
            match &mut self.next {
                Next::Header => {
                    self.write_header();
                    let first = self.after.map_or(Revision::default(), |after| after.revision.next());
                    self.next = Next::From(Position::first_of(first));
                    break Piece::Other;
                }
                Next::From(position) => {
                    let from = *position;
                    self.next = match self.snapshot.changes.block_from(from)? {
                        Some(Block::Cold(block, last)) => Next::Cold { block, at: 0, then: last.next() },
                        Some(Block::Hot(block, at)) => Next::Hot { block, at },
                        None => {
                            self.write_end();
                            self.next = Next::Nothing;
                            break Piece::Other;
                        }
                    };
                }
                Next::Cold { block, at, then } => {
                    let Some(record) = record::records(&block[*at..]).next() else {
                        self.next = Next::From(*then);
                        continue;
                    };
                    let (spelled, record) = record.map_err(|error| damaged(&error))?;
                    *at += spelled.len();
                    if is_wanted(&self.snapshot, self.after, &record) {
                        self.spelled.extend_from_slice(spelled);
                        break Piece::Change(record.position);
                    }
                }
                Next::Hot { block, at } => {
                    let Some((position, change)) = block.get(*at) else {
                        let last = block.last().expect("no block is empty").0;
                        self.next = Next::From(last.next());
                        continue;
                    };
                    *at += 1;
                    let record = Record::of(*position, change);
                    if is_wanted(&self.snapshot, self.after, &record) {
                        self.scratch.clear();
                        record.write(&mut self.scratch);
                        self.spelled.string(&self.scratch);
                        break Piece::Change(*position);
                    }
                }
                Next::Nothing => return Ok(None),
            }
        };
        self.written += u64::from(matches!(piece, Piece::Change(_)));
        self.digest.update(&self.spelled);
        Ok(Some(piece))
    }

    fn write_header(&mut self) {
        self.spelled.bytes(MAGIC);
        self.spelled.byte(if self.after.is_some() { PART } else { WHOLE });
        let mut record = vec![HEADER];
        if let Some(after) = self.after {
            record.number(after.revision.0);
            record.bytes(&after.hash.0.to_le_bytes());
        }
        let view = &self.snapshot;
        record.number(view.revision.0);
        record.option(view.compacted.map(|revision| revision.0));
        record.bytes(&view.hash.0.to_le_bytes());
        record.number(view.stats.keys);
        self.spelled.string(&record);
    }

    fn write_end(&mut self) {
        let mut record = vec![END];
        record.number(self.written);
        record.bytes(&self.digest.digest128().to_le_bytes());
        self.spelled.string(&record);
    }
}

/// Does a change belong into the image, or into the part behind `after`?
fn is_wanted(view: &View, after: Option<Head>, record: &Record<'_>) -> bool {
    let (position, key, is_tombstone) = (record.position, record.key, record.put.is_none());
    match (after, view.compacted) {
        (None, _) => view.is_readable(position, key, is_tombstone),
        // It buries what an earlier part may hold, readable or not.
        (Some(_), Some(boundary)) if position.revision <= boundary => {
            is_tombstone || view.is_last(position, key, boundary)
        }
        (Some(_), _) => true,
    }
}

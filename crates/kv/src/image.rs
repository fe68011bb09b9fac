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
//! even where it is a tombstone that no reader could see any more. For that the store
//! keeps tombstones until a part has them; see [`Store::hold_tombstones`].
//!
//! ```text
//!   whole, at 40      3.0 put a   9.0 put b   40.0 put c
//!   part, 40 to 60    52.0 delete a   58.0 put c          compacted at 55: nobody sees 52.0,
//!   part, 60 to 61    61.0 put d                          but without it, `a` would be back
//! ```

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::Xxh3Default;

use crate::hash::StateHash;
use crate::history::Change;
use crate::revision::{LeaseId, Position, Revision};
use crate::store::{Snapshot, Store, View};
use crate::wire::Sink;

pub(crate) const MAGIC: &[u8; 8] = b"synod-kv";

/// The format of an image that stands for itself.
pub(crate) const WHOLE: u8 = 1;
/// The format of one that continues others.
pub(crate) const PART: u8 = 2;

pub(crate) const HEADER: u8 = 1;
pub(crate) const PUT: u8 = 2;
pub(crate) const DELETE: u8 = 3;
pub(crate) const END: u8 = 4;

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

impl Store {
    /// From now on, tombstones of changes to come stay until
    /// [`release_tombstones`](Store::release_tombstones), swept or not: to be called when
    /// a snapshot is taken that parts shall continue. If they are being held already, it
    /// changes nothing.
    ///
    /// It is no part of the state: reads, hash and whole images are the same.
    pub fn hold_tombstones(&mut self) {
        self.view.held_behind.get_or_insert(self.view.revision);
    }

    /// Tombstones up to `revision` need not be held any longer, because an image holds
    /// them. [Sweep](Store::sweep) afterwards. Nothing happens where none are held, as
    /// in a store that took the place of the one that was written.
    pub fn release_tombstones(&mut self, revision: Revision) {
        let view = &mut self.view;
        let Some(held) = view.held_behind.filter(|&held| held < revision) else { return };
        // The sweep went past those that were held.
        view.sweep_from = view.sweep_from.min(Position::first_of(held.next()));
        view.held_behind = Some(revision);
    }
}

impl Snapshot {
    /// This snapshot as an image, in pieces of at most `max_bytes` (at least one).
    /// Pieces are made as they are asked for.
    pub fn chunks(&self, max_bytes: usize) -> Chunks {
        Chunks::new(self, None, max_bytes)
    }

    /// What changed behind `after`, an earlier state of the same store, as a part: in
    /// pieces like [`chunks`](Snapshot::chunks). None if that is no longer known,
    /// because tombstones behind `after` were not
    /// [held](Store::hold_tombstones); then only a whole image will do.
    pub fn part(&self, after: Head, max_bytes: usize) -> Option<Chunks> {
        let known = self.held_behind.is_some_and(|held| held <= after.revision);
        (known && after.revision <= self.revision).then(|| Chunks::new(self, Some(after), max_bytes))
    }
}

/// The pieces of an image; see [`Snapshot::chunks`] and [`Snapshot::part`].
pub struct Chunks {
    snapshot: Snapshot,
    max_bytes: usize,
    /// Of a part, what it follows.
    after: Option<Head>,
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
    fn new(snapshot: &Snapshot, after: Option<Head>, max_bytes: usize) -> Chunks {
        let first = after.map_or(Revision::default(), |after| after.revision.next());
        let mut chunks = Chunks {
            snapshot: snapshot.clone(),
            max_bytes: max_bytes.max(1),
            after,
            next: Some(Position::first_of(first)),
            written: 0,
            digest: Xxh3Default::new(),
            ready: BytesMut::new(),
        };
        chunks.begin();
        chunks
    }

    fn begin(&mut self) {
        self.append(MAGIC);
        self.append(&[if self.after.is_some() { PART } else { WHOLE }]);
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
            let wanted = match self.after {
                None => snapshot.is_readable(position, change),
                // It buries what an earlier part may hold, readable or not.
                Some(_) => snapshot.is_last(position, change),
            };
            if wanted {
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

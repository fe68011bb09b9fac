//! The versions of one key.
//!
//! A key's history alternates between lives and deaths: puts, then a tombstone, then
//! maybe puts again. The newest change stands by itself, because nearly every read
//! wants that one and nearly every key has no other; the rest is a series, so that a
//! key written a million times is as cheap to write the next time.

use std::sync::Arc;

use crate::response::KeyValue;
use crate::revision::{Position, Revision};
use crate::series::Series;
use bytes::Bytes;

/// One change of one key: what the store is a log of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key was given a value.
    Put(KeyValue),
    /// The key was removed; its life ends here.
    Delete {
        /// Which key.
        key: Bytes,
        /// When.
        revision: Revision,
    },
}

impl Change {
    /// The key that changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Change::Put(kv) => &kv.key,
            Change::Delete { key, .. } => key,
        }
    }

    /// When it changed.
    pub fn revision(&self) -> Revision {
        match self {
            Change::Put(kv) => kv.mod_revision,
            Change::Delete { revision, .. } => *revision,
        }
    }

    /// What the key is after the change: `None` if it is gone.
    pub fn pair(&self) -> Option<&KeyValue> {
        match self {
            Change::Put(kv) => Some(kv),
            Change::Delete { .. } => None,
        }
    }

    /// An estimate of the memory that a change occupies in the store, in bytes: its
    /// own, that of its key and value, and its places by key and in the series.
    pub(crate) fn footprint(&self) -> u64 {
        const PLACES: usize = 64;
        let value = self.pair().map_or(0, |kv| kv.value.len());
        (size_of::<Change>() + PLACES + self.key().len() + value) as u64
    }
}

/// As of when to read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    /// The newest there is, including what the transaction under way has written.
    Newest,
    /// Just after this revision.
    Past(Revision),
}

impl From<Option<Revision>> for At {
    fn from(revision: Option<Revision>) -> At {
        revision.map_or(At::Newest, At::Past)
    }
}

/// Everything remembered of one key, in order. Never empty.
#[derive(Clone, Debug)]
pub(crate) struct History {
    newest: Arc<Change>,
    /// None for the many keys that were written once.
    older: Option<Arc<Series>>,
    // The newest change's position, and whether it left the key alive, are kept here
    // so that counting keys follows no pointers.
    revision: Revision,
    sub: u32,
    alive: bool,
}

impl History {
    pub(crate) fn new(position: Position, change: Arc<Change>) -> History {
        History {
            alive: change.pair().is_some(),
            revision: position.revision,
            sub: position.sub,
            newest: change,
            older: None,
        }
    }

    /// Adds a change behind all others.
    pub(crate) fn push(&mut self, position: Position, change: Arc<Change>) {
        assert!(position > self.position(), "a history grows at its end");
        let before = self.position();
        self.alive = change.pair().is_some();
        self.revision = position.revision;
        self.sub = position.sub;
        let replaced = std::mem::replace(&mut self.newest, change);
        Arc::make_mut(self.older.get_or_insert_default()).push(before, replaced);
    }

    pub(crate) fn position(&self) -> Position {
        Position { revision: self.revision, sub: self.sub }
    }

    /// The key as it is now, if it exists.
    pub(crate) fn current(&self) -> Option<&KeyValue> {
        self.newest.pair()
    }

    /// The newest change, unless the key is dead.
    pub(crate) fn newest_if_alive(&self) -> Option<&Change> {
        self.alive.then_some(&*self.newest)
    }

    /// The last change up to and including `revision`.
    pub(crate) fn last_change(&self, revision: Revision) -> Option<(Position, &Change)> {
        if revision >= self.revision {
            return Some((self.position(), &self.newest));
        }
        let (position, change) = self.older.as_ref()?.up_to(Position::last_of(revision))?;
        Some((position, change))
    }

    /// The key as it was at `at`, if it existed.
    pub(crate) fn at(&self, at: At) -> Option<&KeyValue> {
        match at {
            At::Newest => self.current(),
            At::Past(revision) => self.last_change(revision)?.1.pair(),
        }
    }

    /// Whether the key existed at `at`.
    pub(crate) fn alive_at(&self, at: At) -> bool {
        match at {
            At::Past(revision) if revision < self.revision => self.at(at).is_some(),
            _ => self.alive,
        }
    }

    /// The change just before `position`.
    pub(crate) fn before(&self, position: Position) -> Option<Position> {
        // `up_to` includes the position itself.
        let (revision, sub) = (position.revision, position.sub);
        let bound = match sub.checked_sub(1) {
            Some(sub) => Position { revision, sub },
            None => Position::last_of(Revision(revision.0.checked_sub(1)?)),
        };
        self.older.as_ref()?.up_to(bound).map(|(position, _)| position)
    }

    /// Forgets one change that is not the newest.
    pub(crate) fn forget(&mut self, position: Position) -> Option<Arc<Change>> {
        let older = Arc::make_mut(self.older.as_mut()?);
        let forgotten = older.remove(position);
        if older.is_empty() {
            self.older = None;
        }
        forgotten
    }

    /// True if the newest change is all there is.
    pub(crate) fn is_single(&self) -> bool {
        self.older.is_none()
    }
}

//! The versions of one key.
//!
//! A key's history alternates between lives and deaths: puts, then a tombstone, then
//! maybe puts again. The newest change is here, because nearly every read wants that
//! one. Of those before it, only what it takes to count them and to find them in the
//! series: where they are, whether they left the key alive, and how large they are.
//!
//! New ones come at the end, and the oldest are forgotten first. So they stand in a row
//! of blocks; copies share the full ones, and a key written a million times is as cheap
//! to write the next time.

use std::sync::Arc;

use bytes::Bytes;
use imbl::Vector;
use smallvec::SmallVec;

use crate::response::KeyValue;
use crate::revision::{Position, Revision};
use crate::series::BLOCK;

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

/// A pair that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found<'h> {
    /// It is still the newest.
    Here(&'h KeyValue),
    /// The change in the series that made it.
    There(Position),
}

/// Everything remembered of one key, in order. Never empty.
#[derive(Clone, Debug)]
pub(crate) struct History {
    newest: Arc<Change>,
    /// None for the many keys that were written once; never empty.
    older: Option<Arc<Older>>,
    // The newest change's position, and whether it left the key alive, are kept here
    // so that counting keys follows no pointers.
    revision: Revision,
    sub: u32,
    alive: bool,
}

/// How much was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forgotten {
    pub(crate) versions: u64,
    pub(crate) bytes: u64,
    /// That was all there was of the key.
    pub(crate) all: bool,
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
        let before = self.version();
        self.alive = change.pair().is_some();
        self.revision = position.revision;
        self.sub = position.sub;
        self.newest = change;
        Arc::make_mut(self.older.get_or_insert_default()).push(before);
    }

    pub(crate) fn position(&self) -> Position {
        Position { revision: self.revision, sub: self.sub }
    }

    /// The newest change, as it will be remembered when it no longer is.
    fn version(&self) -> Version {
        Version::new(self.position(), self.alive, self.newest.footprint())
    }

    /// The key as it is now, if it exists.
    pub(crate) fn current(&self) -> Option<&KeyValue> {
        self.newest.pair()
    }

    /// The newest change, unless the key is dead.
    pub(crate) fn newest_if_alive(&self) -> Option<&Change> {
        self.alive.then_some(&*self.newest)
    }

    /// Does the key exist now?
    pub(crate) fn is_alive(&self) -> bool {
        self.alive
    }

    /// Where the last change up to and including `revision` is, and whether it left the key alive.
    pub(crate) fn last_change(&self, revision: Revision) -> Option<(Position, bool)> {
        if revision >= self.revision {
            return Some((self.position(), self.alive));
        }
        self.older.as_ref()?.up_to(revision).map(|version| (version.position(), version.alive()))
    }

    /// The key as it was at `at`, if it existed.
    pub(crate) fn at(&self, at: At) -> Option<Found<'_>> {
        match at {
            At::Past(revision) if revision < self.revision => {
                self.last_change(revision).filter(|(_, alive)| *alive).map(|(at, _)| Found::There(at))
            }
            _ => self.current().map(Found::Here),
        }
    }

    /// Whether the key existed at `at`.
    pub(crate) fn alive_at(&self, at: At) -> bool {
        match at {
            At::Past(revision) => self.last_change(revision).is_some_and(|(_, alive)| alive),
            At::Newest => self.alive,
        }
    }

    /// Is there anything to forget after a compaction at `boundary`?
    pub(crate) fn has_dead(&self, boundary: Revision) -> bool {
        let mut versions = self.older.iter().flat_map(|older| older.first_two()).chain([self.version()]);
        let first = versions.next().expect("a history is never empty");
        first.is_old_tombstone(boundary) || versions.next().is_some_and(|second| second.revision <= boundary)
    }

    /// Forgets what no reader can see after a compaction at `boundary`: what was followed by a change up to that, and
    /// the last change up to that if it is a tombstone, unless it is of that very revision.
    pub(crate) fn forget(&mut self, boundary: Revision) -> Forgotten {
        let mut forgotten = Forgotten::default();
        let Some((last, alive)) = self.last_change(boundary) else { return forgotten };
        let keep_from = if alive || last.revision == boundary { last } else { last.next() };
        if let Some(older) = &mut self.older {
            Arc::make_mut(older).forget_before(keep_from, &mut forgotten);
            if older.is_empty() {
                self.older = None;
            }
        }
        if self.position() < keep_from {
            forgotten.count(self.version());
            forgotten.all = true;
        }
        forgotten
    }
}

impl Forgotten {
    fn count(&mut self, version: Version) {
        self.versions += 1;
        self.bytes += version.footprint();
    }
}

/// What is remembered of a change that is not its key's newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    revision: Revision,
    sub: u32,
    /// Twice its footprint, and one more if it left the key alive.
    size: u32,
}

const _: () = assert!(size_of::<Version>() == 16, "there are more of these than of anything else");

impl Version {
    fn new(Position { revision, sub }: Position, alive: bool, footprint: u64) -> Version {
        let footprint = u32::try_from(footprint).ok().filter(|bytes| *bytes <= u32::MAX / 2);
        let footprint = footprint.expect("no request, and no block of a run, is as large as two gigabytes");
        Version { revision, sub, size: footprint * 2 + u32::from(alive) }
    }

    fn position(self) -> Position {
        Position { revision: self.revision, sub: self.sub }
    }

    fn alive(self) -> bool {
        self.size % 2 == 1
    }

    fn footprint(self) -> u64 {
        u64::from(self.size / 2)
    }

    /// Can no reader come across it after a compaction at `boundary`, if it buries nothing?
    fn is_old_tombstone(self, boundary: Revision) -> bool {
        !self.alive() && self.revision < boundary
    }
}

/// Versions in their order: full blocks, if there are so many, and an open one behind them.
#[derive(Clone, Debug, Default)]
struct Older {
    /// None of the blocks is empty, and neither is the row. In a box, because most keys have none.
    full: Option<Box<Vector<Arc<[Version]>>>>,
    /// Of one version it is the only place: most keys that were written again were so once.
    open: SmallVec<[Version; 1]>,
}

impl Older {
    fn push(&mut self, version: Version) {
        if self.open.len() == self.open.capacity() {
            // Half as much again, and not twice: what is spare here is spare a million times.
            self.open.reserve_exact(1 + self.open.len() / 2);
        }
        self.open.push(version);
        if self.open.len() == BLOCK {
            self.full.get_or_insert_default().push_back(self.open[..].into());
            self.open = SmallVec::new();
        }
    }

    fn is_empty(&self) -> bool {
        self.full.is_none() && self.open.is_empty()
    }

    fn first_two(&self) -> impl Iterator<Item = Version> {
        let full = self.full.iter().flat_map(|full| full.iter()).flat_map(|block| block.iter());
        full.chain(&self.open).take(2).copied()
    }

    /// The last version up to and including `revision`.
    fn up_to(&self, revision: Revision) -> Option<Version> {
        let last_in = |block: &[Version]| {
            let behind = block.partition_point(|version| version.revision <= revision);
            behind.checked_sub(1).map(|last| block[last])
        };
        if let Some(found) = last_in(&self.open) {
            return Some(found);
        }
        let full = self.full.as_ref()?;
        let (mut low, mut high) = (0, full.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if full[middle][0].revision <= revision { low = middle + 1 } else { high = middle }
        }
        last_in(&full[low.checked_sub(1)?])
    }

    /// Forgets everything before `position`.
    fn forget_before(&mut self, position: Position, forgotten: &mut Forgotten) {
        let dead_in = |block: &[Version]| block.partition_point(|version| version.position() < position);
        if let Some(full) = &mut self.full {
            while let Some(block) = full.front_mut() {
                let dead = dead_in(block);
                block[..dead].iter().for_each(|version| forgotten.count(*version));
                if dead < block.len() {
                    if dead > 0 {
                        *block = block[dead..].into();
                    }
                    return;
                }
                full.pop_front();
            }
            self.full = None;
        }
        let dead = dead_in(&self.open);
        self.open.drain(..dead).for_each(|version| forgotten.count(version));
        if dead > 0 {
            self.open.shrink_to_fit(); // what is left after a compaction may stay for long
        }
    }
}

#[cfg(test)]
mod tests;

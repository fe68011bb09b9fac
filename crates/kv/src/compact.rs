//! Forgetting.
//!
//! A compaction at R says that nobody will ask again how things stood before R. Per
//! key, the newest version up to R stays (unless it is a tombstone older than R), and
//! everything later (CP-2). That much is done at once, by remembering R: reads below
//! it are refused, and what they alone could have seen is dead.
//!
//! The dead are forgotten later, by [`Store::sweep`], a few keys at a time: it goes
//! round through all keys, and is done when it has come back to where it was at the
//! last compaction. How far it has come is nobody's business but this replica's: neither
//! reads nor the hash nor an image of the store can tell.
//!
//! In the series the dead stay where they are. No reader finds them there; what is in
//! memory of them goes when a checkpoint holds what was written since (see
//! [`Store::settle`]), and what is on disk when one drops the run that they are in.

use std::ops::Bound;

use crate::error::KvError;
use crate::revision::{Position, Revision};
use crate::store::{IndexKey, Store, View};

/// What the sweep has left to look at; what comes first stands last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sweep(Vec<Stretch>);

/// Keys next to each other.
#[derive(Clone, Debug, Default)]
struct Stretch {
    /// Where it begins; at the first key of all if there is none.
    from: Option<IndexKey>,
    /// Before which key it ends; behind the last of all if there is none.
    to: Option<IndexKey>,
}

impl Sweep {
    /// There may be something dead anywhere.
    pub(crate) fn everything() -> Sweep {
        Sweep(vec![Stretch::default()])
    }

    /// Goes once round, beginning where it is.
    fn again(&mut self) {
        *self = match self.0.pop().and_then(|stretch| stretch.from) {
            None => Sweep::everything(),
            Some(here) => Sweep(vec![
                Stretch { from: None, to: Some(here.clone()) },
                Stretch { from: Some(here), to: None },
            ]),
        };
    }
}

impl Store {
    /// Could `revision` become the oldest that can be read?
    pub(crate) fn check_compaction(&self, revision: Revision) -> Result<(), KvError> {
        if let Some(oldest) = self.view.compacted.filter(|&oldest| revision <= oldest) {
            return Err(KvError::Compacted { requested: revision, oldest });
        }
        if revision > self.view.revision {
            return Err(KvError::FutureRevision { requested: revision, current: self.view.revision });
        }
        Ok(())
    }

    /// Makes `revision` the oldest that can be read (CP-1).
    pub(crate) fn compact(&mut self, revision: Revision) {
        self.sweep.again();
        self.view.compacted = Some(revision);
        self.view.hash = self.view.hash.after_compaction(revision);
    }

    /// Removes some of what compactions have left for dead: looks at no more than
    /// `budget` keys, and returns true if there are more to look at. Call it until
    /// it returns false, between requests, as time permits; calling it needlessly
    /// does no harm. Reads, hash and images are the same before and after.
    pub fn sweep(&mut self, budget: usize) -> bool {
        let (Some(stretch), Some(boundary)) = (self.sweep.0.last_mut(), self.view.compacted) else {
            self.sweep = Sweep::default();
            return false;
        };
        if budget == 0 {
            return true;
        }
        // Looked at first and changed after, because a tree cannot be walked and changed at once; and most of it
        // need not be changed, which would copy what a snapshot shares.
        let from = stretch.from.as_deref().map_or(Bound::Unbounded, Bound::Included);
        let to = stretch.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut keys = self.view.keys.range::<_, [u8]>((from, to));
        let looked_at = keys.by_ref().take(budget);
        let dead: Vec<IndexKey> =
            looked_at.filter(|(_, history)| history.has_dead(boundary)).map(|(key, _)| key.clone()).collect();
        match keys.next() {
            Some((next, _)) => stretch.from = Some(next.clone()),
            None => drop(self.sweep.0.pop()),
        }
        for key in &dead {
            self.view.forget_dead(key, boundary);
        }
        !self.sweep.0.is_empty()
    }
}

impl View {
    /// Forgets what a compaction at `boundary` has made unreadable of one key.
    fn forget_dead(&mut self, key: &[u8], boundary: Revision) {
        let history = self.keys.get_mut(key).expect("it was just found");
        let forgotten = history.forget(boundary);
        self.stats.versions -= forgotten.versions;
        self.stats.bytes_total -= forgotten.bytes;
        if forgotten.all {
            self.keys.remove(key);
        }
    }

    /// Whether a read may still see a change of `key`. False for what is dead, swept or not.
    pub(crate) fn is_readable(&self, position: Position, key: &[u8], is_tombstone: bool) -> bool {
        let Some(boundary) = self.compacted.filter(|&boundary| position.revision <= boundary) else {
            return true;
        };
        let is_old_tombstone = is_tombstone && position.revision < boundary;
        !is_old_tombstone && self.is_last(position, key, boundary)
    }

    /// Whether the change of `key` at `position` is its last up to `boundary`, as far as that is remembered.
    pub(crate) fn is_last(&self, position: Position, key: &[u8], boundary: Revision) -> bool {
        let last = self.keys.get(key).and_then(|history| history.last_change(boundary));
        last.is_some_and(|(last, _)| last == position)
    }
}

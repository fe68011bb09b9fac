//! Forgetting.
//!
//! A compaction at R says that nobody will ask again how things stood before R. Per
//! key, the newest version up to R stays (unless it is a tombstone older than R), and
//! everything later (CP-2). That much is done at once, by remembering R: reads below
//! it are refused, and what they alone could have seen is dead.
//!
//! The dead are removed later, by [`Store::sweep`], a few at a time. Who died can be
//! read off the log of changes: a version is dead if its key has a *later* change not
//! later than R. So it is enough to walk along the changes since the last compaction,
//! and for each of them forget the one before it. How far the sweep has come is
//! nobody's business but this replica's: neither reads nor the hash nor an image of
//! the store can tell. A tombstone that buries what a checkpoint still holds stays until
//! a checkpoint holds it, too (see `image`).

use std::sync::Arc;

use crate::error::KvError;
use crate::history::Change;
use crate::revision::{Position, Revision};
use crate::store::{Store, View};

impl Store {
    /// Makes `revision` the oldest that can be read (CP-1).
    pub(crate) fn compact(&mut self, revision: Revision) -> Result<(), KvError> {
        let view = &mut self.view;
        if let Some(oldest) = view.compacted.filter(|&oldest| revision <= oldest) {
            return Err(KvError::Compacted { requested: revision, oldest });
        }
        if revision > view.revision {
            return Err(KvError::FutureRevision { requested: revision, current: view.revision });
        }
        // A tombstone at the old boundary was spared; now it may go.
        let boundary = Position::first_of(view.compacted.unwrap_or_default());
        view.sweep_from = view.sweep_from.min(boundary);
        view.compacted = Some(revision);
        view.hash = view.hash.after_compaction(revision);
        Ok(())
    }

    /// Removes some of what compactions have left for dead: looks at no more than
    /// `budget` changes, and returns true if there are more to look at. Call it until
    /// it returns false, between requests, as time permits; calling it needlessly
    /// does no harm. Reads, hash and images are the same before and after.
    pub fn sweep(&mut self, budget: usize) -> bool {
        let view = &mut self.view;
        let Some(boundary) = view.compacted else { return false };
        let end = Position::last_of(boundary);
        if view.sweep_from > end {
            return false;
        }
        // Looked at first and removed after, because a series cannot be walked and
        // changed at once.
        let batch: Vec<(Position, Arc<Change>)> = view
            .changes
            .from(view.sweep_from)
            .take_while(|(position, _)| *position <= end)
            .take(budget)
            .map(|(position, change)| (position, Arc::clone(change)))
            .collect();
        for (position, change) in &batch {
            view.bury_predecessors(*position, change);
        }
        match batch.last() {
            Some((last, _)) if batch.len() == budget => {
                view.sweep_from = Position { sub: last.sub + 1, ..*last };
                true
            }
            _ if budget == 0 => true,
            _ => {
                view.sweep_from = Position { revision: boundary.next(), sub: 0 };
                false
            }
        }
    }
}

impl View {
    /// Removes what `change` at `position`, not later than the compaction, has made
    /// unreadable: what came before it, and itself if it is an old tombstone.
    fn bury_predecessors(&mut self, position: Position, change: &Change) {
        let key = &change.key()[..];
        let held = self.held_behind.is_some_and(|held| position.revision > held);
        let goes = self.is_old_tombstone(position, change) && !held;
        let Some(history) = self.keys.get_mut(key) else { return };
        // There is at most one, unless an earlier sweep was left unfinished.
        while let Some(before) = history.before(position) {
            let forgotten = history.forget(before).expect("it was just found");
            self.changes.remove(before);
            self.stats.versions -= 1;
            self.stats.bytes_total -= forgotten.footprint();
        }
        if goes {
            let is_newest = history.position() == position;
            if !is_newest {
                history.forget(position).expect("a change stands in its key's history");
            } else {
                assert!(history.is_single(), "everything before it is gone");
                self.keys.remove(key);
            }
            self.changes.remove(position);
            self.stats.versions -= 1;
            self.stats.bytes_total -= change.footprint();
        }
    }

    /// Whether a read may still see the change at `position`. False for what the
    /// sweep has yet to remove.
    pub(crate) fn is_readable(&self, position: Position, change: &Change) -> bool {
        !self.is_old_tombstone(position, change) && self.is_last(position, change)
    }

    /// Whether `change`, at `position`, is a tombstone that no read can come across.
    fn is_old_tombstone(&self, position: Position, change: &Change) -> bool {
        change.pair().is_none() && self.compacted.is_some_and(|boundary| position.revision < boundary)
    }

    /// Whether no later change of the key has made the one at `position` unreadable.
    pub(crate) fn is_last(&self, position: Position, change: &Change) -> bool {
        let Some(boundary) = self.compacted.filter(|&boundary| position.revision <= boundary) else {
            return true;
        };
        let history = self.keys.get(&change.key()[..]).expect("every change has its key");
        history.last_change(boundary).is_some_and(|(last, _)| last == position)
    }
}

//! Changes in the order in which they happened.
//!
//! New ones come at the end and at no other place; old ones are looked up by position and, after a compaction,
//! taken out one by one. A tree would look for the place of each new change. Here it is known: changes stand in
//! blocks, the last of which is open, and a full block is never moved again.
//!
//! ```text
//!   full: [1.0 2.0 .. 93.1] [93.2 .. 201.0] [202.0 .. 310.0]     open: [311.0 312.0 312.1]
//! ```
//!
//! Copies share all blocks. Whoever changes a shared one copies that one first, so a copy costs a pointer or two
//! when it is taken and at most one block for every block that is changed later.

use std::sync::Arc;

use imbl::Vector;

use crate::history::Change;
use crate::revision::Position;

/// How many changes make a full block: few enough to be copied in passing.
const BLOCK: usize = 128;

type Entry = (Position, Arc<Change>);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    /// None of them is empty.
    full: Vector<Arc<Vec<Entry>>>,
    open: Arc<Vec<Entry>>,
}

/// A place in a series: a block, where the open one comes after all others, and an index in it.
#[derive(Clone, Copy)]
struct Place {
    block: usize,
    index: usize,
}

impl Series {
    /// Adds a change behind all others.
    pub(crate) fn push(&mut self, position: Position, change: Arc<Change>) {
        let last = self.open.last().or_else(|| self.full.last()?.last());
        assert!(last.is_none_or(|(last, _)| *last < position), "a series grows at its end");
        let open = Arc::make_mut(&mut self.open);
        open.push((position, change));
        if open.len() == BLOCK {
            self.full.push_back(std::mem::take(&mut self.open));
        }
    }

    /// Takes out the change at `position`, if there is one.
    pub(crate) fn remove(&mut self, position: Position) -> Option<Arc<Change>> {
        let Place { block, index } = self.place(position);
        let (at, _) = self.block(block)?.get(index)?;
        if *at != position {
            return None;
        }
        let is_full = block < self.full.len();
        let entries = Arc::make_mut(self.full.get_mut(block).unwrap_or(&mut self.open));
        let (_, removed) = entries.remove(index);
        if entries.is_empty() && is_full {
            self.full.remove(block);
        } else if entries.len() < entries.capacity() / 4 {
            entries.shrink_to_fit(); // what is left of a block after a compaction may stay for long
        }
        Some(removed)
    }

    /// The last change up to and including `position`.
    pub(crate) fn up_to(&self, position: Position) -> Option<(Position, &Arc<Change>)> {
        let Place { block, index } = self.place(position);
        let found = match self.block(block).and_then(|entries| entries.get(index)) {
            Some(entry) if entry.0 == position => Some(entry),
            _ => match index.checked_sub(1) {
                Some(before) => self.block(block)?.get(before),
                None => self.block(block.checked_sub(1)?)?.last(),
            },
        };
        found.map(|(position, change)| (*position, change))
    }

    /// The changes from `position` on, oldest first.
    pub(crate) fn from(&self, position: Position) -> impl Iterator<Item = (Position, &Arc<Change>)> {
        let Place { block, index } = self.place(position);
        let blocks = (block..=self.full.len()).filter_map(|block| self.block(block));
        blocks.flat_map(|entries| entries.iter()).skip(index).map(|(position, change)| (*position, change))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.full.is_empty() && self.open.is_empty()
    }

    fn block(&self, number: usize) -> Option<&Vec<Entry>> {
        let full = self.full.get(number);
        full.or((number == self.full.len()).then_some(&self.open)).map(|entries| &**entries)
    }

    /// Where the first change not before `position` is, or would be at the end of the series.
    fn place(&self, position: Position) -> Place {
        let ends_before =
            |entries: &Arc<Vec<Entry>>| entries.last().is_some_and(|(last, _)| *last < position);
        let (mut low, mut high) = (0, self.full.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if ends_before(&self.full[middle]) { low = middle + 1 } else { high = middle }
        }
        let entries = self.block(low).expect("the open block comes last");
        Place { block: low, index: entries.partition_point(|(at, _)| *at < position) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revision::Revision;
    use bytes::Bytes;
    use std::collections::BTreeMap;

    fn change(revision: u64) -> Arc<Change> {
        Arc::new(Change::Delete { key: Bytes::from_static(b"k"), revision: Revision(revision) })
    }

    fn position(number: u64) -> Position {
        Position { revision: Revision(number / 3), sub: (number % 3) as u32 }
    }

    fn all(series: &Series) -> Vec<Position> {
        series.from(Position::default()).map(|(position, _)| position).collect()
    }

    /// Does the same to a series and to a map, and compares whatever can be asked.
    #[test]
    fn a_series_is_an_ordered_map_that_grows_at_its_end() {
        let (mut series, mut map) = (Series::default(), BTreeMap::new());
        let mut copies = Vec::new();
        let mut dice = 1_u64;
        for number in 1..2_000 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let chance = dice >> 33;
            let at = position(number * 2); // every other place stays empty
            series.push(at, change(number));
            map.insert(at, change(number));
            if chance.is_multiple_of(100) {
                copies.push((series.clone(), map.clone()));
            }
            for doomed in [chance % number, chance % 97 + number / 2, chance % 300].map(position) {
                assert_eq!(series.remove(doomed), map.remove(&doomed), "{doomed}");
            }
            let asked = position(chance % (number * 2 + 3));
            let last = map.range(..=asked).next_back().map(|(&at, change)| (at, change));
            assert_eq!(series.up_to(asked), last, "up to {asked}");
            assert!(series.from(asked).take(300).eq(map.range(asked..).take(300).map(|(&at, c)| (at, c))));
        }
        assert!(copies.len() > 5 && map.len() > BLOCK * 3);
        for (series, map) in &copies {
            assert_eq!(all(series), map.keys().copied().collect::<Vec<_>>(), "a copy stays as it was");
        }
        for at in all(&series) {
            assert!(!series.is_empty());
            series.remove(at);
        }
        assert!(series.is_empty());
        assert_eq!(series.up_to(Position::last_of(Revision(u64::MAX))), None);
    }

    #[test]
    #[should_panic(expected = "a series grows at its end")]
    fn what_happened_earlier_does_not_come_later() {
        let mut series = Series::default();
        // The open block is empty again, and the one before it counts.
        (1..=BLOCK as u64).for_each(|number| series.push(position(number), change(number)));
        series.push(position(1), change(1));
    }
}

//! Changes in the order in which they happened.
//!
//! New ones come at the end and at no other place; old ones are looked up by position. A tree would look for the place
//! of each new change. Here it is known: changes stand in blocks, the last of which is open, and a full block is never
//! touched again. What a checkpoint holds goes out of memory, from the beginning on, and is then read from runs.
//!
//! ```text
//!   on disk: [1.0 .. 40.0] [41.0 .. 93.1]     full: [93.2 .. 201.0] [202.0 .. 310.0]     open: [311.0 312.0 312.1]
//! ```
//!
//! Copies share all blocks, and one that was taken while changes were in memory keeps them there. Whoever changes
//! the open one while it is shared copies it first, so a copy costs a pointer or two when it is taken, and at most one
//! block later.

use std::sync::Arc;

use bytes::Bytes;
use imbl::Vector;

use crate::cold::{self, ColdBlock, Run, Unreadable};
use crate::history::Change;
use crate::revision::{Position, Revision};

/// How many changes make a full block: few enough to be copied in passing.
pub(crate) const BLOCK: usize = 128;

type Entry = (Position, Arc<Change>);
type HotBlock = Arc<Vec<Entry>>;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    /// All of them come before everything that is in memory. None of them is empty.
    cold: Arc<Vec<Run>>,
    /// None of them is empty.
    full: Vector<HotBlock>,
    open: HotBlock,
}

/// Some changes next to each other, one at least.
pub(crate) enum Block {
    /// As a run has them, which may begin before what was asked for; and where they end.
    Cold(Bytes, Position),
    /// In memory: all behind the first so many.
    Hot(HotBlock, usize),
}

impl Series {
    /// A series that begins with what is in these runs.
    pub(crate) fn of(runs: Vec<Run>) -> Series {
        let cold = Arc::new(runs.into_iter().filter(|run| run.last().is_some()).collect());
        Series { cold, ..Series::default() }
    }

    /// Adds a change behind all others.
    pub(crate) fn push(&mut self, position: Position, change: Arc<Change>) {
        let last = self.open.last().or_else(|| self.full.last()?.last()).map(|(last, _)| *last);
        let last = last.or_else(|| self.cold.last()?.last());
        assert!(last.is_none_or(|last| last < position), "a series grows at its end");
        let open = Arc::make_mut(&mut self.open);
        open.push((position, change));
        if open.len() == BLOCK {
            self.full.push_back(std::mem::take(&mut self.open));
        }
    }

    /// The runs that hold what is not in memory.
    pub(crate) fn runs(&self) -> &[Run] {
        &self.cold
    }

    /// Is nothing in memory?
    pub(crate) fn is_cold(&self) -> bool {
        self.full.is_empty() && self.open.is_empty()
    }

    /// Everything up to `revision` is in these runs from now on. What they take the place of is given back.
    pub(crate) fn settle(&mut self, revision: Revision, runs: Vec<Run>) -> Retired {
        let Place { block, index } = self.place(Position::first_of(revision.next()));
        let rest = self.full.split_off(block.min(self.full.len()));
        let mut retired = std::mem::replace(&mut self.full, rest);
        // The block that holds changes of both kinds is split, and only that one.
        if index > 0 {
            let straddling = self.full.front_mut().unwrap_or(&mut self.open);
            let kept = straddling[index..].to_vec();
            retired.push_back(std::mem::replace(straddling, Arc::new(kept)));
        }
        self.cold = Series::of(runs).cold;
        Retired(retired)
    }

    /// The changes at some positions, all of which are in the series, in the order asked for. Each block on disk is
    /// read once.
    pub(crate) fn find(&self, positions: &[Position]) -> Result<Vec<Arc<Change>>, Unreadable> {
        let mut order: Vec<(Position, usize)> = positions.iter().copied().zip(0..).collect();
        order.sort_unstable();
        let mut read: Option<(Bytes, Position)> = None;
        let mut found: Vec<Option<Arc<Change>>> = vec![None; positions.len()];
        for (position, number) in order {
            let change = if let Some(change) = self.find_hot(position) {
                Arc::clone(change)
            } else {
                // They come in order, so what is not behind the block that was read is in it.
                if read.as_ref().is_none_or(|(_, last)| *last < position) {
                    let block = self.cold_from(position).ok_or_else(|| missing(position))?;
                    read = Some((block.read()?, block.last()));
                }
                let (block, _) = read.as_ref().expect("just read");
                cold::find(block, position)?
            };
            found[number] = Some(change);
        }
        Ok(found.into_iter().map(|change| change.expect("each was looked for")).collect())
    }

    /// The first changes from `position` on; none behind the end.
    pub(crate) fn block_from(&self, position: Position) -> Result<Option<Block>, Unreadable> {
        if let Some(block) = self.cold_from(position) {
            return Ok(Some(Block::Cold(block.read()?, block.last())));
        }
        let Place { block, index } = self.place(position);
        let entries = self.full.get(block).unwrap_or(&self.open);
        Ok((index < entries.len()).then(|| Block::Hot(Arc::clone(entries), index)))
    }

    /// The changes from `position` on, oldest first. Ends behind an error.
    pub(crate) fn from(
        &self,
        position: Position,
    ) -> impl Iterator<Item = Result<(Position, Arc<Change>), Unreadable>> {
        let mut next = Some(position);
        let blocks = std::iter::from_fn(move || {
            let from = next.take()?;
            let changes = match self.block_from(from) {
                Ok(None) => return None,
                Ok(Some(Block::Cold(bytes, last))) => {
                    cold::changes(&bytes).inspect(|_| next = Some(last.next()))
                }
                Ok(Some(Block::Hot(entries, index))) => {
                    let changes = entries[index..].to_vec();
                    next = changes.last().map(|(last, _)| last.next());
                    Ok(changes)
                }
                Err(error) => Err(error),
            };
            Some(match changes {
                Ok(changes) => changes.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            })
        });
        // A block on disk may begin earlier.
        blocks.flatten().skip_while(move |change| matches!(change, Ok((at, _)) if *at < position))
    }

    fn cold_from(&self, position: Position) -> Option<ColdBlock<'_>> {
        let run = self.cold.partition_point(|run| run.last() < Some(position));
        self.cold.get(run)?.block_from(position)
    }

    fn find_hot(&self, position: Position) -> Option<&Arc<Change>> {
        let Place { block, index } = self.place(position);
        self.hot(block).get(index).filter(|(at, _)| *at == position).map(|(_, change)| change)
    }

    /// A block in memory.
    fn hot(&self, number: usize) -> &[Entry] {
        self.full.get(number).unwrap_or(&self.open)
    }

    /// Where the first change in memory that is not before `position` is, or would be at the end of the series.
    fn place(&self, position: Position) -> Place {
        let ends_before = |entries: &HotBlock| entries.last().is_some_and(|(last, _)| *last < position);
        let (mut low, mut high) = (0, self.full.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if ends_before(&self.full[middle]) { low = middle + 1 } else { high = middle }
        }
        Place { block: low, index: self.hot(low).partition_point(|(at, _)| *at < position) }
    }
}

/// A place in memory: a block, where the open one comes after all others, and an index in it.
#[derive(Clone, Copy)]
struct Place {
    block: usize,
    index: usize,
}

fn missing(position: Position) -> Unreadable {
    cold::damaged(&format_args!("no run holds the change at {position}"))
}

/// What a checkpoint holds now and memory need not hold any longer. Giving back so much takes its time, so whoever
/// has better things to do lets go of it bit by bit.
#[derive(Debug, Default)]
pub struct Retired(Vector<HotBlock>);

impl Retired {
    /// Lets go of about `changes` of them, or of more if there are very many: they must not come faster than they go.
    /// True if there are more.
    pub fn let_go(&mut self, changes: usize) -> bool {
        let blocks = changes.div_ceil(BLOCK).max(self.0.len() / 256);
        for _ in 0..blocks {
            self.0.pop_front();
        }
        !self.0.is_empty()
    }

    /// Adds what retired later.
    pub fn append(&mut self, later: Retired) {
        self.0.append(later.0);
    }
}

#[cfg(test)]
mod tests;

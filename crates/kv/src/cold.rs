//! What is on disk and no longer in memory.
//!
//! A checkpoint writes the changes of a store as *runs* (see `image`), in blocks that end where records end. Once it
//! is durable, a block takes the place of the changes in it, and what is left of them in memory is an entry in an
//! index: up to which position the block goes. Whoever asks for one of them has the block read again.
//!
//! ```text
//!   Run { reader: ●────▶ block 1: 2.0 put a   2.1 put b
//!         index: [2.1, 5.0] }     block 2: 4.0 put a   5.0 delete b
//! ```
//!
//! There is no I/O here: who reads, and from where, is the business of whoever wrote the run. What comes back was
//! found good, byte by byte, by its [reader](ReadBlocks); that it is not there at all is therefore an error of its own,
//! [`Unreadable`], which is no answer to any request.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::history::Change;
use crate::record::{Record, records};
use crate::revision::{Position, Revision};

/// Reads blocks of one run that was written. It has to be able to as long as it lives.
pub trait ReadBlocks: Send + Sync {
    /// Block `number`, counted from 0, exactly as it was written.
    ///
    /// # Errors
    /// If it cannot be had.
    fn read(&self, number: u32) -> Result<Bytes, Unreadable>;
}

/// Why superseded versions of keys could not be read. Nothing was changed, and no answer was found: other replicas
/// may well have one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// They are not what was written, and stay that way. Restore the store from elsewhere.
    #[error("older versions of keys are damaged on this server's disk: {why}")]
    Damaged {
        /// How one can tell.
        why: String,
    },
    /// They may be whole, but could not be read. Try again later, or elsewhere.
    #[error("older versions of keys could not be read from this server's disk: {why}")]
    Failed {
        /// What the disk said.
        why: String,
    },
}

/// A run that was written: what is in which of its blocks, and how to read those. Cheap to clone.
#[derive(Clone)]
pub struct Run(Arc<Indexed>);

struct Indexed {
    blocks: Vec<BlockEnd>,
    reader: Box<dyn ReadBlocks>,
}

/// The last change in a block.
#[derive(Clone, Copy, Debug)]
struct BlockEnd {
    revision: Revision,
    sub: u32,
    number: u32,
}

impl BlockEnd {
    fn position(self) -> Position {
        Position { revision: self.revision, sub: self.sub }
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Run of {} blocks up to {:?}", self.0.blocks.len(), self.last())
    }
}

/// The index of a run that is being written or read, block by block.
#[derive(Debug, Default)]
pub(crate) struct Index {
    blocks: Vec<BlockEnd>,
    next: u32,
}

impl Index {
    /// One more block. Its changes can be looked up if they are all that is in it, and end at `last`.
    pub(crate) fn block(&mut self, last: Option<Position>) {
        if let Some(Position { revision, sub }) = last {
            self.blocks.push(BlockEnd { revision, sub, number: self.next });
        }
        self.next = self.next.checked_add(1).expect("no disk holds as many blocks");
    }

    /// All blocks were written or read.
    pub(crate) fn finish(mut self, reader: Box<dyn ReadBlocks>) -> Run {
        self.blocks.shrink_to_fit();
        Run(Arc::new(Indexed { blocks: self.blocks, reader }))
    }
}

impl Run {
    /// The position of the last change in it; none if there is no change in it.
    pub(crate) fn last(&self) -> Option<Position> {
        self.0.blocks.last().map(|block| block.position())
    }

    /// The first block that holds changes from `position` on.
    pub(crate) fn block_from(&self, position: Position) -> Option<ColdBlock<'_>> {
        let index = self.0.blocks.partition_point(|block| block.position() < position);
        Some(ColdBlock { run: &self.0, end: *self.0.blocks.get(index)? })
    }
}

/// A block that is not in memory.
pub(crate) struct ColdBlock<'r> {
    run: &'r Indexed,
    end: BlockEnd,
}

impl ColdBlock<'_> {
    /// The position of its last change.
    pub(crate) fn last(&self) -> Position {
        self.end.position()
    }

    /// Reads it.
    pub(crate) fn read(&self) -> Result<Bytes, Unreadable> {
        self.run.reader.read(self.end.number)
    }
}

/// The change at `position` in a block that has it.
pub(crate) fn find(block: &Bytes, position: Position) -> Result<Arc<Change>, Unreadable> {
    for record in records(block) {
        let (_, record) = record.map_err(|error| damaged(&error))?;
        if record.position == position {
            return Ok(Arc::new(record.to_change()));
        }
    }
    Err(damaged(&format_args!("the change at {position} is not where it was written")))
}

/// All changes in a block.
pub(crate) fn changes(block: &Bytes) -> Result<Vec<(Position, Arc<Change>)>, Unreadable> {
    let change = |record: Record<'_>| (record.position, Arc::new(record.to_change()));
    let all = records(block).map(|record| record.map(|(_, record)| change(record)));
    all.collect::<Result<_, _>>().map_err(|error| damaged(&error))
}

pub(crate) fn damaged(why: &dyn fmt::Display) -> Unreadable {
    Unreadable::Damaged { why: why.to_string() }
}

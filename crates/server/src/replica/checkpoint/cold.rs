//! Reading old versions of keys from the runs that hold them.
//!
//! The store asks for a block, in whatever thread somebody looks at it. If the block cannot be had, that one look
//! fails, and may succeed later. If it is damaged, that will not: then the alarm is raised, the learner ends its life,
//! and the next one reads the whole checkpoint, throws it away, and fetches another one, as after any start.

use bytes::Bytes;
use std::io;
use std::sync::{Arc, OnceLock};
use synod_kv::{ReadBlocks, Unreadable};
use synod_storage::checkpoint::{CheckpointError, RunBlocks};

/// Why a block is not what was written, once one was not. Clones are the same alarm.
#[derive(Clone, Default)]
pub(super) struct Alarm(Arc<OnceLock<String>>);

impl Alarm {
    pub(super) fn raised(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// A run, for whoever needs single blocks of it.
pub(super) struct ColdRun {
    pub(super) blocks: RunBlocks,
    pub(super) alarm: Alarm,
}

impl ReadBlocks for ColdRun {
    fn read(&self, number: u32) -> Result<Bytes, Unreadable> {
        self.blocks.read(number.into()).map_err(|error| {
            let why = error.to_string();
            if !error.is_damage() {
                return Unreadable::Failed { why };
            }
            let _ = self.alarm.0.set(why.clone()); // the first reason will do
            Unreadable::Damaged { why }
        })
    }
}

/// Old versions that a checkpoint was to hold could not be read.
pub(super) fn not_written(unreadable: Unreadable) -> CheckpointError {
    match unreadable {
        Unreadable::Damaged { why } => CheckpointError::DamagedContents { why },
        Unreadable::Failed { why } => {
            let error = Arc::new(io::Error::other(why));
            CheckpointError::Disk { doing: "reading old versions of keys", error, in_doubt: false }
        }
    }
}

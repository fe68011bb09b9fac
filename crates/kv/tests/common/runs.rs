//! Runs on a disk that is none, and stores that live with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use synod_kv::{Blocks, Head, ReadBlocks, Restore, RestoreError, Run, Store, Unreadable};

/// What a run consists of, and whether the disk that it is on works.
#[derive(Clone, Default)]
pub struct Kept {
    pub blocks: Vec<Bytes>,
    pub broken: Arc<AtomicBool>,
}

impl ReadBlocks for Kept {
    fn read(&self, number: u32) -> Result<Bytes, Unreadable> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(Unreadable::Failed { why: "the disk is broken".into() });
        }
        Ok(self.blocks[number as usize].clone())
    }
}

/// A store, and checkpoints of it as a server takes them.
pub struct Saved {
    pub store: Store,
    /// The runs of the last checkpoint, as they were written.
    pub kept: Vec<Kept>,
    /// The same, as the store knows them.
    pub runs: Vec<Run>,
    pub head: Option<Head>,
    pub broken: Arc<AtomicBool>,
}

impl Saved {
    pub fn new() -> Saved {
        let (kept, runs, broken) = (Vec::new(), Vec::new(), Arc::default());
        Saved { store: Store::new(), kept, runs, head: None, broken }
    }

    pub fn apply(&mut self, requests: impl IntoIterator<Item = synod_kv::Request>) {
        for request in requests {
            super::apply(&mut self.store, request);
        }
    }

    /// A part if there may be one, otherwise all of it; `meanwhile` happens before it is on disk. What is on disk
    /// goes out of memory.
    pub fn save(&mut self, whole: bool, meanwhile: impl FnOnce(&mut Store)) {
        let snapshot = self.store.snapshot();
        meanwhile(&mut self.store);
        let head = self.head.filter(|_| !whole);
        let blocks = match head {
            Some(head) => snapshot.part(head).expect("what changed is known"),
            None => snapshot.run(),
        };
        if head.is_none() {
            self.kept.clear();
            self.runs.clear();
        }
        self.write(blocks);
        self.head = Some(snapshot.head());
        drop(self.store.settle(snapshot.revision(), self.runs.clone()));
    }

    pub fn saved(&mut self) {
        self.save(false, |_| ());
    }

    fn write(&mut self, mut blocks: Blocks) {
        let written = blocks.by_ref().map(|block| block.expect("the disk works")).collect();
        let kept = Kept { blocks: written, broken: Arc::clone(&self.broken) };
        self.runs.push(blocks.finish(kept.clone()));
        self.kept.push(kept);
    }

    /// The store as it is after a start.
    pub fn load(&self) -> Result<Store, RestoreError> {
        load_blocks(&self.kept)
    }

    pub fn restart(&mut self) {
        self.store = self.load().expect("it was saved");
        self.runs = self.store.runs().expect("all of it is in runs");
    }

    /// The bytes of each run.
    pub fn parts(&self) -> Vec<Vec<u8>> {
        self.kept.iter().map(|kept| kept.blocks.concat()).collect()
    }
}

/// A store from runs, block by block.
pub fn load_blocks<'k>(runs: impl IntoIterator<Item = &'k Kept>) -> Result<Store, RestoreError> {
    let mut restore = Restore::new();
    for (number, kept) in runs.into_iter().enumerate() {
        if number > 0 {
            restore.next_part()?;
        }
        kept.blocks.iter().try_for_each(|block| restore.push_block(block.clone()))?;
        restore.end_run(kept.clone());
    }
    restore.finish()
}

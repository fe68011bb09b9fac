//! The files of checkpoints: runs, and the manifest that names them.
//!
//! A checkpoint writes what changed since the last one, as a run behind the runs of that one. Now and then it writes
//! the whole store instead, and drops the others: when too much in them is dead, or they are too many, or what
//! changed is not known, because the state came from another replica or nothing was written yet.

use super::cold::{Alarm, ColdRun, not_written};
use super::{Loaded, Snapshot, read_machine};
use crate::replica::State;
use synod_kv::{Blocks, Head, Restore, Revision, Run};
use synod_paxos::types::Prefix;
use synod_storage::checkpoint::{CheckpointError, CheckpointStore, Manifest, RunMeta};
use synod_storage::disk::SharedDisk;

/// A checkpoint has no more runs than this: each is an open file, and some bytes of the manifest.
pub(super) const MAX_RUNS: usize = 64;

/// The files, and what the checkpoint in them consists of.
pub(super) struct Files {
    pub(super) store: CheckpointStore,
    /// Its runs, in their order.
    pub(super) runs: Vec<RunMeta>,
    /// The same, as the store knows them; it may leave out those without changes.
    cold: Vec<Run>,
    /// The state that they make together; none before the first checkpoint, and none if some of them cannot be read
    /// block by block, because an earlier release wrote them: then the next checkpoint replaces them all.
    head: Option<Head>,
    /// How many bytes of what is dead may lie in the runs whatever the store's size.
    slack: u64,
    /// For those who read the runs later.
    pub(super) alarm: Alarm,
}

/// A checkpoint that was completed.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// The slots that it covers.
    pub(crate) covered: Prefix,
    /// The store's revision in it.
    pub(crate) revision: Revision,
    /// Where the store may have read what it need not keep in memory.
    pub(crate) cold: Vec<Run>,
    /// How many runs it consists of.
    pub(crate) runs: usize,
    /// How many runs the one before consisted of.
    pub(crate) runs_before: usize,
}

impl Files {
    /// No checkpoint, whatever was on the disk.
    pub(super) fn reset(disk: SharedDisk, slack: u64, alarm: &Alarm) -> Result<Files, CheckpointError> {
        Ok(Files::empty(CheckpointStore::reset(disk)?, slack, alarm))
    }

    fn empty(store: CheckpointStore, slack: u64, alarm: &Alarm) -> Files {
        Files { store, runs: Vec::new(), cold: Vec::new(), head: None, slack, alarm: alarm.clone() }
    }

    /// The checkpoint on the disk, if there is one, and what it holds.
    pub(super) fn open(
        disk: SharedDisk,
        slack: u64,
        alarm: &Alarm,
    ) -> Result<(Files, Option<Loaded>), CheckpointError> {
        let (store, manifest) = CheckpointStore::open(disk)?;
        Files::load(store, manifest, slack, alarm)
    }

    pub(super) fn load(
        store: CheckpointStore,
        manifest: Option<Manifest>,
        slack: u64,
        alarm: &Alarm,
    ) -> Result<(Files, Option<Loaded>), CheckpointError> {
        let mut files = Files::empty(store, slack, alarm);
        let Some(manifest) = manifest else { return Ok((files, None)) };
        let mut restore = Restore::new();
        for (number, run) in manifest.runs.iter().enumerate() {
            if number > 0 {
                restore.next_part().map_err(|error| unusable(&error))?;
            }
            let mut blocks = files.store.read_run(run)?;
            for block in blocks.by_ref() {
                restore.push_block(block?).map_err(|error| unusable(&error))?;
            }
            let blocks = blocks.into_blocks().expect("all of them were read");
            restore.end_run(ColdRun { blocks, alarm: alarm.clone() });
        }
        let restored = restore.finish().map_err(|error| unusable(&error))?;
        if let Some(cold) = restored.runs() {
            (files.cold, files.head) = (cold, Some(restored.head()));
        }
        files.runs = manifest.runs;
        let machine = read_machine(manifest.meta).map_err(|error| unusable(&error))?;
        let state = State::of(restored, machine, manifest.covered).map_err(|error| unusable(&error))?;
        Ok((files, Some(Loaded { state, durable: manifest.covered })))
    }

    /// Makes this state the checkpoint: by what changed, if that will do.
    pub(super) fn write(&mut self, snapshot: Snapshot) -> Result<Written, CheckpointError> {
        let Snapshot { covered, machine, store } = snapshot;
        let (head, runs_before) = (store.head(), self.runs.len());
        let part = self.head.filter(|_| self.takes_another(&store));
        let part = part.and_then(|after| Some((after, store.part(after)?)));
        let (mut runs, mut cold) = (self.runs.clone(), self.cold.clone());
        match part {
            Some((after, _)) if after == head => {} // only slots went by
            Some((after, blocks)) => {
                let (meta, run) = self.write_run(after.revision.0 + 1, head.revision.0, blocks)?;
                runs.push(meta);
                cold.push(run);
            }
            None => {
                let (meta, run) = self.write_run(0, head.revision.0, store.run())?;
                (runs, cold) = (vec![meta], vec![run]);
            }
        }
        self.store.commit(&Manifest { covered, meta: machine, runs: runs.clone() })?;
        (self.runs, self.cold, self.head) = (runs, cold, Some(head));
        let (cold, runs) = (self.cold.clone(), self.runs.len());
        Ok(Written { covered, revision: head.revision, cold, runs, runs_before })
    }

    /// From now on nothing is known of what the runs hold: the next checkpoint replaces them all.
    #[cfg(test)]
    pub(super) fn forget_head(&mut self) {
        self.head = None;
    }

    fn write_run(
        &mut self,
        first: u64,
        last: u64,
        mut run: Blocks,
    ) -> Result<(RunMeta, Run), CheckpointError> {
        let blocks = run.by_ref().map(|block| block.map_err(not_written));
        let (meta, blocks) = self.store.write_run(first, last, blocks)?;
        Ok((meta, run.finish(ColdRun { blocks, alarm: self.alarm.clone() })))
    }

    /// May there be one more run, beside this store? A start reads them all, so what is dead in them must not be much
    /// more than what is alive; and since a run takes less than the store estimates of itself, a whole image is due
    /// only after changes that are larger than it.
    fn takes_another(&self, store: &synod_kv::Snapshot) -> bool {
        let bytes: u64 = self.runs.iter().map(|run| run.bytes).sum();
        self.runs.len() < MAX_RUNS && bytes <= 2 * store.stats().bytes_total + self.slack
    }
}

fn unusable(why: &dyn std::fmt::Display) -> CheckpointError {
    CheckpointError::DamagedContents { why: why.to_string() }
}

//! The learner's durable side: the applied state, written to disk in the background and read at the start.
//!
//! Taking a checkpoint costs the learner a moment: the store's maps are shared with the writer, not copied.
//! The writer has a thread of its own for the length of one checkpoint.
//!
//! A checkpoint writes what changed since the last one, as a run behind the runs of that one, or the whole store (see
//! `files`). Once it is durable, the store is told which runs it consists of, and superseded versions of keys go out
//! of memory: whoever asks for one has it read from its run (see `cold`).

mod cold;
mod files;

use super::host::Job;
use super::shared::Shared;
use super::{State, answer};
use bytes::Bytes;
use cold::Alarm;
use files::Files;
pub(crate) use files::Written;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use synod_kv::Store;
use synod_paxos::machine::Machine;
use synod_paxos::types::Prefix;
use synod_storage::checkpoint::CheckpointError;

/// The size of one piece of an image on its way to a peer, in bytes.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// What was on disk, or the beginning of everything.
pub(crate) struct Loaded {
    pub(crate) state: State,
    pub(crate) durable: Prefix,
}

/// See the module.
pub(crate) struct Checkpointer {
    /// Here, or with the writer.
    files: Option<Files>,
    writer: Option<Writer>,
    /// Raised when an old version turns out not to be what was written.
    alarm: Alarm,
    /// Are there other servers, to fetch a checkpoint from?
    others: bool,
    /// Why no more checkpoints are written in this life.
    broken: bool,
}

/// A checkpoint that is being written.
struct Writer {
    job: Box<dyn Job>,
    written: Receiver<(Files, Result<Written, CheckpointError>)>,
}

impl Checkpointer {
    /// Reads what is on disk. A checkpoint that is damaged is thrown away if there are peers: they have better ones.
    pub(crate) fn open(shared: &Shared, forget: bool) -> Result<(Checkpointer, Loaded), String> {
        let disk = shared.home.disk();
        let slack = shared.config.checkpoint_bytes;
        let alarm = Alarm::default();
        let others = shared.config.plan.nodes().count() > 1;
        let reset = || Files::reset(shared.home.disk(), slack, &alarm).map_err(|error| error.to_string());
        let (files, loaded) = if forget {
            (reset()?, None)
        } else {
            match Files::open(disk, slack, &alarm) {
                Ok(opened) => opened,
                Err(error) if error.is_damage() && !others => {
                    return Err(format!("{error}; no other server has one: see the runbook"));
                }
                Err(error) if error.is_damage() => {
                    tracing::error!(%error, "the checkpoint is damaged: another will be fetched");
                    (reset()?, None)
                }
                // What cannot be read now may be whole. This acceptor has trimmed on its account: to throw it away
                // would be to forget.
                Err(error) => return Err(error.to_string()),
            }
        };
        let loaded = match loaded {
            Some(loaded) => loaded,
            None => {
                let genesis = shared.genesis.get().ok_or("the learner started before there was a cluster")?;
                let state = State { store: Store::new(), machine: Machine::genesis(genesis) };
                Loaded { state, durable: Prefix::EMPTY }
            }
        };
        Ok((Checkpointer { files: Some(files), writer: None, alarm, others, broken: false }, loaded))
    }

    /// Is one being written?
    pub(crate) fn busy(&self) -> bool {
        self.writer.is_some()
    }

    /// Writes the state as it is now, in the background.
    pub(crate) fn start(&mut self, shared: &Arc<Shared>) {
        let Some(snapshot) = Snapshot::take(shared).filter(|_| !self.broken) else { return };
        let Some(mut files) = self.files.take() else { return };
        let (result, written) = channel();
        let job = move || {
            let outcome = files.write(snapshot);
            let _ = result.send((files, outcome)); // the learner may be gone
        };
        match shared.host.begin("checkpoint", Box::new(job)) {
            Ok(job) => self.writer = Some(Writer { job, written }),
            Err(error) => {
                tracing::error!(%error, "no thread for a checkpoint");
                self.broken = true; // the files went with the thread that never was
            }
        }
    }

    /// Writes this state while the caller waits, behind a checkpoint that is under way.
    pub(crate) fn write_now(&mut self, snapshot: Snapshot) -> Result<Written, String> {
        self.collect()?;
        let files = self.files.as_mut().ok_or("checkpoints can no longer be written")?;
        files.write(snapshot).map_err(|error| error.to_string())
    }

    /// What was written, if a checkpoint was just completed. An error if none can be written any more in this life,
    /// or old versions in one are damaged: another life may open the files afresh, or fetch others.
    pub(crate) fn poll(&mut self) -> Result<Option<Written>, String> {
        if let Some(why) = self.alarm.raised().filter(|_| self.others) {
            return Err(format!(
                "an old version of a key is damaged, so another checkpoint is needed: {why}"
            ));
        }
        if self.broken {
            return Err("checkpoints can no longer be written".into());
        }
        if !self.writer.as_ref().is_some_and(|writer| writer.job.is_finished()) {
            return Ok(None);
        }
        self.collect()
    }

    fn collect(&mut self) -> Result<Option<Written>, String> {
        let Some(writer) = self.writer.take() else { return Ok(None) };
        writer.job.join();
        let (files, result) = writer.written.try_recv().map_err(|_| "the writer of checkpoints panicked")?;
        self.files = Some(files);
        match result {
            Ok(written) => Ok(Some(written)),
            Err(error @ CheckpointError::Disk { in_doubt: true, .. }) => Err(error.to_string()),
            Err(error) if error.is_damage() && self.others => Err(error.to_string()),
            Err(error) => {
                // The learner serves on; the log grows until there is room, or somebody looks.
                tracing::error!(%error, "no checkpoint was written");
                Ok(None)
            }
        }
    }
}

/// Waits for the writer however a life ends, so that no two lives write at once.
impl Drop for Checkpointer {
    fn drop(&mut self) {
        let _ = self.collect(); // nobody is left to be told
    }
}

/// The applied state at one slot, shared with the learner and not copied.
pub(crate) struct Snapshot {
    /// Everything up to here is in it.
    pub(crate) covered: Prefix,
    /// Membership and sessions.
    pub(crate) machine: Bytes,
    /// The store.
    pub(crate) store: synod_kv::Snapshot,
}

impl Snapshot {
    /// The state as it is now; none while there is none.
    pub(crate) fn take(shared: &Shared) -> Option<Snapshot> {
        shared.read_state().as_ref().map(Snapshot::of)
    }

    /// This state.
    pub(crate) fn of(state: &State) -> Snapshot {
        let machine = state.machine.encode(answer::encode);
        Snapshot { covered: state.machine.applied(), machine, store: state.store.snapshot() }
    }
}

/// Membership and sessions from their form in a checkpoint.
pub(crate) fn read_machine(bytes: Bytes) -> Result<Machine<super::Answer>, String> {
    Machine::decode(bytes, answer::decode).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;

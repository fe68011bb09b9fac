//! What every replica of one world has in common: the true time, the judges, and the record of what happened.

use crate::judges::{Broken, Court};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use synod_paxos::types::{NodeId, Prefix, Time, VoterId};
use synod_server::replica::Observation;
use synod_server::trace::{Event, Names, What};

/// What the world itself has to know of a replica's memory, to ration what is forgotten.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Holdings {
    /// How far the durable store covers.
    pub(super) covered: Prefix,
    /// Whose memory the acceptor's log is; none while that is gone, or in doubt.
    pub(super) voter: Option<VoterId>,
    /// How far this replica has applied since its disk was last empty, whether or not it still has.
    pub(super) reached: Prefix,
    /// How far a store covered that is gone, or in doubt: the next one has to.
    pub(super) owed: Prefix,
}

impl Holdings {
    /// The durable store is gone, or in doubt.
    pub(super) fn forget_store(&mut self) {
        self.owed = self.owed.max(self.covered);
        self.covered = Prefix::EMPTY;
    }
}

/// See the module.
pub(super) struct Stage {
    now: AtomicU64,
    inner: Mutex<Inner>,
}

/// Everything under the lock.
pub(super) struct Inner {
    /// All judges.
    pub(super) court: Court,
    /// The first invariant that was broken.
    pub(super) broken: Option<Broken>,
    /// What each replica's disk holds.
    pub(super) holdings: BTreeMap<NodeId, Holdings>,
    /// Who leads, as far as they say.
    pub(super) leader: Option<NodeId>,
    /// The highest round that anybody led in.
    pub(super) round: u64,
    names: Names,
    record: Option<Vec<Event>>,
}

impl Stage {
    /// At time 0. With `record`, everything is written down.
    pub(super) fn new(names: Names, record: bool) -> Stage {
        let inner = Inner {
            court: Court::new(),
            broken: None,
            holdings: BTreeMap::new(),
            leader: None,
            round: 0,
            names,
            record: record.then(Vec::new),
        };
        Stage { now: AtomicU64::new(0), inner: Mutex::new(inner) }
    }

    /// The true time.
    pub(super) fn now(&self) -> Time {
        Time(self.now.load(Ordering::Relaxed))
    }

    /// Time passes.
    pub(super) fn set_now(&self, now: Time) {
        self.now.store(now.0, Ordering::Relaxed);
    }

    /// Everything under the lock, for a moment.
    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A replica lets something be seen, so far into its turn.
    pub(super) fn see(&self, node: NodeId, into: Duration, observation: &Observation<'_>) {
        let now = self.now() + into;
        let inner = &mut *self.inner();
        inner.note(node, observation);
        if let Some(record) = &mut inner.record {
            record.extend(Event::of(now.0, node, &inner.names, observation));
        }
        let judged = inner.court.see(now, node, observation);
        inner.judge(judged);
    }

    /// Something that no replica can see.
    pub(super) fn tell(&self, node: Option<NodeId>, what: impl FnOnce() -> What) {
        let now = self.now();
        let inner = &mut *self.inner();
        if let Some(record) = &mut inner.record {
            record.push(match node {
                Some(node) => Event::at(now.0, inner.names.place(node), what()),
                None => Event::everywhere(now.0, what()),
            });
        }
    }

    /// What happened, if it was to be written down.
    pub(super) fn take_record(&self) -> Vec<Event> {
        self.inner().record.take().unwrap_or_default()
    }
}

impl Inner {
    /// Keeps the first broken invariant.
    pub(super) fn judge(&mut self, judged: Result<(), Broken>) {
        if let Err(broken) = judged {
            self.broken.get_or_insert(broken);
        }
    }

    fn note(&mut self, node: NodeId, observation: &Observation<'_>) {
        match observation {
            Observation::Covered { durable } => self.holdings.entry(node).or_default().covered = *durable,
            Observation::Restored { acceptor } => {
                self.holdings.entry(node).or_default().voter = Some(acceptor.id());
            }
            Observation::Applied { slot, .. } => self.reached(node, Prefix::through(*slot)),
            Observation::Loaded { applied, .. } => self.reached(node, *applied),
            Observation::Leads { begins: true, ballot } => {
                self.leader = Some(node);
                self.round = self.round.max(ballot.round);
            }
            // A replica's own code never panics, whatever happens to it (DESIGN 5.8).
            Observation::Note { kind: "role-failed", text } if text.contains("panicked") => {
                let why = format!("{node}: {text}");
                self.judge(Err(Broken { invariant: "no crash", clause: "DESIGN 5.8", why }));
            }
            _ => {}
        }
    }

    fn reached(&mut self, node: NodeId, applied: Prefix) {
        let held = self.holdings.entry(node).or_default();
        held.reached = held.reached.max(applied);
    }
}

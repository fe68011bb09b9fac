//! The store itself: every change by key and by position, and the door to them.
//!
//! [`View`] is the state and everything that can be read from it. [`Store`] owns one
//! and changes it, request by request. [`Snapshot`] is a copy of one that stays as it
//! is; taking it costs a few pointers, so readers, checkpoints and laggards that need
//! the whole store never hold up the writer.
//!
//! An apply has two halves. First everything that could be objected to is looked at,
//! against the state as it was, and whatever it reads of the past, because that may be
//! on disk; then the writes are done, and those cannot fail. So a request that is
//! refused has changed nothing (TX-5), without any undoing.

use std::ops::{ControlFlow, Deref};
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use smallvec::SmallVec;

use crate::cold::{Run, Unreadable};
use crate::compact::Sweep;
use crate::error::KvError;
use crate::hash::StateHash;
use crate::history::{At, Change, Found, History};
use crate::request::{DeleteRangeRequest, KeyRange, PutRequest, RangeEnd, RangeRequest, Request};
use crate::response::{
    Applied, DeleteRangeResponse, KeyValue, NestedResponse, PutResponse, Response, TxnResponse,
};
use crate::revision::{Position, Revision};
use crate::series::{Retired, Series};
use crate::txn::{Plan, Step};

/// A key as the map of all keys holds it. Short ones lie in the map itself, because finding a key means to compare it
/// with a dozen others, and each that lies elsewhere is a wait for memory.
pub(crate) type IndexKey = SmallVec<[u8; 24]>;

/// A key of no more than so many bytes is copied for each version.
const SHORT_KEY: usize = 64;

/// What the store holds at one moment, and every way to read it.
#[derive(Clone, Debug)]
pub struct View {
    /// Every key that is remembered, dead ones too.
    pub(crate) keys: OrdMap<IndexKey, History>,
    /// Every change that is remembered, in the order in which it happened; and perhaps some that are not.
    pub(crate) changes: Series,
    /// Behind this revision every change is in memory, dead or alive.
    pub(crate) kept_behind: Revision,
    pub(crate) revision: Revision,
    pub(crate) compacted: Option<Revision>,
    pub(crate) hash: StateHash,
    pub(crate) stats: Stats,
}

/// How much the store holds. Kept up to date as it goes; reading it is free.
///
/// Only `keys` and `bytes_in_use` are the same on every replica: the others shrink
/// as the sweep advances, and each replica sweeps at its own pace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keys that exist now.
    pub keys: u64,
    /// Changes that are remembered, tombstones included.
    pub versions: u64,
    /// Estimated memory of the pairs that exist now, in bytes.
    pub bytes_in_use: u64,
    /// Estimated memory of all that is remembered, in bytes, if all of it were in memory.
    pub bytes_total: u64,
}

impl Stats {
    /// Counts one more change of a key, which ends the pair that another one made, if it did.
    pub(crate) fn count(&mut self, ended: Option<&Change>, change: &Change) {
        if let Some(ended) = ended {
            self.keys -= 1;
            self.bytes_in_use -= ended.footprint();
        }
        let footprint = change.footprint();
        self.versions += 1;
        self.bytes_total += footprint;
        if change.pair().is_some() {
            self.keys += 1;
            self.bytes_in_use += footprint;
        }
    }
}

impl View {
    fn new() -> View {
        View {
            keys: OrdMap::new(),
            changes: Series::default(),
            kept_behind: Revision::FIRST,
            revision: Revision::FIRST,
            compacted: None,
            hash: StateHash::default(),
            stats: Stats::default(),
        }
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The revision of the last compaction: the oldest that can be read (KV-2).
    pub fn compacted(&self) -> Option<Revision> {
        self.compacted
    }

    /// The hash of everything that was applied so far; equal on replicas that applied
    /// the same requests.
    pub fn state_hash(&self) -> StateHash {
        self.hash
    }

    /// How much there is.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Every change from `revision` on, in order: what a watcher replays (W-2, W-7).
    /// Of the changes at the compacted revision itself, all are still there. What is no
    /// longer in memory is read while it is walked along; an error is the last item.
    ///
    /// # Errors
    /// [`KvError::Compacted`] if some of what was asked for may be forgotten.
    pub fn changes_from(
        &self,
        revision: Revision,
    ) -> Result<impl Iterator<Item = Result<(Position, Arc<Change>), Unreadable>>, KvError> {
        if let Some(oldest) = self.compacted.filter(|&oldest| revision < oldest) {
            return Err(KvError::Compacted { requested: revision, oldest });
        }
        Ok(self.changes.from(Position::first_of(revision)))
    }

    /// The runs that hold all changes; none if some of them are in no run.
    pub fn runs(&self) -> Option<Vec<Run>> {
        self.changes.is_cold().then(|| self.changes.runs().to_vec())
    }

    /// May it take a look at the disk to answer this?
    pub fn may_wait(&self, request: &RangeRequest) -> bool {
        let Some(past) = request.revision.filter(|&past| past < self.revision) else { return false };
        if self.changes.runs().is_empty() {
            return false;
        }
        // One key is quickly looked up; of several, one will be on disk.
        request.range.end != RangeEnd::Single || {
            let found = self.keys.get(&request.range.key[..]).and_then(|history| history.at(At::Past(past)));
            matches!(found, Some(Found::There(position)) if position.revision <= self.kept_behind)
        }
    }

    /// The key as it is now, with whatever the transaction under way did to it.
    pub(crate) fn current(&self, key: &[u8]) -> Option<&KeyValue> {
        self.keys.get(key)?.current()
    }

    /// Takes one more change of `key` into both orders and the numbers: the change that
    /// `make` makes of what the key is now. The caller has made sure that it may
    /// happen, and takes care of the hash.
    pub(crate) fn record(
        &mut self,
        position: Position,
        key: &[u8],
        make: impl FnOnce(Option<&KeyValue>) -> Change,
    ) -> Arc<Change> {
        let change = match self.keys.get_mut(key) {
            Some(history) => {
                let change = Arc::new(make(history.current()));
                self.stats.count(history.newest_if_alive(), &change);
                history.push(position, Arc::clone(&change));
                change
            }
            None => {
                let change = Arc::new(make(None));
                self.stats.count(None, &change);
                self.keys.insert(IndexKey::from_slice(key), History::new(position, Arc::clone(&change)));
                change
            }
        };
        self.changes.push(position, Arc::clone(&change));
        change
    }
}

/// A store as it was at some moment. Cheap to take, cheap to clone, and unmoved by
/// what happens to the store; but what it still needs stays in memory with it.
#[derive(Clone, Debug)]
pub struct Snapshot(pub(crate) View);

impl Deref for Snapshot {
    type Target = View;

    fn deref(&self) -> &View {
        &self.0
    }
}

/// One replica's store. It has one owner, who applies what was agreed on, in order.
#[derive(Debug)]
pub struct Store {
    pub(crate) view: View,
    /// What compactions have left to do; see `compact`.
    pub(crate) sweep: Sweep,
}

impl Deref for Store {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl Default for Store {
    fn default() -> Store {
        Store::new()
    }
}

impl Store {
    /// An empty store at revision 1.
    pub fn new() -> Store {
        Store { view: View::new(), sweep: Sweep::default() }
    }

    /// The store as it is now, to be read at leisure.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.view.clone())
    }

    /// Applies one request: the only way a store changes. The outcome depends on the
    /// store and the request alone, refusals included (TX-6).
    ///
    /// Nothing of the request's buffer is kept: keys and values are copied.
    ///
    /// The outcome is a refusal ([`KvError`]) if something is wrong with the request; then it
    /// has changed nothing, not even the hash.
    ///
    /// # Errors
    /// If the request reads of the past what cannot be read at present. That is no
    /// outcome: other replicas may well come to one. Nothing was changed, and nothing
    /// else may be applied before this was.
    pub fn apply(&mut self, request: &Request) -> Result<Result<Applied, KvError>, Unreadable> {
        let mut step = match self.accept(request) {
            Ok(step) => step,
            Err(refusal) => return Ok(Err(refusal)),
        };
        step.read_past(&self.view)?;
        let mut writer = Writer { position: Position::first_of(self.view.revision.next()), store: self };
        let response = writer.step(&step);
        let revision = writer.revision();
        self.view.revision = revision;
        Ok(Ok(Applied { response, revision }))
    }

    /// Looks at all that could be objected to.
    fn accept<'r>(&self, request: &'r Request) -> Result<Step<'r>, KvError> {
        request.check_for_apply()?;
        Ok(match request {
            Request::Range(range) => {
                self.check_readable(range.revision)?;
                Step::Range(range)
            }
            Request::Put(put) => {
                self.check_put_alone(put)?;
                Step::Put(put)
            }
            Request::DeleteRange(delete) => Step::DeleteRange(delete),
            Request::Txn(txn) => {
                let plan = self.plan(txn);
                self.check_plan(&plan)?;
                Step::Txn(plan)
            }
            Request::Compact(compact) => {
                self.check_compaction(compact.revision)?;
                Step::Compact(compact.revision)
            }
        })
    }

    /// A checkpoint of this store as it was at `revision` is durable, and consists of these runs. The versions in them
    /// that are not the newest of their keys need not be in memory any more; they are given back, for the caller to
    /// let go of. Nothing happens if that was another store: one whose place this one, from elsewhere, took meanwhile.
    pub fn settle(&mut self, revision: Revision, runs: Vec<Run>) -> Retired {
        if revision < self.view.kept_behind || revision > self.view.revision {
            return Retired::default();
        }
        self.view.kept_behind = revision;
        self.view.changes.settle(revision, runs)
    }
}

/// A request being carried out: where its next change goes.
struct Writer<'s> {
    store: &'s mut Store,
    position: Position,
}

impl Writer<'_> {
    /// The store's revision as the request has left it so far (R-2, H-3).
    fn revision(&self) -> Revision {
        if self.position.sub == 0 { self.store.view.revision } else { self.position.revision }
    }

    fn change(&mut self, key: &[u8], make: impl FnOnce(Option<&KeyValue>) -> Change) {
        let view = &mut self.store.view;
        let change = view.record(self.position, key, make);
        view.hash = view.hash.after_change(self.position, &change);
        self.position.sub += 1;
    }

    /// Carries out a step that was accepted, and whose reads of the past are done.
    fn step(&mut self, step: &Step<'_>) -> Response {
        match step {
            Step::Range(range) => {
                let present = self.store.view.select(range);
                Response::Range(present.expect("the present is in memory"))
            }
            Step::Past(read) => Response::Range(read.clone()),
            Step::Put(put) => self.put(put),
            Step::DeleteRange(delete) => self.delete_range(delete),
            Step::Txn(plan) => Response::Txn(self.run(plan)),
            Step::Compact(revision) => {
                self.store.compact(*revision);
                Response::Compact
            }
        }
    }

    fn put(&mut self, request: &PutRequest) -> Response {
        let mod_revision = self.position.revision;
        let mut prev_kv = None;
        self.change(&request.key, |prev| {
            prev_kv = prev.filter(|_| request.prev_kv).cloned();
            let kept = || prev.expect("existence was checked before the first write");
            let value = if request.ignore_value {
                kept().value.clone()
            } else {
                Bytes::copy_from_slice(&request.value)
            };
            let lease = if request.ignore_lease { kept().lease } else { request.lease };
            Change::Put(match prev {
                Some(prev) => KeyValue {
                    // Versions share a long key. To share a short one would mean to wait for the memory where the
                    // version before keeps it, and count, while the request's is at hand.
                    key: if request.key.len() > SHORT_KEY {
                        prev.key.clone()
                    } else {
                        Bytes::copy_from_slice(&request.key)
                    },
                    value,
                    create_revision: prev.create_revision,
                    mod_revision,
                    version: prev.version + 1,
                    lease,
                },
                None => KeyValue {
                    key: Bytes::copy_from_slice(&request.key),
                    value,
                    create_revision: mod_revision,
                    mod_revision,
                    version: 1,
                    lease,
                },
            })
        });
        Response::Put(PutResponse { prev: prev_kv })
    }

    fn delete_range(&mut self, request: &DeleteRangeRequest) -> Response {
        let doomed = self.store.view.pairs(&request.range);
        let revision = self.position.revision;
        for kv in &doomed {
            self.change(&kv.key, |_| Change::Delete { key: kv.key.clone(), revision });
        }
        Response::DeleteRange(DeleteRangeResponse {
            deleted: doomed.len() as u64,
            prev_kvs: if request.prev_kv { doomed } else { Vec::new() },
        })
    }

    fn run(&mut self, plan: &Plan<'_>) -> TxnResponse {
        let mut responses = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            let response = self.step(step);
            responses.push(NestedResponse { revision: self.revision(), response });
        }
        TxnResponse { succeeded: plan.succeeded, responses }
    }
}

impl View {
    /// The pairs of an interval as they are now, in key order.
    fn pairs(&self, range: &KeyRange) -> Vec<KeyValue> {
        let mut pairs = Vec::new();
        self.visit(range, false, |history| {
            pairs.extend(history.current().cloned());
            ControlFlow::Continue(())
        });
        pairs
    }
}

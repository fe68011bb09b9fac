//! The store itself: every change by key and by position, and the door to them.
//!
//! [`View`] is the state and everything that can be read from it. [`Store`] owns one
//! and changes it, request by request. [`Snapshot`] is a copy of one that stays as it
//! is; taking it costs a few pointers, so readers, checkpoints and laggards that need
//! the whole store never hold up the writer.
//!
//! An apply has two halves. First everything that could be objected to is looked at,
//! against the state as it was; then the writes are done, and those cannot fail. So a
//! request that is refused has changed nothing (TX-5), without any undoing.

use std::ops::{ControlFlow, Deref};
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use smallvec::SmallVec;

use crate::error::KvError;
use crate::hash::StateHash;
use crate::history::{Change, History};
use crate::request::{DeleteRangeRequest, KeyRange, PutRequest, RangeRequest, Request};
use crate::response::{
    Applied, DeleteRangeResponse, KeyValue, NestedResponse, PutResponse, Response, TxnResponse,
};
use crate::revision::{Position, Revision};
use crate::series::Series;
use crate::txn::{Plan, Step};

/// A key as the map of all keys holds it. Short ones lie in the map itself, because finding a key means to compare it
/// with a dozen others, and each that lies elsewhere is a wait for memory.
pub(crate) type IndexKey = SmallVec<[u8; 24]>;

/// What the store holds at one moment, and every way to read it.
#[derive(Clone, Debug)]
pub struct View {
    /// Every key that is remembered, dead ones too.
    pub(crate) keys: OrdMap<IndexKey, History>,
    /// Every change that is remembered, in the order in which it happened.
    pub(crate) changes: Series,
    pub(crate) revision: Revision,
    pub(crate) compacted: Option<Revision>,
    pub(crate) hash: StateHash,
    pub(crate) stats: Stats,
    /// Where the sweep goes on; see `compact`.
    pub(crate) sweep_from: Position,
    /// Tombstones behind this revision are not swept; see `image`. None while all are.
    pub(crate) held_behind: Option<Revision>,
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
    /// Estimated memory of all that is remembered, in bytes.
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
            revision: Revision::FIRST,
            compacted: None,
            hash: StateHash::default(),
            stats: Stats::default(),
            sweep_from: Position::default(),
            held_behind: None,
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
    /// Of the changes at the compacted revision itself, all are still there.
    ///
    /// # Errors
    /// [`KvError::Compacted`] if some of what was asked for may be forgotten.
    pub fn changes_from(
        &self,
        revision: Revision,
    ) -> Result<impl Iterator<Item = (Position, &Change)>, KvError> {
        if let Some(oldest) = self.compacted.filter(|&oldest| revision < oldest) {
            return Err(KvError::Compacted { requested: revision, oldest });
        }
        let range = self.changes.from(Position::first_of(revision));
        Ok(range.map(|(position, change)| (position, &**change)))
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
        Store { view: View::new() }
    }

    /// The store as it is now, to be read at leisure.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.view.clone())
    }

    /// Applies one request: the only way a store changes. The outcome depends on the
    /// store and the request alone, errors included (TX-6).
    ///
    /// Nothing of the request's buffer is kept: keys and values are copied.
    ///
    /// # Errors
    /// If the request is refused; then it has changed nothing, not even the hash.
    pub fn apply(&mut self, request: &Request) -> Result<Applied, KvError> {
        request.check_for_apply()?;
        let mut writer = Writer { position: Position::first_of(self.view.revision.next()), store: self };
        let response = match request {
            Request::Range(range) => {
                writer.store.check_readable(range.revision)?;
                writer.range(range)
            }
            Request::Put(put) => {
                writer.store.check_put_alone(put)?;
                writer.put(put)
            }
            Request::DeleteRange(delete) => writer.delete_range(delete),
            Request::Txn(txn) => {
                let plan = writer.store.plan(txn);
                writer.store.check_plan(&plan)?;
                Response::Txn(writer.run(&plan))
            }
            Request::Compact(compact) => {
                writer.store.compact(compact.revision)?;
                Response::Compact
            }
        };
        let revision = writer.revision();
        self.view.revision = revision;
        Ok(Applied { response, revision })
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

    fn range(&self, request: &RangeRequest) -> Response {
        Response::Range(self.store.view.select(request))
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
                // All versions of a life share one copy of the key.
                Some(prev) => KeyValue {
                    key: prev.key.clone(),
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
            let response = match step {
                Step::Range(range) => self.range(range),
                Step::Put(put) => self.put(put),
                Step::DeleteRange(delete) => self.delete_range(delete),
                Step::Txn(plan) => Response::Txn(self.run(plan)),
            };
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

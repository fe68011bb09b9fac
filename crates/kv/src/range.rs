//! Reading an interval.
//!
//! etcd's order of work (KV-3): take the interval at the revision, drop what the
//! filters refuse, sort, cut, strip the values. In key order, either way, that is one
//! pass that stops cloning at the limit and from there on only counts; any other
//! order has to see everything first. Pairs that have been superseded since are looked
//! up in the series, many at a time.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::cold::Unreadable;
use crate::error::KvError;
use crate::history::{At, Change, Found, History};
use crate::request::{KeyRange, RangeEnd, RangeRequest, SortOrder, SortTarget};
use crate::response::{KeyValue, RangeResponse};
use crate::revision::Revision;
use crate::store::View;

impl View {
    /// Reads an interval of keys (KV-1 to KV-5, KV-7). It is refused if the key is empty,
    /// or the revision lies in the future or before the last compaction.
    ///
    /// # Errors
    /// If a version that is not in memory cannot be read. At the newest revision, all are.
    pub fn range(&self, request: &RangeRequest) -> Result<Result<RangeResponse, KvError>, Unreadable> {
        match request.range.check().and_then(|()| self.check_readable(request.revision)) {
            Ok(()) => self.select(request).map(Ok),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// KV-2: the compacted revision itself can still be read.
    pub(crate) fn check_readable(&self, revision: Option<Revision>) -> Result<(), KvError> {
        let Some(requested) = revision else { return Ok(()) };
        if requested > self.revision {
            return Err(KvError::FutureRevision { requested, current: self.revision });
        }
        match self.compacted {
            Some(oldest) if requested < oldest => Err(KvError::Compacted { requested, oldest }),
            _ => Ok(()),
        }
    }

    /// The read itself, once it is known to be possible.
    pub(crate) fn select(&self, request: &RangeRequest) -> Result<RangeResponse, Unreadable> {
        let at = At::from(request.revision);
        let reverse = request.target == SortTarget::Key && request.order == SortOrder::Descend;
        let mut selection = Selection::new(self, request);
        let mut unreadable = None;
        self.visit(&request.range, reverse, |history| {
            // Once the limit has cut something off, the rest is only counted, and
            // counting does not even look at the pair (KV-4, KV-5).
            if request.count_only || selection.more {
                selection.count += u64::from(history.alive_at(at));
            } else if let Some(found) = history.at(at) {
                selection.count += 1;
                unreadable = selection.add(found).err();
            }
            if unreadable.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match unreadable {
            Some(error) => Err(error),
            None => selection.finish(),
        }
    }

    /// Shows `look` every key of the interval that is remembered, dead or alive, in
    /// key order or against it, until it has seen enough.
    pub(crate) fn visit<'v>(
        &'v self,
        range: &KeyRange,
        reverse: bool,
        mut look: impl FnMut(&'v History) -> ControlFlow<()>,
    ) {
        if range.end == RangeEnd::Single {
            self.keys.get(&range.key[..]).map(look);
            return;
        }
        let Some(bounds) = range.bounds() else { return };
        let mut keys = self.keys.range::<_, [u8]>(bounds);
        let mut next = || if reverse { keys.next_back() } else { keys.next() };
        while let Some((_, history)) = next() {
            if look(history).is_break() {
                return;
            }
        }
    }
}

/// A pair in the map, or one that was looked up in the series.
enum Pair<'v> {
    Here(&'v KeyValue),
    There(Arc<Change>),
}

impl Pair<'_> {
    fn get(&self) -> &KeyValue {
        match self {
            Pair::Here(kv) => kv,
            Pair::There(change) => change.pair().expect("an old version that is looked up is a pair"),
        }
    }
}

/// As many pairs are looked up in the series at once. They are put in the order in which they were written, so that
/// those that lie in one block on disk cost one look at it.
const LOOKED_UP_AT_ONCE: usize = 4096;

/// What a read has found so far.
struct Selection<'v, 'r> {
    view: &'v View,
    request: &'r RangeRequest,
    limit: usize,
    in_key_order: bool,
    found: Vec<Pair<'v>>,
    /// Pairs behind `found`, one of which is still to be looked up.
    waiting: Vec<Found<'v>>,
    count: u64,
    more: bool,
}

impl<'v, 'r> Selection<'v, 'r> {
    fn new(view: &'v View, request: &'r RangeRequest) -> Selection<'v, 'r> {
        Selection {
            view,
            request,
            limit: request
                .limit
                .map_or(usize::MAX, |limit| usize::try_from(limit.get()).unwrap_or(usize::MAX)),
            in_key_order: request.target == SortTarget::Key,
            found: Vec::new(),
            waiting: Vec::new(),
            count: 0,
            more: false,
        }
    }

    /// Takes the next pair.
    fn add(&mut self, found: Found<'v>) -> Result<(), Unreadable> {
        match found {
            Found::Here(kv) if self.waiting.is_empty() => self.admit(Pair::Here(kv)),
            found => {
                self.waiting.push(found);
                // One more than may be in the answer tells whether there are more; but all are looked at where the
                // answer is put in another order.
                let wanted = match self.in_key_order {
                    true => (self.limit - self.found.len().min(self.limit)).saturating_add(1),
                    false => usize::MAX,
                };
                if self.waiting.len() >= wanted.min(LOOKED_UP_AT_ONCE) {
                    self.look_up()?;
                }
            }
        }
        Ok(())
    }

    fn look_up(&mut self) -> Result<(), Unreadable> {
        let there = self.waiting.iter().filter_map(|found| match found {
            Found::Here(_) => None,
            Found::There(position) => Some(*position),
        });
        let mut changes = self.view.changes.find(&there.collect::<Vec<_>>())?.into_iter();
        for found in std::mem::take(&mut self.waiting) {
            if self.more {
                break; // it was counted, and nothing else is wanted of it
            }
            self.admit(match found {
                Found::Here(kv) => Pair::Here(kv),
                Found::There(_) => Pair::There(changes.next().expect("each was found")),
            });
        }
        Ok(())
    }

    fn admit(&mut self, pair: Pair<'v>) {
        let kv = pair.get();
        let request = self.request;
        if request.modified.admit(kv.mod_revision) && request.created.admit(kv.create_revision) {
            if self.in_key_order && self.found.len() == self.limit {
                self.more = true;
            } else {
                self.found.push(pair);
            }
        }
    }

    fn finish(mut self) -> Result<RangeResponse, Unreadable> {
        self.look_up()?;
        if !self.in_key_order {
            let (target, descend) = (self.request.target, self.request.order == SortOrder::Descend);
            // The sort is stable, and so leaves ties in key order.
            self.found.sort_by(|a, b| {
                let ordering = compare_by(target, a.get(), b.get());
                if descend { ordering.reverse() } else { ordering }
            });
            self.more = self.found.len() > self.limit;
            self.found.truncate(self.limit);
        }
        let kvs = self.found.iter().map(|pair| {
            let mut kv = pair.get().clone();
            if self.request.keys_only {
                kv.value.clear();
            }
            kv
        });
        Ok(RangeResponse { kvs: kvs.collect(), more: self.more, count: self.count })
    }
}

fn compare_by(target: SortTarget, a: &KeyValue, b: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    }
}

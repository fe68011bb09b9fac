//! Reading an interval.
//!
//! etcd's order of work (KV-3): take the interval at the revision, drop what the
//! filters refuse, sort, cut, strip the values. In key order, either way, that is one
//! pass that stops cloning at the limit and from there on only counts; any other
//! order has to see everything first.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use crate::error::KvError;
use crate::history::{At, History};
use crate::request::{KeyRange, RangeEnd, RangeRequest, SortOrder, SortTarget};
use crate::response::{KeyValue, RangeResponse};
use crate::revision::Revision;
use crate::store::View;

impl View {
    /// Reads an interval of keys (KV-1 to KV-5, KV-7).
    ///
    /// # Errors
    /// If the key is empty, or the revision lies in the future or before the last
    /// compaction.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        request.range.check()?;
        self.check_readable(request.revision)?;
        Ok(self.select(request))
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
    pub(crate) fn select(&self, request: &RangeRequest) -> RangeResponse {
        let at = At::from(request.revision);
        let limit =
            request.limit.map_or(usize::MAX, |limit| usize::try_from(limit.get()).unwrap_or(usize::MAX));
        let in_key_order = request.target == SortTarget::Key;
        let reverse = in_key_order && request.order == SortOrder::Descend;

        let mut count = 0;
        let mut more = false;
        let mut found: Vec<&KeyValue> = Vec::new();
        self.visit(&request.range, reverse, |history| {
            // Once the limit has cut something off, the rest is only counted, and
            // counting does not even look at the pair (KV-4, KV-5).
            if request.count_only || more {
                count += u64::from(history.alive_at(at));
            } else if let Some(kv) = history.at(at) {
                count += 1;
                if request.modified.admit(kv.mod_revision) && request.created.admit(kv.create_revision) {
                    if in_key_order && found.len() == limit {
                        more = true;
                    } else {
                        found.push(kv);
                    }
                }
            }
            ControlFlow::Continue(())
        });

        if !in_key_order {
            let descend = request.order == SortOrder::Descend;
            // The sort is stable, and so leaves ties in key order.
            found.sort_by(|a, b| {
                let ordering = compare_by(request.target, a, b);
                if descend { ordering.reverse() } else { ordering }
            });
            more = found.len() > limit;
            found.truncate(limit);
        }
        let kvs = found.into_iter().map(|kv| {
            let mut kv = kv.clone();
            if request.keys_only {
                kv.value.clear();
            }
            kv
        });
        RangeResponse { kvs: kvs.collect(), more, count }
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

fn compare_by(target: SortTarget, a: &KeyValue, b: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    }
}

//! What can be told from a request alone.
//!
//! A server validates what it takes in, so that nothing senseless is agreed on; and
//! every replica validates again what it applies, because an error must be the same
//! everywhere (TX-6), and because bytes that were agreed on may still be nonsense.
//!
//! The interesting part is TX-4: within one revision a key changes at most once. A
//! key may not be put twice, nor put and deleted, along any path that a transaction
//! could take. The store relies on it: it is why (key, revision) names a version.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Included, Unbounded};

use crate::codec::MAX_NESTING;
use crate::error::KvError;
use crate::request::{KeyRange, Limits, PutRequest, RangeEnd, Request, TxnRequest};

impl Request {
    /// Checks what does not depend on the state of any store, within a server's
    /// limits.
    ///
    /// # Errors
    /// The first objection, in the order in which etcd raises them.
    pub fn validate(&self, limits: &Limits) -> Result<(), KvError> {
        self.check(limits.max_txn_ops)?;
        if !self.is_read_only() && self.encoded_len() > limits.max_request_bytes {
            return Err(KvError::RequestTooLarge);
        }
        Ok(())
    }

    /// What every replica checks before it applies: all of the above but the
    /// limits, which may differ from server to server.
    pub(crate) fn check_for_apply(&self) -> Result<(), KvError> {
        self.check(usize::MAX)
    }

    fn check(&self, max_txn_ops: usize) -> Result<(), KvError> {
        match self {
            Request::Txn(txn) => txn.check(max_txn_ops),
            Request::Compact(_) => Ok(()),
            other => other.check_op(max_txn_ops, 0),
        }
    }

    /// As an operation of its own, or inside a transaction.
    fn check_op(&self, ops_left: usize, depth: usize) -> Result<(), KvError> {
        match self {
            Request::Put(put) => put.check(),
            Request::DeleteRange(delete) => delete.range.check(),
            Request::Range(range) => range.range.check(),
            Request::Txn(txn) => txn.check_shape(ops_left, depth),
            // Not an operation that a transaction can hold (TX-7).
            Request::Compact(_) => Err(KvError::KeyNotFound),
        }
    }
}

impl TxnRequest {
    /// As the outermost transaction, with all that is nested in it.
    pub(crate) fn check(&self, max_ops: usize) -> Result<(), KvError> {
        self.check_shape(max_ops, 0)?;
        Writes::of_list(&self.success)?;
        Writes::of_list(&self.failure)?;
        Ok(())
    }

    /// TX-3: a nested transaction has what its parents left over.
    fn check_shape(&self, max_ops: usize, depth: usize) -> Result<(), KvError> {
        let ops = self.compares.len().max(self.success.len()).max(self.failure.len());
        if ops > max_ops || depth == MAX_NESTING {
            return Err(KvError::TooManyOps);
        }
        self.compares.iter().try_for_each(|compare| compare.range.check())?;
        self.success.iter().chain(&self.failure).try_for_each(|op| op.check_op(max_ops - ops, depth + 1))
    }
}

impl KeyRange {
    pub(crate) fn check(&self) -> Result<(), KvError> {
        if self.key.is_empty() { Err(KvError::EmptyKey) } else { Ok(()) }
    }
}

impl PutRequest {
    fn check(&self) -> Result<(), KvError> {
        if self.key.is_empty() {
            return Err(KvError::EmptyKey);
        }
        if self.ignore_value && !self.value.is_empty() {
            return Err(KvError::ValueProvided);
        }
        if self.ignore_lease && self.lease.is_some() {
            return Err(KvError::LeaseProvided);
        }
        Ok(())
    }
}

/// Everything that a list of operations might write, whichever branches it takes.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    /// Keys deleted one by one.
    deleted: BTreeSet<&'a [u8]>,
    /// Deleted intervals by their first key, up to (but without) the second, if
    /// there is one. They do not overlap: what touches is joined.
    swaths: BTreeMap<&'a [u8], Option<&'a [u8]>>,
}

impl<'a> Writes<'a> {
    /// Operations of one list all run: any two of them may clash.
    fn of_list(ops: &'a [Request]) -> Result<Writes<'a>, KvError> {
        let mut all = Writes::default();
        for op in ops {
            let writes = match op {
                Request::Txn(txn) => Writes::of_either(txn)?,
                Request::Put(put) => Writes::put(&put.key),
                Request::DeleteRange(delete) => Writes::delete(&delete.range),
                Request::Range(_) | Request::Compact(_) => continue,
            };
            if all.clash(&writes) {
                return Err(KvError::DuplicateKey);
            }
            all.join(writes);
        }
        Ok(all)
    }

    /// Only one branch of a transaction runs: the two cannot clash.
    fn of_either(txn: &'a TxnRequest) -> Result<Writes<'a>, KvError> {
        let mut writes = Writes::of_list(&txn.success)?;
        writes.join(Writes::of_list(&txn.failure)?);
        Ok(writes)
    }

    fn put(key: &'a [u8]) -> Writes<'a> {
        Writes { puts: BTreeSet::from([key]), ..Writes::default() }
    }

    fn delete(range: &'a KeyRange) -> Writes<'a> {
        let mut writes = Writes::default();
        match &range.end {
            RangeEnd::Single => drop(writes.deleted.insert(&range.key)),
            RangeEnd::FromKey => drop(writes.swaths.insert(&range.key, None)),
            RangeEnd::Before(end) if *end > range.key => {
                writes.swaths.insert(&range.key, Some(end));
            }
            RangeEnd::Before(_) => {}
        }
        writes
    }

    fn len(&self) -> usize {
        self.puts.len() + self.deleted.len() + self.swaths.len()
    }

    /// A key put by both, or put by one and deleted by the other. Walks the smaller
    /// side and looks things up in the larger, as [`Writes::join`] does: however a
    /// request is nested, each operation is walked a logarithmic number of times.
    fn clash(&self, other: &Writes<'a>) -> bool {
        let (small, large) = if self.len() < other.len() { (self, other) } else { (other, self) };
        small.puts.iter().any(|key| large.puts.contains(key) || large.deletes(key))
            || small.deleted.iter().any(|key| large.puts.contains(key))
            || small.swaths.iter().any(|(start, end)| {
                let next = large.puts.range::<[u8], _>((Included(*start), Unbounded)).next();
                next.is_some_and(|key| end.is_none_or(|end| *key < end))
            })
    }

    fn deletes(&self, key: &[u8]) -> bool {
        let within = |(_, end): (_, &Option<&[u8]>)| end.is_none_or(|end| key < end);
        self.deleted.contains(key)
            || self.swaths.range::<[u8], _>((Unbounded, Included(key))).next_back().is_some_and(within)
    }

    fn join(&mut self, mut other: Writes<'a>) {
        if self.len() < other.len() {
            std::mem::swap(self, &mut other);
        }
        self.puts.append(&mut other.puts);
        self.deleted.append(&mut other.deleted);
        for (start, end) in other.swaths {
            self.join_swath(start, end);
        }
    }

    fn join_swath(&mut self, mut start: &'a [u8], mut end: Option<&'a [u8]>) {
        let reaches = |end: Option<&[u8]>, key: &[u8]| end.is_none_or(|end| end >= key);
        if let Some((&earlier, &its_end)) = self.swaths.range(..=start).next_back()
            && reaches(its_end, start)
        {
            start = earlier;
        }
        while let Some((&later, &its_end)) = self.swaths.range(start..).next()
            && reaches(end, later)
        {
            self.swaths.remove(later);
            end = end.and_then(|end| its_end.map(|its_end| end.max(its_end)));
        }
        self.swaths.insert(start, end);
    }
}

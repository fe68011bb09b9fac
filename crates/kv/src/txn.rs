//! Compare, then do one thing or the other.
//!
//! Every comparison of a transaction, nested ones included, looks at the state before
//! it (TX-1). So the path that it will take is settled before it takes a step: that
//! is the [`Plan`]. The plan is checked as a whole, and only then carried out, which
//! makes a transaction all or nothing (TX-5). A branch that is not taken is not even
//! looked at.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use crate::cold::Unreadable;
use crate::error::KvError;
use crate::request::{
    Compare, DeleteRangeRequest, Operand, PutRequest, RangeRequest, Relation, Request, TxnRequest,
};
use crate::response::{KeyValue, NestedResponse, RangeResponse, Response, TxnResponse};
use crate::revision::{LeaseId, Revision};
use crate::store::View;

/// The path that a transaction takes.
pub(crate) struct Plan<'r> {
    pub(crate) succeeded: bool,
    pub(crate) steps: Vec<Step<'r>>,
}

/// One operation on that path, or one that stands alone.
pub(crate) enum Step<'r> {
    Range(&'r RangeRequest),
    /// A read at an earlier revision, which was done ahead: no write on the path can change what it finds.
    Past(RangeResponse),
    Put(&'r PutRequest),
    DeleteRange(&'r DeleteRangeRequest),
    Txn(Plan<'r>),
    /// Not inside a transaction.
    Compact(Revision),
}

impl Step<'_> {
    /// Does all reads that may need the disk.
    pub(crate) fn read_past(&mut self, view: &View) -> Result<(), Unreadable> {
        match self {
            Step::Range(range) if range.revision.is_some() => *self = Step::Past(view.select(range)?),
            Step::Txn(plan) => plan.steps.iter_mut().try_for_each(|step| step.read_past(view))?,
            _ => {}
        }
        Ok(())
    }
}

impl Plan<'_> {
    /// Visits the operations of this plan and those nested in it, in order.
    fn check_each(&self, check: &mut impl FnMut(&Step<'_>) -> Result<(), KvError>) -> Result<(), KvError> {
        self.steps.iter().try_for_each(|step| match step {
            Step::Txn(plan) => plan.check_each(check),
            step => check(step),
        })
    }
}

impl View {
    /// Carries out a transaction that only reads, without a place in the log (TX-8). It is
    /// refused as [`crate::Store::apply`] would refuse it.
    ///
    /// # Errors
    /// If it reads of the past what cannot be read at present.
    ///
    /// # Panics
    /// If it does not only read. Ask [`TxnRequest::is_read_only`] first.
    pub fn txn_read(&self, txn: &TxnRequest) -> Result<Result<TxnResponse, KvError>, Unreadable> {
        let accepted = txn.check(usize::MAX).and_then(|()| {
            let plan = self.plan(txn);
            self.check_plan(&plan).map(|()| plan)
        });
        match accepted {
            Ok(plan) => self.read_plan(&plan).map(Ok),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    fn read_plan(&self, plan: &Plan<'_>) -> Result<TxnResponse, Unreadable> {
        let responses = plan.steps.iter().map(|step| {
            let response = match step {
                Step::Range(range) => Response::Range(self.select(range)?),
                Step::Txn(plan) => Response::Txn(self.read_plan(plan)?),
                _ => panic!("a transaction that does not only read"),
            };
            Ok(NestedResponse { revision: self.revision, response })
        });
        Ok(TxnResponse { succeeded: plan.succeeded, responses: responses.collect::<Result<_, _>>()? })
    }

    /// Which way the transaction will go.
    pub(crate) fn plan<'r>(&self, txn: &'r TxnRequest) -> Plan<'r> {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let steps = branch.iter().map(|op| match op {
            Request::Range(range) => Step::Range(range),
            Request::Put(put) => Step::Put(put),
            Request::DeleteRange(delete) => Step::DeleteRange(delete),
            Request::Txn(txn) => Step::Txn(self.plan(txn)),
            Request::Compact(_) => unreachable!("refused by the check of the request"),
        });
        Plan { succeeded, steps: steps.collect() }
    }

    /// Objects to a plan before anything is written (TX-5): first to its puts, then
    /// to its reads, as etcd does.
    ///
    /// The state before the transaction is the right one to look at even for a put
    /// that comes late: nothing else on the path can touch its key (TX-4).
    pub(crate) fn check_plan(&self, plan: &Plan<'_>) -> Result<(), KvError> {
        plan.check_each(&mut |step| match step {
            Step::Put(put) => {
                self.check_kept(put)?;
                self.check_lease(put)
            }
            _ => Ok(()),
        })?;
        plan.check_each(&mut |step| match step {
            Step::Range(range) => self.check_readable(range.revision),
            _ => Ok(()),
        })
    }

    /// Objects to a put outside any transaction: the same, in etcd's other order.
    pub(crate) fn check_put_alone(&self, put: &PutRequest) -> Result<(), KvError> {
        self.check_lease(put)?;
        self.check_kept(put)
    }

    /// KV-10: what is to be kept must be there.
    fn check_kept(&self, put: &PutRequest) -> Result<(), KvError> {
        if (put.ignore_value || put.ignore_lease) && self.current(&put.key).is_none() {
            return Err(KvError::KeyNotFound);
        }
        Ok(())
    }

    /// KV-9: the lease must exist; there are none yet.
    fn check_lease(&self, put: &PutRequest) -> Result<(), KvError> {
        put.lease.map_or(Ok(()), |lease| Err(KvError::LeaseNotFound(lease)))
    }

    /// Whether every key of the interval satisfies the comparison (TX-2).
    fn holds(&self, compare: &Compare) -> bool {
        let mut missing = true;
        let mut holds = true;
        self.visit(&compare.range, false, |history| {
            if let Some(kv) = history.current() {
                missing = false;
                holds = compare.admits(kv);
            }
            if holds { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if missing { compare.admits_missing() } else { holds }
    }
}

impl Compare {
    fn admits(&self, kv: &KeyValue) -> bool {
        let ordering = match &self.operand {
            Operand::Version(operand) => kv.version.cast_signed().cmp(operand),
            Operand::Create(operand) => kv.create_revision.to_wire().cmp(operand),
            Operand::Mod(operand) => kv.mod_revision.to_wire().cmp(operand),
            Operand::Lease(operand) => LeaseId::to_wire(kv.lease).cmp(operand),
            Operand::Value(operand) => kv.value.cmp(operand),
        };
        self.relation.admits(ordering)
    }

    /// A missing key is all zeros, but has no value to compare with, not even an
    /// unequal one (TX-2).
    fn admits_missing(&self) -> bool {
        match &self.operand {
            Operand::Version(operand)
            | Operand::Create(operand)
            | Operand::Mod(operand)
            | Operand::Lease(operand) => self.relation.admits(0.cmp(operand)),
            Operand::Value(_) => false,
        }
    }
}

impl Relation {
    fn admits(self, ordering: Ordering) -> bool {
        match self {
            Relation::Equal => ordering.is_eq(),
            Relation::NotEqual => ordering.is_ne(),
            Relation::Greater => ordering.is_gt(),
            Relation::Less => ordering.is_lt(),
        }
    }
}

//! The nouns of the store: when something happened, and what holds a key alive.
//!
//! A *revision* counts requests that changed something; a *position* is one change
//! inside a revision. Neither is a slot of the replicated log: many slots make no
//! revision at all.

use std::fmt;
use std::num::NonZeroI64;

/// How many changing requests the store has seen, counting from 1 for the empty
/// store. Never decreases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision of a store nobody has written to.
    pub const FIRST: Revision = Revision(1);

    /// The revision a request names on etcd's wire, where zero stands for "the
    /// newest". Negative numbers are read the same way (TX-9).
    pub fn from_wire(number: i64) -> Option<Revision> {
        u64::try_from(number).ok().filter(|&n| n > 0).map(Revision)
    }

    /// This revision as etcd's wire carries it. Saturates, though no store lives
    /// long enough to see it.
    pub fn to_wire(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// The revision after this one.
    pub(crate) fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where one change stands in the store's history: its revision, and its place
/// among the changes of that revision. The field order is the comparison
/// order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The revision that the change belongs to.
    pub revision: Revision,
    /// 0 for the first change of the revision, 1 for the next, and so on.
    pub sub: u32,
}

impl Position {
    /// Where the changes of `revision` begin.
    pub(crate) fn first_of(revision: Revision) -> Position {
        Position { revision, sub: 0 }
    }

    /// No change stands between this and that.
    pub(crate) fn next(self) -> Position {
        match self.sub.checked_add(1) {
            Some(sub) => Position { sub, ..self },
            None => Position::first_of(self.revision.next()),
        }
    }

    /// No change of `revision` stands behind this.
    pub(crate) fn last_of(revision: Revision) -> Position {
        Position { revision, sub: u32::MAX }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.revision, self.sub)
    }
}

/// The name of a lease: any number but zero, which on etcd's wire stands for "no
/// lease". Negative ids are as good as positive ones (L-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub NonZeroI64);

impl LeaseId {
    /// The lease that a number on etcd's wire names, if any.
    pub fn from_wire(number: i64) -> Option<LeaseId> {
        NonZeroI64::new(number).map(LeaseId)
    }

    /// What etcd's wire carries for `lease`.
    pub fn to_wire(lease: Option<LeaseId>) -> i64 {
        lease.map_or(0, |lease| lease.0.get())
    }
}

impl fmt::Display for LeaseId {
    /// In hexadecimal, as etcd's tools print it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0.get())
    }
}

//! The nouns. Each is a type of its own, so that a slot cannot be mistaken for a revision or a round.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// A replica of the cluster: one server, whichever life it is in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// One life of an acceptor's memory: 128 random bits, drawn whenever an acceptor starts without the
/// memory of its predecessor, and never used again once that memory is lost or doubted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u128);

/// Who votes: a node *and* the life of its acceptor. An acceptor that forgot is another acceptor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VoterId {
    /// The replica the acceptor belongs to.
    pub node: NodeId,
    /// Which memory it answers from.
    pub incarnation: Incarnation,
}

/// One life of a proposer, or of a replica's front. Fresh at every start: counted on disk where there
/// is one, unguessable where there is none, so that no life repeats another's ballots or commands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// The identity of a formed cluster, derived from the list its founders signed. Servers of different
/// clusters never talk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

/// A proposal number ("Paxos Made Simple", 2.2). The field order is the comparison order. No two
/// proposers, and no two lives of one proposer, ever share one (PMS-7, PMS-28).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Raised above every round seen whenever somebody campaigns.
    pub round: u64,
    /// The proposer that uses this ballot.
    pub node: NodeId,
    /// The life of that proposer.
    pub generation: Generation,
}

/// A position in the replicated log: one instance of Paxos. The first is 1. Not a revision: one slot
/// may make many revisions, or none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u64);

impl Slot {
    /// Where every log begins.
    pub const FIRST: Slot = Slot(1);

    /// The slot behind this one.
    pub fn next(self) -> Slot {
        Slot(self.0 + 1)
    }
}

/// The slots from the first up to and including some slot: how far a log is chosen, applied, trimmed.
/// `Prefix(0)` is honest emptiness, not a marker.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(pub u64);

impl Prefix {
    /// No slot at all.
    pub const EMPTY: Prefix = Prefix(0);

    /// Everything up to and including `slot`.
    pub fn through(slot: Slot) -> Prefix {
        Prefix(slot.0)
    }

    /// Everything below `slot`.
    pub fn before(slot: Slot) -> Prefix {
        Prefix(slot.0.saturating_sub(1))
    }

    /// Is `slot` inside?
    pub fn contains(self, slot: Slot) -> bool {
        slot.0 <= self.0
    }

    /// The first slot outside.
    pub fn next(self) -> Slot {
        Slot(self.0 + 1)
    }
}

/// How far ahead of the applied prefix slots may be proposed: the paper's alpha (section 3). Also how
/// long a change of the configuration takes to come into force, so every replica of a cluster has the
/// same one; it is part of what the founders sign.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window(u64);

impl Window {
    /// A window of `slots`, at least one.
    pub fn new(slots: u64) -> Window {
        Window(slots.max(1))
    }

    /// The number of slots.
    pub fn slots(self) -> u64 {
        self.0
    }

    /// The last slot that may be proposed when everything in `applied` is applied (PMS-36).
    pub fn last_open(self, applied: Prefix) -> Slot {
        Slot(applied.0 + self.0)
    }
}

/// A moment of a monotonic clock, in microseconds since some start. Time is an input here; no code of
/// this crate asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// The time from `earlier` until now; zero if `earlier` is later.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// The number of a command among those of one front's life, from 1, without holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The number of the first command of a life.
    pub const FIRST: Sequence = Sequence(1);

    /// The number of the command after this one.
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

/// Names one command for ever: who took it, in which life, and which of that life's commands it is.
/// The state machine applies each name once (PMS-30).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId {
    /// The replica that took the command from its client.
    pub origin: NodeId,
    /// The life of that replica's front.
    pub generation: Generation,
    /// The command's number in that life.
    pub sequence: Sequence,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{:x}", self.0)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Display for VoterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.node, self.incarnation)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.round, self.node, self.generation)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "..{}", self.0)
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.origin, self.generation, self.sequence.0)
    }
}

macro_rules! debug_as_display {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
debug_as_display!(NodeId, Incarnation, VoterId, Generation, ClusterId, Ballot, Slot, Prefix, CommandId);

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "window {}", self.0)
    }
}

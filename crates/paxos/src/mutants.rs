//! Ways to break synod on purpose, so that the proof can be proved.
//!
//! A simulator that never finds anything may be blind. Each [`Mutant`] is a mistake that somebody made in some
//! consensus system, or nearly made in this one, at the very line where it would be made here. At most one is at
//! work, in one thread, and only in builds with the feature `mutants`, which the simulator's own program asks for; in
//! all others [`is`] is a constant and the mistakes are not compiled.

/// A mistake. The simulator's list says who has to notice it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(dead_code)] // in builds without any
pub enum Mutant {
    // -- acceptor
    /// A promise is sent without being written (PMS-27).
    ForgetsPromise,
    /// A promise is given below a higher one (PMS-12).
    PromisesBelowPromise,
    /// A proposal is accepted below the promise (PMS-12).
    AcceptsBelowPromise,
    /// Accepting does not promise (PMS-11).
    AcceptingIsNoPromise,
    /// A promise reports acceptances of the slot it was asked for, and of no later one (PMS-32).
    PromiseHidesAcceptances,
    /// A promise does not say how far its acceptor's log is trimmed.
    PromiseHidesTrimPoint,
    /// A new segment of the log does not begin with the promise (PMS-16).
    SummaryForgetsPromise,
    // -- proposer
    /// The largest of the values found is proposed, not that of the highest ballot (PMS-10).
    HighestValueWins,
    /// Values found in promises are ignored (PMS-9).
    IgnoresFoundValues,
    /// Acceptances of any ballot count (PMS-8).
    CountsOtherBallots,
    /// Promises of any ballot count (PMS-17).
    CountsOtherPromises,
    /// A promise that comes in parts counts before it is whole (PMS-32).
    CountsPartOfPromise,
    /// One acceptor less than a majority is enough to call a value chosen (PMS-5).
    MinorityChooses,
    /// One promise less than a majority is enough to propose (PMS-18).
    MinorityPromises,
    /// The second life of a proposer uses the ballots of its first (R5).
    ReusesBallots,
    /// Proposes in slots whose voters are not determined yet (PMS-36, R3).
    SkipsWindow,
    /// Proposes in slots that a promise calls trimmed.
    ProposesTrimmedSlots,
    // -- membership
    /// Any incarnation of a voter may vote for it (R2).
    AmnesiacVotes,
    /// A replacement does not ask who is replaced (R4).
    ReplacesAnybody,
    /// A change of the voters is in force at once (PMS-39).
    ChangesAtOnce,
    // -- learner and machine
    /// A proposal is taken for chosen as soon as it is seen (PMS-3).
    LearnsProposals,
    /// A leader's word vouches for whatever was accepted, in whatever ballot (PMS-21).
    VouchesForAnyBallot,
    /// Acceptances counted for one slot vouch for all below it, too (PMS-3).
    TakesCountForPrefix,
    /// A command that is chosen twice is applied twice (PMS-30).
    AppliesTwice,
    /// Commands of an earlier life of a front are applied behind those of a later one.
    AppliesStaleLives,
    /// A checkpoint does not say which commands it contains.
    CheckpointForgetsSessions,
    // -- reader
    /// One answer is enough for a read (R8).
    ReadsWithoutMajority,
    /// A read is answered by what is applied, however far others are (R8).
    ReadsWithoutWaiting,
    /// An acceptor tells a read how far its log is trimmed, and not what it accepted since (R8).
    AnswersReadsLate,
    // -- storage
    /// Nothing is synced (PMS-27).
    NeverSyncs,
    /// A sync that failed counts as one that did not (D4).
    TrustsFailedSync,
    /// Bytes are read without having been made to last first (C3).
    TrustsPageCache,
    /// A new file's name is not synced.
    ForgetsDirectorySync,
    /// Whatever is damaged in the log counts as a torn tail (R9).
    TakesRotForTornTail,
    // -- server
    /// Answers leave before the disk has the records (PMS-27).
    AnswersBeforeDisk,
    /// The log is trimmed by what is applied, not by what is durable (R6).
    TrimsTooEarly,
    /// A newcomer votes, and counts, although only its process holds what was decided before (R6).
    VotesWithoutStore,
    /// A lost memory comes back under its old name (R1).
    KeepsIncarnation,
    /// Slots released before a checkpoint arrived are applied after it was installed.
    InstallsOutOfOrder,
    /// Commands are named from one again in each life of a front (PMS-30).
    ReusesNames,
    /// A charter is in force once a majority signed it (formation).
    FormsWithMajority,
}

#[cfg(feature = "mutants")]
mod switch {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        static AT_WORK: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// From now on, in this thread, that mistake is made; or none.
    pub fn set(mutant: Option<Mutant>) {
        AT_WORK.set(mutant);
    }

    /// Is that mistake made in this thread?
    #[inline]
    pub fn is(mutant: Mutant) -> bool {
        AT_WORK.get() == Some(mutant)
    }
}

#[cfg(not(feature = "mutants"))]
mod switch {
    /// No mistake is compiled into this build.
    #[inline(always)]
    pub const fn is(_: super::Mutant) -> bool {
        false
    }
}

pub use switch::*;

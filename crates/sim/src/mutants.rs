//! Proof that the proof works: synod is broken on purpose, one way at a time, and the simulator has to notice.
//!
//! The mistakes themselves stand where they would be made, behind switches that production builds do not have
//! ([`synod_paxos::mutants`]).

use crate::batch::{self, Options};
use crate::judges::Broken;
use crate::world::plan::Plan;
use crate::world::{self};
use synod_paxos::mutants::{self, Mutant};

/// A mistake, and what it is called.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Which.
    pub mutant: Mutant,
    /// Its name on the command line and in the table.
    pub name: &'static str,
    /// In words.
    pub words: &'static str,
}

macro_rules! mutants {
    ($($mutant:ident $name:literal $words:literal;)*) => {
        /// All of them.
        pub const ALL: &[Entry] = &[$(Entry { mutant: Mutant::$mutant, name: $name, words: $words },)*];
    };
}

mutants! {
    ForgetsPromise "forgets-promise" "a promise is sent without being written";
    PromisesBelowPromise "promises-below-promise" "a promise is given below a higher one";
    AcceptsBelowPromise "accepts-below-promise" "a proposal is accepted below the promise";
    AcceptingIsNoPromise "accepting-is-no-promise" "accepting does not promise";
    PromiseHidesAcceptances "promise-hides-acceptances" "a promise reports one slot only";
    PromiseHidesTrimPoint "promise-hides-trim-point" "a promise does not say what was trimmed";
    SummaryForgetsPromise "summary-forgets-promise" "a new log segment does not repeat the promise";
    HighestValueWins "highest-value-wins" "the largest value is adopted, not the highest ballot's";
    IgnoresFoundValues "ignores-found-values" "values found in promises are not adopted";
    CountsOtherBallots "counts-other-ballots" "acceptances of two ballots are counted together";
    CountsOtherPromises "counts-other-promises" "promises of other ballots count";
    CountsPartOfPromise "counts-part-of-promise" "the first part of a promise counts as all of it";
    MinorityChooses "minority-chooses" "a value is called chosen short of a majority";
    MinorityPromises "minority-promises" "phase 2 begins short of a majority";
    ReusesBallots "reuses-ballots" "a proposer's second life uses the ballots of its first";
    SkipsWindow "skips-window" "slots are proposed whose voters are not determined";
    ProposesTrimmedSlots "proposes-trimmed-slots" "something is proposed where a promise says trimmed";
    AmnesiacVotes "amnesiac-votes" "any incarnation of a voter counts as that voter";
    ReplacesAnybody "replaces-anybody" "a replacement does not ask whom it replaces";
    ChangesAtOnce "changes-at-once" "a change of voters is in force at once, not a window later";
    LearnsProposals "learns-proposals" "a proposal counts as chosen when it is seen";
    VouchesForAnyBallot "vouches-for-any-ballot" "a leader's word vouches for other ballots' values";
    TakesCountForPrefix "takes-count-for-prefix" "a majority counted in one slot vouches for all below it";
    AppliesTwice "applies-twice" "a command that is chosen twice is applied twice";
    AppliesStaleLives "applies-stale-lives" "commands of a front's earlier life are still applied";
    CheckpointForgetsSessions "checkpoint-forgets-sessions" "a checkpoint does not know what it contains";
    ReadsWithoutMajority "reads-without-majority" "a read asks one acceptor";
    ReadsWithoutWaiting "reads-without-waiting" "a read does not wait until the store has come so far";
    AnswersReadsLate "answers-reads-late" "an acceptor tells reads less than it has accepted";
    NeverSyncs "never-syncs" "the log is never synced";
    TrustsFailedSync "trusts-failed-sync" "a failed sync counts as done";
    TrustsPageCache "trusts-page-cache" "a restart believes what only the page cache has";
    ForgetsDirectorySync "forgets-directory-sync" "the name of a new segment is not synced";
    TakesRotForTornTail "takes-rot-for-torn-tail" "damage in the middle of the log is cut off like a torn tail";
    AnswersBeforeDisk "answers-before-disk" "answers leave before the disk has the records";
    TrimsTooEarly "trims-too-early" "the log is trimmed by what is applied, not by what is durable";
    VotesWithoutStore "votes-without-store" "a newcomer's disk need not hold what was decided before it votes";
    KeepsIncarnation "keeps-incarnation" "a lost memory comes back under its old name";
    InstallsOutOfOrder "installs-out-of-order" "a checkpoint overtakes slots that were released before it";
    ReusesNames "reuses-names" "a front's second life names its commands like its first";
    FormsWithMajority "forms-with-majority" "a cluster starts when a majority has signed";
}

/// How one fared.
#[derive(Clone, Debug)]
pub struct Caught {
    /// The seed that caught it.
    pub seed: u64,
    /// How many seeds were run until then.
    pub after: u64,
    /// Who noticed.
    pub invariant: &'static str,
    /// For which clause.
    pub clause: &'static str,
}

/// Looks for a seed, of at most `seeds` from `first` on, that catches the mutant. One that finds fault with synod as
/// it is proves nothing, and is passed over.
pub fn hunt(entry: &Entry, first: u64, seeds: u64) -> Option<Caught> {
    let last = first.saturating_add(seeds);
    let mut from = first;
    while from < last {
        let one = |seed| {
            mutants::set(Some(entry.mutant));
            let outcome = world::run(&Plan::of(seed), false);
            mutants::set(None);
            outcome
        };
        let options = Options { failures: 1, ..Options::default() };
        let report = batch::run_with(from..last, options, one, |_, _| {});
        let (seed, broken) = report.failures.first()?;
        if world::run(&Plan::of(*seed), false).broken.is_none() {
            let Broken { invariant, clause, .. } = *broken;
            return Some(Caught { seed: *seed, after: seed - first + 1, invariant, clause });
        }
        from = seed + 1;
    }
    None
}

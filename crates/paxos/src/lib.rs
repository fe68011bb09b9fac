//! # The protocol
//!
//! Paxos, as Lamport's "Paxos Made Simple" (2001) tells it, as plain state machines. Input goes in, effects
//! come out; no socket, file, clock, thread or random number is to be found here. Whoever drives these
//! machines supplies time and chance as inputs and carries out what they ask for.
//!
//! One instance of Paxos decides one [`Slot`](types::Slot) of a log. Told backwards, as it is easiest
//! understood:
//!
//! * A [`learner`] releases chosen values in the order of their slots. What it releases, every replica applies.
//! * A value is chosen once a majority of the slot's [`acceptor`]s accepted it in one ballot.
//! * An acceptor accepts a proposal unless it promised a higher ballot. What it says is on disk before it
//!   is said: the effect that carries the answer carries the record it waits for.
//! * A [`proposer`] proposes in a ballot only after a majority promised it, and then only what these promises
//!   leave it free to propose.
//! * Who proposes is decided by [`election`], which may err: two leaders cost time, never an answer.
//! * Who votes is decided by the log itself, a window ahead ([`membership`]).
//! * A [`reader`] learns from a majority how far it must have applied to answer with the latest value.
//! * The [`front`] keeps what clients asked for until it is applied, whoever leads meanwhile; [`machine`] sees
//!   to it that each command is applied once.
//! * [`formation`] lets blank servers become a cluster, exactly one.
//!
//! Safety lives in `acceptor`, `proposer`, `learner`, `membership`, `reader`, `machine` and `formation`;
//! liveness in `election`. Timeouts may be tuned without re-reading a proof.
//!
//! Departures from the paper are marked where they happen: one Prepare covers all slots; ballots carry a
//! generation so that a proposer may forget; voters carry an incarnation so that an acceptor may, too; and
//! chosen values are remembered by learners so that acceptors can trim.

#![warn(missing_docs)]

pub mod acceptor;
pub mod election;
pub mod formation;
pub mod front;
pub mod leadership;
pub mod learner;
pub mod machine;
pub mod membership;
pub mod message;
pub mod mutants;
pub mod proposer;
pub mod reader;
pub mod types;
pub mod value;
pub mod votes;
pub mod wire;

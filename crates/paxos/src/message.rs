//! What replicas say to each other. Every message is safe to lose, to delay, to repeat and to reorder
//! (PMS-4, PMS-14), so transports need to promise nothing. Every answer names the ballot, the slot and the
//! memory it speaks for, so that it cannot be taken for another's (PMS-26).

use crate::types::{Ballot, Generation, NodeId, Prefix, Slot, Time, VoterId};
use crate::value::{Command, Value};

/// "Every slot of this range is chosen, with the value that `ballot` proposed for it." A leader knows this
/// of the slots it proposed itself, and of no others: which value a slot below `from` holds is for others
/// to say. A learner may use a proposal of `ballot` or of any higher one, because a chosen value is the
/// only one that a higher ballot can carry (PMS-9), but never one of a lower ballot (PMS-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Chosen {
    /// The ballot in which the slots were chosen.
    pub ballot: Ballot,
    /// The first slot this ballot proposed.
    pub from: Slot,
    /// All slots up to here.
    pub upto: Prefix,
}

/// What an acceptor accepted in one slot: the proposal of the highest ballot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// The slot.
    pub slot: Slot,
    /// The ballot of the proposal.
    pub ballot: Ballot,
    /// Its value.
    pub value: Value,
}

/// Names a question, so that its answer is not taken for the answer to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId {
    /// The life of the asker, because a later life counts from the start again.
    pub generation: Generation,
    /// Its count.
    pub number: u64,
}

/// A message from one replica to another, or between roles of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    // -- phase 1 (2.2), once for all slots (section 3) --------------------------------------------
    /// Proposer to acceptor: "promise `ballot` for every slot, and tell what you accepted from `from` on."
    Prepare {
        /// The ballot to promise.
        ballot: Ballot,
        /// The first slot of interest.
        from: Slot,
    },
    /// Acceptor to proposer, durable before it leaves: "nothing below `ballot` from now on."
    Promise {
        /// The ballot promised.
        ballot: Ballot,
        /// Who promises, in which life.
        voter: VoterId,
        /// The first slot this answer covers.
        from: Slot,
        /// The first slot it no longer covers; none when it covers all. A long answer comes in parts, and
        /// the proposer asks again from here.
        until: Option<Slot>,
        /// Slots up to here are chosen, and forgotten by this acceptor: silence about them means nothing.
        trimmed: Prefix,
        /// Everything accepted in the covered slots.
        accepted: Vec<Acceptance>,
    },
    // -- phase 2, per slot -------------------------------------------------------------------------
    /// Proposer to acceptor and learner: "accept `value` in `slot`."
    Accept {
        /// The ballot of the proposal.
        ballot: Ballot,
        /// The slot it is for.
        slot: Slot,
        /// What it proposes.
        value: Value,
        /// How far this ballot is chosen, riding along.
        chosen: Option<Chosen>,
        /// The learner that is to be told of acceptances instead of the proposer, if any.
        learner: Option<NodeId>,
    },
    /// Acceptor to proposer, or to the learner that the proposal names (2.3); durable before it leaves.
    Accepted {
        /// The ballot accepted.
        ballot: Ballot,
        /// In which slot.
        slot: Slot,
        /// Who accepted, in which life.
        voter: VoterId,
    },
    /// Acceptor to proposer, a courtesy: "I promised a higher ballot than yours" (PMS-19).
    Refused {
        /// The ballot refused.
        ballot: Ballot,
        /// The one promised.
        promised: Ballot,
    },
    /// Learner that was named in a proposal, to its proposer: "a majority accepted it" (2.3).
    Counted {
        /// The ballot of the proposal.
        ballot: Ballot,
        /// The slot it was for. Nothing is said of any other.
        slot: Slot,
    },
    /// Leader to learners that have the proposals: where somebody waits, or when no Accept carried it (2.3).
    Chosen(Chosen),
    /// Leader to learners whose acceptors it did not ask (2.3): "these values were chosen in `ballot`."
    Learn {
        /// The ballot in which they were chosen.
        ballot: Ballot,
        /// The slot of the first value.
        from: Slot,
        /// Values of `from` and the slots behind it.
        values: Vec<Value>,
    },
    // -- catching up -------------------------------------------------------------------------------
    /// Learner to learner: "what was chosen from `from` on?"
    Fetch {
        /// The first slot wanted.
        from: Slot,
    },
    /// Learner to learner: chosen values, without holes.
    Entries {
        /// The slot of the first value.
        from: Slot,
        /// Values of `from` and the slots behind it.
        values: Vec<Value>,
        /// How far the sender knows the log chosen.
        chosen: Prefix,
    },
    /// Learner to learner: "what you want is gone from my log; take my checkpoint."
    TakeCheckpoint {
        /// What a checkpoint taken now would cover.
        applied: Prefix,
    },
    // -- reading without a log entry ---------------------------------------------------------------
    /// Reader to acceptor: "how far have you accepted?"
    ReadQuery {
        /// Tells rounds apart: only answers to questions sent after a read arrived count for it.
        question: QuestionId,
    },
    /// Acceptor to reader.
    ReadAnswer {
        /// The question answered.
        question: QuestionId,
        /// Who answers, in which life.
        voter: VoterId,
        /// Everything it accepted or trimmed is in here.
        accepted: Prefix,
    },
    // -- commands on their way to the leader -------------------------------------------------------
    /// Front to leader. Repeated until each command was applied: names make repetition harmless.
    Submit {
        /// In order.
        commands: Vec<Command>,
    },
    /// Anyone to the leader: "a read waits for this slot, which may be open; see that it gets decided."
    Decide {
        /// The slot up to which the log must be chosen.
        slot: Slot,
    },
    // -- who leads (liveness only, PMS-24) ---------------------------------------------------------
    /// Leader to all: "I am here." Never behind a disk.
    Heartbeat {
        /// The ballot it leads with.
        ballot: Ballot,
        /// How far this ballot is chosen, if anything is.
        chosen: Option<Chosen>,
        /// The sender's clock, to be echoed.
        sent: Time,
    },
    /// The answer. A leader that hears from no majority gives up.
    HeartbeatReply {
        /// The leader's ballot.
        ballot: Ballot,
        /// The leader's clock, as sent.
        sent: Time,
    },
    /// "I no longer lead", said by a leader that gives up, so that nobody waits for its silence.
    Abdicate {
        /// The ballot given up.
        ballot: Ballot,
    },
    /// Leader to its chosen successor: "campaign now" (no shortcut past phase 1, PMS-18).
    HandOver {
        /// The ballot given up.
        ballot: Ballot,
    },
    /// "Do you hear a leader?", asked before a campaign, so that one broken link deposes nobody.
    LeaderQuery {
        /// Tells rounds of asking apart.
        question: QuestionId,
    },
    /// The answer.
    LeaderReply {
        /// The question answered.
        question: QuestionId,
        /// The ballot of the leader heard within the suspicion time, or none.
        alive: Option<Ballot>,
    },
    /// Any to any, now and then: where this replica stands.
    Progress(Progress),
}

/// Where a replica stands. For trimming, admission and people; no safety rests on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How far its log is known chosen.
    pub chosen: Prefix,
    /// How far it is applied.
    pub applied: Prefix,
    /// How far its own durable store covers.
    pub durable: Prefix,
    /// How far its acceptor forgot its acceptances.
    pub trimmed: Prefix,
}

/// A message and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The receiver; may be this very replica.
    pub to: NodeId,
    /// What it is told.
    pub message: Message,
}

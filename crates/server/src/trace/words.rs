//! The protocol's messages and records as a trace has them: every number, but values only by their size, their
//! first command and what that does. A trace is for looking at what was said, not for replaying it.

use super::Names;
use super::coded;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use synod_paxos::acceptor;
use synod_paxos::membership::Change;
use synod_paxos::message as said;
use synod_paxos::types::{Generation, Incarnation, NodeId, Prefix, Sequence, Slot};
use synod_paxos::value::{self, Action};

/// Of a promise's acceptances, and of a group's records, a trace has this many at most.
pub const MOST_LISTED: usize = 64;

/// Of a key, a trace has this many bytes at most.
const KEY_BYTES: usize = 32;

/// A proposal number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// For people: the round, and the name of its proposer, such as `3.n2`.
    pub text: String,
    /// Raised above every round seen whenever somebody campaigns.
    pub round: u64,
    /// The proposer.
    #[serde(with = "coded")]
    pub node: NodeId,
    /// The life of that proposer.
    #[serde(with = "coded")]
    pub generation: Generation,
}

/// An acceptor in one life of its memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Voter {
    /// The name of its replica.
    pub name: String,
    /// Its replica.
    #[serde(with = "coded")]
    pub node: NodeId,
    /// Which memory.
    #[serde(with = "coded")]
    pub incarnation: Incarnation,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Command {
    /// For people: the replica that took it, and its number there, such as `n2/17`.
    pub text: String,
    /// The replica that took it from its client.
    #[serde(with = "coded")]
    pub origin: NodeId,
    /// The life of that replica's front.
    #[serde(with = "coded")]
    pub generation: Generation,
    /// Its number in that life.
    #[serde(with = "coded")]
    pub sequence: Sequence,
    /// What it does, such as `put fruit/kiwi`; never the value.
    pub does: String,
}

/// A value, or commands on their way to become one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Batch {
    /// How many commands are in it: none in a no-op. Missing if the bytes are no value (PMS-1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<usize>,
    /// Its size.
    pub bytes: usize,
    /// The first command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Command>,
}

/// A leader's word on what is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Chosen {
    /// The ballot in which the slots were chosen.
    pub ballot: Ballot,
    /// The first slot this ballot proposed.
    #[serde(with = "coded")]
    pub from: Slot,
    /// All slots up to here.
    #[serde(with = "coded")]
    pub upto: Prefix,
}

/// What an acceptor accepted in one slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Acceptance {
    /// The slot.
    #[serde(with = "coded")]
    pub slot: Slot,
    /// The ballot of the proposal.
    pub ballot: Ballot,
    /// What it proposed.
    pub value: Batch,
}

/// Names a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Question {
    /// The life of the asker.
    #[serde(with = "coded")]
    pub generation: Generation,
    /// Its count.
    pub number: u64,
}

/// A message, as [`said::Message`]; see there for what each means.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are those of the protocol's messages, which explain them")]
pub enum Message {
    Prepare {
        ballot: Ballot,
        #[serde(with = "coded")]
        from: Slot,
    },
    Promise {
        ballot: Ballot,
        voter: Voter,
        #[serde(with = "coded")]
        from: Slot,
        #[serde(with = "coded", default)]
        until: Option<Slot>,
        #[serde(with = "coded")]
        trimmed: Prefix,
        /// At most [`MOST_LISTED`] of them.
        accepted: Vec<Acceptance>,
        /// How many more there were.
        more: usize,
    },
    Accept {
        ballot: Ballot,
        #[serde(with = "coded")]
        slot: Slot,
        value: Batch,
        #[serde(default)]
        chosen: Option<Chosen>,
        #[serde(with = "coded", default)]
        learner: Option<NodeId>,
    },
    Accepted {
        ballot: Ballot,
        #[serde(with = "coded")]
        slot: Slot,
        voter: Voter,
    },
    Refused {
        ballot: Ballot,
        promised: Ballot,
    },
    Counted {
        ballot: Ballot,
        #[serde(with = "coded")]
        slot: Slot,
    },
    Chosen(Chosen),
    Fetch {
        #[serde(with = "coded")]
        from: Slot,
    },
    Learn {
        ballot: Ballot,
        #[serde(with = "coded")]
        from: Slot,
        /// How many slots.
        slots: usize,
        /// The size of all values.
        bytes: usize,
    },
    Entries {
        #[serde(with = "coded")]
        from: Slot,
        /// How many slots.
        slots: usize,
        /// The size of all values.
        bytes: usize,
        #[serde(with = "coded")]
        chosen: Prefix,
    },
    TakeCheckpoint {
        #[serde(with = "coded")]
        applied: Prefix,
    },
    ReadQuery {
        question: Question,
    },
    ReadAnswer {
        question: Question,
        voter: Voter,
        #[serde(with = "coded")]
        accepted: Prefix,
    },
    Submit {
        commands: Batch,
    },
    Decide {
        #[serde(with = "coded")]
        slot: Slot,
    },
    Heartbeat {
        ballot: Ballot,
        #[serde(default)]
        chosen: Option<Chosen>,
        /// Microseconds on the sender's clock.
        sent: u64,
    },
    HeartbeatReply {
        ballot: Ballot,
        /// Microseconds on the leader's clock.
        sent: u64,
    },
    Abdicate {
        ballot: Ballot,
    },
    HandOver {
        ballot: Ballot,
    },
    LeaderQuery {
        question: Question,
    },
    LeaderReply {
        question: Question,
        #[serde(default)]
        alive: Option<Ballot>,
    },
    Progress {
        #[serde(with = "coded")]
        chosen: Prefix,
        #[serde(with = "coded")]
        applied: Prefix,
        #[serde(with = "coded")]
        durable: Prefix,
        #[serde(with = "coded")]
        trimmed: Prefix,
    },
}

/// A record of an acceptor's log, as [`acceptor::Record`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are those of the acceptor's records, which explain them")]
pub enum Record {
    Promised {
        ballot: Ballot,
    },
    Accepted(Acceptance),
    Trimmed {
        #[serde(with = "coded")]
        upto: Prefix,
    },
    Chosen(Chosen),
}

/// Turns the protocol's words into a trace's.
pub(super) struct Translator<'a>(pub(super) &'a Names);

impl Translator<'_> {
    pub(super) fn ballot(&self, ballot: synod_paxos::types::Ballot) -> Ballot {
        let synod_paxos::types::Ballot { round, node, generation } = ballot;
        Ballot { text: format!("{round}.{}", self.0.name(node)), round, node, generation }
    }

    pub(super) fn voter(&self, voter: synod_paxos::types::VoterId) -> Voter {
        Voter { name: self.0.name(voter.node), node: voter.node, incarnation: voter.incarnation }
    }

    pub(super) fn value(&self, value: &value::Value) -> Batch {
        match value.commands() {
            Ok(commands) => self.batch(&commands, value.len()),
            Err(_) => Batch { commands: None, bytes: value.len(), first: None },
        }
    }

    fn batch(&self, commands: &[value::Command], bytes: usize) -> Batch {
        let first = commands.first().map(|command| self.command(command));
        Batch { commands: Some(commands.len()), bytes, first }
    }

    fn command(&self, command: &value::Command) -> Command {
        let synod_paxos::types::CommandId { origin, generation, sequence } = command.id;
        let text = format!("{}/{}", self.0.name(origin), sequence.0);
        Command { text, origin, generation, sequence, does: self.does(&command.action) }
    }

    fn does(&self, action: &Action) -> String {
        match action {
            Action::App(request) => match synod_kv::Request::decode(request.clone()) {
                Ok(request) => describe(&request),
                Err(_) => "something this release cannot read".into(),
            },
            Action::Reconfigure(change) => match change {
                Change::Replace { node, old: Some(_), .. } => {
                    format!("let the new acceptor of {} vote", self.0.name(*node))
                }
                Change::Replace { node, old: None, .. } => format!("let {} vote", self.0.name(*node)),
                Change::Add { node, .. } => format!("add {}", self.0.name(*node)),
                Change::Remove { node } => format!("remove {}", self.0.name(*node)),
                Change::Publish { node, .. } => format!("publish {}", self.0.name(*node)),
            },
        }
    }

    fn chosen(&self, chosen: said::Chosen) -> Chosen {
        Chosen { ballot: self.ballot(chosen.ballot), from: chosen.from, upto: chosen.upto }
    }

    fn acceptance(&self, slot: Slot, ballot: synod_paxos::types::Ballot, value: &value::Value) -> Acceptance {
        Acceptance { slot, ballot: self.ballot(ballot), value: self.value(value) }
    }

    pub(super) fn record(&self, record: &acceptor::Record) -> Record {
        match record {
            acceptor::Record::Promised { ballot } => Record::Promised { ballot: self.ballot(*ballot) },
            acceptor::Record::Accepted { ballot, slot, value } => {
                Record::Accepted(self.acceptance(*slot, *ballot, value))
            }
            acceptor::Record::Trimmed { upto } => Record::Trimmed { upto: *upto },
            acceptor::Record::Chosen(chosen) => Record::Chosen(self.chosen(*chosen)),
        }
    }

    pub(super) fn message(&self, message: &said::Message) -> Message {
        use said::Message as Said;
        let ballot = |ballot: &synod_paxos::types::Ballot| self.ballot(*ballot);
        let question = |id: &said::QuestionId| Question { generation: id.generation, number: id.number };
        match message {
            Said::Prepare { ballot: b, from } => Message::Prepare { ballot: ballot(b), from: *from },
            Said::Promise { ballot: b, voter, from, until, trimmed, accepted } => Message::Promise {
                ballot: ballot(b),
                voter: self.voter(*voter),
                from: *from,
                until: *until,
                trimmed: *trimmed,
                accepted: accepted
                    .iter()
                    .take(MOST_LISTED)
                    .map(|a| self.acceptance(a.slot, a.ballot, &a.value))
                    .collect(),
                more: accepted.len().saturating_sub(MOST_LISTED),
            },
            Said::Accept { ballot: b, slot, value, chosen, learner } => Message::Accept {
                ballot: ballot(b),
                slot: *slot,
                value: self.value(value),
                chosen: chosen.map(|chosen| self.chosen(chosen)),
                learner: *learner,
            },
            Said::Accepted { ballot: b, slot, voter } => {
                Message::Accepted { ballot: ballot(b), slot: *slot, voter: self.voter(*voter) }
            }
            Said::Refused { ballot: b, promised } => {
                Message::Refused { ballot: ballot(b), promised: ballot(promised) }
            }
            Said::Counted { ballot: b, slot } => Message::Counted { ballot: ballot(b), slot: *slot },
            Said::Chosen(chosen) => Message::Chosen(self.chosen(*chosen)),
            Said::Fetch { from } => Message::Fetch { from: *from },
            Said::Learn { ballot: b, from, values } => Message::Learn {
                ballot: ballot(b),
                from: *from,
                slots: values.len(),
                bytes: values.iter().map(value::Value::len).sum(),
            },
            Said::Entries { from, values, chosen } => Message::Entries {
                from: *from,
                slots: values.len(),
                bytes: values.iter().map(value::Value::len).sum(),
                chosen: *chosen,
            },
            Said::TakeCheckpoint { applied } => Message::TakeCheckpoint { applied: *applied },
            Said::ReadQuery { question: id } => Message::ReadQuery { question: question(id) },
            Said::ReadAnswer { question: id, voter, accepted } => {
                Message::ReadAnswer { question: question(id), voter: self.voter(*voter), accepted: *accepted }
            }
            Said::Submit { commands } => {
                let bytes = commands.iter().map(value::Command::encoded_len).sum();
                Message::Submit { commands: self.batch(commands, bytes) }
            }
            Said::Decide { slot } => Message::Decide { slot: *slot },
            Said::Heartbeat { ballot: b, chosen, sent } => Message::Heartbeat {
                ballot: ballot(b),
                chosen: chosen.map(|chosen| self.chosen(chosen)),
                sent: sent.0,
            },
            Said::HeartbeatReply { ballot: b, sent } => {
                Message::HeartbeatReply { ballot: ballot(b), sent: sent.0 }
            }
            Said::Abdicate { ballot: b } => Message::Abdicate { ballot: ballot(b) },
            Said::HandOver { ballot: b } => Message::HandOver { ballot: ballot(b) },
            Said::LeaderQuery { question: id } => Message::LeaderQuery { question: question(id) },
            Said::LeaderReply { question: id, alive } => {
                Message::LeaderReply { question: question(id), alive: alive.as_ref().map(ballot) }
            }
            Said::Progress(progress) => Message::Progress {
                chosen: progress.chosen,
                applied: progress.applied,
                durable: progress.durable,
                trimmed: progress.trimmed,
            },
        }
    }
}

/// A request in words: what it does, to which key. Never a value.
fn describe(request: &synod_kv::Request) -> String {
    use synod_kv::Request;
    match request {
        Request::Put(put) => format!("put {}", key(&put.key)),
        Request::DeleteRange(delete) => format!("delete {}", range(&delete.range)),
        Request::Range(read) => format!("get {}", range(&read.range)),
        Request::Compact(compact) => format!("compact to revision {}", compact.revision),
        Request::Txn(txn) => match &txn.success[..] {
            [] => "txn".into(),
            [Request::Txn(_), ..] => "txn of a txn".into(),
            [only] => format!("txn {}", describe(only)),
            [first, ..] => format!("txn {}, ...", describe(first)),
        },
    }
}

fn range(range: &synod_kv::KeyRange) -> String {
    use synod_kv::RangeEnd;
    match &range.end {
        RangeEnd::Single => key(&range.key),
        RangeEnd::FromKey => format!("{} and on", key(&range.key)),
        RangeEnd::Before(end) => format!("{} to {}", key(&range.key), key(end)),
    }
}

/// A key as text, cut if it is long, with `\xNN` for what is not text.
fn key(key: &[u8]) -> String {
    let mut text = String::new();
    for &byte in &key[..key.len().min(KEY_BYTES)] {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(byte.into()),
            _ => write!(text, "\\x{byte:02x}").expect("a string takes all"),
        }
    }
    if key.len() > KEY_BYTES {
        text.push_str("...");
    }
    text
}

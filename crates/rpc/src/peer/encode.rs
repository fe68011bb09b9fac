//! From the protocol to the wire. Total: everything the protocol can say has a
//! form.

use bytes::Bytes;
use prost::Message as _;
use synod_paxos::message::{Acceptance, Chosen, Message, Progress, QuestionId};
use synod_paxos::types::{Ballot, ClusterId, VoterId};
use synod_paxos::value::{Command, Value};
use synod_paxos::wire::Writer;

use crate::synodpb as pb;
use pb::peer_message::Kind;

/// The bytes of `message`, a `synodpb.PeerMessage`.
pub fn encode(message: &Message) -> Bytes {
    pb::PeerMessage { kind: Some(kind(message)) }.encode_to_vec().into()
}

/// A cluster's identity as it stands in a `synodpb.Hello`.
pub fn cluster_to_wire(cluster: ClusterId) -> pb::Id128 {
    id128(cluster.0)
}

fn kind(message: &Message) -> Kind {
    match message {
        Message::Prepare { ballot, from } => {
            Kind::Prepare(pb::Prepare { ballot: some_ballot(*ballot), from: from.0 })
        }
        Message::Promise { ballot, voter, from, until, trimmed, accepted } => Kind::Promise(pb::Promise {
            ballot: some_ballot(*ballot),
            voter: some_voter(*voter),
            from: from.0,
            until: until.map(|slot| slot.0),
            trimmed: trimmed.0,
            accepted: accepted.iter().map(acceptance).collect(),
        }),
        Message::Accept { ballot, slot, value, chosen, learner } => Kind::Accept(pb::Accept {
            ballot: some_ballot(*ballot),
            slot: slot.0,
            value: value.encoded().clone(),
            chosen: chosen.map(self::chosen),
            learner: learner.map(|node| node.0),
        }),
        Message::Accepted { ballot, slot, voter } => Kind::Accepted(pb::Accepted {
            ballot: some_ballot(*ballot),
            slot: slot.0,
            voter: some_voter(*voter),
        }),
        Message::Refused { ballot, promised } => {
            Kind::Refused(pb::Refused { ballot: some_ballot(*ballot), promised: some_ballot(*promised) })
        }
        Message::Counted { ballot, slot } => {
            Kind::Counted(pb::Counted { ballot: some_ballot(*ballot), slot: slot.0 })
        }
        Message::Chosen(chosen) => Kind::Chosen(self::chosen(*chosen)),
        Message::Fetch { from } => Kind::Fetch(pb::Fetch { from: from.0 }),
        Message::Learn { ballot, from, values } => Kind::Learn(pb::Learn {
            ballot: some_ballot(*ballot),
            from: from.0,
            values: values.iter().map(Value::encoded).cloned().collect(),
        }),
        Message::Entries { from, values, chosen } => Kind::Entries(pb::Entries {
            from: from.0,
            values: values.iter().map(Value::encoded).cloned().collect(),
            chosen: chosen.0,
        }),
        Message::TakeCheckpoint { applied } => {
            Kind::TakeCheckpoint(pb::TakeCheckpoint { applied: applied.0 })
        }
        Message::ReadQuery { question } => {
            Kind::ReadQuery(pb::ReadQuery { question: some_question(*question) })
        }
        Message::ReadAnswer { question, voter, accepted } => Kind::ReadAnswer(pb::ReadAnswer {
            question: some_question(*question),
            voter: some_voter(*voter),
            accepted: accepted.0,
        }),
        Message::Submit { commands } => {
            Kind::Submit(pb::Submit { commands: commands.iter().map(command).collect() })
        }
        Message::Decide { slot } => Kind::Decide(pb::Decide { slot: slot.0 }),
        Message::Heartbeat { ballot, chosen, sent } => Kind::Heartbeat(pb::Heartbeat {
            ballot: some_ballot(*ballot),
            chosen: chosen.map(self::chosen),
            sent_micros: sent.0,
        }),
        Message::HeartbeatReply { ballot, sent } => {
            Kind::HeartbeatReply(pb::HeartbeatReply { ballot: some_ballot(*ballot), sent_micros: sent.0 })
        }
        Message::Abdicate { ballot } => Kind::Abdicate(pb::Abdicate { ballot: some_ballot(*ballot) }),
        Message::HandOver { ballot } => Kind::HandOver(pb::HandOver { ballot: some_ballot(*ballot) }),
        Message::LeaderQuery { question } => {
            Kind::LeaderQuery(pb::LeaderQuery { question: some_question(*question) })
        }
        Message::LeaderReply { question, alive } => Kind::LeaderReply(pb::LeaderReply {
            question: some_question(*question),
            alive: alive.and_then(some_ballot),
        }),
        Message::Progress(Progress { chosen, applied, durable, trimmed }) => Kind::Progress(pb::Progress {
            chosen: chosen.0,
            applied: applied.0,
            durable: durable.0,
            trimmed: trimmed.0,
        }),
    }
}

fn id128(id: u128) -> pb::Id128 {
    pb::Id128 { high: (id >> 64) as u64, low: id as u64 }
}

fn ballot(ballot: Ballot) -> pb::Ballot {
    pb::Ballot { round: ballot.round, node: ballot.node.0, generation: ballot.generation.0 }
}

// In protobuf every message inside another is optional, even where we never omit it.
fn some_ballot(it: Ballot) -> Option<pb::Ballot> {
    Some(ballot(it))
}

fn some_voter(voter: VoterId) -> Option<pb::VoterId> {
    Some(pb::VoterId { node: voter.node.0, incarnation: Some(id128(voter.incarnation.0)) })
}

fn some_question(question: QuestionId) -> Option<pb::QuestionId> {
    Some(pb::QuestionId { generation: question.generation.0, number: question.number })
}

fn chosen(chosen: Chosen) -> pb::Chosen {
    pb::Chosen { ballot: some_ballot(chosen.ballot), from: chosen.from.0, upto: chosen.upto.0 }
}

fn acceptance(acceptance: &Acceptance) -> pb::Acceptance {
    pb::Acceptance {
        slot: acceptance.slot.0,
        ballot: some_ballot(acceptance.ballot),
        value: acceptance.value.encoded().clone(),
    }
}

fn command(command: &Command) -> Bytes {
    let mut out = Writer::with_capacity(command.encoded_len());
    command.encode(&mut out);
    out.finish()
}

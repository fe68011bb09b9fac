//! From the wire to the protocol. Trusts nothing.

use bytes::Bytes;
use prost::Message as _;
use synod_paxos::message::{Acceptance, Chosen, Message, Progress, QuestionId};
use synod_paxos::types::{Ballot, ClusterId, Generation, Incarnation, NodeId, Prefix, Slot, Time, VoterId};
use synod_paxos::value::{Command, Value};
use synod_paxos::wire::Reader;

use super::{MAX_NUMBER, PeerDecodeError as Error};
use crate::synodpb as pb;
use pb::peer_message::Kind;

/// The message that `bytes`, a `synodpb.PeerMessage`, stand for. Values in it
/// are slices of `bytes`. Takes memory in proportion to them, and their size is
/// for the transport to limit.
///
/// # Errors
/// When they stand for none, see [`PeerDecodeError`](Error).
pub fn decode(bytes: Bytes) -> Result<Message, Error> {
    let kind = pb::PeerMessage::decode(bytes)?.kind.ok_or(Error::UnknownKind)?;
    Ok(match kind {
        Kind::Prepare(wire) => Message::Prepare { ballot: ballot(wire.ballot)?, from: slot(wire.from)? },
        Kind::Promise(wire) => Message::Promise {
            ballot: ballot(wire.ballot)?,
            voter: voter(wire.voter)?,
            from: slot(wire.from)?,
            until: wire.until.map(slot).transpose()?,
            trimmed: prefix(wire.trimmed)?,
            accepted: wire.accepted.into_iter().map(acceptance).collect::<Result<_, _>>()?,
        },
        Kind::Accept(wire) => Message::Accept {
            ballot: ballot(wire.ballot)?,
            slot: slot(wire.slot)?,
            value: Value::from_encoded(wire.value),
            chosen: wire.chosen.map(chosen).transpose()?,
            learner: wire.learner.map(NodeId),
        },
        Kind::Accepted(wire) => Message::Accepted {
            ballot: ballot(wire.ballot)?,
            slot: slot(wire.slot)?,
            voter: voter(wire.voter)?,
        },
        Kind::Refused(wire) => {
            Message::Refused { ballot: ballot(wire.ballot)?, promised: ballot(wire.promised)? }
        }
        Kind::Counted(wire) => Message::Counted { ballot: ballot(wire.ballot)?, slot: slot(wire.slot)? },
        Kind::Chosen(wire) => Message::Chosen(chosen(wire)?),
        Kind::Fetch(wire) => Message::Fetch { from: slot(wire.from)? },
        Kind::Learn(wire) => Message::Learn {
            ballot: ballot(wire.ballot)?,
            from: slot(wire.from)?,
            values: wire.values.into_iter().map(Value::from_encoded).collect(),
        },
        Kind::Entries(wire) => Message::Entries {
            from: slot(wire.from)?,
            values: wire.values.into_iter().map(Value::from_encoded).collect(),
            chosen: prefix(wire.chosen)?,
        },
        Kind::TakeCheckpoint(wire) => Message::TakeCheckpoint { applied: prefix(wire.applied)? },
        Kind::ReadQuery(wire) => Message::ReadQuery { question: question(wire.question)? },
        Kind::ReadAnswer(wire) => Message::ReadAnswer {
            question: question(wire.question)?,
            voter: voter(wire.voter)?,
            accepted: prefix(wire.accepted)?,
        },
        Kind::Submit(wire) => {
            Message::Submit { commands: wire.commands.into_iter().map(command).collect::<Result<_, _>>()? }
        }
        Kind::Decide(wire) => Message::Decide { slot: slot(wire.slot)? },
        Kind::Heartbeat(wire) => Message::Heartbeat {
            ballot: ballot(wire.ballot)?,
            chosen: wire.chosen.map(chosen).transpose()?,
            sent: Time(wire.sent_micros),
        },
        Kind::HeartbeatReply(wire) => {
            Message::HeartbeatReply { ballot: ballot(wire.ballot)?, sent: Time(wire.sent_micros) }
        }
        Kind::Abdicate(wire) => Message::Abdicate { ballot: ballot(wire.ballot)? },
        Kind::HandOver(wire) => Message::HandOver { ballot: ballot(wire.ballot)? },
        Kind::LeaderQuery(wire) => Message::LeaderQuery { question: question(wire.question)? },
        Kind::LeaderReply(wire) => Message::LeaderReply {
            question: question(wire.question)?,
            alive: wire.alive.map(|alive| ballot(Some(alive))).transpose()?,
        },
        Kind::Progress(wire) => Message::Progress(Progress {
            chosen: prefix(wire.chosen)?,
            applied: prefix(wire.applied)?,
            durable: prefix(wire.durable)?,
            trimmed: prefix(wire.trimmed)?,
        }),
    })
}

/// A cluster's identity from a `synodpb.Hello`; none if it is not there.
pub fn cluster_from_wire(wire: Option<pb::Id128>) -> Option<ClusterId> {
    wire.map(|wire| ClusterId(id128(wire)))
}

fn id128(wire: pb::Id128) -> u128 {
    (u128::from(wire.high) << 64) | u128::from(wire.low)
}

fn within(what: &'static str, range: std::ops::RangeInclusive<u64>, value: u64) -> Result<u64, Error> {
    if range.contains(&value) { Ok(value) } else { Err(Error::OutOfRange { what, value }) }
}

fn slot(wire: u64) -> Result<Slot, Error> {
    within("slot", Slot::FIRST.0..=MAX_NUMBER, wire).map(Slot)
}

fn prefix(wire: u64) -> Result<Prefix, Error> {
    within("last slot", 0..=MAX_NUMBER, wire).map(Prefix)
}

fn ballot(wire: Option<pb::Ballot>) -> Result<Ballot, Error> {
    let wire = wire.ok_or(Error::Missing("ballot"))?;
    Ok(Ballot {
        round: within("round", 0..=MAX_NUMBER, wire.round)?,
        node: NodeId(wire.node),
        generation: Generation(wire.generation),
    })
}

fn voter(wire: Option<pb::VoterId>) -> Result<VoterId, Error> {
    let wire = wire.ok_or(Error::Missing("voter"))?;
    let incarnation = id128(wire.incarnation.ok_or(Error::Missing("incarnation"))?);
    Ok(VoterId { node: NodeId(wire.node), incarnation: Incarnation(incarnation) })
}

fn question(wire: Option<pb::QuestionId>) -> Result<QuestionId, Error> {
    let wire = wire.ok_or(Error::Missing("question"))?;
    Ok(QuestionId { generation: Generation(wire.generation), number: wire.number })
}

fn chosen(wire: pb::Chosen) -> Result<Chosen, Error> {
    Ok(Chosen { ballot: ballot(wire.ballot)?, from: slot(wire.from)?, upto: prefix(wire.upto)? })
}

fn acceptance(wire: pb::Acceptance) -> Result<Acceptance, Error> {
    Ok(Acceptance {
        slot: slot(wire.slot)?,
        ballot: ballot(wire.ballot)?,
        value: Value::from_encoded(wire.value),
    })
}

fn command(wire: Bytes) -> Result<Command, Error> {
    let mut input = Reader::new(wire);
    let command = Command::decode(&mut input)?;
    input.end()?;
    Ok(command)
}

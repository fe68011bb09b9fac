use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use synod_paxos::membership::Change;
use synod_paxos::message::{Acceptance, Chosen, Message, Progress, QuestionId};
use synod_paxos::types::{
    Ballot, ClusterId, CommandId, Generation, Incarnation, NodeId, Prefix, Sequence, Slot, Time, VoterId,
};
use synod_paxos::value::{Action, Command, Value};

use super::*;
use crate::synodpb as pb;
use pb::peer_message::Kind;

/// Every kind of message at least once, with and without its optional parts,
/// and with numbers at their bounds.
fn samples() -> Vec<Message> {
    let ballot = Ballot { round: MAX_NUMBER, node: NodeId(u64::MAX), generation: Generation(3) };
    let low = Ballot { round: 0, node: NodeId(0), generation: Generation(0) };
    let voter = VoterId { node: NodeId(4), incarnation: Incarnation((5 << 64) | 6) };
    let question = QuestionId { generation: Generation(7), number: 8 };
    let slot = Slot(MAX_NUMBER);
    let chosen = Chosen { ballot, from: Slot::FIRST, upto: Prefix(MAX_NUMBER) };
    let id = CommandId { origin: NodeId(1), generation: Generation(2), sequence: Sequence(3) };
    let put = Command { id, waiting_from: Sequence(1), action: Action::App(Bytes::from_static(b"put a 1")) };
    let change = Command {
        action: Action::Reconfigure(Change::Replace {
            node: NodeId(1),
            old: None,
            new: Incarnation(u128::MAX),
        }),
        ..put.clone()
    };
    let batch = Value::batch(&[put.clone(), change.clone()]);
    let acceptance = |value| Acceptance { slot, ballot, value };
    vec![
        Message::Prepare { ballot, from: Slot::FIRST },
        Message::Prepare { ballot: low, from: slot },
        Message::Promise {
            ballot,
            voter,
            from: Slot(1),
            until: Some(slot),
            trimmed: Prefix(9),
            accepted: vec![acceptance(batch.clone()), acceptance(Value::no_op())],
        },
        Message::Promise {
            ballot,
            voter,
            from: Slot(1),
            until: None,
            trimmed: Prefix::EMPTY,
            accepted: vec![],
        },
        Message::Accept {
            ballot,
            slot,
            value: batch.clone(),
            chosen: Some(chosen),
            learner: Some(NodeId(3)),
        },
        Message::Accept { ballot, slot, value: Value::no_op(), chosen: None, learner: None },
        Message::Accepted { ballot, slot, voter },
        Message::Refused { ballot: low, promised: ballot },
        Message::Counted { ballot, slot },
        Message::Chosen(chosen),
        Message::Fetch { from: slot },
        Message::Learn { ballot, from: Slot(1), values: vec![batch.clone(), Value::no_op()] },
        Message::Entries { from: Slot(1), values: vec![batch, Value::no_op()], chosen: Prefix(2) },
        Message::Entries { from: Slot(1), values: vec![], chosen: Prefix::EMPTY },
        Message::TakeCheckpoint { applied: Prefix(10) },
        Message::ReadQuery { question },
        Message::ReadAnswer { question, voter, accepted: Prefix(11) },
        Message::Submit { commands: vec![put, change] },
        Message::Submit { commands: vec![] },
        Message::Decide { slot },
        Message::Heartbeat { ballot, chosen: Some(chosen), sent: Time(u64::MAX) },
        Message::Heartbeat { ballot, chosen: None, sent: Time(0) },
        Message::HeartbeatReply { ballot, sent: Time(12) },
        Message::Abdicate { ballot },
        Message::HandOver { ballot },
        Message::LeaderQuery { question },
        Message::LeaderReply { question, alive: Some(low) },
        Message::LeaderReply { question, alive: None },
        Message::Progress(Progress {
            chosen: Prefix(1),
            applied: Prefix(2),
            durable: Prefix(3),
            trimmed: Prefix(4),
        }),
        Message::Progress(Progress::default()),
    ]
}

#[test]
fn every_kind_of_message_comes_back_as_it_went_out() {
    let mut kinds = BTreeSet::new();
    for message in samples() {
        let bytes = encode(&message);
        // The first byte is the tag of the oneof, so the samples leave no kind out.
        kinds.insert(pb::PeerMessage::decode(bytes.clone()).unwrap().kind.map(|kind| tag(&kind)).unwrap());
        assert_eq!(decode(bytes), Ok(message));
    }
    assert_eq!(kinds, (1..=22).collect());
}

fn tag(kind: &Kind) -> u64 {
    let mut bytes = Vec::new();
    kind.encode(&mut bytes);
    prost::encoding::decode_varint(&mut bytes.as_slice()).unwrap() >> 3
}

#[test]
fn a_value_is_a_slice_of_what_arrived() {
    let value = Value::from_encoded(vec![7; 4096].into());
    let ballot = Ballot { round: 1, node: NodeId(1), generation: Generation(1) };
    let bytes = encode(&Message::Accept { ballot, slot: Slot(1), value, chosen: None, learner: None });
    let Ok(Message::Accept { value, .. }) = decode(bytes.clone()) else { panic!("no Accept") };
    assert!(bytes.as_ptr_range().contains(&value.encoded().as_ptr()));
}

#[test]
fn what_lacks_a_part_or_has_a_senseless_number_is_refused() {
    let ballot = pb::Ballot { round: 1, node: 2, generation: 3 };
    let check = |kind: Option<Kind>, expected: PeerDecodeError| {
        assert_eq!(decode(pb::PeerMessage { kind }.encode_to_vec().into()), Err(expected));
    };
    check(None, PeerDecodeError::UnknownKind);
    check(Some(Kind::Abdicate(pb::Abdicate { ballot: None })), PeerDecodeError::Missing("ballot"));
    check(
        Some(Kind::Accepted(pb::Accepted {
            ballot: Some(ballot),
            slot: 1,
            voter: Some(pb::VoterId { node: 1, incarnation: None }),
        })),
        PeerDecodeError::Missing("incarnation"),
    );
    check(Some(Kind::ReadQuery(pb::ReadQuery { question: None })), PeerDecodeError::Missing("question"));
    check(Some(Kind::Fetch(pb::Fetch { from: 0 })), PeerDecodeError::OutOfRange { what: "slot", value: 0 });
    check(
        Some(Kind::Decide(pb::Decide { slot: u64::MAX })),
        PeerDecodeError::OutOfRange { what: "slot", value: u64::MAX },
    );
    check(
        Some(Kind::TakeCheckpoint(pb::TakeCheckpoint { applied: MAX_NUMBER + 1 })),
        PeerDecodeError::OutOfRange { what: "last slot", value: MAX_NUMBER + 1 },
    );
    check(
        Some(Kind::Abdicate(pb::Abdicate { ballot: Some(pb::Ballot { round: u64::MAX, ..ballot }) })),
        PeerDecodeError::OutOfRange { what: "round", value: u64::MAX },
    );
    check(
        Some(Kind::Submit(pb::Submit { commands: vec![Bytes::from_static(b"no command")] })),
        PeerDecodeError::Command(synod_paxos::value::DecodeError::Truncated),
    );
}

#[test]
fn a_cluster_keeps_its_identity() {
    for cluster in [ClusterId(0), ClusterId(1), ClusterId(u128::MAX), ClusterId((1 << 64) | 2)] {
        assert_eq!(cluster_from_wire(Some(cluster_to_wire(cluster))), Some(cluster));
    }
    assert_eq!(cluster_from_wire(None), None);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = decode(bytes.into());
    }

    /// Real messages with some bytes overwritten get further into the decoder
    /// than noise does. What still decodes must survive another round trip.
    #[test]
    fn damaged_messages_never_panic(
        sample in 0..samples().len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode(&samples()[sample]).to_vec();
        for (at, byte) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes.truncate(keep.index(bytes.len() + 1));
        if let Ok(message) = decode(bytes.into()) {
            prop_assert_eq!(decode(encode(&message)), Ok(message));
        }
    }
}

//! What a peer says, as the raw bytes that arrive.

use super::Outcome::{Refused, Understood};
use super::{Outcome, bounded};
use bytes::Bytes;
use synod_paxos::acceptor::{Acceptor, Limits};
use synod_paxos::learner::{Effect, Learner, Options};
use synod_paxos::message::{Chosen, Message};
use synod_paxos::types::{Ballot, Generation, Incarnation, NodeId, Prefix, Slot, Time, VoterId};
use synod_paxos::value::Value;
use synod_rpc::peer::{decode, encode};

/// Decodes a message. One that is understood is the same after encoding, and can be handed to an acceptor and
/// to a learner, twice (PMS-4), without harm to the invariants of either.
pub fn peer_message(data: &[u8]) -> Outcome {
    let Ok(message) = decode(Bytes::copy_from_slice(bounded(data))) else { return Refused };
    let encoded = encode(&message);
    assert_eq!(decode(encoded.clone()).as_ref(), Ok(&message));
    assert_eq!(encode(&message), encoded);
    // What the log prints; a value in it is decoded for that.
    assert!(!format!("{message:?}").is_empty());
    let (mut acceptor, mut learner) = roles();
    for _ in 0..2 {
        tell_acceptor(&mut acceptor, message.clone());
        tell_learner(&mut learner, message.clone());
    }
    Understood
}

const PEER: NodeId = NodeId(1);

/// Roles with something behind them and something under way.
fn roles() -> (Acceptor, Learner) {
    let voter = VoterId { node: NodeId(2), incarnation: Incarnation(9) };
    let mut acceptor = Acceptor::new(voter, Limits { promise_bytes: 64, log_bytes: 8 << 10 });
    let mut learner = Learner::new(voter.node, Options::default(), Prefix(1));
    learner.on_members([PEER, NodeId(3)]);
    let ballot = Ballot { round: 2, node: PEER, generation: Generation(1) };
    for slot in [1, 2, 3, 5] {
        acceptor.on_accept(PEER, ballot, Slot(slot), Value::no_op());
        learner.on_accept(ballot, Slot(slot), Value::no_op(), None, Time(0));
    }
    acceptor.trim(Prefix(1));
    learner.on_chosen(Chosen { ballot, from: Slot(1), upto: Prefix(2) }, Time(0));
    (acceptor, learner)
}

fn tell_acceptor(acceptor: &mut Acceptor, message: Message) {
    let before = (acceptor.promised(), acceptor.highest(), acceptor.chosen().map(|chosen| chosen.ballot));
    match message {
        Message::Prepare { ballot, from } => drop(acceptor.on_prepare(PEER, ballot, from)),
        Message::Accept { ballot, slot, value, chosen, learner } => {
            let _ = acceptor.on_accept_for(PEER, learner.unwrap_or(PEER), ballot, slot, value);
            let _ = chosen.map(|chosen| acceptor.on_chosen(chosen));
        }
        Message::Chosen(chosen) => drop(acceptor.on_chosen(chosen)),
        _ => {}
    }
    let after = (acceptor.promised(), acceptor.highest(), acceptor.chosen().map(|chosen| chosen.ballot));
    assert!(before.0 <= after.0 && before.1 <= after.1 && before.2 <= after.2, "{before:?}, then {after:?}");
    let restored = Acceptor::restore(acceptor.id(), Limits::default(), acceptor.summary());
    assert_eq!((restored.promised(), restored.chosen()), (after.0, after.2.and(acceptor.chosen())));
    let recovered = acceptor.chosen_after(Prefix(1));
    assert!(recovered.len() <= 5, "{recovered:?}");
}

fn tell_learner(learner: &mut Learner, message: Message) {
    let mut chosen = learner.chosen();
    let now = Time(1_000_000);
    let mut effects = match message {
        Message::Accept { ballot, slot, value, chosen, .. } => {
            learner.on_accept(ballot, slot, value, chosen, now)
        }
        Message::Chosen(word) => learner.on_chosen(word, now),
        Message::Learn { from, values, .. } => learner.on_learn(from, values, now),
        Message::Entries { from, values, chosen } => learner.on_entries(from, values, chosen, now),
        Message::Fetch { from } => learner.on_fetch(PEER, from, chosen).into_iter().collect(),
        Message::TakeCheckpoint { applied } => learner.on_take_checkpoint(PEER, applied, now),
        _ => Vec::new(),
    };
    effects.extend(learner.tick(Time(2_000_000)));
    for effect in effects {
        if let Effect::Apply { slot, .. } = effect {
            assert_eq!(slot, chosen.next(), "slots are applied in order");
            chosen = Prefix::through(slot);
        }
    }
    assert_eq!(learner.chosen(), chosen);
}

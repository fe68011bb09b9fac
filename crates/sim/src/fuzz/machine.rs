//! The replicated state around the store, as a checkpoint carries it, from the disk or from a peer.

use super::Outcome::{Refused, Understood};
use super::{Outcome, bounded};
use bytes::Bytes;
use synod_paxos::machine::{Admission, Machine};
use synod_paxos::membership::Change;
use synod_paxos::types::{CommandId, Generation, Incarnation, NodeId, Sequence};
use synod_paxos::value::{Action, Command};
use synod_paxos::wire::MAX_NUMBER;

/// Decodes a machine. One that is understood is the same after encoding, and can go on: it knows who votes in
/// the slots ahead, admits each command once (PMS-30), changes its members, and applies further slots.
pub fn machine(data: &[u8]) -> Outcome {
    let bytes = Bytes::copy_from_slice(bounded(data));
    let Ok(mut machine) = Machine::decode(bytes, Ok) else { return Refused };
    let encoded = machine.encode(Bytes::clone);
    assert_eq!(Machine::decode(encoded.clone(), Ok).as_ref(), Ok(&machine));
    for _ in 0..3 {
        // No log gets further, and what did would not be read back.
        if machine.applied().0 < MAX_NUMBER {
            turn(&mut machine);
        }
    }
    Understood
}

/// One more slot, with a command of every front that may be known, and some changes.
fn turn(machine: &mut Machine<Bytes>) {
    let slot = machine.applied().next();
    let configurations = machine.membership().configurations();
    let (voters, ahead) = (configurations.at(slot).cloned(), configurations.from(slot).count());
    assert!(voters.is_none_or(|voters| voters.majority() <= voters.len().max(1)));
    assert!(ahead >= 1, "somebody votes in the end");
    let _ = (configurations.proven(), configurations.newest(), configurations.newest_from());
    let known: Vec<NodeId> = machine.membership().members().keys().copied().collect();
    for origin in known.into_iter().chain((1..4).map(NodeId)) {
        let generation = machine.generation(origin).unwrap_or(Generation(1));
        for sequence in [Sequence::FIRST, Sequence(2), Sequence(u64::MAX)] {
            admit(machine, CommandId { origin, generation, sequence });
        }
    }
    let new = Incarnation(u128::from(slot.0) << 64 | 5);
    machine.reconfigure(slot, &Change::Add { node: NodeId(77), peer_urls: vec!["http://h77".into()] });
    machine.reconfigure(slot, &Change::Replace { node: NodeId(77), old: None, new });
    machine.reconfigure(slot, &Change::Remove { node: NodeId(1) });
    machine.advance(slot);
    assert_eq!(machine.applied().next(), slot.next());
    let encoded = machine.encode(Bytes::clone);
    assert_eq!(Machine::decode(encoded, Ok).as_ref(), Ok(&*machine));
}

fn admit(machine: &mut Machine<Bytes>, id: CommandId) {
    let applied = machine.has_applied(id);
    let kept = machine.answer(id).cloned();
    let command = Command { id, waiting_from: Sequence::FIRST, action: Action::App(Bytes::new()) };
    match machine.admit(&command) {
        Admission::Fresh => {
            assert!(!applied, "{id} was applied before");
            machine.answered(id, Bytes::from_static(b"done"));
        }
        Admission::Repeated(answer) => {
            assert!(applied, "{id} never was applied");
            assert_eq!(answer, kept);
        }
        Admission::Stale => panic!("{id} is of the newest life"),
    }
    let again = machine.admit(&command);
    assert!(matches!(again, Admission::Repeated(_)), "{id} would be applied twice: {again:?}");
}

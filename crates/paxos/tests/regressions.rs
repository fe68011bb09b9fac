//! What random runs found, told as short stories: each failed before its fix.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use synod_paxos::machine::{Admission, Machine};
use synod_paxos::membership::{Change, Genesis, Member};
use synod_paxos::types::*;
use synod_paxos::value::{Action, Command};

fn voter(node: u64) -> VoterId {
    VoterId { node: NodeId(node), incarnation: Incarnation(u128::from(node)) }
}

fn genesis(nodes: u64, window: u64) -> Genesis {
    let member = |node| (NodeId(node), Member { voter: Some(voter(node).incarnation), ..Member::default() });
    let members: BTreeMap<NodeId, Member> = (1..=nodes).map(member).collect();
    Genesis { cluster: ClusterId(1), window: Window::new(window), members }
}

fn command(origin: u64, generation: u64, sequence: u64) -> Command {
    Command {
        id: CommandId {
            origin: NodeId(origin),
            generation: Generation(generation),
            sequence: Sequence(sequence),
        },
        waiting_from: Sequence::FIRST,
        action: Action::App(Bytes::new()),
    }
}

/// A command of n3 is applied, then n3 is removed. A copy of the command that was still under way is chosen
/// after that, and must not be applied again.
#[test]
fn pms_30_a_removed_members_commands_are_still_applied_once() {
    let mut machine: Machine<u64> = Machine::genesis(&genesis(3, 4));
    assert_eq!(machine.admit(&command(3, 1, 1)), Admission::Fresh);
    machine.answered(command(3, 1, 1).id, 7);
    machine.advance(Slot(1));
    assert!(machine.reconfigure(Slot(2), &Change::Remove { node: NodeId(3) }));
    machine.advance(Slot(2));
    assert_eq!(machine.admit(&command(3, 1, 1)), Admission::Repeated(None));
}

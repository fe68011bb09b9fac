//! "Paxos Made Simple", clause by clause, held against the production types.
//!
//! Every clause of the paper that can be broken has a number here, `PMS-1` to `PMS-40`, and at least one test
//! whose name carries it. Most are a few lines on a single role; those about whole runs drive a small
//! cluster ([`town`]) whose oracle computes what is chosen from proposals issued and acceptances made durable,
//! and never asks the code under test.
//!
//! | clauses | where |
//! |---|---|
//! | PMS-1 to PMS-19, choosing (2.1, 2.2) | [`choosing`]; PMS-1 and PMS-5 also in `src` |
//! | PMS-20 to PMS-24, learning and progress (2.3, 2.4) | [`learning`] |
//! | PMS-25 to PMS-38, PMS-40, implementation and state machine (2.5, 3) | [`log`] |
//! | PMS-39, who votes; R1 to R9, lost memory | [`members`]; PMS-39 and R4 also in `src/membership.rs` |
//! | PMS-2, 4, 14, 24, 37, whole runs | [`runs`]; and `tests/random.rs` with every fault at once |
//!
//! Some of it belongs to other crates, because no role of this one has a disk, a clock or a socket:
//!
//! | what | where |
//! |---|---|
//! | PMS-16, PMS-27 on a disk that loses unsynced writes at every operation | `storage/tests/wal_crash.rs`, `wal_model.rs` |
//! | PMS-27, trimming after the durable word | `storage/tests/wal_rot.rs` |
//! | PMS-29, equal stores from equal requests | `kv/tests/properties.rs` |
//! | R6, catch up, then admit | `tests/cluster/replica.rs`, judged by `tests/random.rs` |
//! | R9, torn tail or lost memory | `storage/tests/wal_rot.rs` |
//! | T1 to T7 of lost memory, and T8 of a read | `tests/transcripts`, the bent rule beside the refusal |
//! | R7, and no cluster formed twice | [`members`]; `tests/formation.rs` |
//! | R10, leases | there are none |

mod choosing;
mod learning;
mod log;
mod members;
mod runs;
mod town;

use bytes::Bytes;
use synod_paxos::acceptor::{self, Acceptor, Limits, Record};
use synod_paxos::membership::{Configuration, Configurations};
use synod_paxos::message::{Acceptance, Message};
use synod_paxos::proposer::{self, Options, Proposer};
use synod_paxos::types::*;
use synod_paxos::value::{Action, Command, Value};

pub(crate) const START: Time = Time(0);

pub(crate) fn voter(node: u64) -> VoterId {
    VoterId { node: NodeId(node), incarnation: Incarnation(u128::from(node)) }
}

pub(crate) fn ballot(round: u64, node: u64) -> Ballot {
    Ballot { round, node: NodeId(node), generation: Generation(1) }
}

pub(crate) fn command(origin: u64, sequence: u64) -> Command {
    Command {
        id: CommandId { origin: NodeId(origin), generation: Generation(1), sequence: Sequence(sequence) },
        waiting_from: Sequence::FIRST,
        action: Action::App(Bytes::from(format!("{origin}/{sequence}"))),
    }
}

/// A value of its own for every number.
pub(crate) fn value(number: u64) -> Value {
    Value::batch(&[command(9, number)])
}

pub(crate) fn acceptance(slot: u64, ballot: Ballot, value: &Value) -> Acceptance {
    Acceptance { slot: Slot(slot), ballot, value: value.clone() }
}

pub(crate) fn acceptor(node: u64) -> Acceptor {
    Acceptor::new(voter(node), Limits::default())
}

/// The answer, and the record that has to be durable before it leaves.
pub(crate) fn answer(effect: acceptor::Effect) -> (Option<Record>, Message) {
    match effect {
        acceptor::Effect::PersistThenSend { record, reply } => (Some(record), reply.message),
        acceptor::Effect::Send(reply) => (None, reply.message),
        acceptor::Effect::Persist(record) => panic!("{record:?} without an answer"),
    }
}

pub(crate) fn accept(acceptor: &mut Acceptor, ballot: Ballot, slot: u64, value: &Value) -> Option<Message> {
    acceptor.on_accept(ballot.node, ballot, Slot(slot), value.clone()).map(|effect| answer(effect).1)
}

pub(crate) fn prepare(acceptor: &mut Acceptor, ballot: Ballot, from: u64) -> Message {
    answer(acceptor.on_prepare(ballot.node, ballot, Slot(from))).1
}

pub(crate) fn configurations(nodes: u64, window: u64) -> Configurations {
    Configurations::genesis(Window::new(window), Configuration::new((1..=nodes).map(voter)))
}

pub(crate) fn options() -> Options {
    Options { depth: 100, ..Options::default() }
}

/// A proposer at `node`, one of `nodes` voters.
pub(crate) fn proposer(node: u64, nodes: u64, window: u64) -> Proposer {
    let configurations = configurations(nodes, window);
    let mut proposer = Proposer::new(NodeId(node), Generation(1), options(), configurations.clone());
    proposer.on_applied(configurations, (1..=nodes).map(NodeId).collect());
    proposer
}

/// A whole promise of everything from `from` on.
pub(crate) fn promise(
    proposer: &mut Proposer,
    voter: VoterId,
    from: u64,
    accepted: Vec<Acceptance>,
) -> Vec<proposer::Effect> {
    let ballot = proposer.ballot().expect("it campaigns");
    proposer.on_promise(ballot, voter, Slot(from), None, Prefix::EMPTY, accepted, START)
}

/// The proposer at `node`, leading after empty promises of the first majority.
pub(crate) fn leader(node: u64, nodes: u64, window: u64) -> Proposer {
    let mut proposer = proposer(node, nodes, window);
    proposer.campaign(START).expect("the voters are known");
    for promiser in 1..=nodes / 2 + 1 {
        promise(&mut proposer, voter(promiser), 1, Vec::new());
    }
    assert!(proposer.leads().is_some());
    proposer
}

/// What is proposed: slot, ballot and value of each Accept, in order.
pub(crate) fn proposals(effects: &[proposer::Effect]) -> Vec<(u64, Ballot, Value)> {
    let each = |effect: &proposer::Effect| match effect {
        proposer::Effect::Send { message: Message::Accept { ballot, slot, value, .. }, .. } => {
            Some((slot.0, *ballot, value.clone()))
        }
        _ => None,
    };
    effects.iter().filter_map(each).collect()
}

pub(crate) fn submit(proposer: &mut Proposer, commands: Vec<Command>) -> Vec<(u64, Ballot, Value)> {
    proposer.on_submit(commands);
    proposals(&proposer.flush(START))
}

//! What the protocol costs, per command, when nothing but the protocol is at work: no disk, no network, no store.
//!
//! `step` is the whole way of one batch at its leader, from the commands to the value that is released; the
//! roles besides are its larger parts, one slot at a time. All of them live on from slot to slot, as in a server,
//! and forget now and then what a checkpoint would cover.

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;
use synod_paxos::acceptor::{self, Acceptor, Limits};
use synod_paxos::front::{self, Front};
use synod_paxos::learner::{self, Learner};
use synod_paxos::membership::{Genesis, Member, Membership};
use synod_paxos::message::{Chosen, Message};
use synod_paxos::proposer::{self, Effect, Proposer};
use synod_paxos::types::{
    Ballot, ClusterId, CommandId, Generation, Incarnation, NodeId, Prefix, Sequence, Slot, Time, VoterId,
    Window,
};
use synod_paxos::value::{Action, Command, Value};

const LEADER: NodeId = NodeId(1);
const LIFE: Generation = Generation(1);
/// Time stands still: nothing is ever late here.
const NOW: Time = Time(0);

const COMMAND_BYTES: usize = 256;
/// How many commands arrive together: one client at a time, and a busy server's share.
const BATCHES: [u64; 2] = [1, 64];
/// How many slots acceptors keep before they are trimmed.
const KEPT_SLOTS: u64 = 1024;

/// Commands of one front, numbered without holes.
struct Commands {
    next: Sequence,
    payload: Bytes,
}

impl Commands {
    fn new() -> Commands {
        Commands { next: Sequence::FIRST, payload: vec![7; COMMAND_BYTES].into() }
    }

    fn take(&mut self, count: u64) -> Vec<Command> {
        let first = self.next;
        let command = |ahead| Command {
            id: CommandId { origin: LEADER, generation: LIFE, sequence: Sequence(first.0 + ahead) },
            waiting_from: first,
            action: Action::App(self.payload.clone()),
        };
        let commands = (0..count).map(command).collect();
        self.next = Sequence(first.0 + count);
        commands
    }
}

/// Five acceptors, and the proposer and the learner of the replica that leads.
struct Cluster {
    proposer: Proposer,
    acceptors: BTreeMap<NodeId, Acceptor>,
    learner: Learner,
    membership: Membership,
    trimmed: Prefix,
}

impl Cluster {
    /// One whose leader has been promised everything.
    fn new() -> Cluster {
        let voters =
            (1..=5).map(|node| VoterId { node: NodeId(node), incarnation: Incarnation(node.into()) });
        let member = |voter: VoterId| Member { voter: Some(voter.incarnation), ..Member::default() };
        let genesis = Genesis {
            cluster: ClusterId(1),
            window: Window::new(64),
            members: voters.clone().map(|voter| (voter.node, member(voter))).collect(),
        };
        let membership = Membership::genesis(&genesis);
        let members: Vec<NodeId> = membership.members().keys().copied().collect();
        let configurations = membership.configurations().clone();
        let mut cluster = Cluster {
            proposer: Proposer::new(LEADER, LIFE, proposer::Options::default(), configurations.clone()),
            acceptors: voters.map(|voter| (voter.node, Acceptor::new(voter, Limits::default()))).collect(),
            learner: Learner::new(LEADER, learner::Options::default(), Prefix::EMPTY),
            membership,
            trimmed: Prefix::EMPTY,
        };
        cluster.learner.on_members(members.clone());
        cluster.proposer.on_applied(configurations, members);
        let campaign = cluster.proposer.campaign(NOW).expect("the voters of the first slot are known");
        for effect in campaign {
            let Effect::Send { to, message: Message::Prepare { ballot, from } } = effect else { continue };
            for node in to {
                let acceptor = cluster.acceptors.get_mut(&node).expect("only voters are asked");
                let reply = reply(acceptor.on_prepare(LEADER, ballot, from));
                let Some(Message::Promise { voter, from, until, trimmed, accepted, .. }) = reply else {
                    panic!("nobody else campaigns");
                };
                cluster.proposer.on_promise(ballot, voter, from, until, trimmed, accepted, NOW);
            }
        }
        assert!(cluster.proposer.leads().is_some());
        cluster
    }

    /// Everything between a batch's arrival and its release: the largest part of what a turn of each role does.
    fn decide(&mut self, commands: Vec<Command>) -> Option<Value> {
        self.proposer.on_submit(commands);
        let mut accepted = Vec::new();
        for effect in self.proposer.flush(NOW) {
            let Effect::Send { to, message: Message::Accept { ballot, slot, value, chosen, .. } } = effect
            else {
                continue;
            };
            for node in to {
                let acceptor = self.acceptors.get_mut(&node).expect("only voters are asked");
                accepted.extend(acceptor.on_accept(LEADER, ballot, slot, value.clone()).and_then(reply));
            }
            self.learner.on_accept(ballot, slot, value, chosen, NOW);
        }
        for message in accepted.into_iter().take(3) {
            if let Message::Accepted { ballot, slot, voter } = message {
                self.proposer.on_accepted(ballot, slot, voter);
            }
        }
        let mut released = None;
        for effect in self.proposer.flush(NOW) {
            let Effect::Send { message: Message::Chosen(word), .. } = effect else { continue };
            for effect in self.learner.on_chosen(word, NOW) {
                let learner::Effect::Apply { slot, value } = effect else { continue };
                self.membership.advance(slot);
                released = Some(value);
            }
        }
        let members = self.membership.members().keys().copied().collect();
        self.proposer.on_applied(self.membership.configurations().clone(), members);
        released
    }

    /// Trims the acceptors if they hold much.
    fn tidy(&mut self) {
        let learned = self.learner.chosen();
        if learned.0 - self.trimmed.0 >= KEPT_SLOTS {
            self.trimmed = learned;
            for acceptor in self.acceptors.values_mut() {
                acceptor.trim(learned);
            }
        }
    }
}

fn reply(effect: acceptor::Effect) -> Option<Message> {
    match effect {
        acceptor::Effect::PersistThenSend { reply, .. } | acceptor::Effect::Send(reply) => {
            Some(reply.message)
        }
        acceptor::Effect::Persist(_) => None,
    }
}

fn step(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("step");
    for count in BATCHES {
        let cluster = RefCell::new(Cluster::new());
        let mut commands = Commands::new();
        assert!(cluster.borrow_mut().decide(commands.take(count)).is_some(), "every batch is released");
        group.throughput(Throughput::Elements(count)).bench_function(
            BenchmarkId::from_parameter(count),
            |bencher| {
                bencher.iter_batched(
                    || {
                        cluster.borrow_mut().tidy();
                        commands.take(count)
                    },
                    |commands| cluster.borrow_mut().decide(commands),
                    BatchSize::SmallInput,
                );
            },
        );
    }
}

fn roles(criterion: &mut Criterion) {
    let ballot = Ballot { round: 1, node: LEADER, generation: LIFE };
    let value = Value::batch(&Commands::new().take(64));
    let mut group = criterion.benchmark_group("slot");
    group.throughput(Throughput::Elements(1));

    let voter = VoterId { node: LEADER, incarnation: Incarnation(1) };
    let acceptor = RefCell::new(Acceptor::new(voter, Limits::default()));
    let mut next = Slot::FIRST;
    group.bench_function("acceptor", |bencher| {
        bencher.iter_batched(
            || {
                let mut acceptor = acceptor.borrow_mut();
                if acceptor.highest().0 - acceptor.trimmed().0 >= KEPT_SLOTS {
                    let highest = acceptor.highest();
                    acceptor.trim(highest);
                }
                let slot = next;
                next = slot.next();
                (slot, value.clone())
            },
            |(slot, value)| acceptor.borrow_mut().on_accept(LEADER, ballot, slot, value),
            BatchSize::SmallInput,
        );
    });

    let mut learner = Learner::new(LEADER, learner::Options::default(), Prefix::EMPTY);
    let mut next = Slot::FIRST;
    group.bench_function("learner", |bencher| {
        bencher.iter_batched(
            || {
                let slot = next;
                next = slot.next();
                (slot, value.clone())
            },
            |(slot, value)| {
                learner.on_accept(ballot, slot, value, None, NOW);
                let word = Chosen { ballot, from: Slot::FIRST, upto: Prefix::through(slot) };
                learner.on_chosen(word, NOW)
            },
            BatchSize::SmallInput,
        );
    });
}

fn value(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("value");
    for count in BATCHES {
        let commands = Commands::new().take(count);
        let value = Value::batch(&commands);
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("batch", count), |bencher| {
            bencher.iter(|| Value::batch(black_box(&commands)));
        });
        group.bench_function(BenchmarkId::new("commands", count), |bencher| {
            bencher.iter(|| black_box(&value).commands());
        });
    }
}

fn front(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("front");
    for count in BATCHES {
        let mut front = Front::new(NodeId(2), LIFE, front::Options::default(), NOW);
        front.on_leader(Ballot { round: 1, node: LEADER, generation: LIFE });
        let payload = Bytes::from(vec![7; COMMAND_BYTES]);
        group.throughput(Throughput::Elements(count)).bench_function(
            BenchmarkId::from_parameter(count),
            |bencher| {
                bencher.iter_batched(
                    || (0..count).map(|_| Action::App(payload.clone())).collect::<Vec<_>>(),
                    |actions| {
                        let take = |action| front.submit(action, NOW).expect("nothing else waits");
                        let names: Vec<CommandId> = actions.into_iter().map(take).collect();
                        let messages = front.flush();
                        names.iter().for_each(|&name| front.on_applied(name, NOW));
                        messages
                    },
                    BatchSize::SmallInput,
                );
            },
        );
    }
}

/// Short runs: a change that matters is larger than what longer ones would bring to light.
fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(900))
        .nresamples(10_000)
        .without_plots()
        .configure_from_args();
    step(&mut criterion);
    roles(&mut criterion);
    value(&mut criterion);
    front(&mut criterion);
    criterion.final_summary();
}

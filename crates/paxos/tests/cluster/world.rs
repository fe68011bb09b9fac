//! Time, chance and network: whatever happens next, happens here.

use super::faults::Faults;
use super::oracle::Oracle;
use super::replica::{Options, Replica};
use super::store::Request;
use super::{Sometimes, TRACE_LINES, Trace};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use synod_paxos::membership::{Genesis, Member};
use synod_paxos::message::Message;
use synod_paxos::types::{ClusterId, Incarnation, NodeId, Time, VoterId, Window};
use synod_paxos::{acceptor, election, front, learner, proposer};

/// What the scheduler has in store.
#[derive(Clone, Debug)]
pub enum Event {
    Deliver {
        from: NodeId,
        to: NodeId,
        message: Message,
    },
    Tick {
        node: NodeId,
        life: u64,
    },
    Synced {
        voter: VoterId,
    },
    Install {
        node: NodeId,
        from: NodeId,
        life: u64,
    },
    /// A client somewhere wants something.
    Client,
    /// Some replica's store becomes durable.
    Checkpoint,
    /// Something goes wrong, or ends to.
    Fault,
    /// What was stopped comes back.
    Restart {
        node: NodeId,
        what: Part,
    },
    /// A cut ends.
    Mend {
        from: NodeId,
        to: NodeId,
    },
    /// Whoever was removed for good comes back all the same.
    Welcome,
}

/// What can be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Acceptor,
    Learner,
    Leadership,
    Process,
}

/// The clients: how many wait, and for what the next one asks.
#[derive(Default)]
pub struct Clients {
    pub outstanding: usize,
    pub requests: u64,
}

/// How the network behaves.
#[derive(Default)]
pub struct Network {
    pub loss: f64,
    pub duplication: f64,
    pub slow: f64,
    pub cuts: BTreeSet<(NodeId, NodeId)>,
    /// Messages of all times, to be delivered again at any other.
    pub archive: Vec<(NodeId, NodeId, Message)>,
}

/// What a replica sees of the world while it handles one event.
pub struct Context<'a> {
    pub now: Time,
    pub rng: &'a mut ChaCha8Rng,
    pub oracle: &'a mut Oracle,
    pub clients: &'a mut Clients,
    pub sometimes: &'a mut Sometimes,
    /// The first movement: things may go wrong.
    pub troubled: bool,
    network: &'a mut Network,
    agenda: &'a mut Agenda,
    trace: &'a Trace,
}

/// What happens when. Events of one instant happen in the order in which they were planned.
#[derive(Default)]
struct Agenda {
    events: BTreeMap<(Time, u64), Event>,
    planned: u64,
}

impl Agenda {
    fn plan(&mut self, at: Time, event: Event) {
        self.planned += 1;
        self.events.insert((at, self.planned), event);
    }
}

impl Context<'_> {
    pub fn after(&mut self, delay: Duration, event: Event) {
        self.agenda.plan(self.now + delay, event);
    }

    pub fn after_micros(&mut self, micros: u64, event: Event) {
        self.after(Duration::from_micros(micros), event);
    }

    pub fn count(&mut self, what: &'static str, happened: bool) {
        if happened {
            *self.sometimes.entry(what).or_default() += 1;
        }
    }

    pub fn trace(&self, line: impl FnOnce() -> String) {
        if let Some(lines) = self.trace {
            let mut lines = lines.borrow_mut();
            if lines.len() == TRACE_LINES {
                lines.pop_front();
            }
            lines.push_back(format!("{:>9} {}", self.now.0, line()));
        }
    }

    /// A message leaves. It may get lost, arrive late, or twice.
    pub fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        self.oracle.on_sent(&message);
        if from == to {
            let micros = self.rng.random_range(1..20);
            return self.after_micros(micros, Event::Deliver { from, to, message });
        }
        if self.troubled && self.rng.random_bool(0.02) {
            self.keep(from, to, &message);
        }
        if self.network.cuts.contains(&(from, to)) || self.rng.random_bool(self.network.loss) {
            return;
        }
        let copies = 1 + u32::from(self.rng.random_bool(self.network.duplication));
        for _ in 0..copies {
            let most = if self.rng.random_bool(self.network.slow) { 60_000 } else { 600 };
            let micros = self.rng.random_range(50..most);
            self.after_micros(micros, Event::Deliver { from, to, message: message.clone() });
        }
    }

    fn keep(&mut self, from: NodeId, to: NodeId, message: &Message) {
        let archive = &mut self.network.archive;
        if archive.len() < 200 {
            archive.push((from, to, message.clone()));
        } else {
            let place = self.rng.random_range(0..archive.len());
            archive[place] = (from, to, message.clone());
        }
    }
}

/// Everything there is.
pub struct World {
    pub now: Time,
    pub rng: ChaCha8Rng,
    pub oracle: Oracle,
    pub replicas: BTreeMap<NodeId, Replica>,
    pub network: Network,
    pub faults: Faults,
    pub troubled: bool,
    clients: Clients,
    agenda: Agenda,
    sometimes: Sometimes,
    trace: Trace,
}

/// How long things may go wrong, and how long it may take to come back to order after that.
const TROUBLE: Duration = Duration::from_millis(1_500);
const RECOVERY: Duration = Duration::from_millis(10_000);

impl World {
    pub fn new(seed: u64, size: u64, trace: Trace) -> World {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let window = Window::new(rng.random_range(2..=8));
        let nodes: Vec<NodeId> = (1..=size).map(NodeId).collect();
        let incarnations: Vec<Incarnation> = nodes.iter().map(|_| Incarnation(rng.random())).collect();
        let member = |node: &NodeId, &voter| {
            let peer_urls = vec![format!("http://{node}")];
            (*node, Member { peer_urls, voter: Some(voter), ..Member::default() })
        };
        let members = nodes.iter().zip(&incarnations).map(|(node, voter)| member(node, voter)).collect();
        let genesis = Genesis { cluster: ClusterId(1), window, members };
        let options = options(&mut rng);
        let network = Network {
            loss: *pick(&mut rng, &[0.0, 0.02, 0.1, 0.3]),
            duplication: *pick(&mut rng, &[0.0, 0.05, 0.3]),
            slow: *pick(&mut rng, &[0.0, 0.02, 0.2]),
            ..Network::default()
        };
        let mut world = World {
            now: Time(0),
            oracle: Oracle::new(&genesis),
            replicas: BTreeMap::new(),
            network,
            faults: Faults::new(&mut rng),
            troubled: true,
            clients: Clients::default(),
            agenda: Agenda::default(),
            sometimes: Sometimes::new(),
            trace,
            rng,
        };
        for (node, incarnation) in nodes.into_iter().zip(incarnations) {
            world.replicas.insert(node, Replica::new(node, incarnation, options, genesis.clone()));
            world.with(node, |replica, ctx| replica.start(ctx));
        }
        for event in [Event::Client, Event::Checkpoint, Event::Fault] {
            world.plan(0, event);
        }
        world
    }

    /// Both movements.
    pub fn run(mut self) -> Sometimes {
        let end = self.now + TROUBLE;
        while self.now < end {
            self.step();
        }
        self.heal();
        let end = self.now + RECOVERY;
        while !self.is_whole() {
            assert!(self.now < end, "progress (DESIGN 6): not whole again: {}", self.complaint());
            self.step();
        }
        self.sometimes.append(&mut self.oracle.seen);
        self.sometimes
    }

    /// Lets a replica do something.
    pub fn with<T>(&mut self, node: NodeId, act: impl FnOnce(&mut Replica, &mut Context) -> T) -> T {
        let mut ctx = Context {
            now: self.now,
            rng: &mut self.rng,
            oracle: &mut self.oracle,
            clients: &mut self.clients,
            sometimes: &mut self.sometimes,
            troubled: self.troubled,
            network: &mut self.network,
            agenda: &mut self.agenda,
            trace: &self.trace,
        };
        act(self.replicas.get_mut(&node).expect("no replica goes for good"), &mut ctx)
    }

    pub fn plan(&mut self, micros: u64, event: Event) {
        self.agenda.plan(self.now + Duration::from_micros(micros), event);
    }

    pub fn note(&mut self, what: &'static str, line: impl FnOnce() -> String) {
        let any = *self.replicas.keys().next().expect("there are replicas");
        self.with(any, |_, ctx| {
            ctx.count(what, true);
            ctx.trace(line);
        });
    }

    fn step(&mut self) {
        let ((at, _), event) = self.agenda.events.pop_first().expect("ticks never end");
        self.now = at;
        match event {
            Event::Deliver { from, to, message } => self.deliver(from, to, message),
            Event::Tick { node, life } => self.with(node, |replica, ctx| replica.on_tick(life, ctx)),
            Event::Synced { voter } => self.with(voter.node, |replica, ctx| {
                if replica.voter() == voter {
                    replica.on_synced(ctx);
                }
            }),
            Event::Install { node, from, life } => {
                let source =
                    self.replicas[&from].running.as_ref().and_then(|running| running.learner.as_ref());
                let reachable = !self.network.cuts.contains(&(from, node));
                let checkpoint = source.filter(|_| reachable).map(|role| role.applied.clone());
                self.with(node, |replica, ctx| replica.on_install(life, checkpoint, ctx));
            }
            Event::Client => {
                self.on_client();
                if self.now < Time(0) + TROUBLE + TROUBLE / 4 {
                    let pause = self.rng.random_range(100..if self.troubled { 20_000 } else { 60_000 });
                    self.plan(pause, Event::Client);
                }
            }
            Event::Checkpoint => {
                let node = self.any_node();
                self.with(node, |replica, ctx| replica.on_checkpoint(ctx));
                let pause = self.rng.random_range(1_000..30_000);
                self.plan(pause, Event::Checkpoint);
            }
            Event::Fault => {
                if self.troubled {
                    self.something_goes_wrong();
                    let pause = self.rng.random_range(1_000..60_000);
                    self.plan(pause, Event::Fault);
                }
            }
            Event::Restart { node, what } => self.restart(node, what),
            Event::Mend { from, to } => {
                self.network.cuts.remove(&(from, to));
            }
            Event::Welcome => self.welcome(),
        }
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, message: Message) {
        if self.trace.is_some() {
            let line = match &message {
                Message::Progress(_) | Message::HeartbeatReply { .. } => None,
                Message::Submit { commands } => {
                    Some(format!("Submit {:?}", commands.iter().map(|c| c.id).collect::<Vec<_>>()))
                }
                other => Some(format!("{other:?}")),
            };
            if let Some(line) = line {
                self.with(to, |_, ctx| ctx.trace(|| format!("{from} → {to} {line}")));
            }
        }
        self.with(to, |replica, ctx| replica.on_message(from, message, ctx));
    }

    fn on_client(&mut self) {
        let node = self.any_node();
        if self.rng.random_bool(0.3) {
            return self.with(node, |replica, ctx| replica.on_read(ctx));
        }
        for _ in 0..self.rng.random_range(1..4) {
            self.clients.requests += 1;
            let request = Request(self.clients.requests);
            let filler = self.rng.random_range(0..60);
            self.with(node, |replica, ctx| replica.on_write(request, filler, ctx));
        }
    }

    pub fn any_node(&mut self) -> NodeId {
        let nodes: Vec<NodeId> = self.replicas.keys().copied().collect();
        *pick(&mut self.rng, &nodes)
    }

    /// Everything that must hold in the end.
    fn is_whole(&self) -> bool {
        self.clients.outstanding == 0 && self.replicas.values().all(|replica| self.is_well(replica))
    }

    fn is_well(&self, replica: &Replica) -> bool {
        let members = self.oracle.members();
        let votes = members.get(&replica.id) == Some(&Some(replica.disk.incarnation));
        let learner = replica.running.as_ref().and_then(|running| running.learner.as_ref());
        votes && learner.is_some_and(|role| role.applied.machine.applied() == self.oracle.chosen())
    }

    fn complaint(&self) -> String {
        let chosen = self.oracle.chosen();
        let mut text = format!("{} clients wait, chosen {chosen}", self.clients.outstanding);
        for replica in self.replicas.values().filter(|replica| !self.is_well(replica)) {
            let voter = self.oracle.members().get(&replica.id);
            let learner = replica.running.as_ref().and_then(|running| running.learner.as_ref());
            let applied = learner.map(|role| role.applied.machine.applied());
            text += &format!("; {} votes as {voter:?}, has applied {applied:?}", replica.voter());
        }
        text
    }
}

pub fn pick<'a, T>(rng: &mut ChaCha8Rng, choices: &'a [T]) -> &'a T {
    &choices[rng.random_range(0..choices.len())]
}

/// Small sizes, so that every bound is met; short times, so that runs are.
fn options(rng: &mut ChaCha8Rng) -> Options {
    let millis = Duration::from_millis;
    Options {
        acceptor: acceptor::Limits {
            promise_bytes: *pick(rng, &[1, 300, 4 << 20]),
            ..acceptor::Limits::default()
        },
        pipeline: proposer::Options {
            depth: rng.random_range(1..=6),
            batch_bytes: *pick(rng, &[1, 200, 1000]),
            queue_bytes: *pick(rng, &[2_000, 1 << 20]),
            retry: millis(15),
            hedge: *pick(rng, &[None, Some(millis(4)), Some(millis(10))]),
        },
        patience: election::Options {
            heartbeat: millis(6),
            suspicion: millis(40),
            abdication: millis(80),
            round: millis(25),
            backoff: millis(4),
            trial: millis(160),
            tick: millis(3),
        },
        learner: learner::Options {
            log_bytes: *pick(rng, &[400, 2_000, 1 << 20]),
            ahead_slots: *pick(rng, &[8, 16, 1024]),
            ahead_bytes: *pick(rng, &[2_000, 1 << 20]),
            answer_bytes: *pick(rng, &[1, 300]),
            patience: millis(3),
            retry: millis(20),
        },
        front: front::Options { retry: millis(100), message_bytes: 200, ..front::Options::default() },
    }
}

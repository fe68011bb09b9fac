//! A whole cluster in one thread, from one seed.
//!
//! ```text
//!   plan ──> faults ──┐                                        judges
//!   clients ──────────┤                                          ^ observations
//!                     v                                          │
//!     agenda ──> one event ──> one turn of one part of one replica (core, acceptor, learner)
//!        ^                         │ wishes: messages, questions, new lives
//!        └────── network <─────────┘
//! ```
//!
//! The replicas are those of a server, down to their mailboxes ([`synod_server::replica::Stepped`]), on disks that
//! fail ([`disk`]). What is virtual is time, chance, network and disks. An event is one turn; its order among the
//! others comes from the seed alone, so a run can be repeated bit for bit.
//!
//! A run has two movements. In the first everything fails that may, and nothing wrong may happen. Then all is
//! healed, and what must happen has to happen in bounded time: every client is answered, every memory votes, all
//! replicas are equal.

mod agenda;
mod clients;
pub mod disk;
mod faults;
mod healing;
mod host;
mod links;
mod network;
pub mod plan;
mod process;
mod stage;

use crate::history::History;
use crate::judges::{Broken, Sometimes};
use crate::linearizable::{self, Effort, Verdict};
use crate::revisions;
use agenda::Agenda;
use clients::{Client, Counter, Progress};
use disk::VirtualDisk;
use host::Clock;
use links::Lane;
use network::Network;
use plan::Plan;
use process::Process;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use stage::Stage;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use synod_paxos::formation::{self, FormationMessage};
use synod_paxos::message::Message;
use synod_paxos::types::{NodeId, Time, Window};
use synod_server::replica::{Arrived, Heard, Role};
use synod_server::trace::{Event as Traced, What};

/// What may happen next.
enum Event {
    /// A message arrives.
    Deliver { from: NodeId, to: NodeId, message: Message },
    /// A question about formation arrives; the answers go back to one life of the asker.
    Ask { from: NodeId, life: u64, to: NodeId, message: FormationMessage, heard: Heard },
    /// They arrive.
    Answers { to: NodeId, life: u64, answers: Vec<FormationMessage>, heard: Heard },
    /// A replica's state is read, for one life of another.
    Fetch { from: NodeId, to: NodeId, life: u64, arrived: Arrived },
    /// It arrives, or does not.
    Fetched { to: NodeId, life: u64, state: Result<synod_server::replica::State, String>, arrived: Arrived },
    /// The core's turn; with `tick`, its clock's.
    Core { node: NodeId, life: u64, tick: bool },
    /// A role's turn.
    Worker { node: NodeId, life: u64, worker: u64 },
    /// A lane finds its peer, if it can be reached.
    Dial { node: NodeId, peer: NodeId, lane: Lane },
    /// The connection of a lane to this life of its peer breaks.
    Break { node: NodeId, peer: NodeId, lane: Lane, life: u64 },
    /// A client asks.
    Client { client: usize },
    /// It has waited long enough.
    Impatience { client: usize, number: u64 },
    /// Something goes wrong.
    Fault { number: usize },
    /// What went wrong ends.
    Remedy(faults::Remedy),
    /// A process that is down starts.
    Start { node: NodeId },
    /// Whoever was removed is added again.
    Welcome,
}

/// One server: a disk, and perhaps a process that runs on it.
struct Node {
    id: NodeId,
    disk: VirtualDisk,
    clock: Clock,
    process: Option<Process>,
    /// It does nothing before this.
    frozen: Time,
    /// How many processes and disks it had.
    lives: u64,
    disks: u64,
    /// Its syncs have lied since it was last known good.
    lied: bool,
    /// What becomes of the disk when the process next dies at an armed operation.
    doom: Option<Option<synod_storage::disk::Survivors>>,
}

/// How a run ended.
pub struct Outcome {
    /// The invariant that was broken, if any.
    pub broken: Option<Broken>,
    /// How often rare things happened.
    pub sometimes: Sometimes,
    /// The virtual time that passed.
    pub simulated: Duration,
    /// How many events it had.
    pub events: u64,
    /// How many requests were answered.
    pub answered: u64,
    /// What happened, if it was to be recorded.
    pub record: Vec<Traced>,
    /// A fingerprint of everything that happened: equal seeds have equal ones.
    pub fingerprint: u64,
}

/// Everything there is.
struct World {
    plan: Plan,
    now: Time,
    stage: Arc<Stage>,
    nodes: BTreeMap<NodeId, Node>,
    agenda: Agenda<Event>,
    network: Network,
    clients: Vec<Client>,
    history: History,
    founding: formation::Plan,
    /// Chance of the scheduler and the clients.
    rng: ChaCha8Rng,
    /// The first movement: things may go wrong.
    troubled: bool,
    /// The member whose removal was asked for.
    removed: Option<NodeId>,
    /// The last revision that was to be compacted: no request is made twice.
    compacted: u64,
    sometimes: Sometimes,
    requests: u64,
    answered: u64,
    fingerprint: u64,
}

/// How long it may take, after everything is healed, until everything is well. The longest single wait in it is a
/// role's rest after many failures, ten seconds.
const RECOVERY: Duration = Duration::from_secs(90);

/// No run has more events; one that would is stuck in a loop.
const MOST_EVENTS: u64 = 5_000_000;

/// Runs a plan. With `record`, everything that happens is written down.
pub fn run(plan: &Plan, record: bool) -> Outcome {
    World::new(plan.clone(), record).run()
}

impl World {
    fn new(plan: Plan, record: bool) -> World {
        let mut rng = ChaCha8Rng::seed_from_u64(plan.seed ^ 0x3a11);
        let founders = (1..=plan.replicas).map(|id| {
            let founder =
                formation::Founder { name: format!("n{id}"), peer_urls: vec![format!("http://n{id}")] };
            (NodeId(id), founder)
        });
        let founding = formation::Plan::new(Window::new(plan.window), founders);
        let names = (1..=plan.replicas).map(|id| (NodeId(id), format!("n{id}"))).collect();
        let mut world = World {
            now: Time(0),
            stage: Arc::new(Stage::new(names, record)),
            nodes: BTreeMap::new(),
            agenda: Agenda::default(),
            network: Network::new(plan.network),
            clients: (0..plan.clients.clients).map(|id| Client::new(id, &plan.clients)).collect(),
            history: History::default(),
            founding,
            troubled: true,
            removed: None,
            compacted: 0,
            sometimes: Sometimes::new(),
            requests: 0,
            answered: 0,
            fingerprint: plan.seed,
            rng: ChaCha8Rng::seed_from_u64(rng.random()),
            plan,
        };
        for id in (1..=world.plan.replicas).map(NodeId) {
            let drift = world.plan.drift;
            let clock = Clock {
                start: rng.random_range(0..1_000_000_000),
                rate: rng.random_range(1_000_000 - drift..=1_000_000 + drift),
                wall: rng.random_range(-5..=5),
            };
            let disk = VirtualDisk::new(rng.random());
            disk.set_speed(world.plan.disks);
            let node = Node {
                id,
                disk,
                clock,
                process: None,
                frozen: Time(0),
                lives: 0,
                disks: 1,
                lied: false,
                doom: None,
            };
            world.nodes.insert(id, node);
            let start = rng.random_range(0..200_000);
            world.after(start, Event::Start { node: id });
        }
        for client in 0..world.clients.len() {
            world.after(300_000, Event::Client { client });
        }
        for (number, fault) in world.plan.faults.iter().enumerate() {
            world.agenda.plan(Time(0) + fault.at, Event::Fault { number });
        }
        world
    }

    /// Both movements.
    fn run(mut self) -> Outcome {
        let end = Time(0) + self.plan.trouble;
        self.go(|world| world.now >= end);
        if !self.is_broken() && !self.plan.reckless {
            self.heal();
            let end = self.now + RECOVERY;
            self.go(|world| world.now >= end || world.is_well());
            if let (false, Err(broken)) = (self.is_broken(), self.judge_the_end()) {
                self.stage.inner().judge(Err(broken));
            }
        }
        self.finish()
    }

    fn go(&mut self, done: impl Fn(&World) -> bool) {
        while !self.is_broken() && !done(self) {
            let Some((at, event)) = self.agenda.next() else { return };
            self.now = at;
            self.stage.set_now(at);
            self.step(event);
            if self.agenda.planned() > MOST_EVENTS {
                self.broken("bounded work", "DESIGN 5.8", format!("more than {MOST_EVENTS} events"));
            }
        }
    }

    fn is_broken(&self) -> bool {
        self.stage.inner().broken.is_some()
    }

    fn broken(&self, invariant: &'static str, clause: &'static str, why: String) {
        self.stage.inner().judge(Err(Broken { invariant, clause, why }));
    }

    fn after(&mut self, micros: u64, event: Event) {
        self.agenda.plan(self.now + Duration::from_micros(micros), event);
    }

    fn count(&mut self, what: &'static str) {
        *self.sometimes.entry(what).or_default() += 1;
    }

    fn tell(&self, node: Option<NodeId>, what: impl FnOnce() -> What) {
        self.stage.tell(node, what);
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("nodes never go")
    }

    fn mix(&mut self, what: u64) {
        self.fingerprint = (self.fingerprint.rotate_left(7) ^ what).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn step(&mut self, event: Event) {
        self.mix(self.now.0);
        match event {
            Event::Deliver { from, to, message } => {
                if let Some(until) = self.frozen(to) {
                    return self.agenda.plan(until, Event::Deliver { from, to, message });
                }
                if let Some(process) = &self.nodes[&to].process {
                    process.stepped.deliver(from, vec![message]);
                    self.settle(to);
                }
            }
            Event::Core { node, life, tick } => self.on_core(node, life, tick),
            Event::Worker { node, life, worker } => self.on_worker(node, life, worker),
            Event::Ask { from, life, to, message, heard } => self.on_ask(from, life, to, message, heard),
            Event::Answers { to, life, answers, heard } => {
                if self.is_alive(to, life) {
                    heard(answers);
                    self.settle(to);
                }
            }
            Event::Fetch { from, to, life, arrived } => self.on_fetch(from, to, life, arrived),
            Event::Fetched { to, life, state, arrived } => {
                if self.is_alive(to, life) {
                    arrived(state);
                    self.settle(to);
                }
            }
            Event::Dial { node, peer, lane } => self.on_dial(node, peer, lane),
            Event::Break { node, peer, lane, life } => self.on_break(node, peer, lane, life),
            Event::Client { client } => self.on_client(client),
            Event::Impatience { client, number } => {
                let waits = self.clients[client].waits().is_some_and(|(_, asked)| asked == number);
                if self.troubled && waits {
                    self.clients[client].give_up(&mut self.history);
                    self.count("client lost patience");
                    self.next_request(client);
                }
            }
            Event::Fault { number } => {
                if self.troubled {
                    self.go_wrong(number);
                }
            }
            Event::Remedy(remedy) => self.remedy(remedy),
            Event::Start { node } => self.start(node),
            Event::Welcome => self.welcome(),
        }
    }

    fn frozen(&self, node: NodeId) -> Option<Time> {
        Some(self.nodes[&node].frozen).filter(|&until| until > self.now)
    }

    fn is_alive(&self, node: NodeId, life: u64) -> bool {
        self.nodes[&node].process.as_ref().is_some_and(|process| process.life == life)
    }

    // -- clients -----------------------------------------------------------------------------------

    fn on_client(&mut self, client: usize) {
        if self.clients[client].waits().is_some() {
            return;
        }
        let ids: Vec<NodeId> =
            self.nodes.values().filter(|node| node.process.is_some()).map(|node| node.id).collect();
        let via = if ids.is_empty() { None } else { Some(ids[self.rng.random_range(0..ids.len())]) };
        let Some(process) = via.and_then(|via| self.nodes[&via].process.as_ref()) else {
            return self.next_request(client);
        };
        let via = process.id;
        self.requests += 1;
        let floor = self.stage.inner().court.read_floor();
        let (number, demand) = (self.requests, self.plan.clients);
        let at = Counter { via, stepped: &process.stepped, floor, now: self.now };
        let asked = self.clients[client].ask(number, &demand, &at, &mut self.rng);
        match asked {
            Some(text) => {
                self.tell(Some(via), || What::Invoked { client: client as u64, text });
                let patience = self.plan.clients.patience;
                self.agenda.plan(self.now + patience, Event::Impatience { client, number });
                self.settle(via);
            }
            None => self.next_request(client),
        }
    }

    fn next_request(&mut self, client: usize) {
        if !self.clients[client].is_done() {
            let pause = self.rng.random_range(100..=self.plan.clients.pause.max(100));
            self.after(pause, Event::Client { client });
        }
    }

    /// Hands answers to the clients that wait at a replica.
    fn look_after_clients(&mut self, id: NodeId) {
        for client in 0..self.clients.len() {
            if self.clients[client].waits().is_none_or(|(via, _)| via != id) {
                continue;
            }
            let Some(process) = &self.nodes[&id].process else { return };
            let progress = self.clients[client].look_after(&process.stepped, self.now, &mut self.history);
            let judged = match progress {
                Progress::Nothing => continue,
                Progress::Lost => Ok(()),
                Progress::Wrote { request, answer } => {
                    self.answered += 1;
                    self.stage.inner().court.on_write_answered(id, &request, &answer)
                }
                Progress::Read { floor, applied } => {
                    self.answered += 1;
                    self.stage.inner().court.on_read_answered(id, floor, applied)
                }
            };
            self.tell(Some(id), || What::Answered { client: client as u64, text: String::new() });
            self.stage.inner().judge(judged);
            self.next_request(client);
        }
    }

    // -- the end -----------------------------------------------------------------------------------

    fn finish(mut self) -> Outcome {
        for client in &mut self.clients {
            client.give_up(&mut self.history);
        }
        if !self.is_broken() {
            self.judge_history();
        }
        let (broken, sometimes) = {
            let inner = &mut *self.stage.inner();
            (inner.broken.take(), inner.court.sometimes().clone())
        };
        for (what, count) in sometimes {
            *self.sometimes.entry(what).or_default() += count;
        }
        if let Some(broken) = &broken {
            let Broken { invariant, clause, why } = broken;
            self.tell(None, || What::Broken {
                invariant: (*invariant).into(),
                clause: (*clause).into(),
                why: why.clone(),
            });
        }
        Outcome {
            broken,
            simulated: self.now.since(Time(0)),
            events: self.agenda.planned(),
            answered: self.answered,
            fingerprint: self.fingerprint,
            record: self.stage.take_record(),
            sometimes: self.sometimes,
        }
    }

    fn judge_history(&mut self) {
        match linearizable::check(&self.history, Effort(200_000)) {
            Verdict::Linearizable => {}
            Verdict::Contradiction(contradiction) => {
                self.broken("linearizable", "DESIGN 5.4", contradiction.to_string());
            }
            Verdict::Undecided { .. } => self.count("linearizability undecided"),
        }
        if let Err(violation) = revisions::check(&self.history, crate::history::Revision::NEW_STORE) {
            self.broken("revisions order everything", "DESIGN 5.5", violation.to_string());
        }
    }
}

/// Roles, for chance to choose from.
const ROLES: [Role; 3] = Role::ALL;

/// What the world does to a cluster, and what must therefore happen somewhere in any large batch.
pub const SOMETIMES: &[&str] = &[
    "all killed at once",
    "bad disk",
    "bit rot",
    "campaign out of turn",
    "clean end",
    "client lost patience",
    "connection broke",
    "crash at a disk operation",
    "disk wiped",
    "full disk",
    "leader learns anew",
    "links cut",
    "lying disk",
    "majority killed",
    "member removal asked for",
    "old messages replayed",
    "power cut",
    "process could not start",
    "process killed",
    "process paused",
    "read-only disk",
    "role forgot",
    "role stopped",
    "slow disk",
    "slow links",
    "wall clock jumped",
];

//! Processes: how they start, take turns, and die.

use super::host::{VirtualHost, Wish};
use super::links::{self, Connections, Lane};
use super::network::chance;
use super::{Event, World};
use rand::RngExt;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use synod_paxos::election;
use synod_paxos::formation::FormationMessage;
use synod_paxos::message::Message;
use synod_paxos::types::{NodeId, Time};
use synod_server::replica::{Arrived, Heard, Life, Links, Place, ReplicaConfig, RoleFault, State, Stepped};
use synod_server::trace::What;
use synod_storage::disk::Survivors;

/// A replica at work.
pub(super) struct Process {
    pub(super) id: NodeId,
    pub(super) life: u64,
    pub(super) stepped: Stepped,
    pub(super) host: Arc<VirtualHost>,
    /// What it has dialled.
    pub(super) connections: Connections,
    workers: Vec<Worker>,
    /// When the core's next turn is planned.
    core: Option<Time>,
    next_worker: u64,
}

/// One life of a role with a thread of its own.
struct Worker {
    number: u64,
    life: Life,
    /// Its last turn ends here.
    busy: Time,
    /// When its next turn is planned.
    due: Time,
}

/// What becomes of a disk when its process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The machine runs on.
    Kept,
    /// The power goes.
    Power(Survivors),
    /// It is empty from now on.
    Wiped,
}

impl Fate {
    fn describe(self) -> &'static str {
        match self {
            Fate::Kept => "killed",
            Fate::Power(_) => "the power goes",
            Fate::Wiped => "killed, its disk wiped",
        }
    }
}

impl Process {
    /// Every role that has a thread takes a turn, at once. False if one of them is down, or goes down in that turn.
    pub(super) fn turn_all(&mut self) -> bool {
        let alive = self.workers.iter_mut().filter_map(|worker| worker.life.turn().then_some(())).count();
        alive == 2 // acceptor and learner
    }
}

impl World {
    /// Starts the process of `id`, unless it runs. A start that fails is tried again.
    pub(super) fn start(&mut self, id: NodeId) {
        if self.nodes[&id].process.is_some() {
            return;
        }
        let config = ReplicaConfig {
            name: id.to_string(),
            node: id,
            place: Place::Memory,
            plan: self.founding.clone(),
            client_urls: vec![format!("http://client.{id}")],
            peer_addrs: Vec::new(),
            allow_faults: true,
            patience: election::Options::default(),
            request_timeout: Duration::from_secs(5),
            checkpoint_bytes: self.plan.checkpoint_bytes,
            segment_bytes: self.plan.segment_bytes,
            limits: self.plan.limits,
        };
        let peers: BTreeSet<NodeId> = self.nodes.keys().copied().collect();
        let (seed, stage) = (self.rng.random(), Arc::clone(&self.stage));
        let node = self.node(id);
        node.lives += 1;
        let life = node.lives;
        let host = Arc::new(VirtualHost::new(id, seed, node.clock, node.disk.clone(), stage, peers));
        let disk = node.disk.clone();
        let links: Arc<dyn Links> = host.clone();
        let started =
            catch_unwind(AssertUnwindSafe(|| Stepped::start(config, Arc::new(disk), host.clone(), links)));
        let stepped = match started {
            Ok(Ok(stepped)) => stepped,
            Ok(Err(error)) => {
                self.count("process could not start");
                self.tell(Some(id), || What::Process { up: false, text: error.to_string() });
                if self.nodes[&id].disk.faulty.crashed() {
                    let fate = self.doom(id);
                    self.bury(id, fate);
                }
                let pause = self.rng.random_range(50_000..400_000);
                return self.after(pause, Event::Start { node: id });
            }
            Err(_) => return self.panicked(id),
        };
        let connections = Connections::default();
        let workers = Vec::new();
        let process = Process { id, life, stepped, host, connections, workers, core: None, next_worker: 0 };
        self.node(id).process = Some(process);
        self.tell(Some(id), || What::Process { up: true, text: String::new() });
        self.after(0, Event::Core { node: id, life, tick: true });
        for peer in self.nodes.keys().copied().filter(|&peer| peer != id).collect::<Vec<_>>() {
            self.dial(id, peer, links::AT_ONCE);
            self.dial(peer, id, links::AT_ONCE);
        }
        self.settle(id);
    }

    /// The process of `id` dies, now, whatever it was doing.
    pub(super) fn kill(&mut self, id: NodeId, fate: Fate) {
        if self.node(id).process.take().is_none() {
            return self.bury(id, fate);
        }
        self.tell(Some(id), || What::Process { up: false, text: fate.describe().into() });
        for client in 0..self.clients.len() {
            if self.clients[client].waits().is_some_and(|(via, _)| via == id) {
                self.clients[client].give_up(&mut self.history);
                self.next_request(client);
            }
        }
        for peer in self.nodes.keys().copied().filter(|&peer| peer != id).collect::<Vec<_>>() {
            // A process that ends resets its connections, unless nobody hears of it.
            if self.network.reaches(id, peer) && fate == Fate::Kept && chance(&mut self.rng, 8_000) {
                for lane in Lane::ALL {
                    let noticed = self.rng.random_range(links::AT_ONCE);
                    self.hang_up(peer, id, lane, noticed);
                }
            }
        }
        self.bury(id, fate);
    }

    /// What happens to the disk.
    fn bury(&mut self, id: NodeId, fate: Fate) {
        let lied = self.nodes[&id].lied;
        let fate = match fate {
            // A disk that lied, and then lost its power, holds nobody knows what: an operator gives it up (D5).
            // If too many have forgotten already, the power stays.
            Fate::Power(_) if lied && self.may_forget(id, true, true) => Fate::Wiped,
            Fate::Power(_) if lied => Fate::Kept,
            fate => fate,
        };
        let seed = self.rng.random();
        let speed = self.plan.disks;
        let troubled = self.troubled;
        let node = self.node(id);
        node.doom = None;
        match fate {
            Fate::Kept => node.disk.faulty.process_crash(),
            Fate::Power(survivors) => node.disk.faulty.power_cut(survivors),
            Fate::Wiped => {
                node.disk = super::VirtualDisk::new(seed);
                if troubled {
                    node.disk.set_speed(speed);
                }
                node.disks += 1;
                node.lied = false;
            }
        }
        node.disk.charge();
        let wiped = fate == Fate::Wiped;
        self.count(match fate {
            Fate::Kept => "process killed",
            Fate::Power(_) => "power cut",
            Fate::Wiped => "disk wiped",
        });
        let inner = &mut *self.stage.inner();
        inner.court.on_process_ended(id, wiped);
        if wiped {
            inner.holdings.remove(&id);
        }
        if inner.leader == Some(id) {
            inner.leader = None;
        }
    }

    fn doom(&mut self, id: NodeId) -> Fate {
        match self.node(id).doom.take() {
            Some(Some(survivors)) => Fate::Power(survivors),
            _ => Fate::Kept,
        }
    }

    /// Code of the core panicked: a server would end there. Ours never may (DESIGN 5.8).
    fn panicked(&mut self, id: NodeId) {
        self.broken("no crash", "DESIGN 5.8", format!("{id}: the core panicked"));
    }

    // -- turns -------------------------------------------------------------------------------------

    pub(super) fn on_core(&mut self, id: NodeId, life: u64, tick: bool) {
        let frozen = self.frozen(id);
        if !self.is_alive(id, life) {
            return;
        }
        let now = self.now;
        if let Some(until) = frozen {
            if let (false, Some(process)) = (tick, self.node(id).process.as_mut()) {
                if process.core != Some(now) {
                    return; // another turn took this one's work
                }
                process.core = Some(until);
            }
            return self.agenda.plan(until, Event::Core { node: id, life, tick });
        }
        let node = self.node(id);
        let Some(process) = node.process.as_mut() else { return };
        if !tick {
            if process.core != Some(now) {
                return; // another turn took this one's work
            }
            process.core = None;
        }
        let ended = catch_unwind(AssertUnwindSafe(|| process.stepped.turn(tick)));
        if ended.is_err() {
            return self.panicked(id);
        }
        if tick {
            let tick = election::Options::default().tick;
            let late = if self.troubled && chance(&mut self.rng, 20) { 15 } else { 1 };
            let next = self.nodes[&id].clock.truly(tick * late);
            self.agenda.plan(now + next, Event::Core { node: id, life, tick: true });
        }
        if self.nodes[&id].process.as_ref().is_some_and(|process| process.stepped.may_stop()) {
            self.end_cleanly(id);
        }
        self.settle(id);
    }

    /// A clean end: the log's last group is sealed, then the process is gone.
    fn end_cleanly(&mut self, id: NodeId) {
        let Some(process) = self.node(id).process.as_mut() else { return };
        process.stepped.seal();
        process.turn_all();
        self.count("clean end");
        let fate = if self.nodes[&id].disk.faulty.crashed() { self.doom(id) } else { Fate::Kept };
        self.kill(id, fate);
        let pause = self.rng.random_range(1_000..1_000_000);
        self.after(pause, Event::Start { node: id });
    }

    pub(super) fn on_worker(&mut self, id: NodeId, life: u64, number: u64) {
        let frozen = self.frozen(id);
        let now = self.now;
        if !self.is_alive(id, life) {
            return;
        }
        let World { nodes, agenda, rng, troubled, .. } = self;
        let troubled = *troubled;
        let node = nodes.get_mut(&id).expect("nodes never go");
        let Some(process) = node.process.as_mut() else { return };
        let Some(at) = process.workers.iter().position(|worker| worker.number == number) else { return };
        let worker = &mut process.workers[at];
        if worker.due != now {
            return; // another turn is planned
        }
        if let Some(until) = frozen {
            worker.due = until;
            return agenda.plan(until, Event::Worker { node: id, life, worker: number });
        }
        if worker.life.turn() {
            // Now and then its thread is not given the processor for a while, and more arrives meanwhile.
            let starved = if troubled && chance(rng, 60) { rng.random_range(0..60_000) } else { 0 };
            let took = node.disk.spent() + Duration::from_micros(starved);
            let patience = node.clock.truly(worker.life.patience()).max(Duration::from_micros(100));
            worker.busy = now + took;
            worker.due = worker.busy + patience;
            let due = worker.due;
            agenda.plan(due, Event::Worker { node: id, life, worker: number });
        } else {
            process.workers.remove(at);
        }
        self.settle(id);
    }

    /// After anything happened at a replica: carries its wishes away, and plans the turns that are due.
    pub(super) fn settle(&mut self, id: NodeId) {
        let now = self.now;
        let World { nodes, agenda, .. } = self;
        let node = nodes.get_mut(&id).expect("nodes never go");
        node.disk.charge();
        let Some(process) = node.process.as_mut() else { return };
        let (life, host) = (process.life, Arc::clone(&process.host));
        for role in host.take_lives() {
            process.next_worker += 1;
            let worker = Worker { number: process.next_worker, life: role, busy: now, due: now };
            agenda.plan(now, Event::Worker { node: id, life, worker: worker.number });
            process.workers.push(worker);
        }
        for (into, wish) in host.take_wishes() {
            self.carry(id, life, into, wish);
        }
        if self.nodes[&id].disk.faulty.crashed() {
            self.count("crash at a disk operation");
            let fate = self.doom(id);
            self.kill(id, fate);
            let pause = self.rng.random_range(1_000..400_000);
            return self.after(pause, Event::Start { node: id });
        }
        self.look_after_clients(id);
        let late = self.rng.random_range(1..40);
        let World { nodes, agenda, .. } = self;
        let Some(process) = nodes.get_mut(&id).and_then(|node| node.process.as_mut()) else { return };
        if process.core.is_none() && process.stepped.core_is_ready() {
            let at = now + Duration::from_micros(late);
            process.core = Some(at);
            agenda.plan(at, Event::Core { node: id, life, tick: false });
        }
        for worker in &mut process.workers {
            let at = (now + Duration::from_micros(late)).max(worker.busy);
            if at < worker.due && worker.life.is_ready() {
                worker.due = at;
                agenda.plan(at, Event::Worker { node: id, life, worker: worker.number });
            }
        }
    }

    // -- wishes ------------------------------------------------------------------------------------

    fn carry(&mut self, from: NodeId, life: u64, into: Duration, wish: Wish) {
        let sent = self.now + into;
        match wish {
            Wish::Send { to, message } => {
                if self.troubled {
                    self.network.archive(from, to, &message, &mut self.rng);
                }
                self.send(from, to, message, sent);
            }
            Wish::Form { to, message, heard } => {
                let fate = self.network.fate(from, to, &mut self.rng);
                if let Some(&delay) = fate.first() {
                    self.agenda.plan(sent + delay, Event::Ask { from, life, to, message, heard });
                }
            }
            Wish::Fetch { from: source, arrived } => {
                let delay = Duration::from_micros(self.rng.random_range(200..5_000));
                self.agenda.plan(sent + delay, Event::Fetch { from: source, to: from, life, arrived });
            }
        }
    }

    pub(super) fn send(&mut self, from: NodeId, to: NodeId, message: Message, sent: Time) {
        let fate = self.network.fate(from, to, &mut self.rng);
        if fate.is_empty() {
            return; // the trace shows what was sent and never received
        }
        let together = self.are_together(from, to);
        if !together {
            return; // servers of different clusters never talk
        }
        let message = if chance(&mut self.rng, self.network.weather.encoded) {
            let bytes = synod_rpc::peer::encode(&message);
            match synod_rpc::peer::decode(bytes) {
                Ok(message) => message,
                Err(error) => {
                    return self.broken("messages survive their encoding", "DESIGN 5.8", error.to_string());
                }
            }
        } else {
            message
        };
        for delay in fate {
            self.agenda.plan(sent + delay, Event::Deliver { from, to, message: message.clone() });
        }
    }

    fn are_together(&self, one: NodeId, other: NodeId) -> bool {
        let cluster = |id: NodeId| self.nodes.get(&id)?.process.as_ref()?.host.cluster();
        cluster(one).is_some() && cluster(one) == cluster(other)
    }

    pub(super) fn on_ask(
        &mut self,
        from: NodeId,
        life: u64,
        to: NodeId,
        message: FormationMessage,
        heard: Heard,
    ) {
        if let Some(until) = self.frozen(to) {
            return self.agenda.plan(until, Event::Ask { from, life, to, message, heard });
        }
        let Some(process) = self.nodes.get(&to).and_then(|node| node.process.as_ref()) else { return };
        let Ok(answers) = catch_unwind(AssertUnwindSafe(|| process.stepped.hear(message))) else {
            return self.panicked(to);
        };
        let took = self.nodes[&to].disk.spent();
        let dead = self.nodes[&to].disk.faulty.crashed();
        self.settle(to);
        if let (false, Some(&delay)) = (dead, self.network.fate(to, from, &mut self.rng).first()) {
            self.agenda.plan(self.now + took + delay, Event::Answers { to: from, life, answers, heard });
        }
    }

    pub(super) fn on_fetch(&mut self, from: NodeId, to: NodeId, life: u64, arrived: Arrived) {
        let reachable = self.network.reaches(from, to) && self.network.reaches(to, from);
        let source = self.nodes.get(&from).filter(|_| reachable && self.are_together(from, to));
        let checkpoint =
            source.and_then(|node| node.process.as_ref()).and_then(|process| process.stepped.checkpoint());
        let (state, delay) = match checkpoint {
            Some(checkpoint) => (State::restore(checkpoint), self.rng.random_range(500..30_000)),
            None => {
                (Err("it cannot be reached, or has none".to_owned()), self.rng.random_range(1_000..500_000))
            }
        };
        self.after(delay, Event::Fetched { to, life, state, arrived });
    }

    /// Lets a replica's role fail, or come back.
    pub(super) fn fail_role(&mut self, id: NodeId, fault: RoleFault) {
        if let Some(process) = &self.nodes[&id].process {
            process.stepped.fail_role(fault);
            self.settle(id);
        }
    }
}

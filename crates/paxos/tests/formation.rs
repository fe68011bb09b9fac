//! Searches what servers can do while they form a cluster: the production state machines, every order of
//! messages, crashes and wipes that fits the bounds.
//!
//! Messages are a set that only grows. Any of them may be delivered at any time, again and again, to whatever
//! life its receiver is in: that covers loss, repetition, delay and reordering. A server is deterministic, so
//! what one input does to one server in one state is computed once and looked up ever after; that makes
//! the search cheap enough to be complete: three servers and one wipe have some 38,000 different worlds.
//!
//! To judge the judge, the same search runs with rules broken on purpose, and must find two clusters.

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use synod_paxos::formation::{Effect, Formation, FormationMessage, Founder, Outgoing, Plan, Problem};
use synod_paxos::membership::Genesis;
use synod_paxos::types::{ClusterId, Incarnation, NodeId, VoterId, Window};
use xxhash_rust::xxh3::xxh3_128;

/// One server: what it has in memory and on disk.
#[derive(Clone, Debug)]
struct Server {
    me: VoterId,
    machine: Formation,
    disk: Option<Bytes>,
    join: Option<Genesis>,
}

/// What can happen to one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Input {
    Deliver(usize),
    /// The server handles a message and writes its disk, and crashes before it sends anything.
    DeliverThenCrash(usize),
    Tick,
    Crash,
    /// The log of the cluster that it tries to join admits it.
    Admitted,
    Wipe,
    /// Broken: the disk forgets what was signed and voided, and the server keeps its incarnation.
    Forget,
}

/// What an input did to one server.
#[derive(Clone, Debug)]
struct Outcome {
    server: usize,
    messages: Vec<usize>,
}

/// A set of small numbers, one bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Numbers(Vec<u64>);

impl Numbers {
    fn contains(&self, number: usize) -> bool {
        self.0.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Adds a number; true if it is new.
    fn insert(&mut self, number: usize) -> bool {
        if self.contains(number) {
            return false;
        }
        if self.0.len() <= number / 64 {
            self.0.resize(number / 64 + 1, 0);
        }
        self.0[number / 64] |= 1 << (number % 64);
        true
    }

    fn extend(&mut self, numbers: &[usize]) {
        for &number in numbers {
            self.insert(number);
        }
    }

    fn items(&self) -> Vec<usize> {
        let mut out = Vec::new();
        for (index, &word) in self.0.iter().enumerate() {
            let mut rest = word;
            while rest != 0 {
                out.push(index * 64 + rest.trailing_zeros() as usize);
                rest &= rest - 1;
            }
        }
        out
    }
}

/// Which rule the search breaks on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// "Form once all were seen blank": who signs is in force at once.
    FormBySigning,
    /// A doubted charter is dropped without asking.
    DropWithoutAsking,
    /// What is said need not be on disk.
    SpeakBeforeDisk,
}

/// All servers, all messages ever sent, and who was ever in force: numbers of the [`Laboratory`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct World {
    servers: Vec<usize>,
    mail: Numbers,
    in_force: Numbers,
    /// How often each server was wiped.
    wiped: Vec<u8>,
}

impl World {
    /// The same with another state of one server.
    fn with(mut self, index: usize, server: usize) -> World {
        self.servers[index] = server;
        self
    }

    fn key(&self) -> u128 {
        let mut bytes = Vec::with_capacity(128);
        self.servers.iter().for_each(|server| bytes.extend_from_slice(&server.to_le_bytes()));
        bytes.extend_from_slice(&self.wiped);
        bytes.extend(self.in_force.items().into_iter().flat_map(usize::to_le_bytes));
        bytes.push(0xff);
        self.mail.0.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        xxh3_128(&bytes)
    }
}

/// What a server can come to between two writes of its disk.
#[derive(Debug, Default)]
struct Closure {
    /// What it may say.
    said: BTreeSet<usize>,
    /// The states behind the next write with what is said then, and one way to each: a state and a message.
    writes: BTreeMap<(usize, Vec<usize>), (usize, usize)>,
    /// States in which it tries to join a cluster, one for each cluster.
    joining: BTreeMap<ClusterId, usize>,
}

struct Laboratory {
    plan: Plan,
    nodes: usize,
    broken: Broken,
    servers: Vec<Server>,
    server_numbers: BTreeMap<u128, usize>,
    messages: Vec<Outgoing>,
    message_numbers: BTreeMap<(NodeId, Bytes), usize>,
    /// By server.
    outcomes: Vec<BTreeMap<Input, Rc<Outcome>>>,
    closures: BTreeMap<(usize, Vec<usize>), Rc<Closure>>,
    /// Founders that were in force, under which charter.
    forces: Vec<(ClusterId, VoterId)>,
    /// How often something interesting happened: proof that the search gets there.
    sometimes: BTreeMap<&'static str, usize>,
}

fn voter(index: usize, life: u128) -> VoterId {
    VoterId { node: NodeId(index as u64 + 1), incarnation: Incarnation((index as u128 + 1) * 1000 + life) }
}

impl Laboratory {
    fn new(nodes: usize, broken: Broken) -> Laboratory {
        let founder = |n: usize| Founder { name: format!("n{n}"), peer_urls: vec![format!("http://h{n}")] };
        let plan = Plan::new(Window::new(4), (0..nodes).map(|n| (voter(n, 1).node, founder(n))));
        Laboratory {
            plan,
            nodes,
            broken,
            servers: Vec::new(),
            server_numbers: BTreeMap::new(),
            messages: Vec::new(),
            message_numbers: BTreeMap::new(),
            outcomes: Vec::new(),
            closures: BTreeMap::new(),
            forces: Vec::new(),
            sometimes: BTreeMap::new(),
        }
    }

    fn world(&mut self) -> World {
        let mut world = World {
            servers: vec![0; self.nodes],
            mail: Numbers::default(),
            in_force: Numbers::default(),
            wiped: vec![0; self.nodes],
        };
        for index in 0..self.nodes {
            let outcome = self.start(voter(index, 1), None);
            world.servers[index] = outcome.server;
            world.mail.extend(&outcome.messages);
        }
        world
    }

    /// The server with this disk, just started.
    fn start(&mut self, me: VoterId, disk: Option<Bytes>) -> Outcome {
        let machine = match &disk {
            Some(state) => Formation::restore(me, self.plan.clone(), state.clone()),
            None => Formation::new(me, self.plan.clone()),
        };
        let mut server = Server { me, machine: machine.expect("a sound disk"), disk, join: None };
        let effects = server.machine.start();
        self.carry_out(server, effects)
    }

    fn carry_out(&mut self, mut server: Server, effects: Vec<Effect>) -> Outcome {
        let mut messages = Vec::new();
        for effect in effects {
            match effect {
                Effect::PersistThenSend { state, messages: freed } => {
                    server.disk = Some(state);
                    messages.extend(freed.into_iter().map(|outgoing| self.message_number(outgoing)));
                }
                Effect::Send(outgoing) => messages.push(self.message_number(outgoing)),
                Effect::Join { genesis, .. } => server.join = Some(genesis),
                Effect::Formed(_) | Effect::Problem(_) => {}
            }
        }
        let key = xxh3_128(format!("{server:?}").as_bytes());
        let next = self.servers.len();
        let number = *self.server_numbers.entry(key).or_insert(next);
        if number == next {
            self.servers.push(server);
            self.outcomes.push(BTreeMap::new());
        }
        Outcome { server: number, messages }
    }

    fn message_number(&mut self, outgoing: Outgoing) -> usize {
        let bytes = outgoing.message.encode();
        let next = self.messages.len();
        let number = *self.message_numbers.entry((outgoing.to, bytes.clone())).or_insert(next);
        if number == next {
            let message = FormationMessage::decode(bytes).expect("what we encode, we decode");
            self.messages.push(Outgoing { to: outgoing.to, message });
        }
        number
    }

    fn outcome(&mut self, server: usize, input: Input) -> Rc<Outcome> {
        if let Some(outcome) = self.outcomes[server].get(&input) {
            return Rc::clone(outcome);
        }
        let outcome = Rc::new(self.compute(self.servers[server].clone(), input));
        self.outcomes[server].insert(input, Rc::clone(&outcome));
        outcome
    }

    fn compute(&mut self, mut server: Server, input: Input) -> Outcome {
        match input {
            Input::Deliver(message) => {
                let message = self.messages[message].message.clone();
                let (signed, doubted) = (server.machine.signed().is_some(), is_doubted(&server.machine));
                let effects = server.machine.receive(message);
                let formed = effects.iter().any(|effect| matches!(effect, Effect::Formed(_)));
                let dropped = signed && !formed && server.machine.signed().is_none();
                self.note("formed", formed);
                self.note("formed after voiding", formed && doubted);
                self.note("voided", !doubted && is_doubted(&server.machine));
                self.note("dropped", dropped);
                self.note("joining", effects.iter().any(|effect| matches!(effect, Effect::Join { .. })));
                self.carry_out(server, effects)
            }
            Input::DeliverThenCrash(message) => {
                let handled = self.compute(server, Input::Deliver(message)).server;
                self.compute(self.servers[handled].clone(), Input::Crash)
            }
            Input::Tick => {
                let effects = server.machine.tick();
                self.carry_out(server, effects)
            }
            Input::Crash => self.start(server.me, server.disk),
            Input::Admitted => {
                let genesis = server.join.clone().expect("somebody who joins");
                let effects = server.machine.joined(genesis);
                self.note("admitted", true);
                self.carry_out(server, effects)
            }
            Input::Wipe => {
                let incarnation = Incarnation(server.me.incarnation.0 + 1);
                self.start(VoterId { incarnation, ..server.me }, None)
            }
            Input::Forget => self.start(server.me, None),
        }
    }

    fn note(&mut self, what: &'static str, happened: bool) {
        *self.sometimes.entry(what).or_default() += usize::from(happened);
    }

    /// The world after `input` happened to server `index`.
    fn step(&mut self, world: &World, index: usize, input: Input) -> World {
        let outcome = self.outcome(world.servers[index], input);
        let mut next = world.clone();
        next.servers[index] = outcome.server;
        next.mail.extend(&outcome.messages);
        next.wiped[index] += u8::from(input == Input::Wipe);
        let server = &self.servers[outcome.server];
        let mut charter = server.machine.formed();
        if self.broken == Broken::FormBySigning {
            charter = charter.or(server.machine.signed());
        }
        if let Some(charter) = charter
            && is_founder(charter, server.me)
        {
            let force = (charter.cluster, server.me);
            let known = self.forces.iter().position(|known| *known == force);
            let bit = known.unwrap_or(self.forces.len());
            if known.is_none() {
                self.forces.push(force);
            }
            next.in_force.insert(bit);
        }
        next
    }

    /// What the server `number`, just started, can come to by the messages in `mail`, short of writing its disk.
    fn closure(&mut self, number: usize, mail: &Numbers) -> Rc<Closure> {
        let node = self.servers[number].me.node;
        let mail: Vec<usize> = mail.items().into_iter().filter(|m| self.messages[*m].to == node).collect();
        let key = (number, mail);
        if let Some(closure) = self.closures.get(&key) {
            return Rc::clone(closure);
        }
        let mut closure = Closure::default();
        let mut seen = BTreeSet::from([number]);
        let mut todo = vec![number];
        while let Some(before) = todo.pop() {
            if let Some(genesis) = &self.servers[before].join {
                closure.joining.insert(genesis.cluster, before);
            }
            for &message in &key.1 {
                let outcome = self.outcome(before, Input::Deliver(message));
                if self.servers[outcome.server].disk != self.servers[before].disk {
                    closure.writes.insert((outcome.server, outcome.messages.clone()), (before, message));
                } else {
                    closure.said.extend(&outcome.messages);
                    if seen.insert(outcome.server) {
                        todo.push(outcome.server);
                    }
                }
            }
        }
        let closure = Rc::new(closure);
        self.closures.insert(key, Rc::clone(&closure));
        closure
    }

    /// Adds everything to the mail that can be said without writing a disk. To have more messages to choose
    /// from takes no run away, so doing this at once loses none and saves many states.
    fn saturate(&mut self, mut world: World) -> World {
        loop {
            let before = world.mail.clone();
            for index in 0..self.nodes {
                let closure = self.closure(world.servers[index], &world.mail);
                world.mail.extend(&closure.said.iter().copied().collect::<Vec<_>>());
            }
            if world.mail == before {
                return world;
            }
        }
    }

    fn receiver(&self, message: usize) -> usize {
        self.messages[message].to.0 as usize - 1
    }

    /// May the log of the cluster that `index` tries to join admit it? That takes a majority of founders.
    fn may_be_admitted(&self, world: &World, index: usize) -> bool {
        let server = &self.servers[world.servers[index]];
        let Some(genesis) = server.join.as_ref().filter(|_| server.machine.formed().is_none()) else {
            return false;
        };
        let at_work = world.servers.iter().map(|number| &self.servers[*number]).filter(|founder| {
            founder.machine.formed().is_some_and(|formed| formed.cluster == genesis.cluster)
                && is_founder(genesis, founder.me)
        });
        at_work.count() > self.nodes / 2
    }

    /// The invariants: at most one charter was ever in force on a majority of its founders, and no two living
    /// servers belong to different clusters.
    fn violation(&self, world: &World) -> Option<String> {
        let mut founders: BTreeMap<ClusterId, usize> = BTreeMap::new();
        for (bit, (cluster, _)) in self.forces.iter().enumerate() {
            *founders.entry(*cluster).or_default() += usize::from(world.in_force.contains(bit));
        }
        if founders.values().filter(|count| **count > self.nodes / 2).count() > 1 {
            return Some(format!("two majorities: {founders:?}"));
        }
        let formed = world.servers.iter().filter_map(|number| self.servers[*number].machine.formed());
        let clusters: BTreeSet<ClusterId> = formed.map(|genesis| genesis.cluster).collect();
        (clusters.len() > 1).then(|| format!("two clusters alive: {clusters:?}"))
    }

    /// Nothing bad happens any more, and what is said arrives: where does `world` get to?
    fn fair_run(&mut self, mut world: World) -> World {
        for _ in 0..12 {
            for index in 0..self.nodes {
                let outcome = self.outcome(world.servers[index], Input::Tick);
                world.servers[index] = outcome.server;
                let mut fresh = VecDeque::from(outcome.messages.clone());
                for _ in 0..10_000 {
                    let Some(message) = fresh.pop_front() else { break };
                    let (to, before) = (self.receiver(message), world.clone());
                    world = self.step(&before, to, Input::Deliver(message));
                    fresh.extend(&self.outcome(before.servers[to], Input::Deliver(message)).messages);
                }
                assert!(fresh.is_empty(), "talk without end");
            }
            for index in 0..self.nodes {
                if self.may_be_admitted(&world, index) {
                    world = self.step(&world.clone(), index, Input::Admitted);
                }
            }
        }
        world
    }

    /// The cluster to which all servers belong, if they do.
    fn common_cluster(&self, world: &World) -> Option<ClusterId> {
        let formed = |number: &usize| self.servers[*number].machine.formed().map(|genesis| genesis.cluster);
        let clusters: BTreeSet<Option<ClusterId>> = world.servers.iter().map(formed).collect();
        if clusters.len() == 1 { clusters.first().copied().flatten() } else { None }
    }
}

fn is_founder(genesis: &Genesis, voter: VoterId) -> bool {
    genesis.members.get(&voter.node).is_some_and(|member| member.voter == Some(voter.incarnation))
}

fn is_doubted(machine: &Formation) -> bool {
    matches!(machine.waits_for(), Some(Problem::Undropped(_) | Problem::MajorityForgot(..)))
}

/// All worlds of three servers of which the third may be wiped once. (Which one it is makes no difference:
/// nodes are told apart by name only.) A world changes when a server writes its disk, starts again, or is wiped;
/// what servers hear and say between that, [`Laboratory::closure`] and [`Laboratory::saturate`] work out. A crash
/// between a write and its messages is among these runs: nobody need ever deliver the messages.
///
/// Returns the first violation, or what `visit` finds wrong with a world, and the number of worlds seen.
fn search(
    laboratory: &mut Laboratory,
    mut visit: impl FnMut(&mut Laboratory, &World) -> Option<String>,
) -> (Option<String>, usize) {
    const WIPED: usize = 2;
    let first = laboratory.world();
    let first = laboratory.saturate(first);
    let mut seen = BTreeSet::from([first.key()]);
    let mut todo = vec![first];
    while let Some(world) = todo.pop() {
        if let Some(wrong) = laboratory.violation(&world).or_else(|| visit(laboratory, &world)) {
            return (Some(wrong), seen.len());
        }
        for next in successors(laboratory, &world, WIPED) {
            let next = laboratory.saturate(next);
            if seen.insert(next.key()) {
                assert!(seen.len() < MOST_WORLDS, "more worlds than can be searched");
                todo.push(next);
            }
        }
    }
    (None, seen.len())
}

/// Where `world` can go by one write, start or wipe.
fn successors(laboratory: &mut Laboratory, world: &World, wiped: usize) -> Vec<World> {
    let mut out = Vec::new();
    for index in 0..laboratory.nodes {
        let closure = laboratory.closure(world.servers[index], &world.mail);
        for &(before, message) in closure.writes.values() {
            let before = world.clone().with(index, before);
            let written = laboratory.step(&before, index, Input::Deliver(message));
            if laboratory.broken == Broken::SpeakBeforeDisk {
                let restarted = laboratory.outcome(world.servers[index], Input::Crash).server;
                out.push(written.clone().with(index, restarted)); // the write is lost, its messages are not
            }
            out.push(written);
        }
        for &joining in closure.joining.values() {
            let world = world.clone().with(index, joining);
            if laboratory.may_be_admitted(&world, index) {
                out.push(laboratory.step(&world, index, Input::Admitted));
            }
        }
        out.push(laboratory.step(world, index, Input::Crash));
        let doubted = is_doubted(&laboratory.servers[world.servers[index]].machine);
        if laboratory.broken == Broken::DropWithoutAsking && doubted {
            out.push(laboratory.step(world, index, Input::Forget));
        }
    }
    if world.wiped[wiped] == 0 {
        out.push(laboratory.step(world, wiped, Input::Wipe));
    }
    out
}

/// Far more than there are while all rules hold.
const MOST_WORLDS: usize = 400_000;

/// What is wrong if no faults happen from `world` on: servers that never come to one cluster.
fn stranded(laboratory: &mut Laboratory, world: &World) -> Option<String> {
    let end = laboratory.fair_run(world.clone());
    let stuck = laboratory.common_cluster(&end).is_none();
    laboratory.violation(&end).or_else(|| stuck.then(|| format!("stuck: {end:?} after {world:?}")))
}

#[test]
fn three_servers_and_one_wipe_never_make_two_clusters_and_can_always_make_one() {
    let mut laboratory = Laboratory::new(3, Broken::Nothing);
    let mut visited = 0;
    let (violation, worlds) = search(&mut laboratory, |laboratory, world| {
        visited += 1;
        if visited % 101 == 0 { stranded(laboratory, world) } else { None }
    });
    println!("{worlds} worlds, {:?}", laboratory.sometimes);
    assert_eq!(violation, None);
    assert!(worlds > 10_000, "the search lost its way");
    for what in ["formed", "formed after voiding", "voided", "dropped", "joining", "admitted"] {
        assert!(laboratory.sometimes.get(what).is_some_and(|count| *count > 0), "never {what}");
    }
}

#[test]
fn the_search_finds_two_clusters_when_signing_is_forming() {
    let (violation, worlds) = search(&mut Laboratory::new(3, Broken::FormBySigning), |_, _| None);
    assert!(violation.is_some(), "not in {worlds} worlds");
}

#[test]
fn the_search_finds_stranded_servers_when_a_charter_is_dropped_without_asking() {
    let mut visited = 0;
    let (violation, worlds) =
        search(&mut Laboratory::new(3, Broken::DropWithoutAsking), |laboratory, world| {
            visited += 1;
            if visited % 7 == 0 { stranded(laboratory, world) } else { None }
        });
    assert!(violation.is_some(), "not in {worlds} worlds");
}

#[test]
fn the_search_finds_trouble_when_words_overtake_the_disk() {
    let (violation, worlds) = search(&mut Laboratory::new(3, Broken::SpeakBeforeDisk), stranded);
    assert!(violation.is_some(), "not in {worlds} worlds");
}

/// A random walk of `steps` with at most `wipes` wipes, of any servers.
fn walk(laboratory: &mut Laboratory, rng: &mut ChaCha8Rng, steps: usize, wipes: u8) -> World {
    let mut world = laboratory.world();
    for _ in 0..steps {
        let index = rng.random_range(0..laboratory.nodes);
        let mail = world.mail.items();
        let message = mail[rng.random_range(0..mail.len())];
        let left = world.wiped.iter().sum::<u8>() < wipes;
        let (index, input) = match rng.random_range(0..100) {
            0..70 => (laboratory.receiver(message), Input::Deliver(message)),
            70..75 => (laboratory.receiver(message), Input::DeliverThenCrash(message)),
            75..88 => (index, Input::Tick),
            88..92 => (index, Input::Crash),
            92..94 if left => (index, Input::Wipe),
            _ if laboratory.may_be_admitted(&world, index) => (index, Input::Admitted),
            _ => continue,
        };
        world = laboratory.step(&world, index, input);
        assert_eq!(laboratory.violation(&world), None, "{world:?}");
    }
    world
}

/// Walks at random, then lets the faults end. Returns how often all servers ended in one cluster. A run may end
/// otherwise only if a majority was wiped, and then somebody must say so or hold the cluster's memory.
fn walks(nodes: usize, wipes: u8, count: u64, steps: usize) -> u64 {
    let mut laboratory = Laboratory::new(nodes, Broken::Nothing);
    let mut together = 0;
    for seed in 0..count {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let world = walk(&mut laboratory, &mut rng, steps, wipes);
        let end = laboratory.fair_run(world);
        assert_eq!(laboratory.violation(&end), None, "seed {seed}");
        if laboratory.common_cluster(&end).is_some() {
            together += 1;
            continue;
        }
        let servers = || end.servers.iter().map(|number| &laboratory.servers[*number]);
        let wiped = end.wiped.iter().filter(|times| **times > 0).count();
        assert!(wiped > nodes / 2, "seed {seed}: stuck with {wiped} wiped: {end:?}");
        let said = |server: &Server| matches!(server.machine.waits_for(), Some(Problem::MajorityForgot(..)));
        assert!(servers().any(|server| said(server) || server.machine.formed().is_some()), "seed {seed}");
    }
    together
}

#[test]
fn three_servers_and_two_wipes_never_make_two_clusters_and_stop_only_with_a_majority_wiped() {
    let (walks, together) = (400, walks(3, 2, 400, 120));
    assert!(together > walks / 2, "{together}");
    assert!(together < walks, "two of three wiped at the wrong moment must stop it, too");
}

#[test]
fn five_servers_and_two_wipes_never_make_two_clusters_and_always_make_one() {
    assert_eq!(walks(5, 2, 60, 250), 60);
}

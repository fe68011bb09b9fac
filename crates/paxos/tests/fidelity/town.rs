//! A small cluster that runs from a seed: production roles, a network that does its worst, and facts from
//! which alone is concluded what is chosen.

use crate::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use synod_paxos::election;
use synod_paxos::front::{self, Front};
use synod_paxos::leadership::{self, Leadership};
use synod_paxos::learner::{self, Learner};
use synod_paxos::machine::{Admission, Machine};
use synod_paxos::membership::{Genesis, Member};

/// What happened, and what follows: asks no code under test.
#[derive(Default)]
pub(crate) struct Facts {
    issued: BTreeMap<(Slot, Ballot), Value>,
    accepted: BTreeMap<(Slot, Ballot), BTreeSet<VoterId>>,
    pub(crate) chosen: BTreeMap<Slot, (Ballot, Value)>,
    /// Where each command was applied first, for every replica alike.
    applied: BTreeMap<CommandId, Slot>,
    /// Leaders that there were.
    pub(crate) reigns: BTreeSet<Ballot>,
    majority: usize,
}

impl Facts {
    fn on_issued(&mut self, slot: Slot, ballot: Ballot, value: &Value) {
        let first = self.issued.entry((slot, ballot)).or_insert_with(|| value.clone());
        assert_eq!(first, value, "PMS-7: {ballot} names two proposals in {slot}");
        if let Some((earlier, chosen)) = self.chosen.get(&slot).filter(|(earlier, _)| *earlier < ballot) {
            assert_eq!(chosen, value, "PMS-9: chosen in {earlier}, issued in {ballot}, {slot}");
        }
    }

    fn on_durable(&mut self, voter: VoterId, record: &Record) {
        let Record::Accepted { ballot, slot, value } = record else { return };
        assert_eq!(self.issued.get(&(*slot, *ballot)), Some(value), "PMS-1: nobody proposed that");
        let voters = self.accepted.entry((*slot, *ballot)).or_default();
        voters.insert(voter);
        if voters.len() >= self.majority {
            let (_, chosen) = self.chosen.entry(*slot).or_insert_with(|| (*ballot, value.clone()));
            assert_eq!(chosen, value, "PMS-2: two values in {slot}");
        }
    }

    fn on_claimed(&self, node: NodeId, slot: Slot, value: &Value) {
        let chosen = self.chosen.get(&slot).map(|(_, value)| value);
        assert_eq!(chosen, Some(value), "PMS-3: {node} believes {slot}");
    }
}

enum Lead {
    Elected(Box<Leadership>),
    /// Campaigns whenever a coin says so.
    Coin(Box<Proposer>),
}

pub(crate) struct Site {
    pub(crate) id: NodeId,
    disk: Vec<Record>,
    generation: u64,
    acceptor: Acceptor,
    lead: Lead,
    learner: Learner,
    machine: Machine<u64>,
    front: Front,
    /// What this life applied.
    pub(crate) log: Vec<Value>,
    up: bool,
}

pub(crate) struct Town {
    pub(crate) sites: BTreeMap<NodeId, Site>,
    pub(crate) facts: Facts,
    genesis: Genesis,
    elected: bool,
    now: Time,
    network: BTreeMap<(Time, u64), (NodeId, NodeId, Message)>,
    /// Everything ever said, for somebody to say it again.
    said: Vec<(NodeId, NodeId, Message)>,
    pub(crate) replayed: u64,
    pub(crate) restarts: u64,
    lose_first: Option<BTreeSet<String>>,
    rng: ChaCha8Rng,
    troubled: bool,
}

impl Town {
    pub(crate) fn elected(nodes: u64, seed: u64) -> Town {
        Town::new(nodes, seed, true)
    }

    pub(crate) fn coin(nodes: u64, seed: u64) -> Town {
        Town::new(nodes, seed, false)
    }

    fn new(nodes: u64, seed: u64, elected: bool) -> Town {
        let member = |n| (NodeId(n), Member { voter: Some(voter(n).incarnation), ..Member::default() });
        let genesis = Genesis {
            cluster: ClusterId(1),
            window: Window::new(8),
            members: (1..=nodes).map(member).collect(),
        };
        let facts = Facts { majority: nodes as usize / 2 + 1, ..Facts::default() };
        let mut town = Town {
            sites: BTreeMap::new(),
            facts,
            genesis,
            elected,
            now: Time(0),
            network: BTreeMap::new(),
            said: Vec::new(),
            replayed: 0,
            restarts: 0,
            lose_first: None,
            rng: ChaCha8Rng::seed_from_u64(seed),
            troubled: false,
        };
        for id in (1..=nodes).map(NodeId) {
            let site = town.site(id, Vec::new(), 1);
            town.sites.insert(id, site);
        }
        town
    }

    fn site(&mut self, id: NodeId, disk: Vec<Record>, generation: u64) -> Site {
        let machine: Machine<u64> = Machine::genesis(&self.genesis);
        let membership = machine.membership();
        let life = Generation(generation);
        let lead = if self.elected {
            let patience = election::Options::default();
            Lead::Elected(Box::new(Leadership::new(id, life, options(), patience, membership, self.now)))
        } else {
            let configurations = membership.configurations().clone();
            let mut proposer = Proposer::new(id, life, options(), configurations.clone());
            proposer.on_applied(configurations, membership.members().keys().copied().collect());
            Lead::Coin(Box::new(proposer))
        };
        let mut learner = Learner::new(id, learner::Options::default(), Prefix::EMPTY);
        learner.on_members(membership.members().keys().copied());
        let acceptor = Acceptor::restore(voter(id.0), Limits::default(), disk.iter().cloned());
        let front = Front::new(id, life, front::Options::default(), self.now);
        Site { id, disk, generation, acceptor, lead, learner, machine, front, log: Vec::new(), up: true }
    }

    // -- what a test does ---------------------------------------------------------------------------

    /// A client writes at `node`.
    pub(crate) fn write(&mut self, node: NodeId) {
        let now = self.now;
        let site = self.sites.get_mut(&node).expect("a member");
        site.front.submit(Action::App(Bytes::new()), now).expect("few writes");
        self.flush(node);
    }

    pub(crate) fn campaign(&mut self, node: NodeId) {
        let now = self.now;
        let Lead::Coin(proposer) = &mut self.sites.get_mut(&node).expect("a member").lead else { return };
        let effects = proposer.campaign(now).unwrap_or_default();
        self.on_proposed(node, effects);
    }

    pub(crate) fn stop(&mut self, node: NodeId) {
        self.sites.get_mut(&node).expect("a member").up = false;
    }

    /// A new life with the same disk.
    pub(crate) fn restart(&mut self, node: NodeId) {
        let site = &self.sites[&node];
        let (disk, generation) = (site.disk.clone(), site.generation + 1);
        let site = self.site(node, disk, generation);
        self.sites.insert(node, site);
        self.restarts += 1;
    }

    /// From now on each message is lost the first time it is said.
    pub(crate) fn lose_each_once(&mut self) {
        self.lose_first = Some(BTreeSet::new());
    }

    pub(crate) fn calm(&mut self, duration: Duration) {
        self.troubled = false;
        self.run(duration);
    }

    /// Loss, doubles, late and repeated messages, restarts, and coins where coins decide.
    pub(crate) fn chaos(&mut self, duration: Duration) {
        self.troubled = true;
        self.run(duration);
        self.troubled = false;
    }

    pub(crate) fn step_until(&mut self, done: impl Fn(&Town) -> bool) {
        let mut left = 10_000;
        while !done(self) {
            left -= 1;
            assert!(left > 0, "it should have happened in ten seconds");
            self.step();
        }
    }

    /// Whom everybody follows that is up, if they agree.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let up = self.sites.values().filter(|site| site.up);
        let heard: BTreeSet<Option<Ballot>> = up
            .map(|site| match &site.lead {
                Lead::Elected(leadership) => leadership.leader(self.now),
                Lead::Coin(proposer) => proposer.leads(),
            })
            .collect();
        let one = if heard.len() == 1 { heard.into_iter().next().flatten() } else { None };
        one.map(|ballot| ballot.node)
    }

    pub(crate) fn ballot(&self, node: NodeId) -> Option<Ballot> {
        match &self.sites[&node].lead {
            Lead::Elected(leadership) => leadership.proposer().leads(),
            Lead::Coin(proposer) => proposer.leads(),
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.sites.values().map(|site| site.front.waiting()).sum()
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.step();
        }
    }

    // -- a millisecond ------------------------------------------------------------------------------

    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        while let Some(entry) = self.network.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (from, to, message) = entry.remove();
            self.deliver(from, to, message);
        }
        let nodes: Vec<NodeId> = self.sites.keys().copied().collect();
        if self.now.0.is_multiple_of(10_000) {
            for &node in &nodes {
                self.tick(node);
            }
        }
        if !self.troubled {
            return;
        }
        let node = nodes[self.rng.random_range(0..nodes.len())];
        match self.rng.random_range(0..200) {
            0 => self.restart(node),
            1..=3 => self.campaign(node),
            4..=12 => self.write(node),
            13..=20 if !self.said.is_empty() => {
                let (from, to, message) = self.said[self.rng.random_range(0..self.said.len())].clone();
                self.replayed += 1;
                self.deliver(from, to, message);
            }
            _ => {}
        }
    }

    fn tick(&mut self, node: NodeId) {
        let (now, random) = (self.now, self.rng.random());
        let site = self.sites.get_mut(&node).expect("a member");
        if !site.up {
            return;
        }
        site.front.tick(now);
        let learned = site.learner.tick(now);
        match &mut site.lead {
            Lead::Elected(leadership) => {
                let effects = leadership.tick(now, random);
                self.on_led(node, effects);
            }
            Lead::Coin(proposer) => {
                let effects = proposer.tick(now);
                self.on_proposed(node, effects);
            }
        }
        self.on_learned(node, learned);
        self.flush(node);
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        if let Message::Accept { ballot, slot, value, .. } = &message {
            self.facts.on_issued(*slot, *ballot, value);
        }
        self.said.push((from, to, message.clone()));
        if let Some(lost) = &mut self.lose_first
            && lost.insert(name(from, to, &message))
        {
            return;
        }
        if self.troubled && from != to && self.rng.random_bool(0.1) {
            return;
        }
        let copies = if self.troubled && self.rng.random_bool(0.1) { 2 } else { 1 };
        for _ in 0..copies {
            let most = if self.troubled { 30_000 } else { 2_000 };
            let due = self.now + Duration::from_micros(self.rng.random_range(0..most));
            let number = self.rng.random();
            self.network.insert((due, number), (from, to, message.clone()));
        }
    }

    pub(crate) fn deliver(&mut self, from: NodeId, to: NodeId, message: Message) {
        let now = self.now;
        let Some(site) = self.sites.get_mut(&to).filter(|site| site.up) else { return };
        let mut written = Vec::new();
        let mut learned = Vec::new();
        match &message {
            Message::Prepare { ballot, from: first } => {
                written.push(site.acceptor.on_prepare(from, *ballot, *first));
            }
            Message::Accept { ballot, slot, value, chosen, .. } => {
                site.front.on_leader(*ballot);
                written.extend(site.acceptor.on_accept(from, *ballot, *slot, value.clone()));
                written.extend(chosen.and_then(|word| site.acceptor.on_chosen(word)));
                learned = site.learner.on_accept(*ballot, *slot, value.clone(), *chosen, now);
            }
            Message::Chosen(word) | Message::Heartbeat { chosen: Some(word), .. } => {
                site.front.on_leader(word.ballot);
                written.extend(site.acceptor.on_chosen(*word));
                learned = site.learner.on_chosen(*word, now);
            }
            Message::Heartbeat { ballot, .. } => site.front.on_leader(*ballot),
            Message::Abdicate { ballot } => site.front.on_abdicated(*ballot),
            Message::Fetch { from: first } => {
                learned.extend(site.learner.on_fetch(from, *first, site.machine.applied()));
            }
            Message::Learn { from: first, values, .. } => {
                learned = site.learner.on_learn(*first, values.clone(), now);
            }
            Message::Entries { from: first, values, chosen } => {
                learned = site.learner.on_entries(*first, values.clone(), *chosen, now);
            }
            _ => {}
        }
        match &mut site.lead {
            Lead::Elected(leadership) => {
                let effects = leadership.on_message(from, message, now);
                self.on_led(to, effects);
            }
            Lead::Coin(proposer) => {
                let effects = tell(proposer, message, now);
                self.on_proposed(to, effects);
            }
        }
        for effect in written {
            let site = self.sites.get_mut(&to).expect("a member");
            let (record, reply) = match effect {
                acceptor::Effect::PersistThenSend { record, reply } => (Some(record), Some(reply)),
                acceptor::Effect::Persist(record) => (Some(record), None),
                acceptor::Effect::Send(reply) => (None, Some(reply)),
            };
            if let Some(record) = record {
                self.facts.on_durable(voter(to.0), &record);
                site.disk.push(record);
            }
            if let Some(reply) = reply {
                self.send(to, reply.to, reply.message);
            }
        }
        self.on_learned(to, learned);
        self.flush(to);
    }

    fn flush(&mut self, node: NodeId) {
        let now = self.now;
        let site = self.sites.get_mut(&node).expect("a member");
        for (to, message) in site.front.flush() {
            self.send(node, to, message);
        }
        match &mut self.sites.get_mut(&node).expect("a member").lead {
            Lead::Elected(leadership) => {
                let effects = leadership.flush(now);
                self.on_led(node, effects);
            }
            Lead::Coin(proposer) => {
                let effects = proposer.flush(now);
                self.on_proposed(node, effects);
            }
        }
    }

    fn on_led(&mut self, node: NodeId, effects: Vec<leadership::Effect>) {
        for effect in effects {
            match effect {
                leadership::Effect::Send { to, message } => {
                    to.into_iter().for_each(|to| self.send(node, to, message.clone()));
                }
                leadership::Effect::Leads(ballot) => self.on_leads(node, ballot),
                leadership::Effect::Follows(_) => {}
            }
        }
    }

    fn on_proposed(&mut self, node: NodeId, effects: Vec<proposer::Effect>) {
        for effect in effects {
            match effect {
                proposer::Effect::Send { to, message } => {
                    to.into_iter().for_each(|to| self.send(node, to, message.clone()));
                }
                proposer::Effect::Leads(ballot) => self.on_leads(node, ballot),
                proposer::Effect::Deposed { .. } => {}
            }
        }
    }

    fn on_leads(&mut self, node: NodeId, ballot: Ballot) {
        self.facts.reigns.insert(ballot);
        self.sites.get_mut(&node).expect("a member").front.on_leader(ballot);
    }

    fn on_learned(&mut self, node: NodeId, effects: Vec<learner::Effect>) {
        for effect in effects {
            match effect {
                learner::Effect::Apply { slot, value } => {
                    self.facts.on_claimed(node, slot, &value);
                    self.apply(node, slot, value);
                }
                learner::Effect::Send(outgoing) => self.send(node, outgoing.to, outgoing.message),
                learner::Effect::Install { .. } => unreachable!("these logs keep everything"),
            }
        }
    }

    fn apply(&mut self, node: NodeId, slot: Slot, value: Value) {
        let now = self.now;
        let site = self.sites.get_mut(&node).expect("a member");
        assert_eq!(slot.0, site.log.len() as u64 + 1, "PMS-35: in order");
        for command in value.commands().expect("only proposers make values") {
            if site.machine.admit(&command) == Admission::Fresh {
                let first = *self.facts.applied.entry(command.id).or_insert(slot);
                assert_eq!(first, slot, "PMS-30: {} is applied once", command.id);
                site.machine.answered(command.id, slot.0);
            }
            site.front.on_applied(command.id, now);
        }
        site.machine.advance(slot);
        site.log.push(value);
        let membership = site.machine.membership();
        let chosen = site.learner.chosen();
        let effects = match &mut site.lead {
            Lead::Elected(leadership) => {
                leadership.on_learned(chosen);
                leadership.on_applied(membership);
                return;
            }
            Lead::Coin(proposer) => {
                proposer.on_learned(chosen);
                let members = membership.members().keys().copied().collect();
                proposer.on_applied(membership.configurations().clone(), members);
                proposer.flush(now)
            }
        };
        self.on_proposed(node, effects);
    }
}

/// A message for a proposer without an election.
fn tell(proposer: &mut Proposer, message: Message, now: Time) -> Vec<proposer::Effect> {
    match message {
        Message::Prepare { ballot, .. } | Message::Accept { ballot, .. } => proposer.saw(ballot),
        Message::Promise { ballot, voter, from, until, trimmed, accepted } => {
            return proposer.on_promise(ballot, voter, from, until, trimmed, accepted, now);
        }
        Message::Accepted { ballot, slot, voter } => proposer.on_accepted(ballot, slot, voter),
        Message::Refused { ballot, promised } => return proposer.on_refused(ballot, promised),
        Message::Submit { commands } => proposer.on_submit(commands),
        _ => {}
    }
    Vec::new()
}

/// What makes a message the same one when it is said again.
fn name(from: NodeId, to: NodeId, message: &Message) -> String {
    match message {
        Message::Accept { ballot, slot, .. } => format!("{from} {to} accept {ballot} {slot}"),
        other => format!("{from} {to} {other:?}"),
    }
}

//! One replica: the production roles, wired as a server wires them, but one message at a time.

use crate::show;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use synod_paxos::acceptor::{self, Acceptor, Limits, Record};
use synod_paxos::learner::{self, Learner};
use synod_paxos::machine::{Admission, Machine};
use synod_paxos::membership::Genesis;
use synod_paxos::message::{Message, Outgoing};
use synod_paxos::proposer::{self, Proposer};
use synod_paxos::reader::{self, Reader, Ticket};
use synod_paxos::types::*;
use synod_paxos::value::{Action, Command, Value};

/// What the node under the script's hand may do to the world around it.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) now: Time,
    /// Sent and not delivered: from, to, message.
    pub(crate) network: VecDeque<(NodeId, NodeId, Message)>,
    /// The transcript of the present command.
    pub(crate) lines: Vec<String>,
    /// What every slot turned out to hold, and who said so first; outlives every crash.
    agreed: BTreeMap<Slot, (NodeId, Value)>,
    /// What every ballot proposed; outlives every crash, too.
    issued: BTreeMap<(Slot, Ballot), Value>,
    /// Rules that were found broken.
    pub(crate) broken: Vec<String>,
}

impl World {
    pub(crate) fn say(&mut self, line: String) {
        self.lines.push(line);
    }

    fn send(&mut self, from: NodeId, to: &[NodeId], message: &Message) {
        if to.is_empty() {
            return;
        }
        self.say(format!("{from} → {} {}", show::nodes(to), show::message(message)));
        self.network.extend(to.iter().map(|&to| (from, to, message.clone())));
        if let Message::Accept { ballot, slot, value, .. } = message {
            let first = self.issued.entry((*slot, *ballot)).or_insert_with(|| value.clone());
            if first != value {
                let (one, two) = (show::value(first), show::value(value));
                self.broken.push(format!("ballot {ballot} names two proposals in slot {slot}: {one}, {two}"));
            }
        }
    }

    fn claim(&mut self, node: NodeId, slot: Slot, value: &Value) {
        let (first, agreed) = self.agreed.entry(slot).or_insert_with(|| (node, value.clone()));
        if agreed != value {
            let (one, two) = (show::value(agreed), show::value(value));
            self.broken.push(format!("slot {slot}: {first} applied {one}, {node} {two}"));
        }
    }
}

/// What is applied.
#[derive(Clone)]
struct State {
    machine: Machine<()>,
    store: BTreeMap<String, String>,
}

/// What a crash spares.
#[derive(Clone, Default)]
struct Disk {
    log: Vec<Record>,
    checkpoint: Option<State>,
}

struct Roles {
    acceptor: Acceptor,
    proposer: Proposer,
    learner: Learner,
    reader: Reader,
    state: State,
    commands: u64,
    reads: BTreeMap<Ticket, String>,
    unsynced: Vec<(Record, Option<Outgoing>)>,
}

#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) limits: Limits,
    pub(crate) learner: learner::Options,
    pub(crate) depth: usize,
    pub(crate) hedge: Option<Duration>,
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    genesis: Genesis,
    options: Options,
    disk: Disk,
    /// Which memory this is: 1 for the first.
    memory: u8,
    generation: u64,
    roles: Option<Roles>,
    slow: bool,
}

impl Node {
    pub(crate) fn new(id: NodeId, genesis: Genesis, options: Options) -> Node {
        let disk = Disk::default();
        let mut node =
            Node { id, genesis, options, disk, memory: 1, generation: 0, roles: None, slow: false };
        node.start(1);
        node
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        show::incarnation(self.id, self.memory)
    }

    pub(crate) fn next_incarnation(&self) -> Incarnation {
        show::incarnation(self.id, self.memory + 1)
    }

    fn start(&mut self, generation: u64) {
        self.generation = generation;
        let fresh = || State { machine: Machine::genesis(&self.genesis), store: BTreeMap::new() };
        let state = self.disk.checkpoint.clone().unwrap_or_else(fresh);
        let configurations = state.machine.membership().configurations().clone();
        let id = VoterId { node: self.id, incarnation: self.incarnation() };
        let life = Generation(generation);
        let options = proposer::Options {
            depth: self.options.depth,
            hedge: self.options.hedge,
            ..proposer::Options::default()
        };
        self.roles = Some(Roles {
            acceptor: Acceptor::restore(id, self.options.limits, self.disk.log.iter().cloned()),
            proposer: Proposer::new(self.id, life, options, configurations.clone()),
            learner: Learner::new(self.id, self.options.learner, state.machine.applied()),
            reader: Reader::new(life, Duration::from_millis(100), configurations),
            state,
            commands: 0,
            reads: BTreeMap::new(),
            unsynced: Vec::new(),
        });
        let mut nobody = World::default();
        self.tell_applied(&mut nobody); // nothing waits yet
    }

    // -- faults -----------------------------------------------------------------------------------

    pub(crate) fn crash(&mut self, world: &mut World) {
        self.roles = None;
        world.say(format!("{} ✗", self.id));
    }

    pub(crate) fn restart(&mut self, generation: Option<u64>, world: &mut World) {
        self.start(generation.unwrap_or(self.generation + 1));
        self.describe(world);
        let roles = self.roles.as_mut().expect("just started");
        let vouched = roles.acceptor.chosen_after(roles.state.machine.applied());
        let effects = roles.learner.on_recovered(vouched, world.now);
        self.on_learned(effects, world);
    }

    /// The disk is blank. Rule R1 asks for a new name, too; a bent run keeps the old one.
    pub(crate) fn forget(&mut self, as_itself: bool, world: &mut World) {
        self.disk = Disk::default();
        self.slow = false;
        self.memory += u8::from(!as_itself);
        self.restart(None, world);
    }

    /// A bent run: writes what others remember into a blank memory.
    pub(crate) fn copy_from(&mut self, records: Vec<Record>, world: &mut World) {
        self.disk.log = records;
        self.restart(None, world);
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        let Some(roles) = &self.roles else { return Vec::new() };
        let accepted = roles.acceptor.acceptances(Slot::FIRST);
        let accepted = accepted.map(|a| Record::Accepted { ballot: a.ballot, slot: a.slot, value: a.value });
        roles.acceptor.summary().into_iter().chain(accepted).collect()
    }

    pub(crate) fn slow(&mut self) {
        self.slow = true;
    }

    pub(crate) fn sync(&mut self, world: &mut World) {
        self.slow = false;
        let waiting = self.roles.as_mut().map(|roles| std::mem::take(&mut roles.unsynced));
        for (record, reply) in waiting.unwrap_or_default() {
            self.persist(record, reply, world);
        }
    }

    // -- requests ---------------------------------------------------------------------------------

    pub(crate) fn campaign(&mut self, world: &mut World) -> Result<(), String> {
        let roles = self.up()?;
        let effects = roles.proposer.campaign(world.now).ok_or("who votes there is not known here")?;
        self.on_proposed(effects, world);
        Ok(())
    }

    pub(crate) fn propose(&mut self, actions: Vec<Action>, world: &mut World) -> Result<(), String> {
        let (origin, generation, now) = (self.id, Generation(self.generation), world.now);
        let roles = self.up()?;
        let mut commands = Vec::new();
        for action in actions {
            roles.commands += 1;
            let id = CommandId { origin, generation, sequence: Sequence(roles.commands) };
            commands.push(Command { id, waiting_from: Sequence::FIRST, action });
        }
        if roles.proposer.ballot().is_none() {
            return Err(format!("{origin} has no ballot to propose in"));
        }
        roles.proposer.on_submit(commands);
        let effects = roles.proposer.flush(now);
        self.on_proposed(effects, world);
        Ok(())
    }

    pub(crate) fn decide(&mut self, slot: Slot, world: &mut World) -> Result<(), String> {
        let now = world.now;
        let roles = self.up()?;
        roles.proposer.on_decide(slot);
        let effects = roles.proposer.flush(now);
        self.on_proposed(effects, world);
        Ok(())
    }

    pub(crate) fn read(&mut self, key: &str, world: &mut World) -> Result<(), String> {
        let now = world.now;
        let roles = self.up()?;
        let ticket = roles.reader.on_read();
        roles.reads.insert(ticket, key.to_owned());
        let effects = roles.reader.flush(now);
        self.on_reader(effects, world);
        Ok(())
    }

    /// The store becomes durable as it stands; the acceptor may then forget that much.
    pub(crate) fn trim(&mut self, upto: Option<Prefix>, world: &mut World) -> Result<(), String> {
        let checkpoint = self.up()?.state.clone();
        let covered = checkpoint.machine.applied();
        self.disk.checkpoint = Some(checkpoint);
        let effect = self.up()?.acceptor.trim(upto.unwrap_or(covered).min(covered));
        self.on_written(effect, world);
        Ok(())
    }

    pub(crate) fn tick(&mut self, world: &mut World) {
        let Some(roles) = self.roles.as_mut() else { return };
        let now = world.now;
        let proposed = roles.proposer.tick(now);
        let learned = roles.learner.tick(now);
        let read = roles.reader.tick(now);
        self.on_proposed(proposed, world);
        self.on_learned(learned, world);
        self.on_reader(read, world);
    }

    // -- messages ---------------------------------------------------------------------------------

    pub(crate) fn deliver(&mut self, from: NodeId, message: Message, world: &mut World) {
        let now = world.now;
        let Some(roles) = self.roles.as_mut() else {
            world.say(format!("{} is down: lost {}", self.id, show::message(&message)));
            return;
        };
        let proposer_before = format!("{:?}", roles.proposer);
        let mut written = Vec::new();
        let mut learned = Vec::new();
        let mut read = Vec::new();
        let mut proposed = Vec::new();
        let text = show::message(&message);
        let mut for_acceptor = false;
        let mut for_proposer = false;
        match message {
            Message::Prepare { ballot, from: first } => {
                for_acceptor = true;
                roles.proposer.saw(ballot);
                written.push(roles.acceptor.on_prepare(from, ballot, first));
            }
            Message::Accept { ballot, slot, value, chosen, .. } => {
                for_acceptor = true;
                roles.proposer.saw(ballot);
                learned = roles.learner.on_accept(ballot, slot, value.clone(), chosen, now);
                written.extend(roles.acceptor.on_accept(from, ballot, slot, value));
                written.extend(chosen.and_then(|word| roles.acceptor.on_chosen(word)));
            }
            Message::Chosen(word) => {
                roles.proposer.saw(word.ballot);
                learned = roles.learner.on_chosen(word, now);
                written.extend(roles.acceptor.on_chosen(word));
            }
            Message::Promise { ballot, voter, from, until, trimmed, accepted } => {
                for_proposer = true;
                proposed = roles.proposer.on_promise(ballot, voter, from, until, trimmed, accepted, now);
            }
            Message::Accepted { ballot, slot, voter } => {
                for_proposer = true;
                roles.proposer.on_accepted(ballot, slot, voter);
            }
            Message::Refused { ballot, promised } => {
                for_proposer = true;
                proposed = roles.proposer.on_refused(ballot, promised);
            }
            Message::Fetch { from: first } => {
                learned.extend(roles.learner.on_fetch(from, first, roles.state.machine.applied()));
            }
            Message::Learn { from: first, values, .. } => {
                learned = roles.learner.on_learn(first, values, now);
            }
            Message::Entries { from: first, values, chosen } => {
                learned = roles.learner.on_entries(first, values, chosen, now);
            }
            Message::TakeCheckpoint { applied } => {
                learned = roles.learner.on_take_checkpoint(from, applied, now);
            }
            Message::ReadQuery { question } => {
                roles.proposer.on_reader(from);
                let (voter, accepted) = (roles.acceptor.id(), roles.acceptor.highest());
                world.send(self.id, &[from], &Message::ReadAnswer { question, voter, accepted });
            }
            Message::ReadAnswer { question, voter, accepted } => {
                read = roles.reader.on_answer(question, voter, accepted, now);
            }
            other => unreachable!("no role here sends {other:?}"),
        }
        let deaf = for_proposer && proposed.is_empty() && format!("{:?}", roles.proposer) == proposer_before;
        if deaf || (for_acceptor && written.is_empty()) {
            world.say(format!("{} ignores {text}", self.id));
        }
        self.on_written(written, world);
        self.on_learned(learned, world);
        self.on_proposed(proposed, world);
        self.on_reader(read, world);
        let flushed = self.roles.as_mut().map(|roles| roles.proposer.flush(now));
        self.on_proposed(flushed.unwrap_or_default(), world);
    }

    // -- effects ----------------------------------------------------------------------------------

    fn on_written(&mut self, effects: impl IntoIterator<Item = acceptor::Effect>, world: &mut World) {
        for effect in effects {
            let (record, reply) = match effect {
                acceptor::Effect::PersistThenSend { record, reply } => (record, Some(reply)),
                acceptor::Effect::Persist(record) => (record, None),
                acceptor::Effect::Send(Outgoing { to, message }) => {
                    world.send(self.id, &[to], &message);
                    continue;
                }
            };
            if self.slow {
                world.say(format!("{} writes {} ...", self.id, show::record(&record)));
                self.roles.as_mut().expect("it wrote").unsynced.push((record, reply));
            } else {
                self.persist(record, reply, world);
            }
        }
    }

    fn persist(&mut self, record: Record, reply: Option<Outgoing>, world: &mut World) {
        if !matches!(record, Record::Chosen(_)) {
            world.say(format!("{} persists {}", self.id, show::record(&record)));
        }
        self.disk.log.push(record);
        if let Some(Outgoing { to, message }) = reply {
            world.send(self.id, &[to], &message);
        }
    }

    fn on_proposed(&mut self, effects: Vec<proposer::Effect>, world: &mut World) {
        for effect in effects {
            match effect {
                proposer::Effect::Send { to, message } => world.send(self.id, &to, &message),
                proposer::Effect::Leads(ballot) => world.say(format!("{} leads {ballot}", self.id)),
                proposer::Effect::Deposed { ballot, by } => {
                    world.say(format!("{} gives {ballot} up for {by}", self.id));
                }
            }
        }
    }

    fn on_reader(&mut self, effects: Vec<reader::Effect>, world: &mut World) {
        for effect in effects {
            match effect {
                reader::Effect::Send(Outgoing { to, message }) => world.send(self.id, &[to], &message),
                reader::Effect::Ready(ticket) => {
                    let roles = self.roles.as_mut().expect("it asked");
                    let later = roles.reads.split_off(&Ticket(ticket.0 + 1));
                    for key in std::mem::replace(&mut roles.reads, later).into_values() {
                        let value = roles.state.store.get(&key).map_or("nothing", String::as_str);
                        world.say(format!("{} answers {key}: {value}", self.id));
                    }
                }
                reader::Effect::Decide(slot) => world.say(format!("{} wants slot {slot} decided", self.id)),
            }
        }
    }

    fn on_learned(&mut self, effects: Vec<learner::Effect>, world: &mut World) {
        let mut moved = false;
        for effect in effects {
            match effect {
                learner::Effect::Apply { slot, value } => {
                    world.say(format!("{} applies {slot} {}", self.id, show::value(&value)));
                    world.claim(self.id, slot, &value);
                    self.apply(slot, &value);
                    moved = true;
                }
                learner::Effect::Send(Outgoing { to, message }) => world.send(self.id, &[to], &message),
                learner::Effect::Install { from } => {
                    world.say(format!("{} wants the checkpoint of {from}", self.id));
                }
            }
        }
        if moved {
            self.tell_applied(world);
        }
    }

    fn apply(&mut self, slot: Slot, value: &Value) {
        let State { machine, store } = &mut self.roles.as_mut().expect("it applies").state;
        for command in value.commands().expect("only proposers make values") {
            if machine.admit(&command) == Admission::Fresh {
                match &command.action {
                    Action::App(_) => {
                        let text = show::command(&command);
                        let (key, value) = text.split_once('=').expect("key=value");
                        store.insert(key.to_owned(), value.to_owned());
                    }
                    Action::Reconfigure(change) => {
                        machine.reconfigure(slot, change);
                    }
                }
                machine.answered(command.id, ());
            }
        }
        machine.advance(slot);
    }

    fn tell_applied(&mut self, world: &mut World) {
        let now = world.now;
        let roles = self.roles.as_mut().expect("it applies");
        let membership = roles.state.machine.membership();
        let members: Vec<NodeId> = membership.members().keys().copied().collect();
        let configurations = membership.configurations().clone();
        roles.learner.on_members(members.iter().copied());
        roles.proposer.on_learned(roles.learner.chosen());
        roles.proposer.on_applied(configurations.clone(), members);
        let effects = roles.reader.on_applied(configurations, now);
        self.on_reader(effects, world);
        let flushed = self.roles.as_mut().map(|roles| roles.proposer.flush(now));
        self.on_proposed(flushed.unwrap_or_default(), world);
    }

    /// The checkpoint of `other` arrives.
    pub(crate) fn install(&mut self, other: &Checkpoint, world: &mut World) -> Result<(), String> {
        let now = world.now;
        let Checkpoint(state) = other;
        let prefix = state.machine.applied();
        self.up()?.state = state.clone();
        self.disk.checkpoint = Some(state.clone());
        let roles = self.up()?;
        let effects = roles.learner.on_installed(prefix, now);
        world.say(format!("{} installs {prefix}", self.id));
        self.tell_applied(world);
        self.on_learned(effects, world);
        Ok(())
    }

    pub(crate) fn checkpoint(&self) -> Option<Checkpoint> {
        self.roles.as_ref().map(|roles| Checkpoint(roles.state.clone()))
    }

    fn up(&mut self) -> Result<&mut Roles, String> {
        let id = self.id;
        self.roles.as_mut().ok_or_else(|| format!("{id} is down"))
    }

    /// One line on where this replica stands.
    pub(crate) fn describe(&self, world: &mut World) {
        let Some(roles) = &self.roles else { return world.say(format!("{} is down", self.id)) };
        let promised = roles.acceptor.promised().map_or("nothing".to_owned(), |ballot| ballot.to_string());
        let accepted: Vec<_> = roles.acceptor.acceptances(Slot::FIRST).collect();
        let role = match (roles.proposer.leads(), roles.proposer.ballot()) {
            (Some(ballot), _) => format!(", leads {ballot} with {} in flight", roles.proposer.in_flight()),
            (None, Some(ballot)) => format!(", tries {ballot}"),
            (None, None) => String::new(),
        };
        let store: Vec<String> = roles.state.store.iter().map(|(k, v)| format!("{k}={v}")).collect();
        world.say(format!(
            "{}: promised {promised}, accepted {}, applied {} {{{}}}{role}",
            roles.acceptor.id(),
            show::accepted(&accepted),
            roles.state.machine.applied(),
            store.join(" "),
        ));
    }

    /// Who votes in `slot`, as far as this replica knows.
    pub(crate) fn voters(&self, slot: Slot) -> Option<Vec<VoterId>> {
        let machine = &self.roles.as_ref()?.state.machine;
        Some(machine.membership().configurations().at(slot)?.voters().collect())
    }
}

/// What a replica has applied, on its way to another.
pub(crate) struct Checkpoint(State);

//! One replica: the production state machines, wired as a server wires them.
//!
//! Each role can be stopped alone and comes back with its memory or without. What a process crash spares is
//! the [`Disk`]; what it does not spare is everything in [`Running`]. An acceptor's records wait in `unsynced`
//! until the scheduler says that a sync ended, and their replies wait with them.

use super::oracle::hold;
use super::store::{Answer, Request, Store};
use super::world::{Context, Event};
use rand::RngExt;
use std::collections::BTreeMap;
use synod_paxos::acceptor::{self, Acceptor, Record};
use synod_paxos::front::{self, Front};
use synod_paxos::leadership::{self, Leadership};
use synod_paxos::learner::{self, Learner};
use synod_paxos::machine::{Admission, Machine};
use synod_paxos::membership::{Change, Genesis, Membership};
use synod_paxos::message::{Message, Outgoing, Progress};
use synod_paxos::reader::{self, Reader, Ticket};
use synod_paxos::types::{CommandId, Generation, Incarnation, NodeId, Prefix, VoterId};
use synod_paxos::value::{Action, Value};
use synod_paxos::votes::Votes;

/// What a replica has applied.
#[derive(Clone)]
pub struct Applied {
    pub machine: Machine<Answer>,
    pub store: Store,
}

/// What survives a crash.
pub struct Disk {
    pub incarnation: Incarnation,
    pub log: Vec<Record>,
    pub checkpoint: Option<Applied>,
    /// How often this disk was started from: the counter in a front's generation.
    pub boots: u64,
}

impl Disk {
    pub fn blank(incarnation: Incarnation) -> Disk {
        Disk { incarnation, log: Vec::new(), checkpoint: None, boots: 0 }
    }

    /// How far the durable store covers.
    pub fn covered(&self) -> Prefix {
        self.checkpoint.as_ref().map_or(Prefix::EMPTY, |checkpoint| checkpoint.machine.applied())
    }
}

pub struct AcceptorRole {
    pub acceptor: Acceptor,
    unsynced: Vec<(Record, Option<Outgoing>)>,
    syncing: bool,
}

pub struct LearnerRole {
    pub learner: Learner,
    pub applied: Applied,
    /// Tells lives apart, so that a checkpoint asked for by an earlier one is not installed.
    life: u64,
}

/// The process: gone after a crash, roles and front alike.
pub struct Running {
    /// Tells lives apart for timers.
    pub life: u64,
    pub acceptor: Option<AcceptorRole>,
    pub leadership: Option<Leadership>,
    pub learner: Option<LearnerRole>,
    pub front: Front,
    reader: Reader,
    votes: Votes,
    /// The clients at the front, by the name of their command.
    waiting: BTreeMap<CommandId, Request>,
    /// The reads that wait, with what was answered to anybody when they arrived.
    reads: BTreeMap<Ticket, Prefix>,
    /// The last state of the cluster that a learner here told.
    membership: Membership,
    /// How far the others' acceptors forgot.
    trims: BTreeMap<NodeId, Prefix>,
    /// The command that asks for this acceptor's admission.
    admission: Option<CommandId>,
}

/// Sizes and patience, drawn once per run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub acceptor: acceptor::Limits,
    pub pipeline: synod_paxos::proposer::Options,
    pub patience: synod_paxos::election::Options,
    pub learner: learner::Options,
    pub front: front::Options,
}

pub struct Replica {
    pub id: NodeId,
    pub disk: Disk,
    pub running: Option<Running>,
    pub options: Options,
    genesis: Genesis,
}

impl Replica {
    pub fn new(id: NodeId, incarnation: Incarnation, options: Options, genesis: Genesis) -> Replica {
        Replica { id, disk: Disk::blank(incarnation), running: None, options, genesis }
    }

    pub fn voter(&self) -> VoterId {
        VoterId { node: self.id, incarnation: self.disk.incarnation }
    }

    fn recovered(&self) -> Applied {
        self.disk
            .checkpoint
            .clone()
            .unwrap_or_else(|| Applied { machine: Machine::genesis(&self.genesis), store: Store::default() })
    }

    /// A life of the front above every one that this replica can know of.
    fn fresh_life(&mut self, heard: Option<Generation>, ctx: &mut Context) -> Generation {
        let heard = heard.map_or(0, |heard| heard.0 >> 32);
        self.disk.boots = self.disk.boots.max(heard) + 1;
        Generation(self.disk.boots << 32 | u64::from(ctx.rng.random::<u32>()))
    }

    /// Starts the process and all its roles.
    pub fn start(&mut self, ctx: &mut Context) {
        let applied = self.recovered();
        let membership = applied.machine.membership().clone();
        let generation = self.fresh_life(applied.machine.generation(self.id), ctx);
        let retry = self.options.front.retry;
        let life = ctx.rng.random();
        self.running = Some(Running {
            life,
            acceptor: None,
            leadership: None,
            learner: None,
            front: Front::new(self.id, generation, self.options.front, ctx.now),
            reader: Reader::new(Generation(ctx.rng.random()), retry / 4, membership.configurations().clone()),
            votes: Votes::default(),
            waiting: BTreeMap::new(),
            reads: BTreeMap::new(),
            membership,
            trims: BTreeMap::new(),
            admission: None,
        });
        ctx.after(self.options.patience.tick, Event::Tick { node: self.id, life });
        self.start_acceptor(ctx);
        self.start_learner(ctx);
        self.start_leadership(ctx);
    }

    pub fn start_acceptor(&mut self, ctx: &mut Context) {
        let voter = self.voter();
        let Some(running) = self.running.as_mut().filter(|running| running.acceptor.is_none()) else {
            return;
        };
        let acceptor = Acceptor::restore(voter, self.options.acceptor, self.disk.log.iter().cloned());
        hold!(
            acceptor.promised() >= ctx.oracle.standing(voter),
            "PMS-16 a promise survives",
            "{voter} woke with {:?}",
            acceptor.promised()
        );
        running.acceptor = Some(AcceptorRole { acceptor, unsynced: Vec::new(), syncing: false });
    }

    pub fn start_leadership(&mut self, ctx: &mut Context) {
        let Some(running) = self.running.as_mut().filter(|running| running.leadership.is_none()) else {
            return;
        };
        let mut leadership = Leadership::new(
            self.id,
            Generation(ctx.rng.random()),
            self.options.pipeline,
            self.options.patience,
            &running.membership,
            ctx.now,
        );
        if let Some(role) = &running.learner {
            leadership.on_learned(role.learner.chosen());
        }
        running.leadership = Some(leadership);
    }

    pub fn start_learner(&mut self, ctx: &mut Context) {
        let applied = self.recovered();
        let Some(running) = self.running.as_mut().filter(|running| running.learner.is_none()) else { return };
        let prefix = applied.machine.applied();
        let mut learner = Learner::new(self.id, self.options.learner, prefix);
        learner.on_members(applied.machine.membership().members().keys().copied());
        running.learner = Some(LearnerRole { learner, applied, life: ctx.rng.random() });
        let vouched = running.acceptor.as_ref().map(|role| role.acceptor.chosen_after(prefix));
        self.on_membership(ctx);
        let learner = &mut self.running.as_mut().and_then(|r| r.learner.as_mut()).expect("just made").learner;
        let effects = learner.on_recovered(vouched.unwrap_or_default(), ctx.now);
        ctx.count(
            "applied from its own log",
            effects.iter().any(|e| matches!(e, learner::Effect::Apply { .. })),
        );
        self.on_learned(effects, ctx);
    }

    /// The acceptor stops; of its unsynced records the disk may have kept some, in order, and nobody was told.
    pub fn stop_acceptor(&mut self, ctx: &mut Context) {
        let Some(role) = self.running.as_mut().and_then(|running| running.acceptor.take()) else { return };
        let kept = ctx.rng.random_range(0..=role.unsynced.len());
        for (record, _) in role.unsynced.into_iter().take(kept) {
            ctx.oracle.on_durable(self.voter(), &record);
            self.disk.log.push(record);
        }
    }

    /// The process stops and takes everybody at its desk along.
    pub fn stop(&mut self, ctx: &mut Context) {
        self.stop_acceptor(ctx);
        if let Some(running) = self.running.take() {
            ctx.clients.outstanding -= running.waiting.len() + running.reads.len();
        }
    }

    /// What an acceptor that runs here would say of its trim point.
    pub fn trimmed(&self) -> Prefix {
        match self.running.as_ref().and_then(|running| running.acceptor.as_ref()) {
            Some(role) => role.acceptor.trimmed(),
            None => Acceptor::restore(self.voter(), self.options.acceptor, self.disk.log.iter().cloned())
                .trimmed(),
        }
    }

    // -- clients ----------------------------------------------------------------------------------

    pub fn on_write(&mut self, request: Request, filler: usize, ctx: &mut Context) {
        let Some(running) = self.running.as_mut() else { return };
        let action = Action::App(request.payload(filler));
        if let Ok(name) = running.front.submit(action, ctx.now) {
            running.waiting.insert(name, request);
            ctx.clients.outstanding += 1;
            ctx.trace(|| format!("{} takes {request:?} as {name}", self.id));
        }
        self.flush(ctx);
    }

    pub fn on_read(&mut self, ctx: &mut Context) {
        let Some(running) = self.running.as_mut() else { return };
        running.reads.insert(running.reader.on_read(), ctx.oracle.answered());
        ctx.clients.outstanding += 1;
        self.flush(ctx);
    }

    /// Asks the log for a change. True if it was taken in.
    pub fn on_change(&mut self, change: Change, ctx: &mut Context) -> bool {
        let Some(running) = self.running.as_mut() else { return false };
        running.front.submit(Action::Reconfigure(change), ctx.now).is_ok()
    }

    // -- messages ---------------------------------------------------------------------------------

    pub fn on_message(&mut self, from: NodeId, message: Message, ctx: &mut Context) {
        let Some(running) = self.running.as_mut() else { return };
        let now = ctx.now;
        let mut written = Vec::new();
        let mut learned = Vec::new();
        let mut read = Vec::new();
        if let Some(role) = running.acceptor.as_mut() {
            let acceptor = &mut role.acceptor;
            match &message {
                Message::Prepare { ballot, from: first } => {
                    written.push(acceptor.on_prepare(from, *ballot, *first));
                }
                Message::Accept { ballot, slot, value, chosen, learner } => {
                    let learner = learner.unwrap_or(from);
                    written.extend(acceptor.on_accept_for(from, learner, *ballot, *slot, value.clone()));
                    written.extend(chosen.and_then(|word| acceptor.on_chosen(word)));
                }
                Message::Chosen(word) | Message::Heartbeat { chosen: Some(word), .. } => {
                    written.extend(acceptor.on_chosen(*word));
                }
                Message::ReadQuery { question } => {
                    if let Some(leadership) = running.leadership.as_mut() {
                        leadership.on_reader(from);
                    }
                    let (voter, accepted) = (acceptor.id(), acceptor.highest());
                    ctx.send(self.id, from, Message::ReadAnswer { question: *question, voter, accepted });
                }
                _ => {}
            }
        }
        if let Message::Accepted { ballot, slot, voter } = &message
            && ballot.node != self.id
            && running.votes.on_accepted(*ballot, *slot, *voter)
        {
            ctx.count("counted in the leader's place", true);
            ctx.send(self.id, ballot.node, Message::Counted { ballot: *ballot, slot: *slot });
            if let Some(role) = running.learner.as_mut() {
                learned = role.learner.on_counted(*ballot, *slot, now);
            }
        }
        if let Some(role) = running.learner.as_mut() {
            let learner = &mut role.learner;
            match &message {
                Message::Accept { ballot, slot, value, chosen, .. } => {
                    learned = learner.on_accept(*ballot, *slot, value.clone(), *chosen, now);
                }
                Message::Chosen(word) | Message::Heartbeat { chosen: Some(word), .. } => {
                    learned = learner.on_chosen(*word, now);
                }
                Message::Fetch { from: first } => {
                    learned.extend(learner.on_fetch(from, *first, role.applied.machine.applied()));
                }
                Message::Learn { from: first, values, .. } => {
                    learned = learner.on_learn(*first, values.clone(), now);
                }
                Message::Entries { from: first, values, chosen } => {
                    learned = learner.on_entries(*first, values.clone(), *chosen, now);
                }
                Message::TakeCheckpoint { applied } => {
                    learned = learner.on_take_checkpoint(from, *applied, now);
                }
                Message::Progress(progress) => learner.on_known(progress.chosen, now),
                _ => {}
            }
        }
        match &message {
            Message::Accept { ballot, .. } | Message::Heartbeat { ballot, .. } => {
                running.front.on_leader(*ballot);
            }
            Message::Chosen(word) => running.front.on_leader(word.ballot),
            Message::Abdicate { ballot } => running.front.on_abdicated(*ballot),
            Message::ReadAnswer { question, voter, accepted } => {
                read = running.reader.on_answer(*question, *voter, *accepted, now);
            }
            Message::Progress(progress) => {
                let known = running.trims.entry(from).or_default();
                *known = progress.trimmed.max(*known);
            }
            _ => {}
        }
        self.on_written(written, ctx);
        self.on_learned(learned, ctx);
        self.on_reader(read, ctx);
        if let Some(leadership) = self.running.as_mut().and_then(|running| running.leadership.as_mut()) {
            let effects = leadership.on_message(from, message, now);
            self.carry_out(effects, ctx);
        }
        self.flush(ctx);
    }

    /// Time passes.
    pub fn on_tick(&mut self, life: u64, ctx: &mut Context) {
        let now = ctx.now;
        let Some(running) = self.running.as_mut().filter(|running| running.life == life) else { return };
        running.front.tick(now);
        let read = running.reader.tick(now);
        let learned = running.learner.as_mut().map(|role| role.learner.tick(now)).unwrap_or_default();
        let stalled = running.front.stalled_since().filter(|&t| now.since(t) > self.options.front.retry * 4);
        let mut lead = Vec::new();
        if let Some(leadership) = running.leadership.as_mut() {
            leadership.set_eligible(running.learner.is_some());
            if let Some(waits) = stalled {
                lead.extend(leadership.on_stalled(waits, waits, now));
            }
            lead.extend(leadership.tick(now, ctx.rng.random()));
        }
        self.on_reader(read, ctx);
        self.on_learned(learned, ctx);
        self.carry_out(lead, ctx);
        if ctx.rng.random_bool(0.2) {
            self.tell_progress(ctx);
            self.ask_admission(ctx);
        }
        self.flush(ctx);
        let tick = self.options.patience.tick;
        // Now and then a process is starved.
        let late = if ctx.troubled && ctx.rng.random_bool(0.003) { tick * 12 } else { tick };
        ctx.after(late, Event::Tick { node: self.id, life });
    }

    fn tell_progress(&mut self, ctx: &mut Context) {
        let Some(running) = self.running.as_ref() else { return };
        let Some(role) = running.learner.as_ref() else { return };
        let progress = Progress {
            chosen: role.learner.chosen(),
            applied: role.applied.machine.applied(),
            durable: self.disk.covered(),
            trimmed: running.acceptor.as_ref().map_or(Prefix::EMPTY, |role| role.acceptor.trimmed()),
        };
        for &to in running.membership.members().keys().filter(|&&to| to != self.id) {
            ctx.send(self.id, to, Message::Progress(progress));
        }
    }

    /// A newcomer asks to vote once its durable store covers what the others forgot (rule R6).
    fn ask_admission(&mut self, ctx: &mut Context) {
        let (covered, incarnation) = (self.disk.covered(), self.disk.incarnation);
        let Some(running) = self.running.as_mut().filter(|running| running.learner.is_some()) else { return };
        let members = running.membership.members();
        let Some(member) = members.get(&self.id).filter(|member| member.voter != Some(incarnation)) else {
            return;
        };
        let heard = members.keys().filter(|node| running.trims.contains_key(node)).count();
        let under_way = running.admission.is_some_and(|name| running.waiting_at_front(name));
        if heard <= members.len() / 2 || running.trims.values().any(|&t| t > covered) || under_way {
            return;
        }
        let change = Change::Replace { node: self.id, old: member.voter, new: incarnation };
        ctx.trace(|| format!("{} asks for admission: {change:?}", self.id));
        running.admission = running.front.submit(Action::Reconfigure(change), ctx.now).ok();
    }

    /// What waits goes out, as at the end of each turn of a server.
    fn flush(&mut self, ctx: &mut Context) {
        let Some(running) = self.running.as_mut() else { return };
        let read = running.reader.flush(ctx.now);
        for (to, message) in running.front.flush() {
            ctx.send(self.id, to, message);
        }
        let lead = running.leadership.as_mut().map(|leadership| leadership.flush(ctx.now));
        self.on_reader(read, ctx);
        self.carry_out(lead.unwrap_or_default(), ctx);
    }

    // -- effects ----------------------------------------------------------------------------------

    fn on_written(&mut self, effects: Vec<acceptor::Effect>, ctx: &mut Context) {
        let Some(role) = self.running.as_mut().and_then(|running| running.acceptor.as_mut()) else { return };
        for effect in effects {
            match effect {
                acceptor::Effect::PersistThenSend { record, reply } => {
                    let partial = matches!(reply.message, Message::Promise { until: Some(_), .. });
                    ctx.count("promise answered in parts", partial);
                    role.unsynced.push((record, Some(reply)));
                    if !std::mem::replace(&mut role.syncing, true) {
                        let stall = ctx.troubled && ctx.rng.random_bool(0.01);
                        let most = if stall { 80_000 } else { 1_500 };
                        let micros = ctx.rng.random_range(50..most);
                        ctx.after_micros(micros, Event::Synced { voter: role.acceptor.id() });
                    }
                }
                acceptor::Effect::Persist(record) => role.unsynced.push((record, None)),
                acceptor::Effect::Send(Outgoing { to, message }) => ctx.send(self.id, to, message),
            }
        }
    }

    /// A sync ended: everything written so far is durable, and may be spoken of.
    pub fn on_synced(&mut self, ctx: &mut Context) {
        let id = self.voter();
        let Some(role) = self.running.as_mut().and_then(|running| running.acceptor.as_mut()) else { return };
        role.syncing = false;
        let mut trimmed = false;
        for (record, reply) in std::mem::take(&mut role.unsynced) {
            ctx.oracle.on_durable(id, &record);
            trimmed |= matches!(record, Record::Trimmed { .. });
            self.disk.log.push(record);
            if let Some(Outgoing { to, message }) = reply {
                ctx.send(self.id, to, message);
            }
        }
        if trimmed {
            // A new segment: what the old ones held is summed up, and they go.
            let acceptor = Acceptor::restore(id, self.options.acceptor, std::mem::take(&mut self.disk.log));
            let kept = acceptor.acceptances(acceptor.trimmed().next());
            let kept = kept.map(|a| Record::Accepted { ballot: a.ballot, slot: a.slot, value: a.value });
            self.disk.log = acceptor.summary().into_iter().chain(kept).collect();
        }
    }

    pub fn carry_out(&mut self, effects: Vec<leadership::Effect>, ctx: &mut Context) {
        let Some(running) = self.running.as_mut() else { return };
        for effect in effects {
            match effect {
                leadership::Effect::Send { to, message } => {
                    for to in to {
                        ctx.send(self.id, to, message.clone());
                    }
                }
                leadership::Effect::Leads(ballot) => {
                    ctx.trace(|| format!("{} leads with {ballot}", self.id));
                    running.front.on_leader(ballot);
                }
                leadership::Effect::Follows(ballot) => {
                    ctx.trace(|| format!("{} no longer leads with {ballot}", self.id));
                    ctx.count("leader deposed", true);
                    running.front.on_abdicated(ballot);
                }
            }
        }
    }

    fn on_reader(&mut self, effects: Vec<reader::Effect>, ctx: &mut Context) {
        let Some(running) = self.running.as_mut() else { return };
        for effect in effects {
            match effect {
                reader::Effect::Send(Outgoing { to, message }) => ctx.send(self.id, to, message),
                reader::Effect::Ready(ticket) => {
                    let later = running.reads.split_off(&Ticket(ticket.0 + 1));
                    let ready = std::mem::replace(&mut running.reads, later);
                    let applied = running.membership.configurations().applied();
                    ctx.clients.outstanding -= ready.len();
                    ctx.count("read answered", !ready.is_empty());
                    for floor in ready.into_values() {
                        ctx.oracle.on_read(floor, applied);
                    }
                }
                reader::Effect::Decide(slot) => {
                    ctx.count("read reminds the leader", true);
                    if let Some(leader) = running.front.leader() {
                        ctx.send(self.id, leader, Message::Decide { slot });
                    }
                }
            }
        }
    }

    fn on_learned(&mut self, effects: Vec<learner::Effect>, ctx: &mut Context) {
        let mut applied = false;
        for effect in effects {
            match effect {
                learner::Effect::Apply { slot, value } => {
                    ctx.oracle.on_claimed(slot, &value, "a learner");
                    ctx.trace(|| format!("{} applies {slot} {value:?}", self.id));
                    self.apply(&value, ctx);
                    applied = true;
                }
                learner::Effect::Send(Outgoing { to, message }) => ctx.send(self.id, to, message),
                learner::Effect::Install { from } => {
                    let role = self.running.as_ref().and_then(|running| running.learner.as_ref());
                    let life = role.expect("it asked").life;
                    let micros = ctx.rng.random_range(500..20_000);
                    ctx.after_micros(micros, Event::Install { node: self.id, from, life });
                }
            }
        }
        if applied {
            self.on_membership(ctx);
        }
    }

    fn apply(&mut self, value: &Value, ctx: &mut Context) {
        let Some(running) = self.running.as_mut() else { return };
        let Some(LearnerRole { applied: Applied { machine, store }, .. }) = running.learner.as_mut() else {
            return;
        };
        let slot = machine.applied().next();
        let mut done = Vec::new();
        for command in value.commands().expect("only proposers make values") {
            let answer = match machine.admit(&command) {
                Admission::Fresh => {
                    let answer = match &command.action {
                        Action::App(payload) => store.apply(Request::of(payload)),
                        Action::Reconfigure(change) => {
                            machine.reconfigure(slot, change);
                            store.now()
                        }
                    };
                    machine.answered(command.id, answer);
                    Some(answer)
                }
                Admission::Repeated(answer) => {
                    ctx.count("command chosen twice", true);
                    answer
                }
                Admission::Stale => {
                    ctx.count("command of an older life refused", true);
                    continue;
                }
            };
            done.push((command.id, answer));
        }
        machine.advance(slot);
        hold!(
            store.now() == ctx.oracle.state(machine.applied()),
            "DESIGN 3 the same state everywhere",
            "{} differs after {slot}",
            self.id
        );
        let horizon = machine.membership().configurations().window().last_open(machine.applied());
        let voters =
            machine.membership().configurations().at(horizon).map(|c| c.voters().collect::<Vec<_>>());
        let right =
            ctx.oracle.voters(horizon).iter().map(|(&node, &incarnation)| VoterId { node, incarnation });
        hold!(
            voters == Some(right.collect()),
            "PMS-39 who votes",
            "{} wrong in {horizon}: {voters:?}",
            self.id
        );
        let heard = machine.generation(self.id);
        for (name, answer) in done {
            running.front.on_applied(name, ctx.now);
            running.answer(name, answer, ctx);
        }
        self.rename(heard, ctx);
    }

    /// The log may have heard of a later life of this front, from before the disk was wiped.
    fn rename(&mut self, heard: Option<Generation>, ctx: &mut Context) {
        let Some(heard) =
            heard.filter(|&heard| self.running.as_ref().is_some_and(|r| heard > r.front.generation()))
        else {
            return;
        };
        let fresh = self.fresh_life(Some(heard), ctx);
        let Some(running) = self.running.as_mut() else { return };
        ctx.count("front renamed", true);
        for (old, new) in running.front.on_generation(heard, fresh, ctx.now) {
            ctx.trace(|| format!("{old} is now {new}"));
            if let Some(request) = running.waiting.remove(&old) {
                running.waiting.insert(new, request);
            }
        }
    }

    /// As [`Replica::rename`], where part of the log was jumped over: what waits is of unknown fate.
    fn let_go(&mut self, heard: Option<Generation>, ctx: &mut Context) {
        let Some(heard) =
            heard.filter(|&heard| self.running.as_ref().is_some_and(|r| heard > r.front.generation()))
        else {
            return;
        };
        let fresh = self.fresh_life(Some(heard), ctx);
        let Some(running) = self.running.as_mut() else { return };
        for name in running.front.on_gap(heard, fresh, ctx.now) {
            ctx.trace(|| format!("{name} is of unknown fate"));
            if running.waiting.remove(&name).is_some() {
                ctx.clients.outstanding -= 1;
                ctx.count("fate unknown after a wipe", true);
            }
        }
    }

    /// The learner has come further, or begins again: whoever needs to know of the voters is told.
    fn on_membership(&mut self, ctx: &mut Context) {
        let Some(running) = self.running.as_mut() else { return };
        let Some(role) = running.learner.as_mut() else { return };
        running.membership = role.applied.machine.membership().clone();
        role.learner.on_members(running.membership.members().keys().copied());
        if let Some(leadership) = running.leadership.as_mut() {
            leadership.on_learned(role.learner.chosen());
            leadership.on_applied(&running.membership);
        }
        running.votes.on_applied(running.membership.configurations().clone());
        let read = running.reader.on_applied(running.membership.configurations().clone(), ctx.now);
        let again = read.iter().any(|effect| matches!(effect, reader::Effect::Send(_)));
        ctx.count("read asked again after a change of voters", again);
        self.on_reader(read, ctx);
    }

    /// A checkpoint of another replica arrives, or does not.
    pub fn on_install(&mut self, life: u64, checkpoint: Option<Applied>, ctx: &mut Context) {
        let Some(running) = self.running.as_mut() else { return };
        let Some(role) = running.learner.as_mut().filter(|role| role.life == life) else { return };
        let Some(checkpoint) = checkpoint.filter(|c| c.machine.applied() > role.learner.chosen()) else {
            role.learner.on_not_installed(ctx.now);
            return;
        };
        let bytes = checkpoint.machine.encode(Answer::encode);
        let machine: Machine<Answer> = Machine::decode(bytes, Answer::decode).expect("we wrote it");
        assert_eq!(machine, checkpoint.machine, "checkpoints survive their encoding");
        let prefix = machine.applied();
        ctx.count("checkpoint installed", true);
        ctx.trace(|| format!("{} installs a checkpoint of {prefix}", self.id));
        role.applied = checkpoint;
        for name in running.front.names() {
            if machine.has_applied(name) {
                ctx.count("answer found in a checkpoint", true);
                running.front.on_applied(name, ctx.now);
                running.answer(name, machine.answer(name).copied(), ctx);
            }
        }
        let role = running.learner.as_mut().expect("looked at above");
        let effects = role.learner.on_installed(prefix, ctx.now);
        self.let_go(machine.generation(self.id), ctx);
        self.on_membership(ctx);
        self.on_learned(effects, ctx);
    }

    /// The store becomes durable as it stands, and the acceptor may forget some of what that covers.
    pub fn on_checkpoint(&mut self, ctx: &mut Context) {
        let Some(running) = self.running.as_mut() else { return };
        if let Some(role) = running.learner.as_ref() {
            self.disk.checkpoint = Some(role.applied.clone());
        }
        if ctx.rng.random_bool(0.7)
            && let Some(role) = running.acceptor.as_mut()
        {
            let upto = Prefix(self.disk.covered().0.saturating_sub(ctx.rng.random_range(0..8)));
            let trimmed = role.acceptor.trim(upto);
            ctx.count("log trimmed", trimmed.is_some());
            self.on_written(trimmed.into_iter().collect(), ctx);
        }
    }
}

impl Running {
    fn waiting_at_front(&self, name: CommandId) -> bool {
        self.front.names().contains(&name)
    }

    /// If a client waits for this command, here is its answer.
    fn answer(&mut self, name: CommandId, answer: Option<Answer>, ctx: &mut Context) {
        let Some(request) = self.waiting.remove(&name) else { return };
        ctx.clients.outstanding -= 1;
        let Some(answer) = answer else {
            hold!(ctx.oracle.was_removed(name.origin), "answers are kept", "{name} is waited for");
            return ctx.count("answer lost by a removed member", true);
        };
        ctx.oracle.on_answered(request, answer);
        ctx.count("write answered", true);
    }
}

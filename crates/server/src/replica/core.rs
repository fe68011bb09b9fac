//! The core: one thread on which everything meets that must never wait for a disk.
//!
//! A turn takes all that arrived, lets proposer, reader and front look at it, and only then sends what they
//! have to say: what came in together goes out together. Messages to this replica itself are delivered within
//! the turn.

use super::forming::Forming;
use super::learner;
use super::mailbox::TaskMailbox;
use super::observation::Observation;
use super::roles::Supervisor;
use super::shared::{ReadWaiter, Shared, weight, weight_of};
use super::status::PeerStatus;
use super::upkeep::Upkeep;
use super::{Applied, CoreInput, Role};
use crate::peers::Transport;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use synod_paxos::leadership::{self, Leadership};
use synod_paxos::membership::Membership;
use synod_paxos::message::{Chosen, Message, Outgoing, Progress};
use synod_paxos::mutants::{Mutant, is};
use synod_paxos::proposer::Proposer;
use synod_paxos::reader::{self, Reader, Ticket};
use synod_paxos::types::{Ballot, NodeId, Prefix, Time};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

/// How long a read question may stay unanswered.
const READ_RETRY: Duration = Duration::from_millis(50);

/// How often replicas tell each other where they stand.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// A replica that is behind may lead all the same once nobody has led, and nothing has moved here, for so long.
const STUCK_AFTER: Duration = Duration::from_millis(1_000);

/// A replica this many slots behind leaves leading to others.
const NEAR: u64 = 16;

/// How many rounds of messages to itself a turn may take before it lets others in.
const LOCAL_ROUNDS: usize = 64;

/// Everything the core thread owns.
pub(crate) struct Core {
    shared: Arc<Shared>,
    roles: Supervisor,
    forming: Forming,
    upkeep: Upkeep,
    leadership: Option<Leadership>,
    reader: Option<Reader>,
    readers: BTreeMap<Ticket, Vec<ReadWaiter>>,
    /// As applied here; none before the learner's first word.
    membership: Option<Membership>,
    /// Who can be reached.
    connected: BTreeSet<NodeId>,
    /// Where the others stand, and since when they are known to.
    progress: BTreeMap<NodeId, (Progress, Time)>,
    /// Messages to this replica itself.
    local: VecDeque<Message>,
    /// The highest ballot that the front was told of.
    front_leader: Option<Ballot>,
    /// The last word of a leader that this life of the learner was told.
    announced: Option<Chosen>,
    /// Somebody here waits until more is applied.
    eager: bool,
    /// What is put in quietly calls this core: somebody here waits, or a vote of the acceptor beside it decides.
    attentive: bool,
    /// The highest trim point that any other acceptor has told.
    trimmed_elsewhere: Prefix,
    /// How far this replica had applied when that last changed.
    moved: (Prefix, Time),
    chance: ChaCha8Rng,
    told_progress: Time,
    leader: Option<Ballot>,
    stopping: Option<Stopping>,
}

/// A clean end under way.
struct Stopping {
    done: Option<oneshot::Sender<()>>,
    deadline: Time,
}

impl Core {
    pub(crate) fn new(shared: Arc<Shared>, forming: Forming) -> Core {
        Core {
            roles: Supervisor::new(Arc::clone(&shared)),
            upkeep: Upkeep::new(),
            forming,
            leadership: None,
            reader: None,
            readers: BTreeMap::new(),
            membership: None,
            connected: BTreeSet::new(),
            progress: BTreeMap::new(),
            local: VecDeque::new(),
            front_leader: None,
            announced: None,
            eager: false,
            attentive: false,
            trimmed_elsewhere: Prefix::EMPTY,
            moved: (Prefix::EMPTY, Time::default()),
            chance: ChaCha8Rng::seed_from_u64(shared.host.random()),
            told_progress: Time::default(),
            leader: None,
            stopping: None,
            shared,
        }
    }

    /// Runs until the replica is shut down.
    pub(crate) async fn run(mut self, tick: Duration, transport: Arc<Transport>) {
        let mut ticks = tokio::time::interval(tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shared = Arc::clone(&self.shared);
        let mailbox: &TaskMailbox<CoreInput> = &shared.core;
        loop {
            let ticked = tokio::select! {
                () = mailbox.arrived() => false,
                _ = ticks.tick() => true,
            };
            self.turn(ticked);
            if self.may_stop() {
                return self.stop(&transport).await;
            }
        }
    }

    pub(crate) fn turn(&mut self, ticked: bool) {
        for input in self.shared.core.take() {
            self.handle(input);
        }
        if ticked {
            self.tick();
        }
        self.flush();
        for _ in 0..LOCAL_ROUNDS {
            if self.local.is_empty() {
                break;
            }
            for message in std::mem::take(&mut self.local) {
                self.dispatch(self.shared.node, message);
            }
            self.flush();
        }
        if !self.local.is_empty() {
            self.shared.core.wake();
        }
        self.say_whether_eager();
    }

    /// That more is applied is worth a turn of its own if a read waits for it, or commands for the window; that the
    /// acceptor here has accepted something, if that decides it.
    fn say_whether_eager(&mut self) {
        let proposer = self.leadership.as_ref().map(Leadership::proposer);
        let reads = self.reader.as_ref().is_some_and(Reader::waiting);
        let commands = proposer.is_some_and(|proposer| proposer.queued() > 0);
        let eager = reads || commands || self.stopping.is_some();
        if !std::mem::replace(&mut self.eager, eager) && eager {
            self.shared.call_learner();
        }
        let attentive = eager || proposer.is_some_and(Proposer::awaits_own_vote);
        if std::mem::replace(&mut self.attentive, attentive) != attentive {
            self.shared.core.set_eager(attentive);
        }
    }

    fn handle(&mut self, input: CoreInput) {
        match input {
            CoreInput::Peer { from, messages } => {
                for message in messages {
                    self.dispatch(from, message);
                }
            }
            // At once, like what comes from others: the first majority to accept is remembered.
            CoreInput::Local(messages) => {
                for message in messages {
                    self.dispatch(self.shared.node, message);
                }
            }
            CoreInput::Connected(node) => {
                tracing::info!(peer = %node, "connected");
                self.connected.insert(node);
                self.shared.tell_learner_surely(learner::Input::Connected { peer: node, up: true });
                if self.leader.is_some_and(|ballot| ballot.node == node) {
                    self.shared.desk().front.resend();
                }
            }
            CoreInput::Disconnected(node) => {
                tracing::info!(peer = %node, "disconnected");
                self.connected.remove(&node);
                self.shared.tell_learner_surely(learner::Input::Connected { peer: node, up: false });
                self.lead(|leadership, now| leadership.on_disconnected(node, now));
            }
            CoreInput::Applied(applied) => self.on_applied(applied),
            CoreInput::Durable { life, prefix } => {
                if self.roles.is_current(Role::Learner, life) {
                    self.on_durable(prefix);
                }
            }
            CoreInput::Install { life, from } => {
                if self.roles.is_current(Role::Learner, life) {
                    super::inbox::fetch_checkpoint(&self.shared, from);
                }
            }
            CoreInput::AcceptorUp { life, voter } => {
                self.roles.on_acceptor_up(life, voter);
                self.shared.trim_acceptor(self.upkeep.durable); // it may have missed that while it was down
            }
            CoreInput::LearnerUp { life, applied, durable } => {
                self.announced = None;
                if self.roles.on_learner_up(life) {
                    for &peer in &self.connected {
                        self.shared.tell_learner_surely(learner::Input::Connected { peer, up: true });
                    }
                    self.on_durable(durable);
                    self.shared.vouch(applied);
                }
            }
            CoreInput::Ended { role, life, error } => self.roles.on_ended(role, life, error),
            CoreInput::Fault(fault) => {
                self.roles.on_fault(fault, self.shared.now());
                self.follow_proposer_role();
            }
            CoreInput::Random(faults) => self.roles.on_random(faults, self.shared.now()),
            CoreInput::Shutdown(done) => self.begin_stopping(done),
        }
    }

    /// Where a message belongs. Those that tell who leads go to everybody who forwards to the leader.
    fn dispatch(&mut self, from: NodeId, message: Message) {
        self.shared.observe(&Observation::Received { from, message: &message });
        match &message {
            Message::Prepare { .. } => {
                self.shared.tell_acceptor(from, message.clone());
                self.tell_proposer(from, message);
            }
            Message::Accept { ballot, slot, value, chosen, .. } => {
                let (ballot, slot, value, chosen) = (*ballot, *slot, value.clone(), *chosen);
                self.shared.tell_acceptor(from, message.clone());
                let weight = weight(&message);
                let accept = learner::Input::Accept { ballot, slot, value, chosen };
                // A proposal alone is nothing to apply. Nor is a word that rides along urgent: where somebody waits for
                // what it says, the leader says it by itself.
                let news = chosen.is_some_and(|word| self.is_news(word));
                if news && self.eager {
                    self.shared.tell_learner(accept, weight);
                } else {
                    self.shared.tell_learner_quietly(accept, weight);
                }
                self.tell_front(ballot);
                self.tell_proposer(from, message);
            }
            Message::Chosen(word) => {
                self.shared.tell_acceptor(from, message.clone());
                self.tell_chosen(*word);
                self.tell_front(word.ballot);
                self.tell_proposer(from, message);
            }
            Message::Learn { ballot, .. } => {
                let ballot = *ballot;
                self.shared.tell_learner(
                    learner::Input::Message { from, message: message.clone() },
                    weight(&message),
                );
                self.tell_front(ballot);
                self.tell_proposer(from, message);
            }
            Message::Heartbeat { ballot, chosen, .. } => {
                if let Some(word) = chosen {
                    self.tell_chosen(*word);
                }
                self.tell_front(*ballot);
                self.tell_proposer(from, message);
            }
            Message::HeartbeatReply { sent, .. } => {
                let round_trip = self.shared.now().since(*sent);
                if let Some(peer) = self.shared.board().peers.get_mut(&from) {
                    peer.round_trip = Some(round_trip);
                }
                self.tell_proposer(from, message);
            }
            Message::Abdicate { ballot } => {
                self.front_leader = None;
                self.shared.desk().front.on_abdicated(*ballot);
                self.tell_proposer(from, message);
            }
            Message::Fetch { .. } | Message::Entries { .. } | Message::TakeCheckpoint { .. } => {
                let weight = weight(&message);
                self.shared.tell_learner(learner::Input::Message { from, message }, weight);
            }
            Message::Progress(progress) => {
                self.progress.insert(from, (*progress, self.shared.now()));
                self.trimmed_elsewhere = self.trimmed_elsewhere.max(progress.trimmed);
                self.shared.tell_learner(learner::Input::Message { from, message }, weight_of(0));
            }
            Message::ReadQuery { question } => {
                self.lead(|leadership, _| {
                    leadership.on_reader(from);
                    Vec::new()
                });
                // Answered from what the acceptor shows, without waiting for its disk.
                if let Some(view) = self.shared.acceptor_view() {
                    let (question, voter, accepted) = (*question, view.voter, view.highest);
                    self.send(vec![from], Message::ReadAnswer { question, voter, accepted });
                }
            }
            Message::ReadAnswer { question, voter, accepted } => {
                let now = self.shared.now();
                if let Some(reader) = &mut self.reader {
                    let effects = reader.on_answer(*question, *voter, *accepted, now);
                    self.after_reading(effects);
                }
            }
            Message::Accepted { ballot, slot, voter } if ballot.node != self.shared.node => {
                if let Some(counted) = self.shared.count(*ballot, *slot, *voter) {
                    self.send(vec![counted.to], counted.message);
                }
            }
            Message::Promise { .. }
            | Message::Accepted { .. }
            | Message::Counted { .. }
            | Message::Refused { .. }
            | Message::Submit { .. }
            | Message::Decide { .. }
            | Message::HandOver { .. }
            | Message::LeaderQuery { .. }
            | Message::LeaderReply { .. } => self.tell_proposer(from, message),
        }
    }

    /// A leader's word, for the learner. Without anybody here who waits for it, it can lie until the learner looks.
    fn tell_chosen(&mut self, word: Chosen) {
        if !self.is_news(word) {
            return;
        }
        let input = learner::Input::Chosen(word);
        if self.eager || self.shared.desk().waiting() > 0 {
            self.shared.tell_learner(input, weight_of(0));
        } else {
            self.shared.tell_learner_quietly(input, weight_of(0));
        }
    }

    /// Does this say more than the learner was told last?
    fn is_news(&mut self, word: Chosen) -> bool {
        let news = self.announced.is_none_or(|old| (old.ballot, old.upto) < (word.ballot, word.upto));
        if news {
            self.announced = Some(word);
        }
        news
    }

    /// Who leads; the front's lock is taken only for news.
    fn tell_front(&mut self, ballot: Ballot) {
        if self.front_leader.is_none_or(|known| known < ballot) {
            self.front_leader = Some(ballot);
            self.shared.desk().front.on_leader(ballot);
        }
    }

    fn tell_proposer(&mut self, from: NodeId, message: Message) {
        self.lead(|leadership, now| leadership.on_message(from, message, now));
    }

    /// Lets the proposer role do something, and carries out what it asks for. A panic in it ends this life of
    /// the role and nothing else.
    fn lead(&mut self, act: impl FnOnce(&mut Leadership, Time) -> Vec<leadership::Effect>) {
        let now = self.shared.now();
        let Some(leadership) = &mut self.leadership else { return };
        match catch_unwind(AssertUnwindSafe(|| act(leadership, now))) {
            Ok(effects) => {
                for effect in effects {
                    match effect {
                        leadership::Effect::Send { to, message } => self.send(to, message),
                        leadership::Effect::Leads(ballot) => {
                            self.shared.observe(&Observation::Leads { ballot, begins: true });
                            self.tell_front(ballot);
                            self.shared.core.wake(); // what the front holds back goes to the new leader
                            self.shared.event(
                                "leader",
                                format!("leads with ballot {}", self.shared.config.show(ballot)),
                            );
                        }
                        leadership::Effect::Follows(ballot) => {
                            self.shared.observe(&Observation::Leads { ballot, begins: false });
                            self.shared.event(
                                "leader",
                                format!("no longer leads with ballot {}", self.shared.config.show(ballot)),
                            );
                        }
                    }
                }
            }
            Err(_) => {
                self.leadership = None;
                self.roles.on_proposer_panic(now);
            }
        }
    }

    fn send(&mut self, mut to: Vec<NodeId>, message: Message) {
        self.shared.observe(&Observation::Sent { to: &to, message: &message });
        let all = to.len();
        to.retain(|&node| node != self.shared.node);
        self.shared.send_peers(&to, &message);
        if to.len() < all {
            self.local.push_back(message);
        }
    }

    fn on_applied(&mut self, applied: Applied) {
        if !self.roles.is_current(Role::Learner, applied.life) {
            return; // from a life that is over
        }
        let now = self.shared.now();
        let Applied { membership, chosen, known, log_start, .. } = applied;
        if let Some(leadership) = &mut self.leadership {
            leadership.on_applied(&membership);
            leadership.on_learned(chosen);
        }
        let configurations = membership.configurations().clone();
        if is(Mutant::TrimsTooEarly) {
            self.shared.trim_acceptor(configurations.applied());
        }
        let effects = match &mut self.reader {
            Some(reader) => reader.on_applied(configurations, now),
            None => {
                self.reader =
                    Some(Reader::new(self.shared.home.fresh_generation(), READ_RETRY, configurations));
                Vec::new()
            }
        };
        self.after_reading(effects);
        let changed = self.membership.as_ref().is_none_or(|old| old.members() != membership.members());
        if changed {
            self.on_members(&membership);
        }
        self.membership = Some(membership);
        let mut board = self.shared.board();
        board.chosen = chosen;
        board.known = known;
        board.log_start = log_start;
        drop(board);
        self.follow_proposer_role();
    }

    fn on_members(&mut self, membership: &Membership) {
        let others = membership.members().iter().filter(|(node, _)| **node != self.shared.node);
        let urls: BTreeMap<NodeId, Vec<String>> =
            others.map(|(&node, member)| (node, member.peer_urls.clone())).collect();
        let mut board = self.shared.board();
        board.peers.retain(|node, _| urls.contains_key(node));
        for &node in urls.keys() {
            board.peers.entry(node).or_insert_with(|| PeerStatus {
                node,
                connected: false,
                last_heard: None,
                round_trip: None,
                chosen: Prefix::EMPTY,
                applied: Prefix::EMPTY,
            });
        }
        drop(board);
        if let Some(links) = self.shared.links.get() {
            links.set_peers(urls);
        }
        self.forming.set_members(membership.members().keys().copied().collect());
    }

    fn on_durable(&mut self, durable: Prefix) {
        self.shared.observe(&Observation::Covered { durable });
        self.shared.board().checkpoint = durable;
        self.upkeep.durable = durable;
        self.shared.trim_acceptor(durable);
    }

    fn tick(&mut self) {
        let now = self.shared.now();
        for belonging in self.forming.poll(&self.shared) {
            if let Some(links) = self.shared.links.get() {
                links.set_cluster(belonging.genesis.cluster);
            }
            let _ = self.shared.genesis.set(belonging.genesis.clone()); // a server takes part in one cluster
            self.roles.on_cluster(&belonging);
        }
        self.roles.tick(now);
        self.follow_proposer_role();
        let random = self.chance.random();
        let eligible = self.may_lead(now);
        self.lead(|leadership, now| {
            leadership.set_eligible(eligible);
            leadership.tick(now, random)
        });
        let effects = self.reader.as_mut().map(|reader| reader.tick(now)).unwrap_or_default();
        self.after_reading(effects);
        self.shared.desk().front.tick(now);
        let waits = self.shared.desk().front.stalled_since();
        if let Some(waits) = waits {
            let moved = self.moved.1;
            self.lead(|leadership, now| leadership.on_stalled(waits, moved, now));
        }
        if now.since(self.told_progress) >= PROGRESS_EVERY {
            self.told_progress = now;
            self.tell_progress();
            self.keep_up(now);
        }
        self.note_leader(now);
    }

    /// Could this replica propose? Only with a learner, and not while that is far behind others; unless nobody
    /// leads and it does not get further, because then nobody may be left to catch up from, while the
    /// acceptors hold everything.
    fn may_lead(&mut self, now: Time) -> bool {
        let applied = self.reader_applied();
        if applied != self.moved.0 {
            self.moved = (applied, now);
        }
        let (known, leader) = {
            let board = self.shared.board();
            (board.known, board.leader)
        };
        let near = known.0.saturating_sub(applied.0) < NEAR;
        let stuck = leader.is_none() && now.since(self.moved.1) >= STUCK_AFTER;
        self.roles.is_up(Role::Learner) && self.stopping.is_none() && (near || stuck)
    }

    /// Sends what waits in the reader, the front and the proposer.
    fn flush(&mut self) {
        let arrived =
            std::mem::take(&mut *self.shared.reads.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        let now = self.shared.now();
        if let Some(reader) = &mut self.reader {
            if !arrived.is_empty() {
                let ticket = reader.on_read();
                self.readers.insert(ticket, arrived);
            }
            let effects = reader.flush(now);
            self.after_reading(effects);
        } else {
            let mut waiting = self.shared.reads.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // Until the learner has said who votes; clients whose patience ended have left.
            waiting.extend(arrived.into_iter().filter(|waiter| !waiter.is_closed()));
        }
        let told = self.shared.desk().front.flush();
        for (leader, message) in told {
            self.send(vec![leader], message);
        }
        self.lead(Leadership::flush);
    }

    fn after_reading(&mut self, effects: Vec<reader::Effect>) {
        for effect in effects {
            match effect {
                reader::Effect::Send(Outgoing { to, message }) => self.send(vec![to], message),
                reader::Effect::Ready(ticket) => {
                    let later = self.readers.split_off(&Ticket(ticket.0 + 1));
                    let ready = std::mem::replace(&mut self.readers, later);
                    let applied = self.reader_applied();
                    for waiter in ready.into_values().flatten() {
                        let _ = waiter.send(Ok(applied)); // the client may have left
                    }
                }
                reader::Effect::Decide(slot) => {
                    let leader = self.shared.desk().front.leader();
                    if let Some(leader) = leader {
                        self.send(vec![leader], Message::Decide { slot });
                    }
                }
            }
        }
    }

    fn reader_applied(&self) -> Prefix {
        self.reader.as_ref().map_or(Prefix::EMPTY, Reader::applied)
    }

    /// Starts or drops the proposer as its role is up or down. It needs to know who votes.
    fn follow_proposer_role(&mut self) {
        if !self.roles.is_up(Role::Proposer) {
            if self.leadership.take().is_some() {
                self.leader = None;
            }
            return;
        }
        if let (None, Some(membership)) = (&self.leadership, &self.membership) {
            self.leadership = Some(Leadership::new(
                self.shared.node,
                self.shared.home.fresh_generation(),
                self.shared.config.limits.proposer,
                self.shared.config.patience,
                membership,
                self.shared.now(),
            ));
        }
    }

    fn tell_progress(&mut self) {
        let (chosen, checkpoint) = {
            let board = self.shared.board();
            (board.chosen, board.checkpoint)
        };
        let trimmed = self.shared.acceptor_view().map(|view| view.trimmed).unwrap_or_default();
        let applied = self.reader_applied();
        let Some(membership) = &self.membership else { return };
        let to = membership.members().keys().copied().filter(|&node| node != self.shared.node).collect();
        self.send(to, Message::Progress(Progress { chosen, applied, durable: checkpoint, trimmed }));
    }

    /// What a replica sees to by itself now and then: that it votes, and that clients can find it.
    fn keep_up(&mut self, now: Time) {
        self.readers.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.is_closed()); // clients whose patience ended
            !waiters.is_empty()
        });
        if let Some(membership) = self.membership.as_ref().filter(|_| self.roles.is_up(Role::Learner)) {
            self.forming.on_members(&self.shared, membership);
            // Trim points count once a majority has told theirs, this replica included.
            let recent = |(_, at): &&(Progress, Time)| now.since(*at) < Duration::from_secs(2);
            let told = self.progress.values().filter(recent).count();
            let enough = told + 1 >= membership.configurations().newest().majority();
            let trimmed = enough.then_some(self.trimmed_elsewhere);
            self.upkeep.run(&self.shared, membership, trimmed, now);
        }
        let mut board = self.shared.board();
        if let Some(links) = self.shared.links.get() {
            for peer in board.peers.values_mut() {
                (peer.connected, peer.last_heard) = links.health(peer.node);
                if let Some((progress, _)) = self.progress.get(&peer.node) {
                    peer.chosen = progress.chosen;
                    peer.applied = progress.applied;
                }
            }
        }
        board.formation = self.forming.describe();
        board.cluster = self.forming.cluster();
        board.problem = self.forming.problem();
        self.roles.show(&mut board);
    }

    fn note_leader(&mut self, now: Time) {
        let leader = self.leadership.as_ref().and_then(|leadership| leadership.leader(now));
        let mut board = self.shared.board();
        if let Some(ballot) = leader.filter(|&ballot| board.leader.is_none_or(|old| old < ballot)) {
            board.leader_changes += 1;
            if ballot.node != self.shared.node && self.leader.is_none_or(|old| old.node != ballot.node) {
                drop(board);
                let name = self.shared.config.plan_name(ballot.node);
                self.shared
                    .event("leader", format!("follows {name}, ballot {}", self.shared.config.show(ballot)));
                board = self.shared.board();
            }
        }
        self.leader = leader.or(self.leader);
        board.leader = leader;
    }

    // -- a clean end -------------------------------------------------------------------------------

    fn begin_stopping(&mut self, done: oneshot::Sender<()>) {
        let now = self.shared.now();
        self.shared.desk().close();
        self.lead(Leadership::hand_over);
        self.stopping = Some(Stopping { done: Some(done), deadline: now + Duration::from_secs(2) });
    }

    /// Was it asked to stop, and is there nothing left to wait for?
    pub(crate) fn may_stop(&self) -> bool {
        let Some(stopping) = &self.stopping else { return false };
        let leads =
            self.leadership.as_ref().is_some_and(|leadership| leadership.proposer().leads().is_some());
        let busy = leads || self.shared.desk().waiting() > 0;
        !busy || self.shared.now() >= stopping.deadline
    }

    async fn stop(mut self, transport: &Transport) {
        self.leadership = None;
        self.shared.desk().dismiss();
        self.readers.clear();
        self.roles.stop_all().await;
        transport.shutdown().await;
        if self.roles.all_ended() {
            self.shared.home.release(); // otherwise the end of the process does that
        }
        self.shared.reads.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
        if let Some(done) = self.stopping.take().and_then(|stopping| stopping.done) {
            let _ = done.send(()); // whoever asked may be gone
        }
    }
}

//! What the parts of a replica share, each piece under a lock of its own that is held for moments only.

use super::desk::Desk;
use super::faults::{FaultError, LinkFault, RandomFaults, RoleFault};
use super::forward::Forwarding;
use super::handle::{Answer, Consistency, RequestError};
use super::home::Home;
use super::host::{Host, Links};
use super::mailbox::{Mailbox, TaskMailbox};
use super::observation::Observation;
use super::status::{Event, PeerStatus, ReplicaStatus, Role, RoleState, RoleStatus};
use super::{AcceptorView, CoreInput, ReplicaConfig, State, acceptor, learner};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use synod_kv::StateHash;
use synod_paxos::membership::Genesis;
use synod_paxos::message::{Message, Outgoing};
use synod_paxos::types::{Ballot, ClusterId, CommandId, Generation, NodeId, Prefix, Slot, Time, VoterId};
use synod_paxos::value::Action;
use synod_paxos::votes::Votes;
use tokio::sync::{broadcast, oneshot, watch};

/// How many slots' state hashes are remembered.
const HASHES: usize = 8192;

/// How many reads may wait for the core.
const READS: usize = 50_000;

/// How many syncs the percentile looks back on.
const SYNCS: usize = 512;

/// What the core shows of itself and of the others.
#[derive(Default)]
pub(crate) struct Board {
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) formation: String,
    pub(crate) roles: BTreeMap<Role, RoleStatus>,
    pub(crate) leader: Option<Ballot>,
    pub(crate) leader_changes: u64,
    pub(crate) chosen: Prefix,
    pub(crate) known: Prefix,
    pub(crate) log_start: Option<Slot>,
    pub(crate) checkpoint: Prefix,
    pub(crate) peers: BTreeMap<NodeId, PeerStatus>,
    pub(crate) problem: Option<String>,
}

/// One role's way in, while it lives.
pub(crate) type Way<T> = Mutex<Option<Arc<Mailbox<T>>>>;

/// A client that waits for a read. It is told how far the store must be applied.
pub(crate) type ReadWaiter = oneshot::Sender<Result<Prefix, RequestError>>;

/// See the module.
pub(crate) struct Shared {
    pub(crate) config: ReplicaConfig,
    pub(crate) node: NodeId,
    pub(crate) home: Home,
    pub(crate) core: TaskMailbox<CoreInput>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) links: OnceLock<Arc<dyn Links>>,
    pub(crate) genesis: OnceLock<Genesis>,
    pub(crate) desk: Mutex<Desk>,
    pub(crate) forwarding: Forwarding,
    pub(crate) reads: Mutex<Vec<ReadWaiter>>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) board: Mutex<Board>,
    votes: Mutex<Votes>,
    pub(crate) acceptor: Way<acceptor::Input>,
    pub(crate) learner: Way<learner::Input>,
    state: RwLock<Option<State>>,
    /// Changes whenever `state` does.
    applied: watch::Sender<Prefix>,
    acceptor_view: Mutex<Option<AcceptorView>>,
    hashes: Mutex<VecDeque<(Slot, StateHash)>>,
    syncs: Mutex<VecDeque<Duration>>,
    started: Time,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A role that panics is restarted by its supervisor; what it held is whole, since every critical
    // section here leaves it so at each step that can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(config: ReplicaConfig, home: Home, host: Arc<dyn Host>) -> Shared {
        let started = host.now();
        let (events, _) = broadcast::channel(1024);
        Shared {
            node: config.node,
            desk: Mutex::new(Desk::new(config.node, home.generation(), config.limits.front, started)),
            config,
            home,
            core: TaskMailbox::new(),
            host,
            links: OnceLock::new(),
            genesis: OnceLock::new(),
            forwarding: Forwarding::default(),
            reads: Mutex::new(Vec::new()),
            events,
            board: Mutex::new(Board::default()),
            votes: Mutex::default(),
            acceptor: Mutex::new(None),
            learner: Mutex::new(None),
            state: RwLock::new(None),
            applied: watch::Sender::new(Prefix::EMPTY),
            acceptor_view: Mutex::new(None),
            hashes: Mutex::new(VecDeque::new()),
            syncs: Mutex::new(VecDeque::new()),
            started,
        }
    }

    /// The time on this replica's monotonic clock.
    pub(crate) fn now(&self) -> Time {
        self.host.now()
    }

    pub(crate) fn desk(&self) -> MutexGuard<'_, Desk> {
        lock(&self.desk)
    }

    pub(crate) fn board(&self) -> MutexGuard<'_, Board> {
        lock(&self.board)
    }

    // -- clients -----------------------------------------------------------------------------------

    pub(crate) async fn propose(&self, action: Action) -> Result<Answer, RequestError> {
        let answer = self.take_in(action)?;
        self.forward().await;
        match tokio::time::timeout(self.config.request_timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(RequestError::Stopped),
            Err(_) => Err(self.why_late()),
        }
    }

    /// Takes a command in, to be decided and applied. Its answer comes once it is.
    pub(crate) fn submit(
        &self,
        action: Action,
    ) -> Result<oneshot::Receiver<Result<Answer, RequestError>>, RequestError> {
        let answer = self.take_in(action)?;
        self.core.wake();
        Ok(answer)
    }

    fn take_in(
        &self,
        action: Action,
    ) -> Result<oneshot::Receiver<Result<Answer, RequestError>>, RequestError> {
        let (waiter, answer) = oneshot::channel();
        self.desk().submit(action, Some(waiter), self.now())?;
        Ok(answer)
    }

    pub(crate) async fn read<T>(
        &self,
        consistency: Consistency,
        read: impl FnOnce(&synod_kv::Store) -> T,
    ) -> Result<T, RequestError> {
        let patience = self.config.request_timeout;
        tokio::time::timeout(patience, self.read_when_ready(consistency, read))
            .await
            .unwrap_or_else(|_| Err(self.why_late()))
    }

    async fn read_when_ready<T>(
        &self,
        consistency: Consistency,
        read: impl FnOnce(&synod_kv::Store) -> T,
    ) -> Result<T, RequestError> {
        let need = match consistency {
            Consistency::Serializable => Prefix::EMPTY,
            Consistency::Linearizable => self.ask_to_read()?.await.map_err(|_| RequestError::Stopped)??,
        };
        // The learner may have failed since, and come back with less: wait until it is there again.
        let mut applied = self.applied.subscribe();
        let mut read = Some(read);
        loop {
            applied.mark_unchanged();
            let looked = self.look(need, |store| read.take().map(|read| read(store)));
            if let Some(Some(seen)) = looked {
                return Ok(seen);
            }
            applied.changed().await.map_err(|_| RequestError::Stopped)?;
        }
    }

    /// Asks how far the store must be applied before a read that arrives now may be answered (rule R8).
    pub(crate) fn ask_to_read(
        &self,
    ) -> Result<oneshot::Receiver<Result<Prefix, RequestError>>, RequestError> {
        let (waiter, ready) = oneshot::channel();
        {
            let mut reads = lock(&self.reads);
            if reads.len() >= READS {
                return Err(RequestError::Busy);
            }
            reads.push(waiter);
        }
        self.core.wake();
        Ok(ready)
    }

    /// Looks at the store, if it is applied that far.
    pub(crate) fn look<T>(&self, need: Prefix, read: impl FnOnce(&synod_kv::Store) -> T) -> Option<T> {
        let guard = self.read_state();
        let state = guard.as_ref().filter(|state| state.machine.applied() >= need)?;
        Some(read(&state.store))
    }

    fn why_late(&self) -> RequestError {
        if self.board().leader.is_none() { RequestError::NoLeader } else { RequestError::TimedOut }
    }

    // -- the applied state -------------------------------------------------------------------------

    pub(crate) fn read_state(&self) -> RwLockReadGuard<'_, Option<State>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write_state(&self) -> RwLockWriteGuard<'_, Option<State>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A learner's new life, or a checkpoint that arrived: from now on everybody reads this.
    pub(crate) fn show_state(&self, state: State) {
        let applied = state.machine.applied();
        self.desk().settle(&state.machine, |heard| self.home.generation_above(heard), self.now());
        lock(&self.hashes).clear();
        self.remember_hash(Slot(applied.0), state.store.state_hash());
        let old = self.write_state().replace(state);
        drop(old); // not under the lock: a large store takes its time
        self.applied.send_replace(applied);
    }

    /// The learner's memory is gone.
    pub(crate) fn hide_state(&self) {
        let old = self.write_state().take();
        drop(old);
        self.applied.send_replace(Prefix::EMPTY);
    }

    pub(crate) fn applied(&self) -> Prefix {
        learner::applied_in(self.read_state().as_ref())
    }

    /// Answers commands of this replica's clients, and heeds a newer life of its front.
    pub(crate) fn answer(
        &self,
        answers: Vec<(CommandId, Result<Answer, RequestError>)>,
        heard: Option<Generation>,
    ) {
        self.applied.send_replace(self.applied());
        let now = self.now();
        let mut told = Vec::with_capacity(answers.len());
        let mut desk = self.desk();
        for (id, answer) in answers {
            told.extend(desk.answer(id, now).map(|waiter| (waiter, answer)));
        }
        if let Some(heard) = heard.filter(|&heard| heard > desk.front.generation()) {
            desk.on_generation(heard, self.home.generation_above(heard), now);
            self.core.wake();
        }
        drop(desk);
        // Waking a client is not done under the lock that all clients need.
        for (waiter, answer) in told {
            let _ = waiter.send(answer); // the client may have left
        }
    }

    pub(crate) fn remember_hash(&self, slot: Slot, hash: StateHash) {
        let mut hashes = lock(&self.hashes);
        if hashes.len() >= HASHES {
            hashes.pop_front();
        }
        hashes.push_back((slot, hash));
    }

    pub(crate) fn state_hash_at(&self, slot: Slot) -> Option<StateHash> {
        let hashes = lock(&self.hashes);
        hashes.binary_search_by_key(&slot, |(slot, _)| *slot).ok().map(|at| hashes[at].1)
    }

    // -- the acceptor ------------------------------------------------------------------------------

    pub(crate) fn show_acceptor(&self, view: Option<AcceptorView>) {
        *lock(&self.acceptor_view) = view;
    }

    pub(crate) fn acceptor_view(&self) -> Option<AcceptorView> {
        *lock(&self.acceptor_view)
    }

    pub(crate) fn note_sync(&self, took: Duration) {
        let mut syncs = lock(&self.syncs);
        if syncs.len() >= SYNCS {
            syncs.pop_front();
        }
        syncs.push_back(took);
    }

    // -- messages ----------------------------------------------------------------------------------

    /// Sends a role's message, to this replica itself by way of the core.
    pub(crate) fn send_one(&self, outgoing: Outgoing) {
        self.send_all(vec![outgoing]);
    }

    /// The acceptances that this replica was told of in a leader's place.
    pub(crate) fn votes(&self) -> MutexGuard<'_, Votes> {
        lock(&self.votes)
    }

    /// Counts an acceptance of another's proposal, as that one asked for. The one that makes a majority has the learner
    /// called, because somebody here waits, and the leader told, which is returned.
    pub(crate) fn count(&self, ballot: Ballot, slot: Slot, voter: VoterId) -> Option<Outgoing> {
        if !self.votes().on_accepted(ballot, slot, voter) {
            return None;
        }
        self.tell_learner(learner::Input::Counted { ballot, slot }, weight_of(0));
        Some(Outgoing { to: ballot.node, message: Message::Counted { ballot, slot } })
    }

    /// Sends a role's messages.
    pub(crate) fn send_all(&self, outgoing: Vec<Outgoing>) {
        for Outgoing { to, message } in &outgoing {
            self.observe(&Observation::Sent { to: &[*to], message });
        }
        let (local, others): (Vec<_>, Vec<_>) = outgoing.into_iter().partition(|it| it.to == self.node);
        if let Some(links) = self.links.get().filter(|_| !others.is_empty()) {
            links.send_all(&others);
        }
        // The acceptor's thread counts itself: the core has nothing to add.
        let (counted, local): (Vec<_>, Vec<_>) = local.into_iter().partition(|it| match it.message {
            Message::Accepted { ballot, .. } => ballot.node != self.node,
            _ => false,
        });
        for Outgoing { message, .. } in counted {
            if let Message::Accepted { ballot, slot, voter } = message
                && let Some(counted) = self.count(ballot, slot, voter)
            {
                self.send_one(counted);
            }
        }
        if !local.is_empty() {
            // One's own vote seldom is the last, and can lie until it is or another comes.
            let quietly = local.iter().all(|it| matches!(it.message, Message::Accepted { .. }));
            let local = CoreInput::Local(local.into_iter().map(|it| it.message).collect());
            if quietly { self.core.push_quietly(local) } else { self.core.push(local) }
        }
    }

    /// Sends a message to other replicas.
    pub(crate) fn send_peers(&self, to: &[NodeId], message: &Message) {
        if let Some(links) = self.links.get().filter(|_| !to.is_empty()) {
            links.send(to, message);
        }
    }

    pub(crate) fn observe(&self, observation: &Observation<'_>) {
        self.host.observe(observation);
    }

    pub(crate) fn tell_acceptor(&self, from: NodeId, message: Message) {
        if let Some(mailbox) = lock(&self.acceptor).as_ref() {
            let bytes = weight(&message);
            // A leader's word is recorded with the next group; nobody waits for it.
            let quietly = matches!(message, Message::Chosen(_));
            let input = acceptor::Input::Message { from, message };
            if quietly { mailbox.offer_quietly(input, bytes) } else { mailbox.offer(input, bytes) }
        }
    }

    /// Tells the learner something of about `bytes` bytes.
    pub(crate) fn tell_learner(&self, input: learner::Input, bytes: usize) {
        if let Some(mailbox) = lock(&self.learner).as_ref() {
            mailbox.offer(input, bytes);
        }
    }

    /// As [`Shared::tell_learner`], for what the learner can do nothing with before it hears more, or what nobody here
    /// waits for.
    pub(crate) fn tell_learner_quietly(&self, input: learner::Input, bytes: usize) {
        if let Some(mailbox) = lock(&self.learner).as_ref() {
            mailbox.offer_quietly(input, bytes);
        }
    }

    /// Somebody waits for what the learner was told quietly.
    pub(crate) fn call_learner(&self) {
        if let Some(mailbox) = lock(&self.learner).as_ref() {
            mailbox.call();
        }
    }

    /// As [`Shared::tell_learner`], for what nobody repeats.
    pub(crate) fn tell_learner_surely(&self, input: learner::Input) {
        if let Some(mailbox) = lock(&self.learner).as_ref() {
            mailbox.push(input);
        }
    }

    /// Asks the acceptor's log what it can vouch for behind `applied`.
    pub(crate) fn vouch(&self, applied: Prefix) {
        if let Some(mailbox) = lock(&self.acceptor).as_ref() {
            mailbox.push(acceptor::Input::Vouch { applied });
        }
    }

    /// This replica's durable store covers `durable`.
    pub(crate) fn trim_acceptor(&self, durable: Prefix) {
        if let Some(mailbox) = lock(&self.acceptor).as_ref() {
            mailbox.push(acceptor::Input::Trim(durable));
        }
    }

    /// Has the acceptor confirm its last group on disk.
    pub(crate) fn seal_acceptor(&self) {
        if let Some(mailbox) = lock(&self.acceptor).as_ref() {
            mailbox.push(acceptor::Input::Seal);
        }
    }

    /// Who this replica's acceptor is at present.
    pub(crate) fn voter(&self) -> VoterId {
        VoterId { node: self.node, incarnation: self.home.incarnation() }
    }

    /// Wants a checkpoint, whatever the log's size.
    pub(crate) fn checkpoint_soon(&self) {
        self.tell_learner(learner::Input::Checkpoint, weight_of(0));
    }

    // -- people ------------------------------------------------------------------------------------

    pub(crate) fn event(&self, kind: &'static str, text: String) {
        let unix = self.host.unix();
        self.observe(&Observation::Note { kind, text: &text });
        tracing::info!(kind, text);
        let unix_micros = u64::try_from(unix.as_micros()).unwrap_or(u64::MAX);
        let _ = self.events.send(Event { unix_micros, kind, text }); // nobody may be watching
    }

    pub(crate) fn status(&self) -> ReplicaStatus {
        let view = self.acceptor_view();
        let waiting = self.desk().waiting() as u64;
        let sync_p99 = self.sync_p99();
        let guard = self.read_state();
        let state = guard.as_ref();
        let stats = state.map(|state| state.store.stats()).unwrap_or_default();
        let board = self.board();
        let peers = board.peers.values().cloned();
        ReplicaStatus {
            name: self.config.name.clone(),
            node: self.node,
            cluster: board.cluster,
            formation: board.formation.clone(),
            acceptor: view.map(|view| view.voter),
            roles: board.roles.values().cloned().collect(),
            durable: self.home.is_durable(),
            leader: board.leader,
            chosen: board.chosen,
            known: board.known,
            applied: learner::applied_in(state),
            log_start: board.log_start,
            trimmed: view.map(|view| view.trimmed).unwrap_or_default(),
            checkpoint: board.checkpoint,
            revision: state.map(|state| state.store.revision()).unwrap_or_default(),
            compacted: state.and_then(|state| state.store.compacted()),
            state_hash: state.map(|state| state.store.state_hash()).unwrap_or_default(),
            log_bytes: view.map_or(0, |view| view.log_bytes),
            store_bytes_in_use: stats.bytes_in_use,
            store_bytes: stats.bytes_total,
            sync_p99,
            members: state
                .map(|state| state.machine.membership().members().clone().into_iter().collect())
                .unwrap_or_default(),
            voters: state
                .and_then(|state| state.machine.membership().configurations().proven())
                .map(|configuration| configuration.voters().collect())
                .unwrap_or_default(),
            window: state.map_or(0, |s| s.machine.membership().configurations().window().slots()),
            peers: peers.collect(),
            uptime: self.now().since(self.started),
            problem: board.problem.clone().or_else(|| failed_role(&board)),
            leader_changes: board.leader_changes,
            waiting,
        }
    }

    fn sync_p99(&self) -> Option<Duration> {
        let mut syncs: Vec<Duration> = lock(&self.syncs).iter().copied().collect();
        syncs.sort_unstable();
        syncs.get((syncs.len() * 99 / 100).min(syncs.len().saturating_sub(1))).copied()
    }

    // -- faults ------------------------------------------------------------------------------------

    pub(crate) fn fail_role(&self, fault: RoleFault) -> Result<String, FaultError> {
        self.check_faults_allowed()?;
        let text = match fault {
            RoleFault::Stop { role, memory, restart_after } => {
                let memory = match memory {
                    super::Memory::Keep => "with its memory",
                    super::Memory::Forget => "without its memory",
                };
                let after =
                    restart_after.map_or("until started".into(), |after| format!("for {after:?}, {memory}"));
                format!("{} stopped {after}", role.name())
            }
            RoleFault::Start { role } => format!("{} started", role.name()),
        };
        self.core.push(CoreInput::Fault(fault));
        Ok(text)
    }

    pub(crate) fn fail_links(
        &self,
        peers: &[NodeId],
        fault: Option<LinkFault>,
    ) -> Result<String, FaultError> {
        self.check_faults_allowed()?;
        let Some(links) = self.links.get() else {
            return Err(FaultError::Invalid("this server has no links yet".into()));
        };
        let known: Vec<NodeId> = self.board().peers.keys().copied().collect();
        if let Some(stranger) = peers.iter().find(|node| !known.contains(node)) {
            return Err(FaultError::Invalid(format!("{stranger} is no peer of this server")));
        }
        let peers = if peers.is_empty() { &known[..] } else { peers };
        for &peer in peers {
            links.disturb(peer, fault);
        }
        let names: Vec<String> = peers.iter().map(|peer| self.config.plan_name(*peer)).collect();
        let what = if fault.is_some() { "disturbed" } else { "healed" };
        self.event("link", format!("links to {} {what}", names.join(", ")));
        Ok(format!("links to {} {what}", names.join(", ")))
    }

    pub(crate) fn fail_at_random(&self, faults: Option<RandomFaults>) -> Result<String, FaultError> {
        self.check_faults_allowed()?;
        let text = match &faults {
            Some(faults) if faults.roles.is_empty() => {
                return Err(FaultError::Invalid("name at least one role that shall fail".into()));
            }
            Some(faults) if faults.mean_up.is_zero() || faults.mean_down.is_zero() => {
                return Err(FaultError::Invalid("the mean times must be above zero".into()));
            }
            Some(_) => "roles fail at random from now on",
            None => "no more random faults",
        };
        self.core.push(CoreInput::Random(faults));
        Ok(text.into())
    }

    fn check_faults_allowed(&self) -> Result<(), FaultError> {
        if self.config.allow_faults { Ok(()) } else { Err(FaultError::NotAllowed) }
    }

    pub(crate) async fn shutdown(&self) {
        let (done, stopped) = oneshot::channel();
        self.core.push(CoreInput::Shutdown(done));
        let _ = stopped.await; // an error means the core is gone already
    }
}

/// About how much memory a message takes that carries `bytes` of values.
pub(crate) fn weight_of(bytes: usize) -> usize {
    bytes + 128
}

/// About how much memory a message takes.
pub(crate) fn weight(message: &Message) -> usize {
    match message {
        Message::Accept { value, .. } => weight_of(value.len()),
        Message::Learn { values, .. } | Message::Entries { values, .. } => {
            weight_of(values.iter().map(|value| value.len() + 32).sum())
        }
        _ => weight_of(0),
    }
}

fn failed_role(board: &Board) -> Option<String> {
    board.roles.values().find_map(|role| match &role.state {
        RoleState::Failed(why) => Some(format!("{} failed: {why}", role.role.name())),
        RoleState::Running | RoleState::Stopped => None,
    })
}

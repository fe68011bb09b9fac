//! Drives [`Formation`]: carries its messages, keeps its state durable, and tells the core once there is a
//! cluster to take part in. It stays for good, because members that lost their disk ask those that did not.

use super::observation::Observation;
use super::shared::Shared;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use synod_paxos::formation::{Effect, Formation, FormationMessage, Outgoing};
use synod_paxos::membership::{Genesis, Membership};
use synod_paxos::types::{ClusterId, NodeId, Time, VoterId};

/// How often formation asks again.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// How long to rest after the identity file could not be written.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);

/// A newcomer's trouble. Its former self is a voter still, and dead.
const JOINING: &str = "comes without its memory, and waits for a majority to admit it as a new voter";

/// There is a cluster to take part in.
#[derive(Clone, Debug)]
pub(crate) struct Belonging {
    /// Which.
    pub(crate) genesis: Genesis,
    /// That this server belongs to it is on disk, so its acceptor may speak. Until then it learns, and asks
    /// to be admitted.
    pub(crate) durable: bool,
}

struct State {
    formation: Formation,
    outbox: Vec<Outgoing>,
    belongings: Vec<Belonging>,
    /// The cluster it takes part in, admitted or not.
    genesis: Option<Genesis>,
    joining: bool,
    problem: Option<String>,
    asked: Option<Time>,
    /// Why it says nothing at present.
    broken: Option<Broken>,
}

/// Why formation is silent.
enum Broken {
    /// The identity file could not be written: what formation believes to be durable may not be. It begins again
    /// with what is, as after a restart, once the disk can be written.
    Disk { why: String, at: Time },
    /// What this process learned is another cluster's. Only a restart helps.
    Elsewhere(String),
}

impl Broken {
    fn text(&self) -> &String {
        match self {
            Broken::Disk { why, .. } | Broken::Elsewhere(why) => why,
        }
    }
}

/// See the module. Cheap to clone: the peers' questions are answered from another task.
#[derive(Clone)]
pub(crate) struct Forming {
    state: Arc<Mutex<State>>,
}

impl Forming {
    pub(crate) fn new(shared: &Shared, mut formation: Formation) -> Forming {
        let effects = formation.start();
        let state = State {
            formation,
            outbox: Vec::new(),
            belongings: Vec::new(),
            genesis: None,
            joining: false,
            problem: None,
            asked: None,
            broken: None,
        };
        let forming = Forming { state: Arc::new(Mutex::new(state)) };
        forming.lock().carry_out(shared, effects);
        forming
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer's question; returns what there is to say to that peer.
    pub(crate) fn on_asked(&self, shared: &Shared, message: FormationMessage) -> Vec<FormationMessage> {
        let from = message.from().node;
        let mut state = self.lock();
        if state.broken.is_some() {
            return Vec::new();
        }
        let effects = state.formation.receive(message);
        state.carry_out(shared, effects);
        let (answers, rest) = std::mem::take(&mut state.outbox).into_iter().partition(|out| out.to == from);
        state.outbox = rest;
        let answers: Vec<Outgoing> = answers;
        answers.into_iter().map(|answer| answer.message).collect()
    }

    /// A peer's answer.
    fn on_answer(&self, shared: &Shared, message: FormationMessage) {
        let mut state = self.lock();
        if state.broken.is_some() {
            return;
        }
        let effects = state.formation.receive(message);
        state.carry_out(shared, effects);
    }

    /// Sends what waits, asks again when it is time, and returns news of a cluster to take part in.
    pub(crate) fn poll(&self, shared: &Arc<Shared>) -> Vec<Belonging> {
        let now = shared.now();
        let mut state = self.lock();
        state.begin_again(shared, now);
        if state.broken.is_some() {
            return Vec::new();
        }
        if state.asked.is_none_or(|at| now.since(at) >= ASK_EVERY) {
            state.asked = Some(now);
            let effects = state.formation.tick();
            state.carry_out(shared, effects);
        }
        for Outgoing { to, message } in std::mem::take(&mut state.outbox) {
            self.ask(shared, to, message);
        }
        std::mem::take(&mut state.belongings)
    }

    fn ask(&self, shared: &Arc<Shared>, to: NodeId, message: FormationMessage) {
        let Some(links) = shared.links.get() else { return };
        let (forming, shared) = (self.clone(), Arc::clone(shared));
        let heard = move |answers: Vec<FormationMessage>| {
            for answer in answers {
                forming.on_answer(&shared, answer);
            }
        };
        links.form(to, message, Box::new(heard));
    }

    /// The members as applied here: perhaps the log has admitted this server.
    pub(crate) fn on_members(&self, shared: &Shared, membership: &Membership) {
        let mut state = self.lock();
        let admitted = || membership.members().get(&shared.node)?.voter;
        if state.broken.is_none() && state.joining && admitted() == Some(shared.home.incarnation()) {
            let Some(genesis) = state.genesis.clone() else { return };
            state.joining = false;
            let effects = state.formation.joined(genesis);
            state.carry_out(shared, effects);
        }
    }

    /// Who belongs to the cluster now; told to those who ask.
    pub(crate) fn set_members(&self, members: BTreeSet<NodeId>) {
        self.lock().formation.set_members(members);
    }

    /// The cluster this server takes part in.
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.lock().genesis.as_ref().map(|genesis| genesis.cluster)
    }

    /// Where formation is, in words.
    pub(crate) fn describe(&self) -> String {
        let state = self.lock();
        if let Some(broken) = &state.broken {
            return broken.text().clone();
        }
        if state.formation.formed().is_some() {
            return "formed".into();
        }
        if state.joining {
            return format!("joining: {JOINING}");
        }
        match state.formation.waits_for() {
            Some(problem) => format!("forming: {problem}"),
            None => "forming".into(),
        }
    }

    /// What is wrong, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        let state = self.lock();
        if state.broken.is_some() || state.formation.formed().is_some() {
            return state.broken.as_ref().map(|broken| broken.text().clone());
        }
        if state.joining {
            return Some(JOINING.into()); // whoever else it waited for at first
        }
        let waits = state.formation.waits_for().map(|problem| problem.to_string());
        state.problem.clone().or(waits)
    }
}

impl State {
    /// After a failed write, now and then: begins again with what the disk holds for good.
    fn begin_again(&mut self, shared: &Shared, now: Time) {
        let Some(Broken::Disk { why, at }) = &mut self.broken else { return };
        if now.since(*at) < BEGIN_AGAIN {
            return;
        }
        *at = now;
        let me = |incarnation| VoterId { node: shared.node, incarnation };
        let restored = shared.home.reload().map_err(|error| error.to_string()).and_then(|()| {
            let plan = shared.config.plan.clone();
            match shared.home.formation() {
                Some(state) => Formation::restore(me(shared.home.incarnation()), plan, state),
                None => Formation::new(me(shared.home.incarnation()), plan),
            }
            .map_err(|error| error.to_string())
        });
        match restored {
            Ok(formation) => {
                self.formation = formation;
                self.broken = None;
                let effects = self.formation.start();
                self.carry_out(shared, effects);
            }
            Err(error) => *why = format!("cannot read the identity file: {error}"),
        }
    }

    fn carry_out(&mut self, shared: &Shared, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::PersistThenSend { state, messages } => {
                    if let Err(error) = shared.home.save_formation(state, self.formation.formed()) {
                        // What follows depends on it and must not happen, now or later.
                        tracing::error!(%error, "formation stops");
                        let why = format!("cannot write the identity file: {error}");
                        self.broken = Some(Broken::Disk { why, at: shared.now() });
                        self.outbox.clear();
                        return;
                    }
                    self.outbox.extend(messages);
                }
                Effect::Send(outgoing) => self.outbox.push(outgoing),
                Effect::Formed(genesis) => {
                    self.joining = false;
                    self.problem = None;
                    shared.event("formed", format!("belongs to cluster {}", genesis.cluster));
                    self.take_part(shared, genesis, true);
                }
                Effect::Join { genesis, via } => {
                    if self.genesis.is_none() {
                        let via = shared.config.plan_name(via);
                        let text = format!("joins cluster {} through {via}, as a newcomer", genesis.cluster);
                        shared.event("joining", text);
                        self.joining = true;
                        self.take_part(shared, genesis, false);
                    }
                }
                Effect::Problem(problem) => {
                    tracing::warn!(%problem, "forming a cluster");
                    self.problem = Some(problem.to_string());
                }
            }
        }
    }

    fn take_part(&mut self, shared: &Shared, genesis: Genesis, durable: bool) {
        if self.genesis.as_ref().is_some_and(|other| other.cluster != genesis.cluster) {
            let why = format!("belongs to cluster {} after all; restart this server", genesis.cluster);
            self.broken = Some(Broken::Elsewhere(why));
            return;
        }
        shared.observe(&Observation::Formed { genesis: &genesis, member: durable });
        self.genesis = Some(genesis.clone());
        self.belongings.push(Belonging { genesis, durable });
    }
}

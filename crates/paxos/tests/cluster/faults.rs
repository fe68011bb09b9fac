//! What goes wrong, and how much of it at once.
//!
//! Anything may stop, pause, lag or be cut off at any time: safety has to hold, progress comes later. Only
//! memory is rationed. As long as a majority of intact memories remains in every configuration that still
//! matters, nothing chosen may be lost and the cluster must come back by itself; beyond that it has to stop
//! (rule R7), and there would be no second movement.

use super::replica::Disk;
use super::world::{Event, Part, World, pick};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use synod_paxos::membership::Change;
use synod_paxos::message::Message;
use synod_paxos::types::{Ballot, Generation, Incarnation, NodeId, Prefix, Slot};

/// The temper of one run.
pub struct Faults {
    /// How often a stopped part has lost its memory, too.
    forgetful: f64,
    /// Elections are a coin at each replica: anybody campaigns at any time (PMS-24).
    coin: bool,
    /// Does the set of members change?
    changing: bool,
    /// The one member whose removal was asked for.
    removed: Option<NodeId>,
}

impl Faults {
    pub fn new(rng: &mut ChaCha8Rng) -> Faults {
        Faults {
            forgetful: *pick(rng, &[0.0, 0.3, 0.7]),
            coin: rng.random_bool(0.15),
            changing: rng.random_bool(0.4),
            removed: None,
        }
    }
}

impl World {
    pub fn something_goes_wrong(&mut self) {
        let node = self.any_node();
        let forgets = self.rng.random_bool(self.faults.forgetful);
        if self.faults.coin {
            self.campaign(node);
        }
        match self.rng.random_range(0..14) {
            0..3 => self.stop_acceptor(node, forgets),
            3 | 4 => self.stop_leadership(node),
            5 => self.stop_learner(node, forgets),
            6 | 7 => self.stop_process(node, forgets),
            8 => self.cut(),
            9 => self.isolate(node),
            10 => self.replay(),
            11 => self.hand_over(),
            12 => self.change_members(node),
            _ => self.campaign(node),
        }
    }

    fn stop_acceptor(&mut self, node: NodeId, forgets: bool) {
        let forgets = forgets && self.may_forget(node, true, false);
        self.with(node, |replica, ctx| replica.stop_acceptor(ctx));
        if forgets {
            let incarnation = Incarnation(self.rng.random());
            let disk = &mut self.replicas.get_mut(&node).expect("one of ours").disk;
            disk.incarnation = incarnation;
            disk.log.clear();
            self.note("acceptor forgot", || format!("{node}'s acceptor forgets, and is now {incarnation}"));
        } else {
            self.note("acceptor stopped", || format!("{node}'s acceptor stops"));
        }
        self.later(node, Part::Acceptor);
    }

    fn stop_leadership(&mut self, node: NodeId) {
        let Some(running) = self.replicas.get_mut(&node).and_then(|replica| replica.running.as_mut()) else {
            return;
        };
        let led = running.leadership.take().is_some_and(|leadership| leadership.proposer().leads().is_some());
        self.note(if led { "leading proposer stopped" } else { "proposer stopped" }, || {
            format!("{node}'s proposer stops")
        });
        self.later(node, Part::Leadership);
    }

    fn stop_learner(&mut self, node: NodeId, forgets: bool) {
        let forgets = forgets && self.may_forget(node, false, true);
        let replica = self.replicas.get_mut(&node).expect("one of ours");
        if let Some(running) = replica.running.as_mut() {
            running.learner = None;
        }
        if forgets {
            replica.disk.checkpoint = None;
        }
        self.note(if forgets { "learner forgot" } else { "learner stopped" }, || {
            format!("{node}'s learner stops{}", if forgets { " and forgets" } else { "" })
        });
        self.later(node, Part::Learner);
    }

    fn stop_process(&mut self, node: NodeId, forgets: bool) {
        let forgets = forgets && self.may_forget(node, true, true);
        self.with(node, |replica, ctx| replica.stop(ctx));
        if forgets {
            let incarnation = Incarnation(self.rng.random());
            self.replicas.get_mut(&node).expect("one of ours").disk = Disk::blank(incarnation);
            self.note("disk wiped", || format!("{node} is wiped, and is now {incarnation}"));
        } else {
            self.note("process stopped", || format!("{node} stops"));
        }
        self.later(node, Part::Process);
    }

    fn later(&mut self, node: NodeId, what: Part) {
        let pause = self.rng.random_range(500..150_000);
        self.plan(pause, Event::Restart { node, what });
    }

    pub fn restart(&mut self, node: NodeId, what: Part) {
        self.with(node, |replica, ctx| {
            ctx.trace(|| format!("{node}: {what:?} starts"));
            match what {
                Part::Acceptor => replica.start_acceptor(ctx),
                Part::Learner => replica.start_learner(ctx),
                Part::Leadership => replica.start_leadership(ctx),
                Part::Process if replica.running.is_none() => replica.start(ctx),
                Part::Process => {}
            }
        });
    }

    fn cut(&mut self) {
        let (from, to) = (self.any_node(), self.any_node());
        self.cut_link(from, to);
        if self.rng.random_bool(0.5) {
            self.cut_link(to, from);
        }
        if self.rng.random_bool(0.5) {
            let now = self.now;
            let lead = |replica: &mut super::replica::Replica, _: &mut super::world::Context| {
                let leadership = replica.running.as_mut()?.leadership.as_mut()?;
                Some(leadership.on_disconnected(from, now))
            };
            let effects = self.with(to, lead);
            self.with(to, |replica, ctx| replica.carry_out(effects.unwrap_or_default(), ctx));
        }
    }

    /// Cuts a replica off: from hearing, from being heard, or both.
    fn isolate(&mut self, node: NodeId) {
        let others: Vec<NodeId> = self.replicas.keys().copied().filter(|&other| other != node).collect();
        let (deaf, mute) = *pick(&mut self.rng, &[(true, true), (true, false), (false, true)]);
        for other in others {
            if deaf {
                self.cut_link(other, node);
            }
            if mute {
                self.cut_link(node, other);
            }
        }
    }

    fn cut_link(&mut self, from: NodeId, to: NodeId) {
        if self.network.cuts.insert((from, to)) {
            self.note("link cut", || format!("{from} no longer reaches {to}"));
            let pause = self.rng.random_range(1_000..200_000);
            self.plan(pause, Event::Mend { from, to });
        }
    }

    /// Old messages arrive once more (PMS-4).
    fn replay(&mut self) {
        for _ in 0..self.rng.random_range(1..20) {
            if self.network.archive.is_empty() {
                return;
            }
            let (from, to, message) = pick(&mut self.rng, &self.network.archive).clone();
            let pause = self.rng.random_range(0..2_000);
            self.plan(pause, Event::Deliver { from, to, message });
        }
        self.note("old messages replayed", || "old messages are replayed".to_owned());
    }

    fn hand_over(&mut self) {
        let now = self.now;
        let leader = self.replicas.values_mut().find_map(|replica| {
            let leadership = replica.running.as_mut()?.leadership.as_mut()?;
            leadership.proposer().leads()?;
            Some((replica.id, leadership.hand_over(now)))
        });
        if let Some((node, effects)) = leader {
            self.note("hand-over", || format!("{node} hands over"));
            self.with(node, |replica, ctx| replica.carry_out(effects, ctx));
        }
    }

    /// A replica campaigns out of turn: told so by a hand-over that nobody sent.
    fn campaign(&mut self, node: NodeId) {
        let round = self
            .replicas
            .values()
            .filter_map(|r| r.running.as_ref()?.leadership.as_ref()?.proposer().ballot());
        let round = round.map(|ballot| ballot.round).max().unwrap_or_default();
        let ballot = Ballot { round, node: NodeId(u64::MAX), generation: Generation(0) };
        self.plan(0, Event::Deliver { from: node, to: node, message: Message::HandOver { ballot } });
    }

    /// One member is removed and comes back, over and over.
    fn change_members(&mut self, at: NodeId) {
        if !self.faults.changing {
            return;
        }
        if let Some(node) = self.faults.removed {
            if !self.oracle.members().contains_key(&node) {
                self.add_back(at, node);
            }
            return;
        }
        let node = self.any_node();
        self.faults.removed = Some(node);
        let safe =
            self.replicas.keys().all(|&other| self.is_intact(other)) && self.survives(None, false, false);
        let change = Change::Remove { node };
        if safe && self.with(at, |replica, ctx| replica.on_change(change, ctx)) {
            self.note("member removed", || format!("{at} asks for the removal of {node}"));
        } else {
            self.faults.removed = None;
        }
    }

    fn add_back(&mut self, at: NodeId, node: NodeId) {
        let change = Change::Add { node, peer_urls: vec![format!("http://{node}")] };
        if self.with(at, |replica, ctx| replica.on_change(change, ctx)) {
            self.note("member added", || format!("{at} asks to add {node}"));
        }
    }

    /// The second movement begins: everything works from now on.
    pub fn heal(&mut self) {
        self.troubled = false;
        self.network.loss = 0.0;
        self.network.duplication = 0.0;
        self.network.slow = 0.0;
        self.network.cuts.clear();
        let nodes: Vec<NodeId> = self.replicas.keys().copied().collect();
        for &node in &nodes {
            for what in [Part::Process, Part::Acceptor, Part::Learner, Part::Leadership] {
                self.restart(node, what);
            }
        }
        self.note("healed", || "-- all is healed --".to_owned());
        self.plan(0, Event::Welcome);
    }

    /// Whoever was removed is added back, until it is a member.
    pub fn welcome(&mut self) {
        if let Some(node) = self.faults.removed.filter(|node| !self.oracle.members().contains_key(node)) {
            let others: Vec<NodeId> = self.oracle.members().keys().copied().collect();
            let at = *pick(&mut self.rng, &others);
            self.add_back(at, node);
        }
        self.plan(200_000, Event::Welcome);
    }

    fn is_intact(&self, node: NodeId) -> bool {
        let present = Some(Some(self.replicas[&node].disk.incarnation));
        self.oracle.members().get(&node).copied() == present
    }

    /// May this replica lose its acceptor's memory, or its store, and the cluster still come back?
    fn may_forget(&self, node: NodeId, log: bool, store: bool) -> bool {
        self.survives(Some(node), log, store)
    }

    /// Does every slot that some replica may still ask for rest on a store or on a majority of memories?
    fn survives(&self, victim: Option<NodeId>, log: bool, store: bool) -> bool {
        // Nobody asks a replica that was removed, and who lags does not know that it came back.
        let keeps_store =
            |node: NodeId| (Some(node) != victim || !store) && self.faults.removed != Some(node);
        let keeps_log = |node: NodeId| Some(node) != victim || !log;
        let stores = self.replicas.values().filter(|replica| keeps_store(replica.id));
        let covered = stores.map(|replica| replica.disk.covered()).max().unwrap_or_default();
        let trims: Vec<(NodeId, Incarnation, Prefix)> =
            self.replicas.values().map(|r| (r.id, r.disk.incarnation, r.trimmed())).collect();
        (covered.0 + 1..=self.oracle.horizon().0).map(Slot).all(|slot| {
            let voters = self.oracle.voters(slot);
            let remembers = |&&(node, incarnation, trimmed): &&(NodeId, Incarnation, Prefix)| {
                keeps_log(node) && voters.get(&node) == Some(&incarnation) && !trimmed.contains(slot)
            };
            let intact = trims.iter().filter(remembers).count();
            let without = |removed: &NodeId| {
                trims.iter().filter(|t| t.0 != *removed).filter(remembers).count() > (voters.len() - 1) / 2
            };
            // A removal under way may leave one voter less, and that one may be among the intact.
            intact > voters.len() / 2
                && self
                    .faults
                    .removed
                    .filter(|node| voters.contains_key(node))
                    .is_none_or(|node| without(&node))
        })
    }
}

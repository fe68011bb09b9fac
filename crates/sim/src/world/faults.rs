//! What goes wrong, and how much of it at once.
//!
//! Anything may stop, pause, lag or be cut off at any time: safety has to hold, progress comes later. Only memory is
//! rationed. Whoever forgot counts as failed until it votes again, a slot in which it does is chosen, and it has
//! caught up to there. As long as no more than a minority of any configuration in force or to come counts as failed,
//! nothing chosen may be lost and the cluster must come back by itself; beyond that it has to stop (rule R7), and
//! runs that go there have no second movement.

use super::disk::Speed;
use super::links::{self, Lane};
use super::plan::{Fault, Mishap, Whom};
use super::process::Fate;
use super::{Event, World};
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use std::time::Duration;
use synod_kv::{CompactRequest, Request, Revision};
use synod_paxos::membership::Change;
use synod_paxos::message::Message;
use synod_paxos::types::{Ballot, Generation, NodeId, Prefix, Slot, Time};
use synod_server::replica::{Memory, RandomFaults, Role, RoleFault};
use synod_server::trace::What;
use synod_storage::disk::{CrashPoint, FaultRates, Survivors};

/// How a fault ends.
pub(super) enum Remedy {
    /// A cut is mended.
    Mend(BTreeSet<(NodeId, NodeId)>),
    /// Links are fast again.
    Hurry(NodeId),
    /// A disk works again; of this number of disks that its server had.
    Repair(NodeId, u64),
    /// Roles no longer fail at random.
    Calm(NodeId),
}

impl World {
    /// The fault of this number happens.
    pub(super) fn go_wrong(&mut self, number: usize) {
        let fault = self.plan.faults[number].clone();
        let rng = &mut ChaCha8Rng::seed_from_u64(fault.salt);
        let id = self.victim(fault.whom);
        self.tell(Some(id), || What::Fault {
            kind: "fault".into(),
            text: format!("{:?} for {:?}", fault.what, fault.lasts),
            healed: false,
        });
        match fault.what {
            Mishap::Kill => self.down(id, Fate::Kept, fault.lasts),
            Mishap::PowerCut { survivors } => self.cut_power(id, survivors, fault.lasts),
            Mishap::Wipe => {
                if self.may_forget(id, true, true) {
                    self.down(id, Fate::Wiped, fault.lasts);
                } else {
                    self.down(id, Fate::Kept, fault.lasts);
                }
            }
            Mishap::KillAtDisk { operations, point, power } => {
                let lied = self.nodes[&id].lied;
                if power.is_some() && lied && !self.may_forget(id, true, true) {
                    return;
                }
                let node = self.node(id);
                if node.process.is_some() && node.doom.is_none() {
                    node.doom = Some(power);
                    let faulty = &node.disk.faulty;
                    faulty.crash_at(faulty.operations() + operations, point);
                }
            }
            Mishap::KillAll { power } => {
                for id in self.ids() {
                    let lasts = Duration::from_millis(rng.random_range(1..600));
                    if power {
                        self.cut_power(id, Survivors::Some, lasts);
                    } else {
                        self.down(id, Fate::Kept, lasts);
                    }
                }
                self.count("all killed at once");
            }
            Mishap::KillMajority => {
                let mut ids = self.ids();
                let majority = ids.len() / 2 + 1;
                for _ in 0..majority {
                    let id = ids.swap_remove(rng.random_range(0..ids.len()));
                    self.down(id, Fate::Kept, fault.lasts);
                }
                self.count("majority killed");
            }
            Mishap::Shutdown => {
                if let Some(process) = &self.nodes[&id].process {
                    process.stepped.begin_stopping();
                    self.settle(id);
                }
            }
            Mishap::StopRole { role, memory } => self.stop_role(id, role, memory, fault.lasts),
            Mishap::RandomRoles => {
                let faults = RandomFaults {
                    roles: super::ROLES.to_vec(),
                    mean_up: Duration::from_millis(400),
                    mean_down: Duration::from_millis(100),
                    memory: Memory::Keep,
                    seed: fault.salt,
                };
                if let Some(process) = &self.nodes[&id].process {
                    process.stepped.fail_at_random(Some(faults));
                    self.settle(id);
                    self.end(fault.lasts, Remedy::Calm(id));
                }
            }
            Mishap::Pause => {
                let until = self.now + fault.lasts;
                self.node(id).frozen = until;
                self.count("process paused");
            }
            Mishap::Jump { seconds } => {
                self.node(id).clock.wall = seconds;
                if let Some(process) = &self.nodes[&id].process {
                    process.host.set_wall(seconds);
                }
                self.count("wall clock jumped");
            }
            Mishap::Partition | Mishap::OneWay | Mishap::DeafOrMute | Mishap::Bridge | Mishap::Ring => {
                self.cut(id, &fault, rng)
            }
            Mishap::SlowLinks => {
                let delay = rng.random_range(20_000..600_000);
                for other in self.ids() {
                    self.network.slow.insert((id, other), delay);
                    self.network.slow.insert((other, id), delay);
                }
                self.count("slow links");
                self.end(fault.lasts, Remedy::Hurry(id));
            }
            Mishap::Replay => {
                for _ in 0..rng.random_range(1..20) {
                    let Some((from, to, message)) = self.network.archive.choose(rng).cloned() else { return };
                    let delay = Duration::from_micros(rng.random_range(0..20_000));
                    self.agenda.plan(self.now + delay, Event::Deliver { from, to, message });
                }
                self.count("old messages replayed");
            }
            Mishap::SlowDisk => {
                let most = *[20_000, 200_000, 1_500_000].choose(rng).expect("some");
                let speed = Speed { sync: (most / 10, most), stalls: 100, stall: 2_000_000 };
                self.node(id).disk.set_speed(speed);
                self.count("slow disk");
                self.repair_later(id, fault.lasts);
            }
            Mishap::FullDisk => {
                let node = self.node(id);
                let used: usize = node
                    .disk
                    .faulty
                    .paths()
                    .iter()
                    .filter_map(|path| node.disk.faulty.contents(path))
                    .map(|contents| contents.len())
                    .sum();
                node.disk.faulty.set_capacity(Some(used as u64 + rng.random_range(0..3_000)));
                self.count("full disk");
                self.repair_later(id, fault.lasts);
            }
            Mishap::ReadOnlyDisk => {
                self.node(id).disk.faulty.set_read_only(true);
                self.count("read-only disk");
                self.repair_later(id, fault.lasts);
            }
            Mishap::BadDisk { errors } => {
                let rates = FaultRates {
                    sync_error: errors,
                    write_error: errors / 2,
                    short_write: errors / 2,
                    read_error: errors / 4,
                    ..FaultRates::default()
                };
                self.node(id).disk.faulty.set_rates(rates);
                self.count("bad disk");
                self.repair_later(id, fault.lasts);
            }
            Mishap::LyingDisk => {
                let node = self.node(id);
                node.disk.faulty.set_rates(FaultRates { lying_sync: 5_000, ..FaultRates::default() });
                node.lied = true;
                self.count("lying disk");
                self.repair_later(id, fault.lasts);
            }
            Mishap::Rot => self.rot(id, &fault, rng),
            Mishap::Campaign => self.campaign(id),
            Mishap::Relearn => {
                let id = self.victim(Whom::Leader);
                let memory = Memory::Keep;
                let restart_after = Some(Duration::from_micros(rng.random_range(0..3_000)));
                self.count("leader learns anew");
                self.fail_role(id, RoleFault::Stop { role: Role::Learner, memory, restart_after });
                let again = self.now + Duration::from_millis(rng.random_range(5..60));
                if again < Time(0) + fault.at + fault.lasts {
                    self.agenda.plan(again, Event::Fault { number });
                }
            }
            Mishap::ChangeMembers => self.change_members(id),
            Mishap::Checkpoint => {
                if let Some(process) = &self.nodes[&id].process {
                    process.stepped.checkpoint_soon();
                    self.settle(id);
                }
            }
            Mishap::Compact => {
                if let Some(process) = &self.nodes[&id].process {
                    let revision = process.stepped.look(Prefix::EMPTY, |store| store.revision().0);
                    let first = self.compacted + 1;
                    let Some(last) = revision.filter(|&last| last >= first) else { return };
                    let upto = if rng.random_bool(0.2) {
                        Revision(last + rng.random_range(1_000..1_000_000)) // refused: it lies in the future
                    } else {
                        self.compacted = rng.random_range(first..=last);
                        Revision(self.compacted)
                    };
                    let request = Request::Compact(CompactRequest { revision: upto, physical: false });
                    let _ = process.stepped.propose(request.encode()); // nobody waits for it
                    self.settle(id);
                }
            }
        }
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    fn victim(&self, whom: Whom) -> NodeId {
        let leader = self.stage.inner().leader;
        let number = match whom {
            Whom::Leader => leader.map_or(0, |leader| leader.0 - 1),
            Whom::Number(number) => number,
        };
        NodeId(1 + number % self.plan.replicas)
    }

    fn end(&mut self, lasts: Duration, remedy: Remedy) {
        self.agenda.plan(self.now + lasts, Event::Remedy(remedy));
    }

    fn repair_later(&mut self, id: NodeId, lasts: Duration) {
        let disks = self.nodes[&id].disks;
        self.end(lasts, Remedy::Repair(id, disks));
    }

    fn start_later(&mut self, id: NodeId, lasts: Duration) {
        self.agenda.plan(self.now + lasts, Event::Start { node: id });
    }

    pub(super) fn remedy(&mut self, remedy: Remedy) {
        match remedy {
            Remedy::Mend(links) => {
                self.network.mend(&links);
                for (node, peer) in links::both_ways(&links) {
                    self.dial(node, peer, links::IN_ITS_TIME);
                }
                self.tell(None, || What::Fault {
                    kind: "healed".into(),
                    text: "a cut is mended".into(),
                    healed: true,
                });
            }
            Remedy::Hurry(id) => self.network.slow.retain(|&(from, to), _| from != id && to != id),
            Remedy::Repair(id, disks) => {
                let speed = if self.troubled { self.plan.disks } else { Speed::GOOD };
                let node = self.node(id);
                if node.disks == disks {
                    super::healing::repair(&node.disk, speed);
                }
            }
            Remedy::Calm(id) => {
                if let Some(process) = &self.nodes[&id].process {
                    process.stepped.fail_at_random(None);
                    self.settle(id);
                }
            }
        }
    }

    fn down(&mut self, id: NodeId, fate: Fate, lasts: Duration) {
        self.kill(id, fate);
        self.start_later(id, lasts);
    }

    fn cut_power(&mut self, id: NodeId, survivors: Survivors, lasts: Duration) {
        // What a lying disk holds after that is worth nothing, and has to be rationed as such.
        let fate = if self.nodes[&id].lied && !self.may_forget(id, true, true) {
            Fate::Kept
        } else {
            Fate::Power(survivors)
        };
        self.down(id, fate, lasts);
    }

    fn stop_role(&mut self, id: NodeId, role: Role, memory: Memory, lasts: Duration) {
        let forgets =
            memory == Memory::Forget && self.may_forget(id, role == Role::Acceptor, role == Role::Learner);
        let memory = if forgets { Memory::Forget } else { Memory::Keep };
        let at_work = self.nodes[&id].process.is_some();
        if forgets && at_work {
            self.count("role forgot");
            let holdings = &mut self.stage.inner().holdings;
            let held = holdings.entry(id).or_default();
            match role {
                Role::Acceptor => held.voter = None,
                Role::Learner => held.forget_store(),
                Role::Proposer => {}
            }
        }
        self.count("role stopped");
        self.fail_role(id, RoleFault::Stop { role, memory, restart_after: Some(lasts) });
    }

    fn cut(&mut self, id: NodeId, fault: &Fault, rng: &mut ChaCha8Rng) {
        let ids = self.ids();
        let mut links = BTreeSet::new();
        let side: BTreeSet<NodeId> =
            ids.iter().copied().filter(|&other| other == id || rng.random_bool(0.4)).collect();
        let (deaf, mute) = *[(true, true), (true, false), (false, true)].choose(rng).expect("some");
        let n = self.plan.replicas;
        for &from in &ids {
            for &to in ids.iter().filter(|&&to| to != from) {
                let apart = side.contains(&from) != side.contains(&to);
                let cut = match fault.what {
                    Mishap::Partition => apart,
                    Mishap::Bridge => apart && from != id && to != id,
                    Mishap::Ring => (from.0 % n) + 1 != to.0 && (to.0 % n) + 1 != from.0,
                    Mishap::DeafOrMute => (deaf && to == id) || (mute && from == id),
                    _ => from == id && to == NodeId(1 + (id.0 + fault.salt % (n - 1)) % n),
                };
                if cut {
                    links.insert((from, to));
                }
            }
        }
        self.network.cut(&links);
        self.count("links cut");
        if fault.lasts > Duration::from_secs(1) || rng.random_bool(0.3) {
            for (node, peer) in links::both_ways(&links) {
                for lane in Lane::ALL {
                    self.hang_up(node, peer, lane, rng.random_range(1_000..900_000));
                }
            }
        }
        self.end(fault.lasts, Remedy::Mend(links));
    }

    /// Bits flip while the server is down. The end was clean, so that every byte that matters is sealed (rule R9).
    fn rot(&mut self, id: NodeId, fault: &Fault, rng: &mut ChaCha8Rng) {
        if !self.may_forget(id, true, true) || self.nodes[&id].doom.is_some() {
            return;
        }
        let Some(process) = self.node(id).process.as_mut() else { return };
        process.stepped.seal();
        let sealed = process.turn_all();
        self.kill(id, Fate::Kept);
        if !sealed {
            return self.start_later(id, fault.lasts); // what is not sealed may rot unnoticed, and that is known
        }
        let faulty = &self.nodes[&id].disk.faulty;
        let paths: Vec<String> = faulty
            .paths()
            .into_iter()
            .filter(|path| faulty.contents(path).is_some_and(|c| !c.is_empty()))
            .collect();
        if let Some(path) = paths.choose(rng) {
            let len = faulty.contents(path).map_or(1, |contents| contents.len());
            let offset = rng.random_range(0..len);
            faulty.rot(path, offset, 1 << rng.random_range(0..8));
            self.tell(Some(id), || What::Fault {
                kind: "rot".into(),
                text: format!("byte {offset} of {path} rots"),
                healed: false,
            });
            self.count("bit rot");
        }
        // Whether or not anything was lost is found out at the start; until then it counts as forgotten.
        if let Some(held) = self.stage.inner().holdings.get_mut(&id) {
            held.voter = None;
            held.forget_store();
        }
        self.start_later(id, fault.lasts);
    }

    /// A replica is told to take over, by a leader that never was. Once may be harmless; so some do it again and again.
    fn campaign(&mut self, id: NodeId) {
        let round = self.stage.inner().round;
        let ballot = Ballot { round, node: NodeId(u64::MAX), generation: Generation(0) };
        for delay in [0, 3_000, 6_000, 30_000] {
            self.after(delay, Event::Deliver { from: id, to: id, message: Message::HandOver { ballot } });
        }
        self.count("campaign out of turn");
    }

    /// One member is removed and comes back, over and over.
    fn change_members(&mut self, at: NodeId) {
        let mut change = None;
        {
            let inner = self.stage.inner();
            if inner.court.members().is_empty() {
                return;
            }
            if let Some(node) = self.removed.filter(|node| !inner.court.members().contains_key(node)) {
                change = Some(Change::Add { node, peer_urls: vec![format!("http://{node}")] });
            }
        }
        if self.removed.is_none() && self.plan.replicas > 3 {
            let node = NodeId(1 + (at.0 + 1) % self.plan.replicas);
            let now = Slot(self.stage.inner().court.chosen().0.max(1));
            if self.ids().into_iter().all(|other| self.is_sound(other, now)) && self.survives(None) {
                change = Some(Change::Remove { node });
                self.removed = Some(node);
                self.count("member removal asked for");
            }
        }
        if let (Some(change), Some(process)) = (change, &self.nodes[&at].process) {
            let _ = process.stepped.reconfigure(change); // nobody waits for it
            self.settle(at);
        }
    }

    // -- how much may be forgotten -----------------------------------------------------------------

    /// Does this replica not count as failed where it votes in `slot`? One that forgot does, until it votes again, a
    /// slot in which it votes is chosen, and it has applied so far. From then on it has to answer for whatever its
    /// predecessor held; whether its disk really can is not asked, because nobody asks that who wipes the next one.
    fn is_sound(&self, id: NodeId, slot: Slot) -> bool {
        let inner = self.stage.inner();
        let Some(held) = inner.holdings.get(&id) else { return false };
        let since = held.voter.and_then(|voter| inner.court.votes_since(voter, slot));
        since.is_some_and(|since| held.reached.0 >= since.0) && held.covered >= held.owed
    }

    /// May this replica lose its acceptor's memory, or its store, and the cluster still come back?
    pub(super) fn may_forget(&self, id: NodeId, log: bool, store: bool) -> bool {
        if self.plan.reckless {
            // All but one at most: the last one that remembers keeps a second cluster from being formed (R7).
            let remembers = |held: &&super::stage::Holdings| held.voter.is_some();
            return self.stage.inner().holdings.values().filter(remembers).count() >= 2;
        }
        self.survives(Some(id).filter(|_| log || store))
    }

    /// Is a majority left that does not count as failed, in every configuration that is in force or to come?
    fn survives(&self, victim: Option<NodeId>) -> bool {
        let (formed, slots) = {
            let court = &self.stage.inner().court;
            (!court.members().is_empty(), court.chosen().0.max(1)..=court.horizon().0)
        };
        if !formed {
            // As far as anybody knows: one blank disk more is no loss, but only one (formation).
            return self.nodes.values().all(|node| node.disks == 1 || Some(node.id) == victim);
        }
        slots.map(Slot).all(|slot| {
            let voters = self.stage.inner().court.voters(slot).clone();
            let left = |gone: Option<NodeId>| {
                let stay = || voters.keys().copied().filter(move |&id| Some(id) != gone);
                let intact = stay().filter(|&id| Some(id) != victim && self.is_sound(id, slot)).count();
                intact > stay().count() / 2
            };
            // The removal that was asked for may still be on its way.
            left(None) && left(self.removed)
        })
    }

    pub(super) fn disarm(&mut self, id: NodeId) {
        let node = self.node(id);
        node.doom = None;
        node.disk.faulty.crash_at(u64::MAX, CrashPoint::Before);
    }
}

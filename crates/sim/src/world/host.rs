//! What one simulated replica lives in: a clock of its own, chance from the seed, and somebody who writes down what
//! it wants done.
//!
//! Nothing happens in here. Messages, new lives of roles and questions to peers are collected while a part of the
//! replica takes its turn, and the world takes them away afterwards. Only observations go straight to the judges.

use super::disk::VirtualDisk;
use super::stage::Stage;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use synod_paxos::formation::FormationMessage;
use synod_paxos::message::Message;
use synod_paxos::types::{ClusterId, NodeId, Time};
use synod_server::replica::{Arrived, Heard, Host, Job, Life, LinkFault, Links, Observation};

/// A clock that may run fast or slow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// What it showed when the world began, in microseconds.
    pub(super) start: u64,
    /// Its microseconds in a million true ones.
    pub(super) rate: u64,
    /// How far the wall clock is off, in seconds.
    pub(super) wall: i64,
}

impl Clock {
    /// What it shows at the true time `now`.
    pub(super) fn show(&self, now: Time) -> Time {
        Time(self.start + (u128::from(now.0) * u128::from(self.rate) / 1_000_000) as u64)
    }

    /// How long `local` by this clock takes in truth.
    pub(super) fn truly(&self, local: Duration) -> Duration {
        Duration::from_micros((local.as_micros() * 1_000_000 / u128::from(self.rate)) as u64)
    }
}

/// Something a replica wants done.
pub(super) enum Wish {
    /// A message to a peer.
    Send { to: NodeId, message: Message },
    /// A question about formation.
    Form { to: NodeId, message: FormationMessage, heard: Heard },
    /// Another replica's state.
    Fetch { from: NodeId, arrived: Arrived },
}

/// See the module.
pub(super) struct VirtualHost {
    node: NodeId,
    stage: Arc<Stage>,
    disk: VirtualDisk,
    inner: Mutex<Inner>,
}

struct Inner {
    chance: ChaCha8Rng,
    clock: Clock,
    /// Wishes, each with how far into the turn it was made.
    wishes: Vec<(Duration, Wish)>,
    lives: Vec<Life>,
    cluster: Option<ClusterId>,
    peers: BTreeSet<NodeId>,
}

impl VirtualHost {
    /// The world of a process that starts now.
    pub(super) fn new(
        node: NodeId,
        seed: u64,
        clock: Clock,
        disk: VirtualDisk,
        stage: Arc<Stage>,
        peers: BTreeSet<NodeId>,
    ) -> VirtualHost {
        let inner = Inner {
            chance: ChaCha8Rng::seed_from_u64(seed),
            clock,
            wishes: Vec::new(),
            lives: Vec::new(),
            cluster: None,
            peers,
        };
        VirtualHost { node, stage, disk, inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was wished for since the last time this was asked.
    pub(super) fn take_wishes(&self) -> Vec<(Duration, Wish)> {
        std::mem::take(&mut self.lock().wishes)
    }

    /// The lives that began since the last time this was asked.
    pub(super) fn take_lives(&self) -> Vec<Life> {
        std::mem::take(&mut self.lock().lives)
    }

    /// The cluster this replica takes part in.
    pub(super) fn cluster(&self) -> Option<ClusterId> {
        self.lock().cluster
    }

    /// The wall clock jumps.
    pub(super) fn set_wall(&self, wall: i64) {
        self.lock().clock.wall = wall;
    }

    /// Nothing leaves a process that died in the middle of a turn.
    fn is_dead(&self) -> bool {
        self.disk.faulty.crashed()
    }

    fn wish(&self, wish: Wish) {
        if !self.is_dead() {
            self.lock().wishes.push((self.disk.spent(), wish));
        }
    }
}

/// When every world begins, in seconds since 1970.
const EPOCH: i64 = 1_800_000_000;

impl Host for VirtualHost {
    fn now(&self) -> Time {
        self.lock().clock.show(self.stage.now() + self.disk.spent())
    }

    fn unix(&self) -> Duration {
        let true_time = Duration::from_micros(self.stage.now().0);
        let wall = EPOCH.saturating_add(self.lock().clock.wall);
        Duration::from_secs(u64::try_from(wall).unwrap_or(0)) + true_time
    }

    fn random(&self) -> u64 {
        self.lock().chance.random()
    }

    fn run(&self, life: Life) -> io::Result<()> {
        self.lock().lives.push(life);
        Ok(())
    }

    fn begin(&self, _name: &'static str, job: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Job>> {
        // It runs at once, and its time passes beside the turn that began it.
        let before = self.disk.charge();
        job();
        let took = self.disk.charge();
        self.disk.owe(before);
        let ends = self.stage.now() + before + took;
        Ok(Box::new(VirtualJob { stage: Arc::clone(&self.stage), ends }))
    }

    fn observe(&self, observation: &Observation<'_>) {
        if !self.is_dead() {
            self.stage.see(self.node, self.disk.spent(), observation);
        }
    }
}

struct VirtualJob {
    stage: Arc<Stage>,
    ends: Time,
}

impl Job for VirtualJob {
    fn is_finished(&self) -> bool {
        self.stage.now() >= self.ends
    }

    fn join(self: Box<Self>) {}
}

impl Links for VirtualHost {
    fn send(&self, to: &[NodeId], message: &Message) {
        for &to in to {
            if self.lock().peers.contains(&to) {
                self.wish(Wish::Send { to, message: message.clone() });
            }
        }
    }

    fn set_peers(&self, urls: BTreeMap<NodeId, Vec<String>>) {
        self.lock().peers = urls.into_keys().collect();
    }

    fn set_cluster(&self, cluster: ClusterId) {
        self.lock().cluster = Some(cluster);
    }

    fn health(&self, _node: NodeId) -> (bool, Option<Duration>) {
        (true, None)
    }

    fn disturb(&self, _peer: NodeId, _fault: Option<LinkFault>) {
        // The world cuts links by itself.
    }

    fn form(&self, to: NodeId, message: FormationMessage, heard: Heard) {
        self.wish(Wish::Form { to, message, heard });
    }

    fn fetch(&self, from: NodeId, arrived: Arrived) {
        self.wish(Wish::Fetch { from, arrived });
    }
}

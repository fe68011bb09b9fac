//! The judges and a real replica: a cluster of one, whole, driven step by step through writes, checkpoints and the
//! end of its process. Nothing that production does may be condemned.

use super::testing::{node, request};
use super::*;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use synod_paxos::formation::{FormationMessage, Founder, Plan};
use synod_paxos::types::{ClusterId, Window};
use synod_server::replica::{
    Arrived, Heard, Host, Job, Life, LinkFault, Links, Place, ProtocolLimits, ReplicaConfig, Stepped,
};
use synod_storage::disk::{MemoryDisk, SharedDisk};

/// Time, chance, and everybody who looks on.
struct Alone {
    now: AtomicU64,
    chance: AtomicU64,
    lives: Mutex<Vec<Life>>,
    court: Mutex<Court>,
    broken: Mutex<Option<Broken>>,
}

struct Done;

impl Job for Done {
    fn is_finished(&self) -> bool {
        true
    }

    fn join(self: Box<Self>) {}
}

impl Host for Alone {
    fn now(&self) -> Time {
        Time(self.now.load(Ordering::Relaxed))
    }

    fn unix(&self) -> Duration {
        Duration::from_micros(self.now.load(Ordering::Relaxed))
    }

    fn random(&self) -> u64 {
        self.chance.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }

    fn run(&self, life: Life) -> io::Result<()> {
        self.lives.lock().unwrap().push(life);
        Ok(())
    }

    fn begin(&self, _: &'static str, job: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Job>> {
        job();
        Ok(Box::new(Done))
    }

    fn observe(&self, observation: &Observation<'_>) {
        let verdict = self.court.lock().unwrap().see(Host::now(self), node(1), observation);
        let mut first = self.broken.lock().unwrap();
        *first = first.take().or(verdict.err());
    }
}

impl Links for Alone {
    fn send(&self, _: &[NodeId], _: &Message) {}

    fn set_peers(&self, _: BTreeMap<NodeId, Vec<String>>) {}

    fn set_cluster(&self, _: ClusterId) {}

    fn health(&self, _: NodeId) -> (bool, Option<Duration>) {
        (true, None)
    }

    fn disturb(&self, _: NodeId, _: Option<LinkFault>) {}

    fn form(&self, _: NodeId, _: FormationMessage, _: Heard) {}

    fn fetch(&self, _: NodeId, _: Arrived) {}
}

impl Alone {
    /// A process begins on `disk`.
    fn start(self: &Arc<Alone>, disk: &SharedDisk) -> Stepped {
        let founder = Founder { name: "n1".into(), peer_urls: vec!["http://h1".into()] };
        let config = ReplicaConfig {
            name: "n1".into(),
            node: node(1),
            place: Place::Memory,
            plan: Plan::new(Window::new(4), [(node(1), founder)]),
            client_urls: vec!["http://c1".into()],
            peer_addrs: Vec::new(),
            allow_faults: true,
            patience: synod_paxos::election::Options::default(),
            request_timeout: Duration::from_secs(1),
            checkpoint_bytes: 512,
            segment_bytes: 4096,
            limits: ProtocolLimits::default(),
        };
        Stepped::start(config, Arc::clone(disk), Arc::clone(self) as _, Arc::clone(self) as _).unwrap()
    }

    /// Lets `millis` of time pass, in which everybody gets turns.
    fn pass(&self, replica: &mut Stepped, millis: u64) {
        for _ in 0..millis {
            let now = self.now.fetch_add(1_000, Ordering::Relaxed);
            replica.turn(now.is_multiple_of(10_000));
            let mut lives = std::mem::take(&mut *self.lives.lock().unwrap());
            lives.retain_mut(|life| life.turn());
            self.lives.lock().unwrap().append(&mut lives);
        }
        assert_eq!(*self.broken.lock().unwrap(), None);
    }
}

#[test]
fn no_judge_objects_to_what_production_does() {
    let disk: SharedDisk = Arc::new(MemoryDisk::new());
    let world = Arc::new(Alone {
        now: AtomicU64::new(0),
        chance: AtomicU64::new(1),
        lives: Mutex::default(),
        court: Mutex::default(),
        broken: Mutex::default(),
    });
    let mut answered = 0;
    for process in 0..4u64 {
        let mut replica = world.start(&disk);
        world.pass(&mut replica, 1_500);
        for k in 1..=20 {
            if k == 10 {
                replica.checkpoint_soon();
            }
            let request = request(100 * process + k);
            let mut pending = replica.propose(request.clone()).unwrap();
            world.pass(&mut replica, 20);
            if let Ok(Ok(answer)) = pending.try_recv() {
                world.court.lock().unwrap().on_write_answered(node(1), &request, &answer).unwrap();
                answered += 1;
            }
            let floor = world.court.lock().unwrap().read_floor();
            let mut need = replica.ask_to_read().unwrap();
            world.pass(&mut replica, 20);
            if let Ok(Ok(need)) = need.try_recv() {
                assert!(need >= floor);
                let (applied, _) = replica.applied().unwrap();
                world.court.lock().unwrap().on_read_answered(node(1), floor, applied).unwrap();
            }
        }
        let end = BTreeMap::from([(node(1), replica.applied().unwrap())]);
        let mut court = world.court.lock().unwrap();
        court.at_end(&end).unwrap();
        world.lives.lock().unwrap().clear();
        court.on_process_ended(node(1), false);
    }
    let court = world.court.lock().unwrap();
    assert_eq!(answered, 80, "{:?}", court.sometimes());
    for what in ["read answered", "checkpoint loaded", "log trimmed", "acceptor restored with a promise"] {
        assert!(court.sometimes().contains_key(what), "{what}: {:?}", court.sometimes());
    }
}

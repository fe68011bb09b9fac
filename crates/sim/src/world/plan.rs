//! What one run will be: everything that is drawn from the seed before it begins.
//!
//! A plan is data. The same plan gives the same run, whatever drew it; so a plan that fails can be made smaller by
//! leaving out faults and operations, as long as it still fails ([`crate::shrink`]).

use super::disk::Speed;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;
use synod_paxos::{acceptor, front, learner, proposer};
use synod_server::replica::{Memory, ProtocolLimits, Role};
use synod_storage::disk::{CrashPoint, Survivors};

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all chance comes from.
    pub seed: u64,
    /// How many replicas: 3, 5 or 7.
    pub replicas: u64,
    /// The paper's alpha, in slots.
    pub window: u64,
    /// The protocol's bounds.
    pub limits: ProtocolLimits,
    /// The size of one segment of the log, in bytes.
    pub segment_bytes: u64,
    /// How many bytes of log make a checkpoint due.
    pub checkpoint_bytes: u64,
    /// How the network behaves.
    pub network: Weather,
    /// How the disks do.
    pub disks: Speed,
    /// How much clocks may differ in speed, in parts per million.
    pub drift: u64,
    /// Who asks, and for what.
    pub clients: Demand,
    /// How long things may go wrong.
    pub trouble: Duration,
    /// What goes wrong, in order.
    pub faults: Vec<Fault>,
    /// Memory is not rationed: more than a minority may forget. Such a run demands safety alone.
    pub reckless: bool,
}

/// How a network loses, doubles and delays.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The share of messages lost, in ten thousand.
    pub loss: u32,
    /// The share that arrives twice.
    pub duplication: u32,
    /// The share that takes long.
    pub slow: u32,
    /// How long "long" is, in microseconds.
    pub slow_most: u64,
    /// The share that travels in its encoded form, as it would between processes.
    pub encoded: u32,
}

impl Weather {
    /// A good network.
    pub const FAIR: Weather = Weather { loss: 0, duplication: 0, slow: 0, slow_most: 1_000, encoded: 100 };
}

/// The clients.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// How many, each with one request at a time.
    pub clients: u32,
    /// How many requests each has.
    pub requests: u32,
    /// Of how many keys.
    pub keys: u32,
    /// How long they think in between, at most, in microseconds.
    pub pause: u64,
    /// How large values are at most, in bytes.
    pub value: usize,
    /// How long they wait for an answer.
    pub patience: Duration,
}

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// When.
    pub at: Duration,
    /// To whom: a number that picks a replica, or the leader.
    pub whom: Whom,
    /// For how long.
    pub lasts: Duration,
    /// What.
    pub what: Mishap,
    /// What else is to be chosen comes from here, so that leaving other faults out changes nothing.
    pub salt: u64,
}

/// To whom a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Whoever leads at that moment.
    Leader,
    /// This one, counted through.
    Number(u64),
}

/// What can go wrong. Letters and numbers are those of the fault catalogue in docs/simulation.md.
#[allow(missing_docs, reason = "the names of the fields say it")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mishap {
    /// The process is killed, its machine runs on (C1).
    Kill,
    /// The process dies at one of its next disk operations (C1, C2).
    KillAtDisk { operations: u64, point: CrashPoint, power: Option<Survivors> },
    /// The power goes (C2, C3).
    PowerCut { survivors: Survivors },
    /// The process is killed and its disk is empty when it comes back (D9).
    Wipe,
    /// All processes are killed at once (C4).
    KillAll { power: bool },
    /// A majority is killed (C5).
    KillMajority,
    /// A clean end (M3, hand-over).
    Shutdown,
    /// One role stops (P2).
    StopRole { role: Role, memory: Memory },
    /// Roles stop at random, and keep their memory.
    RandomRoles,
    /// The process stands still (P1).
    Pause,
    /// The wall clock jumps by so many seconds (K1).
    Jump { seconds: i64 },
    /// A group is cut off from the rest, both ways (N1).
    Partition,
    /// One direction of one link (N2).
    OneWay,
    /// It hears nobody, or nobody hears it (N2).
    DeafOrMute,
    /// All links between two halves but those of one replica in the middle (N3).
    Bridge,
    /// Each reaches its neighbours only (N3).
    Ring,
    /// The links to one replica are very slow (N6).
    SlowLinks,
    /// Old messages arrive once more (N4).
    Replay,
    /// The disk is slow, and stalls (D1).
    SlowDisk,
    /// The disk is full (D2).
    FullDisk,
    /// The disk can only be read (D11).
    ReadOnlyDisk,
    /// Operations fail now and then (D4).
    BadDisk { errors: u32 },
    /// Syncs are reported done that are not; when the power goes, the disk counts as lost (D5).
    LyingDisk,
    /// Bits of a file flip while the server is down (D7).
    Rot,
    /// Somebody campaigns out of turn (PMS-24).
    Campaign,
    /// The leader's learner falls back behind its checkpoint, again and again: a new ballot each time (PMS-22).
    Relearn,
    /// A member is removed, and comes back (M1).
    ChangeMembers,
    /// A checkpoint is taken now.
    Checkpoint,
    /// History is compacted.
    Compact,
}

/// What goes wrong, with its weight.
fn mishap(rng: &mut ChaCha8Rng, forgetful: bool) -> Mishap {
    let survivors =
        *[Survivors::None, Survivors::All, Survivors::Some, Survivors::Some].choose(rng).expect("some");
    let role = *Role::ALL.choose(rng).expect("some");
    let memory = if forgetful && rng.random_bool(0.6) { Memory::Forget } else { Memory::Keep };
    match rng.random_range(0..100) {
        0..8 => Mishap::Kill,
        8..22 => Mishap::KillAtDisk {
            operations: rng.random_range(1..40),
            point: *[CrashPoint::Before, CrashPoint::During, CrashPoint::After].choose(rng).expect("some"),
            power: rng.random_bool(0.6).then_some(survivors),
        },
        22..30 => Mishap::PowerCut { survivors },
        30..36 if forgetful => Mishap::Wipe,
        30..36 => Mishap::Kill,
        36..39 => Mishap::KillAll { power: rng.random_bool(0.5) },
        39..41 => Mishap::KillMajority,
        41..44 => Mishap::Shutdown,
        44..49 => Mishap::Campaign,
        49..52 => Mishap::Relearn,
        52..56 => Mishap::StopRole { role, memory },
        56..58 => Mishap::RandomRoles,
        58..62 => Mishap::Pause,
        62..64 => Mishap::Jump { seconds: rng.random_range(-100_000..100_000) },
        64..68 => Mishap::Partition,
        68..71 => Mishap::OneWay,
        71..74 => Mishap::DeafOrMute,
        74..76 => Mishap::Bridge,
        76..77 => Mishap::Ring,
        77..79 => Mishap::SlowLinks,
        79..83 => Mishap::Replay,
        83..85 => Mishap::SlowDisk,
        85..87 => Mishap::FullDisk,
        87..88 => Mishap::ReadOnlyDisk,
        88..90 => Mishap::BadDisk { errors: rng.random_range(50..1500) },
        90..91 => Mishap::LyingDisk,
        91..93 => Mishap::Rot,
        93..96 => Mishap::ChangeMembers,
        96..98 => Mishap::Checkpoint,
        _ => Mishap::Compact,
    }
}

impl Plan {
    /// A quiet world, in which nothing happens but these faults: for tests that tell one story.
    pub fn quiet(seed: u64, replicas: u64, faults: Vec<Fault>) -> Plan {
        Plan {
            seed,
            replicas,
            window: 64,
            limits: ProtocolLimits::default(),
            segment_bytes: 64 << 10,
            checkpoint_bytes: 64 << 20,
            network: Weather::FAIR,
            disks: Speed::GOOD,
            drift: 0,
            clients: Demand {
                clients: 3,
                requests: 30,
                keys: 3,
                pause: 200_000,
                value: 100,
                patience: Duration::from_secs(3),
            },
            trouble: faults.last().map_or(Duration::ZERO, |last| last.at + Duration::from_millis(500)),
            faults,
            reckless: false,
        }
    }

    /// The plan of a seed.
    pub fn of(seed: u64) -> Plan {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let replicas = *[3, 3, 3, 5, 5, 5, 7].choose(rng).expect("some");
        let trouble = Duration::from_millis(rng.random_range(3_000..12_000));
        let reckless = rng.random_bool(0.06);
        let forgetful = reckless || rng.random_bool(0.6);
        let calm = rng.random_range(60..1_500); // mean milliseconds between faults
        let mut faults = Vec::new();
        // Some runs let things go wrong before there is a cluster.
        let mut at = if rng.random_bool(0.35) { 0 } else { 600 };
        loop {
            at += rng.random_range(0..calm * 2);
            if Duration::from_millis(at) >= trouble {
                break;
            }
            faults.push(Fault {
                at: Duration::from_millis(at),
                whom: if rng.random_bool(0.35) {
                    Whom::Leader
                } else {
                    Whom::Number(rng.random_range(0..replicas))
                },
                lasts: Duration::from_millis(match rng.random_range(0..10) {
                    0..5 => rng.random_range(1..300),
                    5..9 => rng.random_range(300..2_000),
                    _ => rng.random_range(2_000..6_000),
                }),
                what: mishap(rng, forgetful),
                salt: rng.random(),
            });
        }
        Plan {
            seed,
            replicas,
            window: *[1, 2, 3, 8, 64].choose(rng).expect("some"),
            limits: limits(rng),
            segment_bytes: *[4 << 10, 8 << 10, 64 << 10].choose(rng).expect("some"),
            checkpoint_bytes: *[500, 3_000, 20_000, 64 << 20].choose(rng).expect("some"),
            network: Weather {
                loss: *[0, 0, 50, 500, 2_000].choose(rng).expect("some"),
                duplication: *[0, 100, 1_000].choose(rng).expect("some"),
                slow: *[0, 50, 1_000].choose(rng).expect("some"),
                slow_most: *[5_000, 100_000, 400_000].choose(rng).expect("some"),
                encoded: 100,
            },
            disks: Speed {
                sync: *[(20, 100), (60, 400), (500, 8_000)].choose(rng).expect("some"),
                stalls: *[0, 5, 50].choose(rng).expect("some"),
                stall: *[50_000, 700_000].choose(rng).expect("some"),
            },
            drift: *[0, 200, 20_000, 200_000].choose(rng).expect("some"),
            clients: Demand {
                clients: rng.random_range(2..=8),
                requests: rng.random_range(20..120),
                keys: rng.random_range(1..=6),
                pause: *[2_000, 30_000, 200_000].choose(rng).expect("some"),
                value: *[8, 100, 1_500].choose(rng).expect("some"),
                patience: Duration::from_millis(rng.random_range(300..5_000)),
            },
            trouble,
            faults,
            reckless,
        }
    }
}

/// Small bounds, so that every one of them is met.
fn limits(rng: &mut ChaCha8Rng) -> ProtocolLimits {
    ProtocolLimits {
        acceptor: acceptor::Limits {
            promise_bytes: *[1, 600, 4 << 20].choose(rng).expect("some"),
            ..acceptor::Limits::default()
        },
        proposer: proposer::Options {
            depth: rng.random_range(1..=6),
            batch_bytes: *[1, 400, 1 << 20].choose(rng).expect("some"),
            queue_bytes: *[4_000, 64 << 20].choose(rng).expect("some"),
            hedge: [None, Some(5), Some(20)].choose(rng).expect("some").map(Duration::from_millis),
            ..proposer::Options::default()
        },
        learner: learner::Options {
            log_bytes: *[600, 5_000, 32 << 20].choose(rng).expect("some"),
            ahead_slots: *[8, 64, 1024].choose(rng).expect("some"),
            ahead_bytes: *[4_000, 64 << 20].choose(rng).expect("some"),
            answer_bytes: *[1, 600, 1 << 20].choose(rng).expect("some"),
            ..learner::Options::default()
        },
        front: front::Options {
            message_bytes: *[200, 1 << 20].choose(rng).expect("some"),
            ..front::Options::default()
        },
    }
}

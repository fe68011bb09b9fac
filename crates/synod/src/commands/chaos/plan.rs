//! What will befall the cluster, made of a seed.
//!
//! One fault after the other, in rounds: each round has every kind once, shuffled, so that a short run sees as
//! many kinds as it has time for. Chance is drawn from the seed alone; only who leads when a fault is meant for
//! the leader, and the exact times, are the machine's.

use std::collections::VecDeque;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use synod_client::rpc::synodpb::Role;

use crate::cluster::chance::Chance;

/// A kind of fault, as asked for and as reported. The ids are those of the catalogue of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// A server killed with -9, and started again (C1)
    Kill,
    /// The same, always the leader (C1)
    LeaderKill,
    /// A server stopped for seconds with SIGSTOP, often the leader (P1)
    Stop,
    /// A minority cut off from the rest (N1)
    Cut,
    /// A server that hears but is not heard, or the other way round (N2)
    OneWay,
    /// Two halves that only one server connects (N3)
    Bridge,
    /// A disk without room left (D2); needs root
    DiskFull,
    /// A server killed, its data deleted, and started again (D9)
    Wipe,
    /// All servers killed at once, and started in any order (C4)
    RestartAll,
    /// One role of a server stopped, with or without its memory (P2)
    Roles,
    /// A server killed again every 200 ms (C6)
    CrashLoop,
    /// A write acknowledged by a bare majority, one of whom forgets and then starts first and alone (D9)
    WipedFirst,
}

/// What befalls whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Kill(Who),
    Stop(Who),
    /// These are cut off from the others; if it says so, the leader in the first one's place.
    Cut {
        group: Vec<usize>,
        leader: bool,
    },
    OneWay {
        who: Who,
        heard: bool,
    },
    /// The first connects the second to the third group.
    Bridge {
        hub: usize,
        left: Vec<usize>,
        right: Vec<usize>,
    },
    DiskFull,
    Wipe(Who),
    /// Started in this order.
    RestartAll(Vec<usize>),
    Role {
        who: Who,
        role: Role,
        forget: bool,
    },
    CrashLoop(Who),
    /// The first is wiped, it and the next acknowledge, the rest is away.
    WipedFirst(Vec<usize>),
}

/// Whom it befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Whoever leads then.
    Leader,
    /// The server at this place.
    Place(usize),
}

/// One fault, and the time around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Episode {
    pub(super) kind: Kind,
    pub(super) action: Action,
    /// From the strike until it is healed.
    pub(super) lasts: Duration,
    /// Afterwards, in health.
    pub(super) rest: Duration,
}

/// Episodes without end.
pub(super) struct Plan {
    chance: Chance,
    kinds: Vec<Kind>,
    servers: usize,
    round: VecDeque<Kind>,
}

impl Plan {
    /// `kinds` must not be empty, and there must be three servers or more.
    pub(super) fn new(seed: u64, kinds: &[Kind], servers: usize) -> Self {
        Self { chance: Chance::new(seed, 0), kinds: kinds.to_vec(), servers, round: VecDeque::new() }
    }

    pub(super) fn next(&mut self) -> Episode {
        if self.round.is_empty() {
            let mut round = self.kinds.clone();
            self.chance.shuffle(&mut round);
            self.round = round.into();
        }
        let kind = self.round.pop_front().expect("a round has every kind");
        let action = self.action(kind);
        let (least, most) = lasts(kind);
        let lasts = Duration::from_millis(self.chance.within(least..=most));
        let rest = Duration::from_millis(self.chance.within(800..=2_000));
        Episode { kind, action, lasts, rest }
    }

    fn action(&mut self, kind: Kind) -> Action {
        match kind {
            Kind::Kill => Action::Kill(self.place()),
            Kind::LeaderKill => Action::Kill(Who::Leader),
            Kind::Stop => Action::Stop(self.who()),
            Kind::Cut => {
                let mut group = self.order();
                let most = minority(self.servers) as u64;
                group.truncate(self.chance.within(1..=most) as usize);
                Action::Cut { group, leader: self.heads() }
            }
            Kind::OneWay => Action::OneWay { who: self.who(), heard: self.heads() },
            Kind::Bridge => {
                let order = self.order();
                let (left, right) = order[1..].split_at((self.servers - 1) / 2);
                Action::Bridge { hub: order[0], left: left.to_vec(), right: right.to_vec() }
            }
            Kind::DiskFull => Action::DiskFull,
            Kind::Wipe => Action::Wipe(self.who()),
            Kind::RestartAll => Action::RestartAll(self.order()),
            Kind::Roles => Action::Role {
                who: self.who(),
                role: *self.chance.pick(&[Role::Proposer, Role::Acceptor, Role::Learner]),
                forget: self.heads(),
            },
            Kind::CrashLoop => Action::CrashLoop(self.place()),
            Kind::WipedFirst => Action::WipedFirst(self.order()),
        }
    }

    fn heads(&mut self) -> bool {
        self.chance.within(0..=1) == 1
    }

    fn place(&mut self) -> Who {
        Who::Place(self.chance.within(0..=self.servers as u64 - 1) as usize)
    }

    /// The leader as often as somebody by number.
    fn who(&mut self) -> Who {
        let place = self.place();
        if self.heads() { Who::Leader } else { place }
    }

    fn order(&mut self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.servers).collect();
        self.chance.shuffle(&mut order);
        order
    }
}

/// How many servers may be away while a majority is not.
pub(super) fn minority(servers: usize) -> usize {
    servers.saturating_sub(1) / 2
}

/// How long a fault lasts, in milliseconds, from and to.
fn lasts(kind: Kind) -> (u64, u64) {
    match kind {
        Kind::Kill | Kind::LeaderKill | Kind::Roles => (500, 2_000),
        Kind::Stop => (1_000, 5_000),
        Kind::Cut | Kind::OneWay | Kind::Bridge => (2_000, 5_000),
        Kind::DiskFull => (2_000, 4_000),
        Kind::Wipe | Kind::RestartAll => (100, 1_000),
        Kind::CrashLoop => (2_000, 4_000),
        Kind::WipedFirst => (1_000, 2_000),
    }
}

impl Kind {
    /// As on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn episodes(seed: u64, servers: usize, count: usize) -> Vec<Episode> {
        let mut plan = Plan::new(seed, Kind::value_variants(), servers);
        (0..count).map(|_| plan.next()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        assert_eq!(episodes(7, 5, 100), episodes(7, 5, 100));
        assert_ne!(episodes(7, 5, 100), episodes(8, 5, 100));
    }

    #[test]
    fn every_round_has_every_kind_once() {
        let all = Kind::value_variants().len();
        for round in episodes(3, 5, all * 10).chunks(all) {
            let kinds: BTreeSet<Kind> = round.iter().map(|episode| episode.kind).collect();
            assert_eq!(kinds.len(), all);
        }
    }

    #[test]
    fn no_more_than_a_minority_is_cut_off_and_everybody_has_a_place() {
        for servers in [3, 4, 5, 7] {
            let (mut longest, mut leader) = (0, false);
            for episode in episodes(1, servers, 600) {
                match episode.action {
                    Action::Cut { group, leader: led } => {
                        let different: BTreeSet<&usize> = group.iter().collect();
                        assert_eq!(different.len(), group.len());
                        assert!(group.iter().all(|&place| place < servers) && group.len() * 2 < servers);
                        longest = longest.max(group.len());
                        leader |= led;
                    }
                    Action::Bridge { hub, left, right } => {
                        let mut all: Vec<usize> = [vec![hub], left.clone(), right.clone()].concat();
                        all.sort_unstable();
                        assert_eq!(all, (0..servers).collect::<Vec<_>>());
                        assert!(left.len().abs_diff(right.len()) <= 1);
                    }
                    Action::RestartAll(order) | Action::WipedFirst(order) => {
                        assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), servers);
                    }
                    Action::Kill(Who::Place(place)) | Action::CrashLoop(Who::Place(place)) => {
                        assert!(place < servers);
                    }
                    _ => {}
                }
            }
            assert_eq!(longest, minority(servers), "also the largest minority");
            assert!(leader);
        }
    }

    #[test]
    fn kinds_are_named_as_they_are_asked_for() {
        assert_eq!(Kind::LeaderKill.name(), "leader-kill");
        for kind in Kind::value_variants() {
            let told = serde_json::to_value(kind).unwrap();
            assert_eq!(told, kind.name(), "the report and the command line agree");
        }
    }
}

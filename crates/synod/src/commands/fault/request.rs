//! From arguments to the messages of the Admin service.

use std::time::Duration;

use super::RoleName;
use crate::duration;
use crate::failed::{Failed, Why};
use synod_rpc::synodpb::inject_fault_request::Fault;
use synod_rpc::synodpb::{FaultMemory, Link, LinkDirection, RandomFaults, Role, StopRole};

/// Stop and restart roles at random times.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Random {
    /// Roles to pick from; without it, all three
    #[arg(long, value_name = "ROLE,...", value_delimiter = ',', value_enum, hide_possible_values = true)]
    roles: Vec<RoleName>,
    /// Mean time a role is left running
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    up: Duration,
    /// Mean time it stays stopped
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration::parse)]
    down: Duration,
    /// Roles wake up without their memory
    #[arg(long)]
    forget: bool,
    /// The same seed gives the same faults; without it, one is picked and shown
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// Only at these replicas; without it at all, or with --forget at a minority
    #[arg(long, value_name = "NODE,...", value_delimiter = ',')]
    pub(super) on: Vec<String>,
    /// End random faults instead, and start what is down
    #[arg(long, conflicts_with_all = ["roles", "up", "down", "forget", "seed"])]
    pub(super) stop: bool,
}

impl Random {
    /// How many of `replicas` must be left alone: when memories are lost, a
    /// majority has to keep theirs, unless the user has chosen the replicas.
    pub(super) fn spared(&self, replicas: usize) -> usize {
        if self.forget && self.on.is_empty() { replicas / 2 + 1 } else { 0 }
    }

    /// The fault for one replica. Each gets a seed of its own, or all of them
    /// would fail in step.
    pub(super) fn fault(&self, seed: u64, salt: u64) -> Result<Fault, Failed> {
        for (option, time) in [("--up", self.up), ("--down", self.down)] {
            if time < Duration::from_millis(1) {
                return Err(Failed::usage(Why::Arguments, format!("{option} must be at least 1ms")));
            }
        }
        Ok(Fault::RandomFaults(RandomFaults {
            roles: self.roles.iter().map(|&role| Role::from(role).into()).collect(),
            mean_up_ms: millis(self.up)?,
            mean_down_ms: millis(self.down)?,
            memory: memory(self.forget).into(),
            seed: seed.wrapping_add(salt),
        }))
    }
}

pub(super) fn stop(role: RoleName, forget: bool, time: Option<Duration>) -> Result<Fault, Failed> {
    Ok(Fault::StopRole(StopRole {
        role: Role::from(role).into(),
        memory: memory(forget).into(),
        restart_after_ms: time.map(millis).transpose()?,
    }))
}

pub(super) fn cut(peer: String, one_way: bool) -> Fault {
    let direction = if one_way { LinkDirection::Out } else { LinkDirection::Both };
    Fault::Link(Link { peer, direction: direction.into(), cut: true, ..Link::default() })
}

pub(super) fn link(peer: String, drop: f64, delay: Duration) -> Result<Fault, Failed> {
    if drop == 0.0 && delay.is_zero() {
        return Err(Failed::usage(Why::Arguments, "nothing to do: give --drop, --delay or both")
            .hint("`synod fault heal` ends what was given before."));
    }
    let direction = LinkDirection::Both.into();
    Ok(Fault::Link(Link { peer, direction, drop, delay_ms: millis(delay)?, cut: false }))
}

/// Reads a probability.
pub(super) fn chance(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|chance| (0.0..=1.0).contains(chance))
        .ok_or_else(|| "not a chance; write a number from 0 to 1, such as 0.1".to_owned())
}

/// Keeping is what the server does by itself: in volatile mode it forgets.
fn memory(forget: bool) -> FaultMemory {
    if forget { FaultMemory::Forget } else { FaultMemory::Unspecified }
}

fn millis(time: Duration) -> Result<u64, Failed> {
    u64::try_from(time.as_millis())
        .map_err(|_| Failed::usage(Why::Arguments, format!("{time:?} is too long a time")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        random: Random,
    }

    fn random(line: &[&str]) -> Random {
        Line::try_parse_from(std::iter::once(&"random").chain(line)).unwrap().random
    }

    #[test]
    fn a_stopped_role_comes_back_after_a_time_or_on_request() {
        let Ok(Fault::StopRole(stop)) = stop(RoleName::Acceptor, true, Some(Duration::from_secs(2))) else {
            panic!()
        };
        assert_eq!((stop.role(), stop.memory()), (Role::Acceptor, FaultMemory::Forget));
        assert_eq!(stop.restart_after_ms, Some(2_000));
        let Ok(Fault::StopRole(stop)) = super::stop(RoleName::Learner, false, None) else { panic!() };
        assert_eq!((stop.memory(), stop.restart_after_ms), (FaultMemory::Unspecified, None));
    }

    #[test]
    fn a_cut_goes_both_ways_unless_told_otherwise() {
        let Fault::Link(link) = cut("n2".to_owned(), false) else { panic!() };
        assert_eq!((link.direction(), link.cut), (LinkDirection::Both, true));
        let Fault::Link(link) = cut("n2".to_owned(), true) else { panic!() };
        assert_eq!(link.direction(), LinkDirection::Out);
    }

    #[test]
    fn a_link_is_disturbed_somehow() {
        assert!(link("n2".to_owned(), 0.0, Duration::ZERO).is_err());
        let Ok(Fault::Link(link)) = link("n2".to_owned(), 0.25, Duration::from_millis(50)) else { panic!() };
        assert_eq!((link.drop, link.delay_ms, link.cut), (0.25, 50, false));
    }

    #[test]
    fn a_chance_lies_between_never_and_always() {
        assert_eq!(chance("0.5"), Ok(0.5));
        for text in ["1.1", "-0.1", "NaN", "often"] {
            assert!(chance(text).is_err(), "{text}");
        }
    }

    #[test]
    fn random_faults_differ_between_replicas_and_repeat_with_the_seed() {
        let random = random(&["--roles", "acceptor,proposer", "--up", "2s", "--down", "250ms"]);
        let Ok(Fault::RandomFaults(first)) = random.fault(7, 0) else { panic!() };
        let Ok(Fault::RandomFaults(second)) = random.fault(7, 1) else { panic!() };
        assert_eq!((first.mean_up_ms, first.mean_down_ms), (2_000, 250));
        assert_eq!(first.roles, [i32::from(Role::Acceptor), i32::from(Role::Proposer)]);
        assert_ne!(first.seed, second.seed);
        assert_eq!(random.fault(7, 1), Ok(Fault::RandomFaults(second)));
    }

    #[test]
    fn a_majority_keeps_its_memory_unless_the_user_chooses() {
        assert_eq!(random(&["--forget"]).spared(5), 3);
        assert_eq!(random(&["--forget"]).spared(4), 3);
        assert_eq!(random(&[]).spared(5), 0);
        assert_eq!(random(&["--forget", "--on", "n1,n2,n3"]).spared(3), 0);
    }

    #[test]
    fn times_that_cannot_be_are_refused() {
        assert!(random(&["--up", "0"]).fault(1, 0).is_err());
        assert!(random(&["--down", "10us"]).fault(1, 0).is_err());
        assert!(Line::try_parse_from(["random", "--stop", "--forget"]).is_err());
    }
}

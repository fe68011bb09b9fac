//! Servers that lose their disks one after the other, each only once the one before votes again and has caught up
//! (D9). Never more than a minority counts as failed, so nothing may be lost; although in the end nobody is left who
//! voted in the beginning, and then all restart, so that only disks remember.

use std::time::Duration;
use synod_sim::world::plan::{Fault, Mishap, Plan, Whom};

/// A cluster whose logs are far too short for a checkpoint to be due.
fn quiet(seed: u64, replicas: u64, window: u64, faults: Vec<Fault>) -> Plan {
    Plan { window, ..Plan::quiet(seed, replicas, faults) }
}

fn fault(at: Duration, victim: u64, what: Mishap) -> Fault {
    Fault { at, whom: Whom::Number(victim), lasts: Duration::from_millis(50), what, salt: 7 }
}

/// Every server is wiped, one every three seconds, which is time enough to come back; then all are killed at once.
fn every_server_in_turn(replicas: u64, power: bool) -> Vec<Fault> {
    let wiped =
        (0..replicas).map(|number| fault(Duration::from_secs(3 * (number + 1)), number, Mishap::Wipe));
    let last = Duration::from_secs(3 * (replicas + 1));
    wiped.chain([fault(last, 0, Mishap::KillAll { power })]).collect()
}

#[test]
fn d9_servers_wiped_one_after_the_other_survive_a_restart_of_all() {
    for (replicas, window, power) in [(3, 64, false), (3, 1, true), (5, 8, false)] {
        for seed in 1..=2 {
            let plan = quiet(seed, replicas, window, every_server_in_turn(replicas, power));
            let outcome = synod_sim::world::run(&plan, false);
            assert_eq!(outcome.broken, None, "{replicas} replicas, window {window}, seed {seed}");
            // Otherwise it was the world that was careful, and not synod. The judges count too.
            let wiped = outcome.sometimes.get("disk wiped").copied();
            assert_eq!(wiped, Some(2 * replicas), "{replicas} replicas, window {window}, seed {seed}");
            assert!(outcome.answered > 0);
        }
    }
}

/// The same without what this is about: the world alone does not save a cluster.
#[cfg(feature = "mutants")]
#[test]
fn d9_what_only_processes_hold_does_not_survive_a_restart_of_all() {
    use synod_paxos::mutants::{self, Mutant};
    mutants::set(Some(Mutant::VotesWithoutStore));
    let outcome = synod_sim::world::run(&quiet(1, 3, 64, every_server_in_turn(3, false)), false);
    mutants::set(None);
    assert_eq!(outcome.broken.map(|broken| broken.invariant), Some("progress"));
}

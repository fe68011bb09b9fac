//! Random runs of whole clusters, judged by an oracle; see [`cluster`] for how.
//!
//! `SYNOD_SEEDS` sets how many seeds each size runs, `SYNOD_FIRST_SEED` where they begin. A failing seed prints
//! itself and the last steps that led there.

#[expect(unreachable_pub, reason = "what the harness offers is meant for every test")]
mod cluster;

use cluster::Sometimes;

/// What must have happened somewhere in a batch, or the batch was too tame to prove anything.
const SOMETIMES: &[&str] = &[
    "acceptor forgot",
    "answer found in a checkpoint",
    "applied from its own log",
    "checkpoint installed",
    "command chosen twice",
    "command of an older life refused",
    "counted in the leader's place",
    "disk wiped",
    "front renamed",
    "hand-over",
    "leader deposed",
    "leading proposer stopped",
    "learner forgot",
    "log trimmed",
    "memory replaced by another",
    "no-op proposed",
    "promise answered in parts",
    "read answered",
    "read asked again after a change of voters",
    "read reminds the leader",
    "two values proposed for one slot",
    "value adopted from a promise",
    "window reached",
    "write answered",
];

#[expect(clippy::disallowed_methods, reason = "how many seeds to run is for whoever runs them to say")]
fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn run(size: u64, seeds: u64) -> Sometimes {
    let first = setting("SYNOD_FIRST_SEED", 0);
    let seeds = setting("SYNOD_SEEDS", seeds);
    let sometimes = cluster::run_all(size, first..first + seeds);
    println!("{sometimes:#?}");
    for what in SOMETIMES {
        assert!(seeds < 50 || sometimes.contains_key(what), "never in {seeds} seeds of size {size}: {what}");
    }
    sometimes
}

#[test]
fn three_replicas_agree_whatever_happens() {
    run(3, 200);
}

#[test]
fn five_replicas_agree_whatever_happens() {
    run(5, 80);
}

#[test]
fn seven_replicas_agree_whatever_happens() {
    run(7, 50);
}

//! A cluster forms although a disk was too full for its member's log at first (D2): the member waits for room, and
//! nobody has to restart it.

use std::time::Duration;
use synod_sim::world::plan::{Fault, Mishap, Plan, Weather, Whom};
use synod_sim::world::run;

#[test]
fn d2_a_member_whose_disk_was_full_takes_part_once_there_is_room() {
    for seed in 0..6 {
        let full = |whom, salt| Fault {
            at: Duration::ZERO,
            whom: Whom::Number(whom),
            lasts: Duration::from_secs(3),
            what: Mishap::FullDisk, // of less than a segment
            salt,
        };
        let plan = Plan {
            replicas: 3,
            network: Weather::FAIR,
            trouble: Duration::from_secs(4),
            faults: vec![full(0, seed), full(1, seed + 100)],
            reckless: false,
            ..Plan::of(seed)
        };
        let outcome = run(&plan, false);
        assert!(outcome.broken.is_none(), "seed {seed}: {:?}", outcome.broken);
        assert!(outcome.answered > 0, "seed {seed}: nobody was answered");
    }
}

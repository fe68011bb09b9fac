//! A cluster forms although disks were too full for their members' logs at first (D2): the members wait for room, and
//! nobody has to restart them.

use std::time::Duration;
use synod_sim::world::plan::{Fault, Mishap, Plan, Whom};
use synod_sim::world::run;

#[test]
fn d2_a_member_whose_disk_was_full_takes_part_once_there_is_room() {
    for seed in 0..6 {
        let full = |member, salt| Fault {
            at: Duration::ZERO,
            whom: Whom::Number(member),
            lasts: Duration::from_secs(3),
            what: Mishap::FullDisk, // less than a segment fits
            salt,
        };
        let quiet = Plan::quiet(seed, 3, vec![full(0, seed), full(1, seed + 100)]);
        let outcome = run(&Plan { trouble: Duration::from_secs(4), ..quiet }, false);
        assert!(outcome.broken.is_none(), "seed {seed}: {:?}", outcome.broken);
        assert!(outcome.answered > 0, "seed {seed}: nobody was answered");
    }
}

//! A learner that begins anew in a process that lives on does not ask those that cannot be reached for what it lacks:
//! its replica knows who they are (PMS-21).

use std::time::Duration;
use synod_paxos::types::NodeId;
use synod_server::replica::{Memory, Role};
use synod_server::trace::{Message, What};
use synod_sim::world::plan::{Fault, Mishap, Plan, Whom};
use synod_sim::world::run;

#[test]
fn pms_21_a_new_life_of_a_learner_asks_nobody_who_cannot_be_reached() {
    let mut asked = 0;
    for seed in 0..24 {
        let fault = |at, whom, lasts, what| Fault {
            at: Duration::from_millis(at),
            whom: Whom::Number(whom),
            lasts: Duration::from_millis(lasts),
            what,
            salt: seed,
        };
        let stop = Mishap::StopRole { role: Role::Learner, memory: Memory::Keep };
        let faults = vec![fault(1_000, 1, 3_000, Mishap::DeafOrMute), fault(2_500, 3, 100, stop)];
        let outcome = run(&Plan::quiet(seed, 5, faults), true);
        assert_eq!(outcome.broken, None, "seed {seed}");
        let (cut_off, learner) = (NodeId(2), NodeId(4));
        for event in outcome.record.iter().filter(|event| (2_500_000..4_000_000).contains(&event.at)) {
            let there = event.place.as_ref().is_some_and(|place| place.node == learner);
            if let (true, What::Sent { to, message: Message::Fetch { .. } }) = (there, &event.what) {
                assert!(!to.contains(&cut_off), "seed {seed}: asks {cut_off} at {}", event.at);
                asked += 1;
            }
        }
    }
    assert!(asked >= 12, "asks {asked} times");
}

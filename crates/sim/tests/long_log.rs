//! All servers restart while their logs are long and no checkpoint covers them (C4). Whoever leads then first reads
//! thousands of slots, in many parts, and proposes them again, while clients wait at every replica. That takes longer
//! than anybody has patience for, and has to come to an end all the same: rivals that take turns in deposing each
//! other would go on for ever (PMS-23).

use std::time::Duration;
use synod_paxos::{acceptor, proposer};
use synod_server::replica::ProtocolLimits;
use synod_sim::world::plan::{Demand, Fault, Mishap, Plan, Whom};

/// From the end of all faults until everybody is served and all replicas are equal.
const BOUND: Duration = Duration::from_secs(20);

fn plan(seed: u64, replicas: u64) -> Plan {
    let fault = |at, what| Fault {
        at: Duration::from_millis(at),
        whom: Whom::Leader,
        lasts: Duration::from_millis(50),
        what,
        salt: seed,
    };
    // Another leader first: what the log says of one reign alone lets replicas apply it without asking anybody.
    let faults = vec![fault(4_000, Mishap::Kill), fault(4_900, Mishap::KillAll { power: false })];
    let quiet = Plan::quiet(seed, replicas, faults);
    Plan {
        limits: ProtocolLimits {
            // Every part of an answer to phase 1 holds one slot, as if values were as large as they may be.
            acceptor: acceptor::Limits { promise_bytes: 1, ..acceptor::Limits::default() },
            proposer: proposer::Options { batch_bytes: 1, ..proposer::Options::default() },
            ..ProtocolLimits::default()
        },
        clients: Demand {
            clients: 12,
            requests: 5_000,
            keys: 20,
            pause: 20_000, // some three thousand writes until all are killed
            value: 8,
            ..quiet.clients
        },
        trouble: Duration::from_millis(5_000),
        ..quiet
    }
}

#[test]
fn c4_a_restart_of_all_with_a_long_log_comes_to_an_end() {
    for (seed, replicas) in [(1, 3), (2, 5)] {
        let plan = plan(seed, replicas);
        let outcome = synod_sim::world::run(&plan, false);
        assert_eq!(outcome.broken, None, "{replicas} replicas, seed {seed}");
        let took = outcome.simulated.saturating_sub(plan.trouble);
        assert!(took < BOUND, "{replicas} replicas, seed {seed}: took {took:?}");
    }
}

//! Whole clusters under faults: every seed that ever failed, and some that nobody has run before.
//!
//! `synod sim` runs many more. These few are for `cargo test`, where the code is slow and the time short.

use std::process::Command;
use synod_sim::batch::{self, Options};
use synod_sim::world::plan::Plan;
use synod_sim::world::run;

/// Seeds that failed once, and what was wrong then. A change of what plans are drawn makes other runs of them; what
/// was wrong has tests of its own beside these.
const FAILED: &[u64] = &[
    961,     // a leader jumped over slots that a majority remembered, and stayed ahead of everybody
    1661,    // formation stopped for good when the disk was full for a moment
    1666,    // the same, at a member that had just joined
    1770,    // a removal that came late left too few voters
    3496,    // as 961
    3530,    // as 1666
    201_492, // a checkpoint that could not be read for a moment was thrown away
    205_990, // a leader that had learned the first slot it jumped over forgot about the others
];

/// How many new seeds are run.
const FRESH: u64 = 40;

fn demand_good(what: &str, report: &batch::Report) {
    let failures: Vec<String> =
        report.failures.iter().map(|(seed, broken)| format!("seed {seed}: {broken}")).collect();
    assert!(failures.is_empty(), "{what}, look with `synod sim --seed N --trace`:\n{}", failures.join("\n"));
}

#[test]
fn seeds_that_failed_once_fail_no_more() {
    for &seed in FAILED {
        let outcome = run(&Plan::of(seed), false);
        assert!(outcome.broken.is_none(), "seed {seed}: {:?}", outcome.broken);
    }
}

/// Each commit tries others, so that time finds what one batch cannot.
#[test]
fn fresh_seeds_hold() {
    let head =
        Command::new("git").args(["rev-parse", "HEAD"]).output().ok().filter(|out| out.status.success());
    let head = head.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    let first = u64::from_str_radix(head.get(..12).unwrap_or("0"), 16).unwrap_or_default();
    println!("seeds from {first} on");
    let report = batch::run(first..first + FRESH, Options::default(), |_, _| {});
    println!("{report}");
    assert_eq!(report.seeds, FRESH);
    assert!(report.answered > 1_000, "nothing happens in there: {report}");
    demand_good("a fresh seed", &report);
}

#[test]
fn a_seed_is_a_run_bit_for_bit() {
    for seed in [3, 4] {
        let plan = Plan::of(seed);
        let (one, other) = (run(&plan, false), run(&plan, true));
        assert_eq!(
            one.fingerprint, other.fingerprint,
            "recording changes nothing, and chance comes from the seed"
        );
        assert_eq!(
            (one.events, one.simulated, one.answered),
            (other.events, other.simulated, other.answered)
        );
        assert_eq!(one.sometimes, other.sometimes);
        assert!(one.record.is_empty() && !other.record.is_empty());
    }
    assert_ne!(run(&Plan::of(3), false).fingerprint, run(&Plan::of(4), false).fingerprint);
}

/// Breaking synod on purpose is noticed. The whole list takes minutes; see `synod-sim mutants`.
#[cfg(feature = "mutants")]
mod broken_on_purpose {
    use synod_paxos::mutants::Mutant;
    use synod_sim::mutants::{ALL, hunt};

    #[test]
    fn some_mistakes_show_at_once() {
        for mutant in [Mutant::ForgetsPromise, Mutant::IgnoresFoundValues, Mutant::ReadsWithoutWaiting] {
            let entry = ALL.iter().find(|entry| entry.mutant == mutant).expect("every mutant is on the list");
            let caught = hunt(entry, 0, 10);
            assert!(caught.is_some(), "{} was not noticed", entry.name);
        }
    }

    #[test]
    fn no_name_stands_twice_on_the_list() {
        let names: std::collections::BTreeSet<&str> = ALL.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.len() >= 25);
    }
}

/// A run that fails is made smaller, and still fails in the same way.
#[cfg(feature = "mutants")]
#[test]
fn a_failing_plan_shrinks() {
    use synod_paxos::mutants::{Mutant, set};
    use synod_sim::shrink::{Effort, shrink};

    set(Some(Mutant::IgnoresFoundValues));
    let failing = (0..40).map(Plan::of).find_map(|plan| Some((run(&plan, false).broken?, plan)));
    let (whole, plan) = failing.expect("this mistake shows");
    let smaller = shrink(&plan, Effort(25), |_, _| {});
    let again = smaller.as_ref().and_then(|plan| run(plan, false).broken);
    set(None);
    let smaller = smaller.expect("what fails can be shrunk");
    assert_eq!(again.map(|broken| broken.invariant), Some(whole.invariant));
    assert!(smaller.faults.len() < plan.faults.len());
    assert!(shrink(&plan, Effort(1), |_, _| {}).is_none(), "what does not fail is not shrunk");
}

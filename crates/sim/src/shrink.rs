//! A failing plan made smaller: faults and requests are left out as long as the same invariant still breaks.
//!
//! Leaving something out changes the order of everything behind it, so a smaller plan may well break nothing, or
//! something else, and then the next one is tried. The result is not the smallest there is, but small enough to be
//! read.

use crate::world::plan::{Plan, Weather};
use crate::world::{self, Outcome};

/// How many runs a search may take.
#[derive(Clone, Copy, Debug)]
pub struct Effort(pub u32);

impl Default for Effort {
    fn default() -> Effort {
        Effort(400)
    }
}

/// The smallest plan found that breaks what `plan` breaks; none if it breaks nothing. `progress` is told of each
/// success: how many faults and requests are left.
pub fn shrink(plan: &Plan, effort: Effort, mut progress: impl FnMut(usize, u32)) -> Option<Plan> {
    let invariant = world::run(plan, false).broken?.invariant;
    let mut runs = effort.0;
    let mut best = plan.clone();
    let mut still = |plan: &Plan| {
        runs = runs.checked_sub(1)?;
        let Outcome { broken, .. } = world::run(plan, false);
        Some(broken.is_some_and(|broken| broken.invariant == invariant))
    };
    loop {
        let before = size(&best);
        // Runs of faults first, long ones before short ones.
        let mut length = best.faults.len().div_ceil(2);
        while length > 0 {
            let mut at = 0;
            while at < best.faults.len() {
                let mut smaller = best.clone();
                smaller.faults.drain(at..(at + length).min(smaller.faults.len()));
                match still(&smaller) {
                    Some(true) => {
                        best = smaller;
                        progress(best.faults.len(), best.clients.requests * best.clients.clients);
                    }
                    Some(false) => at += length,
                    None => return Some(best),
                }
            }
            length /= 2;
        }
        let simpler: [fn(&mut Plan); 7] = [
            |plan| plan.clients.requests /= 2,
            |plan| plan.clients.clients = (plan.clients.clients / 2).max(1),
            |plan| plan.network = Weather::FAIR,
            |plan| plan.drift = 0,
            |plan| plan.clients.keys = 1,
            |plan| plan.clients.value = 8,
            |plan| plan.trouble = plan.faults.last().map_or(plan.trouble, |fault| fault.at + fault.lasts),
        ];
        for simplify in simpler {
            let mut smaller = best.clone();
            simplify(&mut smaller);
            match still(&smaller) {
                Some(true) => best = smaller,
                Some(false) => {}
                None => return Some(best),
            }
        }
        if size(&best) >= before {
            return Some(best);
        }
    }
}

fn size(plan: &Plan) -> u64 {
    plan.faults.len() as u64 * 1_000 + u64::from(plan.clients.requests * plan.clients.clients)
}

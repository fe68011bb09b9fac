//! From a history that contradicts itself to the few operations that do.
//!
//! Operations cannot simply be left out: without its put, a get looks wrong.
//! What may be done is to *weaken* the history, so that whatever explained it
//! before still does: drop an answer to a read; turn a write into one of unknown
//! fate, which may happen at any later moment or never. If even the weakened
//! history has no explanation, the operations left whole are to blame.

use std::collections::HashSet;

use super::search::{Found, search};
use super::{Effort, KeyState, Needs, Step};
use crate::history::Moment;

/// All searches together may cost this much: some seconds.
const EFFORT_MAX: Effort = Effort(4_000_000);

/// A single search that is harder than this is not worth it: a group of operations
/// that stays in the contradiction without need makes it longer, not wrong.
const EFFORT_EACH: Effort = Effort(200_000);

/// Returns the steps of a small contradiction in `steps`, which must hold one.
/// Leaving out any single one of them would end it, unless the bounds above cut
/// the work short.
pub(super) fn shrink(steps: Vec<Step>) -> Vec<Step> {
    let mut left = EFFORT_MAX;
    let mut still_wrong = |steps: &[Step]| {
        // Looking at a history at all costs as much as it is long.
        left.0 = left.0.saturating_sub(steps.len() as u64);
        let granted = left.min(EFFORT_EACH);
        let mut effort = granted;
        let found = search(steps, &mut effort);
        left.0 -= granted.0 - effort.0;
        found == Found::NoOrder
    };

    // What came after the first impossible answer cannot matter. Longer
    // beginnings of a wrong history are wrong too, so halving finds the shortest.
    let mut returns: Vec<Moment> = steps.iter().filter_map(|step| step.returned).collect();
    returns.sort();
    let (mut low, mut high) = (0, returns.len() - 1);
    while low < high {
        let middle = (low + high) / 2;
        match still_wrong(&until(&steps, returns[middle])) {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    let mut steps = until(&steps, returns[high]);

    // Weaken larger, then smaller groups of what is left.
    let mut group = steps.len().next_power_of_two();
    loop {
        let whole: Vec<usize> = (0..steps.len()).filter(|&index| steps[index].returned.is_some()).collect();
        for indices in whole.chunks(group) {
            let weaker = weaken(&steps, indices);
            if still_wrong(&weaker) {
                steps = weaker;
            }
        }
        drop_the_useless(&mut steps);
        if group == 1 {
            break;
        }
        group /= 2;
    }
    steps.retain(|step| step.returned.is_some());
    steps
}

/// What was known at `moment`.
fn until(steps: &[Step], moment: Moment) -> Vec<Step> {
    let begun: Vec<Step> = steps.iter().filter(|step| step.invoked <= moment).cloned().collect();
    let unanswered: Vec<usize> = (0..begun.len())
        .filter(|&index| begun[index].returned.is_some_and(|returned| returned > moment))
        .collect();
    weaken(&begun, &unanswered)
}

/// Forgets what the given steps were answered, and leaves them in their places.
fn weaken(steps: &[Step], indices: &[usize]) -> Vec<Step> {
    let mut weaker = steps.to_vec();
    for &index in indices {
        let step = &mut weaker[index];
        step.needs = Needs::Nothing;
        step.hint = None;
        step.returned = None;
    }
    weaker
}

/// Removes unanswered reads, and writes of unknown fate that explain nobody's
/// answer, to make the searches that follow shorter.
fn drop_the_useless(steps: &mut Vec<Step>) {
    let anything = steps.iter().any(|step| step.needs == Needs::Something);
    let exactly: HashSet<KeyState> = steps.iter().filter_map(|step| step.needs.exactly()).collect();
    steps.retain(|step| {
        step.returned.is_some() || step.writes.is_some_and(|state| anything || exactly.contains(&state))
    });
}

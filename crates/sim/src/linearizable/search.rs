//! The search for an order: Wing and Gong's, with Lowe's memory.
//!
//! Build the order from the front. Next may come any operation that was invoked
//! before the earliest answer still outstanding; try one, go on, and come back
//! when stuck. Two situations with the same set of operations done and the same
//! value in the key have the same future, so each is entered once.
//!
//! Five observations keep this short without losing an answer:
//!
//! - **A read that fits is taken at once.** It changes nothing, so if any order
//!   exists from here, the same order with this read moved to the front is one.
//! - **A write of unknown fate is only used by who sees it.** It may happen late
//!   or never, so it is put into the order only directly before an operation
//!   whose answer needs it. (If the next operation does not look, the unknown
//!   write might as well come later.) Hence such writes cost nothing unless
//!   somebody saw them. Those that left the same value behind are
//!   interchangeable: the one invoked first serves.
//! - **To have used fewer of them is never worse.** Of two situations that differ
//!   only in the writes of unknown fate used so far, the one with more of them is
//!   not entered if the other has failed.
//! - **Values that no answer tells are all the same value.** Nobody can see the
//!   difference.
//! - **Revisions say where to look first.** Only there: see the parent module.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Effort, KeyState, Needs, Step};
use crate::history::Moment;

/// What came of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is an order.
    Order,
    /// There is none.
    NoOrder,
    /// The effort was spent before either was clear.
    GaveUp,
}

/// Looks for an order of `steps` (one key, sorted by invocation) that begins with
/// the key absent. Takes what it spends from `effort`: one for each move tried.
pub(super) fn search(steps: &[Step], effort: &mut Effort) -> Found {
    let mut situation = Situation::new(steps);
    if situation.is_done() {
        return Found::Order;
    }
    let mut failed = Failed::default();
    let mut path = vec![Branch { taken: None, untried: situation.moves() }];
    while let Some(branch) = path.last_mut() {
        if let Some(taken) = branch.taken.take() {
            situation.undo(&taken);
        }
        let Some(next) = branch.untried.pop() else {
            path.pop();
            continue;
        };
        if effort.0 == 0 {
            return Found::GaveUp;
        }
        effort.0 -= 1;
        branch.taken = Some(situation.take(next));
        if situation.is_done() {
            return Found::Order;
        }
        if failed.is_new(&situation) {
            path.push(Branch { taken: None, untried: situation.moves() });
        }
    }
    Found::NoOrder
}

/// Situations that were entered: all of them have failed by the time they are met
/// again, because no path meets the same set of operations done twice.
#[derive(Default)]
struct Failed {
    /// For what is done and what the key holds, the smallest sets of writes of
    /// unknown fate that were used on the way.
    used: HashMap<Box<[u64]>, Vec<Box<[u64]>>>,
}

impl Failed {
    /// Notes the situation, unless one that is at least as good is known.
    fn is_new(&mut self, situation: &Situation) -> bool {
        let used = situation.used.words_from(0);
        let known = self.used.entry(situation.fingerprint()).or_default();
        if known.iter().any(|fewer| is_subset(fewer, used)) {
            return false;
        }
        known.retain(|more| !is_subset(used, more));
        known.push(used.into());
        true
    }
}

fn is_subset(fewer: &[u64], more: &[u64]) -> bool {
    fewer.len() <= more.len() && fewer.iter().zip(more).all(|(fewer, more)| fewer & !more == 0)
}

/// A place where the search may come back to.
struct Branch {
    taken: Option<Taken>,
    /// The best choice last.
    untried: Vec<Move>,
}

/// The next operation in the order, perhaps right after a write of unknown fate
/// that explains its answer. Both are indices into the situation's lists.
#[derive(Clone, Copy)]
struct Move {
    step: usize,
    thanks_to: Option<usize>,
}

/// A move that was made, with what it takes to undo it.
struct Taken {
    choice: Move,
    state_before: KeyState,
    first_open_before: usize,
}

/// How far an attempt has come.
struct Situation {
    /// The operations that were answered, by invocation.
    answered: Vec<Step>,
    /// The writes of unknown fate, by invocation.
    unknown: Vec<Step>,
    /// For each value the writes of unknown fate that leave it behind.
    unknown_by_effect: BTreeMap<KeyState, Vec<usize>>,
    state: KeyState,
    done: Bits,
    used: Bits,
    /// The first answered operation that is not done.
    first_open: usize,
}

impl Situation {
    fn new(steps: &[Step]) -> Self {
        let needed: HashSet<KeyState> = steps.iter().filter_map(|step| step.needs.exactly()).collect();
        let simplified = steps.iter().map(|step| {
            let mut step = step.clone();
            step.writes = step.writes.map(|to| match to == KeyState::ABSENT || needed.contains(&to) {
                true => to,
                false => KeyState::UNTOLD,
            });
            step
        });
        let (answered, mut unknown): (Vec<_>, Vec<_>) = simplified.partition(|step| step.returned.is_some());
        // A read without an answer (shrinking makes some) says nothing.
        unknown.retain(|step| step.writes.is_some());
        let mut unknown_by_effect: BTreeMap<KeyState, Vec<usize>> = BTreeMap::new();
        for (index, step) in unknown.iter().enumerate() {
            let effect = step.writes.expect("it is a write");
            unknown_by_effect.entry(effect).or_default().push(index);
        }
        Self {
            done: Bits::new(answered.len()),
            used: Bits::new(unknown.len()),
            answered,
            unknown,
            unknown_by_effect,
            state: KeyState::ABSENT,
            first_open: 0,
        }
    }

    /// Every answer is explained. Writes of unknown fate may never have happened.
    fn is_done(&self) -> bool {
        self.first_open == self.answered.len()
    }

    /// What may come next, the best choice last.
    fn moves(&self) -> Vec<Move> {
        // Nothing may come next that was invoked after one of the open
        // operations was answered: `deadline` is the earliest such answer.
        let mut deadline = Moment(u64::MAX);
        let mut open = Vec::new();
        for (index, step) in self.answered.iter().enumerate().skip(self.first_open) {
            if step.invoked > deadline {
                break;
            }
            if !self.done.get(index) {
                deadline = deadline.min(step.returned.expect("it was answered"));
                open.push(index);
            }
        }

        let mut moves = Vec::new();
        for &index in &open {
            let step = &self.answered[index];
            if step.needs.met_by(self.state) {
                let choice = Move { step: index, thanks_to: None };
                if step.writes.is_none() {
                    return vec![choice];
                }
                moves.push(choice);
            } else {
                let explanations = self.explanations(step.needs, deadline);
                moves.extend(explanations.map(|unknown| Move { step: index, thanks_to: Some(unknown) }));
            }
        }
        moves.sort_by_key(|choice| {
            let step = &self.answered[choice.step];
            std::cmp::Reverse((step.hint, step.returned))
        });
        moves
    }

    /// Writes of unknown fate, not used yet, after which `needs` would be met.
    fn explanations(&self, needs: Needs, deadline: Moment) -> impl Iterator<Item = usize> {
        let effects: Vec<KeyState> = match needs {
            Needs::Nothing => Vec::new(),
            Needs::Exactly(state) => vec![state],
            Needs::Something => {
                let effects = self.unknown_by_effect.keys().copied();
                effects.filter(|&effect| effect != KeyState::ABSENT).collect()
            }
        };
        effects.into_iter().filter_map(move |effect| {
            let unknown = self.unknown_by_effect.get(&effect)?;
            unknown
                .iter()
                .copied()
                .take_while(|&index| self.unknown[index].invoked <= deadline)
                .find(|&index| !self.used.get(index))
        })
    }

    fn take(&mut self, choice: Move) -> Taken {
        let taken = Taken { choice, state_before: self.state, first_open_before: self.first_open };
        if let Some(unknown) = choice.thanks_to {
            self.used.set(unknown, true);
            self.state = self.unknown[unknown].writes.expect("it is a write");
        }
        if let Some(state) = self.answered[choice.step].writes {
            self.state = state;
        }
        self.done.set(choice.step, true);
        while self.first_open < self.answered.len() && self.done.get(self.first_open) {
            self.first_open += 1;
        }
        taken
    }

    fn undo(&mut self, taken: &Taken) {
        self.done.set(taken.choice.step, false);
        if let Some(unknown) = taken.choice.thanks_to {
            self.used.set(unknown, false);
        }
        self.state = taken.state_before;
        self.first_open = taken.first_open_before;
    }

    /// What is done and what the key holds, in few words: everything before the
    /// first open operation is done, nearly nothing after it.
    fn fingerprint(&self) -> Box<[u64]> {
        let done = self.done.words_from(self.first_open / u64::BITS as usize);
        let state = self.state.0.map_or(0, |number| u64::from(number) + 1);
        let head = [self.first_open as u64, state];
        head.iter().chain(done).copied().collect()
    }
}

/// A set of small numbers.
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(u64::BITS as usize)])
    }

    fn get(&self, index: usize) -> bool {
        self.0[index / 64] & (1 << (index % 64)) != 0
    }

    fn set(&mut self, index: usize, to: bool) {
        let bit = 1 << (index % 64);
        match to {
            true => self.0[index / 64] |= bit,
            false => self.0[index / 64] &= !bit,
        }
    }

    /// The words from the given one to the last that is not zero.
    fn words_from(&self, start: usize) -> &[u64] {
        let words = self.0.get(start..).unwrap_or(&[]);
        let end = words.iter().rposition(|&word| word != 0).map_or(0, |last| last + 1);
        &words[..end]
    }
}

#[cfg(test)]
mod tests {
    use super::is_subset;

    #[test]
    fn subsets_are_told_from_supersets() {
        assert!(is_subset(&[], &[]) && is_subset(&[], &[1]) && is_subset(&[0b01], &[0b11, 1]));
        assert!(!is_subset(&[0b11], &[0b01]) && !is_subset(&[0, 1], &[1]));
    }
}

//! Who was told what is chosen, and who cannot wait to be. Liveness only: a learner that is told nothing fetches.
//!
//! That a slot is chosen is told at once to the replicas where somebody waits for it: a client whose command is in
//! it, or a reader. The others hear of it with the next proposal, or else with the next tick, of several slots at
//! once: while one client writes, waking every replica for each of its puts would be most of the work.
//!
//! Who has the proposals is told a word, [`Chosen`](crate::message::Chosen); who was not asked to accept them gets
//! the values.

use crate::types::{NodeId, Prefix, Slot};
use std::collections::BTreeMap;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Telling {
    /// What nobody has to be told: it was chosen before this ballot, or by another one.
    floor: Prefix,
    told: BTreeMap<NodeId, Prefix>,
    /// The slots that were under way when a reader there began to wait.
    read: BTreeMap<NodeId, Prefix>,
}

/// How a replica is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum How {
    /// By a word.
    Word,
    /// By the values from this slot on.
    Values(Slot),
}

impl Telling {
    pub(super) fn from(floor: Prefix) -> Telling {
        Telling { floor, told: BTreeMap::new(), read: BTreeMap::new() }
    }

    /// Nothing up to here has to be told any more.
    pub(super) fn raise(&mut self, floor: Prefix) {
        if self.floor < floor {
            self.floor = floor;
            self.told.retain(|_, told| *told > floor);
            self.read.retain(|_, read| *read > floor);
        }
    }

    /// How far `node` was told.
    pub(super) fn told(&self, node: NodeId) -> Prefix {
        self.told.get(&node).copied().unwrap_or_default().max(self.floor)
    }

    /// `node` is being told this much.
    pub(super) fn on_told(&mut self, node: NodeId, chosen: Prefix) {
        self.told.insert(node, chosen);
    }

    /// Somebody at `node` waits to read what is proposed up to here.
    pub(super) fn on_reader(&mut self, node: NodeId, proposed: Prefix) {
        self.read.insert(node, proposed);
    }

    /// Does a reader at `node` wait for what it was not told yet?
    pub(super) fn reader_waits(&self, node: NodeId) -> bool {
        self.read.get(&node).is_some_and(|&read| read > self.told(node))
    }
}

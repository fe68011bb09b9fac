//! Who was told what is chosen, and who cannot wait to be. Liveness only: a learner that is told nothing fetches.
//!
//! That a slot is chosen is told at once to the replicas where somebody waits for it: a client whose command is in
//! it, or a reader. The others hear of it with the next proposal, or else with the next tick, of several slots at
//! once: while one client writes, waking every replica for each of its puts would be most of the work.
//!
//! Who has the proposals is told a word, [`Chosen`](crate::message::Chosen); who was not asked to accept them gets
//! the values.

use super::reign::Reign;
use super::{Effect, Proposer};
use crate::message::{Chosen, Message};
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

impl Proposer {
    /// A reader of `node` has asked how far this replica has accepted, and waits to learn that much; or what another
    /// one has accepted by the time it is asked, which may be a little more.
    pub fn on_reader(&mut self, node: NodeId) {
        let ahead = self.options.depth as u64;
        if let Some(reign) = self.reign.as_mut() {
            let proposed = Prefix::before(reign.next).0;
            reign.telling.on_reader(node, Prefix(proposed.saturating_add(ahead)));
        }
    }

    /// Tells everybody what is chosen, as one should before one gives up leading: the next leader would have to
    /// find it out.
    pub fn tell_all(&mut self) -> Vec<Effect> {
        self.tell(true)
    }

    /// Tells learners what is chosen and they do not know yet: `all` of them, or those that wait for it.
    pub(super) fn tell(&mut self, all: bool) -> Vec<Effect> {
        let Some(reign) = self.reign.as_mut() else { return Vec::new() };
        let mut groups: BTreeMap<How, Vec<NodeId>> = BTreeMap::new();
        // This replica may have been removed; but what is learned here moves the window on.
        let here = (!self.members.contains(&self.node)).then_some(&self.node);
        for &node in self.members.iter().chain(here) {
            let now = all || node == self.node || reign.is_awaited_by(node) || self.options.hedge.is_none();
            if let Some(how) = reign.untold(node).filter(|_| now) {
                groups.entry(how).or_default().push(node);
                reign.telling.on_told(node, reign.chosen);
            }
        }
        if let Some(told) = self.members.iter().map(|&node| reign.telling.told(node)).min() {
            reign.telling.raise(told);
        }
        let mut effects = Vec::new();
        for (how, to) in groups {
            match how {
                How::Word => {
                    let word = Chosen { ballot: reign.ballot, from: reign.from, upto: reign.chosen };
                    effects.push(Effect::Send { to, message: Message::Chosen(word) });
                }
                How::Values(from) => {
                    let lessons = reign.lessons(from, self.options.batch_bytes);
                    effects
                        .extend(lessons.into_iter().map(|message| Effect::Send { to: to.clone(), message }));
                }
            }
        }
        effects
    }
}

impl Reign {
    /// How to tell `node` what is chosen; none if it was told everything.
    pub(super) fn untold(&self, node: NodeId) -> Option<How> {
        let first = self.telling.told(node).next();
        if !self.chosen.contains(first) {
            return None;
        }
        let mut here = 0;
        let mut has_all = true;
        for (_, flight) in self.flights.range(first..self.chosen.next()) {
            here += 1;
            has_all &= flight.asked.contains(&node);
        }
        // What is not here any more it must fetch.
        let complete = here == self.chosen.next().0 - first.0;
        Some(if complete && !has_all { How::Values(first) } else { How::Word })
    }

    /// If `node` alone were told that the next slot is chosen, could it apply that at once? Only if it knows by then
    /// of everything before: what is chosen it can be told with the proposal, while it is here; what is not, it has
    /// to be counting, too.
    pub(super) fn may_count(&self, node: NodeId) -> bool {
        let first = self.telling.told(node).next();
        let here = self.flights.range(first..).count() as u64;
        let mut open = self.flights.range(self.chosen.next()..);
        here == self.next.0.saturating_sub(first.0) && open.all(|(_, flight)| flight.learner == Some(node))
    }

    /// Does somebody at `node` wait for what it was not told?
    pub(super) fn is_awaited_by(&self, node: NodeId) -> bool {
        let first = self.telling.told(node).next();
        if !self.chosen.contains(first) {
            return false;
        }
        let mut untold = self.flights.range(first..self.chosen.next());
        self.telling.reader_waits(node) || untold.any(|(_, flight)| flight.is_awaited_by(node))
    }

    /// The chosen values from `first` on, in messages of about so many bytes.
    pub(super) fn lessons(&self, first: Slot, message_bytes: usize) -> Vec<Message> {
        let ballot = self.ballot;
        let mut messages = Vec::new();
        let (mut from, mut bytes, mut values) = (first, 0, Vec::new());
        for (&slot, flight) in self.flights.range(first..self.chosen.next()) {
            if bytes + flight.value.len() > message_bytes && !values.is_empty() {
                messages.push(Message::Learn { ballot, from, values: std::mem::take(&mut values) });
                (from, bytes) = (slot, 0);
            }
            bytes += flight.value.len();
            values.push(flight.value.clone());
        }
        messages.push(Message::Learn { ballot, from, values });
        messages
    }
}

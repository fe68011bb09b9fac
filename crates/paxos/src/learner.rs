//! The learner: from proposals to a log without holes.
//!
//! A learner hears the proposals that its replica is asked to accept, because each Accept is handed to it as well as
//! to the acceptor beside it. Of the others it is told when they are chosen.
//! It believes a proposal chosen only on a leader's word for the very ballot it came in, or a lower one (see
//! [`Chosen`] for why that is sound), or when a leader or another learner vouches for the value itself (2.3). It may
//! learn in any order, but releases slot after slot (PMS-35).
//!
//! What it misses it fetches from any other learner: values while one has them, a checkpoint when not.
//! No acceptor is asked, because what an acceptor accepted need not be chosen (PMS-20).

use crate::message::{Chosen, Message, Outgoing};
use crate::mutants::{Mutant, is};
use crate::types::{Ballot, NodeId, Prefix, Slot, Time};
use crate::value::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a learner asks of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `value` is what `slot` decided. Slots come in order, each once.
    Apply {
        /// The slot.
        slot: Slot,
        /// Its value.
        value: Value,
    },
    /// Tell somebody something.
    Send(Outgoing),
    /// Get the checkpoint of `from` and install it, then say so with [`Learner::on_installed`], or
    /// [`Learner::on_not_installed`] if that failed.
    Install {
        /// Who has it.
        from: NodeId,
    },
}

/// Bounds of a learner's memory, and its patience.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many bytes of chosen values are kept for others to fetch.
    pub log_bytes: usize,
    /// How many slots ahead of the chosen prefix proposals are kept; later ones are fetched when needed.
    pub ahead_slots: u64,
    /// How many bytes of such proposals are kept.
    pub ahead_bytes: usize,
    /// About how many bytes one answer to a fetch carries.
    pub answer_bytes: usize,
    /// How long a hole may last before it is fetched: the proposal is often just behind its announcement.
    pub patience: Duration,
    /// How long to wait for an answer before another replica is asked.
    pub retry: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            log_bytes: 24 << 20,
            ahead_slots: 1024,
            ahead_bytes: 64 << 20,
            answer_bytes: 1 << 20,
            patience: Duration::from_millis(20),
            retry: Duration::from_millis(250),
        }
    }
}

/// One learner.
#[derive(Clone, Debug)]
pub struct Learner {
    node: NodeId,
    options: Options,
    peers: Vec<NodeId>,
    /// Those that can be reached, as far as known.
    reachable: BTreeSet<NodeId>,
    /// Who was asked since something was last learned, and what the checkpoint covers that was offered instead.
    asked: BTreeMap<NodeId, Option<Prefix>>,
    chosen: Prefix,
    /// Per slot above the chosen prefix, the proposal of the highest ballot heard.
    proposals: BTreeMap<Slot, (Ballot, Value)>,
    proposal_bytes: usize,
    /// The word of the highest ballot's leader.
    word: Option<Chosen>,
    /// Slots above the chosen prefix whose acceptances made a majority here, and in which ballot.
    counted: BTreeMap<Slot, Ballot>,
    /// The longest prefix that anybody called chosen.
    known: Prefix,
    /// Chosen values kept for others, without holes, ending at `chosen`.
    log: BTreeMap<Slot, Value>,
    log_bytes: usize,
    /// Since when the next slot is known chosen but not here.
    hole_since: Option<Time>,
    fetch: Option<Fetch>,
    turn: usize,
}

#[derive(Clone, Debug)]
struct Fetch {
    asked: NodeId,
    sent: Time,
    /// A checkpoint is on its way: that takes as long as it takes.
    installing: bool,
}

impl Learner {
    /// A learner that has applied everything in `applied`, and remembers nothing of it.
    pub fn new(node: NodeId, options: Options, applied: Prefix) -> Learner {
        Learner {
            node,
            options,
            peers: Vec::new(),
            reachable: BTreeSet::new(),
            asked: BTreeMap::new(),
            chosen: applied,
            proposals: BTreeMap::new(),
            proposal_bytes: 0,
            word: None,
            counted: BTreeMap::new(),
            known: applied,
            log: BTreeMap::new(),
            log_bytes: 0,
            hole_since: None,
            fetch: None,
            turn: 0,
        }
    }

    /// How far the log is chosen, without holes, and released.
    pub fn chosen(&self) -> Prefix {
        self.chosen
    }

    /// How far anybody called it chosen.
    pub fn known(&self) -> Prefix {
        self.known
    }

    /// The first slot whose value others can fetch here; none while the log is empty.
    pub fn log_start(&self) -> Option<Slot> {
        self.log.first_key_value().map(|(&slot, _)| slot)
    }

    /// Whom to fetch from.
    pub fn on_members(&mut self, members: impl IntoIterator<Item = NodeId>) {
        self.peers = members.into_iter().filter(|&node| node != self.node).collect();
    }

    /// A peer can be reached, and is asked before others. A new learner has to be told of all that can.
    pub fn on_connected(&mut self, peer: NodeId) {
        self.reachable.insert(peer);
    }

    /// The connection to a peer broke. If it was asked for something, another is asked at once: where the leader died,
    /// clients wait for what it had no time to tell.
    pub fn on_disconnected(&mut self, peer: NodeId, now: Time) -> Vec<Effect> {
        self.reachable.remove(&peer);
        self.asked.remove(&peer); // it comes to no answer, and its offer is void
        if self.awaits(peer) {
            return self.fetch(now).into_iter().collect();
        }
        Vec::new()
    }

    /// Values that this replica's own log vouches for ([`crate::acceptor::Acceptor::chosen_after`]).
    pub fn on_recovered(&mut self, entries: Vec<(Slot, Value)>, now: Time) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (slot, value) in entries {
            if slot == self.chosen.next() {
                self.release(slot, value, &mut effects);
            }
        }
        self.settle(now, &mut effects);
        effects
    }

    /// A proposal, perhaps with its leader's word on earlier ones.
    pub fn on_accept(
        &mut self,
        ballot: Ballot,
        slot: Slot,
        value: Value,
        word: Option<Chosen>,
        now: Time,
    ) -> Vec<Effect> {
        let near = slot.0 <= self.chosen.0 + self.options.ahead_slots
            && (slot == self.chosen.next() || self.proposal_bytes + value.len() <= self.options.ahead_bytes);
        let newest = self.proposals.get(&slot).is_none_or(|(known, _)| *known < ballot);
        if !self.chosen.contains(slot) && near && newest {
            self.forget_proposal(slot);
            self.proposal_bytes += value.len();
            self.proposals.insert(slot, (ballot, value));
        }
        let mut effects = Vec::new();
        if is(Mutant::LearnsProposals)
            && let Some((_, value)) = self.proposals.get(&self.chosen.next()).cloned()
        {
            self.release(self.chosen.next(), value, &mut effects);
        }
        self.hear(word, now);
        self.settle(now, &mut effects);
        effects
    }

    /// A leader's word on what is chosen.
    pub fn on_chosen(&mut self, word: Chosen, now: Time) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.hear(Some(word), now);
        self.settle(now, &mut effects);
        effects
    }

    /// A majority of the voters of `slot` accepted what `ballot` proposed there ([`crate::votes::Votes`]). That says
    /// nothing of the slots below: some may be open yet.
    pub fn on_counted(&mut self, ballot: Ballot, slot: Slot, now: Time) -> Vec<Effect> {
        let mut effects = Vec::new();
        if !self.chosen.contains(slot) {
            self.counted.insert(slot, ballot);
        }
        if is(Mutant::TakesCountForPrefix) {
            let (from, upto) = (self.chosen.next(), Prefix::through(slot));
            self.hear(Some(Chosen { ballot, from, upto }), now);
        }
        self.settle(now, &mut effects);
        effects
    }

    /// Chosen values from a leader that did not ask the acceptor here.
    pub fn on_learn(&mut self, from: Slot, values: Vec<Value>, now: Time) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.take(from, values, &mut effects);
        self.settle(now, &mut effects);
        effects
    }

    /// Chosen values from another learner, which was asked for them.
    pub fn on_entries(&mut self, from: Slot, values: Vec<Value>, chosen: Prefix, now: Time) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.known = self.known.max(chosen);
        self.take(from, values, &mut effects);
        self.settle(now, &mut effects);
        let waiting = self.fetch.as_ref().is_some_and(|fetch| !fetch.installing);
        if waiting {
            self.fetch = None;
            if effects.is_empty() {
                // Not at once again: while nobody has the value, all would ask each other without end.
                self.hole_since = self.hole_since.map(|_| now);
            } else if self.chosen < self.known {
                effects.extend(self.ask(now)); // it helped, and there is more
            }
        }
        effects
    }

    /// Releases of these chosen values what comes next.
    fn take(&mut self, from: Slot, values: Vec<Value>, effects: &mut Vec<Effect>) {
        let mut slot = from;
        for value in values {
            if slot == self.chosen.next() {
                self.release(slot, value, effects);
            }
            slot = slot.next();
        }
        self.known = self.known.max(Prefix::before(slot));
    }

    /// Another learner wants values from `from` on.
    pub fn on_fetch(&self, to: NodeId, from: Slot, applied: Prefix) -> Option<Effect> {
        if !self.log.contains_key(&from) {
            // Not here any more, or not yet. In between lies nothing: the log ends with the chosen prefix.
            let message = if self.chosen.contains(from) {
                Message::TakeCheckpoint { applied }
            } else {
                Message::Entries { from, values: Vec::new(), chosen: self.chosen }
            };
            return Some(Effect::Send(Outgoing { to, message }));
        }
        let mut bytes = 0;
        let mut values = Vec::new();
        for value in self.log.range(from..).map(|(_, value)| value) {
            bytes += value.len();
            if bytes > self.options.answer_bytes && !values.is_empty() {
                break;
            }
            values.push(value.clone());
        }
        Some(Effect::Send(Outgoing { to, message: Message::Entries { from, values, chosen: self.chosen } }))
    }

    /// Another learner no longer has the values asked for, but a checkpoint. That is for when nobody has the values.
    pub fn on_take_checkpoint(&mut self, from: NodeId, applied: Prefix, now: Time) -> Vec<Effect> {
        self.on_known(applied, now);
        // If something was learned since it was asked, it may well have what is missing now.
        let useful = applied > self.chosen && self.asked.contains_key(&from);
        if useful {
            self.asked.insert(from, Some(applied));
        }
        if !self.awaits(from) {
            return Vec::new();
        }
        self.fetch = None;
        if useful {
            return self.fetch(now).into_iter().collect();
        }
        self.hole_since = self.hole_since.map(|_| now); // not at once again
        Vec::new()
    }

    /// A checkpoint that covers `applied` is installed: the log goes on behind it.
    pub fn on_installed(&mut self, applied: Prefix, now: Time) -> Vec<Effect> {
        self.fetch = None;
        let mut effects = Vec::new();
        if applied > self.chosen {
            self.chosen = applied;
            self.known = self.known.max(applied);
            self.asked.clear();
            self.log.clear();
            self.log_bytes = 0;
            self.counted = self.counted.split_off(&applied.next());
            self.proposals = self.proposals.split_off(&applied.next());
            self.proposal_bytes = self.proposals.values().map(|(_, value)| value.len()).sum();
            self.settle(now, &mut effects);
        }
        effects
    }

    /// The checkpoint could not be had: another is taken, or somebody else asked.
    pub fn on_not_installed(&mut self, now: Time) {
        if let Some(fetch) = self.fetch.take() {
            self.asked.insert(fetch.asked, None);
        }
        self.hole_since = self.hole_since.map(|_| now); // not at once again
    }

    /// Fetches what has been missing for too long.
    pub fn tick(&mut self, now: Time) -> Vec<Effect> {
        let overdue =
            self.fetch.as_ref().is_some_and(|f| !f.installing && now.since(f.sent) >= self.options.retry);
        if overdue {
            self.fetch = None;
        }
        let long = self.hole_since.is_some_and(|since| now.since(since) >= self.options.patience);
        if self.fetch.is_some() || !long {
            return Vec::new();
        }
        self.fetch(now).into_iter().collect()
    }

    /// Somebody, by whatever message, called this much of the log chosen.
    pub fn on_known(&mut self, chosen: Prefix, now: Time) {
        self.known = self.known.max(chosen);
        self.note_hole(now);
    }

    fn hear(&mut self, word: Option<Chosen>, now: Time) {
        let Some(word) = word else { return };
        self.known = self.known.max(word.upto);
        if self.word.is_none_or(|old| (old.ballot, old.upto) < (word.ballot, word.upto)) {
            self.word = Some(word);
        }
        self.note_hole(now);
    }

    /// Releases every slot in turn that is here and vouched for.
    fn settle(&mut self, now: Time, effects: &mut Vec<Effect>) {
        loop {
            let slot = self.chosen.next();
            let word = self.word.filter(|word| word.from <= slot && word.upto.contains(slot));
            let counted = self.counted.get(&slot).copied();
            let Some(least) = word.map(|word| word.ballot).into_iter().chain(counted).min() else { break };
            // A proposal of a lower ballot may be another value (PMS-3); of a higher one it cannot (PMS-9).
            match self.proposals.get(&slot) {
                Some((ballot, value)) if *ballot >= least || is(Mutant::VouchesForAnyBallot) => {
                    let value = value.clone();
                    self.release(slot, value, effects);
                }
                _ => break,
            }
        }
        self.note_hole(now);
    }

    fn note_hole(&mut self, now: Time) {
        if self.chosen >= self.known {
            self.hole_since = None;
        } else if self.hole_since.is_none() {
            self.hole_since = Some(now);
        }
    }

    fn release(&mut self, slot: Slot, value: Value, effects: &mut Vec<Effect>) {
        assert_eq!(slot, self.chosen.next(), "slots are released in order");
        self.chosen = Prefix::through(slot);
        self.known = self.known.max(self.chosen);
        self.asked.clear();
        self.hole_since = None; // some progress; a hole behind this slot is a new one
        self.forget_proposal(slot);
        self.counted.remove(&slot);
        self.log_bytes += value.len();
        self.log.insert(slot, value.clone());
        while self.log_bytes > self.options.log_bytes && self.log.len() > 1 {
            if let Some((_, old)) = self.log.pop_first() {
                self.log_bytes -= old.len();
            }
        }
        effects.push(Effect::Apply { slot, value });
    }

    fn forget_proposal(&mut self, slot: Slot) {
        if let Some((_, value)) = self.proposals.remove(&slot) {
            self.proposal_bytes -= value.len();
        }
    }

    /// Asks the next one for values. Once all that can be reached were asked, takes the checkpoint that covers most.
    fn fetch(&mut self, now: Time) -> Option<Effect> {
        let best = self.asked.iter().filter_map(|(&from, &offer)| Some((offer?, from))).max();
        if best.is_none() && self.peers.iter().all(|peer| self.asked.contains_key(peer)) {
            self.asked.clear(); // in vain, so from the beginning
        }
        let turns = (1..=self.peers.len()).map(|step| (self.turn + step) % self.peers.len());
        let mut turns = turns.filter(|&turn| !self.asked.contains_key(&self.peers[turn]));
        let reachable = turns.clone().find(|&turn| self.reachable.contains(&self.peers[turn]));
        if let (None, Some((_, from))) = (reachable, best) {
            self.fetch = Some(Fetch { asked: from, sent: now, installing: true });
            return Some(Effect::Install { from });
        }
        // That somebody cannot be reached is hearsay: once all others were asked in vain, everybody is.
        self.turn = reachable.or_else(|| turns.next())?;
        self.ask(now)
    }

    /// Was that peer asked, and has neither answered nor been given up?
    fn awaits(&self, peer: NodeId) -> bool {
        self.fetch.as_ref().is_some_and(|fetch| fetch.asked == peer && !fetch.installing)
    }

    /// Asks the peer whose turn it is.
    fn ask(&mut self, now: Time) -> Option<Effect> {
        let to = *self.peers.get(self.turn)?;
        self.asked.insert(to, None);
        self.fetch = Some(Fetch { asked: to, sent: now, installing: false });
        Some(Effect::Send(Outgoing { to, message: Message::Fetch { from: self.chosen.next() } }))
    }
}

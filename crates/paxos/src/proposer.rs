//! The proposer: choosing safely what to propose, and keeping the pipeline full.
//!
//! Phase 2 first, because that way phase 1 makes sense. In phase 2 the proposer asks the acceptors of a slot
//! to accept one value in its ballot; a majority of acceptances, and the value is chosen. What value may it
//! propose? Anything at all, if nothing can have been chosen below its ballot; otherwise what may have been
//! chosen. Phase 1 finds out: once a majority promised the ballot, whatever was or can still be chosen below
//! it shows in their answers, as the acceptance of the highest ballot (P2c).
//!
//! ```text
//!   campaign ──> Prepare(b, from) ──> promises of a majority of cfg(slot)? ──> propose slot, next slot, ...
//!                                                                                    │
//!        value of slot = highest acceptance promised │ no-op in a gap │ next batch ──┘
//! ```
//!
//! One Prepare covers all slots from the first not known chosen (section 3). Slots are proposed in order, no
//! further than a window beyond what this replica has *applied*, since only then is it known who votes there
//! (rule R3); and each slot only with promises from a majority of its own configuration (rule R2).
//!
//! Whom it asks, and whom it tells when, is not a matter of safety: see `asking` and `telling`.
//!
//! A proposer keeps nothing on disk. It may stop at any moment and start again: its ballots carry a
//! generation that no other life of it uses (PMS-28). Commands it lost are kept by the fronts they came
//! from. Whether, when and why to campaign is for [`crate::election`] to say.

mod asking;
mod reign;
mod telling;

use crate::membership::{Configuration, Configurations};
use crate::message::{Acceptance, Chosen, Message};
use crate::mutants::{Mutant, is};
use crate::types::{Ballot, Generation, NodeId, Prefix, Slot, Time, VoterId};
use crate::value::{Command, Value};
use asking::Asking;
use reign::{Flight, Jump, Promise, Reign};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use telling::{How, Telling};

/// What a proposer asks of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell `message` to each of `to`, which may include this replica.
    Send {
        /// The receivers.
        to: Vec<NodeId>,
        /// What they are told.
        message: Message,
    },
    /// Phase 1 is complete: this proposer leads with `ballot`.
    Leads(Ballot),
    /// A higher ballot was promised somewhere: `ballot` is given up (PMS-19).
    Deposed {
        /// The ballot given up.
        ballot: Ballot,
        /// The ballot that stands in its way.
        by: Ballot,
    },
}

/// How much a proposer does at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// While this many proposed slots are undecided, further commands wait and gather into one batch.
    pub depth: usize,
    /// About how many bytes of commands make a full batch.
    pub batch_bytes: usize,
    /// How many bytes of commands may wait; more are ignored, and sent again by their fronts.
    pub queue_bytes: usize,
    /// How long an unanswered message is left alone before it is sent again (PMS-37).
    pub retry: Duration,
    /// If set, only a majority of the voters is asked to accept, and the others when that has not done so after
    /// this long, or a connection broke; and only those are told at once what is chosen where somebody waits for it.
    /// If not, all are asked and all are told at once.
    pub hedge: Option<Duration>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            depth: 4,
            batch_bytes: 1 << 20,
            queue_bytes: 64 << 20,
            retry: Duration::from_millis(100),
            hedge: Some(Duration::from_millis(20)),
        }
    }
}

/// How often the pause before a Prepare is repeated doubles: up to 1.6 s by default. Not further, because a
/// leader may need the promise of one who was down.
const MOST_DOUBLINGS: u32 = 4;

/// One proposer, in one life.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposer {
    node: NodeId,
    generation: Generation,
    options: Options,
    configurations: Configurations,
    members: Vec<NodeId>,
    /// How far this replica's learner knows the log chosen.
    chosen: Prefix,
    /// The highest round seen in any ballot, used or refused.
    round: u64,
    reign: Option<Reign>,
    /// The learner lost its memory under this proposer's ballot: begin again with another.
    again: bool,
    queue: VecDeque<Command>,
    queued_bytes: usize,
    /// Readers wait for the slots up to here.
    decide: Prefix,
    asking: Asking,
    /// Who accepted anything in a slot, in whatever ballot: what a mutant counts.
    #[cfg(feature = "mutants")]
    stale: BTreeMap<Slot, BTreeSet<VoterId>>,
}

impl Proposer {
    /// A proposer that never spoke. `generation` must be fresh.
    pub fn new(
        node: NodeId,
        generation: Generation,
        options: Options,
        configurations: Configurations,
    ) -> Proposer {
        Proposer {
            node,
            generation,
            options,
            chosen: configurations.applied(),
            configurations,
            members: Vec::new(),
            round: 0,
            reign: None,
            again: false,
            queue: VecDeque::new(),
            queued_bytes: 0,
            decide: Prefix::EMPTY,
            asking: Asking::default(),
            #[cfg(feature = "mutants")]
            stale: BTreeMap::new(),
        }
    }

    /// The ballot this proposer leads with, if it does.
    pub fn leads(&self) -> Option<Ballot> {
        self.reign.as_ref().filter(|reign| reign.leads).map(|reign| reign.ballot)
    }

    /// The ballot it tries or leads with.
    pub fn ballot(&self) -> Option<Ballot> {
        self.reign.as_ref().map(|reign| reign.ballot)
    }

    /// What this ballot can say of the log: nothing before it has chosen something.
    pub fn word(&self) -> Option<Chosen> {
        let reign = self.reign.as_ref().filter(|reign| reign.chosen.contains(reign.from))?;
        Some(Chosen { ballot: reign.ballot, from: reign.from, upto: reign.chosen })
    }

    /// How many commands wait to be proposed.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// How many slots are proposed and not known chosen.
    pub fn in_flight(&self) -> usize {
        self.reign.as_ref().map_or(0, |reign| reign.flights.values().filter(|f| !f.is_chosen()).count())
    }

    /// Is there a slot that the acceptor beside it alone can still make chosen at once, all other votes being there?
    pub fn awaits_own_vote(&self) -> bool {
        let flights = self.reign.iter().flat_map(|reign| reign.flights.values());
        flights.filter(|flight| !flight.is_chosen()).any(|flight| flight.lacks_only(self.node))
    }

    /// The bytes of their values.
    fn bytes_in_flight(&self) -> usize {
        let flights = self.reign.iter().flat_map(|reign| reign.flights.values());
        flights.filter(|flight| !flight.is_chosen()).map(|flight| flight.value.len()).sum()
    }

    /// Notes a ballot somebody used, so that the next one of this proposer is above it (PMS-23).
    pub fn saw(&mut self, ballot: Ballot) {
        self.round = self.round.max(ballot.round);
    }

    /// This replica's learner has come this far.
    pub fn on_learned(&mut self, chosen: Prefix) {
        self.chosen = self.chosen.max(chosen);
        let Some(reign) = self.reign.as_mut() else { return };
        if reign.chosen < self.chosen {
            // Others finished what this ballot began, so it has nothing to say of these slots.
            reign.from = self.chosen.next();
            reign.next = reign.next.max(reign.from);
            reign.chosen = self.chosen;
            reign.telling.raise(self.chosen);
        }
        let told = self.members.iter().map(|&node| reign.telling.told(node)).min();
        let done = told.map_or(self.chosen, |told| told.min(self.chosen));
        reign.flights = reign.flights.split_off(&done.next());
        reign.jumped = reign.jumped.and_then(|jump| jump.behind(self.chosen));
        reign.count();
    }

    /// This replica has applied more: the window moves on, and with it what is known of who votes.
    /// `members` are all who learn, voters or not.
    ///
    /// It may also have applied less, when its learner lost its memory. Values that were learned nowhere else
    /// are then with the acceptors alone, and it takes a new ballot to hear of them (PMS-22).
    pub fn on_applied(&mut self, configurations: Configurations, members: Vec<NodeId>) {
        if configurations.applied() < self.configurations.applied() {
            self.chosen = configurations.applied();
            self.again |= self.reign.take().is_some();
        }
        self.configurations = configurations;
        self.members = members;
        self.on_learned(self.configurations.applied());
    }

    /// Starts phase 1 with a ballot above every one seen. None while the voters of the first open slot are
    /// not known here.
    pub fn campaign(&mut self, now: Time) -> Option<Vec<Effect>> {
        let from = self.chosen.next();
        self.configurations.at(from)?;
        self.round += 1;
        let generation = if is(Mutant::ReusesBallots) { Generation(0) } else { self.generation };
        let ballot = Ballot { round: self.round, node: self.node, generation };
        self.reign = Some(Reign {
            ballot,
            heard: now,
            from,
            promises: BTreeMap::new(),
            asked: BTreeMap::new(),
            next: from,
            flights: BTreeMap::new(),
            chosen: Prefix::before(from),
            telling: Telling::from(Prefix::before(from)),
            jumped: None,
            leads: false,
        });
        Some(self.ask(from, now))
    }

    /// Gives the ballot up. The number stays used; queued commands are with their fronts.
    pub fn abdicate(&mut self) -> Option<Ballot> {
        self.queue.clear();
        self.queued_bytes = 0;
        self.again = false;
        self.reign.take().map(|reign| reign.ballot)
    }

    /// Commands to propose, from this replica's front or another's. Ignored unless this proposer has a
    /// ballot of its own: whoever sent them will send them to the leader.
    pub fn on_submit(&mut self, commands: Vec<Command>) {
        if self.reign.is_none() {
            return;
        }
        for command in commands {
            let bytes = command.encoded_len();
            if self.queued_bytes + bytes > self.options.queue_bytes {
                return;
            }
            self.queued_bytes += bytes;
            self.queue.push_back(command);
        }
    }

    /// A reader waits for `slot`: see that every slot up to it gets decided, with no-ops if need be.
    pub fn on_decide(&mut self, slot: Slot) {
        self.decide = self.decide.max(Prefix::through(slot));
    }

    /// An answer to phase 1. Counts only for the present ballot (PMS-17), only once it is whole (PMS-32).
    #[allow(clippy::too_many_arguments)] // the fields of one message
    pub fn on_promise(
        &mut self,
        ballot: Ballot,
        voter: VoterId,
        from: Slot,
        until: Option<Slot>,
        trimmed: Prefix,
        accepted: Vec<Acceptance>,
        now: Time,
    ) -> Vec<Effect> {
        let any = is(Mutant::CountsOtherPromises);
        let Some(reign) = self.reign.as_mut().filter(|reign| reign.ballot == ballot || any) else {
            return Vec::new();
        };
        let promise = reign.promises.entry(voter).or_insert_with(|| Promise {
            from,
            rest: Some(from),
            trimmed,
            accepted: BTreeMap::new(),
        });
        if promise.rest != Some(from) {
            return Vec::new(); // a repetition of a part that is here already
        }
        reign.heard = now;
        promise.trimmed = promise.trimmed.max(trimmed);
        promise.rest = until.filter(|_| !is(Mutant::CountsPartOfPromise));
        for Acceptance { slot, ballot, value } in accepted {
            promise.accepted.insert(slot, (ballot, value));
        }
        if let Some(rest) = promise.rest {
            reign.asked.insert(voter.node, (now, 0));
            return vec![Effect::Send {
                to: vec![voter.node],
                message: Message::Prepare { ballot, from: rest },
            }];
        }
        self.flush(now)
    }

    /// An acceptance. Counts for its own ballot and slot only (PMS-8), and once per voter (PMS-5).
    pub fn on_accepted(&mut self, ballot: Ballot, slot: Slot, voter: VoterId) {
        #[cfg(feature = "mutants")]
        if is(Mutant::CountsOtherBallots) {
            self.stale.entry(slot).or_default().insert(voter);
            if let Some(flight) = self.reign.as_mut().and_then(|reign| reign.flights.get_mut(&slot)) {
                flight.accepted.extend(&self.stale[&slot]);
            }
        }
        let Some(reign) = self.reign.as_mut().filter(|reign| reign.ballot == ballot) else { return };
        if let Some(flight) = reign.flights.get_mut(&slot) {
            let before = flight.is_chosen();
            flight.accepted.insert(voter);
            if !before && flight.is_chosen() && flight.asked_all && self.options.hedge.is_some() {
                self.asking.on_chosen(&flight.accepted);
            }
        }
        reign.count();
    }

    /// The learner that was to be told of acceptances has counted a majority of them (2.3).
    pub fn on_counted(&mut self, ballot: Ballot, slot: Slot) {
        let Some(reign) = self.reign.as_mut().filter(|reign| reign.ballot == ballot) else { return };
        let Some(flight) = reign.flights.get_mut(&slot) else { return };
        flight.counted = true;
        if let Some(node) = flight.learner.filter(|&node| reign.telling.told(node).next() == slot) {
            reign.telling.on_told(node, Prefix::through(slot)); // by itself
        }
        reign.count();
    }

    /// Somebody promised more. Gives way if it is the present ballot that was refused: a refusal of an old
    /// one says nothing about this one (PMS-19).
    pub fn on_refused(&mut self, ballot: Ballot, promised: Ballot) -> Vec<Effect> {
        self.saw(promised);
        if self.ballot() != Some(ballot) {
            return Vec::new();
        }
        self.abdicate();
        vec![Effect::Deposed { ballot, by: promised }]
    }

    /// Proposes everything that may be proposed now, and tells the learners what is chosen where somebody waits for
    /// it. To be called after each turn of input, so that what arrived together is batched.
    pub fn flush(&mut self, now: Time) -> Vec<Effect> {
        self.note_near(now);
        // First, so that nobody who waits has to look for it behind a proposal.
        let mut effects = if self.options.hedge.is_some() { self.tell(false) } else { Vec::new() };
        effects.extend(self.propose(now));
        effects.extend(self.tell(false));
        effects
    }

    /// Sees who has accepted by now what everybody was asked.
    fn note_near(&mut self, now: Time) {
        let flights = self.reign.as_ref().map(|reign| &reign.flights);
        let watched = self.asking.watches().and_then(|slot| flights?.get(&slot));
        if let Some(flight) = watched.filter(|flight| flight.is_chosen()) {
            self.asking.on_seen(&flight.accepted, now.since(flight.sent));
        }
    }

    fn propose(&mut self, now: Time) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.can_go_back() {
            self.again = true;
            self.reign = None;
        }
        if self.again
            && let Some(campaign) = self.campaign(now)
        {
            self.again = false;
            effects.extend(campaign);
        }
        while let Some(proposed) = self.propose_next(now) {
            effects.extend(proposed);
        }
        effects
    }

    /// Sends again what was not answered in time (PMS-37). A chosen value that this replica's learner missed
    /// goes to that learner again: from there the others can fetch it (PMS-21).
    pub fn tick(&mut self, now: Time) -> Vec<Effect> {
        let retry = self.options.retry;
        let hedge = self.options.hedge;
        // First, as in a flush.
        let mut effects = self.tell(true);
        let late = self.ask_others(|flight| hedge.is_some_and(|hedge| now.since(flight.sent) >= hedge));
        if !late.is_empty() {
            self.asking.on_late(now);
        }
        effects.extend(late);
        let chosen = self.word();
        let Some(reign) = self.reign.as_mut() else { return self.flush(now) };
        for (&slot, flight) in reign.flights.range_mut(self.chosen.next()..) {
            if now.since(flight.sent) < retry {
                continue;
            }
            flight.sent = now;
            let silent = flight.configuration.voters().filter(|v| !flight.accepted.contains(v));
            let to = if flight.is_chosen() { vec![self.node] } else { silent.map(|v| v.node).collect() };
            let value = flight.value.clone();
            flight.learner = None;
            let message = Message::Accept { ballot: reign.ballot, slot, value, chosen, learner: None };
            effects.push(Effect::Send { to, message });
        }
        let next = reign.jumped.map_or(reign.next, |jump| jump.from);
        effects.extend(self.ask(next, now));
        effects.extend(self.propose(now));
        effects.extend(self.tell(false));
        effects
    }

    /// Does a majority remember by now what was jumped over? Perhaps nobody else does, when a store was lost. It
    /// takes a new ballot to propose there: this one has called those slots chosen.
    fn can_go_back(&self) -> bool {
        let Some(reign) = &self.reign else { return false };
        let Some(Jump { from: slot, .. }) = reign.jumped else { return false };
        let promised = self.configurations.at(slot).and_then(|voters| reign.promised_for(slot, voters));
        promised.is_some_and(|promised| !promised.trimmed.contains(slot))
    }

    /// Proposes in the next slot, if that is allowed and there is something to propose.
    fn propose_next(&mut self, now: Time) -> Option<Vec<Effect>> {
        let reign = self.reign.as_ref()?;
        let slot = reign.next;
        let open = slot <= self.configurations.window().last_open(self.configurations.applied());
        let configuration = match self.configurations.at(slot).filter(|_| open) {
            Some(configuration) => configuration.clone(),
            None if is(Mutant::SkipsWindow) => self.configurations.newest().clone(),
            None => return None, // rule R3: who votes there is not decided yet
        };
        let Some(promised) = reign.promised_for(slot, &configuration) else {
            let effects = self.ask(slot, now);
            return (!effects.is_empty()).then_some(effects);
        };
        let mut effects = Vec::new();
        let trimmed = promised.trimmed;
        let found = promised.found.cloned();
        let missing = promised.missing;
        let constrained_above = promised.last.is_some_and(|last| last > slot);
        let reign = self.reign.as_mut().expect("checked above");
        if !reign.leads {
            reign.leads = true;
            effects.push(Effect::Leads(reign.ballot));
        }
        if trimmed.contains(slot) && !is(Mutant::ProposesTrimmedSlots) {
            if missing && now.since(reign.heard) < self.options.retry {
                return (!effects.is_empty()).then_some(effects); // those who are still to answer may remember
            }
            // Chosen, but what is chosen there these acceptors no longer know: nothing may be proposed
            // below a trim point. This replica's learner has to come by first; the window sees to that,
            // and the announcement tells it that there is something to fetch.
            let from = reign.jumped.map_or(slot, |jump| jump.from);
            reign.jumped = Some(Jump { from, upto: trimmed });
            reign.from = trimmed.next();
            reign.next = trimmed.next();
            reign.chosen = trimmed;
            reign.flights = reign.flights.split_off(&trimmed.next());
            return Some(effects);
        }
        let undecided = self.in_flight();
        let mut origins: Option<BTreeSet<NodeId>> = None;
        let value = if let Some(value) = found.filter(|_| !is(Mutant::IgnoresFoundValues)) {
            if self.bytes_in_flight() >= self.options.depth.saturating_mul(self.options.batch_bytes) {
                // As much is under way as new batches would be. A long log sent at once is not answered before
                // it is sent again, over and over.
                return (!effects.is_empty()).then_some(effects);
            }
            value // P2c; under the new ballot (PMS-33)
        } else if constrained_above {
            Value::no_op() // a gap, to be closed at once (PMS-34)
        } else if !self.queue.is_empty() && undecided < self.options.depth {
            let batch = self.next_batch();
            origins = Some(batch.iter().map(|command| command.id.origin).collect());
            Value::batch(&batch)
        } else if self.queue.is_empty() && (self.decide.contains(slot) || self.hurries_change(slot)) {
            Value::no_op() // a reader waits for this slot, or a change of the voters for its window
        } else {
            return (!effects.is_empty()).then_some(effects);
        };
        let reign = self.reign.as_ref().expect("checked above");
        let alone = origins.as_ref().filter(|origins| origins.len() == 1).and_then(BTreeSet::first).copied();
        let waiting = alone.filter(|&node| reign.may_count(node));
        let hedged = self.options.hedge.is_some();
        let few = if hedged { self.asking.few(&configuration, self.node, waiting, now) } else { None };
        let (asked, learner): (BTreeSet<NodeId>, Option<NodeId>) = match &few {
            Some(few) => (few.voters.iter().map(|voter| voter.node).collect(), few.learner),
            None => {
                if hedged {
                    self.asking.on_everybody(slot, now);
                }
                let voters = configuration.voters().map(|voter| voter.node);
                (self.members.iter().copied().chain(voters).collect(), None)
            }
        };
        let asked_all = few.is_none();
        let (chosen, to) = (self.word(), asked.iter().copied().collect());
        let reign = self.reign.as_mut().expect("checked above");
        let mut lessons = Vec::new();
        if let Some(node) = learner
            && let Some(How::Values(first)) = reign.untold(node)
        {
            lessons = reign.lessons(first, self.options.batch_bytes);
            reign.telling.on_told(node, reign.chosen);
        }
        for &node in &asked {
            if reign.untold(node) == Some(How::Word) {
                reign.telling.on_told(node, reign.chosen);
            }
        }
        let message = Message::Accept { ballot: reign.ballot, slot, value: value.clone(), chosen, learner };
        let accepted = BTreeSet::new();
        let counted = false;
        let flight =
            Flight { value, configuration, accepted, sent: now, asked, asked_all, origins, learner, counted };
        reign.flights.insert(slot, flight);
        reign.next = slot.next();
        effects.push(Effect::Send { to, message });
        // Who counts needs these to apply the slot; its disk need not wait for them.
        let counting: Vec<NodeId> = learner.into_iter().collect();
        effects.extend(lessons.into_iter().map(|message| Effect::Send { to: counting.clone(), message }));
        Some(effects)
    }

    /// Is a change of the voters on its way that this slot brings closer? Also in the first slot that the new
    /// ones vote in: only when they have decided one are their predecessors dispensable.
    fn hurries_change(&self, slot: Slot) -> bool {
        let from = self.configurations.newest_from();
        slot <= from && from > Slot::FIRST
    }

    fn next_batch(&mut self) -> Vec<Command> {
        let mut bytes = 0;
        let mut batch = Vec::new();
        while let Some(command) = self.queue.front() {
            let more = command.encoded_len();
            if !batch.is_empty() && bytes + more > self.options.batch_bytes {
                break;
            }
            bytes += more;
            batch.extend(self.queue.pop_front());
        }
        self.queued_bytes -= bytes;
        batch
    }

    /// Asks those acceptors to promise that a slot from `from` on needs, that have not, and that were not
    /// asked a moment ago.
    fn ask(&mut self, from: Slot, now: Time) -> Vec<Effect> {
        let Some(reign) = self.reign.as_mut() else { return Vec::new() };
        let mut to: BTreeMap<Slot, BTreeSet<NodeId>> = BTreeMap::new();
        for voter in self.configurations.from(from).flat_map(Configuration::voters) {
            let rest = match reign.promises.get(&voter) {
                Some(Promise { rest: None, .. }) => continue,
                Some(Promise { rest: Some(rest), .. }) => *rest,
                None => from,
            };
            // Each repetition waits twice as long: one who is slow answers every one of them with as much as
            // the first, and for one who is down they pile up.
            let pause = |again: u32| self.options.retry * (1 << again);
            let asked = reign.asked.get(&voter.node);
            if asked.is_none_or(|&(asked, again)| now.since(asked) >= pause(again)) {
                to.entry(rest).or_default().insert(voter.node);
            }
        }
        let mut effects = Vec::new();
        for (from, nodes) in to {
            for &node in &nodes {
                let again = reign.asked.get(&node).map_or(0, |&(_, again)| (again + 1).min(MOST_DOUBLINGS));
                reign.asked.insert(node, (now, again));
            }
            let message = Message::Prepare { ballot: reign.ballot, from };
            effects.push(Effect::Send { to: nodes.into_iter().collect(), message });
        }
        effects
    }
}

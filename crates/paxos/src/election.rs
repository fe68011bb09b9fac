//! Who campaigns, and when: the liveness half (2.4).
//!
//! Any replica may propose at any time, and nothing wrong would come of it; but rivals can stop each other
//! for ever, so one should lead. This module guesses who, from heartbeats and silence. It may guess wrong:
//! a false alarm costs one phase 1 (PMS-24). Nothing here is asked when an answer's correctness is at stake.
//!
//! ```text
//!   Following ──silence──> Asking ──a majority hears nobody──> Waiting (random) ──> Campaigning ──> Leading
//!       ^                    │ somebody hears the leader                               │ nothing    │
//!       └────────────────────┴───────────── another leads <────────────────────────────┴────────────┘
//! ```
//!
//! Before it campaigns, a replica asks the others whether *they* hear a leader, so that one broken link
//! deposes nobody. A replica that was late itself credits its lateness to everybody it suspects. A leader
//! that has not heard from a majority for a while gives up and says so, so that a half-cut leader does not
//! block the rest. Chance, which ends duels (PMS-23), is an input like time.

use crate::message::{Chosen, Message, Outgoing, QuestionId};
use crate::types::{Ballot, Generation, NodeId, Slot, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How patient a replica is. None of it matters for safety.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A leader speaks at least this often.
    pub heartbeat: Duration,
    /// After this much silence a leader is suspected.
    pub suspicion: Duration,
    /// After this much silence from a majority a leader gives up.
    pub abdication: Duration,
    /// How long to wait for answers to one question, and for a campaign to succeed.
    pub round: Duration,
    /// The first random pause before a campaign; doubles with each failure, up to a limit.
    pub backoff: Duration,
    /// How long a leader is on trial. Only a reign that outlives this shows that the campaigns before it were
    /// none too many; and for as long, nobody blames the leader for what waits.
    pub trial: Duration,
    /// How often [`Election::tick`] is called when all goes well; the rest is lateness.
    pub tick: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            heartbeat: Duration::from_millis(25),
            suspicion: Duration::from_millis(250),
            abdication: Duration::from_millis(500),
            round: Duration::from_millis(150),
            backoff: Duration::from_millis(15),
            trial: Duration::from_millis(1_000),
            tick: Duration::from_millis(10),
        }
    }
}

/// What an election asks of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell somebody something.
    Send(Outgoing),
    /// Let the proposer campaign.
    Campaign,
    /// Let the proposer give up its ballot.
    Abdicate,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Somebody else leads, or is about to be found to.
    Following,
    /// Silence: do the others hear a leader?
    Asking { question: QuestionId, since: Time, silent: BTreeSet<NodeId>, rounds: u32 },
    /// Nobody does. A random pause, so that not all campaign at once.
    Waiting { until: Time },
    /// This replica's proposer is in phase 1, with `ballot` once it has said so.
    Campaigning { since: Time, ballot: Option<Ballot> },
    /// It leads. When each node was last heard, and who was asked to take over, last of them when.
    Leading {
        ballot: Ballot,
        heard: BTreeMap<NodeId, Time>,
        beat: Option<Time>,
        offered: BTreeSet<NodeId>,
        offer: Option<Time>,
    },
}

/// How often to ask in vain before campaigning all the same: those who would answer may have lost only
/// their proposers, and acceptors suffice.
const ROUNDS_IN_VAIN: u32 = 10;

/// How often the pause before a campaign doubles: up to some four seconds. Every campaign is a record in every
/// acceptor's log, and where no majority can be had they all are in vain.
const MOST_DOUBLINGS: u32 = 8;

/// How often the patience with an own campaign doubles: up to some second. A round that is too short for this
/// cluster and its log would otherwise end every campaign.
const MOST_PATIENCE: u32 = 3;

/// After so many trials, a leader that serves others but not this replica's clients is suspected all the same.
const PASSED_OVER: u32 = 10;

/// One replica's view of who leads.
#[derive(Clone, Debug)]
pub struct Election {
    node: NodeId,
    generation: Generation,
    options: Options,
    members: Vec<NodeId>,
    voters: Vec<NodeId>,
    state: State,
    /// The highest ballot that anybody leads with, and when that leader was last heard.
    leader: Option<Ballot>,
    heard: Option<Time>,
    /// When it was last heard directly. Only that is passed on, or a rumour would outlive its leader.
    witnessed: Option<Time>,
    /// Since when it is on trial: since it was first heard of, or its campaign last moved.
    since: Time,
    /// The highest ballot that anybody prepares with, and how far that phase 1 has come.
    rival: Option<(Ballot, Slot)>,
    last_tick: Time,
    questions: u64,
    failures: u32,
    eligible: bool,
    /// A leader that is heard but does not get this replica's requests done. Its heartbeats count for
    /// nothing until something moves here, whatever others say of it.
    distrusted: Option<Ballot>,
}

impl Election {
    /// A replica that has heard nobody yet.
    pub fn new(node: NodeId, generation: Generation, options: Options, now: Time) -> Election {
        Election {
            node,
            generation,
            options,
            members: Vec::new(),
            voters: Vec::new(),
            state: State::Following,
            leader: None,
            heard: Some(now),
            witnessed: None,
            since: now,
            rival: None,
            last_tick: now,
            questions: 0,
            failures: 0,
            eligible: true,
            distrusted: None,
        }
    }

    /// Who learns, and who votes.
    pub fn on_members(&mut self, members: Vec<NodeId>, voters: Vec<NodeId>) {
        self.members = members;
        self.voters = voters;
    }

    /// May this replica campaign? Not while its learner is down or far behind: it could not propose.
    pub fn set_eligible(&mut self, eligible: bool) {
        self.eligible = eligible;
    }

    /// The ballot of the leader this replica follows or is, if it heard of it within the suspicion time.
    pub fn leader(&self, now: Time) -> Option<Ballot> {
        match &self.state {
            State::Leading { ballot, .. } => Some(*ballot),
            _ => self.leader.filter(|_| self.hears_leader(now)),
        }
    }

    /// Does this replica lead, as far as it knows?
    pub fn is_leading(&self) -> bool {
        matches!(self.state, State::Leading { .. })
    }

    fn hears_leader(&self, now: Time) -> bool {
        self.leader.is_some() && self.heard.is_some_and(|heard| now.since(heard) < self.options.suspicion)
    }

    fn follow(&mut self, leader: Option<Ballot>, now: Time) {
        if self.leader != leader {
            self.leader = leader;
            self.since = now;
        }
    }

    /// Failures are forgotten once a leader stays. To forget them with every leader that comes would have
    /// rivals campaign ever faster while each brings the other down before it has done anything (PMS-23).
    fn forgive(&mut self, now: Time) {
        if now.since(self.since) >= self.options.trial {
            self.failures = 0;
        }
    }

    /// A message that only a leader sends came in, directly from it.
    pub fn on_leader(&mut self, ballot: Ballot, now: Time) -> Vec<Effect> {
        if self.leader.is_some_and(|known| known > ballot) {
            return Vec::new(); // a ghost
        }
        if ballot.node == self.node || self.distrusted == Some(ballot) {
            return Vec::new();
        }
        self.follow(Some(ballot), now);
        self.heard = Some(now);
        self.witnessed = Some(now);
        match &self.state {
            State::Leading { ballot: own, .. } if *own > ballot => Vec::new(),
            // It completed phase 1 while this replica's was under way with a higher ballot, which whoever
            // promised holds against it. To give way now would leave nobody.
            State::Campaigning { ballot: Some(own), .. } if *own > ballot => Vec::new(),
            State::Leading { .. } | State::Campaigning { .. } => {
                self.state = State::Following;
                vec![Effect::Abdicate]
            }
            _ => {
                self.state = State::Following;
                self.forgive(now);
                Vec::new()
            }
        }
    }

    /// Somebody prepares, from `first` on. If it asks for the next part of a long answer, its campaign moves,
    /// and is given time to finish. The first part proves nothing: it may be deaf, and campaign for ever.
    pub fn on_prepare(&mut self, ballot: Ballot, first: Slot, now: Time) {
        let moves = self.rival.is_some_and(|(known, before)| known == ballot && before < first);
        if moves || self.rival.is_none_or(|(known, _)| known < ballot) {
            self.rival = Some((ballot, first));
        }
        let idle = !matches!(self.state, State::Leading { .. } | State::Campaigning { .. });
        if moves && idle && self.leader.is_none_or(|known| known <= ballot) {
            // As good as a leader: whoever promised it refuses the one before.
            self.state = State::Following;
            self.leader = Some(ballot);
            self.since = now; // it has much to read before it can do anything for anybody
            self.heard = Some(now);
            self.witnessed = Some(now);
        }
    }

    /// The leader's heartbeat; answers it.
    pub fn on_heartbeat(&mut self, from: NodeId, ballot: Ballot, sent: Time, now: Time) -> Vec<Effect> {
        let mut effects = self.on_leader(ballot, now);
        if self.leader == Some(ballot) {
            effects
                .push(Effect::Send(Outgoing { to: from, message: Message::HeartbeatReply { ballot, sent } }));
        }
        effects
    }

    /// A sign of life of `node` for the present leadership.
    pub fn on_heard(&mut self, node: NodeId, ballot: Ballot, now: Time) {
        if let State::Leading { ballot: own, heard, .. } = &mut self.state
            && *own == ballot
        {
            heard.insert(node, now);
        }
    }

    /// The leader of `ballot` gave up.
    pub fn on_abdicated(&mut self, ballot: Ballot, now: Time, random: u64) {
        if self.leader == Some(ballot) {
            self.heard = None;
            self.witnessed = None;
            if self.state == State::Following {
                self.wait(now, random);
            }
        }
    }

    /// The leader asks this replica to take over.
    pub fn on_hand_over(&mut self, ballot: Ballot, now: Time) -> Vec<Effect> {
        let current = self.leader.is_none_or(|known| known <= ballot);
        if !self.eligible
            || !self.voters.contains(&self.node)
            || !current
            || matches!(self.state, State::Leading { .. } | State::Campaigning { .. })
        {
            return Vec::new();
        }
        self.state = State::Campaigning { since: now, ballot: None };
        vec![Effect::Campaign]
    }

    /// The connection to `node` broke: that may be all, but if it led, ask at once.
    pub fn on_disconnected(&mut self, node: NodeId, now: Time) -> Vec<Effect> {
        let led = self.leader.is_some_and(|ballot| ballot.node == node);
        if !led || self.state != State::Following {
            return Vec::new();
        }
        self.heard = None;
        self.witnessed = None;
        self.ask(now, 0)
    }

    /// Something that this replica's clients asked for waits since `waits`, and nothing at all was applied
    /// here since `moved`. If that lasts although a leader is heard, suspect it.
    ///
    /// But a leader that comes after a restart of all may first have to read a long log and to propose it
    /// again. Clients wait all the while, at every replica; if each of them took that for a bad leader, none
    /// would ever come to an end. So what counts is only what the present leader lets wait, and a log that
    /// moves speaks for it, though not for ever: it may serve others, and not hear this replica.
    pub fn on_stalled(&mut self, waits: Time, moved: Time, now: Time) -> Vec<Effect> {
        let waits = now.since(waits.max(self.since));
        let idle = waits.min(now.since(moved));
        let patient = idle < self.options.trial && waits < self.options.trial * PASSED_OVER;
        if patient || self.state != State::Following || !self.eligible {
            return Vec::new();
        }
        self.distrusted = self.leader;
        self.heard = None;
        self.witnessed = None;
        self.ask(now, 0)
    }

    /// Something moved: whoever leads does its work.
    pub fn on_moving(&mut self) {
        self.distrusted = None;
    }

    /// "Do you hear a leader?"
    pub fn on_query(&self, from: NodeId, question: QuestionId, now: Time) -> Vec<Effect> {
        let alive = match &self.state {
            State::Leading { ballot, .. } => Some(*ballot),
            _ => self
                .leader
                .filter(|_| self.witnessed.is_some_and(|at| now.since(at) < self.options.suspicion)),
        };
        vec![Effect::Send(Outgoing { to: from, message: Message::LeaderReply { question, alive } })]
    }

    /// An answer. One that hears a leader ends the suspicion; a majority that hears none allows a campaign.
    pub fn on_reply(
        &mut self,
        from: NodeId,
        question: QuestionId,
        alive: Option<Ballot>,
        now: Time,
        random: u64,
    ) -> Vec<Effect> {
        let State::Asking { question: asked, silent, .. } = &mut self.state else { return Vec::new() };
        if *asked != question {
            return Vec::new();
        }
        if let Some(ballot) = alive {
            if self.distrusted == Some(ballot) {
                return Vec::new(); // it may well live, and be of use to others; here nothing moves
            }
            if self.leader.is_none_or(|known| known <= ballot) && ballot.node != self.node {
                if self.leader != Some(ballot) {
                    self.witnessed = None;
                }
                self.follow(Some(ballot), now);
                self.heard = Some(now);
                self.state = State::Following;
            }
            return Vec::new();
        }
        silent.insert(from);
        if self.majority_is_silent() {
            self.wait(now, random);
        }
        Vec::new()
    }

    fn majority_is_silent(&self) -> bool {
        let State::Asking { silent, .. } = &self.state else { return false };
        self.voters.iter().filter(|node| silent.contains(node)).count() > self.voters.len() / 2
    }

    /// An answer to phase 1 came in, and more of it is to come: a campaign that moves is given time.
    pub fn on_campaign_moves(&mut self, now: Time) {
        if let State::Campaigning { since, .. } = &mut self.state {
            *since = now;
        }
    }

    /// The proposer begins phase 1 with `ballot`.
    pub fn on_campaign(&mut self, own: Ballot) {
        if let State::Campaigning { ballot, .. } = &mut self.state {
            *ballot = Some(own);
        }
    }

    /// The proposer completed phase 1.
    pub fn on_leads(&mut self, ballot: Ballot, now: Time) {
        self.follow(Some(ballot), now);
        let heard = self.members.iter().map(|&node| (node, now)).collect();
        self.state = State::Leading { ballot, heard, beat: None, offered: BTreeSet::new(), offer: None };
    }

    /// The proposer had to give way to `by`.
    pub fn on_deposed(&mut self, by: Ballot, now: Time, random: u64) {
        self.failures += 1;
        match self.state {
            State::Leading { .. } | State::Campaigning { .. } => {
                // Whoever refused promised `by` to somebody: give that one time to make itself heard.
                self.state = State::Following;
                self.heard = Some(now);
                self.witnessed = None;
                self.follow(self.leader.max(Some(by)).filter(|ballot| ballot.node != self.node), now);
                if self.leader.is_none() {
                    self.wait(now, random);
                }
            }
            _ => {}
        }
    }

    /// Gives leadership up on purpose, to the member heard last; used for a clean shutdown and when this
    /// replica's learner is gone. The successor's campaign deposes this one. If none comes in a round, the
    /// message was lost or that member is gone, and the next one is asked.
    pub fn hand_over(&mut self, now: Time) -> Vec<Effect> {
        let State::Leading { ballot, heard, offered, offer, .. } = &mut self.state else { return Vec::new() };
        if offer.is_some_and(|at| now.since(at) < self.options.round) {
            return Vec::new(); // it may be about to campaign; two successors would only hinder each other
        }
        let ballot = *ballot;
        let others: Vec<(Time, NodeId)> = heard
            .iter()
            .filter(|(node, _)| **node != self.node && self.voters.contains(node))
            .map(|(&node, &at)| (at, node))
            .collect();
        if others.iter().all(|(_, node)| offered.contains(node)) {
            offered.clear(); // once more round
        }
        match others.into_iter().filter(|(_, node)| !offered.contains(node)).max() {
            Some((_, to)) => {
                offered.insert(to);
                *offer = Some(now);
                vec![Effect::Send(Outgoing { to, message: Message::HandOver { ballot } })]
            }
            None => self.give_up(ballot, now),
        }
    }

    /// Time passes. To be called about every `options.tick`. `random` is fresh chance each time; `word` is
    /// what the proposer can say of the log, if it leads.
    pub fn tick(&mut self, now: Time, random: u64, word: Option<Chosen>) -> Vec<Effect> {
        self.credit_own_lateness(now);
        match self.state.clone() {
            State::Following => {
                if self.hears_leader(now)
                    || self.heard.is_some_and(|at| now.since(at) < self.options.suspicion)
                {
                    return Vec::new();
                }
                if !self.eligible {
                    return Vec::new();
                }
                self.ask(now, 0)
            }
            State::Asking { since, rounds, .. } => {
                if self.majority_is_silent() {
                    self.wait(now, random);
                    return Vec::new();
                }
                if now.since(since) < self.options.round {
                    return Vec::new();
                }
                if rounds >= ROUNDS_IN_VAIN {
                    self.wait(now, random);
                    return Vec::new();
                }
                self.ask(now, rounds + 1)
            }
            State::Waiting { until } => {
                if now < until {
                    return Vec::new();
                }
                if !self.eligible || !self.voters.contains(&self.node) {
                    self.state = State::Following;
                    self.heard = Some(now);
                    return Vec::new();
                }
                self.state = State::Campaigning { since: now, ballot: None };
                vec![Effect::Campaign]
            }
            State::Campaigning { since, .. } => {
                if now.since(since) < self.options.round * (1 << self.failures.min(MOST_PATIENCE)) {
                    return Vec::new();
                }
                self.failures += 1;
                // Back to asking: the cluster may have a leader by now, or no majority at all.
                let mut effects = vec![Effect::Abdicate];
                effects.extend(self.ask(now, 0));
                effects
            }
            State::Leading { ballot, heard, beat, .. } => self.lead(now, ballot, &heard, beat, word),
        }
    }

    fn lead(
        &mut self,
        now: Time,
        ballot: Ballot,
        heard: &BTreeMap<NodeId, Time>,
        beat: Option<Time>,
        word: Option<Chosen>,
    ) -> Vec<Effect> {
        let lively = |node: &&NodeId| {
            **node == self.node || heard.get(*node).is_some_and(|&at| now.since(at) < self.options.abdication)
        };
        if self.voters.iter().filter(lively).count() <= self.voters.len() / 2 {
            return self.give_up(ballot, now);
        }
        self.forgive(now);
        if !self.eligible || !self.voters.contains(&self.node) {
            let effects = self.hand_over(now);
            if !effects.is_empty() {
                return effects;
            }
        }
        if beat.is_some_and(|beat| now.since(beat) < self.options.heartbeat) {
            return Vec::new();
        }
        if let State::Leading { beat, .. } = &mut self.state {
            *beat = Some(now);
        }
        self.tell(|| Message::Heartbeat { ballot, chosen: word, sent: now })
    }

    fn give_up(&mut self, ballot: Ballot, now: Time) -> Vec<Effect> {
        self.state = State::Following;
        self.follow(None, now);
        self.heard = Some(now);
        let mut effects = vec![Effect::Abdicate];
        effects.extend(self.tell(|| Message::Abdicate { ballot }));
        effects
    }

    /// If this tick comes late, others may well have spoken in time: extend every deadline by the delay.
    fn credit_own_lateness(&mut self, now: Time) {
        let late = now.since(self.last_tick).saturating_sub(self.options.tick * 2);
        self.last_tick = now;
        if late.is_zero() {
            return;
        }
        self.heard = self.heard.map(|at| (at + late).min(now));
        self.witnessed = self.witnessed.map(|at| (at + late).min(now));
        self.since = (self.since + late).min(now);
        match &mut self.state {
            State::Leading { heard, .. } => {
                for at in heard.values_mut() {
                    *at = (*at + late).min(now);
                }
            }
            State::Asking { since, .. } | State::Campaigning { since, .. } => {
                *since = (*since + late).min(now)
            }
            State::Following | State::Waiting { .. } => {}
        }
    }

    fn ask(&mut self, now: Time, rounds: u32) -> Vec<Effect> {
        self.questions += 1;
        let question = QuestionId { generation: self.generation, number: self.questions };
        self.state = State::Asking { question, since: now, silent: BTreeSet::from([self.node]), rounds };
        self.tell(|| Message::LeaderQuery { question })
    }

    fn wait(&mut self, now: Time, random: u64) {
        let most = self.options.backoff * (1 << self.failures.min(MOST_DOUBLINGS));
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX).max(1);
        self.state = State::Waiting { until: now + Duration::from_micros(random % micros) };
    }

    fn tell(&self, message: impl Fn() -> Message) -> Vec<Effect> {
        let others = self.members.iter().filter(|&&node| node != self.node);
        others.map(|&to| Effect::Send(Outgoing { to, message: message() })).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot(round: u64, node: u64) -> Ballot {
        Ballot { round, node: NodeId(node), generation: Generation(1) }
    }

    #[test]
    fn pms_23_a_campaign_gives_way_to_a_higher_ballot_only() {
        let mut election = Election::new(NodeId(1), Generation(1), Options::default(), Time(0));
        let nodes: Vec<NodeId> = (1..=3).map(NodeId).collect();
        election.on_members(nodes.clone(), nodes);
        assert_eq!(election.on_hand_over(ballot(1, 3), Time(1)), [Effect::Campaign]);
        election.on_campaign(ballot(3, 1));
        assert_eq!(election.on_leader(ballot(2, 2), Time(2)), [], "acceptors hold 3.n1 against it already");
        assert_eq!(election.on_leader(ballot(4, 2), Time(3)), [Effect::Abdicate]);
    }
}

//! The proposer role of one replica: the proposer, which is careful, beside the election, which is in a
//! hurry. This file only passes on between the two what one of them needs to know from the other.

use crate::election::{self, Election};
use crate::membership::Membership;
use crate::message::{Message, Outgoing};
use crate::proposer::{self, Proposer};
use crate::types::{Ballot, Generation, NodeId, Prefix, Time};
use crate::value::Command;

/// What the proposer role asks of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell `message` to each of `to`, which may include this replica.
    Send {
        /// The receivers.
        to: Vec<NodeId>,
        /// What they are told.
        message: Message,
    },
    /// This replica leads from now on.
    Leads(Ballot),
    /// It no longer does.
    Follows(Ballot),
}

/// Proposer and election of one replica, in one life.
#[derive(Clone, Debug)]
pub struct Leadership {
    proposer: Proposer,
    election: Election,
    random: u64,
}

impl Leadership {
    /// A proposer role that never spoke, of a replica that has applied what `membership` says. `generation`
    /// must be fresh.
    pub fn new(
        node: NodeId,
        generation: Generation,
        pipeline: proposer::Options,
        patience: election::Options,
        membership: &Membership,
        now: Time,
    ) -> Leadership {
        let configurations = membership.configurations().clone();
        let mut leadership = Leadership {
            proposer: Proposer::new(node, generation, pipeline, configurations),
            election: Election::new(node, generation, patience, now),
            random: generation.0,
        };
        leadership.on_applied(membership);
        leadership
    }

    /// The proposer, to look at.
    pub fn proposer(&self) -> &Proposer {
        &self.proposer
    }

    /// The ballot of the leader this replica hears or is.
    pub fn leader(&self, now: Time) -> Option<Ballot> {
        self.election.leader(now)
    }

    /// This replica applied more.
    pub fn on_applied(&mut self, membership: &Membership) {
        let configurations = membership.configurations().clone();
        let members: Vec<NodeId> = membership.members().keys().copied().collect();
        let voters = configurations.newest().voters().map(|voter| voter.node).collect();
        self.election.on_members(members.clone(), voters);
        self.election.on_moving();
        self.proposer.on_applied(configurations, members);
    }

    /// This replica's learner knows the log chosen this far.
    pub fn on_learned(&mut self, chosen: Prefix) {
        self.proposer.on_learned(chosen);
    }

    /// Can this replica lead? Not while its learner is down or far behind.
    pub fn set_eligible(&mut self, eligible: bool) {
        self.election.set_eligible(eligible);
    }

    /// Commands from this replica's own front.
    pub fn on_submit(&mut self, commands: Vec<Command>) {
        self.proposer.on_submit(commands);
    }

    /// What this replica's clients asked for waits since `waits`; nothing at all was applied since `moved`.
    pub fn on_stalled(&mut self, waits: Time, moved: Time, now: Time) -> Vec<Effect> {
        let asked = self.election.on_stalled(waits, moved, now);
        self.carry_out(asked, now)
    }

    /// A reader of `node` asks how far this replica has accepted.
    pub fn on_reader(&mut self, node: NodeId) {
        self.proposer.on_reader(node);
    }

    /// A connection broke.
    pub fn on_disconnected(&mut self, node: NodeId, now: Time) -> Vec<Effect> {
        let asked = self.election.on_disconnected(node, now);
        let mut out = self.carry_out(asked, now);
        let effects = self.proposer.on_disconnected(node);
        out.extend(self.pass_on(effects, now));
        out
    }

    /// Gives leadership to somebody else.
    pub fn hand_over(&mut self, now: Time) -> Vec<Effect> {
        let effects = self.proposer.tell_all();
        let mut out = self.pass_on(effects, now);
        let asked = self.election.hand_over(now);
        out.extend(self.carry_out(asked, now));
        out
    }

    /// A message for the proposer role; others are ignored. Call [`Leadership::flush`] after each turn.
    pub fn on_message(&mut self, from: NodeId, message: Message, now: Time) -> Vec<Effect> {
        match message {
            Message::Promise { ballot, voter, from: first, until, trimmed, accepted } => {
                if until.is_some() && self.proposer.ballot() == Some(ballot) {
                    self.election.on_campaign_moves(now);
                }
                let effects = self.proposer.on_promise(ballot, voter, first, until, trimmed, accepted, now);
                self.pass_on(effects, now)
            }
            Message::Accepted { ballot, slot, voter } => {
                self.election.on_heard(from, ballot, now);
                self.proposer.on_accepted(ballot, slot, voter);
                Vec::new()
            }
            Message::Refused { ballot, promised } => {
                let effects = self.proposer.on_refused(ballot, promised);
                self.pass_on(effects, now)
            }
            Message::Counted { ballot, slot } => {
                self.election.on_heard(from, ballot, now);
                self.proposer.on_counted(ballot, slot);
                Vec::new()
            }
            Message::Accept { ballot, .. } | Message::Learn { ballot, .. } => self.heard_leader(ballot, now),
            Message::Chosen(word) => self.heard_leader(word.ballot, now),
            Message::Prepare { ballot, from: first } => {
                self.proposer.saw(ballot);
                self.election.on_prepare(ballot, first, now);
                Vec::new()
            }
            Message::Submit { commands } => {
                self.proposer.on_submit(commands);
                Vec::new()
            }
            Message::Decide { slot } => {
                self.proposer.on_decide(slot);
                Vec::new()
            }
            Message::Heartbeat { ballot, sent, .. } => {
                self.proposer.saw(ballot);
                let asked = self.election.on_heartbeat(from, ballot, sent, now);
                self.carry_out(asked, now)
            }
            Message::HeartbeatReply { ballot, .. } => {
                self.election.on_heard(from, ballot, now);
                Vec::new()
            }
            Message::Abdicate { ballot } => {
                let random = self.chance(now);
                self.election.on_abdicated(ballot, now, random);
                Vec::new()
            }
            Message::HandOver { ballot } => {
                self.proposer.saw(ballot);
                let asked = self.election.on_hand_over(ballot, now);
                self.carry_out(asked, now)
            }
            Message::LeaderQuery { question } => {
                let asked = self.election.on_query(from, question, now);
                self.carry_out(asked, now)
            }
            Message::LeaderReply { question, alive } => {
                if let Some(ballot) = alive {
                    self.proposer.saw(ballot);
                }
                let random = self.chance(now);
                let asked = self.election.on_reply(from, question, alive, now, random);
                self.carry_out(asked, now)
            }
            Message::Fetch { .. }
            | Message::Entries { .. }
            | Message::TakeCheckpoint { .. }
            | Message::ReadQuery { .. }
            | Message::ReadAnswer { .. }
            | Message::Progress(_) => Vec::new(),
        }
    }

    /// Proposes what waits. To be called after each turn of input.
    pub fn flush(&mut self, now: Time) -> Vec<Effect> {
        let effects = self.proposer.flush(now);
        self.pass_on(effects, now)
    }

    /// Time passes; `random` is fresh chance.
    pub fn tick(&mut self, now: Time, random: u64) -> Vec<Effect> {
        self.random ^= random;
        let word = self.proposer.word();
        let asked = self.election.tick(now, random, word);
        let mut out = self.carry_out(asked, now);
        let effects = self.proposer.tick(now);
        out.extend(self.pass_on(effects, now));
        out
    }

    /// Chance between two ticks, from the chance that came with them.
    fn chance(&mut self, now: Time) -> u64 {
        self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(now.0 | 1);
        self.random >> 16
    }

    fn heard_leader(&mut self, ballot: Ballot, now: Time) -> Vec<Effect> {
        self.proposer.saw(ballot);
        let asked = self.election.on_leader(ballot, now);
        self.carry_out(asked, now)
    }

    fn pass_on(&mut self, effects: Vec<proposer::Effect>, now: Time) -> Vec<Effect> {
        let mut out = Vec::with_capacity(effects.len());
        for effect in effects {
            match effect {
                proposer::Effect::Send { to, message } => out.push(Effect::Send { to, message }),
                proposer::Effect::Leads(ballot) => {
                    self.election.on_leads(ballot, now);
                    out.push(Effect::Leads(ballot));
                }
                proposer::Effect::Deposed { ballot, by } => {
                    let random = self.chance(now);
                    let led = self.election.is_leading(); // or only tried to
                    self.election.on_deposed(by, now, random);
                    out.extend(led.then_some(Effect::Follows(ballot)));
                }
            }
        }
        out
    }

    fn carry_out(&mut self, asked: Vec<election::Effect>, now: Time) -> Vec<Effect> {
        let mut out = Vec::with_capacity(asked.len());
        for effect in asked {
            match effect {
                election::Effect::Send(Outgoing { to, message }) => {
                    out.push(Effect::Send { to: vec![to], message });
                }
                election::Effect::Campaign => {
                    let effects = self.proposer.campaign(now).unwrap_or_default();
                    if let Some(ballot) = self.proposer.ballot() {
                        self.election.on_campaign(ballot);
                    }
                    out.extend(self.pass_on(effects, now));
                }
                election::Effect::Abdicate => {
                    let led = self.proposer.leads();
                    self.proposer.abdicate();
                    out.extend(led.map(Effect::Follows));
                }
            }
        }
        out
    }
}

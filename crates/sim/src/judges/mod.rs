//! The judges of a run: they watch whole replicas at work, know the truth, and ask no replica.
//!
//! Every replica reports what it does ([`Observation`]): what it says, what its disk holds for good, what it
//! applies. From these facts alone a `ledger` concludes what is chosen, and from what is chosen a `book`
//! replays the log: who votes where, what each command answered, which state lies behind each slot. Then each
//! judge holds one invariant of the protocol against whatever a replica claims, at the instant of the claim. So a
//! mistake is found where it is made, and not where, thousands of steps later, it shows.
//!
//! ```text
//!   observation ──> judges, before it is in the ledger ──> ledger ──> what followed (chosen, replayed) ──> judges
//! ```
//!
//! A judge that never objects proves nothing. So every judge is shown a story that it must condemn, beside one
//! that it must let pass; and the `tally` counts how often the rare things happened that could have gone wrong.

mod agreement;
mod answers;
mod ballots;
mod book;
mod convergence;
mod durability;
mod formation;
mod learning;
mod ledger;
mod memory;
mod once;
mod order;
mod phases;
mod reads;
mod reports;
mod stable;
mod tally;
mod trimming;
mod validity;
mod voters;
mod window;

#[cfg(test)]
mod replica_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use book::Page;
use bytes::Bytes;
use ledger::Ledger;
use std::collections::BTreeMap;
use std::fmt::Display;
use synod_kv::StateHash;
use synod_paxos::acceptor::{Acceptor, Record};
use synod_paxos::machine::Machine;
use synod_paxos::membership::{Genesis, Member};
use synod_paxos::message::Message;
use synod_paxos::types::{Ballot, Incarnation, NodeId, Prefix, Slot, Time, VoterId};
use synod_paxos::value::Value;
use synod_server::replica::{Answer, Observation, Role};
use tally::Tally;

pub use tally::SOMETIMES;

/// Who votes in a slot.
pub type Voters = BTreeMap<NodeId, Incarnation>;

/// How often rare things happened.
pub type Sometimes = BTreeMap<&'static str, u64>;

/// A broken invariant. The run is over: what the judges say after it means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} ({clause}) is broken: {why}")]
pub struct Broken {
    /// Its name.
    pub invariant: &'static str,
    /// The clause that asks for it: a rule of the paper (PMS-n), of lost memory (Rn), or of the design.
    pub clause: &'static str,
    /// What happened instead of what should have.
    pub why: String,
}

impl Broken {
    fn with(self, context: impl Display) -> Broken {
        Broken { why: format!("{context}: {}", self.why), ..self }
    }
}

/// What a judge says.
type Verdict = Result<(), Broken>;

/// What a judge stands for.
#[derive(Clone, Copy, Debug)]
struct Rule {
    name: &'static str,
    clause: &'static str,
}

/// Unless the condition holds, the rule is broken, for the reason that follows.
macro_rules! hold {
    ($condition:expr, $rule:expr, $($why:tt)+) => {
        if !$condition {
            return Err(crate::judges::Broken {
                invariant: $rule.name,
                clause: $rule.clause,
                why: format!($($why)+),
            });
        }
    };
}
use hold;

/// What the learner of a replica says it did.
#[derive(Clone, Copy)]
struct AppliedSlot<'a> {
    slot: Slot,
    value: &'a Value,
    hash: StateHash,
    machine: &'a Machine<Answer>,
}

/// A judge. It is told of what happens *before* the ledger holds it, so that it sees what was true until then, and
/// of what follows from it (`on_chosen`, `on_replayed`) after that.
trait Invariant: Send {
    fn on_formed(&mut self, _: &Ledger, _node: NodeId, _genesis: &Genesis) -> Verdict {
        Ok(())
    }

    fn on_sent(&mut self, _: &Ledger, _node: NodeId, _message: &Message) -> Verdict {
        Ok(())
    }

    fn on_received(&mut self, _: &Ledger, _node: NodeId, _message: &Message) -> Verdict {
        Ok(())
    }

    /// A proposal left its proposer for the first time.
    fn on_issued(&mut self, _: &Ledger, _: Ballot, _: Slot, _: &Value) -> Verdict {
        Ok(())
    }

    fn on_restored(&mut self, _: &Ledger, _node: NodeId, _: &Acceptor) -> Verdict {
        Ok(())
    }

    /// A record became durable, or turned out to be after a crash.
    fn on_durable(&mut self, _: &Ledger, _: VoterId, _: &Record) -> Verdict {
        Ok(())
    }

    /// A majority of the slot's voters has accepted the proposal of this ballot: the first to be chosen there, or
    /// one more.
    fn on_chosen(&mut self, _: &Ledger, _: Slot, _: Ballot) -> Verdict {
        Ok(())
    }

    /// The book has gone one slot further.
    fn on_replayed(&mut self, _: &Ledger, _: &Page) -> Verdict {
        Ok(())
    }

    fn on_applied(&mut self, _: &Ledger, _node: NodeId, _: AppliedSlot<'_>) -> Verdict {
        Ok(())
    }

    fn on_loaded(&mut self, _: &Ledger, _node: NodeId, _applied: Prefix, _: StateHash) -> Verdict {
        Ok(())
    }

    fn on_covered(&mut self, _: &Ledger, _node: NodeId, _durable: Prefix) -> Verdict {
        Ok(())
    }

    fn on_role(&mut self, _: &Ledger, _node: NodeId, _: Role, _up: bool) -> Verdict {
        Ok(())
    }

    fn on_leads(&mut self, _: &Ledger, _node: NodeId, _: Ballot, _begins: bool) -> Verdict {
        Ok(())
    }

    fn on_process_ended(&mut self, _: &Ledger, _node: NodeId, _wiped: bool) -> Verdict {
        Ok(())
    }

    fn on_write_answered(&mut self, _: &Ledger, _node: NodeId, _request: &Bytes, _: &Answer) -> Verdict {
        Ok(())
    }

    fn on_read_answered(&mut self, _: &Ledger, _node: NodeId, _floor: Prefix, _applied: Prefix) -> Verdict {
        Ok(())
    }

    fn at_end(&mut self, _: &Ledger, _applied: &BTreeMap<NodeId, (Prefix, StateHash)>) -> Verdict {
        Ok(())
    }
}

/// The ledger and all judges.
///
/// The order of calls is the order of events: an observation is to be told before anything that follows from it
/// happens. A court serves one run of one cluster.
pub struct Court {
    ledger: Ledger,
    tally: Tally,
    judges: Vec<Box<dyn Invariant>>,
}

impl Default for Court {
    fn default() -> Court {
        Court::new()
    }
}

impl Court {
    /// All judges, before anything has happened.
    pub fn new() -> Court {
        Court::of(vec![
            Box::new(formation::OneCluster),
            Box::new(ballots::Ballots::default()),
            Box::new(window::TheWindow),
            Box::new(validity::Validity),
            Box::new(phases::TwoPhases),
            Box::new(memory::UnbrokenMemory),
            Box::new(stable::StableBeforeSent),
            Box::new(reports::WholeReports),
            Box::new(agreement::Agreement),
            Box::new(once::AppliedOnce),
            Box::new(learning::HonestLearning::default()),
            Box::new(order::SameOrder),
            Box::new(voters::WhoVotes),
            Box::new(trimming::Trimming),
            Box::new(reads::Reads),
            Box::new(answers::Answers),
            Box::new(durability::Durability),
            Box::new(convergence::Convergence),
        ])
    }

    fn of(judges: Vec<Box<dyn Invariant>>) -> Court {
        Court { ledger: Ledger::new(), tally: Tally::default(), judges }
    }

    /// Lets everybody look.
    fn ask(&mut self, mut question: impl FnMut(&mut dyn Invariant, &Ledger) -> Verdict) -> Verdict {
        question(&mut self.tally, &self.ledger)?;
        self.judges.iter_mut().try_for_each(|judge| question(judge.as_mut(), &self.ledger))
    }

    /// One observation of one replica, at true time `now`.
    ///
    /// # Errors
    /// When it breaks an invariant.
    pub fn see(&mut self, now: Time, node: NodeId, observation: &Observation<'_>) -> Result<(), Broken> {
        self.judge(node, observation).map_err(|broken| {
            let (seconds, micros) = (now.0 / 1_000_000, now.0 % 1_000_000);
            broken.with(format_args!("{seconds}.{micros:06} s, {node}"))
        })
    }

    fn judge(&mut self, node: NodeId, observation: &Observation<'_>) -> Verdict {
        match *observation {
            Observation::Sent { to, message } => self.sent(node, to, message)?,
            Observation::Received { message, .. } => {
                self.tally.on_received(&self.ledger, node, message)?;
                self.ledger.received(node, message);
            }
            Observation::Persisted { voter, records } => {
                for record in records {
                    self.durable(voter, record)?;
                }
            }
            Observation::Applied { slot, value, hash, machine } => {
                let applied = AppliedSlot { slot, value, hash, machine };
                self.ask(|judge, ledger| judge.on_applied(ledger, node, applied))?;
                self.ledger.node_mut(node).applied(Prefix::through(slot));
            }
            Observation::Restored { acceptor } => {
                self.ask(|judge, ledger| judge.on_restored(ledger, node, acceptor))?;
                for record in self.ledger.news_of(acceptor) {
                    self.durable(acceptor.id(), &record)?;
                }
                self.ledger.node_mut(node).restored(acceptor.id().incarnation);
            }
            Observation::Loaded { applied, hash } => {
                self.ask(|judge, ledger| judge.on_loaded(ledger, node, applied, hash))?;
                self.ledger.node_mut(node).applied(applied);
            }
            Observation::Covered { durable } => {
                self.ask(|judge, ledger| judge.on_covered(ledger, node, durable))?;
                self.ledger.node_mut(node).covered(durable);
            }
            Observation::Checkpointed { runs, runs_before } => self.tally.on_checkpointed(runs, runs_before),
            Observation::Formed { genesis, member } => {
                self.ask(|judge, ledger| judge.on_formed(ledger, node, genesis))?;
                self.ledger.formed(node, genesis, member);
            }
            Observation::Role { role, up } => {
                self.ask(|judge, ledger| judge.on_role(ledger, node, role, up))?;
                self.ledger.node_mut(node).role(role, up);
            }
            Observation::Leads { ballot, begins } => {
                self.ask(|judge, ledger| judge.on_leads(ledger, node, ballot, begins))?;
            }
            Observation::Note { .. } => {}
        }
        Ok(())
    }

    fn sent(&mut self, node: NodeId, to: &[NodeId], message: &Message) -> Verdict {
        self.ask(|judge, ledger| judge.on_sent(ledger, node, message))?;
        match message {
            Message::Accept { ballot, slot, value, .. } => {
                let known = self.ledger.proposal(*slot, *ballot);
                if known.is_none_or(|known| known.value != *value) {
                    self.ask(|judge, ledger| judge.on_issued(ledger, *ballot, *slot, value))?;
                    self.ledger.issued(*ballot, *slot, value);
                }
            }
            Message::ReadQuery { question } => self.tally.on_question(node, to, *question),
            Message::Accepted { slot, voter, .. } => self.ledger.answered_acceptance(*voter, *slot),
            _ => {}
        }
        Ok(())
    }

    fn durable(&mut self, voter: VoterId, record: &Record) -> Verdict {
        self.ask(|judge, ledger| judge.on_durable(ledger, voter, record))?;
        let Some((slot, ballot)) = self.ledger.persisted(voter, record) else { return Ok(()) };
        self.ask(|judge, ledger| judge.on_chosen(ledger, slot, ballot))?;
        while let Some(page) = self.ledger.turn_page() {
            self.ask(|judge, ledger| judge.on_replayed(ledger, &page))?;
        }
        Ok(())
    }

    /// A client was told the answer to its write by `node`. `request` is the encoded [`synod_kv::Request`] it
    /// proposed; no other operation of the run may have the same bytes, or it is taken for one that was applied
    /// twice.
    ///
    /// # Errors
    /// When that breaks an invariant.
    pub fn on_write_answered(
        &mut self,
        node: NodeId,
        request: &Bytes,
        answer: &Answer,
    ) -> Result<(), Broken> {
        self.ask(|judge, ledger| judge.on_write_answered(ledger, node, request, answer))
            .map_err(|broken| broken.with(node))?;
        if let Some(outcome) = self.ledger.book().outcome(request) {
            let slot = outcome.slot;
            self.ledger.told(Prefix::through(slot));
        }
        Ok(())
    }

    /// What a linearizable read that arrives now must at least see: everything that any client was told of.
    pub fn read_floor(&self) -> Prefix {
        self.ledger.told_so_far()
    }

    /// A linearizable read that arrived when [`Court::read_floor`] was `floor` was answered at `node` from the state
    /// behind `applied`.
    ///
    /// # Errors
    /// When that breaks an invariant.
    pub fn on_read_answered(&mut self, node: NodeId, floor: Prefix, applied: Prefix) -> Result<(), Broken> {
        self.ask(|judge, ledger| judge.on_read_answered(ledger, node, floor, applied))
            .map_err(|broken| broken.with(node))?;
        self.ledger.told(applied);
        Ok(())
    }

    /// The process of `node` ended: its volatile memory is gone, and if `wiped`, so is its disk.
    pub fn on_process_ended(&mut self, node: NodeId, wiped: bool) {
        // No judge objects to what the world does to a replica.
        let verdict = self.ask(|judge, ledger| judge.on_process_ended(ledger, node, wiped));
        debug_assert_eq!(verdict, Ok(()));
        self.ledger.node_mut(node).process_ended(wiped);
    }

    /// Everything is healed and at rest; what must hold in the end. `applied` has each replica's applied prefix and
    /// its state hash there, of members at least.
    ///
    /// # Errors
    /// When that breaks an invariant.
    pub fn at_end(&mut self, applied: &BTreeMap<NodeId, (Prefix, StateHash)>) -> Result<(), Broken> {
        self.ask(|judge, ledger| judge.at_end(ledger, applied))
    }

    /// How far the log is chosen without a hole, whether or not anybody has noticed.
    pub fn chosen(&self) -> Prefix {
        self.ledger.book().applied()
    }

    /// The members behind everything that is chosen; none before a cluster is formed.
    pub fn members(&self) -> &BTreeMap<NodeId, Member> {
        self.ledger.book().members()
    }

    /// Who votes in `slot`; beyond [`Court::horizon`], who would if nothing changed.
    pub fn voters(&self, slot: Slot) -> &Voters {
        self.ledger.book().voters(slot)
    }

    /// From which slot on `voter` votes without a break up to `slot`; none if it does not vote there.
    pub fn votes_since(&self, voter: VoterId, slot: Slot) -> Option<Slot> {
        self.ledger.book().votes_since(voter, slot)
    }

    /// The last slot whose voters are determined: a window behind [`Court::chosen`].
    pub fn horizon(&self) -> Slot {
        self.ledger.book().horizon()
    }

    /// Was this node ever removed from the cluster?
    pub fn was_removed(&self, node: NodeId) -> bool {
        self.ledger.book().was_removed(node)
    }

    /// The highest ballot that `voter` ever durably promised, by a promise or an acceptance.
    pub fn standing(&self, voter: VoterId) -> Option<Ballot> {
        self.ledger.memory(voter).and_then(|memory| memory.standing)
    }

    /// Which memory answers for `node`, as its acceptor said when it last started; none if none ever did.
    pub fn living_voter(&self, node: NodeId) -> Option<VoterId> {
        let incarnation = self.ledger.node(node)?.incarnation?;
        Some(VoterId { node, incarnation })
    }

    /// What the log holds in `slot`, if it is chosen: where writes of unknown fate can be looked up.
    pub fn chosen_value(&self, slot: Slot) -> Option<&Value> {
        self.ledger.chosen(slot).map(|proposal| &proposal.value)
    }

    /// What the log made of `request`: in which slot it took effect, and what it answered; none if it has not so far.
    pub fn outcome(&self, request: &Bytes) -> Option<(Slot, &Answer)> {
        self.ledger.book().outcome(request).map(|outcome| (outcome.slot, &outcome.answer))
    }

    /// How often rare things happened: those of [`SOMETIMES`] that did.
    pub fn sometimes(&self) -> &Sometimes {
        self.tally.counts()
    }
}

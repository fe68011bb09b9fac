//! Reading the latest value without a log entry, at any replica, without a leader and without a clock.
//!
//! A write is answered only after a majority of its slot's acceptors accepted it. So whoever asks a majority
//! of the same acceptors how far they have accepted hears of a slot at least as high; once it has applied up
//! to there, it has seen the write.
//!
//! ```text
//!   reader               acceptors of cfg(a+1), a = applied here
//!     | --- ReadQuery(q) ---> |
//!     | <-- ReadAnswer(q, h) -|   a majority; h = the highest
//!     |  apply up to h; if cfg(h+1) is another set, ask that one; else answer
//! ```
//!
//! Two rules carry the proof. Only answers to questions sent *after* a read arrived count for it, so a read
//! that arrives during a round waits for the next. And the acceptors asked must be those of the right slots
//! (rule R8): if the voters changed between `a` and the write, a majority of the old ones at least shows
//! the last slot they voted in, and then the new ones are asked. An acceptor that forgot answers under
//! another name and does not count.
//!
//! Not in the paper, which would give every read a slot of its own; after "Paxos Quorum Reads".

use crate::membership::{Configuration, Configurations};
use crate::message::{Message, Outgoing, QuestionId};
use crate::mutants::{Mutant, is};
use crate::types::{Generation, Prefix, Slot, Time, VoterId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// A read, in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a reader asks of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask somebody.
    Send(Outgoing),
    /// Every read up to this ticket may be answered from the state applied here.
    Ready(Ticket),
    /// The log must be chosen up to this slot before reads can be answered; remind the leader.
    Decide(Slot),
}

/// How many answered rounds wait one by one for this replica to apply; more share their wait.
const SETTLING: usize = 8;

/// The reads of one replica that wait for their turn.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reader {
    generation: Generation,
    retry: Duration,
    configurations: Configurations,
    questions: u64,
    /// The last ticket given out.
    arrived: u64,
    /// The last ticket that some round covers.
    covered: u64,
    round: Option<Round>,
    /// Answered by a majority, waiting for this replica to apply: ticket, prefix needed, who was asked.
    settling: VecDeque<Settling>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Round {
    question: QuestionId,
    covers: Ticket,
    asked: Configuration,
    answers: BTreeMap<VoterId, Prefix>,
    sent: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Settling {
    covers: Ticket,
    need: Prefix,
    asked: Configuration,
    since: Time,
}

impl Reader {
    /// A reader that never asked. `generation` must be fresh, so that no answer to an earlier life counts.
    pub fn new(generation: Generation, retry: Duration, configurations: Configurations) -> Reader {
        Reader {
            generation,
            retry,
            configurations,
            questions: 0,
            arrived: 0,
            covered: 0,
            round: None,
            settling: VecDeque::new(),
        }
    }

    /// A read arrived. It is answered by an [`Effect::Ready`] for its ticket or a later one.
    pub fn on_read(&mut self) -> Ticket {
        self.arrived += 1;
        Ticket(self.arrived)
    }

    /// How far this replica has applied, as this reader was told.
    pub fn applied(&self) -> Prefix {
        self.configurations.applied()
    }

    /// Reads that wait.
    pub fn waiting(&self) -> bool {
        self.round.is_some() || !self.settling.is_empty() || self.covered < self.arrived
    }

    /// Starts a round for the reads that wait for one. To be called after each turn of input, so that what
    /// arrived together shares a question.
    pub fn flush(&mut self, now: Time) -> Vec<Effect> {
        if self.round.is_some() || self.covered == self.arrived {
            return Vec::new();
        }
        self.covered = self.arrived;
        self.ask(Ticket(self.arrived), now)
    }

    /// An acceptor's answer. Counts for its own question, and only if that very memory votes there.
    pub fn on_answer(
        &mut self,
        question: QuestionId,
        voter: VoterId,
        accepted: Prefix,
        now: Time,
    ) -> Vec<Effect> {
        let Some(round) = self.round.as_mut().filter(|round| round.question == question) else {
            return Vec::new();
        };
        round.answers.insert(voter, accepted);
        let voters: BTreeSet<VoterId> = round.answers.keys().copied().collect();
        if !round.asked.has_majority(&voters) && !is(Mutant::ReadsWithoutMajority) {
            return Vec::new();
        }
        let round = self.round.take().expect("looked at above");
        let crowded = self.settling.len() >= SETTLING;
        let counted = round.answers.iter().filter(|(voter, _)| round.asked.contains(**voter));
        let need = counted.map(|(_, &prefix)| prefix).max().unwrap_or_default();
        match self.settling.back_mut() {
            // While nothing is applied here, rounds would pile up. Any but the first may wait for a later one.
            Some(last) if crowded && last.asked == round.asked => {
                last.covers = round.covers;
                last.need = last.need.max(need);
            }
            _ => self.settling.push_back(Settling {
                covers: round.covers,
                need,
                asked: round.asked,
                since: now,
            }),
        }
        let mut effects = self.settle(now);
        effects.extend(self.flush(now));
        effects
    }

    /// This replica applied more.
    pub fn on_applied(&mut self, configurations: Configurations, now: Time) -> Vec<Effect> {
        self.configurations = configurations;
        let mut effects = self.settle(now);
        // The acceptors asked may have been replaced meanwhile, and then they stay silent for ever.
        let stale = self.round.as_ref().is_some_and(|round| Some(&round.asked) != self.voters());
        if let Some(round) = self.round.take_if(|_| stale) {
            effects.extend(self.ask(round.covers, now));
        }
        effects
    }

    /// Asks again whoever has not answered, and hurries a slot along that a read has waited for too long.
    pub fn tick(&mut self, now: Time) -> Vec<Effect> {
        let retry = self.retry;
        let mut effects = self.flush(now);
        if let Some(round) = self.round.as_mut().filter(|round| now.since(round.sent) >= retry) {
            round.sent = now;
            let silent = round.asked.voters().filter(|voter| !round.answers.contains_key(voter));
            let message = Message::ReadQuery { question: round.question };
            effects.extend(
                silent.map(|voter| Effect::Send(Outgoing { to: voter.node, message: message.clone() })),
            );
        }
        if let Some(first) = self.settling.front_mut().filter(|first| now.since(first.since) >= retry) {
            first.since = now;
            effects.push(Effect::Decide(Slot(first.need.0)));
        }
        effects
    }

    fn voters(&self) -> Option<&Configuration> {
        self.configurations.at(self.configurations.applied().next())
    }

    fn ask(&mut self, covers: Ticket, now: Time) -> Vec<Effect> {
        self.questions += 1;
        let question = QuestionId { generation: self.generation, number: self.questions };
        let asked = self.voters().cloned().expect("the slot behind the applied prefix lies in its window");
        let message = Message::ReadQuery { question };
        let effects = asked
            .voters()
            .map(|voter| Effect::Send(Outgoing { to: voter.node, message: message.clone() }))
            .collect();
        self.round = Some(Round { question, covers, asked, answers: BTreeMap::new(), sent: now });
        effects
    }

    /// Releases, in order, the reads whose prefix is applied and whose acceptors are still the right ones.
    fn settle(&mut self, now: Time) -> Vec<Effect> {
        // Reads that had to ask again queue up behind later ones: what counts is the highest ticket.
        let mut ready: Option<Ticket> = None;
        let mut again: Option<Ticket> = None;
        let applied = self.configurations.applied();
        while let Some(first) = self.settling.front() {
            if first.need > applied && !is(Mutant::ReadsWithoutWaiting) {
                break;
            }
            // The configuration behind `need`. If this replica has moved on, that slot is applied and what
            // counts is the one behind the applied prefix.
            if self.voters() != Some(&first.asked) {
                again = again.max(Some(first.covers)); // another set votes from here on: ask it (rule R8)
            } else {
                ready = ready.max(Some(first.covers));
            }
            self.settling.pop_front();
        }
        let mut effects: Vec<Effect> = Vec::new();
        match (ready, again) {
            // A later round's good answer serves earlier reads as well: it was asked after they arrived.
            (Some(ready), Some(again)) if again <= ready => effects.push(Effect::Ready(ready)),
            (ready, again) => {
                effects.extend(ready.map(Effect::Ready));
                if let Some(again) = again {
                    effects.extend(self.ask_again(again, now));
                }
            }
        }
        effects
    }

    /// Puts reads back into a round. One that is under way is replaced by a new question for both.
    fn ask_again(&mut self, covers: Ticket, now: Time) -> Vec<Effect> {
        let covers = self.round.take().map_or(covers, |round| round.covers.max(covers));
        self.ask(covers, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, NodeId, Window};

    #[test]
    fn rounds_that_wait_for_a_learner_do_not_pile_up() {
        let voter = VoterId { node: NodeId(1), incarnation: Incarnation(1) };
        let configurations = Configurations::genesis(Window::new(4), Configuration::new([voter]));
        let mut reader = Reader::new(Generation(1), Duration::from_millis(10), configurations);
        for round in 1..=100 {
            reader.on_read();
            let asked = reader.flush(Time(round));
            let Some(Effect::Send(Outgoing { message: Message::ReadQuery { question }, .. })) = asked.first()
            else {
                panic!("a question was due: {asked:?}");
            };
            assert_eq!(
                reader.on_answer(*question, voter, Prefix(round), Time(round)),
                [],
                "nothing is applied"
            );
        }
        assert!(reader.settling.len() <= SETTLING);
        assert_eq!(
            reader.settling.back().map(|last| (last.covers, last.need)),
            Some((Ticket(100), Prefix(100)))
        );
    }
}

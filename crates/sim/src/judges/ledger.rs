//! The ledger: what happened, and what is chosen because of it.
//!
//! It holds every proposal issued, whose disk has which promise and which acceptance, and which promises reached
//! their proposer. A value is chosen once a majority of its slot's voters has it on disk, accepted in one ballot
//! (PMS-8), whether or not anybody has noticed. It judges nothing, and forgets nothing that a judge could ask for.

use super::Voters;
use super::book::{Book, Page};
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::acceptor::{Acceptor, Record};
use synod_paxos::membership::Genesis;
use synod_paxos::message::Message;
use synod_paxos::types::{Ballot, Incarnation, NodeId, Prefix, Slot, VoterId};
use synod_paxos::value::Value;
use synod_server::replica::Role;

/// See the module.
pub(super) struct Ledger {
    genesis: Option<Genesis>,
    /// By slot; the first is never used.
    slots: Vec<SlotFacts>,
    memories: BTreeMap<VoterId, Memory>,
    nodes: BTreeMap<NodeId, Node>,
    /// The promises that reached their proposer.
    promises: BTreeMap<Ballot, Vec<Report>>,
    book: Book,
    /// Every answer given so far came from a state that covers at most this much.
    told: Prefix,
}

/// What happened in one slot.
#[derive(Default)]
struct SlotFacts {
    proposals: Vec<Proposal>,
    /// The first of them that was chosen.
    chosen: Option<usize>,
}

/// A value proposed in a ballot.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) ballot: Ballot,
    pub(super) value: Value,
    /// Whose disks have accepted it.
    pub(super) accepted: Vec<VoterId>,
    pub(super) chosen: bool,
}

/// What one life of an acceptor's memory has on disk, and has said.
#[derive(Default)]
pub(super) struct Memory {
    /// The highest ballot promised, by promise or acceptance.
    pub(super) standing: Option<Ballot>,
    /// The ballots promised in so many words.
    pub(super) promised: BTreeSet<Ballot>,
    pub(super) trimmed: Prefix,
    /// It told a proposer of acceptances up to here.
    pub(super) answered: Prefix,
}

/// The part of the log that a promise speaks of.
pub(super) struct Report {
    pub(super) voter: VoterId,
    from: Slot,
    until: Option<Slot>,
    trimmed: Prefix,
}

impl Report {
    /// Does it tell what was accepted in `slot`? Silence about a trimmed slot means nothing.
    pub(super) fn covers(&self, slot: Slot) -> bool {
        self.from <= slot && self.until.is_none_or(|until| slot < until) && !self.trimmed.contains(slot)
    }
}

/// What is known of one replica.
#[derive(Default)]
pub(super) struct Node {
    /// This process may promise and accept.
    pub(super) is_member: bool,
    /// How far its learner has come, in this life of it.
    pub(super) applied: Option<Prefix>,
    /// How far any life of it ever came.
    pub(super) reached: Prefix,
    /// How far it came with the disk it has.
    pub(super) reached_on_disk: Prefix,
    /// What its durable store covered at most, with the disk it has.
    pub(super) covered: Prefix,
    /// Counts the lives of its proposer.
    pub(super) proposer_life: u64,
    /// The memory that answers for it.
    pub(super) incarnation: Option<Incarnation>,
    /// Those that once did.
    pub(super) dead: BTreeSet<Incarnation>,
}

impl Node {
    pub(super) fn applied(&mut self, applied: Prefix) {
        self.applied = Some(applied);
        self.reached = self.reached.max(applied);
        self.reached_on_disk = self.reached_on_disk.max(applied);
    }

    pub(super) fn covered(&mut self, durable: Prefix) {
        self.covered = self.covered.max(durable);
    }

    pub(super) fn restored(&mut self, incarnation: Incarnation) {
        let before = self.incarnation.replace(incarnation).filter(|&before| before != incarnation);
        self.dead.extend(before);
    }

    pub(super) fn role(&mut self, role: Role, up: bool) {
        match role {
            Role::Proposer if !up => self.proposer_life += 1,
            Role::Learner if !up => self.applied = None,
            _ => {}
        }
    }

    pub(super) fn process_ended(&mut self, wiped: bool) {
        self.is_member = false;
        self.applied = None;
        self.proposer_life += 1;
        if wiped {
            self.reached_on_disk = Prefix::EMPTY;
            self.covered = Prefix::EMPTY;
            self.dead.extend(self.incarnation);
        }
    }
}

impl Ledger {
    pub(super) fn new() -> Ledger {
        Ledger {
            genesis: None,
            slots: Vec::new(),
            memories: BTreeMap::new(),
            nodes: BTreeMap::new(),
            promises: BTreeMap::new(),
            book: Book::blank(),
            told: Prefix::EMPTY,
        }
    }

    // -- what is known -----------------------------------------------------------------------------

    pub(super) fn genesis(&self) -> Option<&Genesis> {
        self.genesis.as_ref()
    }

    pub(super) fn book(&self) -> &Book {
        &self.book
    }

    pub(super) fn told_so_far(&self) -> Prefix {
        self.told
    }

    pub(super) fn node(&self, node: NodeId) -> Option<&Node> {
        self.nodes.get(&node)
    }

    pub(super) fn memory(&self, voter: VoterId) -> Option<&Memory> {
        self.memories.get(&voter)
    }

    fn facts(&self, slot: Slot) -> Option<&SlotFacts> {
        self.slots.get(usize::try_from(slot.0).ok()?)
    }

    /// Every proposal of `slot`, as they were issued.
    pub(super) fn proposals(&self, slot: Slot) -> &[Proposal] {
        self.facts(slot).map_or(&[], |facts| &facts.proposals)
    }

    /// What `ballot` proposed first in `slot`.
    pub(super) fn proposal(&self, slot: Slot, ballot: Ballot) -> Option<&Proposal> {
        self.proposals(slot).iter().find(|proposal| proposal.ballot == ballot)
    }

    /// What `slot` decided, if it has.
    pub(super) fn chosen(&self, slot: Slot) -> Option<&Proposal> {
        let facts = self.facts(slot)?;
        facts.chosen.map(|index| &facts.proposals[index])
    }

    /// The last slot in which anything was proposed.
    pub(super) fn last_slot(&self) -> Slot {
        Slot((self.slots.len() as u64).saturating_sub(1))
    }

    /// What `voter` accepted in `slot` with the highest ballot, of those below `limit` if there is one.
    pub(super) fn accepted(&self, voter: VoterId, slot: Slot, limit: Option<Ballot>) -> Option<&Proposal> {
        let below = |proposal: &&Proposal| limit.is_none_or(|limit| proposal.ballot < limit);
        let accepted = |proposal: &&Proposal| proposal.accepted.contains(&voter);
        self.proposals(slot).iter().filter(below).filter(accepted).max_by_key(|proposal| proposal.ballot)
    }

    /// The promises of `ballot` that reached its proposer.
    pub(super) fn reports(&self, ballot: Ballot) -> &[Report] {
        self.promises.get(&ballot).map_or(&[], Vec::as_slice)
    }

    // -- what happens ------------------------------------------------------------------------------

    pub(super) fn node_mut(&mut self, node: NodeId) -> &mut Node {
        self.nodes.entry(node).or_default()
    }

    fn facts_mut(&mut self, slot: Slot) -> &mut SlotFacts {
        let index = usize::try_from(slot.0).expect("judged to lie in the window");
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, SlotFacts::default);
        }
        &mut self.slots[index]
    }

    pub(super) fn formed(&mut self, node: NodeId, genesis: &Genesis, member: bool) {
        self.node_mut(node).is_member |= member;
        if self.genesis.is_none() {
            self.genesis = Some(genesis.clone());
            self.book = Book::genesis(genesis);
        }
    }

    pub(super) fn received(&mut self, node: NodeId, message: &Message) {
        if let Message::Promise { ballot, voter, from, until, trimmed, .. } = *message
            && ballot.node == node
        {
            self.promises.entry(ballot).or_default().push(Report { voter, from, until, trimmed });
        }
    }

    pub(super) fn issued(&mut self, ballot: Ballot, slot: Slot, value: &Value) {
        let value = value.clone();
        self.facts_mut(slot).proposals.push(Proposal { ballot, value, accepted: Vec::new(), chosen: false });
    }

    pub(super) fn answered_acceptance(&mut self, voter: VoterId, slot: Slot) {
        let memory = self.memories.entry(voter).or_default();
        memory.answered = memory.answered.max(Prefix::through(slot));
    }

    pub(super) fn told(&mut self, applied: Prefix) {
        self.told = self.told.max(applied);
    }

    /// A record is on disk, for good. Returns a proposal that is chosen from now on, if there is one.
    pub(super) fn persisted(&mut self, voter: VoterId, record: &Record) -> Option<(Slot, Ballot)> {
        let memory = self.memories.entry(voter).or_default();
        match record {
            Record::Promised { ballot } => {
                memory.standing = memory.standing.max(Some(*ballot));
                memory.promised.insert(*ballot);
                None
            }
            Record::Accepted { ballot, slot, value } => {
                memory.standing = memory.standing.max(Some(*ballot));
                self.accept(voter, *ballot, *slot, value).then_some((*slot, *ballot))
            }
            Record::Trimmed { upto } => {
                memory.trimmed = memory.trimmed.max(*upto);
                None
            }
            Record::Chosen(_) => None,
        }
    }

    /// True if that makes the proposal chosen.
    fn accept(&mut self, voter: VoterId, ballot: Ballot, slot: Slot, value: &Value) -> bool {
        if self.proposal(slot, ballot).is_none() {
            self.issued(ballot, slot, value);
        }
        let index = usize::try_from(slot.0).expect("looked at above");
        let SlotFacts { proposals, chosen } = &mut self.slots[index];
        let at = proposals.iter().position(|proposal| proposal.ballot == ballot).expect("looked at above");
        let proposal = &mut proposals[at];
        if !proposal.accepted.contains(&voter) {
            proposal.accepted.push(voter);
        }
        if proposal.chosen || !is_majority(self.book.voters(slot), proposal.accepted.iter().copied()) {
            return false;
        }
        proposal.chosen = true;
        chosen.get_or_insert(at);
        true
    }

    /// The book's next slot, if it is chosen.
    pub(super) fn turn_page(&mut self) -> Option<Page> {
        let facts = self.slots.get(usize::try_from(self.book.applied().next().0).ok()?)?;
        let value = &facts.proposals[facts.chosen?].value;
        Some(self.book.apply(value))
    }

    /// What a restored acceptor has on disk although nobody was told: it was written when something failed. In the
    /// order in which it may have been written.
    pub(super) fn news_of(&self, acceptor: &Acceptor) -> Vec<Record> {
        let voter = acceptor.id();
        let memory = self.memory(voter);
        let unknown = |ballot: Ballot, slot: Slot| {
            self.proposal(slot, ballot).is_none_or(|proposal| !proposal.accepted.contains(&voter))
        };
        let acceptances = acceptor.acceptances(acceptor.trimmed().next());
        let mut news: Vec<_> = acceptances.filter(|a| unknown(a.ballot, a.slot)).collect();
        news.sort_by_key(|acceptance| acceptance.ballot);
        let accepted =
            news.into_iter().map(|a| Record::Accepted { ballot: a.ballot, slot: a.slot, value: a.value });
        let standing = memory.and_then(|memory| memory.standing);
        let promised = acceptor.promised().filter(|&ballot| standing < Some(ballot));
        let trimmed = memory.map_or(Prefix::EMPTY, |memory| memory.trimmed);
        let trimmed = (acceptor.trimmed() > trimmed).then_some(Record::Trimmed { upto: acceptor.trimmed() });
        accepted
            .chain(promised.map(|ballot| Record::Promised { ballot }))
            .chain(trimmed)
            .chain(acceptor.chosen().map(Record::Chosen))
            .collect()
    }
}

/// Does this very memory vote?
pub(super) fn votes(voters: &Voters, voter: VoterId) -> bool {
    voters.get(&voter.node) == Some(&voter.incarnation)
}

/// Are more than half of `voters` among `those`, each of whom is named once?
pub(super) fn is_majority(voters: &Voters, those: impl Iterator<Item = VoterId>) -> bool {
    those.filter(|&voter| votes(voters, voter)).count() > voters.len() / 2
}

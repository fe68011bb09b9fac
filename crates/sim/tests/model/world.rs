//! A small world: who is in it, what may happen to it how often, and by which rules its machines are wired.
//!
//! Every number here bounds the search. `docs/model-checking.md` says why each is enough, or for what not.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use synod_paxos::membership::{Change, Genesis, Member};
use synod_paxos::proposer;
use synod_paxos::types::{
    Ballot, ClusterId, CommandId, Generation, Incarnation, NodeId, Sequence, Slot, Time, VoterId, Window,
};
use synod_paxos::value::{Action, Command};

/// The only moment of these worlds. Timers are steps, so that no two states differ by a clock.
pub(crate) const NOW: Time = Time(0);

/// How many records an acceptor may have written and not synced.
pub(crate) const GROUP_MAX: usize = 2;

/// Rules that nobody may follow. Each shows that the checker can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// An acceptor's promises are not in what it restarts from (PMS-16).
    PromiseForgotten,
    /// An acceptor's answer leaves before its record is on disk (PMS-27).
    AnswerBeforeDisk,
    /// Of what the promises tell, the greatest value is taken, not that of the highest ballot (PMS-10).
    HighestValue,
    /// A proposer's new life uses the ballots of the old one (PMS-28).
    BallotReused,
    /// Acceptances of one value count together, whatever their ballots (PMS-8).
    BallotsCountedTogether,
    /// A learner takes any proposal on any word that covers its slot (PMS-3).
    AnyProposalBelieved,
    /// A memory that was lost comes back under its old name (rule R1).
    IdentityKept,
    /// The newest voters are counted, also in slots that are older than them (rule R2).
    NewestVotersCounted,
}

/// What may happen, and how often.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// The founders, all of them voters: nodes 1 to this.
    pub(crate) voters: u64,
    /// A member that only learns, if there is one: the node behind the voters.
    pub(crate) learner: bool,
    /// The window.
    pub(crate) window: u64,
    /// The length of the log: what is proposed behind it is lost.
    pub(crate) slots: u64,
    /// How many slots a replica may apply.
    pub(crate) applied: usize,
    /// How many ballots each proposer may begin; the first is node 1's.
    pub(crate) ballots: Vec<u8>,
    /// How often an acceptor may crash and lose what it has not synced.
    pub(crate) crashes: u8,
    /// May the last voter's acceptor lose its memory, once?
    pub(crate) wipe: bool,
    /// The change of members that one proposer is asked for whenever it begins to lead.
    pub(crate) change: Option<Change>,
    /// That proposer.
    pub(crate) change_by: NodeId,
    /// The rule that is broken, if one is.
    pub(crate) wrong: Option<Wrong>,
}

impl World {
    /// Three acceptors, two proposers with one ballot each, two slots that are open at once.
    pub(crate) fn small() -> World {
        World {
            voters: 3,
            learner: false,
            window: 2,
            slots: 2,
            applied: 0,
            ballots: vec![1, 1],
            crashes: 0,
            wipe: false,
            change: None,
            change_by: NodeId(1),
            wrong: None,
        }
    }

    /// The last voter: the one that forgets, or is removed.
    pub(crate) fn last(&self) -> NodeId {
        NodeId(self.voters)
    }

    /// The first name of a node's acceptor.
    pub(crate) fn voter(&self, node: NodeId) -> VoterId {
        VoterId { node, incarnation: Incarnation(u128::from(node.0)) }
    }

    /// The name under which a node's acceptor comes back without memory.
    pub(crate) fn reborn(&self, node: NodeId) -> VoterId {
        match self.wrong {
            Some(Wrong::IdentityKept) => self.voter(node),
            _ => VoterId { node, incarnation: Incarnation(u128::from(node.0) * 10) },
        }
    }

    /// What lets the acceptor that came back vote in place of the one that forgot (rule R4).
    pub(crate) fn readmission(&self) -> Change {
        let (old, new) = (self.voter(self.last()), self.reborn(self.last()));
        Change::Replace { node: self.last(), old: Some(old.incarnation), new: new.incarnation }
    }

    /// What lets the member that only learned vote.
    pub(crate) fn admission(&self) -> Change {
        let node = NodeId(self.voters + 1);
        Change::Replace { node, old: None, new: self.voter(node).incarnation }
    }

    /// The acceptor that may vote later and does not at first, if there is one.
    pub(crate) fn newcomer(&self) -> Option<VoterId> {
        match self.change {
            Some(Change::Replace { node, new, .. }) => Some(VoterId { node, incarnation: new }),
            _ => None,
        }
    }

    /// Everybody who hears what a leader says.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        (1..=self.voters + u64::from(self.learner)).map(NodeId)
    }

    /// What the founders agreed on.
    pub(crate) fn genesis(&self) -> Genesis {
        let member = |node: NodeId| Member {
            peer_urls: vec![node.to_string()],
            voter: (node.0 <= self.voters).then(|| self.voter(node).incarnation),
            ..Member::default()
        };
        let members: BTreeMap<NodeId, Member> = self.nodes().map(|node| (node, member(node))).collect();
        Genesis { cluster: ClusterId(1), window: Window::new(self.window), members }
    }

    /// One command to a batch, and never a reason to wait.
    pub(crate) fn pipeline(&self) -> proposer::Options {
        // A batch is one command, and as many may be under way as there are slots, whatever their bytes.
        proposer::Options {
            depth: 1 << 20,
            batch_bytes: 1,
            queue_bytes: 1 << 20,
            retry: Duration::from_secs(1),
            hedge: None, // that somebody hears nothing is among what the network may do
        }
    }

    /// The commands that wait when a leader begins: its own, which no other ballot has, and before them the
    /// change, if it is given that. Their order as values is not that of the ballots.
    pub(crate) fn commands(&self, ballot: Ballot, begun: u8, change: bool) -> Vec<Command> {
        let own = (1..=self.slots).map(|sequence| Command {
            id: CommandId {
                origin: NodeId(100 - ballot.node.0),
                generation: Generation(u64::from(begun)),
                sequence: Sequence(sequence),
            },
            waiting_from: Sequence::FIRST,
            action: Action::App(Bytes::new()),
        });
        let change = self.change.clone().filter(|_| change).map(|change| Command {
            id: CommandId { origin: self.last(), generation: Generation(1), sequence: Sequence::FIRST },
            waiting_from: Sequence::FIRST,
            action: Action::Reconfigure(change),
        });
        change.into_iter().chain(own).collect()
    }

    /// All slots.
    pub(crate) fn log(&self) -> impl Iterator<Item = Slot> {
        (1..=self.slots).map(Slot)
    }
}

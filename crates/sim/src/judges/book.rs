//! The book: the log as chosen, applied slot after slot by whoever knows it.
//!
//! The store is the production one, because its own tests hold it against a model. Everything around it is
//! written down here once more, and differently from production: who belongs to the cluster, who votes in which
//! slot (PMS-39), and which commands were applied before (PMS-30). Memory is no concern, so nothing is forgotten.

use super::Voters;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use synod_kv::{Request, StateHash, Store};
use synod_paxos::membership::{Change, Genesis, Member};
use synod_paxos::types::{CommandId, Generation, NodeId, Prefix, Sequence, Slot, VoterId};
use synod_paxos::value::{Action, Command, Value};
use synod_server::replica::Answer;

type Members = BTreeMap<NodeId, Member>;

/// See the module.
pub(super) struct Book {
    window: u64,
    applied: Prefix,
    /// The members from behind a prefix on, until the next entry.
    members: BTreeMap<Prefix, Members>,
    removed: BTreeSet<NodeId>,
    /// The voters from a slot on, until the next entry.
    voters: BTreeMap<Slot, Voters>,
    sessions: BTreeMap<NodeId, (Generation, BTreeSet<Sequence>)>,
    store: Store,
    /// Behind each prefix.
    hashes: Vec<StateHash>,
    outcomes: HashMap<Bytes, Outcome>,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) slot: Slot,
    pub(super) name: CommandId,
    pub(super) answer: Answer,
}

/// What one slot meant.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) slot: Slot,
    pub(super) deeds: Vec<Deed>,
    /// Why the value, or the rest of it, cannot be read.
    pub(super) unreadable: Option<String>,
}

/// What one command of a slot meant.
#[derive(Debug)]
pub(super) enum Deed {
    /// A request took effect.
    Applied,
    /// The store refused a request.
    Refused,
    /// A request took effect that had taken effect before, under another name.
    AppliedAgain { name: CommandId, before: Outcome },
    /// A change of the cluster, and whether it did anything.
    Changed { change: Change, changed: bool },
    /// The command was chosen before and does nothing.
    Repeated,
    /// The command is of an older life of its front than one that was heard, and does nothing.
    Stale,
}

impl Book {
    /// Before there is a cluster: nobody votes, and no slot is open.
    pub(super) fn blank() -> Book {
        Book {
            window: 0,
            applied: Prefix::EMPTY,
            members: BTreeMap::from([(Prefix::EMPTY, Members::new())]),
            removed: BTreeSet::new(),
            voters: BTreeMap::from([(Slot(0), Voters::new())]),
            sessions: BTreeMap::new(),
            store: Store::new(),
            hashes: vec![Store::new().state_hash()],
            outcomes: HashMap::new(),
        }
    }

    /// As the founders agreed.
    pub(super) fn genesis(genesis: &Genesis) -> Book {
        Book {
            window: genesis.window.slots(),
            members: BTreeMap::from([(Prefix::EMPTY, genesis.members.clone())]),
            voters: BTreeMap::from([(Slot(0), voters_of(&genesis.members))]),
            ..Book::blank()
        }
    }

    pub(super) fn applied(&self) -> Prefix {
        self.applied
    }

    pub(super) fn horizon(&self) -> Slot {
        Slot(self.applied.0 + self.window)
    }

    /// The last slot whose voters are determined by `applied`.
    pub(super) fn horizon_behind(&self, applied: Prefix) -> Slot {
        Slot(applied.0 + self.window)
    }

    pub(super) fn members(&self) -> &Members {
        self.members.last_key_value().expect("genesis names the first").1
    }

    /// The members behind `applied`.
    pub(super) fn members_behind(&self, applied: Prefix) -> &Members {
        self.members.range(..=applied).next_back().expect("genesis names the first").1
    }

    pub(super) fn was_removed(&self, node: NodeId) -> bool {
        self.removed.contains(&node)
    }

    pub(super) fn voters(&self, slot: Slot) -> &Voters {
        self.voters.range(..=slot).next_back().expect("genesis names the first").1
    }

    /// From which slot on `voter` votes without a break up to `slot`; none if it does not vote there.
    pub(super) fn votes_since(&self, voter: VoterId, slot: Slot) -> Option<Slot> {
        let lists = |voters: &Voters| voters.get(&voter.node) == Some(&voter.incarnation);
        let back = self.voters.range(..=slot).rev();
        back.take_while(|(_, voters)| lists(voters)).last().map(|(&first, _)| first)
    }

    /// Do the same voters vote in all slots from `first` to `last`?
    pub(super) fn is_settled(&self, first: Slot, last: Slot) -> bool {
        self.voters.range(first.next()..=last.max(first.next())).all(|(&slot, _)| slot > last)
    }

    /// The store's hash behind `applied`, if the log is chosen that far.
    pub(super) fn hash(&self, applied: Prefix) -> Option<StateHash> {
        self.hashes.get(usize::try_from(applied.0).ok()?).copied()
    }

    pub(super) fn outcome(&self, request: &Bytes) -> Option<&Outcome> {
        self.outcomes.get(request)
    }

    /// Applies the next slot.
    pub(super) fn apply(&mut self, value: &Value) -> Page {
        let slot = self.applied.next();
        let (deeds, unreadable) = match value.commands() {
            Ok(commands) => self.carry_out(slot, commands),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        self.applied = Prefix::through(slot);
        self.hashes.push(self.store.state_hash());
        Page { slot, deeds, unreadable }
    }

    fn carry_out(&mut self, slot: Slot, commands: Vec<Command>) -> (Vec<Deed>, Option<String>) {
        let mut deeds = Vec::with_capacity(commands.len());
        for Command { id, action, .. } in commands {
            let session = self.sessions.entry(id.origin).or_insert((id.generation, BTreeSet::new()));
            if id.generation > session.0 {
                *session = (id.generation, BTreeSet::new());
            }
            let deed = if id.generation < session.0 {
                Deed::Stale
            } else if !session.1.insert(id.sequence) {
                Deed::Repeated
            } else {
                match action {
                    Action::App(payload) => match Request::decode(payload.clone()) {
                        Ok(request) => self.request(slot, id, payload, &request),
                        Err(error) => return (deeds, Some(error.to_string())),
                    },
                    Action::Reconfigure(change) => {
                        let changed = self.change(slot, &change);
                        Deed::Changed { change, changed }
                    }
                }
            };
            deeds.push(deed);
        }
        (deeds, None)
    }

    fn request(&mut self, slot: Slot, name: CommandId, payload: Bytes, request: &Request) -> Deed {
        let answer = Answer::Store(self.store.apply(request).expect("all of it is in memory"));
        let refused = matches!(answer, Answer::Store(Err(_)));
        match self.outcomes.insert(payload, Outcome { slot, name, answer }) {
            None if refused => Deed::Refused,
            None => Deed::Applied,
            Some(before) => Deed::AppliedAgain { name, before },
        }
    }

    /// Every condition in words of its own: a change that comes late or twice does nothing (R4).
    fn change(&mut self, slot: Slot, change: &Change) -> bool {
        let mut members = self.members().clone();
        match change {
            Change::Replace { node, old, new } => {
                let Some(member) = members.get_mut(node).filter(|member| member.voter == *old) else {
                    return false;
                };
                member.voter = Some(*new);
            }
            Change::Add { node, peer_urls } => {
                let known = members.values().flat_map(|member| &member.peer_urls);
                let known: BTreeSet<&String> = known.collect();
                if members.contains_key(node) || peer_urls.iter().any(|url| known.contains(url)) {
                    return false;
                }
                members.insert(*node, Member { peer_urls: peer_urls.clone(), ..Member::default() });
            }
            Change::Remove { node } => {
                let voters = voters_of(&members);
                if voters.contains_key(node) && voters.len() == 1 {
                    return false; // the last voter stays
                }
                members.remove(node);
            }
            Change::Publish { node, name, client_urls } => {
                if let Some(member) = members.get_mut(node) {
                    member.name.clone_from(name);
                    member.client_urls.clone_from(client_urls);
                }
            }
        }
        if members == *self.members() {
            return false;
        }
        if let Change::Remove { node } = change {
            self.removed.insert(*node);
        }
        let (before, after) = (voters_of(self.members()), voters_of(&members));
        if before != after {
            self.voters.insert(Slot(slot.0 + self.window), after);
        }
        self.members.insert(Prefix::through(slot), members);
        true
    }
}

fn voters_of(members: &Members) -> Voters {
    members.iter().filter_map(|(&node, member)| Some((node, member.voter?))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use proptest::prelude::*;
    use synod_paxos::membership::Membership;
    use synod_paxos::types::Incarnation;

    fn any_change() -> impl Strategy<Value = Change> {
        let node = (1..=4u64).prop_map(NodeId);
        let old = proptest::option::of((1..=5u128).prop_map(Incarnation));
        let new = (1..=5u128).prop_map(Incarnation);
        let url = |n: NodeId| vec![format!("http://h{n}")];
        prop_oneof![
            (node.clone(), old, new).prop_map(|(node, old, new)| Change::Replace { node, old, new }),
            // Of its own address, or of another's.
            (node.clone(), node.clone())
                .prop_map(move |(node, there)| Change::Add { node, peer_urls: url(there) }),
            node.clone().prop_map(|node| Change::Remove { node }),
            (node, "[ab]").prop_map(|(node, name)| Change::Publish { node, name, client_urls: Vec::new() }),
        ]
    }

    proptest! {
        /// Two ways to write the same rules down: where they differ, one of them is wrong.
        #[test]
        fn the_book_and_production_agree_on_every_change(
            changes in proptest::collection::vec(any_change(), 1..40)
        ) {
            let genesis = testing::genesis();
            let mut book = Book::genesis(&genesis);
            let mut membership = Membership::genesis(&genesis);
            for (slot, change) in (1..).map(Slot).zip(changes) {
                let page = book.apply(&testing::change(slot.0, change.clone()));
                let did = membership.apply(slot, &change);
                membership.advance(slot);
                let agreed = matches!(page.deeds[..], [Deed::Changed { changed, .. }] if changed == did);
                prop_assert!(agreed, "{change:?}: production {did}, {page:?}");
                prop_assert_eq!(book.members(), membership.members());
                for open in (slot.next().0..=book.horizon().0).map(Slot) {
                    let voters = membership.configurations().at(open).expect("inside the window").voters();
                    let voters: Voters = voters.map(|voter| (voter.node, voter.incarnation)).collect();
                    prop_assert_eq!(book.voters(open), &voters);
                }
            }
        }
    }

    #[test]
    fn a_voter_that_comes_back_votes_since_then() {
        let genesis = testing::genesis();
        let window = genesis.window.slots();
        let (&node, member) = genesis.members.first_key_value().expect("there are founders");
        let voter = VoterId { node, incarnation: member.voter.expect("founders vote") };
        let mut book = Book::genesis(&genesis);
        assert_eq!(book.votes_since(voter, Slot(1)), Some(Slot(0)));
        let other = Incarnation(99);
        let replace = |old, new| Change::Replace { node, old: Some(old), new };
        book.apply(&testing::change(1, replace(voter.incarnation, other)));
        book.apply(&testing::change(2, replace(other, voter.incarnation)));
        let (gone, back) = (Slot(1 + window), Slot(2 + window));
        assert_eq!(book.votes_since(voter, Slot(gone.0 - 1)), Some(Slot(0)));
        assert_eq!(book.votes_since(voter, gone), None);
        assert_eq!(book.votes_since(VoterId { node, incarnation: other }, gone), Some(gone));
        assert_eq!(book.votes_since(voter, back.next()), Some(back));
    }
}

//! Who votes, slot by slot.
//!
//! The configuration of a slot is the one in force after *applying* the slot a window below it ("Paxos
//! Made Simple", section 3; PMS-39). Changes are ordinary commands in the log, so every replica derives the
//! same configuration for the same slot, and for any slot there is exactly one, for ever.
//!
//! ```text
//!   slot       1   2   3   4   5   6   7        window 3
//!   applied    .   .   c                        c replaces a voter
//!   voters     a   a   a   a   a   b   b        in force from slot 3 + 3
//! ```
//!
//! Voters are `(node, incarnation)` pairs. An acceptor that lost its memory does not rejoin: another one,
//! with a fresh incarnation, replaces it, on the condition that the old pair still votes (rule R4), so
//! that a late or repeated change does nothing.

use crate::mutants::{Mutant, is};
use crate::types::{ClusterId, Incarnation, NodeId, Prefix, Slot, VoterId, Window};
use crate::wire::{DecodeError, Reader, Writer};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The voters of one slot. Cheap to clone: every proposal under way has its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Configuration {
    voters: Arc<BTreeMap<NodeId, Incarnation>>,
}

impl Configuration {
    /// A configuration of these voters.
    pub fn new(voters: impl IntoIterator<Item = VoterId>) -> Configuration {
        Configuration { voters: Arc::new(voters.into_iter().map(|v| (v.node, v.incarnation)).collect()) }
    }

    /// How many acceptors make a majority: any two majorities share one (PMS-5).
    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// Does this very memory vote? A node whose acceptor forgot is not in, under its new name, until the
    /// log says so (rule R2).
    pub fn contains(&self, voter: VoterId) -> bool {
        if is(Mutant::AmnesiacVotes) {
            return self.voters.contains_key(&voter.node);
        }
        self.voters.get(&voter.node) == Some(&voter.incarnation)
    }

    /// Is there a majority among `voters`? Others among them do not count, and none counts twice, because
    /// a set cannot hold it twice.
    pub fn has_majority(&self, voters: &BTreeSet<VoterId>) -> bool {
        voters.iter().filter(|voter| self.contains(**voter)).count() >= self.majority()
    }

    /// The voters in order of their nodes.
    pub fn voters(&self) -> impl Iterator<Item = VoterId> + '_ {
        self.voters.iter().map(|(&node, &incarnation)| VoterId { node, incarnation })
    }

    /// The incarnation under which `node` votes, if it does.
    pub fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        self.voters.get(&node).copied()
    }

    /// The number of voters.
    pub fn len(&self) -> usize {
        self.voters.len()
    }

    /// Has it no voter? Only before anything is known.
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty()
    }
}

/// One server of the cluster, as the log describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The name its operator gave it.
    pub name: String,
    /// Where the other servers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has said so itself.
    pub client_urls: Vec<String>,
    /// The memory that votes for it, or none while it only learns.
    pub voter: Option<Incarnation>,
}

/// What the founders agreed on before the first slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// Derived from the rest.
    pub cluster: ClusterId,
    /// The window, for ever.
    pub window: Window,
    /// The founders.
    pub members: BTreeMap<NodeId, Member>,
}

/// A change of the cluster, as a command of the log. Each is conditional, so that it does nothing when it
/// comes twice or too late.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// "Let (node, new) vote for node if what votes for it now is `old`" (rule R4). With `old` none: admit
    /// a member that only learned so far.
    Replace {
        /// The member concerned.
        node: NodeId,
        /// What votes for it now.
        old: Option<Incarnation>,
        /// What shall vote for it.
        new: Incarnation,
    },
    /// Add a member that learns but does not vote yet, unless the node or its peer URL is known.
    Add {
        /// The new node.
        node: NodeId,
        /// Where the others reach it.
        peer_urls: Vec<String>,
    },
    /// Remove a member, unless it is the last voter.
    Remove {
        /// The node that goes.
        node: NodeId,
    },
    /// A member tells its name and where clients reach it (etcd: the attributes a member publishes).
    Publish {
        /// The member that speaks.
        node: NodeId,
        /// Its name.
        name: String,
        /// Where clients reach it.
        client_urls: Vec<String>,
    },
}

impl Change {
    const FORMAT_REPLACE: u8 = 0;
    const FORMAT_ADD: u8 = 1;
    const FORMAT_REMOVE: u8 = 2;
    const FORMAT_PUBLISH: u8 = 3;

    pub(crate) fn encode(&self, out: &mut Writer) {
        match self {
            Change::Replace { node, old, new } => {
                out.u8(Self::FORMAT_REPLACE);
                out.u64(node.0);
                encode_incarnation(*old, out);
                out.u128(new.0);
            }
            Change::Add { node, peer_urls } => {
                out.u8(Self::FORMAT_ADD);
                out.u64(node.0);
                out.texts(peer_urls);
            }
            Change::Remove { node } => {
                out.u8(Self::FORMAT_REMOVE);
                out.u64(node.0);
            }
            Change::Publish { node, name, client_urls } => {
                out.u8(Self::FORMAT_PUBLISH);
                out.u64(node.0);
                out.bytes(name.as_bytes());
                out.texts(client_urls);
            }
        }
    }

    pub(crate) fn decode(input: &mut Reader) -> Result<Change, DecodeError> {
        let tag = input.u8()?;
        let node = NodeId(input.u64()?);
        Ok(match tag {
            Self::FORMAT_REPLACE => {
                let old = decode_incarnation(input)?;
                Change::Replace { node, old, new: Incarnation(input.u128()?) }
            }
            Self::FORMAT_ADD => Change::Add { node, peer_urls: input.texts()? },
            Self::FORMAT_REMOVE => Change::Remove { node },
            Self::FORMAT_PUBLISH => {
                Change::Publish { node, name: input.text()?, client_urls: input.texts()? }
            }
            tag => return Err(DecodeError::Unknown { what: "change of the cluster", tag }),
        })
    }
}

fn encode_incarnation(incarnation: Option<Incarnation>, out: &mut Writer) {
    out.u8(u8::from(incarnation.is_some()));
    if let Some(incarnation) = incarnation {
        out.u128(incarnation.0);
    }
}

fn decode_incarnation(input: &mut Reader) -> Result<Option<Incarnation>, DecodeError> {
    match input.u8()? {
        0 => Ok(None),
        1 => Ok(Some(Incarnation(input.u128()?))),
        tag => Err(DecodeError::Unknown { what: "optional incarnation", tag }),
    }
}

/// The configurations of the slots from some point on, as far as they are determined: up to a window
/// beyond what was applied. What a proposer and a reader need to know of the membership. Cheap to clone: they
/// are told with every batch that is applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Configurations {
    window: Window,
    applied: Prefix,
    /// The configuration in force from a slot until the next entry.
    from: Arc<BTreeMap<Slot, Configuration>>,
}

impl Configurations {
    /// One configuration from the first slot on, nothing applied.
    pub fn genesis(window: Window, configuration: Configuration) -> Configurations {
        Configurations {
            window,
            applied: Prefix::EMPTY,
            from: Arc::new(BTreeMap::from([(Slot::FIRST, configuration)])),
        }
    }

    /// The window of this cluster.
    pub fn window(&self) -> Window {
        self.window
    }

    /// How far the log is applied here; slots up to a window beyond it have a configuration.
    pub fn applied(&self) -> Prefix {
        self.applied
    }

    /// Who votes in `slot`; none while that is not determined yet, or no longer remembered.
    pub fn at(&self, slot: Slot) -> Option<&Configuration> {
        if slot > self.window.last_open(self.applied) {
            return None; // a change that is still to be applied may decide it
        }
        self.from.range(..=slot).next_back().map(|(_, configuration)| configuration)
    }

    /// Who voted in the last applied slot: a configuration that has decided something. A newcomer that is
    /// listed later still has a predecessor that is needed because a majority of the old set may be all that remembers the slots in between.
    pub fn proven(&self) -> Option<&Configuration> {
        self.at(Slot(self.applied.0.max(Slot::FIRST.0)))
    }

    /// Who votes in the last slot that is determined: where changes lead.
    pub fn newest(&self) -> &Configuration {
        self.from.last_key_value().map(|(_, configuration)| configuration).expect("never empty")
    }

    /// The different configurations of the slots from `slot` on, oldest first.
    pub fn from(&self, slot: Slot) -> impl Iterator<Item = &Configuration> {
        let first = self.from.range(..=slot).next_back().map_or(slot, |(&from, _)| from);
        self.from.range(first..).map(|(_, configuration)| configuration)
    }

    /// The slot from which on the last configuration is in force.
    pub fn newest_from(&self) -> Slot {
        *self.from.last_key_value().expect("never empty").0
    }

    /// The slot from which on the voters of `slot` are in force; none where [`Configurations::at`] has none.
    pub fn since(&self, slot: Slot) -> Option<Slot> {
        self.at(slot)?;
        self.from.range(..=slot).next_back().map(|(&from, _)| from)
    }

    /// Notes that everything in `applied` is applied, and forgets what no slot from the last of it on needs.
    pub(crate) fn advance(&mut self, applied: Prefix) {
        self.applied = self.applied.max(applied);
        let last = Slot(self.applied.0.max(Slot::FIRST.0));
        let current = self.from.range(..=last).next_back().map(|(&from, _)| from);
        if let Some(current) = current.filter(|&current| self.from.range(..current).next().is_some()) {
            self.from = Arc::new(self.from.range(current..).map(|(&from, c)| (from, c.clone())).collect());
        }
    }
}

/// What the log has made of the cluster so far: replicated state, the same on every replica that applied
/// the same prefix. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    cluster: ClusterId,
    members: Arc<BTreeMap<NodeId, Member>>,
    configurations: Configurations,
}

impl Membership {
    const FORMAT: u8 = 1;

    /// The founders, before the first slot.
    pub fn genesis(genesis: &Genesis) -> Membership {
        let configuration = voters_of(&genesis.members);
        Membership {
            cluster: genesis.cluster,
            members: Arc::new(genesis.members.clone()),
            configurations: Configurations::genesis(genesis.window, configuration),
        }
    }

    /// The cluster whose log this is.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The members after what is applied.
    pub fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    /// Who votes where.
    pub fn configurations(&self) -> &Configurations {
        &self.configurations
    }

    /// Applies `change`, chosen in `slot`. True if it did anything; a change whose condition does not hold
    /// does nothing, on every replica alike.
    pub fn apply(&mut self, slot: Slot, change: &Change) -> bool {
        let before = voters_of(&self.members);
        let members = Arc::make_mut(&mut self.members);
        let changed = match change {
            Change::Replace { node, old, new } => match members.get_mut(node) {
                Some(member)
                    if (member.voter == *old || is(Mutant::ReplacesAnybody))
                        && member.voter != Some(*new) =>
                {
                    member.voter = Some(*new);
                    true
                }
                _ => false,
            },
            Change::Add { node, peer_urls } => {
                let taken = |m: &Member| m.peer_urls.iter().any(|url| peer_urls.contains(url));
                if members.contains_key(node) || members.values().any(taken) {
                    false
                } else {
                    members.insert(*node, Member { peer_urls: peer_urls.clone(), ..Member::default() });
                    true
                }
            }
            Change::Remove { node } => {
                let last = before.len() == 1 && before.incarnation(*node).is_some();
                !last && members.remove(node).is_some()
            }
            Change::Publish { node, name, client_urls } => match members.get_mut(node) {
                Some(member) if member.name != *name || member.client_urls != *client_urls => {
                    member.name.clone_from(name);
                    member.client_urls.clone_from(client_urls);
                    true
                }
                _ => false,
            },
        };
        let after = voters_of(&self.members);
        if after != before {
            let window = if is(Mutant::ChangesAtOnce) { 1 } else { self.configurations.window.slots() };
            let from = Slot(slot.0 + window);
            Arc::make_mut(&mut self.configurations.from).insert(from, after);
        }
        changed
    }

    /// Notes that `slot` is applied, changes and all.
    pub fn advance(&mut self, slot: Slot) {
        self.configurations.advance(Prefix::through(slot));
    }

    /// The replicated form, for a checkpoint.
    pub fn encode(&self, out: &mut Writer) {
        out.u8(Self::FORMAT);
        out.u128(self.cluster.0);
        encode_members(&self.members, out);
        out.u64(self.configurations.window.slots());
        out.u64(self.configurations.applied.0);
        out.u32(u32::try_from(self.configurations.from.len()).expect("few configurations overlap"));
        for (slot, configuration) in self.configurations.from.iter() {
            out.u64(slot.0);
            out.u32(u32::try_from(configuration.len()).expect("few voters"));
            for voter in configuration.voters() {
                out.u64(voter.node.0);
                out.u128(voter.incarnation.0);
            }
        }
    }

    /// Reads what [`Membership::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not that.
    pub fn decode(input: &mut Reader) -> Result<Membership, DecodeError> {
        input.format(Self::FORMAT)?;
        let cluster = ClusterId(input.u128()?);
        let members = Arc::new(decode_members(input)?);
        let window = Window::new(input.number("window", 1)?);
        let applied = Prefix(input.number("last slot", 0)?);
        let mut from = BTreeMap::new();
        for _ in 0..input.count(12)? {
            let slot = Slot(input.u64()?);
            // The furthest that the slot being applied can have determined.
            if !(Slot::FIRST..=window.last_open(applied).next()).contains(&slot) {
                return Err(DecodeError::OutOfRange { what: "slot of a configuration", value: slot.0 });
            }
            let mut voters = Vec::new();
            for _ in 0..input.count(24)? {
                let node = NodeId(input.u64()?);
                voters.push(VoterId { node, incarnation: Incarnation(input.u128()?) });
            }
            from.insert(slot, Configuration::new(voters));
        }
        if from.is_empty() {
            return Err(DecodeError::Truncated);
        }
        let from = Arc::new(from);
        Ok(Membership { cluster, members, configurations: Configurations { window, applied, from } })
    }
}

impl Genesis {
    const FORMAT: u8 = 1;

    /// The form that founders keep and newcomers are given.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.u8(Self::FORMAT);
        out.u128(self.cluster.0);
        out.u64(self.window.slots());
        encode_members(&self.members, &mut out);
        out.finish()
    }

    /// Reads what [`Genesis::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not that.
    pub fn decode(bytes: Bytes) -> Result<Genesis, DecodeError> {
        let mut input = Reader::new(bytes);
        input.format(Self::FORMAT)?;
        let cluster = ClusterId(input.u128()?);
        let window = Window::new(input.number("window", 1)?);
        let members = decode_members(&mut input)?;
        input.end()?;
        Ok(Genesis { cluster, window, members })
    }
}

fn voters_of(members: &BTreeMap<NodeId, Member>) -> Configuration {
    Configuration::new(
        members.iter().filter_map(|(&node, m)| m.voter.map(|incarnation| VoterId { node, incarnation })),
    )
}

fn encode_members(members: &BTreeMap<NodeId, Member>, out: &mut Writer) {
    out.u32(u32::try_from(members.len()).expect("few members"));
    for (node, member) in members {
        out.u64(node.0);
        out.bytes(member.name.as_bytes());
        out.texts(&member.peer_urls);
        out.texts(&member.client_urls);
        encode_incarnation(member.voter, out);
    }
}

fn decode_members(input: &mut Reader) -> Result<BTreeMap<NodeId, Member>, DecodeError> {
    let count = input.count(8)?;
    let mut members = BTreeMap::new();
    for _ in 0..count {
        let node = NodeId(input.u64()?);
        let member = Member {
            name: input.text()?,
            peer_urls: input.texts()?,
            client_urls: input.texts()?,
            voter: decode_incarnation(input)?,
        };
        members.insert(node, member);
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MAX_NUMBER;

    fn genesis(nodes: u64, window: u64) -> Genesis {
        let member = |n: u64| Member {
            name: format!("n{n}"),
            peer_urls: vec![format!("http://h{n}")],
            voter: Some(Incarnation(u128::from(n))),
            ..Member::default()
        };
        Genesis {
            cluster: ClusterId(7),
            window: Window::new(window),
            members: (1..=nodes).map(|n| (NodeId(n), member(n))).collect(),
        }
    }

    #[test]
    fn numbers_that_cannot_be_counted_on_from_are_not_read() {
        let reread = |membership: &Membership| {
            let mut out = Writer::default();
            membership.encode(&mut out);
            Membership::decode(&mut Reader::new(out.finish()))
        };
        let mut endless = Membership::genesis(&genesis(3, 4));
        endless.configurations.applied = Prefix(u64::MAX);
        let error = DecodeError::OutOfRange { what: "last slot", value: u64::MAX };
        assert_eq!(reread(&endless), Err(error));
        let mut far = Membership::genesis(&genesis(3, MAX_NUMBER));
        assert!(far.apply(Slot(1), &Change::Remove { node: NodeId(3) }));
        assert_eq!(reread(&far), Ok(far.clone()), "the last slot that is determined");
        Arc::make_mut(&mut far.configurations.from).insert(Slot(MAX_NUMBER + 2), voters_of(&far.members));
        let error = DecodeError::OutOfRange { what: "slot of a configuration", value: MAX_NUMBER + 2 };
        assert_eq!(reread(&far), Err(error));
        let error = Genesis::decode(genesis(3, u64::MAX).encode()).unwrap_err();
        assert_eq!(error, DecodeError::OutOfRange { what: "window", value: u64::MAX });
    }

    fn voter(node: u64, incarnation: u128) -> VoterId {
        VoterId { node: NodeId(node), incarnation: Incarnation(incarnation) }
    }

    #[test]
    fn pms_05_any_two_majorities_share_a_member() {
        for size in 1..=7u64 {
            let all: Vec<VoterId> = (1..=size).map(|n| voter(n, 0)).collect();
            let configuration = Configuration::new(all.clone());
            let sets: Vec<BTreeSet<VoterId>> = (0u32..1 << size)
                .map(|bits| {
                    all.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, v)| *v).collect()
                })
                .filter(|set| configuration.has_majority(set))
                .collect();
            assert!(sets.iter().all(|a| sets.iter().all(|b| a.intersection(b).next().is_some())), "{size}");
        }
    }

    #[test]
    fn pms_05_strangers_and_dead_incarnations_do_not_count() {
        let configuration = Configuration::new([voter(1, 1), voter(2, 2), voter(3, 3)]);
        assert!(!configuration.has_majority(&[voter(1, 1), voter(2, 9), voter(4, 4)].into()));
        assert!(configuration.has_majority(&[voter(1, 1), voter(3, 3)].into()));
    }

    #[test]
    fn pms_39_a_change_comes_into_force_a_window_later() {
        let mut membership = Membership::genesis(&genesis(3, 4));
        let change = Change::Replace { node: NodeId(3), old: Some(Incarnation(3)), new: Incarnation(30) };
        assert!(membership.apply(Slot(1), &change));
        membership.advance(Slot(1));
        let configurations = membership.configurations();
        assert!(configurations.at(Slot(4)).unwrap().contains(voter(3, 3)));
        assert!(configurations.at(Slot(5)).unwrap().contains(voter(3, 30)));
        assert_eq!(configurations.at(Slot(6)), None, "slot 2 may still decide it");
    }

    #[test]
    fn r4_a_replacement_needs_its_predecessor() {
        let mut membership = Membership::genesis(&genesis(3, 4));
        let to = |old: u128, new| Change::Replace {
            node: NodeId(3),
            old: Some(Incarnation(old)),
            new: Incarnation(new),
        };
        assert!(membership.apply(Slot(1), &to(3, 30)));
        assert!(!membership.apply(Slot(2), &to(3, 31)), "3 votes no more");
        assert!(membership.apply(Slot(3), &to(30, 31)));
        assert!(!membership.apply(Slot(4), &Change::Remove { node: NodeId(9) }));
    }

    #[test]
    fn the_last_voter_stays() {
        let mut membership = Membership::genesis(&genesis(1, 4));
        assert!(!membership.apply(Slot(1), &Change::Remove { node: NodeId(1) }));
    }

    #[test]
    fn membership_and_genesis_survive_their_encoding() {
        let genesis = genesis(5, 8);
        assert_eq!(Genesis::decode(genesis.encode()).unwrap(), genesis);
        let mut membership = Membership::genesis(&genesis);
        membership.apply(Slot(1), &Change::Add { node: NodeId(6), peer_urls: vec!["http://h6".into()] });
        membership.apply(Slot(2), &Change::Replace { node: NodeId(6), old: None, new: Incarnation(6) });
        membership.advance(Slot(2));
        let mut out = Writer::default();
        membership.encode(&mut out);
        assert_eq!(Membership::decode(&mut Reader::new(out.finish())).unwrap(), membership);
    }

    #[test]
    fn old_configurations_are_forgotten_only_when_no_open_slot_needs_them() {
        let mut membership = Membership::genesis(&genesis(3, 2));
        let change = Change::Replace { node: NodeId(3), old: Some(Incarnation(3)), new: Incarnation(30) };
        membership.apply(Slot(1), &change);
        membership.advance(Slot(1));
        assert!(membership.configurations().at(Slot(2)).unwrap().contains(voter(3, 3)));
        membership.advance(Slot(2));
        assert!(membership.configurations().at(Slot(3)).unwrap().contains(voter(3, 30)));
        assert_eq!(membership.configurations().from(Slot(3)).count(), 1);
    }
}

//! What a server is told on its command line, the charter that follows from it, and what there is to tell
//! an operator when formation does not get on.

use crate::membership::{Genesis, Member};
use crate::types::{ClusterId, Incarnation, NodeId, VoterId, Window};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use xxhash_rust::xxh3::xxh3_128;

/// One initial member, as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founder {
    /// Its name.
    pub name: String,
    /// Where the other servers reach it.
    pub peer_urls: Vec<String>,
}

/// The initial members and the window: what all founders must have been told alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    window: Window,
    members: BTreeMap<NodeId, Founder>,
}

/// A fingerprint of a [`Plan`], by which servers notice that they were told different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanDigest(pub u128);

/// Why a server cannot take part in forming a cluster. Nothing was written or sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormationError {
    /// The server does not find itself in its own plan.
    #[error("{0} is not among the initial members it was given; name this server itself there, too")]
    NotInPlan(NodeId),
    /// More than [`MAX_FOUNDERS`](super::MAX_FOUNDERS) initial members.
    #[error("{0} initial members are too many; found the cluster with fewer and add the others then")]
    TooMany(usize),
    /// The stored state cannot be read.
    #[error("the stored state of formation is damaged: {0}")]
    Damaged(#[from] crate::wire::DecodeError),
}

impl Plan {
    /// A plan of these members. The order of a member's URLs does not matter.
    pub fn new(window: Window, members: impl IntoIterator<Item = (NodeId, Founder)>) -> Plan {
        let mut members: BTreeMap<NodeId, Founder> = members.into_iter().collect();
        members.values_mut().for_each(|founder| founder.peer_urls.sort());
        Plan { window, members }
    }

    /// The initial members, in order.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.keys().copied()
    }

    /// Is `node` an initial member?
    pub fn contains(&self, node: NodeId) -> bool {
        self.members.contains_key(&node)
    }

    /// What was said of `node`.
    pub fn founder(&self, node: NodeId) -> Option<&Founder> {
        self.members.get(&node)
    }

    /// The fingerprint.
    pub fn digest(&self) -> PlanDigest {
        PlanDigest(self.genesis(|_| None).cluster.0)
    }

    /// The charter with these incarnations; none unless there is one for every member.
    pub(super) fn charter(&self, incarnations: &BTreeMap<NodeId, Incarnation>) -> Option<Genesis> {
        let complete = self.nodes().all(|node| incarnations.contains_key(&node));
        complete.then(|| self.genesis(|node| incarnations.get(&node).copied()))
    }

    fn genesis(&self, voter: impl Fn(NodeId) -> Option<Incarnation>) -> Genesis {
        let member = |(&node, founder): (&NodeId, &Founder)| {
            let member = Member {
                name: founder.name.clone(),
                peer_urls: founder.peer_urls.clone(),
                client_urls: Vec::new(),
                voter: voter(node),
            };
            (node, member)
        };
        let members = self.members.iter().map(member).collect();
        let mut genesis = Genesis { cluster: ClusterId(0), window: self.window, members };
        genesis.cluster = cluster_id(&genesis);
        genesis
    }
}

/// The identity that follows from everything else in `genesis`.
pub(super) fn cluster_id(genesis: &Genesis) -> ClusterId {
    let nameless = Genesis { cluster: ClusterId(0), ..genesis.clone() };
    ClusterId(xxh3_128(&nameless.encode()))
}

/// Does `genesis` name this very memory as a founder?
pub(super) fn founded_by(genesis: &Genesis, voter: VoterId) -> bool {
    genesis.members.get(&voter.node).is_some_and(|member| member.voter == Some(voter.incarnation))
}

/// Why there is no cluster yet: for the log and for `status`. Each is told once until it changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// These members have not been heard yet.
    Silent(BTreeSet<NodeId>),
    /// All were heard; these have not signed the charter that this server signed.
    Unsigned(BTreeSet<NodeId>),
    /// The charter signed here has lost a founder; these have not agreed yet to drop it.
    Undropped(BTreeSet<NodeId>),
    /// A member was started with other initial members, URLs or window.
    PlansDiffer(NodeId),
    /// A server that is not among the initial members takes part.
    Stranger(NodeId),
    /// Peers belong to different clusters.
    TwoClusters(ClusterId, ClusterId),
    /// A peer's cluster does not have this server as a member: never added, or removed.
    NotAMember(ClusterId),
    /// A peer counts this very incarnation among the founders of a cluster, and it does not remember that.
    Forgotten(ClusterId),
    /// A peer holds this living incarnation for dead: a second server uses the same identity.
    Doubled,
    /// A majority of founders lost their memory of a charter that may have been in force: nobody is left to
    /// rule out that it decided something (rule R7).
    MajorityForgot(ClusterId, BTreeSet<NodeId>),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            |nodes: &BTreeSet<NodeId>| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Problem::Silent(nodes) => write!(f, "waiting to hear from {}", names(nodes)),
            Problem::Unsigned(nodes) => write!(f, "waiting for the signatures of {}", names(nodes)),
            Problem::Undropped(nodes) => {
                write!(f, "a founder started over; waiting for {} to agree on a new list", names(nodes))
            }
            Problem::PlansDiffer(node) => write!(
                f,
                "{node} was started with other initial members, peer URLs or window than this server; \
                 correct one of the two"
            ),
            Problem::Stranger(node) => {
                write!(f, "{node} wants to take part, but is not among the initial members given here")
            }
            Problem::TwoClusters(a, b) => {
                write!(f, "peers belong to different clusters, {a} and {b}; correct the initial members")
            }
            Problem::NotAMember(cluster) => {
                write!(f, "cluster {cluster} does not have this server as a member; add it there first")
            }
            Problem::Forgotten(cluster) => write!(
                f,
                "a peer counts this server among the founders of {cluster}, which it does not remember: \
                 its data directory was restored or shared; empty it to join as a newcomer"
            ),
            Problem::Doubled => {
                write!(f, "a second server runs under the identity of this one; stop one of them")
            }
            Problem::MajorityForgot(cluster, nodes) => write!(
                f,
                "{} lost their memory while cluster {cluster} was being formed, and nobody left can tell \
                 whether it already took writes; if it did not, empty the data directories of all members",
                names(nodes)
            ),
        }
    }
}

//! What happened in a cluster, one JSON object per line.
//!
//! The same lines come from a server ([`Recorder`]), from a simulation, and from whoever breaks real servers on
//! purpose, so that one viewer shows them all. An [`Event`] is made from an [`Observation`]
//! ([`Event::of`]), or is something that only those see who run the whole cluster: a fault, a client's call, a
//! message that got lost, a broken invariant.
//!
//! ```
//! # use synod_server::trace::{Event, What};
//! let line = r#"{"v":1,"at":1500,"node":"2","name":"n2","event":"role","role":"acceptor","up":false}"#;
//! let event: Event = serde_json::from_str(line).unwrap();
//! assert_eq!(event.place.as_ref().unwrap().name, "n2");
//! assert_eq!(serde_json::to_string(&event).unwrap(), line);
//! ```
//!
//! The fields are stable and described in `docs/trace-format.md`. Traces hold keys, never values.

mod coded;
mod recorder;
mod words;

pub use recorder::{Recorder, TraceError};
pub use words::{Acceptance, Ballot, Batch, Chosen, Command, MOST_LISTED, Message, Question, Record, Voter};

use crate::replica::{Observation, Role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use synod_kv::StateHash;
use synod_paxos::membership::Genesis;
use synod_paxos::types::{ClusterId, NodeId, Prefix, Slot, Window};
use words::Translator;

/// The version of the format that this release writes, and the only one it reads. New fields do not change
/// it: readers ignore what they do not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Version;

impl Version {
    const NUMBER: u32 = 1;
}

impl From<Version> for u32 {
    fn from(_: Version) -> u32 {
        Version::NUMBER
    }
}

impl TryFrom<u32> for Version {
    type Error = String;

    fn try_from(number: u32) -> Result<Version, String> {
        if number == Version::NUMBER {
            Ok(Version)
        } else {
            Err(format!("version {number} of the format; this release reads version {}", Version::NUMBER))
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The version of the format.
    #[serde(rename = "v")]
    pub version: Version,
    /// When, in microseconds: since 1970 on a server's clock, since the beginning of a simulation.
    pub at: u64,
    /// At which replica; none if it concerns the whole cluster.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// A replica.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Its id.
    #[serde(with = "coded")]
    pub node: NodeId,
    /// Its operator's name for it.
    pub name: String,
}

/// What happened. Each is described in `docs/trace-format.md` under its name in snake case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    // -- what a replica observes -------------------------------------------------------------------
    /// The replica takes part in a cluster from now on.
    Formed {
        /// Which.
        #[serde(with = "coded")]
        cluster: ClusterId,
        /// Its window.
        #[serde(with = "coded")]
        window: Window,
        /// Its founders.
        founders: Vec<Place>,
        /// As a member; otherwise it learns, and asks to be admitted.
        member: bool,
    },
    /// A message left.
    Sent {
        /// To whom; may be the replica itself.
        #[serde(with = "coded")]
        to: Vec<NodeId>,
        /// What.
        message: Message,
    },
    /// A message arrived.
    Received {
        /// From whom.
        #[serde(with = "coded")]
        from: NodeId,
        /// What.
        message: Message,
    },
    /// A role began a life, or ended one.
    Role {
        /// `proposer`, `acceptor` or `learner`.
        role: RoleName,
        /// It is at work from now on.
        up: bool,
    },
    /// An acceptor began a life with what its log holds.
    Restored {
        /// Who it is.
        voter: Voter,
        /// What it promised, if anything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        promised: Option<Ballot>,
        /// How many slots it remembers a proposal for.
        accepted: usize,
        /// Every slot it accepted or trimmed is in here.
        #[serde(with = "coded")]
        highest: Prefix,
        /// Slots up to here it forgot on purpose.
        #[serde(with = "coded")]
        trimmed: Prefix,
    },
    /// Records became durable, in this order.
    Persisted {
        /// Whose.
        voter: Voter,
        /// At most [`MOST_LISTED`] of them.
        records: Vec<Record>,
        /// How many more there were.
        more: usize,
    },
    /// The learner applied a slot.
    Applied {
        /// Which.
        #[serde(with = "coded")]
        slot: Slot,
        /// What it held.
        value: Batch,
        /// The store's hash behind it: equal on all replicas (PMS-29).
        #[serde(with = "coded")]
        hash: StateHash,
    },
    /// A state took the place of what the learner had.
    Loaded {
        /// Everything up to here is in it.
        #[serde(with = "coded")]
        applied: Prefix,
        /// The store's hash.
        #[serde(with = "coded")]
        hash: StateHash,
    },
    /// The replica's durable store covers this much.
    Covered {
        /// Everything up to here.
        #[serde(with = "coded")]
        durable: Prefix,
    },
    /// The replica's proposer leads, or no longer does.
    Leads {
        /// With this ballot.
        ballot: Ballot,
        /// From now on.
        begins: bool,
    },
    /// Something worth telling people.
    Note {
        /// Its kind: `link`, `checkpoint`, `admitted`, ...
        kind: String,
        /// In words.
        text: String,
    },
    // -- what is seen from outside -----------------------------------------------------------------
    /// The replica's process began or ended.
    Process {
        /// It runs from now on.
        up: bool,
        /// Why, or how.
        text: String,
    },
    /// Something was broken on purpose, or healed.
    Fault {
        /// Its kind: `crash`, `cut`, `pause`, ...
        kind: String,
        /// In words.
        text: String,
        /// It is healed from now on.
        healed: bool,
    },
    /// A client asked the replica for something.
    Invoked {
        /// Which client. It asks for one thing at a time.
        client: u64,
        /// For what, in words.
        text: String,
    },
    /// The replica answered a client, or the client gave up.
    Answered {
        /// Which client.
        client: u64,
        /// What it was told, in words.
        text: String,
    },
    /// A message that the replica had sent got lost on the way.
    Lost {
        /// For whom it was.
        #[serde(with = "coded")]
        to: NodeId,
        /// What.
        message: Message,
    },
    /// A message that the replica had sent will arrive once more.
    Duplicated {
        /// For whom it is.
        #[serde(with = "coded")]
        to: NodeId,
        /// What.
        message: Message,
    },
    /// An operation of the replica's disk failed.
    DiskFailed {
        /// Which, in words.
        operation: String,
        /// How.
        text: String,
    },
    /// An invariant does not hold.
    Broken {
        /// Its name.
        invariant: String,
        /// The clause it stands for, such as `PMS-2`.
        clause: String,
        /// What contradicts it.
        why: String,
    },
    /// Events that nobody had the time to write are missing here.
    Dropped {
        /// How many.
        events: u64,
    },
}

/// A [`Role`] by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum RoleName {
    Proposer,
    Acceptor,
    Learner,
}

impl RoleName {
    /// The name, as in the trace.
    pub fn as_str(self) -> &'static str {
        match self {
            RoleName::Proposer => "proposer",
            RoleName::Acceptor => "acceptor",
            RoleName::Learner => "learner",
        }
    }
}

impl From<Role> for RoleName {
    fn from(role: Role) -> RoleName {
        match role {
            Role::Proposer => RoleName::Proposer,
            Role::Acceptor => RoleName::Acceptor,
            Role::Learner => RoleName::Learner,
        }
    }
}

/// What people call the replicas. One without a name goes by its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(BTreeMap<NodeId, String>);

impl Names {
    /// The name of a replica.
    pub fn name(&self, node: NodeId) -> String {
        self.0.get(&node).cloned().unwrap_or_else(|| node.to_string())
    }

    /// A replica with its name.
    pub fn place(&self, node: NodeId) -> Place {
        Place { node, name: self.name(node) }
    }

    fn founders(&self, genesis: &Genesis) -> Vec<Place> {
        genesis.members.iter().map(|(&node, m)| Place { node, name: m.name.clone() }).collect()
    }
}

impl FromIterator<(NodeId, String)> for Names {
    fn from_iter<T: IntoIterator<Item = (NodeId, String)>>(names: T) -> Names {
        Names(names.into_iter().collect())
    }
}

impl Event {
    /// An event at a replica; `at` is in microseconds.
    pub fn at(at: u64, place: Place, what: What) -> Event {
        Event { version: Version, at, place: Some(place), what }
    }

    /// An event of the whole cluster; `at` is in microseconds.
    pub fn everywhere(at: u64, what: What) -> Event {
        Event { version: Version, at, place: None, what }
    }

    /// What `node` observed at `at` (microseconds), or none if it is not worth a line: what a replica notes
    /// for people, when another observation says the same.
    pub fn of(at: u64, node: NodeId, names: &Names, observation: &Observation<'_>) -> Option<Event> {
        let say = Translator(names);
        let what = match *observation {
            Observation::Formed { genesis, member } => What::Formed {
                cluster: genesis.cluster,
                window: genesis.window,
                founders: names.founders(genesis),
                member,
            },
            Observation::Sent { to: [], .. } | Observation::Persisted { records: [], .. } => return None,
            Observation::Checkpointed { .. } => return None, // what it covers is told
            Observation::Sent { to, message } => {
                What::Sent { to: to.to_vec(), message: say.message(message) }
            }
            Observation::Received { from, message } => What::Received { from, message: say.message(message) },
            Observation::Role { role, up } => What::Role { role: role.into(), up },
            Observation::Restored { acceptor } => What::Restored {
                voter: say.voter(acceptor.id()),
                promised: acceptor.promised().map(|ballot| say.ballot(ballot)),
                accepted: acceptor.acceptances(Slot::FIRST).count(),
                highest: acceptor.highest(),
                trimmed: acceptor.trimmed(),
            },
            Observation::Persisted { voter, records } => What::Persisted {
                voter: say.voter(voter),
                records: records.iter().take(MOST_LISTED).map(|record| say.record(record)).collect(),
                more: records.len().saturating_sub(MOST_LISTED),
            },
            Observation::Applied { slot, value, hash, .. } => {
                What::Applied { slot, value: say.value(value), hash }
            }
            Observation::Loaded { applied, hash } => What::Loaded { applied, hash },
            Observation::Covered { durable } => What::Covered { durable },
            Observation::Leads { ballot, begins } => What::Leads { ballot: say.ballot(ballot), begins },
            Observation::Note { kind: "role-started" | "role-stopped" | "leader" | "formed", .. } => {
                return None;
            }
            Observation::Note { kind, text } => What::Note { kind: kind.into(), text: text.into() },
        };
        Some(Event::at(at, names.place(node), what))
    }
}

#[cfg(test)]
mod tests;

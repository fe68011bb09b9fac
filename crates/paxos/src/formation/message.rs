//! What servers say to each other while there is no cluster, and what each of them keeps on disk.

use super::plan::PlanDigest;
use crate::membership::Genesis;
use crate::types::{ClusterId, Incarnation, NodeId, VoterId};
use crate::wire::{DecodeError, Reader, Writer};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Where a server stands. It is on disk before it is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stance {
    /// "I have signed nothing that still counts."
    Blank,
    /// "I have signed this charter, and no other": this *is* the signature.
    Signed {
        /// What was signed: the founders with their incarnations, names, URLs, and the window.
        charter: Genesis,
        /// If not empty: "and I void it, because these founders lost the memory that signed." A server that
        /// says so no longer forms by signatures alone.
        dead: BTreeSet<NodeId>,
    },
    /// "I belong to this cluster."
    Formed {
        /// The charter that came into force.
        genesis: Genesis,
        /// The members of the cluster now, as far as the speaker knows.
        members: BTreeSet<NodeId>,
    },
}

/// "I void this charter: I am not in force under it, and will not be on its signatures."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Void {
    /// The charter, by the identity its cluster would have had.
    pub charter: ClusterId,
    /// The founders that are known to have lost the memory that signed it.
    pub dead: BTreeSet<NodeId>,
}

/// A message between servers before there is a cluster, or from a formed server to one that asks. Safe
/// to lose, repeat, delay and reorder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormationMessage {
    /// "This is where I stand; and you?" Sent to every initial member at each tick and after each step.
    Ask {
        /// Who speaks, in which life.
        from: VoterId,
        /// What the speaker was told on its command line.
        plan: PlanDigest,
        /// Where it stands.
        stance: Stance,
    },
    /// The answer to an [`FormationMessage::Ask`], itself not answered. Also the announcement of a server
    /// that has just formed.
    Answer {
        /// Who speaks, in which life.
        from: VoterId,
        /// What the speaker was told on its command line.
        plan: PlanDigest,
        /// Where it stands.
        stance: Stance,
        /// Its word on the charter that the asker signed, if it voids that.
        void: Option<Void>,
    },
}

impl FormationMessage {
    const FORMAT: u8 = 1;
    const ASK: u8 = 0;
    const ANSWER: u8 = 1;

    /// Who speaks, in which life.
    pub fn from(&self) -> VoterId {
        match self {
            FormationMessage::Ask { from, .. } | FormationMessage::Answer { from, .. } => *from,
        }
    }

    /// The form that travels.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.u8(Self::FORMAT);
        match self {
            FormationMessage::Ask { from, plan, stance } => {
                out.u8(Self::ASK);
                encode_head(*from, *plan, stance, &mut out);
            }
            FormationMessage::Answer { from, plan, stance, void } => {
                out.u8(Self::ANSWER);
                encode_head(*from, *plan, stance, &mut out);
                out.u8(u8::from(void.is_some()));
                if let Some(void) = void {
                    out.u128(void.charter.0);
                    encode_nodes(&void.dead, &mut out);
                }
            }
        }
        out.finish()
    }

    /// Reads what [`FormationMessage::encode`] wrote. Takes memory in proportion to the input, whose size the
    /// transport limits.
    ///
    /// # Errors
    /// When the bytes are not that.
    pub fn decode(bytes: Bytes) -> Result<FormationMessage, DecodeError> {
        let mut input = Reader::new(bytes);
        input.format(Self::FORMAT)?;
        let kind = input.u8()?;
        let from = VoterId { node: NodeId(input.u64()?), incarnation: Incarnation(input.u128()?) };
        let plan = PlanDigest(input.u128()?);
        let stance = Stance::decode(&mut input)?;
        let message = match kind {
            Self::ASK => FormationMessage::Ask { from, plan, stance },
            Self::ANSWER => {
                let void = match input.u8()? {
                    0 => None,
                    1 => Some(Void { charter: ClusterId(input.u128()?), dead: decode_nodes(&mut input)? }),
                    tag => return Err(DecodeError::Unknown { what: "optional void", tag }),
                };
                FormationMessage::Answer { from, plan, stance, void }
            }
            tag => return Err(DecodeError::Unknown { what: "message of formation", tag }),
        };
        input.end()?;
        Ok(message)
    }
}

impl Stance {
    const BLANK: u8 = 0;
    const SIGNED: u8 = 1;
    const FORMED: u8 = 2;

    fn encode(&self, out: &mut Writer) {
        let (tag, genesis, nodes) = match self {
            Stance::Blank => return out.u8(Self::BLANK),
            Stance::Signed { charter, dead } => (Self::SIGNED, charter, dead),
            Stance::Formed { genesis, members } => (Self::FORMED, genesis, members),
        };
        out.u8(tag);
        out.bytes(&genesis.encode());
        encode_nodes(nodes, out);
    }

    fn decode(input: &mut Reader) -> Result<Stance, DecodeError> {
        let tag = input.u8()?;
        match tag {
            Self::BLANK => Ok(Stance::Blank),
            Self::SIGNED | Self::FORMED => {
                let genesis = Genesis::decode(input.bytes()?)?;
                let nodes = decode_nodes(input)?;
                Ok(match tag {
                    Self::SIGNED => Stance::Signed { charter: genesis, dead: nodes },
                    _ => Stance::Formed { genesis, members: nodes },
                })
            }
            tag => Err(DecodeError::Unknown { what: "stance", tag }),
        }
    }
}

/// What a server must not forget, as long as it bears its incarnation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// The one charter it signed and did not drop.
    pub(super) signed: Option<Genesis>,
    /// The charters it voided, with the founders it knows to have started over. Dropped ones stay here.
    pub(super) voided: BTreeMap<ClusterId, BTreeSet<NodeId>>,
    /// The cluster it belongs to. For good.
    pub(super) formed: Option<Genesis>,
}

impl Memory {
    const FORMAT: u8 = 1;

    pub(super) fn encode(&self, incarnation: Incarnation) -> Bytes {
        let mut out = Writer::default();
        out.u8(Self::FORMAT);
        out.u128(incarnation.0);
        encode_genesis(self.signed.as_ref(), &mut out);
        encode_genesis(self.formed.as_ref(), &mut out);
        out.u32(u32::try_from(self.voided.len()).expect("few charters are ever voided"));
        for (charter, dead) in &self.voided {
            out.u128(charter.0);
            encode_nodes(dead, &mut out);
        }
        out.finish()
    }

    /// The memory, and the incarnation it belongs to.
    pub(super) fn decode(bytes: Bytes) -> Result<(Incarnation, Memory), DecodeError> {
        let mut input = Reader::new(bytes);
        input.format(Self::FORMAT)?;
        let incarnation = Incarnation(input.u128()?);
        let signed = decode_genesis(&mut input)?;
        let formed = decode_genesis(&mut input)?;
        let mut voided = BTreeMap::new();
        for _ in 0..input.count(20)? {
            let charter = ClusterId(input.u128()?);
            voided.insert(charter, decode_nodes(&mut input)?);
        }
        input.end()?;
        Ok((incarnation, Memory { signed, voided, formed }))
    }
}

fn encode_head(from: VoterId, plan: PlanDigest, stance: &Stance, out: &mut Writer) {
    out.u64(from.node.0);
    out.u128(from.incarnation.0);
    out.u128(plan.0);
    stance.encode(out);
}

fn encode_nodes(nodes: &BTreeSet<NodeId>, out: &mut Writer) {
    out.u32(u32::try_from(nodes.len()).expect("few members"));
    nodes.iter().for_each(|node| out.u64(node.0));
}

fn decode_nodes(input: &mut Reader) -> Result<BTreeSet<NodeId>, DecodeError> {
    (0..input.count(8)?).map(|_| Ok(NodeId(input.u64()?))).collect()
}

fn encode_genesis(genesis: Option<&Genesis>, out: &mut Writer) {
    out.u8(u8::from(genesis.is_some()));
    if let Some(genesis) = genesis {
        out.bytes(&genesis.encode());
    }
}

fn decode_genesis(input: &mut Reader) -> Result<Option<Genesis>, DecodeError> {
    match input.u8()? {
        0 => Ok(None),
        1 => Ok(Some(Genesis::decode(input.bytes()?)?)),
        tag => Err(DecodeError::Unknown { what: "optional genesis", tag }),
    }
}

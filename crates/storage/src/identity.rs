//! Who this replica is, from one start to the next: the file `identity` of its data directory.
//!
//! Rule R1: an incarnation is durable, name and all, before the first word is spoken under it. And since the
//! log of an incarnation is made *before* the identity that says it votes, an identity whose log is missing
//! has lost its memory; there is no third case.
//!
//! A damaged identity is nobody: not its predecessor, whom it cannot name, and not a blank server either,
//! which might found a second cluster. An operator, or a rule above this crate, must decide.

use crate::disk::SharedDisk;
use crate::small::{NotReplaced, SmallFile, Unreadable};
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use synod_paxos::membership::Genesis;
use synod_paxos::types::{ClusterId, Generation, Incarnation, NodeId};
use synod_paxos::wire::{DecodeError, Reader, Writer};

const FORMAT: u32 = 1;

const FILE: SmallFile =
    SmallFile { dir: "", name: "identity", magic: b"synod-id", format: FORMAT, oldest: FORMAT };

/// Who a replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What its operator calls it.
    pub name: String,
    /// Its place in the cluster.
    pub node: NodeId,
    /// The life of its acceptor's memory (rule R1).
    pub incarnation: Incarnation,
    /// The cluster it belongs to, once there is one.
    pub cluster: Option<ClusterId>,
    /// What the founders agreed on, once they did.
    pub genesis: Option<Genesis>,
    /// Grows with every start and serves as the generation of this start's proposer and front (R5). A new
    /// identity must not begin where an earlier one of the same node may have been: begin at random.
    pub boots: u64,
    /// What the formation of the cluster wants remembered; its own matter.
    pub formation: Bytes,
}

/// Why the identity is not known, or not kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file is not what was written. Restore nothing from elsewhere: the acceptor it named is dead, and a
    /// fresh incarnation may take its place.
    #[error("the identity file is damaged: {why}")]
    Damaged {
        /// How one can tell.
        why: String,
    },
    /// Written by another release. Nothing was changed; run that release.
    #[error("the identity file has format {found}, this release reads format {FORMAT}")]
    Format {
        /// The format of the file.
        found: u32,
    },
    /// The directory belongs to another replica. Nothing was changed.
    #[error("this data directory belongs to {name} ({found}), not to {expected}")]
    Foreign {
        /// What its owner is called.
        name: String,
        /// Its owner.
        found: NodeId,
        /// Who asked.
        expected: NodeId,
    },
    /// The disk failed. Whether a new identity would be found after a restart is told by `in_doubt`; until
    /// then, speak under neither.
    #[error("the identity file: {doing} failed: {error}")]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// How it failed.
        error: Arc<io::Error>,
        /// May the change have taken place?
        in_doubt: bool,
    },
}

impl Identity {
    /// The life of this start's proposer and front.
    pub fn generation(&self) -> Generation {
        Generation(self.boots)
    }

    fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.bytes(self.name.as_bytes());
        out.u64(self.node.0);
        out.u128(self.incarnation.0);
        out.u8(self.cluster.is_some().into());
        out.u128(self.cluster.map_or(0, |cluster| cluster.0));
        out.u8(self.genesis.is_some().into());
        out.bytes(&self.genesis.as_ref().map(Genesis::encode).unwrap_or_default());
        out.u64(self.boots);
        out.bytes(&self.formation);
        out.finish()
    }

    fn decode(body: Bytes) -> Result<Identity, DecodeError> {
        let mut input = Reader::new(body);
        let name = input.text()?;
        let node = NodeId(input.u64()?);
        let incarnation = Incarnation(input.u128()?);
        let has_cluster = input.u8()? == 1;
        let cluster = Some(ClusterId(input.u128()?)).filter(|_| has_cluster);
        let has_genesis = input.u8()? == 1;
        let genesis = Some(input.bytes()?).filter(|_| has_genesis).map(Genesis::decode).transpose()?;
        let boots = input.u64()?;
        let formation = input.bytes()?;
        input.end()?;
        Ok(Identity { name, node, incarnation, cluster, genesis, boots, formation })
    }
}

/// Reads the identity kept on `disk`; none if there is none. With `expected`, only that replica's.
///
/// # Errors
/// When there is one that cannot be used.
pub fn load(disk: &SharedDisk, expected: Option<NodeId>) -> Result<Option<Identity>, IdentityError> {
    let body = FILE.load(disk).map_err(|unreadable| match unreadable {
        Unreadable::Damaged(why) => IdentityError::Damaged { why: why.into() },
        Unreadable::Format(found) => IdentityError::Format { found },
        Unreadable::Disk(doing, error) => IdentityError::Disk { doing, error, in_doubt: false },
    })?;
    let Some(body) = body else { return Ok(None) };
    let identity =
        Identity::decode(body).map_err(|error| IdentityError::Damaged { why: error.to_string() })?;
    match expected {
        Some(expected) if expected != identity.node => {
            Err(IdentityError::Foreign { name: identity.name, found: identity.node, expected })
        }
        _ => Ok(Some(identity)),
    }
}

/// Replaces the identity kept on `disk`, durably.
///
/// # Errors
/// When the disk fails; the replica must then stop, or at least say nothing that relies on either identity.
pub fn save(disk: &SharedDisk, identity: &Identity) -> Result<(), IdentityError> {
    FILE.replace(disk, &identity.encode())
        .map_err(|NotReplaced { doing, error, in_doubt }| IdentityError::Disk { doing, error, in_doubt })
}

/// [`load`], counting this start, durably: each start that gets an identity gets another generation.
///
/// # Errors
/// As [`load`] and [`save`].
pub fn start(disk: &SharedDisk, expected: Option<NodeId>) -> Result<Option<Identity>, IdentityError> {
    let Some(mut identity) = load(disk, expected)? else { return Ok(None) };
    // Random beginnings make the end of the range possible; what matters is that neighbours differ.
    identity.boots = identity.boots.wrapping_add(1);
    save(disk, &identity)?;
    Ok(Some(identity))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{CrashPoint, FaultyDisk, MemoryDisk, Survivors};
    use std::collections::BTreeMap;
    use synod_paxos::membership::Member;
    use synod_paxos::types::Window;

    fn blank() -> Identity {
        Identity {
            name: "n1".into(),
            node: NodeId(0xa1),
            incarnation: Incarnation(0x1234),
            cluster: None,
            genesis: None,
            boots: 7,
            formation: Bytes::new(),
        }
    }

    fn formed() -> Identity {
        let member = Member { name: "n1".into(), voter: Some(Incarnation(0x1234)), ..Member::default() };
        let members = BTreeMap::from([(NodeId(0xa1), member)]);
        Identity {
            cluster: Some(ClusterId(9)),
            genesis: Some(Genesis { cluster: ClusterId(9), window: Window::new(8), members }),
            formation: Bytes::from_static(b"signed"),
            ..blank()
        }
    }

    fn shared(disk: &FaultyDisk) -> SharedDisk {
        Arc::new(disk.clone())
    }

    #[test]
    fn an_identity_is_kept_and_every_start_is_counted() {
        let disk: SharedDisk = Arc::new(MemoryDisk::new());
        assert_eq!(start(&disk, None).unwrap(), None);
        for identity in [blank(), formed()] {
            save(&disk, &identity).unwrap();
            assert_eq!(load(&disk, Some(identity.node)).unwrap(), Some(identity.clone()));
            assert_eq!(start(&disk, None).unwrap().unwrap().generation(), Generation(8));
            assert_eq!(start(&disk, None).unwrap().unwrap(), Identity { boots: 9, ..identity });
        }
    }

    #[test]
    fn a_foreign_identity_is_refused_and_left_alone() {
        let disk: SharedDisk = Arc::new(MemoryDisk::new());
        save(&disk, &blank()).unwrap();
        let error = start(&disk, Some(NodeId(5))).unwrap_err();
        assert!(matches!(&error, IdentityError::Foreign { name, .. } if name == "n1"), "{error}");
        assert_eq!(load(&disk, None).unwrap(), Some(blank()));
    }

    #[test]
    fn d7_every_flipped_or_missing_byte_is_noticed() {
        let disk = FaultyDisk::new(1);
        save(&shared(&disk), &formed()).unwrap();
        let good = disk.contents("identity").unwrap();
        for offset in 0..good.len() {
            let rotten = disk.fork(0);
            rotten.rot("identity", offset, 1 << (offset % 8));
            let error = start(&shared(&rotten), None).unwrap_err();
            assert!(matches!(error, IdentityError::Damaged { .. }), "byte {offset}: {error}");
            let short = disk.fork(0);
            let file = shared(&short).create("identity").unwrap().write_at(0, &good[..offset]);
            file.unwrap();
            assert!(matches!(start(&shared(&short), None), Err(IdentityError::Damaged { .. })), "{offset}");
        }
        let mut file = shared(&disk).open("identity").unwrap();
        file.write_at(good.len() as u64, b"x").unwrap();
        assert!(matches!(load(&shared(&disk), None), Err(IdentityError::Damaged { .. })));
    }

    #[test]
    fn m3_a_newer_format_is_refused() {
        let disk: SharedDisk = Arc::new(MemoryDisk::new());
        SmallFile { format: 2, ..FILE }.replace(&disk, b"whatever comes next").unwrap();
        assert!(matches!(start(&disk, None), Err(IdentityError::Format { found: 2 })));
    }

    /// Runs two saves and a start with a crash at every operation, then hands the wreck over, with what was
    /// known saved and what may have been.
    fn wrecks(mut look: impl FnMut(FaultyDisk, Option<Identity>, Option<Identity>, String)) {
        let mut crashes = 0;
        for operation in 1..100 {
            for point in [CrashPoint::Before, CrashPoint::During, CrashPoint::After] {
                let faulty = FaultyDisk::new(operation);
                let disk = shared(&faulty);
                faulty.crash_at(operation, point);
                let (mut known, mut maybe) = (None, Some(blank()));
                let mut run = || -> Result<(), IdentityError> {
                    for identity in [blank(), formed()] {
                        maybe = Some(identity.clone());
                        save(&disk, &identity)?;
                        known = Some(identity);
                    }
                    maybe = Some(Identity { boots: 8, ..formed() });
                    known = start(&disk, None)?;
                    Ok(())
                };
                if run().is_ok() {
                    assert!(crashes > 40, "{crashes}");
                    return;
                }
                crashes += 1;
                look(faulty, known, maybe, format!("crash {point:?} operation {operation}"));
            }
        }
        panic!("it does not end");
    }

    #[test]
    fn c1_c2_r1_a_crash_at_any_operation_leaves_the_old_identity_or_the_new() {
        wrecks(|disk, known, maybe, context| {
            for seed in 0..20 {
                let disk = disk.fork(seed);
                if seed == 0 {
                    disk.process_crash();
                } else {
                    disk.power_cut(Survivors::Some);
                }
                let found = load(&shared(&disk), None).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert!(found == known || found == maybe, "{context}: {found:?}");
                // The next start counts on from what was found.
                let next = start(&shared(&disk), None).unwrap();
                let boots = |identity: &Option<Identity>| identity.as_ref().map(|i| i.boots);
                assert_eq!(boots(&next), boots(&found).map(|boots| boots + 1), "{context}");
            }
        });
    }

    #[test]
    fn c3_r1_an_identity_that_was_acted_on_survives_a_power_cut() {
        wrecks(|disk, _, _, context| {
            disk.process_crash();
            let found = load(&shared(&disk), None).unwrap();
            disk.power_cut(Survivors::None);
            assert_eq!(load(&shared(&disk), None).unwrap(), found, "{context}");
        });
    }

    #[test]
    fn d2_a_full_disk_keeps_the_old_identity() {
        let disk = FaultyDisk::new(1);
        save(&shared(&disk), &blank()).unwrap();
        disk.set_capacity(Some(100));
        let error = save(&shared(&disk), &formed()).unwrap_err();
        assert!(matches!(error, IdentityError::Disk { in_doubt: false, .. }), "{error}");
        disk.power_cut(Survivors::Some);
        assert_eq!(load(&shared(&disk), None).unwrap(), Some(blank()));
        disk.set_capacity(None);
        save(&shared(&disk), &formed()).unwrap();
        assert_eq!(load(&shared(&disk), None).unwrap(), Some(formed()));
    }
}

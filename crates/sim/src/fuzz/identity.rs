//! The reader of the file that says who a replica is (rule R1).
//!
//! ```text
//!   input = which identity, how: rot or forgery, faults
//! ```

use super::Outcome::{Refused, Understood};
use super::damage::{Image, reseal_small};
use super::input::Input;
use super::{Outcome, bounded};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use synod_paxos::membership::{Genesis, Member};
use synod_paxos::types::{ClusterId, Incarnation, NodeId, Window};
use synod_storage::disk::{MemoryDisk, SharedDisk};
use synod_storage::identity::{Identity, IdentityError, load, save, start};

/// Loads a damaged identity.
///
/// After rot it is the one that was saved, or damaged; none only if the file is gone. Whatever is found can be
/// saved and found again, each start counts, and in place of a damaged one another can be saved.
pub fn identity(data: &[u8]) -> Outcome {
    let mut input = Input::new(bounded(data));
    let (good, image) = &identities()[usize::from(input.u8()) % 2];
    let mut image = image.clone();
    let rot = input.u8().is_multiple_of(2);
    let changed =
        if rot { image.rot(input, None) > 0 } else { image.forge(input, |_, bytes| reseal_small(bytes)) };
    let disk = image.disk();
    match load(&disk, None) {
        Ok(None) => {
            assert!(!image.files.contains_key("identity"), "an identity was overlooked");
            Refused
        }
        Ok(Some(found)) => {
            assert!(!rot || found == *good, "rot made {found:?}");
            keeps(&disk, found);
            Understood
        }
        Err(error) => {
            assert!(changed, "a good identity was refused: {error}");
            let format = matches!(error, IdentityError::Format { .. });
            assert!(format && !rot || matches!(error, IdentityError::Damaged { .. }), "{error}");
            assert!(start(&disk, None).is_err(), "it came back");
            save(&disk, good).expect("a disk in memory does not fail");
            assert_eq!(load(&disk, Some(good.node)).expect("just saved"), Some(good.clone()));
            Refused
        }
    }
}

fn keeps(disk: &SharedDisk, found: Identity) {
    save(disk, &found).expect("a disk in memory does not fail");
    assert_eq!(load(disk, Some(found.node)).expect("just saved").as_ref(), Some(&found));
    let other = NodeId(found.node.0 ^ 1);
    assert!(matches!(load(disk, Some(other)), Err(IdentityError::Foreign { .. })), "somebody else's");
    let started = start(disk, None).expect("just saved").expect("just saved");
    assert_ne!(started.generation(), found.generation(), "a start that was not counted (R5)");
    assert_eq!(started, Identity { boots: started.boots, ..found });
}

fn identities() -> &'static [(Identity, Image); 2] {
    static IDENTITIES: OnceLock<[(Identity, Image); 2]> = OnceLock::new();
    IDENTITIES.get_or_init(|| {
        let blank = Identity {
            name: "n1".into(),
            node: NodeId(0xa1),
            incarnation: Incarnation(0x1234),
            cluster: None,
            genesis: None,
            boots: 7,
            formation: Bytes::new(),
        };
        let member = Member {
            name: "n1".into(),
            peer_urls: vec!["http://h:2380".into()],
            voter: Some(blank.incarnation),
            ..Member::default()
        };
        let members = BTreeMap::from([(blank.node, member)]);
        let formed = Identity {
            cluster: Some(ClusterId(9)),
            genesis: Some(Genesis { cluster: ClusterId(9), window: Window::new(8), members }),
            formation: Bytes::from_static(b"signed"),
            ..blank.clone()
        };
        [blank, formed].map(|identity| {
            let disk: SharedDisk = Arc::new(MemoryDisk::new());
            save(&disk, &identity).expect("a disk in memory does not fail");
            (identity, Image::of(&*disk, &[""]))
        })
    })
}

//! What servers say to each other before there is a cluster.

use super::Outcome::{Refused, Understood};
use super::{Outcome, bounded};
use bytes::Bytes;
use synod_paxos::formation::{Effect, Formation, FormationMessage, Founder, Plan};
use synod_paxos::types::{Incarnation, NodeId, VoterId, Window};

/// Decodes a message. One that is understood is the same after encoding, and can be handed to a server that
/// is forming a cluster, twice. Whatever that server then wants remembered, it can be restored from, and it
/// belongs to the same cluster as before, and has signed the same charter.
pub fn formation_message(data: &[u8]) -> Outcome {
    let Ok(message) = FormationMessage::decode(Bytes::copy_from_slice(bounded(data))) else { return Refused };
    let encoded = message.encode();
    assert_eq!(FormationMessage::decode(encoded.clone()).as_ref(), Ok(&message));
    assert_eq!(message.encode(), encoded);
    let mut formation = Formation::new(ME, plan()).expect("it is in its plan");
    let mut effects = formation.start();
    for _ in 0..2 {
        effects.extend(formation.receive(message.clone()));
        effects.extend(formation.tick());
    }
    let states = effects.iter().filter_map(|effect| match effect {
        Effect::PersistThenSend { state, .. } => Some(state),
        _ => None,
    });
    if let Some(last) = states.last() {
        let restored = Formation::restore(ME, plan(), last.clone()).expect("its own words");
        assert_eq!(
            (restored.formed(), restored.signed()),
            (formation.formed(), formation.signed()),
            "another server after a restart"
        );
    }
    Understood
}

/// The server that hears it, the first of three.
pub(super) const ME: VoterId = VoterId { node: NodeId(1), incarnation: Incarnation(101) };

pub(super) fn plan() -> Plan {
    let founder = |n: u64| Founder { name: format!("n{n}"), peer_urls: vec![format!("http://h{n}:2380")] };
    Plan::new(Window::new(8), (1..=3).map(|n| (NodeId(n), founder(n))))
}

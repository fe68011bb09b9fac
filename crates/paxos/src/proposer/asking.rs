//! Whom to ask to accept: every voter, or no more than it takes. Liveness only: any set will do (2.2), and what
//! counts as chosen is decided elsewhere.
//!
//! A majority decides. What the other voters write to their disks is written for nothing, and on a shared disk
//! it delays those that count. So once a majority has answered a proposal first, later ones go to that
//! majority alone:
//!
//! ```text
//!   slot 7   asked: n1 n2 n3 n4 n5    accepted first: n1 n3 n4
//!   slot 8   asked: n1    n3 n4
//!   slot 9   asked: n1    n3 n4       late, or n4's connection broke: n2 n5 are asked as well
//!   slot 10  asked: n1 n2 n3 n4 n5    accepted first: n1 n2 n3
//! ```
//!
//! Now and then a slot is asked of everybody all the same, so that the majority is always one of the fastest.

use super::reign::Flight;
use super::{Effect, Proposer};
use crate::membership::Configuration;
use crate::message::Message;
use crate::types::{NodeId, Time, VoterId};
use std::collections::BTreeSet;
use std::time::Duration;

/// How often a slot is asked of everybody although nobody was late.
const RENEWED: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Asking {
    /// The first majority that accepted what everybody was asked; none while that is not known.
    swift: Option<BTreeSet<VoterId>>,
    /// When everybody was last asked.
    renewed: Time,
}

impl Asking {
    /// Who of these voters is to be asked now, if not all of them.
    pub(super) fn few(&mut self, configuration: &Configuration, now: Time) -> Option<&BTreeSet<VoterId>> {
        let swift = self.swift.as_ref().filter(|swift| configuration.has_majority(swift));
        if swift.is_none() || now.since(self.renewed) >= RENEWED {
            self.renewed = now;
            return None;
        }
        swift
    }

    /// A majority accepted what everybody was asked, these before all others.
    pub(super) fn on_chosen(&mut self, first: &BTreeSet<VoterId>) {
        self.swift = Some(first.clone());
    }

    /// One of those who were asked is late or gone.
    pub(super) fn on_late(&mut self) {
        self.swift = None;
    }

    /// Is an answer of this node being counted on?
    pub(super) fn counts_on(&self, node: NodeId) -> bool {
        self.swift.iter().flatten().any(|voter| voter.node == node)
    }
}

impl Proposer {
    /// A connection broke. If acceptances were to come through it, others are asked.
    pub fn on_disconnected(&mut self, node: NodeId) -> Vec<Effect> {
        if self.asking.counts_on(node) {
            self.asking.on_late();
        }
        // Those under way may count on others than the next ones would.
        self.ask_others(|flight| flight.awaits(node))
    }

    /// Sends the proposals that are `due`, and not accepted, to those who were not asked yet.
    pub(super) fn ask_others(&mut self, due: impl Fn(&Flight) -> bool) -> Vec<Effect> {
        let chosen = self.word();
        let Some(reign) = self.reign.as_mut() else { return Vec::new() };
        let mut effects = Vec::new();
        for (&slot, flight) in &mut reign.flights {
            if flight.asked_all || flight.is_chosen() || !due(flight) {
                continue;
            }
            let (to, value) = (flight.ask_others(), flight.value.clone());
            if to.is_empty() {
                continue; // these few are all there are
            }
            let message = Message::Accept { ballot: reign.ballot, slot, value, chosen };
            effects.push(Effect::Send { to, message });
        }
        effects
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Incarnation;

    fn voters(nodes: impl IntoIterator<Item = u64>) -> BTreeSet<VoterId> {
        nodes.into_iter().map(|node| VoterId { node: NodeId(node), incarnation: Incarnation(1) }).collect()
    }

    #[test]
    fn few_are_asked_while_they_are_a_majority_in_time() {
        let five = Configuration::new(voters(1..=5));
        let seven = Configuration::new(voters(1..=7));
        let mut asking = Asking::default();
        let now = Time(0) + RENEWED;
        assert_eq!(asking.few(&five, now), None, "nobody is known to be swift");
        asking.on_chosen(&voters([1, 3, 4]));
        assert_eq!(asking.few(&five, now), Some(&voters([1, 3, 4])));
        assert!(asking.counts_on(NodeId(3)) && !asking.counts_on(NodeId(2)));
        assert_eq!(asking.few(&seven, now), None, "no majority of these");
        assert_eq!(asking.few(&five, now + RENEWED), None, "somebody else may be swifter by now");
        assert_eq!(asking.few(&five, now + RENEWED), Some(&voters([1, 3, 4])));
        asking.on_late();
        assert_eq!(asking.few(&five, now + RENEWED), None);
        assert!(!asking.counts_on(NodeId(3)));
    }
}

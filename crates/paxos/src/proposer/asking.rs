//! Whom to ask to accept: every voter, or no more than it takes; and whom they are to tell. Liveness only: any set will
//! do (2.2), and what counts as chosen is decided elsewhere.
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
//!
//! When all who wait for a slot are clients of one other replica, that one is asked instead of another, unless it is
//! much slower; and acceptances go to it, not here. It learns the value as soon as it is chosen, and says so here,
//! where nobody waits. Should that take too long, everything goes the usual way again, for a while.

use super::reign::Flight;
use super::{Effect, Proposer};
use crate::membership::Configuration;
use crate::message::Message;
use crate::types::{NodeId, Slot, Time, VoterId};
use std::collections::BTreeSet;
use std::time::Duration;

/// How often a slot is asked of everybody although nobody was late; and how long acceptances come here once somebody
/// was.
const RENEWED: Duration = Duration::from_secs(1);

/// Who takes so many times as long to accept as a majority does is not worth being asked for the sake of who waits
/// there.
const SLOWER: u32 = 2;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Asking {
    /// The first majority that accepted what everybody was asked; none while that is not known.
    swift: Option<BTreeSet<VoterId>>,
    /// When everybody was last asked.
    renewed: Time,
    /// In which slot that was.
    everybody: Option<Slot>,
    /// How long a majority took to accept it; none while it has not.
    took: Option<Duration>,
    /// Who accepted it in not much more time.
    near: BTreeSet<VoterId>,
    /// When one of those who were asked was last late.
    late: Option<Time>,
}

/// Whom to ask, if not everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Few {
    pub(super) voters: BTreeSet<VoterId>,
    /// Whom they are to tell instead of this replica.
    pub(super) learner: Option<NodeId>,
}

impl Asking {
    /// Who of these voters is to be asked now by `here`, if not all of them, when somebody waits at `waiting` alone.
    pub(super) fn few(
        &self,
        configuration: &Configuration,
        here: NodeId,
        waiting: Option<NodeId>,
        now: Time,
    ) -> Option<Few> {
        let swift = self.swift.as_ref().filter(|swift| configuration.has_majority(swift))?;
        if now.since(self.renewed) >= RENEWED {
            return None;
        }
        let mut few = Few { voters: swift.clone(), learner: None };
        let calm = self.late.is_none_or(|late| now.since(late) >= RENEWED);
        let near =
            self.near.iter().find(|voter| Some(voter.node) == waiting && configuration.contains(**voter));
        if let Some(voter) = near.filter(|voter| calm && voter.node != here) {
            // In another's place, so that one less is woken: this one has to learn the value anyway.
            if few.voters.insert(*voter)
                && let Some(other) = swift.iter().rev().find(|other| other.node != here)
            {
                few.voters.remove(other);
            }
            few.learner = Some(voter.node);
        }
        Some(few)
    }

    /// Everybody is asked to accept `slot`.
    pub(super) fn on_everybody(&mut self, slot: Slot, now: Time) {
        self.renewed = now;
        self.everybody = Some(slot);
        self.took = None;
    }

    /// Of which slot it is still of interest who accepts it.
    pub(super) fn watches(&self) -> Option<Slot> {
        self.everybody
    }

    /// So long after everybody was asked, these have accepted, and they are a majority.
    pub(super) fn on_seen(&mut self, accepted: &BTreeSet<VoterId>, since: Duration) {
        let took = *self.took.get_or_insert_with(|| {
            self.near.clear();
            since
        });
        if since <= took * SLOWER {
            self.near.extend(accepted);
        } else {
            self.everybody = None;
        }
    }

    /// A majority accepted what everybody was asked, these before all others.
    pub(super) fn on_chosen(&mut self, first: &BTreeSet<VoterId>) {
        self.swift = Some(first.clone());
    }

    /// One of those who were asked is late.
    pub(super) fn on_late(&mut self, now: Time) {
        self.swift = None;
        self.late = Some(now);
    }

    /// A node is gone.
    pub(super) fn on_gone(&mut self, node: NodeId) {
        if self.swift.iter().flatten().any(|voter| voter.node == node) {
            self.swift = None;
        }
        self.near.retain(|voter| voter.node != node);
    }
}

impl Proposer {
    /// A connection broke. If acceptances were to come through it, others are asked.
    pub fn on_disconnected(&mut self, node: NodeId) -> Vec<Effect> {
        self.asking.on_gone(node);
        // Those under way may count on others than the next ones would.
        self.ask_others(|flight| flight.awaits(node))
    }

    /// Sends the proposals that are `due`, and not accepted, to those who were not asked yet; and to those who were to
    /// tell another.
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
            let message = Message::Accept { ballot: reign.ballot, slot, value, chosen, learner: None };
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

    fn few(nodes: impl IntoIterator<Item = u64>, learner: Option<u64>) -> Option<Few> {
        Some(Few { voters: voters(nodes), learner: learner.map(NodeId) })
    }

    const HERE: NodeId = NodeId(1);

    #[test]
    fn few_are_asked_while_they_are_a_majority_in_time() {
        let five = Configuration::new(voters(1..=5));
        let seven = Configuration::new(voters(1..=7));
        let mut asking = Asking::default();
        let now = Time(0) + RENEWED;
        assert_eq!(asking.few(&five, HERE, None, now), None, "nobody is known to be swift");
        asking.on_everybody(Slot(1), now);
        asking.on_chosen(&voters([1, 3, 4]));
        assert_eq!(asking.few(&five, HERE, None, now), few([1, 3, 4], None));
        assert_eq!(asking.few(&seven, HERE, None, now), None, "no majority of these");
        let later = now + RENEWED;
        assert_eq!(asking.few(&five, HERE, None, later), None, "somebody else may be swifter by now");
        asking.on_everybody(Slot(2), later);
        assert_eq!(asking.few(&five, HERE, None, later), few([1, 3, 4], None));
        asking.on_gone(NodeId(2));
        assert_eq!(
            asking.few(&five, HERE, None, later),
            few([1, 3, 4], None),
            "nothing was to come from there"
        );
        asking.on_gone(NodeId(3));
        assert_eq!(asking.few(&five, HERE, None, later), None);
        asking.on_chosen(&voters([1, 4, 5]));
        asking.on_late(later);
        assert_eq!(asking.few(&five, HERE, None, later), None);
    }

    #[test]
    fn who_waits_is_asked_and_told_unless_slow_or_late() {
        let five = Configuration::new(voters(1..=5));
        let ms = Duration::from_millis;
        let now = Time(0) + RENEWED;
        let mut asking = Asking::default();
        asking.on_everybody(Slot(1), now);
        asking.on_chosen(&voters([1, 3, 4]));
        assert_eq!(
            asking.few(&five, HERE, Some(NodeId(3)), now),
            few([1, 3, 4], None),
            "not known to be near"
        );
        asking.on_seen(&voters([1, 3, 4]), ms(2));
        asking.on_seen(&voters([1, 2, 3, 4]), ms(4));
        asking.on_seen(&voters(1..=5), ms(5));
        assert_eq!(asking.watches(), None);
        assert_eq!(asking.few(&five, HERE, Some(NodeId(3)), now), few([1, 3, 4], Some(3)));
        assert_eq!(
            asking.few(&five, HERE, Some(NodeId(2)), now),
            few([1, 2, 3], Some(2)),
            "in another's place"
        );
        assert_eq!(asking.few(&five, HERE, Some(NodeId(5)), now), few([1, 3, 4], None), "too slow");
        assert_eq!(asking.few(&five, HERE, Some(NodeId(6)), now), few([1, 3, 4], None), "no voter");
        assert_eq!(asking.few(&five, HERE, Some(HERE), now), few([1, 3, 4], None), "it waits here");
        asking.on_gone(NodeId(2));
        assert_eq!(asking.few(&five, HERE, Some(NodeId(2)), now), few([1, 3, 4], None), "gone");
        asking.on_late(now);
        asking.on_chosen(&voters([1, 3, 4]));
        assert_eq!(
            asking.few(&five, HERE, Some(NodeId(3)), now),
            few([1, 3, 4], None),
            "it may have been why"
        );
        let later = now + RENEWED;
        asking.on_everybody(Slot(9), later);
        assert_eq!(asking.watches(), Some(Slot(9)));
        assert_eq!(asking.few(&five, HERE, Some(NodeId(3)), later), few([1, 3, 4], Some(3)));
        asking.on_seen(&voters([1, 4, 5]), ms(2));
        assert_eq!(
            asking.few(&five, HERE, Some(NodeId(3)), later),
            few([1, 3, 4], None),
            "not near this time"
        );
    }
}

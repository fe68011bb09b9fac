//! Links that fail on purpose: messages lost or late between this server and
//! another, whatever the network does. While nothing is disturbed, asking costs
//! one read of a flag.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use synod_paxos::types::NodeId;

/// Which way messages are disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those that come in.
    In,
    /// Those that go out.
    Out,
    /// All.
    Both,
}

/// A disturbed link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkFault {
    /// Which way.
    pub direction: Direction,
    /// The share of messages that are lost, 0 to 1.
    pub drop: f64,
    /// How late the others are.
    pub delay: Duration,
}

impl LinkFault {
    /// Nothing gets through.
    pub fn cut(direction: Direction) -> LinkFault {
        LinkFault { direction, drop: 1.0, delay: Duration::ZERO }
    }
}

/// What becomes of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Pass,
    Late(Duration),
    Lost,
}

/// The one way a message goes past here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

/// The disturbed links of this server. Heartbeats, formation and checkpoints
/// suffer like everything else.
#[derive(Debug)]
pub struct LinkFaults {
    /// Is anything in the table?
    disturbed: AtomicBool,
    table: RwLock<BTreeMap<NodeId, Ways>>,
    chance: Mutex<ChaCha8Rng>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    incoming: Option<LinkFault>,
    outgoing: Option<LinkFault>,
}

impl LinkFaults {
    /// All links in order. Chance comes from `seed`.
    pub fn new(seed: u64) -> LinkFaults {
        LinkFaults {
            disturbed: AtomicBool::new(false),
            table: RwLock::default(),
            chance: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
        }
    }

    /// Disturbs the link to `node` from now on, in the fault's direction; the
    /// other direction stays as it is. None heals both.
    pub fn set(&self, node: NodeId, fault: Option<LinkFault>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        match fault {
            None => {
                table.remove(&node);
            }
            Some(fault) => {
                let ways = table.entry(node).or_default();
                if fault.direction != Direction::Out {
                    ways.incoming = Some(fault);
                }
                if fault.direction != Direction::In {
                    ways.outgoing = Some(fault);
                }
            }
        }
        self.disturbed.store(!table.is_empty(), Ordering::Release);
    }

    /// What becomes of the next message from or to `node`.
    pub(super) fn fate(&self, way: Way, node: NodeId) -> Fate {
        if !self.disturbed.load(Ordering::Acquire) {
            return Fate::Pass;
        }
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let ways = table.get(&node).copied().unwrap_or_default();
        let fault = match way {
            Way::In => ways.incoming,
            Way::Out => ways.outgoing,
        };
        match fault {
            None => Fate::Pass,
            Some(fault) if self.chance() < fault.drop => Fate::Lost,
            Some(LinkFault { delay: Duration::ZERO, .. }) => Fate::Pass,
            Some(fault) => Fate::Late(fault.delay),
        }
    }

    /// Lets a call from or to `node` wait out its delay. False if it is lost.
    pub(super) async fn pass(&self, way: Way, node: NodeId) -> bool {
        match self.fate(way, node) {
            Fate::Pass => {}
            Fate::Late(delay) => tokio::time::sleep(delay).await,
            Fate::Lost => return false,
        }
        true
    }

    /// At least 0 and below 1.
    fn chance(&self) -> f64 {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    #[test]
    fn a_cut_loses_everything_one_way_and_only_there() {
        let links = LinkFaults::new(1);
        links.set(A, Some(LinkFault::cut(Direction::Out)));
        assert_eq!(links.fate(Way::Out, A), Fate::Lost);
        assert_eq!(links.fate(Way::In, A), Fate::Pass);
        assert_eq!(links.fate(Way::Out, B), Fate::Pass);
        links.set(A, None);
        assert_eq!(links.fate(Way::Out, A), Fate::Pass);
        assert!(!links.disturbed.load(Ordering::Acquire), "healed links cost nothing");
    }

    #[test]
    fn both_directions_can_fail_differently() {
        let links = LinkFaults::new(1);
        links.set(A, Some(LinkFault::cut(Direction::In)));
        let late = LinkFault { direction: Direction::Out, drop: 0.0, delay: Duration::from_millis(5) };
        links.set(A, Some(late));
        assert_eq!(links.fate(Way::In, A), Fate::Lost);
        assert_eq!(links.fate(Way::Out, A), Fate::Late(Duration::from_millis(5)));
    }

    #[test]
    fn a_share_is_lost_and_a_seed_repeats_which() {
        let fates = |seed| -> Vec<Fate> {
            let links = LinkFaults::new(seed);
            links.set(A, Some(LinkFault { direction: Direction::Both, drop: 0.3, delay: Duration::ZERO }));
            (0..1000).map(|_| links.fate(Way::Out, A)).collect()
        };
        let lost = fates(7).iter().filter(|fate| **fate == Fate::Lost).count();
        assert!((200..400).contains(&lost), "{lost} of 1000");
        assert_eq!(fates(7), fates(7));
        assert_ne!(fates(7), fates(8));
    }
}

//! Connections between replicas, each as the side sees it that dialled: what a transport tells its replica about them.
//!
//! Messages do not need them here ([`super::network`] carries what it carries); what replicas conclude from them does.
//! As in a server, each side dials by itself, a lane at a time, and a peer counts as connected while both lanes are up
//! that the protocol lives on. Bytes go both ways on a connection, so a cut of one direction breaks those of both
//! sides. It leads to one life of the peer's process, and the next one has to be dialled anew.

use super::{Event, World};
use rand::RngExt;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use synod_paxos::types::NodeId;

/// The lanes that say whether a peer is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Protocol,
    Urgent,
}

impl Lane {
    pub(super) const ALL: [Lane; 2] = [Lane::Protocol, Lane::Urgent];
}

/// How long a lane takes that dials at once, in microseconds.
pub(super) const AT_ONCE: Range<u64> = 500..20_000;

/// The same for one that has dialled in vain for a while, and pauses in between.
pub(super) const IN_ITS_TIME: Range<u64> = 500..500_000;

/// The connections of one process, each with the life of the peer that it leads to.
#[derive(Default)]
pub(super) struct Connections(BTreeMap<(NodeId, Lane), u64>);

impl Connections {
    /// Are both lanes to `peer` up?
    pub(super) fn connected(&self, peer: NodeId) -> bool {
        Lane::ALL.iter().all(|&lane| self.0.contains_key(&(peer, lane)))
    }

    /// The life of `peer` that a lane leads to; none while it is down.
    fn life(&self, peer: NodeId, lane: Lane) -> Option<u64> {
        self.0.get(&(peer, lane)).copied()
    }

    /// A lane comes up or breaks.
    fn set(&mut self, peer: NodeId, lane: Lane, life: Option<u64>) {
        match life {
            Some(life) => self.0.insert((peer, lane), life),
            None => self.0.remove(&(peer, lane)),
        };
    }
}

/// These links in both directions: whose connections a cut of them breaks.
pub(super) fn both_ways(links: &BTreeSet<(NodeId, NodeId)>) -> BTreeSet<(NodeId, NodeId)> {
    links.iter().flat_map(|&(one, other)| [(one, other), (other, one)]).collect()
}

impl World {
    /// The lanes of `node` to `peer` dial, each within its own time.
    pub(super) fn dial(&mut self, node: NodeId, peer: NodeId, within: Range<u64>) {
        for lane in Lane::ALL {
            let delay = self.rng.random_range(within.clone());
            self.after(delay, Event::Dial { node, peer, lane });
        }
    }

    /// The connection of a lane to the present life of `peer` breaks so many microseconds later.
    pub(super) fn hang_up(&mut self, node: NodeId, peer: NodeId, lane: Lane, delay: u64) {
        let life = self.nodes[&peer].lives;
        self.after(delay, Event::Break { node, peer, lane, life });
    }

    pub(super) fn on_dial(&mut self, node: NodeId, peer: NodeId, lane: Lane) {
        let reachable = self.network.reaches(node, peer) && self.network.reaches(peer, node);
        if !reachable || self.nodes[&peer].process.is_none() {
            return; // there will be another, when that changes
        }
        let life = self.nodes[&peer].lives;
        let up = self.lane(node, peer, lane);
        if up.is_some_and(|up| up < life) {
            self.set_lane(node, peer, lane, None);
        }
        self.set_lane(node, peer, lane, Some(life));
    }

    pub(super) fn on_break(&mut self, node: NodeId, peer: NodeId, lane: Lane, life: u64) {
        if self.lane(node, peer, lane) != Some(life) {
            return; // that one is gone already
        }
        self.set_lane(node, peer, lane, None);
        self.count("connection broke");
        let delay = self.rng.random_range(AT_ONCE);
        self.after(delay, Event::Dial { node, peer, lane });
    }

    fn lane(&self, node: NodeId, peer: NodeId, lane: Lane) -> Option<u64> {
        self.nodes[&node].process.as_ref()?.connections.life(peer, lane)
    }

    fn set_lane(&mut self, node: NodeId, peer: NodeId, lane: Lane, life: Option<u64>) {
        let Some(process) = self.node(node).process.as_mut() else { return };
        let before = process.connections.connected(peer);
        process.connections.set(peer, lane, life);
        let connected = process.connections.connected(peer);
        if connected != before {
            process.stepped.connected(peer, connected);
            self.settle(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::plan::{Fault, Mishap, Plan, Whom};
    use std::time::Duration;
    use synod_storage::disk::Survivors;

    type Pairs = BTreeSet<(NodeId, NodeId)>;

    /// Three replicas, of which one is in trouble from the first second to the third.
    fn world(seed: u64, what: Mishap) -> World {
        let (at, lasts) = (Duration::from_secs(1), Duration::from_secs(2));
        let fault = Fault { at, whom: Whom::Number(seed), lasts, what, salt: seed };
        World::new(Plan::quiet(seed, 3, vec![fault]), false)
    }

    fn pairs(world: &World, are: impl Fn(NodeId, NodeId) -> bool) -> Pairs {
        let ids = world.ids();
        let all = ids.iter().flat_map(|&node| ids.iter().map(move |&peer| (node, peer)));
        all.filter(|&(node, peer)| node != peer && are(node, peer)).collect()
    }

    /// Who calls whom connected, at that time.
    fn connected(world: &mut World, millis: u64) -> Pairs {
        world.go(|world| world.now.0 >= millis * 1_000);
        pairs(world, |node, peer| {
            world.nodes[&node].process.as_ref().is_some_and(|process| process.connections.connected(peer))
        })
    }

    #[test]
    fn a_cut_that_is_mended_is_heard_of_on_both_sides() {
        let cuts = [Mishap::Partition, Mishap::OneWay, Mishap::DeafOrMute];
        for (seed, what) in (0..).zip(cuts.into_iter().cycle().take(12)) {
            let mut world = world(seed, what);
            let all = pairs(&world, |_, _| true);
            assert_eq!(connected(&mut world, 980), all, "{what:?}, seed {seed}: they find each other");
            let during = connected(&mut world, 2_980);
            // One direction breaks the connections of both sides.
            let network = &world.network;
            let uncut = |node, peer| network.reaches(node, peer) && network.reaches(peer, node);
            assert_eq!(during, pairs(&world, uncut), "{what:?}, seed {seed}");
            assert_eq!(
                connected(&mut world, 3_600),
                all,
                "{what:?}, seed {seed}: they find each other again"
            );
        }
    }

    #[test]
    fn a_process_that_comes_back_is_dialled_anew() {
        for what in [Mishap::Kill, Mishap::PowerCut { survivors: Survivors::All }] {
            let mut world = world(1, what);
            let all = pairs(&world, |_, _| true);
            assert_eq!(connected(&mut world, 3_100), all, "{what:?}");
            let victim = NodeId(2);
            assert_eq!(world.nodes[&victim].lives, 2, "{what:?}: it was down");
            for peer in [NodeId(1), NodeId(3)] {
                assert_eq!(world.lane(peer, victim, Lane::Protocol), Some(2), "{what:?}");
            }
        }
    }

    #[test]
    fn a_connection_that_breaks_for_nothing_is_dialled_again() {
        let mut world = world(1, Mishap::Checkpoint);
        let mut but_one = connected(&mut world, 900);
        let (node, peer) = (NodeId(1), NodeId(2));
        but_one.remove(&(node, peer));
        let life = world.nodes[&peer].lives;
        world.on_break(node, peer, Lane::Urgent, life);
        assert_eq!(connected(&mut world, 0), but_one, "one lane is enough; the other side has its own");
        assert_eq!(connected(&mut world, 980).len(), but_one.len() + 1);
    }
}

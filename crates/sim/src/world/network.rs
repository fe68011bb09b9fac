//! The network: messages get lost, doubled, delayed, and stuck behind cuts.

use super::plan::Weather;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use synod_paxos::message::Message;
use synod_paxos::types::NodeId;

/// How many old messages are kept to arrive once more.
const ARCHIVE: usize = 100;

/// See the module.
pub(super) struct Network {
    /// How it is.
    pub(super) weather: Weather,
    /// Links that carry nothing, by the number of cuts that lie over them.
    cuts: BTreeMap<(NodeId, NodeId), u32>,
    /// Links that take this much longer, in microseconds.
    pub(super) slow: BTreeMap<(NodeId, NodeId), u64>,
    /// Messages of all times.
    pub(super) archive: Vec<(NodeId, NodeId, Message)>,
}

impl Network {
    /// Without cuts.
    pub(super) fn new(weather: Weather) -> Network {
        Network { weather, cuts: BTreeMap::new(), slow: BTreeMap::new(), archive: Vec::new() }
    }

    /// Lays a cut over some links.
    pub(super) fn cut(&mut self, links: &BTreeSet<(NodeId, NodeId)>) {
        for link in links {
            *self.cuts.entry(*link).or_default() += 1;
        }
    }

    /// Takes it away.
    pub(super) fn mend(&mut self, links: &BTreeSet<(NodeId, NodeId)>) {
        for link in links {
            if let Some(count) = self.cuts.get_mut(link) {
                *count -= 1;
                if *count == 0 {
                    self.cuts.remove(link);
                }
            }
        }
    }

    /// Everything works from now on.
    pub(super) fn heal(&mut self) {
        self.weather = Weather::FAIR;
        self.cuts.clear();
        self.slow.clear();
    }

    /// Does anything get from one to the other?
    pub(super) fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        !self.cuts.contains_key(&(from, to))
    }

    /// When the copies of a message arrive that is sent now: none, one or two of them.
    pub(super) fn fate(&self, from: NodeId, to: NodeId, rng: &mut ChaCha8Rng) -> Vec<Duration> {
        if !self.reaches(from, to) || chance(rng, self.weather.loss) {
            return Vec::new();
        }
        let copies = 1 + usize::from(chance(rng, self.weather.duplication));
        let extra = self.slow.get(&(from, to)).copied().unwrap_or_default();
        let arrival = |_| Duration::from_micros(self.latency(rng) + extra);
        (0..copies).map(arrival).collect()
    }

    /// How long something takes from one to another, in microseconds.
    fn latency(&self, rng: &mut ChaCha8Rng) -> u64 {
        let most = if chance(rng, self.weather.slow) { self.weather.slow_most } else { 500 };
        rng.random_range(40..most)
    }

    /// Keeps some messages for later.
    pub(super) fn archive(&mut self, from: NodeId, to: NodeId, message: &Message, rng: &mut ChaCha8Rng) {
        if !rng.random_ratio(1, 50) {
            return;
        }
        if self.archive.len() < ARCHIVE {
            self.archive.push((from, to, message.clone()));
        } else {
            let place = rng.random_range(0..ARCHIVE);
            self.archive[place] = (from, to, message.clone());
        }
    }
}

/// True for so many in ten thousand.
pub(super) fn chance(rng: &mut ChaCha8Rng, in_ten_thousand: u32) -> bool {
    in_ten_thousand > 0 && rng.random_ratio(in_ten_thousand, 10_000)
}

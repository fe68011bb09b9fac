//! Who is in the picture, in which lane, and in which state at which moment.

use std::collections::BTreeMap;
use synod_paxos::types::NodeId;
use synod_server::trace::{Event, Place, What};

/// A replica that says nothing for this long before the trace ends is taken for gone, in microseconds. Every
/// live one beats or answers forty times in that time.
const SILENCE: u64 = 1_000_000;

/// The place of a lane, from the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Lane(pub(super) usize);

/// What a lane looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody recorded what happens there.
    Unknown,
    /// Its process runs.
    Up,
    /// Its process runs, and its proposer leads.
    Leads,
    /// It does not run.
    Down,
}

#[derive(Clone, Debug)]
struct Replica {
    node: NodeId,
    name: String,
    /// How it looks before anything happens.
    state: State,
    /// Some of what happened there was not written down.
    incomplete: bool,
}

/// All replicas, in the order of their names.
#[derive(Clone, Debug)]
pub(super) struct Lanes(Vec<Replica>);

impl Lanes {
    pub(super) fn of(events: &[Event]) -> Lanes {
        let mut replicas: BTreeMap<NodeId, Replica> = BTreeMap::new();
        for event in events {
            // A replica's own word on its name beats hearsay.
            if let Some(Place { node, name }) = &event.place {
                let starts = matches!(event.what, What::Process { up: true, .. });
                let state = if starts { State::Down } else { State::Up };
                let fresh = Replica { node: *node, name: name.clone(), state, incomplete: false };
                let known = replicas.entry(*node).or_insert_with(|| fresh.clone());
                if known.state == State::Unknown {
                    *known = fresh;
                }
                known.incomplete |= matches!(event.what, What::Dropped { .. });
            }
            let mut hear = |node: NodeId, name: String| {
                let unseen = Replica { node, name, state: State::Unknown, incomplete: false };
                replicas.entry(node).or_insert(unseen);
            };
            match &event.what {
                What::Formed { founders, .. } => {
                    founders.iter().for_each(|place| hear(place.node, place.name.clone()));
                }
                What::Sent { to, .. } => to.iter().for_each(|node| hear(*node, node.to_string())),
                What::Received { from: node, .. }
                | What::Lost { to: node, .. }
                | What::Duplicated { to: node, .. } => hear(*node, node.to_string()),
                _ => {}
            }
        }
        let mut replicas: Vec<Replica> = replicas.into_values().collect();
        replicas.sort_by(|one, other| natural(&one.name).cmp(&natural(&other.name)));
        Lanes(replicas)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|replica| replica.name.as_str())
    }

    pub(super) fn name(&self, lane: Lane) -> &str {
        &self.0[lane.0].name
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Lane> + use<> {
        (0..self.0.len()).map(Lane)
    }

    pub(super) fn by_name(&self, name: &str) -> Option<Lane> {
        self.0.iter().position(|replica| replica.name == name).map(Lane)
    }

    /// The lane of a node that occurs.
    pub(super) fn of_node(&self, node: NodeId) -> Lane {
        Lane(self.0.iter().position(|replica| replica.node == node).expect("everyone who occurs has a lane"))
    }

    pub(super) fn of_event(&self, event: &Event) -> Option<Lane> {
        event.place.as_ref().map(|place| self.of_node(place.node))
    }

    /// Would we know if something happened there?
    pub(super) fn is_known(&self, lane: Lane) -> bool {
        let replica = &self.0[lane.0];
        replica.state != State::Unknown && !replica.incomplete
    }

    /// How the lanes look before anything happens.
    pub(super) fn beginning(&self) -> Vec<State> {
        self.0.iter().map(|replica| replica.state).collect()
    }

    /// How a lane looks after an event there.
    pub(super) fn after(state: State, what: &What) -> State {
        match what {
            What::Process { up: true, .. } | What::Leads { begins: false, .. } => State::Up,
            What::Process { up: false, .. } => State::Down,
            What::Leads { begins: true, .. } => State::Leads,
            _ if state == State::Down => State::Up, // it speaks, so it lives
            _ => state,
        }
    }
}

/// n2 before n10.
pub(super) fn natural(name: &str) -> (&str, u64, &str) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem, name[stem.len()..].parse().unwrap_or(0), name)
}

/// A process that is killed cannot say so. Its last word is followed here by an event that does, if it is
/// started again later, or if the trace goes on long enough without it.
pub(super) fn with_silences(events: Vec<Event>) -> Vec<Event> {
    let end = events.last().map_or(0, |event| event.at);
    let mut last: BTreeMap<NodeId, (usize, &Place)> = BTreeMap::new();
    let mut silent: BTreeMap<usize, &Place> = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        let Some(place) = &event.place else { continue };
        match event.what {
            What::Process { up: false, .. } => {
                last.remove(&place.node);
            }
            What::Process { up: true, .. } => {
                if let Some((word, place)) = last.insert(place.node, (index, place)) {
                    silent.insert(word, place);
                }
            }
            _ => {
                last.insert(place.node, (index, place));
            }
        }
    }
    for (word, place) in last.into_values() {
        if end - events[word].at >= SILENCE {
            silent.insert(word, place);
        }
    }
    let silent: BTreeMap<usize, Place> =
        silent.into_iter().map(|(word, place)| (word, place.clone())).collect();
    let mut told = Vec::with_capacity(events.len() + silent.len());
    for (index, event) in events.into_iter().enumerate() {
        let at = event.at;
        told.push(event);
        if let Some(place) = silent.get(&index) {
            let text = "nothing more is heard of it".to_owned();
            told.push(Event::at(at, place.clone(), What::Process { up: false, text }));
        }
    }
    told
}

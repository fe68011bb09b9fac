//! Which message arrived where, and where on the page its arrow goes.
//!
//! An arrow in one line puts sending and arrival at one place, so one of the two leaves its place in the order of
//! events. That is honest as long as no replica's own events change *their* order: an arrival may move up to its
//! sending if nothing that is shown happened at the receiver in between, and a sending may move down to its
//! arrival if nothing happened at the sender. What can do neither gets two lines.
//!
//! ```text
//!   ●───────▶   both at once               ●───────◌   still on its way
//!                                          │       ■   what came first
//!   ●───────x   lost                       ○┄┄┄┄┄┄┄▶   now it arrives
//! ```

use super::filter::Filter;
use super::lanes::{Lane, Lanes};
use std::collections::{BTreeMap, HashMap};
use synod_paxos::types::NodeId;
use synod_server::trace::{Event, Message, What};

/// One line of the picture: at the place of an event, what is drawn there.
#[derive(Debug)]
pub(super) enum Row<'a> {
    /// Something at one replica, or everywhere.
    Mark(&'a Event),
    /// A message leaves for one or more replicas.
    Arrow {
        from: Lane,
        /// Where it ends, and how, by lane.
        heads: Vec<(Lane, Head)>,
        message: &'a Message,
    },
    /// A message arrives that left further up, or that nobody saw leaving.
    Late {
        from: Lane,
        to: Lane,
        message: &'a Message,
        /// How long it took, in microseconds, if that is known.
        took: Option<u64>,
    },
}

/// How an arrow ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// It arrived, after so many microseconds.
    Arrives { took: u64 },
    /// It never arrived.
    Lost,
    /// It arrives further down, or the trace ends before that.
    OnItsWay,
    /// Nobody recorded whether it arrived.
    Unknown,
}

/// A message from one replica to another; both ends are places in the order of events.
struct Flight<'a> {
    from: Lane,
    to: Lane,
    message: &'a Message,
    sent: Option<usize>,
    received: Option<usize>,
    lost: bool,
    /// The place of its arrow, if it has one line of its own.
    drawn: Option<usize>,
}

/// Where an event is drawn, as a lane sees it: in the original order, so that neighbours tell how far it may move.
#[derive(Clone, Copy)]
struct Point {
    event: usize,
    first: usize,
    last: usize,
}

/// All lines by their places, of what the filter wants. Nothing is known of what it does not want.
pub(super) fn rows<'a>(
    events: &'a [Event],
    lanes: &Lanes,
    filter: &mut Filter<'_>,
) -> BTreeMap<usize, Row<'a>> {
    let mut flights = matched(events, lanes);
    flights.sort_by_key(|flight| flight.sent.or(flight.received));
    flights.retain(|flight| filter.wants_message(flight.from, flight.to, flight.message));
    let mut rows = BTreeMap::new();
    for (place, event) in events.iter().enumerate() {
        let message = matches!(
            event.what,
            What::Sent { .. } | What::Received { .. } | What::Lost { .. } | What::Duplicated { .. }
        );
        if !message && filter.wants_event(lanes.of_event(event), event) {
            rows.insert(place, Row::Mark(event));
        }
    }
    // What a replica tells itself has no arrow; it is a mark where it arrives.
    flights.retain(|flight| {
        let itself = flight.from == flight.to;
        if let (true, Some(place)) = (itself, flight.received) {
            rows.insert(place, Row::Mark(&events[place]));
        }
        !itself
    });
    settle(&mut flights, &rows, lanes);
    draw(&flights, events, lanes, &mut rows);
    rows
}

/// Finds the arrival of every message that left.
fn matched<'a>(events: &'a [Event], lanes: &Lanes) -> Vec<Flight<'a>> {
    // A simulation says what got lost, so of several equal messages the oldest arrives first. Nobody knows of real
    // ones: there a message is said again because the first was lost, and it is the newest that arrives.
    let told = events.iter().any(|event| matches!(event.what, What::Lost { .. }));
    let mut flights: Vec<Flight<'a>> = Vec::new();
    let mut open: HashMap<(NodeId, NodeId, &Message), Vec<usize>> = HashMap::new();
    for (place, event) in events.iter().enumerate() {
        let Some(here) = event.place.as_ref().map(|place| place.node) else { continue };
        let mut begin = |from, to, message, sent, received| {
            let (from, to) = (lanes.of_node(from), lanes.of_node(to));
            flights.push(Flight { from, to, message, sent, received, lost: false, drawn: None });
            flights.len() - 1
        };
        match &event.what {
            What::Sent { to, message } => {
                for &to in to {
                    let flight = begin(here, to, message, Some(place), None);
                    open.entry((here, to, message)).or_default().push(flight);
                }
            }
            What::Duplicated { to, message } => {
                let copy = begin(here, *to, message, Some(place), None);
                open.entry((here, *to, message)).or_default().push(copy);
            }
            What::Received { from, message } => {
                let waiting = open.entry((*from, here, message)).or_default();
                if waiting.is_empty() {
                    begin(*from, here, message, None, Some(place));
                } else {
                    let flight = if told { waiting.remove(0) } else { waiting.pop().expect("not empty") };
                    flights[flight].received = Some(place);
                }
            }
            What::Lost { to, message } => {
                let flight = match open.get_mut(&(here, *to, message)).and_then(Vec::pop) {
                    Some(flight) => flight,
                    None => begin(here, *to, message, Some(place), None),
                };
                flights[flight].lost = true;
            }
            _ => {}
        }
    }
    flights
}

/// Gives every flight that may have one line its place.
fn settle(flights: &mut [Flight<'_>], rows: &BTreeMap<usize, Row<'_>>, lanes: &Lanes) {
    let mut points: Vec<Vec<Point>> = vec![Vec::new(); lanes.all().count()];
    let mut add = |lane: Lane, event| points[lane.0].push(Point { event, first: event, last: event });
    for (&place, row) in rows {
        match row {
            Row::Mark(event) => match lanes.of_event(event) {
                Some(lane) => add(lane, place),
                None => lanes.all().for_each(|lane| add(lane, place)),
            },
            Row::Arrow { .. } | Row::Late { .. } => unreachable!("there are only marks yet"),
        }
    }
    for flight in flights.iter() {
        flight.sent.into_iter().for_each(|sent| add(flight.from, sent));
        flight.received.into_iter().for_each(|received| add(flight.to, received));
    }
    for lane in &mut points {
        lane.sort_by_key(|point| point.event);
        lane.dedup_by_key(|point| point.event); // a broadcast leaves once
    }
    let find = |points: &[Point], event| {
        points.binary_search_by_key(&event, |point| point.event).expect("every end is a point of its lane")
    };

    // Arrivals move up, the first one first: behind it there is room for the next.
    let mut up: Vec<usize> = (0..flights.len()).collect();
    up.sort_by_key(|&index| flights[index].received);
    for index in up {
        let flight = &mut flights[index];
        let (Some(sent), Some(received)) = (flight.sent, flight.received) else { continue };
        let lane = &mut points[flight.to.0];
        let here = find(lane, received);
        if here == 0 || lane[here - 1].last < sent {
            lane[here] = Point { event: received, first: sent, last: sent };
            flight.drawn = Some(sent);
        }
    }

    // Sendings move down, the last one first. What left as a broadcast moves with the part that can.
    let mut down: BTreeMap<(usize, Lane), Vec<usize>> = BTreeMap::new();
    for (index, flight) in flights.iter().enumerate() {
        if let Some(sent) = flight.sent {
            down.entry((sent, flight.from)).or_default().push(index);
        }
    }
    for ((sent, from), group) in down.into_iter().rev() {
        let lane = &mut points[from.0];
        let here = find(lane, sent);
        let room = lane.get(here + 1).map_or(usize::MAX, |next| next.first);
        let mut stays = false;
        let mut moved: Vec<usize> = Vec::new();
        for index in group {
            let flight = &mut flights[index];
            match flight.received {
                Some(received) if flight.drawn.is_none() && received < room => {
                    flight.drawn = Some(received);
                    moved.push(received);
                }
                _ => stays = true,
            }
        }
        if let (Some(&first), Some(&last)) = (moved.iter().min(), moved.iter().max()) {
            lane[here] = Point { event: sent, first: if stays { sent } else { first }, last };
        }
    }
}

/// Makes lines of flights.
fn draw<'a>(flights: &[Flight<'a>], events: &[Event], lanes: &Lanes, rows: &mut BTreeMap<usize, Row<'a>>) {
    let end = last_words(events, lanes);
    for flight in flights {
        let Flight { from, to, message, sent, received, lost, drawn } = *flight;
        let took = sent.zip(received).map(|(sent, received)| events[received].at - events[sent].at);
        let mut head = |place, head| {
            let row = rows.entry(place).or_insert_with(|| Row::Arrow { from, heads: Vec::new(), message });
            match row {
                Row::Arrow { heads, .. } => heads.push((to, head)),
                Row::Mark(_) | Row::Late { .. } => unreachable!("a place belongs to one event"),
            }
        };
        match (drawn, sent, received) {
            (Some(place), ..) => head(place, Head::Arrives { took: took.unwrap_or_default() }),
            (None, Some(sent), Some(received)) => {
                head(sent, Head::OnItsWay);
                rows.insert(received, Row::Late { from, to, message, took });
            }
            (None, None, Some(received)) => {
                rows.insert(received, Row::Late { from, to, message, took });
            }
            (None, Some(sent), None) => head(
                sent,
                match end[to.0] {
                    _ if lost => Head::Lost,
                    _ if !lanes.is_known(to) => Head::Unknown,
                    Some(last) if last < sent => Head::OnItsWay,
                    _ => Head::Lost,
                },
            ),
            (None, None, None) => unreachable!("a flight has an end"),
        }
    }
}

/// The last event of each lane whose trace may go on; none of those whose process is known to have ended.
fn last_words(events: &[Event], lanes: &Lanes) -> Vec<Option<usize>> {
    let mut last = vec![None; lanes.all().count()];
    for (place, event) in events.iter().enumerate() {
        if let Some(lane) = lanes.of_event(event) {
            let ended = matches!(event.what, What::Process { up: false, .. });
            last[lane.0] = (!ended).then_some(place);
        }
    }
    last
}

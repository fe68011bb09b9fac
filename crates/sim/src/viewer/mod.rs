//! A trace as a picture: time runs down, every replica is a lane, messages are arrows between lanes.
//!
//! ```text
//!       ms  n1      n2      n3
//!    0.000  ●───────▶───────▶  Prepare 1.n1: slots from 1
//!    0.412  │       ■       │  on disk: promised 1.n1
//!    0.520  ◀───────●       │  Promise 1.n1: accepted nothing from slot 1 on
//!    0.633  ★       │       │  leads with 1.n1
//!    0.702  ●───────x───────▶  Accept 1.n1 slot 1: put a (n1/1)
//! ```
//!
//! What was sent is matched with what was received by its content (`flights`); an arrow takes one line when
//! that puts no replica's events into another order, and two otherwise: one where it leaves, one where it
//! arrives. `lanes` knows who is up and who leads, `filter` what is worth showing, `repeats` what was said
//! before, `words` what to call it; `draw` puts it on the page.

mod draw;
mod filter;
mod flights;
mod lanes;
mod repeats;
mod words;

use lanes::Lanes;
use std::time::Duration;
pub use synod_paxos::types::Slot;
use synod_server::trace::Event;

/// What to show, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Heartbeats, progress reports and what replicas tell themselves, too.
    pub all: bool,
    /// Only what concerns this slot, and what befell replicas.
    pub slot: Option<Slot>,
    /// Only what the replica of this name does, hears and says.
    pub node: Option<String>,
    /// Only from this time on, counted from the first event of the trace.
    pub from: Option<Duration>,
    /// Only up to this time, counted from the first event of the trace.
    pub to: Option<Duration>,
    /// Of all that, only so many of the last lines.
    pub last: Option<usize>,
    /// How many columns of text there are. Long texts are continued below themselves.
    pub width: usize,
    /// Paint with ANSI colours.
    pub colour: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            all: false,
            slot: None,
            node: None,
            from: None,
            to: None,
            last: None,
            width: 120,
            colour: false,
        }
    }
}

/// Why there is no picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// The one replica that is wanted does not occur.
    #[error("there is no replica {name:?} in the trace; there are {}", known.join(", "))]
    NoSuchNode {
        /// Who is wanted.
        name: String,
        /// Who occurs.
        known: Vec<String>,
    },
}

/// The picture of a trace. Its [`std::fmt::Display`] is the picture.
#[derive(Clone, Debug)]
pub struct Diagram {
    /// In order of time; what replicas no longer say is among them.
    events: Vec<Event>,
    lanes: Lanes,
    options: Options,
}

/// Draws what happened. Events may come in any order; those of one time stay in the order in which they came.
///
/// # Errors
/// If the one replica that is wanted does not occur.
pub fn diagram(events: impl IntoIterator<Item = Event>, options: Options) -> Result<Diagram, ViewError> {
    let mut events: Vec<Event> = events.into_iter().collect();
    events.sort_by_key(|event| event.at);
    let events = lanes::with_silences(events);
    let lanes = Lanes::of(&events);
    if let Some(name) = &options.node
        && lanes.by_name(name).is_none()
    {
        let known = lanes.names().map(str::to_owned).collect();
        return Err(ViewError::NoSuchNode { name: name.clone(), known });
    }
    Ok(Diagram { events, lanes, options })
}

#[cfg(test)]
mod tests;

//! The clients: plausible things, done to a few keys, through replicas picked at
//! random.
//!
//! Each client has a deck with its minimum of puts, gets and deletes, shuffled.
//! A card whose operation failed goes back to the bottom. Once the deck is empty
//! it goes on with single cards until the run has seen enough. Every put writes a
//! value of its own, so that whoever reads it knows which put it was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use std::collections::VecDeque;

use synod_sim::{Call, ClientId, Key, Value};
use tokio::time::{sleep, timeout_at};

use super::{Part, Stage};
use crate::cluster::call::perform;
use crate::cluster::chance::Chance;

const FRUIT: [&str; 12] = [
    "apple",
    "banana",
    "cherry",
    "date",
    "elderberry",
    "fig",
    "grape",
    "kiwi",
    "lemon",
    "mango",
    "nectarine",
    "orange",
];
const COLOURS: [&str; 8] = ["red", "green", "blue", "yellow", "purple", "orange", "white", "black"];

/// The client that fills the store before the others come.
const SET_UP: ClientId = ClientId(0);

/// How much the clients do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    /// At least as many puts, gets and deletes of each client.
    pub(super) each: usize,
    /// Mean time that a client waits between two operations.
    pub(super) pause: Duration,
    /// Not before this.
    pub(super) not_before: Instant,
    /// And not before as many faults struck while requests were open.
    pub(super) strikes: u32,
    /// But at the latest now, whatever is missing.
    pub(super) deadline: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Card {
    Put,
    Get,
    Delete,
}

const CARDS: [Card; 3] = [Card::Put, Card::Get, Card::Delete];

/// The keys that everything is about.
pub(super) fn keys(count: usize) -> Vec<Key> {
    let name = |index: usize| match FRUIT.get(index) {
        Some(fruit) => format!("fruit/{fruit}"),
        None => format!("fruit/{index}"),
    };
    (0..count).map(|index| Key(name(index).into_bytes())).collect()
}

/// Fills the store: each key once, through one replica after the other.
///
/// # Errors
/// With the error of the first put that failed: nothing is broken yet.
pub(super) async fn set_up(stage: &Stage) -> Result<(), String> {
    for (index, key) in stage.keys.iter().enumerate() {
        let node = &stage.nodes[index % stage.nodes.len()];
        let value = Value(format!("{} 0.{index}", COLOURS[index % COLOURS.len()]).into_bytes());
        let done = perform(&stage.recorder, node, SET_UP, Call::Put { key: key.clone(), value }).await;
        stage.done(&done);
        if let Some(error) = done.error {
            return Err(format!("put {key} through {} failed: {error}", node.name));
        }
    }
    Ok(())
}

/// One client, from its first to its last operation. Returns how many of its
/// minimum it did not get done before the deadline.
pub(super) async fn client(stage: Arc<Stage>, number: u32, goal: Goal) -> usize {
    let mut chance = Chance::new(stage.seed, Part::Client(number).stream());
    let mut deck: Vec<Card> = CARDS.into_iter().flat_map(|card| vec![card; goal.each]).collect();
    chance.shuffle(&mut deck);
    let mut deck = VecDeque::from(deck);
    for serial in 1.. {
        if Instant::now() >= goal.deadline {
            break;
        }
        let card = match deck.pop_front() {
            Some(card) => card,
            None if stage.seen_enough(&goal) => break,
            None => *chance.pick(&CARDS),
        };
        let node = chance.pick(&stage.nodes);
        let key = chance.pick(&stage.keys).clone();
        let call = match card {
            Card::Put => {
                let value = format!("{} {number}.{serial}", chance.pick(&COLOURS));
                Call::Put { key, value: Value(value.into_bytes()) }
            }
            Card::Get => Call::Get { key },
            Card::Delete => Call::Delete { key },
        };
        let done = perform(&stage.recorder, node, ClientId(number), call).await;
        if done.error.is_some() {
            deck.push_back(card);
        }
        stage.done(&done);
        // Not above the deadline: what is left of the deck says what is missing.
        let deadline = tokio::time::Instant::from_std(goal.deadline);
        let _ = timeout_at(deadline, sleep(chance.around(goal.pause))).await;
    }
    deck.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_names_and_are_never_the_same() {
        let keys = keys(30);
        assert_eq!(keys[7], Key::from("fruit/kiwi"));
        assert_eq!(keys[20], Key::from("fruit/20"));
        let different: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(different.len(), 30);
    }
}

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

use bytes::Bytes;
use synod_client::rpc::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeResponse, ResponseHeader,
};
use synod_client::rpc::mvccpb::KeyValue;
use synod_client::{ClientError, Outcome, requests};
use synod_sim::{Call, ClientId, Entry, Key, Operation, Revision, Saw, Value, Version};
use tokio::time::{sleep, timeout_at};

use super::Stage;
use super::chance::{Chance, Part};
use super::cluster::Node;
use super::record::Recorder;

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

/// An operation that ended, and how it looked to its client.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) operation: Operation,
    pub(super) took: Duration,
    pub(super) error: Option<String>,
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
    let mut chance = Chance::new(stage.seed, Part::Client(number));
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

/// Sends one call to one replica, once, and writes down what became of it.
pub(super) async fn perform(recorder: &Arc<Recorder>, node: &Node, client: ClientId, call: Call) -> Done {
    let started = Instant::now();
    let open = recorder.begin(client, &node.name, call.clone());
    let answer = match &call {
        Call::Put { key, value } => {
            let (key, value) = (Bytes::from(key.0.clone()), Bytes::from(value.0.clone()));
            let request = PutRequest { prev_kv: true, ..requests::put(key, value) };
            node.replica.put(request).await.map(|answer| told_by_put(&answer))
        }
        Call::Get { key } => {
            let request = requests::get(key.0.clone());
            node.replica.range(request).await.map(|answer| told_by_get(&answer))
        }
        Call::Delete { key } => {
            let request = DeleteRangeRequest { prev_kv: true, ..requests::delete(key.0.clone()) };
            node.replica.delete_range(request).await.map(|answer| told_by_delete(&answer))
        }
    };
    let took = started.elapsed();
    let (operation, error) = match answer {
        Ok(Some((revision, saw))) => (open.answered(revision, saw), None),
        Ok(None) => (open.unknown(), Some("an answer without a header".to_owned())),
        Err(ClientError { failure, outcome, .. }) => {
            let operation = match outcome {
                Outcome::NotApplied => open.not_applied(),
                Outcome::Unknown => open.unknown(),
            };
            (operation, Some(failure.to_string()))
        }
    };
    Done { operation, took, error }
}

type Told = Option<(Revision, Saw)>;

fn told_by_put(answer: &PutResponse) -> Told {
    let saw = answer.prev_kv.as_ref().map_or(Saw::Absent, |kv| Saw::Was(entry(kv)));
    Some((revision(answer.header.as_ref())?, saw))
}

fn told_by_get(answer: &RangeResponse) -> Told {
    let saw = answer.kvs.first().map_or(Saw::Absent, |kv| Saw::Was(entry(kv)));
    Some((revision(answer.header.as_ref())?, saw))
}

fn told_by_delete(answer: &DeleteRangeResponse) -> Told {
    let saw = match (answer.deleted, answer.prev_kvs.first()) {
        (0, _) => Saw::Absent,
        (_, Some(kv)) => Saw::Was(entry(kv)),
        (_, None) => Saw::Present,
    };
    Some((revision(answer.header.as_ref())?, saw))
}

fn revision(header: Option<&ResponseHeader>) -> Option<Revision> {
    header.map(|header| Revision(header.revision.unsigned_abs()))
}

/// A key and its value, as the judges know them.
pub(super) fn entry(kv: &KeyValue) -> Entry {
    Entry {
        value: Value(kv.value.to_vec()),
        version: Version(kv.version.unsigned_abs()),
        created: Revision(kv.create_revision.unsigned_abs()),
        modified: Revision(kv.mod_revision.unsigned_abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: 9, ..ResponseHeader::default() })
    }

    fn kv() -> KeyValue {
        KeyValue {
            key: "k".into(),
            value: "v".into(),
            version: 3,
            create_revision: 4,
            mod_revision: 8,
            lease: 0,
        }
    }

    fn seen() -> Saw {
        Saw::Was(Entry {
            value: "v".into(),
            version: Version(3),
            created: Revision(4),
            modified: Revision(8),
        })
    }

    #[test]
    fn answers_are_told_in_the_words_of_the_judges() {
        let put = |prev_kv| told_by_put(&PutResponse { header: header(), prev_kv });
        assert_eq!(put(None), Some((Revision(9), Saw::Absent)));
        assert_eq!(put(Some(kv())), Some((Revision(9), seen())));

        let get = |kvs| told_by_get(&RangeResponse { header: header(), kvs, ..RangeResponse::default() });
        assert_eq!(get(vec![]), Some((Revision(9), Saw::Absent)));
        assert_eq!(get(vec![kv()]), Some((Revision(9), seen())));

        let delete =
            |deleted, prev_kvs| told_by_delete(&DeleteRangeResponse { header: header(), deleted, prev_kvs });
        assert_eq!(delete(0, vec![]), Some((Revision(9), Saw::Absent)));
        assert_eq!(delete(1, vec![]), Some((Revision(9), Saw::Present)));
        assert_eq!(delete(1, vec![kv()]), Some((Revision(9), seen())));
        assert_eq!(told_by_put(&PutResponse::default()), None);
    }

    #[test]
    fn keys_have_names_and_are_never_the_same() {
        let keys = keys(30);
        assert_eq!(keys[7], Key::from("fruit/kiwi"));
        assert_eq!(keys[20], Key::from("fruit/20"));
        let different: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(different.len(), 30);
    }
}

//! Clients, and probes beside them.
//!
//! A client picks a key, an operation and a server, mostly one that is well, and now and then one that is not: what
//! a server says while it is cut off is held against it too. Every value is written once. A probe sits at each
//! server and writes to a key of its own without end, so that the time between two acknowledged writes is the
//! cluster's and not the clients'.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use synod_sim::{Call, ClientId, Key, Revision, Saw, Value};
use tokio::sync::watch;
use tokio::time::sleep;

use super::stage::Stage;
use crate::cluster::call::{Done, perform, swap};
use crate::cluster::chance::Chance;
use crate::cluster::judge::Check;

/// Mean time that a client waits between two calls.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a probe waits between two writes: the resolution of the longest time without one.
const PROBE_PAUSE: Duration = Duration::from_millis(10);
/// After an error: a server that is down answers fast.
const AFTER_ERROR: Duration = Duration::from_millis(20);
/// One call of so many may go to a server in trouble.
const ANYWHERE: u64 = 8;
/// Numbers of clients from here on are those of probes.
const PROBES: u32 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Card {
    Put,
    Get,
    Delete,
    Txn,
}

/// As often as they stand here.
const DECK: [Card; 20] = {
    use Card::{Delete, Get, Put, Txn};
    [Put, Put, Put, Put, Put, Put, Put, Get, Get, Get, Get, Get, Get, Get, Txn, Txn, Txn, Txn, Delete, Delete]
};

/// The clients' keys.
pub(super) fn keys(count: usize) -> Vec<Key> {
    (0..count).map(|index| Key(format!("chaos/{index:03}").into_bytes())).collect()
}

/// The key of the probe at a server.
pub(super) fn probe_key(name: &str) -> Key {
    Key(format!("probe/{name}").into_bytes())
}

/// One client, until `stop`.
pub(super) async fn client(stage: Arc<Stage>, number: u32, stop: watch::Receiver<bool>) {
    let mut chance = Chance::new(stage.seed, u64::from(number));
    // What it saw last of each key, for its transactions.
    let mut seen: BTreeMap<Key, Option<Revision>> = BTreeMap::new();
    for serial in 1_u64.. {
        if *stop.borrow() {
            return;
        }
        let place = match chance.within(1..=ANYWHERE) {
            1 => chance.within(0..=stage.nodes.len() as u64 - 1) as usize,
            _ => *chance.pick(&stage.living()),
        };
        let card = *chance.pick(&DECK);
        let shared = chance.pick(&stage.keys);
        let key = shared.key.clone();
        let value = Value(format!("{number}.{serial}").into_bytes());
        let done = {
            let _turn = shared.places.acquire().await.expect("nobody closes it");
            let _open = stage.gate.read().await;
            let expected = seen.get(&key).copied().flatten();
            one(&stage, number, place, card, (key.clone(), value), expected).await
        };
        if let Some(answer) = done.operation.answer() {
            let now = match (&done.operation.call, &answer.saw) {
                (Call::Put { .. }, _) => Some(answer.revision),
                (Call::Get { .. }, Saw::Was(entry)) => Some(entry.modified),
                _ => None,
            };
            seen.insert(key, now);
        }
        let pause = chance.around(PAUSE);
        sleep(if done.error.is_some() { pause.max(AFTER_ERROR) } else { pause }).await;
    }
}

async fn one(
    stage: &Stage,
    number: u32,
    place: usize,
    card: Card,
    (key, value): (Key, Value),
    expected: Option<Revision>,
) -> Done {
    let node = &stage.nodes[place];
    let counts = stage.counts(place);
    let client = ClientId(number);
    let call = match card {
        Card::Put => Call::Put { key, value },
        Card::Get => Call::Get { key },
        Card::Delete => Call::Delete { key },
        Card::Txn => {
            let (done, against) = swap(&stage.recorder, node, client, (key, value), expected).await;
            if let Some(against) = against {
                stage.breaks(Check::wrong("transactions", against));
            }
            stage.done(&done, counts);
            return done;
        }
    };
    let done = perform(&stage.recorder, node, client, call).await;
    stage.done(&done, counts);
    done
}

/// The probe at a server, until `stop`.
pub(super) async fn probe(stage: Arc<Stage>, place: usize, stop: watch::Receiver<bool>) {
    let node = Arc::clone(&stage.nodes[place]);
    let (key, client) = (probe_key(&node.name), ClientId(PROBES + place as u32));
    for serial in 1_u64.. {
        if *stop.borrow() {
            return;
        }
        let value = Value(format!("{}.{serial}", node.name).into_bytes());
        let counts = stage.counts(place);
        let done = perform(&stage.recorder, &node, client, Call::Put { key: key.clone(), value }).await;
        stage.done(&done, counts);
        sleep(if done.error.is_some() { AFTER_ERROR } else { PROBE_PAUSE }).await;
    }
}

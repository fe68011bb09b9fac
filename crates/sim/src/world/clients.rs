//! The clients: each asks one thing at a time of one replica, and remembers what it was told.
//!
//! A put carries a value that nobody else ever writes, so that a history shows at once who saw what. A client that
//! loses its patience, or its server, does not know what became of its write, and says so in the history.

use super::plan::Demand;
use crate::history::{
    Answer as Told, Call, ClientId, Entry, History, Key, Moment, Operation, Outcome, Revision, Saw, Value,
    Version,
};
use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use synod_kv::{
    Applied, Compare, DeleteRangeRequest, KeyRange, KeyValue, Operand, PutRequest, RangeEnd, RangeRequest,
    Relation, Request, Response, Store, TxnRequest,
};
use synod_paxos::types::{NodeId, Prefix, Time};
use synod_server::replica::{Answer, Pending, RequestError, Stepped};
use tokio::sync::oneshot::error::TryRecvError;

/// What a client waits for.
enum Waits {
    /// For a write: the encoded request, and its answer.
    Write { request: Bytes, answer: Pending<Answer> },
    /// To be told how far the store must be applied.
    Read { floor: Prefix, need: Pending<Prefix> },
    /// For the store to be applied that far.
    Look { floor: Prefix, need: Prefix },
}

/// A request under way.
struct Asked {
    via: NodeId,
    invoked: Time,
    want: Want,
    waits: Waits,
    number: u64,
}

/// What a client asks for.
#[derive(Clone, Debug)]
enum Want {
    Put {
        key: u32,
        value: Bytes,
        prev: bool,
    },
    Delete {
        key: u32,
        number: u64,
    },
    Get {
        key: u32,
    },
    /// Put if the key is still at a revision that was seen, else read it.
    Swap {
        key: u32,
        seen: u64,
        value: Bytes,
    },
}

/// One client.
pub(super) struct Client {
    id: u32,
    asked: Option<Asked>,
    /// How many requests it still has.
    left: u32,
    /// The last revision it saw of each key.
    seen: Vec<u64>,
}

/// Where and when a client asks.
pub(super) struct Counter<'a> {
    /// The replica.
    pub(super) via: NodeId,
    pub(super) stepped: &'a Stepped,
    /// What a read that arrives now must at least see.
    pub(super) floor: Prefix,
    pub(super) now: Time,
}

/// What came of looking after a client.
pub(super) enum Progress {
    /// It still waits, or has nothing to wait for.
    Nothing,
    /// A write was answered.
    Wrote { request: Bytes, answer: Answer },
    /// A read was answered.
    Read { floor: Prefix, applied: Prefix },
    /// It will never know.
    Lost,
}

impl Client {
    /// A client of so many requests.
    pub(super) fn new(id: u32, demand: &Demand) -> Client {
        Client { id, asked: None, left: demand.requests, seen: vec![0; demand.keys as usize] }
    }

    /// The replica that it waits for, and the number of its request.
    pub(super) fn waits(&self) -> Option<(NodeId, u64)> {
        self.asked.as_ref().map(|asked| (asked.via, asked.number))
    }

    /// Has it nothing left to ask?
    pub(super) fn is_done(&self) -> bool {
        self.left == 0 && self.asked.is_none()
    }

    /// It has at most so many requests left.
    pub(super) fn hurry(&mut self, most: u32) {
        self.left = self.left.min(most);
    }

    /// Asks the next thing of `stepped`. None if it was refused or nothing is left to ask; otherwise what was asked.
    pub(super) fn ask(
        &mut self,
        number: u64,
        demand: &Demand,
        at: &Counter<'_>,
        rng: &mut ChaCha8Rng,
    ) -> Option<String> {
        if self.left == 0 {
            return None;
        }
        let want = self.want(number, demand, rng);
        let text = format!("{want:?}");
        let waits = match &want {
            Want::Get { .. } => Waits::Read { floor: at.floor, need: at.stepped.ask_to_read().ok()? },
            want => {
                let request = want.request().encode();
                Waits::Write { answer: at.stepped.propose(request.clone()).ok()?, request }
            }
        };
        self.left -= 1;
        self.asked = Some(Asked { via: at.via, invoked: at.now, want, waits, number });
        Some(text)
    }

    fn want(&self, number: u64, demand: &Demand, rng: &mut ChaCha8Rng) -> Want {
        let key = rng.random_range(0..demand.keys);
        let mut value = format!("v{number}").into_bytes();
        value.resize(value.len() + rng.random_range(0..=demand.value), b'.');
        let value = Bytes::from(value);
        match rng.random_range(0..10) {
            0..4 => Want::Put { key, value, prev: rng.random_bool(0.5) },
            4 => Want::Delete { key, number },
            5 => Want::Swap { key, seen: self.seen[key as usize], value },
            _ => Want::Get { key },
        }
    }

    /// Has the answer come? `stepped` is the replica it waits for.
    pub(super) fn look_after(&mut self, stepped: &Stepped, now: Time, history: &mut History) -> Progress {
        let Some(asked) = &mut self.asked else { return Progress::Nothing };
        if let Waits::Read { floor, need } = &mut asked.waits {
            match need.try_recv() {
                Ok(Ok(need)) => asked.waits = Waits::Look { floor: *floor, need },
                Ok(Err(_)) | Err(TryRecvError::Closed) => return self.give_up(history),
                Err(TryRecvError::Empty) => return Progress::Nothing,
            }
        }
        match &mut asked.waits {
            Waits::Write { request, answer } => match answer.try_recv() {
                Ok(Ok(answer)) => {
                    let request = request.clone();
                    self.on_written(&answer, now, history);
                    Progress::Wrote { request, answer }
                }
                Ok(Err(RequestError::Busy)) => self.end(None, Outcome::NotApplied, history),
                Ok(Err(_)) | Err(TryRecvError::Closed) => self.give_up(history),
                Err(TryRecvError::Empty) => Progress::Nothing,
            },
            Waits::Look { floor, need } => {
                let floor = *floor;
                let key = key_of(asked.want.key());
                let seen = stepped.look(*need, |store| read(store, key));
                let Some((found, revision)) = seen else { return Progress::Nothing };
                let Some((applied, _)) = stepped.applied() else { return Progress::Nothing };
                self.saw(found, revision, now, history);
                Progress::Read { floor, applied }
            }
            Waits::Read { .. } => Progress::Nothing,
        }
    }

    /// It stops waiting.
    pub(super) fn give_up(&mut self, history: &mut History) -> Progress {
        if self.asked.is_some() { self.end(None, Outcome::Unknown, history) } else { Progress::Nothing }
    }

    fn on_written(&mut self, answer: &Answer, now: Time, history: &mut History) {
        let Some(asked) = &self.asked else { return };
        let Answer::Store(Ok(Applied { response, revision })) = answer else {
            self.end(None, Outcome::NotApplied, history);
            return;
        };
        let (call, saw) = match (&asked.want, response) {
            (Want::Put { prev: true, .. }, Response::Put(put)) => {
                (None, put.prev.as_ref().map_or(Saw::Absent, |kv| Saw::Was(entry(kv))))
            }
            (Want::Delete { .. }, Response::DeleteRange(deleted)) if deleted.deleted > 0 => {
                (None, Saw::Present)
            }
            (Want::Delete { .. }, Response::DeleteRange(_)) => (None, Saw::Absent),
            (Want::Swap { key, .. }, Response::Txn(txn)) if !txn.succeeded => {
                // It only read.
                let found = txn.responses.first().and_then(|nested| match &nested.response {
                    Response::Range(range) => range.kvs.first(),
                    _ => None,
                });
                (Some(Call::Get { key: name(*key) }), found.map_or(Saw::Absent, |kv| Saw::Was(entry(kv))))
            }
            _ => (None, Saw::NotAsked),
        };
        let outcome = self.told(saw, revision.0, now);
        self.end(call, outcome, history);
    }

    fn saw(&mut self, found: Option<KeyValue>, revision: u64, now: Time, history: &mut History) {
        let saw = found.as_ref().map_or(Saw::Absent, |kv| Saw::Was(entry(kv)));
        let outcome = self.told(saw, revision, now);
        self.end(None, outcome, history);
    }

    fn told(&mut self, saw: Saw, revision: u64, now: Time) -> Outcome {
        if let (Some(asked), Saw::Was(entry)) = (&self.asked, &saw) {
            self.seen[asked.want.key() as usize] = entry.modified.0;
        }
        Outcome::Answered(Told { returned: Moment(now.0), revision: Revision(revision), saw })
    }

    fn end(&mut self, call: Option<Call>, outcome: Outcome, history: &mut History) -> Progress {
        let Some(asked) = self.asked.take() else { return Progress::Nothing };
        let call = call.unwrap_or_else(|| match asked.want {
            Want::Put { key, value, .. } | Want::Swap { key, value, .. } => {
                Call::Put { key: name(key), value: Value(value.to_vec()) }
            }
            Want::Delete { key, .. } => Call::Delete { key: name(key) },
            Want::Get { key } => Call::Get { key: name(key) },
        });
        let operation = Operation {
            client: ClientId(self.id),
            via: Some(asked.via.to_string()),
            invoked: Moment(asked.invoked.0),
            call,
            outcome,
        };
        history.push(operation).expect("what clients record makes sense");
        Progress::Lost
    }
}

impl Want {
    fn key(&self) -> u32 {
        match self {
            Want::Put { key, .. } | Want::Delete { key, .. } | Want::Get { key } | Want::Swap { key, .. } => {
                *key
            }
        }
    }

    fn request(&self) -> Request {
        let get = |key: u32| Request::Range(RangeRequest::new(KeyRange::single(key_of(key))));
        match self {
            Want::Put { key, value, prev } => {
                let mut put = PutRequest::new(key_of(*key), value.clone());
                put.prev_kv = *prev;
                Request::Put(put)
            }
            Want::Delete { key, number } => {
                // An interval that holds this key alone, and is nobody else's request.
                let mut end = key_of(*key).to_vec();
                end.push(0);
                end.extend(number.to_be_bytes());
                let range = KeyRange { key: key_of(*key), end: RangeEnd::Before(Bytes::from(end)) };
                Request::DeleteRange(DeleteRangeRequest::new(range))
            }
            Want::Get { key } => get(*key),
            Want::Swap { key, seen, value } => Request::Txn(TxnRequest {
                compares: vec![unchanged_since(*key, *seen)],
                success: vec![Request::Put(PutRequest::new(key_of(*key), value.clone()))],
                // The past, too, which the replicas may have on disk, each in its own files or in none.
                failure: [get(*key)].into_iter().chain(everything_at(*seen)).collect(),
            }),
        }
    }
}

fn unchanged_since(key: u32, revision: u64) -> Compare {
    let operand = Operand::Mod(i64::try_from(revision).unwrap_or(i64::MAX));
    Compare { range: KeyRange::single(key_of(key)), relation: Relation::Equal, operand }
}

fn everything_at(revision: u64) -> Option<Request> {
    let revision = synod_kv::Revision::from_wire(i64::try_from(revision).ok()?);
    revision
        .is_some()
        .then(|| Request::Range(RangeRequest { revision, ..RangeRequest::new(KeyRange::all()) }))
}

fn key_of(key: u32) -> Bytes {
    Bytes::from(format!("k{key}"))
}

fn name(key: u32) -> Key {
    Key(key_of(key).to_vec())
}

fn entry(kv: &KeyValue) -> Entry {
    Entry {
        value: Value(kv.value.to_vec()),
        version: Version(kv.version),
        created: Revision(kv.create_revision.0),
        modified: Revision(kv.mod_revision.0),
    }
}

fn read(store: &Store, key: Bytes) -> (Option<KeyValue>, u64) {
    let range = store.range(&RangeRequest::new(KeyRange::single(key)));
    let found = range.ok().and_then(Result::ok).and_then(|range| range.kvs.into_iter().next());
    (found, store.revision().0)
}

//! What is asked for: requests, encoded as far as they can be before it counts, and what a right answer is.
//!
//! All keys have the same length, and so have all values. So a request differs from the next in a few bytes at known
//! places: it is encoded once, and copied with another key written over the first.

use bytes::{BufMut, Bytes, BytesMut};
use clap::ValueEnum;
use prost::Message;
use serde::Serialize;
use synod_client::requests;
use synod_client::rpc::etcdserverpb::compare::{CompareResult, TargetUnion};
use synod_client::rpc::etcdserverpb::{
    PutRequest, PutResponse, RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse,
};

use super::tally::Fault;
use super::wire::PREFIX;
use crate::cluster::chance::Chance;

/// What all keys begin with, so that they meet no others.
pub(super) const KEY_PREFIX: &str = "bench/";
/// So many keys are written at once to fill the store; etcd takes up to 128 operations in a transaction.
pub(super) const FILL_CHUNK: u64 = 100;
/// So many bytes of a value are different each time it is written.
const FRESH: usize = size_of::<u64>();

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Workload {
    /// Write a key
    Put,
    /// Read a key, linearizable
    Get,
    /// Read a key as one server knows it
    Serializable,
    /// Linearizable reads, and some writes among them (--reads)
    Mixed,
    /// Read a key, and write it if nobody has written it meanwhile
    Txn,
}

impl Workload {
    /// As it is typed and shown.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) keys: u64,
    /// In bytes.
    pub(super) key_size: usize,
    /// In bytes.
    pub(super) value_size: usize,
}

impl Shape {
    /// The shortest keys that so many different ones can have, in bytes.
    pub(super) fn least_key_size(keys: u64) -> usize {
        KEY_PREFIX.len() + keys.saturating_sub(1).checked_ilog10().map_or(1, |log| log as usize + 1)
    }

    /// Writes the key of this number, which fits into the key's size.
    fn write_key(&self, mut number: u64, key: &mut [u8]) {
        let (prefix, digits) = key.split_at_mut(KEY_PREFIX.len());
        prefix.copy_from_slice(KEY_PREFIX.as_bytes());
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }

    fn key(&self, number: u64) -> Bytes {
        let mut key = vec![0; self.key_size];
        self.write_key(number, &mut key);
        key.into()
    }
}

/// An encoded request, with gaps.
struct Template {
    bytes: Bytes,
    key_at: usize,
    /// Where a value stands, if there is one.
    value_at: Option<usize>,
}

impl Template {
    fn new(request: &impl Message, key: &[u8], value: Option<&[u8]>) -> Self {
        let bytes = framed(request);
        let find = |part: &[u8]| bytes.windows(part.len()).position(|window| window == part);
        let key_at = find(key).expect("a request holds its key");
        // Behind the key, which is shorter than any value that could be mistaken for it.
        let value_at = value.map(|value| bytes.len() - value.len());
        Self { bytes, key_at, value_at }
    }

    /// The request with this key, and something new in the value.
    fn fill(&self, shape: &Shape, number: u64, fresh: u64) -> Bytes {
        let mut bytes = BytesMut::from(&self.bytes[..]);
        shape.write_key(number, &mut bytes[self.key_at..][..shape.key_size]);
        if let Some(value_at) = self.value_at {
            refresh(&mut bytes[value_at..], fresh);
        }
        bytes.freeze()
    }
}

/// Writes something new into the front of a value.
fn refresh(value: &mut [u8], fresh: u64) {
    let length = value.len().min(FRESH);
    value[..length].copy_from_slice(&fresh.to_be_bytes()[..length]);
}

/// A message with its prefix.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).expect("requests are far below 4 GiB"));
    message.encode(&mut bytes).expect("there is room for it");
    bytes.freeze()
}

/// Encodes requests and judges answers. One for each worker.
pub(super) struct Requests {
    pub(super) shape: Shape,
    /// Values are this, but for their first bytes.
    value: Bytes,
    put: Template,
    get: Template,
    serializable: Template,
}

impl Requests {
    /// Values are made of `seed`.
    pub(super) fn new(shape: Shape, seed: u64) -> Self {
        let mut chance = Chance::new(seed, u64::MAX);
        let value: Vec<u8> = (0..shape.value_size).map(|_| chance.within(0..=255) as u8).collect();
        let (key, value) = (shape.key(0), Bytes::from(value));
        let get = requests::get(key.clone());
        let serializable = RangeRequest { serializable: true, ..get.clone() };
        Self {
            shape,
            put: Template::new(&requests::put(key.clone(), value.clone()), &key, Some(&value)),
            get: Template::new(&get, &key, None),
            serializable: Template::new(&serializable, &key, None),
            value,
        }
    }

    pub(super) fn put(&self, key: u64, fresh: u64) -> Bytes {
        self.put.fill(&self.shape, key, fresh)
    }

    pub(super) fn get(&self, key: u64, serializable: bool) -> Bytes {
        let template = if serializable { &self.serializable } else { &self.get };
        template.fill(&self.shape, key, 0)
    }

    fn put_request(&self, key: u64, fresh: u64) -> PutRequest {
        let mut value = BytesMut::from(&self.value[..]);
        refresh(&mut value, fresh);
        requests::put(self.shape.key(key), value.freeze())
    }

    /// Writes a key if it was last written at this revision.
    pub(super) fn swap(&self, key: u64, modified: i64, fresh: u64) -> Bytes {
        let unchanged =
            requests::compare(self.shape.key(key), CompareResult::Equal, TargetUnion::ModRevision(modified));
        framed(&requests::txn([unchanged], [requests::op(self.put_request(key, fresh))], []))
    }

    /// Writes the keys of one chunk; the last one may be shorter.
    pub(super) fn fill(&self, chunk: u64, fresh: u64) -> Bytes {
        let keys = (chunk * FILL_CHUNK..self.shape.keys).take(FILL_CHUNK as usize);
        let puts = keys.map(|key| requests::op(self.put_request(key, fresh.wrapping_add(key))));
        framed(&TxnRequest { success: puts.collect(), ..TxnRequest::default() })
    }

    /// How many chunks fill the store.
    pub(super) fn chunks(keys: u64) -> u64 {
        keys.div_ceil(FILL_CHUNK)
    }

    /// Judges the answer to a read. Returns the revision at which the key was last written.
    ///
    /// # Errors
    /// If it does not hold this key, and a value of the right length.
    pub(super) fn read(&self, key: u64, answer: Bytes) -> Result<i64, Fault> {
        let answer = RangeResponse::decode(answer).map_err(Fault::malformed)?;
        revision(answer.header.as_ref())?;
        let Some(kv) = answer.kvs.first() else {
            return Err(Fault::wrong(format!("key {} is not there", self.name(key))));
        };
        let mut expected = [0; 64];
        let exact = match expected.get_mut(..self.shape.key_size) {
            Some(expected) => {
                self.shape.write_key(key, expected);
                kv.key == *expected
            }
            None => kv.key == self.shape.key(key),
        };
        if !exact || answer.kvs.len() != 1 {
            return Err(Fault::wrong(format!("another key than {}", self.name(key))));
        }
        if kv.value.len() != self.shape.value_size {
            let (found, expected) = (kv.value.len(), self.shape.value_size);
            let what = format!("the value of {} has {found} bytes, not {expected}", self.name(key));
            return Err(Fault::wrong(what));
        }
        Ok(kv.mod_revision)
    }

    fn name(&self, key: u64) -> String {
        String::from_utf8_lossy(&self.shape.key(key)).into_owned()
    }
}

/// Judges the answer to a put.
///
/// # Errors
/// If it does not tell at which revision the key was written.
pub(super) fn written(answer: Bytes) -> Result<(), Fault> {
    revision(PutResponse::decode(answer).map_err(Fault::malformed)?.header.as_ref())
}

/// Judges the answer to a transaction. Returns whether its condition held.
///
/// # Errors
/// If it tells no revision, or not of as many operations as it says to have carried out.
pub(super) fn swapped(answer: Bytes, operations: u64) -> Result<bool, Fault> {
    let answer = TxnResponse::decode(answer).map_err(Fault::malformed)?;
    revision(answer.header.as_ref())?;
    let carried_out = if answer.succeeded { operations } else { 0 };
    match answer.responses.len() as u64 == carried_out {
        true => Ok(answer.succeeded),
        false => {
            let told = answer.responses.len();
            Err(Fault::wrong(format!("a transaction of {carried_out} operations tells of {told}")))
        }
    }
}

fn revision(header: Option<&ResponseHeader>) -> Result<(), Fault> {
    match header {
        Some(header) if header.revision > 0 => Ok(()),
        _ => Err(Fault::wrong("an answer without a revision")),
    }
}

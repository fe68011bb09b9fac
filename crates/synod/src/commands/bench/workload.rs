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

#[cfg(test)]
mod tests {
    use super::*;
    use synod_client::rpc::etcdserverpb::request_op::Request;
    use synod_client::rpc::etcdserverpb::{ResponseOp, compare};
    use synod_client::rpc::mvccpb::KeyValue;

    fn requests(keys: u64, key_size: usize, value_size: usize) -> Requests {
        Requests::new(Shape { keys, key_size, value_size }, 7)
    }

    fn decoded<M: Message + Default>(mut body: Bytes) -> M {
        let message = body.split_off(PREFIX);
        assert_eq!(body[0], 0, "not compressed");
        assert_eq!(body[1..], (message.len() as u32).to_be_bytes());
        M::decode(message).unwrap()
    }

    fn header() -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: 9, ..ResponseHeader::default() })
    }

    #[test]
    fn a_put_has_its_key_and_a_value_that_is_new() {
        for (key_size, value_size) in [(16, 256), (11, 1), (200, 3), (16, 100_000)] {
            let requests = requests(100_000, key_size, value_size);
            let put: PutRequest = decoded(requests.put(99_999, u64::MAX));
            assert!(put.key.starts_with(b"bench/") && put.key.ends_with(b"99999"), "{:?}", put.key);
            assert_eq!((put.key.len(), put.value.len()), (key_size, value_size));
            let other: PutRequest = decoded(requests.put(99_999, 0));
            assert_eq!(put.key, other.key);
            assert_ne!(put.value, other.value);
        }
    }

    #[test]
    fn a_get_says_how_it_reads() {
        let requests = requests(10, 7, 1);
        for serializable in [false, true] {
            let get: RangeRequest = decoded(requests.get(3, serializable));
            assert_eq!((&get.key[..], get.serializable), (&b"bench/3"[..], serializable));
            assert!(get.range_end.is_empty());
        }
    }

    #[test]
    fn a_swap_writes_only_what_nobody_has_written_meanwhile() {
        let txn: TxnRequest = decoded(requests(10, 7, 20).swap(5, 42, 1));
        let [compare] = &txn.compare[..] else { panic!("{txn:?}") };
        assert_eq!(compare.key, "bench/5");
        assert_eq!(compare.result(), CompareResult::Equal);
        assert_eq!(compare.target(), compare::CompareTarget::Mod);
        assert_eq!(compare.target_union, Some(TargetUnion::ModRevision(42)));
        assert!(matches!(&txn.success[0].request, Some(Request::RequestPut(put)) if put.key == "bench/5"));
        assert!(txn.failure.is_empty());
    }

    #[test]
    fn filling_writes_every_key_once() {
        let requests = requests(250, 16, 8);
        assert_eq!(Requests::chunks(250), 3);
        let mut keys = std::collections::BTreeSet::new();
        for chunk in 0..3 {
            let txn: TxnRequest = decoded(requests.fill(chunk, 1));
            for op in txn.success {
                let Some(Request::RequestPut(put)) = op.request else { panic!("{op:?}") };
                assert!(keys.insert(put.key));
            }
        }
        assert_eq!(keys.len(), 250);
        assert_eq!(keys.last().unwrap(), "bench/0000000249");
    }

    #[test]
    fn keys_are_as_long_as_their_numbers_need() {
        for (keys, least) in [(1, 7), (10, 7), (11, 8), (100_000, 11), (100_001, 12)] {
            assert_eq!(Shape::least_key_size(keys), least, "{keys}");
        }
    }

    #[test]
    fn a_read_is_right_if_it_holds_the_key_and_a_value_of_its_length() {
        let requests = requests(10, 70, 3);
        let key = requests.shape.key(4);
        let judge = |kvs| {
            let answer = RangeResponse { header: header(), kvs, ..RangeResponse::default() };
            requests.read(4, answer.encode_to_vec().into())
        };
        let kv = |key: &Bytes, value: &'static str| KeyValue {
            key: key.clone(),
            value: value.into(),
            mod_revision: 8,
            ..KeyValue::default()
        };
        assert_eq!(judge(vec![kv(&key, "abc")]), Ok(8));
        assert!(judge(vec![]).unwrap_err().what.contains("is not there"));
        assert!(judge(vec![kv(&key, "ab")]).unwrap_err().what.contains("2 bytes, not 3"));
        assert!(judge(vec![kv(&requests.shape.key(5), "abc")]).unwrap_err().what.contains("another key"));
        let no_header = RangeResponse { kvs: vec![kv(&key, "abc")], ..RangeResponse::default() };
        assert!(requests.read(4, no_header.encode_to_vec().into()).is_err());
        assert_eq!(requests.read(4, Bytes::from_static(b"\xff")).unwrap_err().kind, "malformed answer");
    }

    #[test]
    fn a_write_is_right_if_it_tells_its_revision() {
        let put = |header| written(PutResponse { header, prev_kv: None }.encode_to_vec().into());
        assert!(put(header()).is_ok());
        assert!(put(None).is_err() && put(Some(ResponseHeader::default())).is_err());
    }

    #[test]
    fn a_conflict_is_an_answer_and_half_a_transaction_is_none() {
        let judge = |succeeded, told: usize| {
            let responses = vec![ResponseOp::default(); told];
            swapped(TxnResponse { header: header(), succeeded, responses }.encode_to_vec().into(), 2)
        };
        assert_eq!(judge(true, 2), Ok(true));
        assert_eq!(judge(false, 0), Ok(false));
        assert_eq!(judge(true, 1).unwrap_err().kind, "wrong answer");
        assert!(judge(false, 2).is_err());
    }
}

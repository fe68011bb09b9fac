//! The common requests in a word or two, and the intervals they speak of.
//!
//! ```
//! use synod_client::requests::{self, prefix};
//!
//! let fruit = requests::get_range(prefix("fruit/"));
//! assert_eq!(fruit.range_end, "fruit0");
//! ```

use bytes::Bytes;
use synod_rpc::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use synod_rpc::etcdserverpb::request_op::Request;
use synod_rpc::etcdserverpb::*;

/// Both sides of "everything from here on": the byte that etcd's API uses for it.
const FROM_KEY: &[u8] = b"\0";

/// The end of the interval of all keys that begin with `prefix`: the first key
/// after them, or the "everything from here on" mark if there is no such key.
pub fn prefix_end(prefix: impl AsRef<[u8]>) -> Bytes {
    let prefix = prefix.as_ref();
    match prefix.iter().rposition(|&byte| byte < u8::MAX) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
        None => Bytes::from_static(FROM_KEY),
    }
}

/// An interval as requests have it: first key, and end.
pub type Interval = (Bytes, Bytes);

/// All keys that begin with `prefix`; every key if it is empty.
pub fn prefix(prefix: impl Into<Bytes>) -> Interval {
    let key = prefix.into();
    let end = prefix_end(&key);
    // An empty key is an error in a request; a zero byte is the smallest key.
    (if key.is_empty() { Bytes::from_static(FROM_KEY) } else { key }, end)
}

/// All keys from `key` on.
pub fn from_key(key: impl Into<Bytes>) -> Interval {
    let key = key.into();
    (if key.is_empty() { Bytes::from_static(FROM_KEY) } else { key }, Bytes::from_static(FROM_KEY))
}

/// Reads one key, newest version, linearizably.
pub fn get(key: impl Into<Bytes>) -> RangeRequest {
    RangeRequest { key: key.into(), ..RangeRequest::default() }
}

/// Reads an interval, newest version, linearizably.
pub fn get_range((key, range_end): Interval) -> RangeRequest {
    RangeRequest { key, range_end, ..RangeRequest::default() }
}

/// Writes one key.
pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
}

/// Deletes one key.
pub fn delete(key: impl Into<Bytes>) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() }
}

/// Deletes an interval.
pub fn delete_range((key, range_end): Interval) -> DeleteRangeRequest {
    DeleteRangeRequest { key, range_end, ..DeleteRangeRequest::default() }
}

/// If all of `compare` hold then `success`, else `failure`.
pub fn txn(
    compare: impl IntoIterator<Item = Compare>,
    success: impl IntoIterator<Item = RequestOp>,
    failure: impl IntoIterator<Item = RequestOp>,
) -> TxnRequest {
    TxnRequest {
        compare: compare.into_iter().collect(),
        success: success.into_iter().collect(),
        failure: failure.into_iter().collect(),
    }
}

/// A request as a step of a transaction.
pub fn op(request: impl IntoOp) -> RequestOp {
    RequestOp { request: Some(request.into_op()) }
}

/// What can be a step of a transaction.
pub trait IntoOp {
    /// The step.
    fn into_op(self) -> Request;
}

impl IntoOp for RangeRequest {
    fn into_op(self) -> Request {
        Request::RequestRange(self)
    }
}

impl IntoOp for PutRequest {
    fn into_op(self) -> Request {
        Request::RequestPut(self)
    }
}

impl IntoOp for DeleteRangeRequest {
    fn into_op(self) -> Request {
        Request::RequestDeleteRange(self)
    }
}

impl IntoOp for TxnRequest {
    fn into_op(self) -> Request {
        Request::RequestTxn(self)
    }
}

/// A condition on one key; `operand` also says what about the key is compared.
pub fn compare(key: impl Into<Bytes>, result: CompareResult, operand: TargetUnion) -> Compare {
    let target = match operand {
        TargetUnion::Version(_) => CompareTarget::Version,
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        TargetUnion::ModRevision(_) => CompareTarget::Mod,
        TargetUnion::Value(_) => CompareTarget::Value,
        TargetUnion::Lease(_) => CompareTarget::Lease,
    };
    Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        range_end: Bytes::new(),
        target_union: Some(operand),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kv_01_a_prefix_ends_before_the_next_key() {
        assert_eq!(prefix_end("fruit/"), "fruit0");
        assert_eq!(prefix_end(b"a\xff\xff"), "b");
        assert_eq!(prefix_end(b"\xff\xff"), FROM_KEY);
        assert_eq!(prefix_end(""), FROM_KEY);
    }

    #[test]
    fn kv_01_the_empty_prefix_is_every_key() {
        assert_eq!(prefix(""), (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")));
        assert_eq!(from_key("").0, FROM_KEY);
        assert_eq!(from_key("k"), (Bytes::from_static(b"k"), Bytes::from_static(FROM_KEY)));
    }

    #[test]
    fn tx_02_the_operand_names_the_target() {
        let condition = compare("k", CompareResult::Less, TargetUnion::ModRevision(7));
        assert_eq!(condition.target(), CompareTarget::Mod);
        assert_eq!(condition.result(), CompareResult::Less);
    }
}

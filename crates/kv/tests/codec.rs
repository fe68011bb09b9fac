//! The replicated encoding, and what it does not put up with.

mod common;

use bytes::Bytes;
use common::*;
use synod_kv::{DecodeError, Request, TxnRequest};

fn decode(bytes: &[u8]) -> Result<Request, DecodeError> {
    Request::decode(Bytes::copy_from_slice(bytes))
}

/// The bytes that are in logs everywhere. If this fails, a new version is due, and
/// a way to read the old one.
#[test]
fn the_encoding_stays_as_it_is() {
    assert_eq!(&put("key", "value").encode()[..], b"\x01\x01\x00\x03key\x05value\x00");
    assert_eq!(&delete("a", "c").encode()[..], b"\x01\x02\x00\x01a\x02\x01c");
    assert_eq!(&compact(300).encode()[..], b"\x01\x04\x00\xac\x02");
    assert_eq!(
        &txn(vec![], vec![put("a", "")], vec![]).encode()[..],
        b"\x01\x03\x00\x01\x01\x00\x01a\x00\x00\x00"
    );
    assert_eq!(
        &Request::Range(read("a", "\0")).encode()[..],
        b"\x01\x05\x00\x01a\x01\x00\x00\x00\x00\x00\x00\x00\x00"
    );
}

#[test]
fn what_cannot_be_read() {
    assert_eq!(decode(b""), Err(DecodeError::Truncated));
    assert_eq!(decode(b"\x02\x01"), Err(DecodeError::UnknownVersion(2)));
    assert_eq!(decode(b"\x01\x09"), Err(DecodeError::UnknownTag { what: "request", tag: 9 }));
    let flags = DecodeError::UnknownTag { what: "set of flags", tag: 8 };
    assert_eq!(decode(b"\x01\x01\x08\x01a\x00\x00"), Err(flags));
    assert_eq!(decode(b"\x01\x01\x00\x01a\x00\x00!"), Err(DecodeError::TrailingBytes(1)));
    assert_eq!(decode(b"\x01\x01\x00\x81\x00a\x00\x00"), Err(DecodeError::BadNumber));
}

#[test]
fn lengths_are_not_believed() {
    // A key of 2^63 bytes; a transaction of as many compares.
    let huge = b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01";
    assert_eq!(decode(&[b"\x01\x01\x00", &huge[..]].concat()), Err(DecodeError::Truncated));
    assert_eq!(decode(&[b"\x01\x03", &huge[..]].concat()), Err(DecodeError::Truncated));
}

#[test]
fn nesting_is_bounded() {
    let nest = |depth: usize| {
        let empty = Request::Txn(TxnRequest::default());
        (1..depth).fold(empty, |inner, _| txn(vec![], vec![inner], vec![])).encode()
    };
    assert!(Request::decode(nest(128)).is_ok());
    assert_eq!(Request::decode(nest(129)), Err(DecodeError::TooDeep));
    let endless = [b"\x01".to_vec(), b"\x03\x00\x01".repeat(100_000)].concat();
    assert_eq!(decode(&endless), Err(DecodeError::TooDeep));
}

#[test]
fn decoded_bytes_are_slices() {
    let encoded = put("key", "value").encode();
    let Ok(Request::Put(put)) = Request::decode(encoded.clone()) else { panic!() };
    assert_eq!(put.key.as_ptr(), encoded[4..].as_ptr());
    assert_eq!(put.value.as_ptr(), encoded[8..].as_ptr());
}

//! Answers as bytes: a checkpoint carries those that a front may still wait for.

use super::handle::Answer;
use bytes::Bytes;
use synod_kv::{
    Applied, DeleteRangeResponse, KeyValue, KvError, LeaseId, NestedResponse, PutResponse, RangeResponse,
    Response, Revision, TxnResponse,
};
use synod_paxos::wire::{DecodeError, Reader, Writer};

const FORMAT: u8 = 1;

/// Transactions nest no deeper than requests may, which is far less.
const DEEPEST: usize = 256;

/// The form of one answer in a checkpoint.
pub(crate) fn encode(answer: &Answer) -> Bytes {
    let mut out = Writer::default();
    out.u8(FORMAT);
    match answer {
        Answer::Reconfigured(changed) => {
            out.u8(0);
            out.u8(u8::from(*changed));
        }
        Answer::Store(Ok(applied)) => {
            out.u8(1);
            out.u64(applied.revision.0);
            write_response(&applied.response, &mut out);
        }
        Answer::Store(Err(error)) => {
            out.u8(2);
            write_error(error, &mut out);
        }
    }
    out.finish()
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(bytes: Bytes) -> Result<Answer, DecodeError> {
    let mut input = Reader::new(bytes);
    input.format(FORMAT)?;
    let answer = match input.u8()? {
        0 => Answer::Reconfigured(input.u8()? != 0),
        1 => {
            let revision = Revision(input.u64()?);
            Answer::Store(Ok(Applied { revision, response: read_response(&mut input, 0)? }))
        }
        2 => Answer::Store(Err(read_error(&mut input)?)),
        tag => return Err(DecodeError::Unknown { what: "kind of answer", tag }),
    };
    input.end()?;
    Ok(answer)
}

fn write_response(response: &Response, out: &mut Writer) {
    match response {
        Response::Put(PutResponse { prev }) => {
            out.u8(0);
            write_pairs(prev.as_slice(), out);
        }
        Response::DeleteRange(DeleteRangeResponse { deleted, prev_kvs }) => {
            out.u8(1);
            out.u64(*deleted);
            write_pairs(prev_kvs, out);
        }
        Response::Txn(TxnResponse { succeeded, responses }) => {
            out.u8(2);
            out.u8(u8::from(*succeeded));
            out.u32(u32::try_from(responses.len()).expect("a transaction is bounded"));
            for NestedResponse { revision, response } in responses {
                out.u64(revision.0);
                write_response(response, out);
            }
        }
        Response::Compact => out.u8(3),
        Response::Range(RangeResponse { kvs, more, count }) => {
            out.u8(4);
            out.u8(u8::from(*more));
            out.u64(*count);
            write_pairs(kvs, out);
        }
    }
}

fn read_response(input: &mut Reader, depth: usize) -> Result<Response, DecodeError> {
    if depth > DEEPEST {
        return Err(DecodeError::Truncated);
    }
    Ok(match input.u8()? {
        0 => Response::Put(PutResponse { prev: read_pairs(input)?.pop() }),
        1 => {
            let deleted = input.u64()?;
            Response::DeleteRange(DeleteRangeResponse { deleted, prev_kvs: read_pairs(input)? })
        }
        2 => {
            let succeeded = input.u8()? != 0;
            let mut responses = Vec::new();
            for _ in 0..input.count(9)? {
                let revision = Revision(input.u64()?);
                responses.push(NestedResponse { revision, response: read_response(input, depth + 1)? });
            }
            Response::Txn(TxnResponse { succeeded, responses })
        }
        3 => Response::Compact,
        4 => {
            let more = input.u8()? != 0;
            let count = input.u64()?;
            Response::Range(RangeResponse { kvs: read_pairs(input)?, more, count })
        }
        tag => return Err(DecodeError::Unknown { what: "kind of response", tag }),
    })
}

fn write_pairs(pairs: &[KeyValue], out: &mut Writer) {
    out.u32(u32::try_from(pairs.len()).expect("a response is bounded"));
    for pair in pairs {
        out.bytes(&pair.key);
        out.bytes(&pair.value);
        out.u64(pair.create_revision.0);
        out.u64(pair.mod_revision.0);
        out.u64(pair.version);
        out.u64(LeaseId::to_wire(pair.lease).cast_unsigned());
    }
}

fn read_pairs(input: &mut Reader) -> Result<Vec<KeyValue>, DecodeError> {
    let count = input.count(40)?;
    (0..count)
        .map(|_| {
            Ok(KeyValue {
                key: input.bytes()?,
                value: input.bytes()?,
                create_revision: Revision(input.u64()?),
                mod_revision: Revision(input.u64()?),
                version: input.u64()?,
                lease: LeaseId::from_wire(input.u64()?.cast_signed()),
            })
        })
        .collect()
}

fn write_error(error: &KvError, out: &mut Writer) {
    let (tag, first, second) = match error {
        KvError::EmptyKey => (0, 0, 0),
        KvError::KeyNotFound => (1, 0, 0),
        KvError::ValueProvided => (2, 0, 0),
        KvError::LeaseProvided => (3, 0, 0),
        KvError::TooManyOps => (4, 0, 0),
        KvError::DuplicateKey => (5, 0, 0),
        KvError::RequestTooLarge => (6, 0, 0),
        KvError::InvalidSortOption => (7, 0, 0),
        KvError::Compacted { requested, oldest } => (8, requested.0, oldest.0),
        KvError::FutureRevision { requested, current } => (9, requested.0, current.0),
        KvError::LeaseNotFound(lease) => (10, LeaseId::to_wire(Some(*lease)).cast_unsigned(), 0),
    };
    out.u8(tag);
    out.u64(first);
    out.u64(second);
}

fn read_error(input: &mut Reader) -> Result<KvError, DecodeError> {
    let tag = input.u8()?;
    let (first, second) = (input.u64()?, input.u64()?);
    Ok(match tag {
        0 => KvError::EmptyKey,
        1 => KvError::KeyNotFound,
        2 => KvError::ValueProvided,
        3 => KvError::LeaseProvided,
        4 => KvError::TooManyOps,
        5 => KvError::DuplicateKey,
        6 => KvError::RequestTooLarge,
        7 => KvError::InvalidSortOption,
        8 => KvError::Compacted { requested: Revision(first), oldest: Revision(second) },
        9 => KvError::FutureRevision { requested: Revision(first), current: Revision(second) },
        10 => match LeaseId::from_wire(first.cast_signed()) {
            Some(lease) => KvError::LeaseNotFound(lease),
            None => return Err(DecodeError::Unknown { what: "lease", tag: 0 }),
        },
        tag => return Err(DecodeError::Unknown { what: "kind of error", tag }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> KeyValue {
        KeyValue {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"v"),
            create_revision: Revision(2),
            mod_revision: Revision(3),
            version: 2,
            lease: None,
        }
    }

    #[test]
    fn answers_come_back_as_they_went_in() {
        let put = Response::Put(PutResponse { prev: Some(pair()) });
        let range = Response::Range(RangeResponse { kvs: vec![pair(), pair()], more: true, count: 9 });
        let delete = Response::DeleteRange(DeleteRangeResponse { deleted: 1, prev_kvs: vec![pair()] });
        let nested = |response| NestedResponse { revision: Revision(7), response };
        let txn = Response::Txn(TxnResponse {
            succeeded: true,
            responses: vec![nested(put.clone()), nested(range.clone()), nested(Response::Compact)],
        });
        let applied = |response| Answer::Store(Ok(Applied { revision: Revision(8), response }));
        let mut answers: Vec<Answer> = [put, range, delete, txn].into_iter().map(applied).collect();
        answers.push(Answer::Reconfigured(true));
        for error in [
            KvError::KeyNotFound,
            KvError::Compacted { requested: Revision(1), oldest: Revision(2) },
            KvError::FutureRevision { requested: Revision(3), current: Revision(2) },
        ] {
            answers.push(Answer::Store(Err(error)));
        }
        for answer in answers {
            let bytes = encode(&answer);
            assert_eq!(decode(bytes.clone()).unwrap(), answer);
            for cut in 0..bytes.len() {
                assert!(decode(bytes.slice(..cut)).is_err(), "{answer:?} cut at {cut}");
            }
        }
    }
}

//! A request as bytes: what the replicas agree on.
//!
//! ```text
//!   request  = version request-body
//!   body     = tag, then the fields of that kind in the order of the struct,
//!              with all its booleans gathered in one byte in front
//! ```
//!
//! The encoding is ours alone and never meets a client. It is compact, has one
//! spelling per request, and begins with a version, so that a newer synod can still
//! read what an older one wrote. Keys and values come out as slices of the buffer
//! they arrived in; the store copies what it keeps.
//!
//! Whatever the bytes, decoding ends in a request or an error: it recurses no deeper
//! than [`MAX_NESTING`] and allocates no more than what it has read accounts for.

use std::num::NonZeroU64;

use bytes::Bytes;

use crate::request::{
    CompactRequest, Compare, DeleteRangeRequest, KeyRange, Operand, PutRequest, RangeEnd, RangeRequest,
    Relation, Request, RevisionBounds, SortOrder, SortTarget, TxnRequest,
};
use crate::revision::{LeaseId, Revision};
use crate::wire::{DecodeError, Length, Reader, Sink};

/// The version of the encoding that this code writes, and the only one it reads.
const VERSION: u8 = 1;

/// How deep transactions may be nested. Admission bounds it to
/// [`crate::Limits::max_txn_ops`] anyway; this bounds the stack, whatever the limits.
pub(crate) const MAX_NESTING: usize = 128;

impl Request {
    /// This request as bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded_len());
        write_message(&mut out, self);
        out.into()
    }

    /// How many bytes [`Request::encode`] makes.
    pub fn encoded_len(&self) -> usize {
        let mut length = Length::default();
        write_message(&mut length, self);
        length.0
    }

    /// The request that `bytes` stand for; its keys and values are slices of them.
    ///
    /// A decoded request is well formed but not yet valid: see
    /// [`Request::validate`].
    ///
    /// # Errors
    /// If the bytes are not exactly what [`Request::encode`] makes of some request.
    pub fn decode(bytes: Bytes) -> Result<Request, DecodeError> {
        let mut reader = Reader(bytes);
        match reader.byte()? {
            VERSION => {}
            other => return Err(DecodeError::UnknownVersion(other)),
        }
        let request = read_request(&mut reader, 0)?;
        reader.finish()?;
        Ok(request)
    }
}

fn write_message(out: &mut impl Sink, request: &Request) {
    out.byte(VERSION);
    write_request(out, request);
}

fn write_request(out: &mut impl Sink, request: &Request) {
    match request {
        Request::Put(put) => {
            out.byte(1);
            write_flags(out, [put.prev_kv, put.ignore_value, put.ignore_lease]);
            out.string(&put.key);
            out.string(&put.value);
            out.signed(LeaseId::to_wire(put.lease));
        }
        Request::DeleteRange(delete) => {
            out.byte(2);
            write_flags(out, [delete.prev_kv, false, false]);
            write_key_range(out, &delete.range);
        }
        Request::Txn(txn) => {
            out.byte(3);
            out.number(txn.compares.len() as u64);
            txn.compares.iter().for_each(|compare| write_compare(out, compare));
            for branch in [&txn.success, &txn.failure] {
                out.number(branch.len() as u64);
                branch.iter().for_each(|op| write_request(out, op));
            }
        }
        Request::Compact(compact) => {
            out.byte(4);
            write_flags(out, [compact.physical, false, false]);
            out.number(compact.revision.0);
        }
        Request::Range(range) => {
            out.byte(5);
            write_flags(out, [range.keys_only, range.count_only, range.serializable]);
            write_key_range(out, &range.range);
            out.option(range.revision.map(|revision| revision.0));
            out.number(range.limit.map_or(0, NonZeroU64::get));
            out.byte(match range.order {
                SortOrder::None => 0,
                SortOrder::Ascend => 1,
                SortOrder::Descend => 2,
            });
            out.byte(match range.target {
                SortTarget::Key => 0,
                SortTarget::Version => 1,
                SortTarget::Create => 2,
                SortTarget::Mod => 3,
                SortTarget::Value => 4,
            });
            for bounds in [range.modified, range.created] {
                out.option(bounds.at_least.map(|revision| revision.0));
                out.option(bounds.at_most.map(|revision| revision.0));
            }
        }
    }
}

fn read_request(reader: &mut Reader, depth: usize) -> Result<Request, DecodeError> {
    Ok(match reader.byte()? {
        1 => {
            let [prev_kv, ignore_value, ignore_lease] = read_flags(reader, 3)?;
            Request::Put(PutRequest {
                key: reader.string()?,
                value: reader.string()?,
                lease: LeaseId::from_wire(reader.signed()?),
                prev_kv,
                ignore_value,
                ignore_lease,
            })
        }
        2 => {
            let [prev_kv, ..] = read_flags(reader, 1)?;
            Request::DeleteRange(DeleteRangeRequest { range: read_key_range(reader)?, prev_kv })
        }
        3 => {
            if depth == MAX_NESTING {
                return Err(DecodeError::TooDeep);
            }
            Request::Txn(TxnRequest {
                compares: read_list(reader, read_compare)?,
                success: read_list(reader, |reader| read_request(reader, depth + 1))?,
                failure: read_list(reader, |reader| read_request(reader, depth + 1))?,
            })
        }
        4 => {
            let [physical, ..] = read_flags(reader, 1)?;
            Request::Compact(CompactRequest { revision: Revision(reader.number()?), physical })
        }
        5 => {
            let [keys_only, count_only, serializable] = read_flags(reader, 3)?;
            Request::Range(RangeRequest {
                range: read_key_range(reader)?,
                revision: reader.option()?.map(Revision),
                limit: NonZeroU64::new(reader.number()?),
                order: match reader.byte()? {
                    0 => SortOrder::None,
                    1 => SortOrder::Ascend,
                    2 => SortOrder::Descend,
                    tag => return Err(DecodeError::UnknownTag { what: "sort order", tag }),
                },
                target: match reader.byte()? {
                    0 => SortTarget::Key,
                    1 => SortTarget::Version,
                    2 => SortTarget::Create,
                    3 => SortTarget::Mod,
                    4 => SortTarget::Value,
                    tag => return Err(DecodeError::UnknownTag { what: "sort target", tag }),
                },
                keys_only,
                count_only,
                serializable,
                modified: read_bounds(reader)?,
                created: read_bounds(reader)?,
            })
        }
        tag => return Err(DecodeError::UnknownTag { what: "request", tag }),
    })
}

/// A list behind its length. The length is only believed element by element: nothing
/// is set aside for elements that have not been seen.
fn read_list<T>(
    reader: &mut Reader,
    mut element: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let length = reader.number()?;
    let mut list = Vec::new();
    for _ in 0..length {
        list.push(element(reader)?);
    }
    Ok(list)
}

fn write_compare(out: &mut impl Sink, compare: &Compare) {
    write_key_range(out, &compare.range);
    out.byte(match compare.relation {
        Relation::Equal => 0,
        Relation::NotEqual => 1,
        Relation::Greater => 2,
        Relation::Less => 3,
    });
    let (tag, number) = match &compare.operand {
        Operand::Value(value) => {
            out.byte(0);
            return out.string(value);
        }
        Operand::Version(number) => (1, number),
        Operand::Create(number) => (2, number),
        Operand::Mod(number) => (3, number),
        Operand::Lease(number) => (4, number),
    };
    out.byte(tag);
    out.signed(*number);
}

fn read_compare(reader: &mut Reader) -> Result<Compare, DecodeError> {
    Ok(Compare {
        range: read_key_range(reader)?,
        relation: match reader.byte()? {
            0 => Relation::Equal,
            1 => Relation::NotEqual,
            2 => Relation::Greater,
            3 => Relation::Less,
            tag => return Err(DecodeError::UnknownTag { what: "relation", tag }),
        },
        operand: match reader.byte()? {
            0 => Operand::Value(reader.string()?),
            1 => Operand::Version(reader.signed()?),
            2 => Operand::Create(reader.signed()?),
            3 => Operand::Mod(reader.signed()?),
            4 => Operand::Lease(reader.signed()?),
            tag => return Err(DecodeError::UnknownTag { what: "operand", tag }),
        },
    })
}

fn write_key_range(out: &mut impl Sink, range: &KeyRange) {
    out.string(&range.key);
    match &range.end {
        RangeEnd::Single => out.byte(0),
        RangeEnd::FromKey => out.byte(1),
        RangeEnd::Before(end) => {
            out.byte(2);
            out.string(end);
        }
    }
}

fn read_key_range(reader: &mut Reader) -> Result<KeyRange, DecodeError> {
    Ok(KeyRange {
        key: reader.string()?,
        end: match reader.byte()? {
            0 => RangeEnd::Single,
            1 => RangeEnd::FromKey,
            2 => RangeEnd::Before(reader.string()?),
            tag => return Err(DecodeError::UnknownTag { what: "range end", tag }),
        },
    })
}

fn read_bounds(reader: &mut Reader) -> Result<RevisionBounds, DecodeError> {
    Ok(RevisionBounds { at_least: reader.option()?.map(Revision), at_most: reader.option()?.map(Revision) })
}

fn write_flags(out: &mut impl Sink, flags: [bool; 3]) {
    out.byte(flags.iter().rev().fold(0, |byte, &flag| byte << 1 | u8::from(flag)));
}

/// Up to three booleans; a bit beyond the `known` ones is not ours to ignore.
fn read_flags(reader: &mut Reader, known: u32) -> Result<[bool; 3], DecodeError> {
    let byte = reader.byte()?;
    if byte >> known != 0 {
        return Err(DecodeError::UnknownTag { what: "set of flags", tag: byte });
    }
    Ok([0, 1, 2].map(|bit| byte >> bit & 1 == 1))
}

//! One change as bytes, as images and runs spell it.
//!
//! ```text
//!   record = length, then: put or delete, position, key;
//!            of a put also: create revision, version, lease, value
//! ```
//!
//! A record says everything about its change and needs no other to be read.

use bytes::Bytes;

use crate::history::Change;
use crate::response::KeyValue;
use crate::revision::{LeaseId, Position, Revision};
use crate::wire::{DecodeError, Scan, Sink, peek_number};

pub(crate) const PUT: u8 = 2;
pub(crate) const DELETE: u8 = 3;

/// A record that was read; it borrows from the bytes that it was read from.
pub(crate) struct Record<'b> {
    pub(crate) position: Position,
    pub(crate) key: &'b [u8],
    /// None of a removal.
    pub(crate) put: Option<Put<'b>>,
}

/// What only puts have.
pub(crate) struct Put<'b> {
    pub(crate) create_revision: Revision,
    pub(crate) version: u64,
    pub(crate) lease: Option<LeaseId>,
    pub(crate) value: &'b [u8],
}

impl<'b> Record<'b> {
    /// The record of a change.
    pub(crate) fn of(position: Position, change: &'b Change) -> Record<'b> {
        let put = change.pair().map(|kv| Put {
            create_revision: kv.create_revision,
            version: kv.version,
            lease: kv.lease,
            value: &kv.value,
        });
        Record { position, key: change.key(), put }
    }

    /// Spells what stands behind the length.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.byte(if self.put.is_some() { PUT } else { DELETE });
        out.number(self.position.revision.0);
        out.number(u64::from(self.position.sub));
        out.string(self.key);
        if let Some(put) = &self.put {
            out.number(put.create_revision.0);
            out.number(put.version);
            out.signed(LeaseId::to_wire(put.lease));
            out.string(put.value);
        }
    }

    /// Reads what stands behind the length and the tag.
    pub(crate) fn read(tag: u8, from: &mut Scan<'b>) -> Result<Record<'b>, DecodeError> {
        let revision = Revision(from.number()?);
        let sub = u32::try_from(from.number()?).map_err(|_| DecodeError::BadNumber)?;
        let key = from.string()?;
        let put = match tag {
            PUT => Some(Put {
                create_revision: Revision(from.number()?),
                version: from.number()?,
                lease: LeaseId::from_wire(from.signed()?),
                value: from.string()?,
            }),
            DELETE => None,
            tag => return Err(DecodeError::UnknownTag { what: "record", tag }),
        };
        Ok(Record { position: Position { revision, sub }, key, put })
    }

    /// The change, with bytes of its own: they may stay for long.
    pub(crate) fn to_change(&self) -> Change {
        self.change_of(Bytes::copy_from_slice(self.key))
    }

    /// The same, with a copy of the key that there is already.
    pub(crate) fn change_of(&self, key: Bytes) -> Change {
        let revision = self.position.revision;
        match &self.put {
            Some(put) => Change::Put(KeyValue {
                key,
                value: Bytes::copy_from_slice(put.value),
                create_revision: put.create_revision,
                mod_revision: revision,
                version: put.version,
                lease: put.lease,
            }),
            None => Change::Delete { key, revision },
        }
    }
}

/// The records in bytes that hold nothing else, each with how it is spelled, length and all. Ends behind an error.
pub(crate) fn records(block: &[u8]) -> impl Iterator<Item = Result<(&[u8], Record<'_>), DecodeError>> {
    let mut rest = block;
    std::iter::from_fn(move || (!rest.is_empty()).then(|| first(&mut rest).inspect_err(|_| rest = &[])))
}

fn first<'b>(rest: &mut &'b [u8]) -> Result<(&'b [u8], Record<'b>), DecodeError> {
    let (length, prefix) = peek_number(rest)?;
    let length = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(prefix);
    let (spelled, behind) = rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
    *rest = behind;
    let mut scan = Scan(&spelled[prefix..]);
    let tag = scan.byte()?;
    let record = Record::read(tag, &mut scan)?;
    scan.finish()?;
    Ok((spelled, record))
}

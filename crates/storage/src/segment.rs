//! What the bytes of a log segment mean.
//!
//! ```text
//!   sector 0   header: magic, format, cluster, node, incarnation, sequence, first group, capacity, CRC
//!   sector 1   group: a summary of all earlier segments
//!     ...      group, group, group, each from a sector's start
//!     then     zeroes, or what an earlier life of this file left
//! ```
//!
//! A *group* is what one call wrote and one sync made durable: a header and the records behind it, padded to
//! whole sectors, so that no byte that was synced is ever written again. Groups are numbered without gaps
//! through all segments. Each says how far the log was known durable when it was written, which is how
//! recovery tells a torn tail from lost memory.
//!
//! The checksums start from the incarnation and the segment's sequence number, which no two lives of a file
//! share, and cover the position. So what an earlier life left, or what a confused disk wrote to the wrong
//! place, never validates (fault catalogue, D8).

use crate::disk::SECTOR;
use bytes::{Buf, BufMut};
use std::fmt;
use synod_paxos::acceptor::Record;
use synod_paxos::types::{ClusterId, Incarnation, NodeId};

/// The format that this release writes and reads.
pub(crate) const FORMAT: u32 = 1;

/// The place of magic, format and checksum in the first sector is the same in every format, so that any
/// release can tell a newer log from a damaged one.
const MAGIC: &[u8; 8] = b"synodwal";
const HEADER_CRC: usize = SECTOR - 4;

/// The highest number of a segment, or of the first group of one. No log gets here, and whoever counts on from
/// a number below does not overflow.
const MAX_NUMBER: u64 = 1 << 62;

const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"sgrp");
/// Bytes before the records of a group.
pub(crate) const GROUP_HEADER: usize = 48;

/// Whose memory a log is. A log of anyone else is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The cluster the acceptor votes in.
    pub cluster: ClusterId,
    /// The replica it belongs to.
    pub node: NodeId,
    /// The life of its memory.
    pub incarnation: Incarnation,
}

impl fmt::Display for LogIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{} of cluster {}", self.node, self.incarnation, self.cluster)
    }
}

/// The number of a group of records, from 1, without gaps as long as the log lives. What a peer may
/// remember of an incarnation, to notice a log that went back in time (fault catalogue, D10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupNumber(pub u64);

impl GroupNumber {
    pub(crate) fn next(self) -> GroupNumber {
        GroupNumber(self.0 + 1)
    }

    pub(crate) fn previous(self) -> GroupNumber {
        GroupNumber(self.0.saturating_sub(1))
    }
}

impl fmt::Display for GroupNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of a segment, from 1, without gaps; dropped from the low end only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    pub(crate) const FIRST: SegmentNumber = SegmentNumber(1);

    pub(crate) fn next(self) -> SegmentNumber {
        SegmentNumber(self.0 + 1)
    }

    /// Where the segment lies.
    pub(crate) fn path(self) -> String {
        format!("wal/{:016x}.seg", self.0)
    }

    /// The number in a file name, if the file is a segment.
    pub(crate) fn of(name: &str) -> Option<SegmentNumber> {
        let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 16)?;
        u64::from_str_radix(digits, 16).ok().map(SegmentNumber)
    }
}

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.seg", self.0)
    }
}

/// The first sector of a segment. Durable before the segment bears its name, so a bad one is never a
/// torn write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) identity: LogIdentity,
    pub(crate) number: SegmentNumber,
    /// The number of its first group, the summary. All groups before it were durable.
    pub(crate) first: GroupNumber,
    /// The length of the segment, in bytes, and of its file ever since.
    pub(crate) capacity: u64,
}

/// Why a first sector is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    Damaged,
    Format(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SECTOR] {
        let mut sector = [0; SECTOR];
        let mut out = &mut sector[..HEADER_CRC];
        out.put_slice(MAGIC);
        out.put_u32_le(FORMAT);
        out.put_u128_le(self.identity.cluster.0);
        out.put_u64_le(self.identity.node.0);
        out.put_u128_le(self.identity.incarnation.0);
        out.put_u64_le(self.number.0);
        out.put_u64_le(self.first.0);
        out.put_u64_le(self.capacity);
        let crc = crc32c::crc32c(&sector[..HEADER_CRC]);
        sector[HEADER_CRC..].copy_from_slice(&crc.to_le_bytes());
        sector
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, BadHeader> {
        let sector = bytes.get(..SECTOR).ok_or(BadHeader::Damaged)?;
        let crc = crc32c::crc32c(&sector[..HEADER_CRC]);
        if !sector.starts_with(MAGIC) || sector[HEADER_CRC..] != crc.to_le_bytes() {
            return Err(BadHeader::Damaged);
        }
        let mut input = &sector[MAGIC.len()..];
        let format = input.get_u32_le();
        if format != FORMAT {
            return Err(BadHeader::Format(format));
        }
        let header = SegmentHeader {
            identity: LogIdentity {
                cluster: ClusterId(input.get_u128_le()),
                node: NodeId(input.get_u64_le()),
                incarnation: Incarnation(input.get_u128_le()),
            },
            number: SegmentNumber(input.get_u64_le()),
            first: GroupNumber(input.get_u64_le()),
            capacity: input.get_u64_le(),
        };
        // A good checksum does not make sense of nonsense.
        let numbers = [header.number.0, header.first.0];
        if numbers.iter().all(|number| (1..=MAX_NUMBER).contains(number)) {
            Ok(header)
        } else {
            Err(BadHeader::Damaged)
        }
    }

    /// What this segment's checksums start from.
    pub(crate) fn seed(&self) -> Seed {
        let mut bytes = [0; 40];
        let mut out = &mut bytes[..];
        out.put_u128_le(self.identity.incarnation.0);
        out.put_u128_le(self.identity.cluster.0);
        out.put_u64_le(self.number.0);
        Seed(crc32c::crc32c(&bytes))
    }
}

/// The checksum of nothing, in one segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed(u32);

/// What a group is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupKind {
    /// The head of a segment: what older segments say, acceptances apart.
    Summary,
    /// Records.
    Batch,
    /// Nothing, but it says that all groups before it are durable (rule R9).
    Seal,
    /// The log goes on in the next segment, which is durable. Bears the number of that one's first group.
    Closed,
}

impl GroupKind {
    fn from_tag(tag: u32) -> Option<GroupKind> {
        Some(match tag {
            1 => GroupKind::Summary,
            2 => GroupKind::Batch,
            3 => GroupKind::Seal,
            4 => GroupKind::Closed,
            _ => return None,
        })
    }

    fn tag(self) -> u32 {
        match self {
            GroupKind::Summary => 1,
            GroupKind::Batch => 2,
            GroupKind::Seal => 3,
            GroupKind::Closed => 4,
        }
    }
}

/// The head of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) kind: GroupKind,
    pub(crate) number: GroupNumber,
    /// "The log is durable up to this group", known when this one was written.
    pub(crate) durable: GroupNumber,
    /// Where in the segment it lies, in bytes.
    pub(crate) position: u64,
    /// How many records it has.
    pub(crate) records: u32,
    /// Their length in bytes.
    pub(crate) len: u32,
}

/// The length of a group whose records take `len` bytes.
pub(crate) fn group_bytes(len: usize) -> usize {
    (GROUP_HEADER + len).next_multiple_of(SECTOR)
}

/// How many bytes `record` takes in a group.
pub(crate) fn record_bytes(record: &Record) -> usize {
    let value = if let Record::Accepted { value, .. } = record { value.len() } else { 0 };
    64 + value
}

/// Starts a group at the end of `out`: leaves room for its header. Returns where it starts.
pub(crate) fn begin_group(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.resize(start + GROUP_HEADER, 0);
    start
}

/// Ends the group that starts at `start` of `out`: pads it and fills in its header. The header's `len`
/// becomes what was appended since [`begin_group`].
pub(crate) fn end_group(out: &mut Vec<u8>, start: usize, seed: Seed, mut header: GroupHeader) {
    let len = out.len() - start - GROUP_HEADER;
    header.len = u32::try_from(len).expect("the log refuses larger groups");
    out.resize(start + group_bytes(len), 0);
    let (head, body) = out[start..].split_at_mut(GROUP_HEADER);
    let body_crc = crc32c::crc32c_append(seed.0, body);
    let mut fields = &mut head[..];
    fields.put_u32_le(GROUP_MAGIC);
    fields.put_u32_le(header.kind.tag());
    fields.put_u64_le(header.number.0);
    fields.put_u64_le(header.durable.0);
    fields.put_u64_le(header.position);
    fields.put_u32_le(header.len);
    fields.put_u32_le(header.records);
    fields.put_u32_le(body_crc);
    let crc = crc32c::crc32c_append(seed.0, &head[..GROUP_HEADER - 4]);
    head[GROUP_HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
}

/// A group's head found in a segment, its body not yet looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) header: GroupHeader,
    body_crc: u32,
}

impl Found {
    /// The good head at `position` of the segment that `bytes` holds, if there is one.
    pub(crate) fn at(bytes: &[u8], position: usize, seed: Seed) -> Option<Found> {
        let head = bytes.get(position..)?.get(..GROUP_HEADER)?;
        let mut input = head;
        // Cheap, and false almost everywhere.
        if input.get_u32_le() != GROUP_MAGIC {
            return None;
        }
        let crc = crc32c::crc32c_append(seed.0, &head[..GROUP_HEADER - 4]);
        if head[GROUP_HEADER - 4..] != crc.to_le_bytes() {
            return None;
        }
        let kind = GroupKind::from_tag(input.get_u32_le())?;
        let number = GroupNumber(input.get_u64_le());
        let durable = GroupNumber(input.get_u64_le());
        let found = input.get_u64_le();
        let len = input.get_u32_le();
        let records = input.get_u32_le();
        let header = GroupHeader { kind, number, durable, position: found, records, len };
        (found == position as u64).then(|| Found { header, body_crc: input.get_u32_le() })
    }

    /// The records' bytes, if they are good.
    pub(crate) fn body(self, bytes: &[u8], seed: Seed) -> Option<&[u8]> {
        let start = usize::try_from(self.header.position).ok()?;
        let len = self.header.len as usize;
        let body = bytes.get(start..start + group_bytes(len))?.get(GROUP_HEADER..)?;
        (crc32c::crc32c_append(seed.0, body) == self.body_crc).then(|| &body[..len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            identity: LogIdentity { cluster: ClusterId(1), node: NodeId(2), incarnation: Incarnation(3) },
            number: SegmentNumber(4),
            first: GroupNumber(5),
            capacity: 4096,
        }
    }

    #[test]
    fn d7_every_flipped_byte_of_a_segment_header_is_noticed() {
        let good = header().encode();
        assert_eq!(SegmentHeader::decode(&good), Ok(header()));
        for at in 0..SECTOR {
            let mut bad = good;
            bad[at] ^= 0x10;
            assert_eq!(SegmentHeader::decode(&bad), Err(BadHeader::Damaged), "byte {at}");
        }
        assert_eq!(SegmentHeader::decode(&good[..100]), Err(BadHeader::Damaged));
    }

    #[test]
    fn numbers_that_cannot_be_counted_on_from_are_damage_whatever_the_checksum_says() {
        for number in [0, MAX_NUMBER + 1, u64::MAX] {
            let bad = SegmentHeader { first: GroupNumber(number), ..header() };
            assert_eq!(SegmentHeader::decode(&bad.encode()), Err(BadHeader::Damaged), "{number}");
            let bad = SegmentHeader { number: SegmentNumber(number), ..header() };
            assert_eq!(SegmentHeader::decode(&bad.encode()), Err(BadHeader::Damaged), "{number}");
        }
        let last = SegmentHeader { first: GroupNumber(MAX_NUMBER), ..header() };
        assert_eq!(SegmentHeader::decode(&last.encode()), Ok(last));
    }

    #[test]
    fn d8_a_group_validates_only_in_its_place_and_segment() {
        let seed = header().seed();
        let group = GroupHeader {
            kind: GroupKind::Batch,
            number: GroupNumber(6),
            durable: GroupNumber(5),
            position: 512,
            records: 1,
            len: 0,
        };
        let mut bytes = vec![0; SECTOR];
        let start = begin_group(&mut bytes);
        bytes.extend_from_slice(&[7; 600]);
        end_group(&mut bytes, start, seed, group);
        assert_eq!(bytes.len(), 3 * SECTOR);

        let found = Found::at(&bytes, 512, seed).unwrap();
        assert_eq!(found.header, GroupHeader { len: 600, ..group });
        assert_eq!(found.body(&bytes, seed).unwrap(), [7; 600]);

        let next_life = SegmentHeader { number: SegmentNumber(5), ..header() }.seed();
        assert!(Found::at(&bytes, 512, next_life).is_none());
        assert!(Found::at(&bytes[SECTOR..], 0, seed).is_none(), "misdirected");
        for at in 512..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            let body = Found::at(&bad, 512, seed).and_then(|found| found.body(&bad, seed).map(<[u8]>::len));
            assert_eq!(body, None, "byte {at}");
        }
        assert!(found.body(&bytes[..1500], seed).is_none(), "cut short");
    }

    #[test]
    fn segment_names_are_read_back() {
        let number = SegmentNumber(0x1f);
        assert_eq!(number.path(), "wal/000000000000001f.seg");
        assert_eq!(SegmentNumber::of("000000000000001f.seg"), Some(number));
        assert_eq!(SegmentNumber::of("1f.seg"), None);
        assert_eq!(SegmentNumber::of("spare-1"), None);
    }
}

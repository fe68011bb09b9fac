//! From the files of a log back to its records: what is a torn tail, and what is lost memory?
//!
//! Groups are read in order until one is not there or is bad. At the log's end that is no surprise: a power
//! cut keeps any subset of the sectors of groups that were never synced, and nobody was told about those. So
//! rule R9 asks how far the log was *known durable* when its last groups were written, and every group says
//! that. What is bad above the highest such word is torn, and cut. What is bad at or below it was durable once
//! and is gone: this memory may have said things that it no longer knows, and must not speak again.
//!
//! ```text
//!   group      7      8      9     bad    11        durable according to 11: 9    10 and 11 are torn
//!   durable    6      7      8            9
//!
//!   group      7      8     bad    10               durable according to 10: 9    9 is lost
//!   durable    6      7            9
//! ```
//!
//! The heads of groups behind a cut are wiped, so that they cannot join the log later, when its new end
//! happens to meet them.

use crate::disk::{SECTOR, SharedDisk, read_all};
use crate::record::{self, Summary};
use crate::segment::{
    BadHeader, FORMAT, Found, GroupKind, GroupNumber, LogIdentity, SegmentHeader, SegmentNumber,
};
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use synod_paxos::acceptor::Record;
use synod_paxos::mutants::{Mutant, is};
use synod_paxos::types::{Prefix, Slot};
use synod_paxos::wire::DecodeError;

/// Which part of an acceptor's memory is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// There is no log at all, though there was one.
    #[error("the log is gone")]
    Absent,
    /// A segment between others, or behind one that says it goes on, is missing.
    #[error("segment {0} is missing")]
    MissingSegment(SegmentNumber),
    /// The first sector of a segment is unreadable.
    #[error("the header of segment {0} is damaged")]
    DamagedHeader(SegmentNumber),
    /// A segment is shorter than it was before its first group.
    #[error("segment {0} is cut short")]
    CutShort(SegmentNumber),
    /// A group that was durable is damaged or gone.
    #[error("group {group} of segment {segment} is damaged, and was durable once (up to {durable} was)")]
    DamagedGroup {
        /// The segment it was in.
        segment: SegmentNumber,
        /// The first group that is not what it was.
        group: GroupNumber,
        /// How far the log was durable, as far as one can tell.
        durable: GroupNumber,
    },
}

/// Why a log cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The acceptor whose log this was has lost memory. It is dead; another one, with a fresh incarnation and
    /// [a new log](crate::wal::WriteAheadLog::create), may take its place once the cluster admits it.
    #[error("lost memory: {0}")]
    LostMemory(Loss),
    /// The log of the same acceptor's earlier or later life. The memory asked for is not here: as lost.
    #[error("the log remembers {found}, not {expected}")]
    OtherIncarnation {
        /// Whose log it is.
        found: LogIdentity,
        /// Whose it should be.
        expected: LogIdentity,
    },
    /// The log of another server or another cluster. Nothing was changed; whoever mixed up the directories
    /// must decide.
    #[error("the log belongs to {found}, not to {expected}")]
    Foreign {
        /// Whose log it is.
        found: LogIdentity,
        /// Whose it should be.
        expected: LogIdentity,
    },
    /// Written by a release that knows more. Nothing was changed; run that release.
    #[error("segment {segment} has format {found}, this release reads format {FORMAT}")]
    Format {
        /// The segment.
        segment: SegmentNumber,
        /// Its format.
        found: u32,
    },
    /// A good group holds a record that this release cannot read. Nothing was changed.
    #[error("group {group} of segment {segment} cannot be understood: {error}")]
    Undecodable {
        /// The segment.
        segment: SegmentNumber,
        /// The group.
        group: GroupNumber,
        /// What is odd about it.
        error: DecodeError,
    },
    /// The disk failed; it may be tried again after a restart.
    #[error("the log cannot be read: {doing} failed: {error}")]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// How it failed.
        error: Arc<io::Error>,
    },
}

impl OpenError {
    /// Must the acceptor that owned this log be given up for a new incarnation? Otherwise the log may be fine
    /// and something else must be put right.
    pub fn is_lost_memory(&self) -> bool {
        matches!(self, OpenError::LostMemory(_) | OpenError::OtherIncarnation { .. })
    }
}

/// Turns an I/O error into an [`OpenError`].
pub(crate) fn while_doing(doing: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |error| OpenError::Disk { doing, error: Arc::new(error) }
}

/// A segment that was read.
pub(crate) struct Read {
    pub(crate) header: SegmentHeader,
    /// The highest slot accepted in it: what may be dropped once that is trimmed.
    pub(crate) highest: Option<Slot>,
}

/// What a log holds.
pub(crate) struct Recovered {
    pub(crate) records: Vec<Record>,
    pub(crate) summary: Summary,
    /// The trim point, which is durable.
    pub(crate) trimmed: Prefix,
    /// All segments, oldest first. The last is the one to go on in.
    pub(crate) segments: Vec<Read>,
    /// Where in the last segment the next group goes, in bytes.
    pub(crate) position: u64,
    /// The last group.
    pub(crate) last: GroupNumber,
    /// The last group with records that were not in an earlier one.
    pub(crate) last_batch: GroupNumber,
    /// The highest "durable up to" among the groups.
    pub(crate) confirmed: GroupNumber,
    /// Groups that were cut because they were torn: the number of heads wiped.
    pub(crate) wiped: usize,
}

/// Reads the log of `identity`, cutting a torn tail.
pub(crate) fn recover(disk: &SharedDisk, identity: LogIdentity) -> Result<Recovered, OpenError> {
    let names = disk.list("wal").map_err(while_doing("listing the log's directory"))?;
    let numbers: Vec<SegmentNumber> = names.iter().filter_map(|name| SegmentNumber::of(name)).collect();
    if numbers.is_empty() {
        return Err(OpenError::LostMemory(Loss::Absent));
    }
    // The predecessor may have died between a rename and its sync. What we act on must last (C3).
    disk.sync_dir("wal").map_err(while_doing("syncing the log's directory"))?;
    let headers = read_headers(disk, &numbers, identity)?;

    let mut recovered = Recovered {
        records: Vec::new(),
        summary: Summary::default(),
        trimmed: Prefix::EMPTY,
        segments: Vec::new(),
        position: 0,
        last: GroupNumber::default(),
        last_batch: GroupNumber::default(),
        confirmed: GroupNumber::default(),
        wiped: 0,
    };
    for (index, header) in headers.iter().enumerate() {
        recovered.read_segment(disk, header, headers.get(index + 1))?;
    }
    recovered.trimmed = recovered.summary.trimmed;
    Ok(recovered)
}

/// The headers of all segments; they must make one log, ours.
fn read_headers(
    disk: &SharedDisk,
    numbers: &[SegmentNumber],
    expected: LogIdentity,
) -> Result<Vec<SegmentHeader>, OpenError> {
    let mut headers = Vec::new();
    for &segment in numbers {
        let mut file = disk.open(&segment.path()).map_err(while_doing("opening a segment"))?;
        file.settle().map_err(while_doing("settling a segment"))?;
        let mut sector = [0; SECTOR];
        let read = file.read_at(0, &mut sector).map_err(while_doing("reading a segment's header"))?;
        headers.push((segment, SegmentHeader::decode(&sector[..read])));
    }
    // What concerns the whole directory comes before what ails one file.
    for (segment, header) in &headers {
        match *header {
            Err(BadHeader::Format(found)) => return Err(OpenError::Format { segment: *segment, found }),
            Ok(SegmentHeader { identity: found, .. }) if found != expected => {
                let same = (found.cluster, found.node) == (expected.cluster, expected.node);
                return Err(match same {
                    true => OpenError::OtherIncarnation { found, expected },
                    false => OpenError::Foreign { found, expected },
                });
            }
            _ => {}
        }
    }
    let lost = OpenError::LostMemory;
    let mut good: Vec<SegmentHeader> = Vec::new();
    for (segment, header) in headers {
        if let Some(missing) = good.last().map(|before| before.number.next()).filter(|&n| n != segment) {
            return Err(lost(Loss::MissingSegment(missing)));
        }
        match header {
            Ok(header) if header.number == segment => good.push(header),
            _ => return Err(lost(Loss::DamagedHeader(segment))),
        }
    }
    Ok(good)
}

impl Recovered {
    fn read_segment(
        &mut self,
        disk: &SharedDisk,
        header: &SegmentHeader,
        next: Option<&SegmentHeader>,
    ) -> Result<(), OpenError> {
        let segment = header.number;
        let path = segment.path();
        let file = disk.open(&path).map_err(while_doing("opening a segment"))?;
        let bytes = read_all(&*file).map_err(while_doing("reading a segment"))?;
        drop(file);
        if (bytes.len() as u64) < header.capacity {
            return Err(OpenError::LostMemory(Loss::CutShort(segment)));
        }
        let seed = header.seed();
        let mut expected = header.first;
        let mut position = SECTOR;
        let mut highest = None;
        let mut closed = false;
        while let Some((group, body)) = Found::at(&bytes, position, seed)
            .filter(|found| found.header.number == expected)
            .and_then(|found| Some((found.header, found.body(&bytes, seed)?)))
        {
            self.confirmed = self.confirmed.max(group.durable);
            if group.kind == GroupKind::Closed {
                closed = true;
                break;
            }
            // A copy per group, so that a value that stays does not keep its whole segment in memory.
            let records = record::decode(Bytes::copy_from_slice(body), group.records)
                .map_err(|error| OpenError::Undecodable { segment, group: expected, error })?;
            records.iter().for_each(|record| self.summary.note(record));
            highest = highest.max(record::highest_slot(&records));
            self.records.extend(records);
            if group.kind == GroupKind::Batch {
                self.last_batch = expected;
            }
            position += crate::segment::group_bytes(body.len());
            expected = expected.next();
        }

        let damaged =
            |durable| Err(OpenError::LostMemory(Loss::DamagedGroup { segment, group: expected, durable }));
        if let Some(next) = next {
            // All of a segment is durable before the next one bears its name.
            if expected != next.first {
                return damaged(next.first.previous());
            }
        } else if closed {
            return Err(OpenError::LostMemory(Loss::MissingSegment(segment.next())));
        } else {
            // What may lie behind the end, and what it knows.
            let behind: Vec<Found> = (position..bytes.len())
                .step_by(SECTOR)
                .filter_map(|position| Found::at(&bytes, position, seed))
                .collect();
            let told = behind.iter().map(|found| found.header.durable).max().unwrap_or_default();
            let durable = told.max(self.confirmed);
            // The summary was durable before the segment bore its name.
            if (expected <= durable || expected == header.first) && !is(Mutant::TakesRotForTornTail) {
                return damaged(durable);
            }
            self.wipe(disk, &path, &behind)?;
        }
        self.segments.push(Read { header: *header, highest });
        self.last = expected.previous();
        self.position = position as u64;
        Ok(())
    }

    fn wipe(&mut self, disk: &SharedDisk, path: &str, heads: &[Found]) -> Result<(), OpenError> {
        if heads.is_empty() {
            return Ok(());
        }
        let mut file = disk.open(path).map_err(while_doing("opening a segment"))?;
        for head in heads {
            file.write_at(head.header.position, &[0; SECTOR]).map_err(while_doing("cutting a torn tail"))?;
        }
        self.wiped = heads.len();
        file.sync().map_err(while_doing("cutting a torn tail"))
    }
}

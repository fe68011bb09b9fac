//! The write-ahead log: an acceptor's memory on disk.
//!
//! An acceptor's word counts once it is here, so this module promises one thing: what [`WriteAheadLog::sync`]
//! has returned for is there after any crash and any power cut, or its absence is noticed (PMS-16, PMS-27).
//!
//! Whatever arrived while the last sync ran is written as one *group*, with one write and one sync. Groups
//! fill *segments*, files that are as long as they will ever be before the first group goes in, so that a
//! sync has no metadata to write. A group that does not fit opens the next segment. That one begins with a
//! summary of all that was said so far, acceptances apart; so once every slot accepted in an old segment is
//! trimmed, the old segment can go, and its file serves again.
//!
//! ```text
//!   wal/0000000000000007.seg   sealed by the one behind it      dropped when its slots are trimmed
//!   wal/0000000000000008.seg   summary, group, group, ...       written at its end
//!   wal/spare-0000000000000003                                  becomes ...9.seg
//! ```
//!
//! To open segment *n* + 1: make *n* durable; write header and summary into a spare; make that durable; give it
//! its name; make that durable; and only then write groups into it. So a named segment has a good
//! beginning, and its predecessors are durable as a whole. At last *n* is marked closed, to miss *n* + 1 should
//! it vanish.
//!
//! The first failure is final. After a failed write or sync nobody knows what is on disk, and asking again
//! would only produce a lie (fault catalogue, D4). The acceptor stops; a restart reads what the disk has.
//!
//! The log's own thread is the caller's: nothing here runs in the background, and whatever happens is decided
//! by the calls alone.

use crate::disk::{DiskFile, SECTOR, SharedDisk, is_full};
use crate::record::{self, Summary};
use crate::recovery::{self, OpenError, while_doing};
use crate::segment::{
    GROUP_HEADER, GroupHeader, GroupKind, GroupNumber, LogIdentity, Seed, SegmentHeader, SegmentNumber,
    begin_group, end_group, group_bytes, record_bytes,
};
use crate::spares::Spares;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use synod_paxos::acceptor::Record;
use synod_paxos::mutants::{Mutant, is};
use synod_paxos::types::{Prefix, Slot};

pub use crate::recovery::Loss;

/// The largest group, in bytes. Far above what one round of input brings: values are bounded by
/// [`MAX_VALUE_BYTES`](synod_paxos::wire::MAX_VALUE_BYTES).
pub const MAX_GROUP_BYTES: usize = 1 << 30;

/// Room kept at the end of a segment: for a seal and for the mark that it is closed.
const RESERVED: u64 = 2 * SECTOR as u64;

/// The buffer that groups are built in is given back to the system above this size, in bytes.
const BUFFER_KEPT: usize = 4 << 20;

/// How a log is laid out.
#[derive(Clone, Copy, Debug)]
pub struct WalOptions {
    /// The length of a segment in bytes; rounded up to sectors, at least 4 KiB. May change from start to start.
    pub segment_bytes: u64,
}

impl Default for WalOptions {
    fn default() -> WalOptions {
        WalOptions { segment_bytes: 64 << 20 }
    }
}

/// Why the log does not take records. What was written since the last successful sync may or may not survive;
/// no answer that waits for it may leave.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WalError {
    /// There is no space. The acceptor must stop; after space is freed, open the log again.
    #[error("no space left for the log while {doing}: free some and restart the acceptor")]
    Full {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        error: Arc<io::Error>,
    },
    /// The disk failed. The acceptor must stop for good, or until someone has looked at the disk; opening the
    /// log again tells what it still has.
    #[error("the log's disk failed while {doing}: {error}")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        error: Arc<io::Error>,
    },
    /// More than [`MAX_GROUP_BYTES`] in one call. Nothing was written and nothing is broken.
    #[error("a group of {bytes} bytes is more than the log takes at once ({MAX_GROUP_BYTES})")]
    TooLarge {
        /// The size of the group.
        bytes: usize,
    },
}

/// A log, and what it remembers.
pub struct Opened {
    /// The log, ready for more.
    pub log: WriteAheadLog,
    /// What [`Acceptor::restore`](synod_paxos::acceptor::Acceptor::restore) takes. All of it is durable.
    pub records: Vec<Record>,
    /// Did a power cut leave torn groups, which were cut? Nobody was ever told about those.
    pub cut: bool,
}

/// A full segment.
struct Closed {
    number: SegmentNumber,
    capacity: u64,
    highest: Option<Slot>,
}

/// The segment being written.
struct Active {
    file: Box<dyn DiskFile>,
    number: SegmentNumber,
    capacity: u64,
    seed: Seed,
    /// Where the next group goes, in bytes.
    position: u64,
    /// The highest slot accepted in it.
    highest: Option<Slot>,
}

/// The log of one life of one acceptor.
pub struct WriteAheadLog {
    disk: SharedDisk,
    identity: LogIdentity,
    segment_bytes: u64,
    /// Oldest first.
    closed: VecDeque<Closed>,
    active: Active,
    spares: Spares,
    summary: Summary,
    /// The trim point as far as it is durable.
    trimmed: Prefix,
    written: GroupNumber,
    synced: GroupNumber,
    /// The last group of records.
    last_batch: GroupNumber,
    /// The highest "durable up to" written.
    told: GroupNumber,
    buffer: Vec<u8>,
    failure: Option<WalError>,
}

type Failure = (&'static str, io::Error);

fn during(doing: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| (doing, error)
}

impl From<Failure> for WalError {
    fn from((doing, error): Failure) -> WalError {
        let full = is_full(&error);
        let error = Arc::new(error);
        if full { WalError::Full { doing, error } } else { WalError::Failed { doing, error } }
    }
}

impl WriteAheadLog {
    /// Starts the log of a new acceptor, durably, in place of any log that is there: of a life that is over,
    /// or that never began. In place of a log that some identity file still names, save the new identity
    /// *first*: segments go one by one, and what a crash leaves of them could pass for a log that was trimmed. An
    /// identity whose log is missing, or another's, has lost its memory, and that is found out.
    ///
    /// # Errors
    /// When the disk fails. Then there is no log, or an empty one.
    pub fn create(
        disk: SharedDisk,
        identity: LogIdentity,
        options: WalOptions,
    ) -> Result<WriteAheadLog, WalError> {
        let make = || -> Result<WriteAheadLog, Failure> {
            disk.create_dir("wal").map_err(during("making its directory"))?;
            let old = disk.list("wal").map_err(during("listing its directory"))?;
            for name in &old {
                disk.remove(&format!("wal/{name}")).map_err(during("removing an old log"))?;
            }
            disk.sync_dir("wal").map_err(during("removing an old log"))?;
            let segment_bytes = options.segment_bytes();
            let mut spares = Spares::open(&disk, segment_bytes).map_err(during("taking stock"))?;
            let first = GroupNumber::default().next();
            let header =
                SegmentHeader { identity, number: SegmentNumber::FIRST, first, capacity: segment_bytes };
            let active = open_segment(&disk, &mut spares, header, &[])?;
            Ok(WriteAheadLog {
                disk: disk.clone(),
                identity,
                segment_bytes,
                closed: VecDeque::new(),
                active,
                spares,
                summary: Summary::default(),
                trimmed: Prefix::EMPTY,
                written: first,
                synced: first,
                last_batch: GroupNumber::default(),
                told: GroupNumber::default(),
                buffer: Vec::new(),
                failure: None,
            })
        };
        make().map_err(WalError::from)
    }

    /// Opens the log of `identity` and reads it, after making sure that what it reads is on the disk and not
    /// only in the page cache (C3, D4). A torn tail is cut, durably.
    ///
    /// # Errors
    /// Each says what to do; [`OpenError::is_lost_memory`] says when a new incarnation is called for.
    pub fn open(disk: SharedDisk, identity: LogIdentity, options: WalOptions) -> Result<Opened, OpenError> {
        let mut recovered = recovery::recover(&disk, identity)?;
        let segment_bytes = options.segment_bytes();
        let spares = Spares::open(&disk, segment_bytes).map_err(while_doing("taking stock of spares"))?;
        let last = recovered.segments.pop().expect("recovery finds a segment or fails");
        let number = last.header.number;
        let mut file = disk.open(&number.path()).map_err(while_doing("opening the last segment"))?;
        file.bypass_cache();
        let active = Active {
            file,
            number,
            capacity: last.header.capacity,
            seed: last.header.seed(),
            position: recovered.position,
            highest: last.highest,
        };
        let closed = recovered
            .segments
            .into_iter()
            .map(|read| Closed {
                number: read.header.number,
                capacity: read.header.capacity,
                highest: read.highest,
            })
            .collect();
        let log = WriteAheadLog {
            disk,
            identity,
            segment_bytes,
            closed,
            active,
            spares,
            summary: recovered.summary,
            trimmed: recovered.trimmed,
            written: recovered.last,
            synced: recovered.last,
            last_batch: recovered.last_batch,
            told: recovered.confirmed,
            buffer: Vec::new(),
            failure: None,
        };
        Ok(Opened { log, records: recovered.records, cut: recovered.wiped > 0 })
    }

    /// Whose memory this is.
    pub fn identity(&self) -> LogIdentity {
        self.identity
    }

    /// The last group that is durable. Never falls within one incarnation, unless the disk went back in time.
    pub fn synced(&self) -> GroupNumber {
        self.synced
    }

    /// How many segment files the log has, the active one included.
    pub fn segments(&self) -> usize {
        self.closed.len() + 1
    }

    /// How many bytes its segments hold, room written ahead aside.
    pub fn bytes(&self) -> u64 {
        self.closed.iter().map(|segment| segment.capacity).sum::<u64>() + self.active.position
    }

    /// Writes `records` as one group and makes them durable: [`WriteAheadLog::write`], then
    /// [`WriteAheadLog::sync`].
    ///
    /// # Errors
    /// As those two.
    pub fn append(&mut self, records: &[Record]) -> Result<(), WalError> {
        self.write(records)?;
        self.sync()?;
        Ok(())
    }

    /// Writes `records` as one group. Nothing may be said that relies on them before the next
    /// [`WriteAheadLog::sync`] has returned. Nothing is written when there are none.
    ///
    /// # Errors
    /// [`WalError::TooLarge`] changes nothing. Any other error is final: every later call returns the same.
    pub fn write(&mut self, records: &[Record]) -> Result<(), WalError> {
        let bytes = records.iter().map(record_bytes).fold(SECTOR, usize::saturating_add);
        if bytes > MAX_GROUP_BYTES {
            return Err(WalError::TooLarge { bytes });
        }
        self.unless_failed(|log| if records.is_empty() { Ok(()) } else { log.write_batch(records) })
    }

    /// Makes everything written so far durable, with one `fdatasync`; none if there is nothing new. The time it
    /// takes is the time the disk takes.
    ///
    /// # Errors
    /// Final, as those of [`WriteAheadLog::write`].
    pub fn sync(&mut self) -> Result<GroupNumber, WalError> {
        self.unless_failed(|log| {
            log.sync_active()?;
            Ok(log.synced)
        })
    }

    /// Would a seal add anything?
    pub fn needs_seal(&self) -> bool {
        self.told < self.last_batch
    }

    /// Notes durably that everything written is durable, in a sector of its own. To be called when the log
    /// has been idle for about 100 ms and before a clean end, so that rot in the last group cannot pass for a
    /// torn tail (rule R9). Does nothing when that is known already.
    ///
    /// # Errors
    /// Final, as those of [`WriteAheadLog::write`].
    pub fn seal(&mut self) -> Result<(), WalError> {
        self.unless_failed(|log| {
            log.sync_active()?;
            if log.told < log.last_batch {
                log.buffer.clear();
                begin_group(&mut log.buffer);
                log.write_group(GroupKind::Seal, 0)?;
                log.sync_active()?;
            }
            Ok(())
        })
    }

    /// Drops the oldest segments, as long as they hold acceptances of slots up to `upto` only; the files of up
    /// to two are kept for later segments. The active segment stays. Never goes beyond what a synced
    /// [`Record::Trimmed`] says, since an acceptor that forgets slots must remember that it did.
    ///
    /// # Errors
    /// Final, as those of [`WriteAheadLog::write`].
    pub fn trim(&mut self, upto: Prefix) -> Result<(), WalError> {
        let upto = upto.min(self.trimmed);
        self.unless_failed(|log| {
            while let Some(oldest) = log.closed.front()
                && oldest.highest.is_none_or(|slot| upto.contains(slot))
            {
                let (number, capacity) = (oldest.number, oldest.capacity);
                log.spares.recycle(number, capacity).map_err(during("dropping a segment"))?;
                log.closed.pop_front();
            }
            Ok(())
        })
    }

    /// Writes up to `budget` bytes of zeroes (and syncs them) towards the next segment, unless one is ready;
    /// says whether one is. To be called when idle, and under load with a few times the bytes appended: the
    /// log works without, but then opening a segment takes as long as writing it.
    ///
    /// # Errors
    /// [`WalError::Full`] is not final here: the segment being written has room of its own, and trimming
    /// may give back some. Any other error is.
    pub fn prepare_next(&mut self, budget: u64) -> Result<bool, WalError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.spares.prepare(budget).map_err(|error| {
            let error = WalError::from(("preparing a segment", error));
            if matches!(error, WalError::Failed { .. }) {
                self.failure = Some(error.clone());
            }
            error
        })
    }

    /// The one gate: nothing happens after a failure.
    fn unless_failed<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, Failure>) -> Result<T, WalError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        act(self).map_err(|failure| {
            let failure = WalError::from(failure);
            self.failure = Some(failure.clone());
            failure
        })
    }

    fn write_batch(&mut self, records: &[Record]) -> Result<(), Failure> {
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT);
        begin_group(&mut self.buffer);
        records.iter().for_each(|record| record::encode(record, &mut self.buffer));
        let len = group_bytes(self.buffer.len() - GROUP_HEADER) as u64;
        if self.active.position + len + RESERVED > self.active.capacity {
            self.roll(len)?;
        }
        let count = u32::try_from(records.len()).expect("bounded by the group's bytes");
        self.write_group(GroupKind::Batch, count)?;
        self.last_batch = self.written;
        self.active.highest = self.active.highest.max(record::highest_slot(records));
        records.iter().for_each(|record| self.summary.note(record));
        Ok(())
    }

    /// Writes the group that the buffer holds.
    fn write_group(&mut self, kind: GroupKind, records: u32) -> Result<(), Failure> {
        let number = self.written.next();
        let position = self.active.position;
        let header = GroupHeader { kind, number, durable: self.synced, position, records, len: 0 };
        end_group(&mut self.buffer, 0, self.active.seed, header);
        self.active.file.write_at(position, &self.buffer).map_err(during("writing a group"))?;
        self.active.position += self.buffer.len() as u64;
        self.written = number;
        self.told = self.synced;
        Ok(())
    }

    fn sync_active(&mut self) -> Result<(), Failure> {
        if self.synced < self.written {
            if !is(Mutant::NeverSyncs) {
                let synced = self.active.file.sync();
                synced.or_else(forgiven).map_err(during("syncing"))?;
            }
            self.synced = self.written;
            self.trimmed = self.summary.trimmed;
        }
        Ok(())
    }

    /// Opens the next segment, with room for a group of `len` bytes. The order matters: see the module's story.
    fn roll(&mut self, len: u64) -> Result<(), Failure> {
        self.sync_active()?;
        let summary = self.summary.records();
        let summary_bytes = group_bytes(summary.iter().map(record_bytes).sum()) as u64;
        let capacity = self.segment_bytes.max(SECTOR as u64 + summary_bytes + len + RESERVED);
        let number = self.active.number.next();
        let first = self.written.next();
        let header = SegmentHeader { identity: self.identity, number, first, capacity };
        let next = open_segment(&self.disk, &mut self.spares, header, &summary)?;
        let mut full = std::mem::replace(&mut self.active, next);
        self.told = self.synced;
        self.written = first;
        self.synced = first;
        let mut mark = Vec::new();
        begin_group(&mut mark);
        let position = full.position;
        let header = GroupHeader {
            kind: GroupKind::Closed,
            number: first,
            durable: first,
            position,
            records: 0,
            len: 0,
        };
        end_group(&mut mark, 0, full.seed, header);
        full.file.write_at(position, &mark).map_err(during("closing a segment"))?;
        full.file.sync().map_err(during("closing a segment"))?;
        self.closed.push_back(Closed { number: full.number, capacity: full.capacity, highest: full.highest });
        Ok(())
    }
}

impl WalOptions {
    fn segment_bytes(self) -> u64 {
        self.segment_bytes.max(4096).next_multiple_of(SECTOR as u64)
    }
}

/// Makes a segment that begins with `summary`, durably, name and all.
fn open_segment(
    disk: &SharedDisk,
    spares: &mut Spares,
    header: SegmentHeader,
    summary: &[Record],
) -> Result<Active, Failure> {
    let (spare, mut file) = spares.take(header.capacity).map_err(during("preparing a segment"))?;
    let seed = header.seed();
    let mut buffer = header.encode().to_vec();
    let position = buffer.len() as u64;
    let start = begin_group(&mut buffer);
    summary.iter().for_each(|record| record::encode(record, &mut buffer));
    let group = GroupHeader {
        kind: GroupKind::Summary,
        number: header.first,
        durable: header.first.previous(),
        position,
        records: u32::try_from(summary.len()).expect("a summary is three records"),
        len: 0,
    };
    end_group(&mut buffer, start, seed, group);
    file.write_at(0, &buffer).map_err(during("beginning a segment"))?;
    file.sync().map_err(during("beginning a segment"))?;
    disk.rename(&spare, &header.number.path()).map_err(during("naming a segment"))?;
    if !is(Mutant::ForgetsDirectorySync) {
        disk.sync_dir("wal").map_err(during("naming a segment"))?;
    }
    file.bypass_cache();
    let position = buffer.len() as u64;
    Ok(Active { file, number: header.number, capacity: header.capacity, seed, position, highest: None })
}

/// A failed sync is final: there is no second one (D4).
fn forgiven(error: std::io::Error) -> std::io::Result<()> {
    if is(Mutant::TrustsFailedSync) { Ok(()) } else { Err(error) }
}

//! The log reader, over a log that was written well and then damaged (rule R9, fault catalogue D7 to D9).
//!
//! ```text
//!   input = which log, how: rot or forgery, faults
//! ```

use super::Outcome::{Refused, Understood};
use super::damage::Image;
use super::input::Input;
use super::{Outcome, bounded};
use std::sync::OnceLock;
use synod_paxos::acceptor::{Acceptor, Limits, Record};
use synod_paxos::message::{Acceptance, Chosen};
use synod_paxos::types::{Ballot, ClusterId, Generation, Incarnation, NodeId, Prefix, Slot, VoterId};
use synod_paxos::value::Value;
use synod_storage::disk::{MemoryDisk, SECTOR, SharedDisk};
use synod_storage::segment::LogIdentity;
use synod_storage::wal::{Opened, WalOptions, WriteAheadLog};

const IDENTITY: LogIdentity =
    LogIdentity { cluster: ClusterId(7), node: NodeId(2), incarnation: Incarnation(99) };

/// Segments of eight sectors, so that a log of a few groups has several.
const SMALL: WalOptions = WalOptions { segment_bytes: 4096 };

/// Opens a damaged log.
///
/// After rot, either the log opens, with a beginning of what was written to it, all of it unless something
/// changed, and after a single fault at most without a last group that nothing behind it vouched for (R9); or
/// it says that memory was lost, every time it is asked, and gives way to a new log. After forgery, whatever
/// it says. A log that opens takes a record and has it the next time.
pub fn wal(data: &[u8]) -> Outcome {
    let mut input = Input::new(bounded(data));
    let logs = logs();
    let log = &logs[usize::from(input.u8()) % logs.len()];
    let mut image = log.image.clone();
    if input.u8().is_multiple_of(2) {
        let faults = image.rot(input, Some(&log.oldest));
        rotten(log, &image.disk(), faults)
    } else {
        image.forge(input, reseal);
        forged(&image.disk())
    }
}

fn rotten(log: &Log, disk: &SharedDisk, faults: usize) -> Outcome {
    let opened = match open(disk, IDENTITY) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(error.is_lost_memory(), "a rotten log is lost memory, not {error}");
            assert_ne!(faults, 0, "a good log was refused: {error}");
            assert!(open(disk, IDENTITY).is_err(), "lost memory came back");
            start_over(disk);
            return Refused;
        }
    };
    let found = log.memory(opened.records.iter());
    let kept = (0..=log.groups.len()).rev().find(|&kept| log.memory(log.first(kept)) == found);
    let kept = kept.unwrap_or_else(|| panic!("never written: {found:?}"));
    let least = match faults {
        0 => log.groups.len(),
        1 => log.vouched,
        _ => 0,
    };
    assert!(kept >= least, "{kept} groups are left, {least} must be: {found:?}");
    let extra = goes_on(opened, disk);
    let again = open(disk, IDENTITY).expect("a log that opened opens again");
    assert!(!again.cut, "cut twice");
    assert_eq!(log.memory(&again.records), log.memory(log.first(kept).chain([&extra])));
    Understood
}

fn forged(disk: &SharedDisk) -> Outcome {
    let Ok(opened) = open(disk, IDENTITY) else {
        assert!(open(disk, IDENTITY).is_err(), "a log that was refused came back");
        start_over(disk);
        return Refused;
    };
    let mut records = opened.records.clone();
    records.push(goes_on(opened, disk));
    let again = open(disk, IDENTITY).expect("a log that opened opens again");
    assert_eq!(Memory::of(&again.records), Memory::of(&records));
    Understood
}

fn open(disk: &SharedDisk, identity: LogIdentity) -> Result<Opened, synod_storage::recovery::OpenError> {
    WriteAheadLog::open(disk.clone(), identity, SMALL)
}

/// Adds a record that is not in any log, and returns it.
fn goes_on(opened: Opened, disk: &SharedDisk) -> Record {
    let mut log = opened.log;
    let extra = accepted(77, 1000, 700);
    log.append(std::slice::from_ref(&extra)).expect("a disk in memory does not fail");
    drop(log);
    assert!(!disk.list("wal").expect("nor does this").is_empty());
    extra
}

/// A new incarnation takes the place of one that lost its memory (rule R2).
fn start_over(disk: &SharedDisk) {
    let identity = LogIdentity { incarnation: Incarnation(100), ..IDENTITY };
    let mut log = WriteAheadLog::create(disk.clone(), identity, SMALL).expect("it is a new beginning");
    let record = promised(3);
    log.append(std::slice::from_ref(&record)).expect("a disk in memory does not fail");
    drop(log);
    assert_eq!(open(disk, identity).expect("it is a new log").records, [record]);
}

/// A log, as it was before anything happened to it.
struct Log {
    image: Image,
    /// The first segment. Its absence is what trimming looks like: that it was not trimmed is for others to
    /// notice, so it never vanishes here.
    oldest: String,
    /// What was written.
    groups: Vec<Vec<Record>>,
    /// So many of them are known durable to something behind them.
    vouched: usize,
    /// Slots whose segments are gone.
    dropped: Prefix,
}

impl Log {
    /// Writes a log: `groups`, synced all but the last `torn` ones, sealed if asked for.
    fn new(groups: Vec<Vec<Record>>, torn: usize, sealed: bool, dropped: Prefix) -> Log {
        let disk: SharedDisk = std::sync::Arc::new(MemoryDisk::new());
        let mut log = WriteAheadLog::create(disk.clone(), IDENTITY, SMALL).expect("an empty disk");
        let good = "a disk in memory does not fail";
        let synced = groups.len() - torn;
        for group in &groups[..synced] {
            log.append(group).expect(good);
            log.trim(dropped).expect(good);
        }
        groups[synced..].iter().for_each(|group| log.write(group).expect(good));
        if sealed {
            log.seal().expect(good);
        }
        drop(log);
        let image = Image::of(&*disk, &["wal"]);
        let oldest = image.files.keys().find(|path| path.ends_with(".seg")).expect("a log has one").clone();
        // A group says that those before it are durable, as far as they were when it was written.
        let vouched = if sealed || torn > 0 { synced } else { synced - 1 };
        Log { image, oldest, groups, vouched, dropped }
    }

    fn first(&self, groups: usize) -> impl Iterator<Item = &Record> {
        self.groups[..groups].iter().flatten()
    }

    /// What remains of `records` in memory, but for slots that went with their segments.
    fn memory<'a>(&self, records: impl IntoIterator<Item = &'a Record>) -> Memory {
        let mut memory = Memory::of(records);
        memory.accepted.retain(|acceptance| !self.dropped.contains(acceptance.slot));
        memory
    }
}

/// All that an acceptor remembers (PMS-16).
#[derive(Debug, PartialEq)]
struct Memory {
    promised: Option<Ballot>,
    trimmed: Prefix,
    chosen: Option<Chosen>,
    accepted: Vec<Acceptance>,
}

impl Memory {
    fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Memory {
        let id = VoterId { node: IDENTITY.node, incarnation: IDENTITY.incarnation };
        let acceptor = Acceptor::restore(id, Limits::default(), records.into_iter().cloned());
        Memory {
            promised: acceptor.promised(),
            trimmed: acceptor.trimmed(),
            chosen: acceptor.chosen(),
            accepted: acceptor.acceptances(Slot::FIRST).collect(),
        }
    }
}

fn ballot(round: u64) -> Ballot {
    Ballot { round, node: NodeId(1), generation: Generation(1) }
}

fn promised(round: u64) -> Record {
    Record::Promised { ballot: ballot(round) }
}

/// An acceptance of `len` bytes that tell it from others.
fn accepted(round: u64, slot: u64, len: usize) -> Record {
    let bytes: Vec<u8> = (0..len as u64).map(|n| (n * 7 + slot * 13 + round) as u8).collect();
    Record::Accepted { ballot: ballot(round), slot: Slot(slot), value: Value::from_encoded(bytes.into()) }
}

fn trimmed(upto: u64) -> Record {
    Record::Trimmed { upto: Prefix(upto) }
}

fn chosen(round: u64, upto: u64) -> Record {
    Record::Chosen(Chosen { ballot: ballot(round), from: Slot(1), upto: Prefix(upto) })
}

fn logs() -> &'static [Log] {
    static LOGS: OnceLock<Vec<Log>> = OnceLock::new();
    LOGS.get_or_init(|| {
        let long: Vec<Vec<Record>> = [vec![promised(1)]]
            .into_iter()
            .chain((1..5).map(|slot| vec![accepted(1, slot, 900), chosen(1, slot - 1)]))
            .collect();
        let short = vec![vec![promised(1)], vec![accepted(1, 1, 100), accepted(1, 2, 0)], vec![promised(4)]];
        // The first segment is dropped and its file serves again, with old groups behind the new ones.
        let reused: Vec<Vec<Record>> = (1..=4)
            .map(|slot| vec![accepted(1, slot, 10)])
            .chain([vec![accepted(2, 5, 10), trimmed(4)]])
            .chain((6..=9).map(|slot| vec![accepted(2, slot, 10)]))
            .collect();
        vec![
            Log::new(long.clone(), 0, true, Prefix::EMPTY),
            Log::new(long.clone(), 0, false, Prefix::EMPTY),
            Log::new(long, 2, false, Prefix::EMPTY),
            Log::new(short.clone(), 0, true, Prefix::EMPTY),
            Log::new(short, 1, false, Prefix::EMPTY),
            Log::new(reused, 0, true, Prefix(4)),
        ]
    })
}

/// Makes all checksums of a segment right that can be: of its header, and of every group in it.
fn reseal(path: &str, bytes: &mut [u8]) {
    const GROUP_HEADER: usize = 48;
    if !path.ends_with(".seg") || bytes.len() < SECTOR {
        return;
    }
    let crc = crc32c::crc32c(&bytes[..SECTOR - 4]);
    bytes[SECTOR - 4..SECTOR].copy_from_slice(&crc.to_le_bytes());
    // Magic and format, then cluster, node, incarnation, number.
    let field = |range: std::ops::Range<usize>| bytes[range].to_vec();
    let seed = crc32c::crc32c(&[field(36..52), field(12..28), field(52..60)].concat());
    for start in (SECTOR..bytes.len()).step_by(SECTOR) {
        let len = match bytes.get(start..start + GROUP_HEADER) {
            Some(head) if head.starts_with(b"sgrp") => {
                u32::from_le_bytes([head[32], head[33], head[34], head[35]])
            }
            _ => continue,
        };
        let end = start + (GROUP_HEADER + len as usize).next_multiple_of(SECTOR);
        if let Some(body) = bytes.get(start + GROUP_HEADER..end) {
            let crc = crc32c::crc32c_append(seed, body);
            bytes[start + 40..start + 44].copy_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32c::crc32c_append(seed, &bytes[start..start + 44]);
        bytes[start + 44..start + GROUP_HEADER].copy_from_slice(&crc.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logs_are_what_they_are_meant_to_be() {
        let segments = |log: &Log| log.image.files.keys().filter(|path| path.ends_with(".seg")).count();
        assert_eq!(logs().iter().map(segments).collect::<Vec<_>>(), [4, 4, 4, 1, 1, 2]);
        assert!(!logs()[5].oldest.ends_with("1.seg"), "the first was dropped");
        for log in logs() {
            assert_eq!(rotten(log, &log.image.disk(), 0), Understood);
        }
    }

    #[test]
    fn the_forger_knows_the_format() {
        for log in logs() {
            for (path, good) in &log.image.files {
                let mut bytes = good.clone();
                reseal(path, &mut bytes);
                // Behind a reused segment's end lie groups of its earlier life, which now pass for its own.
                let same = bytes == *good;
                assert!(same || log.dropped != Prefix::EMPTY, "{path}");
            }
        }
        // Another promise in the first log: refused with the old checksums, believed with new ones.
        let mut image = logs()[0].image.clone();
        let file = image.files.get_mut(&logs()[0].oldest).expect("it is there");
        let round = 2 * SECTOR + 48 + 5;
        assert_eq!(file[round], 1);
        file[round] = 9;
        assert!(open(&image.disk(), IDENTITY).is_err());
        let oldest = &logs()[0].oldest;
        reseal(oldest, image.files.get_mut(oldest).expect("it is there"));
        let records = open(&image.disk(), IDENTITY).expect("well forged").records;
        assert_eq!(records[0], promised(9));
    }
}

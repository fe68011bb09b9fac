//! Bytes that change by themselves, sectors in the wrong place, files that vanish, logs of others.

mod common;

use common::*;
use synod_paxos::acceptor::Record;
use synod_paxos::types::{ClusterId, Incarnation, NodeId, Prefix};
use synod_storage::disk::{Disk, FaultyDisk, SECTOR, Survivors};
use synod_storage::recovery::OpenError;
use synod_storage::segment::LogIdentity;
use synod_storage::wal::{Loss, WriteAheadLog};

/// Segments 1 to 3; the last group is sealed or not.
fn small_log(sealed: bool) -> (FaultyDisk, Vec<Record>) {
    let disk = fresh(1);
    let mut log = open(&disk).unwrap().log;
    let mut records = vec![promised(1)];
    log.append(&records).unwrap();
    for slot in 1..5 {
        let record = accepted(1, slot, 900);
        log.append(std::slice::from_ref(&record)).unwrap();
        records.push(record);
    }
    assert_eq!(log.segments(), 3);
    assert!(log.needs_seal());
    if sealed {
        log.seal().unwrap();
        assert!(!log.needs_seal());
    }
    disk.power_cut(Survivors::None);
    (disk, records)
}

/// Flips every byte of the log in turn; says how often the log noticed lost memory, and how often the last
/// group passed for torn.
fn rot_everywhere(disk: &FaultyDisk, records: &[Record]) -> (usize, usize) {
    let (mut lost, mut torn) = (0, 0);
    for path in disk.paths() {
        for offset in 0..disk.contents(&path).unwrap().len() {
            let disk = disk.fork(0);
            disk.rot(&path, offset, 1 << (offset % 8));
            match open(&disk) {
                Ok(opened) if memory(&opened.records) == memory(records) => {}
                Ok(opened) => {
                    assert_eq!(
                        memory(&opened.records),
                        memory(&records[..records.len() - 1]),
                        "{path} {offset}"
                    );
                    torn += 1;
                }
                Err(error) => {
                    assert!(error.is_lost_memory(), "{path} {offset}: {error}");
                    assert!(open(&disk).is_err(), "it does not go away");
                    lost += 1;
                }
            }
        }
    }
    (lost, torn)
}

#[test]
fn d7_r9_rot_in_a_sealed_log_is_always_noticed() {
    let (disk, records) = small_log(true);
    let (lost, torn) = rot_everywhere(&disk, &records);
    assert_eq!(torn, 0);
    // Every byte that says anything: headers, summaries and groups.
    assert!(lost > 3 * SECTOR + 4 * 900, "{lost}");
}

#[test]
fn r9_without_a_seal_rot_in_the_last_group_and_only_there_passes_for_a_torn_tail() {
    let (disk, records) = small_log(false);
    let (_, torn) = rot_everywhere(&disk, &records);
    assert_eq!(torn, 2 * SECTOR, "the sectors of the last group");
}

#[test]
fn d7_r9_whole_sectors_of_zeroes_are_noticed_in_a_sealed_log() {
    let (disk, records) = small_log(true);
    let mut lost = 0;
    for path in disk.paths() {
        for sector in 0..disk.contents(&path).unwrap().len() / SECTOR {
            let disk = disk.fork(0);
            disk.misdirect(&path, sector * SECTOR, &[0; SECTOR]);
            match open(&disk) {
                Ok(opened) => assert_eq!(memory(&opened.records), memory(&records), "{path} {sector}"),
                Err(error) => {
                    assert!(error.is_lost_memory(), "{error}");
                    lost += 1;
                }
            }
        }
    }
    assert!(lost >= 3 + 3 + 1 + 8, "headers, summaries, promise, acceptances: {lost}");
}

#[test]
fn d8_a_sector_written_over_another_is_noticed() {
    let (disk, records) = small_log(true);
    let paths = disk.paths();
    let mut lost = 0;
    for from in &paths {
        let source = disk.contents(from).unwrap();
        for (to, sector) in paths.iter().flat_map(|to| (0..8).map(move |sector| (to, sector))) {
            for sector_bytes in source.chunks(SECTOR) {
                let disk = disk.fork(0);
                disk.misdirect(to, sector * SECTOR, sector_bytes);
                match open(&disk) {
                    Ok(opened) => assert_eq!(memory(&opened.records), memory(&records), "{to} {sector}"),
                    Err(error) => {
                        assert!(error.is_lost_memory(), "{error}");
                        lost += 1;
                    }
                }
            }
        }
    }
    assert!(lost > 100, "{lost}");
}

#[test]
fn d8_what_an_earlier_life_of_a_segment_left_never_validates() {
    let disk = fresh(1);
    let mut log = open(&disk).unwrap().log;
    // Four groups of one sector each fit into a segment: all lives of a file have them at the same places.
    for slot in 1..=4 {
        log.append(&[accepted(1, slot, 10)]).unwrap();
    }
    log.append(&[accepted(2, 5, 10), trimmed(4)]).unwrap();
    assert_eq!(log.segments(), 2);
    log.trim(Prefix(4)).unwrap();
    assert_eq!(log.segments(), 1);
    let spare = disk.paths().into_iter().find(|path| path.contains("spare")).expect("recycled");
    let old = disk.contents(&spare).unwrap();
    for slot in 6..=9 {
        log.append(&[accepted(2, slot, 10)]).unwrap();
    }
    let recycled = disk.paths().into_iter().find(|path| path.ends_with("3.seg")).expect("in use again");
    let new = disk.contents(&recycled).unwrap();
    assert!(!disk.paths().contains(&spare));
    assert_eq!(new[5 * SECTOR..6 * SECTOR], old[5 * SECTOR..6 * SECTOR], "the old groups are still there");
    assert_ne!(old[5 * SECTOR..6 * SECTOR], [0; SECTOR]);
    let slots: Vec<_> = memory(&open(&disk).unwrap().records).accepted.iter().map(|a| a.slot.0).collect();
    assert_eq!(slots, [5, 6, 7, 8, 9]);
}

#[test]
fn d9_missing_segments_are_noticed_at_both_ends_and_in_between() {
    let (disk, _) = small_log(true);
    let paths = disk.paths();
    for gone in [1, 2] {
        let disk = disk.fork(0);
        disk.remove(&paths[gone]).unwrap();
        let error = open(&disk).err().unwrap();
        assert!(
            matches!(error, OpenError::LostMemory(Loss::MissingSegment(n)) if n.0 == gone as u64 + 1),
            "{error}"
        );
    }
    // The first may have been trimmed; if it was not, the acceptor's own records say what is missing, not the log.
    for path in &paths {
        disk.remove(path).unwrap();
    }
    assert!(matches!(open(&disk).err().unwrap(), OpenError::LostMemory(Loss::Absent)));
}

#[test]
fn d9_a_file_cut_short_is_noticed() {
    let (disk, _) = small_log(false);
    let path = &disk.paths()[2];
    let good = disk.contents(path).unwrap();
    for len in (0..good.len()).step_by(100) {
        let disk = disk.fork(0);
        let mut file = disk.create(path).unwrap();
        file.write_at(0, &good[..len]).unwrap();
        assert!(open(&disk).err().unwrap().is_lost_memory(), "{len}");
    }
}

#[test]
fn foreign_logs_are_told_apart_and_left_alone() {
    let (disk, _) = small_log(false);
    let operations = disk.operations();
    let files: Vec<_> = disk.paths().iter().map(|path| disk.contents(path)).collect();
    let mine = identity();
    for (other, lost) in [
        (LogIdentity { cluster: ClusterId(8), ..mine }, false),
        (LogIdentity { node: NodeId(3), ..mine }, false),
        (LogIdentity { incarnation: Incarnation(100), ..mine }, true),
    ] {
        let error = WriteAheadLog::open(shared(&disk), other, SMALL).err().expect("refused");
        match &error {
            OpenError::Foreign { found, expected } if !lost => assert_eq!((*found, *expected), (mine, other)),
            OpenError::OtherIncarnation { found, .. } if lost => assert_eq!(*found, mine),
            _ => panic!("{error}"),
        }
        assert_eq!(error.is_lost_memory(), lost);
    }
    let after: Vec<_> = disk.paths().iter().map(|path| disk.contents(path)).collect();
    assert_eq!(after, files);
    assert!(disk.operations() > operations, "it was settled");
}

#[test]
fn m3_a_newer_format_is_refused_before_anything_is_written() {
    let (disk, _) = small_log(false);
    let path = &disk.paths()[1];
    let mut sector = disk.contents(path).unwrap()[..SECTOR].to_vec();
    sector[8..12].copy_from_slice(&2u32.to_le_bytes());
    let crc = crc32c::crc32c(&sector[..SECTOR - 4]);
    sector[SECTOR - 4..].copy_from_slice(&crc.to_le_bytes());
    disk.misdirect(path, 0, &sector);
    // A torn tail that would be cut, and damage that would be lost memory, were the format known.
    disk.rot(&disk.paths()[2], 3 * SECTOR, 1);
    disk.rot(&disk.paths()[0], 3 * SECTOR, 1);
    let files: Vec<_> = disk.paths().iter().map(|path| disk.contents(path)).collect();
    let error = open(&disk).err().unwrap();
    assert!(matches!(error, OpenError::Format { found: 2, .. }), "{error}");
    assert!(!error.is_lost_memory());
    assert_eq!(files, disk.paths().iter().map(|path| disk.contents(path)).collect::<Vec<_>>());
}

#[test]
fn pms_27_trimming_waits_for_the_durable_word_that_slots_are_trimmed() {
    let disk = fresh(1);
    let mut log = open(&disk).unwrap().log;
    for slot in 1..=5 {
        log.append(&[accepted(1, slot, 900)]).unwrap();
    }
    let segments = log.segments();
    assert!(segments > 2);
    log.trim(Prefix(5)).unwrap();
    assert_eq!(log.segments(), segments, "nothing says that slots are trimmed");
    log.write(&[trimmed(5)]).unwrap();
    log.trim(Prefix(5)).unwrap();
    assert_eq!(log.segments(), segments, "nothing durable says so");
    log.sync().unwrap();
    log.trim(Prefix(0)).unwrap();
    assert_eq!(log.segments(), segments, "not asked for");
    log.trim(Prefix(5)).unwrap();
    assert_eq!(log.segments(), 1);
    assert!(disk.paths().len() <= 3, "at most two spares: {:?}", disk.paths());
    assert_eq!(memory(&open(&disk).unwrap().records), memory(&[promised(1), trimmed(5)]));
}

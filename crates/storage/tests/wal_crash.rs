//! Crashes and power cuts at every single disk operation of a log's life.

mod common;

use common::*;
use std::cell::Cell;
use synod_paxos::acceptor::Record;
use synod_paxos::types::{Prefix, Slot};
use synod_storage::disk::{CrashPoint, Fault, FaultRates, FaultyDisk, Survivors};
use synod_storage::recovery::OpenError;
use synod_storage::wal::{Loss, WalError, WriteAheadLog};

const POINTS: [CrashPoint; 3] = [CrashPoint::Before, CrashPoint::During, CrashPoint::After];

/// Opens the log after a crash; it must remember what it should, and go on.
fn check(disk: &FaultyDisk, book: &Expectation, context: &str) {
    let mut opened = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(book.allows(&opened.records), "{context}: remembers {:?}", memory(&opened.records));
    let mut records = opened.records;
    for round in 50..54 {
        let more = vec![accepted(round, 40 + round, 900)];
        opened.log.append(&more).unwrap_or_else(|error| panic!("{context}: {error}"));
        records.extend(more);
    }
    disk.power_cut(Survivors::None);
    let again = open(disk).unwrap_or_else(|error| panic!("{context}, again: {error}"));
    assert_eq!(memory(&again.records), memory(&records), "{context}: later records");
}

/// Runs the story with a crash at every operation and hands each wreck to `look`.
fn wrecks(look: impl Fn(&FaultyDisk, &Expectation, &str)) -> usize {
    let steps = story();
    let disk = fresh(1);
    let first = disk.operations() + 1;
    perform(&disk, &steps, &mut Expectation::default()).unwrap();
    let last = disk.operations();
    assert!(last - first > 100, "the story is long enough to be of interest");
    let mut count = 0;
    for operation in first..=last {
        for point in POINTS {
            let disk = fresh(1);
            disk.crash_at(operation, point);
            let mut book = Expectation::default();
            perform(&disk, &steps, &mut book).expect_err("it crashes");
            assert!(disk.crashed());
            look(&disk, &book, &format!("crash {point:?} operation {operation}"));
            count += 1;
        }
    }
    count
}

#[test]
fn c1_pms_16_a_kill_at_any_operation_loses_nothing_that_was_synced() {
    let count = wrecks(|disk, book, context| {
        disk.process_crash();
        check(disk, book, context);
    });
    assert!(count > 300);
}

#[test]
fn c2_pms_27_a_power_cut_at_any_operation_loses_only_what_was_not_synced() {
    wrecks(|disk, book, context| {
        for survivors in [Survivors::None, Survivors::All] {
            let disk = disk.fork(0);
            disk.power_cut(survivors);
            check(&disk, book, &format!("{context}, {survivors:?} survive"));
        }
        for seed in 0..12 {
            let disk = disk.fork(seed);
            disk.power_cut(Survivors::Some);
            check(&disk, book, &format!("{context}, seed {seed}"));
        }
    });
}

#[test]
fn c3_what_a_restart_acted_on_survives_a_power_cut() {
    wrecks(|disk, book, context| {
        disk.process_crash();
        let records = open(disk).unwrap_or_else(|error| panic!("{context}: {error}")).records;
        assert!(book.allows(&records), "{context}");
        disk.power_cut(Survivors::None);
        let mut seen = Expectation::default();
        seen.settle(&records);
        check(disk, &seen, context);
    });
}

#[test]
fn c6_a_crash_during_recovery_is_recovered_from() {
    let second_crashes = Cell::new(0);
    wrecks(|disk, book, context| {
        // Every fifth operation, for time.
        if !context.ends_with(['0', '5']) {
            return;
        }
        let cut = disk.fork(3);
        cut.power_cut(Survivors::Some);
        for operation in 1.. {
            let disk = cut.fork(operation);
            disk.crash_at(disk.operations() + operation, CrashPoint::During);
            if open(&disk).is_ok() {
                break;
            }
            second_crashes.set(second_crashes.get() + 1);
            disk.power_cut(Survivors::Some);
            check(&disk, book, &format!("{context}, and again at operation {operation} of opening"));
        }
    });
    assert!(second_crashes.get() > 200, "{}", second_crashes.get());
}

#[test]
fn d6_groups_torn_in_every_way_are_cut_and_stay_cut() {
    let mut kept_seen = [false; 3];
    let mut cut_seen = false;
    for seed in 0..200 {
        let disk = fresh(seed);
        let mut book = Expectation::default();
        let steps = [
            Step::Append(vec![accepted(1, 1, 100)]),
            Step::Write(vec![accepted(1, 2, 600)]),
            Step::Write(vec![accepted(1, 3, 100)]),
        ];
        perform(&disk, &steps, &mut book).unwrap();
        disk.power_cut(Survivors::Some);
        let mut opened = open(&disk).unwrap();
        assert!(book.allows(&opened.records), "seed {seed}");
        cut_seen |= opened.cut;
        kept_seen[memory(&opened.records).accepted.len() - 1] = true;
        // A new group of the same size ends where the torn one did; a torn later one must not be revived, also
        // if the new one is torn in its turn.
        let promise = [promised(9), accepted(9, 2, 571)];
        let mut again = Expectation::default();
        again.settle(&opened.records);
        again.pending.push(promise.to_vec());
        opened.log.write(&promise).unwrap();
        disk.power_cut(Survivors::Some);
        let mut opened = open(&disk).unwrap();
        assert!(again.allows(&opened.records), "seed {seed}: {:?}", memory(&opened.records));
        opened.log.append(&promise).unwrap();
        let mut records = opened.records;
        records.extend(promise);
        disk.power_cut(Survivors::None);
        assert_eq!(memory(&open(&disk).unwrap().records), memory(&records), "seed {seed}");
    }
    assert!(cut_seen && kept_seen == [true; 3], "the seeds reach every case");
}

#[test]
fn d4_a_failed_sync_is_final_and_nothing_it_covered_is_trusted() {
    let mut lost = 0;
    for seed in 0..40 {
        let disk = fresh(seed);
        let mut log = open(&disk).unwrap().log;
        log.append(&[promised(1)]).unwrap();
        log.write(&[accepted(1, 1, 2000)]).unwrap();
        disk.fail_at(disk.operations() + 1, Fault::Error);
        let operations = disk.operations() + 1;
        assert!(matches!(log.sync(), Err(WalError::Failed { .. })));
        assert!(matches!(log.sync(), Err(WalError::Failed { .. })));
        assert!(matches!(log.append(&[promised(2)]), Err(WalError::Failed { .. })));
        assert!(log.seal().is_err() && log.trim(Prefix(9)).is_err() && log.prepare_next(1).is_err());
        assert_eq!(disk.operations(), operations, "nothing is tried after a failure");
        // The page cache still shows the whole group, and would show it to a careless restart.
        let opened = open(&disk).unwrap();
        let found = memory(&opened.records);
        disk.power_cut(Survivors::None);
        assert_eq!(memory(&open(&disk).unwrap().records), found, "seed {seed}");
        lost += usize::from(found.accepted.is_empty());
    }
    assert!(lost > 10, "the disk did lose groups: {lost}");
}

#[test]
fn d5_a_lying_disk_is_found_out_when_anything_later_survives() {
    let mut outcomes = [0; 2];
    for seed in 0..60 {
        let disk = fresh(seed);
        let mut log = open(&disk).unwrap().log;
        log.append(&[promised(1)]).unwrap();
        for slot in 1..4 {
            disk.fail_at(disk.operations() + 2, Fault::LyingSync);
            log.append(&[accepted(1, slot, 10)]).unwrap();
        }
        disk.power_cut(Survivors::Some);
        match open(&disk) {
            // A plain shortening: nothing on this disk can know better.
            Ok(opened) => {
                let slots = opened.records.len() - 1;
                let all: Vec<_> =
                    [promised(1)].into_iter().chain((1..4).map(|s| accepted(1, s, 10))).collect();
                assert_eq!(opened.records, all[..=slots]);
                outcomes[0] += 1;
            }
            Err(error) => {
                assert!(matches!(error, OpenError::LostMemory(Loss::DamagedGroup { .. })), "{error}");
                assert!(error.is_lost_memory());
                outcomes[1] += 1;
            }
        }
    }
    assert!(outcomes.iter().all(|&count| count > 5), "{outcomes:?}");
}

#[test]
fn d2_a_full_disk_is_a_clear_error_and_the_log_works_again_after_space_is_freed() {
    for spare in [0, 1000, 5000, 9000] {
        let disk = fresh(1);
        let used: usize = disk.paths().iter().map(|path| disk.contents(path).unwrap().len()).sum();
        disk.set_capacity(Some((used + spare) as u64));
        let mut log = open(&disk).unwrap().log;
        let mut records = Vec::new();
        let error = loop {
            let record = accepted(1, 1 + records.len() as u64, 700);
            match log.append(std::slice::from_ref(&record)) {
                Ok(()) => records.push(record),
                Err(error) => break error,
            }
            assert!(records.len() < 100, "the disk is bounded");
        };
        assert!(matches!(error, WalError::Full { .. }), "{error}");
        assert!(matches!(log.append(&[promised(2)]), Err(WalError::Full { .. })), "final");
        // Still full: it can be read. With space: it goes on.
        assert_eq!(memory(&open(&disk).unwrap().records), memory(&records));
        disk.set_capacity(None);
        let mut log = open(&disk).unwrap().log;
        log.append(&[accepted(1, 50, 3000)]).unwrap();
        records.push(accepted(1, 50, 3000));
        disk.power_cut(Survivors::None);
        assert_eq!(memory(&open(&disk).unwrap().records), memory(&records));
    }
}

#[test]
fn d2_a_disk_too_full_for_a_spare_does_not_stop_the_segment_in_use() {
    let disk = fresh(1);
    let mut log = open(&disk).unwrap().log;
    disk.set_capacity(Some(4096 + 2000));
    assert!(matches!(log.prepare_next(4096), Err(WalError::Full { .. })));
    log.append(&[promised(3)]).unwrap();
    assert_eq!(disk.paths().len(), 1, "what could not be finished was removed");
    disk.set_capacity(None);
    assert!(log.prepare_next(4096).unwrap());
}

#[test]
fn d11_a_disk_that_turns_read_only_stops_the_log() {
    let disk = fresh(1);
    let mut log = open(&disk).unwrap().log;
    log.append(&[promised(1)]).unwrap();
    disk.set_read_only(true);
    assert!(matches!(log.append(&[promised(2)]), Err(WalError::Failed { .. })));
    disk.set_read_only(false);
    assert!(log.append(&[promised(2)]).is_err(), "final");
    assert_eq!(open(&disk).unwrap().records, [promised(1)]);
}

#[test]
fn a_disk_that_cannot_be_read_is_no_lost_memory() {
    let disk = fresh(1);
    open(&disk).unwrap().log.append(&[promised(1)]).unwrap();
    disk.set_rates(FaultRates { read_error: 10_000, ..FaultRates::default() });
    let error = open(&disk).err().unwrap();
    assert!(matches!(error, OpenError::Disk { .. }) && !error.is_lost_memory(), "{error}");
    disk.set_rates(FaultRates::default());
    assert_eq!(open(&disk).unwrap().records, [promised(1)]);
}

#[test]
fn a_group_beyond_all_bounds_is_refused_and_breaks_nothing() {
    let disk = fresh(1);
    let mut log = open(&disk).unwrap().log;
    let Record::Accepted { ballot, value, .. } = accepted(1, 1, 8 << 20) else { unreachable!() };
    let many: Vec<_> =
        (1..130).map(|slot| Record::Accepted { ballot, slot: Slot(slot), value: value.clone() }).collect();
    assert!(matches!(log.append(&many), Err(WalError::TooLarge { .. })));
    let operations = disk.operations();
    log.append(&[]).unwrap();
    assert_eq!(disk.operations(), operations, "nothing to write, nothing to sync");
    log.append(&many[..1]).unwrap();
    assert_eq!(open(&disk).unwrap().records.len(), 1);
}

#[test]
fn c1_a_crash_while_a_log_is_created_leaves_none_or_an_empty_one() {
    let disk = FaultyDisk::new(1);
    let make = |disk: &FaultyDisk| WriteAheadLog::create(shared(disk), identity(), SMALL);
    make(&disk).unwrap();
    let length = disk.operations();
    assert!(length >= 8, "{length}");
    // Also in place of an older life's log.
    for old in [false, true] {
        let base = if old { fresh(1) } else { FaultyDisk::new(1) };
        if old {
            open(&base).unwrap().log.append(&[promised(7)]).unwrap();
        }
        for operation in 1..=length + 1 {
            for (seed, point) in (0..8).flat_map(|seed| POINTS.map(|point| (seed, point))) {
                let disk = base.fork(seed);
                disk.crash_at(disk.operations() + operation, point);
                let finished = make(&disk).is_ok();
                disk.power_cut(Survivors::Some);
                match open(&disk) {
                    Ok(opened) if finished => assert_eq!(opened.records, []),
                    Ok(opened) => assert!(opened.records.is_empty() || old),
                    Err(error) => assert!(
                        !finished && matches!(error, OpenError::LostMemory(Loss::Absent)),
                        "operation {operation} {point:?}: {error}"
                    ),
                }
                make(&disk).unwrap();
                disk.power_cut(Survivors::None);
                assert_eq!(open(&disk).unwrap().records, []);
            }
        }
    }
}

//! Any sequence of appends, trims, crashes and restarts, against a plain list of what was said.

mod common;

use common::*;
use proptest::prelude::*;
use synod_paxos::acceptor::Record;
use synod_storage::disk::{CrashPoint, FaultRates, FaultyDisk, Survivors};

fn records() -> impl Strategy<Value = Vec<Record>> {
    let record = prop_oneof![
        2 => (1..20u64).prop_map(promised),
        6 => (1..20u64, 1..40u64, 0..2000usize).prop_map(|(round, slot, len)| accepted(round, slot, len)),
        2 => (1..40u64).prop_map(trimmed),
        1 => (1..20u64, 0..40u64).prop_map(|(round, upto)| chosen(round, upto)),
    ];
    proptest::collection::vec(record, 0..4)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => records().prop_map(Step::Append),
        3 => records().prop_map(Step::Write),
        2 => Just(Step::Sync),
        2 => Just(Step::Seal),
        2 => Just(Step::Trim),
        2 => (1..5000u64).prop_map(Step::Prepare),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 0..25)
}

#[derive(Clone, Debug)]
struct Life {
    steps: Vec<Step>,
    /// Operations until the crash, which may never come.
    crash: u64,
    point: CrashPoint,
    /// None: the process dies and the machine lives.
    power_cut: Option<Survivors>,
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let point = prop_oneof![Just(CrashPoint::Before), Just(CrashPoint::During), Just(CrashPoint::After)];
    let cut = prop_oneof![
        2 => Just(None),
        1 => Just(Some(Survivors::None)),
        1 => Just(Some(Survivors::All)),
        4 => Just(Some(Survivors::Some)),
    ];
    let life = (steps(), 1..80u64, point, cut).prop_map(|(steps, crash, point, power_cut)| Life {
        steps,
        crash,
        point,
        power_cut,
    });
    proptest::collection::vec(life, 1..6)
}

/// Lives one after another; `perform` and the check after each death find any difference.
fn live(disk: &FaultyDisk, rates: FaultRates, lives: &[Life]) -> Result<(), TestCaseError> {
    let mut book = Expectation::default();
    for life in lives {
        disk.set_rates(rates);
        disk.crash_at(disk.operations() + life.crash, life.point);
        let ended = perform(disk, &life.steps, &mut book);
        match life.power_cut {
            Some(survivors) => disk.power_cut(survivors),
            None => disk.process_crash(),
        }
        if let Err(Stopped::Open(error)) = &ended {
            prop_assert!(!error.is_lost_memory(), "{}", error);
        }
        disk.set_rates(FaultRates::default());
        let opened = open(disk);
        prop_assert!(opened.is_ok(), "{}", opened.err().unwrap());
        let records = opened.ok().unwrap().records;
        prop_assert!(book.allows(&records), "remembers {:?}, should {:?}", memory(&records), book);
        book.settle(&records);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn c1_c2_pms_16_no_history_of_crashes_loses_what_was_synced(seed: u64, lives in lives()) {
        live(&fresh(seed), FaultRates::default(), &lives)?;
    }

    #[test]
    fn d4_pms_27_no_history_of_crashes_and_failures_loses_what_was_synced(seed: u64, lives in lives()) {
        let rates =
            FaultRates { write_error: 200, short_write: 200, sync_error: 400, ..FaultRates::default() };
        live(&fresh(seed), rates, &lives)?;
    }
}

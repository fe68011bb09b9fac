use super::*;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cold::{Index, ReadBlocks};
use crate::record::Record;
use crate::wire::Sink;

fn change(revision: u64) -> Arc<Change> {
    Arc::new(Change::Delete { key: Bytes::from_static(b"k"), revision: Revision(revision) })
}

fn position(number: u64) -> Position {
    Position { revision: Revision(number / 3), sub: (number % 3) as u32 }
}

fn all(series: &Series) -> Vec<(Position, Arc<Change>)> {
    series.from(Position::default()).map(Result::unwrap).collect()
}

/// Blocks in memory, as a disk would give them back; counts how often.
struct Blocks(Vec<Bytes>, Arc<AtomicUsize>);

impl ReadBlocks for Blocks {
    fn read(&self, number: u32) -> Result<Bytes, Unreadable> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Ok(self.0[number as usize].clone())
    }
}

/// Some changes as a run, so many in a block.
fn run(changes: &[(Position, Arc<Change>)], in_a_block: usize, reads: &Arc<AtomicUsize>) -> Run {
    let (mut index, mut blocks) = (Index::default(), vec![Bytes::from_static(b"something else")]);
    index.block(None);
    for changes in changes.chunks(in_a_block) {
        let mut block = Vec::new();
        for (position, change) in changes {
            let mut record = Vec::new();
            Record::of(*position, change).write(&mut record);
            block.string(&record);
        }
        blocks.push(block.into());
        index.block(changes.last().map(|(last, _)| *last));
    }
    index.finish(Box::new(Blocks(blocks, Arc::clone(reads))))
}

/// Does the same to a series and to a map, and compares whatever can be asked; now and then what came first goes out
/// of memory.
#[test]
fn a_series_is_an_ordered_map_that_grows_at_its_end() {
    let (mut series, mut map) = (Series::default(), BTreeMap::new());
    let (mut copies, mut runs, mut retired) = (Vec::new(), Vec::new(), Retired::default());
    let (mut settled, reads) = (Revision(0), Arc::default());
    let mut dice = 1_u64;
    for number in 2..3_000 {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let chance = dice >> 33;
        let at = position(number * 2); // every other place stays empty
        let change = change(at.revision.0);
        series.push(at, Arc::clone(&change));
        map.insert(at, change);
        if chance.is_multiple_of(100) {
            copies.push((series.clone(), map.clone()));
        }
        let room = at.revision.0 - 1 - settled.0; // more may come of the newest revision
        if chance.is_multiple_of(101) && room > 0 {
            // Some of the newest stay, or none.
            let up_to = Revision(at.revision.0 - 1 - (chance % 7) * 20 % room);
            let range = Position::last_of(settled)..=Position::last_of(up_to);
            let new: Vec<_> = map.range(range).map(|(at, change)| (*at, Arc::clone(change))).collect();
            runs.push(run(&new, (chance % 50) as usize + 1, &reads));
            retired.append(series.settle(up_to, runs.clone()));
            settled = up_to;
        }
        let asked = position(chance % (number * 2 + 3));
        let found = series.from(asked).map(Result::unwrap).take(300);
        assert!(
            found.eq(map.range(asked..).take(300).map(|(at, change)| (*at, Arc::clone(change)))),
            "{asked}"
        );
        let wanted: Vec<Position> =
            [chance, chance / 7, chance / 3].map(|n| position((n % (number - 1) + 2) * 2)).into();
        let found = series.find(&wanted).unwrap();
        assert!(found.iter().eq(wanted.iter().map(|at| &map[at])), "{wanted:?}");
    }
    assert!(copies.len() > 5 && runs.len() > 5 && settled > Revision(1_000));
    for (series, map) in copies {
        assert!(all(&series).into_iter().eq(map), "a copy stays as it was");
    }
    let mut steps = 1;
    while retired.let_go(BLOCK) {
        steps += 1;
    }
    assert!(steps > settled.0 as usize * 3 / 2 / BLOCK, "{steps}: bit by bit");
    let last = *map.keys().next_back().unwrap();
    let _ = series.settle(last.revision, vec![run(&all(&series), 128, &reads)]);
    assert!(series.is_cold() && all(&series).into_iter().eq(map));
}

#[test]
fn what_is_looked_up_at_once_has_each_block_read_once() {
    let mut series = Series::default();
    (1..=1_000).for_each(|number| series.push(position(number), change(number / 3)));
    let reads = Arc::default();
    let runs = vec![run(&all(&series), 100, &reads)];
    drop(series.settle(Revision(200), runs)); // the rest stays in memory, and is in the run, too
    let wanted: Vec<Position> = (1..=1_000).rev().map(position).collect();
    assert_eq!(series.find(&wanted).unwrap().len(), 1_000);
    assert_eq!(reads.load(Ordering::Relaxed), 7, "602 changes");
}

#[test]
fn what_is_in_no_run_is_damage() {
    let mut series = Series::default();
    for number in [2, 4, 6] {
        series.push(position(number), change(number / 3));
    }
    let runs = vec![run(&all(&series)[..2], 2, &Arc::default())];
    drop(series.settle(Revision(9), runs));
    for missing in [1, 3, 5, 6] {
        assert!(matches!(series.find(&[position(missing)]), Err(Unreadable::Damaged { .. })));
    }
    assert!(series.find(&[position(4), position(2)]).is_ok());
}

#[test]
#[should_panic(expected = "a series grows at its end")]
fn what_happened_earlier_does_not_come_later() {
    let mut series = Series::default();
    // The open block is empty again, and the one before it counts.
    (1..=BLOCK as u64).for_each(|number| series.push(position(number), change(number)));
    series.push(position(1), change(1));
}

//! Parts: an image, and what changed since, make the same store as an image of it all.

mod common;

use bytes::Bytes;
use common::arbitrary::request;
use common::runs::{Saved, load_blocks};
use common::*;
use proptest::collection::vec;
use proptest::prelude::*;
use synod_kv::{Restore, RestoreError, Store};

/// A store from parts that come from anywhere.
fn load<'p>(parts: impl IntoIterator<Item = &'p Vec<u8>>, cut: usize) -> Result<Store, RestoreError> {
    let mut restore = Restore::new();
    for (number, part) in parts.into_iter().enumerate() {
        if number > 0 {
            restore.next_part()?;
        }
        for piece in part.chunks(cut) {
            restore.push(Bytes::copy_from_slice(piece))?;
        }
    }
    restore.finish()
}

/// Everything that can be told of a store from outside, now and after sweeping.
fn assert_same(one: &Store, other: &Store) {
    assert_eq!(one.head(), other.head());
    assert_eq!(one.compacted(), other.compacted());
    for revision in 0..=one.revision().0 {
        assert_eq!(all_at(one, revision), all_at(other, revision), "at {revision}");
    }
    let changes = |store: &Store| changes_from(store, store.compacted().unwrap_or_default().0);
    assert_eq!(changes(one), changes(other));
    assert_eq!(image(&one.snapshot()), image(&other.snapshot()));
    let alive = |store: &Store| (store.stats().keys, store.stats().bytes_in_use);
    assert_eq!(alive(one), alive(other));
}

/// Puts, deletes, a compaction, and a checkpoint between all of them.
fn story() -> Saved {
    let mut saved = Saved::new();
    saved.apply([put("a", "1"), put("b", "1"), put("c", "1")]);
    saved.saved();
    saved.apply([put("a", "2"), delete("b", ""), put("a", "3")]);
    saved.saved();
    saved.apply([put("b", "2"), compact(7), put("d", "1")]);
    saved.saved();
    saved.apply([delete("c", "e"), compact(10)]);
    saved.saved();
    saved
}

#[test]
fn parts_in_their_order_make_the_store() {
    let saved = story();
    let parts = saved.parts();
    assert_eq!(parts.len(), 4);
    let cut = [1, 2, 7, 1_000].map(|cut| load(&parts, cut));
    for restored in cut.into_iter().chain([saved.load()]) {
        let mut restored = restored.unwrap();
        assert_same(&restored, &saved.store);
        sweep_all(&mut restored, 2);
        assert_same(&restored, &saved.store);
    }
}

#[test]
fn parts_in_any_other_order_make_none() {
    let saved = story();
    let parts = saved.parts();
    let wrong: [&[usize]; 9] =
        [&[1], &[3], &[0, 2, 3], &[0, 1, 3], &[1, 2, 3], &[0, 2, 1, 3], &[0, 1, 1, 2, 3], &[0, 0], &[1, 0]];
    for order in wrong {
        let restored = load(order.iter().map(|&part| &parts[part]), 50);
        assert_eq!(restored.err(), Some(RestoreError::OutOfPlace), "{order:?}");
        let restored = load_blocks(order.iter().map(|&part| &saved.kept[part]));
        assert_eq!(restored.err(), Some(RestoreError::OutOfPlace), "{order:?}");
    }
    assert_eq!(load([], 50).err(), Some(RestoreError::Truncated));
    // Without the last ones it is the store of an earlier day; that the list of parts is whole is for others to say.
    assert!(load(&parts[..2], 50).is_ok() && load_blocks(&saved.kept[..2]).is_ok());
}

#[test]
fn a_part_of_another_store_with_as_many_changes_is_out_of_place() {
    let (saved, mut other) = (story(), Saved::new());
    other.apply([put("a", "1"), put("b", "1"), put("c", "2")]);
    other.saved();
    assert_eq!(load_blocks([&other.kept[0], &saved.kept[1]]).err(), Some(RestoreError::OutOfPlace));
}

#[test]
fn no_byte_of_any_part_can_change_unnoticed() {
    let parts = story().parts();
    for part in 0..parts.len() {
        for place in 0..parts[part].len() {
            let mut altered = parts.clone();
            altered[part][place] ^= 1;
            assert!(load(&altered, 50).is_err(), "byte {place} of part {part}");
            altered[part].truncate(place);
            assert_eq!(load(&altered, 50).err(), Some(RestoreError::Truncated), "{place} of part {part}");
        }
        let mut longer = parts.clone();
        longer[part].push(0);
        assert_eq!(load(&longer, 50).err(), Some(RestoreError::TrailingBytes));
    }
}

#[test]
fn what_was_deleted_swept_and_compacted_stays_deleted() {
    let mut saved = Saved::new();
    saved.apply([put("a", "1"), put("b", "1"), put("b", "2")]);
    saved.saved();
    saved.apply([delete("a", ""), delete("b", ""), put("c", "1"), compact(7)]);
    sweep_all(&mut saved.store, 3);
    assert_eq!(saved.store.stats().versions, 1, "c");
    saved.saved();
    let mut restored = saved.load().unwrap();
    assert_eq!((get(&restored, "a"), get(&restored, "b")), (None, None));
    assert_same(&restored, &saved.store);
    sweep_all(&mut restored, 3);
    assert_eq!(restored.stats(), saved.store.stats());

    // In a whole image there is nothing left of them.
    saved.save(true, |_| ());
    assert_eq!(saved.load().unwrap().stats(), saved.store.stats());
}

/// Each life but the last was compacted away before it was ever written down.
#[test]
fn a_key_that_lived_and_died_twice_between_two_checkpoints_is_buried_twice() {
    for sweeps in [false, true] {
        for last in [None, Some(put("a", "4")), Some(delete("a", ""))] {
            let mut saved = Saved::new();
            saved.apply([put("a", "1"), put("x", "1")]);
            saved.saved();
            saved.apply([delete("a", ""), put("a", "2"), put("a", "3"), delete("a", ""), put("a", "4")]);
            saved.apply(last.clone());
            let now = saved.store.revision().0;
            saved.apply([put("x", "2"), compact(now)]);
            if sweeps {
                sweep_all(&mut saved.store, 1);
            }
            saved.saved();
            assert_same(&saved.load().unwrap(), &saved.store);
            saved.restart();
            saved.apply([put("a", "5"), compact(now + 2)]);
            sweep_all(&mut saved.store, 1);
            saved.saved();
            assert_same(&saved.load().unwrap(), &saved.store);
        }
    }
}

#[test]
fn a_key_between_two_lives_is_dead_in_between() {
    let mut saved = Saved::new();
    saved.apply([put("a", "1"), put("x", "1")]);
    saved.saved();
    saved.apply([delete("a", ""), put("x", "2"), put("a", "2"), compact(5)]);
    sweep_all(&mut saved.store, 3);
    saved.saved();
    let restored = saved.load().unwrap();
    assert_eq!(keys(&all_at(&restored, 5).unwrap()), ["x"]);
    assert_eq!(keys(&all_at(&restored, 6).unwrap()), ["a", "x"]);
    assert_same(&restored, &saved.store);
}

#[test]
fn there_is_no_part_behind_what_was_forgotten() {
    let mut saved = Saved::new();
    saved.apply([put("a", "1")]);
    let first = saved.store.snapshot();
    assert!(saved.store.snapshot().part(first.head()).is_some());
    saved.apply([put("a", "2")]);
    let second = saved.store.snapshot();
    saved.apply([put("a", "3")]);
    saved.saved();
    let third = saved.store.snapshot();
    assert!(third.part(first.head()).is_none(), "it goes out of memory");
    assert!(third.part(third.head()).is_some());
    assert!(second.part(third.head()).is_none(), "of the future nothing is known");
    assert!(second.part(first.head()).is_some(), "a snapshot stays what it is");
    let restored = restore(&image(&third), 50).unwrap();
    assert!(restored.snapshot().part(second.head()).is_none(), "what is dead is in no image");
    assert!(restored.snapshot().part(third.head()).is_some());
}

#[test]
fn a_checkpoint_of_an_earlier_store_is_not_for_the_one_that_took_its_place() {
    let mut saved = Saved::new();
    saved.apply([put("a", "1")]);
    saved.saved();
    let (runs, revision) = (saved.runs.clone(), saved.store.revision());
    saved.apply([put("a", "2"), put("a", "3")]);
    let mut arrived = restore(&image(&saved.store.snapshot()), 50).unwrap();
    drop(arrived.settle(revision, runs));
    assert!(arrived.runs().is_none(), "all of it is in memory, and in no run");
    assert_same(&arrived, &saved.store);
}

#[derive(Clone, Debug)]
enum Step {
    Apply(synod_kv::Request),
    Sweep(usize),
    /// Whole or not; how much is swept before it is done; then perhaps a restart.
    Save(bool, usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => request().prop_map(Step::Apply),
        2 => (1..20_usize).prop_map(Step::Sweep),
        3 => (prop::bool::weighted(0.1), 0..20_usize, prop::bool::weighted(0.3))
            .prop_map(|(whole, sweep, restart)| Step::Save(whole, sweep, restart)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// A plain store, and one that is saved in parts, goes out of memory, and is loaded again and again.
    #[test]
    fn a_store_in_parts_is_the_same_store(steps in vec(step(), 1..60), cut in 1..300_usize) {
        let (mut plain, mut saved) = (Store::new(), Saved::new());
        let mut earlier = Vec::new();
        for step in steps {
            match step {
                Step::Apply(request) => {
                    prop_assert_eq!(plain.apply(&request), saved.store.apply(&request));
                }
                Step::Sweep(budget) => {
                    saved.store.sweep(budget);
                }
                Step::Save(whole, meanwhile, restart) => {
                    earlier.push((plain.snapshot(), saved.store.snapshot()));
                    saved.save(whole, |store| _ = store.sweep(meanwhile));
                    assert_same(&saved.store, &plain);
                    let mut restored = saved.load().unwrap();
                    assert_same(&restored, &plain);
                    let mut elsewhere = load(&saved.parts(), cut).unwrap();
                    assert_same(&elsewhere, &plain);
                    if restart {
                        saved.restart();
                    } else {
                        let stats = restore(&image(&plain.snapshot()), cut).unwrap().stats();
                        for store in [&mut restored, &mut elsewhere] {
                            sweep_all(store, 5);
                            assert_same(store, &plain);
                            prop_assert_eq!(store.stats(), stats, "nothing dead is left");
                        }
                    }
                }
            }
            prop_assert_eq!(plain.head(), saved.store.head());
        }
        assert_same(&saved.store, &plain);
        for (plain, saved) in earlier {
            prop_assert_eq!(image(&plain), image(&saved), "a snapshot stays what it is");
        }
    }
}

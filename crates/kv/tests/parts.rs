//! Parts: an image, and what changed since, make the same store as an image of it all.

mod common;

use bytes::Bytes;
use common::arbitrary::request;
use common::*;
use proptest::collection::vec;
use proptest::prelude::*;
use synod_kv::{Head, Restore, RestoreError, Store};

/// A store, and checkpoints of it as a server takes them.
struct Saved {
    store: Store,
    parts: Vec<Vec<u8>>,
    head: Option<Head>,
}

impl Saved {
    fn new() -> Saved {
        Saved { store: Store::new(), parts: Vec::new(), head: None }
    }

    fn apply(&mut self, requests: impl IntoIterator<Item = synod_kv::Request>) {
        for request in requests {
            apply(&mut self.store, request);
        }
    }

    /// A part if there may be one, otherwise all of it; `meanwhile` happens before it is on disk.
    fn save(&mut self, whole: bool, meanwhile: impl FnOnce(&mut Store)) {
        self.store.hold_tombstones();
        let snapshot = self.store.snapshot();
        meanwhile(&mut self.store);
        match self.head.filter(|_| !whole).map(|head| snapshot.part(head, 100)) {
            Some(part) => self.parts.push(part.expect("what changed is known").flatten().collect()),
            None => self.parts = vec![snapshot.chunks(100).flatten().collect()],
        }
        self.head = Some(snapshot.head());
        self.store.release_tombstones(snapshot.revision());
    }

    fn saved(&mut self) {
        self.save(false, |_| ());
    }

    fn load(&self) -> Result<Store, RestoreError> {
        load(&self.parts, 50)
    }
}

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
    let changes = |store: &Store| -> Vec<_> {
        let from = store.compacted().unwrap_or_default();
        let changes = store.changes_from(from).expect("not forgotten");
        changes.map(|(position, change)| (position, change.clone())).collect()
    };
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
    assert_eq!(saved.parts.len(), 4);
    for cut in [1, 2, 7, 1_000] {
        let mut restored = load(&saved.parts, cut).unwrap();
        assert_same(&restored, &saved.store);
        sweep_all(&mut restored, 2);
        assert_same(&restored, &saved.store);
    }
}

#[test]
fn parts_in_any_other_order_make_none() {
    let saved = story();
    let wrong: [&[usize]; 9] =
        [&[1], &[3], &[0, 2, 3], &[0, 1, 3], &[1, 2, 3], &[0, 2, 1, 3], &[0, 1, 1, 2, 3], &[0, 0], &[1, 0]];
    for order in wrong {
        let restored = load(order.iter().map(|&part| &saved.parts[part]), 50);
        assert_eq!(restored.err(), Some(RestoreError::OutOfPlace), "{order:?}");
    }
    assert_eq!(load([], 50).err(), Some(RestoreError::Truncated));
    // Without the last ones it is the store of an earlier day; that the list of parts is whole is for others to say.
    assert!(load(&saved.parts[..2], 50).is_ok());
}

#[test]
fn a_part_of_another_store_with_as_many_changes_is_out_of_place() {
    let (saved, mut other) = (story(), Saved::new());
    other.apply([put("a", "1"), put("b", "1"), put("c", "2")]);
    other.saved();
    assert_eq!(load([&other.parts[0], &saved.parts[1]], 50).err(), Some(RestoreError::OutOfPlace));
}

#[test]
fn no_byte_of_any_part_can_change_unnoticed() {
    let saved = story();
    for part in 0..saved.parts.len() {
        for place in 0..saved.parts[part].len() {
            let mut altered = saved.parts.clone();
            altered[part][place] ^= 1;
            assert!(load(&altered, 50).is_err(), "byte {place} of part {part}");
            altered[part].truncate(place);
            assert_eq!(load(&altered, 50).err(), Some(RestoreError::Truncated), "{place} of part {part}");
        }
        let mut longer = saved.parts.clone();
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
    saved.saved();
    let restored = saved.load().unwrap();
    assert_eq!((get(&restored, "a"), get(&restored, "b")), (None, None));
    assert_same(&restored, &saved.store);

    // Written down, they are gone for good.
    assert_eq!(saved.store.stats().versions, 3, "two tombstones and c");
    sweep_all(&mut saved.store, 3);
    assert_eq!(saved.store.stats().versions, 1);
    saved.saved();
    assert_same(&saved.load().unwrap(), &saved.store);
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
fn where_tombstones_were_not_held_there_is_no_part() {
    let mut store = Store::new();
    apply(&mut store, put("a", "1"));
    let first = store.snapshot();
    assert!(store.snapshot().part(first.head(), 100).is_none(), "nobody asked to hold them");
    apply(&mut store, put("a", "2"));
    store.hold_tombstones();
    assert!(store.snapshot().part(first.head(), 100).is_none(), "too late for that one");
    let second = store.snapshot();
    apply(&mut store, put("a", "3"));
    store.hold_tombstones();
    assert!(store.snapshot().part(second.head(), 100).is_some());
    let head = store.head();
    assert!(second.part(head, 100).is_none(), "of the future nothing is known");
    // Those of a store that came from elsewhere are gone.
    let mut restored = restore(&image(&store.snapshot()), 50).unwrap();
    restored.release_tombstones(head.revision);
    assert!(restored.snapshot().part(head, 100).is_none());
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

    /// A plain store, and one that is saved in parts and loaded again and again.
    #[test]
    fn a_store_in_parts_is_the_same_store(steps in vec(step(), 1..60), cut in 1..300_usize) {
        let (mut plain, mut saved) = (Store::new(), Saved::new());
        for step in steps {
            match step {
                Step::Apply(request) => {
                    prop_assert_eq!(plain.apply(&request), saved.store.apply(&request));
                }
                Step::Sweep(budget) => {
                    saved.store.sweep(budget);
                }
                Step::Save(whole, meanwhile, restart) => {
                    saved.save(whole, |store| _ = store.sweep(meanwhile));
                    let mut restored = load(&saved.parts, cut).unwrap();
                    assert_same(&restored, &plain);
                    if restart {
                        restored.hold_tombstones();
                        saved.store = restored;
                    } else {
                        sweep_all(&mut restored, 5);
                        assert_same(&restored, &plain);
                        let stats = restore(&image(&plain.snapshot()), cut).unwrap().stats();
                        prop_assert_eq!(restored.stats(), stats, "nothing dead is left");
                    }
                }
            }
            prop_assert_eq!(plain.head(), saved.store.head());
        }
        assert_same(&saved.store, &plain);
    }
}

//! What is on disk only: read again, out of memory, and not to be had.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::runs::Saved;
use common::*;
use synod_kv::{Change, KeyRange, RangeRequest, Request, Revision, Store, TxnRequest, Unreadable};

/// Three keys with many versions, and one that is dead, in two runs; then one more version of one.
fn saved() -> Saved {
    let mut saved = Saved::new();
    for round in 0..200 {
        let key = ["a", "b", "c"][round % 3];
        saved.apply([put(key, &format!("{round}"))]);
        if round == 100 {
            saved.apply([put("dead", "1"), delete("dead", "")]);
            saved.saved();
        }
    }
    saved.saved();
    saved.apply([put("a", "new")]);
    saved
}

fn at(revision: u64) -> RangeRequest {
    RangeRequest { revision: Some(Revision(revision)), ..RangeRequest::new(KeyRange::all()) }
}

/// How many of these changes somebody else holds on to.
fn held(changes: &[Arc<Change>]) -> usize {
    changes.iter().filter(|change| Arc::strong_count(change) > 1).count()
}

fn all(store: &Store) -> Vec<Arc<Change>> {
    changes_from(store, 0).into_iter().map(|(_, change)| change).collect()
}

#[test]
fn what_a_checkpoint_holds_leaves_memory_unless_it_is_the_newest() {
    let mut saved = Saved::new();
    saved.apply((0..300).map(|round| put(["a", "b", "c"][round % 3], "v")));
    saved.apply([delete("c", "")]);
    let (changes, earlier) = (all(&saved.store), saved.store.snapshot());
    saved.saved();
    assert_eq!(held(&changes), 301, "a snapshot from before has them all");
    drop(earlier);
    assert_eq!(held(&changes), 3, "the newest of each key");
    assert_eq!(all(&saved.store), changes, "and they are still to be had");

    saved.apply([compact(302), put("d", "1")]);
    sweep_all(&mut saved.store, 1);
    assert_eq!(saved.store.stats().versions, 4, "a tombstone at the boundary stays");
    saved.apply([compact(303)]);
    sweep_all(&mut saved.store, 1);
    assert_eq!(
        (saved.store.stats().versions, held(&changes)),
        (3, 2),
        "a compaction gives back what is left"
    );
}

#[test]
fn what_died_between_two_checkpoints_leaves_memory_with_the_second() {
    let mut saved = Saved::new();
    saved.saved();
    saved.apply((0..1_000).map(|_| put("a", "v")));
    let changes = all(&saved.store);
    saved.apply([compact(1_001)]);
    sweep_all(&mut saved.store, 1);
    assert_eq!((saved.store.stats().versions, held(&changes)), (1, 1_000));
    saved.saved();
    assert_eq!(held(&changes), 1);
    assert!(saved.kept[1].blocks.concat().len() < 200, "and none of it was written");
}

#[test]
fn whether_it_may_wait_for_the_disk_is_known_before() {
    let saved = saved();
    let one = |key: &str, revision| RangeRequest { range: KeyRange::single(bytes(key)), ..at(revision) };
    let waits = |request: &RangeRequest| saved.store.may_wait(request);
    assert_eq!(saved.store.revision(), Revision(204));
    assert!(!waits(&RangeRequest::new(KeyRange::all())) && !waits(&at(204)), "that is the present");
    assert!(waits(&at(203)) && waits(&at(2)));
    assert!(waits(&one("a", 203)) && waits(&one("b", 4)));
    assert!(!waits(&one("b", 203)), "it has not changed since");
    assert!(!waits(&one("a", 1)) && !waits(&one("nobody", 100)), "there was none");
    assert!(!waits(&one("dead", 150)), "that it was dead is known");
    let elsewhere = restore(&image(&saved.store.snapshot()), 50).unwrap();
    assert!(!elsewhere.may_wait(&at(2)), "all of it is in memory");
}

#[test]
fn what_cannot_be_read_is_no_answer_and_changes_nothing() {
    let mut saved = saved();
    let before = image(&saved.store.snapshot());
    let writes = vec![put("b", "never"), Request::Range(at(3)), put("x", "never")];
    let request = txn(vec![], writes, vec![]);
    saved.broken.store(true, Ordering::Relaxed);
    let failed = |error: Unreadable| matches!(error, Unreadable::Failed { .. });
    let (head, stats) = (saved.store.head(), saved.store.stats());
    let nested = txn(vec![], vec![put("y", "never"), request.clone()], vec![]);
    for request in [&request, &nested, &Request::Range(at(3))] {
        assert!(failed(saved.store.apply(request).unwrap_err()));
        assert_eq!((saved.store.head(), saved.store.stats()), (head, stats));
    }
    assert!(failed(saved.store.range(&at(100)).unwrap_err()));
    let read_only = TxnRequest { success: vec![Request::Range(at(3))], ..TxnRequest::default() };
    assert!(failed(saved.store.txn_read(&read_only).unwrap_err()));
    // An error is the last of them.
    assert_eq!(
        saved.store.changes_from(Revision(2)).unwrap().map(|change| change.is_ok()).collect::<Vec<_>>(),
        [false]
    );
    let snapshot = saved.store.snapshot();
    assert_eq!(snapshot.chunks(1 << 20).filter(Result::is_err).count(), 1);
    assert!(snapshot.chunks(1 << 20).last().unwrap().is_err());
    assert!(snapshot.run().last().unwrap().is_err());

    // Whatever needs no disk goes on.
    assert_eq!(text(&get(&saved.store, "a").unwrap().value), "new");
    let counted = RangeRequest { count_only: true, ..at(3) };
    assert_eq!(range(&saved.store, &counted).unwrap().count, 2, "to count needs none");
    assert_eq!(range(&saved.store, &at(1)).unwrap().count, 0);
    assert!(
        snapshot.part(saved.head.unwrap()).unwrap().all(|block| block.is_ok()),
        "what changed is in memory"
    );

    saved.broken.store(false, Ordering::Relaxed);
    assert_eq!(image(&saved.store.snapshot()), before);
    assert_eq!(keys(&range(&saved.store, &at(3)).unwrap()), ["a", "b"]);
    let refused = txn(vec![], vec![put("b", "never"), Request::Range(at(999))], vec![]);
    assert!(saved.store.apply(&refused).unwrap().is_err(), "a refusal is an answer");
    apply(&mut saved.store, request);
    assert_eq!(text(&get(&saved.store, "x").unwrap().value), "never");
}

#[test]
fn a_block_that_says_something_else_is_damage() {
    let saved = saved();
    let mut kept = saved.kept.clone();
    // The blocks are good, and in each other's places.
    kept[0].blocks.swap(1, 0);
    assert!(common::runs::load_blocks(&kept).is_err());
    let mut other = Saved::new();
    other.apply((0..200).map(|round| put("a", &format!("{round}"))));
    other.saved();
    let mut blocks = other.store.snapshot().run();
    let written: Vec<_> = blocks.by_ref().map(Result::unwrap).collect();
    let mut shifted = written.clone();
    shifted.rotate_left(1);
    let run = blocks.finish(common::runs::Kept { blocks: shifted, ..Default::default() });
    drop(other.store.settle(other.store.revision(), vec![run]));
    assert!(matches!(other.store.range(&at(3)).unwrap_err(), Unreadable::Damaged { .. }));
}

use super::*;

const KEY: &[u8] = b"key";

fn change(revision: u64, bytes: Option<usize>) -> Arc<Change> {
    let (key, revision) = (Bytes::from_static(KEY), Revision(revision));
    Arc::new(match bytes {
        None => Change::Delete { key, revision },
        Some(bytes) => Change::Put(KeyValue {
            key,
            value: vec![0; bytes].into(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: None,
        }),
    })
}

fn at(revision: u64) -> Position {
    Position { revision: Revision(revision), sub: 7 }
}

/// All changes, oldest first: where they are, and how many bytes of value they brought.
type Model = Vec<(Position, Option<usize>)>;

fn assert_like(history: &History, model: &Model, asked: u64) {
    let last = model.iter().rev().find(|(position, _)| position.revision.0 <= asked);
    let asked = Revision(asked);
    assert_eq!(history.last_change(asked), last.map(|(at, bytes)| (*at, bytes.is_some())), "at {asked}");
    let alive = last.filter(|(_, bytes)| bytes.is_some());
    assert_eq!(history.alive_at(At::Past(asked)), alive.is_some());
    let found = history.at(At::Past(asked)).map(|found| match found {
        Found::Here(kv) => (kv.mod_revision, true),
        Found::There(position) => (position.revision, false),
    });
    let newest = model.last().unwrap().0;
    assert_eq!(found, alive.map(|(position, _)| (position.revision, *position == newest)));
}

/// What a compaction leaves of the model, and what it says of the rest.
fn forget(model: &mut Model, boundary: u64) -> Forgotten {
    let old = model.iter().filter(|(position, _)| position.revision.0 <= boundary).count();
    let mut keep_from = old.saturating_sub(1);
    let is_old_tombstone =
        |(at, bytes): &(Position, Option<usize>)| bytes.is_none() && at.revision.0 < boundary;
    keep_from += usize::from(model.get(keep_from).is_some_and(is_old_tombstone));
    let footprint = |(at, bytes): (Position, Option<usize>)| change(at.revision.0, bytes).footprint();
    let bytes = model.drain(..keep_from).map(footprint).sum();
    Forgotten { versions: keep_from as u64, bytes, all: model.is_empty() }
}

#[test]
fn a_history_remembers_what_can_be_asked() {
    let mut dice = 1_u64;
    let mut chance = |below: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % below
    };
    let (mut copied, mut emptied, mut long) = (0, 0, 0);
    for _ in 0..150 {
        let mut revision = chance(50);
        let mut model: Model = vec![(at(revision), Some(3))];
        let mut history = History::new(at(revision), change(revision, Some(3)));
        let mut copies = Vec::new();
        let (mut boundary, deaths) = (0, 1 + chance(9));
        for _ in 0..chance(900) {
            revision += 1 + chance(3);
            let bytes = (chance(10) >= deaths).then(|| chance(500) as usize);
            model.push((at(revision), bytes));
            history.push(at(revision), change(revision, bytes));
            assert_like(&history, &model, revision - chance(revision));
            if chance(200) == 0 {
                copies.push((history.clone(), model.clone()));
            }
            if chance(100) == 0 {
                boundary += chance(revision + 3 - boundary);
                let mut rest = model.clone();
                let expected = forget(&mut rest, boundary);
                assert_eq!(history.has_dead(Revision(boundary)), expected.versions > 0);
                assert_eq!(history.forget(Revision(boundary)), expected);
                if expected.all {
                    emptied += 1;
                    break;
                }
                assert!(!history.has_dead(Revision(boundary)));
                model = rest;
                revision = revision.max(boundary);
            }
        }
        long += usize::from(model.len() > BLOCK * 2);
        copied += copies.len();
        for (history, model) in copies {
            (0..=revision + 1).for_each(|asked| assert_like(&history, &model, asked));
        }
    }
    assert!(copied > 20 && emptied > 1 && long > 10, "{copied} {emptied} {long}");
}

#[test]
fn a_long_history_shares_its_blocks_with_copies() {
    let mut history = History::new(at(1), change(1, Some(0)));
    (2..=1_000_u64).for_each(|revision| history.push(at(revision), change(revision, Some(0))));
    let copy = history.clone();
    history.push(at(1_001), change(1_001, Some(0)));
    let blocks = |history: &History| history.older.clone().unwrap().full.clone().unwrap();
    let (ours, theirs) = (blocks(&history), blocks(&copy));
    assert_eq!((ours.len(), theirs.len()), (7, 7));
    assert!(ours.iter().zip(theirs.iter()).all(|(one, other)| Arc::ptr_eq(one, other)));
}

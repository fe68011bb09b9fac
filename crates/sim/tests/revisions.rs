//! The judge that takes revisions at their word: on histories good, bad and long.

mod common;

use common::*;
use proptest::prelude::*;
use synod_sim::revisions::{Order, Violation, check};
use synod_sim::{Call, Key, Operation, Outcome, Revision, Saw, Value, Version};

fn judge(operations: &[Operation]) -> Result<Order, Box<Violation>> {
    check(&history(operations.to_vec()), Revision::NEW_STORE)
}

fn put(key: &str, value: &str) -> Line {
    let call = Call::Put { key: key.into(), value: value.into() };
    Line { curious: false, ..line(call, Fate::Answered) }
}

fn get(key: &str) -> Line {
    line(Call::Get { key: key.into() }, Fate::Answered)
}

fn del(key: &str) -> Line {
    line(Call::Delete { key: key.into() }, Fate::Answered)
}

fn line(call: Call, fate: Fate) -> Line {
    Line { call, fate, curious: true, lead: 2, lag: 2 }
}

fn with_fate(fate: Fate, line: Line) -> Line {
    Line { fate, ..line }
}

/// Changes what the answer of one operation says.
fn lie(run: &mut [Operation], index: usize, change: impl FnOnce(&mut synod_sim::Answer)) {
    match &mut run[index].outcome {
        Outcome::Answered(answer) => change(answer),
        other => panic!("no answer to change: {other:?}"),
    }
}

fn entry(answer: &mut synod_sim::Answer) -> &mut synod_sim::Entry {
    match &mut answer.saw {
        Saw::Was(entry) => entry,
        other => panic!("no entry to change: {other:?}"),
    }
}

#[test]
fn an_honest_run_is_accepted_and_counted() {
    let run = execute(&[
        put("a", "1"),
        put("b", "1"),
        get("a"),
        del("a"),
        del("a"),
        get("a"),
        with_fate(Fate::UnknownButApplied, put("a", "2")),
        get("a"),
        with_fate(Fate::UnknownAndLost, del("b")),
        with_fate(Fate::Refused, del("b")),
        get("b"),
    ]);
    let order = judge(&run).unwrap();
    assert_eq!(order, Order { writes: 4, found: 1, unresolved: 1, last: Revision(5) });
}

#[test]
fn a_lost_write_is_found() {
    let mut run = execute(&[put("a", "1"), get("a")]);
    lie(&mut run, 1, |answer| answer.saw = Saw::Absent);
    assert!(matches!(*judge(&run).unwrap_err(), Violation::WrongAnswer { .. }));
}

#[test]
fn a_stale_read_is_found_even_if_it_admits_its_age() {
    let honest = execute(&[put("a", "1"), get("a"), put("a", "2"), get("a")]);
    // With the newest revision in its header the answer is wrong,
    let mut run = honest.clone();
    lie(&mut run, 3, |answer| answer.saw = honest[1].answer().unwrap().saw.clone());
    assert!(matches!(*judge(&run).unwrap_err(), Violation::WrongAnswer { .. }));
    // with an old one it is late.
    lie(&mut run, 3, |answer| answer.revision = Revision(2));
    assert!(matches!(*judge(&run).unwrap_err(), Violation::AgainstTime { .. }));
}

#[test]
fn a_resurrected_delete_is_found() {
    let honest = execute(&[put("a", "1"), get("a"), del("a"), get("a")]);
    let mut run = honest.clone();
    lie(&mut run, 3, |answer| answer.saw = honest[1].answer().unwrap().saw.clone());
    let Violation::WrongAnswer { expected, .. } = *judge(&run).unwrap_err() else { panic!() };
    assert_eq!(expected.to_string(), "no such key");
}

#[test]
fn a_put_applied_twice_is_found_though_values_cannot_show_it() {
    // Its second effect makes a revision that nobody was told,
    let mut run = execute(&[put("a", "1"), put("a", "1"), get("a")]);
    run.remove(0);
    let Violation::MadeByNobody { revision, gaps: 1, unresolved: 0 } = *judge(&run).unwrap_err() else {
        panic!();
    };
    assert_eq!(revision, Revision(2));
    // and if some other write of unknown fate is blamed for the gap, the version tells.
    let mut run =
        execute(&[put("a", "1"), put("a", "1"), get("a"), with_fate(Fate::UnknownAndLost, put("b", "9"))]);
    run.remove(0);
    assert!(matches!(*judge(&run).unwrap_err(), Violation::WrongAnswer { .. }));
}

#[test]
fn revisions_that_go_back_are_found() {
    let mut run = execute(&[put("a", "1"), put("b", "1"), get("c"), get("c")]);
    lie(&mut run, 3, |answer| answer.revision = Revision(2));
    assert!(matches!(*judge(&run).unwrap_err(), Violation::AgainstTime { .. }));
}

#[test]
fn writes_in_another_order_than_time_are_found() {
    let mut run = execute(&[put("a", "1"), put("b", "1")]);
    lie(&mut run, 0, |answer| answer.revision = Revision(3));
    lie(&mut run, 1, |answer| answer.revision = Revision(2));
    assert!(matches!(*judge(&run).unwrap_err(), Violation::AgainstTime { .. }));
    // A read may share the revision of the write before it, a write may not.
    lie(&mut run, 1, |answer| answer.revision = Revision(3));
    assert!(matches!(*judge(&run).unwrap_err(), Violation::SharedRevision { .. }));
}

#[test]
fn wrong_counts_are_found() {
    let curious = Line { curious: true, ..put("a", "3") };
    let honest = execute(&[put("a", "1"), put("a", "2"), get("a"), curious, del("a")]);
    judge(&honest).unwrap();
    for who in [2, 3, 4] {
        for what in 0..3 {
            let mut run = honest.clone();
            lie(&mut run, who, |answer| match what {
                0 => entry(answer).version = Version(7),
                1 => entry(answer).created = Revision(3),
                _ => entry(answer).value = Value::from("other"),
            });
            let error = judge(&run).unwrap_err();
            assert!(matches!(*error, Violation::WrongAnswer { .. }), "{who} {what}: {error}");
        }
    }
}

#[test]
fn a_value_that_was_refused_or_never_asked_for_must_not_be_seen() {
    let mut run = execute(&[with_fate(Fate::UnknownButApplied, put("a", "1")), get("a")]);
    judge(&run).unwrap();
    run[0].outcome = Outcome::NotApplied;
    assert!(matches!(*judge(&run).unwrap_err(), Violation::NeverWritten { .. }));
    run.remove(0);
    assert!(matches!(*judge(&run).unwrap_err(), Violation::NeverWritten { .. }));
}

#[test]
fn one_unknown_put_explains_one_effect_only() {
    let run = execute(&[
        with_fate(Fate::UnknownButApplied, put("a", "1")),
        get("a"),
        del("a"),
        with_fate(Fate::UnknownButApplied, put("a", "1")),
        get("a"),
    ]);
    judge(&run).unwrap();
    let mut once: Vec<_> = run.clone();
    once.remove(3);
    assert!(matches!(*judge(&once).unwrap_err(), Violation::NeverWritten { .. }));
}

#[test]
fn an_unseen_delete_of_unknown_fate_excuses_only_what_it_can_have_done() {
    let honest = execute(&[
        put("a", "1"),
        put("b", "1"),
        with_fate(Fate::UnknownButApplied, del("a")),
        get("a"),
        put("a", "2"),
        get("a"),
    ]);
    judge(&honest).unwrap();
    // The same absence of b, which nobody deleted, is a lost write.
    let mut run = honest.clone();
    run[3].call = Call::Get { key: Key::from("b") };
    assert!(matches!(*judge(&run).unwrap_err(), Violation::WrongAnswer { .. }));
    // And once gone, the old value must not come back.
    let mut run = honest.clone();
    run.insert(4, honest[3].clone());
    lie(&mut run, 4, |answer| {
        answer.saw = Saw::Was(synod_sim::Entry {
            value: Value::from("1"),
            version: Version(1),
            created: Revision(2),
            modified: Revision(2),
        });
    });
    assert!(matches!(*judge(&run).unwrap_err(), Violation::WrongAnswer { .. }));
}

#[test]
fn a_history_may_begin_with_a_later_revision() {
    let run = execute(&[put("a", "1")]);
    let error = check(&history(run), Revision(2)).unwrap_err();
    assert!(matches!(*error, Violation::BeforeTheBeginning { .. }));
    assert_eq!(check(&history([]), Revision(9)).unwrap().last, Revision(9));
}

#[test]
fn violations_read_as_stories() {
    let mut run = execute(&[put("a", "1"), get("a")]);
    lie(&mut run, 1, |answer| answer.saw = Saw::Absent);
    assert_eq!(
        judge(&run).unwrap_err().to_string(),
        "a wrong answer:\n  0.001008 .. 0.001012 s  client 1  get a -> (no such key)  ok rev 2\n  \
         at that revision it was: 1 (mod 2, version 1, created 2)"
    );
}

#[test]
fn a_hundred_thousand_operations_are_replayed_once() {
    let order = judge(&a_long_run(3, 100_000, 50)).unwrap();
    assert!(order.writes > 40_000 && order.found > 50, "{order:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn honest_histories_are_accepted(
        script in prop::collection::vec(a_line(3, 4, 120), 0..60),
        distinct: bool,
    ) {
        let script = if distinct { with_distinct_values(script) } else { script };
        if let Err(violation) = judge(&execute(&script)) {
            prop_assert!(false, "{}", violation);
        }
    }

    #[test]
    fn lies_are_judged_as_brute_force_judges_them(
        script in prop::collection::vec(a_line(2, 3, 60), 1..7),
        lies in prop::collection::vec((any::<prop::sample::Index>(), a_lie()), 1..3),
        all_answered: bool,
    ) {
        let mut script = script;
        if all_answered {
            script.iter_mut().for_each(|line| line.fate = Fate::Answered);
        }
        let mut operations = execute(&script);
        for (which, lie) in lies {
            tell(lie, which.get_mut(&mut operations));
        }
        match (brute_force(&operations, Trust::Everything), judge(&operations)) {
            (true, Err(violation)) => prop_assert!(false, "rejected a good history: {}", violation),
            // With unknown outcomes the judge is lenient by design.
            (false, Ok(_)) => prop_assert!(!all_answered, "accepted a bad history"),
            (true, Ok(_)) | (false, Err(_)) => {}
        }
    }
}

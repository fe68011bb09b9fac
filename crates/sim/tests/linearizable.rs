//! The judge that trusts no revision: on histories good, bad and long.

mod common;

use common::*;
use proptest::prelude::*;
use synod_sim::linearizable::{Contradiction, Effort, Verdict, check};
use synod_sim::{History, Operation};

fn verdict(operations: &[Operation]) -> Verdict {
    check(&history(operations.to_vec()), Effort::default())
}

/// `client invoked returned call`, one per line: `put 1`, `get 1`, `get -`,
/// `del yes`, `del no`; returned `?` for unknown, `x` for refused. One key.
fn tell_story(text: &str) -> History {
    let json = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [client, invoked, returned, call, what] = words[..] else { panic!("{line}") };
        let entry =
            |value| format!(r#"{{"was":{{"value":"{value}","version":1,"created":1,"modified":1}}}}"#);
        let (call, saw) = match (call, what) {
            ("put", value) => {
                (format!(r#"{{"put":{{"key":"k","value":"{value}"}}}}"#), r#""not_asked""#.into())
            }
            ("get", "-") => (r#"{"get":{"key":"k"}}"#.into(), r#""absent""#.into()),
            ("get", value) => (r#"{"get":{"key":"k"}}"#.into(), entry(value)),
            ("del", "yes") => (r#"{"delete":{"key":"k"}}"#.into(), r#""present""#.into()),
            ("del", "no") => (r#"{"delete":{"key":"k"}}"#.into(), r#""absent""#.to_string()),
            _ => panic!("{line}"),
        };
        let outcome = match returned {
            "?" => r#""unknown""#.to_string(),
            "x" => r#""not_applied""#.to_string(),
            // Every revision is the same lie: this judge must not care.
            _ => format!(r#"{{"answered":{{"returned":{returned},"revision":9,"saw":{saw}}}}}"#),
        };
        format!(r#"{{"client":{client},"invoked":{invoked},"call":{call},"outcome":{outcome}}}"#) + "\n"
    });
    History::read(json.collect::<String>().as_bytes()).unwrap()
}

fn accepted(story: &str) {
    assert_eq!(check(&tell_story(story), Effort::default()), Verdict::Linearizable, "{story}");
}

/// Rejected, and by exactly these lines (counted from 0).
fn rejected(story: &str, core: &[usize]) {
    let history = tell_story(story);
    let Verdict::Contradiction(Contradiction { operations, .. }) = check(&history, Effort::default()) else {
        panic!("accepted: {story}");
    };
    let expected: Vec<_> = core.iter().map(|&line| history.operations()[line].clone()).collect();
    assert_eq!(operations, expected, "{story}");
}

#[test]
fn what_overlaps_may_happen_in_any_order() {
    accepted("1 0 9 put 1\n 2 1 2 get -\n 3 3 4 get 1");
    accepted("1 0 9 put 1\n 2 0 9 put 2\n 3 10 11 get 1");
    accepted("1 0 9 put 1\n 2 0 9 put 2\n 3 10 11 get 2");
    accepted("1 0 1 put 1\n 2 2 9 del yes\n 3 3 4 get 1\n 4 5 6 get -");
}

#[test]
fn equal_moments_overlap() {
    accepted("1 0 5 put 1\n 2 5 6 get -");
    rejected("1 0 4 put 1\n 2 5 6 get -", &[0, 1]);
}

#[test]
fn a_lost_write_is_found() {
    rejected("1 0 1 put 1\n 1 2 3 put 2\n 2 4 5 get 2\n 2 6 7 get -", &[1, 2, 3]);
    rejected("1 0 1 put 1\n 1 2 3 get -\n 1 4 5 put 2\n 1 6 7 get 2", &[0, 1]);
}

#[test]
fn a_stale_read_is_found() {
    rejected("1 0 1 put 1\n 1 2 3 put 2\n 2 4 5 get 1", &[0, 1, 2]);
}

#[test]
fn reads_that_go_back_and_forth_are_found() {
    // Both puts overlap everything, so each read alone is fine, and in one order
    // any two are.
    accepted("1 0 99 put 1\n 2 0 99 put 2\n 3 1 2 get 1\n 3 3 4 get 2");
    rejected("1 0 99 put 1\n 2 0 99 put 2\n 3 1 2 get 1\n 3 3 4 get 2\n 3 5 6 get 1", &[0, 1, 2, 3, 4]);
}

#[test]
fn a_resurrected_delete_is_found() {
    rejected("1 0 1 put 1\n 1 2 3 del yes\n 2 4 5 get 1", &[0, 1, 2]);
    rejected("1 0 1 put 1\n 1 2 3 del yes\n 2 4 5 del yes", &[0, 1, 2]);
}

#[test]
fn a_put_applied_twice_is_found() {
    rejected("1 0 1 put 1\n 1 2 3 put 2\n 1 4 5 get 2\n 2 6 7 get 1", &[0, 1, 2, 3]);
}

#[test]
fn a_value_from_nowhere_or_from_the_future_is_found() {
    rejected("1 0 1 put 1\n 1 2 3 get 7", &[1]);
    rejected("1 0 1 get 1\n 1 2 3 put 1", &[0, 1]);
}

#[test]
fn a_delete_that_missed_its_key_is_found() {
    rejected("1 0 1 put 1\n 2 2 3 del no", &[0, 1]);
    rejected("1 0 1 del yes", &[0]);
}

#[test]
fn unknown_writes_may_happen_at_any_later_time_or_never() {
    accepted("1 0 ? put 1\n 2 5 6 get -");
    accepted("1 0 ? put 1\n 2 5 6 get -\n 2 7 8 get 1");
    accepted("1 0 1 put 1\n 2 0 ? del yes\n 3 5 6 get 1\n 3 7 8 get -");
    accepted("1 0 ? put 1\n 1 0 ? put 2\n 2 5 6 get 2\n 2 7 8 get 1");
    // The delete can do without the unknown put, if it comes second; then the get
    // can have it. The search tries the other way first and must come back.
    accepted("1 0 ? put 1\n 2 0 18 del yes\n 3 0 19 put 2\n 4 20 21 put 3\n 5 30 31 get 1");
    // But not twice, and not before they were asked for.
    rejected("1 0 ? put 1\n 2 1 2 put 2\n 3 3 4 get 1\n 3 5 6 put 3\n 3 7 8 get 1", &[0, 2, 3, 4]);
    rejected("2 0 1 get 1\n 1 5 ? put 1", &[0, 1]);
}

#[test]
fn a_refused_write_must_not_be_seen() {
    accepted("1 0 x put 1\n 2 5 6 get -");
    rejected("1 0 x put 1\n 2 5 6 get 1", &[1]);
}

#[test]
fn a_contradiction_reads_as_a_story() {
    let story = tell_story("1 0 1000 put 1\n 2 2000 3000 get -");
    let Verdict::Contradiction(contradiction) = check(&story, Effort::default()) else {
        panic!("accepted");
    };
    assert_eq!(
        contradiction.to_string(),
        "key k: no order of these 2 operations explains the answers:\n  \
         0.000000 .. 0.001000 s  client 1  put k = 1  ok rev 9\n  \
         0.002000 .. 0.003000 s  client 2  get k -> (no such key)  ok rev 9"
    );
}

#[test]
fn too_little_effort_is_said_and_not_called_a_verdict() {
    let run = a_long_run(1, 200, 1);
    let verdict = check(&history(run), Effort(10));
    assert!(matches!(verdict, Verdict::Undecided { effort: Effort(10), .. }), "{verdict:?}");
}

#[test]
fn a_hundred_thousand_operations_need_no_more_effort_than_they_are_many() {
    for keys in [20, 100] {
        let run = history(a_long_run(7, 100_000, keys));
        // 100,000 / 20 = 5,000 per key; honest revisions lead almost straight on.
        let effort = Effort(10_000);
        assert_eq!(check(&run, effort), Verdict::Linearizable);
    }
}

#[test]
fn one_stale_read_among_a_hundred_thousand_operations_is_found_and_explained() {
    let mut run = a_long_run(8, 100_000, 50);
    // The last answered get that found a value shall find the first value instead.
    let key = run[0].call.key().clone();
    let saw: Vec<usize> = (0..run.len())
        .filter(|&index| {
            run[index].call.key() == &key
                && !run[index].call.writes()
                && matches!(run[index].answer(), Some(a) if matches!(a.saw, synod_sim::Saw::Was(_)))
        })
        .collect();
    let (first, last) = (saw[0], *saw.last().unwrap());
    let old = run[first].answer().unwrap().saw.clone();
    let synod_sim::Outcome::Answered(answer) = &mut run[last].outcome else { unreachable!() };
    answer.saw = old;
    let lie = run[last].clone();
    let Verdict::Contradiction(contradiction) = check(&history(run), Effort::default()) else {
        panic!("accepted");
    };
    assert!(contradiction.operations.contains(&lie), "{contradiction}");
    assert!(contradiction.operations.len() <= 6, "{contradiction}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn honest_histories_are_accepted(
        script in prop::collection::vec(a_line(3, 4, 120), 0..60),
        distinct: bool,
    ) {
        let script = if distinct { with_distinct_values(script) } else { script };
        prop_assert_eq!(verdict(&execute(&script)), Verdict::Linearizable);
    }

    #[test]
    fn lies_are_judged_as_brute_force_judges_them(
        script in prop::collection::vec(a_line(1, 3, 60), 1..7),
        lies in prop::collection::vec((any::<prop::sample::Index>(), a_lie()), 1..4),
    ) {
        let mut operations = execute(&script);
        for (which, lie) in lies {
            tell(lie, which.get_mut(&mut operations));
        }
        let expected = brute_force(&operations, Trust::Values);
        match verdict(&operations) {
            Verdict::Linearizable => prop_assert!(expected, "accepted a contradiction"),
            Verdict::Contradiction(contradiction) => {
                prop_assert!(!expected, "rejected a linearizable history: {}", contradiction);
                prop_assert!(!brute_force(&contradiction.operations, Trust::Values), "{}", contradiction);
            }
            Verdict::Undecided { .. } => prop_assert!(false, "gave up on a tiny history"),
        }
    }
}

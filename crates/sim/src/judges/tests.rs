//! All judges together: a run as it should be, which none of them may object to, and the figures of the tally.

use super::testing::*;
use super::*;
use synod_paxos::message::Chosen;
use synod_paxos::types::Generation;

/// A leader is elected, writes are answered, one acceptor forgets and is replaced, another leader finishes what the
/// first began.
fn good_story() -> Story {
    let mut story = Story::of_all();
    for n in 1..=3 {
        story.restored(voter(n, u128::from(n)), vec![]).unwrap();
        story.loaded(n, 0).unwrap();
    }
    story.phase_1(ballot(1, 1), 1, &[1, 2]).unwrap();
    story.see(1, &Observation::Leads { ballot: ballot(1, 1), begins: true }).unwrap();
    for slot in 1..=2 {
        story.decide(ballot(1, 1), slot, &put(slot)).unwrap();
        story.apply(1, slot, &put(slot)).unwrap();
    }
    let word = Message::Chosen(Chosen { ballot: ballot(1, 1), from: slot(1), upto: prefix(2) });
    story.sent(1, word.clone()).unwrap();
    story.received(2, word).unwrap();
    let answer = story.answer(1);
    story.court.on_write_answered(node(1), &request(1), &answer).unwrap();
    story.court.on_read_answered(node(1), prefix(1), prefix(2)).unwrap();
    // The leader proposes in slot 3, its own disk takes it, and its process ends.
    story.accept(ballot(1, 1), 3, &put(3)).unwrap();
    story.durable(voter(1, 1), accepted(ballot(1, 1), 3, &put(3))).unwrap();
    story.court.on_process_ended(node(1), false);
    story.formed(1, &genesis(), true).unwrap();
    let log = (1..=3).map(|n| accepted(ballot(1, 1), n, &put(n))).collect();
    story.restored(voter(1, 1), log).unwrap();
    // The third forgets, and n2 takes over with the first.
    story.court.on_process_ended(node(3), true);
    story.formed(3, &genesis(), true).unwrap();
    story.restored(voter(3, 30), vec![]).unwrap();
    story.phase_1(ballot(2, 2), 3, &[1, 2]).unwrap();
    story.see(2, &Observation::Leads { ballot: ballot(2, 2), begins: true }).unwrap();
    story.decide(ballot(2, 2), 3, &put(3)).unwrap();
    story.decide(ballot(2, 2), 4, &replace(3, Some(3), 30)).unwrap();
    story.decide(ballot(2, 2), 5, &Value::no_op()).unwrap();
    story
}

#[test]
fn no_judge_objects_to_a_good_story() {
    let mut story = good_story();
    for n in 1..=3 {
        story.loaded(n, 2).unwrap();
        let log = [put(3), replace(3, Some(3), 30), Value::no_op()];
        for (slot, value) in (3..).zip(&log) {
            story.apply(n, slot, value).unwrap();
        }
        story.covered(n, 4).unwrap();
    }
    story.durable(voter(2, 2), Record::Trimmed { upto: prefix(4) }).unwrap();
    let ends = (1..=3).map(|n| (node(n), (prefix(5), story.hash(5)))).collect();
    story.court.at_end(&ends).unwrap();
    assert_eq!(story.court.chosen(), prefix(5));
    assert_eq!(story.court.horizon(), slot(5 + WINDOW));
    assert_eq!(story.court.read_floor(), prefix(2));
    assert_eq!(story.court.voters(slot(4 + WINDOW))[&node(3)], Incarnation(30));
    assert_eq!(story.court.chosen_value(slot(5)), Some(&Value::no_op()));
    assert_eq!(story.court.chosen_value(slot(6)), None);
}

#[test]
fn t1_an_acceptor_that_forgot_and_votes_is_noticed_at_once() {
    let mut story = Story::of_all();
    for n in 1..=3 {
        story.restored(voter(n, u128::from(n)), vec![]).unwrap();
    }
    story.phase_1(ballot(1, 1), 1, &[1, 2]).unwrap();
    story.decide(ballot(1, 1), 1, &put(1)).unwrap();
    story.court.on_process_ended(node(2), true);
    story.formed(2, &genesis(), true).unwrap();
    let verdict = story.restored(voter(2, 2), vec![]).unwrap_err();
    assert_eq!(verdict.clause, "R1");
    assert!(verdict.to_string().contains("1.500000 s, n2"), "{verdict}");
}

#[test]
fn what_happened_is_counted() {
    let mut story = good_story();
    let generation = Generation(9);
    let rival = Ballot { round: 3, node: node(3), generation };
    story.prepare(rival, 6).unwrap();
    story.prepare(Ballot { round: 4, node: node(1), generation }, 6).unwrap();
    let counts = story.court.sometimes();
    for (what, count) in [
        ("acceptor forgot", 1),
        ("acceptor restored with a promise", 1),
        ("disk wiped", 1),
        ("leader elected", 2),
        ("memory replaced by another", 1),
        ("no-op proposed", 1),
        ("process ended", 2),
        ("read answered", 1),
        ("two rivals in phase 1", 1),
        ("value adopted from a promise", 1),
        ("write answered", 1),
    ] {
        assert_eq!(counts.get(what), Some(&count), "{what}: {counts:?}");
    }
    assert_eq!(counts.get("two values proposed for one slot"), None);
    assert!(counts.keys().all(|what| SOMETIMES.contains(what)));
}

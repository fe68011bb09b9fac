//! PMS-20 to PMS-23: learning what is chosen, and getting somewhere (2.3, 2.4).

use crate::town::Town;
use crate::*;
use std::time::Duration;
use synod_paxos::learner::{self, Learner};
use synod_paxos::message::Chosen;

/// What one learner tells another is chosen, and not merely accepted.
#[test]
fn pms_20_a_learner_hands_over_nothing_but_what_is_chosen() {
    let mut learner = Learner::new(NodeId(2), learner::Options::default(), Prefix::EMPTY);
    for slot in 1..=3 {
        learner.on_accept(ballot(1, 1), Slot(slot), value(slot), None, START);
    }
    learner.on_chosen(Chosen { ballot: ballot(1, 1), from: Slot(1), upto: Prefix(2) }, START);
    let handed = |from| match learner.on_fetch(NodeId(3), Slot(from), Prefix(2)) {
        Some(learner::Effect::Send(outgoing)) => outgoing.message,
        other => panic!("{other:?}"),
    };
    let entries = |from: u64, values| Message::Entries { from: Slot(from), values, chosen: Prefix(2) };
    assert_eq!(handed(1), entries(1, vec![value(1), value(2)]));
    assert_eq!(handed(3), entries(3, vec![]), "slot 3 is only accepted");
}

/// Whoever learns from a peer releases what follows its own prefix, once, and nothing behind a hole.
#[test]
fn pms_20_handed_over_values_are_released_in_order_and_once() {
    let mut learner = Learner::new(NodeId(3), learner::Options::default(), Prefix::EMPTY);
    assert_eq!(learner.on_entries(Slot(2), vec![value(2)], Prefix(2), START), vec![], "slot 1 is missing");
    let apply = |slot| learner::Effect::Apply { slot: Slot(slot), value: value(slot) };
    let both = vec![value(1), value(2)];
    assert_eq!(learner.on_entries(Slot(1), both.clone(), Prefix(2), START), vec![apply(1), apply(2)]);
    assert_eq!(learner.on_entries(Slot(1), both, Prefix(2), START), vec![]);
}

/// While nobody has a value that is called chosen, learners ask each other at their leisure.
#[test]
fn pms_21_a_fetch_that_brought_nothing_is_not_repeated_at_once() {
    let options = learner::Options::default();
    let mut learner = Learner::new(NodeId(3), options, Prefix::EMPTY);
    learner.on_members([NodeId(1), NodeId(2)]);
    learner.on_known(Prefix(1), START);
    let mut now = START + options.patience;
    assert_eq!(learner.tick(now).len(), 1, "asks one");
    assert_eq!(learner.on_entries(Slot(1), vec![], Prefix::EMPTY, now), vec![]);
    assert_eq!(learner.tick(now), vec![], "who has nothing now has nothing a moment later either");
    now = now + options.patience;
    assert_eq!(learner.tick(now).len(), 1, "asks the other");
}

/// Whom a learner asks.
fn asked(effects: Vec<learner::Effect>) -> Vec<NodeId> {
    let to = |effect| match effect {
        learner::Effect::Send(outgoing) => outgoing.to,
        other => panic!("{other:?}"),
    };
    effects.into_iter().map(to).collect()
}

/// A quarter of the fetches after a leader's death went to the dead leader, and clients waited until the answer was
/// overdue.
#[test]
fn pms_21_who_cannot_be_reached_is_not_asked() {
    let options = learner::Options::default();
    let mut learner = Learner::new(NodeId(4), options, Prefix::EMPTY);
    learner.on_members([NodeId(1), NodeId(2), NodeId(3)]);
    for peer in 1..=3 {
        learner.on_connected(NodeId(peer));
    }
    assert_eq!(learner.on_disconnected(NodeId(2), START), vec![], "nothing was to come from there");
    learner.on_known(Prefix(1), START);
    let mut now = START + options.patience;
    assert_eq!(asked(learner.tick(now)), [NodeId(3)], "not n2");
    assert_eq!(asked(learner.on_disconnected(NodeId(3), now)), [NodeId(1)], "at once");
    assert_eq!(learner.on_disconnected(NodeId(2), now), vec![], "n1 was asked");
    assert_eq!(asked(learner.on_disconnected(NodeId(1), now)), [NodeId(2)], "any, if all are gone");
    learner.on_connected(NodeId(1));
    learner.on_accept(ballot(1, 1), Slot(1), value(1), None, now);
    learner.on_chosen(Chosen { ballot: ballot(1, 1), from: Slot(1), upto: Prefix(2) }, now);
    for to in [1, 2, 3, 1] {
        now = now + options.retry;
        assert_eq!(
            asked(learner.tick(now)),
            [NodeId(to)],
            "first who is there, and then, in vain, everybody"
        );
    }
}

/// A learner that begins knows of nobody that they are there, so it asks first those whom it is told of.
#[test]
fn pms_21_a_new_learner_asks_whom_it_is_told_of() {
    let options = learner::Options::default();
    let mut learner = Learner::new(NodeId(4), options, Prefix::EMPTY);
    learner.on_members([NodeId(1), NodeId(2), NodeId(3)]);
    learner.on_connected(NodeId(1));
    learner.on_known(Prefix(1), START);
    let mut now = START + options.patience;
    for to in [1, 2, 3, 1] {
        assert_eq!(asked(learner.tick(now)), [NodeId(to)], "n1 first, and then, in vain, everybody");
        now = now + options.retry;
    }
}

/// Who sent a checkpoint was not asked in vain: those who can be reached come first again.
#[test]
fn pms_21_a_checkpoint_is_an_answer() {
    let options = learner::Options::default();
    let mut learner = Learner::new(NodeId(4), options, Prefix::EMPTY);
    learner.on_members([NodeId(1), NodeId(2), NodeId(3)]);
    learner.on_connected(NodeId(2));
    learner.on_connected(NodeId(3));
    learner.on_known(Prefix(9), START);
    let mut now = START + options.patience;
    assert_eq!(asked(learner.tick(now)), [NodeId(2)]);
    now = now + options.retry;
    assert_eq!(asked(learner.tick(now)), [NodeId(3)]);
    let install = vec![learner::Effect::Install { from: NodeId(3) }];
    assert_eq!(learner.on_take_checkpoint(NodeId(3), Prefix(5), now), install);
    assert_eq!(learner.on_installed(Prefix(5), now), vec![]);
    assert_eq!(asked(learner.tick(now)), [NodeId(2)], "not n1, which is not there");
}

/// A learner that has slots up to `applied`, lacks those up to 9, and has just asked n2 of n1, n2 and n3, which all can
/// be reached.
fn asking(applied: Prefix) -> (Learner, Time) {
    let options = learner::Options::default();
    let mut learner = Learner::new(NodeId(4), options, applied);
    learner.on_members((1..=4).map(NodeId));
    for peer in 1..=3 {
        learner.on_connected(NodeId(peer));
    }
    learner.on_known(Prefix(9), START);
    let now = START + options.patience;
    assert_eq!(asked(learner.tick(now)), [NodeId(2)]);
    (learner, now)
}

fn install(from: u64) -> Vec<learner::Effect> {
    vec![learner::Effect::Install { from: NodeId(from) }]
}

/// A learner took a whole checkpoint because the first it asked had just begun itself, and remembered nothing. Others
/// had the one slot that was missing.
#[test]
fn pms_21_values_come_before_a_checkpoint() {
    let (mut learner, now) = asking(Prefix(8));
    assert_eq!(asked(learner.on_take_checkpoint(NodeId(2), Prefix(9), now)), [NodeId(3)], "at once");
    let apply = learner::Effect::Apply { slot: Slot(9), value: value(9) };
    assert_eq!(learner.on_entries(Slot(9), vec![value(9)], Prefix(9), now), [apply]);
    assert_eq!(learner.tick(now + Duration::from_secs(9)), vec![], "nothing is missing");
}

/// If nobody has the values, the checkpoint is taken that covers most.
#[test]
fn pms_21_of_all_checkpoints_the_longest_is_taken() {
    let (mut learner, now) = asking(Prefix::EMPTY);
    assert_eq!(asked(learner.on_take_checkpoint(NodeId(2), Prefix(7), now)), [NodeId(3)]);
    assert_eq!(asked(learner.on_take_checkpoint(NodeId(3), Prefix(9), now)), [NodeId(1)]);
    assert_eq!(learner.on_take_checkpoint(NodeId(1), Prefix(8), now), install(3));
    assert_eq!(learner.tick(now + Duration::from_secs(9)), vec![], "it takes as long as it takes");
}

/// Who says nothing is waited for once, and who has nothing is no reason to wait.
#[test]
fn pms_21_silence_delays_a_checkpoint_and_does_not_prevent_it() {
    let options = learner::Options::default();
    let (mut learner, now) = asking(Prefix::EMPTY);
    assert_eq!(asked(learner.on_take_checkpoint(NodeId(2), Prefix(7), now)), [NodeId(3)]);
    let now = now + options.retry;
    assert_eq!(asked(learner.tick(now)), [NodeId(1)]);
    assert_eq!(learner.on_entries(Slot(1), vec![], Prefix::EMPTY, now), vec![]);
    assert_eq!(learner.tick(now + options.patience), install(2));
}

/// An offer that comes late is an offer.
#[test]
fn pms_21_a_late_offer_counts() {
    let options = learner::Options::default();
    let (mut learner, now) = asking(Prefix::EMPTY);
    let now = now + options.retry;
    assert_eq!(asked(learner.tick(now)), [NodeId(3)]);
    assert_eq!(learner.on_take_checkpoint(NodeId(2), Prefix(9), now), vec![], "n3 was asked");
    assert_eq!(asked(learner.on_take_checkpoint(NodeId(3), Prefix(8), now)), [NodeId(1)]);
    assert_eq!(learner.on_take_checkpoint(NodeId(1), Prefix(8), now), install(2));
}

/// Whoever offered a checkpoint may be gone when all others were asked. Then another's is taken, or all are asked again.
#[test]
fn pms_21_an_offer_ends_with_its_connection() {
    let options = learner::Options::default();
    let (mut learner, now) = asking(Prefix::EMPTY);
    learner.on_take_checkpoint(NodeId(2), Prefix(9), now);
    assert_eq!(learner.on_disconnected(NodeId(2), now), vec![], "n3 was asked");
    assert_eq!(asked(learner.on_take_checkpoint(NodeId(3), Prefix(8), now)), [NodeId(1)]);
    assert_eq!(learner.on_disconnected(NodeId(3), now), vec![], "n1 was asked");
    learner.on_connected(NodeId(3));
    assert_eq!(learner.on_entries(Slot(1), vec![], Prefix::EMPTY, now), vec![]);
    let now = now + options.patience;
    assert_eq!(asked(learner.tick(now)), [NodeId(3)], "it is back, and perhaps another one");
    assert_eq!(learner.on_take_checkpoint(NodeId(3), Prefix(8), now), install(3));
}

/// A checkpoint that could not be had is forgotten; if there is another, that one is tried.
#[test]
fn pms_21_a_checkpoint_that_failed_leaves_the_others() {
    let options = learner::Options::default();
    let (mut learner, mut now) = asking(Prefix::EMPTY);
    learner.on_take_checkpoint(NodeId(2), Prefix(7), now);
    learner.on_take_checkpoint(NodeId(3), Prefix(9), now);
    assert_eq!(learner.on_take_checkpoint(NodeId(1), Prefix(8), now), install(3));
    for next in [1, 2] {
        learner.on_not_installed(now);
        assert_eq!(learner.tick(now), vec![], "not at once");
        now = now + options.patience;
        assert_eq!(learner.tick(now), install(next));
    }
    learner.on_not_installed(now);
    assert_eq!(asked(learner.tick(now + options.patience)), [NodeId(2)], "from the beginning");
}

/// Offers are about the slots that were missing then. With the next value others may have more.
#[test]
fn pms_21_with_a_value_learned_offers_are_forgotten() {
    let (mut learner, now) = asking(Prefix::EMPTY);
    assert_eq!(asked(learner.on_take_checkpoint(NodeId(2), Prefix(7), now)), [NodeId(3)]);
    let effects = learner.on_entries(Slot(1), vec![value(1)], Prefix(9), now);
    assert_eq!(effects.len(), 2, "it applies slot 1, and asks n3 again: {effects:?}");
    assert_eq!(asked(learner.on_take_checkpoint(NodeId(3), Prefix(8), now)), [NodeId(1)]);
    assert_eq!(asked(learner.on_take_checkpoint(NodeId(1), Prefix(8), now)), [NodeId(2)]);
    assert_eq!(learner.on_take_checkpoint(NodeId(2), Prefix(9), now), install(2));
}

/// Nor is a checkpoint taken for the sake of slots that came on another way while the question travelled.
#[test]
fn pms_21_an_offer_for_what_is_no_longer_missing_is_not_taken() {
    let options = learner::Options::default();
    let (mut learner, now) = asking(Prefix(8));
    assert_eq!(learner.on_learn(Slot(9), vec![value(9)], now).len(), 1);
    assert_eq!(learner.on_take_checkpoint(NodeId(2), Prefix(12), now), vec![]);
    assert_eq!(asked(learner.tick(now + options.patience)), [NodeId(3)], "for slot 10");
}

/// A checkpoint that covers nothing new is none, and is no reason to ask in circles.
#[test]
fn pms_21_offers_of_what_is_known_bring_no_storm() {
    let options = learner::Options::default();
    let (mut learner, mut now) = asking(Prefix(8));
    for (asked_now, next) in [(2, 3), (3, 1), (1, 2), (2, 3)] {
        assert_eq!(learner.on_take_checkpoint(NodeId(asked_now), Prefix(8), now), vec![]);
        now = now + options.patience;
        assert_eq!(asked(learner.tick(now)), [NodeId(next)]);
    }
}

/// The leader dies between the deciding acceptance and its first word, and nobody writes any more. All learn
/// the value all the same.
#[test]
fn pms_21_the_leaders_death_does_not_bury_the_news() {
    let mut town = Town::elected(5, 21);
    town.calm(Duration::from_secs(3));
    let leader = town.leader().expect("quiet long enough");
    town.write(leader);
    town.step_until(|town| town.facts.chosen.len() == 1);
    assert!(town.sites.values().all(|site| site.log.is_empty()), "nobody knows yet");
    town.stop(leader);
    town.calm(Duration::from_secs(5));
    let others = town.sites.values().filter(|site| site.id != leader);
    assert!(others.clone().count() == 4 && others.clone().all(|site| !site.log.is_empty()));
}

/// A value on two of five, one dead that may or may not have been the third: a new ballot settles it, and
/// whoever has promised with the value's acceptors finds it.
#[test]
fn pms_22_a_new_ballot_settles_what_asking_cannot() {
    // n1 and n2 hold the value, n3 is dead. Either n1 or n2 must promise with n4 and n5.
    for witness in [1, 2] {
        let mut proposer = proposer(5, 5, 4);
        proposer.saw(ballot(1, 1));
        proposer.campaign(START);
        proposer.on_submit(vec![command(5, 1)]);
        for node in [4, 5] {
            assert_eq!(proposals(&promise(&mut proposer, voter(node), 1, Vec::new())), vec![], "no guess");
        }
        let held = vec![acceptance(1, ballot(1, 1), &value(1))];
        let proposed = proposals(&promise(&mut proposer, voter(witness), 1, held));
        assert_eq!(proposed[0].2, value(1));
        for node in [4, 5, witness] {
            proposer.on_accepted(proposed[0].1, Slot(1), voter(node));
        }
        assert!(proposer.word().is_some_and(|word| word.upto == Prefix(1)));
    }
}

/// Five proposers that used any ballots before, all awake at once: once messages arrive, one of them leads
/// within a bound, and goes on leading.
#[test]
fn pms_23_one_leader_within_a_bound_from_every_start() {
    for seed in 0..20 {
        let mut town = Town::elected(5, seed);
        for node in 1..=5 {
            town.deliver(
                NodeId(9),
                NodeId(node),
                Message::Prepare { ballot: ballot(seed * node * 7, 9), from: Slot(1) },
            );
        }
        town.chaos(Duration::from_secs(2));
        town.calm(Duration::from_secs(5));
        let leader = town.leader().expect("a leader within five quiet seconds");
        let ballot = town.ballot(leader);
        town.calm(Duration::from_secs(5));
        assert_eq!((town.leader(), town.ballot(leader)), (Some(leader), ballot), "seed {seed}");
    }
}

/// Values that come unasked, from a leader that goes on, are no answer to a question that is under way: a learner
/// that cannot use them still takes the checkpoint it is offered.
#[test]
fn pms_35_values_told_unasked_do_not_end_a_fetch() {
    use std::time::Duration;
    use synod_paxos::learner::{self, Learner};
    let options = learner::Options::default();
    let mut learner = Learner::new(NodeId(5), options, Prefix::EMPTY);
    learner.on_members((1..=5).map(NodeId));
    let mut now = START;
    // The leader tells every tick what it has chosen since; answers take longer than a tick.
    let mut asked: Vec<(Time, NodeId)> = Vec::new();
    for tick in 0..1_000u64 {
        now = now + Duration::from_millis(10);
        let mut effects = learner.on_learn(Slot(1_000 + tick), vec![value(tick)], now);
        effects.extend(learner.tick(now));
        for effect in effects {
            if let learner::Effect::Send(outgoing) = effect {
                asked.push((now, outgoing.to));
            }
        }
        let (arrived, under_way): (Vec<_>, Vec<_>) =
            asked.into_iter().partition(|&(at, _)| now.since(at) >= Duration::from_millis(15));
        asked = under_way;
        for (_, from) in arrived {
            if !learner.on_take_checkpoint(from, Prefix(900), now).is_empty() {
                return;
            }
        }
    }
    panic!("no checkpoint was ever taken");
}

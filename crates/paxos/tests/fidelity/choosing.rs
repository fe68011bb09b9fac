//! PMS-1 to PMS-19: what may be chosen, and how (2.1, 2.2).

use crate::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use synod_paxos::election;
use synod_paxos::leadership::{self, Leadership};
use synod_paxos::learner::{self, Learner};
use synod_paxos::membership::{Genesis, Member, Membership};
use synod_paxos::message::Chosen;

/// A found value goes out again byte by byte, neither merged with what waits nor taken apart.
#[test]
fn pms_01_a_found_batch_is_neither_split_nor_merged() {
    let found = Value::batch(&[command(1, 1), command(1, 2)]);
    let mut proposer = proposer(3, 3, 4);
    proposer.campaign(START);
    proposer.on_submit(vec![command(3, 1)]);
    promise(&mut proposer, voter(3), 1, Vec::new());
    let effects = promise(&mut proposer, voter(2), 1, vec![acceptance(1, ballot(1, 1), &found)]);
    let proposed = proposals(&effects);
    assert_eq!(proposed.len(), 2);
    assert_eq!(proposed[0].2.encoded(), found.encoded());
    assert_eq!(proposed[1].2.commands().unwrap(), vec![command(3, 1)]);
}

/// The leader's word holds for proposals of its ballot and of higher ones, never of lower ones.
#[test]
fn pms_03_a_word_vouches_for_no_lower_ballot() {
    for (accepted_in, released) in [(1, false), (2, true), (3, true)] {
        let mut learner = Learner::new(NodeId(3), learner::Options::default(), Prefix::EMPTY);
        assert_eq!(learner.on_accept(ballot(accepted_in, 1), Slot(1), value(7), None, START), vec![]);
        let word = Chosen { ballot: ballot(2, 1), from: Slot(1), upto: Prefix(1) };
        let effects = learner.on_chosen(word, START);
        let expected = learner::Effect::Apply { slot: Slot(1), value: value(7) };
        assert_eq!(effects, if released { vec![expected] } else { vec![] }, "round {accepted_in}");
        assert_eq!(learner.known(), Prefix(1), "that something is chosen is believed in any case");
    }
}

/// Nor for slots that the ballot did not propose itself.
#[test]
fn pms_03_a_word_vouches_for_no_slot_below_its_first() {
    let mut learner = Learner::new(NodeId(3), learner::Options::default(), Prefix::EMPTY);
    learner.on_accept(ballot(2, 1), Slot(1), value(7), None, START);
    let word = Chosen { ballot: ballot(2, 1), from: Slot(2), upto: Prefix(2) };
    assert_eq!(learner.on_chosen(word, START), vec![]);
}

/// Acceptances counted for a slot say that this one is chosen, and nothing of those below; nor do they vouch for a
/// lower ballot's proposal.
#[test]
fn pms_03_a_count_vouches_for_its_own_slot_alone() {
    let mut learner = Learner::new(NodeId(3), learner::Options::default(), Prefix::EMPTY);
    for (slot, round) in [(1, 2), (2, 2), (3, 1)] {
        learner.on_accept(ballot(round, 1), Slot(slot), value(slot), None, START);
    }
    assert_eq!(learner.on_counted(ballot(2, 1), Slot(2), START), vec![], "slot 1 may be open");
    assert_eq!((learner.chosen(), learner.known()), (Prefix::EMPTY, Prefix::EMPTY));
    assert_eq!(learner.on_counted(ballot(2, 1), Slot(3), START), vec![]);
    let applied = |slot| learner::Effect::Apply { slot: Slot(slot), value: value(slot) };
    assert_eq!(learner.on_counted(ballot(2, 1), Slot(1), START), vec![applied(1), applied(2)]);
    assert_eq!(learner.chosen(), Prefix(2), "slot 3 is chosen, but that is not what was proposed here");
    assert_eq!(learner.on_accept(ballot(3, 2), Slot(3), value(4), None, START), {
        vec![learner::Effect::Apply { slot: Slot(3), value: value(4) }]
    });
}

#[test]
fn pms_03_a_restarted_replica_believes_its_log_only_as_far_as_its_leader_vouched() {
    let records = |accepted_in| {
        [
            Record::Accepted { ballot: ballot(accepted_in, 1), slot: Slot(1), value: value(7) },
            Record::Chosen(Chosen { ballot: ballot(2, 1), from: Slot(1), upto: Prefix(1) }),
        ]
    };
    for (accepted_in, vouched) in [(1, 0), (2, 1), (3, 1)] {
        let acceptor = Acceptor::restore(voter(1), Limits::default(), records(accepted_in));
        assert_eq!(acceptor.chosen_after(Prefix::EMPTY).len(), vouched, "round {accepted_in}");
    }
}

/// Clusters of 1 to 7: it takes n/2 + 1 different voters, of this incarnation, and doubles do not help.
#[test]
fn pms_05_it_takes_a_majority_of_different_voters() {
    for nodes in 1..=7 {
        let majority = nodes / 2 + 1;
        let mut proposer = proposer(1, nodes, 4);
        proposer.campaign(START);
        for node in 1..majority {
            for _ in 0..3 {
                promise(&mut proposer, voter(node), 1, Vec::new());
            }
        }
        let forgetful = VoterId { node: NodeId(nodes), incarnation: Incarnation(99) };
        promise(&mut proposer, forgetful, 1, Vec::new());
        assert_eq!(proposer.leads(), None, "{} promises of {nodes}", majority - 1);
        promise(&mut proposer, voter(majority), 1, Vec::new());
        assert!(proposer.leads().is_some(), "{majority} promises of {nodes}");

        let (slot, ballot, _) = submit(&mut proposer, vec![command(1, 1)])[0].clone();
        for node in 1..majority {
            for _ in 0..3 {
                proposer.on_accepted(ballot, Slot(slot), voter(node));
            }
        }
        proposer.on_accepted(ballot, Slot(slot), forgetful);
        assert_eq!(proposer.in_flight(), 1);
        proposer.on_accepted(ballot, Slot(slot), voter(majority));
        assert_eq!(proposer.in_flight(), 0);
    }
}

#[test]
fn pms_06_a_first_proposal_is_accepted_without_a_prepare() {
    let mut fresh = acceptor(1);
    assert!(matches!(accept(&mut fresh, ballot(5, 1), 1, &value(1)), Some(Message::Accepted { .. })));
    let mut promised = acceptor(2);
    prepare(&mut promised, ballot(3, 1), 1);
    let above = accept(&mut promised, ballot(5, 1), 1, &value(1));
    assert!(matches!(above, Some(Message::Accepted { .. })), "an Accept above the promise is accepted");
}

/// Lives of proposers share no ballot, and what is sent again is what was sent.
#[test]
fn pms_07_no_ballot_names_two_proposals() {
    let mut used = BTreeSet::new();
    for node in 1..=3 {
        for life in 1..=3 {
            let configurations = configurations(3, 4);
            let mut proposer = Proposer::new(NodeId(node), Generation(life), options(), configurations);
            for _ in 0..3 {
                proposer.campaign(START);
                assert!(used.insert(proposer.ballot().unwrap()), "{:?} is used twice", proposer.ballot());
            }
        }
    }
    let mut proposer = leader(1, 3, 4);
    let first = submit(&mut proposer, vec![command(1, 1)]);
    proposer.on_submit(vec![command(1, 2), command(1, 3)]);
    let again = proposals(&proposer.tick(START + Duration::from_secs(1)));
    assert_eq!(again[0], first[0], "sent again as it was, whatever has come to the queue");
    assert_eq!(again[1].0, 2);
}

/// The scenario of a proposer that starts again while promises to its former life are under way.
#[test]
fn pms_07_promises_to_a_former_life_do_not_count() {
    let mut former = proposer(1, 3, 4);
    former.campaign(START);
    let old = former.ballot().unwrap();
    let mut later = Proposer::new(NodeId(1), Generation(2), options(), configurations(3, 4));
    later.campaign(START);
    for node in 1..=3 {
        later.on_promise(old, voter(node), Slot(1), None, Prefix::EMPTY, Vec::new(), START);
    }
    assert_eq!(later.leads(), None);
}

/// One value, accepted by three of five, but in three ballots: not chosen, and the ballot that leads knows.
#[test]
fn pms_08_acceptances_of_different_ballots_do_not_add_up() {
    let mut proposer = proposer(1, 5, 4);
    let mut ballots = Vec::new();
    for round in 1..=3 {
        proposer.campaign(START);
        ballots.push(proposer.ballot().unwrap());
        let found: Vec<_> =
            if round == 1 { vec![] } else { vec![acceptance(1, ballots[round - 2], &value(1))] };
        for node in 1..=3 {
            promise(&mut proposer, voter(node), 1, found.clone());
        }
        if round == 1 {
            submit(&mut proposer, vec![command(1, 1)]);
        }
    }
    for (index, &ballot) in ballots.iter().enumerate() {
        proposer.on_accepted(ballot, Slot(1), voter(index as u64 + 1));
    }
    assert_eq!(proposer.in_flight(), 1);
    assert_eq!(proposer.word(), None, "nothing is called chosen");
    proposer.on_accepted(ballots[2], Slot(1), voter(4));
    proposer.on_accepted(ballots[2], Slot(1), voter(5));
    assert_eq!(proposer.in_flight(), 0, "three of ballot 3 are");
}

/// Once a majority accepted v, whichever majority promises next, v is what it leaves free to propose.
#[test]
fn pms_09_every_later_proposal_carries_the_chosen_value() {
    for deciders in majorities(5) {
        for promisers in majorities(5) {
            let mut acceptors: BTreeMap<u64, Acceptor> = (1..=5).map(|n| (n, acceptor(n))).collect();
            for node in &deciders {
                accept(acceptors.get_mut(node).unwrap(), ballot(1, 1), 1, &value(1));
            }
            let mut rival = proposer(5, 5, 4);
            rival.saw(ballot(1, 1));
            rival.campaign(START);
            rival.on_submit(vec![command(5, 1)]);
            let mut proposed = Vec::new();
            for &node in &promisers {
                let answer = prepare(acceptors.get_mut(&node).unwrap(), rival.ballot().unwrap(), 1);
                let Message::Promise { voter, accepted, .. } = answer else { panic!("{answer:?}") };
                proposed.extend(proposals(&promise(&mut rival, voter, 1, accepted)));
            }
            assert_eq!(proposed[0].2, value(1), "{deciders:?} decided, {promisers:?} promised");
        }
    }
}

fn majorities(nodes: u64) -> Vec<Vec<u64>> {
    let sets = (0u64..1 << nodes).map(|bits| (1..=nodes).filter(|n| bits >> (n - 1) & 1 == 1).collect());
    sets.filter(|set: &Vec<u64>| set.len() as u64 == nodes / 2 + 1).collect()
}

/// Which value wins among promises: that of the highest ballot, and no other, in whatever order they come.
#[test]
fn pms_10_the_highest_acceptance_decides_not_the_first_last_or_commonest() {
    let rivals = [
        ("the later round", ballot(2, 1), ballot(1, 3)),
        ("the higher node of one round", ballot(2, 3), ballot(2, 1)),
        ("the later life of one node", Ballot { generation: Generation(2), ..ballot(2, 1) }, ballot(2, 1)),
    ];
    for (why, high, low) in rivals {
        let answers = [(1, low, 7), (2, high, 8), (3, low, 7)];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut proposer = proposer(4, 5, 4);
            proposer.saw(high);
            proposer.campaign(START);
            let mut proposed = Vec::new();
            for &index in &order {
                assert_eq!(proposed, vec![], "nothing before the majority is complete");
                let (node, accepted_in, number) = answers[index];
                let accepted = vec![acceptance(1, accepted_in, &value(number))];
                proposed = proposals(&promise(&mut proposer, voter(node), 1, accepted));
            }
            assert_eq!(proposed[0].2, value(8), "{why}, in order {order:?}");
        }
    }
}

#[test]
fn pms_10_the_proposers_own_acceptor_is_heard_like_any_other() {
    let mut proposer = proposer(1, 3, 4);
    proposer.saw(ballot(1, 1));
    proposer.campaign(START);
    promise(&mut proposer, voter(2), 1, Vec::new());
    let own = vec![acceptance(1, ballot(1, 1), &value(1))];
    assert_eq!(proposals(&promise(&mut proposer, voter(1), 1, own))[0].2, value(1));
}

#[test]
fn pms_10_promises_of_two_ballots_of_ones_own_do_not_mix() {
    let mut proposer = proposer(1, 3, 4);
    proposer.campaign(START);
    let first = proposer.ballot().unwrap();
    promise(&mut proposer, voter(1), 1, Vec::new());
    proposer.campaign(START);
    promise(&mut proposer, voter(2), 1, Vec::new());
    proposer.on_promise(first, voter(3), Slot(1), None, Prefix::EMPTY, Vec::new(), START);
    assert_eq!(proposer.leads(), None, "one promise each for two ballots, and a late one");
}

/// Silence about a trimmed slot is no silence.
#[test]
fn pms_10_nothing_is_proposed_below_a_trim_point() {
    let mut proposer = proposer(1, 3, 4);
    proposer.campaign(START);
    let ballot = proposer.ballot().unwrap();
    proposer.on_submit(vec![command(1, 1)]);
    proposer.on_promise(ballot, voter(1), Slot(1), None, Prefix::EMPTY, Vec::new(), START);
    let effects = proposer.on_promise(ballot, voter(2), Slot(1), None, Prefix(2), Vec::new(), START);
    assert_eq!(proposals(&effects), [], "the third may remember");
    let effects = proposer.tick(START + proposer::Options::default().retry);
    assert_eq!(proposals(&effects).first().map(|(slot, ..)| *slot), Some(3));
}

/// A and B promised 1, then 100; B and C accept in 100, C without a prepare; a late Accept of 1 reaches C.
#[test]
fn pms_11_accepting_is_promising() {
    let mut c = acceptor(3);
    let (_, accepted) = answer(c.on_accept(NodeId(2), ballot(100, 2), Slot(1), value(2)).unwrap());
    assert!(matches!(accepted, Message::Accepted { .. }));
    let refused = Message::Refused { ballot: ballot(1, 1), promised: ballot(100, 2) };
    assert_eq!(accept(&mut c, ballot(1, 1), 1, &value(1)), Some(refused.clone()));
    assert_eq!(accept(&mut c, ballot(1, 1), 2, &value(1)), Some(refused), "nor in any other slot");
    assert!(matches!(prepare(&mut c, ballot(50, 1), 1), Message::Refused { .. }));
    assert_eq!(c.acceptances(Slot(1)).collect::<Vec<_>>(), vec![acceptance(1, ballot(100, 2), &value(2))]);
}

#[test]
fn pms_11_an_acceptance_restored_from_disk_promises_as_well() {
    let record = Record::Accepted { ballot: ballot(100, 2), slot: Slot(1), value: value(2) };
    let mut restored = Acceptor::restore(voter(3), Limits::default(), [record]);
    assert!(matches!(accept(&mut restored, ballot(1, 1), 2, &value(1)), Some(Message::Refused { .. })));
}

#[test]
fn pms_12_those_who_accept_need_not_have_promised() {
    let mut proposer = proposer(1, 5, 4);
    proposer.campaign(START);
    for node in [1, 2, 3] {
        promise(&mut proposer, voter(node), 1, Vec::new());
    }
    let (slot, ballot, _) = submit(&mut proposer, vec![command(1, 1)])[0].clone();
    for node in [3, 4, 5] {
        proposer.on_accepted(ballot, Slot(slot), voter(node));
    }
    assert_eq!(proposer.in_flight(), 0);
}

/// `n >= promised`, whatever the slot holds: the whole table.
#[test]
fn pms_13_an_acceptor_accepts_unless_it_promised_more() {
    let promised = ballot(5, 2);
    for (n, above) in [(ballot(4, 2), false), (ballot(5, 1), false), (promised, true), (ballot(5, 3), true)] {
        for before in [None, Some(ballot(3, 1)), Some(promised)] {
            let mut acceptor = acceptor(1);
            if let Some(before) = before {
                accept(&mut acceptor, before, 1, &value(1));
            }
            accept(&mut acceptor, ballot(1, 1), 2, &value(3)); // another slot has no say
            prepare(&mut acceptor, promised, 1);
            let answer = accept(&mut acceptor, n, 1, &value(1));
            let accepted = matches!(answer, Some(Message::Accepted { .. }));
            assert_eq!(accepted, above, "{n} after promise {promised} with {before:?} in the slot");
        }
    }
}

/// A timeout is no "no": the same value goes out again in the same ballot.
#[test]
fn pms_14_silence_changes_no_proposal() {
    let mut proposer = leader(1, 3, 4);
    let first = submit(&mut proposer, vec![command(1, 1)]);
    for second in 1..10 {
        assert_eq!(proposals(&proposer.tick(START + Duration::from_secs(second))), first);
    }
}

#[test]
fn pms_15_a_doubled_prepare_is_answered_with_the_present_state() {
    let mut acceptor = acceptor(1);
    let b = ballot(2, 1);
    let Message::Promise { accepted, .. } = prepare(&mut acceptor, b, 1) else { panic!("refused") };
    assert_eq!(accepted, vec![]);
    accept(&mut acceptor, b, 1, &value(1));
    let (record, again) = answer(acceptor.on_prepare(NodeId(1), b, Slot(1)));
    let Message::Promise { accepted, .. } = again else { panic!("a lost promise must not kill the ballot") };
    assert_eq!(accepted, vec![acceptance(1, b, &value(1))]);
    assert!(record.is_some(), "the second answer waits for the disk, too: the first may still be on its way");
    assert!(matches!(prepare(&mut acceptor, ballot(1, 9), 1), Message::Refused { .. }));
}

type Step = fn(&mut Acceptor) -> Option<acceptor::Effect>;

/// Whatever prefix of its records survives, an acceptor restored from them has not gone back.
#[test]
fn pms_16_records_restore_promise_and_acceptances() {
    let mut acceptor = acceptor(1);
    let mut records = Vec::new();
    let mut expected = Vec::new();
    let note = |effect: acceptor::Effect, acceptor: &Acceptor, records: &mut Vec<Record>| {
        let record = match effect {
            acceptor::Effect::PersistThenSend { record, .. } | acceptor::Effect::Persist(record) => record,
            acceptor::Effect::Send(_) => panic!("nothing to remember"),
        };
        records.push(record);
        let held: Vec<_> = acceptor.acceptances(Slot(1)).collect();
        (acceptor.promised(), held, acceptor.trimmed(), acceptor.bytes())
    };
    let steps: [Step; 6] = [
        |a| Some(a.on_prepare(NodeId(1), ballot(1, 1), Slot(1))),
        |a| a.on_accept(NodeId(1), ballot(1, 1), Slot(1), value(1)),
        |a| a.on_accept(NodeId(1), ballot(1, 1), Slot(3), value(3)),
        |a| a.on_accept(NodeId(2), ballot(2, 2), Slot(3), value(4)),
        |a| a.trim(Prefix(1)),
        |a| Some(a.on_prepare(NodeId(3), ballot(7, 3), Slot(2))),
    ];
    for step in steps {
        let effect = step(&mut acceptor).expect("something changes");
        expected.push(note(effect, &acceptor, &mut records));
    }
    for (length, expected) in expected.into_iter().enumerate() {
        let restored = Acceptor::restore(voter(1), Limits::default(), records[..=length].to_vec());
        let held: Vec<_> = restored.acceptances(Slot(1)).collect();
        assert_eq!((restored.promised(), held, restored.trimmed(), restored.bytes()), expected);
    }
}

#[test]
fn pms_16_the_promise_covers_slots_unseen_and_outlives_every_trim() {
    let mut acceptor = acceptor(1);
    accept(&mut acceptor, ballot(5, 1), 1, &value(1));
    acceptor.trim(Prefix(1));
    let mut restored = Acceptor::restore(voter(1), Limits::default(), acceptor.summary());
    for acceptor in [&mut acceptor, &mut restored] {
        assert_eq!(acceptor.promised(), Some(ballot(5, 1)));
        assert_eq!(acceptor.highest(), Prefix(1), "what is trimmed was accepted");
        let refused = accept(acceptor, ballot(4, 9), 1_000_000, &value(2));
        assert!(matches!(refused, Some(Message::Refused { .. })));
    }
}

/// Each kind of answer, held back over two ballots: none counts any more.
#[test]
fn pms_17_answers_to_ballots_given_up_do_not_count() {
    let mut proposer = leader(1, 3, 4);
    let old = proposer.ballot().unwrap();
    submit(&mut proposer, vec![command(1, 1)]);
    proposer.campaign(START);
    proposer.campaign(START);
    let present = proposer.ballot().unwrap();
    for node in 1..=3 {
        proposer.on_promise(old, voter(node), Slot(1), None, Prefix::EMPTY, Vec::new(), START);
    }
    assert_eq!(proposer.leads(), None);
    for node in [1, 2] {
        promise(&mut proposer, voter(node), 1, vec![acceptance(1, old, &value(1))]);
    }
    assert_eq!((proposer.leads(), proposer.in_flight()), (Some(present), 1));
    for node in 1..=3 {
        proposer.on_accepted(old, Slot(1), voter(node));
    }
    assert_eq!(proposer.in_flight(), 1);
    assert_eq!(proposer.on_refused(old, ballot(1, 9)), vec![]);
    assert_eq!(proposer.leads(), Some(present));
}

#[test]
fn pms_18_nothing_is_proposed_before_a_majority_promised() {
    let mut proposer = proposer(1, 5, 4);
    let mut effects = proposer.campaign(START).unwrap();
    proposer.on_submit(vec![command(1, 1)]);
    effects.extend(proposer.flush(START));
    effects.extend(proposer.tick(START + Duration::from_secs(1)));
    for node in [1, 2] {
        effects.extend(promise(&mut proposer, voter(node), 1, Vec::new()));
    }
    assert_eq!(proposals(&effects), vec![]);
    assert_eq!(proposals(&promise(&mut proposer, voter(3), 1, Vec::new())).len(), 1);
}

/// A successor asked for by the leader itself goes through phase 1 like everybody.
#[test]
fn pms_18_a_handed_over_leadership_begins_with_phase_1() {
    let member = |n| (NodeId(n), Member { voter: Some(voter(n).incarnation), ..Member::default() });
    let genesis =
        Genesis { cluster: ClusterId(1), window: Window::new(4), members: (1..=3).map(member).collect() };
    let membership = Membership::genesis(&genesis);
    let patience = election::Options::default();
    let mut successor = Leadership::new(NodeId(2), Generation(1), options(), patience, &membership, START);
    let mut effects = successor.on_message(NodeId(1), Message::HandOver { ballot: ballot(3, 1) }, START);
    successor.on_submit(vec![command(2, 1)]);
    effects.extend(successor.flush(START));
    let sent = |effect: &leadership::Effect| match effect {
        leadership::Effect::Send { message: Message::Prepare { ballot, .. }, .. } => ballot.round > 3,
        other => panic!("{other:?} before any promise"),
    };
    assert!(!effects.is_empty() && effects.iter().all(sent));
}

#[test]
fn pms_19_a_refused_ballot_is_given_up_and_the_next_is_above_what_refused_it() {
    let mut proposer = leader(1, 3, 4);
    let own = proposer.ballot().unwrap();
    let effects = proposer.on_refused(own, ballot(41, 3));
    assert_eq!(effects, vec![proposer::Effect::Deposed { ballot: own, by: ballot(41, 3) }]);
    assert_eq!(proposer.ballot(), None);
    proposer.campaign(START);
    assert!(proposer.ballot().unwrap() > ballot(41, 3));
    let storm = (0..100).flat_map(|_| proposer.on_refused(own, ballot(41, 3))).count();
    assert_eq!(storm, 0, "refusals of an old ballot depose nobody");
    assert!(proposer.ballot().is_some());
}

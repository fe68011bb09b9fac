//! PMS-25 to PMS-38 and PMS-40: the implementation (2.5) and the state machine (3).

use crate::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use synod_paxos::front::{self, Front};
use synod_paxos::learner::{self, Learner};
use synod_paxos::machine::{Admission, Machine};
use synod_paxos::membership::{Genesis, Member, Membership};
use synod_paxos::message::{Chosen, QuestionId};
use synod_paxos::reader::{self, Reader};

fn genesis(nodes: u64, window: u64) -> Genesis {
    let member = |n| (NodeId(n), Member { voter: Some(voter(n).incarnation), ..Member::default() });
    Genesis { cluster: ClusterId(1), window: Window::new(window), members: (1..=nodes).map(member).collect() }
}

/// The configurations of a replica that has applied `slots`, without any change among them.
fn applied(nodes: u64, window: u64, slots: u64) -> Configurations {
    let mut membership = Membership::genesis(&genesis(nodes, window));
    (1..=slots).for_each(|slot| membership.advance(Slot(slot)));
    membership.configurations().clone()
}

/// Phase 1 of `proposer` with these acceptors, part by part, while `waiting` waits; all that came of it.
fn phase_1(
    proposer: &mut Proposer,
    acceptors: &mut [Acceptor],
    waiting: Vec<Command>,
) -> Vec<proposer::Effect> {
    let mut todo = proposer.campaign(START).expect("the voters are known");
    proposer.on_submit(waiting);
    let mut done = Vec::new();
    while let Some(effect) = todo.pop() {
        assert!(done.len() < 1_000, "phase 1 does not end");
        if let proposer::Effect::Send { to, message: Message::Prepare { ballot, from } } = &effect {
            for acceptor in acceptors.iter_mut().filter(|acceptor| to.contains(&acceptor.id().node)) {
                let reply = answer(acceptor.on_prepare(ballot.node, *ballot, *from)).1;
                let Message::Promise { ballot, voter, from, until, trimmed, accepted } = reply else {
                    panic!("refused: {reply:?}")
                };
                let more = proposer.on_promise(ballot, voter, from, until, trimmed, accepted, START);
                todo.splice(0..0, more.into_iter().rev());
            }
        }
        done.push(effect);
    }
    done
}

/// The leader's own acceptor is asked by message, and its vote counts when its answer comes.
#[test]
fn pms_25_the_leaders_own_vote_is_never_counted_early() {
    let mut proposer = leader(1, 3, 4);
    proposer.on_submit(vec![command(1, 1)]);
    let effects = proposer.flush(START);
    let asked = effects.iter().any(|effect| {
        matches!(effect, proposer::Effect::Send { to, message: Message::Accept { .. } } if to.contains(&NodeId(1)))
    });
    assert!(asked, "its own acceptor is among the receivers");
    let ballot = proposer.ballot().unwrap();
    proposer.on_accepted(ballot, Slot(1), voter(2));
    assert_eq!(proposer.in_flight(), 1, "n2's vote alone is one of three");
    proposer.on_accepted(ballot, Slot(1), voter(3));
    assert_eq!(proposer.in_flight(), 0, "n1's disk may take its time");
}

/// Answers taken for another's: other ballots, slots, memories, questions. None has any effect.
#[test]
fn pms_26_answers_count_only_for_what_they_name() {
    let mut proposer = leader(1, 5, 4);
    let ballot = proposer.ballot().unwrap();
    submit(&mut proposer, vec![command(1, 1)]);
    submit(&mut proposer, vec![command(1, 2)]);
    let forgot = |node| VoterId { node: NodeId(node), incarnation: Incarnation(77) };
    for node in 1..=5 {
        proposer.on_accepted(crate::ballot(ballot.round, 2), Slot(1), voter(node));
        proposer.on_accepted(ballot, Slot(3), voter(node));
        proposer.on_accepted(ballot, Slot(1), forgot(node));
    }
    assert_eq!(proposer.in_flight(), 2);
    for node in 1..=3 {
        proposer.on_accepted(ballot, Slot(2), voter(node));
    }
    assert_eq!((proposer.in_flight(), proposer.word()), (1, None), "slot 2's votes are not slot 1's");

    let mut reader = Reader::new(Generation(2), Duration::from_millis(100), configurations(3, 4));
    let ticket = reader.on_read();
    reader.flush(START);
    let mut hear = |question, voter| reader.on_answer(question, voter, Prefix::EMPTY, START);
    let asked = QuestionId { generation: Generation(2), number: 1 };
    for node in 1..=3 {
        assert_eq!(hear(QuestionId { generation: Generation(1), ..asked }, voter(node)), vec![]);
        assert_eq!(hear(QuestionId { number: 2, ..asked }, voter(node)), vec![]);
        assert_eq!(hear(asked, forgot(node)), vec![]);
    }
    assert_eq!(hear(asked, voter(1)), vec![]);
    assert_eq!(hear(asked, voter(1)), vec![]);
    assert_eq!(hear(asked, voter(2)), vec![reader::Effect::Ready(ticket)]);
}

/// Every promise and acceptance travels with a record; records up to it restore what it says. Repetitions wait
/// like the first time, because the first record may not be durable yet. Only refusals wait for nothing.
#[test]
fn pms_27_no_answer_leaves_without_its_record() {
    let mut acceptor = acceptor(1);
    let mut disk = Vec::new();
    let mut said = BTreeSet::new();
    for (round, slot) in [(2, 1), (2, 1), (1, 1), (3, 2), (3, 2), (2, 2), (5, 1), (4, 3), (5, 3)] {
        let b = ballot(round, 1);
        for prepare in [true, false] {
            let effect = if prepare {
                acceptor.on_prepare(NodeId(1), b, Slot(1))
            } else {
                acceptor.on_accept(NodeId(1), b, Slot(slot), value(round)).expect("answered")
            };
            let (record, message) = answer(effect);
            disk.extend(record.clone());
            let restored = Acceptor::restore(voter(1), Limits::default(), disk.clone());
            match message {
                Message::Refused { .. } => assert_eq!(record, None),
                Message::Promise { ballot, .. } => {
                    assert!(record.is_some() && restored.promised() >= Some(ballot));
                    said.insert("promise");
                }
                Message::Accepted { ballot, slot, .. } => {
                    let held = restored.acceptances(slot).next();
                    assert!(record.is_some() && held.is_some_and(|a| a.slot == slot && a.ballot == ballot));
                    said.insert("acceptance");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(said.len(), 2);
}

#[test]
fn pms_28_numbers_rise_and_no_two_lives_or_nodes_share_one() {
    let mut one = proposer(1, 3, 4);
    let mut last = None;
    for seen in [1, 7, 3, 100] {
        one.saw(ballot(seen, 3));
        one.campaign(START);
        assert!(one.ballot() > last && one.ballot() > Some(ballot(seen, 3)));
        last = one.ballot();
    }
    // A clone of its disk, a replacement machine, a memoryless restart: the same round, another number.
    let mut restarted = Proposer::new(NodeId(1), Generation(2), options(), configurations(3, 4));
    let mut other = proposer(2, 3, 4);
    for proposer in [&mut restarted, &mut other] {
        proposer.saw(ballot(last.unwrap().round - 1, 3));
        proposer.campaign(START);
        assert_eq!(proposer.ballot().map(|b| b.round), last.map(|b| b.round));
        assert_ne!(proposer.ballot(), last);
    }
}

/// The same log makes the same machine, byte by byte, also by way of a checkpoint in the middle.
#[test]
fn pms_29_the_same_log_makes_the_same_state() {
    let apply = |machine: &mut Machine<u64>, slot: u64| {
        for command in [command(slot % 3 + 1, slot.div_ceil(2)), command(9, slot)] {
            if machine.admit(&command) == Admission::Fresh {
                machine.answered(command.id, slot);
            }
        }
        machine.advance(Slot(slot));
    };
    let bytes = |machine: &Machine<u64>| machine.encode(|answer| Bytes::from(answer.to_be_bytes().to_vec()));
    let decode = |bytes: Bytes| Ok(u64::from_be_bytes(bytes[..].try_into().expect("eight bytes")));
    let mut whole = Machine::genesis(&genesis(3, 4));
    let mut resumed = Machine::genesis(&genesis(3, 4));
    for slot in 1..=40 {
        apply(&mut whole, slot);
        apply(&mut resumed, slot);
        resumed = Machine::decode(bytes(&resumed), decode).expect("we wrote it");
        assert_eq!(bytes(&whole), bytes(&resumed), "after {slot}");
    }
}

/// Another value won the slot: the command is not answered, and its front sends it to the next leader.
#[test]
fn pms_30_a_command_that_lost_its_slot_is_asked_for_again() {
    let mut front = Front::new(NodeId(1), Generation(1), front::Options::default(), START);
    let id = front.submit(Action::App(Bytes::new()), START).unwrap();
    front.on_leader(ballot(1, 1));
    assert_eq!(front.flush().len(), 1);
    front.on_applied(command(2, 1).id, START); // what was chosen instead
    assert_eq!(front.waiting(), 1);
    front.on_leader(ballot(2, 2));
    let again = front.flush();
    let [(NodeId(2), Message::Submit { commands })] = &again[..] else { panic!("{again:?}") };
    assert_eq!(commands[0].id, id, "under the same name");
    front.on_applied(id, START);
    assert_eq!(front.waiting(), 0);
}

/// Prepare has no room for a value; nothing is bound to a slot before the promises are in, and a leadership
/// lost in between costs the fronts nothing.
#[test]
fn pms_31_phase_1_carries_no_value() {
    let mut proposer = proposer(1, 3, 4);
    let effects = proposer.campaign(START).unwrap();
    for effect in effects {
        // No `..`: a third field would not compile.
        let proposer::Effect::Send { message: Message::Prepare { ballot: _, from: _ }, .. } = effect else {
            panic!("{effect:?}")
        };
    }
    let mut front = Front::new(NodeId(1), Generation(1), front::Options::default(), START);
    front.submit(Action::App(Bytes::new()), START).unwrap();
    front.on_leader(ballot(1, 1));
    for (_, message) in front.flush() {
        let Message::Submit { commands } = message else { panic!("{message:?}") };
        assert_eq!(submit(&mut proposer, commands), vec![]);
    }
    let own = proposer.ballot().unwrap();
    proposer.on_refused(own, ballot(8, 3));
    assert_eq!((proposer.queued(), front.waiting()), (0, 1), "the command is still with its front");
}

/// The paper's figures. The new leader knows 1 to 134, and of 138 and 139, too. Phase 1 shows 135 and 140. So
/// 135 and 138 to 140 are proposed as found, 136 and 137 become no-ops, and new commands go to 141. The same
/// comes of it wherever the answers are cut in parts.
#[test]
fn pms_32_pms_34_the_papers_new_leader() {
    for promise_bytes in [1, 120, 230, 340, 1 << 20] {
        let limits = Limits { promise_bytes, ..Limits::default() };
        let mut acceptors: Vec<Acceptor> = (1..=3).map(|n| Acceptor::new(voter(n), limits)).collect();
        for slot in (1..=135).chain(138..=140) {
            for acceptor in &mut acceptors[..if slot == 135 || slot == 140 { 1 } else { 2 }] {
                accept(acceptor, ballot(1, 1), slot, &value(slot));
            }
        }
        let mut proposer = Proposer::new(NodeId(3), Generation(1), options(), applied(3, 8, 134));
        proposer.saw(ballot(1, 1));
        acceptors.remove(1);
        let effects = phase_1(&mut proposer, &mut acceptors, vec![command(3, 1)]);
        let prepares = effects.iter().filter(|effect| {
            matches!(effect, proposer::Effect::Send { message: Message::Prepare { .. }, .. })
        });
        assert_eq!(prepares.count() == 1, promise_bytes > 1_000, "one short message, unless answers are cut");
        let own = Value::batch(&[command(3, 1)]);
        let expected = [value(135), Value::no_op(), Value::no_op(), value(138), value(139), value(140), own];
        let ballot = proposer.ballot().unwrap();
        let expected: Vec<_> = (135..).zip(expected).map(|(slot, value)| (slot, ballot, value)).collect();
        assert_eq!(proposals(&effects), expected, "answers of {promise_bytes} bytes");
    }
}

/// The answer goes as far as the acceptances go, not only as far as the acceptor knows them chosen.
#[test]
fn pms_32_a_promise_shows_what_is_chosen_and_what_is_not() {
    let mut acceptor = acceptor(1);
    for slot in 1..=4 {
        accept(&mut acceptor, ballot(1, 1), slot, &value(slot));
    }
    acceptor.on_chosen(Chosen { ballot: ballot(1, 1), from: Slot(1), upto: Prefix(3) });
    let Message::Promise { accepted, until, .. } = prepare(&mut acceptor, ballot(2, 2), 2) else { panic!() };
    let slots: Vec<u64> = accepted.iter().map(|a| a.slot.0).collect();
    assert_eq!((slots, until), (vec![2, 3, 4], None));
}

/// Figure 8 of the Raft paper, transposed. x is accepted by n1 and n2 in ballot 2, y by n5 in ballot 3. Ballot 4
/// finds x and brings it to n3, under its own number: only then is x safe from n5.
#[test]
fn pms_33_what_was_found_goes_out_under_the_new_ballot() {
    let (x, y) = (value(1), value(2));
    let mut acceptors: Vec<Acceptor> = (1..=5).map(acceptor).collect();
    for acceptor in &mut acceptors[..2] {
        accept(acceptor, ballot(2, 1), 1, &x);
    }
    for acceptor in &mut acceptors[2..] {
        prepare(acceptor, ballot(3, 5), 1);
    }
    accept(&mut acceptors[4], ballot(3, 5), 1, &y);

    let mut n1 = proposer(1, 5, 4);
    n1.saw(ballot(3, 5));
    let proposed = proposals(&phase_1(&mut n1, &mut acceptors[..3], Vec::new()));
    let fourth = ballot(4, 1);
    assert_eq!(proposed, vec![(1, fourth, x.clone())]);
    assert!(matches!(accept(&mut acceptors[2], ballot(2, 1), 1, &x), Some(Message::Refused { .. })));
    for node in 1..=3 {
        n1.on_accepted(ballot(2, 1), Slot(1), voter(node));
    }
    assert_eq!(n1.in_flight(), 1, "three hold x, but not in one ballot");
    for acceptor in &mut acceptors[..3] {
        accept(acceptor, fourth, 1, &x);
    }

    let mut n5 = proposer(5, 5, 4);
    n5.saw(fourth);
    assert_eq!(
        proposals(&phase_1(&mut n5, &mut acceptors[2..], vec![command(5, 1)]))[0].2,
        x,
        "x in 4 beats y in 3"
    );
}

/// Every pattern of gaps within the window: what was found keeps its slot, gaps below become no-ops, new
/// commands go behind.
#[test]
fn pms_34_gaps_are_filled_and_nothing_moves_into_them() {
    let window = 6;
    for pattern in 1u64..1 << window {
        let found: Vec<u64> = (1..=window).filter(|slot| pattern >> (slot - 1) & 1 == 1).collect();
        let mut proposer = proposer(3, 3, window);
        proposer.saw(ballot(1, 1));
        proposer.campaign(START);
        proposer.on_submit(vec![command(3, 1)]);
        promise(&mut proposer, voter(3), 1, Vec::new());
        let accepted = found.iter().map(|&slot| acceptance(slot, ballot(1, 1), &value(slot))).collect();
        let proposed = proposals(&promise(&mut proposer, voter(1), 1, accepted));
        let last = *found.last().unwrap();
        for slot in 1..=window.min(last + 1) {
            let expected = match slot {
                slot if found.contains(&slot) => value(slot),
                slot if slot < last => Value::no_op(),
                _ => Value::batch(&[command(3, 1)]),
            };
            assert_eq!(
                proposed[slot as usize - 1],
                (slot, proposer.ballot().unwrap(), expected),
                "{found:?}"
            );
        }
        assert_eq!(proposed.len() as u64, window.min(last + 1));
    }
}

/// Five slots arrive in every order: they are released in one.
#[test]
fn pms_35_slots_are_released_in_order_whatever_order_they_come_in() {
    let mut orders = vec![vec![]];
    for _ in 0..5 {
        let longer = |order: &Vec<u64>| {
            let free = (1..=5).filter(|slot| !order.contains(slot)).collect::<Vec<_>>();
            free.into_iter().map(|slot| [&order[..], &[slot]].concat()).collect::<Vec<_>>()
        };
        orders = orders.iter().flat_map(longer).collect();
    }
    assert_eq!(orders.len(), 120);
    let word = Chosen { ballot: ballot(1, 1), from: Slot(1), upto: Prefix(5) };
    for order in orders {
        let mut learner = Learner::new(NodeId(2), learner::Options::default(), Prefix::EMPTY);
        let mut released = Vec::new();
        let mut here = BTreeSet::new();
        for slot in order {
            here.insert(slot);
            let effects = learner.on_accept(ballot(1, 1), Slot(slot), value(slot), Some(word), START);
            for effect in effects {
                let learner::Effect::Apply { slot, value: released_value } = effect else { panic!() };
                assert_eq!(released_value, value(slot.0));
                released.push(slot.0);
            }
            let whole = (1..).take_while(|slot| here.contains(slot)).count() as u64;
            assert_eq!(released, (1..=whole).collect::<Vec<_>>());
            assert_eq!(learner.chosen(), Prefix(whole));
        }
    }
}

/// With everything up to i applied, i + window is the last slot proposed, by this leader and the next.
#[test]
fn pms_36_r3_no_slot_beyond_the_window() {
    let mut proposer = leader(1, 3, 4);
    let mut slots = Vec::new();
    for sequence in 1..=10 {
        slots.extend(submit(&mut proposer, vec![command(1, sequence)]).iter().map(|(slot, ..)| *slot));
    }
    assert_eq!(slots, vec![1, 2, 3, 4]);
    let ballot = proposer.ballot().unwrap();
    for slot in 2..=4 {
        for node in [1, 2] {
            proposer.on_accepted(ballot, Slot(slot), voter(node));
        }
    }
    assert_eq!(proposals(&proposer.flush(START)), vec![], "chosen above a hole moves nothing");
    proposer.on_learned(Prefix(4));
    assert_eq!(proposals(&proposer.flush(START)), vec![], "who votes in 5 is known when 1 is applied");
    proposer.on_applied(applied(3, 4, 1), vec![]);
    assert_eq!(proposals(&proposer.flush(START)).iter().map(|p| p.0).collect::<Vec<_>>(), vec![5]);

    let mut next = Proposer::new(NodeId(3), Generation(1), options(), applied(3, 4, 1));
    next.saw(ballot);
    next.campaign(START);
    promise(&mut next, voter(1), 2, (2..=5).map(|slot| acceptance(slot, ballot, &value(slot))).collect());
    let proposed = proposals(&promise(&mut next, voter(3), 2, Vec::new()));
    assert_eq!(proposed.iter().map(|p| p.0).collect::<Vec<_>>(), vec![2, 3, 4, 5]);
    assert_eq!(submit(&mut next, vec![command(3, 1)]), vec![]);
}

/// Only those that have not answered are asked again, and they are until the slot is learned.
#[test]
fn pms_37_an_unanswered_accept_is_sent_again_to_the_silent() {
    let mut proposer = leader(1, 3, 4);
    let first = submit(&mut proposer, vec![command(1, 1)]);
    proposer.on_accepted(first[0].1, Slot(1), voter(1));
    let retry = options().retry;
    assert_eq!(proposals(&proposer.tick(START + retry / 2)), vec![], "patience");
    for times in 1..=3 {
        let effects = proposer.tick(START + retry * times);
        assert_eq!(proposals(&effects), first);
        let to = effects.iter().find_map(|effect| match effect {
            proposer::Effect::Send { to, message: Message::Accept { .. } } => Some(to.clone()),
            _ => None,
        });
        assert_eq!(to, Some(vec![NodeId(2), NodeId(3)]));
    }
    proposer.on_learned(Prefix(1));
    assert_eq!(proposals(&proposer.tick(START + retry * 9)), vec![]);
}

/// A quiet run: per value one Accept to each who is asked, one answer of each, one record at each. Those are a bare
/// majority, but for the first value, or all five.
#[test]
fn pms_38_the_steady_state_is_phase_2_only() {
    for (hedge, asked) in [(None, 50 * 5), (options().hedge, 5 + 49 * 3)] {
        let mut acceptors: Vec<Acceptor> = (1..=5).map(acceptor).collect();
        let options = Options { hedge, ..options() };
        let mut proposer = Proposer::new(NodeId(1), Generation(1), options, configurations(5, 100));
        proposer.on_applied(configurations(5, 100), (1..=5).map(NodeId).collect());
        phase_1(&mut proposer, &mut acceptors, Vec::new());
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut count = |what, how_many: usize| *counts.entry(what).or_default() += how_many;
        for sequence in 1..=50 {
            proposer.on_submit(vec![command(1, sequence)]);
            for effect in proposer.flush(START) {
                let proposer::Effect::Send { to, message } = effect else { panic!("{effect:?}") };
                let Message::Accept { ballot, slot, value, .. } = message else {
                    assert!(matches!(message, Message::Chosen(_) | Message::Learn { .. }), "{message:?}");
                    continue;
                };
                count("accept", to.len());
                for acceptor in acceptors.iter_mut().filter(|acceptor| to.contains(&acceptor.id().node)) {
                    let effect = acceptor.on_accept(NodeId(1), ballot, slot, value.clone()).unwrap();
                    let (record, reply) = answer(effect);
                    count("records", usize::from(record.is_some()));
                    let Message::Accepted { ballot, slot, voter } = reply else { panic!("{reply:?}") };
                    count("accepted", 1);
                    proposer.on_accepted(ballot, slot, voter);
                }
            }
            assert_eq!(proposer.in_flight(), 0, "one round trip");
        }
        assert_eq!(counts, BTreeMap::from([("accept", asked), ("accepted", asked), ("records", asked)]));
    }
}

/// PMS-37, for those who were not asked: when a majority cannot be had from the few, the others are asked.
#[test]
fn pms_37_others_are_asked_when_one_of_the_few_is_gone_or_late() {
    let asked = |effects: &[proposer::Effect]| {
        effects.iter().find_map(|effect| match effect {
            proposer::Effect::Send { to, message: Message::Accept { .. } } => Some(to.clone()),
            _ => None,
        })
    };
    let nodes = |nodes: &[u64]| Some(nodes.iter().copied().map(NodeId).collect());
    let mut acceptors: Vec<Acceptor> = (1..=5).map(acceptor).collect();
    let mut proposer = proposer(1, 5, 100);
    phase_1(&mut proposer, &mut acceptors, Vec::new());
    let ballot = proposer.leads().unwrap();
    let propose = |proposer: &mut Proposer, sequence| {
        proposer.on_submit(vec![command(1, sequence)]);
        asked(&proposer.flush(START))
    };
    let accept = |proposer: &mut Proposer, slot, nodes: &[u64]| {
        nodes.iter().for_each(|&node| proposer.on_accepted(ballot, Slot(slot), voter(node)));
    };
    assert_eq!(propose(&mut proposer, 1), nodes(&[1, 2, 3, 4, 5]));
    accept(&mut proposer, 1, &[1, 3, 4, 2, 5]);
    assert_eq!(propose(&mut proposer, 2), nodes(&[1, 3, 4]));
    assert_eq!(proposer.on_disconnected(NodeId(2)), [], "nothing was to come from there");
    assert_eq!(asked(&proposer.on_disconnected(NodeId(4))), nodes(&[2, 5]));
    assert_eq!(propose(&mut proposer, 3), nodes(&[1, 2, 3, 4, 5]), "until it is known who is swift");
    accept(&mut proposer, 2, &[1, 3, 5]);
    assert_eq!(propose(&mut proposer, 4), nodes(&[1, 3, 5]));
    accept(&mut proposer, 3, &[1, 2, 3]);
    accept(&mut proposer, 4, &[1, 3]);
    let hedge = options().hedge.expect("on, unless switched off");
    assert_eq!(asked(&proposer.tick(START + hedge / 2)), None);
    assert_eq!(asked(&proposer.tick(START + hedge)), nodes(&[2, 4]), "5 is late");
    accept(&mut proposer, 4, &[2]);
    assert_eq!(proposer.in_flight(), 0);
}

/// When one other replica alone waits for a slot, acceptances go there, and it says when they are a majority (2.3).
/// If it does not in time, everybody is asked to answer to the leader, also those who have accepted.
#[test]
fn pms_37_acceptances_go_to_who_waits_and_come_back_when_that_takes_too_long() {
    let mut acceptors: Vec<Acceptor> = (1..=5).map(acceptor).collect();
    let mut proposer = proposer(1, 5, 100);
    phase_1(&mut proposer, &mut acceptors, Vec::new());
    let ballot = proposer.leads().unwrap();
    let asked = |effects: Vec<proposer::Effect>| {
        effects.into_iter().find_map(|effect| match effect {
            proposer::Effect::Send { to, message: Message::Accept { slot, learner, .. } } => Some((
                slot.0,
                to.into_iter().map(|node| node.0).collect::<Vec<_>>(),
                learner.map(|node| node.0),
            )),
            _ => None,
        })
    };
    let propose = |proposer: &mut Proposer, origin, sequence| {
        proposer.on_submit(vec![command(origin, sequence)]);
        asked(proposer.flush(START))
    };
    assert_eq!(propose(&mut proposer, 2, 1), Some((1, vec![1, 2, 3, 4, 5], None)));
    for node in [1, 3, 4, 2] {
        proposer.on_accepted(ballot, Slot(1), voter(node));
    }
    assert_eq!(propose(&mut proposer, 2, 2), Some((2, vec![1, 2, 3], Some(2))), "in another's place");
    assert_eq!(propose(&mut proposer, 1, 1), Some((3, vec![1, 3, 4], None)), "it waits here");
    assert_eq!(propose(&mut proposer, 5, 1), Some((4, vec![1, 3, 4], None)), "5 was not in time");
    proposer.on_counted(Ballot { round: 9, ..ballot }, Slot(2));
    proposer.on_counted(ballot, Slot(9));
    assert_eq!(proposer.in_flight(), 3, "nothing that was said is of this ballot, or under way");
    proposer.on_counted(ballot, Slot(2));
    assert_eq!(proposer.in_flight(), 2);
    let told = proposer.flush(START);
    let to_2 = |effect: &proposer::Effect| matches!(effect, proposer::Effect::Send { to, .. } if to.contains(&NodeId(2)));
    assert!(!told.iter().any(to_2), "it knows: {told:?}");
    for slot in [3, 4] {
        [1, 3, 4].iter().for_each(|&node| proposer.on_accepted(ballot, Slot(slot), voter(node)));
    }
    assert_eq!(propose(&mut proposer, 2, 3), Some((5, vec![1, 2, 3], Some(2))));
    let late = proposer.tick(START + options().hedge.unwrap());
    assert_eq!(asked(late), Some((5, vec![1, 2, 3, 4, 5], None)), "whoever accepted says so again");
    [1, 2, 3].iter().for_each(|&node| proposer.on_accepted(ballot, Slot(5), voter(node)));
    assert_eq!(proposer.in_flight(), 0);
    assert_eq!(propose(&mut proposer, 2, 4).unwrap().2, None, "for a while");
}

/// Who counts has to know of all that came before, or it learns that a slot is chosen and cannot apply it: values that
/// it was not asked to accept come with the proposal, and while another's slot is open, the leader counts.
#[test]
fn pms_37_who_counts_lacks_nothing_that_came_before() {
    let mut acceptors: Vec<Acceptor> = (1..=5).map(acceptor).collect();
    let mut proposer = proposer(1, 5, 100);
    phase_1(&mut proposer, &mut acceptors, Vec::new());
    let ballot = proposer.leads().unwrap();
    let propose = |proposer: &mut Proposer, origin, sequence| {
        proposer.on_submit(vec![command(origin, sequence)]);
        let sent = proposer.flush(START).into_iter().filter_map(|effect| match effect {
            proposer::Effect::Send { to, message } => Some((to, message)),
            _ => None,
        });
        sent.collect::<Vec<_>>()
    };
    let learner = |sent: &[(Vec<NodeId>, Message)]| {
        let learners = sent.iter().filter_map(|(_, message)| match message {
            Message::Accept { learner, .. } => Some(*learner),
            _ => None,
        });
        learners.last().unwrap()
    };
    propose(&mut proposer, 1, 1);
    for node in 1..=5 {
        proposer.on_accepted(ballot, Slot(1), voter(node));
    }
    assert_eq!(learner(&propose(&mut proposer, 2, 1)), Some(NodeId(2)));
    assert_eq!(learner(&propose(&mut proposer, 3, 1)), None, "3 could not know when 2's slot is chosen");
    assert_eq!(learner(&propose(&mut proposer, 2, 2)), None, "nor 2 when 3's is");
    proposer.on_counted(ballot, Slot(2));
    for slot in [3, 4] {
        (1..=3).for_each(|node| proposer.on_accepted(ballot, Slot(slot), voter(node)));
    }
    proposer.flush(START);
    let sent = propose(&mut proposer, 5, 1);
    assert_eq!(learner(&sent), Some(NodeId(5)));
    let lesson = |(to, message): &(Vec<NodeId>, Message)| match message {
        Message::Learn { from, values, .. } if *to == [NodeId(5)] => Some((from.0, values.len())),
        _ => None,
    };
    assert_eq!(
        sent.iter().find_map(lesson),
        Some((1, 4)),
        "5 was not asked to accept all of these: {sent:?}"
    );
}

/// The answer is what applying gave, the same at every replica that applied, kept while somebody may wait.
#[test]
fn pms_40_every_replica_that_applied_has_the_answer() {
    let mut replicas: Vec<Machine<u64>> = (0..3).map(|_| Machine::genesis(&genesis(3, 4))).collect();
    let asked = command(1, 1);
    for machine in &mut replicas {
        assert!(!machine.has_applied(asked.id));
        assert_eq!(machine.answer(asked.id), None, "no answer before it is applied");
        assert_eq!(machine.admit(&asked), Admission::Fresh);
        machine.answered(asked.id, 41);
        machine.advance(Slot(1));
    }
    for machine in &mut replicas {
        assert_eq!(machine.answer(asked.id), Some(&41));
        assert_eq!(machine.admit(&asked), Admission::Repeated(Some(41)), "chosen again, answered as before");
        let later = Command { waiting_from: Sequence(2), ..command(1, 2) };
        assert_eq!(machine.admit(&later), Admission::Fresh);
        assert_eq!(machine.answer(asked.id), None, "nobody waits for it any more");
        assert_eq!(machine.admit(&asked), Admission::Repeated(None), "but it is known");
    }
}

/// PMS-37: a proposal that waits for the answer of one who is gone goes to the others at once, also when somebody
/// else has become one of the few since it was sent.
#[test]
fn pms_37_a_proposal_does_not_wait_for_one_who_is_gone_and_no_longer_counted_on() {
    let mut acceptors: Vec<Acceptor> = (1..=5).map(acceptor).collect();
    let mut proposer = proposer(1, 5, 100);
    phase_1(&mut proposer, &mut acceptors, Vec::new());
    let ballot = proposer.leads().unwrap();
    let propose = |proposer: &mut Proposer, sequence, now| {
        proposer.on_submit(vec![command(1, sequence)]);
        proposer.flush(now)
    };
    let accept = |proposer: &mut Proposer, slot, nodes: &[u64]| {
        nodes.iter().for_each(|&node| proposer.on_accepted(ballot, Slot(slot), voter(node)));
    };
    propose(&mut proposer, 1, START);
    accept(&mut proposer, 1, &[1, 3, 4]);
    let later = START + Duration::from_secs(1);
    propose(&mut proposer, 2, later); // of everybody
    propose(&mut proposer, 3, later); // of 1, 3 and 4
    accept(&mut proposer, 3, &[1, 3]);
    accept(&mut proposer, 2, &[1, 2, 3]); // these are the few from now on
    let asked = proposer.on_disconnected(NodeId(4));
    let others = |effect: &proposer::Effect| {
        matches!(effect, proposer::Effect::Send { to, message: Message::Accept { slot: Slot(3), .. } }
            if *to == [NodeId(2), NodeId(5)])
    };
    assert!(asked.iter().any(others), "slot 3 waits for 4: {asked:?}");
}

/// A leader that was removed learns what it decides all the same: the window of its successors waits for that.
#[test]
fn pms_36_a_leader_that_was_removed_is_told_what_is_chosen() {
    let mut acceptors: Vec<Acceptor> = (1..=5).map(acceptor).collect();
    let mut proposer = proposer(1, 5, 100);
    phase_1(&mut proposer, &mut acceptors, Vec::new());
    let ballot = proposer.leads().unwrap();
    proposer.on_applied(applied(5, 100, 0), (2..=5).map(NodeId).collect());
    proposer.on_submit(vec![command(2, 1)]);
    proposer.flush(START);
    for node in [1, 2, 3] {
        proposer.on_accepted(ballot, Slot(1), voter(node));
    }
    let told = proposer.flush(START).into_iter().chain(proposer.tick(START + Duration::from_millis(10)));
    let told: Vec<_> = told.collect();
    let itself = |effect: &proposer::Effect| {
        matches!(effect, proposer::Effect::Send { to, message: Message::Chosen(_) | Message::Learn { .. } }
            if to.contains(&NodeId(1)))
    };
    assert!(told.iter().any(itself), "{told:?}");
}

/// Who has everybody it could ask has nobody to ask when they are late.
#[test]
fn pms_37_nobody_is_asked_when_there_are_no_others() {
    let mut acceptors = vec![acceptor(1)];
    let mut proposer = proposer(1, 1, 100);
    phase_1(&mut proposer, &mut acceptors, Vec::new());
    let ballot = proposer.leads().unwrap();
    proposer.on_submit(vec![command(1, 1)]);
    proposer.flush(START);
    proposer.on_accepted(ballot, Slot(1), voter(1));
    proposer.on_submit(vec![command(1, 2)]);
    proposer.flush(START);
    let late = proposer.tick(START + options().hedge.unwrap());
    let to_nobody =
        |effect: &proposer::Effect| matches!(effect, proposer::Effect::Send { to, .. } if to.is_empty());
    assert!(!late.iter().any(to_nobody), "{late:?}");
}

/// Who waits is told by a message of its own, also in a turn that a tick ends: a word that rides on a proposal may
/// lie for a moment where it arrives.
#[test]
fn pms_37_who_waits_is_told_before_anything_else_is_proposed_also_by_a_tick() {
    let mut acceptors: Vec<Acceptor> = (1..=5).map(acceptor).collect();
    let mut proposer = proposer(1, 5, 100);
    phase_1(&mut proposer, &mut acceptors, Vec::new());
    let ballot = proposer.leads().unwrap();
    proposer.on_submit(vec![command(2, 1)]);
    proposer.flush(START);
    for node in [1, 2, 3] {
        proposer.on_accepted(ballot, Slot(1), voter(node));
    }
    proposer.on_submit(vec![command(2, 2)]);
    let effects = proposer.tick(START + Duration::from_millis(10));
    for waits in [NodeId(1), NodeId(2)] {
        let told = |effect: &proposer::Effect| matches!(effect, proposer::Effect::Send { to, message: Message::Chosen(_) } if to.contains(&waits));
        assert!(effects.iter().any(told), "{waits} is told by the way only: {effects:?}");
    }
}

//! What random runs found, told as short stories: each failed before its fix.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use synod_paxos::election::{self, Election};
use synod_paxos::front::{self, Front};
use synod_paxos::learner::{self, Learner};
use synod_paxos::machine::{Admission, Machine};
use synod_paxos::membership::{Change, Genesis, Member, Membership};
use synod_paxos::message::{Acceptance, Message, Outgoing, QuestionId};
use synod_paxos::proposer::{self, Proposer};
use synod_paxos::reader::{self, Reader, Ticket};
use synod_paxos::types::*;
use synod_paxos::value::{Action, Command, Value};

fn voter(node: u64) -> VoterId {
    VoterId { node: NodeId(node), incarnation: Incarnation(u128::from(node)) }
}

fn genesis(nodes: u64, window: u64) -> Genesis {
    let member = |node| (NodeId(node), Member { voter: Some(voter(node).incarnation), ..Member::default() });
    let members: BTreeMap<NodeId, Member> = (1..=nodes).map(member).collect();
    Genesis { cluster: ClusterId(1), window: Window::new(window), members }
}

fn command(origin: u64, generation: u64, sequence: u64) -> Command {
    Command {
        id: CommandId {
            origin: NodeId(origin),
            generation: Generation(generation),
            sequence: Sequence(sequence),
        },
        waiting_from: Sequence::FIRST,
        action: Action::App(Bytes::new()),
    }
}

fn ballot(round: u64, node: u64) -> Ballot {
    Ballot { round, node: NodeId(node), generation: Generation(1) }
}

const N1: NodeId = NodeId(1);

/// A cluster of one that leads and has one command chosen in slot 1, which its learner has not heard of.
fn leader_with_one_chosen(membership: &Membership) -> Proposer {
    let configurations = membership.configurations().clone();
    let mut proposer = Proposer::new(N1, Generation(1), proposer::Options::default(), configurations.clone());
    proposer.on_applied(configurations, vec![N1]);
    proposer.campaign(Time(0)).expect("the first slot has voters");
    proposer.on_promise(ballot(1, 1), voter(1), Slot(1), None, Prefix::EMPTY, Vec::new(), Time(1));
    proposer.on_submit(vec![command(1, 1, 1)]);
    proposer.flush(Time(2));
    proposer.on_accepted(ballot(1, 1), Slot(1), voter(1));
    proposer.flush(Time(3));
    assert_eq!(proposer.word().map(|word| word.upto), Some(Prefix(1)));
    proposer
}

/// n1 of so many replicas, which has just begun its first campaign and learned nothing.
fn campaigning(nodes: u64) -> Proposer {
    let configurations = Membership::genesis(&genesis(nodes, 4)).configurations().clone();
    let mut proposer = Proposer::new(N1, Generation(1), proposer::Options::default(), configurations.clone());
    proposer.on_applied(configurations, (1..=nodes).map(NodeId).collect());
    proposer.campaign(Time(0)).expect("the first slot has voters");
    proposer
}

fn messages(effects: Vec<proposer::Effect>) -> Vec<(Vec<NodeId>, Message)> {
    let sent = |effect| match effect {
        proposer::Effect::Send { to, message } => Some((to, message)),
        _ => None,
    };
    effects.into_iter().filter_map(sent).collect()
}

/// A value is chosen, and the leader's own learner missed it, as did all others. The leader alone still has
/// it in hand, and tells its learner again until that has learned it.
#[test]
fn pms_21_a_leader_keeps_a_chosen_value_until_it_is_learned_beside_it() {
    let mut proposer = leader_with_one_chosen(&Membership::genesis(&genesis(1, 4)));
    assert_eq!(proposer.in_flight(), 0);
    let later = Time(0) + Duration::from_secs(1);
    let again = messages(proposer.tick(later));
    assert!(
        again
            .iter()
            .any(|(to, message)| *to == [N1] && matches!(message, Message::Accept { slot: Slot(1), .. })),
        "{again:?}"
    );
    proposer.on_learned(Prefix(1));
    assert!(messages(proposer.tick(later + Duration::from_secs(1))).is_empty());
}

/// The leader's learner loses its memory. What slot 1 holds is now with the acceptors alone: only a new ballot
/// gets it back, although the old one is unchallenged.
#[test]
fn pms_22_a_leader_whose_learner_forgot_asks_the_acceptors() {
    let blank = Membership::genesis(&genesis(1, 4));
    let mut proposer = leader_with_one_chosen(&blank);
    let mut applied = blank.clone();
    applied.advance(Slot(1));
    proposer.on_applied(applied.configurations().clone(), vec![N1]);
    proposer.on_applied(blank.configurations().clone(), vec![N1]);
    let asked = messages(proposer.flush(Time(4)));
    assert_eq!(asked, vec![(vec![N1], Message::Prepare { ballot: ballot(2, 1), from: Slot(1) })]);
    let value = Value::batch(&[command(1, 1, 1)]);
    let found = vec![Acceptance { slot: Slot(1), ballot: ballot(1, 1), value: value.clone() }];
    let proposed =
        messages(proposer.on_promise(ballot(2, 1), voter(1), Slot(1), None, Prefix::EMPTY, found, Time(5)));
    let right = Message::Accept { ballot: ballot(2, 1), slot: Slot(1), value, chosen: None, learner: None };
    assert_eq!(proposed, vec![(vec![N1], right)]);
}

/// All acceptors trimmed slots that the new leader's learner never saw. It jumps over them, and tells its
/// learner that there is something to fetch: nobody else might.
#[test]
fn pms_32_a_leader_that_jumps_over_trimmed_slots_says_so() {
    let mut proposer = campaigning(1);
    let told =
        messages(proposer.on_promise(ballot(1, 1), voter(1), Slot(1), None, Prefix(9), Vec::new(), Time(1)));
    let [(to, Message::Chosen(word))] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(*to, [N1]);
    let mut learner = Learner::new(N1, learner::Options::default(), Prefix::EMPTY);
    learner.on_chosen(*word, Time(2));
    assert_eq!((learner.known(), learner.chosen()), (Prefix(9), Prefix::EMPTY));
}

/// n3 trimmed slot 1, and then lost its store. The others' logs still hold what was chosen there: the new leader asks
/// them, instead of waiting for somebody to have it.
#[test]
fn pms_32_who_trimmed_a_slot_does_not_hide_what_others_remember_of_it() {
    let mut proposer = campaigning(3);
    let value = Value::batch(&[command(1, 1, 1)]);
    let found = || vec![Acceptance { slot: Slot(1), ballot: ballot(1, 2), value: value.clone() }];
    let mut told = Vec::new();
    for (node, trimmed, accepted) in
        [(3, Prefix(1), Vec::new()), (1, Prefix::EMPTY, found()), (2, Prefix::EMPTY, found())]
    {
        let ours = proposer.ballot().expect("it campaigns");
        told.extend(proposer.on_promise(ours, voter(node), Slot(1), None, trimmed, accepted, Time(1)));
        told.extend(proposer.tick(Time(1)));
    }
    let proposed = messages(told).into_iter().find_map(|(_, message)| match message {
        Message::Accept { slot: Slot(1), value, .. } => Some(value),
        _ => None,
    });
    assert_eq!(proposed, Some(value));
}

/// As above, but n2 answers only when the leader has jumped over slot 1 already. It goes back, with a new ballot.
#[test]
fn pms_32_a_leader_goes_back_for_what_it_jumped_over_and_others_remember() {
    let mut proposer = campaigning(3);
    let value = Value::batch(&[command(1, 1, 1)]);
    let found = || vec![Acceptance { slot: Slot(1), ballot: ballot(1, 2), value: value.clone() }];
    let first = ballot(1, 1);
    proposer.on_promise(first, voter(3), Slot(1), None, Prefix(1), Vec::new(), Time(1));
    proposer.on_promise(first, voter(1), Slot(1), None, Prefix::EMPTY, found(), Time(1));
    let later = Time(1) + proposer::Options::default().retry;
    let asked = messages(proposer.tick(later));
    let missed = (vec![NodeId(2)], Message::Prepare { ballot: first, from: Slot(1) });
    assert_eq!(proposer.leads(), Some(first), "it jumped");
    assert!(
        asked.contains(&missed) || messages(proposer.tick(later + Duration::from_secs(1))).contains(&missed)
    );
    let told = messages(proposer.on_promise(first, voter(2), Slot(1), None, Prefix::EMPTY, found(), later));
    let again = Message::Prepare { ballot: ballot(2, 1), from: Slot(1) };
    assert!(told.iter().any(|(_, message)| *message == again), "{told:?}");
}

/// As above, and of the two slots that the leader jumped over, its learner has found the first elsewhere before n2
/// answers. The second is still to be gone back for.
#[test]
fn pms_32_a_leader_goes_back_for_the_rest_of_what_it_jumped_over() {
    let mut proposer = campaigning(3);
    let value = Value::batch(&[command(1, 1, 1)]);
    let found = |slot| vec![Acceptance { slot: Slot(slot), ballot: ballot(1, 2), value: value.clone() }];
    let first = ballot(1, 1);
    proposer.on_promise(first, voter(3), Slot(1), None, Prefix(2), Vec::new(), Time(1));
    proposer.on_promise(
        first,
        voter(1),
        Slot(1),
        None,
        Prefix::EMPTY,
        [found(1), found(2)].concat(),
        Time(1),
    );
    let later = Time(1) + proposer::Options::default().retry;
    proposer.tick(later);
    assert_eq!(proposer.leads(), Some(first), "it jumped");
    proposer.on_learned(Prefix(1));
    let told = messages(proposer.on_promise(first, voter(2), Slot(2), None, Prefix::EMPTY, found(2), later));
    let again = Message::Prepare { ballot: ballot(2, 1), from: Slot(2) };
    assert!(told.iter().any(|(_, message)| *message == again), "{told:?}");
}

/// Nobody has learned anything, and n2's answer comes in parts that together take longer than the pause before the jump. As long as parts
/// keep coming, the leader waits.
#[test]
fn pms_32_a_leader_waits_for_the_rest_of_a_promise_before_it_jumps() {
    let mut proposer = campaigning(3);
    let value = Value::batch(&[command(1, 1, 1)]);
    let found = |slot| vec![Acceptance { slot: Slot(slot), ballot: ballot(1, 2), value: value.clone() }];
    let ours = ballot(1, 1);
    let pause = proposer::Options::default().retry * 3 / 4;
    let (first, second) = (Time(0) + pause, Time(0) + pause * 2);
    proposer.on_promise(ours, voter(3), Slot(1), None, Prefix(2), Vec::new(), Time(1));
    proposer.on_promise(ours, voter(1), Slot(1), None, Prefix::EMPTY, [found(1), found(2)].concat(), Time(1));
    let mut told =
        proposer.on_promise(ours, voter(2), Slot(1), Some(Slot(2)), Prefix::EMPTY, found(1), first);
    told.extend(proposer.tick(second));
    told.extend(proposer.on_promise(ours, voter(2), Slot(2), None, Prefix::EMPTY, found(2), second));
    let proposed: Vec<(Slot, Value)> = messages(told)
        .into_iter()
        .filter_map(|(_, message)| match message {
            Message::Accept { ballot, slot, value, .. } if ballot == ours => Some((slot, value)),
            _ => None,
        })
        .collect();
    assert_eq!(proposed, vec![(Slot(1), value.clone()), (Slot(2), value)]);
}

/// n2 was told by n3 that a leader lives. It must not say so to the next who asks as if it had heard it: the
/// rumour would go round for ever after the leader is dead.
#[test]
fn pms_23_a_rumour_does_not_outlive_its_leader() {
    let patience = election::Options::default();
    let mut election = Election::new(NodeId(2), Generation(1), patience, Time(0));
    election.on_members((1..=3).map(NodeId).collect(), (1..=3).map(NodeId).collect());
    let mut now = Time(0);
    let mut question = None;
    while question.is_none() {
        now = now + patience.tick;
        assert!(now < Time(0) + patience.suspicion * 3, "silence is suspected");
        question = election.tick(now, 0, None).into_iter().find_map(|effect| match effect {
            election::Effect::Send(Outgoing { message: Message::LeaderQuery { question }, .. }) => {
                Some(question)
            }
            _ => None,
        });
    }
    let hearsay = Some(ballot(5, 1));
    election.on_reply(NodeId(3), question.expect("found above"), hearsay, now, 0);
    assert_eq!(election.leader(now), hearsay);
    let asked = QuestionId { generation: Generation(9), number: 1 };
    let reply = Message::LeaderReply { question: asked, alive: None };
    let answer = election.on_query(NodeId(3), asked, now);
    assert_eq!(answer, vec![election::Effect::Send(Outgoing { to: NodeId(3), message: reply })]);
    election.on_leader(ballot(5, 1), now);
    let reply = Message::LeaderReply { question: asked, alive: hearsay };
    let answer = election.on_query(NodeId(3), asked, now);
    assert_eq!(answer, vec![election::Effect::Send(Outgoing { to: NodeId(3), message: reply })]);
}

/// Commands stand still. That they are sent again and again is no progress.
#[test]
fn a_front_that_resends_is_still_stalled() {
    let mut front = Front::new(N1, Generation(1), front::Options::default(), Time(0));
    front.submit(Action::App(Bytes::new()), Time(7)).expect("there is room");
    let mut now = Time(7);
    for _ in 0..10 {
        now = now + front::Options::default().retry;
        front.tick(now);
    }
    assert_eq!(front.stalled_since(), Some(Time(7)));
}

/// Read 1 asked n1's old voter, which votes no more when slot 2 is applied: it asks again, and comes to stand
/// behind reads 2 and 3, which asked the new voter before. When slot 4 is applied, all three are ready at once.
#[test]
fn r8_a_read_that_asks_again_takes_no_later_one_down() {
    let mut membership = Membership::genesis(&genesis(1, 1));
    let mut reader = Reader::new(Generation(1), Duration::from_secs(1), membership.configurations().clone());
    let question = |number| QuestionId { generation: Generation(1), number };
    let newcomer = VoterId { node: N1, incarnation: Incarnation(10) };
    assert_eq!(reader.on_read(), Ticket(1));
    reader.flush(Time(1));
    reader.on_answer(question(1), voter(1), Prefix(2), Time(2));
    let change = Change::Replace { node: N1, old: Some(Incarnation(1)), new: newcomer.incarnation };
    assert!(membership.apply(Slot(1), &change));
    membership.advance(Slot(1));
    reader.on_applied(membership.configurations().clone(), Time(3));
    assert_eq!((reader.on_read(), reader.on_read()), (Ticket(2), Ticket(3)));
    reader.flush(Time(4));
    reader.on_answer(question(2), newcomer, Prefix(4), Time(5));
    membership.advance(Slot(2));
    let again = reader.on_applied(membership.configurations().clone(), Time(6));
    assert!(matches!(again.as_slice(), [reader::Effect::Send(_)]), "{again:?}");
    reader.on_answer(question(3), newcomer, Prefix(4), Time(7));
    membership.advance(Slot(3));
    assert!(reader.on_applied(membership.configurations().clone(), Time(8)).is_empty());
    membership.advance(Slot(4));
    let ready = reader.on_applied(membership.configurations().clone(), Time(9));
    assert_eq!(ready, vec![reader::Effect::Ready(Ticket(3))]);
    assert!(!reader.waiting());
}

/// A command of n3 is applied, then n3 is removed. A copy of the command that was still under way is chosen
/// after that, and must not be applied again.
#[test]
fn pms_30_a_removed_members_commands_are_still_applied_once() {
    let mut machine: Machine<u64> = Machine::genesis(&genesis(3, 4));
    assert_eq!(machine.admit(&command(3, 1, 1)), Admission::Fresh);
    machine.answered(command(3, 1, 1).id, 7);
    machine.advance(Slot(1));
    assert!(machine.reconfigure(Slot(2), &Change::Remove { node: NodeId(3) }));
    machine.advance(Slot(2));
    assert_eq!(machine.admit(&command(3, 1, 1)), Admission::Repeated(None));
}

fn follower() -> Election {
    let mut election = Election::new(NodeId(2), Generation(1), election::Options::default(), Time(0));
    election.on_members((1..=3).map(NodeId).collect(), (1..=3).map(NodeId).collect());
    election
}

/// After a restart of all with a long log, clients wait at every replica while n1 reads the log, part by part,
/// and proposes it again. That took longer than a second; then each replica held it against n1, campaigned
/// itself, and fared no better.
#[test]
fn pms_23_who_reads_a_long_log_is_not_blamed_for_what_waits() {
    let patience = election::Options::default();
    let (waits, mut now) = (Time(0), Time(0));
    let mut election = follower();
    for part in 1..=50 {
        now = now + Duration::from_millis(100);
        election.on_prepare(ballot(1, 1), Slot(part), now);
        assert_eq!(election.tick(now, 0, None), []);
        assert_eq!(election.on_stalled(waits, waits, now), [], "its campaign moves");
    }
    let lead_for = |election: &mut Election, now: &mut Time, time: Duration| {
        let end = *now + time;
        while *now < end {
            *now = *now + patience.heartbeat;
            assert_eq!(election.on_leader(ballot(1, 1), *now), []);
        }
    };
    lead_for(&mut election, &mut now, patience.trial - patience.heartbeat);
    assert_eq!(election.on_stalled(waits, waits, now), [], "it has only just begun");
    lead_for(&mut election, &mut now, patience.trial * 5);
    assert_eq!(election.on_stalled(waits, now, now), [], "the log moves, although what waits here does not");
    let moved = now;
    lead_for(&mut election, &mut now, patience.trial);
    assert_ne!(election.on_stalled(waits, moved, now), [], "nothing moves, and it had its time");
}

/// n1 serves the others, but what n2 tells it gets lost. One day n2 has to do something about that.
#[test]
fn pms_23_a_leader_that_serves_all_but_one_is_suspected_there() {
    let patience = election::Options::default();
    let mut election = follower();
    let mut now = Time(0);
    let mut asked = Vec::new();
    while asked.is_empty() {
        now = now + patience.heartbeat;
        assert!(now < Time(0) + patience.trial * 20, "for ever");
        election.on_leader(ballot(1, 1), now);
        asked = election.on_stalled(Time(0), now, now);
    }
}

/// How long `election` waits until it campaigns, once n1 has given up: less than `limit`, by this chance.
fn campaigns_within(election: &mut Election, leader: Ballot, now: &mut Time, limit: Duration) -> bool {
    let tick = election::Options::default().tick;
    let end = *now + limit;
    election.on_abdicated(leader, *now, 400_000);
    while *now < end {
        *now = *now + tick;
        if election.tick(*now, 400_000, None).contains(&election::Effect::Campaign) {
            return true;
        }
    }
    false
}

/// Rivals that bring each other down as soon as one of them leads have to become slower, and did not: the
/// pause before a campaign began anew with every leader, however short its reign.
#[test]
fn pms_23_a_reign_that_dies_young_shows_nothing() {
    let patience = election::Options::default();
    let mut election = follower();
    let mut now = Time(0);
    for round in 0..5 {
        let (before, own, after) =
            (ballot(3 * round + 1, 1), ballot(3 * round + 2, 2), ballot(3 * round + 3, 3));
        now = now + Duration::from_millis(10);
        election.on_leader(before, now);
        assert_eq!(election.on_hand_over(before, now), [election::Effect::Campaign]);
        election.on_campaign(own);
        election.on_leads(own, now);
        election.on_deposed(after, now, 0);
        election.on_leader(after, now);
    }
    assert!(!campaigns_within(&mut election.clone(), ballot(15, 3), &mut now.clone(), patience.backoff * 8));
    let end = now + patience.trial;
    while now < end {
        now = now + patience.heartbeat;
        election.on_leader(ballot(15, 3), now);
    }
    assert!(
        campaigns_within(&mut election, ballot(15, 3), &mut now, patience.backoff * 2),
        "this one stayed"
    );
}

/// A leader that shuts down asked the same dead member again, every tick, until its time was over.
#[test]
fn a_leader_that_hands_over_asks_another_when_the_first_does_not_come() {
    let patience = election::Options::default();
    let mut election = follower();
    election.on_leads(ballot(1, 2), Time(0));
    let (mut now, mut asked) = (Time(0), Vec::new());
    while now < Time(0) + patience.round * 3 {
        let offers = election.hand_over(now).into_iter().filter_map(|effect| match effect {
            election::Effect::Send(Outgoing { to, message: Message::HandOver { .. } }) => Some(to),
            _ => None,
        });
        asked.extend(offers);
        now = now + patience.tick;
        election.on_heard(NodeId(3), ballot(1, 2), Time(0) + patience.tick);
    }
    assert_eq!(asked, [NodeId(3), NodeId(1), NodeId(3)], "one after the other, and a round for each");
}

/// n3 is down. What it is asked waits in a queue until it is back, and then it has to answer all of it.
#[test]
fn pms_37_a_prepare_is_repeated_ever_more_rarely() {
    let configurations = Membership::genesis(&genesis(3, 4)).configurations().clone();
    let mut proposer = Proposer::new(N1, Generation(1), proposer::Options::default(), configurations.clone());
    proposer.on_applied(configurations, (1..=3).map(NodeId).collect());
    proposer.campaign(Time(0)).expect("the first slot has voters");
    for node in [1, 2] {
        proposer.on_promise(ballot(1, 1), voter(node), Slot(1), None, Prefix::EMPTY, Vec::new(), Time(1));
    }
    let asked_in = |proposer: &mut Proposer, from: u64, to: u64| {
        let ticks = (from * 100..to * 100).map(|tick| Time(0) + Duration::from_millis(10) * tick as u32);
        ticks.flat_map(|now| messages(proposer.tick(now))).filter(|(to, _)| *to == [NodeId(3)]).count()
    };
    let first = asked_in(&mut proposer, 0, 4);
    assert!((3..=6).contains(&first), "{first} times in 4 s");
    let later = asked_in(&mut proposer, 100, 110);
    assert!((5..=8).contains(&later), "{later} times in 10 s, but it does not give up");
}

/// A new leader found a long log of large values and proposed a whole window of them at once: more than anybody could
/// have answered by the time it sent all of them again.
#[test]
fn pms_37_a_long_log_is_proposed_again_bit_by_bit() {
    const SLOTS: u64 = 60;
    let options = proposer::Options::default();
    let configurations = Membership::genesis(&genesis(1, 64)).configurations().clone();
    let mut proposer = Proposer::new(N1, Generation(1), options, configurations.clone());
    proposer.on_applied(configurations, vec![N1]);
    proposer.campaign(Time(0)).expect("the first slot has voters");
    let mut large = command(1, 1, 1);
    large.action = Action::App(vec![0; options.batch_bytes].into());
    let value = Value::batch(&[large]);
    let found = |slot| Acceptance { slot: Slot(slot), ballot: ballot(1, 0), value: value.clone() };
    let found = (1..=SLOTS).map(found).collect();
    let mut told = proposer.on_promise(ballot(1, 1), voter(1), Slot(1), None, Prefix::EMPTY, found, Time(1));
    let mut proposed = 0;
    while proposed < SLOTS {
        let slots: Vec<Slot> = messages(told)
            .into_iter()
            .filter_map(|(_, message)| match message {
                Message::Accept { slot, .. } => Some(slot),
                _ => None,
            })
            .collect();
        assert!((1..=options.depth).contains(&slots.len()), "{} at once after {proposed}", slots.len());
        for slot in slots {
            proposed += 1;
            assert_eq!(slot, Slot(proposed), "in order");
            proposer.on_accepted(ballot(1, 1), slot, voter(1));
        }
        told = proposer.flush(Time(2));
    }
}

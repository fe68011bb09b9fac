//! PMS-39 and the rules R1 to R8 of lost memory: who votes, and under which name.

use crate::*;
use std::time::Duration;
use synod_paxos::membership::{Change, Genesis, Member, Membership};
use synod_paxos::reader::{self, Reader};

fn membership(nodes: u64, window: u64) -> Membership {
    let member = |n| (NodeId(n), Member { voter: Some(voter(n).incarnation), ..Member::default() });
    let members = (1..=nodes).map(member).collect();
    Membership::genesis(&Genesis { cluster: ClusterId(1), window: Window::new(window), members })
}

/// The next life of a node's acceptor.
fn reborn(node: u64) -> VoterId {
    VoterId { node: NodeId(node), incarnation: Incarnation(u128::from(node) + 100) }
}

fn replace(membership: &mut Membership, slot: u64, node: u64) {
    let old = Some(voter(node).incarnation);
    let change = Change::Replace { node: NodeId(node), old, new: reborn(node).incarnation };
    assert!(membership.apply(Slot(slot), &change));
    membership.advance(Slot(slot));
}

fn all(nodes: u64) -> Vec<NodeId> {
    (1..=nodes).map(NodeId).collect()
}

/// n2 is replaced in slot 1 while slot 2 is under way. Slot 2 is the old voters', in both phases; slot 3 is the
/// new ones', and waits for promises of a majority of these.
#[test]
fn pms_39_r2_each_slot_is_counted_by_its_own_voters() {
    let mut membership = membership(3, 2);
    let mut proposer = leader(1, 3, 2); // promised by n1 and n2
    let ballot = proposer.ballot().unwrap();
    assert_eq!(submit(&mut proposer, vec![command(1, 1)]).len(), 1);
    assert_eq!(submit(&mut proposer, vec![command(1, 2)]).len(), 1);
    assert_eq!(submit(&mut proposer, vec![command(1, 3)]), vec![], "slot 3's voters depend on slot 1");
    replace(&mut membership, 1, 2);
    proposer.on_applied(membership.configurations().clone(), all(3));
    let effects = proposer.flush(START + Duration::from_secs(1));
    assert_eq!(proposals(&effects), vec![], "n1 alone has promised of those who vote in slot 3");
    let asks = |effect: &proposer::Effect| {
        matches!(effect, proposer::Effect::Send { to, message: Message::Prepare { from: Slot(3), .. } }
            if to.contains(&NodeId(2)) && to.contains(&NodeId(3)))
    };
    assert!(effects.iter().any(asks), "{effects:?}");

    // Slot 2: the new memory does not count, the old one does.
    proposer.on_accepted(ballot, Slot(2), voter(1));
    proposer.on_accepted(ballot, Slot(2), reborn(2));
    assert_eq!(proposer.in_flight(), 1);
    proposer.on_accepted(ballot, Slot(2), voter(2));
    assert_eq!(proposer.in_flight(), 0);

    // Slot 3: the other way round.
    let proposed = proposals(&promise(&mut proposer, reborn(2), 3, Vec::new()));
    assert_eq!(proposed.iter().map(|p| p.0).collect::<Vec<_>>(), vec![3]);
    proposer.on_accepted(ballot, Slot(3), voter(1));
    proposer.on_accepted(ballot, Slot(3), voter(2));
    assert_eq!(proposer.in_flight(), 1);
    proposer.on_accepted(ballot, Slot(3), reborn(2));
    assert_eq!(proposer.in_flight(), 0);
}

/// A promise stands for every slot: one given early counts as soon as its giver votes.
#[test]
fn r2_standing_promises_are_counted_again_when_the_voters_change() {
    let mut membership = membership(3, 1);
    let mut proposer = leader(1, 3, 1);
    promise(&mut proposer, reborn(2), 1, Vec::new());
    replace(&mut membership, 1, 2);
    proposer.on_applied(membership.configurations().clone(), all(3));
    assert_eq!(proposals(&proposer.flush(START))[0].0, 2, "n1 and the reborn n2 have promised");
}

/// Slot 1 + window is the first of the new voters, and slot 1 + window + 1 is still anybody's.
#[test]
fn pms_39_a_change_waits_for_its_window_whatever_its_length() {
    for window in 1..=5 {
        let mut membership = membership(3, window);
        replace(&mut membership, 1, 3);
        for slot in 2..=window + 1 {
            let configuration = membership.configurations().at(Slot(slot)).cloned().expect("determined");
            let new = slot > window;
            assert_eq!(configuration.contains(reborn(3)), new, "slot {slot}, window {window}");
            assert_eq!(configuration.contains(voter(3)), !new);
        }
        assert_eq!(membership.configurations().at(Slot(window + 2)), None);
    }
}

/// Every answer an acceptor gives names the memory it comes from, and a new memory never the old name.
#[test]
fn r1_every_answer_names_its_memory() {
    for id in [voter(3), reborn(3)] {
        let mut acceptor = Acceptor::new(id, Limits::default());
        let Message::Promise { voter, .. } = prepare(&mut acceptor, ballot(1, 1), 1) else { panic!() };
        assert_eq!(voter, id);
        let Some(Message::Accepted { voter, .. }) = accept(&mut acceptor, ballot(1, 1), 1, &value(1)) else {
            panic!()
        };
        assert_eq!((voter, acceptor.id()), (id, id), "the id is what answers reads, too");
    }
}

/// A peer that broke the rule of numbers: the acceptor keeps to the first value, and is silent on the second.
#[test]
fn r5_pms_07_an_acceptor_keeps_one_value_per_ballot() {
    let mut acceptor = acceptor(1);
    accept(&mut acceptor, ballot(1, 1), 1, &value(1));
    assert_eq!(accept(&mut acceptor, ballot(1, 1), 1, &value(2)), None);
    assert_eq!(acceptor.acceptances(Slot(1)).next().unwrap().value, value(1));
    let again = accept(&mut acceptor, ballot(1, 1), 1, &value(1));
    assert!(matches!(again, Some(Message::Accepted { .. })), "a repetition is no second value");
}

/// Two of three forgot: no proposer leads, no read is answered, whatever the new memories say.
#[test]
fn r7_a_majority_that_forgot_stops_the_cluster() {
    let mut proposer = proposer(1, 3, 4);
    proposer.campaign(START);
    proposer.on_submit(vec![command(1, 1)]);
    let mut reader = Reader::new(Generation(1), Duration::from_millis(100), configurations(3, 4));
    reader.on_read();
    let asked = reader.flush(START);
    let Some(reader::Effect::Send(outgoing)) = asked.first() else { panic!("{asked:?}") };
    let Message::ReadQuery { question } = outgoing.message else { panic!("{outgoing:?}") };
    for voter in [voter(1), reborn(2), reborn(3)] {
        assert_eq!(promise(&mut proposer, voter, 1, Vec::new()), vec![]);
        assert_eq!(reader.on_answer(question, voter, Prefix::EMPTY, START), vec![]);
    }
    assert_eq!(proposer.leads(), None);
    assert!(reader.waiting());
}

/// A reader, and the number of the question it asks last.
struct Asking {
    reader: Reader,
    asked: Option<synod_paxos::message::QuestionId>,
}

impl Asking {
    fn new(configurations: Configurations) -> Asking {
        let reader = Reader::new(Generation(1), Duration::from_millis(100), configurations);
        Asking { reader, asked: None }
    }

    /// Notes the last question among `effects`, and returns the read that is answered.
    fn see(&mut self, effects: Vec<reader::Effect>) -> Option<u64> {
        let mut ready = None;
        for effect in effects {
            match effect {
                reader::Effect::Send(outgoing) => {
                    let Message::ReadQuery { question } = outgoing.message else { panic!("{outgoing:?}") };
                    self.asked = Some(question);
                }
                reader::Effect::Ready(ticket) => ready = Some(ticket.0),
                reader::Effect::Decide(_) => {}
            }
        }
        ready
    }

    fn read(&mut self) {
        self.reader.on_read();
        let effects = self.reader.flush(START);
        assert_eq!(self.see(effects), None);
    }

    fn hear(&mut self, voter: VoterId, upto: u64) -> Option<u64> {
        let question = self.asked.expect("something was asked");
        let effects = self.reader.on_answer(question, voter, Prefix(upto), START);
        self.see(effects)
    }

    fn applied(&mut self, configurations: &Configurations) -> Option<u64> {
        let effects = self.reader.on_applied(configurations.clone(), START);
        self.see(effects)
    }
}

/// The highest slot that a majority accepted has to be applied first.
#[test]
fn r8_a_read_waits_for_what_a_majority_accepted() {
    let mut membership = membership(3, 4);
    let mut asking = Asking::new(membership.configurations().clone());
    asking.read();
    assert_eq!(asking.hear(voter(1), 0), None);
    assert_eq!(asking.hear(reborn(3), 0), None, "a forgetful acceptor has nothing to say");
    assert_eq!(asking.hear(voter(2), 2), None);
    membership.advance(Slot(1));
    assert_eq!(asking.applied(membership.configurations()), None);
    membership.advance(Slot(2));
    assert_eq!(asking.applied(membership.configurations()), Some(1));
}

/// A read that arrives while a question is under way waits for the next one.
#[test]
fn r8_answers_count_only_for_reads_that_came_before_their_question() {
    let membership = membership(3, 4);
    let mut asking = Asking::new(membership.configurations().clone());
    asking.read();
    let first = asking.asked;
    asking.read();
    assert_eq!(asking.asked, first, "one question at a time");
    assert_eq!(asking.hear(voter(1), 0), None);
    assert_eq!(asking.hear(voter(2), 0), Some(1));
    assert_ne!(asking.asked, first, "now the second is asked for");
    assert_eq!(asking.hear(voter(2), 0), None);
    assert_eq!(asking.hear(voter(3), 0), Some(2));
}

/// Behind what was answered other voters decide: these are asked before anybody is answered.
#[test]
fn r8_a_read_asks_the_new_voters_if_they_changed_on_the_way() {
    let mut membership = membership(3, 2);
    let mut asking = Asking::new(membership.configurations().clone());
    asking.read();
    assert_eq!(asking.hear(voter(1), 2), None);
    assert_eq!(asking.hear(voter(2), 1), None);
    let first = asking.asked;
    replace(&mut membership, 1, 3);
    assert_eq!(asking.applied(membership.configurations()), None);
    membership.advance(Slot(2));
    assert_eq!(asking.applied(membership.configurations()), None, "slot 3 is for others");
    assert_ne!(asking.asked, first);
    assert_eq!(asking.hear(voter(1), 2), None);
    assert_eq!(asking.hear(voter(3), 9), None, "gone");
    assert_eq!(asking.hear(reborn(3), 0), Some(1));
}

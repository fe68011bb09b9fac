//! The tally: a judge that never objects, and counts how often the rare things happened.
//!
//! A run in which nothing rare ever happens proves nothing, however long it is. Whoever runs many adds up what they
//! saw and demands that each of [`SOMETIMES`] happened somewhere.

use super::book::{Deed, Page};
use super::ledger::Ledger;
use super::{AppliedSlot, Invariant, Sometimes, Verdict};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use synod_kv::StateHash;
use synod_paxos::acceptor::{Acceptor, Record};
use synod_paxos::membership::Change;
use synod_paxos::message::{Message, QuestionId};
use synod_paxos::types::{Ballot, Generation, NodeId, Prefix, Slot, VoterId};
use synod_paxos::value::Value;
use synod_server::replica::{Answer, Role};

/// Everything that is counted.
pub const SOMETIMES: &[&str] = &[
    "acceptor failed",
    "acceptor forgot",
    "acceptor restored with a promise",
    "applied from its own log",
    "checkpoint installed",
    "checkpoint loaded",
    "checkpoint of what changed",
    "checkpoint written",
    "command chosen twice",
    "command of an older life refused",
    "counted in the leader's place",
    "disk wiped",
    "entries fetched",
    "values told unasked",
    "front renamed",
    "hand-over",
    "leader abdicated",
    "leader deposed",
    "leader elected",
    "leading proposer stopped",
    "learner failed",
    "learner forgot",
    "log trimmed",
    "member added",
    "member removed",
    "memory admitted",
    "memory replaced by another",
    "no-op proposed",
    "process ended",
    "promise answered in parts",
    "proposal accepted by nobody is overruled",
    "proposer failed",
    "read answered",
    "read asked again",
    "read reminds the leader",
    "refused",
    "request refused by the store",
    "restored more than was persisted",
    "slot chosen in two ballots",
    "slot chosen out of order",
    "two rivals in phase 1",
    "two values proposed for one slot",
    "value adopted from a promise",
    "whole checkpoint behind others",
    "window reached",
    "write answered",
];

/// See the module.
#[derive(Default)]
pub(super) struct Tally {
    counts: Sometimes,
    /// Who asks for promises, and does not lead yet.
    candidates: BTreeMap<NodeId, Ballot>,
    nodes: BTreeMap<NodeId, Seen>,
}

/// What was seen of one replica, in this life of its process.
#[derive(Default)]
struct Seen {
    /// The ballot it leads with.
    leads: Option<Ballot>,
    /// The learner has been told something of what is chosen, by whomever.
    heard: bool,
    /// The learner has loaded a state.
    loaded: bool,
    /// The life of the front that commands carry.
    front: Option<Generation>,
    /// The question under way, and who was asked.
    question: Option<(QuestionId, BTreeSet<NodeId>)>,
}

impl Tally {
    pub(super) fn counts(&self) -> &Sometimes {
        &self.counts
    }

    fn count(&mut self, what: &'static str, happened: bool) {
        if happened {
            debug_assert!(SOMETIMES.contains(&what), "{what} is not listed");
            *self.counts.entry(what).or_default() += 1;
        }
    }

    fn seen(&mut self, node: NodeId) -> &mut Seen {
        self.nodes.entry(node).or_default()
    }

    /// A reader asks one voter, or the same one once more.
    pub(super) fn on_question(&mut self, node: NodeId, to: &[NodeId], question: QuestionId) {
        let asked = &mut self.seen(node).question;
        let (_, asked) = match asked {
            Some(under_way) if under_way.0 == question => under_way,
            _ => asked.insert((question, BTreeSet::new())),
        };
        let again = to.iter().filter(|&&to| !asked.insert(to)).count();
        self.count("read asked again", again > 0);
    }

    /// A checkpoint of so many runs took the place of one of so many.
    pub(super) fn on_checkpointed(&mut self, runs: usize, before: usize) {
        self.count("checkpoint of what changed", runs > before && before > 0);
        self.count("whole checkpoint behind others", runs < before);
    }

    fn on_prepare(&mut self, node: NodeId, ballot: Ballot) {
        if self.candidates.get(&node) == Some(&ballot) || self.seen(node).leads == Some(ballot) {
            return; // asked again
        }
        let rival = self.candidates.keys().any(|&other| other != node);
        self.count("two rivals in phase 1", rival);
        self.candidates.insert(node, ballot);
    }
}

impl Invariant for Tally {
    fn on_sent(&mut self, _: &Ledger, node: NodeId, message: &Message) -> Verdict {
        match message {
            Message::Prepare { ballot, .. } => self.on_prepare(node, *ballot),
            Message::Promise { until, .. } => self.count("promise answered in parts", until.is_some()),
            Message::Refused { .. } => self.count("refused", true),
            Message::Entries { values, .. } => self.count("entries fetched", !values.is_empty()),
            Message::Counted { .. } => self.count("counted in the leader's place", true),
            Message::Learn { .. } => self.count("values told unasked", true),
            Message::Abdicate { .. } => self.count("leader abdicated", true),
            Message::HandOver { .. } => self.count("hand-over", true),
            Message::Decide { .. } => self.count("read reminds the leader", true),
            Message::Submit { commands } => {
                let Some(newest) =
                    commands.iter().filter(|c| c.id.origin == node).map(|c| c.id.generation).max()
                else {
                    return Ok(());
                };
                let before = self.seen(node).front.replace(newest);
                self.count("front renamed", before.is_some_and(|before| before < newest));
            }
            _ => {}
        }
        Ok(())
    }

    fn on_received(&mut self, _: &Ledger, node: NodeId, message: &Message) -> Verdict {
        let told = match message {
            Message::Accept { chosen, .. } | Message::Heartbeat { chosen, .. } => chosen.is_some(),
            Message::Chosen(_) | Message::Learn { .. } | Message::Entries { .. } => true,
            _ => false,
        };
        if told {
            self.seen(node).heard = true;
        }
        Ok(())
    }

    fn on_issued(&mut self, ledger: &Ledger, ballot: Ballot, slot: Slot, value: &Value) -> Verdict {
        let proposals = ledger.proposals(slot);
        let accepted = |adopted: bool| {
            proposals.iter().any(|p| (p.value == *value) == adopted && !p.accepted.is_empty())
        };
        let same = proposals.iter().any(|p| p.value == *value && p.ballot < ballot);
        let others = proposals.iter().any(|p| p.value != *value);
        self.count("value adopted from a promise", same && accepted(true));
        self.count("two values proposed for one slot", others);
        self.count("proposal accepted by nobody is overruled", others && !accepted(false));
        self.count("no-op proposed", value.is_no_op());
        self.count("window reached", slot == ledger.book().horizon());
        Ok(())
    }

    fn on_restored(&mut self, ledger: &Ledger, node: NodeId, acceptor: &Acceptor) -> Verdict {
        let before = ledger.node(node).and_then(|node| node.incarnation);
        self.count("acceptor forgot", before.is_some_and(|before| before != acceptor.id().incarnation));
        self.count("acceptor restored with a promise", acceptor.promised().is_some());
        let news = ledger.news_of(acceptor);
        let more = news.iter().any(|record| !matches!(record, Record::Chosen(_)));
        self.count("restored more than was persisted", more);
        Ok(())
    }

    fn on_durable(&mut self, _: &Ledger, _: VoterId, record: &Record) -> Verdict {
        self.count("log trimmed", matches!(record, Record::Trimmed { .. }));
        Ok(())
    }

    fn on_chosen(&mut self, ledger: &Ledger, slot: Slot, ballot: Ballot) -> Verdict {
        let first = ledger.chosen(slot).is_some_and(|first| first.ballot == ballot);
        self.count("slot chosen in two ballots", !first);
        self.count("slot chosen out of order", slot > ledger.book().applied().next());
        Ok(())
    }

    fn on_replayed(&mut self, _: &Ledger, page: &Page) -> Verdict {
        for deed in &page.deeds {
            match deed {
                Deed::Repeated => self.count("command chosen twice", true),
                Deed::Stale => self.count("command of an older life refused", true),
                Deed::Refused => self.count("request refused by the store", true),
                Deed::Changed { change, changed: true } => match change {
                    Change::Replace { old: Some(_), .. } => self.count("memory replaced by another", true),
                    Change::Replace { old: None, .. } => self.count("memory admitted", true),
                    Change::Add { .. } => self.count("member added", true),
                    Change::Remove { .. } => self.count("member removed", true),
                    Change::Publish { .. } => {}
                },
                Deed::Applied | Deed::AppliedAgain { .. } | Deed::Changed { changed: false, .. } => {}
            }
        }
        Ok(())
    }

    fn on_applied(&mut self, _: &Ledger, node: NodeId, _: AppliedSlot<'_>) -> Verdict {
        let heard = self.seen(node).heard;
        self.count("applied from its own log", !heard);
        Ok(())
    }

    fn on_loaded(&mut self, ledger: &Ledger, node: NodeId, applied: Prefix, _: StateHash) -> Verdict {
        let first = !std::mem::replace(&mut self.seen(node).loaded, true);
        let covered = ledger.node(node).map_or(Prefix::EMPTY, |node| node.covered);
        self.count("checkpoint loaded", first && applied > Prefix::EMPTY);
        self.count("checkpoint installed", !first);
        self.count("learner forgot", first && applied < covered);
        Ok(())
    }

    fn on_covered(&mut self, ledger: &Ledger, node: NodeId, durable: Prefix) -> Verdict {
        let covered = ledger.node(node).map_or(Prefix::EMPTY, |node| node.covered);
        self.count("checkpoint written", durable > covered);
        Ok(())
    }

    fn on_role(&mut self, _: &Ledger, node: NodeId, role: Role, up: bool) -> Verdict {
        if up {
            return Ok(());
        }
        match role {
            Role::Proposer => {
                self.candidates.remove(&node);
                let led = self.seen(node).leads.take();
                self.count("proposer failed", true);
                self.count("leading proposer stopped", led.is_some());
            }
            Role::Acceptor => self.count("acceptor failed", true),
            Role::Learner => {
                let seen = self.seen(node);
                (seen.heard, seen.loaded) = (false, false);
                self.count("learner failed", true);
            }
        }
        Ok(())
    }

    fn on_leads(&mut self, _: &Ledger, node: NodeId, ballot: Ballot, begins: bool) -> Verdict {
        if begins {
            self.candidates.retain(|_, candidate| *candidate > ballot);
        }
        self.seen(node).leads = begins.then_some(ballot);
        self.count("leader elected", begins);
        self.count("leader deposed", !begins);
        Ok(())
    }

    fn on_process_ended(&mut self, _: &Ledger, node: NodeId, wiped: bool) -> Verdict {
        self.candidates.remove(&node);
        self.nodes.remove(&node);
        self.count("process ended", true);
        self.count("disk wiped", wiped);
        Ok(())
    }

    fn on_write_answered(&mut self, _: &Ledger, _: NodeId, _: &Bytes, _: &Answer) -> Verdict {
        self.count("write answered", true);
        Ok(())
    }

    fn on_read_answered(&mut self, _: &Ledger, _: NodeId, _: Prefix, _: Prefix) -> Verdict {
        self.count("read answered", true);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use synod_paxos::acceptor::Record;
    use synod_paxos::message::Chosen;
    use synod_paxos::types::{CommandId, Sequence};
    use synod_paxos::value::{Action, Command};
    use synod_server::replica::Observation;

    /// Nobody judges: only the tally looks on.
    struct Nobody;
    impl Invariant for Nobody {}

    fn story() -> Story {
        Story::of(Nobody)
    }

    #[track_caller]
    fn check(story: &Story, counts: &[(&'static str, u64)]) {
        let all = story.court.sometimes();
        for (what, count) in counts {
            assert_eq!(all.get(what).copied().unwrap_or(0), *count, "{what}: {all:?}");
        }
    }

    #[test]
    fn nothing_rare_happens_in_a_quiet_run() {
        let mut story = story();
        for slot in 1..=3 {
            story.decide(ballot(1, 1), slot, &put(slot)).unwrap();
        }
        assert_eq!(*story.court.sometimes(), Sometimes::new());
    }

    #[test]
    fn what_commands_came_to_is_counted() {
        let mut story = story();
        let log = [put_of(1, 1), put_of(1, 1), put_of(2, 2), put_of(1, 3), add(4), remove(4), add(4)];
        for (slot, value) in (1..).zip(&log) {
            story.decide(ballot(1, 1), slot, value).unwrap();
        }
        check(
            &story,
            &[
                ("command chosen twice", 2), // the last addition has the name of the first
                ("command of an older life refused", 1),
                ("member added", 1),
                ("member removed", 1),
                ("request refused by the store", 0),
            ],
        );
        for (slot, value) in (8..).zip(&[replace(5, None, 5), add(6), replace(6, None, 6), refused(9)]) {
            story.decide(ballot(1, 1), slot, value).unwrap();
        }
        check(&story, &[("memory admitted", 1), ("request refused by the store", 1)]);
    }

    #[test]
    fn rivals_are_counted_until_one_of_them_leads() {
        let mut story = story();
        story.prepare(ballot(1, 1), 1).unwrap();
        story.prepare(ballot(1, 1), 1).unwrap();
        check(&story, &[("two rivals in phase 1", 0)]);
        story.prepare(ballot(2, 2), 1).unwrap();
        check(&story, &[("two rivals in phase 1", 1)]);
        story.see(2, &Observation::Leads { ballot: ballot(2, 2), begins: true }).unwrap();
        story.prepare(ballot(2, 2), 1).unwrap();
        story.prepare(ballot(3, 3), 1).unwrap();
        check(&story, &[("two rivals in phase 1", 1), ("leader elected", 1)]);
        story.proposer_failed(2).unwrap();
        check(&story, &[("leading proposer stopped", 1), ("leader deposed", 0)]);
    }

    #[test]
    fn what_happens_to_values_is_counted() {
        let mut story = story();
        story.accept(ballot(1, 1), 1, &put(1)).unwrap();
        story.accept(ballot(2, 2), 1, &put(2)).unwrap();
        let overruled = "proposal accepted by nobody is overruled";
        check(&story, &[("two values proposed for one slot", 1), (overruled, 1)]);
        story.durable(voter(2, 2), accepted(ballot(2, 2), 1, &put(2))).unwrap();
        check(&story, &[("value adopted from a promise", 0)]);
        story.accept(ballot(3, 3), 1, &put(2)).unwrap();
        check(&story, &[("value adopted from a promise", 1)]);
        story.decide(ballot(3, 3), WINDOW, &put(3)).unwrap();
        story.decide(ballot(4, 1), WINDOW, &put(3)).unwrap();
        check(
            &story,
            &[("slot chosen out of order", 2), ("slot chosen in two ballots", 1), ("window reached", 2)],
        );
    }

    #[test]
    fn an_own_log_is_told_from_what_others_say() {
        let mut story = story();
        for slot in 1..=2 {
            story.decide(ballot(1, 1), slot, &put(slot)).unwrap();
        }
        story.loaded(1, 0).unwrap();
        story.apply(1, 1, &put(1)).unwrap();
        check(&story, &[("applied from its own log", 1), ("checkpoint loaded", 0)]);
        let word = Chosen { ballot: ballot(1, 1), from: slot(1), upto: prefix(2) };
        story.received(1, Message::Chosen(word)).unwrap();
        story.apply(1, 2, &put(2)).unwrap();
        check(&story, &[("applied from its own log", 1)]);
    }

    #[test]
    fn checkpoints_and_what_becomes_of_them_are_counted() {
        let mut story = story();
        for slot in 1..=3 {
            story.decide(ballot(1, 1), slot, &put(slot)).unwrap();
        }
        story.loaded(1, 0).unwrap();
        story.loaded(1, 3).unwrap();
        story.covered(1, 3).unwrap();
        story.durable(voter(1, 1), Record::Trimmed { upto: prefix(2) }).unwrap();
        story.court.on_process_ended(node(1), false);
        story.loaded(1, 3).unwrap();
        story.court.on_process_ended(node(1), false);
        story.loaded(1, 2).unwrap();
        check(
            &story,
            &[
                ("checkpoint installed", 1),
                ("checkpoint written", 1),
                ("log trimmed", 1),
                ("checkpoint loaded", 2),
                ("learner forgot", 1),
            ],
        );
    }

    #[test]
    fn what_a_checkpoint_consists_of_is_counted() {
        let mut story = story();
        for (runs_before, runs) in [(0, 1), (1, 2), (2, 3), (3, 3), (3, 1), (1, 1)] {
            story.see(1, &Observation::Checkpointed { runs, runs_before }).unwrap();
        }
        check(&story, &[("checkpoint of what changed", 2), ("whole checkpoint behind others", 1)]);
    }

    #[test]
    fn what_comes_to_light_is_counted() {
        let mut story = story();
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        let whole = vec![accepted(ballot(1, 1), 1, &put(1))];
        story.restored(voter(1, 1), whole.clone()).unwrap();
        check(&story, &[("restored more than was persisted", 0), ("acceptor restored with a promise", 1)]);
        story.restored(voter(3, 3), whole).unwrap();
        check(&story, &[("restored more than was persisted", 1), ("acceptor forgot", 0)]);
    }

    #[test]
    fn what_is_said_is_counted() {
        let mut story = story();
        let question =
            |number| Message::ReadQuery { question: QuestionId { generation: Generation(1), number } };
        for number in [1, 1, 2] {
            story.sent(1, question(number)).unwrap();
        }
        let submit = |generation| {
            let id = CommandId { origin: node(1), generation: Generation(generation), sequence: Sequence(1) };
            let action = Action::App(request(1));
            Message::Submit { commands: vec![Command { id, waiting_from: Sequence(1), action }] }
        };
        for generation in [1, 1, 2] {
            story.sent(1, submit(generation)).unwrap();
        }
        story.promise_with(ballot(1, 1), voter(2, 2), 1, Some(2), 0, vec![]).unwrap();
        story.sent(1, Message::Refused { ballot: ballot(1, 1), promised: ballot(2, 2) }).unwrap();
        story.sent(1, Message::Abdicate { ballot: ballot(1, 1) }).unwrap();
        story.sent(1, Message::HandOver { ballot: ballot(1, 1) }).unwrap();
        story.sent(1, Message::Decide { slot: slot(1) }).unwrap();
        let entries = |values| Message::Entries { from: slot(1), values, chosen: prefix(1) };
        story.sent(1, entries(vec![])).unwrap();
        story.sent(1, entries(vec![put(1)])).unwrap();
        story.sent(1, Message::Learn { ballot: ballot(1, 1), from: slot(1), values: vec![put(1)] }).unwrap();
        check(
            &story,
            &[
                ("read asked again", 1),
                ("front renamed", 1),
                ("promise answered in parts", 1),
                ("refused", 1),
                ("leader abdicated", 1),
                ("hand-over", 1),
                ("read reminds the leader", 1),
                ("entries fetched", 1),
                ("values told unasked", 1),
            ],
        );
    }
}

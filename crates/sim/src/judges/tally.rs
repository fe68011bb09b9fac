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
    "checkpoint written",
    "command chosen twice",
    "command of an older life refused",
    "disk wiped",
    "entries fetched",
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
            Message::Chosen(_) | Message::Entries { .. } => true,
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

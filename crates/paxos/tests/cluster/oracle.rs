//! The oracle: what is chosen, computed from the facts alone.
//!
//! It is told every proposal issued, every record that became durable and every answer that left, and it asks
//! the code under test nothing. From durable acceptances it concludes what is chosen; from what is chosen it
//! replays, by code of its own, who votes where, which request was applied in which slot and what its client
//! must be told. Whatever the replicas claim is held against that at once. A broken invariant panics with its
//! name; `DESIGN` numbers those that hold for clients, `PMS` those of "Paxos Made Simple".

use super::Sometimes;
use super::store::{Answer, Request, Store};
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::acceptor::Record;
use synod_paxos::membership::{Change, Genesis};
use synod_paxos::message::{Chosen, Message};
use synod_paxos::types::{Ballot, Generation, Incarnation, NodeId, Prefix, Sequence, Slot, VoterId};
use synod_paxos::value::{Action, Value};

/// Panics with the name of the invariant that is broken.
macro_rules! hold {
    ($condition:expr, $name:literal, $($why:tt)+) => {
        assert!($condition, "{} is broken: {}", $name, format_args!($($why)+))
    };
}
pub(crate) use hold;

type Voters = BTreeMap<NodeId, Incarnation>;

/// All that has happened, and what follows from it.
pub struct Oracle {
    window: u64,
    issued: BTreeMap<Slot, BTreeMap<Ballot, Value>>,
    /// The highest ballot that each memory durably promised, by promise or acceptance.
    standing: BTreeMap<VoterId, Ballot>,
    promised: BTreeMap<Ballot, BTreeSet<VoterId>>,
    accepted: BTreeMap<Slot, BTreeMap<VoterId, BTreeSet<Ballot>>>,
    chosen: BTreeMap<Slot, (Ballot, Value)>,
    /// Words of leaders that were looked into already.
    words: BTreeMap<Ballot, Chosen>,
    replay: Replay,
    /// Every answer given so far came from a state that covers at most this much.
    answered: Prefix,
    /// What only the oracle sees happen.
    pub seen: Sometimes,
}

/// The log so far, applied by the book.
struct Replay {
    applied: Prefix,
    members: BTreeMap<NodeId, Option<Incarnation>>,
    removed: BTreeSet<NodeId>,
    replaced: u64,
    voters: BTreeMap<Slot, Voters>,
    sessions: BTreeMap<NodeId, (Generation, BTreeSet<Sequence>)>,
    store: Store,
    states: Vec<Answer>,
    requests: BTreeMap<Request, (Slot, Answer)>,
}

impl Oracle {
    pub fn new(genesis: &Genesis) -> Oracle {
        let members: BTreeMap<NodeId, Option<Incarnation>> =
            genesis.members.iter().map(|(&node, member)| (node, member.voter)).collect();
        let voters = BTreeMap::from([(Slot::FIRST, voters_of(&members))]);
        Oracle {
            window: genesis.window.slots(),
            issued: BTreeMap::new(),
            standing: BTreeMap::new(),
            promised: BTreeMap::new(),
            accepted: BTreeMap::new(),
            chosen: BTreeMap::new(),
            words: BTreeMap::new(),
            replay: Replay {
                applied: Prefix::EMPTY,
                members,
                removed: BTreeSet::new(),
                replaced: 0,
                voters,
                sessions: BTreeMap::new(),
                store: Store::default(),
                states: vec![Store::default().now()],
                requests: BTreeMap::new(),
            },
            answered: Prefix::EMPTY,
            seen: Sometimes::new(),
        }
    }

    fn count(&mut self, what: &'static str, happened: bool) {
        if happened {
            *self.seen.entry(what).or_default() += 1;
        }
    }

    /// How far the log is chosen without a hole.
    pub fn chosen(&self) -> Prefix {
        self.replay.applied
    }

    pub fn members(&self) -> &BTreeMap<NodeId, Option<Incarnation>> {
        &self.replay.members
    }

    /// Who votes in `slot`, which must lie within the window.
    pub fn voters(&self, slot: Slot) -> &Voters {
        self.replay.voters.range(..=slot).next_back().expect("genesis names the first voters").1
    }

    /// The last slot whose voters are determined.
    pub fn horizon(&self) -> Slot {
        Slot(self.replay.applied.0 + self.window)
    }

    /// The state behind `applied`.
    pub fn state(&self, applied: Prefix) -> Answer {
        self.replay.states[usize::try_from(applied.0).expect("runs are short")]
    }

    /// Was this node ever removed from the cluster?
    pub fn was_removed(&self, node: NodeId) -> bool {
        self.replay.removed.contains(&node)
    }

    /// The highest ballot `voter` ever durably promised.
    pub fn standing(&self, voter: VoterId) -> Option<Ballot> {
        self.standing.get(&voter).copied()
    }

    /// Everything an answer may rely on so far: a read that arrives now must see this.
    pub fn answered(&self) -> Prefix {
        self.answered
    }

    /// A message leaves `from`, or is on its way to `from` itself.
    pub fn on_sent(&mut self, message: &Message) {
        match message {
            Message::Accept { ballot, slot, value, chosen, .. } => {
                self.on_issued(*ballot, *slot, value);
                self.on_word(*chosen);
            }
            Message::Counted { ballot, slot } => {
                let (from, upto) = (*slot, Prefix::through(*slot));
                self.on_word(Some(Chosen { ballot: *ballot, from, upto }));
            }
            Message::Chosen(word) => self.on_word(Some(*word)),
            Message::Heartbeat { chosen, .. } => self.on_word(*chosen),
            Message::Promise { ballot, voter, .. } => {
                let durable = self.promised.get(ballot).is_some_and(|voters| voters.contains(voter));
                hold!(durable, "PMS-27 stable before sent", "{voter} promised {ballot} out of thin air");
            }
            Message::Accepted { ballot, slot, voter } => {
                let accepted = self.accepted.get(slot).and_then(|voters| voters.get(voter));
                let durable = accepted.is_some_and(|ballots| ballots.contains(ballot));
                hold!(durable, "PMS-27 stable before sent", "{voter} accepted {ballot} in {slot} on air");
            }
            Message::Learn { from, values, .. } | Message::Entries { from, values, .. } => {
                for (slot, value) in (from.0..).map(Slot).zip(values) {
                    self.on_claimed(slot, value, "a peer");
                }
            }
            _ => {}
        }
    }

    fn on_issued(&mut self, ballot: Ballot, slot: Slot, value: &Value) {
        if let Some(known) = self.issued.entry(slot).or_default().get(&ballot) {
            hold!(known == value, "PMS-7 one value per ballot", "{ballot} {slot}: {known:?} and {value:?}");
            return;
        }
        let horizon = self.horizon();
        hold!(slot <= horizon, "PMS-36 the window", "{ballot} proposes {slot}, beyond {horizon}");
        let voters = self.voters(slot).clone();
        let promised: Vec<VoterId> = self
            .promised
            .get(&ballot)
            .into_iter()
            .flatten()
            .copied()
            .filter(|v| votes(&voters, *v))
            .collect();
        hold!(
            promised.len() > voters.len() / 2,
            "PMS-18 two phases, PMS-39 of the slot's own voters",
            "{ballot} proposes in {slot} with promises of {promised:?} among {voters:?}"
        );
        self.check_witness(ballot, slot, value, &promised, voters.len());
        if let Some((earlier, chosen)) = self.chosen.get(&slot).filter(|(earlier, _)| *earlier < ballot) {
            hold!(
                chosen == value,
                "PMS-9 P2b",
                "{slot}: {chosen:?} chosen in {earlier}, {value:?} in {ballot}"
            );
        }
        let rivals = self.issued.entry(slot).or_default();
        let (adopted, overruled) = (rivals.values().any(|v| v == value), rivals.values().any(|v| v != value));
        rivals.insert(ballot, value.clone());
        self.count("value adopted from a promise", adopted);
        self.count("two values proposed for one slot", overruled);
        self.count("no-op proposed", value.is_no_op());
        self.count("window reached", slot == horizon);
    }

    /// Some majority promised `ballot`, and leaves `value` free or imposes it.
    fn check_witness(&self, ballot: Ballot, slot: Slot, value: &Value, promised: &[VoterId], voters: usize) {
        let accepted = self.accepted.get(&slot);
        let below = |voter: &VoterId| {
            let ballots = accepted?.get(voter)?;
            ballots.range(..ballot).next_back().copied()
        };
        let highest: Vec<Option<Ballot>> = promised.iter().map(below).collect();
        // The majorities whose highest acceptance is in ballot `top`, for each `top` that carries `value`.
        let witnessed = std::iter::once(None).chain(highest.iter().copied().flatten().map(Some)).any(|top| {
            let imposes = top.is_none_or(|top| self.issued[&slot].get(&top) == Some(value));
            imposes && highest.iter().filter(|&&h| h <= top).count() > voters / 2
        });
        hold!(
            witnessed,
            "PMS-10 P2c",
            "{ballot} proposes {value:?} in {slot}; promisers {promised:?} had accepted {highest:?} of {:?}",
            self.issued[&slot]
        );
    }

    fn on_word(&mut self, word: Option<Chosen>) {
        let Some(word) = word else { return };
        let known = self.words.get(&word.ballot).filter(|known| known.from <= word.from);
        let first = known.map_or(word.from, |known| word.from.max(known.upto.next()));
        for slot in (first.0..=word.upto.0).map(Slot) {
            let value = self.issued.get(&slot).and_then(|issued| issued.get(&word.ballot));
            let chosen = self.chosen.get(&slot).map(|(_, value)| value);
            hold!(
                value.is_some() && value == chosen,
                "PMS-3 honest learning",
                "{}'s leader calls {slot} chosen; it proposed {value:?}, chosen is {chosen:?}",
                word.ballot
            );
        }
        self.words.insert(word.ballot, word);
    }

    /// `record` of `voter` is on disk, for good.
    pub fn on_durable(&mut self, voter: VoterId, record: &Record) {
        match record {
            Record::Promised { ballot } => {
                self.raise(voter, *ballot);
                self.promised.entry(*ballot).or_default().insert(voter);
            }
            Record::Accepted { ballot, slot, value } => {
                self.raise(voter, *ballot);
                let issued = self.issued.get(slot).and_then(|issued| issued.get(ballot));
                hold!(
                    issued == Some(value),
                    "PMS-1 validity",
                    "{voter} accepted {value:?} in {slot} {ballot}"
                );
                self.accepted.entry(*slot).or_default().entry(voter).or_default().insert(*ballot);
                self.on_accepted(*slot, *ballot);
            }
            Record::Trimmed { upto } => {
                hold!(*upto <= self.chosen(), "trim covers the chosen", "{voter} trims {upto}");
            }
            Record::Chosen(word) => self.on_word(Some(*word)),
        }
    }

    fn raise(&mut self, voter: VoterId, ballot: Ballot) {
        let before = self.standing.insert(voter, ballot);
        hold!(
            before.is_none_or(|before| before <= ballot),
            "PMS-16 a promise never regresses",
            "{voter} stood at {before:?} and went on to {ballot}"
        );
    }

    fn on_accepted(&mut self, slot: Slot, ballot: Ballot) {
        let voters = self.voters(slot);
        let has = |ballots: &BTreeSet<Ballot>| ballots.contains(&ballot);
        let count = self.accepted[&slot].iter().filter(|(v, b)| votes(voters, **v) && has(b)).count();
        if count <= voters.len() / 2 {
            return;
        }
        let value = self.issued[&slot][&ballot].clone();
        let (first, chosen) = self.chosen.entry(slot).or_insert_with(|| (ballot, value.clone())).clone();
        hold!(chosen == value, "PMS-2 agreement", "{slot}: {chosen:?} in {first}, {value:?} in {ballot}");
        while let Some((_, value)) = self.chosen.get(&self.replay.applied.next()) {
            let value = value.clone();
            let replaced = self.replay.replaced;
            self.replay.apply(&value, self.window);
            self.count("memory replaced by another", self.replay.replaced > replaced);
        }
    }

    /// `who` says that `slot` decided `value`.
    pub fn on_claimed(&self, slot: Slot, value: &Value, who: &str) {
        let chosen = self.chosen.get(&slot).map(|(_, value)| value);
        hold!(
            chosen == Some(value),
            "PMS-3 honest learning",
            "{who}: {value:?} in {slot}, chosen {chosen:?}"
        );
    }

    /// A client is told `answer` to its request.
    pub fn on_answered(&mut self, request: Request, answer: Answer) {
        let due = self.replay.requests.get(&request).copied();
        let Some((slot, right)) = due else {
            panic!("DESIGN 2 is broken: {request:?} answered, not applied")
        };
        hold!(
            right == answer,
            "PMS-40 the output of the applied command",
            "{request:?}: {answer:?}, {right:?}"
        );
        self.answered = self.answered.max(Prefix::through(slot));
    }

    /// A read that arrived when `floor` was answered is answered from the state behind `applied`.
    pub fn on_read(&mut self, floor: Prefix, applied: Prefix) {
        hold!(
            applied >= floor,
            "DESIGN 4 linearizable reads",
            "read sees {applied}, {floor} was answered before"
        );
        self.answered = self.answered.max(applied);
    }
}

fn voters_of(members: &BTreeMap<NodeId, Option<Incarnation>>) -> Voters {
    members.iter().filter_map(|(&node, &incarnation)| Some((node, incarnation?))).collect()
}

fn votes(voters: &Voters, voter: VoterId) -> bool {
    voters.get(&voter.node) == Some(&voter.incarnation)
}

impl Replay {
    fn apply(&mut self, value: &Value, window: u64) {
        let slot = self.applied.next();
        for command in value.commands().expect("only proposers make values") {
            let id = command.id;
            let session = self.sessions.entry(id.origin).or_insert((id.generation, BTreeSet::new()));
            if id.generation > session.0 {
                *session = (id.generation, BTreeSet::new());
            }
            if id.generation < session.0 || !session.1.insert(id.sequence) {
                continue;
            }
            match command.action {
                Action::App(payload) => {
                    let request = Request::of(&payload);
                    let answer = self.store.apply(request);
                    let before = self.requests.insert(request, (slot, answer));
                    hold!(before.is_none(), "DESIGN 3 applied once", "{request:?} in {before:?} and {slot}");
                }
                Action::Reconfigure(change) => self.change(slot, &change, window),
            }
        }
        self.applied = Prefix::through(slot);
        self.states.push(self.store.now());
    }

    fn change(&mut self, slot: Slot, change: &Change, window: u64) {
        match *change {
            Change::Replace { node, old, new } => {
                if let Some(voter) = self.members.get_mut(&node).filter(|voter| **voter == old) {
                    *voter = Some(new);
                    self.replaced += 1;
                }
            }
            Change::Add { node, .. } => {
                self.members.entry(node).or_insert(None);
            }
            Change::Remove { node } => {
                if voters_of(&self.members).keys().any(|&other| other != node) {
                    self.members.remove(&node);
                    self.removed.insert(node);
                }
            }
            Change::Publish { .. } => {}
        }
        self.voters.insert(Slot(slot.0 + window), voters_of(&self.members));
    }
}

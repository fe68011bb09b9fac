//! Stories for judges: hand-made observations of a cluster of three founders, n1, n2 and n3.
//!
//! A story is told to a court of one judge, so that a bad one is condemned by that judge and no other. What a story
//! does not say did not happen: its acceptors write and its leaders speak only when told to.

use super::*;
use synod_kv::{CompactRequest, PutRequest, Request, Revision, Store};
use synod_paxos::acceptor::Limits;
use synod_paxos::machine::Admission;
use synod_paxos::membership::Change;
use synod_paxos::message::Acceptance;
use synod_paxos::types::{ClusterId, CommandId, Generation, Sequence, Window};
use synod_paxos::value::{Action, Command};

pub(super) const WINDOW: u64 = 4;

pub(super) fn node(n: u64) -> NodeId {
    NodeId(n)
}

pub(super) fn slot(n: u64) -> Slot {
    Slot(n)
}

pub(super) fn prefix(n: u64) -> Prefix {
    Prefix(n)
}

pub(super) fn voter(n: u64, incarnation: u128) -> VoterId {
    VoterId { node: NodeId(n), incarnation: Incarnation(incarnation) }
}

pub(super) fn ballot(round: u64, n: u64) -> Ballot {
    Ballot { round, node: NodeId(n), generation: Generation(7) }
}

/// The founder n is (n, incarnation n).
pub(super) fn genesis() -> Genesis {
    let member = |n: u64| Member {
        name: format!("n{n}"),
        peer_urls: vec![format!("http://h{n}")],
        client_urls: Vec::new(),
        voter: Some(Incarnation(u128::from(n))),
    };
    Genesis {
        cluster: ClusterId(7),
        window: Window::new(WINDOW),
        members: (1..=3).map(|n| (NodeId(n), member(n))).collect(),
    }
}

pub(super) fn request(k: u64) -> Bytes {
    Request::Put(PutRequest::new(format!("key {k}"), "value")).encode()
}

fn value(origin: u64, generation: u64, sequence: u64, action: Action) -> Value {
    let id = CommandId {
        origin: NodeId(origin),
        generation: Generation(generation),
        sequence: Sequence(sequence),
    };
    Value::batch(&[Command { id, waiting_from: Sequence::FIRST, action }])
}

pub(super) fn batch(sequence: u64, payload: Bytes) -> Value {
    value(1, 1, sequence, Action::App(payload))
}

pub(super) fn put(k: u64) -> Value {
    batch(k, request(k))
}

/// [`put`], by a certain life of n1's front.
pub(super) fn put_of(generation: u64, k: u64) -> Value {
    value(1, generation, k, Action::App(request(k)))
}

/// A request that the store refuses: it compacts what is still to come.
pub(super) fn refused(k: u64) -> Value {
    let compact = CompactRequest { revision: Revision(1_000_000 + k), physical: false };
    value(3, 1, k, Action::App(Request::Compact(compact).encode()))
}

pub(super) fn change(sequence: u64, change: Change) -> Value {
    value(2, 1, sequence, Action::Reconfigure(change))
}

pub(super) fn replace(n: u64, old: Option<u128>, new: u128) -> Value {
    let new_voter = Change::Replace { node: NodeId(n), old: old.map(Incarnation), new: Incarnation(new) };
    change(100 + n, new_voter)
}

pub(super) fn add(n: u64) -> Value {
    change(200 + n, Change::Add { node: NodeId(n), peer_urls: vec![format!("http://h{n}")] })
}

pub(super) fn remove(n: u64) -> Value {
    change(300 + n, Change::Remove { node: NodeId(n) })
}

pub(super) fn promised(ballot: Ballot) -> Record {
    Record::Promised { ballot }
}

pub(super) fn accepted(ballot: Ballot, n: u64, value: &Value) -> Record {
    Record::Accepted { ballot, slot: Slot(n), value: value.clone() }
}

pub(super) fn acceptance(ballot: Ballot, n: u64, value: &Value) -> Acceptance {
    Acceptance { slot: Slot(n), ballot, value: value.clone() }
}

/// This very rule must have been broken.
#[track_caller]
pub(super) fn broken(verdict: Verdict, rule: Rule) {
    let broken = verdict.expect_err("this should have been condemned");
    assert_eq!((broken.invariant, broken.clause), (rule.name, rule.clause), "{broken}");
}

/// See the module.
pub(super) struct Story {
    pub(super) court: Court,
    /// What each replica has applied.
    logs: BTreeMap<u64, Vec<Value>>,
    /// Replicas that believe in another window.
    windows: BTreeMap<u64, Window>,
}

impl Story {
    /// The judge and the ledger, nothing else.
    pub(super) fn before_formation(judge: impl Invariant + 'static) -> Story {
        Story::in_court(Court::of(vec![Box::new(judge)]))
    }

    /// A story that begins with a cluster formed.
    pub(super) fn of(judge: impl Invariant + 'static) -> Story {
        Story::before_formation(judge).founded()
    }

    /// With every judge.
    pub(super) fn of_all() -> Story {
        Story::in_court(Court::new()).founded()
    }

    fn in_court(court: Court) -> Story {
        Story { court, logs: BTreeMap::new(), windows: BTreeMap::new() }
    }

    fn founded(mut self) -> Story {
        for n in 1..=3 {
            self.formed(n, &genesis(), true).unwrap();
        }
        self
    }

    pub(super) fn see(&mut self, n: u64, observation: &Observation<'_>) -> Verdict {
        self.court.see(Time(1_500_000), NodeId(n), observation)
    }

    pub(super) fn formed(&mut self, n: u64, genesis: &Genesis, member: bool) -> Verdict {
        self.see(n, &Observation::Formed { genesis, member })
    }

    pub(super) fn sent(&mut self, n: u64, message: Message) -> Verdict {
        self.see(n, &Observation::Sent { to: &[NodeId(1)], message: &message })
    }

    pub(super) fn received(&mut self, n: u64, message: Message) -> Verdict {
        self.see(n, &Observation::Received { from: NodeId(1), message: &message })
    }

    pub(super) fn prepare(&mut self, ballot: Ballot, from: u64) -> Verdict {
        self.sent(ballot.node.0, Message::Prepare { ballot, from: Slot(from) })
    }

    /// A promise leaves and arrives.
    pub(super) fn promise_with(
        &mut self,
        ballot: Ballot,
        voter: VoterId,
        from: u64,
        until: Option<u64>,
        trimmed: u64,
        accepted: Vec<Acceptance>,
    ) -> Verdict {
        let (from, until, trimmed) = (Slot(from), until.map(Slot), Prefix(trimmed));
        let message = Message::Promise { ballot, voter, from, until, trimmed, accepted };
        self.sent(voter.node.0, message.clone())?;
        self.received(ballot.node.0, message)
    }

    /// A promise that reports nothing.
    pub(super) fn promise(&mut self, ballot: Ballot, voter: VoterId, from: u64) -> Verdict {
        self.promise_with(ballot, voter, from, None, 0, Vec::new())
    }

    /// A whole first phase with these acceptors, as it should be.
    pub(super) fn phase_1(&mut self, ballot: Ballot, from: u64, nodes: &[u64]) -> Verdict {
        let voters: Vec<VoterId> = nodes.iter().map(|&n| voter(n, u128::from(n))).collect();
        self.prepare(ballot, from)?;
        voters.into_iter().try_for_each(|voter| self.promise_duly(ballot, from, voter))
    }

    fn promise_duly(&mut self, ballot: Ballot, from: u64, voter: VoterId) -> Verdict {
        self.durable(voter, promised(ballot))?;
        let slots = (from..=self.court.ledger.last_slot().0).map(Slot);
        let report = slots.filter_map(|slot| {
            let known = self.court.ledger.accepted(voter, slot, Some(ballot))?;
            Some(Acceptance { slot, ballot: known.ballot, value: known.value.clone() })
        });
        let report = report.collect();
        self.promise_with(ballot, voter, from, None, 0, report)
    }

    pub(super) fn accept(&mut self, ballot: Ballot, n: u64, value: &Value) -> Verdict {
        let message =
            Message::Accept { ballot, slot: Slot(n), value: value.clone(), chosen: None, learner: None };
        self.sent(ballot.node.0, message)
    }

    pub(super) fn durable(&mut self, voter: VoterId, record: Record) -> Verdict {
        self.see(voter.node.0, &Observation::Persisted { voter, records: &[record] })
    }

    pub(super) fn told_accepted(&mut self, voter: VoterId, ballot: Ballot, n: u64) -> Verdict {
        self.sent(voter.node.0, Message::Accepted { ballot, slot: Slot(n), voter })
    }

    fn decide_by(&mut self, ballot: Ballot, n: u64, value: &Value, voters: &[VoterId]) -> Verdict {
        if !self.court.ledger.reports(ballot).iter().any(|report| report.covers(Slot(n))) {
            self.prepare(ballot, n)?;
            for &voter in voters {
                self.promise_duly(ballot, n, voter)?;
            }
        }
        self.accept(ballot, n, value)?;
        for &voter in voters {
            self.durable(voter, accepted(ballot, n, value))?;
            self.told_accepted(voter, ballot, n)?;
        }
        Ok(())
    }

    fn voters_of(&self, n: u64) -> Vec<VoterId> {
        let voters = self.court.voters(Slot(n)).iter();
        voters.map(|(&node, &incarnation)| VoterId { node, incarnation }).collect()
    }

    /// Everything it takes to choose a value, with a bare majority: the first voters of the slot.
    pub(super) fn decide(&mut self, ballot: Ballot, n: u64, value: &Value) -> Verdict {
        let voters = self.voters_of(n);
        self.decide_by(ballot, n, value, &voters[..voters.len() / 2 + 1])
    }

    /// [`Story::decide`], with all voters.
    pub(super) fn decide_by_all(&mut self, ballot: Ballot, n: u64, value: &Value) -> Verdict {
        let voters = self.voters_of(n);
        self.decide_by(ballot, n, value, &voters)
    }

    pub(super) fn restored(&mut self, voter: VoterId, records: Vec<Record>) -> Verdict {
        let acceptor = Acceptor::restore(voter, Limits::default(), records);
        self.see(voter.node.0, &Observation::Restored { acceptor: &acceptor })
    }

    pub(super) fn proposer_failed(&mut self, n: u64) -> Verdict {
        self.see(n, &Observation::Role { role: Role::Proposer, up: false })
    }

    /// This replica takes its window to be another than its cluster's.
    pub(super) fn window(&mut self, n: u64, window: Window) {
        self.windows.insert(n, window);
    }

    /// The replica applies `value` behind what it has, and says that this was slot `n`. If that is condemned, it
    /// never happened.
    pub(super) fn apply(&mut self, n: u64, slot: u64, value: &Value) -> Verdict {
        let mut log = self.logs.get(&n).cloned().unwrap_or_default();
        log.push(value.clone());
        let mut genesis = genesis();
        genesis.window = self.windows.get(&n).copied().unwrap_or(genesis.window);
        let (machine, store) = replay(&genesis, &log);
        let hash = store.state_hash();
        self.see(n, &Observation::Applied { slot: Slot(slot), value, hash, machine: &machine })?;
        self.logs.insert(n, log);
        Ok(())
    }

    /// The store's hash behind a prefix, by the book.
    pub(super) fn hash(&self, applied: u64) -> StateHash {
        self.court.ledger.book().hash(Prefix(applied)).unwrap_or_default()
    }

    pub(super) fn loaded_as(&mut self, n: u64, applied: u64, hash: StateHash) -> Verdict {
        self.see(n, &Observation::Loaded { applied: Prefix(applied), hash })?;
        let slots = (1..=applied).map(Slot);
        let log = slots.map_while(|slot| self.court.chosen_value(slot).cloned()).collect();
        self.logs.insert(n, log);
        Ok(())
    }

    /// A right state is loaded.
    pub(super) fn loaded(&mut self, n: u64, applied: u64) -> Verdict {
        self.loaded_as(n, applied, self.hash(applied))
    }

    pub(super) fn covered(&mut self, n: u64, upto: u64) -> Verdict {
        self.see(n, &Observation::Covered { durable: Prefix(upto) })
    }

    /// What [`request`] was answered by the book.
    pub(super) fn answer(&self, k: u64) -> Answer {
        self.court.outcome(&request(k)).expect("it was applied").1.clone()
    }
}

/// What production makes of a log.
fn replay(genesis: &Genesis, log: &[Value]) -> (Machine<Answer>, Store) {
    let (mut machine, mut store) = (Machine::genesis(genesis), Store::new());
    for value in log {
        let slot = machine.applied().next();
        for command in value.commands().unwrap() {
            if machine.admit(&command) != Admission::Fresh {
                continue;
            }
            let answer = match command.action {
                Action::App(payload) => {
                    Answer::Store(store.apply(&Request::decode(payload).unwrap()).unwrap())
                }
                Action::Reconfigure(change) => Answer::Reconfigured(machine.reconfigure(slot, &change)),
            };
            machine.answered(command.id, answer);
        }
        machine.advance(slot);
    }
    (machine, store)
}

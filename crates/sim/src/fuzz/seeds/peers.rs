//! Words of peers: every message, every kind of value, a whole formation, machines with a past.

use super::{Seed, seed};
use crate::fuzz::formation::plan;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use synod_paxos::formation::{Effect, Formation, FormationMessage, PlanDigest, Stance, Void};
use synod_paxos::machine::Machine;
use synod_paxos::membership::{Change, Genesis, Member};
use synod_paxos::message::{Acceptance, Chosen, Message, Progress, QuestionId};
use synod_paxos::types::{
    Ballot, ClusterId, CommandId, Generation, Incarnation, NodeId, Prefix, Sequence, Slot, Time, VoterId,
    Window,
};
use synod_paxos::value::{Action, Command, Value};
use synod_rpc::peer::{MAX_NUMBER, encode};

pub(super) fn add(all: &mut Vec<Seed>) {
    for (name, message) in messages() {
        all.push(seed("peer_message", name, encode(&message)));
    }
    // No kind, an unknown one, a slot below the first, no ballot, half a message.
    let wrong: [&[u8]; 5] = [&[], &[0xfa, 1, 0], &[0x42, 0], &[0x82, 1, 0], &[0x0a, 9, 0x0a]];
    for (n, bytes) in wrong.into_iter().enumerate() {
        all.push(seed("peer_message", format!("wrong-{n}"), bytes));
    }
    for (name, value) in values() {
        all.push(seed("value", name, value.encoded().clone()));
    }
    for (name, bytes) in
        [("nothing", &[][..]), ("endless", &[1, 1, 0xff, 0xff, 0xff, 0xff]), ("newer", &[2, 0])]
    {
        all.push(seed("value", name, bytes));
    }
    for (name, message) in formation() {
        let bytes = message.encode();
        all.push(seed("formation_message", format!("{name}-cut-short"), &bytes[..bytes.len() - 1]));
        all.push(seed("formation_message", name, bytes));
    }
    for (name, machine) in machines() {
        all.push(seed("machine", name, machine));
    }
}

fn command(sequence: u64, action: Action) -> Command {
    let id = CommandId { origin: NodeId(1), generation: Generation(2), sequence: Sequence(sequence) };
    Command { id, waiting_from: Sequence(1), action }
}

fn changes() -> [(&'static str, Change); 4] {
    let node = NodeId(4);
    [
        ("replace", Change::Replace { node, old: Some(Incarnation(7)), new: Incarnation(u128::MAX) }),
        ("add", Change::Add { node, peer_urls: vec!["http://h4:2380".into()] }),
        ("remove", Change::Remove { node }),
        ("publish", Change::Publish { node, name: "n4".into(), client_urls: vec!["http://h4:2379".into()] }),
    ]
}

fn put() -> Command {
    let put = synod_kv::Request::Put(synod_kv::PutRequest::new("k", "v"));
    command(1, Action::App(put.encode()))
}

fn values() -> Vec<(String, Value)> {
    let mut all = vec![
        ("no-op".to_string(), Value::no_op()),
        ("empty-batch".into(), Value::batch(&[])),
        ("put".into(), Value::batch(&[put()])),
        ("puts".into(), Value::batch(&[put(), put(), command(u64::MAX, Action::App(Bytes::new()))])),
    ];
    for (name, change) in changes() {
        all.push((name.into(), Value::batch(&[command(2, Action::Reconfigure(change))])));
    }
    all
}

fn messages() -> Vec<(&'static str, Message)> {
    let ballot = Ballot { round: 3, node: NodeId(1), generation: Generation(3) };
    let low = Ballot { round: 0, node: NodeId(0), generation: Generation(0) };
    let high = Ballot { round: MAX_NUMBER, node: NodeId(u64::MAX), generation: Generation(u64::MAX) };
    let voter = VoterId { node: NodeId(4), incarnation: Incarnation((5 << 64) | 6) };
    let question = QuestionId { generation: Generation(7), number: 8 };
    let (slot, last) = (Slot(4), Slot(MAX_NUMBER));
    let chosen = Chosen { ballot, from: Slot::FIRST, upto: Prefix(3) };
    let everything = Chosen { ballot: high, from: Slot::FIRST, upto: Prefix(MAX_NUMBER) };
    let batch = Value::batch(&[put(), command(2, Action::Reconfigure(changes()[0].1.clone()))]);
    let acceptance = |value| Acceptance { slot, ballot, value };
    let accepted = vec![acceptance(batch.clone()), acceptance(Value::no_op())];
    let promise = |until, accepted| Message::Promise {
        ballot,
        voter,
        from: Slot(1),
        until,
        trimmed: Prefix(9),
        accepted,
    };
    let values = vec![batch.clone(), Value::no_op()];
    let progress =
        Progress { chosen: Prefix(1), applied: Prefix(2), durable: Prefix(3), trimmed: Prefix(MAX_NUMBER) };
    vec![
        ("prepare", Message::Prepare { ballot, from: Slot::FIRST }),
        ("prepare-high", Message::Prepare { ballot: high, from: last }),
        ("promise", promise(None, accepted)),
        ("promise-part", promise(Some(last), vec![])),
        (
            "accept",
            Message::Accept {
                ballot,
                slot,
                value: batch.clone(),
                chosen: Some(chosen),
                learner: Some(NodeId(3)),
            },
        ),
        (
            "accept-low",
            Message::Accept {
                ballot: low,
                slot: Slot(1),
                value: Value::no_op(),
                chosen: None,
                learner: None,
            },
        ),
        (
            "accept-far",
            Message::Accept {
                ballot: high,
                slot: last,
                value: batch,
                chosen: Some(everything),
                learner: None,
            },
        ),
        ("accepted", Message::Accepted { ballot, slot, voter }),
        ("refused", Message::Refused { ballot: low, promised: high }),
        ("counted", Message::Counted { ballot, slot }),
        ("chosen", Message::Chosen(chosen)),
        ("chosen-all", Message::Chosen(everything)),
        ("fetch", Message::Fetch { from: Slot(2) }),
        ("fetch-far", Message::Fetch { from: last }),
        ("learn", Message::Learn { ballot, from: Slot(3), values: values.clone() }),
        ("entries", Message::Entries { from: Slot(3), values: values.clone(), chosen: Prefix(4) }),
        ("entries-far", Message::Entries { from: last, values, chosen: Prefix(MAX_NUMBER) }),
        ("take-checkpoint", Message::TakeCheckpoint { applied: Prefix(10) }),
        ("read-query", Message::ReadQuery { question }),
        ("read-answer", Message::ReadAnswer { question, voter, accepted: Prefix(11) }),
        ("submit", Message::Submit { commands: vec![put(), command(9, Action::App(Bytes::new()))] }),
        ("decide", Message::Decide { slot }),
        ("heartbeat", Message::Heartbeat { ballot, chosen: Some(chosen), sent: Time(u64::MAX) }),
        ("heartbeat-reply", Message::HeartbeatReply { ballot, sent: Time(12) }),
        ("abdicate", Message::Abdicate { ballot }),
        ("hand-over", Message::HandOver { ballot }),
        ("leader-query", Message::LeaderQuery { question }),
        ("leader-reply", Message::LeaderReply { question, alive: Some(low) }),
        ("leader-reply-none", Message::LeaderReply { question, alive: None }),
        ("progress", Message::Progress(progress)),
    ]
}

/// All that three servers say to the first of them until they are one cluster, and some words beside it.
fn formation() -> Vec<(String, FormationMessage)> {
    let voter = |n: u64| VoterId { node: NodeId(n), incarnation: Incarnation(100 + u128::from(n)) };
    let mut servers: BTreeMap<NodeId, Formation> =
        (1..=3).map(|n| (NodeId(n), Formation::new(voter(n), plan()).expect("it is in its plan"))).collect();
    let mut all: Vec<(String, FormationMessage)> = Vec::new();
    let mut effects: VecDeque<Effect> = servers.values_mut().flat_map(Formation::start).collect();
    let mut heard = Vec::new();
    for _ in 0..200 {
        let outgoing = match effects.pop_front() {
            Some(Effect::PersistThenSend { messages, .. }) => messages,
            Some(Effect::Send(outgoing)) => vec![outgoing],
            Some(_) => continue,
            None => break,
        };
        for outgoing in outgoing {
            let server = servers.get_mut(&outgoing.to).expect("they are three");
            effects.extend(server.receive(outgoing.message.clone()));
            if outgoing.to == NodeId(1) && !heard.contains(&outgoing.message) {
                heard.push(outgoing.message);
            }
        }
    }
    let genesis = servers[&NodeId(1)].formed().cloned().expect("they formed a cluster");
    all.extend(heard.into_iter().enumerate().map(|(n, message)| (format!("heard-{n:02}"), message)));
    let (from, digest) = (voter(2), plan().digest());
    let dead = BTreeSet::from([NodeId(3)]);
    let void = Some(Void { charter: genesis.cluster, dead: dead.clone() });
    let signed = Stance::Signed { charter: genesis.clone(), dead };
    all.push(("ask-voided".into(), FormationMessage::Ask { from, plan: digest, stance: signed.clone() }));
    let answer = |plan, stance, void| FormationMessage::Answer { from, plan, stance, void };
    all.push(("answer-voided".into(), answer(digest, signed, void)));
    let elsewhere = Stance::Formed { genesis, members: BTreeSet::from([NodeId(2), NodeId(9)]) };
    all.push(("answer-formed".into(), answer(PlanDigest(5), elsewhere, None)));
    all
}

fn machines() -> Vec<(&'static str, Bytes)> {
    let member = |n: u64| Member {
        name: format!("n{n}"),
        peer_urls: vec![format!("http://h{n}")],
        client_urls: vec![],
        voter: (n < 4).then_some(Incarnation(n.into())),
    };
    let members = (1..=4).map(|n| (NodeId(n), member(n))).collect();
    let genesis = |window| Genesis {
        cluster: ClusterId(7),
        window: Window::new(window),
        members: BTreeMap::clone(&members),
    };
    let mut machine = Machine::genesis(&genesis(4));
    let mut all = vec![
        ("genesis", machine.encode(Bytes::clone)),
        ("genesis-wide", Machine::genesis(&genesis(u64::MAX)).encode(Bytes::clone)),
    ];
    for sequence in [1, 2, 5, u64::MAX] {
        let command = command(sequence, Action::App(Bytes::new()));
        machine.admit(&command);
        machine.answered(command.id, Bytes::from_static(b"answer"));
    }
    all.push(("sessions", machine.encode(Bytes::clone)));
    for (slot, (_, change)) in (1..).map(Slot).zip(changes()) {
        machine.reconfigure(slot, &change);
        machine.advance(slot);
    }
    machine.reconfigure(Slot(5), &Change::Remove { node: NodeId(1) });
    all.push(("changed", machine.encode(Bytes::clone)));
    // The last slot there is, and the last command of a session.
    let mut last = all[2].1.to_vec();
    let window = last.windows(16).position(|bytes| bytes == [[4, 0, 0, 0, 0, 0, 0, 0], [0; 8]].concat());
    let applied = window.expect("window and applied") + 8;
    last[applied..applied + 8].fill(0xff);
    all.push(("applied-to-the-end", last.into()));
    let mut last = all[2].1.to_vec();
    let session = [2_u64, 3].map(u64::to_le_bytes).concat();
    let below = last.windows(16).position(|bytes| bytes == session).expect("generation and sequence") + 8;
    last[below..below + 8].fill(0xff);
    all.push(("session-at-its-end", last.into()));
    all
}

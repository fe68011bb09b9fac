//! Everything that can be in a trace comes back from it as it went in, and is safe for any reader of JSON.

use super::*;
use bytes::Bytes;
use serde_json::{Value as Json, from_str, to_string};
use synod_kv::{DeleteRangeRequest, KeyRange, PutRequest, Request};
use synod_paxos::acceptor::{Acceptor, Limits, Record as Durable};
use synod_paxos::membership::{Change, Member};
use synod_paxos::message::{self, Message as Said, Progress, QuestionId};
use synod_paxos::types::{self, CommandId, Generation, Incarnation, Sequence, Time, VoterId};
use synod_paxos::value::{self, Action, Value};

const BIG: u64 = u64::MAX - 1;

fn names() -> Names {
    Names::from_iter([(NodeId(BIG), "n1".to_owned()), (NodeId(2), "n2".to_owned())])
}

fn ballot(round: u64) -> types::Ballot {
    types::Ballot { round, node: NodeId(BIG), generation: Generation(u64::MAX) }
}

fn voter() -> VoterId {
    VoterId { node: NodeId(2), incarnation: Incarnation(u128::MAX - 7) }
}

fn command(sequence: u64, action: Action) -> value::Command {
    let id = CommandId { origin: NodeId(2), generation: Generation(BIG), sequence: Sequence(sequence) };
    value::Command { id, waiting_from: Sequence(1), action }
}

fn put(key: &'static [u8]) -> Action {
    Action::App(Request::Put(PutRequest::new(key, &b"secret"[..])).encode())
}

fn batch() -> Value {
    Value::batch(&[
        command(3, put(b"fruit/kiwi")),
        command(4, Action::Reconfigure(Change::Remove { node: NodeId(9) })),
    ])
}

fn question() -> QuestionId {
    QuestionId { generation: Generation(BIG), number: 4 }
}

fn messages() -> Vec<Said> {
    let chosen = message::Chosen { ballot: ballot(2), from: Slot(3), upto: Prefix(9) };
    let damaged = Value::from_encoded(Bytes::from_static(b"?"));
    let accepted = [batch(), Value::no_op(), damaged].into_iter().zip(4..);
    let accepted =
        accepted.map(|(value, slot)| message::Acceptance { slot: Slot(slot), ballot: ballot(1), value });
    let prepare = Said::Prepare { ballot: ballot(2), from: Slot(3) };
    let promise = |until| Said::Promise {
        ballot: ballot(2),
        voter: voter(),
        from: Slot(3),
        until,
        trimmed: Prefix(1),
        accepted: accepted.clone().collect(),
    };
    let accept = |chosen| Said::Accept {
        ballot: ballot(2),
        slot: Slot(4),
        value: batch(),
        chosen,
        learner: chosen.map(|_| NodeId(2)),
    };
    vec![
        prepare,
        promise(None),
        promise(Some(Slot(7))),
        accept(None),
        accept(Some(chosen)),
        Said::Accepted { ballot: ballot(2), slot: Slot(4), voter: voter() },
        Said::Refused { ballot: ballot(2), promised: ballot(3) },
        Said::Counted { ballot: ballot(2), slot: Slot(4) },
        Said::Chosen(chosen),
        Said::Fetch { from: Slot(1) },
        Said::Learn { ballot: ballot(2), from: Slot(1), values: vec![batch(), Value::no_op()] },
        Said::Entries { from: Slot(1), values: vec![batch(), Value::no_op()], chosen: Prefix(9) },
        Said::TakeCheckpoint { applied: Prefix(5) },
        Said::ReadQuery { question: question() },
        Said::ReadAnswer { question: question(), voter: voter(), accepted: Prefix(5) },
        Said::Submit { commands: batch().commands().unwrap() },
        Said::Decide { slot: Slot(5) },
        Said::Heartbeat { ballot: ballot(2), chosen: Some(chosen), sent: Time(17) },
        Said::Heartbeat { ballot: ballot(2), chosen: None, sent: Time(17) },
        Said::HeartbeatReply { ballot: ballot(2), sent: Time(17) },
        Said::Abdicate { ballot: ballot(2) },
        Said::HandOver { ballot: ballot(2) },
        Said::LeaderQuery { question: question() },
        Said::LeaderReply { question: question(), alive: None },
        Said::LeaderReply { question: question(), alive: Some(ballot(2)) },
        Said::Progress(Progress::default()),
    ]
}

/// At least one event of each kind, those with messages once per message.
fn everything() -> Vec<Event> {
    let of =
        |observation: Observation<'_>| Event::of(1_700_000_000_000_000, NodeId(BIG), &names(), &observation);
    let member = Member { name: "n2".into(), voter: Some(voter().incarnation), ..Member::default() };
    let genesis = Genesis {
        cluster: ClusterId(u128::MAX),
        window: Window::new(64),
        members: [(NodeId(2), member)].into(),
    };
    let mut acceptor = Acceptor::new(voter(), Limits::default());
    let mut events = vec![of(Observation::Restored { acceptor: &acceptor })];
    acceptor.on_accept(NodeId(2), ballot(1), Slot(4), batch());
    let machine = synod_paxos::machine::Machine::genesis(&genesis);
    let records = [
        Durable::Promised { ballot: ballot(2) },
        Durable::Accepted { ballot: ballot(2), slot: Slot(4), value: batch() },
        Durable::Trimmed { upto: Prefix(3) },
        Durable::Chosen(message::Chosen { ballot: ballot(2), from: Slot(3), upto: Prefix(9) }),
    ];
    let hash = StateHash(u128::MAX);
    events.extend([
        of(Observation::Formed { genesis: &genesis, member: true }),
        of(Observation::Restored { acceptor: &acceptor }),
        of(Observation::Persisted { voter: voter(), records: &records }),
        of(Observation::Applied { slot: Slot(4), value: &batch(), hash, machine: &machine }),
        of(Observation::Loaded { applied: Prefix(4), hash }),
        of(Observation::Covered { durable: Prefix(4) }),
        of(Observation::Leads { ballot: ballot(2), begins: true }),
        of(Observation::Note { kind: "link", text: "links to n2 are cut" }),
    ]);
    events.extend(Role::ALL.map(|role| of(Observation::Role { role, up: false })));
    let to = [NodeId(2), NodeId(BIG)];
    let mut events: Vec<Event> = events.into_iter().map(Option::unwrap).collect();
    for message in messages() {
        events.extend(of(Observation::Sent { to: &to, message: &message }));
        events.extend(of(Observation::Received { from: NodeId(2), message: &message }));
        let said = Translator(&names()).message(&message);
        let lost = What::Lost { to: NodeId(2), message: said.clone() };
        let duplicated = What::Duplicated { to: NodeId(2), message: said };
        events.extend([lost, duplicated].map(|what| Event::at(1, names().place(NodeId(2)), what)));
    }
    let text = || "in \"words\"\nof two lines".to_owned();
    let outside = [
        What::Process { up: true, text: text() },
        What::Fault { kind: "cut".into(), text: text(), healed: false },
        What::Invoked { client: 3, text: text() },
        What::Answered { client: 3, text: text() },
        What::DiskFailed { operation: "sync".into(), text: text() },
        What::Broken { invariant: "agreement".into(), clause: "PMS-2".into(), why: text() },
        What::Dropped { events: 5 },
    ];
    for what in outside {
        events.push(Event::at(1, names().place(NodeId(BIG)), what.clone()));
        events.push(Event::everywhere(1, what));
    }
    events
}

#[test]
fn every_event_comes_back_from_its_line() {
    for event in everything() {
        let line = to_string(&event).unwrap();
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(from_str::<Event>(&line).unwrap(), event, "{line}");
    }
}

#[test]
fn no_number_is_too_large_for_javascript() {
    fn check(json: &Json, line: &str) {
        match json {
            Json::Number(number) => assert!(number.as_u64().unwrap() < 1 << 53, "{number} in {line}"),
            Json::Array(items) => items.iter().for_each(|item| check(item, line)),
            Json::Object(fields) => fields.values().for_each(|field| check(field, line)),
            Json::Null | Json::Bool(_) | Json::String(_) => {}
        }
    }
    for event in everything() {
        let line = to_string(&event).unwrap();
        check(&from_str(&line).unwrap(), &line);
    }
}

#[test]
fn values_stay_out_of_the_trace() {
    for event in everything() {
        let line = to_string(&event).unwrap();
        assert!(!line.contains("secret"), "{line}");
    }
}

#[test]
fn unknown_fields_are_ignored_and_unknown_versions_refused() {
    let line = r#"{"v":1,"at":5,"weather":"fine","node":"1","name":"n1","event":"applied","slot":7,
        "value":{"bytes":2,"commands":0,"colour":[1]},"hash":"ff","more":{}}"#;
    let event: Event = from_str(line).unwrap();
    assert_eq!(event.place, Some(Place { node: NodeId(1), name: "n1".into() }));
    let value = Batch { commands: Some(0), bytes: 2, first: None };
    assert_eq!(event.what, What::Applied { slot: Slot(7), value, hash: StateHash(255) });
    let newer = from_str::<Event>(&line.replace(r#""v":1"#, r#""v":2"#)).unwrap_err().to_string();
    assert!(newer.contains("version 2") && newer.contains("reads version 1"), "{newer}");
}

#[test]
fn lines_that_mean_nothing_are_refused() {
    for line in [
        "",
        "{}",
        r#"{"v":1,"at":5}"#,
        r#"{"at":5,"event":"dropped","events":1}"#,
        r#"{"v":1,"at":5,"event":"hiccup"}"#,
        r#"{"v":1,"at":-5,"event":"dropped","events":1}"#,
        r#"{"v":1,"at":5,"event":"loaded","applied":1,"hash":"xyz"}"#,
        r#"{"v":1,"at":5,"event":"loaded","applied":1,"hash":"+1"}"#,
        r#"{"v":1,"at":5,"event":"lost","to":"10000000000000000","message":{"kind":"decide","slot":1}}"#,
    ] {
        assert!(from_str::<Event>(line).is_err(), "{line}");
    }
}

#[test]
fn commands_are_told_by_what_they_do() {
    let does = |action| {
        let value = Value::batch(&[command(1, action)]);
        Translator(&names()).value(&value).first.unwrap().does
    };
    let delete = DeleteRangeRequest::new(KeyRange::from_wire("a".into(), "b".into()));
    let app = |request: Request| Action::App(request.encode());
    assert_eq!(does(put(b"fruit/kiwi")), "put fruit/kiwi");
    assert_eq!(does(put(b"\0\xff\\")), "put \\x00\\xff\\\\");
    assert_eq!(does(put(&[b'k'; 40])), format!("put {}...", "k".repeat(32)));
    assert_eq!(does(app(Request::DeleteRange(delete))), "delete a to b");
    assert_eq!(does(Action::App(Bytes::from_static(b"?"))), "something this release cannot read");
    assert_eq!(does(Action::Reconfigure(Change::Remove { node: NodeId(2) })), "remove n2");
}

#[test]
fn long_lists_are_cut_and_say_so() {
    let records = vec![Durable::Promised { ballot: ballot(2) }; MOST_LISTED + 5];
    let observation = Observation::Persisted { voter: voter(), records: &records };
    let event = Event::of(1, NodeId(2), &names(), &observation).unwrap();
    let What::Persisted { records, more, .. } = event.what else { panic!("persisted") };
    assert_eq!((records.len(), more), (MOST_LISTED, 5));
}

#[test]
fn what_says_nothing_new_has_no_line() {
    let of = |observation: Observation<'_>| Event::of(1, NodeId(2), &names(), &observation);
    assert_eq!(of(Observation::Note { kind: "role-started", text: "learner started" }), None);
    assert_eq!(of(Observation::Sent { to: &[], message: &messages()[0] }), None);
    assert_eq!(of(Observation::Persisted { voter: voter(), records: &[] }), None);
}

/// The examples of the documentation are lines that we write.
#[test]
fn the_documentation_tells_the_truth() {
    let page = include_str!("../../../../docs/trace-format.md");
    let examples: Vec<&str> = page.lines().filter(|line| line.starts_with("{\"v\"")).collect();
    for line in &examples {
        let event: Event = from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(to_string(&event).unwrap(), *line);
    }
    // Every kind of event and of message is named there, as code.
    for event in everything() {
        let json: Json = serde_json::to_value(&event).unwrap();
        let kinds = [json.get("event"), json.pointer("/message/kind")];
        for kind in kinds.into_iter().flatten() {
            assert!(page.contains(&format!("`{}`", kind.as_str().unwrap())), "{kind} is not documented");
        }
    }
    assert!(examples.len() >= 8, "the page has lost its examples");
}

//! Small stories and what they look like.

use super::*;
use synod_paxos::types::NodeId;
use synod_server::trace::{Place, What};

/// A story, one event per line: time in microseconds, node (`-` for everywhere), the fields of the event.
fn story(text: &str) -> Vec<Event> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let event = |line: &str| {
        let mut parts = line.splitn(3, ' ');
        let mut next = || parts.next().expect("three parts");
        let (at, node, fields) = (next(), next(), next());
        let place = match node {
            "-" => String::new(),
            node => format!(r#""node":"{node}","name":"n{node}","#),
        };
        let json = format!(r#"{{"v":1,"at":{at},{place}{}}}"#, expand(fields));
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"))
    };
    lines.map(event).collect()
}

/// Short forms of what is long in JSON: `b1` is the ballot 1.n1, `v` a value, `voter2` an acceptor.
fn expand(fields: &str) -> String {
    let mut text = fields.replace('\'', "\"");
    for number in 1..=3 {
        let ballot = format!(
            r#""ballot":{{"text":"{number}.n{number}","round":{number},"node":"{number}","generation":"1"}}"#
        );
        let voter = format!(r#""voter":{{"name":"n{number}","node":"{number}","incarnation":"{number}"}}"#);
        text = text.replace(&format!("b{number}"), &ballot).replace(&format!("voter{number}"), &voter);
    }
    let first = r#"{"text":"n1/1","origin":"1","generation":"1","sequence":1,"does":"put a"}"#;
    text.replace("VALUE", &format!(r#""value":{{"commands":1,"bytes":40,"first":{first}}}"#))
}

fn sent(at: u64, from: u64, to: &str, message: &str) -> String {
    format!("{at} {from} 'event':'sent','to':[{to}],'message':{{{message}}}\n")
}

fn received(at: u64, to: u64, from: u64, message: &str) -> String {
    format!("{at} {to} 'event':'received','from':'{from}','message':{{{message}}}\n")
}

const PREPARE: &str = "'kind':'prepare',b1,'from':1";
const ACCEPT: &str = "'kind':'accept',b1,'slot':1,VALUE";
const HEARTBEAT: &str = "'kind':'heartbeat',b1,'sent':1";

fn promise(voter: u64) -> String {
    format!("'kind':'promise',b1,voter{voter},'from':1,'trimmed':0,'accepted':[],'more':0")
}

fn accepted(voter: u64) -> String {
    format!("'kind':'accepted',b1,'slot':1,voter{voter}")
}

/// The picture without its legend.
fn picture(text: &str, options: Options) -> String {
    let picture = diagram(story(text), options).unwrap().to_string();
    picture.lines().skip(2).map(|line| format!("{line}\n")).collect()
}

fn plain(text: &str) -> String {
    picture(text, Options::default())
}

/// n1 is elected and has slot 1 decided; n3 is cut off and misses that.
fn election() -> String {
    [
        sent(1_000, 1, "'1','2','3'", PREPARE),
        received(1_000, 1, 1, PREPARE),
        received(1_300, 2, 1, PREPARE),
        received(1_400, 3, 1, PREPARE),
        "1500 1 'event':'persisted',voter1,'records':[{'kind':'promised',b1}],'more':0\n".into(),
        "1600 2 'event':'persisted',voter2,'records':[{'kind':'promised',b1}],'more':0\n".into(),
        sent(1_650, 2, "'1'", &promise(2)),
        received(1_900, 1, 2, &promise(2)),
        "1950 1 'event':'leads',b1,'begins':true\n".into(),
        "2000 - 'event':'fault','kind':'cut','text':'n1 n2 | n3','healed':false\n".into(),
        sent(2_100, 1, "'1','2','3'", ACCEPT),
        received(2_100, 1, 1, ACCEPT),
        sent(2_150, 1, "'2','3'", HEARTBEAT),
        format!("2200 1 'event':'lost','to':'3','message':{{{ACCEPT}}}\n"),
        received(3_600, 2, 1, ACCEPT),
        "3700 1 'event':'persisted',voter1,'records':[{'kind':'accepted',b1,'slot':1,VALUE}],'more':0\n"
            .into(),
        "3800 2 'event':'persisted',voter2,'records':[{'kind':'accepted',b1,'slot':1,VALUE}],'more':0\n"
            .into(),
        sent(3_900, 2, "'1'", &accepted(2)),
        "3950 2 'event':'role','role':'learner','up':false\n".into(),
        "3960 1 'event':'note','kind':'link','text':'something of its own'\n".into(),
        received(4_500, 1, 2, &accepted(2)),
        "4600 1 'event':'applied','slot':1,VALUE,'hash':'ab'\n".into(),
        "4700 1 'event':'answered','client':7,'text':'ok'\n".into(),
        "5000 3 'event':'process','up':false,'text':'killed'\n".into(),
        sent(5_100, 1, "'3'", ACCEPT),
    ]
    .concat()
}

#[test]
fn an_election_and_a_slot() {
    assert_eq!(
        plain(&election()),
        "         ms  n1      n2      n3
      0.000  ●───────▶───────▶  Prepare 1.n1: slots from 1 on
      0.500  ■       │       │  on disk: promised 1.n1
      0.600  │       ■       │  on disk: promised 1.n1
      0.650  ◀───────●       │  Promise 1.n1: nothing accepted from slot 1 on
      0.950  ★       │       │  leads with 1.n1
      1.000  ║       │       │  FAULT cut: n1 n2 | n3
      1.100  ●───────▶───────x  Accept 1.n1 slot 1: put a (n1/1)  n2 after 1.500 ms
      2.700  ■       │       │  on disk: accepted 1.n1 slot 1
      2.800  ║       ■       │  on disk: accepted 1.n1 slot 1
      2.900  ◌───────●       │  Accepted 1.n1 slot 1
      2.950  ║       ▽       │  learner ends
      2.960  ◦       │       │  something of its own
      3.500  ◀┄┄┄┄┄┄┄○       │  Accepted 1.n1 slot 1  sent 0.600 ms before
      3.600  ◆       │       │  applies slot 1: put a (n1/1)
      3.700  «       │       │  client 7 is told: ok
      4.000  ║       │       ┴  process ends: killed
      4.100  ●───────┼───────x  Accept 1.n1 slot 1: put a (n1/1)
heartbeats and progress reports, not shown: 1
"
    );
}

#[test]
fn filters_leave_out_what_is_not_wanted() {
    let of = |options| picture(&election(), options);
    let count = |picture: &str, word: &str| picture.matches(word).count();
    let slot = of(Options { slot: Some(Slot(2)), ..Options::default() });
    assert_eq!(count(&slot, "Accept") + count(&slot, "applies") + count(&slot, "is told"), 0, "{slot}");
    assert_eq!(
        (count(&slot, "Prepare"), count(&slot, "promised"), count(&slot, "killed")),
        (1, 2, 1),
        "{slot}"
    );
    let node = of(Options { node: Some("n3".into()), ..Options::default() });
    assert_eq!(
        (count(&node, "Promise"), count(&node, "on disk"), count(&node, "FAULT")),
        (0, 0, 1),
        "{node}"
    );
    assert_eq!(count(&node, "Accept 1.n1"), 2, "{node}");
    let all = of(Options { all: true, ..Options::default() });
    assert_eq!((count(&all, "Heartbeat"), count(&all, "↺"), count(&all, "not shown")), (1, 2, 0), "{all}");
    let time = |micros| Some(Duration::from_micros(micros));
    let moment = of(Options { from: time(500), to: time(1_000), ..Options::default() });
    assert_eq!(moment.lines().count(), 1 + 5 + 1, "{moment}");
    let last = of(Options { last: Some(2), ..Options::default() });
    assert!(last.lines().nth(1).unwrap().ends_with("║       │       ┴  process ends: killed"), "{last}");
    assert_eq!(last.lines().count(), 1 + 2 + 1, "{last}");
}

#[test]
fn nobody_by_that_name() {
    let refused = diagram(story(&election()), Options { node: Some("n7".into()), ..Options::default() });
    let error = refused.unwrap_err().to_string();
    assert_eq!(error, "there is no replica \"n7\" in the trace; there are n1, n2, n3");
}

#[test]
fn a_broken_invariant_ends_in_a_box() {
    let text = "0 1 'event':'applied','slot':1,VALUE,'hash':'ab'\n\
                1500 2 'event':'broken','invariant':'agreement','clause':'PMS-2','why':'slot 1 holds two values: put a at n1, put b at n2'";
    assert_eq!(
        picture(text, Options { width: 46, ..Options::default() }),
        "         ms  n1      n2
      0.000  ◆       │  applies slot 1: put a (n1/1)
      1.500  │       !  BROKEN agreement (PMS-2) [n2]
╔═══════════════════════════════════════════╗
║ BROKEN at 1.500 ms: agreement (PMS-2)     ║
║ slot 1 holds two values: put a at n1, put ║
║ b at n2                                   ║
╚═══════════════════════════════════════════╝
"
    );
}

#[test]
fn long_texts_go_on_below_themselves() {
    let text = "0 1 'event':'note','kind':'x','text':'one two three four five six seven eight nine ten'\n\
                1 2 'event':'role','role':'learner','up':true";
    assert_eq!(
        picture(text, Options { width: 20, ..Options::default() }),
        "         ms  n1      n2
      0.000  ◦       │  one two three four five six
             │       │    seven eight nine ten
      0.001  │       △  learner begins
"
    );
}

#[test]
fn who_is_killed_falls_silent_and_comes_back() {
    let text = [
        "0 1 'event':'role','role':'learner','up':true\n".into(),
        "100 2 'event':'role','role':'learner','up':true\n".into(),
        sent(200, 1, "'2'", ACCEPT),
        sent(300, 1, "'2'", ACCEPT),
        sent(400, 1, "'2'", ACCEPT),
        "500 2 'event':'process','up':true,'text':'again'\n".into(),
        sent(600, 1, "'2'", ACCEPT),
        received(700, 2, 1, ACCEPT),
        "2000000 1 'event':'role','role':'learner','up':false\n".into(),
    ]
    .concat();
    assert_eq!(
        plain(&text),
        "         ms  n1      n2
      0.000  △       │  learner begins
      0.100  │       △  learner begins
      0.100  │       ┴  process ends: nothing more is heard of it
      0.200  ●───────x  Accept 1.n1 slot 1: put a (n1/1)  3 times until 0.400
      0.500  │       ┬  process begins: again
      0.600  ●───────▶  Accept 1.n1 slot 1: put a (n1/1)
      0.700  │       ┴  process ends: nothing more is heard of it
   2000.000  ▽          learner ends
"
    );
}

#[test]
fn who_recorded_nothing_has_a_lane_of_dots() {
    let text = [sent(0, 1, "'2'", ACCEPT), received(5, 1, 3, &accepted(3))].concat();
    assert_eq!(
        plain(&text),
        "         ms  n1      n2      n3
      0.000  ●───────▷       ┊  Accept 1.n1 slot 1: put a (n1/1)
      0.005  ◀┄┄┄┄┄┄┄┊┄┄┄┄┄┄┄○  Accepted 1.n1 slot 1  nobody recorded when it was sent
"
    );
}

#[test]
fn what_is_said_to_one_after_the_other_leaves_together() {
    let text = [
        sent(0, 1, "'2'", ACCEPT),
        sent(1, 1, "'3'", ACCEPT),
        received(2, 2, 1, ACCEPT),
        received(2_001, 3, 1, ACCEPT),
        sent(2_100, 1, "'2'", PREPARE),
        "2200 1 'event':'role','role':'learner','up':false\n".into(),
        sent(2_300, 1, "'3'", PREPARE),
        "2400 2 'event':'role','role':'learner','up':false\n".into(),
        "2400 3 'event':'role','role':'learner','up':false\n".into(),
    ]
    .concat();
    assert_eq!(
        plain(&text),
        "         ms  n1      n2      n3
      0.000  ●───────▶───────▶  Accept 1.n1 slot 1: put a (n1/1)  n3 after 2.000 ms
      2.100  ●───────x       │  Prepare 1.n1: slots from 1 on
      2.200  ▽       │       │  learner ends
      2.300  ●───────┼───────x  Prepare 1.n1: slots from 1 on
      2.400  │       ▽       │  learner ends
      2.400  │       │       ▽  learner ends
"
    );
}

#[test]
fn a_copy_is_a_message_of_its_own() {
    let text = [
        sent(0, 1, "'2'", ACCEPT),
        format!("0 1 'event':'duplicated','to':'2','message':{{{ACCEPT}}}\n"),
        received(5, 2, 1, ACCEPT),
        "6 2 'event':'role','role':'learner','up':true\n".into(),
        received(7, 2, 1, ACCEPT),
    ]
    .concat();
    let picture = plain(&text);
    assert_eq!(picture.matches('▶').count(), 2, "{picture}");
    assert_eq!(picture.matches("  a copy").count(), 1, "{picture}");
}

#[test]
fn of_equal_messages_the_newest_arrived_unless_the_trace_says_what_was_lost() {
    let twice = [sent(0, 1, "'2'", ACCEPT), sent(90_000, 1, "'2'", ACCEPT), received(90_100, 2, 1, ACCEPT)];
    let picture = plain(&twice.concat());
    assert!(picture.contains("0.000  ●───────x") && picture.contains("90.000  ●───────▶"), "{picture}");
    let told = format!("{}95000 1 'event':'lost','to':'2','message':{{{ACCEPT}}}\n", twice.concat());
    let picture = plain(&told);
    assert!(picture.contains("after 90.100 ms"), "{picture}");
}

#[test]
fn colours_only_when_asked_for() {
    let coloured = picture(&election(), Options { colour: true, ..Options::default() });
    assert!(coloured.contains("\x1b[31m") && coloured.contains("\x1b[0m\n"), "{coloured}");
    assert!(!plain(&election()).contains('\x1b'));
}

#[test]
fn nothing_is_a_picture_too() {
    assert_eq!(diagram([], Options::default()).unwrap().to_string(), "nothing happened\n");
    let node = Place { node: NodeId(1), name: "n1".into() };
    let event = Event::at(5, node, What::Dropped { events: 3 });
    let picture = diagram([event], Options { to: Some(Duration::ZERO), ..Options::default() }).unwrap();
    assert!(picture.to_string().contains("3 events about here are not in the trace"));
}

/// Whatever is drawn, no replica's own events change their order.
#[test]
fn arrows_never_reorder_what_one_replica_sees() {
    use proptest::prelude::*;
    // Messages between three replicas, each with the time of its sending and how long it takes.
    let messages = proptest::collection::vec((0u64..3, 0u64..2, 0u64..50, 1u64..50), 1..12);
    proptest!(|(messages in messages)| {
        let mut events = Vec::new();
        for (number, (from, hop, at, takes)) in messages.iter().enumerate() {
            let to = (from + 1 + hop) % 3;
            let slot = number + 1;
            let message = format!("'kind':'decide','slot':{slot}");
            events.extend(story(&sent(*at, from + 1, &format!("'{}'", to + 1), &message)));
            events.extend(story(&received(at + takes, to + 1, from + 1, &message)));
        }
        events.sort_by_key(|event| event.at);
        // What each replica saw, in order: its sendings and arrivals.
        let mut saw = vec![Vec::new(); 3];
        let mut present = [false; 3];
        for event in &events {
            let node = usize::try_from(event.place.as_ref().unwrap().node.0).unwrap() - 1;
            present[node] = true;
            saw[node].push(match &event.what {
                What::Sent { message, .. } => format!("> {message:?}"),
                What::Received { message, .. } => format!("< {message:?}"),
                _ => unreachable!(),
            });
        }
        let lanes = Lanes::of(&events);
        let options = Options::default();
        let rows = flights::rows(&events, &lanes, &mut filter::Filter::new(&options, &lanes));
        let mut drawn = vec![Vec::new(); 3];
        let node = |lane| lanes.name(lane)[1..].parse::<usize>().unwrap() - 1;
        for row in rows.values() {
            match row {
                flights::Row::Mark(_) => unreachable!(),
                flights::Row::Arrow { from, heads, message } => {
                    let &[(to, head)] = &heads[..] else { panic!("one receiver each") };
                    drawn[node(*from)].push(format!("> {message:?}"));
                    if matches!(head, flights::Head::Arrives { .. }) {
                        drawn[node(to)].push(format!("< {message:?}"));
                    }
                }
                flights::Row::Late { to, message, .. } => drawn[node(*to)].push(format!("< {message:?}")),
            }
        }
        prop_assert_eq!(saw, drawn);
    });
}

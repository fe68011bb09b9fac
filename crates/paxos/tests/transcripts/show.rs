//! How messages, records and values look in a transcript: short, and the same every time.

use synod_paxos::acceptor::Record;
use synod_paxos::membership::Change;
use synod_paxos::message::{Acceptance, Chosen, Message, QuestionId};
use synod_paxos::types::{Incarnation, NodeId, Prefix, VoterId};
use synod_paxos::value::{Action, Command, Value};

/// The memory of `node` in its `life`: n3#3a is the first, n3#3b the second.
pub(crate) fn incarnation(node: NodeId, life: u8) -> Incarnation {
    Incarnation(u128::from(node.0) << 4 | u128::from(9 + life))
}

pub(crate) fn value(value: &Value) -> String {
    match value.commands() {
        Ok(commands) if commands.is_empty() => "no-op".to_owned(),
        Ok(commands) => commands.iter().map(command).collect::<Vec<_>>().join(" "),
        Err(error) => format!("undecodable: {error}"),
    }
}

pub(crate) fn command(command: &Command) -> String {
    match &command.action {
        Action::App(payload) => String::from_utf8_lossy(payload).into_owned(),
        Action::Reconfigure(Change::Replace { node, old, new }) => {
            let old = old.map_or("nothing".to_owned(), |old| format!("{node}#{old}"));
            format!("replace({old} by {node}#{new})")
        }
        Action::Reconfigure(Change::Add { node, .. }) => format!("add({node})"),
        Action::Reconfigure(Change::Remove { node }) => format!("remove({node})"),
        Action::Reconfigure(Change::Publish { node, .. }) => format!("publish({node})"),
    }
}

pub(crate) fn nodes(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(",")
}

pub(crate) fn record(record: &Record) -> String {
    match record {
        Record::Promised { ballot } => format!("promised {ballot}"),
        Record::Accepted { ballot, slot, value: v } => format!("accepted {ballot} slot={slot} {}", value(v)),
        Record::Trimmed { upto } => format!("trimmed {upto}"),
        Record::Chosen(word) => format!("chosen {}", chosen(word)),
    }
}

pub(crate) fn accepted(acceptances: &[Acceptance]) -> String {
    let each = |a: &Acceptance| format!("{}: {} {}", a.slot, a.ballot, value(&a.value));
    format!("{{{}}}", acceptances.iter().map(each).collect::<Vec<_>>().join(", "))
}

fn chosen(word: &Chosen) -> String {
    format!("{}..{} in {}", word.from, word.upto.0, word.ballot)
}

/// Nothing for a first life, because then the node says it all.
fn speaking(voter: &VoterId) -> String {
    if voter.incarnation == incarnation(voter.node, 1) { String::new() } else { format!(" as {voter}") }
}

fn trim_point(trimmed: Prefix) -> String {
    if trimmed == Prefix::EMPTY { String::new() } else { format!(" trimmed={trimmed}") }
}

fn question(question: &QuestionId) -> String {
    format!("question={}.{}", question.generation, question.number)
}

pub(crate) fn kind(message: &Message) -> &'static str {
    match message {
        Message::Prepare { .. } => "Prepare",
        Message::Promise { .. } => "Promise",
        Message::Accept { .. } => "Accept",
        Message::Accepted { .. } => "Accepted",
        Message::Refused { .. } => "Refused",
        Message::Counted { .. } => "Counted",
        Message::Chosen(_) => "Chosen",
        Message::Fetch { .. } => "Fetch",
        Message::Learn { .. } => "Learn",
        Message::Entries { .. } => "Entries",
        Message::TakeCheckpoint { .. } => "TakeCheckpoint",
        Message::ReadQuery { .. } => "ReadQuery",
        Message::ReadAnswer { .. } => "ReadAnswer",
        Message::Decide { .. } => "Decide",
        _ => "Other",
    }
}

pub(crate) fn message(message: &Message) -> String {
    let text = match message {
        Message::Prepare { ballot, from } => format!("{ballot} from={from}"),
        Message::Promise { ballot, voter, from, until, trimmed, accepted: all } => {
            let until = until.map_or(String::new(), |until| format!(" until={until}"));
            let (trimmed, who) = (trim_point(*trimmed), speaking(voter));
            format!("{ballot} from={from}{until}{trimmed} accepted={}{who}", accepted(all))
        }
        Message::Accept { ballot, slot, value: v, chosen: word, .. } => {
            let word = word.map_or(String::new(), |word| format!(" (chosen {})", chosen(&word)));
            format!("{ballot} slot={slot} {}{word}", value(v))
        }
        Message::Accepted { ballot, slot, voter } => format!("{ballot} slot={slot}{}", speaking(voter)),
        Message::Refused { ballot, promised } => format!("{ballot} promised={promised}"),
        Message::Counted { ballot, slot } => format!("{ballot} slot={slot}"),
        Message::Chosen(word) => chosen(word),
        Message::Fetch { from } => format!("from={from}"),
        Message::Learn { ballot, from, values } => {
            let values = values.iter().map(value).collect::<Vec<_>>().join(", ");
            format!("{ballot} from={from} [{values}]")
        }
        Message::Entries { from, values, chosen } => {
            let values = values.iter().map(value).collect::<Vec<_>>().join(", ");
            format!("from={from} [{values}] chosen={chosen}")
        }
        Message::TakeCheckpoint { applied } => format!("applied={applied}"),
        Message::ReadQuery { question: q } => question(q),
        Message::ReadAnswer { question: q, voter, accepted } => {
            format!("{} accepted={accepted}{}", question(q), speaking(voter))
        }
        Message::Decide { slot } => format!("slot={slot}"),
        other => format!("{other:?}"),
    };
    format!("{} {text}", kind(message))
}

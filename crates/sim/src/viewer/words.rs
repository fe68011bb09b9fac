//! What to call it.

use super::filter::record_is_about;
use super::lanes::natural;
use std::fmt::Write as _;
use synod_paxos::types::{Prefix, Slot};
use synod_server::trace::{Acceptance, Batch, Message, Record, What};

/// Of a promise, so many acceptances are told.
const TOLD: usize = 3;

/// A message in a line. If one slot is of interest, a promise tells of that one only.
pub(super) fn message(message: &Message, wanted: Option<Slot>) -> String {
    match message {
        Message::Prepare { ballot, from } => format!("Prepare {}: slots from {from} on", ballot.text),
        Message::Promise { ballot, from, until, trimmed, accepted, more, .. } => {
            let mut text = format!("Promise {}: ", ballot.text);
            text.push_str(&acceptances(accepted, *more, *from, wanted));
            if *trimmed > Prefix::EMPTY {
                let _ = write!(text, "; {} forgotten", upto(*trimmed));
            }
            if let Some(until) = until {
                let _ = write!(text, "; more from slot {until} on");
            }
            text
        }
        Message::Accept { ballot, slot, value, chosen, .. } => {
            let mut text = format!("Accept {} slot {slot}: {}", ballot.text, batch(value));
            if let Some(word) = chosen {
                let _ = write!(text, "; {} chosen", range(word.from, word.upto));
            }
            text
        }
        Message::Accepted { ballot, slot, .. } => format!("Accepted {} slot {slot}", ballot.text),
        Message::Refused { ballot, promised } => {
            format!("Refused {}: promised {}", ballot.text, promised.text)
        }
        Message::Counted { ballot, slot } => format!("Counted {} slot {slot}", ballot.text),
        Message::Chosen(word) => format!("Chosen {}: {}", word.ballot.text, range(word.from, word.upto)),
        Message::Fetch { from } => format!("Fetch: slots from {from} on"),
        Message::Learn { ballot, from, slots, bytes } => {
            let last = from.0 + u64::try_from(*slots).unwrap_or(u64::MAX).saturating_sub(1);
            format!("Learn {}: {}, {bytes} bytes", ballot.text, range(*from, Prefix(last)))
        }
        Message::Entries { from, slots, bytes, .. } => {
            let last = from.0 + u64::try_from(*slots).unwrap_or(u64::MAX).saturating_sub(1);
            format!("Entries: {}, {bytes} bytes", range(*from, Prefix(last)))
        }
        Message::TakeCheckpoint { applied } => format!("TakeCheckpoint: {}", upto(*applied)),
        Message::ReadQuery { question } => format!("ReadQuery {}: accepted how far?", question.number),
        Message::ReadAnswer { question, accepted, .. } => {
            format!("ReadAnswer {}: {} accepted", question.number, upto(*accepted))
        }
        Message::Submit { commands } => format!("Submit: {}", batch(commands)),
        Message::Decide { slot } => format!("Decide slot {slot}"),
        Message::Heartbeat { ballot, chosen, .. } => {
            let word = chosen.as_ref().map(|word| format!(": {} chosen", range(word.from, word.upto)));
            format!("Heartbeat {}{}", ballot.text, word.unwrap_or_default())
        }
        Message::HeartbeatReply { ballot, .. } => format!("HeartbeatReply {}", ballot.text),
        Message::Abdicate { ballot } => format!("Abdicate {}", ballot.text),
        Message::HandOver { ballot } => format!("HandOver {}: campaign now", ballot.text),
        Message::LeaderQuery { question } => format!("LeaderQuery {}: hear a leader?", question.number),
        Message::LeaderReply { question, alive } => {
            let alive = alive.as_ref().map_or("no".to_owned(), |ballot| format!("yes, {}", ballot.text));
            format!("LeaderReply {}: {alive}", question.number)
        }
        Message::Progress { chosen, applied, durable, trimmed } => format!(
            "Progress: chosen {}, applied {}, durable {}, trimmed {}",
            chosen.0, applied.0, durable.0, trimmed.0
        ),
    }
}

fn acceptances(accepted: &[Acceptance], more: usize, from: Slot, wanted: Option<Slot>) -> String {
    if let Some(slot) = wanted {
        return match accepted.iter().find(|acceptance| acceptance.slot == slot) {
            Some(found) => acceptance(found),
            None if more > 0 => format!("slot {slot} may be among those left out"),
            None => format!("nothing accepted in slot {slot}"),
        };
    }
    if accepted.is_empty() {
        return format!("nothing accepted from slot {from} on");
    }
    let told: Vec<String> = accepted.iter().take(TOLD).map(acceptance).collect();
    match accepted.len().saturating_sub(TOLD) + more {
        0 => told.join(", "),
        more => format!("{}, and {more} more", told.join(", ")),
    }
}

fn acceptance(Acceptance { slot, ballot, value }: &Acceptance) -> String {
    format!("slot {slot} accepted in {}, {}", ballot.text, batch(value))
}

fn batch(Batch { commands, bytes, first }: &Batch) -> String {
    match (commands, first) {
        (None, _) => format!("{bytes} bytes that are no value"),
        (Some(0), _) => "no-op".into(),
        (Some(1), Some(first)) => format!("{} ({})", first.does, first.text),
        (Some(count), Some(first)) => format!("{} ({}) and {} more", first.does, first.text, count - 1),
        (Some(count), None) => format!("{count} commands"),
    }
}

fn upto(prefix: Prefix) -> String {
    match prefix {
        Prefix(0) => "nothing".into(),
        Prefix(last) => format!("slots ..{last}"),
    }
}

fn range(from: Slot, upto: Prefix) -> String {
    if from.0 == upto.0 { format!("slot {from}") } else { format!("slots {from}..{}", upto.0) }
}

/// The mark of an event in its lane, and what to say beside it. Of a group of records, only those about the
/// wanted slot, if one is wanted.
pub(super) fn event(what: &What, wanted: Option<Slot>) -> (char, String) {
    match what {
        What::Formed { founders, member, .. } => {
            let mut names: Vec<&str> = founders.iter().map(|founder| founder.name.as_str()).collect();
            names.sort_by_key(|name| natural(name));
            let how = if *member { "belongs to the cluster" } else { "asks to join the cluster" };
            ('◦', format!("{how} that {} founded", names.join(", ")))
        }
        What::Role { role, up: true } => ('△', format!("{} begins", role.as_str())),
        What::Role { role, up: false } => ('▽', format!("{} ends", role.as_str())),
        What::Restored { promised, accepted, trimmed, voter, .. } => {
            let incarnation = format!("{:032x}", voter.incarnation.0);
            let mut text = format!("acceptor #{} remembers: ", &incarnation[..6]);
            match promised {
                None if *accepted == 0 && *trimmed == Prefix::EMPTY => text.push_str("nothing"),
                promised => {
                    let promised = promised.as_ref().map_or("nothing", |ballot| ballot.text.as_str());
                    let _ = write!(text, "promised {promised}, accepted {accepted} slots");
                }
            }
            ('△', text)
        }
        What::Persisted { records, more, .. } => ('■', format!("on disk: {}", group(records, *more, wanted))),
        What::Applied { slot, value, .. } => ('◆', format!("applies slot {slot}: {}", batch(value))),
        What::Loaded { applied, .. } => (
            '◆',
            match applied {
                Prefix(0) => "learner starts with an empty store".to_owned(),
                applied => format!("learner has the store of {}", upto(*applied)),
            },
        ),
        What::Covered { durable } => ('■', format!("checkpoint on disk: {}", upto(*durable))),
        What::Leads { ballot, begins: true } => ('★', format!("leads with {}", ballot.text)),
        What::Leads { ballot, begins: false } => ('☆', format!("no longer leads with {}", ballot.text)),
        What::Note { text, .. } => ('◦', text.clone()),
        What::Process { up: true, text } => ('┬', format!("process begins: {text}")),
        What::Process { up: false, text } => ('┴', format!("process ends: {text}")),
        What::Fault { kind, text, healed } => {
            ('!', format!("{} {kind}: {text}", if *healed { "HEALED" } else { "FAULT" }))
        }
        What::Invoked { client, text } => ('»', format!("client {client} asks: {text}")),
        What::Answered { client, text } => ('«', format!("client {client} is told: {text}")),
        What::DiskFailed { operation, text } => ('!', format!("DISK {operation}: {text}")),
        What::Broken { invariant, clause, .. } => ('!', format!("BROKEN {invariant} ({clause})")),
        What::Dropped { events } => ('?', format!("{events} events about here are not in the trace")),
        What::Sent { message: said, .. }
        | What::Received { message: said, .. }
        | What::Lost { message: said, .. }
        | What::Duplicated { message: said, .. } => ('↺', message(said, wanted)),
    }
}

/// Records, with runs of slots accepted in one ballot taken together.
fn group(records: &[Record], more: usize, wanted: Option<Slot>) -> String {
    let mut told: Vec<String> = Vec::new();
    let mut records =
        records.iter().filter(|record| wanted.is_none_or(|slot| record_is_about(record, slot))).peekable();
    while let Some(record) = records.next() {
        told.push(match record {
            Record::Promised { ballot } => {
                while records.next_if(|next| *next == record).is_some() {}
                format!("promised {}", ballot.text)
            }
            Record::Trimmed { upto: trimmed } => format!("{} forgotten", upto(*trimmed)),
            Record::Chosen(word) => {
                // Each such word takes the place of the one before.
                let mut word = word;
                while let Some(Record::Chosen(next)) =
                    records.next_if(|next| matches!(next, Record::Chosen(_)))
                {
                    word = next;
                }
                format!("{} chosen", range(word.from, word.upto))
            }
            Record::Accepted(Acceptance { slot, ballot, .. }) => {
                let mut last = *slot;
                while let Some(Record::Accepted(next)) = records.peek()
                    && next.ballot == *ballot
                    && next.slot == last.next()
                {
                    last = next.slot;
                    records.next();
                }
                format!("accepted {} {}", ballot.text, range(*slot, Prefix::through(last)))
            }
        });
    }
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    told.join(", ")
}

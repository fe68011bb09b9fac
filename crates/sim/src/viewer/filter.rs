//! What is worth a line.

use super::Options;
use super::lanes::{Lane, Lanes};
use std::collections::BTreeSet;
use synod_paxos::types::{Prefix, Slot};
use synod_server::trace::{Event, Message, Record, What};

/// Decides line by line; some things are worth showing once only.
pub(super) struct Filter<'a> {
    options: &'a Options,
    node: Option<Lane>,
    /// Who told whom already that the wanted slot is chosen.
    told: BTreeSet<(Lane, Lane)>,
}

impl<'a> Filter<'a> {
    pub(super) fn new(options: &'a Options, lanes: &Lanes) -> Filter<'a> {
        let node = options.node.as_ref().and_then(|name| lanes.by_name(name));
        Filter { options, node, told: BTreeSet::new() }
    }

    /// What happened at one replica, or everywhere (none).
    pub(super) fn wants_event(&self, at: Option<Lane>, event: &Event) -> bool {
        let here = self.node.is_none() || at.is_none() || at == self.node;
        // A new server covers nothing, and says so.
        let empty = matches!(event.what, What::Covered { durable: Prefix::EMPTY });
        here && (self.options.all || !empty)
            && self.options.slot.is_none_or(|slot| concerns(&event.what, slot))
    }

    /// What one replica said to another, or to itself.
    pub(super) fn wants_message(&mut self, from: Lane, to: Lane, message: &Message) -> bool {
        if !self.options.all && (is_routine(message) || from == to) {
            return false;
        }
        if self.node.is_some_and(|node| node != from && node != to) {
            return false;
        }
        match (self.options.slot, message) {
            (None, _) => true,
            (Some(slot), Message::Chosen(word)) => {
                word.from <= slot && word.upto.contains(slot) && self.told.insert((from, to))
            }
            (Some(slot), _) => is_about(message, slot),
        }
    }
}

/// Said all the time, and of no interest while all is well.
pub(super) fn is_routine(message: &Message) -> bool {
    matches!(message, Message::Heartbeat { .. } | Message::HeartbeatReply { .. } | Message::Progress { .. })
}

/// Does it say something of this slot's value? Ballots concern every slot.
fn is_about(message: &Message, wanted: Slot) -> bool {
    match message {
        Message::Prepare { from, .. } => *from <= wanted,
        Message::Promise { from, until, .. } => *from <= wanted && until.is_none_or(|until| wanted < until),
        Message::Accept { slot, .. }
        | Message::Accepted { slot, .. }
        | Message::Counted { slot, .. }
        | Message::Decide { slot } => *slot == wanted,
        Message::Chosen(word) => word.from <= wanted && word.upto.contains(wanted),
        Message::Fetch { from } => *from <= wanted,
        Message::Learn { from, slots, .. } | Message::Entries { from, slots, .. } => {
            *from <= wanted && wanted.0 - from.0 < u64::try_from(*slots).unwrap_or(u64::MAX)
        }
        Message::TakeCheckpoint { applied } => applied.contains(wanted),
        Message::Refused { .. } | Message::Abdicate { .. } => true,
        Message::HandOver { .. }
        | Message::ReadQuery { .. }
        | Message::ReadAnswer { .. }
        | Message::Submit { .. }
        | Message::Heartbeat { .. }
        | Message::HeartbeatReply { .. }
        | Message::LeaderQuery { .. }
        | Message::LeaderReply { .. }
        | Message::Progress { .. } => false,
    }
}

fn concerns(what: &What, wanted: Slot) -> bool {
    match what {
        What::Persisted { records, .. } => records.iter().any(|record| record_is_about(record, wanted)),
        What::Applied { slot, .. } => *slot == wanted,
        What::Loaded { applied, .. } => applied.contains(wanted),
        What::Covered { .. } | What::Invoked { .. } | What::Answered { .. } => false,
        What::Sent { message, .. }
        | What::Received { message, .. }
        | What::Lost { message, .. }
        | What::Duplicated { message, .. } => is_about(message, wanted),
        What::Formed { .. }
        | What::Role { .. }
        | What::Restored { .. }
        | What::Leads { .. }
        | What::Note { .. }
        | What::Process { .. }
        | What::Fault { .. }
        | What::DiskFailed { .. }
        | What::Broken { .. }
        | What::Dropped { .. } => true,
    }
}

/// Does it say something of this slot's value? A promise concerns every slot.
pub(super) fn record_is_about(record: &Record, wanted: Slot) -> bool {
    match record {
        Record::Promised { .. } => true,
        Record::Accepted(acceptance) => acceptance.slot == wanted,
        Record::Trimmed { .. } | Record::Chosen(_) => false,
    }
}

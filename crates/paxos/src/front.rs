//! The front: what clients asked of this replica, kept until it is applied.
//!
//! A front names each command, sends it to whoever leads, and sends it again to the next leader, until this
//! replica's own learner has applied it. It belongs to the replica and not to a role: roles may fail and
//! come back meanwhile, and all that a client notices is a pause. Names make repetition harmless.

use crate::message::Message;
use crate::types::{Ballot, CommandId, Generation, NodeId, Sequence, Time};
use crate::value::{Action, Command};
use std::collections::BTreeMap;
use std::time::Duration;

/// Bounds of a front.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many commands may wait; more are refused, before they get a name.
    pub waiting: usize,
    /// How many bytes of commands may wait.
    pub waiting_bytes: usize,
    /// About how many bytes go into one message to the leader.
    pub message_bytes: usize,
    /// How long nothing may be applied before everything is sent again.
    pub retry: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            waiting: 20_000,
            waiting_bytes: 64 << 20,
            message_bytes: 1 << 20,
            retry: Duration::from_millis(500),
        }
    }
}

/// Too much waits already: refuse the client, nothing was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests wait for the cluster")]
pub struct Busy;

/// One replica's front, in one life.
#[derive(Clone, Debug)]
pub struct Front {
    node: NodeId,
    generation: Generation,
    options: Options,
    next: Sequence,
    waiting: BTreeMap<Sequence, Action>,
    waiting_bytes: usize,
    /// The first command that the present leader was not told yet.
    unsent: Sequence,
    leader: Option<(Ballot, NodeId)>,
    /// When something was last applied, or began to wait.
    progress: Time,
    /// When everything was last sent again for want of progress.
    resent: Time,
}

/// What became of the names when a newer life of this front turned up in the log.
pub type Renamed = Vec<(CommandId, CommandId)>;

fn size(action: &Action) -> usize {
    match action {
        Action::App(payload) => payload.len() + 64,
        Action::Reconfigure(_) => 256,
    }
}

impl Front {
    /// A front with nothing under way. `generation` must be above that of every earlier life, as far as
    /// the log tells; if it turns out not to be, see [`Front::on_generation`].
    pub fn new(node: NodeId, generation: Generation, options: Options, now: Time) -> Front {
        Front {
            node,
            generation,
            options,
            next: Sequence::FIRST,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            unsent: Sequence::FIRST,
            leader: None,
            progress: now,
            resent: now,
        }
    }

    /// Whose front this is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// This life.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// How many commands wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The names of the commands that wait.
    pub fn names(&self) -> Vec<CommandId> {
        self.waiting.keys().map(|&sequence| self.name(sequence)).collect()
    }

    /// Who is told, if anybody leads.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader.map(|(_, node)| node)
    }

    /// Since when something waits without progress.
    pub fn stalled_since(&self) -> Option<Time> {
        (!self.waiting.is_empty()).then_some(self.progress)
    }

    /// Takes a command in and gives it a name. It stays until it is applied, even if its client stops
    /// waiting.
    ///
    /// # Errors
    /// [`Busy`] when too much waits.
    pub fn submit(&mut self, action: Action, now: Time) -> Result<CommandId, Busy> {
        let bytes = size(&action);
        let full = self.waiting_bytes + bytes > self.options.waiting_bytes;
        if self.waiting.len() >= self.options.waiting || full {
            return Err(Busy);
        }
        if self.waiting.is_empty() {
            self.progress = now;
        }
        let sequence = self.next;
        self.next = sequence.next();
        self.waiting_bytes += bytes;
        self.waiting.insert(sequence, action);
        Ok(self.name(sequence))
    }

    /// A command of this front was applied; it need not be kept.
    pub fn on_applied(&mut self, id: CommandId, now: Time) {
        if id.origin == self.node && id.generation == self.generation {
            // Progress is what the oldest command makes: were any to count, one that was lost on its way would
            // wait for as long as others keep coming, and with it the answers kept for it everywhere.
            if self.waiting.first_key_value().is_some_and(|(&oldest, _)| oldest == id.sequence) {
                self.progress = now;
            }
            if let Some(action) = self.waiting.remove(&id.sequence) {
                self.waiting_bytes -= size(&action);
            }
        }
    }

    /// Somebody leads with `ballot`, as a message of its own shows.
    pub fn on_leader(&mut self, ballot: Ballot) {
        if self.leader.is_none_or(|(known, _)| known < ballot) {
            self.leader = Some((ballot, ballot.node));
            self.resend();
        }
    }

    /// The leader of `ballot` gave up.
    pub fn on_abdicated(&mut self, ballot: Ballot) {
        if self.leader.is_some_and(|(known, _)| known <= ballot) {
            self.leader = None;
        }
    }

    /// The log has heard of another life of this front. If that one is newer than this, as after a disk
    /// was wiped, nothing that this life named will ever be applied any more: everything that waits gets a
    /// new name, in a life above. `fresh` is that life. Returns old and new names.
    pub fn on_generation(&mut self, heard: Generation, fresh: Generation, now: Time) -> Renamed {
        if heard <= self.generation {
            return Vec::new();
        }
        assert!(fresh > heard, "a fresh life must be above every life the log has heard of");
        let old = self.generation;
        let actions = std::mem::take(&mut self.waiting);
        self.generation = fresh;
        self.next = Sequence::FIRST;
        let mut renamed = Vec::new();
        for (sequence, action) in actions {
            let new = self.next;
            self.next = new.next();
            self.waiting.insert(new, action);
            let before = CommandId { origin: self.node, generation: old, sequence };
            renamed.push((before, self.name(new)));
        }
        self.progress = now;
        self.resend();
        renamed
    }

    /// The learner jumped over part of the log, by a checkpoint that has heard of a newer life of this front, one
    /// that a disk forgot. In that part a command of this life may have been applied before the newer life
    /// spoke, and what remembered it is gone: naming it anew could apply it twice. So everything that waits is
    /// let go, of unknown fate, and `fresh`, a life above, begins. Returns what was let go.
    pub fn on_gap(&mut self, heard: Generation, fresh: Generation, now: Time) -> Vec<CommandId> {
        if heard <= self.generation {
            return Vec::new();
        }
        assert!(fresh > heard, "a fresh life must be above every life the log has heard of");
        let lost = self.names();
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.generation = fresh;
        self.next = Sequence::FIRST;
        self.progress = now;
        self.resend();
        lost
    }

    /// What the leader is to be told now: everything it has not been told. Nothing while nobody leads.
    pub fn flush(&mut self) -> Vec<(NodeId, Message)> {
        let Some(leader) = self.leader() else { return Vec::new() };
        let waiting_from = self.waiting.first_key_value().map_or(self.next, |(&sequence, _)| sequence);
        let mut messages = Vec::new();
        let mut commands = Vec::new();
        let mut bytes = 0;
        for (&sequence, action) in self.waiting.range(self.unsent..) {
            bytes += size(action);
            if bytes > self.options.message_bytes && !commands.is_empty() {
                messages.push((leader, Message::Submit { commands: std::mem::take(&mut commands) }));
                bytes = size(action);
            }
            commands.push(Command { id: self.name(sequence), waiting_from, action: action.clone() });
        }
        if !commands.is_empty() {
            messages.push((leader, Message::Submit { commands }));
        }
        self.unsent = self.next;
        messages
    }

    /// Sends everything again when nothing has been applied for too long.
    pub fn tick(&mut self, now: Time) {
        let since = self.progress.max(self.resent);
        if !self.waiting.is_empty() && now.since(since) >= self.options.retry {
            self.resent = now;
            self.resend();
        }
    }

    /// Sends everything again with the next flush: the connection to the leader broke, say.
    pub fn resend(&mut self) {
        self.unsent = Sequence::FIRST;
    }

    fn name(&self, sequence: Sequence) -> CommandId {
        CommandId { origin: self.node, generation: self.generation, sequence }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn sent(front: &mut Front) -> Vec<u64> {
        let commands = front.flush().into_iter().flat_map(|(_, message)| match message {
            Message::Submit { commands } => commands,
            other => panic!("a front says nothing but Submit: {other:?}"),
        });
        commands.map(|command| command.id.sequence.0).collect()
    }

    #[test]
    fn pms_30_what_may_have_been_applied_unseen_is_not_named_anew() {
        let mut front = Front::new(NodeId(1), Generation(5), Options::default(), Time(0));
        front.on_leader(Ballot { round: 1, node: NodeId(2), generation: Generation(1) });
        let id = front.submit(Action::App(Bytes::from_static(b"x")), Time(0)).unwrap();
        assert_eq!(front.on_gap(Generation(4), Generation(6), Time(0)), [], "an older life says nothing");
        assert_eq!(front.on_gap(Generation(9), Generation(10), Time(0)), [id]);
        assert_eq!(sent(&mut front), [0; 0], "neither under its old name nor under another");
        assert_eq!(front.generation(), Generation(10));
    }

    #[test]
    fn pms_30_a_command_that_was_lost_is_sent_again_although_others_move() {
        let retry = Options::default().retry;
        let mut now = Time(0);
        let mut front = Front::new(NodeId(1), Generation(1), Options::default(), now);
        front.on_leader(Ballot { round: 1, node: NodeId(2), generation: Generation(1) });
        front.submit(Action::App(Bytes::from_static(b"lost")), now).unwrap();
        assert_eq!(sent(&mut front), [1]);
        let mut again = Vec::new();
        for _ in 0..20 {
            now = now + retry / 10;
            let other = front.submit(Action::App(Bytes::from_static(b"other")), now).unwrap();
            again.extend(sent(&mut front).into_iter().filter(|&sequence| sequence == 1));
            front.on_applied(other, now);
            front.tick(now);
        }
        assert!(!again.is_empty(), "never sent again");
    }
}

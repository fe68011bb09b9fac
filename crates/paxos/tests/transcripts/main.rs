//! The protocol told as transcripts: a few replicas made of the production state machines, one message at a
//! time, under the hand of a script. The scripts are the stories in `testscripts/`; commands stand above
//! the line, everything that the cluster said and wrote below it.
//!
//! An oracle beside the cluster remembers what each ballot proposed and what each slot turned out to hold.
//! Where a script breaks a rule on purpose (`cluster bend=true`), the transcript shows what the oracle
//! found; everywhere else a finding fails the test.
//!
//! To rewrite the transcripts after a change that you can explain, line by line:
//! `UPDATE_GOLDENFILES=1 cargo test -p synod-paxos --test transcripts`.

mod node;
mod show;

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context, Runner};
use node::{Node, Options, World};
use std::collections::BTreeMap;
use std::error::Error;
use std::str::FromStr;
use std::time::Duration;
use synod_paxos::acceptor::{Limits, Record};
use synod_paxos::learner;
use synod_paxos::membership::{Change, Genesis, Member};
use synod_paxos::message::Message;
use synod_paxos::types::{ClusterId, NodeId, Prefix, Slot, Window};
use synod_paxos::value::Action;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// More deliveries than any story needs: a storm is a failure.
const STORM: usize = 2_000;

#[derive(Default)]
struct Stage {
    nodes: BTreeMap<NodeId, Node>,
    world: World,
    /// Under way for longer than usual: `stabilize` leaves them alone until `release`.
    held: Vec<(NodeId, NodeId, Message)>,
    bend: bool,
}

/// Which messages in flight a command is about: all, unless narrowed.
#[derive(Default)]
struct Filter {
    from: Option<NodeId>,
    /// Written `to=1/2/3`.
    to: Vec<NodeId>,
    kind: Option<String>,
    slot: Option<Slot>,
}

impl Filter {
    fn take(args: &mut ArgumentConsumer<'_>) -> Outcome<Filter> {
        Ok(Filter {
            from: key(args, "from")?.map(NodeId),
            to: match args.take_key("to") {
                Some(list) => list.split('/').map(|to| to.parse().map(NodeId)).collect::<Result<_, _>>()?,
                None => Vec::new(),
            },
            slot: key(args, "slot")?.map(Slot),
            kind: args.next_pos().map(str::to_owned),
        })
    }

    fn wants(&self, (from, to, message): &(NodeId, NodeId, Message)) -> bool {
        let slot = match message {
            Message::Accept { slot, .. } | Message::Accepted { slot, .. } => Some(*slot),
            _ => None,
        };
        self.from.is_none_or(|f| f == *from)
            && (self.to.is_empty() || self.to.contains(to))
            && self.kind.as_ref().is_none_or(|k| k == show::kind(message))
            && (self.slot.is_none() || self.slot == slot)
    }
}

fn key<T: FromStr>(args: &mut ArgumentConsumer<'_>, name: &str) -> Outcome<Option<T>>
where
    T::Err: Error + 'static,
{
    Ok(args.take_key(name).map(str::parse).transpose()?)
}

fn node(args: &mut ArgumentConsumer<'_>) -> Outcome<NodeId> {
    Ok(NodeId(args.next_pos().ok_or("which node?")?.parse()?))
}

impl Stage {
    fn cluster(&mut self, args: &mut ArgumentConsumer<'_>) -> Outcome<()> {
        let nodes = key(args, "nodes")?.unwrap_or(3);
        let window = Window::new(key(args, "window")?.unwrap_or(4));
        self.bend = key(args, "bend")?.unwrap_or(false);
        let limits = Limits {
            promise_bytes: key(args, "promise_bytes")?.unwrap_or(Limits::default().promise_bytes),
            ..Limits::default()
        };
        let learner = learner::Options {
            log_bytes: key(args, "log_bytes")?.unwrap_or(learner::Options::default().log_bytes),
            ..learner::Options::default()
        };
        let depth = key(args, "depth")?.unwrap_or(4);
        let hedge = key(args, "hedge")?.map(Duration::from_millis);
        let members = (1..=nodes).map(NodeId).map(|id| {
            let voter = Some(show::incarnation(id, 1));
            (id, Member { voter, ..Member::default() })
        });
        let genesis = Genesis { cluster: ClusterId(1), window, members: members.collect() };
        for id in (1..=nodes).map(NodeId) {
            self.nodes.insert(id, Node::new(id, genesis.clone(), Options { limits, learner, depth, hedge }));
        }
        Ok(())
    }

    fn take_matching(&mut self, filter: &Filter) -> Vec<(NodeId, NodeId, Message)> {
        let all = std::mem::take(&mut self.world.network);
        let (wanted, rest) = all.into_iter().partition(|envelope| filter.wants(envelope));
        self.world.network = rest;
        Vec::from(wanted)
    }

    fn deliver(&mut self, (from, to, message): (NodeId, NodeId, Message)) -> Outcome<()> {
        let node = self.nodes.get_mut(&to).ok_or("nobody there")?;
        node.deliver(from, message, &mut self.world);
        Ok(())
    }

    fn command(&mut self, command: &Command) -> Outcome<()> {
        let mut args = command.consume_args();
        let args = &mut args;
        match command.name.as_str() {
            "cluster" => self.cluster(args)?,
            "deliver" => {
                let matching = self.take_matching(&Filter::take(args)?);
                if matching.is_empty() {
                    return Err("nothing to deliver".into());
                }
                for envelope in matching {
                    self.deliver(envelope)?;
                }
            }
            "stabilize" => {
                let mut left = STORM;
                while let Some(envelope) = self.world.network.pop_front() {
                    left = left.checked_sub(1).ok_or("a storm of messages")?;
                    self.deliver(envelope)?;
                }
            }
            "drop" | "hold" => {
                let matching = self.take_matching(&Filter::take(args)?);
                for (from, to, message) in &matching {
                    let verb = if command.name == "drop" { "lost" } else { "held" };
                    self.world.say(format!("{verb}: {from} → {to} {}", show::message(message)));
                }
                if command.name == "hold" {
                    self.held.extend(matching);
                }
            }
            "release" => self.world.network.extend(std::mem::take(&mut self.held)),
            "tick" => {
                let millis = args.next_pos().unwrap_or("100").parse()?;
                self.world.now = self.world.now + Duration::from_millis(millis);
                let only = args.next_pos().map(str::parse).transpose()?.map(NodeId);
                for node in self.nodes.values_mut().filter(|node| only.is_none_or(|id| id == node.id)) {
                    node.tick(&mut self.world);
                }
            }
            "copy" => {
                let to = node(args)?;
                let mut records = Vec::new();
                while let Some(from) = args.next_pos() {
                    records.extend(self.nodes[&NodeId(from.parse()?)].records());
                }
                records.sort_by_key(|record| match record {
                    Record::Accepted { ballot, .. } => Some(*ballot),
                    _ => None,
                });
                self.nodes.get_mut(&to).ok_or("nobody there")?.copy_from(records, &mut self.world);
            }
            "install" => {
                let to = node(args)?;
                let from = NodeId(key(args, "from")?.ok_or("from whom?")?);
                let checkpoint = self.nodes[&from].checkpoint().ok_or("it is down")?;
                self.nodes.get_mut(&to).ok_or("nobody there")?.install(&checkpoint, &mut self.world)?;
            }
            "replace" => {
                let leader = NodeId(key(args, "via")?.ok_or("via which leader?")?);
                let next = key(args, "ahead")?.unwrap_or(false);
                let who = node(args)?;
                let old = key(args, "old")?.unwrap_or(1);
                let new =
                    if next { self.nodes[&who].next_incarnation() } else { self.nodes[&who].incarnation() };
                let change = Change::Replace { node: who, old: Some(show::incarnation(who, old)), new };
                let leader = self.nodes.get_mut(&leader).ok_or("nobody there")?;
                leader.propose(vec![Action::Reconfigure(change)], &mut self.world)?;
            }
            "voters" => {
                let of = node(args)?;
                let slot = Slot(key(args, "slot")?.ok_or("of which slot?")?);
                let voters = self.nodes[&of].voters(slot).ok_or("not known there")?;
                let voters = voters.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
                self.world.say(format!("{of} says slot {slot} is for {voters}"));
            }
            name => {
                let id = node(args)?;
                let node = self.nodes.get_mut(&id).ok_or("nobody there")?;
                let world = &mut self.world;
                match name {
                    "campaign" => node.campaign(world)?,
                    "propose" => {
                        let mut actions = Vec::new();
                        while let Some((key, value)) = args.next_key() {
                            actions.push(Action::App(Bytes::from(format!("{key}={value}"))));
                        }
                        node.propose(actions, world)?;
                    }
                    "decide" => node.decide(Slot(key(args, "slot")?.ok_or("which slot?")?), world)?,
                    "read" => node.read(args.next_pos().ok_or("which key?")?, world)?,
                    "crash" => node.crash(world),
                    "restart" => node.restart(key(args, "generation")?, world),
                    "forget" => {
                        let as_itself = args.take_key("as").is_some_and(|name| name == "itself");
                        node.forget(as_itself, world);
                    }
                    "trim" => node.trim(key(args, "upto")?.map(Prefix), world)?,
                    "slow" => node.slow(),
                    "sync" => node.sync(world),
                    "state" => node.describe(world),
                    other => return Err(format!("unknown command {other}").into()),
                }
            }
        }
        args.reject_next()
    }
}

impl Runner for Stage {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Outcome<String> {
        self.command(command)?;
        let mut lines = std::mem::take(&mut self.world.lines);
        let broken = std::mem::take(&mut self.world.broken);
        if !self.bend && !broken.is_empty() {
            return Err(broken.join("; ").into());
        }
        lines.extend(broken.into_iter().map(|rule| format!("BROKEN {rule}")));
        Ok(lines.into_iter().map(|line| line + "\n").collect())
    }
}

macro_rules! stories {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let path = concat!("tests/testscripts/", stringify!($name));
            goldenscript::run(&mut Stage::default(), path).expect("the story goes as told");
        }
    )*};
}

stories! {
    rediscovered_value
    duelling_proposers
    gap_filled_with_no_op
    lost_memory
    replaced_voter
    restarted_proposer
    reads_while_voters_change
    catch_up
    long_promise
    slow_disk
    bare_majority
    t1_rejoins_as_itself
    t1_refused
    t2_promise_forgotten
    t2_refused
    t3a_copied_promise
    t3a_refused
    t3b_copied_vote
    t3b_refused
    t4_one_whole_slot
    t5_dead_voter
    t6_ballot_reused
    t6_refused
    t7_newest_voters_for_an_older_slot
    t8_newest_voters_for_a_read
}

//! A log, what was asked of it, and what it must therefore remember.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::sync::Arc;
use synod_paxos::acceptor::{Acceptor, Limits, Record};
use synod_paxos::message::{Acceptance, Chosen};
use synod_paxos::types::{Ballot, ClusterId, Generation, Incarnation, NodeId, Prefix, Slot, VoterId};
use synod_paxos::value::Value;
use synod_storage::disk::{FaultyDisk, SharedDisk};
use synod_storage::recovery::OpenError;
use synod_storage::segment::LogIdentity;
use synod_storage::wal::{Opened, WalError, WalOptions, WriteAheadLog};

pub const SMALL: WalOptions = WalOptions { segment_bytes: 4096 };

pub fn identity() -> LogIdentity {
    LogIdentity { cluster: ClusterId(7), node: NodeId(2), incarnation: Incarnation(99) }
}

pub fn shared(disk: &FaultyDisk) -> SharedDisk {
    Arc::new(disk.clone())
}

pub fn ballot(round: u64) -> Ballot {
    Ballot { round, node: NodeId(1), generation: Generation(1) }
}

pub fn promised(round: u64) -> Record {
    Record::Promised { ballot: ballot(round) }
}

/// An acceptance of `len` bytes that tell it from others.
pub fn accepted(round: u64, slot: u64, len: usize) -> Record {
    let bytes: Vec<u8> = (0..len).map(|n| (n as u64 * 7 + slot * 13 + round) as u8).collect();
    Record::Accepted { ballot: ballot(round), slot: Slot(slot), value: Value::from_encoded(bytes.into()) }
}

pub fn trimmed(upto: u64) -> Record {
    Record::Trimmed { upto: Prefix(upto) }
}

pub fn chosen(round: u64, upto: u64) -> Record {
    Record::Chosen(Chosen { ballot: ballot(round), from: Slot(1), upto: Prefix(upto) })
}

/// All that an acceptor remembers (PMS-16).
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    pub promised: Option<Ballot>,
    pub trimmed: Prefix,
    pub chosen: Option<Chosen>,
    pub accepted: Vec<Acceptance>,
}

pub fn memory<'a>(records: impl IntoIterator<Item = &'a Record>) -> Memory {
    let id = VoterId { node: NodeId(2), incarnation: Incarnation(99) };
    let acceptor = Acceptor::restore(id, Limits::default(), records.into_iter().cloned());
    Memory {
        promised: acceptor.promised(),
        trimmed: acceptor.trimmed(),
        chosen: acceptor.chosen(),
        accepted: acceptor.acceptances(Slot::FIRST).collect(),
    }
}

#[derive(Clone, Debug)]
pub enum Step {
    Append(Vec<Record>),
    Write(Vec<Record>),
    Sync,
    Seal,
    Trim,
    Prepare(u64),
    /// A clean end of the process and a new start.
    Reopen,
}

/// Groups of records that a log was given.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    /// Synced: must be there.
    pub durable: Vec<Vec<Record>>,
    /// Written: may be there, from the first on.
    pub pending: Vec<Vec<Record>>,
}

impl Expectation {
    fn synced(&mut self) {
        self.durable.append(&mut self.pending);
    }

    /// Is `records` what is durable and a beginning of what is pending?
    pub fn allows(&self, records: &[Record]) -> bool {
        let found = memory(records);
        (0..=self.pending.len())
            .any(|kept| memory(self.durable.iter().chain(&self.pending[..kept]).flatten()) == found)
    }

    /// Takes what was found after a crash for the truth from now on.
    pub fn settle(&mut self, records: &[Record]) {
        *self = Expectation { durable: vec![records.to_vec()], pending: Vec::new() };
    }
}

#[derive(Debug)]
pub enum Stopped {
    Open(OpenError),
    Log(WalError),
}

/// Opens the log.
pub fn open(disk: &FaultyDisk) -> Result<Opened, OpenError> {
    WriteAheadLog::open(shared(disk), identity(), SMALL)
}

/// Performs `steps` on a log that exists, keeping book.
pub fn perform(disk: &FaultyDisk, steps: &[Step], book: &mut Expectation) -> Result<(), Stopped> {
    let mut log = open(disk).map_err(Stopped::Open)?.log;
    for step in steps {
        match step {
            Step::Append(records) => {
                book.pending.push(records.clone());
                log.append(records).map_err(Stopped::Log)?;
                book.synced();
            }
            Step::Write(records) => {
                book.pending.push(records.clone());
                log.write(records).map_err(Stopped::Log)?;
            }
            Step::Sync => {
                log.sync().map_err(Stopped::Log)?;
                book.synced();
            }
            Step::Seal => {
                log.seal().map_err(Stopped::Log)?;
                book.synced();
            }
            Step::Trim => log.trim(Prefix(u64::MAX)).map_err(Stopped::Log)?,
            Step::Prepare(budget) => drop(log.prepare_next(*budget).map_err(Stopped::Log)?),
            Step::Reopen => {
                drop(log);
                let opened = open(disk).map_err(Stopped::Open)?;
                book.synced();
                assert!(book.allows(&opened.records), "a clean restart changed the memory");
                log = opened.log;
            }
        }
    }
    Ok(())
}

/// A disk with an empty log.
pub fn fresh(seed: u64) -> FaultyDisk {
    let disk = FaultyDisk::new(seed);
    WriteAheadLog::create(shared(&disk), identity(), SMALL).unwrap();
    disk
}

/// Rolls, trims, recycles, an oversize group, unsynced writes, seals, restarts.
pub fn story() -> Vec<Step> {
    use Step::*;
    let mut steps = vec![Append(vec![promised(1)]), Append(vec![accepted(1, 1, 300), accepted(1, 2, 900)])];
    for slot in 3..9 {
        steps.push(Append(vec![accepted(1, slot, 700), chosen(1, slot - 1)]));
        steps.push(Prepare(1500));
    }
    steps.extend([
        Write(vec![accepted(1, 9, 20)]),
        Write(vec![accepted(1, 10, 1200)]),
        Sync,
        Seal,
        Append(vec![promised(5), trimmed(6)]),
        Trim,
        Append(vec![accepted(5, 11, 6000)]),
        Reopen,
        Append(vec![accepted(5, 12, 2500)]),
        Append(vec![trimmed(11)]),
        Trim,
        Append(vec![accepted(5, 13, 2500)]),
        Write(vec![promised(6)]),
        Reopen,
        Append(vec![accepted(6, 13, 2600)]),
        Seal,
        Write(vec![accepted(6, 14, 1300)]),
        Write(vec![accepted(6, 15, 10)]),
    ]);
    steps
}

//! Where a replica's memory lives: a directory that is its own, or nothing but memory.
//!
//! The identity in it says who the replica is and which incarnation of its acceptor votes. A server that comes
//! to belong to a cluster makes its log before its identity says so; afterwards a missing log, or one of another
//! incarnation, always means lost memory and never a first start.

use super::host::Host;
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use synod_paxos::membership::Genesis;
use synod_paxos::mutants::{Mutant, is};
use synod_paxos::types::{ClusterId, Generation, Incarnation, NodeId};
use synod_storage::checkpoint::{CheckpointError, CheckpointStore};
use synod_storage::datadir::{DataDir, DataDirError};
use synod_storage::disk::{MemoryDisk, SharedDisk};
use synod_storage::identity::{self, Identity, IdentityError};
use synod_storage::segment::LogIdentity;
use synod_storage::wal::{WalError, WalOptions, WriteAheadLog};

/// Where memory is kept.
#[derive(Clone, Debug)]
pub enum Place {
    /// In this directory: it survives the process.
    Directory(PathBuf),
    /// Nowhere: each process is another life.
    Memory,
}

/// Why a replica's memory cannot be used. Nothing was said to anybody that relied on it.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DataDirError),
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A new log cannot be made.
    #[error(transparent)]
    Log(#[from] WalError),
    /// An old checkpoint cannot be thrown away.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// See the module.
pub(crate) struct Home {
    /// Held for its lock, until the replica has stopped.
    directory: Mutex<Option<DataDir>>,
    disk: SharedDisk,
    host: Arc<dyn Host>,
    durable: bool,
    options: WalOptions,
    /// Held while the identity is being changed on disk, so that changes come one after the other.
    writing: Mutex<()>,
    /// As on disk. Held for moments only: the core looks at it.
    identity: Mutex<Identity>,
}

/// How many bits of a new identity's first count of starts are chance.
const FIRST_BOOTS_CHANCE: u32 = 20;

/// How far at most a life steps over another that it has heard of.
const STEP: u64 = 1 << 20;

impl Home {
    /// Takes the place over, and counts this start.
    pub(crate) fn open(
        place: &Place,
        name: &str,
        node: NodeId,
        segment_bytes: u64,
        host: Arc<dyn Host>,
    ) -> Result<Home, HomeError> {
        let (directory, disk): (Option<DataDir>, SharedDisk) = match place {
            Place::Directory(path) => {
                let directory = DataDir::open(path, name)?;
                let disk: SharedDisk = Arc::new(directory.disk().clone());
                (Some(directory), disk)
            }
            Place::Memory => (None, Arc::new(MemoryDisk::new())),
        };
        let durable = directory.is_some();
        let mut home = Home::on(disk, name, node, segment_bytes, host)?;
        home.directory = Mutex::new(directory);
        home.durable = durable;
        Ok(home)
    }

    /// [`Home::open`], on whatever disk.
    pub(crate) fn on(
        disk: SharedDisk,
        name: &str,
        node: NodeId,
        segment_bytes: u64,
        host: Arc<dyn Host>,
    ) -> Result<Home, HomeError> {
        let identity = match identity::start(&disk, Some(node)) {
            Ok(Some(identity)) => identity,
            Ok(None) => blank(&disk, &*host, name, node)?,
            Err(error @ IdentityError::Damaged { .. }) => {
                tracing::error!(%error, "who this server was is lost: it comes back as another");
                blank(&disk, &*host, name, node)?
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Home {
            directory: Mutex::new(None),
            disk,
            host,
            durable: true,
            options: WalOptions { segment_bytes },
            writing: Mutex::new(()),
            identity: Mutex::new(identity),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does memory survive the process?
    pub(crate) fn is_durable(&self) -> bool {
        self.durable
    }

    /// Lets go of the directory: every role has stopped, and nothing is written any more.
    pub(crate) fn release(&self) {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The files.
    pub(crate) fn disk(&self) -> SharedDisk {
        Arc::clone(&self.disk)
    }

    /// How the log is laid out.
    pub(crate) fn log_options(&self) -> WalOptions {
        self.options
    }

    /// The incarnation of this replica's acceptor.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.lock().incarnation
    }

    /// The name of the present log; none while there is no cluster.
    pub(crate) fn log_identity(&self) -> Option<LogIdentity> {
        let identity = self.lock();
        identity.cluster.map(|cluster| log_identity(&identity, cluster, identity.incarnation))
    }

    /// What formation had remembered; none if nothing.
    pub(crate) fn formation(&self) -> Option<Bytes> {
        let identity = self.lock();
        (!identity.formation.is_empty()).then(|| identity.formation.clone())
    }

    /// The life of this process's front.
    pub(crate) fn generation(&self) -> Generation {
        if is(Mutant::ReusesNames) { Generation(1) } else { self.lock().generation() }
    }

    /// A life of a proposer or reader: unguessable, so none is lived twice.
    pub(crate) fn fresh_generation(&self) -> Generation {
        Generation(self.host.random())
    }

    /// A life of the front above `heard`. Random beyond that, because another life that was forgotten may
    /// have stepped over it, too.
    pub(crate) fn generation_above(&self, heard: Generation) -> Generation {
        Generation(heard.0.saturating_add(1 + self.host.random() % STEP))
    }

    /// Remembers the state of formation. With `formed`, this server belongs to a cluster from now on: its
    /// empty log is made first.
    pub(crate) fn save_formation(&self, state: Bytes, formed: Option<&Genesis>) -> Result<(), HomeError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.lock().clone();
        next.formation = state;
        if let (Some(genesis), None) = (formed, next.cluster) {
            let log = log_identity(&next, genesis.cluster, next.incarnation);
            WriteAheadLog::create(self.disk(), log, self.options)?;
            next.cluster = Some(genesis.cluster);
            next.genesis = Some(genesis.clone());
        }
        identity::save(&self.disk, &next)?;
        *self.lock() = next;
        Ok(())
    }

    /// After a write that failed: the identity is what the disk holds for good, whether that is the one before the
    /// write or the one after it.
    pub(crate) fn reload(&self) -> Result<(), HomeError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut identity = self.lock();
        if let Some(stored) = identity::load(&self.disk, Some(identity.node))? {
            *identity = stored;
        }
        Ok(())
    }

    /// The acceptor's memory is lost: begins another incarnation, with an empty log (rule R1).
    pub(crate) fn new_incarnation(&self) -> Result<(), HomeError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.lock().clone();
        if !is(Mutant::KeepsIncarnation) {
            next.incarnation = fresh_incarnation(&*self.host);
        }
        // The identity first: were the old log emptied under the old name and the rest not done, what is left of
        // it could pass for a log that was trimmed. A new name without its log is lost memory, plainly.
        identity::save(&self.disk, &next)?;
        *self.lock() = next.clone();
        if let Some(cluster) = next.cluster {
            let log = log_identity(&next, cluster, next.incarnation);
            WriteAheadLog::create(self.disk(), log, self.options)?;
        }
        Ok(())
    }
}

fn log_identity(identity: &Identity, cluster: ClusterId, incarnation: Incarnation) -> LogIdentity {
    LogIdentity { cluster, node: identity.node, incarnation }
}

/// Where a new identity begins to count its starts. Chance, so that no two begin alike; behind the milliseconds of
/// the clock, so that it is usually above the count of an identity that was lost here. "Usually" is enough: if
/// the clock went back, the log tells, and the front steps above it.
fn first_boots(host: &dyn Host) -> u64 {
    let millis = u64::try_from(host.unix().as_millis()).unwrap_or(0) & ((1 << 42) - 1);
    millis << FIRST_BOOTS_CHANCE | host.random() & ((1 << FIRST_BOOTS_CHANCE) - 1)
}

fn fresh_incarnation(host: &dyn Host) -> Incarnation {
    Incarnation(u128::from(host.random()) << 64 | u128::from(host.random()))
}

/// An identity without a past, durable. What an earlier one left behind is thrown away.
fn blank(disk: &SharedDisk, host: &dyn Host, name: &str, node: NodeId) -> Result<Identity, HomeError> {
    CheckpointStore::reset(Arc::clone(disk))?;
    let identity = Identity {
        name: name.to_owned(),
        node,
        incarnation: fresh_incarnation(host),
        cluster: None,
        genesis: None,
        boots: first_boots(host),
        formation: Bytes::new(),
    };
    identity::save(disk, &identity)?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::super::system::System;
    use super::*;
    use std::collections::BTreeMap;
    use synod_paxos::acceptor::Record;
    use synod_paxos::types::{Ballot, Slot, Window};
    use synod_paxos::value::Value;
    use synod_storage::disk::{CrashPoint, FaultyDisk, Survivors};

    fn home(disk: &FaultyDisk) -> Result<Home, HomeError> {
        Home::on(Arc::new(disk.clone()), "n1", NodeId(1), 4096, Arc::new(System::new(None)))
    }

    /// A home with a log of several segments, none of them trimmed, and what is in them.
    fn lived_in() -> (FaultyDisk, Vec<Record>) {
        let disk = FaultyDisk::new(1);
        let home = home(&disk).unwrap();
        let genesis = Genesis { cluster: ClusterId(7), window: Window::new(4), members: BTreeMap::new() };
        home.save_formation(Bytes::from_static(b"formed"), Some(&genesis)).unwrap();
        let mut log =
            WriteAheadLog::open(home.disk(), home.log_identity().unwrap(), home.log_options()).unwrap().log;
        let ballot = Ballot { round: 1, node: NodeId(1), generation: Generation(1) };
        for slot in 1..=12 {
            let value = Value::from_encoded(Bytes::from(vec![1; 1500]));
            log.append(&[Record::Accepted { ballot, slot: Slot(slot), value }]).unwrap();
        }
        log.seal().unwrap();
        assert!(log.segments() > 3, "several segments are the point of this");
        let log = WriteAheadLog::open(home.disk(), home.log_identity().unwrap(), home.log_options()).unwrap();
        (disk, log.records)
    }

    #[test]
    fn r1_a_change_of_incarnation_that_is_cut_short_leaves_the_whole_log_or_none_of_it() {
        let (before, records) = lived_in();
        let whole = before.fork(0);
        let opened = home(&whole).unwrap();
        let from = whole.operations();
        opened.new_incarnation().unwrap();
        let operations = whole.operations() - from;
        assert!(operations > 5, "nothing to cut short");
        for (operation, point, survivors) in (1..=operations).flat_map(|operation| {
            let points = [CrashPoint::Before, CrashPoint::During, CrashPoint::After];
            points.into_iter().flat_map(move |point| {
                [None, Some(Survivors::None), Some(Survivors::All), Some(Survivors::Some)]
                    .map(|survivors| (operation, point, survivors))
            })
        }) {
            let disk = before.fork(operation);
            let life = home(&disk).unwrap();
            let old = life.incarnation();
            disk.crash_at(disk.operations() + operation, point);
            let _ = life.new_incarnation(); // it dies in there
            match survivors {
                None => disk.process_crash(),
                Some(survivors) => disk.power_cut(survivors),
            }
            let life = home(&disk).unwrap();
            let log = WriteAheadLog::open(life.disk(), life.log_identity().unwrap(), life.log_options());
            let place = format!("{point:?} operation {operation}, then {survivors:?}");
            match log {
                Ok(opened) if life.incarnation() == old => {
                    assert_eq!(
                        opened.records, records,
                        "{place}: the old acceptor votes without some of its memory"
                    );
                }
                Ok(opened) => assert_eq!(opened.records, [], "{place}: a new acceptor begins with nothing"),
                Err(error) => assert!(error.is_lost_memory(), "{place}: {error}"),
            }
        }
    }
}

//! Where a replica's memory lives: a directory that is its own, or nothing but memory.
//!
//! The identity in it says who the replica is and which incarnation of its acceptor votes. A server that comes
//! to belong to a cluster makes its log before its identity says so; afterwards a missing log, or one of another
//! incarnation, always means lost memory and never a first start.

use bytes::Bytes;
use rand::RngExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use synod_paxos::membership::Genesis;
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
    ) -> Result<Home, HomeError> {
        let (directory, disk): (Option<DataDir>, SharedDisk) = match place {
            Place::Directory(path) => {
                let directory = DataDir::open(path, name)?;
                let disk: SharedDisk = Arc::new(directory.disk().clone());
                (Some(directory), disk)
            }
            Place::Memory => (None, Arc::new(MemoryDisk::new())),
        };
        let identity = match identity::start(&disk, Some(node)) {
            Ok(Some(identity)) => identity,
            Ok(None) => blank(&disk, name, node)?,
            Err(error @ IdentityError::Damaged { .. }) => {
                tracing::error!(%error, "who this server was is lost: it comes back as another");
                blank(&disk, name, node)?
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Home {
            directory: Mutex::new(directory),
            disk,
            durable: matches!(place, Place::Directory(_)),
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
        self.lock().generation()
    }

    /// A life of a proposer or reader: unguessable, so none is lived twice.
    pub(crate) fn fresh_generation(&self) -> Generation {
        Generation(self.random())
    }

    /// A life of the front above `heard`. Random beyond that, because another life that was forgotten may
    /// have stepped over it, too.
    pub(crate) fn generation_above(&self, heard: Generation) -> Generation {
        Generation(heard.0.saturating_add(1 + self.random() % STEP))
    }

    /// Chance from the system.
    pub(crate) fn random(&self) -> u64 {
        rand::rng().random()
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

    /// The acceptor's memory is lost: begins another incarnation, with an empty log (rule R1).
    pub(crate) fn new_incarnation(&self) -> Result<(), HomeError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.lock().clone();
        next.incarnation = Incarnation(rand::rng().random());
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
fn first_boots(chance: u64) -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(unix.as_millis()).unwrap_or(0) & ((1 << 42) - 1);
    millis << FIRST_BOOTS_CHANCE | chance & ((1 << FIRST_BOOTS_CHANCE) - 1)
}

/// An identity without a past, durable. What an earlier one left behind is thrown away.
fn blank(disk: &SharedDisk, name: &str, node: NodeId) -> Result<Identity, HomeError> {
    CheckpointStore::reset(Arc::clone(disk))?;
    let mut chance = rand::rng();
    let identity = Identity {
        name: name.to_owned(),
        node,
        incarnation: Incarnation(chance.random()),
        cluster: None,
        genesis: None,
        boots: first_boots(chance.random()),
        formation: Bytes::new(),
    };
    identity::save(disk, &identity)?;
    Ok(identity)
}

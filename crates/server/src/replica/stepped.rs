//! A replica without threads: whoever holds it decides what runs next, and when.
//!
//! The parts are those of a server, down to the mailboxes between them: the core, and the lives of roles that the
//! supervisor hands to the [`Host`]. A simulator lets each take its turns in an order of its own choosing, carries
//! the messages, and lets time pass.

use super::checkpoint::{PIECE_BYTES, Snapshot};
use super::core::Core;
use super::forming::Forming;
use super::handle::{Answer, RequestError};
use super::home::Home;
use super::host::{Host, Links};
use super::{CoreInput, RandomFaults, ReplicaConfig, ReplicaStatus, RoleFault, Shared, StartError, assemble};
use bytes::Bytes;
use std::sync::Arc;
use synod_kv::{StateHash, Store};
use synod_paxos::formation::FormationMessage;
use synod_paxos::membership::Change;
use synod_paxos::message::Message;
use synod_paxos::types::{NodeId, Prefix, Slot, VoterId};
use synod_paxos::value::Action;
use synod_storage::disk::SharedDisk;
use tokio::sync::oneshot;

/// A checkpoint on its way between two replicas.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Everything up to here is in it.
    pub covered: Prefix,
    /// Membership and sessions.
    pub machine: Bytes,
    /// The store's image.
    pub blocks: Vec<Bytes>,
}

/// See the module.
pub struct Stepped {
    shared: Arc<Shared>,
    core: Core,
    forming: Forming,
}

/// An answer that may not be there yet.
pub type Pending<T> = oneshot::Receiver<Result<T, RequestError>>;

impl Stepped {
    /// Takes over the memory on `disk` and makes every part of the replica. Nothing runs yet.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(
        config: ReplicaConfig,
        disk: SharedDisk,
        host: Arc<dyn Host>,
        links: Arc<dyn Links>,
    ) -> Result<Stepped, StartError> {
        let home = Home::on(disk, &config.name, config.node, config.segment_bytes, Arc::clone(&host))?;
        let (shared, forming) = assemble(config, home, host)?;
        let _ = shared.links.set(links); // set here only
        let core = Core::new(Arc::clone(&shared), forming.clone());
        Ok(Stepped { shared, core, forming })
    }

    /// Is there work for the core?
    pub fn core_is_ready(&self) -> bool {
        self.shared.core.is_ready()
    }

    /// The core's turn, with a tick of its clock or without.
    pub fn turn(&mut self, ticked: bool) {
        self.core.turn(ticked);
    }

    /// Was it asked to stop, and is it ready to?
    pub fn may_stop(&self) -> bool {
        self.core.may_stop()
    }

    /// Asks for a clean end.
    pub fn begin_stopping(&self) {
        let (done, _) = oneshot::channel();
        self.shared.core.push(CoreInput::Shutdown(done));
    }

    /// A clean end's last words: what acceptor and learner have to write.
    pub fn seal(&self) {
        self.shared.seal_acceptor();
    }

    // -- what arrives ------------------------------------------------------------------------------

    /// Messages of a peer arrive together.
    pub fn deliver(&self, from: NodeId, messages: Vec<Message>) {
        self.shared.core.offer(CoreInput::Peer { from, messages });
    }

    /// The link to a peer came up, or broke.
    pub fn connected(&self, node: NodeId, up: bool) {
        self.shared.core.push(if up { CoreInput::Connected(node) } else { CoreInput::Disconnected(node) });
    }

    /// A peer's question about formation; returns what there is to say to that peer.
    pub fn hear(&self, message: FormationMessage) -> Vec<FormationMessage> {
        self.forming.on_asked(&self.shared, message)
    }

    /// The applied state, for a peer that asked; none if there is none, or some of it cannot be read.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let snapshot = Snapshot::take(&self.shared)?;
        let blocks = snapshot.store.chunks(PIECE_BYTES).collect::<Result<_, _>>().ok()?;
        Some(Checkpoint { covered: snapshot.covered, machine: snapshot.machine, blocks })
    }

    // -- clients -----------------------------------------------------------------------------------

    /// Has the log decide an encoded [`synod_kv::Request`].
    ///
    /// # Errors
    /// When it was not taken in; nothing was started then.
    pub fn propose(&self, request: Bytes) -> Result<Pending<Answer>, RequestError> {
        self.shared.submit(Action::App(request))
    }

    /// Has the log decide a change of the cluster.
    ///
    /// # Errors
    /// As [`Stepped::propose`].
    pub fn reconfigure(&self, change: Change) -> Result<Pending<Answer>, RequestError> {
        self.shared.submit(Action::Reconfigure(change))
    }

    /// Asks how far the store must be applied for a linearizable read.
    ///
    /// # Errors
    /// As [`Stepped::propose`].
    pub fn ask_to_read(&self) -> Result<Pending<Prefix>, RequestError> {
        self.shared.ask_to_read()
    }

    /// Looks at the store, if it is applied that far.
    pub fn look<T>(&self, need: Prefix, read: impl FnOnce(&Store) -> T) -> Option<T> {
        self.shared.look(need, read)
    }

    // -- faults, and people ------------------------------------------------------------------------

    /// Makes a role fail, or lets it come back.
    pub fn fail_role(&self, fault: RoleFault) {
        self.shared.core.push(CoreInput::Fault(fault));
    }

    /// Lets roles fail at random until told otherwise (none).
    pub fn fail_at_random(&self, faults: Option<RandomFaults>) {
        self.shared.core.push(CoreInput::Random(faults));
    }

    /// Where this replica stands.
    pub fn status(&self) -> ReplicaStatus {
        self.shared.status()
    }

    /// How far the log is applied, and the store's hash there; none while there is no state.
    pub fn applied(&self) -> Option<(Prefix, StateHash)> {
        self.shared.read_state().as_ref().map(|state| (state.machine.applied(), state.store.state_hash()))
    }

    /// The state hash right after `slot` was applied, if it is still remembered.
    pub fn state_hash_at(&self, slot: Slot) -> Option<StateHash> {
        self.shared.state_hash_at(slot)
    }

    /// Who this replica's acceptor is at present.
    pub fn voter(&self) -> VoterId {
        self.shared.voter()
    }

    /// Wants a checkpoint, whatever the log's size.
    pub fn checkpoint_soon(&self) {
        self.shared.checkpoint_soon();
    }
}

//! One replica: its roles, each on its own, and what they share.
//!
//! ```text
//!   clients' threads          core (one thread, one runtime)              threads of their own
//!   ────────────────          ──────────────────────────────              ────────────────────
//!   propose ──> desk ───────> front ──> proposer ──┬──> peers
//!                                          ^       ├──> acceptor ──> log (one sync per batch)
//!   read ─────────────────> reader ──> peers       │        └──> answers to proposers
//!                                                  └──> learner ──> store, desk ──> clients
//! ```
//!
//! The core hosts what must never wait for a disk: the streams between replicas, the proposer role with its
//! election, the reader, and the supervisor of the roles. The acceptor is a thread because it waits for its
//! log; the learner is one because applying may take long. Roles talk through mailboxes and may be stopped
//! and started at any time; what clients wait for stays at the desk.

mod acceptor;
mod answer;
mod checkpoint;
mod core;
mod desk;
mod faults;
mod forming;
mod forward;
mod handle;
mod home;
mod host;
mod inbox;
mod learner;
mod mailbox;
mod observation;
mod roles;
mod shared;
mod status;
mod stepped;
mod system;
mod upkeep;

pub use faults::{Direction, FaultError, LinkFault, Memory, RandomFaults, RoleFault};
pub use handle::{Answer, Consistency, Replica, RequestError};
pub use home::{HomeError, Place};
pub use host::{Arrived, Heard, Host, Job, Links};
pub use observation::Observation;
pub use roles::Life;
pub use status::{Event, PeerStatus, ReplicaStatus, Role, RoleState, RoleStatus};
pub use stepped::{Checkpoint, Pending, Stepped};

pub(crate) use shared::Shared;

use self::core::Core;
use crate::peers::{Handlers, Transport, TransportConfig, TransportError};
use crate::trace::Recorder;
use checkpoint::read_machine;
use forming::Forming;
use home::Home;
use inbox::Doorman;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use synod_kv::{Restore, Store};
use synod_paxos::formation::{Formation, Plan};
use synod_paxos::machine::Machine;
use synod_paxos::membership::Membership;
use synod_paxos::message::Message;
use synod_paxos::types::{Ballot, NodeId, Prefix, Slot, VoterId};
use synod_paxos::{acceptor as acceptors, election, front, learner as learners, proposer};
use system::{PeerLinks, System};
use tokio::sync::oneshot;

/// What a replica needs to know to start.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// Its operator's name for it.
    pub name: String,
    /// Its id, derived from what is known of it everywhere.
    pub node: NodeId,
    /// Where its memory lives.
    pub place: Place,
    /// The initial members, as on every server of the cluster.
    pub plan: Plan,
    /// Where clients are told to reach it.
    pub client_urls: Vec<String>,
    /// Where it listens for the others.
    pub peer_addrs: Vec<SocketAddr>,
    /// May roles be made to fail?
    pub allow_faults: bool,
    /// How patient its election is.
    pub patience: election::Options,
    /// How long a client waits at most.
    pub request_timeout: Duration,
    /// A checkpoint is due after this many bytes of log. It writes what changed; or the whole store, if the last one's
    /// files hold this many bytes more than twice what the store does.
    pub checkpoint_bytes: u64,
    /// The size of one segment of the log.
    pub segment_bytes: u64,
    /// The protocol's bounds.
    pub limits: ProtocolLimits,
}

/// The protocol's bounds, each role's. The defaults are for servers; a simulator draws tighter ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProtocolLimits {
    /// The acceptor's.
    pub acceptor: acceptors::Limits,
    /// The proposer's.
    pub proposer: proposer::Options,
    /// The learner's.
    pub learner: learners::Options,
    /// The front's.
    pub front: front::Options,
}

/// Why a replica did not start. Nothing was answered to anybody.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its memory cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The initial members make no sense.
    #[error(transparent)]
    Formation(#[from] synod_paxos::formation::FormationError),
    /// It cannot listen for the others.
    #[error("{0}; is another server running, or the port in --listen-peer-urls taken?")]
    Listen(TransportError),
    /// The system refuses a thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

impl ReplicaConfig {
    /// A ballot for people: its round and the name of its proposer.
    pub(crate) fn show(&self, ballot: Ballot) -> String {
        format!("{}.{}", ballot.round, self.plan_name(ballot.node))
    }

    /// The name of a member, as far as the initial members tell.
    pub(crate) fn plan_name(&self, node: NodeId) -> String {
        self.plan.founder(node).map_or_else(|| node.to_string(), |founder| founder.name.clone())
    }
}

impl Replica {
    /// Takes over its memory, listens for the others, and starts its core. Returns once peers can reach it;
    /// whether there is a cluster yet, [`Replica::status`] tells.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: ReplicaConfig) -> Result<Replica, StartError> {
        Replica::start_traced(config, None).await
    }

    /// As [`Replica::start`]; what the replica observes goes to `trace`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_traced(config: ReplicaConfig, trace: Option<Recorder>) -> Result<Replica, StartError> {
        let host: Arc<dyn Host> = Arc::new(System::new(trace));
        let home =
            Home::open(&config.place, &config.name, config.node, config.segment_bytes, Arc::clone(&host))?;
        let (shared, forming) = assemble(config, home, host)?;
        let (ready, started) = oneshot::channel();
        let replica = Replica { shared: Arc::clone(&shared) };
        std::thread::Builder::new()
            .name("core".into())
            .spawn(move || {
                let ended = catch_unwind(AssertUnwindSafe(|| run_core(shared, forming, ready)));
                if ended.is_err() {
                    // Nothing works without it, and a power cut is as safe: whoever watches starts it again.
                    tracing::error!("the core panicked; the process ends");
                    std::process::abort();
                }
            })
            .map_err(StartError::Thread)?;
        match started.await {
            Ok(Ok(())) => Ok(replica),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StartError::Thread(std::io::Error::other("the core ended before it began"))),
        }
    }
}

/// What core, roles and clients share, and formation with what it remembers.
fn assemble(
    config: ReplicaConfig,
    home: Home,
    host: Arc<dyn Host>,
) -> Result<(Arc<Shared>, Forming), StartError> {
    let me = VoterId { node: config.node, incarnation: home.incarnation() };
    let formation = match home.formation() {
        Some(state) => Formation::restore(me, config.plan.clone(), state)?,
        None => Formation::new(me, config.plan.clone())?,
    };
    let shared = Arc::new(Shared::new(config, home, host));
    let forming = Forming::new(&shared, formation);
    Ok((shared, forming))
}

/// The core's thread: a runtime of its own for the streams between replicas and what hangs on them.
fn run_core(shared: Arc<Shared>, forming: Forming, ready: oneshot::Sender<Result<(), StartError>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(StartError::Thread(error)));
            return;
        }
    };
    runtime.block_on(async move {
        let config = &shared.config;
        let others =
            config.plan.nodes().filter_map(|node| Some((node, config.plan.founder(node)?.peer_urls.clone())));
        let transport = TransportConfig {
            node: shared.node,
            cluster: None,
            listen: config.peer_addrs.clone(),
            peers: others.collect(),
            seed: shared.host.random(),
        };
        let doorman = Arc::new(Doorman { shared: Arc::clone(&shared), forming: forming.clone() });
        let handlers =
            Handlers { inbox: doorman.clone(), checkpoints: doorman.clone(), formation: doorman.clone() };
        match Transport::start(transport, handlers).await {
            Ok(transport) => {
                let transport = Arc::new(transport);
                let _ = shared.links.set(Arc::new(PeerLinks(Arc::clone(&transport)))); // set here only
                let _ = ready.send(Ok(())); // whoever started us may be gone
                let tick = shared.config.patience.tick;
                // In a task: the runtime asks the system for news before each look at what it blocks on.
                let core = Core::new(Arc::clone(&shared), forming).run(tick, transport);
                if let Err(ended) = tokio::spawn(core).await {
                    std::panic::resume_unwind(ended.into_panic());
                }
            }
            Err(error) => {
                let _ = ready.send(Err(StartError::Listen(error)));
            }
        }
    });
}

/// The applied state: what the log has made of the store and of the cluster, at one slot.
pub struct State {
    pub(crate) store: Store,
    pub(crate) machine: Machine<Answer>,
}

impl State {
    /// Two halves of a checkpoint that covers the log up to `covered`. An error if they are of different slots.
    pub(crate) fn of(store: Store, machine: Machine<Answer>, covered: Prefix) -> Result<State, String> {
        if machine.applied() == covered {
            Ok(State { store, machine })
        } else {
            Err("store and protocol state are of different slots".into())
        }
    }

    /// The state in a checkpoint of another replica.
    ///
    /// # Errors
    /// In words, when it is not whole.
    pub fn restore(checkpoint: Checkpoint) -> Result<State, String> {
        let mut restore = Restore::new();
        for block in checkpoint.blocks {
            restore.push(block).map_err(|error| error.to_string())?;
        }
        let store = restore.finish().map_err(|error| error.to_string())?;
        State::of(store, read_machine(checkpoint.machine)?, checkpoint.covered)
    }
}

/// What the acceptor shows of itself without being asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AcceptorView {
    pub(crate) voter: VoterId,
    pub(crate) highest: Prefix,
    pub(crate) trimmed: Prefix,
    pub(crate) log_bytes: u64,
}

/// How far the learner has come.
pub(crate) struct Applied {
    pub(crate) life: u64,
    pub(crate) membership: Membership,
    pub(crate) chosen: Prefix,
    pub(crate) known: Prefix,
    pub(crate) log_start: Option<Slot>,
}

/// What the core is told.
pub(crate) enum CoreInput {
    /// Messages of a peer.
    Peer { from: NodeId, messages: Vec<Message> },
    /// Messages of this replica's own roles to itself.
    Local(Vec<Message>),
    /// A peer can be reached.
    Connected(NodeId),
    /// It no longer can.
    Disconnected(NodeId),
    /// The learner applied something.
    Applied(Applied),
    /// This replica's durable store covers this much.
    Durable { life: u64, prefix: Prefix },
    /// The learner wants a checkpoint of another replica.
    Install { life: u64, from: NodeId },
    /// The acceptor began a life.
    AcceptorUp { life: u64, voter: VoterId },
    /// The learner began a life.
    LearnerUp { life: u64, applied: Prefix, durable: Prefix },
    /// A role's thread ended: because it was told to, or by an error.
    Ended { role: Role, life: u64, error: Option<String> },
    /// Make a role fail, or come back.
    Fault(RoleFault),
    /// Let roles fail at random, or stop that.
    Random(Option<RandomFaults>),
    /// Stop cleanly, then say so.
    Shutdown(oneshot::Sender<()>),
}

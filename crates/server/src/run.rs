//! One server, from its start to its end.
//!
//! First the ports: a port that is taken is found out before anything is written. Then the replica, which
//! opens its memory and meets the others by itself; a server answers its clients while it still does that,
//! if only to say why it cannot serve them. Then nothing, until somebody wants it to stop:
//!
//! ```text
//!   SIGTERM, SIGINT     accept no more, finish what is under way, hand leadership over, sync, exit 0
//!   the same again      exit at once: as safe as a power cut, because it is one
//!   stdin ends          as SIGTERM, if --exit-with-parent says that a parent holds the other end
//! ```
//!
//! Clients are served by a runtime of their own; the replica has its own threads.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::process;
use std::time::Duration;

use synod_paxos::election;
use synod_paxos::formation::{Founder, Plan};
use synod_paxos::types::Window;
use synod_storage::identity::IdentityError;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tracing_subscriber::EnvFilter;

use crate::api::{self, ApiOptions};
use crate::config::{HttpUrl, LogFormat, MemoryMode, ServerConfig};
use crate::http;
use crate::listen::{self, ListenError};
use crate::metrics::Metrics;
use crate::replica::{HomeError, Place, ProtocolLimits, Replica, ReplicaConfig, StartError};
use crate::trace::{Recorder, TraceError, What};

/// How far ahead of the applied slots may be proposed (the paper's alpha): enough to keep disks and network
/// busy, little enough that a change of the configuration comes soon.
const WINDOW: u64 = 64;

/// A checkpoint is due after so many bytes of log. Half of what a learner keeps of the log for others: an acceptor that
/// is not asked has nothing of its own behind its checkpoint, and shall not need the whole state of another after a start.
const CHECKPOINT_BYTES: u64 = 12 << 20;

/// The size of one segment of the log, in bytes.
const SEGMENT_BYTES: u64 = 8 << 20;

/// How long a stop may take, all in all.
const STOP: Duration = Duration::from_secs(5);

/// How much of that calls under way may take; the rest is the replica's.
const CALLS_END: Duration = Duration::from_secs(2);

/// How long the trace may take to be written after all that.
const TRACE_END: Duration = Duration::from_secs(1);

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A port cannot be listened on. Nothing was written.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The replica did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There can be no trace, and one was asked for. Nothing was written.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The system refuses what every process needs. Nothing was written.
    #[error("the system refuses {what}: {source}")]
    System {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

impl ServerError {
    /// What an operator can do about it, where the error does not say that itself.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            ServerError::Start(StartError::Home(HomeError::Identity(IdentityError::Foreign { .. }))) => Some(
                "Nothing was changed. A server's id comes from its peer URLs in --initial-cluster and from \
                 --initial-cluster-token: if neither changed, give this one a directory of its own.",
            ),
            ServerError::Start(StartError::Home(HomeError::Identity(IdentityError::Format { .. }))) => {
                Some("Nothing was changed. Run the release that wrote it, or a newer one.")
            }
            _ => None,
        }
    }
}

/// Sends events to standard error from now on, as the configuration says, one line each. Does nothing if
/// somebody decided before where events go.
pub fn init_logging(config: &ServerConfig) {
    // Checked with the rest of the configuration.
    let filter = EnvFilter::new(&config.log_level);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let _ = match config.log_format {
        LogFormat::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}

/// Runs a server until it is told to stop, on a runtime of its own. Not to be called from within another.
///
/// # Errors
/// If it does not start. Once it runs, it ends well.
pub fn run_to_end(config: ServerConfig) -> Result<(), ServerError> {
    init_logging(&config);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.saturating_sub(1).max(1))
        .thread_name("clients")
        .enable_all()
        .build()
        .map_err(|source| ServerError::System { what: "threads", source })?;
    let ended = runtime.block_on(run(config));
    // What is still under way now has been told that this server stops.
    runtime.shutdown_background();
    ended
}

/// Runs a server until it is told to stop.
///
/// # Errors
/// If it does not start. Once it runs, it ends well.
pub async fn run(config: ServerConfig) -> Result<(), ServerError> {
    let mut stop = Stop::new(config.exit_with_parent)?;
    let mut clients = Vec::new();
    for url in &config.listen_client_urls {
        clients.push((url, listen::bind(url, "--listen-client-urls").await?));
    }
    let mut peer_addrs = Vec::new();
    for url in &config.listen_peer_urls {
        // The replica listens there itself; here we only see that it can, before it opens its memory.
        let probe = listen::bind(url, "--listen-peer-urls").await?;
        peer_addrs.push(probe.local_addr().map_err(|source| ServerError::System { what: "a port", source })?);
    }
    announce(&config);
    let trace = begin_trace(&config)?;
    let replica = Replica::start_traced(replica_config(&config, peer_addrs), trace.clone()).await?;
    let (close, closing) = watch::channel(false);
    let mut serving = serve(&config, &replica, clients, &closing);

    let why = stop.asked().await;
    tracing::info!(why, "stopping: no more calls are accepted, leadership is handed over");
    close.send_replace(true);
    let finish = async {
        while serving.join_next().await.is_some() {}
        replica.shutdown().await;
    };
    tokio::select! {
        () = finish => tracing::info!("stopped"),
        () = tokio::time::sleep(STOP) => tracing::warn!(took = ?STOP, "stopped before all was finished"),
        why = stop.asked() => {
            tracing::warn!(why, "asked again: stopping at once");
            process::exit(1);
        }
    }
    if let Some(trace) = trace {
        trace.record(What::Process { up: false, text: format!("stopped: {why}") });
        let closed = tokio::task::spawn_blocking(move || trace.close());
        if tokio::time::timeout(TRACE_END, closed).await.is_err() {
            tracing::warn!("the last events are not in the trace: its disk is too slow");
        }
    }
    Ok(())
}

/// Opens the trace, if one is wanted.
fn begin_trace(config: &ServerConfig) -> Result<Option<Recorder>, TraceError> {
    let Some(path) = &config.trace_file else { return Ok(None) };
    let names = config.members.iter().map(|(&node, member)| (node, member.name.clone())).collect();
    let trace = Recorder::open(path, config.node, names)?;
    trace.record(What::Process { up: true, text: format!("synod {}", env!("CARGO_PKG_VERSION")) });
    tracing::info!(path = %path.display(), "everything that happens here goes to the trace");
    Ok(Some(trace))
}

/// Says who starts, and what the operator should know.
fn announce(config: &ServerConfig) {
    tracing::info!(
        name = config.name,
        node = %config.node,
        version = env!("CARGO_PKG_VERSION"),
        members = config.members.len(),
        memory = ?config.memory,
        "starting"
    );
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    if config.allow_faults {
        tracing::warn!("faults are allowed: every client can break this server on purpose");
    }
}

/// Serves clients on every port.
fn serve(
    config: &ServerConfig,
    replica: &Replica,
    clients: Vec<(&HttpUrl, TcpListener)>,
    closing: &watch::Receiver<bool>,
) -> JoinSet<()> {
    let metrics = Metrics::watch(replica.clone());
    let options =
        ApiOptions { max_request_bytes: config.max_request_bytes, faults_allowed: config.allow_faults };
    let grpc = api::router(replica.clone(), &options, &metrics, closing.clone());
    let router = http::router(replica.clone(), metrics.clone(), grpc);
    let mut serving = JoinSet::new();
    for (url, listener) in clients {
        tracing::info!(%url, "serving clients");
        let connections = metrics.connections().clone();
        serving.spawn(listen::serve(listener, router.clone(), connections, closing.clone(), CALLS_END));
    }
    serving
}

/// What the replica needs to know of the configuration.
fn replica_config(config: &ServerConfig, peer_addrs: Vec<SocketAddr>) -> ReplicaConfig {
    let texts = |urls: &[HttpUrl]| urls.iter().map(HttpUrl::to_string).collect::<Vec<_>>();
    let founders = config.members.iter().map(|(node, member)| {
        (*node, Founder { name: member.name.clone(), peer_urls: texts(&member.peer_urls) })
    });
    ReplicaConfig {
        name: config.name.clone(),
        node: config.node,
        place: match config.memory {
            MemoryMode::Durable => Place::Directory(config.data_dir.clone()),
            MemoryMode::Volatile => Place::Memory,
        },
        plan: Plan::new(Window::new(WINDOW), founders),
        client_urls: texts(&config.advertise_client_urls),
        peer_addrs,
        allow_faults: config.allow_faults,
        patience: patience(config.heartbeat_interval, config.election_timeout),
        request_timeout: config.request_timeout(),
        checkpoint_bytes: CHECKPOINT_BYTES,
        segment_bytes: SEGMENT_BYTES,
        limits: ProtocolLimits::default(),
    }
}

/// All the times of an election follow from two: in the proportions of its defaults.
fn patience(heartbeat: Duration, election: Duration) -> election::Options {
    election::Options {
        heartbeat,
        suspicion: election,
        abdication: election * 2,
        round: election * 3 / 5,
        backoff: election * 3 / 50,
        trial: election * 4,
        tick: (heartbeat * 2 / 5).max(Duration::from_millis(1)),
    }
}

/// Everything that can ask a server to stop.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    orphaned: Option<oneshot::Receiver<()>>,
}

impl Stop {
    fn new(watch_parent: bool) -> Result<Stop, ServerError> {
        let system = |what| move |source| ServerError::System { what, source };
        Ok(Stop {
            terminate: signal(SignalKind::terminate()).map_err(system("signals"))?,
            interrupt: signal(SignalKind::interrupt()).map_err(system("signals"))?,
            orphaned: watch_parent.then(stdin_ends).transpose().map_err(system("a thread"))?,
        })
    }

    /// Waits for the next request to stop, and says where it came from.
    async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = orphaned(&mut self.orphaned) => "standard input ended",
        }
    }
}

/// Waits, once, for the end of standard input; for ever if nobody watches it.
async fn orphaned(ends: &mut Option<oneshot::Receiver<()>>) {
    match ends {
        Some(ended) => drop(ended.await),
        None => std::future::pending().await,
    }
    *ends = None;
}

/// Tells when standard input ends. A thread of its own waits for that, because nothing can call off a read
/// of a pipe; it ends with the process.
fn stdin_ends() -> io::Result<oneshot::Receiver<()>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name("parent".to_owned()).spawn(move || {
        let mut ignored = [0; 1024];
        let mut stdin = io::stdin().lock();
        // What a parent writes is of no interest, and an error is as good as the end.
        while matches!(stdin.read(&mut ignored), Ok(1..)) {}
        drop(sender);
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_times_are_the_elections_own() {
        let flags = crate::config::ServerFlags::default();
        let config = ServerConfig::load(flags, |_| None).unwrap();
        let patience = patience(config.heartbeat_interval, config.election_timeout);
        let own = election::Options::default();
        assert_eq!(format!("{patience:?}"), format!("{own:?}"));
    }
}

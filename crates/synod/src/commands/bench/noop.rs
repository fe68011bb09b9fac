//! A server that does nothing: what gRPC alone costs on this machine.
//!
//! It answers every put at once, on the same listener and kind of runtime as a real server, in a process of its own.
//! No server that does something can be faster without another way to speak gRPC.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use synod_client::rpc::etcdserverpb::kv_server::{Kv, KvServer};
use synod_client::rpc::etcdserverpb::{PutRequest, PutResponse, ResponseHeader};
use synod_server::express::{Front, Limits};
use synod_server::listen;
use synod_server::metrics::Connections;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::cluster::own_executable;
use crate::failed::Failed;

/// The hidden subcommand that is this server.
pub(crate) const SUBCOMMAND: &str = "bench-no-op";
/// How long it may take to listen.
const READY_WITHIN: Duration = Duration::from_secs(10);

struct NoOp;

/// The largest message, in bytes.
const MOST_BYTES: usize = 4 << 20;

#[tonic::async_trait]
impl Kv for NoOp {
    async fn put(&self, _: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let header = ResponseHeader { cluster_id: 1, member_id: 1, revision: 1, raft_term: 1 };
        Ok(Response::new(PutResponse { header: Some(header), prev_kv: None }))
    }
}

/// Serves on a free port of loopback, which it prints, until standard input ends. Not to be called from within a
/// runtime.
///
/// # Errors
/// If it cannot listen.
pub(crate) fn serve() -> Result<(), Failed> {
    let unable = |error: io::Error| Failed::new(format!("cannot serve: {error}"));
    // As a server does it: see `synod_server::run`.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.saturating_sub(1).max(1))
        .enable_all()
        .build()
        .map_err(unable)?;
    let served = runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        writeln!(io::stdout(), "{}", listener.local_addr()?)?;
        let (close, closing) = watch::channel(false);
        std::thread::spawn(move || {
            // Whatever is read, and if reading fails, the parent has no more use for this.
            let _ = io::stdin().read_to_end(&mut Vec::new());
            close.send_replace(true);
        });
        serve_on(listener, NoOp, closing).await;
        Ok(())
    });
    runtime.shutdown_background();
    served.map_err(unable)
}

/// Serves these calls as a real server does, until it is told to close.
pub(super) async fn serve_on(listener: TcpListener, kv: impl Kv, closing: watch::Receiver<bool>) {
    let kv = Arc::new(kv);
    let router = Routes::new(KvServer::from_arc(Arc::clone(&kv))).into_axum_router();
    let front = Front::new(kv, Limits { request: MOST_BYTES, answer: MOST_BYTES }, router);
    listen::serve(listener, front, Connections::default(), closing, Duration::ZERO).await;
}

/// A server that does nothing, as a process. It ends when this is dropped.
pub(super) struct NoOpServer {
    pub(super) endpoint: String,
    pub(super) pid: u32,
    _child: Child,
}

impl NoOpServer {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// If it does not.
    pub(super) async fn start() -> Result<Self, Failed> {
        let unable = |error: &dyn std::fmt::Display| {
            Failed::new(format!("cannot start a server that does nothing: {error}"))
        };
        let own = own_executable()?;
        let mut child = Command::new(&own)
            .arg(SUBCOMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| unable(&format_args!("{}: {error}", own.display())))?;
        let (Some(stdout), Some(pid)) = (child.stdout.take(), child.id()) else {
            return Err(unable(&"it ended at once"));
        };
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(READY_WITHIN, lines.next_line()).await;
        let line = line.map_err(|_| unable(&"it does not listen"))?.map_err(|error| unable(&error))?;
        let address = line.ok_or_else(|| unable(&"it ended at once"))?;
        Ok(Self { endpoint: format!("http://{address}"), pid, _child: child })
    }
}

//! Five server processes on loopback, started as by hand.
//!
//! Each has its data and its log in one temporary folder. They die with the cluster: killed on drop by their
//! id, and they watch their standard input, whose other end dies with us. A test that fails leaves the folder
//! behind and says where it is.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use synod_client::requests::get;
use synod_client::rpc::synodpb::InspectResponse;
use synod_client::{Client, Config, Replica};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::sleep;

/// How long anything may take that is bound to happen.
pub(crate) const SOON: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(20);

/// One cluster at a time: on a small machine two would disturb each other's leaders.
static TURN: Mutex<()> = Mutex::const_new(());

/// The servers, and where their data is.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    folder: Option<TempDir>,
    _turn: MutexGuard<'static, ()>,
}

/// One server, in whichever process it lives now.
pub(crate) struct Node {
    pub(crate) name: String,
    /// Where clients reach it: `host:port`.
    pub(crate) endpoint: String,
    pub(crate) peer_port: u16,
    pub(crate) data: PathBuf,
    /// For requests.
    pub(crate) replica: Replica,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Cluster {
    /// Starts five servers and waits until each of them answers.
    pub(crate) async fn start() -> Self {
        let turn = TURN.lock().await;
        let folder = tempfile::Builder::new().prefix("synod-processes-").tempdir().unwrap();
        let ports: Vec<u16> = (0..10).map(|_| free_port()).collect();
        let members: Vec<String> =
            (1..=5).map(|number| format!("n{number}=http://127.0.0.1:{}", ports[number + 4])).collect();
        let nodes = (1..=5).map(|number| {
            Node::new(folder.path(), number, ports[number - 1], ports[number + 4], &members.join(","))
        });
        let mut cluster = Self { nodes: nodes.collect(), folder: Some(folder), _turn: turn };
        for node in &mut cluster.nodes {
            node.start();
        }
        cluster.all_answer().await;
        cluster
    }

    /// Waits until each server answers a linearizable read.
    pub(crate) async fn all_answer(&self) {
        for node in &self.nodes {
            until(&format!("{} answers", node.name), async || node.replica.range(get("a")).await.is_ok())
                .await;
        }
    }

    /// Waits until all vote and hold the same state after the same slot, and returns that state's hash.
    pub(crate) async fn all_equal(&self) -> String {
        self.all_answer().await;
        for node in &self.nodes {
            node.votes().await;
        }
        let mut hash = String::new();
        until("all replicas are equal", async || {
            let mut seen = Vec::new();
            for node in &self.nodes {
                let Ok(look) = node.replica.inspect().await else { return false };
                seen.push((look.applied_slot, look.state_hash));
            }
            hash = seen[0].1.clone();
            seen.iter().all(|one| *one == seen[0])
        })
        .await;
        hash
    }

    /// The place of the server that others take for the leader, too.
    pub(crate) async fn leader(&self) -> usize {
        let mut leader = None;
        until("somebody leads", async || {
            let mut claims = vec![0; self.nodes.len()];
            for node in self.nodes.iter().filter(|node| node.child.is_some()) {
                let Ok(look) = node.replica.inspect().await else { continue };
                let Some(id) = look.leader else { continue };
                let place = self.nodes.iter().position(|node| node.name == name_of(&look, id));
                claims[place.expect("the leader is one of five")] += 1;
            }
            leader = claims.iter().position(|&claim| claim > self.nodes.len() / 2);
            leader.is_some()
        })
        .await;
        leader.expect("just found")
    }

    /// Runs the binary against all endpoints.
    pub(crate) async fn synod(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let endpoints: Vec<&str> = self.nodes.iter().map(|node| node.endpoint.as_str()).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_synod"));
        command.args(["--endpoints", &endpoints.join(",")]).args(arguments).stdin(Stdio::null());
        said(command).await
    }

    /// The last line of `synod status`, and its exit code.
    pub(crate) async fn verdict(&self) -> (Option<i32>, String) {
        let (code, shown, _) = self.synod(&["status"]).await;
        (code, shown.trim_end().lines().last().unwrap_or_default().to_owned())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
        if std::thread::panicking() {
            let kept = self.folder.take().map(TempDir::keep);
            eprintln!("data and logs of the servers are kept in {kept:?}");
        }
    }
}

impl Node {
    fn new(folder: &std::path::Path, number: usize, client: u16, peer: u16, members: &str) -> Self {
        let name = format!("n{number}");
        let data = folder.join(&name);
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let data_dir = data.to_str().expect("temporary folders have plain names");
        let arguments = [
            ("--name", name.as_str()),
            ("--data-dir", data_dir),
            ("--listen-client-urls", &url(client)),
            ("--advertise-client-urls", &url(client)),
            ("--listen-peer-urls", &url(peer)),
            ("--initial-advertise-peer-urls", &url(peer)),
            ("--initial-cluster", members),
        ];
        let arguments = arguments.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]);
        let config = Config { request_timeout: Duration::from_secs(15), ..Config::new([url(client)]) };
        Self {
            replica: Client::connect(config).unwrap().replicas()[0].clone(),
            endpoint: format!("127.0.0.1:{client}"),
            peer_port: peer,
            arguments: ["server".to_owned()].into_iter().chain(arguments).collect(),
            log: folder.join(format!("{name}.log")),
            data,
            name,
            child: None,
        }
    }

    /// The start line, with the values of some flags changed.
    pub(crate) fn command(&self, changes: &[(&str, String)]) -> Command {
        let mut arguments = self.arguments.clone();
        for (flag, value) in changes {
            let at = arguments.iter().position(|argument| argument == flag).expect("one of the flags given");
            arguments[at + 1].clone_from(value);
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_synod"));
        command.args(arguments).stdin(Stdio::null());
        for (variable, _) in std::env::vars_os() {
            if variable.as_encoded_bytes().starts_with(b"SYNOD_") {
                command.env_remove(variable);
            }
        }
        command
    }

    /// Starts the process with the same command line as ever. Its log goes on where it ended.
    pub(crate) fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.command(&[]);
        command.arg("--exit-with-parent").stdin(Stdio::piped());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Ends the process as a power cut would: without a word.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("SIGKILL reaches our own child");
            child.wait().expect("our own child can be waited for");
        }
    }

    /// Removes everything it knew. Only while the process is dead.
    pub(crate) fn wipe(&self) {
        assert!(self.child.is_none(), "only the dead forget");
        std::fs::remove_dir_all(&self.data).unwrap();
    }

    /// `STOP` or `CONT`: the process sleeps, or goes on.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &id]).status().unwrap().success());
    }

    /// Did the process end by itself?
    pub(crate) fn ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some())
    }

    /// Waits until its present incarnation is one of the voters; returns it.
    pub(crate) async fn votes(&self) -> String {
        let mut incarnation = String::new();
        until(&format!("{} votes", self.name), async || {
            let Ok(look) = self.replica.inspect().await else { return false };
            incarnation = look.incarnation;
            let votes = |id, life: &str| id == look.node_id && life == incarnation;
            look.voters.iter().any(|voter| voter.votes && votes(voter.node_id, &voter.incarnation))
        })
        .await;
        incarnation
    }
}

fn name_of(look: &InspectResponse, id: u64) -> String {
    look.voters.iter().find(|voter| voter.node_id == id).map(|voter| voter.name.clone()).unwrap_or_default()
}

/// Waits for what is bound to happen.
pub(crate) async fn until(what: &str, mut happened: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !happened().await {
        assert!(Instant::now() < deadline, "within {SOON:?} it did not happen that {what}");
        sleep(POLL).await;
    }
}

/// Runs a command to its end: exit code, output, errors. One that does not end is killed.
pub(crate) async fn said(command: Command) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::from(command);
    let ended = tokio::time::timeout(SOON, command.kill_on_drop(true).output());
    let Output { status, stdout, stderr } = ended.await.expect("it ends in time").unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A port that nobody uses, outside the range from which the system takes those of outgoing connections: a
/// server that is down for a while finds its own again.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 18_000;
    let start = (std::process::id() % 180) as u16 * 100;
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("every port from {FIRST} on is taken");
}

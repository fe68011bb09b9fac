//! The replicas: server processes of this same executable on loopback.
//!
//! Each has its folder and its log file in one temporary folder, which goes when
//! the cluster is dropped. So do the processes, however that comes about: they
//! are killed on drop, and they watch their standard input, whose other end dies
//! with us. They have a process group of their own, so that Ctrl-C reaches the
//! demo alone.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use synod_client::rpc::synodpb::{InspectResponse, RunState};
use synod_client::{Client, Config, Replica, requests};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::Memory;
use crate::failed::Failed;

/// How long a cluster may take to answer its first request.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Another program may take a port between our finding it and the server's.
const ATTEMPTS: usize = 3;
/// How long a client waits for an answer.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Looking at a replica takes no majority and no disk.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(25);
const LOG_LINES_SHOWN: usize = 12;

/// How the cluster is to be.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) replicas: usize,
    pub(super) memory: Memory,
    /// Consecutive pairs from here; free ports if there is none.
    pub(super) port_base: Option<u16>,
}

/// The running replicas, and where their data is.
pub(super) struct Cluster {
    pub(super) nodes: Vec<Arc<Node>>,
    folder: TempDir,
}

/// One replica, in whichever process it lives now.
pub(super) struct Node {
    pub(super) name: String,
    /// Where clients reach it.
    pub(super) url: String,
    /// For requests.
    pub(super) replica: Replica,
    /// For looking and for faults: answers are quick or not worth waiting for.
    pub(super) admin: Replica,
    data: PathBuf,
    log: PathBuf,
    arguments: Vec<OsString>,
    child: Mutex<Option<Child>>,
}

impl Cluster {
    /// Starts the servers and waits until each of them answers. `progress` is told
    /// which are ready.
    pub(super) async fn start(plan: &Plan, progress: impl Fn(&str)) -> Result<Self, Failed> {
        let mut attempt = 1;
        loop {
            let cluster = Self::prepare(plan)?;
            for node in &cluster.nodes {
                node.start().await?;
            }
            match cluster.until_ready(&progress).await {
                Ok(()) => return Ok(cluster),
                Err(Unready::PortTaken) if attempt < ATTEMPTS && plan.port_base.is_none() => {
                    progress("another program took a port: trying others");
                    attempt += 1;
                }
                Err(Unready::PortTaken) => {
                    return Err(cluster.failed("a port is taken by another program"));
                }
                Err(Unready::Because(why)) => return Err(cluster.failed(&why)),
            }
        }
    }

    fn prepare(plan: &Plan) -> Result<Self, Failed> {
        let unable = |what: &str, error| Failed::new(format!("cannot {what}: {error}"));
        let folder = tempfile::Builder::new()
            .prefix("synod-demo-")
            .tempdir()
            .map_err(|error| unable("make a temporary folder", error))?;
        let ports = match plan.port_base {
            Some(base) => (0..2 * plan.replicas as u16)
                .map(|offset| base.checked_add(offset))
                .collect::<Option<Vec<u16>>>()
                .ok_or_else(|| Failed::new(format!("there are not enough ports above {base}")))?,
            None => {
                free_ports(2 * plan.replicas).map_err(|error| unable("find free ports on loopback", error))?
            }
        };
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let name = |place: usize| format!("n{}", place + 1);
        let members: Vec<String> = (0..plan.replicas)
            .map(|place| format!("{}={}", name(place), url(ports[2 * place + 1])))
            .collect();
        let nodes = (0..plan.replicas).map(|place| {
            let (name, clients, peers) = (name(place), url(ports[2 * place]), url(ports[2 * place + 1]));
            Node::new(folder.path(), name, &clients, &peers, &members.join(","), plan.memory).map(Arc::new)
        });
        Ok(Self { nodes: nodes.collect::<Result<_, _>>()?, folder })
    }

    async fn until_ready(&self, progress: &impl Fn(&str)) -> Result<(), Unready> {
        let deadline = Instant::now() + READY_WITHIN;
        let mut ready = vec![false; self.nodes.len()];
        while let Some(waiting) = ready.iter().position(|ready| !ready) {
            let node = &self.nodes[waiting];
            if let Some(dead) = self.dead() {
                let taken = dead.log_tail().iter().any(|line| line.to_lowercase().contains("in use"));
                return Err(match taken {
                    true => Unready::PortTaken,
                    false => Unready::Because(format!("{} ended as soon as it began", dead.name)),
                });
            }
            if Instant::now() >= deadline {
                return Err(Unready::Because(format!(
                    "{} was not ready within {} s",
                    node.name,
                    READY_WITHIN.as_secs()
                )));
            }
            let formed = node.admin.inspect().await.is_ok_and(|seen| seen.cluster_id != 0);
            if formed && node.admin.range(requests::get("a")).await.is_ok() {
                ready[waiting] = true;
                progress(&format!("{} is ready", node.name));
            } else {
                sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Watches over the processes; returns when one ended that nobody killed.
    pub(super) async fn until_one_dies(&self) -> Failed {
        loop {
            if let Some(dead) = self.dead() {
                return self.failed(&format!("{} ended by itself", dead.name));
            }
            sleep(POLL * 4).await;
        }
    }

    fn dead(&self) -> Option<&Node> {
        self.nodes.iter().map(Arc::as_ref).find(|node| {
            // Whoever holds the lock is about to kill or start it.
            node.child.try_lock().is_ok_and(|mut child| {
                child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|ended| ended.is_some()))
            })
        })
    }

    /// A failure of the run, with what the servers said last.
    pub(super) fn failed(&self, what: &str) -> Failed {
        let mut failed = Failed::new(what);
        for node in &self.nodes {
            let tail = node.log_tail();
            if !tail.is_empty() {
                failed = failed.hint(format!("the log of {} ends:", node.name));
            }
            for line in tail {
                failed = failed.hint(format!("  {line}"));
            }
        }
        failed
    }

    /// Where data and logs are.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How to reach all replicas, as `--endpoints` takes it.
    pub(super) fn endpoints(&self) -> String {
        let addresses = self.nodes.iter().map(|node| node.url.trim_start_matches("http://"));
        addresses.collect::<Vec<_>>().join(",")
    }

    /// The name of the leader, as the first replica that knows one sees it, or the id if it does not
    /// answer; `None` if there is none.
    pub(super) async fn leader(&self) -> Option<String> {
        let seen = self.look().await;
        let leader = seen.iter().flatten().find_map(|seen| seen.leader)?;
        let named = seen.iter().flatten().find(|seen| seen.node_id == leader);
        Some(named.map_or_else(|| leader.to_string(), |seen| seen.name.clone()))
    }

    /// Looks at all replicas at once; `None` where there is no answer.
    pub(super) async fn look(&self) -> Vec<Option<InspectResponse>> {
        let looks: Vec<_> = self
            .nodes
            .iter()
            .map(|node| {
                let admin = node.admin.clone();
                tokio::spawn(async move { admin.inspect().await.ok() })
            })
            .collect();
        let mut seen = Vec::with_capacity(looks.len());
        for look in looks {
            seen.push(look.await.expect("looking does not panic"));
        }
        seen
    }
}

impl Drop for Cluster {
    /// Tasks may hold on to nodes for a little longer; the processes end now.
    fn drop(&mut self) {
        for node in &self.nodes {
            if let Ok(mut child) = node.child.try_lock()
                && let Some(child) = child.as_mut()
            {
                // It fails only for a process that has ended already.
                let _ = child.start_kill();
            }
        }
    }
}

/// Why a cluster does not get ready.
enum Unready {
    PortTaken,
    Because(String),
}

impl Node {
    fn new(
        folder: &Path,
        name: String,
        clients: &str,
        peers: &str,
        members: &str,
        memory: Memory,
    ) -> Result<Self, Failed> {
        let connect = |request_timeout| {
            let config = Config { request_timeout, dial_timeout: LOOK_TIMEOUT, ..Config::new([clients]) };
            let client = Client::connect(config).map_err(|error| Failed::new(error.to_string()))?;
            Ok::<_, Failed>(client.replicas()[0].clone())
        };
        let data = folder.join(&name);
        let log = folder.join(format!("{name}.log"));
        Ok(Self {
            replica: connect(REQUEST_TIMEOUT)?,
            admin: connect(LOOK_TIMEOUT)?,
            arguments: arguments(&name, &data, clients, peers, members, memory),
            url: clients.to_owned(),
            name,
            data,
            log,
            child: Mutex::default(),
        })
    }

    /// Starts the process. Its log goes on where it ended.
    pub(super) async fn start(&self) -> Result<(), Failed> {
        let unable = |error| Failed::new(format!("cannot start {}: {error}", self.name));
        let log = File::options().create(true).append(true).open(&self.log).map_err(unable)?;
        let mut command = Command::new(std::env::current_exe().map_err(unable)?);
        command
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(unable)?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        // The start line alone says how a server is to be.
        for (variable, _) in std::env::vars_os() {
            if variable.as_encoded_bytes().starts_with(b"SYNOD_") {
                command.env_remove(variable);
            }
        }
        *self.child.lock().await = Some(command.spawn().map_err(unable)?);
        Ok(())
    }

    /// Ends the process as a power cut would: without a word.
    pub(super) async fn kill(&self) -> Result<(), Failed> {
        let mut child = self.child.lock().await;
        if let Some(mut child) = child.take() {
            child.kill().await.map_err(|error| Failed::new(format!("cannot kill {}: {error}", self.name)))?;
        }
        Ok(())
    }

    /// Removes everything it knew. Only while the process is dead.
    pub(super) fn forget(&self) -> Result<(), Failed> {
        match fs::remove_dir_all(&self.data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failed::new(format!("cannot remove {}: {error}", self.data.display())))
            }
            _ => Ok(()),
        }
    }

    fn log_tail(&self) -> Vec<String> {
        let text = fs::read(&self.log).unwrap_or_default();
        tail(&String::from_utf8_lossy(&text), LOG_LINES_SHOWN)
    }
}

/// Does this replica take full part: all roles at work, its own incarnation among
/// the voters, nothing wrong?
pub(super) fn takes_part(seen: &InspectResponse) -> bool {
    let running = seen.roles.iter().all(|role| role.state() == RunState::Running);
    running && votes(seen)
}

/// Is its own incarnation among the voters?
pub(super) fn votes(seen: &InspectResponse) -> bool {
    seen.voters
        .iter()
        .any(|voter| voter.node_id == seen.node_id && voter.incarnation == seen.incarnation && voter.votes)
}

fn arguments(
    name: &str,
    data: &Path,
    clients: &str,
    peers: &str,
    members: &str,
    memory: Memory,
) -> Vec<OsString> {
    let pairs: [(&str, &OsStr); 7] = [
        ("--name", name.as_ref()),
        ("--data-dir", data.as_ref()),
        ("--listen-client-urls", clients.as_ref()),
        ("--advertise-client-urls", clients.as_ref()),
        ("--listen-peer-urls", peers.as_ref()),
        ("--initial-advertise-peer-urls", peers.as_ref()),
        ("--initial-cluster", members.as_ref()),
    ];
    let mut arguments: Vec<OsString> = vec!["server".into()];
    arguments.extend(pairs.into_iter().flat_map(|(flag, value)| [flag.into(), value.to_owned()]));
    if memory == Memory::Volatile {
        arguments.extend(["--memory".into(), "volatile".into()]);
    }
    arguments.extend(["--allow-faults".into(), "--exit-with-parent".into()]);
    arguments
}

/// Where ports for servers are looked for: below those that the system gives to outgoing connections, so that a
/// server that is down for a while finds its own again.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// Ports that nobody uses now, from a random one on. All are held until the last is found, so that none is
/// found twice.
fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let range = usize::from(PORTS.end - PORTS.start);
    let first = rand::random_range(0..range);
    let candidates = (0..range).map(|i| PORTS.start + ((first + i) % range) as u16);
    let held: Vec<TcpListener> = candidates
        .filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
        .take(count)
        .collect();
    if held.len() < count {
        return Err(std::io::Error::other(format!("fewer than {count} ports are free in {PORTS:?}")));
    }
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

fn tail(text: &str, lines: usize) -> Vec<String> {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use synod_client::rpc::synodpb::{Role, RoleStatus, Voter};

    #[test]
    fn free_ports_are_all_different() {
        let ports = free_ports(10).unwrap();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 10);
    }

    #[test]
    fn a_server_is_started_as_by_hand() {
        let line = |memory| {
            let words = arguments("n1", "/t/n1".as_ref(), "http://c", "http://p", "n1=http://p", memory);
            words.iter().map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            line(Memory::Durable),
            "server --name n1 --data-dir /t/n1 --listen-client-urls http://c --advertise-client-urls http://c \
             --listen-peer-urls http://p --initial-advertise-peer-urls http://p --initial-cluster n1=http://p \
             --allow-faults --exit-with-parent"
        );
        assert!(line(Memory::Volatile).contains("--memory volatile"));
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), ["b", "c"]);
        assert_eq!(tail("a", 2), ["a"]);
        assert!(tail("", 2).is_empty());
    }

    #[tokio::test]
    async fn preparing_gives_every_replica_its_own_place() {
        let plan = Plan { replicas: 3, memory: Memory::Durable, port_base: Some(40_000) };
        let cluster = Cluster::prepare(&plan).unwrap();
        assert_eq!(cluster.endpoints(), "127.0.0.1:40000,127.0.0.1:40002,127.0.0.1:40004");
        assert!(cluster.folder().is_dir());
        let names: Vec<&str> = cluster.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["n1", "n2", "n3"]);
        let too_high = Plan { port_base: Some(u16::MAX - 2), ..plan };
        assert!(Cluster::prepare(&too_high).is_err());
    }

    #[test]
    fn a_replica_takes_part_only_as_the_incarnation_that_votes() {
        let role = |state: RunState| RoleStatus {
            role: Role::Acceptor.into(),
            state: state.into(),
            ..RoleStatus::default()
        };
        let voter = |incarnation: &str, votes| Voter {
            node_id: 1,
            name: "n1".to_owned(),
            incarnation: incarnation.to_owned(),
            votes,
        };
        let seen = |state, voters| InspectResponse {
            node_id: 1,
            incarnation: "b".to_owned(),
            roles: vec![role(state)],
            voters,
            ..InspectResponse::default()
        };
        assert!(takes_part(&seen(RunState::Running, vec![voter("b", true)])));
        assert!(!takes_part(&seen(RunState::Stopped, vec![voter("b", true)])));
        assert!(!takes_part(&seen(RunState::Running, vec![voter("a", true)])), "forgot, not yet admitted");
        assert!(!takes_part(&seen(RunState::Running, vec![voter("b", false)])));
        assert!(!takes_part(&seen(RunState::Running, vec![])));
    }
}

//! A cluster of real servers, and how it is put to the test.
//!
//! The replicas are processes of this same executable ([`Node`]), so what is shown is what `synod server` does; or they
//! are etcd's, for a comparison ([`Program`]).
//! Clients call them ([`call`]), what they were told is written down ([`record`]), and in the end it is judged
//! ([`judge`]). `synod demo` and `synod chaos` differ in what they do to a cluster, not in how they know.
//!
//! Each server has its folder and its log file in one temporary folder, which goes when the cluster is dropped.
//! So do the processes, however that comes about: they are killed on drop, and they watch their standard input,
//! whose other end dies with us. They have a process group of their own, so that Ctrl-C reaches this one alone.

pub(crate) mod call;
pub(crate) mod chance;
pub(crate) mod judge;
pub(crate) mod look;
mod node;
mod program;
pub(crate) mod record;
pub(crate) mod signals;
mod site;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use synod_client::requests;
use synod_client::rpc::synodpb::InspectResponse;
use tempfile::TempDir;
use tokio::time::sleep;

pub(crate) use self::node::Node;
use self::program::Identity;
pub(crate) use self::program::{Program, TIED, own_executable, run_tied};
pub(crate) use self::site::Site;
use crate::failed::Failed;

/// How long a cluster may take to answer its first request.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Another program may take a port between our finding it and the server's.
const ATTEMPTS: usize = 3;
/// How long killed processes are waited for: the kernel ends one when what it has under way on the disk is done.
const END_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(25);

/// What a replica remembers when it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Memory {
    /// Everything: its disk is still there
    Durable,
    /// Nothing: it has to be admitted anew
    Volatile,
}

/// How the cluster is to be.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What the temporary folder's name begins with.
    pub(crate) prefix: &'static str,
    pub(crate) program: Program,
    /// One for each server.
    pub(crate) sites: Vec<Site>,
    pub(crate) memory: Memory,
    /// Consecutive pairs from here; free ports if there is none.
    pub(crate) port_base: Option<u16>,
}

/// The running replicas, and where their data is.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Arc<Node>>,
    program: Program,
    folder: TempDir,
}

impl Cluster {
    /// Starts the servers and waits until each of them answers. `progress` is told
    /// which are ready.
    pub(crate) async fn start(plan: &Plan, progress: impl Fn(&str)) -> Result<Self, Failed> {
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
            .prefix(plan.prefix)
            .tempdir()
            .map_err(|error| unable("make a temporary folder", error))?;
        let ports = match plan.port_base {
            Some(base) => (0..2 * plan.sites.len() as u16)
                .map(|offset| base.checked_add(offset))
                .collect::<Option<Vec<u16>>>()
                .ok_or_else(|| Failed::new(format!("there are not enough ports above {base}")))?,
            None => site::free_ports(2 * plan.sites.len())
                .map_err(|error| unable("find free ports on loopback", error))?,
        };
        let url = |site: &Site, port: u16| format!("http://{}:{port}", site.host);
        let name = |place: usize| format!("n{}", place + 1);
        let sites = || plan.sites.iter().enumerate();
        let members: Vec<String> = sites()
            .map(|(place, site)| format!("{}={}", name(place), url(site, ports[2 * place + 1])))
            .collect();
        let members = members.join(",");
        let nodes = sites().map(|(place, site)| {
            let (clients, peers) = (url(site, ports[2 * place]), url(site, ports[2 * place + 1]));
            let identity = Identity {
                name: &name(place),
                clients: &clients,
                peers: &peers,
                members: &members,
                memory: plan.memory,
            };
            Node::new(folder.path(), site, &plan.program, &identity).map(Arc::new)
        });
        let nodes = nodes.collect::<Result<_, _>>()?;
        Ok(Self { nodes, program: plan.program.clone(), folder })
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
            let formed =
                !self.program.is_own() || node.admin.inspect().await.is_ok_and(|seen| seen.cluster_id != 0);
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
    pub(crate) async fn until_one_dies(&self) -> Failed {
        loop {
            if let Some(dead) = self.dead() {
                return self.failed(&format!("{} ended by itself", dead.name));
            }
            sleep(POLL * 4).await;
        }
    }

    fn dead(&self) -> Option<&Node> {
        self.nodes.iter().map(Arc::as_ref).find(|node| node.ended())
    }

    /// A failure of the run, with what the servers said last.
    pub(crate) fn failed(&self, what: &str) -> Failed {
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
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the cluster, and leaves data and logs behind. Returns where.
    pub(crate) fn keep(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// How to reach all replicas, as `--endpoints` takes it.
    pub(crate) fn endpoints(&self) -> String {
        let addresses = self.nodes.iter().map(|node| node.url.trim_start_matches("http://"));
        addresses.collect::<Vec<_>>().join(",")
    }

    /// The name of the leader, as the first replica that knows one sees it, or the id if it does not
    /// answer; `None` if there is none.
    pub(crate) async fn leader(&self) -> Option<String> {
        let seen = self.look().await;
        let leader = seen.iter().flatten().find_map(|seen| seen.leader)?;
        let named = seen.iter().flatten().find(|seen| seen.node_id == leader);
        Some(named.map_or_else(|| leader.to_string(), |seen| seen.name.clone()))
    }

    /// The place of the leader that most of those who answer know and that answers itself; `None` if there is none.
    pub(crate) async fn leader_place(&self) -> Option<usize> {
        let seen = self.look().await;
        let claims = |place: usize| {
            let id = seen[place].as_ref().map(|own| own.node_id);
            seen.iter().flatten().filter(|seen| seen.leader.is_some() && seen.leader == id).count()
        };
        (0..seen.len()).find(|&place| claims(place) > seen.len() / 2)
    }

    /// Looks at all replicas at once; `None` where there is no answer.
    pub(crate) async fn look(&self) -> Vec<Option<InspectResponse>> {
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
    /// Tasks may hold on to nodes for a little longer; the processes end now. They are waited for, because as long as
    /// one writes, its folder cannot be removed.
    fn drop(&mut self) {
        self.nodes.iter().for_each(|node| node.kill_now());
        let deadline = Instant::now() + END_WITHIN;
        while self.nodes.iter().any(|node| node.runs()) && Instant::now() < deadline {
            std::thread::sleep(POLL / 5);
        }
    }
}

/// Why a cluster does not get ready.
enum Unready {
    PortTaken,
    Because(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn preparing_gives_every_replica_its_own_place() {
        let sites = vec![Site::loopback(); 3];
        let plan = Plan {
            prefix: "synod-test-",
            program: Program::Own,
            sites,
            memory: Memory::Durable,
            port_base: Some(40_000),
        };
        let cluster = Cluster::prepare(&plan).unwrap();
        assert_eq!(cluster.endpoints(), "127.0.0.1:40000,127.0.0.1:40002,127.0.0.1:40004");
        assert!(cluster.folder().is_dir());
        let names: Vec<&str> = cluster.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["n1", "n2", "n3"]);

        // Who tidies up may take what is ours.
        let log = cluster.folder().join("n2.log");
        std::fs::remove_dir_all(cluster.folder()).unwrap();
        let failed = cluster.nodes[1].start().await.unwrap_err().to_string();
        assert!(failed.contains("cannot start n2") && failed.contains(log.to_str().unwrap()), "{failed}");

        let too_high = Plan { port_base: Some(u16::MAX - 2), ..plan };
        assert!(Cluster::prepare(&too_high).is_err());
    }
}

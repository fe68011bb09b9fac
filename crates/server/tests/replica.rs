//! Replicas in one process, over real sockets on loopback: the roles, threads and links that a server runs,
//! without its client API.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;
use synod_kv::{
    DeleteRangeRequest, KeyRange, PutRequest, RangeRequest, RangeResponse, Request, Revision, Store,
    Unreadable,
};
use synod_paxos::election;
use synod_paxos::formation::{Founder, Plan};
use synod_paxos::types::{NodeId, Window};
use synod_server::replica::{
    Answer, Consistency, Memory, Place, ProtocolLimits, Replica, ReplicaConfig, RequestError, Role, RoleFault,
};

/// A bound for everything here; nothing takes nearly as long unless it never would end.
const PATIENCE: Duration = Duration::from_secs(60);

struct Cluster {
    configs: Vec<ReplicaConfig>,
    replicas: BTreeMap<usize, Replica>,
    _directory: tempfile::TempDir,
}

impl Cluster {
    fn plan(nodes: usize, durable: bool) -> Cluster {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let listeners: Vec<TcpListener> =
            (0..nodes).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let addrs: Vec<SocketAddr> = listeners.iter().map(|l| l.local_addr().expect("its address")).collect();
        let founder = |(i, addr): (usize, &SocketAddr)| {
            let founder = Founder { name: format!("n{}", i + 1), peer_urls: vec![format!("http://{addr}")] };
            (NodeId(i as u64 + 1), founder)
        };
        let plan = Plan::new(Window::new(16), addrs.iter().enumerate().map(founder));
        let config = |(i, addr): (usize, &SocketAddr)| ReplicaConfig {
            name: format!("n{}", i + 1),
            node: NodeId(i as u64 + 1),
            place: if durable {
                Place::Directory(directory.path().join(format!("n{i}")))
            } else {
                Place::Memory
            },
            plan: plan.clone(),
            client_urls: vec![format!("http://127.0.0.1:{}", i + 1)],
            peer_addrs: vec![*addr],
            allow_faults: true,
            patience: election::Options::default(),
            request_timeout: Duration::from_secs(20),
            checkpoint_bytes: 64 << 10,
            segment_bytes: 1 << 20,
            limits: ProtocolLimits::default(),
        };
        let configs = addrs.iter().enumerate().map(config).collect();
        Cluster { configs, replicas: BTreeMap::new(), _directory: directory }
    }

    async fn start(nodes: usize, durable: bool) -> Cluster {
        let mut cluster = Cluster::plan(nodes, durable);
        for i in 0..nodes {
            cluster.start_one(i).await;
        }
        cluster
    }

    async fn start_one(&mut self, i: usize) {
        let replica = Replica::start(self.configs[i].clone()).await.expect("a replica starts");
        self.replicas.insert(i, replica);
    }

    fn at(&self, i: usize) -> &Replica {
        &self.replicas[&i]
    }

    async fn put(&self, i: usize, key: &str, value: &str) -> Result<Answer, RequestError> {
        let request = Request::Put(PutRequest::new(key.to_owned(), value.to_owned()));
        self.at(i).propose(request.encode()).await
    }

    async fn get(&self, i: usize, key: &str) -> Option<String> {
        let request = RangeRequest::new(KeyRange::single(key.to_owned()));
        let read = self.at(i).read(Consistency::Linearizable, |store| store.range(&request)).await;
        let found = read.expect("a read is answered").expect("the newest is in memory");
        let found = found.expect("a plain read is valid");
        found.kvs.first().map(|pair| String::from_utf8_lossy(&pair.value).into_owned())
    }

    /// Waits until `what` holds; fails when it never does.
    async fn until(&self, what: &str, holds: impl Fn(&Cluster) -> bool) {
        self.eventually(what, async |cluster| holds(cluster).then_some(())).await;
    }

    /// Looks again and again until it finds `what`; fails when it never does.
    async fn eventually<T>(&self, what: &str, find: impl AsyncFn(&Cluster) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = find(self).await {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "never came true: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn stop(mut self) {
        for (_, replica) in std::mem::take(&mut self.replicas) {
            replica.shutdown().await;
        }
    }
}

fn incarnation(cluster: &Cluster, i: usize) -> Option<u128> {
    cluster.at(i).status().acceptor.map(|voter| voter.incarnation.0)
}

fn votes(cluster: &Cluster, i: usize) -> bool {
    let status = cluster.at(i).status();
    let mine = status.acceptor.map(|voter| voter.incarnation);
    mine.is_some() && status.members.iter().any(|(node, member)| *node == status.node && member.voter == mine)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_replica_answered_every_replica_reads() {
    let cluster = Cluster::start(3, false).await;
    for i in 0..30 {
        cluster.put(i % 3, &format!("k{}", i % 7), &format!("v{i}")).await.expect("a put is answered");
        assert_eq!(cluster.get((i + 1) % 3, &format!("k{}", i % 7)).await, Some(format!("v{i}")));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_one_works() {
    let cluster = Cluster::start(1, true).await;
    cluster.put(0, "a", "1").await.expect("a put is answered");
    assert_eq!(cluster.get(0, "a").await.as_deref(), Some("1"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_survives_a_restart_of_all() {
    let mut cluster = Cluster::start(3, true).await;
    for i in 0..200 {
        let value = "x".repeat(1000);
        cluster.put(i % 3, &format!("k{i}"), &value).await.expect("a put is answered");
    }
    cluster.until("a checkpoint", |c| c.at(0).status().checkpoint.0 > 0).await;
    let hash = |c: &Cluster, i| (c.at(i).status().revision, c.at(i).status().state_hash);
    cluster.until("all equal", |c| (1..3).all(|i| hash(c, i) == hash(c, 0) && hash(c, i).0.0 == 201)).await;
    let before = hash(&cluster, 0);
    for (_, replica) in std::mem::take(&mut cluster.replicas) {
        replica.shutdown().await;
    }
    for i in 0..3 {
        cluster.start_one(i).await;
    }
    assert_eq!(cluster.get(1, "k199").await, Some("x".repeat(1000)));
    cluster.until("all as before", |c| (0..3).all(|i| hash(c, i) == before)).await;
    cluster.stop().await;
}

/// The runs of a server, in no order.
fn runs_on_disk(cluster: &Cluster, i: usize) -> Vec<PathBuf> {
    let Place::Directory(directory) = &cluster.configs[i].place else { panic!("it has no disk") };
    let files = std::fs::read_dir(directory.join("store")).expect("it has written something");
    let paths = files.map(|file| file.expect("its name").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "run")).collect()
}

/// Damages what the runs of a server hold, in place: they are the files that it has open.
fn rot_runs(cluster: &Cluster, i: usize) {
    for run in runs_on_disk(cluster, i) {
        let mut bytes = std::fs::read(&run).expect("a run");
        bytes.iter_mut().skip(300).step_by(900).for_each(|byte| *byte ^= 1);
        let mut file = std::fs::OpenOptions::new().write(true).open(&run).expect("it is there");
        file.write_all(&bytes).expect("rot");
    }
}

fn learner_restarts(cluster: &Cluster, i: usize) -> u64 {
    let status = cluster.at(i).status();
    status.roles.iter().filter(|role| role.role == Role::Learner).map(|role| role.restarts).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d2_old_versions_that_rotted_are_an_error_and_then_fetched_from_another_replica() {
    let cluster = Cluster::start(3, true).await;
    for i in 0..300 {
        cluster.put(0, "key", &format!("{i:01000}")).await.expect("a put is answered");
    }
    let first = RangeRequest { revision: Some(Revision(2)), ..RangeRequest::new(KeyRange::single("key")) };
    let waits = |store: &Store| (store.may_wait(&first), store.snapshot());
    let look = || cluster.at(1).read(Consistency::Linearizable, waits);
    let snapshot = cluster
        .eventually("it goes out of memory", async |_| {
            let (is_cold, snapshot) = look().await.expect("a read is answered");
            is_cold.then_some(snapshot)
        })
        .await;
    let value = |found: RangeResponse| String::from_utf8_lossy(&found.kvs[0].value).into_owned();
    assert_eq!(
        value(snapshot.range(&first).expect("its disk is well").expect("valid")),
        format!("{:01000}", 0)
    );

    rot_runs(&cluster, 1);
    let error = snapshot.range(&first).expect_err("it is not what was written");
    assert!(matches!(error, Unreadable::Damaged { .. }), "{error}");
    drop(snapshot);

    cluster.until("the learner begins anew", |c| learner_restarts(c, 1) > 0).await;
    // Until it has another checkpoint, it may still show what it had.
    let found = cluster
        .eventually("it remembers again", async |_| {
            let (_, snapshot) = look().await.expect("a read is answered");
            snapshot.range(&first).ok()
        })
        .await
        .expect("valid");
    assert_eq!(value(found), format!("{:01000}", 0));
    assert_eq!(cluster.get(1, "key").await, Some(format!("{:01000}", 299)));
    cluster.stop().await;
}

/// Nobody has what it lost; but the newest of every key is in its memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d2_a_server_that_is_alone_goes_on_without_old_versions_that_rotted() {
    let cluster = Cluster::start(1, true).await;
    cluster.put(0, "key", "old").await.expect("a put is answered");
    let first = RangeRequest { revision: Some(Revision(2)), ..RangeRequest::new(KeyRange::single("key")) };
    let waits = |store: &Store| (store.may_wait(&first), store.snapshot());
    let look =
        async || cluster.at(0).read(Consistency::Linearizable, waits).await.expect("a read is answered");
    // So many that it has tried to write all of it anew, old versions too.
    for round in 0..2_000 {
        cluster.put(0, "key", &format!("{round:08000}")).await.expect("a put is answered");
        if round == 100 {
            cluster.eventually("it goes out of memory", async |_| look().await.0.then_some(())).await;
            rot_runs(&cluster, 0);
            let error = look().await.1.range(&first).expect_err("it is not what was written");
            assert!(matches!(error, Unreadable::Damaged { .. }), "{error}");
        }
    }
    assert_eq!(cluster.get(0, "key").await, Some(format!("{:08000}", 1_999)));
    assert_eq!(learner_restarts(&cluster, 0), 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_in_several_runs_survives_a_restart() {
    // It has nobody to ask, and its log no longer has what the checkpoint covers.
    let mut cluster = Cluster::start(1, true).await;
    for round in 0..4 {
        let before = cluster.at(0).status().checkpoint;
        for i in 0..100 {
            let (key, value) = (format!("k{}", i * (round + 1)), format!("{round}").repeat(1_000));
            cluster.put(0, &key, &value).await.expect("a put is answered");
        }
        let delete = Request::DeleteRange(DeleteRangeRequest::new(KeyRange::single(format!("k{round}"))));
        cluster.at(0).propose(delete.encode()).await.expect("a removal is answered");
        cluster.until("another checkpoint", |c| c.at(0).status().checkpoint > before).await;
    }
    let state = |c: &Cluster| (c.at(0).status().revision, c.at(0).status().state_hash);
    let before = state(&cluster);
    for _ in 0..2 {
        cluster.replicas.remove(&0).expect("it runs").shutdown().await;
        assert!(runs_on_disk(&cluster, 0).len() > 1);
        cluster.start_one(0).await;
        cluster.until("its checkpoint", |c| c.at(0).status().checkpoint.0 > 0).await;
        assert_eq!(cluster.get(0, "k3").await, None);
        assert_eq!(cluster.get(0, "k396").await, Some("3".repeat(1_000)));
        cluster.until("all is as before", |c| state(c) == before).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_fail_and_come_back_without_an_error_for_clients() {
    let cluster = Cluster::start(5, false).await;
    let mut round = 0;
    for role in Role::ALL {
        for memory in [Memory::Keep, Memory::Forget] {
            for i in 0..2 {
                round += 1;
                let before = incarnation(&cluster, i);
                let restart_after = Some(Duration::from_millis(50));
                cluster
                    .at(i)
                    .fail_role(RoleFault::Stop { role, memory, restart_after })
                    .expect("faults are allowed");
                for n in 0..5 {
                    let key = format!("r{round}-{n}");
                    cluster.put((i + n) % 5, &key, "v").await.expect("no client sees an error");
                    assert_eq!(cluster.get((i + n + 1) % 5, &key).await.as_deref(), Some("v"));
                }
                cluster.until("it votes again", |c| votes(c, i)).await;
                if role == Role::Acceptor && memory == Memory::Forget {
                    cluster.until("a new incarnation", |c| incarnation(c, i) != before).await;
                }
                cluster
                    .until("all equal", |c| {
                        let state = |i| (c.at(i).status().applied, c.at(i).status().state_hash);
                        (1..5).all(|i| state(i) == state(0))
                    })
                    .await;
            }
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_shut_down_hands_over() {
    let mut cluster = Cluster::start(3, true).await;
    cluster.put(0, "a", "1").await.expect("a put is answered");
    let leader = |c: &Cluster| {
        let ballot = c.replicas.values().find_map(|replica| replica.status().leader)?;
        Some(ballot.node.0 as usize - 1)
    };
    cluster.until("somebody leads", |c| leader(c).is_some()).await;
    let old = leader(&cluster).expect("somebody leads");
    let replica = cluster.replicas.remove(&old).expect("it runs");
    replica.shutdown().await;
    let other = (old + 1) % 3;
    cluster.put(other, "a", "2").await.expect("a put is answered");
    assert_eq!(cluster.get(other, "a").await.as_deref(), Some("2"));
    cluster.start_one(old).await;
    assert_eq!(cluster.get(old, "a").await.as_deref(), Some("2"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d9_a_server_whose_memory_is_gone_comes_back_as_another_voter() {
    let mut cluster = Cluster::start(3, false).await;
    for round in 0..4 {
        let i = round % 3;
        for n in 0..40 {
            cluster
                .put(i, &format!("k{n}"), &format!("{round}").repeat(2000))
                .await
                .expect("a put is answered");
        }
        let before = incarnation(&cluster, i);
        cluster.replicas.remove(&i).expect("it runs").shutdown().await;
        let trimmed = cluster.replicas.values().map(|other| other.status().trimmed).max();
        cluster.start_one(i).await; // with the same command line, and nothing in memory
        cluster.until("it votes again", |c| votes(c, i)).await;
        assert_ne!(incarnation(&cluster, i), before);
        assert!(Some(cluster.at(i).status().checkpoint) >= trimmed || trimmed.is_none(), "R6");
        assert_eq!(cluster.get(i, "k39").await, Some(format!("{round}").repeat(2000)));
        cluster
            .until("it is in force", |c| {
                let status = c.at(i).status();
                status.acceptor.is_some_and(|voter| status.voters.contains(&voter))
            })
            .await;
    }
    cluster.stop().await;
}

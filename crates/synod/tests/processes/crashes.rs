//! Servers that die, sleep and come back with all that they knew.

use std::time::{Duration, Instant};

use synod_client::requests::{get, put};
use synod_client::rpc::etcdserverpb::RangeRequest;
use synod_client::{Failure, Outcome};
use tonic::Code;

use super::cluster::{Cluster, until};
use super::writer::{Writer, Written, longest_pause};

async fn end(writers: Vec<Writer>) -> Vec<Written> {
    let mut written = Vec::new();
    for writer in writers {
        written.push(writer.end().await);
    }
    written
}

async fn kept(cluster: &Cluster, written: &[Written]) {
    for one in written {
        one.is_kept_by(cluster).await;
    }
    cluster.all_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_a_killed_leader_costs_a_pause_and_no_error() {
    let mut cluster = Cluster::start().await;
    let mut pauses = Vec::new();
    for round in 0..3 {
        let leader = cluster.leader().await;
        let writers = Writer::at_each(&cluster, &format!("round{round}"));
        for writer in &writers {
            writer.goes_on(5).await;
        }
        cluster.nodes[leader].kill();
        for (place, writer) in writers.iter().enumerate() {
            if place != leader {
                writer.goes_on(10).await;
            }
        }
        cluster.nodes[leader].start();
        writers[leader].goes_on(5).await;
        let written = end(writers).await;
        let living = || written.iter().enumerate().filter(|(place, _)| *place != leader).map(|(_, one)| one);
        for one in living() {
            assert!(one.errors.is_empty(), "clients of living servers see no error: {:?}", one.errors);
        }
        pauses.push(longest_pause(living()));
        kept(&cluster, &written).await;
    }
    pauses.sort_unstable();
    println!("pauses of all living servers' clients when the leader is killed: {pauses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_writes_go_on_with_two_down() {
    let mut cluster = Cluster::start().await;
    let first = cluster.leader().await;
    let second = (first + 2) % 5;
    let writers = Writer::at_each(&cluster, "two");
    writers[first].goes_on(5).await;
    cluster.nodes[first].kill();
    cluster.nodes[second].kill();
    let down = [first, second];
    for (_, writer) in writers.iter().enumerate().filter(|(place, _)| !down.contains(place)) {
        writer.goes_on(10).await;
    }
    until("the status says that no more may fail", async || {
        let (code, verdict) = cluster.verdict().await;
        code == Some(0) && verdict.starts_with("AT RISK: 3 of 5 voters up, no more may fail")
    })
    .await;
    for place in down {
        cluster.nodes[place].start();
        writers[place].goes_on(5).await;
    }
    let written = end(writers).await;
    for (_, one) in written.iter().enumerate().filter(|(place, _)| !down.contains(place)) {
        assert!(one.errors.is_empty(), "clients of living servers see no error: {:?}", one.errors);
    }
    kept(&cluster, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_all_five_killed_come_back_with_everything() {
    let mut cluster = Cluster::start().await;
    let writers = Writer::at_each(&cluster, "all");
    for writer in &writers {
        writer.goes_on(10).await;
    }
    for node in &mut cluster.nodes {
        node.kill();
    }
    for place in [3, 0, 4, 1, 2] {
        cluster.nodes[place].start();
    }
    for writer in &writers {
        writer.goes_on(5).await;
    }
    kept(&cluster, &end(writers).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_three_down_stop_the_store_and_one_back_resumes_it() {
    let mut cluster = Cluster::start().await;
    let first = cluster.leader().await;
    let (down, up) = ([first, (first + 1) % 5, (first + 2) % 5], [(first + 3) % 5, (first + 4) % 5]);
    let acknowledged = cluster.nodes[up[0]].replica.put(put("k", "before")).await.unwrap();
    for place in down {
        cluster.nodes[place].kill();
    }

    let began = Instant::now();
    let (one, other) = (&cluster.nodes[up[0]].replica, &cluster.nodes[up[1]].replica);
    let (write, read) = tokio::join!(one.put(put("k", "during")), other.range(get("k")));
    let (write, read) = (write.unwrap_err(), read.unwrap_err());
    assert!((3..12).contains(&began.elapsed().as_secs()), "after the deadline: {:?}", began.elapsed());
    for error in [&write, &read] {
        let Failure::Status { code, message } = &error.failure else { panic!("{error:?}") };
        assert!(*code == Code::Unavailable && message.starts_with("etcdserver: "), "{message}");
    }
    assert_eq!(write.outcome, Outcome::Unknown, "it may yet be chosen, and the error says so");

    for place in up {
        let serializable = RangeRequest { serializable: true, ..get("k") };
        let answer = cluster.nodes[place].replica.range(serializable).await.unwrap();
        assert_eq!(answer.kvs[0].value, "before", "what was acknowledged can be read, if not as the newest");
    }
    let (code, verdict) = cluster.verdict().await;
    assert!(verdict.starts_with("NO QUORUM: 2 of 5 voters up, 3 needed"), "{verdict}");
    assert_eq!(code, Some(1));
    let (code, shown, errors) = cluster.synod(&["--command-timeout", "2s", "get", "k"]).await;
    assert_eq!((code, shown.as_str()), (Some(1), ""));
    assert!(errors.contains("whether a majority is up"), "{errors}");

    // A write that waits is done once a third is back, with no error in between.
    let waiting = {
        let replica = cluster.nodes[up[1]].replica.clone();
        tokio::spawn(async move { replica.put(put("k", "after")).await })
    };
    cluster.nodes[down[1]].start();
    waiting.await.unwrap().unwrap();
    for place in [down[0], down[2]] {
        cluster.nodes[place].start();
    }
    cluster.all_equal().await;
    let newest = cluster.nodes[down[0]].replica.range(get("k")).await.unwrap();
    assert!(newest.kvs[0].mod_revision > acknowledged.header.unwrap().revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_a_crash_loop_of_one_disturbs_nobody() {
    let mut cluster = Cluster::start().await;
    let unlucky = (cluster.leader().await + 1) % 5;
    let writers = Writer::at_each(&cluster, "loop");
    for _ in 0..8 {
        cluster.nodes[unlucky].kill();
        cluster.nodes[unlucky].start();
        for (_, writer) in writers.iter().enumerate().filter(|(place, _)| *place != unlucky) {
            writer.goes_on(2).await;
        }
    }
    writers[unlucky].goes_on(1).await;
    let written = end(writers).await;
    for (_, one) in written.iter().enumerate().filter(|(place, _)| *place != unlucky) {
        assert!(one.errors.is_empty(), "{:?}", one.errors);
    }
    kept(&cluster, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_a_leader_that_slept_reads_nothing_stale() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let awake = (leader + 1) % 5;
    let writers = Writer::at_each(&cluster, "sleep");
    writers[leader].goes_on(5).await;
    cluster.nodes[leader].signal("STOP");
    let asleep_since = Instant::now();
    // A request that reaches the sleeping process waits there until it wakes.
    let early = {
        let replica = cluster.nodes[leader].replica.clone();
        tokio::spawn(async move { replica.range(get("witness")).await })
    };
    until("the others go on for three seconds", async || {
        writers[awake].goes_on(1).await;
        asleep_since.elapsed() >= Duration::from_secs(3)
    })
    .await;
    let written = cluster.nodes[awake].replica.put(put("witness", "new")).await.unwrap();
    cluster.nodes[leader].signal("CONT");
    let late = cluster.nodes[leader].replica.range(get("witness")).await.unwrap();
    assert_eq!(late.kvs.first().map(|kv| kv.mod_revision), written.header.map(|header| header.revision));
    early.await.unwrap().unwrap();
    writers[leader].goes_on(3).await;
    let written = end(writers).await;
    for one in &written {
        assert!(one.errors.is_empty(), "{:?}", one.errors);
    }
    kept(&cluster, &written).await;
}

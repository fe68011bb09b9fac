//! Servers that come back without their memory, or behind by much.

use std::time::{Duration, Instant};

use synod_client::requests::{get, get_range, prefix, put};
use synod_client::rpc::etcdserverpb::RangeRequest;
use tokio::task::JoinSet;

use super::cluster::{Cluster, until};
use super::writer::Writer;

#[tokio::test(flavor = "multi_thread")]
async fn d9_a_wiped_server_rejoins_by_itself_as_another() {
    let mut cluster = Cluster::start().await;
    let writers = Writer::at_each(&cluster, "wipe");
    let leader = cluster.leader().await;
    for place in [(leader + 1) % 5, leader, (leader + 2) % 5] {
        let former = cluster.nodes[place].votes().await;
        cluster.nodes[place].kill();
        cluster.nodes[place].wipe();
        cluster.nodes[place].start();
        let present = cluster.nodes[place].votes().await;
        assert_ne!(former, present, "lost memory never votes again under its old name");
        until("the status is healthy", async || cluster.verdict().await.1.starts_with("healthy: 5 of 5"))
            .await;
        writers[place].goes_on(3).await;
    }
    for writer in writers {
        writer.end().await.is_kept_by(&cluster).await;
    }
    cluster.all_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_three_wiped_at_once_invent_nothing() {
    let mut cluster = Cluster::start().await;
    cluster.nodes[0].replica.put(put("k", "kept by two")).await.unwrap();
    cluster.all_equal().await;
    for place in [0, 2, 4] {
        cluster.nodes[place].kill();
    }
    for place in [0, 2, 4] {
        cluster.nodes[place].wipe();
        cluster.nodes[place].start();
    }
    let serializable = || RangeRequest { serializable: true, ..get("k") };
    for node in &cluster.nodes {
        // The newcomers catch up from the survivors, and vote for nothing.
        until(&format!("{} has what the survivors have", node.name), async || {
            let answer = node.replica.range(serializable()).await;
            answer.is_ok_and(|answer| answer.kvs.first().is_some_and(|kv| kv.value == "kept by two"))
        })
        .await;
    }
    let mut refused = JoinSet::new();
    for node in &cluster.nodes {
        let replica = node.replica.clone();
        refused.spawn(async move { replica.put(put("k", "invented")).await });
    }
    while let Some(answer) = refused.join_next().await {
        answer.unwrap().expect_err("nothing can be chosen any more");
    }
    for node in &cluster.nodes {
        let answer = node.replica.range(serializable()).await.unwrap();
        assert_eq!(answer.kvs[0].value, "kept by two");
    }
    let (code, verdict) = cluster.verdict().await;
    assert!(verdict.starts_with("NO QUORUM: 2 of 5 voters up, 3 needed"), "{verdict}");
    for name in ["n1", "n3", "n5"] {
        assert!(verdict.contains(&format!("{name}: comes without its memory")), "{verdict}");
    }
    assert_eq!(code, Some(1));
}

/// Writes `count` values of `bytes` over and over to a few keys, many at a time, through the servers `through`.
async fn load(cluster: &Cluster, through: &[usize], count: usize, bytes: usize) {
    const AT_ONCE: usize = 256;
    const KEYS: usize = 64;
    let mut tasks = JoinSet::new();
    let value = bytes::Bytes::from(vec![b'v'; bytes]);
    let at_once = AT_ONCE.min((64 << 20) / bytes);
    for task in 0..at_once {
        let replica = cluster.nodes[through[task % through.len()]].replica.clone();
        let value = value.clone();
        tasks.spawn(async move {
            for number in (task..count).step_by(at_once) {
                replica.put(put(format!("load/{}", number % KEYS), value.clone())).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// A server is down while `count` writes and several trims go by, with compaction; then it catches up while
/// writes continue.
async fn catch_up(count: usize, bytes: usize) {
    let mut cluster = Cluster::start().await;
    let away = (cluster.leader().await + 1) % 5;
    let present: Vec<usize> = (0..5).filter(|place| *place != away).collect();
    let before = cluster.nodes[away].replica.inspect().await.unwrap().applied_slot;
    cluster.nodes[away].kill();
    let began = Instant::now();
    let mut trims = 0;
    let mut trimmed = 0;
    for part in 0..4 {
        load(&cluster, &present, count / 4, bytes).await;
        let at = &cluster.nodes[present[part]].replica;
        let revision = at.range(get("a")).await.unwrap().header.unwrap().revision;
        let request = synod_client::rpc::etcdserverpb::CompactionRequest { revision, ..Default::default() };
        at.compact(request).await.unwrap();
        let look = at.inspect().await.unwrap();
        trims += usize::from(look.trimmed_slot > trimmed);
        trimmed = trimmed.max(look.trimmed_slot);
        println!(
            "{} writes after {:?}: log {} MiB, store {} MiB, trimmed up to {trimmed}",
            (part + 1) * count / 4,
            began.elapsed(),
            look.log_bytes >> 20,
            look.store_bytes >> 20,
        );
        assert!(look.log_bytes < 512 << 20, "the log stays bounded: {} bytes", look.log_bytes);
    }
    for &place in &present {
        until("the log of each was trimmed past what the absent one knows", async || {
            let look = cluster.nodes[place].replica.inspect().await;
            look.is_ok_and(|look| look.trimmed_slot > before)
        })
        .await;
    }
    println!("{trims} trims seen");
    let writer = Writer::start(&cluster.nodes[present[0]].replica, "meanwhile/");
    writer.goes_on(3).await;
    let back = Instant::now();
    cluster.nodes[away].start();
    cluster.nodes[away].votes().await;
    until("it has caught up while writes continue", async || {
        let target = cluster.nodes[present[0]].replica.inspect().await.unwrap().applied_slot;
        let mut near = false;
        for _ in 0..5 {
            let look = cluster.nodes[away].replica.inspect().await;
            near |= look.is_ok_and(|look| look.applied_slot >= target);
        }
        near
    })
    .await;
    println!("caught up after {:?}", back.elapsed());
    writer.goes_on(3).await;
    let written = writer.end().await;
    assert!(written.errors.is_empty(), "{:?}", written.errors);
    written.is_kept_by(&cluster).await;
    cluster.all_equal().await;
    let all = cluster.nodes[away].replica.range(get_range(prefix("load/"))).await.unwrap();
    assert!(all.kvs.iter().all(|kv| kv.value.len() == bytes), "and holds what was written while it was away");
    assert!(back.elapsed() < Duration::from_secs(60));
}

#[tokio::test(flavor = "multi_thread")]
async fn n6_a_server_that_missed_more_than_the_log_keeps_catches_up() {
    catch_up(2_400, 64 << 10).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a million writes take minutes; for release builds"]
async fn n6_a_server_that_missed_a_million_writes_catches_up() {
    catch_up(1_000_000, 256).await;
}

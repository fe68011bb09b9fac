//! Plain HTTP on the client port, over a real connection.

use crate::common::Server;
use synod_rpc::etcdserverpb as pb;
use synod_rpc::etcdserverpb::kv_client::KvClient;
use synod_server::replica::{RequestError, RoleState};

#[tokio::test]
async fn t_1_one_port_speaks_http_and_grpc() {
    let server = Server::start().await;
    let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
    KvClient::new(server.channel().await).put(put).await.unwrap();
    assert_eq!(server.get("/health").await.0, 200);
    let (status, text) = server.get("/nowhere").await;
    assert!(status == 404 && text.contains("/metrics"), "{status} {text}");
}

#[tokio::test]
async fn g_1_the_version_is_etcds() {
    let server = Server::start().await;
    let (status, body) = server.get("/version").await;
    let version: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, version["etcdserver"].as_str()), (200, Some("3.6.5")));
    assert_eq!(version["etcdcluster"], "3.6.0");
    assert_eq!(version["storage"], "3.6.0");
}

#[tokio::test]
async fn g_2_health_is_a_word_and_a_reason() {
    let server = Server::start().await;
    assert_eq!(server.get("/health").await, (200, r#"{"health":"true","reason":""}"#.to_owned()));
    server.node.inner().failing = Some(RequestError::TimedOut);
    let sick = r#"{"health":"false","reason":"etcdserver: request timed out"}"#;
    assert_eq!(server.get("/health").await, (503, sick.to_owned()));
    assert_eq!(server.get("/health?serializable=true").await.0, 200);
    server.node.inner().status.leader = None;
    let (status, body) = server.get("/health?exclude=NOSPACE").await;
    assert_eq!((status, body.as_str()), (503, r#"{"health":"false","reason":"NO LEADER"}"#));
    assert_eq!(server.get("/health?serializable=true").await.0, 200);
}

#[tokio::test]
async fn g_3_a_server_without_a_majority_lives_and_is_not_ready() {
    let server = Server::start().await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(server.get(path).await, (200, "ok\n".to_owned()), "{path}");
    }
    server.node.inner().failing = Some(RequestError::NoLeader);
    assert_eq!(server.get("/livez").await.0, 200);
    let (status, report) = server.get("/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(
        report,
        "[+]data_corruption ok\n[+]serializable_read ok\n\
         [-]linearizable_read failed: etcdserver: no leader\n[+]non_learner ok\nreadyz check failed\n"
    );
    assert_eq!(server.get("/readyz?exclude=linearizable_read").await.0, 200);
}

#[tokio::test]
async fn g_3_verbose_lists_every_check_and_subpaths_run_one() {
    let server = Server::start().await;
    let (_, report) = server.get("/readyz?verbose&exclude=non_learner&exclude=nothing").await;
    assert_eq!(
        report,
        "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n\
         [+]non_learner excluded: ok\nwarn: there is no such check to exclude: nothing\nreadyz check passed\n"
    );
    assert_eq!(server.get("/livez?verbose").await.1, "[+]serializable_read ok\nlivez check passed\n");
    assert_eq!(server.get("/readyz/non_learner").await, (200, "ok\n".to_owned()));
    assert_eq!(server.get("/livez/non_learner").await.0, 404);

    {
        let mut inner = server.node.inner();
        inner.status.acceptor.as_mut().unwrap().incarnation.0 = 0xbb;
        inner.status.roles[1].state = RoleState::Failed("the disk is gone".to_owned());
    }
    assert_eq!(server.get("/readyz/non_learner").await.0, 503);
    let (status, report) = server.get("/readyz/data_corruption").await;
    assert_eq!(
        (status, report.as_str()),
        (503, "data_corruption failed: acceptor failed: the disk is gone\n")
    );
}

#[tokio::test]
async fn g_5_metrics_bear_etcds_names() {
    let server = Server::start().await;
    let (status, page) = server.get("/metrics").await;
    assert_eq!(status, 200);
    for sample in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 0",
        "etcd_server_leader_changes_seen_total 2",
        "etcd_server_proposals_committed_total 30",
        "etcd_server_proposals_applied_total 29",
        "etcd_server_proposals_pending 0",
        "etcd_mvcc_db_total_size_in_bytes 200",
        "etcd_mvcc_db_total_size_in_use_in_bytes 100",
        "synod_ballot_round 7",
        "synod_slot_chosen 30",
        "synod_fsync_p99_seconds 0.0015",
        "synod_role_up{role=\"acceptor\"} 1",
        "synod_role_restarts_total{role=\"learner\"} 0",
        "synod_peer_connected{peer=\"n2\"} 1",
        "synod_peer_rtt_seconds{peer=\"n2\"} 0.00025",
        "synod_client_connections 1",
        "synod_client_connections_accepted_total 1",
        "# TYPE etcd_server_proposals_committed_total gauge",
        "# TYPE etcd_server_leader_changes_seen_total counter",
        "# TYPE grpc_server_handled_total counter",
    ] {
        assert!(page.lines().any(|line| line == sample), "{sample} in {page}");
    }
    let received = |page: &str| -> u64 {
        let name = "etcd_network_client_grpc_received_bytes_total ";
        page.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
    };
    let before = received(&page);
    assert!(before > 0 && received(&server.get("/metrics").await.1) > before);
}

#[tokio::test]
async fn what_is_not_http_or_too_long_is_refused_and_hurts_nobody() {
    let server = Server::start().await;
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    // The server may hang up before it has read everything; either way it refuses.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, long.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    let answer = server.raw("what is this\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(server.get("/livez").await.0, 200);
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let server = Server::start().await;
    let _channel = server.channel().await;
    server.close.send_replace(true);
    server.serving.await.unwrap();
}

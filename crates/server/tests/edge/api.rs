//! etcd's services over a real connection, with a replica that is merely a store.

use crate::common::{FakeNode, Server};
use bytes::Bytes;
use synod_rpc::etcdserverpb as pb;
use synod_rpc::etcdserverpb::cluster_client::ClusterClient;
use synod_rpc::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use synod_rpc::etcdserverpb::kv_client::KvClient;
use synod_rpc::etcdserverpb::maintenance_client::MaintenanceClient;
use synod_rpc::etcdserverpb::request_op::Request as Op;
use synod_rpc::etcdserverpb::watch_client::WatchClient;
use synod_rpc::mvccpb::KeyValue;
use synod_server::replica::{Consistency, RequestError};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

fn all() -> pb::RangeRequest {
    pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() }
}

fn op(op: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(op) }
}

async fn kv(server: &Server) -> KvClient<Channel> {
    KvClient::new(server.channel().await)
}

fn told(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

#[tokio::test]
async fn h_1_a_header_says_which_cluster_which_member_when_and_under_whom() {
    let server = Server::start().await;
    let answer = kv(&server).await.put(put("k", "v")).await.unwrap().into_inner();
    let expected = pb::ResponseHeader { cluster_id: 0x1234, member_id: 1, revision: 2, raft_term: 7 };
    assert_eq!(answer.header, Some(expected));
}

#[tokio::test]
async fn kv_5_all_five_methods_do_what_they_say() {
    let server = Server::start().await;
    let mut kv = kv(&server).await;
    kv.put(put("a", "1")).await.unwrap();
    kv.put(put("b", "2")).await.unwrap();
    let found = kv.range(pb::RangeRequest { limit: 1, ..all() }).await.unwrap().into_inner();
    assert_eq!((found.kvs.len(), found.more, found.count), (1, true, 2));
    assert_eq!(found.header.unwrap().revision, 3);

    let compare = pb::Compare {
        key: "a".into(),
        result: CompareResult::Equal as i32,
        target: CompareTarget::Value as i32,
        target_union: Some(TargetUnion::Value("1".into())),
        ..Default::default()
    };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Op::RequestPut(put("a", "3"))), op(Op::RequestRange(get("a")))],
        failure: vec![],
    };
    let done = kv.txn(txn).await.unwrap().into_inner();
    assert!(done.succeeded);
    assert_eq!((done.responses.len(), done.header.unwrap().revision), (2, 4));

    let delete = pb::DeleteRangeRequest { key: "b".into(), prev_kv: true, ..Default::default() };
    let deleted = kv.delete_range(delete).await.unwrap().into_inner();
    assert_eq!((deleted.deleted, &deleted.prev_kvs[0].value[..]), (1, &b"2"[..]));

    kv.compact(pb::CompactionRequest { revision: 4, physical: true }).await.unwrap();
    let old = kv.range(pb::RangeRequest { revision: 3, ..all() }).await.unwrap_err();
    assert_eq!(told(&old), (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"));
}

#[tokio::test]
async fn kv_6_only_a_serializable_read_does_without_a_majority() {
    let server = Server::start().await;
    let mut kv = kv(&server).await;
    kv.put(put("k", "v")).await.unwrap();
    kv.range(get("k")).await.unwrap();
    server.node.inner().failing = Some(RequestError::NoLeader);
    let refused = kv.range(get("k")).await.unwrap_err();
    assert_eq!(told(&refused), (Code::Unavailable, "etcdserver: no leader"));
    let found = kv.range(pb::RangeRequest { serializable: true, ..get("k") }).await.unwrap();
    assert_eq!(found.into_inner().count, 1);
    let asked = std::mem::take(&mut server.node.inner().reads);
    assert_eq!(asked, [Consistency::Linearizable, Consistency::Linearizable, Consistency::Serializable]);
}

#[tokio::test]
async fn kv_5_a_large_range_is_read_from_a_snapshot_and_is_no_different() {
    let server = Server::start().await;
    for index in 0..1500 {
        let request = synod_kv::Request::Put(synod_kv::PutRequest::new(format!("k{index:04}"), "v"));
        server.node.inner().store.apply(&request).unwrap().unwrap();
    }
    let found = kv(&server).await.range(all()).await.unwrap().into_inner();
    assert_eq!((found.count, found.kvs.len(), found.more), (1500, 1500, false));
    assert!(found.kvs.is_sorted_by(|a, b| a.key < b.key));
    assert_eq!(found.header.unwrap().revision, 1501);
    let refused = kv(&server).await.range(pb::RangeRequest { revision: 9999, ..all() }).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: mvcc: required revision is a future revision");
}

#[tokio::test]
async fn tx_8_a_transaction_that_only_reads_takes_no_place_in_the_log() {
    let server = Server::start().await;
    let mut kv = kv(&server).await;
    let reads = |serializable| {
        let range = pb::RangeRequest { serializable, ..get("k") };
        pb::TxnRequest { success: vec![op(Op::RequestRange(range))], ..Default::default() }
    };
    kv.txn(reads(false)).await.unwrap();
    kv.txn(reads(true)).await.unwrap();
    let compares = pb::TxnRequest {
        compare: vec![pb::Compare { key: "k".into(), ..Default::default() }],
        ..Default::default()
    };
    assert!(kv.txn(compares).await.unwrap().into_inner().succeeded);
    assert_eq!(server.node.inner().proposals, 0);
    let asked = std::mem::take(&mut server.node.inner().reads);
    assert_eq!(asked, [Consistency::Linearizable, Consistency::Serializable, Consistency::Linearizable]);

    let writes = pb::TxnRequest { success: vec![op(Op::RequestPut(put("k", "v")))], ..Default::default() };
    kv.txn(writes).await.unwrap();
    assert_eq!(server.node.inner().proposals, 1);
}

#[tokio::test]
async fn t_2_a_request_beyond_the_limit_is_refused_before_it_is_proposed() {
    let server = Server::start().await;
    let mut kv = kv(&server).await;
    let large = |bytes: usize| pb::PutRequest { value: vec![7; bytes].into(), ..put("k", "") };
    kv.put(large((1 << 20) - 100)).await.unwrap();
    let refused = kv.put(large(1 << 20)).await.unwrap_err();
    assert_eq!(told(&refused), (Code::InvalidArgument, "etcdserver: request is too large"));
    let refused = kv.put(large(2 << 20)).await.unwrap_err();
    assert_eq!(told(&refused), (Code::ResourceExhausted, "grpc: received message larger than max"));
    assert_eq!(server.node.inner().proposals, 1);
}

#[tokio::test]
async fn tx_3_nonsense_is_not_proposed() {
    let server = Server::start().await;
    let mut kv = kv(&server).await;
    let refused = kv.put(put("", "v")).await.unwrap_err();
    assert_eq!(told(&refused), (Code::InvalidArgument, "etcdserver: key is not provided"));
    let refused = kv.range(get("")).await.unwrap_err();
    assert_eq!(told(&refused), (Code::InvalidArgument, "etcdserver: key is not provided"));
    let many = (0..129).map(|index| op(Op::RequestPut(put(&format!("k{index}"), "v")))).collect();
    let refused = kv.txn(pb::TxnRequest { success: many, ..Default::default() }).await.unwrap_err();
    assert_eq!(told(&refused), (Code::InvalidArgument, "etcdserver: too many operations in txn request"));
    let inner = server.node.inner();
    assert_eq!((inner.proposals, inner.reads.len()), (0, 0));
}

#[tokio::test]
async fn t_4_a_client_may_insist_on_a_leader() {
    let server = Server::start().await;
    let mut kv = kv(&server).await;
    let insist = || {
        let mut request = Request::new(pb::RangeRequest { serializable: true, ..get("k") });
        request.metadata_mut().insert("hasleader", "true".parse().unwrap());
        request
    };
    kv.range(insist()).await.unwrap();
    server.node.inner().status.leader = None;
    let refused = kv.range(insist()).await.unwrap_err();
    assert_eq!(told(&refused), (Code::Unavailable, "etcdserver: no leader"));
    kv.range(pb::RangeRequest { serializable: true, ..get("k") }).await.unwrap();
}

#[tokio::test]
async fn t_8_what_means_nothing_is_refused_and_hurts_nobody() {
    let server = Server::start().await;
    let channel = server.channel().await;
    let mut kv = KvClient::new(channel.clone());
    let refused = kv.range(pb::RangeRequest { sort_target: 99, ..all() }).await.unwrap_err();
    assert_eq!(told(&refused), (Code::InvalidArgument, "etcdserver: invalid sort option"));
    let compare = pb::Compare { key: "k".into(), result: 99, ..Default::default() };
    let refused = kv.txn(pb::TxnRequest { compare: vec![compare], ..Default::default() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);

    // Field 2 is a number in this message, and bytes in the one that the method takes.
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<KeyValue, pb::RangeResponse>::default();
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
    let malformed = Request::new(KeyValue { create_revision: 5, ..Default::default() });
    let refused = grpc.unary(malformed, path, codec).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal, "{refused}");
    assert_eq!(kv.range(all()).await.unwrap().into_inner().count, 0);
}

#[tokio::test]
async fn section_15_why_there_is_no_answer() {
    let server = Server::start().await;
    let mut kv = kv(&server).await;
    for (error, code, text) in [
        (RequestError::Busy, Code::ResourceExhausted, "too many requests"),
        (RequestError::TimedOut, Code::Unavailable, "request timed out"),
        (RequestError::NoLeader, Code::Unavailable, "no leader"),
        (RequestError::Stopped, Code::Unavailable, "server stopped"),
        (
            RequestError::AnswerLost,
            Code::Unavailable,
            "request timed out, waiting for the applied index took too long",
        ),
    ] {
        server.node.inner().failing = Some(error);
        let refused = kv.put(put("k", "v")).await.unwrap_err();
        assert_eq!(told(&refused), (code, &*format!("etcdserver: {text}")));
    }
}

#[tokio::test]
async fn mt_1_the_status_says_where_the_replica_stands() {
    let server = Server::start().await;
    let mut maintenance = MaintenanceClient::new(server.channel().await);
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    let expected = pb::StatusResponse {
        header: Some(pb::ResponseHeader { cluster_id: 0x1234, member_id: 1, revision: 1, raft_term: 7 }),
        version: "3.6.5".to_owned(),
        db_size: 200,
        leader: 2,
        raft_index: 30,
        raft_term: 7,
        raft_applied_index: 29,
        db_size_in_use: 100,
        storage_version: "3.6.0".to_owned(),
        ..Default::default()
    };
    assert_eq!(status, expected);

    {
        let mut inner = server.node.inner();
        inner.status.leader = None;
        inner.status.problem = Some("acceptor failed".to_owned());
        inner.status.acceptor.as_mut().unwrap().incarnation.0 = 0xbb;
    }
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.errors, ["etcdserver: no leader", "acceptor failed"]);
    assert_eq!((status.leader, status.is_learner), (0, true));
    assert_eq!(status.raft_term, 7, "H-4: it never goes back");
}

#[tokio::test]
async fn mt_2_there_are_no_alarms() {
    let server = Server::start().await;
    let mut maintenance = MaintenanceClient::new(server.channel().await);
    assert_eq!(maintenance.alarm(pb::AlarmRequest::default()).await.unwrap().into_inner().alarms, []);
    let activate = pb::AlarmRequest { action: 1, ..Default::default() };
    assert_eq!(maintenance.alarm(activate).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn m_1_the_members_come_in_the_order_of_their_ids() {
    let server = Server::start().await;
    let mut cluster = ClusterClient::new(server.channel().await);
    let list = pb::MemberListRequest { linearizable: true };
    let members = cluster.member_list(list).await.unwrap().into_inner().members;
    let seen: Vec<_> = members.iter().map(|m| (m.id, m.name.as_str(), m.is_learner)).collect();
    assert_eq!(seen, [(1, "n1", false), (2, "n2", false), (3, "n3", true)]);
    assert_eq!(members[0].client_urls, ["http://127.0.0.1:2379"]);
    server.node.inner().failing = Some(RequestError::TimedOut);
    assert_eq!(cluster.member_list(list).await.unwrap_err().code(), Code::Unavailable);
    cluster.member_list(pb::MemberListRequest { linearizable: false }).await.unwrap();
}

#[tokio::test]
async fn what_is_not_offered_says_so_by_name() {
    let server = Server::start().await;
    let channel = server.channel().await;
    let refused =
        ClusterClient::new(channel.clone()).member_add(pb::MemberAddRequest::default()).await.unwrap_err();
    assert_eq!(told(&refused), (Code::Unimplemented, "synod does not offer Cluster.MemberAdd yet"));
    let refused = WatchClient::new(channel).watch(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(told(&refused), (Code::Unimplemented, "synod does not offer etcdserverpb.Watch/Watch yet"));
}

#[tokio::test]
async fn health_and_reflection_are_there() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_response::MessageResponse};

    let server = Server::start().await;
    let channel = server.channel().await;
    let check = tonic_health::pb::HealthCheckRequest { service: String::new() };
    let health = HealthClient::new(channel.clone()).check(check).await.unwrap().into_inner();
    assert_eq!(health.status(), tonic_health::ServingStatus::Serving.into());

    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(list))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(services) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    for name in ["etcdserverpb.KV", "synodpb.Admin", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|known| known == name), "{name} in {names:?}");
    }
}

#[tokio::test]
async fn g_5_calls_are_counted_by_method_and_code() {
    let server = Server::start().await;
    let mut kv = kv(&server).await;
    kv.put(put("k", "v")).await.unwrap();
    kv.put(put("", "v")).await.unwrap_err();
    let page = server.metrics.scrape();
    let count = |name: &str, code: &str| {
        let sample = format!(
            "{name}{{grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\"{code}}} "
        );
        let line = page.lines().find_map(|line| line.strip_prefix(&*sample));
        line.unwrap_or_else(|| panic!("{sample} in {page}")).to_owned()
    };
    assert_eq!(count("grpc_server_started_total", ""), "2");
    assert_eq!(count("grpc_server_handled_total", ",grpc_code=\"OK\""), "1");
    assert_eq!(count("grpc_server_handled_total", ",grpc_code=\"InvalidArgument\""), "1");
    assert_eq!(count("grpc_server_handling_seconds_count", ""), "2");
}

#[tokio::test]
async fn values_of_any_bytes_survive() {
    let server = Server::start().await;
    let mut kv = kv(&server).await;
    let value = Bytes::from((0..=255).collect::<Vec<u8>>());
    kv.put(pb::PutRequest { value: value.clone(), ..put("\0\u{1}", "") }).await.unwrap();
    let found = kv.range(all()).await.unwrap().into_inner();
    assert_eq!(found.kvs[0].value, value);
}

#[tokio::test]
async fn c_1_a_write_under_way_ends_before_the_server_does() {
    let node = FakeNode::new();
    let (open, gate) = tokio::sync::watch::channel(false);
    node.inner().gate = Some(gate);
    let server = Server::start_with(node, std::time::Duration::from_secs(30)).await;
    let mut kv = kv(&server).await;
    let writing = tokio::spawn(async move { kv.put(put("k", "v")).await });
    while server.node.inner().proposals == 0 {
        tokio::task::yield_now().await;
    }
    server.close.send_replace(true);
    // The port is given up while the write is still under way.
    while tokio::net::TcpStream::connect(("127.0.0.1", server.port)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!server.serving.is_finished());
    open.send_replace(true);
    writing.await.unwrap().unwrap();
    server.serving.await.unwrap();
}

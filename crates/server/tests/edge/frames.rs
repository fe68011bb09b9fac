//! gRPC as it looks on the wire: what a call may look like, and what an answer does look like.

use crate::common::{FakeNode, Server};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use prost::Message;
use synod_rpc::etcdserverpb as pb;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tonic::codegen::http::{HeaderMap, Request, StatusCode};

/// What came back, as it came.
#[derive(Debug)]
struct Answer {
    headers: HeaderMap,
    frames: Vec<Bytes>,
    /// None if the headers were all there was.
    trailers: Option<HeaderMap>,
}

impl Answer {
    fn status(&self) -> (&str, &str) {
        let last = self.trailers.as_ref().unwrap_or(&self.headers);
        let text = |name| last.get(name).map_or("", |value| value.to_str().unwrap());
        (text("grpc-status"), text("grpc-message"))
    }
}

async fn connect(server: &Server) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn begin(
    client: &mut SendRequest<Bytes>,
    method: &str,
    headers: &[(&'static str, &'static str)],
) -> (ResponseFuture, SendStream<Bytes>) {
    let uri = format!("http://127.0.0.1/etcdserverpb.KV/{method}");
    let mut request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.send_request(request.body(()).unwrap(), false).unwrap()
}

async fn end(answer: ResponseFuture) -> Answer {
    let (parts, mut body) = answer.await.unwrap().into_parts();
    assert_eq!(parts.status, StatusCode::OK);
    assert_eq!(parts.headers["content-type"], "application/grpc");
    let mut frames = Vec::new();
    if body.is_end_stream() {
        return Answer { headers: parts.headers, frames, trailers: None };
    }
    while let Some(frame) = body.data().await {
        frames.push(frame.unwrap());
    }
    Answer { headers: parts.headers, frames, trailers: body.trailers().await.unwrap() }
}

/// A call whose body is `frames`, the last of which ends it.
async fn call(
    server: &Server,
    method: &str,
    headers: &[(&'static str, &'static str)],
    frames: &[&[u8]],
) -> Answer {
    let mut client = connect(server).await;
    let (answer, mut body) = begin(&mut client, method, headers);
    let (last, others) = frames.split_last().unwrap();
    for frame in others {
        body.send_data(Bytes::copy_from_slice(frame), false).unwrap();
    }
    body.send_data(Bytes::copy_from_slice(last), true).unwrap();
    end(answer).await
}

fn message(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}

fn put(key: &'static str) -> Bytes {
    message(&pb::PutRequest { key: key.into(), value: "v".into(), ..Default::default() })
}

fn get(key: &'static str) -> Bytes {
    message(&pb::RangeRequest { key: key.into(), ..Default::default() })
}

#[tokio::test]
async fn an_answer_is_one_frame_between_headers_and_trailers() {
    let server = Server::start().await;
    let txn = message(&pb::TxnRequest::default());
    let delete = message(&pb::DeleteRangeRequest { key: "k".into(), ..Default::default() });
    for (method, call_of) in [("Put", put("k")), ("Range", get("k")), ("DeleteRange", delete), ("Txn", txn)] {
        let answer = call(&server, method, &[], &[&call_of]).await;
        assert_eq!(answer.status(), ("0", ""), "{method}");
        assert_eq!(answer.headers.get("content-length"), None, "{method}");
        let [frame] = &answer.frames[..] else { panic!("{method}: {answer:?}") };
        let (prefix, rest) = frame.split_at(5);
        assert_eq!(prefix, [&[0][..], &u32::try_from(rest.len()).unwrap().to_be_bytes()].concat());
        // The first field of each answer is its header.
        assert_eq!(rest[0], 0x0a, "{method}");
    }
}

#[tokio::test]
async fn an_error_is_headers_only_with_its_text_percent_encoded() {
    let server = Server::start().await;
    let answer = call(&server, "Put", &[], &[&put("")]).await;
    assert_eq!(answer.status(), ("3", "etcdserver:%20key%20is%20not%20provided"));
    assert!(answer.trailers.is_none() && answer.frames.is_empty(), "{answer:?}");
}

#[tokio::test]
async fn a_message_may_come_in_any_pieces_and_the_answer_is_the_same() {
    let server = Server::start().await;
    call(&server, "Put", &[], &[&put("k")]).await;
    let whole = get("k");
    let expected = call(&server, "Range", &[], &[&whole]).await;
    let (half, rest) = whole.split_at(3);
    let bytes: Vec<&[u8]> = whole.chunks(1).collect();
    for pieces in [vec![&whole[..], b""], vec![b"", &whole], vec![half, rest], vec![half, rest, b""], bytes] {
        let answer = call(&server, "Range", &[], &pieces).await;
        assert_eq!((answer.frames, answer.trailers), (expected.frames.clone(), expected.trailers.clone()));
    }
    let same = [("content-type", "application/grpc+proto"), ("grpc-encoding", "identity")];
    let answer = call(&server, "Range", &same, &[&whole]).await;
    assert_eq!(answer.frames, expected.frames);
}

#[tokio::test]
async fn a_call_may_end_with_trailers() {
    let server = Server::start().await;
    let mut client = connect(&server).await;
    let (answer, mut body) = begin(&mut client, "Put", &[]);
    body.send_data(put("k"), false).unwrap();
    body.send_trailers(HeaderMap::new()).unwrap();
    assert_eq!(end(answer).await.status(), ("0", ""));
}

#[tokio::test]
async fn t_8_what_is_no_message_is_refused_and_not_proposed() {
    let server = Server::start().await;
    let compressed = [&[1], &put("k")[1..]].concat();
    let announced = [&put("k")[..], &[0, 0, 0, 0, 9, 1]].concat();
    let nonsense = [0, 0, 0, 0, 1, 0xff];
    for (frames, code) in [
        (&compressed[..], "13"),
        (&put("k")[..7], "13"),
        (&announced, "13"),
        (&nonsense, "13"),
        (&[2, 0, 0, 0, 0], "13"),
        (b"", "13"),
    ] {
        let answer = call(&server, "Put", &[], &[frames]).await;
        assert_eq!(answer.status().0, code, "{frames:?}: {answer:?}");
    }
    let answer = call(&server, "Put", &[("grpc-encoding", "gzip")], &[&compressed]).await;
    assert_eq!(answer.status().0, "12");
    assert_eq!(answer.headers["grpc-accept-encoding"], "identity");
    assert_eq!(server.node.inner().proposals, 0);
}

#[tokio::test]
async fn t_2_a_message_too_large_is_refused_before_it_has_come() {
    let server = Server::start().await;
    let mut client = connect(&server).await;
    let (answer, mut body) = begin(&mut client, "Put", &[]);
    // Two mebibytes are announced, and the client goes on holding the rest back.
    body.send_data(Bytes::from_static(&[0, 0, 0x20, 0, 0]), false).unwrap();
    assert_eq!(end(answer).await.status(), ("8", "grpc:%20received%20message%20larger%20than%20max"));
    drop(body);
}

#[tokio::test]
async fn c_1_a_call_given_up_counts_as_cancelled_and_its_write_may_take_effect() {
    let node = FakeNode::new();
    let (open, gate) = watch::channel(false);
    node.inner().gate = Some(gate);
    let server = Server::start_with(node, std::time::Duration::from_secs(5)).await;
    let mut client = connect(&server).await;
    let (answer, mut body) = begin(&mut client, "Put", &[]);
    body.send_data(put("k"), true).unwrap();
    while server.node.inner().proposals == 0 {
        tokio::task::yield_now().await;
    }
    body.send_reset(Reason::CANCEL);
    drop(answer);
    let cancelled = "grpc_server_handled_total{grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",\
                     grpc_method=\"Put\",grpc_code=\"Canceled\"} 1";
    while !server.metrics.scrape().lines().any(|line| line == cancelled) {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.node.inner().proposals, 1);
    open.send_replace(true);
    assert_eq!(call(&server, "Range", &[], &[&get("k")]).await.status(), ("0", ""));
}

#[tokio::test]
async fn a_client_may_say_hasleader_the_short_way_too() {
    let server = Server::start().await;
    server.node.inner().status.leader = None;
    let answer = call(&server, "Range", &[("hasleader", "true")], &[&get("k")]).await;
    assert_eq!(answer.status(), ("14", "etcdserver:%20no%20leader"));
}

//! Which calls are asked again elsewhere, and what a failed one says about the
//! data. Each test is one rule of the crate's documentation.

mod common;

use std::time::Duration;

use common::{Behaviour, Fake, Nobody};
use synod_client::requests::{get, op, put, txn};
use synod_client::{Client, ClientError, Config, Failure, Outcome};
use tokio::net::{TcpSocket, TcpStream};
use tonic::Code;

const NO_LEADER: Behaviour = Behaviour::Fail(Code::Unavailable, "etcdserver: no leader");

/// Generous, for calls that are to end before it.
const LONG: Duration = Duration::from_secs(30);
/// For calls that are to last until it.
const SHORT: Duration = Duration::from_millis(400);

fn client(endpoints: &[&str], request_timeout: Duration) -> Client {
    let config = Config { request_timeout, ..Config::new(endpoints.iter().copied()) };
    Client::connect(config).unwrap()
}

fn status(error: &ClientError) -> (Code, &str) {
    match &error.failure {
        Failure::Status { code, message } => (*code, message),
        other => panic!("not a server's answer: {other:?}"),
    }
}

#[tokio::test]
async fn a_read_is_asked_elsewhere_after_unavailable() {
    let (bad, good) = (Fake::start(NO_LEADER).await, Fake::start(Behaviour::Answer).await);
    let client = client(&[&bad.endpoint, &good.endpoint], LONG);

    let answer = client.range(get("k")).await.unwrap();
    assert_eq!(answer.kvs[0].key, "k");
    assert_eq!((bad.calls(), good.calls()), (1, 1));

    client.range(get("k")).await.unwrap();
    assert_eq!((bad.calls(), good.calls()), (1, 2), "the endpoint that worked is asked first");
}

#[tokio::test]
async fn a_read_is_asked_elsewhere_when_nobody_listens_or_the_connection_breaks() {
    let nobody = Nobody::new();
    let (breaking, good) = (Fake::start_breaking().await, Fake::start(Behaviour::Answer).await);
    let client = client(&[&nobody.endpoint, &breaking.endpoint, &good.endpoint], LONG);

    client.range(get("k")).await.unwrap();
    assert_eq!((breaking.calls(), good.calls()), (1, 1));
}

#[tokio::test]
async fn a_read_leaves_a_silent_endpoint_after_its_share_of_the_time() {
    let (silent, good) = (Fake::start(Behaviour::Hang).await, Fake::start(Behaviour::Answer).await);
    let client = client(&[&silent.endpoint, &good.endpoint], Duration::from_secs(4));

    client.range(get("k")).await.unwrap();
    assert_eq!((silent.calls(), good.calls()), (1, 1));
}

#[tokio::test]
async fn a_read_is_not_asked_elsewhere_after_a_definite_error() {
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    let bad = Fake::start(Behaviour::Fail(Code::OutOfRange, compacted)).await;
    let good = Fake::start(Behaviour::Answer).await;
    let client = client(&[&bad.endpoint, &good.endpoint], LONG);

    let error = client.range(get("k")).await.unwrap_err();
    assert_eq!(status(&error), (Code::OutOfRange, compacted));
    assert_eq!(error.endpoint, format!("http://{}", bad.endpoint));
    assert_eq!(good.calls(), 0);
}

#[tokio::test]
async fn a_read_is_repeated_until_the_deadline_and_then_keeps_the_servers_words() {
    let (one, two) = (Fake::start(NO_LEADER).await, Fake::start(NO_LEADER).await);
    let client = client(&[&one.endpoint, &two.endpoint], Duration::from_millis(1500));

    let error = client.range(get("k")).await.unwrap_err();
    assert_eq!(status(&error), (Code::Unavailable, "etcdserver: no leader"));
    assert_eq!(error.outcome, Outcome::NotApplied);
    assert!(one.calls() > 1 && two.calls() > 1, "each was asked again");
    assert!(one.calls() < 50, "with pauses in between");
}

#[tokio::test]
async fn a_read_in_vain_tells_of_servers_that_live_rather_than_of_those_that_do_not() {
    // The last one asked is the one that is not there.
    let (silent, nobody) = (Fake::start(Behaviour::Hang).await, Nobody::new());
    let client = client(&[&silent.endpoint, &nobody.endpoint], SHORT);
    let error = client.range(get("k")).await.unwrap_err();
    assert!(matches!(error.failure, Failure::Deadline(_)), "{error}");
}

#[tokio::test]
async fn a_write_goes_elsewhere_if_no_connection_was_made() {
    let (nobody, good) = (Nobody::new(), Fake::start(Behaviour::Answer).await);
    let client = client(&[&nobody.endpoint, &good.endpoint], LONG);

    client.put(put("k", "v")).await.unwrap();
    assert_eq!(good.calls(), 1);
}

#[tokio::test]
async fn a_write_that_found_nobody_was_not_applied() {
    let (one, two) = (Nobody::new(), Nobody::new());
    let client = client(&[&one.endpoint, &two.endpoint], SHORT);

    let error = client.put(put("k", "v")).await.unwrap_err();
    assert!(matches!(error.failure, Failure::Connect(_)), "{error}");
    assert_eq!(error.outcome, Outcome::NotApplied);
}

#[tokio::test]
async fn a_write_that_got_no_connection_in_time_was_not_applied() {
    // Nobody accepts, and the queue is full: the system ignores who knocks.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let deaf = socket.listen(1).unwrap();
    let address = deaf.local_addr().unwrap();
    let _queued = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    let endpoint = address.to_string();
    let config = Config { dial_timeout: SHORT, request_timeout: LONG, endpoints: vec![endpoint.clone()] };
    let replica = Client::connect(config).unwrap().on(&endpoint).unwrap();

    let error = replica.put(put("k", "v")).await.unwrap_err();
    assert!(matches!(error.failure, Failure::Connect(_)), "{error}");
    assert_eq!(error.outcome, Outcome::NotApplied);
}

#[tokio::test]
async fn a_write_is_not_repeated_after_unavailable() {
    let (bad, good) = (Fake::start(NO_LEADER).await, Fake::start(Behaviour::Answer).await);
    let client = client(&[&bad.endpoint, &good.endpoint], LONG);

    let error = client.put(put("k", "v")).await.unwrap_err();
    assert_eq!(status(&error), (Code::Unavailable, "etcdserver: no leader"));
    assert_eq!(error.outcome, Outcome::Unknown);
    assert_eq!((bad.calls(), good.calls()), (1, 0));
}

#[tokio::test]
async fn a_write_is_not_repeated_after_its_connection_broke() {
    let (breaking, good) = (Fake::start_breaking().await, Fake::start(Behaviour::Answer).await);
    let client = client(&[&breaking.endpoint, &good.endpoint], LONG);

    let error = client.put(put("k", "v")).await.unwrap_err();
    assert!(matches!(error.failure, Failure::Broken(_)), "{error}");
    assert_eq!(error.outcome, Outcome::Unknown);
    assert_eq!((breaking.calls(), good.calls()), (1, 0));
}

#[tokio::test]
async fn a_write_without_an_answer_may_have_been_applied() {
    let (silent, good) = (Fake::start(Behaviour::Hang).await, Fake::start(Behaviour::Answer).await);
    let client = client(&[&silent.endpoint, &good.endpoint], SHORT);

    let error = client.put(put("k", "v")).await.unwrap_err();
    assert!(matches!(error.failure, Failure::Deadline(_)), "{error}");
    assert_eq!(error.outcome, Outcome::Unknown);
    assert_eq!((silent.calls(), good.calls()), (1, 0));
}

#[tokio::test]
async fn a_refused_write_was_not_applied() {
    let words = "etcdserver: key is not provided";
    let server = Fake::start(Behaviour::Fail(Code::InvalidArgument, words)).await;
    let error = client(&[&server.endpoint], LONG).put(put("", "v")).await.unwrap_err();
    assert_eq!(status(&error), (Code::InvalidArgument, words));
    assert_eq!(error.outcome, Outcome::NotApplied);
}

#[tokio::test]
async fn a_transaction_that_only_reads_is_retried_and_one_that_writes_is_not() {
    let (bad, good) = (Fake::start(NO_LEADER).await, Fake::start(Behaviour::Answer).await);
    let client = client(&[&bad.endpoint, &good.endpoint], LONG);

    let error = client.txn(txn([], [op(get("k"))], [op(put("k", "v"))])).await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Unknown);
    assert_eq!((bad.calls(), good.calls()), (1, 0));

    client.txn(txn([], [op(get("k"))], [])).await.unwrap();
    assert_eq!((bad.calls(), good.calls()), (2, 1));
}

#[tokio::test]
async fn a_pinned_call_is_tried_once_and_nowhere_else() {
    let (bad, good) = (Fake::start(NO_LEADER).await, Fake::start(Behaviour::Answer).await);
    let client = client(&[&good.endpoint, &bad.endpoint], LONG);

    let error = client.on(&bad.endpoint).unwrap().range(get("k")).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Unavailable));
    assert_eq!((bad.calls(), good.calls()), (1, 0));
}

#[tokio::test]
async fn an_endpoint_that_comes_back_is_found_again() {
    let nobody = Nobody::new();
    let client = client(&[&nobody.endpoint], LONG);
    let once = client.on(&nobody.endpoint).unwrap().range(get("k")).await.unwrap_err();
    assert!(matches!(once.failure, Failure::Connect(_)), "{once}");

    let (answer, server) =
        tokio::join!(client.range(get("k")), async { nobody.become_server(Behaviour::Answer) });
    answer.unwrap();
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn the_admin_service_is_reached_through_one_endpoint() {
    let server = Fake::start(Behaviour::Answer).await;
    let replica = client(&[&server.endpoint], LONG).on(&server.endpoint).unwrap();

    assert_eq!(replica.inspect().await.unwrap().name, "n1");
    let mut events = replica.fault_events().await.unwrap();
    assert_eq!(events.message().await.unwrap().unwrap().text, "acceptor stopped");
    assert!(events.message().await.unwrap().is_none());

    let error = replica.state_at(7).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Unimplemented), "a server may be older than this client");
}

#[tokio::test]
async fn bad_endpoints_are_refused_before_anything_is_sent() {
    for endpoints in [vec![], vec!["n1"], vec!["127.0.0.1:1", "https://n1:1"]] {
        let error = Client::connect(Config::new(endpoints)).unwrap_err();
        assert!(matches!(error.failure, Failure::BadEndpoint(_)), "{error}");
    }
    let twice = client(&["127.0.0.1:1", "http://127.0.0.1:1"], LONG);
    assert_eq!(twice.replicas().len(), 1);
}

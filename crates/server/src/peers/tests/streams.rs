use std::pin::Pin;

use synod_rpc::peer::{PROTOCOL_VERSION, cluster_to_wire};
use synod_rpc::synodpb as pb;
use synod_rpc::synodpb::paxos_client::PaxosClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::peers::queue::MAX_FRAME_BYTES;

#[tokio::test]
async fn messages_arrive_in_few_frames() {
    let (a, mut b) = pair().await;
    for slot in 1..=1000 {
        a.transport.send(&[A, B, C], &numbered(slot));
    }
    let mut frames = 0;
    let mut all = Vec::new();
    while all.len() < 1000 {
        let (from, messages) = b.arrived().await;
        assert_eq!(from, A);
        frames += 1;
        all.extend(messages);
    }
    assert_eq!(all, (1..=1000).map(numbered).collect::<Vec<_>>());
    assert!(frames < 10, "{frames} frames for what waited together");
    let (a, b) = (a.transport.peer_stats(B), b.transport.peer_stats(A));
    assert_eq!((a.sent_messages, a.dropped, b.received_messages), (1000, 0, 1000));
    assert_eq!(a.sent_bytes, b.received_bytes);
    assert!(b.last_heard.is_some());
}

#[tokio::test]
async fn every_lane_carries_its_messages() {
    let (a, mut b) = pair().await;
    let messages = [
        accept(1, 100),
        Message::Abdicate { ballot: ballot() },
        Message::Entries { from: Slot(1), values: vec![Value::no_op()], chosen: Prefix(1) },
    ];
    messages.iter().for_each(|message| a.transport.send(&[B], message));
    let arrived = b.arrive(3).await;
    assert!(messages.iter().all(|message| arrived.contains(message)), "{arrived:?}");
}

#[tokio::test]
async fn many_threads_carry_at_once_and_nothing_is_lost_or_left_lying() {
    let (a, mut b) = pair().await;
    let a = Arc::new(a.transport);
    let threads: Vec<_> = (0..4u64)
        .map(|thread| {
            let a = Arc::clone(&a);
            std::thread::spawn(move || {
                for number in 1..=500 {
                    let message = numbered(thread * 1000 + number);
                    match number % 3 {
                        0 => a.send(&[B], &message),
                        _ => a.send_here(&[Outgoing { to: B, message }]),
                    }
                }
            })
        })
        .collect();
    let arrived = b.arrive(2000).await;
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    for thread in 0..4 {
        let of_thread = (1..=500).map(|number| numbered(thread * 1000 + number));
        let mut in_order = arrived.iter();
        assert!(of_thread.into_iter().all(|message| in_order.any(|other| *other == message)), "in order");
    }
    assert_eq!((arrived.len(), a.peer_stats(B).dropped), (2000, 0));
}

#[tokio::test]
async fn a_large_value_gets_through() {
    let (a, mut b) = pair().await;
    a.transport.send(&[B], &accept(1, 8 << 20));
    assert_eq!(b.arrive(1).await, [accept(1, 8 << 20)]);
}

#[tokio::test]
async fn a_broadcast_is_encoded_once() {
    let (mut a, mut b, mut c) = (Server::start(A).await, Server::start(B).await, Server::start(C).await);
    a.knows(&[(B, b.address()), (C, c.address())]);
    a.is_told(Event::Connected(B)).await;
    while !a.transport.peer_stats(C).connected {
        a.event().await;
    }
    let before = a.transport.stats().encoded;
    a.transport.send(&[B, C], &accept(1, 100));
    assert_eq!(a.transport.stats().encoded - before, 1);
    assert_eq!(b.arrive(1).await, c.arrive(1).await);
}

#[tokio::test]
async fn a_server_that_restarts_is_found_again() {
    let (mut a, b) = pair().await;
    let address = b.address();
    b.transport.shutdown().await;
    a.is_told(Event::Disconnected(B)).await;
    a.transport.send(&[B], &numbered(1));
    let listen = address.to_string();
    let mut b = Server::start_with(B, Some(CLUSTER), &listen, Blocks::default()).await;
    a.is_told(Event::Connected(B)).await;
    assert_eq!(a.transport.peer_stats(B).problem, None);
    a.transport.send(&[B], &numbered(2));
    let (_, messages) = b.arrived().await;
    assert!(messages.contains(&numbered(2)) || b.arrive(1).await.contains(&numbered(2)));
}

#[test]
fn a_server_that_dies_is_noticed_at_once() {
    let one = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut a = one.block_on(Server::start(A));
    let b = other.block_on(Server::start(B));
    one.block_on(async {
        a.knows(&[(B, b.address())]);
        a.is_told(Event::Connected(B)).await;
    });
    // Sockets close without a word, as when a process is killed.
    other.shutdown_background();
    let died = std::time::Instant::now();
    one.block_on(a.is_told(Event::Disconnected(B)));
    assert!(died.elapsed() < lane::PING_TIMEOUT, "noticed by silence only");
    drop(b);
}

/// Forwards connections until told to be silent, without closing any.
async fn proxy(to: SocketAddr) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (silence, silent) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let far = TcpStream::connect(to).await.unwrap();
            let (near_in, near_out) = near.into_split();
            let (far_in, far_out) = far.into_split();
            for (mut from, mut to) in [(near_in, far_out), (far_in, near_out)] {
                let mut silent = silent.clone();
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    loop {
                        tokio::select! {
                            count = from.read(&mut bytes) => match count {
                                Ok(count) if count > 0 && to.write_all(&bytes[..count]).await.is_ok() => {}
                                _ => return,
                            },
                            () = async { drop(silent.wait_for(|silent| *silent).await) } => std::future::pending().await,
                        }
                    }
                });
            }
        }
    });
    (address, silence)
}

#[tokio::test]
async fn a_server_that_vanishes_without_a_word_is_noticed_too() {
    let (mut a, b) = (Server::start(A).await, Server::start(B).await);
    let (address, silence) = proxy(b.address()).await;
    a.knows(&[(B, address)]);
    a.is_told(Event::Connected(B)).await;
    silence.send_replace(true);
    a.is_told(Event::Disconnected(B)).await;
}

#[tokio::test]
async fn it_is_noticed_on_every_lane_although_much_waits_and_more_comes() {
    let (mut a, b) = (Server::start(A).await, Server::start(B).await);
    let (address, silence) = proxy(b.address()).await;
    a.knows(&[(B, address)]);
    a.is_told(Event::Connected(B)).await;
    let peer = Arc::clone(&a.transport.shared.peers.load()[&B].peer);
    silence.send_replace(true);
    a.transport.send(&[B], &accept(1, 8 << 20));
    // Steps rather than a time: the transport sleeps, too, and a machine that is busy delays both.
    for _ in 0..30 {
        // The protocol's lane is full. The urgent one goes on, into the system's memory.
        a.transport.send(&[B], &Message::Abdicate { ballot: ballot() });
        tokio::time::sleep(lane::PING_INTERVAL / 5).await;
        if [Lane::Protocol, Lane::Urgent].iter().all(|lane| peer.queue(*lane).line().is_none()) {
            return a.is_told(Event::Disconnected(B)).await;
        }
    }
    panic!("a lane still counts as connected");
}

#[tokio::test]
async fn a_server_that_accepts_but_never_answers_does_not_count_as_connected() {
    let a = Server::start(A).await;
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    a.knows(&[(B, mute.local_addr().unwrap())]);
    a.complains(B, "no answer within").await;
    assert!(!a.transport.peer_stats(B).connected);
}

#[tokio::test]
async fn a_server_of_another_cluster_is_refused_with_a_reason() {
    let (a, b) = (Server::start(A).await, Server::start(B).await);
    b.transport.set_cluster(Some(ClusterId(0xc2)));
    a.knows(&[(B, b.address())]);
    a.complains(B, &format!("this server belongs to cluster {}", ClusterId(0xc2))).await;
}

#[tokio::test]
async fn an_address_that_changed_hands_is_refused_with_a_reason() {
    let (a, c) = (Server::start(A).await, Server::start(C).await);
    a.knows(&[(B, c.address())]);
    a.complains(B, "this server is n3, and you look for n2").await;
}

#[tokio::test]
async fn lanes_wait_for_the_cluster_and_follow_it() {
    let (mut a, mut b) = (
        Server::start_with(A, None, "127.0.0.1:0", Blocks::default()).await,
        Server::start_with(B, None, "127.0.0.1:0", Blocks::default()).await,
    );
    a.knows(&[(B, b.address())]);
    a.transport.set_cluster(Some(CLUSTER));
    a.complains(B, "belongs to no cluster yet").await;
    b.transport.set_cluster(Some(CLUSTER));
    a.is_told(Event::Connected(B)).await;
    b.transport.set_cluster(Some(ClusterId(0xc2)));
    a.is_told(Event::Disconnected(B)).await;
    a.transport.set_cluster(Some(ClusterId(0xc2)));
    a.is_told(Event::Connected(B)).await;
    a.transport.send(&[B], &numbered(1));
    assert_eq!(b.arrive(1).await, [numbered(1)]);
}

#[tokio::test]
async fn peers_come_and_go_and_move() {
    let (mut a, b) = pair().await;
    a.knows(&[]);
    a.is_told(Event::Disconnected(B)).await;
    assert_eq!(a.transport.peer_stats(B), PeerStats::default());
    let (address, _silence) = proxy(b.address()).await;
    a.knows(&[(B, b.address())]);
    a.is_told(Event::Connected(B)).await;
    a.knows(&[(B, address)]);
    a.is_told(Event::Disconnected(B)).await;
    a.is_told(Event::Connected(B)).await;
}

// -- strangers --------------------------------------------------------------------------------------

fn hello() -> pb::Hello {
    pb::Hello {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        cluster: Some(cluster_to_wire(CLUSTER)),
        from_node: A.0,
        to_node: B.0,
        lane: pb::Lane::Protocol.into(),
    }
}

fn first(hello: pb::Hello) -> pb::Frame {
    pb::Frame { messages: vec![], hello: Some(hello) }
}

/// What `b` answers to these frames, when the stream then stays open.
async fn answers(b: &Server, frames: Vec<pb::Frame>) -> Result<(), tonic::Status> {
    let mut client = PaxosClient::connect(format!("http://{}", b.address())).await.unwrap();
    let (sender, receiver) = mpsc::channel(8);
    for frame in frames {
        sender.send(frame).await.unwrap();
    }
    let frames: Pin<Box<dyn Stream<Item = pb::Frame> + Send>> = Box::pin(ReceiverStream::new(receiver));
    let mut answers = soon(client.deliver(frames)).await?.into_inner();
    assert!(soon(answers.message()).await?.is_some(), "a welcome");
    soon(answers.message()).await.map(|end| assert_eq!(end, None))
}

#[tokio::test]
async fn a_stream_that_begins_wrongly_is_refused() {
    let b = Server::start(B).await;
    let code = async |frame| answers(&b, vec![frame]).await.unwrap_err().code();
    use tonic::Code::{FailedPrecondition, InvalidArgument};
    assert_eq!(code(pb::Frame::default()).await, InvalidArgument);
    assert_eq!(code(first(pb::Hello { cluster: None, ..hello() })).await, InvalidArgument);
    let newer = pb::Hello { version_min: 2, version_max: 3, ..hello() };
    assert_eq!(code(first(newer)).await, FailedPrecondition);
    assert_eq!(code(first(pb::Hello { from_node: B.0, ..hello() })).await, FailedPrecondition);
    assert_eq!(code(first(pb::Hello { to_node: C.0, ..hello() })).await, FailedPrecondition);
}

#[tokio::test]
async fn what_cannot_be_read_is_dropped_and_counted_and_the_rest_arrives() {
    let (a, mut b) = pair().await;
    let mut client = PaxosClient::connect(format!("http://{}", b.address())).await.unwrap();
    let good = synod_rpc::peer::encode(&numbered(1));
    let messages = vec![Bytes::from_static(b"\xff\xff"), Bytes::new(), good];
    let frames = vec![first(hello()), pb::Frame { messages, hello: None }];
    client.deliver(tokio_stream::iter(frames)).await.unwrap();
    assert_eq!(b.arrive(1).await, [numbered(1)]);
    assert_eq!(b.transport.peer_stats(A).malformed, 2);
    assert_eq!(b.transport.stats().malformed, 2);
    drop(a);
}

#[tokio::test]
async fn whoever_speaks_something_else_is_sent_away_and_nobody_else() {
    let (a, mut b) = pair().await;
    let mut stranger = TcpStream::connect(b.address()).await.unwrap();
    stranger.write_all(b"GET /metrics HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
    let _ = soon(stranger.read_to_end(&mut Vec::new())).await; // closed or reset
    a.transport.send(&[B], &numbered(1));
    assert_eq!(b.arrive(1).await, [numbered(1)]);
    assert!(b.transport.peer_stats(A).connected);
}

#[tokio::test]
async fn a_stream_without_a_hello_is_not_kept() {
    let b = Server::start(B).await;
    let mut client = PaxosClient::connect(format!("http://{}", b.address())).await.unwrap();
    let code = soon(client.deliver(tokio_stream::pending())).await.unwrap_err().code();
    assert_eq!(code, tonic::Code::DeadlineExceeded);
    let code = soon(client.deliver(tokio_stream::empty())).await.unwrap_err().code();
    assert_eq!(code, tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_its_stream_and_no_other() {
    let (a, mut b) = pair().await;
    let messages = vec![Bytes::from(vec![0; MAX_FRAME_BYTES + 1])];
    let frames = vec![first(hello()), pb::Frame { messages, hello: None }];
    let refusal = answers(&b, frames).await.unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::OutOfRange, "{refusal}");
    a.transport.send(&[B], &numbered(2));
    assert_eq!(b.arrive(1).await, [numbered(2)]);
}

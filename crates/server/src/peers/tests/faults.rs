use std::sync::atomic::AtomicBool;

use super::*;

#[tokio::test]
async fn a_cut_link_loses_everything_while_connections_stay() {
    let (a, mut b) = pair().await;
    a.transport.links().set(B, Some(LinkFault::cut(Direction::Out)));
    a.transport.send(&[B], &numbered(1));
    a.transport.links().set(B, None);
    b.transport.links().set(A, Some(LinkFault::cut(Direction::In)));
    a.transport.send(&[B], &numbered(2));
    soon(async {
        while b.transport.peer_stats(A).disturbed == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    b.transport.links().set(A, None);
    a.transport.send(&[B], &numbered(3));
    assert_eq!(b.arrive(1).await, [numbered(3)]);
    assert_eq!(a.transport.peer_stats(B).disturbed, 1);
    assert!(a.transport.peer_stats(B).connected && b.transport.peer_stats(A).connected);
}

#[tokio::test]
async fn a_lossy_link_loses_its_share() {
    let (a, mut b) = pair().await;
    let lossy = LinkFault { direction: Direction::Out, drop: 0.5, delay: Duration::ZERO };
    a.transport.links().set(B, Some(lossy));
    for slot in 1..=1000 {
        a.transport.send(&[B], &numbered(slot));
    }
    a.transport.links().set(B, None);
    let lost = a.transport.peer_stats(B).disturbed as usize;
    assert!((300..700).contains(&lost), "{lost} of 1000");
    assert_eq!(b.arrive(1000 - lost).await.len(), 1000 - lost);
}

#[tokio::test]
async fn a_late_message_comes_after_one_that_was_sent_behind_it() {
    for direction in [Direction::Out, Direction::In] {
        let (a, mut b) = pair().await;
        let delay = Duration::from_millis(100);
        let late = Some(LinkFault { direction, drop: 0.0, delay });
        let (links, peer) = match direction {
            Direction::In => (b.transport.links(), A),
            _ => (a.transport.links(), B),
        };
        links.set(peer, late);
        let sent = std::time::Instant::now();
        a.transport.send(&[B], &numbered(1));
        assert_eq!(b.arrive(1).await, [numbered(1)]);
        assert!(sent.elapsed() >= delay, "{direction:?}: too early, after {:?}", sent.elapsed());
    }
}

#[tokio::test]
async fn a_peer_that_is_down_costs_bounded_memory() {
    let a = Server::start(A).await;
    // Nobody listens here any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    a.knows(&[(B, gone)]);
    let large = accept(1, 4 << 20);
    for _ in 0..100 {
        a.transport.send(&[B], &large);
    }
    let stats = a.transport.peer_stats(B);
    assert!(stats.dropped >= 84, "{} of 100 messages of 4 MiB dropped", stats.dropped);
    assert_eq!(stats.sent_messages, 0);
}

#[tokio::test]
async fn too_much_that_is_late_is_lost() {
    let (a, _b) = pair().await;
    let late = LinkFault { direction: Direction::Out, drop: 0.0, delay: Duration::from_secs(3600) };
    a.transport.links().set(B, Some(late));
    let large = accept(1, 8 << 20);
    for _ in 0..100 {
        a.transport.send(&[B], &large);
    }
    let kept = a.transport.shared.late_bytes.load(Ordering::Relaxed);
    assert!(kept <= MAX_LATE_BYTES + (9 << 20), "{kept} bytes are kept");
}

/// Panics when it hears of the first connection.
struct Fragile {
    told: Told,
    panicked: AtomicBool,
}

impl Inbox for Fragile {
    fn deliver(&self, from: NodeId, messages: Vec<Message>) {
        self.told.deliver(from, messages);
    }

    fn connected(&self, node: NodeId) {
        assert!(self.panicked.swap(true, Ordering::SeqCst), "on purpose");
        self.told.connected(node);
    }

    fn disconnected(&self, node: NodeId) {
        self.told.disconnected(node);
    }
}

#[tokio::test]
async fn a_lane_that_panics_dials_again() {
    let mut b = Server::start(B).await;
    let (told, events) = mpsc::unbounded_channel();
    let peers = BTreeMap::from([(B, vec![format!("http://{}", b.address())])]);
    let config = TransportConfig { node: A, cluster: Some(CLUSTER), listen: Vec::new(), peers, seed: 1 };
    let handlers = Handlers {
        inbox: Arc::new(Fragile { told: Told(told), panicked: AtomicBool::new(false) }),
        checkpoints: Arc::new(Blocks::default()),
        formation: Arc::new(Echo),
    };
    let mut a = Server { transport: Transport::start(config, handlers).await.unwrap(), events };
    a.is_told(Event::Connected(B)).await;
    a.transport.send(&[B], &numbered(1));
    assert_eq!(b.arrive(1).await, [numbered(1)]);
}

fn peer(server: &Server, node: NodeId) -> Arc<Peer> {
    Arc::clone(&server.transport.shared.peers.load()[&node].peer)
}

fn line(server: &Server, node: NodeId) -> Arc<Line> {
    peer(server, node).queue(Lane::Protocol).line().expect("it is connected")
}

#[tokio::test]
async fn a_connection_that_a_panic_left_half_way_is_given_up() {
    let (mut a, mut b) = pair().await;
    let carried = line(&a, B);
    std::thread::spawn(move || carried.panic()).join().unwrap_err();
    a.transport.send(&[B], &numbered(1));
    a.is_told(Event::Disconnected(B)).await;
    a.is_told(Event::Connected(B)).await;
    a.transport.send(&[B], &numbered(2));
    assert_eq!(b.arrive(1).await, [numbered(2)]);
}

#[tokio::test]
async fn who_is_still_at_an_old_connection_takes_nothing_from_the_next() {
    let (mut a, mut b) = pair().await;
    let old = line(&a, B);
    a.transport.set_cluster(Some(ClusterId(0xc2)));
    a.is_told(Event::Disconnected(B)).await;
    a.transport.set_cluster(Some(CLUSTER));
    a.is_told(Event::Connected(B)).await;
    // From here to the next await nobody else runs.
    peer(&a, B).push(Lane::Protocol, synod_rpc::peer::encode(&numbered(1)));
    old.carry();
    assert!(!peer(&a, B).queue(Lane::Protocol).is_empty(), "it waits for the new connection");
    line(&a, B).call();
    assert_eq!(b.arrive(1).await, [numbered(1)]);
}

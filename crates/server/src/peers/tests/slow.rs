//! A slow link is not a dead one.

use std::sync::atomic::AtomicUsize;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::*;

/// How much a slow link takes at once.
const PIECE: usize = 16 << 10;

/// Forwards connections to `to`, each way with a pause after every piece, and counts them. Its sockets hold little, so
/// that whoever sends too fast feels it.
async fn slow(to: SocketAddr, pause: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let small = || {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(PIECE as u32).unwrap();
        socket.set_send_buffer_size(PIECE as u32).unwrap();
        socket
    };
    let near = small();
    near.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = near.listen(16).unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let far: TcpStream = small().connect(to).await.unwrap();
            let (near_in, near_out) = near.into_split();
            let (far_in, far_out) = far.into_split();
            for (mut from, mut to) in [(near_in, far_out), (far_in, near_out)] {
                tokio::spawn(async move {
                    let mut bytes = vec![0; PIECE];
                    while let Ok(read @ 1..) = from.read(&mut bytes).await
                        && to.write_all(&bytes[..read]).await.is_ok()
                    {
                        tokio::time::sleep(pause.mul_f64(read as f64 / PIECE as f64)).await;
                    }
                });
            }
        }
    });
    (address, connections)
}

#[tokio::test]
async fn a_large_value_gets_through_a_slow_link_and_its_connection_stays() {
    let (mut a, mut b) = (Server::start(A).await, Server::start(B).await);
    // Takes five seconds; and half of it, which is one frame of HTTP/2, still longer than a silent peer has. What is
    // behind either is late.
    let large = accept(1, 2 << 20);
    let (address, connections) = slow(b.address(), Duration::from_millis(40)).await;
    a.knows(&[(B, address)]);
    a.is_told(Event::Connected(B)).await;
    a.transport.send(&[B], &large);
    tokio::select! {
        arrived = b.arrive(1) => assert_eq!(arrived, [large]),
        event = a.event() => panic!("before it arrived, {event:?}"),
    }
    assert!(a.events.try_recv().is_err() && a.transport.peer_stats(B).connected);
    let connections = connections.load(Ordering::SeqCst);
    assert!(connections <= Lane::ALL.len(), "{connections} connections");
}

#[tokio::test]
async fn a_checkpoint_gets_through_a_slow_link_while_its_sender_asks_who_takes_it() {
    // Takes four seconds, and is more than the system would take at once, of which the rest arrives in any case.
    let blocks: Vec<Bytes> = (0..4).map(|number| Bytes::from(vec![number; 1 << 20])).collect();
    let source = Blocks { blocks: Some(blocks.clone()), fails: false };
    let often = Duration::from_millis(100);
    let a = Server::start(A).await;
    let b = Server::start_asking(B, Some(CLUSTER), "127.0.0.1:0", source, often).await;
    let (address, _) = slow(b.address(), Duration::from_millis(16)).await;
    a.knows(&[(B, address)]);
    let mut download = soon(a.transport.fetch_checkpoint(B)).await.unwrap();
    for block in blocks {
        assert_eq!(soon(download.next()).await.unwrap(), Some(block));
    }
    assert_eq!(soon(download.next()).await.unwrap(), None);
}

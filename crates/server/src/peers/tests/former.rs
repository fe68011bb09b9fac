//! The streams between replicas speak HTTP/2 by themselves; a gRPC library must not notice. The other direction, a
//! client of that library, is in `streams.rs`.

use std::pin::Pin;

use synod_rpc::synodpb as pb;
use synod_rpc::synodpb::paxos_server::{Paxos, PaxosServer};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::*;

type Welcomes = Pin<Box<dyn Stream<Item = Result<pb::Welcome, Status>> + Send>>;

/// What happens to a stream on which `Former` hears.
struct Heard {
    hello: pb::Hello,
    frames: Streaming<pb::Frame>,
    answers: mpsc::UnboundedSender<Result<pb::Welcome, Status>>,
}

/// A server on tonic. It leaves to the test what it says on the lanes that the protocol lives on, or refuses everybody.
struct Former(Option<mpsc::UnboundedSender<Heard>>);

#[tonic::async_trait]
impl Paxos for Former {
    async fn deliver(&self, request: Request<Streaming<pb::Frame>>) -> Result<Response<Welcomes>, Status> {
        let Some(hears) = &self.0 else {
            return Err(Status::failed_precondition("no, \"thank\" you: é"));
        };
        let mut frames = request.into_inner();
        let hello = frames.message().await?.and_then(|frame| frame.hello).expect("a Hello comes first");
        if hello.lane() == pb::Lane::Bulk {
            let welcome = tokio_stream::once(Ok(WELCOME)).chain(tokio_stream::pending());
            return Ok(Response::new(Box::pin(welcome)));
        }
        let (answers, stream) = mpsc::unbounded_channel();
        let _ = hears.send(Heard { hello, frames, answers }); // the test may be over
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(stream))))
    }
}

/// A server that knows a former one.
async fn knowing(former: Former) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = PaxosServer::new(former).max_decoding_message_size(64 << 20);
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let a = Server::start(A).await;
    a.knows(&[(B, address)]);
    a
}

/// One that is connected to a former one, by these lanes: the protocol's, and what is urgent.
async fn connected() -> (Server, Heard, Heard) {
    let (heard, mut hears) = mpsc::unbounded_channel();
    let mut a = knowing(Former(Some(heard))).await;
    let mut lanes = [soon(hears.recv()).await.unwrap(), soon(hears.recv()).await.unwrap()];
    lanes.iter().for_each(|lane| lane.answers.send(Ok(WELCOME)).unwrap());
    a.is_told(Event::Connected(B)).await;
    lanes.sort_by_key(|lane| lane.hello.lane);
    let [protocol, urgent] = lanes;
    (a, protocol, urgent)
}

const WELCOME: pb::Welcome = pb::Welcome { version: 1 };

async fn messages(lane: &mut Heard, count: usize) -> Vec<Message> {
    let mut all = Vec::new();
    while all.len() < count {
        let frame = soon(lane.frames.next()).await.unwrap().unwrap();
        all.extend(frame.messages.into_iter().map(|bytes| synod_rpc::peer::decode(bytes).unwrap()));
    }
    all
}

#[tokio::test]
async fn its_refusal_is_understood() {
    let a = knowing(Former(None)).await;
    a.complains(B, "refused by the peer: no, \"thank\" you: é").await;
}

#[tokio::test]
async fn it_hears_messages_and_says_why_it_wants_no_more() {
    let (mut a, mut protocol, urgent) = connected().await;
    assert_eq!((protocol.hello.lane(), urgent.hello.lane()), (pb::Lane::Protocol, pb::Lane::Urgent));
    assert_eq!((protocol.hello.from_node, protocol.hello.to_node), (A.0, B.0));
    a.transport.send(&[B], &numbered(1));
    a.transport.send_here(&[Outgoing { to: B, message: numbered(2) }]);
    assert_eq!(messages(&mut protocol, 2).await, [numbered(1), numbered(2)]);
    urgent.answers.send(Err(Status::failed_precondition("enough"))).unwrap();
    a.is_told(Event::Disconnected(B)).await;
    a.complains(B, "refused by the peer: enough").await;
}

#[tokio::test]
async fn who_reads_slowly_gets_everything_in_the_end() {
    let (a, mut protocol, mut urgent) = connected().await;
    let sent: Vec<Message> = (1..=40).map(|slot| accept(slot, 1 << 20)).collect();
    for message in &sent {
        a.transport.send(&[B], message);
    }
    // Meanwhile the other lane is not held up.
    let pressing = Message::Abdicate { ballot: ballot() };
    a.transport.send_here(&[Outgoing { to: B, message: pressing.clone() }]);
    assert_eq!(messages(&mut urgent, 1).await, [pressing]);
    assert!(a.transport.peer_stats(B).sent_messages < 40, "most of it waits in the queue");
    assert_eq!(messages(&mut protocol, 40).await, sent);
}

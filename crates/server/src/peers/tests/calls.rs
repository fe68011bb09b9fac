use std::pin::Pin;

use synod_paxos::formation::{PlanDigest, Stance};
use synod_paxos::types::{Incarnation, VoterId};
use synod_rpc::synodpb as pb;
use synod_rpc::synodpb::checkpoint_chunk::Kind;
use synod_rpc::synodpb::paxos_server::{Paxos, PaxosServer};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::*;

async fn with_checkpoint(checkpoints: Blocks) -> (Server, Server) {
    let a = Server::start(A).await;
    let b = Server::start_with(B, Some(CLUSTER), "127.0.0.1:0", checkpoints).await;
    a.knows(&[(B, b.address())]);
    (a, b)
}

async fn all(mut download: CheckpointDownload) -> Result<Vec<Bytes>, TransportError> {
    let mut blocks = Vec::new();
    while let Some(block) = soon(download.next()).await? {
        blocks.push(block);
    }
    Ok(blocks)
}

#[tokio::test]
async fn a_checkpoint_arrives_as_it_was_sent() {
    // More than windows and read-ahead hold together.
    let blocks: Vec<Bytes> = (0..40).map(|number| Bytes::from(vec![number; 1 << 20])).collect();
    let (a, _b) = with_checkpoint(Blocks { blocks: Some(blocks.clone()), fails: false }).await;
    let download = soon(a.transport.fetch_checkpoint(B)).await.unwrap();
    assert_eq!(download.covered(), Prefix(77));
    assert_eq!(download.state(), &Bytes::from_static(b"protocol"));
    assert_eq!(all(download).await.unwrap(), blocks);
}

#[tokio::test]
async fn no_checkpoint_no_peer_and_no_cluster_are_told_apart() {
    let (a, b) = with_checkpoint(Blocks::default()).await;
    let error = async |from| soon(a.transport.fetch_checkpoint(from)).await.err().unwrap();
    assert!(matches!(error(B).await, TransportError::NoCheckpoint));
    assert!(matches!(error(C).await, TransportError::UnknownPeer(C)));
    b.transport.set_cluster(Some(ClusterId(0xc2)));
    assert!(matches!(error(B).await, TransportError::Refused(_)));
    a.transport.set_cluster(None);
    assert!(matches!(error(B).await, TransportError::NoCluster));
    b.transport.shutdown().await;
    a.transport.set_cluster(Some(CLUSTER));
    assert!(matches!(error(B).await, TransportError::Unreachable { .. }));
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_read_to_its_end_is_an_error() {
    let blocks = vec![Bytes::from_static(b"one")];
    let (a, _b) = with_checkpoint(Blocks { blocks: Some(blocks), fails: true }).await;
    let mut download = soon(a.transport.fetch_checkpoint(B)).await.unwrap();
    assert_eq!(download.next().await.unwrap().as_deref(), Some(&b"one"[..]));
    let error = download.next().await.unwrap_err();
    assert!(matches!(&error, TransportError::Failed(why) if why.contains("bad sector")), "{error}");
}

#[tokio::test]
async fn a_sender_that_stops_in_the_middle_is_an_error() {
    let blocks: Vec<Bytes> = (0..100).map(|_| Bytes::from(vec![0; 1 << 20])).collect();
    let (a, b) = with_checkpoint(Blocks { blocks: Some(blocks), fails: false }).await;
    let download = soon(a.transport.fetch_checkpoint(B)).await.unwrap();
    let (stopped, blocks) = tokio::join!(b.transport.shutdown(), all(download));
    let () = stopped;
    assert!(blocks.is_err(), "{} blocks and no error", blocks.unwrap().len());
}

/// Sends these pieces for a checkpoint, whatever is asked.
struct Forger(Vec<Kind>);

#[tonic::async_trait]
impl Paxos for Forger {
    async fn checkpoint(
        &self,
        _: Request<pb::CheckpointRequest>,
    ) -> Result<Response<Pin<Box<dyn Stream<Item = Result<pb::CheckpointChunk, Status>> + Send>>>, Status>
    {
        let chunks = self.0.clone().into_iter().map(|kind| Ok(pb::CheckpointChunk { kind: Some(kind) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks.collect::<Vec<_>>()))))
    }
}

/// What comes of fetching these pieces.
async fn forged(pieces: Vec<Kind>) -> Result<Vec<Bytes>, TransportError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(PaxosServer::new(Forger(pieces)))
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let a = Server::start(A).await;
    a.knows(&[(B, address)]);
    let download = soon(a.transport.fetch_checkpoint(B)).await;
    let blocks = match download {
        Ok(download) => all(download).await,
        Err(error) => Err(error),
    };
    server.abort();
    blocks
}

#[tokio::test]
async fn a_checkpoint_that_is_cut_short_or_altered_is_an_error() {
    let header = |state| Kind::Header(pb::CheckpointHeader { covered: 7, state: Bytes::from_static(state) });
    let block = |bytes| Kind::Block(Bytes::from_static(bytes));
    let checksum = crc32c::crc32c(b"\x07\0\0\0\0\0\0\0sonetwo");
    let end = || Kind::End(pb::CheckpointEnd { blocks: 2, bytes: 6, crc32c: checksum });

    let good = forged(vec![header(b"s"), block(b"one"), block(b"two"), end()]).await;
    assert_eq!(good.unwrap(), [Bytes::from_static(b"one"), Bytes::from_static(b"two")]);
    for (what, pieces) in [
        ("nothing at all", vec![]),
        ("no header", vec![block(b"one"), block(b"two"), end()]),
        ("no end", vec![header(b"s"), block(b"one"), block(b"two")]),
        ("a block is missing", vec![header(b"s"), block(b"one"), end()]),
        ("blocks in another order", vec![header(b"s"), block(b"two"), block(b"one"), end()]),
        ("another state", vec![header(b"t"), block(b"one"), block(b"two"), end()]),
        ("two headers", vec![header(b"s"), header(b"s"), block(b"one"), block(b"two"), end()]),
    ] {
        let result = forged(pieces).await;
        assert!(matches!(result, Err(TransportError::Damaged(_))), "{what}: {result:?}");
    }
}

// -- formation --------------------------------------------------------------------------------------

fn ask() -> FormationMessage {
    let from = VoterId { node: A, incarnation: Incarnation(9) };
    FormationMessage::Ask { from, plan: PlanDigest(5), stance: Stance::Blank }
}

#[tokio::test]
async fn formation_talks_before_there_is_a_cluster() {
    let (a, b) = (
        Server::start_with(A, None, "127.0.0.1:0", Blocks::default()).await,
        Server::start_with(B, None, "127.0.0.1:0", Blocks::default()).await,
    );
    a.knows(&[(B, b.address()), (C, b.address())]);
    assert_eq!(soon(a.transport.form(B, &ask())).await.unwrap(), [ask()]);
    let error = soon(a.transport.form(C, &ask())).await.unwrap_err();
    assert!(error.to_string().contains("this server is n2, and you look for n3"), "{error}");
}

#[tokio::test]
async fn formation_and_checkpoints_suffer_from_cut_links_too() {
    let (a, b) = with_checkpoint(Blocks { blocks: Some(vec![]), fails: false }).await;
    b.transport.links().set(A, Some(LinkFault::cut(Direction::In)));
    assert!(soon(a.transport.form(B, &ask())).await.is_err());
    assert!(soon(a.transport.fetch_checkpoint(B)).await.is_err());
    b.transport.links().set(A, None);
    a.transport.links().set(B, Some(LinkFault::cut(Direction::Out)));
    assert!(soon(a.transport.form(B, &ask())).await.is_err());
    assert!(soon(a.transport.fetch_checkpoint(B)).await.is_err());
    a.transport.links().set(B, None);
    assert_eq!(soon(a.transport.form(B, &ask())).await.unwrap(), [ask()]);
}

#[tokio::test]
async fn an_address_that_is_none_is_named() {
    let a = Server::start(A).await;
    a.transport.set_peers(BTreeMap::from([(B, vec!["not a url".to_owned()])]));
    let error = soon(a.transport.form(B, &ask())).await.unwrap_err();
    assert!(error.to_string().contains("not a url is no address of a peer"), "{error}");
}

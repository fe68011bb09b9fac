//! Moving a checkpoint: the way back into the log for a replica that was away
//! for too long.
//!
//! ```text
//!   header (slot covered, the protocol's state)
//!   block, block, ...                             the store's image, in order
//!   end (how many blocks, how many bytes, CRC-32C of all)
//! ```
//!
//! Blocks are read from disk on a thread that may wait, a few at a time; a slow
//! receiver slows the reading, and one that goes away ends it. A receiver hears of
//! the end only if everything before it arrived and is what was sent.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use synod_paxos::types::{NodeId, Prefix};
use synod_rpc::peer::{MAX_NUMBER, PROTOCOL_VERSION, cluster_to_wire};
use synod_rpc::synodpb as pb;
use synod_rpc::synodpb::checkpoint_chunk::Kind;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Status, Streaming};

use super::dial::{connect_any, within};
use super::links::Way;
use super::{Shared, TransportError};

/// Blocks that are read ahead of the receiver.
const READ_AHEAD: usize = 4;

/// How long the sender may be silent. Opening a checkpoint may take a while on a
/// busy disk.
const STALL: Duration = Duration::from_secs(10);

/// A checkpoint on its way out.
pub struct CheckpointStream {
    /// Everything up to here is in it.
    pub covered: Prefix,
    /// What the protocol remembers beside the store, in its own encoding; below
    /// 24 MiB.
    pub state: Bytes,
    /// The store's image, each piece below 24 MiB. Called on a thread that may
    /// wait.
    pub blocks: Box<dyn Iterator<Item = io::Result<Bytes>> + Send>,
}

/// Where a server finds its newest durable checkpoint.
pub trait CheckpointSource: Send + Sync {
    /// The newest durable checkpoint, or none if there is none yet. Called on a
    /// thread that may wait. The stream must stay readable when a newer one takes
    /// its place.
    ///
    /// # Errors
    /// When it cannot be read.
    fn open(&self) -> io::Result<Option<CheckpointStream>>;
}

/// What the end of a checkpoint says about the rest.
#[derive(Debug, Default)]
struct Tally {
    blocks: u64,
    bytes: u64,
    crc32c: u32,
}

impl Tally {
    fn header(&mut self, covered: Prefix, state: &[u8]) {
        self.crc32c = crc32c::crc32c_append(self.crc32c, &covered.0.to_le_bytes());
        self.crc32c = crc32c::crc32c_append(self.crc32c, state);
    }

    fn block(&mut self, block: &[u8]) {
        self.blocks += 1;
        self.bytes += block.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, block);
    }

    fn end(&self) -> pb::CheckpointEnd {
        pb::CheckpointEnd { blocks: self.blocks, bytes: self.bytes, crc32c: self.crc32c }
    }
}

/// Answers a request for a checkpoint.
pub(super) async fn serve(shared: &Arc<Shared>) -> Result<BoxStream<pb::CheckpointChunk>, Status> {
    let (chunks, stream) = mpsc::channel(READ_AHEAD);
    let (opened, opening) = oneshot::channel();
    let shared = Arc::clone(shared);
    tokio::task::spawn_blocking(move || {
        let source = match shared.checkpoints.open() {
            Ok(Some(source)) => source,
            Ok(None) => return drop(opened.send(Err(Status::not_found("no checkpoint yet")))),
            Err(error) => {
                let status = Status::internal(format!("the checkpoint cannot be read: {error}"));
                return drop(opened.send(Err(status)));
            }
        };
        if opened.send(Ok(())).is_ok() {
            send(&shared, source, &chunks);
        }
    });
    opening.await.map_err(|_| Status::internal("opening the checkpoint failed"))??;
    Ok(Box::pin(ReceiverStream::new(stream)))
}

/// Sends everything, as fast as it is taken. Runs on a thread that may wait.
fn send(
    shared: &Shared,
    source: CheckpointStream,
    chunks: &mpsc::Sender<Result<pb::CheckpointChunk, Status>>,
) {
    let send = |kind| chunks.blocking_send(Ok(pb::CheckpointChunk { kind: Some(kind) })).is_ok();
    let mut tally = Tally::default();
    tally.header(source.covered, &source.state);
    if !send(Kind::Header(pb::CheckpointHeader { covered: source.covered.0, state: source.state })) {
        return; // the receiver is gone
    }
    for block in source.blocks {
        let status = match block {
            _ if *shared.stopped.borrow() => Status::unavailable("the server is shutting down"),
            Ok(block) => {
                tally.block(&block);
                if send(Kind::Block(block)) {
                    continue;
                }
                return;
            }
            Err(error) => Status::internal(format!("the checkpoint cannot be read: {error}")),
        };
        let _ = chunks.blocking_send(Err(status)); // the receiver may be gone
        return;
    }
    send(Kind::End(tally.end()));
}

/// A checkpoint on its way in.
pub struct CheckpointDownload {
    covered: Prefix,
    state: Bytes,
    chunks: Streaming<pb::CheckpointChunk>,
    tally: Tally,
    complete: bool,
}

impl CheckpointDownload {
    /// Everything up to here is in it. Not verified before the end.
    pub fn covered(&self) -> Prefix {
        self.covered
    }

    /// What the protocol remembers beside the store. Not verified before the end.
    pub fn state(&self) -> &Bytes {
        &self.state
    }

    /// The next block; none once everything has arrived and matches its checksum.
    /// Only then may any of it be used. Not safe to cancel in between.
    ///
    /// # Errors
    /// When the sender fails or falls silent, or when something is missing or
    /// altered. Nothing more comes then.
    pub async fn next(&mut self) -> Result<Option<Bytes>, TransportError> {
        if self.complete {
            return Ok(None);
        }
        match within(STALL, self.chunks.message()).await?.map(|chunk| chunk.kind) {
            Some(Some(Kind::Block(block))) => {
                self.tally.block(&block);
                Ok(Some(block))
            }
            Some(Some(Kind::End(end))) if end == self.tally.end() => {
                self.complete = true;
                Ok(None)
            }
            Some(Some(Kind::End(end))) => Err(TransportError::Damaged(format!(
                "sent were {} blocks with {} bytes and checksum {:08x}, and {} with {} and {:08x} arrived",
                end.blocks, end.bytes, end.crc32c, self.tally.blocks, self.tally.bytes, self.tally.crc32c
            ))),
            Some(Some(Kind::Header(_))) => Err(TransportError::Damaged("a second header".into())),
            Some(None) => Err(TransportError::Damaged("a piece of unknown kind".into())),
            None => Err(TransportError::Damaged("the stream ended before its end".into())),
        }
    }
}

/// Asks a peer for its newest checkpoint.
pub(super) async fn fetch(
    shared: &Shared,
    node: NodeId,
    urls: &[String],
) -> Result<CheckpointDownload, TransportError> {
    let cluster = (*shared.cluster.borrow()).ok_or(TransportError::NoCluster)?;
    if !shared.links.pass(Way::Out, node).await {
        return Err(TransportError::Silent(STALL));
    }
    let mut client = connect_any(node, urls).await?;
    let request = pb::CheckpointRequest {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        cluster: Some(cluster_to_wire(cluster)),
        from_node: shared.node.0,
        to_node: node.0,
    };
    let mut chunks = within(STALL, client.checkpoint(request)).await?.into_inner();
    match within(STALL, chunks.message()).await?.and_then(|chunk| chunk.kind) {
        Some(Kind::Header(header)) if header.covered <= MAX_NUMBER => {
            let covered = Prefix(header.covered);
            let mut tally = Tally::default();
            tally.header(covered, &header.state);
            Ok(CheckpointDownload { covered, state: header.state, chunks, tally, complete: false })
        }
        _ => Err(TransportError::Damaged("it does not begin with a header".into())),
    }
}

//! How formation's messages travel: each as a call of its own, before there is a
//! cluster that a stream could belong to.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use synod_paxos::formation::FormationMessage;
use synod_paxos::types::NodeId;
use synod_rpc::peer::PROTOCOL_VERSION;
use synod_rpc::synodpb as pb;
use tonic::Status;

use super::dial::{connect_any, within};
use super::links::Way;
use super::{Shared, TransportError};

/// How long an answer may take. It may wait for a disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What formation says to the one who asks.
pub type FormationAnswers = Pin<Box<dyn Future<Output = Vec<FormationMessage>> + Send>>;

/// This server's part in forming a cluster.
pub trait FormationHandler: Send + Sync {
    /// Hears `message`, and answers once what it answers is durable. The caller
    /// may go away first: what must happen has to happen even if the future is
    /// dropped.
    fn hear(&self, message: FormationMessage) -> FormationAnswers;
}

/// Answers a call.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    envelope: pb::FormationEnvelope,
) -> Result<pb::FormationReply, Status> {
    shared.check_version(envelope.version_min, envelope.version_max)?;
    if NodeId(envelope.to_node) != shared.node {
        return Err(Status::failed_precondition(format!(
            "this server is {}, and you look for {}; check its peer URLs",
            shared.node,
            NodeId(envelope.to_node)
        )));
    }
    let message = FormationMessage::decode(envelope.message)
        .map_err(|error| Status::invalid_argument(format!("no message of formation: {error}")))?;
    if !shared.links.pass(Way::In, message.from().node).await {
        return Err(Status::unavailable("the link is cut"));
    }
    let answers = shared.formation.hear(message).await;
    let messages = answers.iter().map(FormationMessage::encode).collect();
    Ok(pb::FormationReply { version: PROTOCOL_VERSION, messages })
}

/// Calls `node` at one of `urls`.
pub(super) async fn call(
    shared: &Shared,
    node: NodeId,
    urls: &[String],
    message: &FormationMessage,
) -> Result<Vec<FormationMessage>, TransportError> {
    if !shared.links.pass(Way::Out, node).await {
        return Err(TransportError::Silent(ANSWER_TIMEOUT));
    }
    let mut client = connect_any(node, urls).await?;
    let envelope = pb::FormationEnvelope {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        to_node: node.0,
        message: message.encode(),
    };
    let reply = within(ANSWER_TIMEOUT, client.form(envelope)).await?.into_inner();
    let decode = |bytes| {
        FormationMessage::decode(bytes)
            .map_err(|error| TransportError::Failed(format!("it answered nonsense: {error}")))
    };
    reply.messages.into_iter().map(decode).collect()
}

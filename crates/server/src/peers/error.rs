//! Why something between two servers did not work.

use std::net::SocketAddr;
use std::time::Duration;

use synod_paxos::types::NodeId;

/// Why a call to another server, or the start of listening, failed. None of
/// these calls changes anything at the other side that asking again would harm.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The address for peers cannot be listened on.
    #[error("cannot listen for peers on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// No address of that server is known.
    #[error("no address of {0} is known")]
    UnknownPeer(NodeId),
    /// Its address is none.
    #[error("{url} is no address of a peer, which looks like http://host:2380: {reason}")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It did not answer. Try again, or another address.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What happened.
        reason: String,
    },
    /// It answered nothing in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// It does not talk to this server. Asking again will not help before
    /// somebody changes something.
    #[error("refused by the peer: {0}")]
    Refused(String),
    /// It has no checkpoint yet. Ask another server, or later.
    #[error("the peer has no checkpoint yet")]
    NoCheckpoint,
    /// The peer failed while it answered.
    #[error("the peer failed: {0}")]
    Failed(String),
    /// What arrived is not what was sent, or not all of it. Throw it away.
    #[error("the checkpoint is damaged: {0}")]
    Damaged(String),
    /// There is no cluster yet that a checkpoint could be of.
    #[error("this server belongs to no cluster yet")]
    NoCluster,
    /// The transport was shut down.
    #[error("this server is shutting down")]
    Stopped,
}

impl TransportError {
    /// What a status of the other side means here.
    pub(super) fn from_status(status: &tonic::Status) -> TransportError {
        let text = status.message().to_owned();
        match status.code() {
            tonic::Code::FailedPrecondition | tonic::Code::Unimplemented => TransportError::Refused(text),
            tonic::Code::NotFound => TransportError::NoCheckpoint,
            code => TransportError::Failed(format!("{code:?}: {text}")),
        }
    }
}

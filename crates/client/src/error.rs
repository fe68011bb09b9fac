//! What can go wrong with a call, and what that means for the data.

use std::error::Error;
use std::time::Duration;

use tonic::{Code, ConnectError, Status};

/// Whether a write that failed may nevertheless have taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has not, and will not: it never left, or the server refused it. Also
    /// the outcome of every failed read.
    NotApplied,
    /// It may have, or may yet: the answer was lost, or the server gave up
    /// waiting. Read before writing again what must not happen twice.
    Unknown,
}

/// A call that failed: where, how, and with what consequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientError {
    /// The endpoint that was tried last.
    pub endpoint: String,
    /// What went wrong there.
    pub failure: Failure,
    /// Whether the call may have taken effect.
    pub outcome: Outcome,
}

/// What went wrong at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The endpoint, as it was given, is none.
    #[error("not an endpoint: {0}")]
    BadEndpoint(String),
    /// No connection could be established, so nothing was sent.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The server answered with an error.
    #[error("{message}")]
    Status {
        /// Decides what a client may do about it.
        code: Code,
        /// The server's words, verbatim: etcd's clients compare them.
        message: String,
    },
    /// The connection broke before the answer came.
    #[error("connection lost: {0}")]
    Broken(String),
    /// No answer within the time allowed.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
}

/// Whether a call can change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Reads,
    Writes,
}

impl ClientError {
    /// An error found before anything was sent.
    pub(crate) fn before_sending(endpoint: &str, failure: Failure) -> Self {
        Self { endpoint: endpoint.to_owned(), failure, outcome: Outcome::NotApplied }
    }

    pub(crate) fn new(endpoint: &str, failure: Failure, effect: Effect) -> Self {
        let outcome = match effect {
            Effect::Reads => Outcome::NotApplied,
            Effect::Writes => failure.outcome(),
        };
        Self { endpoint: endpoint.to_owned(), failure, outcome }
    }

    /// The server's code, if the server answered.
    pub fn code(&self) -> Option<Code> {
        match self.failure {
            Failure::Status { code, .. } => Some(code),
            _ => None,
        }
    }

    /// How much this says about the cluster, to be compared with others.
    pub(crate) fn tells(&self) -> u8 {
        match self.failure {
            Failure::BadEndpoint(_) | Failure::Connect(_) => 0,
            Failure::Broken(_) | Failure::Deadline(_) => 1,
            Failure::Status { .. } => 2,
        }
    }

    /// Whether the next endpoint may be asked the same.
    pub(crate) fn may_retry(&self, effect: Effect) -> bool {
        match (&self.failure, effect) {
            (Failure::BadEndpoint(_), _) => false,
            (Failure::Connect(_), _) => true,
            (_, Effect::Writes) => false,
            (Failure::Status { code, .. }, Effect::Reads) => *code == Code::Unavailable,
            (Failure::Broken(_) | Failure::Deadline(_), Effect::Reads) => true,
        }
    }
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.failure, self.endpoint)?;
        match self.outcome {
            Outcome::NotApplied => Ok(()),
            Outcome::Unknown => f.write_str("; the write may have taken effect, read before repeating it"),
        }
    }
}

impl Error for ClientError {}

impl Failure {
    /// What a status means. Only a server's own answer is a status to us: what
    /// the transport made up has a source, which tells how far the call came.
    pub(crate) fn from_status(status: &Status) -> Self {
        let mut cause = status.source();
        if cause.is_none() {
            return Self::Status { code: status.code(), message: status.message().to_owned() };
        }
        while let Some(error) = cause {
            if let Some(connect) = error.downcast_ref::<ConnectError>() {
                return Self::Connect(connect.0.to_string());
            }
            cause = error.source();
        }
        Self::Broken(innermost(status))
    }

    /// Whether a write that failed like this may have taken effect. Codes by
    /// which a server refuses are final; those by which it gives up are not.
    fn outcome(&self) -> Outcome {
        match self {
            Self::BadEndpoint(_) | Self::Connect(_) => Outcome::NotApplied,
            Self::Broken(_) | Self::Deadline(_) => Outcome::Unknown,
            Self::Status { code, .. } => match code {
                Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::ResourceExhausted
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::Unimplemented
                | Code::Unauthenticated => Outcome::NotApplied,
                Code::Ok
                | Code::Cancelled
                | Code::Unknown
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss => Outcome::Unknown,
            },
        }
    }
}

/// The root of a chain of errors: the outer ones say "transport error".
fn innermost(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code, effect: Effect) -> ClientError {
        let failure = Failure::from_status(&Status::new(code, "etcdserver: so it is"));
        ClientError::new("http://n1:1", failure, effect)
    }

    #[test]
    fn a_refused_write_was_not_applied_and_an_abandoned_one_may_have_been() {
        assert_eq!(status(Code::InvalidArgument, Effect::Writes).outcome, Outcome::NotApplied);
        assert_eq!(status(Code::OutOfRange, Effect::Writes).outcome, Outcome::NotApplied);
        assert_eq!(status(Code::Unavailable, Effect::Writes).outcome, Outcome::Unknown);
        assert_eq!(status(Code::DeadlineExceeded, Effect::Writes).outcome, Outcome::Unknown);
        assert_eq!(status(Code::Unavailable, Effect::Reads).outcome, Outcome::NotApplied);
    }

    #[test]
    fn the_message_says_whether_to_read_first() {
        let text = status(Code::Unavailable, Effect::Writes).to_string();
        assert_eq!(
            text,
            "etcdserver: so it is (http://n1:1); the write may have taken effect, read before repeating it"
        );
        assert_eq!(
            status(Code::Unavailable, Effect::Reads).to_string(),
            "etcdserver: so it is (http://n1:1)"
        );
    }

    #[test]
    fn only_unavailable_reads_are_asked_elsewhere() {
        assert!(status(Code::Unavailable, Effect::Reads).may_retry(Effect::Reads));
        assert!(!status(Code::Internal, Effect::Reads).may_retry(Effect::Reads));
        assert!(!status(Code::Unavailable, Effect::Writes).may_retry(Effect::Writes));
    }
}

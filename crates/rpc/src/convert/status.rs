//! What went wrong, in gRPC's codes and etcd's words.
//!
//! Clients tell errors apart by their text and decide by their code whether to
//! try again, so both are etcd's to the letter (section 15 of the list of
//! behaviours; where etcd sends a code by accident, we send the proper one).

use synod_kv::KvError;
use tonic::{Code, Status};

use super::request::RequestError;

/// Why a replica cannot answer, whatever the request says. Where the text is
/// vague about a write, so is the truth: it may yet take effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// The client insisted on a leader and this replica knows none (T-4).
    #[error("etcdserver: no leader")]
    NoLeader,
    /// The leader changed while the request was under way.
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    /// This replica is shutting down.
    #[error("etcdserver: server stopped")]
    Stopped,
    /// No majority within the time a request may take (T-5).
    #[error("etcdserver: request timed out")]
    TimedOut,
    /// The same, and a leader was lost meanwhile.
    #[error("etcdserver: request timed out, possibly due to previous leader failure")]
    TimedOutAfterLeaderFailure,
    /// The same, and too few peers are connected.
    #[error("etcdserver: request timed out, possibly due to connection lost")]
    TimedOutAfterConnectionLoss,
    /// Chosen it may be, but not applied here in time.
    #[error("etcdserver: request timed out, waiting for the applied index took too long")]
    TimedOutApplying,
    /// This replica is behind with what it already took in (T-7).
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    /// Too few members are connected for what was asked (M-3).
    #[error("etcdserver: unhealthy cluster")]
    Unhealthy,
    /// Only the leader does that (MT-8).
    #[error("etcdserver: not leader")]
    NotLeader,
    /// No member has this id.
    #[error("etcdserver: member not found")]
    MemberNotFound,
    /// A replica that does not vote does not do that (T-6).
    #[error("etcdserver: rpc not supported for learner")]
    NotForLearners,
}

impl ServerError {
    /// The code it travels under.
    pub fn code(self) -> Code {
        match self {
            Self::NoLeader
            | Self::LeaderChanged
            | Self::Stopped
            | Self::TimedOut
            | Self::TimedOutAfterLeaderFailure
            | Self::TimedOutAfterConnectionLoss
            | Self::TimedOutApplying
            | Self::Unhealthy => Code::Unavailable,
            Self::TooManyRequests => Code::ResourceExhausted,
            Self::NotLeader | Self::NotForLearners => Code::FailedPrecondition,
            Self::MemberNotFound => Code::NotFound,
        }
    }
}

impl From<ServerError> for Status {
    fn from(error: ServerError) -> Status {
        Status::new(error.code(), error.to_string())
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Status {
        match error {
            RequestError::Kv(error) => refused(&error),
            RequestError::InvalidCompareOption => Status::invalid_argument(error.to_string()),
        }
    }
}

/// The store's refusal as a client sees it.
pub fn refused(error: &KvError) -> Status {
    // The store's codes are numbered like gRPC's.
    Status::new(Code::from_i32(error.code() as i32), error.message())
}

#[cfg(test)]
mod tests {
    use synod_kv::{LeaseId, Revision};

    use super::*;

    #[test]
    fn section_15_refusals_of_the_store() {
        let told = |error: KvError| {
            let status = refused(&error);
            (status.code(), status.message().to_owned())
        };
        let compacted = KvError::Compacted { requested: Revision(1), oldest: Revision(2) };
        let future = KvError::FutureRevision { requested: Revision(2), current: Revision(1) };
        let lease = KvError::LeaseNotFound(LeaseId::from_wire(7).unwrap());
        for (error, code, text) in [
            (KvError::EmptyKey, Code::InvalidArgument, "key is not provided"),
            (KvError::KeyNotFound, Code::InvalidArgument, "key not found"),
            (KvError::ValueProvided, Code::InvalidArgument, "value is provided"),
            (KvError::LeaseProvided, Code::InvalidArgument, "lease is provided"),
            (KvError::TooManyOps, Code::InvalidArgument, "too many operations in txn request"),
            (KvError::DuplicateKey, Code::InvalidArgument, "duplicate key given in txn request"),
            (KvError::RequestTooLarge, Code::InvalidArgument, "request is too large"),
            (KvError::InvalidSortOption, Code::InvalidArgument, "invalid sort option"),
            (compacted, Code::OutOfRange, "mvcc: required revision has been compacted"),
            (future, Code::OutOfRange, "mvcc: required revision is a future revision"),
            (lease, Code::NotFound, "requested lease not found"),
        ] {
            assert_eq!(told(error), (code, format!("etcdserver: {text}")));
        }
    }

    #[test]
    fn t_08_what_the_wire_cannot_mean_is_an_invalid_argument() {
        for error in [RequestError::InvalidCompareOption, KvError::InvalidSortOption.into()] {
            let text = error.to_string();
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (Code::InvalidArgument, &*text));
        }
    }

    #[test]
    fn section_15_what_a_replica_cannot_do_now_is_worth_another_try() {
        for error in [ServerError::NoLeader, ServerError::TimedOut, ServerError::Stopped] {
            assert_eq!(Status::from(error).code(), Code::Unavailable);
        }
        let status = Status::from(ServerError::TooManyRequests);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "etcdserver: too many requests");
    }
}

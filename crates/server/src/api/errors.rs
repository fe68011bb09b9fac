//! Why a request got no answer, in etcd's words and gRPC's codes.

use synod_rpc::convert::ServerError;
use tonic::Status;

use crate::replica::{FaultError, RequestError};

/// A replica's reason as clients know it. All but [`RequestError::Busy`] may leave a write to take effect
/// later, and say nothing that denies it (C-1).
pub(super) fn unanswered(error: RequestError) -> Status {
    match error {
        RequestError::Busy => ServerError::TooManyRequests,
        RequestError::TimedOut => ServerError::TimedOut,
        RequestError::NoLeader => ServerError::NoLeader,
        RequestError::Stopped => ServerError::Stopped,
        RequestError::AnswerLost => ServerError::TimedOutApplying,
    }
    .into()
}

/// A fault that was not caused.
pub(super) fn not_broken(error: FaultError) -> Status {
    match &error {
        FaultError::NotAllowed => Status::failed_precondition(error.to_string()),
        FaultError::Invalid(_) => Status::invalid_argument(error.to_string()),
    }
}

/// A method of a service that is offered otherwise.
pub(super) fn not_offered(method: &str) -> Status {
    Status::unimplemented(format!("synod does not offer {method} yet"))
}

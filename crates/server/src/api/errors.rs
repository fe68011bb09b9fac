//! Why a request got no answer, in etcd's words and gRPC's codes.

use synod_kv::Unreadable;
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

/// Old versions of keys that this replica's disk does not give back. It says what becomes of it: the learner begins
/// anew, and finds its checkpoint whole or fetches another one.
pub(super) fn unreadable(error: &Unreadable) -> Status {
    let advice = "nothing was changed; ask another server, or this one again in a while: it reads its checkpoint \
                  anew, and fetches one from another server if its own is damaged. Its log says more";
    match error {
        Unreadable::Damaged { .. } => Status::data_loss(format!("{error}; {advice}")),
        Unreadable::Failed { .. } => Status::unavailable(format!("{error}; {advice}")),
    }
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

//! What a slot decides, taken apart by the learner that applies it.

use super::Outcome::{Refused, Understood};
use super::{Outcome, bounded};
use bytes::Bytes;
use synod_paxos::value::{Action, Value};

/// Takes a value apart. There is one spelling of everything in it, so what is understood is, put together
/// again, the very same bytes (PMS-1). And only the no-op is the no-op.
pub fn value(data: &[u8]) -> Outcome {
    let value = Value::from_encoded(Bytes::copy_from_slice(bounded(data)));
    let Ok(commands) = value.commands() else {
        assert!(!value.is_no_op(), "damage must not pass for a no-op");
        return Refused;
    };
    if value.is_no_op() {
        assert!(commands.is_empty());
    } else {
        assert_eq!(Value::batch(&commands), value);
    }
    for command in &commands {
        if let Action::App(_) = command.action {
            assert!(command.encoded_len() <= value.len(), "a request longer than the batch it is in");
        }
    }
    Understood
}

//! Failing on purpose: what can be asked for.

use super::status::Role;
pub use crate::peers::{Direction, LinkFault};
use std::time::Duration;

/// What becomes of a role's memory when it is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// It comes back with what its disk holds.
    Keep,
    /// It comes back with nothing: an acceptor under a new incarnation.
    Forget,
}

/// A role that fails, or comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleFault {
    /// Stop it as a crash would.
    Stop {
        /// Which.
        role: Role,
        /// With or without its memory.
        memory: Memory,
        /// Start it again after this long; otherwise only when told to.
        restart_after: Option<Duration>,
    },
    /// Start it, if it is stopped.
    Start {
        /// Which.
        role: Role,
    },
}

/// Roles that fail at random.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RandomFaults {
    /// Which roles.
    pub roles: Vec<Role>,
    /// Mean time until a running role fails.
    pub mean_up: Duration,
    /// Mean time until it comes back.
    pub mean_down: Duration,
    /// With or without memory.
    pub memory: Memory,
    /// Where chance comes from.
    pub seed: u64,
}

/// Why a fault was not injected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// The operator did not allow it.
    #[error("faults are not allowed on this server: start it with --allow-faults")]
    NotAllowed,
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
}

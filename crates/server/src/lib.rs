//! synod's server crate.

pub mod api;
pub mod config;
pub mod express;
pub mod http;
mod lastly;
pub mod listen;
pub mod metrics;
pub mod peers;
pub mod replica;
pub mod run;
pub mod trace;

//! synod's server crate.

//! synod's client crate.

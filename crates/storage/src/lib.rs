//! synod's storage crate.

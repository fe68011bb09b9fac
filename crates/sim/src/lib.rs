//! synod's sim crate.

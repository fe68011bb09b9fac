//! synod's kv crate.

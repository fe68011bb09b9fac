//! synod's rpc crate.

//! synod's paxos crate.

//! Five real server processes, as an operator has them: killed, paused, wiped and misled, while clients write.
//!
//! The names are those of the faults that a cluster must survive: C for crashes, P for pauses, D for disks,
//! X for what clients do. Every test writes while the fault strikes, and afterwards looks for every
//! acknowledged write at every server. Which faults go deeper than a process can be made to show (torn
//! groups, half a sync, lost messages), the simulator and the tests of each crate decide.

#[path = "processes/cluster.rs"]
mod cluster;
#[path = "processes/crashes.rs"]
mod crashes;
#[path = "processes/input.rs"]
mod input;
#[path = "processes/memory.rs"]
mod memory;
#[path = "processes/writer.rs"]
mod writer;

//! # What survives
//!
//! A replica may lose its processor, its memory and its network and be none the worse; this crate keeps the
//! little that it must not lose, and notices when it has lost it after all.
//!
//! * [`wal`], the write-ahead log: what the acceptor said. The only part whose speed matters.
//! * [`segment`] says what its bytes mean, [`recovery`] what to make of them after a crash.
//! * [`identity`], who the replica is, and [`datadir`], the directory that is its own.
//! * [`checkpoint`], what the state machine holds, so that the log need not be kept for ever.
//! * All of it speaks to a [`disk`], of which there is a real one, one in memory, and one that fails in every way
//!   that disks are known to fail.
//!
//! Three rules run through everything. Nothing is believed that the page cache alone remembers. Nothing is
//! tried twice that failed once. And everything read is checked: rot is found, never followed.

#![warn(missing_docs)]

pub mod checkpoint;
pub mod datadir;
pub mod disk;
pub mod identity;
mod record;
pub mod recovery;
pub mod segment;
mod small;
mod spares;
pub mod wal;

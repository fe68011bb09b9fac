//! Where the fuzzer starts: at least one good input of every kind, made by the production encoders, and some
//! that are wrong in an interesting way. Always the same.
//!
//! `cargo run -p synod-sim --example corpus` writes them to `fuzz/corpus`; `cargo test` complains if they are
//! not what it would write, as happens when a format changes.

mod clients;
mod disk;
mod peers;

/// One input to start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The target it is for.
    pub target: &'static str,
    /// What it is, fit for a file name.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

/// All seeds of all targets.
pub fn seeds() -> Vec<Seed> {
    let mut all = Vec::new();
    disk::add(&mut all);
    peers::add(&mut all);
    clients::add(&mut all);
    all
}

fn seed(target: &'static str, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Seed {
    Seed { target, name: format!("seed-{}", name.into()), bytes: bytes.into() }
}

/// A byte string as [`Input::string`](super::input::Input::string) reads it.
fn string(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("seeds are short");
    [&len.to_le_bytes(), bytes].concat()
}

//! Writes the seeds of the fuzz targets to `fuzz/corpus`. To be run after a format has changed; files of
//! other names, the finds of the fuzzer, are left alone.

use std::path::Path;
use std::{fs, io};
use synod_sim::fuzz::seeds::seeds;

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let seeds = seeds();
    for seed in &seeds {
        let dir = corpus.join(seed.target);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(&seed.name), &seed.bytes)?;
    }
    println!("{} seeds written to {}", seeds.len(), corpus.display());
    Ok(())
}

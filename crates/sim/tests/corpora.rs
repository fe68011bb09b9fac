//! Every input that is kept for the fuzz targets, and its neighbours, in every test run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use synod_sim::fuzz::seeds::seeds;
use synod_sim::fuzz::{Outcome, TARGETS, Target};

/// In a debug build on one core all of them take about ten seconds.
const MUTATIONS_PER_FILE: u64 = 500;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn names_in(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn corpus(target: &Target) -> BTreeMap<String, Vec<u8>> {
    let dir = fuzz().join("corpus").join(target.name);
    names_in(&dir).into_iter().map(|name| (name.clone(), fs::read(dir.join(&name)).unwrap())).collect()
}

/// Runs a target, and names the input if that panics. (To keep it, write the bytes to a file of the corpus.)
fn run(target: &Target, what: &str, input: &[u8]) -> Outcome {
    struct Tell<'a>(&'a str, &'a str, &'a [u8]);
    impl Drop for Tell<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("{} failed on {}: {:02x?}", self.0, self.1, self.2);
            }
        }
    }
    let _tell = Tell(target.name, what, input);
    (target.run)(input)
}

#[test]
fn every_target_has_a_corpus_and_a_wrapper_and_there_are_no_others() {
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_string()).collect();
    assert_eq!(names.len(), TARGETS.len());
    assert_eq!(names_in(&fuzz().join("corpus")), names);
    let wrappers = names_in(&fuzz().join("fuzz_targets"));
    assert_eq!(wrappers, names.iter().map(|name| format!("{name}.rs")).collect());
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in &names {
        let wrapper = fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(wrapper.contains(&format!("synod_sim::fuzz::{name}(data)")), "{name}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}

#[test]
fn the_seeds_are_those_that_the_encoders_make_today() {
    let mut expected: BTreeMap<&str, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    for seed in seeds() {
        let twice = expected.entry(seed.target).or_default().insert(seed.name.clone(), seed.bytes);
        assert_eq!(twice, None, "{} of {}", seed.name, seed.target);
    }
    for target in &TARGETS {
        let mut found = corpus(target);
        found.retain(|name, _| name.starts_with("seed-"));
        assert!(
            expected.get(target.name) == Some(&found),
            "{}: run `cargo run -p synod-sim --example corpus`",
            target.name
        );
    }
}

#[test]
fn every_file_of_every_corpus_passes() {
    for target in &TARGETS {
        let corpus = corpus(target);
        assert!((5..=80).contains(&corpus.len()), "{} files for {}", corpus.len(), target.name);
        let mut outcomes = BTreeSet::new();
        for (name, input) in &corpus {
            assert!(input.len() < 2048, "{name} of {} is {} bytes", target.name, input.len());
            outcomes.insert(run(target, name, input));
        }
        assert_eq!(outcomes.len(), 2, "{} knows one answer only: {outcomes:?}", target.name);
    }
}

#[test]
fn the_neighbours_of_every_file_pass() {
    for target in &TARGETS {
        let corpus: Vec<(String, Vec<u8>)> = corpus(target).into_iter().collect();
        for (name, input) in &corpus {
            for seed in 0..MUTATIONS_PER_FILE {
                let mut chance = Chance::new(name, seed);
                let other = &corpus[chance.below(corpus.len())].1;
                let mutant = mutate(input, other, &mut chance);
                run(target, &format!("mutation {seed} of {name}"), &mutant);
            }
        }
    }
}

/// A few random changes, of the kinds that a fuzzer makes.
fn mutate(input: &[u8], other: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len() + 1);
        match chance.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][chance.below(5)],
            2 => bytes.truncate(at),
            3 => bytes.insert(at, chance.below(256) as u8),
            4 => drop(bytes.drain(at..(at + chance.below(9)).min(bytes.len()))),
            _ => {
                let from = chance.below(other.len() + 1);
                let piece = &other[from..(from + chance.below(17)).min(other.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
    bytes
}

/// Steele, Lea and Flood's SplitMix64: the same numbers everywhere and for ever.
struct Chance(u64);

impl Chance {
    fn new(name: &str, seed: u64) -> Chance {
        Chance(name.bytes().fold(seed, |state, byte| state.wrapping_mul(31).wrapping_add(byte.into())))
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

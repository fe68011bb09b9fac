//! A whole cluster in one thread, from one seed.
//!
//! The replicas are the production state machines ([`replica`]); time, chance, network, disks and clients are
//! the simulator's ([`world`]); what goes wrong, and how much of it at once, is decided by [`faults`]; and an
//! [`oracle`] that asks none of them judges every step. A run has two movements. In the first everything fails
//! that may, and nothing wrong may happen. Then all is healed, and what must happen has to happen in bounded
//! time: every client is answered, every memory votes, all replicas are equal.
//!
//! A run is repeatable: the same seed gives the same run, and a seed that failed is run once more to print what
//! happened.

pub mod faults;
pub mod oracle;
pub mod replica;
pub mod store;
pub mod world;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// How often a rare thing happened: a run in which nothing ever happens proves nothing.
pub type Sometimes = BTreeMap<&'static str, u64>;

/// The last lines of what happened, if anybody wants to know.
pub type Trace = Option<Rc<RefCell<VecDeque<String>>>>;

const TRACE_LINES: usize = 400;

/// Runs `seeds` with clusters of `size` replicas and adds up what happened. Panics with the story of the first
/// seed that fails.
pub fn run_all(size: u64, seeds: std::ops::Range<u64>) -> Sometimes {
    let mut sometimes = Sometimes::new();
    for seed in seeds {
        match catch_unwind(|| world::World::new(seed, size, None).run()) {
            Ok(counts) => {
                for (what, count) in counts {
                    *sometimes.entry(what).or_default() += count;
                }
            }
            Err(_) => tell(size, seed),
        }
    }
    sometimes
}

/// Runs a seed that failed once more, and tells what led to the failure.
fn tell(size: u64, seed: u64) -> ! {
    let lines = Rc::new(RefCell::new(VecDeque::new()));
    let trace = Some(lines.clone());
    let outcome = catch_unwind(AssertUnwindSafe(|| world::World::new(seed, size, trace).run()));
    let why = outcome.err().map(|why| match why.downcast::<String>() {
        Ok(text) => *text,
        Err(why) => why.downcast_ref::<&str>().map_or("no words", |text| text).to_owned(),
    });
    for line in lines.borrow().iter() {
        eprintln!("{line}");
    }
    panic!("size {size}, seed {seed}: {}", why.as_deref().unwrap_or("passed when run again: not repeatable"));
}

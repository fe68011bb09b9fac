//! Many seeds, on all processors, and what they add up to.

use crate::judges::{Broken, SOMETIMES, Sometimes};
use crate::world::plan::Plan;
use crate::world::{self, Outcome};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How seeds are run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// On so many threads.
    pub threads: usize,
    /// No seed is begun after this long; none: all are.
    pub time: Option<Duration>,
    /// No seed is begun once so many have failed.
    pub failures: usize,
}

impl Default for Options {
    fn default() -> Options {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
        Options { threads, time: None, failures: 10 }
    }
}

/// What a batch came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many seeds were run.
    pub seeds: u64,
    /// Those that broke something, lowest first, with what they broke.
    pub failures: Vec<(u64, Broken)>,
    /// How often rare things happened, all seeds together.
    pub sometimes: Sometimes,
    /// The virtual time that passed in them.
    pub simulated: Duration,
    /// The real time that took.
    pub elapsed: Duration,
    /// Events.
    pub events: u64,
    /// Requests that were answered.
    pub answered: u64,
}

/// From so many seeds on, a batch must have seen everything that happens sometimes.
const ENOUGH: u64 = 1_000;

impl Report {
    /// What never happened, although the batch was large enough for it. Such a batch was too kind to prove anything.
    pub fn never(&self) -> Vec<&'static str> {
        let wanted = SOMETIMES.iter().chain(world::SOMETIMES).copied();
        wanted.filter(|what| self.seeds >= ENOUGH && !self.sometimes.contains_key(what)).collect()
    }

    /// Did nothing break, and everything happen?
    pub fn is_good(&self) -> bool {
        self.failures.is_empty() && self.never().is_empty()
    }

    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.simulated += outcome.simulated;
        self.events += outcome.events;
        self.answered += outcome.answered;
        for (what, count) in outcome.sometimes {
            *self.sometimes.entry(what).or_default() += count;
        }
        if let Some(broken) = outcome.broken {
            self.failures.push((seed, broken));
            self.failures.sort_by_key(|(seed, _)| *seed);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64().max(0.001);
        let simulated = self.simulated.as_secs_f64();
        write!(
            f,
            "{} seeds in {seconds:.1} s ({:.0} a minute): {simulated:.0} simulated seconds ({:.0} a second), {} events, {} requests answered",
            self.seeds,
            self.seeds as f64 * 60.0 / seconds,
            simulated / seconds,
            self.events,
            self.answered,
        )
    }
}

/// Runs `seeds`. `progress` is told now and then how many are done, from any thread.
pub fn run(seeds: Range<u64>, options: Options, progress: impl Fn(u64, usize) + Sync) -> Report {
    run_with(seeds, options, |seed| world::run(&Plan::of(seed), false), progress)
}

/// [`run`], with another way to run one seed.
pub(crate) fn run_with(
    seeds: Range<u64>,
    options: Options,
    one: impl Fn(u64) -> Outcome + Sync,
    progress: impl Fn(u64, usize) + Sync,
) -> Report {
    let began = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let report = Mutex::new(Report::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let late = options.time.is_some_and(|time| began.elapsed() >= time);
            if seed >= seeds.end || late {
                return;
            }
            let outcome = one(seed);
            let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
            report.add(seed, outcome);
            let (done, failures) = (report.seeds, report.failures.len());
            drop(report);
            progress(done, failures);
            if failures >= options.failures {
                next.store(seeds.end, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..options.threads.max(1) {
            scope.spawn(work);
        }
        work();
    });
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.elapsed = began.elapsed();
    report
}

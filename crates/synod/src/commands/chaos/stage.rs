//! What all parts of a run share: the servers, the weather, and what was seen.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use synod_sim::{Key, Moment, Outcome};
use tokio::sync::{RwLock, Semaphore};

use super::display::Screen;
use super::report::{Fate, Sample};
use crate::cluster::Node;
use crate::cluster::call::Done;
use crate::cluster::judge::Check;
use crate::cluster::record::Recorder;

/// How many clients may work on one key at a time. The search for an order of what happened to a key takes time
/// that may grow exponentially in this number (fault catalogue, section 3).
const AT_A_KEY: usize = 8;

/// What all parts of a run share.
pub(super) struct Stage {
    pub(super) seed: u64,
    pub(super) nodes: Vec<Arc<Node>>,
    /// What the clients work on.
    pub(super) keys: Vec<Shared>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) screen: Screen,
    /// Every client passes it before each call. Whoever closes it waits until no call is under way: a quiet
    /// point, after which the judges need not think of what was before.
    pub(super) gate: RwLock<()>,
    weather: Mutex<Weather>,
    samples: Mutex<Vec<Sample>>,
    acknowledged: Mutex<Vec<Moment>>,
    broken: Mutex<Vec<Check>>,
}

/// A key, and places for those who want to work on it.
pub(super) struct Shared {
    pub(super) key: Key,
    pub(super) places: Semaphore,
}

/// Who is in trouble now.
#[derive(Clone, Debug, Default)]
struct Weather {
    struck: BTreeSet<usize>,
    no_majority: bool,
}

impl Stage {
    pub(super) fn new(seed: u64, nodes: Vec<Arc<Node>>, keys: Vec<Key>, screen: Screen) -> Self {
        let shared = |key| Shared { key, places: Semaphore::new(AT_A_KEY) };
        Self {
            seed,
            nodes,
            keys: keys.into_iter().map(shared).collect(),
            recorder: Recorder::new(),
            screen,
            gate: RwLock::default(),
            weather: Mutex::default(),
            samples: Mutex::default(),
            acknowledged: Mutex::default(),
            broken: Mutex::default(),
        }
    }

    /// These servers are in trouble from now on, and none other.
    pub(super) fn struck(&self, places: &[usize]) {
        let struck: BTreeSet<usize> = places.iter().copied().collect();
        let no_majority = struck.len() * 2 >= self.nodes.len();
        *lock(&self.weather) = Weather { struck, no_majority };
    }

    /// Servers that nothing has befallen; all of them if it has befallen all.
    pub(super) fn living(&self) -> Vec<usize> {
        let weather = lock(&self.weather);
        let all = 0..self.nodes.len();
        let living: Vec<usize> = all.clone().filter(|place| !weather.struck.contains(place)).collect();
        if living.is_empty() { all.collect() } else { living }
    }

    /// Does a failure of a call to this server count against the cluster? Not if it was in trouble when it was
    /// asked, nor if no majority was well, then or when the call ended.
    pub(super) fn counts(&self, place: usize) -> bool {
        let weather = lock(&self.weather);
        !weather.no_majority && !weather.struck.contains(&place)
    }

    /// A call ended.
    pub(super) fn done(&self, done: &Done, counts: bool) {
        let counts = counts && !lock(&self.weather).no_majority;
        let operation = &done.operation;
        if let Some(answer) = operation.answer()
            && operation.made_revision()
        {
            lock(&self.acknowledged).push(answer.returned);
        }
        let fate = match operation.outcome {
            Outcome::Answered(_) => Fate::Answered,
            Outcome::Unknown => Fate::Unknown,
            Outcome::NotApplied => Fate::Failed,
        };
        let took = u64::try_from(done.took.as_micros()).unwrap_or(u64::MAX);
        let ended = Moment(operation.invoked.0.saturating_add(took));
        lock(&self.samples).push(Sample { sent: operation.invoked, ended, counts, fate });
    }

    /// Something that must not be, or that keeps the run from being judged.
    pub(super) fn breaks(&self, check: Check) {
        self.screen.note(Some(self.recorder.now()), &format!("BROKEN: {}", check.text));
        lock(&self.broken).push(check);
    }

    pub(super) fn broken(&self) -> Vec<Check> {
        lock(&self.broken).clone()
    }

    /// When a write was acknowledged, in order of time.
    pub(super) fn acknowledged(&self) -> Vec<Moment> {
        let mut moments = lock(&self.acknowledged).clone();
        moments.sort_unstable();
        moments
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        lock(&self.samples).clone()
    }

    /// Tells people what happens.
    pub(super) fn tell(&self, text: &str) {
        self.screen.note(Some(self.recorder.now()), text);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while noting")
}

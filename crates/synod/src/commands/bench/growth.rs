//! What grows while a load goes on: the servers' memory, and their data on disks.
//!
//! A rate says nothing about next week. A store that forgets nothing is as fast as another until it has no room left; so
//! the room that it takes is looked at again and again, and told as it was when counting began, at half time, and in
//! the end. Looking is reading a few small files, on none of the threads that make the load, and about a hundred times
//! however long it takes.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::spawn_blocking;
use tokio::time::sleep_until;

use super::course::Extent;
use crate::failed::Failed;
use crate::output::go;
use crate::output::table::or_dash;
use crate::process;

/// Between the first sample and the last there are so many steps at most.
const STEPS: u32 = 100;
/// Samples are no closer than this.
const FINEST: Duration = Duration::from_secs(1);
/// The unit of `st_blocks` in bytes, whatever the file system's own blocks are (stat(3type)).
const BLOCK: u64 = 512;

/// What can be seen of the servers, where they are on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Watched {
    /// Their processes; none if they are not known.
    pub(super) pids: Vec<u32>,
    /// The folder that holds the data of all of them, and nothing else.
    pub(super) data: Option<PathBuf>,
}

/// What there was at one time, of all servers together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Sample {
    /// Since counting began.
    pub(super) seconds: f64,
    /// In memory.
    pub(super) resident_bytes: u64,
    /// Allocated to their data on disks, if it is known where that is.
    pub(super) disk_bytes: Option<u64>,
}

/// One figure over the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Trend {
    /// When counting began: after the warm-up.
    begin: u64,
    /// In the sample that is the closest to it; `None` if there are only the first and the last.
    half_time: Option<u64>,
    end: u64,
    /// The highest of all samples.
    highest: u64,
}

/// What became of memory and disk.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Growth {
    resident_bytes: Trend,
    disk_bytes: Option<Trend>,
    /// In their order.
    samples: Vec<Sample>,
}

impl Trend {
    /// Of these samples; `None` if there is none, or one of them lacks the figure.
    fn of(samples: &[Sample], figure: impl Fn(&Sample) -> Option<u64>) -> Option<Self> {
        let (first, last) = (samples.first()?, samples.last()?);
        let half = f64::midpoint(first.seconds, last.seconds);
        let distance = |sample: &&Sample| (sample.seconds - half).abs();
        let between = samples.get(1..samples.len() - 1).unwrap_or_default();
        let middle = between.iter().min_by(|one, other| distance(one).total_cmp(&distance(other)));
        let all: Vec<u64> = samples.iter().map(&figure).collect::<Option<_>>()?;
        Some(Self {
            begin: figure(first)?,
            half_time: middle.and_then(&figure),
            end: figure(last)?,
            highest: all.into_iter().max()?,
        })
    }

    fn cells(trend: Option<Self>) -> [String; 4] {
        let cell = |of: fn(Self) -> Option<u64>| or_dash(trend.and_then(of), go::bytes);
        [
            cell(|trend| Some(trend.begin)),
            cell(|trend| trend.half_time),
            cell(|trend| Some(trend.end)),
            cell(|trend| Some(trend.highest)),
        ]
    }
}

impl Growth {
    /// What the cells of [`Growth::cells`] are.
    pub(super) const TITLES: [&str; 8] =
        ["MEMORY BEGIN", "HALF TIME", "END", "HIGHEST", "DISK BEGIN", "HALF TIME", "END", "HIGHEST"];

    /// What these samples tell; `None` if there is none.
    pub(super) fn of(samples: Vec<Sample>) -> Option<Self> {
        Some(Self {
            resident_bytes: Trend::of(&samples, |sample| Some(sample.resident_bytes))?,
            disk_bytes: Trend::of(&samples, |sample| sample.disk_bytes),
            samples,
        })
    }

    /// For people.
    pub(super) fn cells(&self) -> Vec<String> {
        [Trend::cells(Some(self.resident_bytes)), Trend::cells(self.disk_bytes)].concat()
    }
}

/// Looks at the servers while they are put to work.
#[derive(Debug)]
pub(super) struct Sampler {
    watched: Watched,
    /// When counting begins.
    from: Instant,
    /// Between two samples.
    every: Duration,
    samples: Vec<Sample>,
}

impl Sampler {
    /// Nothing is looked at yet. How often it will be depends on how long it goes on, as far as that is known.
    pub(super) fn new(watched: &Watched, from: Instant, extent: Extent) -> Self {
        let every = match extent {
            Extent::Time(time) => FINEST.max(time / STEPS),
            Extent::Requests(_) => FINEST,
        };
        Self { watched: watched.clone(), from, every, samples: Vec::new() }
    }

    /// Looks now, if there is anything to look at.
    ///
    /// # Errors
    /// If a process has ended, or the data cannot be looked at.
    pub(super) async fn look(&mut self) -> Result<(), Failed> {
        if self.watched.pids.is_empty() {
            return Ok(());
        }
        let (watched, seconds) = (self.watched.clone(), self.from.elapsed().as_secs_f64());
        let looking = spawn_blocking(move || {
            let disk_bytes = watched.data.as_deref().map(on_disk).transpose()?;
            let resident_bytes = process::usage(&watched.pids)?.resident;
            Ok::<_, Failed>(Sample { seconds, resident_bytes, disk_bytes })
        });
        let sample =
            looking.await.map_err(|error| Failed::new(format!("cannot see the servers: {error}")))?;
        self.add(sample?);
        Ok(())
    }

    /// Looks every so often, for as long as this is polled. Returns only if it cannot.
    pub(super) async fn go_on(&mut self) -> Failed {
        loop {
            sleep_until((self.from + self.next(self.from.elapsed())).into()).await;
            if let Err(failed) = self.look().await {
                return failed;
            }
        }
    }

    /// When to look next, so long after counting began.
    fn next(&self, elapsed: Duration) -> Duration {
        let steps = elapsed.div_duration_f64(self.every).floor() + 1.0;
        self.every.mul_f64(steps)
    }

    /// Where there are too many, every second one is dropped, and half as many come from now on.
    fn add(&mut self, sample: Sample) {
        self.samples.push(sample);
        if self.samples.len() > STEPS as usize + 1 {
            self.samples = self.samples.iter().step_by(2).copied().collect();
            self.every *= 2;
        }
    }

    /// What was seen.
    pub(super) fn growth(self) -> Option<Growth> {
        Growth::of(self.samples)
    }
}

fn on_disk(folder: &Path) -> Result<u64, Failed> {
    allocated(folder)
        .map_err(|error| Failed::new(format!("cannot see how much data is in {}: {error}", folder.display())))
}

/// Bytes of the disk that are allocated to what is in a folder and below. Their lengths say less: files may have holes,
/// and room at their end that was set aside.
fn allocated(folder: &Path) -> io::Result<u64> {
    let mut folders = vec![folder.to_owned()];
    let mut blocks = 0;
    while let Some(folder) = folders.pop() {
        for entry in unless_gone(fs::read_dir(&folder))?.into_iter().flatten() {
            let entry = entry?;
            let Some(file) = unless_gone(entry.metadata())? else { continue };
            blocks += file.blocks();
            if file.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(blocks * BLOCK)
}

/// Servers remove files, also while we look.
fn unless_gone<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One sample a second.
    pub(in super::super) fn growth(figures: &[(u64, Option<u64>)]) -> Option<Growth> {
        let sample = |(second, &(resident_bytes, disk_bytes)): (usize, &(u64, Option<u64>))| Sample {
            seconds: second as f64,
            resident_bytes,
            disk_bytes,
        };
        Growth::of(figures.iter().enumerate().map(sample).collect())
    }

    fn sampler(extent: Extent) -> Sampler {
        Sampler::new(&Watched::default(), Instant::now(), extent)
    }

    #[test]
    fn a_trend_is_the_beginning_the_middle_the_end_and_the_highest() {
        let figures = [(1, Some(9)), (8, Some(8)), (3, Some(7)), (4, Some(6)), (5, Some(5))];
        let growth = growth(&figures).unwrap();
        let memory = Trend { begin: 1, half_time: Some(3), end: 5, highest: 8 };
        let disk = Trend { begin: 9, half_time: Some(7), end: 5, highest: 9 };
        assert_eq!((growth.resident_bytes, growth.disk_bytes), (memory, Some(disk)));
        assert_eq!(growth.cells(), ["1 B", "3 B", "5 B", "8 B", "9 B", "7 B", "5 B", "9 B"]);
    }

    #[test]
    fn what_was_not_seen_is_not_told() {
        assert_eq!(growth(&[]), None);
        let growth = growth(&[(1, None), (2, None)]).unwrap();
        assert_eq!(growth.resident_bytes.half_time, None, "nobody looked between the first and the last");
        assert_eq!(growth.cells(), ["1 B", "-", "2 B", "2 B", "-", "-", "-", "-"]);
    }

    #[test]
    fn a_long_time_is_looked_at_no_more_often_than_a_shorter_one() {
        let every = |seconds| sampler(Extent::Time(Duration::from_secs(seconds))).every;
        assert_eq!([5, 100, 1_800].map(every), [1, 1, 18].map(Duration::from_secs));

        let mut sampler = sampler(Extent::Requests(1_000_000));
        let mut at = Duration::ZERO;
        while at < Duration::from_secs(86_400) {
            sampler.add(Sample { seconds: at.as_secs_f64(), resident_bytes: 1, disk_bytes: None });
            assert!(sampler.samples.len() <= 101);
            at = sampler.next(at);
        }
        let seconds: Vec<f64> = sampler.samples.iter().map(|sample| sample.seconds).collect();
        let step = sampler.every.as_secs_f64();
        assert!(seconds.len() > 50 && seconds[0] == 0.0, "{seconds:?}");
        assert!(seconds.windows(2).all(|pair| pair[1] - pair[0] == step), "{step}: {seconds:?}");
    }

    #[tokio::test]
    async fn a_look_sees_memory_and_data() {
        let folder = tempfile::tempdir().unwrap();
        let watched = Watched { pids: vec![std::process::id()], data: Some(folder.path().to_owned()) };
        let mut sampler = Sampler::new(&watched, Instant::now(), Extent::Requests(1));
        sampler.look().await.unwrap();
        fs::create_dir(folder.path().join("n1")).unwrap();
        let log = fs::File::create(folder.path().join("n1/log")).unwrap();
        io::Write::write_all(&mut &log, &[7; 100_000]).unwrap();
        // A hole takes no room.
        log.set_len(1 << 30).unwrap();
        log.sync_all().unwrap();
        sampler.look().await.unwrap();
        let [before, after] = sampler.samples[..] else { panic!("{sampler:?}") };
        assert!(before.resident_bytes > 0);
        let grown = after.disk_bytes.unwrap() - before.disk_bytes.unwrap();
        assert!((100_000..10_000_000).contains(&grown), "{grown}");
    }

    #[tokio::test]
    async fn who_is_not_known_is_not_looked_at() {
        let mut sampler = sampler(Extent::Requests(1));
        sampler.look().await.unwrap();
        assert_eq!(sampler.growth(), None);
    }
}

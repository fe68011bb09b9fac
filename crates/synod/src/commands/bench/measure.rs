//! One measurement: the workers are set up, told when to begin, and added up.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until};

use super::client::Job;
use super::course::{Course, Extent};
use super::growth::{Growth, Sampler, Watched};
use super::tally::Tally;
use super::worker::{self, Assignment};
use super::workload::{Requests, Shape};
use crate::failed::Failed;
use crate::process::{self, Usage};

/// So many clients fill the store.
const FILLERS: usize = 16;
/// How often progress is shown.
const TICK: Duration = Duration::from_millis(200);
/// Workers get so long to set out before anything counts.
const HEAD_START: Duration = Duration::from_millis(5);

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// `http://host:port`, at least one.
    pub(super) endpoints: Vec<String>,
    /// Connections; if not given, see [`Target::connections`].
    pub(super) connections: Option<usize>,
    /// Threads that make the load.
    pub(super) threads: usize,
    pub(super) shape: Shape,
    pub(super) seed: u64,
    /// How long a client waits for an answer.
    pub(super) limit: Duration,
    pub(super) dial_timeout: Duration,
    pub(super) watched: Watched,
}

/// What clients do, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effort {
    pub(super) clients: usize,
    pub(super) job: Job,
    /// How long they do it before it counts.
    pub(super) warm_up: Duration,
    /// A time, if there is a rate.
    pub(super) extent: Extent,
    /// Requests per second that are due, in an open loop; clients are the most that are under way then.
    pub(super) rate: Option<u32>,
}

/// What was measured.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) tally: Tally,
    pub(super) took: Duration,
    /// The longest time without any answer.
    pub(super) longest_silence: Duration,
    pub(super) connections: usize,
    /// What the load itself cost.
    pub(super) own_cpu: Duration,
    /// What the servers used, if they can be looked at; the memory is what they had in the end.
    pub(super) servers: Option<Usage>,
    /// What became of their memory and disk, as above.
    pub(super) growth: Option<Growth>,
}

impl Target {
    /// How many connections so many clients use: as many as they are, at most two to each endpoint, and at least
    /// one to each, so that no server is spared.
    pub(super) fn connections(&self, clients: usize) -> usize {
        let endpoints = self.endpoints.len();
        self.connections.unwrap_or_else(|| clients.clamp(endpoints, 2 * endpoints))
    }

    /// What each worker carries. There are no more workers than connections or clients.
    fn assignments(&self, clients: usize, job: Job) -> Vec<Assignment> {
        let connections = self.connections(clients);
        let workers = self.threads.min(connections).min(clients);
        let mut first_client = 0;
        let assignment = |worker: usize| {
            let share = (worker..clients).step_by(workers).count();
            let links = (worker..connections).step_by(workers);
            let assignment = Assignment {
                endpoints: links.map(|link| self.endpoints[link % self.endpoints.len()].clone()).collect(),
                clients: share,
                worker: worker as u64,
                workers: workers as u64,
                first_client,
                job,
                shape: self.shape,
                seed: self.seed,
                limit: self.limit,
                dial_timeout: self.dial_timeout,
            };
            first_client += share as u64;
            assignment
        };
        (0..workers).map(assignment).collect()
    }

    /// Writes every key once.
    ///
    /// # Errors
    /// If one of the writes fails.
    pub(super) async fn fill(&self, progress: impl Fn(u64)) -> Result<(), Failed> {
        let chunks = Requests::chunks(self.shape.keys);
        let extent = Extent::Requests(chunks);
        let effort = Effort { clients: FILLERS, job: Job::Fill, warm_up: Duration::ZERO, extent, rate: None };
        let measured = self.measure(effort, progress).await?;
        match measured.tally.faults.kinds().first() {
            None => Ok(()),
            Some(failures) => Err(Failed::new(format!("cannot fill the store: {}", failures.first))
                .hint(format!("{} of {chunks} transactions failed", measured.tally.faults.count()))),
        }
    }

    /// Lets clients do a job. `progress` is told from time to time how many requests have ended that
    /// count.
    ///
    /// # Errors
    /// If an endpoint cannot be reached at the beginning, or a process not be looked at.
    pub(super) async fn measure(&self, effort: Effort, progress: impl Fn(u64)) -> Result<Measured, Failed> {
        let Effort { clients, job, warm_up, extent, rate } = effort;
        let (begin, begun) = watch::channel(None);
        let (connected, mut connections) = mpsc::unbounded_channel();
        let assignments = self.assignments(clients, job);
        let started = assignments
            .into_iter()
            .map(|assignment| worker::start(assignment, begun.clone(), connected.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        drop(connected);
        while let Some(worker) = connections.recv().await {
            worker.map_err(|fault| Failed::new(format!("cannot connect: {}", fault.what)))?;
        }
        let course = Arc::new(Course::new(Instant::now() + HEAD_START, warm_up, extent, rate));
        begin.send_replace(Some(Arc::clone(&course)));

        sleep_until(course.from.into()).await;
        let before = self.look()?;
        let mut sampler = Sampler::new(&self.watched, course.from, extent);
        sampler.look().await?;
        let all = async {
            let mut sum = Tally::from(course.from);
            for tally in started {
                let gone = |_| Failed::new("a load thread ended before its time");
                sum.add(tally.await.map_err(gone)?);
            }
            Ok::<Tally, Failed>(sum)
        };
        tokio::pin!(all);
        let ending = async {
            match course.until() {
                Some(until) => sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(ending);
        let early = {
            let mut sampling = pin!(sampler.go_on());
            loop {
                tokio::select! {
                    sum = &mut all => break Some(sum?),
                    () = &mut ending => break None,
                    failed = &mut sampling => return Err(failed),
                    () = sleep(TICK) => progress(course.ended()),
                }
            }
        };
        let after = self.look()?;
        sampler.look().await?;
        let tally = match early {
            Some(tally) => tally,
            None => all.await?,
        };
        progress(course.ended());
        let until = course.until().or(tally.last).unwrap_or(course.from);
        let took = until.saturating_duration_since(course.from);
        let longest_silence = tally.silences.longest(until);
        let servers = after.servers.zip(before.servers).map(|(after, before)| Usage {
            cpu: after.cpu.saturating_sub(before.cpu),
            resident: after.resident,
            written: after.written.saturating_sub(before.written),
        });
        let own_cpu = after.own_cpu.saturating_sub(before.own_cpu);
        let connections = self.connections(clients);
        let growth = sampler.growth();
        Ok(Measured { tally, took, longest_silence, connections, own_cpu, servers, growth })
    }

    fn look(&self) -> Result<Look, Failed> {
        let pids = &self.watched.pids;
        let servers = (!pids.is_empty()).then(|| process::usage(pids)).transpose()?;
        Ok(Look { servers, own_cpu: process::own_cpu() })
    }
}

struct Look {
    servers: Option<Usage>,
    own_cpu: Duration,
}

#[cfg(test)]
mod tests {
    use super::super::workload::Workload;
    use super::*;

    fn target(endpoints: usize, threads: usize) -> Target {
        Target {
            endpoints: (0..endpoints).map(|n| format!("http://n{n}:1")).collect(),
            connections: None,
            threads,
            shape: Shape { keys: 1, key_size: 16, value_size: 1 },
            seed: 1,
            limit: Duration::from_secs(1),
            dial_timeout: Duration::from_secs(1),
            watched: Watched::default(),
        }
    }

    const JOB: Job = Job::Measure { workload: Workload::Put, reads: 0 };

    #[test]
    fn no_endpoint_is_spared() {
        let target = target(5, 1);
        assert_eq!([1, 5, 7, 64].map(|clients| target.connections(clients)), [5, 5, 7, 10]);
        let given = Target { connections: Some(3), ..target };
        assert_eq!([1, 64].map(|clients| given.connections(clients)), [3, 3]);
    }

    #[test]
    fn workers_share_clients_and_connections() {
        let assignments = target(5, 2).assignments(7, JOB);
        let shares: Vec<_> =
            assignments.iter().map(|one| (one.clients, one.first_client, one.endpoints.len())).collect();
        assert_eq!(shares, [(4, 0, 4), (3, 4, 3)]);
        assert_eq!(assignments[1].endpoints, ["http://n1:1", "http://n3:1", "http://n0:1"]);
        assert_eq!(target(5, 4).assignments(1, JOB).len(), 1);
    }
}

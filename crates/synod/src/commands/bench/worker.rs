//! A thread that carries clients, with a runtime of its own.
//!
//! One thread, one runtime, nothing shared with others but two counters: a request crosses no thread, and what
//! belongs to the thread needs no lock.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, LocalSet};

use super::client::{Client, Job};
use super::course::Course;
use super::schedule::Gate;
use super::tally::{Fault, Tally};
use super::wire::Link;
use super::workload::{Requests, Shape};
use crate::cluster::chance::Chance;
use crate::failed::Failed;

/// What a worker carries.
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    /// Where its connections go, at least one.
    pub(super) endpoints: Vec<String>,
    pub(super) clients: usize,
    /// Its number among all workers.
    pub(super) worker: u64,
    pub(super) workers: u64,
    /// The number of its first client among all.
    pub(super) first_client: u64,
    pub(super) job: Job,
    pub(super) shape: Shape,
    pub(super) seed: u64,
    /// How long a client waits for an answer.
    pub(super) limit: Duration,
    pub(super) dial_timeout: Duration,
}

/// How a worker is told to begin.
pub(super) type Begin = watch::Receiver<Option<Arc<Course>>>;
/// How a worker tells that it is connected, or why not.
pub(super) type Connected = mpsc::UnboundedSender<Result<(), Fault>>;

/// Starts a worker. It connects, waits for its beginning, and hands over its tally when all its clients have ended;
/// it ends without one if the beginning never comes.
///
/// # Errors
/// If the system gives no thread.
pub(super) fn start(
    assignment: Assignment,
    begin: Begin,
    connected: Connected,
) -> Result<oneshot::Receiver<Tally>, Failed> {
    let unable = |error| Failed::new(format!("cannot start a load thread: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unable)?;
    let (done, tally) = oneshot::channel();
    let body = move || {
        if let Some(tally) = LocalSet::new().block_on(&runtime, work(assignment, begin, connected)) {
            // Nobody may be waiting any more.
            let _ = done.send(tally);
        }
    };
    thread::Builder::new().name("load".to_owned()).spawn(body).map_err(unable)?;
    Ok(tally)
}

async fn work(assignment: Assignment, mut begin: Begin, connected: Connected) -> Option<Tally> {
    let links = match connect(&assignment).await {
        Ok(links) => links,
        Err(fault) => {
            let _ = connected.send(Err(fault));
            return None;
        }
    };
    let _ = connected.send(Ok(()));
    drop(connected);
    let course = begin.wait_for(Option::is_some).await.ok()?.clone()?;
    let tally = Rc::new(RefCell::new(Tally::from(course.from)));
    let requests = Rc::new(Requests::new(assignment.shape, assignment.seed));
    let gate = course.schedule(assignment.worker, assignment.workers).map(|one| Rc::new(Gate::new(one)));
    let mut clients = JoinSet::new();
    for number in 0..assignment.clients {
        let own = shares(number, assignment.clients, links.len());
        let own = own.into_iter().map(|place| Rc::clone(&links[place]));
        let chance = Chance::new(assignment.seed, assignment.first_client + number as u64);
        let client = Client::new(own, Rc::clone(&requests), chance, assignment.job, assignment.limit);
        let (course, tally, gate) = (Arc::clone(&course), Rc::clone(&tally), gate.clone());
        clients.spawn_local(async move {
            match gate {
                None => client.run_closed(&course, &tally).await,
                Some(gate) => client.run_open(&course, &gate, &tally).await,
            }
        });
    }
    if let Some(gate) = &gate {
        // A system without timers has given this thread its runtime, which needs one, too.
        gate.open().await.expect("the system gives a timer");
    }
    clients.join_all().await;
    let mut tally = Rc::into_inner(tally)?.into_inner();
    if let Some(gate) = &gate {
        (tally.due, tally.not_sent) = gate.due_and_not_sent();
    }
    Some(tally)
}

async fn connect(assignment: &Assignment) -> Result<Vec<Rc<Link>>, Fault> {
    let mut links = Vec::new();
    for endpoint in &assignment.endpoints {
        let link = Link::new(endpoint, assignment.dial_timeout)?;
        link.sender().await?;
        links.push(link);
    }
    Ok(links)
}

/// The places of the links that a client uses: one, or, where there are more links than clients, every so many.
fn shares(client: usize, clients: usize, links: usize) -> Vec<usize> {
    match clients < links {
        true => (client..links).step_by(clients).collect(),
        false => vec![client % links],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(clients: usize, links: usize) -> Vec<Vec<usize>> {
        (0..clients).map(|client| shares(client, clients, links)).collect()
    }

    #[test]
    fn every_link_is_used_and_none_by_much_more_clients_than_another() {
        assert_eq!(of(1, 5), [[0, 1, 2, 3, 4]]);
        assert_eq!(of(2, 5), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(of(3, 3), [[0], [1], [2]]);
        assert_eq!(of(5, 2), [[0], [1], [0], [1], [0]]);
    }
}

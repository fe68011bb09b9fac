//! The faults: who fails, when, for how long, and who may fail next.
//!
//! Every replica has its own sequence of times to stay up and to stay down. When
//! its time has come it waits for two things: that it may fail, and that a client
//! is waiting for an answer, since a fault that nobody could notice proves little.
//!
//! Who may fail is the subtle part. At most a minority may be away at a time, and
//! a voter is not back when its process or role is. One that forgot what it
//! promised counts as failed until its new incarnation votes and has caught up:
//! before that, a majority of those who remember might not exist. So a place in
//! the minority is kept until a look at the replica says that it takes full part.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use synod_client::rpc::synodpb::fault_event::Kind as EventKind;
use synod_client::rpc::synodpb::inject_fault_request::Fault;
use synod_client::rpc::synodpb::{
    FaultEvent, FaultMemory, HealLinks, InspectResponse, Role, RunState, StartRole, StopRole,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::display::Kind;
use super::{Faults, Part, Stage};
use crate::cluster::chance::Chance;
use crate::cluster::look::{missing, newest_chosen, restarts, takes_part};
use crate::cluster::{Memory, Node};

/// How long a replica may take to be back in full.
const BACK_WITHIN: Duration = Duration::from_secs(15);
/// How long a fault waits for an open request to strike.
const AIM: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(20);

/// What is made to fail, and how often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) faults: Faults,
    pub(super) memory: Memory,
    pub(super) mean_up: Duration,
    pub(super) mean_down: Duration,
    /// How many replicas may be away at a time.
    pub(super) at_most: usize,
}

/// How many replicas may be away while a majority is not.
pub(super) fn minority(replicas: usize) -> usize {
    replicas.saturating_sub(1) / 2
}

/// The faults of one replica, until `stop` says so and it is back.
///
/// # Errors
/// If it did not come back, or could not be made to fail.
pub(super) async fn befall(
    stage: Arc<Stage>,
    place: usize,
    plan: Plan,
    away: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), String> {
    let mut chance = Chance::new(stage.seed, Part::Faults(place).stream());
    let node = Arc::clone(&stage.nodes[place]);
    loop {
        let up = chance.around(plan.mean_up);
        let down = chance.around(plan.mean_down);
        let role = *chance.pick(&[Role::Proposer, Role::Acceptor, Role::Learner]);
        let turn = async {
            sleep(up).await;
            Arc::clone(&away).acquire_owned().await.expect("nobody closes it")
        };
        let permit = tokio::select! {
            permit = turn => permit,
            _ = stop.wait_for(|&stop| stop) => return Ok(()),
        };
        let came_back = match plan.faults {
            Faults::None => return Ok(()),
            Faults::Acceptors => stop_role(&stage, &node, Role::Acceptor, plan.memory, down).await,
            Faults::Roles => stop_role(&stage, &node, role, plan.memory, down).await,
            Faults::Processes => kill_process(&stage, &node, plan.memory, down).await,
        };
        if came_back.is_err() {
            // It still counts as failed: its place is not given to another.
            OwnedSemaphorePermit::forget(permit);
            return came_back;
        }
    }
}

async fn stop_role(
    stage: &Stage,
    node: &Node,
    role: Role,
    memory: Memory,
    down: Duration,
) -> Result<(), String> {
    let before =
        node.admin.inspect().await.map_err(|error| format!("cannot look at {}: {error}", node.name))?;
    let fault = Fault::StopRole(StopRole {
        role: role.into(),
        memory: match memory {
            Memory::Durable => FaultMemory::Keep,
            Memory::Volatile => FaultMemory::Forget,
        }
        .into(),
        restart_after_ms: Some(u64::try_from(down.as_millis()).unwrap_or(u64::MAX)),
    });
    stage.recorder.until_open(AIM).await;
    let sent = stage.recorder.now();
    node.admin
        .inject_fault(fault)
        .await
        .map_err(|error| format!("cannot stop a role of {}: {error}", node.name))?;
    // The replica itself tells of it, on its stream of events.
    stage.struck(sent);
    let forgot = memory == Memory::Volatile && role == Role::Acceptor;
    let returned = |seen: &InspectResponse| {
        restarts(seen, role) > restarts(&before, role) && (!forgot || seen.incarnation != before.incarnation)
    };
    until_back(stage, node, down, returned).await
}

async fn kill_process(stage: &Stage, node: &Node, memory: Memory, down: Duration) -> Result<(), String> {
    let before =
        node.admin.inspect().await.map_err(|error| format!("cannot look at {}: {error}", node.name))?;
    stage.recorder.until_open(AIM).await;
    let sent = stage.recorder.now();
    node.kill().await.map_err(|failed| failed.to_string())?;
    stage.struck(sent);
    let lost = match memory {
        Memory::Durable => "process killed",
        Memory::Volatile => "process killed, data deleted",
    };
    stage.incident(Kind::Fault, &node.name, lost);
    if memory == Memory::Volatile {
        node.forget().map_err(|failed| failed.to_string())?;
    }
    sleep(down).await;
    node.start().await.map_err(|failed| failed.to_string())?;
    stage.incident(Kind::Back, &node.name, "process started");
    let forgot = memory == Memory::Volatile;
    let returned = |seen: &InspectResponse| !forgot || seen.incarnation != before.incarnation;
    until_back(stage, node, Duration::ZERO, returned).await
}

/// Waits until the replica `returned`, takes full part and has applied what was
/// chosen anywhere when it did.
async fn until_back(
    stage: &Stage,
    node: &Node,
    down: Duration,
    returned: impl Fn(&InspectResponse) -> bool,
) -> Result<(), String> {
    let deadline = Instant::now() + down + BACK_WITHIN;
    let mut target = None;
    let mut last = "it does not answer".to_owned();
    while Instant::now() < deadline {
        sleep(POLL).await;
        let Ok(seen) = node.admin.inspect().await else { continue };
        last = missing(&seen);
        if !returned(&seen) || !takes_part(&seen) {
            continue;
        }
        let target = match target {
            Some(target) => target,
            None => *target.insert(newest_chosen(&stage.nodes).await),
        };
        if seen.applied_slot >= target {
            return Ok(());
        }
        last = format!("it has applied {} slots of {target}", seen.applied_slot);
    }
    Err(format!("{} did not come back within {} s: {last}", node.name, BACK_WITHIN.as_secs()))
}

/// Ends whatever is still broken: links healed, roles started.
///
/// # Errors
/// If a replica cannot be told.
pub(super) async fn heal(stage: &Stage) -> Result<(), String> {
    for node in &stage.nodes {
        let told = async {
            node.admin.inject_fault(Fault::HealLinks(HealLinks {})).await?;
            let seen = node.admin.inspect().await?;
            let idle = seen.roles.iter().filter(|status| status.state() != RunState::Running);
            for status in idle {
                node.admin.inject_fault(Fault::StartRole(StartRole { role: status.role })).await?;
            }
            Ok::<_, synod_client::ClientError>(())
        };
        told.await.map_err(|error| format!("cannot heal {}: {error}", node.name))?;
    }
    Ok(())
}

/// Shows what a replica tells of itself. Listens again when its process was
/// killed, for as long as the run lasts.
pub(super) async fn listen(stage: Arc<Stage>, node: Arc<Node>) {
    loop {
        if let Ok(mut events) = node.admin.fault_events().await {
            while let Ok(Some(event)) = events.message().await {
                show(&stage, &event);
            }
        }
        sleep(POLL * 5).await;
    }
}

fn show(stage: &Stage, event: &FaultEvent) {
    let kind = match event.kind() {
        EventKind::RoleStopped => Kind::Fault,
        EventKind::RoleStarted => Kind::Back,
        EventKind::NewIncarnation => Kind::Voter,
        EventKind::LeaderChanged if !tells_of_itself(event) => return,
        EventKind::LeaderChanged => {
            stage.leaders.fetch_add(1, Ordering::Relaxed);
            Kind::Leader
        }
        EventKind::LinkChanged | EventKind::EventsMissed | EventKind::Unspecified => Kind::Other,
    };
    stage.incident(kind, &event.node, &event.text);
}

/// All replicas tell who leads; the leader's own word is enough.
fn tells_of_itself(event: &FaultEvent) -> bool {
    event.text.starts_with("leads")
}

/// Lets every replica fail until `stop`. Returns what went wrong with that.
pub(super) fn begin(
    stage: &Arc<Stage>,
    plan: Plan,
    stop: &watch::Receiver<bool>,
) -> tokio::task::JoinSet<Result<(), String>> {
    let mut tasks = tokio::task::JoinSet::new();
    if plan.faults != Faults::None {
        let away = Arc::new(Semaphore::new(plan.at_most));
        for place in 0..stage.nodes.len() {
            let (stage, away, stop) = (Arc::clone(stage), Arc::clone(&away), stop.clone());
            tasks.spawn(async move {
                let ended = befall(Arc::clone(&stage), place, plan, away, stop).await;
                if ended.is_err() {
                    stage.trouble.store(true, Ordering::Relaxed);
                }
                ended
            });
        }
    }
    tasks
}

/// Waits until every replica is back.
///
/// # Errors
/// With what kept one from it.
pub(super) async fn end(mut tasks: tokio::task::JoinSet<Result<(), String>>) -> Result<(), String> {
    let all = async {
        let mut ended = Ok(());
        while let Some(task) = tasks.join_next().await {
            ended = ended.and(task.unwrap_or_else(|error| Err(format!("a fault panicked: {error}"))));
        }
        ended
    };
    let in_time = timeout(BACK_WITHIN * 2, all).await;
    in_time.unwrap_or_else(|_| Err("the last fault did not end".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_always_stays() {
        let away: Vec<usize> = (1..=7).map(minority).collect();
        assert_eq!(away, [0, 0, 1, 1, 2, 2, 3]);
    }

    #[test]
    fn a_leader_is_announced_once() {
        let event = |text: &str| FaultEvent { text: text.to_owned(), ..FaultEvent::default() };
        assert!(tells_of_itself(&event("leads with ballot 2.n1")));
        assert!(!tells_of_itself(&event("follows n1, ballot 2.n1")));
        assert!(!tells_of_itself(&event("no longer leads with ballot 1.n3")));
    }
}

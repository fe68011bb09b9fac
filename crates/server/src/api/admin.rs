//! Our own service: look inside a replica, and break it on purpose.

use std::time::Duration;

use synod_paxos::types::{NodeId, Slot};
use synod_rpc::synodpb as pb;
use synod_rpc::synodpb::inject_fault_request::Fault;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::errors::not_broken;
use super::{Context, Node};
use crate::replica::{
    Direction, Event, LinkFault, Memory, RandomFaults, ReplicaStatus, Role, RoleFault, RoleState,
};

/// How many events may wait for a slow listener before some are lost.
const EVENTS_WAITING: usize = 256;

/// See the module.
pub(super) struct Admin<N> {
    context: Context<N>,
}

impl<N: Node> Admin<N> {
    pub(super) fn new(context: Context<N>) -> Self {
        Admin { context }
    }

    fn inject(&self, fault: Fault) -> Result<String, Status> {
        let node = self.context.node();
        let done = match fault {
            Fault::StopRole(stop) => {
                let memory = memory(stop.memory, &self.context.status())?;
                let restart_after = stop.restart_after_ms.map(Duration::from_millis);
                node.fail_role(RoleFault::Stop { role: role(stop.role)?, memory, restart_after })
            }
            Fault::StartRole(start) => node.fail_role(RoleFault::Start { role: role(start.role)? }),
            Fault::Link(link) => {
                let peers = peers(&link.peer, &self.context.status())?;
                node.fail_links(&peers, Some(link_fault(&link)?))
            }
            Fault::HealLinks(_) => node.fail_links(&[], None),
            Fault::RandomFaults(random) => {
                let roles = random.roles.into_iter().map(role).collect::<Result<Vec<_>, _>>()?;
                node.fail_at_random(Some(RandomFaults {
                    roles: if roles.is_empty() { Role::ALL.to_vec() } else { roles },
                    mean_up: Duration::from_millis(random.mean_up_ms),
                    mean_down: Duration::from_millis(random.mean_down_ms),
                    memory: memory(random.memory, &self.context.status())?,
                    seed: random.seed,
                }))
            }
            Fault::StopRandomFaults(_) => node.fail_at_random(None),
        };
        done.map_err(not_broken)
    }
}

fn role(number: i32) -> Result<Role, Status> {
    match pb::Role::try_from(number) {
        Ok(pb::Role::Proposer) => Ok(Role::Proposer),
        Ok(pb::Role::Acceptor) => Ok(Role::Acceptor),
        Ok(pb::Role::Learner) => Ok(Role::Learner),
        Ok(pb::Role::Unspecified) | Err(_) => {
            Err(Status::invalid_argument("no such role; there are proposer, acceptor and learner"))
        }
    }
}

fn memory(number: i32, status: &ReplicaStatus) -> Result<Memory, Status> {
    match pb::FaultMemory::try_from(number) {
        Ok(pb::FaultMemory::Keep) => Ok(Memory::Keep),
        Ok(pb::FaultMemory::Forget) => Ok(Memory::Forget),
        Ok(pb::FaultMemory::Unspecified) if status.durable => Ok(Memory::Keep),
        Ok(pb::FaultMemory::Unspecified) => Ok(Memory::Forget),
        Err(_) => Err(Status::invalid_argument("memory is kept or forgotten")),
    }
}

/// Whom a name or a decimal id means; nobody in particular is everybody.
fn peers(peer: &str, status: &ReplicaStatus) -> Result<Vec<NodeId>, Status> {
    if peer.is_empty() {
        return Ok(Vec::new());
    }
    let named = |(_, member): &&(NodeId, _)| -> bool {
        let member: &synod_paxos::membership::Member = member;
        member.name == peer
    };
    let by_name = status.members.iter().find(named).map(|(node, _)| *node);
    let known = |node: &NodeId| status.peers.iter().any(|peer| peer.node == *node);
    let by_id = || peer.parse().ok().map(NodeId).filter(known);
    by_name
        .or_else(by_id)
        .filter(|node| *node != status.node)
        .map(|node| vec![node])
        .ok_or_else(|| Status::not_found(format!("{} has no peer called {peer:?}", status.name)))
}

fn link_fault(link: &pb::Link) -> Result<LinkFault, Status> {
    let direction = match pb::LinkDirection::try_from(link.direction) {
        Ok(pb::LinkDirection::In) => Direction::In,
        Ok(pb::LinkDirection::Out) => Direction::Out,
        Ok(pb::LinkDirection::Both | pb::LinkDirection::Unspecified) => Direction::Both,
        Err(_) => return Err(Status::invalid_argument("a link has the directions in, out and both")),
    };
    if link.cut {
        return Ok(LinkFault::cut(direction));
    }
    if !(0.0..=1.0).contains(&link.drop) {
        return Err(Status::invalid_argument("the chance that a message is lost lies between 0 and 1"));
    }
    Ok(LinkFault { direction, drop: link.drop, delay: Duration::from_millis(link.delay_ms) })
}

fn inspected(status: &ReplicaStatus, ballot_round: u64, faults_allowed: bool) -> pb::InspectResponse {
    let name_of = |node: NodeId| {
        let member = status.members.iter().find(|(id, _)| *id == node);
        member.map(|(_, member)| member.name.clone()).unwrap_or_default()
    };
    pb::InspectResponse {
        name: status.name.clone(),
        node_id: status.node.0,
        // As in the headers of all answers.
        cluster_id: status.cluster.map_or(0, |cluster| cluster.0 as u64),
        incarnation: status.acceptor.map(|voter| voter.incarnation.to_string()).unwrap_or_default(),
        roles: roles(status),
        leader: status.leader.map(|leader| leader.node.0),
        ballot: status
            .leader
            .map(|leader| format!("{}.{}", leader.round, name_of(leader.node)))
            .unwrap_or_default(),
        ballot_round,
        first_slot: status.log_start.unwrap_or(Slot::FIRST).0,
        chosen_slot: status.chosen.0,
        applied_slot: status.applied.0,
        trimmed_slot: status.trimmed.0,
        checkpoint_slot: status.checkpoint.0,
        revision: status.revision.to_wire(),
        compact_revision: status.compacted.map_or(0, |revision| revision.to_wire()),
        state_hash: status.state_hash.to_string(),
        log_bytes: status.log_bytes,
        store_bytes: status.store_bytes,
        fsync_p99_micros: status.sync_p99.map_or(0, micros),
        voters: status
            .members
            .iter()
            .map(|(node, member)| {
                let in_force = status.voters.iter().find(|voter| voter.node == *node);
                let incarnation = in_force.map(|voter| voter.incarnation).or(member.voter);
                pb::Voter {
                    node_id: node.0,
                    name: member.name.clone(),
                    incarnation: incarnation.map(|incarnation| incarnation.to_string()).unwrap_or_default(),
                    votes: in_force.is_some(),
                }
            })
            .collect(),
        peers: status
            .peers
            .iter()
            .map(|peer| pb::PeerStatus {
                node_id: peer.node.0,
                name: name_of(peer.node),
                connected: peer.connected,
                last_heard_ms: peer.last_heard.map(millis),
                rtt_micros: peer.round_trip.map(micros),
                chosen_slot: Some(peer.chosen.0),
                applied_slot: Some(peer.applied.0),
            })
            .collect(),
        problem: status.problem.clone().unwrap_or_default(),
        window: status.window,
        uptime_ms: millis(status.uptime),
        formation: if status.cluster.is_some() { String::new() } else { status.formation.clone() },
        faults_allowed,
    }
}

fn roles(status: &ReplicaStatus) -> Vec<pb::RoleStatus> {
    let memory = if status.durable { pb::MemoryMode::Durable } else { pb::MemoryMode::Volatile };
    let role = |role: &crate::replica::RoleStatus| pb::RoleStatus {
        role: match role.role {
            Role::Proposer => pb::Role::Proposer,
            Role::Acceptor => pb::Role::Acceptor,
            Role::Learner => pb::Role::Learner,
        } as i32,
        state: match role.state {
            RoleState::Running => pb::RunState::Running,
            RoleState::Stopped => pb::RunState::Stopped,
            RoleState::Failed(_) => pb::RunState::Failed,
        } as i32,
        restarts: role.restarts,
        memory: memory as i32,
    };
    status.roles.iter().map(role).collect()
}

fn told(name: &str, event: Event) -> pb::FaultEvent {
    use pb::fault_event::Kind;
    let kind = match event.kind {
        "role-stopped" | "role-failed" => Kind::RoleStopped,
        "role-started" => Kind::RoleStarted,
        "memory-lost" => Kind::NewIncarnation,
        "leader" => Kind::LeaderChanged,
        "link" => Kind::LinkChanged,
        _ => Kind::Unspecified,
    };
    pb::FaultEvent {
        unix_micros: event.unix_micros,
        node: name.to_owned(),
        kind: kind as i32,
        text: event.text,
        ..Default::default()
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[tonic::async_trait]
impl<N: Node> pb::admin_server::Admin for Admin<N> {
    async fn inspect(&self, _: Request<pb::InspectRequest>) -> Result<Response<pb::InspectResponse>, Status> {
        let answer = async {
            let status = self.context.status();
            Ok(inspected(&status, self.context.responder().raft_term, self.context.faults_allowed()))
        };
        self.context.methods().inspect.track(answer).await
    }

    async fn state_at(
        &self,
        request: Request<pb::StateAtRequest>,
    ) -> Result<Response<pb::StateAtResponse>, Status> {
        let answer = async {
            let hash = self.context.node().state_hash_at(Slot(request.into_inner().slot));
            let applied_slot = self.context.status().applied.0;
            Ok(pb::StateAtResponse { hash: hash.map(|hash| hash.to_string()), applied_slot })
        };
        self.context.methods().state_at.track(answer).await
    }

    async fn inject_fault(
        &self,
        request: Request<pb::InjectFaultRequest>,
    ) -> Result<Response<pb::InjectFaultResponse>, Status> {
        let answer = async {
            let fault = request.into_inner().fault;
            let fault =
                fault.ok_or_else(|| Status::invalid_argument("no fault was named, or an unknown one"))?;
            let done = self.inject(fault)?;
            Ok(pb::InjectFaultResponse { done, roles: roles(&self.context.status()) })
        };
        self.context.methods().inject_fault.track(answer).await
    }

    async fn fault_events(
        &self,
        _: Request<pb::FaultEventsRequest>,
    ) -> Result<Response<BoxStream<pb::FaultEvent>>, Status> {
        let mut events = self.context.node().events();
        let mut closing = self.context.closing();
        let name = self.context.status().name;
        let (sender, receiver) = mpsc::channel(EVENTS_WAITING);
        tokio::spawn(async move {
            // Ends with the listener, with the replica, or with the server.
            loop {
                let event = tokio::select! {
                    event = events.recv() => event,
                    _ = closing.wait_for(|closing| *closing) => return,
                    () = sender.closed() => return,
                };
                let event = match event {
                    Ok(event) => told(&name, event),
                    Err(RecvError::Lagged(missed)) => pb::FaultEvent {
                        node: name.clone(),
                        kind: pb::fault_event::Kind::EventsMissed as i32,
                        text: format!("{missed} events were missed"),
                        ..Default::default()
                    },
                    Err(RecvError::Closed) => return,
                };
                if sender.send(Ok(event)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

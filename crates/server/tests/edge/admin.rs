//! Looking inside a replica and breaking it, over a real connection.

use crate::common::Server;
use synod_rpc::synodpb as pb;
use synod_rpc::synodpb::admin_client::AdminClient;
use synod_rpc::synodpb::inject_fault_request::Fault;
use synod_server::replica::{Event, RoleState};
use tonic::transport::Channel;
use tonic::{Code, Status};

async fn admin(server: &Server) -> AdminClient<Channel> {
    AdminClient::new(server.channel().await)
}

async fn inject(server: &Server, fault: Fault) -> Result<pb::InjectFaultResponse, Status> {
    let request = pb::InjectFaultRequest { fault: Some(fault) };
    admin(server).await.inject_fault(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn inspect_tells_everything() {
    let server = Server::start().await;
    server.node.inner().status.roles[1].state = RoleState::Failed("disk".to_owned());
    let seen = admin(&server).await.inspect(pb::InspectRequest {}).await.unwrap().into_inner();
    assert_eq!((seen.name.as_str(), seen.node_id, seen.cluster_id), ("n1", 1, 0x1234));
    assert_eq!((seen.incarnation.as_str(), seen.leader, seen.ballot_round), ("a1", Some(2), 7));
    assert_eq!((seen.ballot.as_str(), seen.formation.as_str()), ("7.n2", ""));
    assert_eq!((seen.first_slot, seen.chosen_slot, seen.applied_slot), (11, 30, 29));
    assert_eq!((seen.trimmed_slot, seen.checkpoint_slot, seen.window), (10, 20, 64));
    assert_eq!((seen.log_bytes, seen.store_bytes, seen.fsync_p99_micros), (4096, 200, 1500));
    let states: Vec<_> = seen.roles.iter().map(|role| (role.role(), role.state())).collect();
    assert_eq!(
        states,
        [
            (pb::Role::Proposer, pb::RunState::Running),
            (pb::Role::Acceptor, pb::RunState::Failed),
            (pb::Role::Learner, pb::RunState::Running)
        ]
    );
    let voters: Vec<_> = seen.voters.iter().map(|v| (v.name.as_str(), &*v.incarnation, v.votes)).collect();
    assert_eq!(voters, [("n2", "a2", true), ("n1", "a1", true), ("n3", "", false)]);
    let peer = &seen.peers[0];
    assert_eq!((peer.name.as_str(), peer.connected, peer.rtt_micros), ("n2", true, Some(250)));
    assert!(seen.faults_allowed && seen.problem.is_empty());
}

#[tokio::test]
async fn a_state_hash_is_told_while_it_is_remembered() {
    let server = Server::start().await;
    let mut admin = admin(&server).await;
    let known = admin.state_at(pb::StateAtRequest { slot: 29 }).await.unwrap().into_inner();
    assert_eq!((known.hash.as_deref(), known.applied_slot), (Some(&*format!("{:032x}", 0x29)), 29));
    let unknown = admin.state_at(pb::StateAtRequest { slot: 5 }).await.unwrap().into_inner();
    assert_eq!(unknown.hash, None);
}

#[tokio::test]
async fn faults_reach_the_replica_as_they_were_meant() {
    let server = Server::start().await;
    let acceptor = pb::Role::Acceptor as i32;
    let forget = pb::FaultMemory::Forget as i32;
    for (fault, expected) in [
        (
            Fault::StopRole(pb::StopRole { role: acceptor, memory: forget, restart_after_ms: Some(250) }),
            "Stop { role: Acceptor, memory: Forget, restart_after: Some(250ms) }",
        ),
        (
            Fault::StopRole(pb::StopRole { role: acceptor, memory: 0, restart_after_ms: None }),
            "Stop { role: Acceptor, memory: Keep, restart_after: None }",
        ),
        (Fault::StartRole(pb::StartRole { role: acceptor }), "Start { role: Acceptor }"),
        (
            Fault::Link(pb::Link { peer: "n2".to_owned(), drop: 0.5, delay_ms: 9, ..Default::default() }),
            "[n2] Some(LinkFault { direction: Both, drop: 0.5, delay: 9ms })",
        ),
        (
            Fault::Link(pb::Link { cut: true, direction: 1, ..Default::default() }),
            "[] Some(LinkFault { direction: In, drop: 1.0, delay: 0ns })",
        ),
        (Fault::HealLinks(pb::HealLinks {}), "[] None"),
        (
            Fault::RandomFaults(pb::RandomFaults {
                mean_up_ms: 1,
                mean_down_ms: 2,
                seed: 3,
                ..Default::default()
            }),
            "Some(RandomFaults { roles: [Proposer, Acceptor, Learner], mean_up: 1ms, mean_down: 2ms, memory: Keep, seed: 3 })",
        ),
        (Fault::StopRandomFaults(pb::StopRandomFaults {}), "None"),
    ] {
        let answer = inject(&server, fault).await.unwrap();
        assert_eq!((answer.done.as_str(), answer.roles.len()), (expected, 3));
    }
}

#[tokio::test]
async fn faults_that_make_no_sense_are_refused() {
    let server = Server::start().await;
    let stop = |role, memory| Fault::StopRole(pb::StopRole { role, memory, restart_after_ms: None });
    let link = |peer: &str, drop| Fault::Link(pb::Link { peer: peer.to_owned(), drop, ..Default::default() });
    for (fault, code) in [
        (stop(0, 1), Code::InvalidArgument),
        (stop(99, 1), Code::InvalidArgument),
        (stop(1, 99), Code::InvalidArgument),
        (link("n2", 1.5), Code::InvalidArgument),
        (link("n2", f64::NAN), Code::InvalidArgument),
        (link("n9", 0.5), Code::NotFound),
        (link("n1", 0.5), Code::NotFound),
        (Fault::Link(pb::Link { direction: 9, ..Default::default() }), Code::InvalidArgument),
    ] {
        assert_eq!(inject(&server, fault).await.unwrap_err().code(), code);
    }
    let nothing = admin(&server).await.inject_fault(pb::InjectFaultRequest { fault: None }).await;
    assert_eq!(nothing.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(server.node.inner().faults, Vec::<String>::new());

    server.node.inner().faults_allowed = false;
    let refused = inject(&server, Fault::HealLinks(pb::HealLinks {})).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("--allow-faults"), "{refused}");
}

#[tokio::test]
async fn events_are_told_as_they_happen_until_the_server_closes() {
    use pb::fault_event::Kind;
    let server = Server::start().await;
    let mut events = admin(&server).await.fault_events(pb::FaultEventsRequest {}).await.unwrap().into_inner();
    let tell = |kind, text: &str| {
        server.node.events.send(Event { unix_micros: 5, kind, text: text.to_owned() }).unwrap();
    };
    tell("role-stopped", "acceptor stopped");
    tell("leader", "n2 leads");
    for (kind, text) in [(Kind::RoleStopped, "acceptor stopped"), (Kind::LeaderChanged, "n2 leads")] {
        let event = events.message().await.unwrap().unwrap();
        assert_eq!((event.kind(), event.text.as_str(), event.node.as_str()), (kind, text, "n1"));
    }
    server.close.send_replace(true);
    assert!(events.message().await.unwrap().is_none());
    drop(events);
    server.serving.await.unwrap();
}

//! What each sight of a cluster of five is worth.

use super::*;
use synod_rpc::etcdserverpb::ResponseHeader;
use synod_rpc::synodpb::{PeerStatus, RoleStatus, Voter};

/// Five replicas that are all well; n1 leads.
fn five() -> Vec<Observed> {
    (1..=5).map(|id| observed(id, View::Synod(Box::new(inspect(id))))).collect()
}

fn observed(id: u64, view: View) -> Observed {
    Observed { endpoint: format!("http://127.0.0.1:{id}"), id: Some(id), name: format!("n{id}"), view }
}

fn inspect(node_id: u64) -> InspectResponse {
    let voter =
        |id| Voter { node_id: id, name: format!("n{id}"), incarnation: format!("{id}0"), votes: true };
    let peer = |id| PeerStatus {
        node_id: id,
        name: format!("n{id}"),
        connected: true,
        last_heard_ms: Some(10),
        ..PeerStatus::default()
    };
    let role = |role: Role| RoleStatus {
        role: role.into(),
        state: RunState::Running.into(),
        ..RoleStatus::default()
    };
    InspectResponse {
        name: format!("n{node_id}"),
        node_id,
        cluster_id: 7,
        incarnation: format!("{node_id}0"),
        roles: [Role::Proposer, Role::Acceptor, Role::Learner].map(role).to_vec(),
        leader: Some(1),
        ballot_round: 2,
        chosen_slot: 100,
        applied_slot: 100,
        state_hash: "c0ffee".to_owned(),
        voters: (1..=5).map(voter).collect(),
        peers: (1..=5).filter(|id| *id != node_id).map(peer).collect(),
        ..InspectResponse::default()
    }
}

fn silence(replicas: &mut [Observed], ids: &[u64]) {
    for id in ids {
        replicas[*id as usize - 1].view = View::Silent("connection refused".to_owned());
    }
}

fn inside(replicas: &mut [Observed], id: u64) -> &mut InspectResponse {
    match &mut replicas[id as usize - 1].view {
        View::Synod(inspect) => inspect,
        other => panic!("{other:?}"),
    }
}

fn stop(replicas: &mut [Observed], id: u64, role: Role) {
    let roles = &mut inside(replicas, id).roles;
    let status = roles.iter_mut().find(|status| status.role() == role).unwrap();
    status.set_state(RunState::Stopped);
}

#[track_caller]
fn assert_verdict(replicas: &[Observed], level: Level, sentence: &str) {
    let verdict = judge(replicas, &[]);
    assert_eq!((verdict.level, verdict.sentence.as_str()), (level, sentence));
}

#[test]
fn all_well() {
    assert_verdict(&five(), Level::Healthy, "healthy: 5 of 5 voters up, 2 more may fail");
    let verdict = judge(&five(), &[]);
    assert_eq!((verdict.voters, verdict.up, verdict.may_fail), (5, 5, Some(2)));
}

#[test]
fn a_single_replica_is_healthy_though_none_may_fail() {
    let mut alone = vec![five().remove(0)];
    inside(&mut alone, 1).voters.truncate(1);
    assert_verdict(&alone, Level::Healthy, "healthy: 1 of 1 voters up, no more may fail");
}

#[test]
fn an_even_number_of_voters_needs_more_than_half() {
    let mut four = five();
    four.truncate(4);
    for id in 1..=4 {
        inside(&mut four, id).voters.truncate(4);
    }
    assert_verdict(&four, Level::Healthy, "healthy: 4 of 4 voters up, 1 more may fail");
    silence(&mut four, &[3, 4]);
    inside(&mut four, 1).peers.clear();
    assert_eq!(judge(&four, &[]).level, Level::Stopped);
}

#[test]
fn every_loss_leaves_less() {
    let mut replicas = five();
    silence(&mut replicas, &[5]);
    assert_verdict(
        &replicas,
        Level::Degraded,
        "degraded: 4 of 5 voters up, 1 more may fail; n5 does not answer",
    );
    silence(&mut replicas, &[4]);
    assert_verdict(
        &replicas,
        Level::Degraded,
        "AT RISK: 3 of 5 voters up, no more may fail; n4 does not answer; n5 does not answer",
    );
}

#[test]
fn without_a_majority_nothing_goes_on() {
    let mut replicas = five();
    silence(&mut replicas, &[3, 4, 5]);
    inside(&mut replicas, 1).leader = None;
    inside(&mut replicas, 2).leader = None;
    assert_verdict(
        &replicas,
        Level::Stopped,
        "NO QUORUM: 2 of 5 voters up, 3 needed; writes and confirmed reads wait; \
         n3 does not answer; n4 does not answer; n5 does not answer",
    );
    assert_eq!(judge(&replicas, &[]).may_fail, None);
}

#[test]
fn what_only_we_cannot_reach_is_not_declared_dead() {
    let mut replicas = five();
    silence(&mut replicas, &[3, 4, 5]);
    let verdict = judge(&replicas, &[]);
    assert_eq!(verdict.level, Level::Stopped);
    assert!(verdict.sentence.starts_with("UNCLEAR: only 2 of 5 voters can be seen"), "{}", verdict.sentence);
    for peer in &mut inside(&mut replicas, 1).peers {
        peer.last_heard_ms = Some(60_000);
    }
    assert!(judge(&replicas, &[]).sentence.starts_with("NO QUORUM"), "a frozen peer is connected but silent");
}

#[test]
fn an_acceptor_that_does_not_run_does_not_vote() {
    let mut replicas = five();
    stop(&mut replicas, 2, Role::Acceptor);
    assert_verdict(
        &replicas,
        Level::Degraded,
        "degraded: 4 of 5 voters up, 1 more may fail; n2's acceptor is stopped",
    );
    stop(&mut replicas, 3, Role::Acceptor);
    stop(&mut replicas, 4, Role::Acceptor);
    assert!(judge(&replicas, &[]).sentence.starts_with("NO QUORUM: 2 of 5"));
}

#[test]
fn another_life_of_a_memory_is_another_voter() {
    let mut replicas = five();
    inside(&mut replicas, 4).incarnation = "41".to_owned();
    assert_verdict(
        &replicas,
        Level::Degraded,
        "degraded: 4 of 5 voters up, 1 more may fail; n4 lost its memory and is not yet admitted again",
    );
}

#[test]
fn the_newest_configuration_counts() {
    let mut replicas = five();
    // n4 came back without its memory and was admitted in slot 101, which n5 has not applied.
    for id in 1..=4 {
        let inspect = inside(&mut replicas, id);
        inspect.applied_slot = 101;
        inspect.voters[3].incarnation = "41".to_owned();
    }
    inside(&mut replicas, 4).incarnation = "41".to_owned();
    assert_eq!(judge(&replicas, &[]).level, Level::Healthy);
}

#[test]
fn who_is_not_admitted_does_not_count() {
    let mut replicas = five();
    for id in 1..=5 {
        inside(&mut replicas, id).voters[4].votes = false;
    }
    silence(&mut replicas, &[5]);
    assert_verdict(&replicas, Level::Healthy, "healthy: 4 of 4 voters up, 1 more may fail");
}

#[test]
fn a_voter_cut_off_from_the_leader_does_not_help() {
    let mut replicas = five();
    inside(&mut replicas, 1).peers[0].connected = false;
    assert_verdict(
        &replicas,
        Level::Degraded,
        "degraded: 4 of 5 voters up, 1 more may fail; n2 is cut off from the leader",
    );
}

#[test]
fn a_majority_without_a_leader_waits() {
    let mut replicas = five();
    silence(&mut replicas, &[1]);
    let sentence =
        "NO LEADER: 4 of 5 voters up, enough to elect one; requests wait meanwhile; n1 does not answer";
    // The others still believe in n1.
    assert_verdict(&replicas, Level::Stopped, sentence);
    for id in 2..=5 {
        inside(&mut replicas, id).leader = None;
    }
    assert_verdict(&replicas, Level::Stopped, sentence);
    inside(&mut replicas, 3).leader = Some(3);
    inside(&mut replicas, 3).ballot_round = 3;
    assert_eq!(judge(&replicas, &[]).level, Level::Degraded, "the newest ballot tells");
}

#[test]
fn a_leader_whose_proposer_is_down_does_not_lead() {
    let mut replicas = five();
    stop(&mut replicas, 1, Role::Proposer);
    let verdict = judge(&replicas, &[]);
    assert!(verdict.sentence.starts_with("NO LEADER"), "{}", verdict.sentence);
    assert!(verdict.sentence.ends_with("n1's proposer is stopped"), "{}", verdict.sentence);
}

#[test]
fn a_problem_a_replica_reports_is_repeated() {
    let mut replicas = five();
    inside(&mut replicas, 3).problem = "the disk is full".to_owned();
    assert_verdict(
        &replicas,
        Level::Degraded,
        "degraded: 5 of 5 voters up, 2 more may fail; n3: the disk is full",
    );
}

#[test]
fn replicas_that_differ_after_the_same_slot_are_the_worst() {
    let mut replicas = five();
    inside(&mut replicas, 3).state_hash = "bad".to_owned();
    let verdict = judge(&replicas, &[]);
    assert_eq!(verdict.level, Level::Wrong);
    assert!(
        verdict.sentence.starts_with("DIVERGED: n1 and n3 hold different states after slot 100"),
        "{}",
        verdict.sentence
    );
    inside(&mut replicas, 3).applied_slot = 99;
    assert_eq!(judge(&replicas, &[]).level, Level::Healthy, "at another slot the hash is another");
}

#[test]
fn two_clusters_are_not_one() {
    let mut replicas = five();
    inside(&mut replicas, 5).cluster_id = 8;
    assert_verdict(&replicas, Level::Stopped, "MIXED: the endpoints belong to different clusters");
}

#[test]
fn servers_without_a_cluster_say_what_they_wait_for() {
    let mut replicas = five();
    for id in 1..=5 {
        let inspect = inside(&mut replicas, id);
        inspect.voters.clear();
        inspect.cluster_id = 0;
        inspect.leader = None;
        inspect.formation = "waiting for n4, n5".to_owned();
    }
    assert_verdict(&replicas, Level::Stopped, "NOT FORMED: waiting for n4, n5");
    inside(&mut replicas, 3).problem = "waiting for n4, n5".to_owned();
    assert_verdict(&replicas, Level::Stopped, "NOT FORMED: waiting for n4, n5");
    inside(&mut replicas, 3).problem = "peers belong to different clusters".to_owned();
    let sentence = "NOT FORMED: waiting for n4, n5; n3: peers belong to different clusters";
    assert_verdict(&replicas, Level::Stopped, sentence);
}

#[test]
fn nobody_there() {
    let mut replicas = five();
    replicas.truncate(1);
    silence(&mut replicas, &[1]);
    assert_verdict(
        &replicas,
        Level::Stopped,
        "UNREACHABLE: no replica answers (http://127.0.0.1:1: connection refused)",
    );
}

#[test]
fn etcds_servers_are_judged_by_their_member_list() {
    let status = |id| StatusResponse {
        header: Some(ResponseHeader { cluster_id: 9, member_id: id, revision: 1, raft_term: 2 }),
        leader: 1,
        raft_term: 2,
        ..StatusResponse::default()
    };
    let member = |id| Member { id, name: format!("e{id}"), ..Member::default() };
    let members: Vec<Member> = (1..=3).map(member).collect();
    let mut replicas: Vec<Observed> =
        (1..=3).map(|id| observed(id, View::Etcd(Box::new(status(id))))).collect();
    assert_eq!(judge(&replicas, &members).sentence, "healthy: 3 of 3 voters up, 1 more may fail");
    silence(&mut replicas, &[3]);
    assert_eq!(
        judge(&replicas, &members).sentence,
        "AT RISK: 2 of 3 voters up, no more may fail; e3 does not answer"
    );
}

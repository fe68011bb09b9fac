//! What a look at a replica tells: does it take full part, and if not, why?

use std::sync::Arc;

use synod_client::rpc::synodpb::{InspectResponse, Role, RunState};

use super::Node;

/// Does this replica take full part: all roles at work, its own incarnation among
/// the voters, nothing wrong?
pub(crate) fn takes_part(seen: &InspectResponse) -> bool {
    let running = seen.roles.iter().all(|role| role.state() == RunState::Running);
    running && votes(seen)
}

/// Is its own incarnation among the voters?
pub(crate) fn votes(seen: &InspectResponse) -> bool {
    seen.voters
        .iter()
        .any(|voter| voter.node_id == seen.node_id && voter.incarnation == seen.incarnation && voter.votes)
}

/// How often a role was started again since the process began.
pub(crate) fn restarts(seen: &InspectResponse, role: Role) -> u64 {
    seen.roles.iter().find(|status| status.role() == role).map_or(0, |status| status.restarts)
}

/// Why a replica does not take part, in words.
pub(crate) fn missing(seen: &InspectResponse) -> String {
    if !seen.problem.is_empty() {
        return seen.problem.clone();
    }
    let idle: Vec<&str> = seen
        .roles
        .iter()
        .filter(|role| role.state() != RunState::Running)
        .map(|role| match role.role() {
            Role::Proposer => "its proposer",
            Role::Acceptor => "its acceptor",
            Role::Learner => "its learner",
            Role::Unspecified => "a role",
        })
        .collect();
    let mut missing = Vec::new();
    if !idle.is_empty() {
        missing.push(format!("{} does not run", idle.join(" and ")));
    }
    if !votes(seen) {
        missing.push(format!("its incarnation {} does not vote", seen.incarnation));
    }
    missing.join(", ")
}

/// The newest slot that any replica knows to be chosen; those that do not answer are not asked twice.
pub(crate) async fn newest_chosen(nodes: &[Arc<Node>]) -> u64 {
    let mut newest = 0;
    for node in nodes {
        if let Ok(seen) = node.admin.inspect().await {
            newest = newest.max(seen.chosen_slot);
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_client::rpc::synodpb::{RoleStatus, Voter};

    #[test]
    fn a_replica_takes_part_only_as_the_incarnation_that_votes() {
        let role = |state: RunState| RoleStatus {
            role: Role::Acceptor.into(),
            state: state.into(),
            ..RoleStatus::default()
        };
        let voter = |incarnation: &str, votes| Voter {
            node_id: 1,
            name: "n1".to_owned(),
            incarnation: incarnation.to_owned(),
            votes,
        };
        let seen = |state, voters| InspectResponse {
            node_id: 1,
            incarnation: "b".to_owned(),
            roles: vec![role(state)],
            voters,
            ..InspectResponse::default()
        };
        assert!(takes_part(&seen(RunState::Running, vec![voter("b", true)])));
        assert!(!takes_part(&seen(RunState::Stopped, vec![voter("b", true)])));
        assert!(!takes_part(&seen(RunState::Running, vec![voter("a", true)])), "forgot, not yet admitted");
        assert!(!takes_part(&seen(RunState::Running, vec![voter("b", false)])));
        assert!(!takes_part(&seen(RunState::Running, vec![])));
    }

    #[test]
    fn what_is_missing_is_said() {
        let status = |role: Role, state: RunState| RoleStatus {
            role: role.into(),
            state: state.into(),
            ..RoleStatus::default()
        };
        let mut seen = InspectResponse {
            incarnation: "ab".to_owned(),
            roles: vec![status(Role::Acceptor, RunState::Stopped), status(Role::Learner, RunState::Running)],
            ..InspectResponse::default()
        };
        assert_eq!(missing(&seen), "its acceptor does not run, its incarnation ab does not vote");
        seen.roles.remove(0);
        assert_eq!(missing(&seen), "its incarnation ab does not vote");
        seen.problem = "no majority".to_owned();
        assert_eq!(missing(&seen), "no majority");
    }
}

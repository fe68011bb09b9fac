//! What the sight of the replicas means, in a sentence.
//!
//! The question an operator has is "how many more may I lose?". A majority of
//! the voters must be up; so with `u` of `n` up, `u - (n/2 + 1)` more may fail.
//! A voter is more than a process that answers: its acceptor has to run, in the
//! very life of its memory that the configuration lists, within reach of the
//! leader. This module only judges; asking is the parent's business.

use std::collections::BTreeSet;

use synod_rpc::etcdserverpb::{Member, StatusResponse};
use synod_rpc::synodpb::{InspectResponse, Role, RunState};

/// A peer heard of within this time counts as alive to whoever heard it.
const RECENT_MS: u64 = 5_000;

/// One replica as far as it could be seen.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    /// Where it was asked.
    pub(crate) endpoint: String,
    /// Its node id, if anybody told.
    pub(crate) id: Option<u64>,
    /// Its name, or its endpoint if nobody told.
    pub(crate) name: String,
    pub(crate) view: View,
}

/// What was seen.
#[derive(Clone, Debug)]
pub(crate) enum View {
    /// A synod server, in full.
    Synod(Box<InspectResponse>),
    /// Another server with etcd's API.
    Etcd(Box<StatusResponse>),
    /// No answer, and why.
    Silent(String),
}

/// How bad it is; decides colour and exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// All is well.
    Healthy,
    /// Requests are served, but less may go wrong than it should.
    Degraded,
    /// Requests are not served.
    Stopped,
    /// Replicas contradict each other.
    Wrong,
}

/// The judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) level: Level,
    /// In one line.
    pub(crate) sentence: String,
    pub(crate) voters: usize,
    pub(crate) up: usize,
    /// How many more voters may fail; none if requests are not served.
    pub(crate) may_fail: Option<usize>,
}

/// A member of the configuration that counts.
struct Voter {
    /// Why it cannot vote; none if it can.
    trouble: Option<String>,
    /// It did not answer here, but the leader hears it.
    heard_by_leader: bool,
}

/// Judges what was seen. `members` is the member list, if one could be had.
pub(crate) fn judge(replicas: &[Observed], members: &[Member]) -> Verdict {
    let answered = replicas.iter().filter(|replica| !matches!(replica.view, View::Silent(_))).count();
    if answered == 0 {
        return unreachable(replicas);
    }
    if let Some(sentence) = contradiction(replicas) {
        return Verdict { level: Level::Wrong, sentence, voters: 0, up: 0, may_fail: None };
    }
    let clusters: BTreeSet<u64> = replicas.iter().filter_map(cluster).collect();
    if clusters.len() > 1 {
        let sentence = "MIXED: the endpoints belong to different clusters".to_owned();
        return Verdict { level: Level::Stopped, sentence, voters: 0, up: 0, may_fail: None };
    }
    let leader = leader(replicas);
    let voters = voters(replicas, members, leader);
    if voters.is_empty() {
        return unformed(replicas);
    }

    let (all, needed) = (voters.len(), voters.len() / 2 + 1);
    let up = voters.iter().filter(|voter| voter.trouble.is_none()).count();
    let heard = voters.iter().filter(|voter| voter.heard_by_leader).count();
    let mut troubles: Vec<String> = voters.into_iter().filter_map(|voter| voter.trouble).collect();
    troubles.extend(other_troubles(replicas));
    let (level, sentence, may_fail) = if up < needed && up + heard >= needed {
        let sentence =
            format!("UNCLEAR: only {up} of {all} voters can be seen from here, but the leader hears more");
        (Level::Stopped, sentence, None)
    } else if up < needed {
        let sentence =
            format!("NO QUORUM: {up} of {all} voters up, {needed} needed; writes and confirmed reads wait");
        (Level::Stopped, sentence, None)
    } else if leader.is_none() {
        let sentence =
            format!("NO LEADER: {up} of {all} voters up, enough to elect one; requests wait meanwhile");
        (Level::Stopped, sentence, None)
    } else {
        let more = up - needed;
        let (level, word) = match (more, troubles.is_empty()) {
            (_, true) => (Level::Healthy, "healthy"),
            (0, false) => (Level::Degraded, "AT RISK"),
            (_, false) => (Level::Degraded, "degraded"),
        };
        let more_text = if more == 0 { "no".to_owned() } else { more.to_string() };
        (level, format!("{word}: {up} of {all} voters up, {more_text} more may fail"), Some(more))
    };
    let sentence = [sentence].into_iter().chain(troubles).collect::<Vec<_>>().join("; ");
    Verdict { level, sentence, voters: all, up, may_fail }
}

fn unreachable(replicas: &[Observed]) -> Verdict {
    let reasons: Vec<String> = replicas
        .iter()
        .filter_map(|replica| match &replica.view {
            View::Silent(why) => Some(format!("{}: {why}", replica.endpoint)),
            _ => None,
        })
        .collect();
    let sentence = format!("UNREACHABLE: no replica answers ({})", reasons.join("; "));
    Verdict { level: Level::Stopped, sentence, voters: 0, up: 0, may_fail: None }
}

fn unformed(replicas: &[Observed]) -> Verdict {
    let words =
        synods(replicas).map(|(_, inspect)| inspect.formation.as_str()).find(|words| !words.is_empty());
    // Usually that is what it waits for; but a server in the wrong company would wait for ever.
    let problems = synods(replicas)
        .filter(|(_, inspect)| !inspect.formation.contains(&inspect.problem))
        .map(|(replica, inspect)| format!("{}: {}", replica.name, inspect.problem));
    let sentence = match words {
        Some(words) => format!("NOT FORMED: {words}"),
        None => "NOT FORMED: no replica knows who votes".to_owned(),
    };
    let sentence = [sentence].into_iter().chain(problems).collect::<Vec<_>>().join("; ");
    Verdict { level: Level::Stopped, sentence, voters: 0, up: 0, may_fail: None }
}

fn synods(replicas: &[Observed]) -> impl Iterator<Item = (&Observed, &InspectResponse)> {
    replicas.iter().filter_map(|replica| match &replica.view {
        View::Synod(inspect) => Some((replica, inspect.as_ref())),
        _ => None,
    })
}

/// Two replicas that differ after the same slot break the one promise there is.
fn contradiction(replicas: &[Observed]) -> Option<String> {
    let seen: Vec<_> =
        synods(replicas).filter(|(_, i)| i.cluster_id != 0 && !i.state_hash.is_empty()).collect();
    seen.iter().enumerate().find_map(|(index, (one, left))| {
        let (other, right) = seen[index + 1..].iter().find(|(_, right)| {
            right.cluster_id == left.cluster_id
                && right.applied_slot == left.applied_slot
                && right.state_hash != left.state_hash
        })?;
        Some(format!(
            "DIVERGED: {} and {} hold different states after slot {} ({}, {}); stop writing and keep both disks",
            one.name, other.name, left.applied_slot, left.state_hash, right.state_hash
        ))
    })
}

fn cluster(replica: &Observed) -> Option<u64> {
    match &replica.view {
        View::Synod(inspect) => Some(inspect.cluster_id).filter(|id| *id != 0),
        View::Etcd(status) => status.header.as_ref().map(|header| header.cluster_id),
        View::Silent(_) => None,
    }
}

/// The leader by the newest ballot that anybody saw, if it is there to lead.
pub(crate) fn leader(replicas: &[Observed]) -> Option<u64> {
    let claims = replicas.iter().filter_map(|replica| match &replica.view {
        View::Synod(inspect) => Some((inspect.ballot_round, inspect.leader?)),
        View::Etcd(status) => Some((status.raft_term, Some(status.leader).filter(|id| *id != 0)?)),
        View::Silent(_) => None,
    });
    let (_, leader) = claims.max_by_key(|(round, _)| *round)?;
    let able = |replica: &&Observed| match &replica.view {
        View::Synod(inspect) => role_state(inspect, Role::Proposer) == RunState::Running,
        View::Etcd(_) => true,
        View::Silent(_) => false,
    };
    match replicas.iter().find(|replica| replica.id == Some(leader)) {
        Some(replica) => Some(leader).filter(|_| able(&replica)),
        // Somebody follows it, and it was not asked.
        None => Some(leader),
    }
}

/// The state of a role; a role that is not listed is taken to run.
pub(crate) fn role_state(inspect: &InspectResponse, role: Role) -> RunState {
    inspect
        .roles
        .iter()
        .find(|status| status.role() == role)
        .map_or(RunState::Running, |status| status.state())
}

fn voters(replicas: &[Observed], members: &[Member], leader: Option<u64>) -> Vec<Voter> {
    // Who votes is what the replica knows that has applied the most.
    let newest = synods(replicas)
        .filter(|(_, inspect)| !inspect.voters.is_empty())
        .max_by_key(|(_, inspect)| inspect.applied_slot);
    let Some((_, newest)) = newest else {
        return etcd_voters(replicas, members);
    };
    let leading = synods(replicas).find(|(replica, _)| replica.id == leader && leader.is_some());
    newest
        .voters
        .iter()
        .filter(|voter| voter.votes)
        .map(|voter| {
            let id = voter.node_id;
            let name = if voter.name.is_empty() { format!("{id:x}") } else { voter.name.clone() };
            let link = leading.and_then(|(_, at)| at.peers.iter().find(|peer| peer.node_id == id));
            let seen = replicas.iter().find(|replica| replica.id == Some(id)).map(|replica| &replica.view);
            let heard = link.is_some_and(|peer| {
                peer.connected && peer.last_heard_ms.is_some_and(|since| since <= RECENT_MS)
            });
            match seen {
                None => {
                    Voter { trouble: Some(format!("{name} has no known address")), heard_by_leader: heard }
                }
                Some(View::Silent(_)) => {
                    Voter { trouble: Some(format!("{name} does not answer")), heard_by_leader: heard }
                }
                Some(View::Etcd(_)) => Voter { trouble: None, heard_by_leader: false },
                Some(View::Synod(inspect)) => {
                    let cut = link.is_some_and(|peer| !peer.connected);
                    let trouble =
                        if !inspect.incarnation.is_empty() && inspect.incarnation != voter.incarnation {
                            Some(format!("{name} lost its memory and is not yet admitted again"))
                        } else if role_state(inspect, Role::Acceptor) != RunState::Running {
                            Some(format!("{name}'s acceptor {}", words(role_state(inspect, Role::Acceptor))))
                        } else if cut {
                            Some(format!("{name} is cut off from the leader"))
                        } else {
                            None
                        };
                    Voter { trouble, heard_by_leader: false }
                }
            }
        })
        .collect()
}

fn etcd_voters(replicas: &[Observed], members: &[Member]) -> Vec<Voter> {
    // A synod server that knows no voters has no cluster, whatever it calls its members.
    if synods(replicas).next().is_some() {
        return Vec::new();
    }
    members
        .iter()
        .filter(|member| !member.is_learner)
        .map(|member| {
            let up = replicas
                .iter()
                .any(|replica| replica.id == Some(member.id) && matches!(replica.view, View::Etcd(_)));
            let name = if member.name.is_empty() { format!("{:x}", member.id) } else { member.name.clone() };
            Voter { trouble: (!up).then(|| format!("{name} does not answer")), heard_by_leader: false }
        })
        .collect()
}

/// What is wrong beside the votes.
fn other_troubles(replicas: &[Observed]) -> impl Iterator<Item = String> {
    replicas.iter().flat_map(|replica| {
        let name = &replica.name;
        match &replica.view {
            View::Synod(inspect) => {
                let roles = [(Role::Proposer, "proposer"), (Role::Learner, "learner")].into_iter();
                let stopped = roles.filter_map(|(role, word)| {
                    let state = role_state(inspect, role);
                    (state != RunState::Running).then(|| format!("{name}'s {word} {}", words(state)))
                });
                let problem = Some(&inspect.problem).filter(|problem| !problem.is_empty());
                stopped.chain(problem.map(|problem| format!("{name}: {problem}"))).collect()
            }
            View::Etcd(status) => status.errors.iter().map(|error| format!("{name}: {error}")).collect(),
            View::Silent(_) => Vec::new(),
        }
    })
}

fn words(state: RunState) -> &'static str {
    match state {
        RunState::Running => "runs",
        RunState::Stopped => "is stopped",
        RunState::Failed => "has failed",
        RunState::Unspecified => "is in an unknown state",
    }
}

#[cfg(test)]
mod tests;

//! One screen: a line per replica, and the verdict.

use serde::Serialize;

use super::verdict::{Level, Observed, Verdict, View, leader, role_state};
use crate::output::table::{self, Side};
use crate::output::{go, json};
use synod_rpc::synodpb::{InspectResponse, Role, RunState};

/// The line of a replica, as far as it could be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Line {
    endpoint: String,
    name: String,
    /// `leader`, `follower`, or `down`.
    part: &'static str,
    /// `P A L`, with `-` for a stopped role and `!` for a failed one.
    roles: Option<String>,
    ballot: Option<String>,
    chosen: Option<u64>,
    applied: Option<u64>,
    /// Slots chosen somewhere and not applied here.
    lag: Option<u64>,
    revision: Option<i64>,
    log_bytes: Option<u64>,
    store_bytes: Option<u64>,
    fsync_p99_micros: Option<u64>,
    /// Why it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    silent: Option<String>,
}

fn lines(replicas: &[Observed]) -> Vec<Line> {
    let leader = leader(replicas);
    let chosen = |replica: &Observed| match &replica.view {
        View::Synod(inspect) => inspect.chosen_slot,
        View::Etcd(status) => status.raft_index,
        View::Silent(_) => 0,
    };
    let newest = replicas.iter().map(chosen).max().unwrap_or(0);
    let line = |replica: &Observed| {
        let leads = leader.is_some() && replica.id == leader;
        let line = Line {
            endpoint: replica.endpoint.trim_start_matches("http://").to_owned(),
            name: replica.name.trim_start_matches("http://").to_owned(),
            part: if leads { "leader" } else { "follower" },
            ..Line::default()
        };
        match &replica.view {
            View::Synod(inspect) => Line {
                roles: Some(roles(inspect)),
                ballot: Some(inspect.ballot.clone()),
                chosen: Some(inspect.chosen_slot),
                applied: Some(inspect.applied_slot),
                lag: Some(newest.saturating_sub(inspect.applied_slot)),
                revision: Some(inspect.revision),
                log_bytes: Some(inspect.log_bytes),
                store_bytes: Some(inspect.store_bytes),
                fsync_p99_micros: Some(inspect.fsync_p99_micros),
                ..line
            },
            View::Etcd(status) => Line {
                ballot: Some(status.raft_term.to_string()),
                chosen: Some(status.raft_index),
                applied: Some(status.raft_applied_index),
                lag: Some(newest.saturating_sub(status.raft_applied_index)),
                revision: status.header.as_ref().map(|header| header.revision),
                store_bytes: Some(status.db_size.unsigned_abs()),
                ..line
            },
            View::Silent(why) => Line { part: "down", silent: Some(why.clone()), ..line },
        }
    };
    replicas.iter().map(line).collect()
}

fn roles(inspect: &InspectResponse) -> String {
    let letter = |role, letter| match role_state(inspect, role) {
        RunState::Running => letter,
        RunState::Stopped => "-",
        RunState::Failed | RunState::Unspecified => "!",
    };
    [letter(Role::Proposer, "P"), letter(Role::Acceptor, "A"), letter(Role::Learner, "L")].join(" ")
}

/// For people: columns, an empty line, the verdict.
pub(super) fn text(replicas: &[Observed], verdict: &Verdict, colour: bool) -> String {
    const TITLES: [(&str, Side); 12] = [
        ("ENDPOINT", Side::Left),
        ("NAME", Side::Left),
        ("ROLE", Side::Left),
        ("RUNS", Side::Left),
        ("BALLOT", Side::Left),
        ("CHOSEN", Side::Right),
        ("APPLIED", Side::Right),
        ("LAG", Side::Right),
        ("REVISION", Side::Right),
        ("LOG", Side::Right),
        ("STORE", Side::Right),
        ("FSYNC p99", Side::Right),
    ];
    let unknown = || "-".to_owned();
    let number = |number: Option<u64>| number.map_or_else(unknown, |number| number.to_string());
    let size = |size: Option<u64>| size.map_or_else(unknown, go::bytes);
    let millis = |micros: u64| format!("{:.1} ms", micros as f64 / 1000.0);
    let row = |line: Line| {
        vec![
            line.endpoint,
            line.name,
            line.part.to_owned(),
            line.roles.unwrap_or_else(unknown),
            line.ballot.filter(|ballot| !ballot.is_empty()).unwrap_or_else(unknown),
            number(line.chosen),
            number(line.applied),
            number(line.lag),
            line.revision.map_or_else(unknown, |revision| revision.to_string()),
            size(line.log_bytes),
            size(line.store_bytes),
            line.fsync_p99_micros.map_or_else(unknown, millis),
        ]
    };
    let rows: Vec<Vec<String>> = lines(replicas).into_iter().map(row).collect();
    let table = table::columns(&TITLES, &rows);
    format!("{table}\n{}\n", coloured(verdict, colour))
}

fn coloured(verdict: &Verdict, colour: bool) -> String {
    if !colour {
        return verdict.sentence.clone();
    }
    let code = match verdict.level {
        Level::Healthy => 32,
        Level::Degraded => 33,
        Level::Stopped | Level::Wrong => 31,
    };
    format!("\x1b[{code}m{}\x1b[0m", verdict.sentence)
}

/// For programs.
pub(super) fn json(replicas: &[Observed], verdict: &Verdict) -> String {
    #[derive(Serialize)]
    struct Status<'a> {
        verdict: &'a str,
        healthy: bool,
        voters: usize,
        up: usize,
        may_fail: Option<usize>,
        replicas: Vec<Line>,
    }
    json::line(&Status {
        verdict: &verdict.sentence,
        healthy: verdict.level == Level::Healthy,
        voters: verdict.voters,
        up: verdict.up,
        may_fail: verdict.may_fail,
        replicas: lines(replicas),
    })
}

#[cfg(test)]
mod tests {
    use super::super::verdict::judge;
    use super::*;
    use synod_rpc::synodpb::{RoleStatus, Voter};

    fn replicas() -> Vec<Observed> {
        let voters = ["n1", "n2", "n3"].into_iter().zip(1..).map(|(name, node_id)| Voter {
            node_id,
            name: name.to_owned(),
            incarnation: "a1".to_owned(),
            votes: true,
        });
        let voters: Vec<Voter> = voters.collect();
        let inspect = |node_id, applied_slot| InspectResponse {
            node_id,
            cluster_id: 7,
            incarnation: "a1".to_owned(),
            leader: Some(1),
            ballot: "2.n1".to_owned(),
            ballot_round: 2,
            chosen_slot: 1842,
            applied_slot,
            revision: 90,
            log_bytes: 16_000_000,
            store_bytes: 41_000_000,
            fsync_p99_micros: 1_930,
            voters: voters.clone(),
            ..InspectResponse::default()
        };
        let mut second = inspect(2, 1840);
        second.roles = vec![RoleStatus {
            role: Role::Learner.into(),
            state: RunState::Stopped.into(),
            ..RoleStatus::default()
        }];
        let observed = |id: u64, view| Observed {
            endpoint: format!("http://127.0.0.1:{}", 2377 + 2 * id),
            id: Some(id),
            name: format!("n{id}"),
            view,
        };
        vec![
            observed(1, View::Synod(Box::new(inspect(1, 1842)))),
            observed(2, View::Synod(Box::new(second))),
            observed(3, View::Silent("connection refused".to_owned())),
        ]
    }

    #[test]
    fn one_screen_whose_last_line_is_the_verdict() {
        let replicas = replicas();
        let shown = text(&replicas, &judge(&replicas, &[]), false);
        assert_eq!(
            shown,
            "\
ENDPOINT        NAME  ROLE      RUNS   BALLOT  CHOSEN  APPLIED  LAG  REVISION    LOG  STORE  FSYNC p99
127.0.0.1:2379  n1    leader    P A L  2.n1      1842     1842    0        90  16 MB  41 MB     1.9 ms
127.0.0.1:2381  n2    follower  P A -  2.n1      1842     1840    2        90  16 MB  41 MB     1.9 ms
127.0.0.1:2383  n3    down      -      -            -        -    -         -      -      -          -

AT RISK: 2 of 3 voters up, no more may fail; n3 does not answer; n2's learner is stopped
"
        );
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        let replicas = replicas();
        let verdict = judge(&replicas, &[]);
        assert!(!text(&replicas, &verdict, false).contains('\x1b'));
        assert!(text(&replicas, &verdict, true).contains("\x1b[33mAT RISK"));
    }

    #[test]
    fn programs_get_the_same_as_json() {
        let replicas = replicas();
        let shown = json(&replicas, &judge(&replicas, &[]));
        let status: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(status["up"], 2);
        assert_eq!(status["may_fail"], 0);
        assert_eq!(status["healthy"], false);
        assert_eq!(status["replicas"][1]["lag"], 2);
        assert_eq!(status["replicas"][2]["part"], "down");
        assert_eq!(status["replicas"][2]["silent"], "connection refused");
    }
}

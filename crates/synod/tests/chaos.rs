//! The chaos, as a user runs it: real processes, faults that need no root, a verdict.

use std::time::Duration;

use assert_cmd::Command;
use serde_json::Value;

/// Runs the chaos; returns its exit code and the report.
fn chaos(arguments: &str) -> (Option<i32>, Option<Value>) {
    let output = Command::new(env!("CARGO_BIN_EXE_synod"))
        .arg("chaos")
        .args(arguments.split_whitespace())
        .args(["--output", "json"])
        .timeout(Duration::from_secs(300))
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    eprintln!("{}\n{stdout}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), serde_json::from_str(&stdout).ok())
}

/// Runs one round of these kinds, which must lose nothing, and returns the report's rows by kind.
fn one_round(kinds: &[&str], seed: u64) -> impl Fn(&str) -> Value + use<> {
    let (faults, count) = (kinds.join(","), kinds.len());
    let run = format!("--faults {faults} --episodes {count} --seed {seed} --duration 10m --links built-in");
    let (code, report) = chaos(&run);
    let report = report.expect("standard output is the report alone");
    assert_eq!(code, Some(0), "{report}");
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check["state"], "right", "{check}");
    }
    assert_eq!((&report["seed"], &report["links"]), (&seed.into(), &"built-in".into()));
    assert_eq!(report["episodes"].as_array().unwrap().len(), count);
    let rows = report["faults"].as_array().unwrap().clone();
    let row = move |kind: &str| {
        let found = rows.iter().find(|row| row["kind"] == kind).cloned();
        found.unwrap_or_else(|| panic!("no row for {kind}"))
    };
    for kind in kinds {
        assert_eq!(row(kind)["episodes"], 1, "a round has every kind once: {kind}");
    }
    row
}

#[test]
fn faults_that_need_no_root_lose_nothing() {
    let kinds = ["kill", "leader-kill", "stop", "cut", "roles", "restart-all"];
    let row = one_round(&kinds, 5);
    // While all servers are down nothing is acknowledged, and nothing had to be.
    assert!(row("restart-all")["longest_gap_micros"].as_u64().unwrap() > 0);
    assert!(row("restart-all")["failed_share"].is_null());
    // Somebody worked while the leader was dead.
    assert!(row("leader-kill")["requests"].as_u64().unwrap() > 0);
    assert!(row("calm")["requests"].as_u64().unwrap() > 0);
}

/// The run in which etcd loses a write (end of section 4 of the fault catalogue, D9).
#[test]
fn d9_a_write_of_a_bare_majority_survives_one_of_them_wiped_and_started_first() {
    let row = one_round(&["wiped-first"], 1);
    assert!(row("wiped-first")["failed_share"].is_null(), "without a majority nothing had to be answered");
}

/// Never more than one server without its memory at a time, but three in the course of time: what was chosen before
/// they voted must not depend on incarnations that are gone.
#[test]
fn d9_servers_wiped_one_after_the_other_survive_a_restart_of_all() {
    let (code, report) =
        chaos("--faults wipe,restart-all --seed 5 --episodes 8 --duration 10m --links built-in");
    assert_eq!(code, Some(0), "{report:?}");
}

#[test]
fn what_cannot_be_had_is_refused() {
    for arguments in ["--faults earthquake", "--nodes 2", "--clients 0"] {
        assert_eq!(chaos(arguments), (Some(2), None), "{arguments}");
    }
}

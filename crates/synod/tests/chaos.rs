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
        .timeout(Duration::from_secs(240))
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    eprintln!("{}\n{stdout}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), serde_json::from_str(&stdout).ok())
}

#[test]
fn faults_that_need_no_root_lose_nothing() {
    let kinds = ["kill", "leader-kill", "stop", "cut", "wipe", "restart-all", "roles", "wiped-first"];
    let faults = kinds.join(",");
    let (code, report) =
        chaos(&format!("--faults {faults} --links built-in --seed 5 --episodes 8 --duration 10m"));
    let report = report.expect("standard output is the report alone");
    assert_eq!(code, Some(0));
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check["state"], "right", "{check}");
    }
    assert_eq!((&report["seed"], &report["links"]), (&5.into(), &"built-in".into()));

    let rows = report["faults"].as_array().unwrap();
    let row = |kind: &str| rows.iter().find(|row| row["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"));
    for kind in kinds {
        assert_eq!(row(kind)["episodes"], 1, "a round has every kind once: {kind}");
    }
    assert_eq!(report["episodes"].as_array().unwrap().len(), 8);
    // While all servers are down nothing is acknowledged, and nothing had to be.
    assert!(row("restart-all")["longest_gap_micros"].as_u64().unwrap() > 0);
    assert!(row("restart-all")["failed_share"].is_null());
    // Somebody worked while the leader was dead.
    assert!(row("leader-kill")["requests"].as_u64().unwrap() > 0);
}

#[test]
fn what_cannot_be_had_is_refused() {
    for arguments in ["--faults earthquake", "--nodes 2", "--clients 0"] {
        assert_eq!(chaos(arguments), (Some(2), None), "{arguments}");
    }
}

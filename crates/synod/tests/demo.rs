//! The demo, as a user runs it: real processes, real faults, a verdict.

use assert_cmd::Command;
use serde_json::Value;

/// Runs the demo; returns its exit code and the JSON lines it printed.
fn demo(arguments: &str) -> (Option<i32>, Vec<Value>) {
    let output = Command::new(env!("CARGO_BIN_EXE_synod"))
        .arg("demo")
        .args(arguments.split_whitespace())
        .args(["--output", "json"])
        .timeout(std::time::Duration::from_secs(120))
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let lines = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    eprintln!("{}\n{stdout}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), lines)
}

fn of_kind<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == kind).collect()
}

#[test]
fn roles_that_forget_everything_lose_nothing() {
    let (code, lines) = demo("--faults roles --memory volatile --seed 3");
    assert_eq!(code, Some(0));

    let verdict = lines.last().unwrap();
    assert_eq!(verdict["event"], "verdict");
    for check in verdict["checks"].as_array().unwrap() {
        assert_eq!(check["state"], "right", "{check}");
    }
    // Five clients, five each.
    for row in verdict["operations"].as_array().unwrap() {
        assert!(row["ok"].as_u64().unwrap() >= 25, "{row}");
    }
    assert!(verdict["struck"].as_u64().unwrap() >= 3, "{verdict}");
    assert!(of_kind(&lines, "operation").len() >= 75);
    assert!(of_kind(&lines, "incident").iter().any(|line| line["kind"] == "fault"));
    assert!(verdict["again"].as_str().unwrap().contains("--seed 3"), "{verdict}");
}

#[test]
fn quiet_shows_the_verdict_alone() {
    let (code, lines) = demo("--faults none --replicas 3 --ops 1 --quiet --seed 1");
    assert_eq!(code, Some(0));
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["verdict"], "nothing was lost, and all replicas agree");
}

#[test]
fn what_cannot_be_shown_is_refused_before_anything_starts() {
    let (code, lines) = demo("--replicas 2");
    assert_eq!((code, lines.len()), (Some(2), 0));
}

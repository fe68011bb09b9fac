//! `synod server` as an operator meets it: what is refused, with which words and exit code, and how it ends.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn server(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synod"));
    command.arg("server").current_dir(home).stdin(Stdio::null());
    command
}

fn refused(home: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = server(home).args(arguments).output().unwrap();
    assert_eq!(String::from_utf8(stdout).unwrap(), "", "nothing goes to stdout");
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn wrong_usage_exits_with_2_and_writes_nothing() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, words) in [
        (&["--nmae", "x"][..], "'--name'"),
        (&["--listen-client-urls", "localhost:1"], "write http://host:port"),
        (&["--name", "x", "--initial-cluster", "a=http://h:1"], "names a, but not --name x"),
        (&["--config", "nowhere.toml"], "cannot read nowhere.toml"),
    ] {
        let (code, said) = refused(home.path(), arguments);
        assert!(code == Some(2) && said.contains(words), "{code:?} {said}");
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn a_taken_port_is_named_with_its_flag_and_nothing_is_written() {
    let home = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", taken.local_addr().unwrap());
    let free = "http://127.0.0.1:0";
    for (flag, other) in
        [("--listen-client-urls", "--listen-peer-urls"), ("--listen-peer-urls", "--listen-client-urls")]
    {
        let (code, said) = refused(home.path(), &[flag, &url, other, free]);
        assert!(code == Some(1) && said.contains(&format!("{url} ({flag}): the port is taken")), "{said}");
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn help_ends_with_a_cluster_of_five() {
    let home = tempfile::tempdir().unwrap();
    let help = server(home.path()).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert_eq!(help.lines().filter(|line| line.trim().starts_with("synod server --name n")).count(), 5);
}

/// Starts a server and waits until it says that it serves clients.
fn running(home: &Path, arguments: &[&str], stdin: Stdio) -> (Child, BufReader<impl Read>) {
    let free = "http://127.0.0.1:0";
    let mut child = server(home)
        .args(["--listen-client-urls", free, "--listen-peer-urls", free, "--log-format", "json"])
        .args(arguments)
        .stdin(stdin)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("serving clients") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended before it served");
        serde_json::from_str::<serde_json::Value>(&line).expect("one JSON object per line");
    }
    (child, log)
}

#[test]
fn a_server_ends_with_its_parent_when_told_to() {
    let home = tempfile::tempdir().unwrap();
    let (mut child, mut log) = running(home.path(), &["--exit-with-parent"], Stdio::piped());
    drop(child.stdin.take());
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest}");
    assert!(rest.contains("standard input ended"), "{rest}");
}

#[test]
fn a_server_asked_to_terminate_exits_with_0() {
    let home = tempfile::tempdir().unwrap();
    let (mut child, mut log) = running(home.path(), &["--memory", "volatile"], Stdio::null());
    let asked = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(asked.success());
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest}");
    assert!(rest.contains("SIGTERM"), "{rest}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "volatile memory touches no disk");
}

/// The trace of a whole life, drawn: from the process's beginning to its end, through one decided slot.
#[test]
fn a_server_records_what_it_does_and_trace_draws_it() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("n1.jsonl"), r#"{"v":1,"at":5,"node":"1","na"#).unwrap(); // of an earlier life
    let stdin = Stdio::piped();
    let (mut child, mut log) =
        running(home.path(), &["--name", "n1", "--trace-file", "n1.jsonl", "--exit-with-parent"], stdin);
    // Its own first command decides a slot; a trace is complete whenever it stops.
    let trace = || std::fs::read_to_string(home.path().join("n1.jsonl")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !trace().contains(r#""event":"applied""#) {
        assert!(Instant::now() < deadline, "nothing was applied: {}", trace());
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(child.stdin.take());
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");

    let drawn = Command::new(env!("CARGO_BIN_EXE_synod"))
        .args(["trace", "n1.jsonl"])
        .current_dir(home.path())
        .output()
        .unwrap();
    let (picture, said) =
        (String::from_utf8(drawn.stdout).unwrap(), String::from_utf8(drawn.stderr).unwrap());
    assert!(drawn.status.success() && said.is_empty(), "{said}");
    let mut rest = picture.as_str();
    for expected in [
        "┬  process begins: synod",
        "on disk: promised 1.n1",
        "★  leads with 1.n1",
        "on disk: accepted 1.n1 slot 1",
        "◆  applies slot 1: publish n1",
        "┴  process ends: stopped: standard input ended",
    ] {
        let Some((_, after)) = rest.split_once(expected) else {
            panic!("no {expected:?} in its place: {picture}")
        };
        rest = after;
    }
}

#[test]
fn a_trace_file_that_is_something_else_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("notes"), "precious\n").unwrap();
    let free = "http://127.0.0.1:0";
    let arguments = ["--trace-file", "notes", "--listen-client-urls", free, "--listen-peer-urls", free];
    let (code, said) = refused(home.path(), &arguments);
    assert!(code == Some(1) && said.contains("notes is no trace, and is left alone"), "{code:?} {said}");
    assert_eq!(std::fs::read_to_string(home.path().join("notes")).unwrap(), "precious\n");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "nothing else was written");
}

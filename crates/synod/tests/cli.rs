//! The binary as a shell sees it: arguments in, text and exit codes out.

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use assert_cmd::assert::OutputAssertExt;
use assert_cmd::cargo::cargo_bin;
use tokio::net::TcpSocket;

/// A command that no variable of the machine it runs on can disturb.
fn clean(mut command: Command) -> Command {
    for variable in ["ENDPOINTS", "COMMAND_TIMEOUT", "DIAL_TIMEOUT", "WRITE_OUT", "HEX"] {
        command.env_remove(format!("SYNOD_{variable}")).env_remove(format!("ETCDCTL_{variable}"));
    }
    command.stdin(Stdio::null());
    command
}

fn synod(args: &[&str]) -> Command {
    let mut command = clean(Command::new(cargo_bin("synod")));
    command.args(args);
    command
}

/// The binary through a link, as packages install it.
fn etcdctl(args: &[&str]) -> (tempfile::TempDir, Command) {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("etcdctl");
    symlink(cargo_bin("synod"), &link).unwrap();
    let mut command = clean(Command::new(link));
    command.args(args);
    (folder, command)
}

struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(mut command: Command) -> Run {
    let output = command.output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// An address where nobody listens, and where nobody can begin to while this lives.
struct Nobody {
    _bound: TcpSocket,
    endpoint: String,
}

fn nobody() -> Nobody {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let endpoint = socket.local_addr().unwrap().to_string();
    Nobody { _bound: socket, endpoint }
}

#[test]
fn wrong_usage_is_2_and_says_so_on_stderr() {
    for args in [
        &["get"][..],
        &["frobnicate"],
        &["get", "k", "--nonsense"],
        &["get", "k", "-w", "xml"],
        &["get", "a", "b", "--prefix"],
        &["get", "k", "--limit", "x"],
        &["get", "k", "--command-timeout", "soon"],
        &["put", "k"],
        &["compaction", "x"],
        &["txn"],
        &["put", "k", "v", "-w", "table"],
        &["get", "k", "--endpoints", "nowhere"],
    ] {
        let run = run(synod(args));
        assert_eq!(run.code, Some(2), "{args:?}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{args:?}");
        assert!(run.stderr.to_lowercase().contains("error"), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn under_the_name_etcdctl_wrong_usage_has_etcdctls_codes() {
    for (args, code) in [
        (&["get"][..], 128),
        (&["put", "k"], 128),
        (&["get", "a", "b", "--prefix"], 128),
        (&["put", "k", "v", "--lease", "zz"], 128),
        (&["get", "k", "-w", "xml"], 4),
        (&["put", "k", "v", "-w", "table"], 4),
        (&["get", "k", "--nonsense"], 1),
        (&["txn"], 3),
        (&["status"], 1),
    ] {
        let (_folder, command) = etcdctl(args);
        let run = run(command);
        assert_eq!(run.code, Some(code), "{args:?}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{args:?}");
        assert!(run.stderr.starts_with("Error: "), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn help_teaches_and_is_no_error() {
    for command in ["put", "get", "del", "txn", "compaction", "status", "fault", "trace", "completion"] {
        let assert = synod(&["help", command]).assert().success();
        let help = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
        assert!(help.contains("Examples:"), "{command}: {help}");
    }
}

#[test]
fn versions() {
    let version = env!("CARGO_PKG_VERSION");
    synod(&["version"]).assert().success().stdout(format!("synod {version}\netcd API 3.6\n"));
    synod(&["--version"]).assert().success().stdout(format!("synod {version}\n"));
    let (_folder, mut command) = etcdctl(&["version"]);
    command.assert().success().stdout(format!("etcdctl version: {version} (synod)\nAPI version: 3.6\n"));
}

#[test]
fn completions_for_every_shell_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let assert = synod(&["completion", shell]).assert().success();
        let script = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
        assert!(script.contains("compaction") && script.contains("ignore-lease"), "{shell}");
    }
    let (_folder, command) = etcdctl(&["completion", "bash"]);
    let script = run(command).stdout;
    assert!(
        script.contains("etcdctl,compaction)") && !script.contains("etcdctl,fault)"),
        "etcdctl has no faults"
    );
}

#[test]
fn an_unreachable_endpoint_fails_with_advice_and_nothing_on_stdout() {
    let nobody = nobody();
    let endpoint = &nobody.endpoint;
    let run = run(synod(&["--endpoints", endpoint, "--command-timeout", "300ms", "get", "k"]));
    assert_eq!(run.code, Some(1));
    assert_eq!(run.stdout, "");
    assert!(run.stderr.contains(&format!("cannot connect to http://{endpoint}")), "{}", run.stderr);
    assert!(run.stderr.contains("--endpoints"), "{}", run.stderr);
}

#[test]
fn a_write_that_reached_nobody_says_that_nothing_changed() {
    let nobody = nobody();
    let endpoint = &nobody.endpoint;
    let run = run(synod(&["--endpoints", endpoint, "--command-timeout", "300ms", "put", "k", "v"]));
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    assert!(run.stderr.contains("Nothing was changed."), "{}", run.stderr);
}

#[test]
fn a_write_without_an_answer_is_not_called_a_failure() {
    // Accepted by the kernel, and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = silent.local_addr().unwrap().to_string();
    let run = run(synod(&["--endpoints", &endpoint, "--command-timeout", "300ms", "put", "k", "v"]));
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    assert!(run.stderr.contains("may still take effect"), "{}", run.stderr);
    drop(silent);
}

#[test]
fn the_environment_names_the_endpoints_and_a_flag_beats_it() {
    let (one, other) = (nobody(), nobody());
    let (from_variable, from_flag) = (&one.endpoint, &other.endpoint);
    let mut command = synod(&["--command-timeout", "300ms", "get", "k"]);
    command.env("ETCDCTL_ENDPOINTS", from_variable);
    assert!(run(command).stderr.contains(from_variable));
    let mut command = synod(&["--command-timeout", "300ms", "get", "k", "--endpoints", from_flag]);
    command.env("SYNOD_ENDPOINTS", from_variable).env("ETCDCTL_ENDPOINTS", from_variable);
    let stderr = run(command).stderr;
    assert!(stderr.contains(from_flag) && !stderr.contains(from_variable), "{stderr}");
}

#[test]
fn the_status_of_nobody_is_a_verdict_and_a_failure() {
    let nobody = nobody();
    let endpoint = &nobody.endpoint;
    let run = run(synod(&["--endpoints", endpoint, "--command-timeout", "1s", "status"]));
    assert_eq!(run.code, Some(1));
    let last = run.stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with("UNREACHABLE: no replica answers"), "{}", run.stdout);
    assert!(!run.stdout.contains('\x1b'), "no colours in a pipe");
}

#[test]
fn health_of_nobody_is_a_failure() {
    let nobody = nobody();
    let endpoint = &nobody.endpoint;
    let args = ["--endpoints", endpoint, "--command-timeout", "300ms", "endpoint", "health"];
    let plain = run(synod(&args));
    assert_eq!((plain.code, plain.stdout.as_str()), (Some(1), ""));
    assert!(plain.stderr.contains(&format!("{endpoint} is unhealthy")), "{}", plain.stderr);
    let json = run(synod(&[&args[..], &["-w", "json"]].concat()));
    assert!(json.stdout.contains("\"health\":false"), "{}", json.stdout);
}

#[test]
fn a_reader_that_leaves_early_is_no_trouble() {
    // More than a pipe holds, so that the writer notices.
    let mut child =
        synod(&["completion", "zsh"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
}

/// Two lines that a server could have written, with its name and a time in milliseconds.
fn traced(name: u64, at: u64) -> String {
    let line = |at, up| {
        format!(
            r#"{{"v":1,"at":{at},"node":"{name}","name":"n{name}","event":"role","role":"learner","up":{up}}}"#
        )
    };
    format!("{}\n{}\n", line(at * 1000, true), line(at * 1000 + 500, false))
}

#[test]
fn traces_of_several_files_are_put_together_by_time() {
    let folder = tempfile::tempdir().unwrap();
    for (name, at) in [(1, 7), (2, 5)] {
        std::fs::write(folder.path().join(format!("n{name}.jsonl")), traced(name, at)).unwrap();
    }
    let mut command = synod(&["trace", "n1.jsonl", "n2.jsonl"]);
    command.current_dir(folder.path());
    let drawn = run(command);
    assert_eq!((drawn.code, drawn.stderr.as_str()), (Some(0), ""));
    let picture: Vec<&str> = drawn.stdout.lines().skip(3).collect();
    assert_eq!(
        picture,
        [
            "      0.000  │       △  learner begins",
            "      0.500  │       ▽  learner ends",
            "      2.000  △       │  learner begins",
            "      2.500  ▽       │  learner ends",
        ]
    );
}

#[test]
fn a_line_that_is_no_event_is_named_and_nothing_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let trace = |last: &str| {
        std::fs::write(folder.path().join("n1.jsonl"), traced(1, 7) + last).unwrap();
        let mut command = synod(&["trace", "n1.jsonl"]);
        command.current_dir(folder.path());
        run(command)
    };
    for (bad, why) in [
        ("nonsense\n", "expected ident (column 2)"),
        ("\n", "EOF while parsing a value"),
        ("{\"v\":9,\"at\":1,\"event\":\"dropped\",\"events\":1}\n", "version 9 of the format"),
    ] {
        let drawn = trace(bad);
        assert_eq!((drawn.code, drawn.stdout.as_str()), (Some(1), ""), "{bad}");
        let expected = format!("Error: n1.jsonl line 3: {why}");
        assert!(drawn.stderr.starts_with(&expected), "{bad}: {}", drawn.stderr);
        assert_eq!(drawn.stderr.lines().count(), 1, "{}", drawn.stderr);
    }
    let torn = trace("{\"v\":1,\"at");
    assert_eq!(torn.code, Some(0));
    assert_eq!(torn.stderr, "n1.jsonl ends within line 3, which is left out\n");
    assert!(torn.stdout.contains("learner ends"), "{}", torn.stdout);
}

#[test]
fn a_trace_that_cannot_be_shown_says_why() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("n1.jsonl"), traced(1, 7)).unwrap();
    for (arguments, code, why) in [
        (&["trace", "nowhere.jsonl"][..], 1, "cannot read nowhere.jsonl"),
        (&["trace", "n1.jsonl", "--node", "n5"], 2, "there is no replica \"n5\" in the trace; there are n1"),
        (&["trace", "n1.jsonl", "--from", "soon"], 2, "not a duration"),
        (&["trace"], 2, "FILE"),
    ] {
        let mut command = synod(arguments);
        command.current_dir(folder.path());
        let drawn = run(command);
        assert_eq!((drawn.code, drawn.stdout.as_str()), (Some(code), ""), "{arguments:?}");
        assert!(drawn.stderr.contains(why), "{arguments:?}: {}", drawn.stderr);
    }
}

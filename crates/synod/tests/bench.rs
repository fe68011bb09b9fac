//! The load generator, as a user runs it: against servers of its own, and against one that refuses.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// Runs the load generator; returns its exit code, the report, and what it said beside it.
fn bench(arguments: &str) -> (Option<i32>, Option<Value>, String) {
    let output = assert_cmd::Command::new(env!("CARGO_BIN_EXE_synod"))
        .arg("bench")
        .args(arguments.split_whitespace())
        .args(["--output", "json"])
        .env_remove("SYNOD_ENDPOINTS")
        .env_remove("ETCDCTL_ENDPOINTS")
        .timeout(Duration::from_secs(300))
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    eprintln!("{stderr}\n{stdout}");
    (output.status.code(), serde_json::from_str(&stdout).ok(), stderr)
}

fn assert_in_order(latency: &Value) {
    let value = |name: &str| latency[name].as_f64().unwrap();
    let steps = ["p50", "p90", "p99", "p999", "max"].map(value);
    assert!(steps.is_sorted() && steps[0] > 0.0, "{latency}");
    assert!(value("mean") > 0.0 && value("mean") <= value("max"), "{latency}");
}

#[test]
fn own_servers_are_measured_beside_their_machine_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run = "put get serializable mixed txn --servers 3 --clients 4 --requests 200 --warmup 0 --keys 250";
    let (code, report, _) = bench(&format!("{run} --data-dir {}", folder.path().display()));
    let report = report.expect("standard output is the report alone");
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["endpoints"].as_array().unwrap().len(), 3);

    let points = report["points"].as_array().unwrap();
    let workloads: Vec<&str> = points.iter().map(|point| point["workload"].as_str().unwrap()).collect();
    assert_eq!(workloads, ["put", "get", "serializable", "mixed", "txn"]);
    let machine = &report["machine"];
    for point in points.iter().chain(machine["no_op"].as_array().unwrap()) {
        let counted = [&point["answered"], &point["failed"], &point["clients"]].map(|field| field.as_u64());
        assert_eq!(counted, [Some(200), Some(0), Some(4)], "{point}");
        assert!(point["answered_per_second"].as_f64().unwrap() > 0.0, "{point}");
        assert!(point["load_cpu_us"].as_f64().unwrap() > 0.0, "{point}");
        assert!(point["open_loop"].is_null(), "{point}");
        assert_in_order(&point["latency_us"]);
    }
    assert!(points.iter().all(|point| point["server_resident_bytes"].as_u64().unwrap() > 0));
    for point in points {
        let growth = &point["growth"];
        assert!(
            growth["samples"].as_array().unwrap().len() >= 2,
            "at the beginning and in the end: {growth}"
        );
        let least = |figure: &str, name: &str| growth[figure][name].as_u64().unwrap();
        assert!(least("disk_bytes", "begin") >= 250 * 256 * 2, "a majority has what was filled: {growth}");
        for figure in ["resident_bytes", "disk_bytes"] {
            let highest = least(figure, "highest");
            assert!(
                ["begin", "end"].iter().all(|name| (1..=highest).contains(&least(figure, name))),
                "{growth}"
            );
        }
    }
    assert!(report["compactions"].is_null(), "nobody asked for them");
    let conflicts = |place: usize| points[place]["conflicts"].as_u64().unwrap();
    assert!((0..4).all(|place| conflicts(place) == 0) && conflicts(4) <= 200);

    let writers: Vec<_> = machine["syncs"].as_array().unwrap().iter().map(|sync| &sync["writers"]).collect();
    assert_eq!(writers, [&Value::from(1), &Value::from(3)]);
    assert_eq!(machine["no_op"].as_array().unwrap().len(), 1);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the data is gone");
}

#[test]
fn what_runs_goes_on_when_its_file_is_gone() {
    // As when somebody builds anew while it measures. Called by a relative path, with data in a relative folder.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::hard_link(env!("CARGO_BIN_EXE_synod"), folder.path().join("copy")).unwrap();
    let mut process = Command::new("./copy")
        .args("bench put --servers 1 --clients 1 --requests 5 --warmup 0 --keys 5 --data-dir .".split(' '))
        .env_remove("SYNOD_ENDPOINTS")
        .env_remove("ETCDCTL_ENDPOINTS")
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // It runs already: starting it has returned only because it does.
    std::fs::remove_file(folder.path().join("copy")).unwrap();
    assert!(process.wait().unwrap().success());
}

#[test]
fn an_open_loop_accounts_for_every_request_that_was_due() {
    let (code, report, _) =
        bench("put --servers 1 --clients 8 --rate 100 --requests 50 --warmup 100ms --keys 10");
    let report = report.expect("standard output is the report alone");
    assert_eq!(code, Some(0), "{report}");
    let point = &report["points"][0];
    let open_loop = &point["open_loop"];
    assert_eq!((open_loop["rate"].as_u64(), open_loop["due"].as_u64()), (Some(100), Some(50)));
    let accounted = point["answered"].as_u64().unwrap() + open_loop["not_sent"].as_u64().unwrap();
    assert_eq!(accounted, 50, "{point}");
}

/// A server that knows nothing but puts.
struct Refusing {
    process: Child,
    address: String,
}

impl Refusing {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_synod"))
            .arg("bench-no-op")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { process, address: address.trim().to_owned() }
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        // It ends when its standard input does.
        drop(self.process.stdin.take());
        self.process.wait().unwrap();
    }
}

#[test]
fn what_is_refused_is_counted_and_shown_and_fails_the_run() {
    let server = Refusing::start();
    let run = format!("get put --endpoints {} --clients 2 --requests 20 --warmup 0", server.address);
    let run = format!("{run} --compact-every 1h");
    let (code, report, said) = bench(&run);
    assert_eq!(code, Some(1));
    assert!(said.contains("requests failed"), "{said}");
    let report = report.expect("the report is given all the same");
    let [get, put] = report["points"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((&get["answered"], &get["failed"]), (&0.into(), &20.into()));
    let failures = get["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 1);
    assert_eq!((&failures[0]["kind"], &failures[0]["count"]), (&"status Unimplemented".into(), &20.into()));
    assert_eq!((&put["answered"], &put["failed"]), (&20.into(), &0.into()));
    assert!(put["server_cpu_us"].is_null() && put["growth"].is_null(), "nobody told which process it is");
    let compactions = &report["compactions"];
    assert_eq!((&compactions["every_seconds"], &compactions["done"]), (&3_600.0.into(), &0.into()));

    let (code, _, _) = bench(&format!("{run} --allow-errors"));
    assert_eq!(code, Some(0));
}

#[test]
fn an_endpoint_where_nobody_listens_is_an_error_and_no_report() {
    // Port 1 is below those that are given away, and nothing of ours listens there.
    let (code, report, said) = bench("put --endpoints 127.0.0.1:1 --requests 1");
    assert_eq!((code, report), (Some(1), None));
    assert!(said.contains("cannot connect: 127.0.0.1:1: "), "{said}");
}

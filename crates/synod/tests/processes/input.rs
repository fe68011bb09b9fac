//! What clients, operators and strangers get wrong: a clear error for them, and nothing lost for others.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use synod_client::requests::{get, put};
use synod_client::{ClientError, Failure, Outcome};
use tonic::Code;

use super::cluster::{Cluster, free_port, said, until};

fn refusal(error: &ClientError) -> (Code, &str) {
    assert_eq!(error.outcome, Outcome::NotApplied, "{error}");
    match &error.failure {
        Failure::Status { code, message } => (*code, message),
        other => panic!("not a server's answer: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn x1_x2_bad_input_is_refused_and_harms_nobody() {
    let mut cluster = Cluster::start().await;
    cluster.nodes[0].replica.put(put("k", "v")).await.unwrap();

    let replica = &cluster.nodes[1].replica;
    let error = replica.put(put("", "v")).await.unwrap_err();
    assert_eq!(refusal(&error), (Code::InvalidArgument, "etcdserver: key is not provided"));
    let error = replica.put(put("k", vec![0; (3 << 19) + 1])).await.unwrap_err();
    assert_eq!(refusal(&error), (Code::InvalidArgument, "etcdserver: request is too large"));
    let error = replica.put(put("k", vec![0; 40 << 20])).await.unwrap_err();
    assert_eq!(refusal(&error), (Code::ResourceExhausted, "grpc: received message larger than max"));
    let error = replica
        .range(synod_client::rpc::etcdserverpb::RangeRequest { sort_order: 77, ..get("k") })
        .await
        .unwrap_err();
    assert_eq!(refusal(&error), (Code::InvalidArgument, "etcdserver: invalid sort option"));

    // Neither words that are not HTTP/2, nor HTTP/2 that turns to noise, nor silence.
    let noise: Vec<u8> = (0..4096_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let client_port: u16 = cluster.nodes[0].endpoint.rsplit(':').next().unwrap().parse().unwrap();
    let _held: Vec<TcpStream> = [client_port, cluster.nodes[0].peer_port]
        .into_iter()
        .flat_map(|port| {
            [&noise[..], &[&preface[..], &noise].concat(), b""].map(|words| {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let _ = stream.write_all(words); // it may be shown the door before it has finished
                stream
            })
        })
        .collect();

    for node in &mut cluster.nodes {
        assert!(!node.ended(), "{} lives", node.name);
        assert_eq!(node.replica.range(get("k")).await.unwrap().kvs[0].value, "v");
    }
    cluster.all_equal().await;
}

/// Every file below a directory with its contents, the lock aside: it names whoever came last.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else if !path.ends_with("LOCK") {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// Stands for a newer release: writes its format number, and the checksum as every release does.
fn make_newer(file: &Path, checksum_at: usize, covered: std::ops::Range<usize>) {
    const FORMAT_AT: usize = 8;
    let mut bytes = fs::read(file).unwrap();
    bytes[FORMAT_AT] += 1;
    let mut crc = crc32c::crc32c(&bytes[covered]);
    if checksum_at == SMALL_FILE_CHECKSUM {
        crc = crc32c::crc32c_append(crc, &bytes[checksum_at + 4..]);
    }
    bytes[checksum_at..checksum_at + 4].copy_from_slice(&crc.to_le_bytes());
    fs::write(file, bytes).unwrap();
}

const SMALL_FILE_CHECKSUM: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn m3_a_directory_that_is_not_this_servers_is_refused_and_left_alone() {
    let mut cluster = Cluster::start().await;
    cluster.nodes[0].replica.put(put("k", "v")).await.unwrap();
    let in_use = cluster.nodes[0].data.to_str().unwrap().to_owned();

    // Somebody's who runs.
    let url = || format!("http://127.0.0.1:{}", free_port());
    let elsewhere = [("--listen-client-urls", url()), ("--listen-peer-urls", url())];
    let (code, _, errors) = said(cluster.nodes[0].command(&elsewhere)).await;
    assert!(errors.contains(&format!("{in_use} is in use by process")), "{errors}");
    assert_eq!(code, Some(1));

    // Another's.
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    let before = contents(&cluster.nodes[0].data);
    let (code, _, errors) = said(cluster.nodes[1].command(&[("--data-dir", in_use.clone())])).await;
    assert!(errors.contains("Error: this data directory belongs to n1"), "{errors}");
    assert!(errors.contains("give this one a directory of its own"), "{errors}");
    assert_eq!(code, Some(1));
    assert_eq!(contents(&cluster.nodes[0].data), before);

    // A newer release's.
    let identity = cluster.nodes[0].data.join("identity");
    let original = fs::read(&identity).unwrap();
    make_newer(&identity, SMALL_FILE_CHECKSUM, 0..SMALL_FILE_CHECKSUM);
    let before = contents(&cluster.nodes[0].data);
    let (code, _, errors) = said(cluster.nodes[0].command(&[])).await;
    assert!(
        errors.contains("Error: the identity file has format 2, this release reads format 1"),
        "{errors}"
    );
    assert!(errors.contains("Run the release that wrote it"), "{errors}");
    assert_eq!(code, Some(1));
    assert_eq!(contents(&cluster.nodes[0].data), before);

    fs::write(&identity, original).unwrap();
    cluster.nodes[0].start();
    cluster.nodes[1].start();
    cluster.all_equal().await;
    assert_eq!(cluster.nodes[0].replica.range(get("k")).await.unwrap().kvs[0].value, "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_among_the_peers_is_told_so_and_changes_nothing() {
    let cluster = Cluster::start().await;
    let hash = cluster.all_equal().await;
    let (client, peer) = (free_port(), free_port());
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let data = cluster.nodes[0].data.with_file_name("stranger");
    // As the start line of another cluster, with a peer URL of this one in it.
    let members = format!("stranger={},n2={}", url(peer), url(cluster.nodes[1].peer_port));
    let command = cluster.nodes[0].command(&[
        ("--name", "stranger".to_owned()),
        ("--data-dir", data.to_str().unwrap().to_owned()),
        ("--listen-client-urls", url(client)),
        ("--advertise-client-urls", url(client)),
        ("--listen-peer-urls", url(peer)),
        ("--initial-advertise-peer-urls", url(peer)),
        ("--initial-cluster", members),
    ]);
    let mut command = tokio::process::Command::from(command);
    let _stranger = command.stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    until("the stranger is told", async || {
        let mut status = Command::new(env!("CARGO_BIN_EXE_synod"));
        status.args(["--endpoints", &format!("127.0.0.1:{client}"), "status"]);
        let (code, shown, _) = said(status).await;
        let told = shown.contains("NOT FORMED") && shown.contains("does not have this server as a member");
        code == Some(1) && told
    })
    .await;
    assert_eq!(cluster.all_equal().await, hash);
    // A leader may still be on its way: reads, which were all that was asked so far, need none.
    let healthy = (Some(0), "healthy: 5 of 5 voters up, 2 more may fail".to_owned());
    until("the status is healthy", async || cluster.verdict().await == healthy).await;
}

/// Debian's etcdctl at each of the five, in turn: it sees one etcd.
#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_sees_one_etcd_through_five_servers() {
    if Command::new("etcdctl").arg("version").output().is_err() {
        println!("skipped: there is no etcdctl here");
        return;
    }
    let cluster = Cluster::start().await;
    let five = |line: &'static str| (line, "");
    let steps: [((&str, &str), i32, &str); 14] = [
        (five("put fruit/a 1"), 0, "OK\n"),
        (five("put fruit/b 2"), 0, "OK\n"),
        (five("put fruit/a 11 --prev-kv"), 0, "OK\nfruit/a\n1\n"),
        (five("get fruit/a"), 0, "fruit/a\n11\n"),
        (five("get --prefix fruit/"), 0, "fruit/a\n11\nfruit/b\n2\n"),
        (five("get --prefix fruit/ --rev=2"), 0, "fruit/a\n1\n"),
        (five("get --prefix fruit/ --limit=1 -w fields"), 0, "\"Count\" : 2"),
        (five("get nothing"), 0, ""),
        (five("del fruit/b --prev-kv"), 0, "1\nfruit/b\n2\n"),
        (
            ("txn", "value(\"fruit/a\") = \"11\"\n\nput fruit/a 12\nget fruit/a\n\nget fruit/b\n\n"),
            0,
            "SUCCESS\n\nOK\n\nfruit/a\n12\n",
        ),
        (five("compaction 5"), 0, "compacted revision 5\n"),
        (five("get fruit/a --rev=4"), 1, "etcdserver: mvcc: required revision has been compacted"),
        (five("get fruit/a --rev=5"), 0, "fruit/a\n11\n"),
        (five("get fruit/a --rev=99"), 1, "etcdserver: mvcc: required revision is a future revision"),
    ];
    for (at, ((line, input), code, expected)) in steps.into_iter().enumerate() {
        let endpoint = &cluster.nodes[at % 5].endpoint;
        let (got, output, errors) = etcdctl(endpoint, line, input);
        assert_eq!(got, Some(code), "{line}: {output}{errors}");
        let exact = code == 0 && !line.contains("-w fields");
        let as_expected =
            if exact { output == expected } else { (output.clone() + &errors).contains(expected) };
        assert!(as_expected, "{line} at {endpoint} says {output:?} {errors:?}");
    }
}

fn etcdctl(endpoint: &str, line: &str, input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", endpoint])
        .args(line.split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

//! What a server can be told: which source wins, and what is refused with which words.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use synod_server::config::{ConfigError, HttpUrl, LogFormat, MemoryMode, ServerConfig, ServerFlags, node_id};

fn flags(line: &str) -> ServerFlags {
    let command = ServerFlags::augment_args(Command::new("server").no_binary_name(true));
    let matches = command.try_get_matches_from(line.split_whitespace()).unwrap_or_else(|e| panic!("{e}"));
    ServerFlags::from_arg_matches(&matches).unwrap()
}

fn refused_flags(line: &str) -> String {
    let command = ServerFlags::augment_args(Command::new("server").no_binary_name(true));
    command.try_get_matches_from(line.split_whitespace()).expect_err(line).to_string()
}

fn load_with(line: &str, variables: &[(&str, &str)]) -> Result<ServerConfig, ConfigError> {
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    ServerConfig::load(flags(line), |name| variables.get(name).map(|value| (*value).to_owned()))
}

fn load(line: &str) -> ServerConfig {
    load_with(line, &[]).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn refused(line: &str) -> String {
    load_with(line, &[]).expect_err(line).to_string()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn refused_file(text: &str) -> String {
    let file = file(text);
    let path = file.path().display().to_string();
    let said = refused(&format!("--config {path}"));
    said.replace(&path, "FILE")
}

fn urls(urls: &[HttpUrl]) -> Vec<String> {
    urls.iter().map(HttpUrl::to_string).collect()
}

const THREE: &str = "a=http://h:1,b=http://h:2,c=http://h:3";

#[test]
fn nothing_said_is_etcds_cluster_of_one() {
    let config = load("");
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir.to_str(), Some("default.synod"));
    assert_eq!(urls(&config.listen_client_urls), ["http://localhost:2379"]);
    assert_eq!(urls(&config.advertise_client_urls), ["http://localhost:2379"]);
    assert_eq!(urls(&config.listen_peer_urls), ["http://localhost:2380"]);
    let members: Vec<_> = config.members.values().map(|m| (m.name.as_str(), urls(&m.peer_urls))).collect();
    assert_eq!(members, [("default", vec!["http://localhost:2380".to_owned()])]);
    assert!(config.members.contains_key(&config.node));
    assert_eq!(config.max_request_bytes, 1_572_864);
    assert_eq!((config.memory, config.log_format), (MemoryMode::Durable, LogFormat::Text));
    assert!(!config.allow_faults && !config.exit_with_parent);
    assert_eq!(config.notices, Vec::<String>::new());
}

#[test]
fn t_5_the_request_timeout_follows_from_the_election_timeout() {
    let config = load("--heartbeat-interval 100 --election-timeout 1000");
    assert_eq!(config.heartbeat_interval, Duration::from_millis(100));
    assert_eq!(config.request_timeout(), Duration::from_secs(7));
}

#[test]
fn an_etcd_start_line_works_and_says_what_it_ignores() {
    let config = load(
        "--name b --data-dir /tmp/b --listen-client-urls http://0.0.0.0:2379 \
         --advertise-client-urls http://h:2379 --listen-peer-urls http://0.0.0.0:2 \
         --initial-advertise-peer-urls http://h:2 --initial-cluster a=http://h:1,b=http://h:2,c=http://h:3 \
         --initial-cluster-token t --initial-cluster-state new --logger zap --log-outputs stderr \
         --snapshot-count 10000 --quota-backend-bytes 8589934592 --enable-v2=false --pre-vote \
         --strict-reconfig-check=true --heartbeat-interval 100 --election-timeout 1000 --log-level info",
    );
    assert_eq!(config.members.len(), 3);
    assert_eq!(config.members[&config.node].name, "b");
    assert_eq!(config.notices.len(), 1, "{:?}", config.notices);
    for name in ["initial-cluster-state", "logger", "snapshot-count", "enable-v2", "pre-vote"] {
        assert!(config.notices[0].contains(&format!("--{name} (")), "{}", config.notices[0]);
    }
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let file = file(
        "name = \"file\"\nlog-level = \"warn\"\nheartbeat_interval = 20\nmax-request-bytes = \"1MiB\"\n\
         allow-faults = true\n",
    );
    let path = file.path().display().to_string();
    let variables = [("SYNOD_NAME", "env"), ("SYNOD_LOG_LEVEL", "debug"), ("SYNOD_CONFIG", path.as_str())];
    let config = load_with("--name flag", &variables).unwrap();
    assert_eq!(config.name, "flag");
    assert_eq!(config.log_level, "debug");
    assert_eq!(config.heartbeat_interval, Duration::from_millis(20));
    assert_eq!(config.max_request_bytes, 1 << 20);
    assert!(config.allow_faults);
    assert_eq!(config.log_format, LogFormat::Text);
    let denied = load_with("--allow-faults=false", &variables).unwrap();
    assert!(!denied.allow_faults);
}

#[test]
fn every_setting_has_a_variable_and_a_key() {
    let settings = [
        ("name", "b"),
        ("data-dir", "/tmp/b"),
        ("listen-client-urls", "http://h:4"),
        ("advertise-client-urls", "http://h:5"),
        ("listen-peer-urls", "http://h:6"),
        ("initial-advertise-peer-urls", "http://h:2"),
        ("initial-cluster", THREE),
        ("initial-cluster-token", "t"),
        ("max-request-bytes", "2MiB"),
        ("heartbeat-interval", "10ms"),
        ("election-timeout", "99ms"),
        ("memory", "volatile"),
        ("allow-faults", "true"),
        ("exit-with-parent", "true"),
        ("log-level", "trace"),
        ("log-format", "json"),
        ("trace-file", "b.jsonl"),
    ];
    let by_flag = settings.map(|(key, value)| format!("--{key}={value}")).join(" ");
    let expected = load(&by_flag);
    assert_eq!(expected.listen_peer_urls[0].port(), 6);
    assert_eq!((expected.memory, expected.log_format), (MemoryMode::Volatile, LogFormat::Json));
    assert!(expected.allow_faults && expected.exit_with_parent);
    assert_eq!(expected.token, "t");
    assert_eq!(expected.trace_file.as_deref(), Some(Path::new("b.jsonl")));

    let names = settings.map(|(key, _)| format!("SYNOD_{}", key.to_uppercase().replace('-', "_")));
    let variables: Vec<_> = names.iter().zip(settings).map(|(name, (_, value))| (&**name, value)).collect();
    assert_eq!(load_with("", &variables).unwrap(), expected);

    let text: String = settings.map(|(key, value)| format!("{key} = \"{value}\"\n")).concat();
    let file = file(&text);
    assert_eq!(load(&format!("--config-file {}", file.path().display())), expected);
}

#[test]
fn a_file_may_write_lists_and_tables() {
    let file = file(
        "name = \"a\"\nlisten-client-urls = [\"http://h:7\", \"http://h:8\"]\n\
         [initial-cluster]\na = \"http://h:1\"\nb = [\"http://h:2\", \"http://h:3\"]\nc = \"http://h:4\"\n",
    );
    let config = load(&format!("--config {}", file.path().display()));
    assert_eq!(config.listen_client_urls.len(), 2);
    assert_eq!(config.members.len(), 3);
    assert_eq!(config.notices, ["b is one server with 2 peer addresses"]);
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest() {
    assert_eq!(
        refused_file("name = \"a\"\n\ndata-dirr = \"x\"\n"),
        "FILE line 3, key \"data-dirr\": there is no such key; did you mean data-dir?"
    );
    assert_eq!(refused_file("zzzz = 1"), "FILE line 1, key \"zzzz\": there is no such key");
    assert_eq!(refused_file("config = \"x\""), "FILE line 1, key \"config\": there is no such key");
}

#[test]
fn a_bad_value_is_refused_where_it_stands() {
    assert_eq!(
        refused_file("memory = \"none\""),
        "FILE line 1, key \"memory\": \"none\" is none of durable, volatile"
    );
    assert!(refused_file("heartbeat-interval = -1").contains("write a number with its unit"));
    assert!(refused_file("not toml").starts_with("FILE is not TOML: "));
    let error = load_with("", &[("SYNOD_ELECTION_TIMEOUT", "soon")]).unwrap_err().to_string();
    assert!(error.starts_with("variable SYNOD_ELECTION_TIMEOUT: \"soon\" is no duration"), "{error}");
    assert!(refused("--config /nowhere/synod.toml").starts_with("cannot read /nowhere/synod.toml: "));
    assert!(refused_flags("--listen-peer-urls h:1").contains("\"h:1\" is no address: the scheme is missing"));
    assert!(refused_flags("--nmae x").contains("'--name'"));
}

#[test]
fn an_empty_variable_is_unset() {
    assert_eq!(load_with("", &[("SYNOD_NAME", "")]).unwrap().name, "default");
}

#[test]
fn a_server_must_find_itself_in_the_cluster() {
    assert_eq!(
        refused(&format!("--name d --initial-cluster {THREE}")),
        "--initial-cluster names a, b, c, but not --name d"
    );
    let elsewhere =
        refused(&format!("--name b --initial-cluster {THREE} --initial-advertise-peer-urls http://h:9"));
    assert!(elsewhere.contains("has b at http://h:2, but --initial-advertise-peer-urls is http://h:9"));
}

#[test]
fn contradictions_are_refused() {
    for name in ["a,b", "a=b"] {
        assert!(refused(&format!("--name {name}")).contains("a name has"), "{name}");
    }
    assert!(refused("--listen-client-urls http://0.0.0.0:1").contains("--advertise-client-urls"));
    assert!(refused("--listen-peer-urls http://0.0.0.0:1").contains("--initial-advertise-peer-urls"));
    assert!(refused("--listen-client-urls http://h:1 --listen-peer-urls http://h:1").contains("a port each"));
    assert!(refused("--heartbeat-interval 100ms --election-timeout 499ms").contains("five times"));
    assert!(refused("--heartbeat-interval 1ms").contains("at least 5ms"));
    assert!(refused("--election-timeout 51s").contains("at most 50s"));
    assert!(refused("--max-request-bytes 100").contains("at least 1024"));
    assert!(refused("--max-request-bytes 1000MiB").contains("at most"));
    assert!(refused("--log-level synod=loud").contains("write error, warn"));
}

#[test]
fn what_may_surprise_is_noticed() {
    assert!(load("--memory volatile").notices[0].contains("memory is volatile"));
    let four = load("--name a --initial-cluster a=http://h:1,b=http://h:2,c=http://h:3,d=http://h:4");
    assert_eq!(four.notices, ["4 servers can lose 1, no more than 3 can; use an odd number"]);
}

#[test]
fn ids_are_the_same_everywhere_and_differ_by_address_and_token() {
    let parse = |text: &str| text.split(',').map(|url| url.parse().unwrap()).collect::<Vec<HttpUrl>>();
    let id = |token, text| node_id(token, &parse(text));
    assert_eq!(id("t", "http://h:1,http://h:2"), id("t", "http://H:2/,http://h:1"));
    assert_ne!(id("t", "http://h:1"), id("u", "http://h:1"));
    assert_ne!(id("t", "http://h:1"), id("t", "http://h:2"));
    assert_ne!(id("t", "http://h:1"), id("t", "http://h:1,http://h:2"));
    // Written down in data directories and peers' logs: it must not change between releases.
    assert_eq!(id("etcd-cluster", "http://localhost:2380").0, load("").node.0);

    let on_a = load(&format!("--name a --initial-cluster {THREE}"));
    let on_b = load(&format!("--name b --initial-cluster {THREE}"));
    assert_eq!(on_a.members, on_b.members);
    assert_ne!(on_a.node, on_b.node);
}

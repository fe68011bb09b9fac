//! What a server is told before it starts.
//!
//! Four sources, each beating the one before: defaults, a TOML file, the environment, the command line.
//! All of them speak of the same settings ([`ServerFlags`]); together they make one [`ServerConfig`], which
//! is checked once, here, so that nothing behind this module meets a setting that makes no sense.
//!
//! The same command line starts a server for the first time and every time after. Who the servers are
//! follows from it: a server's id is a hash of the addresses where the others reach it and of the
//! cluster's token, so that all servers started from the same list know each other's ids before they talk.

mod flags;
mod sources;
pub mod units;
mod urls;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use synod_paxos::types::NodeId;
use xxhash_rust::xxh3::xxh3_64;

pub use flags::{LogFormat, Meaningless, MemoryMode, ServerFlags};
pub use urls::{ClusterError, HttpUrl, InitialCluster, UrlError, UrlList};

/// How five servers are started by hand; `synod server --help` ends with it.
pub const FIVE_SERVERS: &str = "\
A cluster of five on this machine, one line per terminal:

  C=n1=http://127.0.0.1:2380,n2=http://127.0.0.1:2382,n3=http://127.0.0.1:2384,n4=http://127.0.0.1:2386,n5=http://127.0.0.1:2388
  synod server --name n1 --listen-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 --initial-cluster $C
  synod server --name n2 --listen-client-urls http://127.0.0.1:2381 --listen-peer-urls http://127.0.0.1:2382 --initial-cluster $C
  synod server --name n3 --listen-client-urls http://127.0.0.1:2383 --listen-peer-urls http://127.0.0.1:2384 --initial-cluster $C
  synod server --name n4 --listen-client-urls http://127.0.0.1:2385 --listen-peer-urls http://127.0.0.1:2386 --initial-cluster $C
  synod server --name n5 --listen-client-urls http://127.0.0.1:2387 --listen-peer-urls http://127.0.0.1:2388 --initial-cluster $C

The same line starts a server again, whether its data is still there or not.

Every flag is also a variable (--data-dir is SYNOD_DATA_DIR) and a key of the file that --config
names (data-dir = \"/var/lib/synod\"). A flag beats a variable, a variable beats the file.";

/// The largest request that can be allowed, in bytes: what peers take in one piece, with room to spare.
pub const MOST_REQUEST_BYTES: usize = 32 << 20;

/// One server of the cluster, as the start line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredMember {
    /// Its name.
    pub name: String,
    /// Where the other servers reach it, in order.
    pub peer_urls: Vec<HttpUrl>,
}

/// How to run one server. Everything in it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// This server's name.
    pub name: String,
    /// This server's id.
    pub node: NodeId,
    /// All servers of the cluster, this one among them.
    pub members: BTreeMap<NodeId, ConfiguredMember>,
    /// What tells clusters on the same addresses apart.
    pub token: String,
    /// Where data is kept. Not used if memory is volatile.
    pub data_dir: PathBuf,
    /// Where to listen for clients.
    pub listen_client_urls: Vec<HttpUrl>,
    /// Where clients are told to connect.
    pub advertise_client_urls: Vec<HttpUrl>,
    /// Where to listen for other servers.
    pub listen_peer_urls: Vec<HttpUrl>,
    /// The largest encoded request that writes, in bytes (T-2).
    pub max_request_bytes: usize,
    /// How often a leader shows that it lives.
    pub heartbeat_interval: Duration,
    /// How long a silent leader is trusted; at least five heartbeats.
    pub election_timeout: Duration,
    /// On disk, or not.
    pub memory: MemoryMode,
    /// May it be broken on purpose?
    pub allow_faults: bool,
    /// Stop when standard input ends?
    pub exit_with_parent: bool,
    /// Which events are logged, in the language of `tracing_subscriber::EnvFilter`.
    pub log_level: String,
    /// How they are logged.
    pub log_format: LogFormat,
    /// Where the replica's trace goes, if it is wanted.
    pub trace_file: Option<PathBuf>,
    /// What the operator should know, though it is no error.
    pub notices: Vec<String>,
}

/// A setting that cannot be followed. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A variable of the environment.
    #[error("variable {variable}: {problem}")]
    Variable {
        /// Which.
        variable: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not TOML: {problem}", path.display())]
    NotToml {
        /// Which file.
        path: PathBuf,
        /// Where it ceases to be.
        problem: String,
    },
    /// A key of the file.
    #[error("{} line {line}, key {key:?}: {problem}", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Where in it, from 1.
        line: usize,
        /// Which key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The name is empty or cannot be part of a list.
    #[error("--name {0:?}: a name has at least one character, and no comma, equals sign or space")]
    BadName(String),
    /// The server is not in the list of all servers.
    #[error("--initial-cluster names {}, but not --name {name}", known.join(", "))]
    NotListed {
        /// This server's name.
        name: String,
        /// The names in the list.
        known: Vec<String>,
    },
    /// The list of all servers has this one elsewhere.
    #[error(
        "--initial-cluster has {name} at {listed}, but --initial-advertise-peer-urls is {advertised}; \
         they must be the same"
    )]
    AdvertisedElsewhere {
        /// This server's name.
        name: String,
        /// Where the list has it.
        listed: UrlList,
        /// Where it says it is.
        advertised: UrlList,
    },
    /// Others would be told to connect to no address in particular.
    #[error("nobody can connect to {url}: say with {flag} where this server is reached")]
    Wildcard {
        /// The address.
        url: HttpUrl,
        /// The flag that helps.
        flag: &'static str,
    },
    /// Clients and servers cannot share a port.
    #[error("{0} is in both --listen-client-urls and --listen-peer-urls; they need a port each")]
    SharedPort(HttpUrl),
    /// Leaders would be suspected before they had a chance to be heard.
    #[error(
        "--election-timeout {election:?} is too short for --heartbeat-interval {heartbeat:?}: \
         it must be at least five times as long"
    )]
    ElectionTooShort {
        /// The one.
        election: Duration,
        /// The other.
        heartbeat: Duration,
    },
    /// A time is out of its bounds.
    #[error("{flag} {given:?} must be at least {least:?} and at most {most:?}")]
    Time {
        /// Which.
        flag: &'static str,
        /// What was asked for.
        given: Duration,
        /// The least that makes sense.
        least: Duration,
        /// The most that makes sense.
        most: Duration,
    },
    /// The request limit is out of its bounds.
    #[error("--max-request-bytes {given} must be at least 1024 and at most {MOST_REQUEST_BYTES}")]
    RequestLimit {
        /// What was asked for, in bytes.
        given: usize,
    },
    /// The log filter cannot be read.
    #[error("--log-level {level:?}: {problem}; write error, warn, info, debug or trace")]
    LogLevel {
        /// What was asked for.
        level: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl ServerConfig {
    /// Puts together what the command line says (`flags`), what the environment says (`variable` looks
    /// one up), what the file says that one of the two names, and the defaults.
    ///
    /// # Errors
    /// The first setting that cannot be followed.
    pub fn load(
        flags: ServerFlags,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<ServerConfig, ConfigError> {
        let mut settings = flags.over(sources::environment(&variable)?);
        if let Some(path) = settings.config.take() {
            settings = settings.over(sources::file(&path)?);
        }
        settle(settings)
    }

    /// The time the server gives a request before it answers that it timed out (T-5).
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }
}

/// The id of the server that is reached at `peer_urls`, in the clusters with this token: the same wherever
/// and in whatever order it is computed, never zero.
pub fn node_id(token: &str, peer_urls: &[HttpUrl]) -> NodeId {
    let urls: BTreeSet<String> = peer_urls.iter().map(HttpUrl::to_string).collect();
    let mut text = token.as_bytes().to_vec();
    for url in urls {
        text.push(0);
        text.extend_from_slice(url.as_bytes());
    }
    NodeId(xxh3_64(&text).max(1))
}

/// Fills in the defaults, and checks.
fn settle(settings: ServerFlags) -> Result<ServerConfig, ConfigError> {
    let name = settings.name.unwrap_or_else(|| "default".to_owned());
    if name.is_empty() || name.contains([',', '=']) || name.contains(char::is_whitespace) {
        return Err(ConfigError::BadName(name));
    }
    let token = settings.initial_cluster_token.unwrap_or_else(|| "etcd-cluster".to_owned());
    let urls_or = |urls: Option<UrlList>, port| urls.map_or_else(|| vec![HttpUrl::localhost(port)], |u| u.0);
    let listen_client_urls = urls_or(settings.listen_client_urls, 2379);
    let listen_peer_urls = urls_or(settings.listen_peer_urls, 2380);
    if let Some(url) = listen_client_urls.iter().find(|url| url.port() != 0 && listen_peer_urls.contains(url))
    {
        return Err(ConfigError::SharedPort(url.clone()));
    }
    let advertise_client_urls =
        settings.advertise_client_urls.map_or_else(|| listen_client_urls.clone(), |urls| urls.0);
    reachable(&advertise_client_urls, "--advertise-client-urls")?;

    let listed =
        members(&name, settings.initial_cluster, settings.initial_advertise_peer_urls, &listen_peer_urls)?;
    let mut notices = notices(&settings.meaningless, &listed);
    let node = node_id(&token, &listed[&name]);
    let mut members = BTreeMap::new();
    for (name, peer_urls) in listed {
        let id = node_id(&token, &peer_urls);
        let before = members.insert(id, ConfiguredMember { name, peer_urls });
        assert!(before.is_none(), "two lists of addresses with one 64-bit hash");
    }

    let (heartbeat, election) = patience(settings.heartbeat_interval, settings.election_timeout);
    within("--heartbeat-interval", heartbeat, Duration::from_millis(5), Duration::from_secs(10))?;
    within("--election-timeout", election, Duration::from_millis(50), Duration::from_secs(50))?;
    if election < 5 * heartbeat {
        return Err(ConfigError::ElectionTooShort { election, heartbeat });
    }
    let max_request_bytes = settings.max_request_bytes.unwrap_or(3 << 19);
    if !(1024..=MOST_REQUEST_BYTES).contains(&max_request_bytes) {
        return Err(ConfigError::RequestLimit { given: max_request_bytes });
    }
    let log_level = settings.log_level.unwrap_or_else(|| "info".to_owned());
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&log_level) {
        return Err(ConfigError::LogLevel { level: log_level, problem: error.to_string() });
    }
    let memory = settings.memory.unwrap_or_default();
    if memory == MemoryMode::Volatile {
        notices.push(
            "memory is volatile: what this server knows is gone when it stops, and a cluster that loses a \
             majority at once is lost"
                .to_owned(),
        );
    }
    Ok(ServerConfig {
        data_dir: settings.data_dir.unwrap_or_else(|| PathBuf::from(format!("{name}.synod"))),
        name,
        node,
        members,
        token,
        listen_client_urls,
        advertise_client_urls,
        listen_peer_urls,
        max_request_bytes,
        heartbeat_interval: heartbeat,
        election_timeout: election,
        memory,
        allow_faults: settings.allow_faults.unwrap_or(false),
        exit_with_parent: settings.exit_with_parent.unwrap_or(false),
        log_level,
        log_format: settings.log_format.unwrap_or_default(),
        trace_file: settings.trace_file,
        notices,
    })
}

/// All servers by name. Where two settings say where this one is, they must agree; where one does, it is
/// believed; where none does, it is where it listens.
fn members(
    name: &str,
    cluster: Option<InitialCluster>,
    advertised: Option<UrlList>,
    listen: &[HttpUrl],
) -> Result<BTreeMap<String, Vec<HttpUrl>>, ConfigError> {
    let members = match cluster {
        Some(InitialCluster(members)) => {
            let Some(listed) = members.get(name) else {
                let known = members.into_keys().collect();
                return Err(ConfigError::NotListed { name: name.to_owned(), known });
            };
            if let Some(advertised) = advertised {
                let set = |urls: &[HttpUrl]| urls.iter().cloned().collect::<BTreeSet<_>>();
                if set(listed) != set(&advertised.0) {
                    let (name, listed) = (name.to_owned(), UrlList(listed.clone()));
                    return Err(ConfigError::AdvertisedElsewhere { name, listed, advertised });
                }
            }
            members
        }
        None => {
            let urls = advertised.map_or_else(|| listen.to_vec(), |urls| urls.0);
            BTreeMap::from([(name.to_owned(), urls)])
        }
    };
    for urls in members.values() {
        reachable(urls, "--initial-advertise-peer-urls and --initial-cluster")?;
    }
    Ok(members)
}

fn reachable(urls: &[HttpUrl], flag: &'static str) -> Result<(), ConfigError> {
    match urls.iter().find(|url| url.is_wildcard()) {
        Some(url) => Err(ConfigError::Wildcard { url: url.clone(), flag }),
        None => Ok(()),
    }
}

/// How often a leader speaks, and how long it may be silent: whichever is not given suits the other.
/// The defaults are a quarter of etcd's, because suspecting a leader wrongly costs little here: the others
/// are asked first.
fn patience(heartbeat: Option<Duration>, election: Option<Duration>) -> (Duration, Duration) {
    const HEARTBEAT: Duration = Duration::from_millis(25);
    const ELECTION: Duration = Duration::from_millis(250);
    match (heartbeat, election) {
        (Some(heartbeat), Some(election)) => (heartbeat, election),
        (Some(heartbeat), None) => (heartbeat, ELECTION.max(10 * heartbeat)),
        (None, Some(election)) => (HEARTBEAT.min(election / 10), election),
        (None, None) => (HEARTBEAT, ELECTION),
    }
}

fn within(flag: &'static str, given: Duration, least: Duration, most: Duration) -> Result<(), ConfigError> {
    if (least..=most).contains(&given) { Ok(()) } else { Err(ConfigError::Time { flag, given, least, most }) }
}

fn notices(meaningless: &Meaningless, members: &BTreeMap<String, Vec<HttpUrl>>) -> Vec<String> {
    let mut notices = Vec::new();
    if !meaningless.0.is_empty() {
        let given: BTreeSet<_> = meaningless.0.iter().collect();
        let given: Vec<_> = given.iter().map(|(name, reason)| format!("--{name} ({reason})")).collect();
        notices.push(format!("taken and without effect: {}", given.join(", ")));
    }
    for (name, urls) in members.iter().filter(|(_, urls)| urls.len() > 1) {
        notices.push(format!("{name} is one server with {} peer addresses", urls.len()));
    }
    if members.len().is_multiple_of(2) {
        let (all, fewer, lost) = (members.len(), members.len() - 1, (members.len() - 1) / 2);
        notices.push(format!("{all} servers can lose {lost}, no more than {fewer} can; use an odd number"));
    }
    notices
}

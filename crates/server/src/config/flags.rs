//! What can be set, said once: as a flag, as a variable, as a key of the file.
//!
//! Flags that etcd has, too, bear its names, so that an etcd start line works with the program's name
//! changed. Some of them mean nothing here; they are taken and named in one notice. Those whose absence
//! would matter, such as certificates, are not taken.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, ValueEnum};

use super::units;
use super::urls::{InitialCluster, UrlList};

/// Where a server keeps what it must not forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum MemoryMode {
    /// On disk; a server that restarts remembers.
    #[default]
    Durable,
    /// In memory; a server that restarts comes back with nothing and is admitted anew.
    Volatile,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object per line.
    Json,
}

/// Everything that can be set, as far as one source sets it: the command line, the environment, the file.
/// [`super::ServerConfig::load`] puts the sources together.
#[derive(Args, Clone, Debug, Default)]
pub struct ServerFlags {
    /// The server's name in --initial-cluster [default: default]
    #[arg(long)]
    pub name: Option<String>,

    /// Where the server keeps its data [default: NAME.synod]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where to listen for clients [default: http://localhost:2379]
    #[arg(long, value_name = "URLS")]
    pub listen_client_urls: Option<UrlList>,

    /// Where clients reach this server [default: where it listens]
    #[arg(long, value_name = "URLS")]
    pub advertise_client_urls: Option<UrlList>,

    /// Where to listen for the other servers [default: http://localhost:2380]
    #[arg(long, value_name = "URLS")]
    pub listen_peer_urls: Option<UrlList>,

    /// Where the other servers reach this one [default: as --initial-cluster says]
    #[arg(long, value_name = "URLS")]
    pub initial_advertise_peer_urls: Option<UrlList>,

    /// All servers, this one too: n1=http://host:port,n2=... [default: this one alone]
    #[arg(long, value_name = "NAME=URL,...")]
    pub initial_cluster: Option<InitialCluster>,

    /// Tells clusters on the same addresses apart; the same on all servers [default: etcd-cluster]
    #[arg(long, value_name = "TOKEN")]
    pub initial_cluster_token: Option<String>,

    /// The largest request that writes, such as 1572864 or 1.5MiB [default: 1.5MiB]
    #[arg(long, value_name = "SIZE", value_parser = units::bytes)]
    pub max_request_bytes: Option<usize>,

    /// How often a leader shows that it lives; a bare number is milliseconds [default: 25ms]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub heartbeat_interval: Option<Duration>,

    /// How long a silent leader is trusted; at least five heartbeats [default: 250ms]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub election_timeout: Option<Duration>,

    /// Where the server keeps what it must not forget [default: durable]
    #[arg(long, value_enum, value_name = "MODE")]
    pub memory: Option<MemoryMode>,

    /// Let `synod fault` break this server on purpose
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub allow_faults: Option<bool>,

    /// Stop when standard input ends, as it does when the process that started this one dies
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub exit_with_parent: Option<bool>,

    /// error, warn, info, debug or trace; or by module, such as info,synod_paxos=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log_level: Option<String>,

    /// How log lines look [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Write all that the replica does to a file, for `synod trace`; for hours, not for months
    #[arg(long, value_name = "FILE")]
    pub trace_file: Option<PathBuf>,

    /// A TOML file with any of these, by their long names
    #[arg(long, alias = "config-file", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Flags of etcd that mean nothing here.
    #[command(flatten)]
    pub meaningless: Meaningless,
}

impl ServerFlags {
    /// What is set here, and for the rest what is set in `lower`.
    pub(super) fn over(self, lower: ServerFlags) -> ServerFlags {
        let mut meaningless = self.meaningless;
        meaningless.0.extend(lower.meaningless.0);
        ServerFlags {
            name: self.name.or(lower.name),
            data_dir: self.data_dir.or(lower.data_dir),
            listen_client_urls: self.listen_client_urls.or(lower.listen_client_urls),
            advertise_client_urls: self.advertise_client_urls.or(lower.advertise_client_urls),
            listen_peer_urls: self.listen_peer_urls.or(lower.listen_peer_urls),
            initial_advertise_peer_urls: self
                .initial_advertise_peer_urls
                .or(lower.initial_advertise_peer_urls),
            initial_cluster: self.initial_cluster.or(lower.initial_cluster),
            initial_cluster_token: self.initial_cluster_token.or(lower.initial_cluster_token),
            max_request_bytes: self.max_request_bytes.or(lower.max_request_bytes),
            heartbeat_interval: self.heartbeat_interval.or(lower.heartbeat_interval),
            election_timeout: self.election_timeout.or(lower.election_timeout),
            memory: self.memory.or(lower.memory),
            allow_faults: self.allow_faults.or(lower.allow_faults),
            exit_with_parent: self.exit_with_parent.or(lower.exit_with_parent),
            log_level: self.log_level.or(lower.log_level),
            log_format: self.log_format.or(lower.log_format),
            trace_file: self.trace_file.or(lower.trace_file),
            config: self.config.or(lower.config),
            meaningless,
        }
    }
}

/// Flags of etcd that were given and change nothing, each with the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meaningless(pub Vec<(&'static str, &'static str)>);

/// Which flags these are, and why they mean nothing.
const MEANINGLESS: &[(&str, &str)] = &[
    ("initial-cluster-state", "a server finds out by itself whether there is a cluster"),
    ("initial-election-tick-advance", "elections need no head start"),
    ("logger", "there is one logger; see --log-format"),
    ("log-outputs", "logs go to standard error"),
    ("log-rotation-config-json", "logs go to standard error"),
    ("enable-log-rotation", "logs go to standard error"),
    ("snapshot-count", "checkpoints are taken as the log grows"),
    ("max-snapshots", "old checkpoints go when a newer one is safe"),
    ("max-wals", "old log goes when no replica wants it any more"),
    ("quota-backend-bytes", "there is no quota yet"),
    ("backend-bbolt-freelist-type", "there is no bbolt"),
    ("backend-batch-interval", "batches are whatever waits"),
    ("backend-batch-limit", "batches are whatever waits"),
    ("auto-compaction-mode", "history is kept until a client compacts it"),
    ("auto-compaction-retention", "history is kept until a client compacts it"),
    ("enable-v2", "there is no v2 API"),
    ("enable-grpc-gateway", "there is no JSON gateway yet"),
    ("enable-pprof", "there is no Go in here"),
    ("metrics", "all metrics are always there"),
    ("strict-reconfig-check", "members that cannot vote never count"),
    ("pre-vote", "a replica always asks the others before it campaigns"),
    ("experimental-initial-corrupt-check", "the log is checked at every start"),
    ("experimental-corrupt-check-time", "replicas compare their state as they go"),
    ("unsafe-no-fsync", "see --memory volatile"),
];

impl Args for Meaningless {
    fn augment_args(command: Command) -> Command {
        MEANINGLESS.iter().fold(command, |command, (name, reason)| {
            command.arg(Arg::new(*name).long(*name).num_args(0..=1).help(*reason).hide(true))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Meaningless {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Meaningless, clap::Error> {
        let given = MEANINGLESS.iter().filter(|(name, _)| matches.contains_id(name));
        Ok(Meaningless(given.copied().collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(Meaningless::from_arg_matches(matches)?.0);
        Ok(())
    }
}

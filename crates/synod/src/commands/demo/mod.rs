//! `demo`: a cluster, a workload, faults, and the proof that nothing was lost.
//!
//! The story, told on the screen as it happens: servers start on free loopback
//! ports and form a cluster; keys are written through different replicas; then
//! parts of replicas fail and come back at random while clients put, get and
//! delete through replicas picked at random. When enough has happened the faults
//! end, and the run is judged: see [`verdict`].
//!
//! The servers are processes of this very executable, so what is shown is what
//! `synod server` does, and not a rehearsal of it.

mod display;
mod faults;
mod verdict;
mod workload;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use synod_sim::{Key, Moment};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::display::{Incident, Kind, Screen};
use self::verdict::Findings;
use self::workload::Goal;
use crate::cluster::call::Done;
use crate::cluster::judge::{self, Check, State};
use crate::cluster::record::Recorder;
use crate::cluster::signals::Signals;
use crate::cluster::{self, Cluster, Memory, Node, Program, Site};
use crate::duration;
use crate::failed::{Failed, Why};
use crate::options::Context;
use crate::output::Format;

const EXAMPLES: &str = "\
Examples:
  synod demo                                      five replicas, failing acceptors, a verdict
  synod demo --faults roles --memory volatile     any role fails, and forgets everything
  synod demo --faults processes                   kill -9, and again
  synod demo --ops 200 --pause 5ms --quiet        more of it, less of it on the screen
  synod demo --keep                               play with the cluster afterwards
  synod demo --faults roles --memory volatile --beyond-minority
                                                  more than Paxos promises: it stops, and never lies

Exit codes: 0 nothing was lost, 1 the run itself failed, 3 the store was wrong.";

/// How many faults must have struck while a client waited for an answer.
const STRIKES_MIN: u32 = 3;
/// What the clients may take beyond what they need on a good day.
const PATIENCE: Duration = Duration::from_secs(15);

/// How the demo is to be.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// How many servers
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=9))]
    replicas: u8,

    /// How many clients [default: as many as replicas]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    clients: Option<u32>,

    /// Puts, gets and deletes that each client does at least
    #[arg(long, value_name = "N", default_value_t = 5)]
    ops: u32,

    /// Go on for at least so long
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    duration: Option<Duration>,

    /// Keys that are written before the clients begin, and used by them
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    prepopulate: u32,

    /// Mean time that a client waits between two operations
    #[arg(long, value_name = "DURATION", default_value = "120ms", value_parser = duration::parse)]
    pause: Duration,

    /// What fails
    #[arg(long, value_enum, default_value_t = Faults::Acceptors)]
    faults: Faults,

    /// What the servers remember when they, or their roles, come back
    #[arg(long, value_enum, default_value_t = Memory::Durable)]
    memory: Memory,

    /// Mean time that a replica works before something of it fails
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration::parse)]
    mean_up: Duration,

    /// Mean time that it stays down
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = duration::parse)]
    mean_down: Duration,

    /// Let more than a minority fail at a time
    #[arg(long)]
    beyond_minority: bool,

    /// What is random is made of this number [default: a random one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Use consecutive ports from here, two for each replica [default: free ones]
    #[arg(long, value_name = "PORT")]
    port_base: Option<u16>,

    /// Leave the cluster up after the verdict, until Ctrl-C
    #[arg(long)]
    keep: bool,

    /// Show only the verdict
    #[arg(long, short)]
    quiet: bool,
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Faults {
    /// The acceptor of a replica, which votes and remembers
    Acceptors,
    /// Any role of a replica: proposer, acceptor or learner
    Roles,
    /// The whole server, by kill -9
    Processes,
    /// Nothing
    None,
}

/// Who draws from chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// A client, by number.
    Client(u32),
    /// The faults of a replica, by its place.
    Faults(usize),
}

impl Part {
    /// No two parts have the same.
    fn stream(self) -> u64 {
        match self {
            Part::Client(number) => 2 * u64::from(number),
            Part::Faults(place) => 2 * place as u64 + 1,
        }
    }
}

/// What all parts of a run share.
struct Stage {
    seed: u64,
    nodes: Vec<Arc<Node>>,
    keys: Vec<Key>,
    recorder: Arc<Recorder>,
    screen: Screen,
    /// What the clients did.
    done: Mutex<Vec<Done>>,
    faults: AtomicU32,
    /// Faults that struck while a request was open.
    struck: AtomicU32,
    leaders: AtomicU32,
    /// A replica did not come back: waiting for more faults makes no sense.
    trouble: AtomicBool,
}

impl Stage {
    /// An operation ended.
    fn done(&self, done: &Done) {
        self.screen.operation(done);
        self.done.lock().expect("nobody panics while counting").push(done.clone());
    }

    /// Something befell a replica.
    fn incident(&self, kind: Kind, node: &str, text: &str) {
        let at = self.recorder.now();
        self.screen.incident(&Incident { at, kind, node: node.to_owned(), text: text.to_owned() });
    }

    /// A fault was caused between `sent` and now.
    fn struck(&self, sent: Moment) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        if self.recorder.open_since(sent) {
            self.struck.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn seen_enough(&self, goal: &Goal) -> bool {
        let struck = self.struck.load(Ordering::Relaxed) >= goal.strikes;
        Instant::now() >= goal.not_before && (struck || self.trouble.load(Ordering::Relaxed))
    }
}

/// Runs the demo and judges it.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failed> {
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u16>()));
    let args = Args { seed: Some(seed), ..args };
    args.check()?;
    let mut signals = Signals::listen()?;
    let told = tokio::select! {
        told = tell(&args, seed, context) => Ok(told?),
        code = signals.next() => Err(code),
    };
    let (stage, cluster, findings) = told.unwrap_or_else(|code| {
        // The story was dropped: servers are killed, and their data is removed.
        eprintln!("interrupted: no verdict");
        std::process::exit(code)
    });
    stage.screen.findings(&findings);
    if args.keep {
        tokio::select! {
            failed = keep(&stage.screen, &cluster) => return Err(failed),
            _ = signals.next() => {}
        }
    }
    match findings.state() {
        State::Right => Ok(()),
        State::Wrong => Err(Failed::wrong()),
        State::Unknown => Err(Failed::silently()),
    }
}

impl Args {
    /// Refuses what cannot be done.
    fn check(&self) -> Result<(), Failed> {
        let replicas = usize::from(self.replicas);
        if self.faults != Faults::None && !self.beyond_minority && faults::minority(replicas) == 0 {
            let what = format!("of {replicas} replicas none may fail if a majority is to stay");
            return Err(Failed::usage(Why::Arguments, what)
                .hint("Take --replicas 3 or more, --faults none, or --beyond-minority."));
        }
        Ok(())
    }

    fn clients(&self) -> u32 {
        self.clients.unwrap_or(u32::from(self.replicas))
    }

    fn goal(&self) -> Goal {
        let now = Instant::now();
        let not_before = now + self.duration.unwrap_or_default();
        // On a good day an operation takes some milliseconds.
        let one = self.pause + Duration::from_millis(10);
        let needed = one.saturating_mul(self.ops.saturating_mul(3).saturating_mul(2));
        Goal {
            each: self.ops as usize,
            pause: self.pause,
            not_before,
            strikes: if self.faults == Faults::None { 0 } else { STRIKES_MIN },
            deadline: not_before + needed + PATIENCE,
        }
    }

    /// The command line of this run, without what is the default anyway.
    fn again(&self) -> String {
        let mut line = vec!["synod demo".to_owned()];
        let mut say = |differs: bool, flag: String| {
            if differs {
                line.push(flag);
            }
        };
        let name = |value: Option<clap::builder::PossibleValue>| {
            value.map(|value| value.get_name().to_owned()).unwrap_or_default()
        };
        say(self.replicas != 5, format!("--replicas {}", self.replicas));
        say(self.clients.is_some(), format!("--clients {}", self.clients()));
        say(self.ops != 5, format!("--ops {}", self.ops));
        say(self.duration.is_some(), format!("--duration {}", in_ms(self.duration.unwrap_or_default())));
        say(self.prepopulate != 10, format!("--prepopulate {}", self.prepopulate));
        say(self.pause != Duration::from_millis(120), format!("--pause {}", in_ms(self.pause)));
        say(self.faults != Faults::Acceptors, format!("--faults {}", name(self.faults.to_possible_value())));
        say(self.memory != Memory::Durable, format!("--memory {}", name(self.memory.to_possible_value())));
        say(self.mean_up != Duration::from_secs(1), format!("--mean-up {}", in_ms(self.mean_up)));
        say(self.mean_down != Duration::from_millis(500), format!("--mean-down {}", in_ms(self.mean_down)));
        say(self.beyond_minority, "--beyond-minority".to_owned());
        say(self.seed.is_some(), format!("--seed {}", self.seed.unwrap_or_default()));
        line.join(" ")
    }
}

fn in_ms(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

/// The whole story, up to what was found. Dropping it, or the cluster it returns,
/// kills the servers and removes their data.
async fn tell(args: &Args, seed: u64, context: &Context) -> Result<(Arc<Stage>, Cluster, Findings), Failed> {
    let screen = Screen::new(context.format == Format::Json, args.quiet, context.colour);
    let plan = cluster::Plan {
        prefix: "synod-demo-",
        program: Program::Own,
        sites: vec![Site::loopback(); usize::from(args.replicas)],
        memory: args.memory,
        port_base: args.port_base,
    };
    screen.note(&format!(
        "synod {}, {} replicas, each a process of its own; their data is gone at the end",
        env!("CARGO_PKG_VERSION"),
        args.replicas
    ));
    let began = Instant::now();
    let cluster = start(&plan, &screen).await?;
    let leader = cluster.leader().await.unwrap_or_else(|| "unknown".to_owned());
    screen.note(&format!(
        "formed a cluster in {:.1} s, leader {leader}   try: synod --endpoints {} status",
        began.elapsed().as_secs_f64(),
        cluster.endpoints()
    ));

    let stage = Arc::new(Stage {
        seed,
        nodes: cluster.nodes.clone(),
        keys: workload::keys(args.prepopulate as usize),
        recorder: Recorder::new(),
        screen,
        done: Mutex::default(),
        faults: AtomicU32::new(0),
        struck: AtomicU32::new(0),
        leaders: AtomicU32::new(0),
        trouble: AtomicBool::new(false),
    });
    let ended = tokio::select! {
        failed = cluster.until_one_dies() => Err(failed),
        checks = act(&stage, args, &cluster) => checks,
    };
    let findings = findings(&stage, args, ended?);
    Ok((stage, cluster, findings))
}

async fn start(plan: &cluster::Plan, screen: &Screen) -> Result<Cluster, Failed> {
    // Draws on standard error, and only if that is a terminal.
    let bar = ProgressBar::new(plan.sites.len() as u64);
    let style = ProgressStyle::with_template("starting servers {bar:20} {pos}/{len}  {msg}");
    bar.set_style(style.expect("the template is sound"));
    bar.tick();
    let started = Cluster::start(plan, |what| {
        if what.ends_with("ready") {
            bar.inc(1);
        }
        bar.set_message(what.to_owned());
    })
    .await;
    bar.finish_and_clear();
    if let Ok(cluster) = &started {
        for node in &cluster.nodes {
            screen.note(&format!("{}  {}", node.name, node.url));
        }
    }
    started
}

/// Set-up, faults and clients, and what was found afterwards.
async fn act(stage: &Arc<Stage>, args: &Args, cluster: &Cluster) -> Result<Vec<Check>, Failed> {
    workload::set_up(stage).await.map_err(|why| cluster.failed(&why))?;
    stage.screen.note(&format!("{} keys written, through one replica after the other", stage.keys.len()));

    let mut listeners = JoinSet::new();
    for node in &stage.nodes {
        listeners.spawn(faults::listen(Arc::clone(stage), Arc::clone(node)));
    }
    let (stop, stopped) = watch::channel(false);
    let replicas = stage.nodes.len();
    let plan = faults::Plan {
        faults: args.faults,
        memory: args.memory,
        mean_up: args.mean_up,
        mean_down: args.mean_down,
        at_most: if args.beyond_minority { replicas } else { faults::minority(replicas) },
    };
    let failing = faults::begin(stage, plan, &stopped);

    let goal = args.goal();
    let mut clients = JoinSet::new();
    for number in 1..=args.clients() {
        clients.spawn(workload::client(Arc::clone(stage), number, goal));
    }
    let mut undone = 0;
    while let Some(client) = clients.join_next().await {
        undone += client.expect("clients do not panic");
    }

    stop.send_replace(true);
    let mut problems = Vec::new();
    if undone > 0 {
        problems.push(format!("{undone} operations of the clients' minimum were not done in time"));
    }
    problems.extend(faults::end(failing).await.err());
    // What healing says of itself is not news.
    listeners.shutdown().await;
    problems.extend(faults::heal(stage).await.err());
    let struck = stage.struck.load(Ordering::Relaxed);
    if struck < goal.strikes {
        problems
            .push(format!("only {struck} faults struck while requests were open: too calm to prove much"));
    }
    stage.screen.note("the faults have ended; now the verdict");
    let mut checks: Vec<Check> = problems.into_iter().map(|why| Check::unknown("run", why)).collect();
    checks.extend(judge::examine(&stage.recorder, cluster, &stage.keys).await);
    Ok(checks)
}

fn findings(stage: &Stage, args: &Args, checks: Vec<Check>) -> Findings {
    let done = stage.done.lock().expect("nobody panics while counting");
    let by_clients: Vec<Done> = done.iter().filter(|done| done.operation.client.0 != 0).cloned().collect();
    Findings {
        operations: verdict::rows(&by_clients),
        faults: stage.faults.load(Ordering::Relaxed),
        struck: stage.struck.load(Ordering::Relaxed),
        leaders: stage.leaders.load(Ordering::Relaxed),
        verdict: judge::in_a_sentence(&checks).to_owned(),
        checks,
        seed: stage.seed,
        again: args.again(),
    }
}

/// Leaves the cluster up and says how to reach it. Returns if a server dies.
async fn keep(screen: &Screen, cluster: &Cluster) -> Failed {
    screen.note(&format!(
        "the cluster stays up until Ctrl-C; data and logs are in {}\n  export SYNOD_ENDPOINTS={}\n  \
         synod status\n  synod get --prefix fruit/",
        cluster.folder().display(),
        cluster.endpoints()
    ));
    cluster.until_one_dies().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Line::try_parse_from(std::iter::once("demo").chain(line.split_whitespace())).map(|line| line.args)
    }

    #[test]
    fn no_two_parts_draw_from_the_same_stream() {
        let clients = (0..20).map(Part::Client);
        let streams: std::collections::BTreeSet<u64> =
            clients.chain((0..20).map(Part::Faults)).map(Part::stream).collect();
        assert_eq!(streams.len(), 40);
    }

    #[test]
    fn the_line_to_run_it_again_says_what_differs() {
        assert_eq!(parse("--seed 7").unwrap().again(), "synod demo --seed 7");
        let line = "--replicas 3 --clients 4 --ops 9 --duration 2500ms --prepopulate 20 --pause 5ms \
                    --faults roles --memory volatile --mean-up 2000ms --mean-down 100ms --beyond-minority --seed 3";
        assert_eq!(parse(line).unwrap().again(), format!("synod demo {line}"));
    }

    #[test]
    fn too_few_replicas_cannot_lose_one() {
        assert!(parse("--replicas 2").unwrap().check().is_err());
        assert!(parse("--replicas 2 --faults none").unwrap().check().is_ok());
        assert!(parse("--replicas 2 --beyond-minority").unwrap().check().is_ok());
        assert!(parse("--replicas 3").unwrap().check().is_ok());
        assert!(parse("--replicas 0").is_err());
    }

    #[test]
    fn the_goal_leaves_time_for_what_it_asks() {
        let goal = parse("--ops 100 --pause 100ms --duration 1m").unwrap().goal();
        assert!(goal.deadline - goal.not_before >= Duration::from_secs(30));
        assert_eq!(goal.strikes, STRIKES_MIN);
        assert_eq!(parse("--faults none").unwrap().goal().strikes, 0);
    }
}

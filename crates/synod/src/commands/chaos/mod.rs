//! `chaos`: real servers, real faults, one after the other, and the judgement of what clients saw.
//!
//! Where `demo` shows that one thing at a time may fail, this is the long test: servers as processes of this very
//! executable, on a network and a disk of their own where the user may have that; a workload that never pauses; a
//! plan of faults made of a seed; and after each fault the wait until all is well again, within a bound. At the
//! end the same judges decide as for the demo, and the report says what each kind of fault cost those who had
//! done nothing wrong.

mod disk;
mod display;
mod health;
mod network;
mod plan;
mod report;
mod stage;
mod strike;
mod workload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use synod_sim::{Key, Moment};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::disk::SmallDisk;
use self::display::Screen;
use self::health::Expect;
use self::network::{Links, Network};
use self::plan::{Kind, Plan};
use self::report::{Course, Line, Report, Skipped};
use self::stage::Stage;
use self::strike::Field;
use crate::cluster::judge::{self, Check, State};
use crate::cluster::signals::Signals;
use crate::cluster::{self, Cluster, Memory, Program};
use crate::duration;
use crate::failed::Failed;
use crate::options::Context;
use crate::output::{Format, json};

const EXAMPLES: &str = "\
Examples:
  synod chaos                                              every kind of fault, for a minute
  synod chaos --duration 5m --seed 7
  synod chaos --faults leader-kill --episodes 20 --duration 10m
  synod chaos --faults cut,one-way,bridge --links built-in
  synod chaos --output json > report.json                  what happens meanwhile is on standard error

Network namespaces and a small disk need root; without it, links are cut inside the servers, and disks are not
filled. Exit codes: 0 nothing was lost and every fault was survived in time, 1 anything else.";

/// Clients' keys for each client: few enough that they meet, many enough that the judges stay fast.
const KEYS_PER_CLIENT: u32 = 4;
/// How long a client may take to end: the time that a call may take, and some.
const CLIENTS_END_WITHIN: Duration = Duration::from_secs(10);

/// How the chaos is to be.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// How long faults go on; the last one is waited for
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration::parse)]
    duration: Duration,

    /// End after so many faults, even if there is time for more
    #[arg(long, value_name = "N")]
    episodes: Option<usize>,

    /// What is random is made of this number [default: a random one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// How many servers
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(3..=9))]
    nodes: u8,

    /// How many clients
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=500))]
    clients: u32,

    /// Kinds of faults [default: all that this user can have]
    #[arg(long, value_name = "KIND,...", value_delimiter = ',', value_enum)]
    faults: Vec<Kind>,

    /// How links are cut
    #[arg(long, value_name = "HOW", value_enum, default_value_t = HowLinks::Auto)]
    links: HowLinks,

    /// Leave data, logs and history behind, and say where; a run that fails always does
    #[arg(long)]
    keep: bool,
}

/// How links are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum HowLinks {
    /// In network namespaces if possible
    Auto,
    /// In network namespaces; needs root and `ip`
    Namespaces,
    /// In the servers, as `synod fault link` does
    BuiltIn,
}

/// Runs the chaos and judges it.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failed> {
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u16>()));
    let as_json = context.format == Format::Json;
    let screen = Screen::new(as_json);
    let mut signals = Signals::listen()?;
    let told = tokio::select! {
        told = tell(&args, seed, screen) => Ok(told?),
        code = signals.next() => Err(code),
    };
    let (report, stage) = told.unwrap_or_else(|code| {
        // The story was dropped: servers are killed, and network, disk and data are gone.
        eprintln!("interrupted: no verdict");
        std::process::exit(code)
    });
    stage.screen.print(&if as_json { json::line(&report) } else { report.text() });
    match judge::worst(&report.checks) {
        State::Right => Ok(()),
        State::Wrong | State::Unknown => Err(Failed::silently()),
    }
}

/// What the faults need, as far as this user can have it.
struct Ground {
    links: Links,
    disk: Option<(usize, SmallDisk)>,
    kinds: Vec<Kind>,
    skipped: Vec<Skipped>,
}

impl Args {
    fn servers(&self) -> usize {
        usize::from(self.nodes)
    }

    /// The command line that draws the same faults.
    fn again(&self, seed: u64) -> String {
        let mut line = format!("synod chaos --duration {}s --seed {seed}", self.duration.as_secs_f64());
        let mut say = |differs: bool, flag: String| {
            if differs {
                line.push_str(&flag);
            }
        };
        let faults: Vec<String> = self.faults.iter().map(|kind| kind.name()).collect();
        let links = self.links.to_possible_value().map(|value| value.get_name().to_owned());
        say(self.episodes.is_some(), format!(" --episodes {}", self.episodes.unwrap_or_default()));
        say(self.nodes != 5, format!(" --nodes {}", self.nodes));
        say(self.clients != 8, format!(" --clients {}", self.clients));
        say(!faults.is_empty(), format!(" --faults {}", faults.join(",")));
        say(self.links != HowLinks::Auto, format!(" --links {}", links.unwrap_or_default()));
        line
    }

    /// Builds network and disk, and finds out which kinds of faults there can be.
    fn prepare(&self, seed: u64) -> Result<Ground, Failed> {
        let links = match self.links {
            HowLinks::BuiltIn => Links::Messages,
            HowLinks::Auto => Network::build(self.servers()).map_or(Links::Messages, Links::Frames),
            HowLinks::Namespaces => Links::Frames(Network::build(self.servers()).map_err(Failed::new)?),
        };
        let asked = if self.faults.is_empty() { Kind::value_variants() } else { &self.faults };
        let mut kinds: Vec<Kind> = asked.to_vec();
        let mut seen = std::collections::BTreeSet::new();
        kinds.retain(|&kind| seen.insert(kind));
        let mut skipped = Vec::new();
        let mut disk = None;
        if kinds.contains(&Kind::DiskFull) {
            match SmallDisk::mount(disk::ROOM) {
                Ok(mounted) => disk = Some((seed as usize % self.servers(), mounted)),
                Err(why) => {
                    kinds.retain(|&kind| kind != Kind::DiskFull);
                    skipped.push(Skipped { kind: Kind::DiskFull, why });
                }
            }
        }
        if kinds.is_empty() {
            return Err(skipped.iter().fold(
                Failed::new("none of the faults asked for can be had here"),
                |failed, Skipped { kind, why }| failed.hint(format!("{}: {why}", kind.name())),
            ));
        }
        Ok(Ground { links, disk, kinds, skipped })
    }
}

/// The whole story, up to what was found. Dropping it kills the servers, takes down the network, unmounts the disk
/// and removes the data.
async fn tell(args: &Args, seed: u64, screen: Screen) -> Result<(Report, Arc<Stage>), Failed> {
    // Dropped in the opposite order: the servers go first.
    let Ground { links, disk, kinds, skipped } = args.prepare(seed)?;
    let mut sites = links.sites(args.servers());
    if let Some((place, disk)) = &disk {
        sites[*place].disk = Some(disk.path().to_owned());
    }
    let plan = cluster::Plan {
        prefix: "synod-chaos-",
        program: Program::Own,
        sites,
        memory: Memory::Durable,
        port_base: None,
    };
    screen.note(
        None,
        &format!(
            "synod {}, {} servers, seed {seed}, links cut by {}",
            env!("CARGO_PKG_VERSION"),
            args.nodes,
            links.name()
        ),
    );
    for Skipped { kind, why } in &skipped {
        screen.note(None, &format!("skipped {}: {why}", kind.name()));
    }
    let mut cluster = Cluster::start(&plan, |_| {}).await.map_err(|failed| match links {
        Links::Frames(_) => failed.hint("If a firewall is in the way: --links built-in."),
        Links::Messages => failed,
    })?;
    screen.note(None, &format!("all answer   try: synod --endpoints {} status", cluster.endpoints()));

    let keys = workload::keys((args.clients * KEYS_PER_CLIENT) as usize);
    let stage = Arc::new(Stage::new(seed, cluster.nodes.clone(), keys, screen));
    let field = Field {
        stage: &stage,
        cluster: &cluster,
        links: &links,
        small_disk: disk.as_ref().map(|(place, disk)| (*place, disk)),
    };
    let courses = tokio::select! {
        courses = act(args, &field, Plan::new(seed, &kinds, args.servers())) => courses,
        died = cluster.until_one_dies() => return Err(abandoned(&stage, &mut cluster, died)),
    };
    let checks = judged(&stage, &cluster).await;
    let kept = (args.keep || judge::worst(&checks) != State::Right).then(|| keep(&stage, &mut cluster));
    Ok((sum_up(args, &stage, links.name(), skipped, &courses, checks, kept), stage))
}

/// Clients, probes and faults, until the time is over and all calls have ended.
async fn act(args: &Args, field: &Field<'_>, mut plan: Plan) -> Vec<Course> {
    let stage = field.stage;
    let (stop, stopped) = watch::channel(false);
    let mut clients = JoinSet::new();
    for number in 1..=args.clients {
        clients.spawn(workload::client(Arc::clone(stage), number, stopped.clone()));
    }
    for place in 0..stage.nodes.len() {
        clients.spawn(workload::probe(Arc::clone(stage), place, stopped.clone()));
    }
    let began = Instant::now();
    let mut courses = Vec::new();
    let mut calm = stage.recorder.now();
    sleep(Duration::from_secs(1)).await;
    for number in 1..=args.episodes.unwrap_or(usize::MAX) {
        if began.elapsed() >= args.duration {
            break;
        }
        let episode = plan.next();
        courses.push(in_calm(calm, stage.recorder.now()));
        match field.befall(number, &episode).await {
            Ok(course) => {
                calm = course.well;
                courses.push(course);
            }
            Err(why) => {
                stage.breaks(Check::unknown("health", why));
                break;
            }
        }
        // A quiet point: nothing is under way while it is closed.
        drop(stage.gate.write().await);
        sleep(episode.rest).await;
    }
    stop.send_replace(true);
    let ended = async { while clients.join_next().await.is_some() {} };
    if tokio::time::timeout(CLIENTS_END_WITHIN, ended).await.is_err() {
        stage.breaks(Check::unknown("clients", "a client did not end in time"));
    }
    courses
}

/// Time without a fault.
fn in_calm(began: Moment, until: Moment) -> Course {
    Course { kind: None, what: "calm".to_owned(), began, healed: until, well: until }
}

/// Everything is healed; now every replica is asked, and the judges.
async fn judged(stage: &Arc<Stage>, cluster: &Cluster) -> Vec<Check> {
    stage.tell("the faults have ended; now the verdict");
    let mut checks = stage.broken();
    // A cluster that did not get well is not given more time, but is asked all the same.
    if checks.is_empty()
        && let Err(why) = health::until_well(cluster, &Expect::default()).await
    {
        checks.push(Check::unknown("health", format!("at the end: {why}")));
    }
    let clients = stage.keys.iter().map(|shared| shared.key.clone());
    let probes = stage.nodes.iter().map(|node| workload::probe_key(&node.name));
    let keys: Vec<Key> = clients.chain(probes).collect();
    checks.extend(judge::examine(&stage.recorder, cluster, &keys).await);
    checks
}

fn sum_up(
    args: &Args,
    stage: &Stage,
    links: &'static str,
    skipped: Vec<Skipped>,
    courses: &[Course],
    checks: Vec<Check>,
    kept: Option<String>,
) -> Report {
    let (acknowledged, samples) = (stage.acknowledged(), stage.samples());
    let measured: Vec<_> =
        courses.iter().map(|course| (course, report::figures(course, &acknowledged, &samples))).collect();
    let line = |(course, figures): &(&Course, report::Figures)| {
        let (what, at_micros) = (course.what.clone(), course.began.0);
        course.kind.map(|kind| Line { kind, what, at_micros, figures: *figures })
    };
    let figures: Vec<_> = measured.iter().map(|(course, figures)| (course.kind, *figures)).collect();
    Report {
        seed: stage.seed,
        servers: args.servers(),
        clients: args.clients,
        duration_micros: courses.last().map_or(0, |course| course.well.0),
        links,
        skipped,
        faults: report::rows(&figures),
        episodes: measured.iter().filter_map(line).collect(),
        verdict: verdict(&checks),
        checks,
        again: args.again(stage.seed),
        kept,
    }
}

/// One sentence for all checks. Unlike in the demo, not to recover is a failure of the cluster.
fn verdict(checks: &[Check]) -> &'static str {
    match judge::worst(checks) {
        State::Right => "nothing was lost, and all replicas agree",
        State::Unknown => "FAILED: the cluster did not recover in time, or could not be asked",
        State::Wrong => "THE STORE IS WRONG",
    }
}

/// Leaves data and logs behind, with the history beside them. Returns where.
fn keep(stage: &Stage, cluster: &mut Cluster) -> String {
    let folder = cluster.keep();
    let path = folder.join("history.jsonl");
    let written = std::fs::File::create(&path).map_err(|error| error.to_string()).and_then(|file| {
        stage.recorder.history().write(std::io::BufWriter::new(file)).map_err(|error| error.to_string())
    });
    if let Err(why) = written {
        stage.tell(&format!("cannot write {}: {why}", path.display()));
    }
    folder.display().to_string()
}

/// A server ended that nobody had killed.
fn abandoned(stage: &Stage, cluster: &mut Cluster, died: Failed) -> Failed {
    let kept = keep(stage, cluster);
    died.hint(format!("data, logs and history are in {kept}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Command::try_parse_from(std::iter::once("chaos").chain(line.split_whitespace())).map(|line| line.args)
    }

    #[test]
    fn the_line_to_run_it_again_says_what_differs() {
        assert_eq!(parse("").unwrap().again(7), "synod chaos --duration 60s --seed 7");
        let line = "--duration 90s --seed 3 --episodes 20 --nodes 7 --clients 4 --faults leader-kill,wipe --links built-in";
        assert_eq!(parse(line).unwrap().again(3), format!("synod chaos {line}"));
    }

    #[test]
    fn a_kind_asked_for_twice_comes_once() {
        let ground = parse("--faults kill,wipe,kill --links built-in").unwrap().prepare(1).unwrap();
        assert_eq!(ground.kinds, [Kind::Kill, Kind::Wipe]);
    }

    #[test]
    fn what_cannot_be_survived_is_refused() {
        assert!(parse("--nodes 2").is_err(), "two servers have no majority without each other");
        assert!(parse("--faults earthquake").is_err());
        assert!(parse("--clients 0").is_err());
    }
}

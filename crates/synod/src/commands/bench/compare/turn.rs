//! One system's turn in one round, from nothing to nothing.

use std::path::Path;

use super::super::measure::Effort;
use super::super::own::{Ground, Servers};
use super::super::point::{Point, in_words};
use super::super::workload::Workload;
use super::super::{bar, fill, point};
use super::args::READS;
use super::figures::Played;
use super::{Args, leader};
use crate::cluster::Program;
use crate::failed::Failed;
use crate::options::Context;
use crate::output::go;

/// Whose turn it is.
pub(super) struct Turn<'a> {
    pub(super) args: &'a Args,
    pub(super) context: &'a Context,
    /// Data lies below this folder, in one that goes with the servers.
    pub(super) folder: &'a Path,
    pub(super) program: Program,
    /// As it is told.
    pub(super) title: String,
}

/// Running servers and their data. Fields are dropped in this order: the servers have ended when their data goes.
struct Stage {
    servers: Servers,
    _ground: Ground,
}

impl Stage {
    async fn end(self) -> Result<(), Failed> {
        self.servers.end().await
    }
}

impl Turn<'_> {
    /// Measures everything.
    ///
    /// # Errors
    /// If the servers cannot be started, end by themselves, or do not come back after they were killed.
    pub(super) async fn play(&self) -> Result<Played, Failed> {
        let stage = self.set().await?;
        let mut played = tokio::select! {
            played = self.workloads(&stage.servers) => played?,
            died = stage.servers.cluster.until_one_dies() => return Err(died),
        };
        stage.end().await?;
        if !self.args.no_memory {
            let stage = self.set().await?;
            played.many_puts = tokio::select! {
                point = self.many_puts(&stage.servers) => Some(point?),
                died = stage.servers.cluster.until_one_dies() => return Err(died),
            };
            stage.end().await?;
        }
        Ok(played)
    }

    async fn set(&self) -> Result<Stage, Failed> {
        let ground = Ground::new(Some(self.folder))?;
        let count = usize::from(self.args.servers);
        let waiting = bar(&format!("{}: starting {count} servers", self.title), 0);
        let servers = ground.servers(self.program.clone(), count).await?;
        waiting.finish_and_clear();
        Ok(Stage { servers, _ground: ground })
    }

    async fn workloads(&self, servers: &Servers) -> Result<Played, Failed> {
        let mut played = Played::default();
        fill(&self.args.target(servers, self.context)).await?;
        for (workload, clients) in Args::runs() {
            let point = self.point(servers, workload, self.args.effort(workload, clients)).await?;
            self.tell(&format!("{} with {clients} clients", workload.name()), &point);
            played.points.push(point);
        }
        for _ in 0..self.args.kills {
            let waiting = bar(&format!("{}: killing the leader", self.title), 0);
            let kill = leader::kill(servers, self.args, self.context).await?;
            waiting.finish_and_clear();
            self.say(&format!(
                "leader killed: no write was acknowledged for {}, {} calls failed",
                in_words(kill.longest_silence_us),
                kill.failed
            ));
            played.kills.push(kill);
        }
        Ok(played)
    }

    async fn many_puts(&self, servers: &Servers) -> Result<Point, Failed> {
        let point = self.point(servers, Workload::Put, self.args.many_puts()).await?;
        let memory = point.server_resident_bytes.map_or("unknown".to_owned(), go::bytes);
        self.say(&format!("memory of all servers after {} puts: {memory}", point.answered));
        Ok(point)
    }

    async fn point(&self, servers: &Servers, workload: Workload, effort: Effort) -> Result<Point, Failed> {
        let what = format!("{}: {}", self.title, workload.name());
        point(&self.args.target(servers, self.context), workload, READS, effort, &what).await
    }

    fn tell(&self, what: &str, point: &Point) {
        let cpu = point.server_cpu_us.map_or("unknown".to_owned(), in_words);
        let (p50, p99) = (in_words(point.latency_us.p50), in_words(point.latency_us.p99));
        let failed = if point.failed > 0 { format!(", {} failed", point.failed) } else { String::new() };
        let rate = point.answered_per_second;
        self.say(&format!("{what}: {rate:.0}/s, p50 {p50}, p99 {p99}, CPU/op {cpu}{failed}"));
    }

    /// A comparison takes long: what is known so far is told on standard error, terminal or not.
    fn say(&self, what: &str) {
        eprintln!("{}: {what}", self.title);
    }
}

//! One fault: the strike, the time it lasts, the healing, and the wait until all is well.
//!
//! One at a time, and never more than a minority that forgets: a server without its memory counts as failed until
//! its new incarnation votes, so the next fault waits for that.

mod room;
mod witness;

use std::sync::Arc;
use std::time::{Duration, Instant};

use synod_client::rpc::synodpb::inject_fault_request::Fault;
use synod_client::rpc::synodpb::{FaultMemory, Role, StartRole, StopRole};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::disk::SmallDisk;
use super::health::{Expect, until_well};
use super::network::{Links, Way, between};
use super::plan::{Action, Episode, Who, minority};
use super::report::Course;
use super::stage::Stage;
use crate::cluster::Cluster;

/// How long a server lives in a crash loop.
const LIFE: Duration = Duration::from_millis(200);
/// How long a leader may be sought.
const LEADER_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// What faults need.
pub(super) struct Field<'a> {
    pub(super) stage: &'a Arc<Stage>,
    pub(super) cluster: &'a Cluster,
    pub(super) links: &'a Links,
    /// Whose disk can be filled.
    pub(super) small_disk: Option<(usize, &'a SmallDisk)>,
}

type Struck = Result<Expect, String>;

impl Field<'_> {
    /// One episode from its strike until the cluster is well.
    ///
    /// # Errors
    /// If the fault cannot be caused or ended, or the cluster does not get well.
    pub(super) async fn befall(&self, number: usize, episode: &Episode) -> Result<Course, String> {
        let victim = self.victim(&episode.action).await?;
        let (struck, what) = self.in_words(episode, victim);
        self.stage.tell(&format!("fault {number}: {what}"));
        let began = self.stage.recorder.now();
        self.stage.struck(&struck);
        let expect = self.strike(number, episode, victim).await?;
        let healed = self.stage.recorder.now();
        until_well(self.cluster, &expect).await.map_err(|why| format!("after `{what}`: {why}"))?;
        let well = self.stage.recorder.now();
        self.stage.struck(&[]);
        if let Action::WipedFirst(_) = episode.action {
            self.witness_is_there(number).await;
        }
        Ok(Course { kind: Some(episode.kind), what, began, healed, well })
    }

    /// The place of whom it befalls; that of the first if it befalls several.
    async fn victim(&self, action: &Action) -> Result<usize, String> {
        let who = match action {
            Action::Kill(who) | Action::Stop(who) | Action::Wipe(who) | Action::CrashLoop(who) => *who,
            Action::OneWay { who, .. } | Action::Role { who, .. } => *who,
            Action::Cut { leader: true, .. } => Who::Leader,
            Action::Cut { group: order, .. } | Action::RestartAll(order) | Action::WipedFirst(order) => {
                Who::Place(order[0])
            }
            Action::Bridge { hub, .. } => Who::Place(*hub),
            Action::DiskFull => Who::Place(self.small_disk.ok_or("there is no small disk")?.0),
        };
        let Who::Place(place) = who else {
            let deadline = Instant::now() + LEADER_WITHIN;
            while Instant::now() < deadline {
                if let Some(leader) = self.cluster.leader_place().await {
                    return Ok(leader);
                }
                sleep(POLL).await;
            }
            return Err(format!("nobody leads after {} s", LEADER_WITHIN.as_secs()));
        };
        Ok(place)
    }

    /// Who is in trouble, and what it is.
    fn in_words(&self, episode: &Episode, victim: usize) -> (Vec<usize>, String) {
        let all: Vec<usize> = (0..self.stage.nodes.len()).collect();
        let names =
            |places: &[usize]| places.iter().map(|&place| self.name(place)).collect::<Vec<_>>().join(" ");
        let kind = episode.kind.name();
        let lasts = format!("{:.1} s", episode.lasts.as_secs_f64());
        let one = self.name(victim);
        match &episode.action {
            Action::Kill(_) => (vec![victim], format!("{kind} {one}, down for {lasts}")),
            Action::Stop(_) => (vec![victim], format!("{kind} {one} for {lasts}")),
            Action::Cut { group, .. } => {
                let group = headed_by(victim, group);
                let what = format!("{kind} {} off for {lasts}", names(&group));
                (group, what)
            }
            Action::OneWay { heard, .. } => {
                let how = if *heard { "hears nobody" } else { "is heard by nobody" };
                (vec![victim], format!("{kind}: {one} {how} for {lasts}"))
            }
            Action::Bridge { left, right, .. } => (
                Vec::new(),
                format!("{kind}: {one} alone connects {} and {} for {lasts}", names(left), names(right)),
            ),
            Action::DiskFull => (vec![victim], format!("{kind} at {one} for {lasts}")),
            Action::Wipe(_) => (vec![victim], format!("{kind} {one}, down for {lasts}")),
            Action::RestartAll(order) => (all, format!("{kind}, back in the order {}", names(order))),
            Action::Role { role, forget, .. } => {
                let memory = if *forget { "without its memory" } else { "with its memory" };
                let role = role.as_str_name().trim_start_matches("ROLE_").to_lowercase();
                (vec![victim], format!("{kind}: {role} of {one} stopped for {lasts}, {memory}"))
            }
            Action::CrashLoop(_) => (vec![victim], format!("{kind} of {one} for {lasts}")),
            Action::WipedFirst(order) => {
                let quorum = order.len() - minority(order.len());
                let what = format!(
                    "{kind}: {} acknowledge while {} are down; {one} is wiped and starts first, alone for {lasts}",
                    names(&order[..quorum]),
                    names(&order[quorum..])
                );
                (all, what)
            }
        }
    }

    fn name(&self, place: usize) -> String {
        self.stage.nodes[place].name.clone()
    }

    async fn strike(&self, number: usize, episode: &Episode, victim: usize) -> Struck {
        let lasts = episode.lasts;
        match &episode.action {
            Action::Kill(_) => {
                self.kill(victim).await?;
                sleep(lasts).await;
                self.start(victim).await?;
            }
            Action::Stop(_) => {
                let node = &self.stage.nodes[victim];
                node.pause().await.map_err(|failed| failed.to_string())?;
                sleep(lasts).await;
                node.resume().await.map_err(|failed| failed.to_string())?;
            }
            Action::Cut { group, .. } => {
                let group = headed_by(victim, group);
                let rest: Vec<usize> = self.all_but(&group);
                self.cut(&between(&group, &rest), lasts).await?;
            }
            Action::OneWay { heard, .. } => {
                let others = self.all_but(&[victim]);
                let way = |other| if *heard { (other, victim) } else { (victim, other) };
                self.cut(&others.into_iter().map(way).collect::<Vec<_>>(), lasts).await?;
            }
            Action::Bridge { left, right, .. } => self.cut(&between(left, right), lasts).await?,
            Action::DiskFull => self.disk_full(victim, lasts).await?,
            Action::Wipe(_) => {
                let former = self.incarnation(victim).await?;
                self.kill(victim).await?;
                self.forget(victim)?;
                sleep(lasts).await;
                self.start(victim).await?;
                return Ok(Expect { not: Some((victim, former)) });
            }
            Action::RestartAll(order) => {
                self.kill_all().await?;
                sleep(lasts).await;
                for &place in order {
                    self.start(place).await?;
                }
            }
            Action::Role { role, forget, .. } => return self.stop_role(victim, *role, *forget, lasts).await,
            Action::CrashLoop(_) => {
                let until = Instant::now() + lasts;
                while Instant::now() < until {
                    self.kill(victim).await?;
                    self.start(victim).await?;
                    sleep(LIFE).await;
                }
            }
            Action::WipedFirst(order) => return self.wiped_first(number, order, lasts).await,
        }
        Ok(Expect::default())
    }

    fn all_but(&self, group: &[usize]) -> Vec<usize> {
        (0..self.stage.nodes.len()).filter(|place| !group.contains(place)).collect()
    }

    async fn kill(&self, place: usize) -> Result<(), String> {
        self.stage.nodes[place].kill().await.map_err(|failed| failed.to_string())
    }

    async fn start(&self, place: usize) -> Result<(), String> {
        self.stage.nodes[place].start().await.map_err(|failed| failed.to_string())
    }

    fn forget(&self, place: usize) -> Result<(), String> {
        self.stage.nodes[place].forget().map_err(|failed| failed.to_string())
    }

    /// At once, as far as a machine can.
    async fn kill_all(&self) -> Result<(), String> {
        let mut kills = JoinSet::new();
        for node in &self.stage.nodes {
            let node = Arc::clone(node);
            kills.spawn(async move { node.kill().await.map_err(|failed| failed.to_string()) });
        }
        let mut all = Ok(());
        while let Some(killed) = kills.join_next().await {
            all = all.and(killed.expect("killing does not panic"));
        }
        all
    }

    async fn incarnation(&self, place: usize) -> Result<String, String> {
        let node = &self.stage.nodes[place];
        let seen = node.admin.inspect().await;
        seen.map(|seen| seen.incarnation).map_err(|error| format!("cannot look at {}: {error}", node.name))
    }

    async fn cut(&self, ways: &[Way], lasts: Duration) -> Result<(), String> {
        let nodes = &self.stage.nodes;
        self.links.cut(nodes, ways).await?;
        sleep(lasts).await;
        self.links.heal(nodes, ways).await
    }

    async fn stop_role(&self, place: usize, role: Role, forget: bool, lasts: Duration) -> Struck {
        let node = &self.stage.nodes[place];
        let former = self.incarnation(place).await?;
        let memory = if forget { FaultMemory::Forget } else { FaultMemory::Keep };
        let stop = StopRole { role: role.into(), memory: memory.into(), restart_after_ms: None };
        for (fault, waits) in [
            (Fault::StopRole(stop), lasts),
            (Fault::StartRole(StartRole { role: role.into() }), Duration::ZERO),
        ] {
            let told = node.admin.inject_fault(fault).await;
            told.map_err(|error| format!("cannot disturb a role of {}: {error}", node.name))?;
            sleep(waits).await;
        }
        let forgot = forget && role == Role::Acceptor;
        Ok(Expect { not: forgot.then_some((place, former)) })
    }
}

/// The group, with this one in it: in the place of the first unless it is in it already.
fn headed_by(victim: usize, group: &[usize]) -> Vec<usize> {
    let mut group = group.to_vec();
    if !group.contains(&victim) {
        group[0] = victim;
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_keeps_its_size_whoever_heads_it() {
        assert_eq!(headed_by(4, &[0, 2]), [4, 2]);
        assert_eq!(headed_by(2, &[0, 2]), [0, 2]);
        assert_eq!(headed_by(1, &[0]), [1]);
    }
}

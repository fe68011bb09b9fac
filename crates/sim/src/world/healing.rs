//! The second movement: everything works from now on, and has to become well.

use super::disk::{Speed, VirtualDisk};
use super::links;
use super::{Event, World};
use crate::judges::Broken;
use rand::RngExt;
use synod_paxos::membership::Change;
use synod_paxos::types::{NodeId, Prefix, Time};
use synod_server::replica::{RoleFault, RoleState};
use synod_server::trace::What;
use synod_storage::disk::FaultRates;

/// A disk works again.
pub(super) fn repair(disk: &VirtualDisk, speed: Speed) {
    disk.set_speed(speed);
    disk.faulty.set_rates(FaultRates::default());
    disk.faulty.set_capacity(None);
    disk.faulty.set_read_only(false);
}

impl World {
    pub(super) fn heal(&mut self) {
        self.tell(None, || What::Fault {
            kind: "healed".into(),
            text: "everything works from now on".into(),
            healed: true,
        });
        self.troubled = false;
        self.network.heal();
        for id in self.ids() {
            self.disarm(id);
            let node = self.node(id);
            node.frozen = Time(0);
            repair(&node.disk, Speed::GOOD);
            self.after(0, Event::Start { node: id });
            if let Some(process) = &self.nodes[&id].process {
                process.stepped.fail_at_random(None);
            }
            for role in super::ROLES {
                self.fail_role(id, RoleFault::Start { role });
            }
            for peer in self.ids().into_iter().filter(|&peer| peer != id) {
                self.dial(id, peer, links::IN_ITS_TIME);
            }
        }
        for client in 0..self.clients.len() {
            self.clients[client].hurry(6);
            self.after(1_000, Event::Client { client });
        }
        self.after(0, Event::Welcome);
    }

    /// Whoever was removed is added back, until it is a member.
    pub(super) fn welcome(&mut self) {
        let members: Vec<NodeId> = self.stage.inner().court.members().keys().copied().collect();
        if let Some(node) = self.removed.filter(|node| !members.is_empty() && !members.contains(node)) {
            let at = members[self.rng.random_range(0..members.len())];
            if let Some(process) = &self.nodes[&at].process {
                let _ = process
                    .stepped
                    .reconfigure(Change::Add { node, peer_urls: vec![format!("http://{node}")] });
                self.settle(at);
            }
        }
        self.after(500_000, Event::Welcome);
    }

    /// Is there nothing left to wait for?
    pub(super) fn is_well(&self) -> bool {
        self.clients.iter().all(|client| client.is_done())
            && self.nodes.keys().all(|&id| self.ails(id).is_none())
            && self.judge_the_end().is_ok()
    }

    /// Everything that must hold in the end.
    pub(super) fn judge_the_end(&self) -> Result<(), Broken> {
        let done = self.clients.iter().all(|client| client.is_done());
        if !done || self.nodes.keys().any(|&id| self.ails(id).is_some()) {
            let why = self.complaint();
            return Err(Broken { invariant: "progress", clause: "DESIGN 5.6", why });
        }
        let at_rest = |node: &super::Node| Some((node.id, node.process.as_ref()?.stepped.applied()?));
        let applied = self.nodes.values().filter_map(at_rest).collect();
        self.stage.inner().court.at_end(&applied)
    }

    /// What is wrong with a replica, if anything.
    fn ails(&self, id: NodeId) -> Option<String> {
        self.check(id).err()
    }

    fn check(&self, id: NodeId) -> Result<(), String> {
        let process = self.nodes[&id].process.as_ref().ok_or("is down")?;
        let (book, chosen) = {
            let inner = self.stage.inner();
            (inner.court.members().get(&id).map(|member| member.voter), inner.court.chosen())
        };
        let voter = process.stepped.voter();
        if book != Some(Some(voter.incarnation)) {
            return Err(format!("is {voter}, and the log says that {book:?} votes"));
        }
        let applied = process.stepped.applied().map(|(applied, _)| applied);
        if applied != Some(chosen) || chosen == Prefix::EMPTY {
            return Err(format!("has applied {applied:?} of {chosen}"));
        }
        Ok(())
    }

    fn complaint(&self) -> String {
        let waiting: Vec<String> = self
            .clients
            .iter()
            .filter(|client| !client.is_done())
            .map(|client| format!("{:?}", client.waits()))
            .collect();
        let mut text = format!("not well after a while: {} clients wait {waiting:?}", waiting.len());
        for &id in self.nodes.keys() {
            if let Some(why) = self.ails(id) {
                text += &format!("; {id} {why}");
                if let Some(process) = &self.nodes[&id].process {
                    let status = process.stepped.status();
                    let failed = status.roles.iter().filter(|role| role.state != RoleState::Running);
                    let failed: Vec<String> = failed.map(|role| format!("{:?}", role.state)).collect();
                    text += &format!(
                        " ({}; leader {:?}; {failed:?}; {:?})",
                        status.formation, status.leader, status.problem
                    );
                }
            }
        }
        text
    }
}

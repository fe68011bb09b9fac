//! How blank servers become a cluster: exactly one, whatever is lost, late, repeated or wiped meanwhile.
//!
//! The same command line starts a server for the first time and ever after, so nothing says whether there is
//! a cluster already. A server that finds its disk blank asks the members it was given. If one belongs to a
//! cluster, it joins that. If all are blank, they found one, by this rule: **sign, then start.** A *charter*
//! is a list of founders, each with its incarnation. A server signs one charter at a time, and a cluster
//! exists once *all* its founders have signed.
//!
//! ```text
//!   a                          b                          c
//!   | Ask: I am a1, blank      |                          |
//!   | -----------------------> | -----------------------> |
//!   | <-- Answer: b1, blank -- | <-- Answer: c1, blank -- |
//!   |                          |                          |
//!   | on disk: I sign {a1 b1 c1}                          |   all were heard
//!   | Ask: a1, signed {a1 b1 c1}                          |
//!   | -----------------------> | on disk: I sign, too     |
//!   | <-- b1, signed --------- | -- b1, signed ---------> | on disk: I sign, too
//!   | <-------------------------------------- c1, signed  |
//!   | on disk: formed          |                          |   all signatures were seen
//!   | Answer: a1, formed ----> | formed                   |   one word of a founder is as good
//! ```
//!
//! "Form once all were seen blank" will not do: a server that remembers another as blank may find a third
//! one wiped, count its new life, and form a second cluster.
//!
//! **Dropping a charter.** If c is wiped before everybody was served, {a1 b1 c1} may never complete, and a
//! and b must not wait for ever. Nor may they simply start over: one of them may be in force already.
//!
//! ```text
//!   a                          b                          c
//!   | Ask: a1, signed {a1 b1 c1} -----------------------> | wiped; now it is c2
//!   | <--- Answer: c2, blank; void {a1 b1 c1}, c is dead  |
//!   | on disk: I void {a1 b1 c1}, c is dead               |
//!   | Ask: a1, signed and void, c is dead                 |
//!   | -----------------------> | on disk: I void it, too  |   unless it has formed: then it says that
//!   | <-- Answer: void ------- |                          |
//!   | on disk: dropped; I am blank, and sign {a1 b1 c2}   |
//! ```
//!
//! No clock or counter tells which life of c came later. It follows from the charter: {a1 b1 c1} names c1's
//! random bits, so whoever speaks *about that charter* lives after c1 was born, and if it speaks for c under
//! another name, then c1 is over.
//!
//! **What each server may do.**
//!
//! * F1. Sign a charter if nothing signed stands undropped, the charter is not void here, and every founder
//!   was heard blank, or signed on that very charter, under the incarnation it has there.
//! * F2. Form (start to promise and accept) under the charter it signed, on the signatures of all founders
//!   unless it voided the charter; or on the word of a server that has formed, unless that is a founder which
//!   it holds for dead. On disk before the acceptor starts.
//! * F3. Void a charter unless it has formed, once a founder is known dead. The dead it names are on disk.
//! * F4. Drop the charter it signed once it voided it, every founder not dead has voided it in
//!   knowledge of at least the same dead, and the dead are no majority of its founders.
//! * F5. Join as a newcomer a cluster that has it as a member, if it is not one of its founders. Joining is an
//!   attempt: what counts is the admission through that cluster's log ([`Formation::joined`]).
//!
//! **Why at most one charter ever comes to a majority in force.** Let two charters, K and L, both be signed by
//! all of their founders. If they have the same nodes and are not the same, and not every founder of one
//! was wiped, then some memory signed both; say it dropped K in between. *Nobody alive is then in force under
//! K, now or later:* Let D be the dead that the drop named. Every founder outside D said "void" in knowledge of
//! D, and nobody says that who has formed. Could one have formed after saying it? By F2 not on signatures, and
//! not on the word of a founder in D; so on the word of another, who had formed before. Go back along these
//! words to the first: a founder outside D that formed on signatures. It had not voided K then, and
//! could not afterwards; but it has. (The word of a newcomer stands for the majority of founders that admitted
//! it, of which one is outside D, and the same follows.) So only founders in D were ever in force under K.
//! They are no majority: K decided nothing and never will. All wiped at once is another matter, which
//! no protocol can heal: then every trace is gone.
//!
//! If the dead are a majority, F4 refuses, for they may have decided something together that nobody
//! alive remembers. The servers then wait and say why ([`Problem::MajorityForgot`]), as a formed cluster would
//! (rule R7).
//!
//! **Why it ends.** Two charters over the same nodes differ in some incarnation, so all but one name a dead
//! founder, and can be dropped or come into force. A founder that voided K and then hears that K is in force
//! takes that word and is in force too: were it to stand aside as a newcomer, K might lack the majority that
//! admits newcomers.
//!
//! Nothing here depends on messages being fresh, in order, or delivered; the driver repeats them by ticks.

mod message;
mod plan;
#[cfg(test)]
mod tests;

pub use message::{FormationMessage, Stance, Void};
pub use plan::{FormationError, Founder, Plan, PlanDigest, Problem};

use crate::membership::Genesis;
use crate::mutants::{Mutant, is};
use crate::types::{ClusterId, Incarnation, NodeId, VoterId};
use bytes::Bytes;
use message::Memory;
use plan::{cluster_id, founded_by};
use std::collections::{BTreeMap, BTreeSet};

/// The most founders a cluster may have. Others can be added to it later.
pub const MAX_FOUNDERS: usize = 64;

/// How many voided charters a server remembers. Each stands for a founder that was wiped while the cluster was
/// being formed. Beyond that it voids nothing more, and waits.
const MAX_VOIDED: usize = 1024;

/// How many different problems are remembered as told.
const MAX_REPORTED: usize = 256;

/// A message and whom it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The receiver.
    pub to: NodeId,
    /// What it is told.
    pub message: FormationMessage,
}

/// What formation asks of the world. Effects are carried out one after the other, those of one input before
/// those of the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make `state` durable, in place of the state before; only then may `messages` leave and anything
    /// behind this effect happen.
    PersistThenSend {
        /// What to hand to [`Formation::restore`] at the next start.
        state: Bytes,
        /// What may be said once it is durable.
        messages: Vec<Outgoing>,
    },
    /// Send now. May be lost.
    Send(Outgoing),
    /// This server belongs to a cluster, and that is durable: its acceptor may start. It votes in the slots
    /// whose configuration lists its incarnation.
    Formed(Genesis),
    /// `via` belongs to a cluster of which this server is a member: learn its log and ask to be admitted as a
    /// newcomer. Go on feeding this machine until that is done ([`Formation::joined`]); until then it may
    /// still say otherwise.
    Join {
        /// The cluster.
        genesis: Genesis,
        /// Who belongs to it.
        via: NodeId,
    },
    /// Something for the operator to know.
    Problem(Problem),
}

/// Where a peer stood when it was last heard. A hint: the peer may have moved on, or died.
#[derive(Clone, Debug, PartialEq, Eq)]
struct View {
    incarnation: Incarnation,
    stance: Seen,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Blank,
    Signed(ClusterId),
    Formed(ClusterId),
}

/// One server's part in forming a cluster. It stays for good: wiped members ask formed ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formation {
    me: VoterId,
    plan: Plan,
    digest: PlanDigest,
    memory: Memory,
    /// The members of the formed cluster now; the founders unless the driver knows better.
    members: Option<BTreeSet<NodeId>>,
    /// The peers with the same plan, and those that belong to a cluster.
    peers: BTreeMap<NodeId, View>,
    /// Who else is known to have signed the charter signed here.
    signatures: BTreeSet<NodeId>,
    /// Who else voids the charter signed here, and which dead it knew when it said so.
    voids: BTreeMap<NodeId, BTreeSet<NodeId>>,
    joining: Option<(ClusterId, NodeId)>,
    waiting: Option<Problem>,
    reported: BTreeSet<Problem>,
}

/// What one input brings about.
#[derive(Default)]
struct Step {
    /// The memory changed: it must be durable before anything is said, and the others should hear of it.
    changed: bool,
    answer: Option<Outgoing>,
    events: Vec<Effect>,
}

impl Formation {
    /// A server that has never taken part under this incarnation, which must be durable already (rule R1).
    ///
    /// # Errors
    /// When the server is not in the plan, or the plan is too large.
    pub fn new(me: VoterId, plan: Plan) -> Result<Formation, FormationError> {
        if !plan.contains(me.node) {
            return Err(FormationError::NotInPlan(me.node));
        }
        if plan.nodes().count() > MAX_FOUNDERS {
            return Err(FormationError::TooMany(plan.nodes().count()));
        }
        Ok(Formation::blank(me, plan))
    }

    fn blank(me: VoterId, plan: Plan) -> Formation {
        Formation {
            me,
            digest: plan.digest(),
            plan,
            memory: Memory::default(),
            members: None,
            peers: BTreeMap::new(),
            signatures: BTreeSet::new(),
            voids: BTreeMap::new(),
            joining: None,
            waiting: None,
            reported: BTreeSet::new(),
        }
    }

    /// A server that finds on disk what an [`Effect::PersistThenSend`] left there. What another incarnation
    /// of it signed or voided is not this one's, but the cluster it belongs to still is. A server that belongs
    /// to one need not be in the plan any more: the log may have changed the members since.
    ///
    /// # Errors
    /// When the state cannot be read, or as [`Formation::new`].
    pub fn restore(me: VoterId, plan: Plan, state: Bytes) -> Result<Formation, FormationError> {
        let (incarnation, memory) = Memory::decode(state)?;
        if memory.formed.is_some() {
            return Ok(Formation { memory, ..Formation::blank(me, plan) });
        }
        let blank = Formation::new(me, plan)?;
        Ok(if incarnation == me.incarnation { Formation { memory, ..blank } } else { blank })
    }

    /// The first thing to call.
    pub fn start(&mut self) -> Vec<Effect> {
        if let Some(genesis) = &self.memory.formed {
            return vec![Effect::Formed(genesis.clone())];
        }
        let mut step = Step::default();
        self.advance(&mut step);
        if step.changed { self.finish(step) } else { self.asks().map(Effect::Send).collect() }
    }

    /// Time passes: asks again, and tells what formation waits for, if that is news.
    pub fn tick(&mut self) -> Vec<Effect> {
        if self.memory.formed.is_some() {
            return Vec::new();
        }
        let mut effects: Vec<Effect> = self.asks().map(Effect::Send).collect();
        let waiting = self.waits_for();
        if waiting != self.waiting {
            effects.extend(waiting.clone().map(Effect::Problem));
            self.waiting = waiting;
        }
        effects
    }

    /// A peer speaks.
    pub fn receive(&mut self, message: FormationMessage) -> Vec<Effect> {
        let mut step = Step::default();
        let from = message.from();
        if from.node == self.me.node {
            return Vec::new(); // an echo, perhaps of an earlier life
        }
        if self.memory.formed.is_none() {
            self.hear(&message, &mut step);
            self.advance(&mut step);
        }
        if let FormationMessage::Ask { stance, .. } = &message {
            let void = self.void_of(stance);
            let answer =
                FormationMessage::Answer { from: self.me, plan: self.digest, stance: self.stance(), void };
            step.answer = Some(Outgoing { to: from.node, message: answer });
        }
        self.finish(step)
    }

    /// The log of `genesis` admitted this very incarnation: from now on it belongs there, durably, and says so
    /// to others; and its acceptor may start, as [`Effect::Formed`] tells.
    ///
    /// # Panics
    /// If it already belongs to another cluster, which no driver can bring about that starts acceptors on
    /// [`Effect::Formed`] only.
    pub fn joined(&mut self, genesis: Genesis) -> Vec<Effect> {
        if let Some(formed) = &self.memory.formed {
            assert_eq!(formed.cluster, genesis.cluster, "joined a second cluster");
            return Vec::new();
        }
        let mut step = Step::default();
        self.belong_to(genesis.clone(), &mut step);
        step.events.push(Effect::Formed(genesis));
        self.finish(step)
    }

    /// Who is a member of the formed cluster now, according to its log. Told to those who ask.
    pub fn set_members(&mut self, members: BTreeSet<NodeId>) {
        self.members = Some(members);
    }

    /// The cluster this server belongs to, if any.
    pub fn formed(&self) -> Option<&Genesis> {
        self.memory.formed.as_ref()
    }

    /// The charter this server signed and did not drop, while there is no cluster.
    pub fn signed(&self) -> Option<&Genesis> {
        self.memory.signed.as_ref()
    }

    /// What formation waits for, if there is no cluster yet and it is known.
    pub fn waits_for(&self) -> Option<Problem> {
        if self.memory.formed.is_some() {
            return None;
        }
        let Some(charter) = &self.memory.signed else {
            let heard = |node: &NodeId| *node == self.me.node || self.peers.contains_key(node);
            let silent: BTreeSet<NodeId> = self.plan.nodes().filter(|node| !heard(node)).collect();
            return (!silent.is_empty()).then_some(Problem::Silent(silent));
        };
        let others = charter.members.keys().copied().filter(|node| *node != self.me.node);
        let Some(dead) = self.memory.voided.get(&charter.cluster) else {
            return Some(Problem::Unsigned(others.filter(|node| !self.signatures.contains(node)).collect()));
        };
        if too_many(dead, charter) {
            return Some(Problem::MajorityForgot(charter.cluster, dead.clone()));
        }
        Some(Problem::Undropped(others.filter(|node| !self.agrees_to_drop(*node, dead)).collect()))
    }

    // -- hearing -----------------------------------------------------------------------------------

    /// Takes in what a peer says, on a server without a cluster.
    fn hear(&mut self, message: &FormationMessage, step: &mut Step) {
        let (from, plan, stance, void) = match message {
            FormationMessage::Ask { from, plan, stance } => (*from, *plan, stance, None),
            FormationMessage::Answer { from, plan, stance, void } => (*from, *plan, stance, void.as_ref()),
        };
        if !self.takes_part(from.node) {
            return self.report(Problem::Stranger(from.node), step);
        }
        self.note_view(from, plan, stance, step);
        match stance {
            Stance::Blank => {}
            Stance::Signed { charter, dead } => {
                if !founded_by(charter, from) || cluster_id(charter) != charter.cluster {
                    return; // nobody signs such a charter
                }
                if self.has_signed(charter.cluster) {
                    self.signatures.insert(from.node);
                }
                self.hear_void(from, charter, dead, step);
            }
            Stance::Formed { genesis, members } => {
                if cluster_id(genesis) == genesis.cluster {
                    self.hear_formed(from, genesis, members, step);
                }
            }
        }
        if let (Some(void), Some(charter)) = (void, self.memory.signed.clone())
            && void.charter == charter.cluster
        {
            self.hear_void(from, &charter, &void.dead, step);
        }
    }

    fn takes_part(&self, node: NodeId) -> bool {
        self.plan.contains(node)
            || self.memory.signed.as_ref().is_some_and(|charter| charter.members.contains_key(&node))
    }

    /// Remembers where a peer stands; a peer that was told another plan counts as silent.
    fn note_view(&mut self, from: VoterId, plan: PlanDigest, stance: &Stance, step: &mut Step) {
        let seen = match stance {
            Stance::Blank => Seen::Blank,
            Stance::Signed { charter, .. } => Seen::Signed(charter.cluster),
            Stance::Formed { genesis, .. } => Seen::Formed(genesis.cluster),
        };
        let formed = matches!(seen, Seen::Formed(_));
        if !formed && self.joining.is_some_and(|(_, via)| via == from.node) {
            self.joining = None;
        }
        if plan == self.digest || formed {
            self.reported.remove(&Problem::PlansDiffer(from.node));
            self.peers.insert(from.node, View { incarnation: from.incarnation, stance: seen });
        } else {
            self.peers.remove(&from.node);
            self.report(Problem::PlansDiffer(from.node), step);
        }
    }

    /// F3. `from` voids `charter`, knowing `dead`; or, with nobody dead, it merely speaks about it.
    fn hear_void(&mut self, from: VoterId, charter: &Genesis, dead: &BTreeSet<NodeId>, step: &mut Step) {
        if !founded_by(charter, self.me) || charter.members.len() > MAX_FOUNDERS {
            return; // a charter that this memory can never sign or form under
        }
        let mut dead: BTreeSet<NodeId> =
            dead.iter().copied().filter(|node| charter.members.contains_key(node)).collect();
        if dead.contains(&self.me.node) {
            return self.report(Problem::Doubled, step);
        }
        if founded_by(charter, from) {
            if self.has_signed(charter.cluster) && !dead.is_empty() {
                self.voids.entry(from.node).or_default().extend(&dead);
            }
        } else if charter.members.contains_key(&from.node) {
            dead.insert(from.node); // it speaks about this charter, hence lives later than its founder
        }
        let room = self.memory.voided.len() < MAX_VOIDED || self.memory.voided.contains_key(&charter.cluster);
        if self.memory.formed.is_none() && !dead.is_empty() && room {
            let known = self.memory.voided.entry(charter.cluster).or_default();
            let before = known.len();
            known.extend(dead);
            step.changed |= known.len() > before;
        }
    }

    /// F2 and F5. `from` belongs to a cluster.
    fn hear_formed(&mut self, from: VoterId, genesis: &Genesis, members: &BTreeSet<NodeId>, step: &mut Step) {
        let cluster = genesis.cluster;
        let voided = self.memory.voided.get(&cluster);
        if self.has_signed(cluster) {
            let from_the_dead =
                founded_by(genesis, from) && voided.is_some_and(|dead| dead.contains(&from.node));
            if !from_the_dead {
                self.form(step);
            }
        } else if voided.is_some() {
            // Dropped here, with the consent of all who could be in force: an old word of a dead founder.
        } else if founded_by(genesis, self.me) {
            self.report(Problem::Forgotten(cluster), step);
        } else if !members.contains(&self.me.node) {
            self.report(Problem::NotAMember(cluster), step);
        } else if let Some(other) = self.another_cluster(cluster) {
            self.report(Problem::TwoClusters(cluster.min(other), cluster.max(other)), step);
        } else if self.joining.is_none_or(|(joining, _)| joining != cluster) {
            self.joining = Some((cluster, from.node));
            step.events.push(Effect::Join { genesis: genesis.clone(), via: from.node });
        }
    }

    fn another_cluster(&self, cluster: ClusterId) -> Option<ClusterId> {
        self.peers.values().find_map(|view| match view.stance {
            Seen::Formed(other) if other != cluster => Some(other),
            _ => None,
        })
    }

    // -- acting ------------------------------------------------------------------------------------

    /// Takes every step that is now allowed: drop, sign, form.
    fn advance(&mut self, step: &mut Step) {
        if self.memory.formed.is_some() {
            return;
        }
        self.drop_charter(step);
        self.sign(step);
        let Some(charter) = &self.memory.signed else { return };
        let signed = |n: &&NodeId| **n == self.me.node || self.signatures.contains(n);
        let enough =
            if is(Mutant::FormsWithMajority) { charter.members.len() / 2 + 1 } else { charter.members.len() };
        let all = charter.members.keys().filter(signed).count() >= enough;
        if all && !self.memory.voided.contains_key(&charter.cluster) {
            self.form(step);
        }
    }

    /// F4.
    fn drop_charter(&mut self, step: &mut Step) {
        let Some(charter) = &self.memory.signed else { return };
        let Some(dead) = self.memory.voided.get(&charter.cluster) else { return };
        let mut others = charter.members.keys().filter(|node| **node != self.me.node);
        if !too_many(dead, charter) && others.all(|node| self.agrees_to_drop(*node, dead)) {
            self.memory.signed = None;
            self.signatures.clear();
            self.voids.clear();
            step.changed = true;
        }
    }

    fn agrees_to_drop(&self, node: NodeId, dead: &BTreeSet<NodeId>) -> bool {
        dead.contains(&node) || self.voids.get(&node).is_some_and(|known| known.is_superset(dead))
    }

    /// F1.
    fn sign(&mut self, step: &mut Step) {
        if self.memory.signed.is_some() {
            return;
        }
        let mut incarnations: BTreeMap<NodeId, Incarnation> =
            self.peers.iter().map(|(&node, view)| (node, view.incarnation)).collect();
        incarnations.insert(self.me.node, self.me.incarnation);
        let Some(charter) = self.plan.charter(&incarnations) else { return };
        let signed = Seen::Signed(charter.cluster);
        if self.memory.voided.contains_key(&charter.cluster)
            || !self.peers.values().all(|view| view.stance == Seen::Blank || view.stance == signed)
        {
            return;
        }
        let signers = self.peers.iter().filter(|(_, view)| view.stance == signed);
        self.signatures = signers.map(|(&node, _)| node).collect();
        self.memory.signed = Some(charter);
        step.changed = true;
    }

    /// The charter signed here is in force.
    fn form(&mut self, step: &mut Step) {
        let charter = self.memory.signed.clone().expect("only a signed charter comes into force");
        self.belong_to(charter.clone(), step);
        step.events.push(Effect::Formed(charter));
    }

    fn belong_to(&mut self, genesis: Genesis, step: &mut Step) {
        self.memory = Memory { formed: Some(genesis), ..Memory::default() };
        self.peers.clear();
        self.signatures.clear();
        self.voids.clear();
        self.reported.clear();
        self.joining = None;
        self.waiting = None;
        step.changed = true;
    }

    // -- speaking ----------------------------------------------------------------------------------

    fn stance(&self) -> Stance {
        if let Some(genesis) = &self.memory.formed {
            let members = self.members.clone().unwrap_or_else(|| genesis.members.keys().copied().collect());
            return Stance::Formed { genesis: genesis.clone(), members };
        }
        match &self.memory.signed {
            Some(charter) => Stance::Signed {
                charter: charter.clone(),
                dead: self.memory.voided.get(&charter.cluster).cloned().unwrap_or_default(),
            },
            None => Stance::Blank,
        }
    }

    /// What this server has to say about the charter that an asker signed. Of a charter that names an earlier
    /// life of this server nothing need be remembered: this memory can neither sign it nor form under it.
    fn void_of(&self, asker: &Stance) -> Option<Void> {
        let Stance::Signed { charter, dead } = asker else { return None };
        if self.memory.formed.is_some() || !charter.members.contains_key(&self.me.node) {
            return None;
        }
        let dead = if founded_by(charter, self.me) {
            self.memory.voided.get(&charter.cluster)?.clone()
        } else {
            dead.iter().copied().chain([self.me.node]).collect()
        };
        Some(Void { charter: charter.cluster, dead })
    }

    /// The present stance, as a question to everybody else concerned; as an announcement once formed.
    fn asks(&self) -> impl Iterator<Item = Outgoing> + use<> {
        let mut nodes: BTreeSet<NodeId> = self.plan.nodes().collect();
        for charter in self.memory.signed.iter().chain(&self.memory.formed) {
            nodes.extend(charter.members.keys());
        }
        nodes.remove(&self.me.node);
        let (from, plan, stance) = (self.me, self.digest, self.stance());
        let message = match stance {
            Stance::Formed { .. } => FormationMessage::Answer { from, plan, stance, void: None },
            stance => FormationMessage::Ask { from, plan, stance },
        };
        nodes.into_iter().map(move |to| Outgoing { to, message: message.clone() })
    }

    fn finish(&self, step: Step) -> Vec<Effect> {
        let mut effects = Vec::new();
        if step.changed {
            let messages = self.asks().chain(step.answer).collect();
            effects
                .push(Effect::PersistThenSend { state: self.memory.encode(self.me.incarnation), messages });
        } else {
            effects.extend(step.answer.map(Effect::Send));
        }
        effects.extend(step.events);
        effects
    }

    fn has_signed(&self, charter: ClusterId) -> bool {
        self.memory.signed.as_ref().is_some_and(|signed| signed.cluster == charter)
    }

    fn report(&mut self, problem: Problem, step: &mut Step) {
        if self.reported.len() >= MAX_REPORTED {
            self.reported.clear();
        }
        if self.reported.insert(problem.clone()) {
            step.events.push(Effect::Problem(problem));
        }
    }
}

/// Could the dead have decided something among themselves?
fn too_many(dead: &BTreeSet<NodeId>, charter: &Genesis) -> bool {
    dead.len() > charter.members.len() / 2
}

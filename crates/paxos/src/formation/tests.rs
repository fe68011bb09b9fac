//! One test per rule, and the story that makes "sign, then start" necessary. The rules together are searched
//! in `tests/formation.rs`.

use super::*;
use crate::types::Window;
use std::collections::VecDeque;

fn plan_with(nodes: u64, window: u64) -> Plan {
    let founder = |n: u64| Founder { name: format!("n{n}"), peer_urls: vec![format!("http://h{n}:2380")] };
    Plan::new(Window::new(window), (1..=nodes).map(|n| (NodeId(n), founder(n))))
}

fn plan(nodes: u64) -> Plan {
    plan_with(nodes, 8)
}

/// The `life`th life of `node`.
fn voter(node: u64, life: u128) -> VoterId {
    VoterId { node: NodeId(node), incarnation: Incarnation(u128::from(node) << 64 | life) }
}

/// Servers, their disks, and the messages under way between them.
struct Town {
    plan: Plan,
    servers: BTreeMap<NodeId, Formation>,
    disks: BTreeMap<NodeId, Bytes>,
    mail: VecDeque<Outgoing>,
    formed: BTreeMap<NodeId, ClusterId>,
    joins: BTreeMap<NodeId, Genesis>,
    problems: Vec<(NodeId, Problem)>,
}

impl Town {
    fn new(nodes: u64) -> Town {
        let mut town = Town {
            plan: plan(nodes),
            servers: BTreeMap::new(),
            disks: BTreeMap::new(),
            mail: VecDeque::new(),
            formed: BTreeMap::new(),
            joins: BTreeMap::new(),
            problems: Vec::new(),
        };
        (1..=nodes).for_each(|node| town.wipe(node, 1));
        town
    }

    /// Starts `node` with an empty disk in a new life.
    fn wipe(&mut self, node: u64, life: u128) {
        let mut server = Formation::new(voter(node, life), self.plan.clone()).unwrap();
        self.disks.remove(&NodeId(node));
        self.formed.remove(&NodeId(node));
        let effects = server.start();
        self.servers.insert(NodeId(node), server);
        self.carry_out(NodeId(node), effects);
    }

    /// Starts `node` again from its disk.
    fn restart(&mut self, node: u64) {
        let node = NodeId(node);
        let me = self.servers[&node].me;
        let mut server = match self.disks.get(&node) {
            Some(disk) => Formation::restore(me, self.plan.clone(), disk.clone()).unwrap(),
            None => Formation::new(me, self.plan.clone()).unwrap(),
        };
        let effects = server.start();
        self.servers.insert(node, server);
        self.carry_out(node, effects);
    }

    fn carry_out(&mut self, node: NodeId, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::PersistThenSend { state, messages } => {
                    self.disks.insert(node, state);
                    self.mail.extend(messages);
                }
                Effect::Send(outgoing) => self.mail.push_back(outgoing),
                Effect::Formed(genesis) => drop(self.formed.insert(node, genesis.cluster)),
                Effect::Join { genesis, .. } => drop(self.joins.insert(node, genesis)),
                Effect::Problem(problem) => self.problems.push((node, problem)),
            }
        }
    }

    /// Hands over one letter, by way of the wire.
    fn hand_over(&mut self, outgoing: &Outgoing) {
        let message = FormationMessage::decode(outgoing.message.encode()).unwrap();
        assert_eq!(message, outgoing.message);
        let effects = self.servers.get_mut(&outgoing.to).unwrap().receive(message);
        self.carry_out(outgoing.to, effects);
    }

    fn server(&self, node: u64) -> &Formation {
        &self.servers[&NodeId(node)]
    }

    /// What `node` says to `to` now.
    fn word(&self, node: u64, to: u64) -> Outgoing {
        let server = self.server(node);
        let (from, plan, stance) = (server.me, server.digest, server.stance());
        Outgoing { to: NodeId(to), message: FormationMessage::Answer { from, plan, stance, void: None } }
    }

    fn say(&mut self, node: u64, to: u64) {
        let word = self.word(node, to);
        self.hand_over(&word);
    }

    /// Ticks all of `nodes` and delivers what they say among each other, until that changes nothing.
    fn settle(&mut self, nodes: &[u64]) {
        for _ in 0..10 {
            for &node in nodes {
                let effects = self.servers.get_mut(&NodeId(node)).unwrap().tick();
                self.carry_out(NodeId(node), effects);
            }
            for _ in 0..10_000 {
                let Some(letter) = self.mail.pop_front() else { break };
                let inside = |node: NodeId| nodes.contains(&node.0);
                if inside(letter.to) && inside(letter.message.from().node) {
                    self.hand_over(&letter);
                }
            }
            assert!(self.mail.is_empty(), "talk without end");
        }
    }

    fn cluster_of(&self, nodes: &[u64]) -> ClusterId {
        let clusters: BTreeSet<_> = nodes.iter().map(|n| self.formed.get(&NodeId(*n)).copied()).collect();
        assert_eq!(clusters.len(), 1, "{clusters:?}");
        clusters.into_iter().next().flatten().expect("nothing formed")
    }

    fn told(&self, node: u64, problem: &Problem) -> bool {
        self.problems.contains(&(NodeId(node), problem.clone()))
    }
}

fn nodes(nodes: &[u64]) -> BTreeSet<NodeId> {
    nodes.iter().map(|n| NodeId(*n)).collect()
}

#[test]
fn a_single_server_forms_at_once_and_again_after_a_restart() {
    let mut town = Town::new(1);
    let cluster = town.cluster_of(&[1]);
    town.formed.clear();
    town.restart(1);
    assert_eq!(town.cluster_of(&[1]), cluster);
}

#[test]
fn blank_servers_form_one_cluster_whose_identity_follows_from_its_founders() {
    let mut town = Town::new(5);
    town.settle(&[1, 2, 3, 4, 5]);
    let cluster = town.cluster_of(&[1, 2, 3, 4, 5]);
    let genesis = town.server(1).formed().unwrap();
    assert_eq!(cluster_id(genesis), cluster);
    assert_eq!(genesis.window, Window::new(8));
    assert!((1..=5).all(|n| founded_by(genesis, voter(n, 1))));
    let mut other = Town::new(5);
    other.wipe(5, 2);
    other.mail.clear();
    other.settle(&[1, 2, 3, 4, 5]);
    assert_ne!(other.cluster_of(&[1, 2, 3, 4, 5]), cluster);
}

#[test]
fn f1_nobody_signs_before_all_were_heard() {
    let mut town = Town::new(3);
    town.settle(&[1, 2]);
    assert!(town.server(1).signed().is_none());
    assert!(town.told(1, &Problem::Silent(nodes(&[3]))));
    town.settle(&[1, 2, 3]);
    town.cluster_of(&[1, 2, 3]);
}

#[test]
fn f1_a_signature_stands_whoever_shows_up_later() {
    let mut town = Town::new(3);
    town.say(2, 1);
    town.say(3, 1);
    let signed = town.server(1).signed().unwrap().clone();
    town.wipe(3, 2);
    town.say(3, 1);
    assert_eq!(town.server(1).signed(), Some(&signed));
    town.restart(1);
    town.say(2, 1);
    town.say(3, 1);
    assert_eq!(town.server(1).signed(), Some(&signed), "nor after a restart");
}

#[test]
fn f2_nobody_forms_before_it_saw_every_signature() {
    let mut town = Town::new(3);
    for (from, to) in [(2, 1), (3, 1), (3, 2), (1, 2)] {
        town.say(from, to);
    }
    town.say(2, 1);
    assert!(town.formed.is_empty(), "n3 has not signed");
    assert_eq!(town.server(1).waits_for(), Some(Problem::Unsigned(nodes(&[3]))));
    town.say(1, 3);
    town.say(2, 3);
    assert_eq!(town.formed.keys().copied().collect::<Vec<_>>(), [NodeId(3)], "n3 saw all three");
    town.say(3, 1);
    town.say(3, 2);
    town.cluster_of(&[1, 2, 3]);
}

#[test]
fn f2_what_formed_is_on_disk_and_survives_any_restart() {
    let mut town = Town::new(3);
    town.settle(&[1, 2, 3]);
    let cluster = town.cluster_of(&[1, 2, 3]);
    town.formed.clear();
    (1..=3).for_each(|n| town.restart(n));
    assert_eq!(town.cluster_of(&[1, 2, 3]), cluster);
}

/// All three signed, and one saw it.
fn one_of_three_formed() -> Town {
    let mut town = Town::new(3);
    for (from, to) in [(2, 1), (3, 1), (1, 2), (3, 2), (1, 3), (2, 3)] {
        town.say(from, to);
    }
    town.mail.clear();
    assert_eq!(town.formed.keys().copied().collect::<Vec<_>>(), [NodeId(3)]);
    assert!((1..=2).all(|n| town.server(n).signed().is_some()));
    town
}

#[test]
fn f3_a_charter_without_dead_is_never_voided() {
    let mut town = Town::new(3);
    town.say(2, 1);
    town.say(3, 1);
    town.settle(&[1, 2]);
    town.restart(3);
    assert!((1..=3).all(|n| town.server(n).memory.voided.is_empty()));
}

#[test]
fn f3_who_has_formed_voids_nothing_and_takes_the_doubters_along() {
    let mut town = one_of_three_formed();
    let cluster = town.formed[&NodeId(3)];
    town.wipe(2, 2);
    town.settle(&[1, 2]); // n3 is out of reach; n1 learns that its charter lost n2
    assert_eq!(town.server(1).memory.voided[&cluster], nodes(&[2]));
    assert!(town.told(1, &Problem::Undropped(nodes(&[3]))));
    town.settle(&[1, 2, 3]);
    assert_eq!(town.cluster_of(&[1, 3]), cluster);
    assert_eq!(town.joins[&NodeId(2)].cluster, cluster);
}

#[test]
fn f3_a_voided_charter_does_not_form_by_late_signatures() {
    let mut town = Town::new(3);
    for (from, to) in [(2, 3), (2, 1), (3, 1), (1, 2), (3, 2), (1, 3)] {
        town.say(from, to);
    }
    let late = town.word(3, 1); // n3 signed, and is wiped before anybody hears it
    town.mail.clear();
    town.wipe(3, 2);
    town.settle(&[1, 3]);
    town.say(2, 1);
    town.hand_over(&late);
    assert!(town.formed.is_empty());
    assert_eq!(town.server(1).signatures, nodes(&[2, 3]), "it has them all, and may not use them");
}

#[test]
fn f4_a_charter_is_dropped_once_all_survivors_void_it_and_a_new_one_is_signed() {
    let mut town = Town::new(3);
    town.say(2, 1);
    town.say(3, 1);
    let first = town.server(1).signed().unwrap().cluster;
    town.wipe(3, 2);
    town.settle(&[1, 3]);
    assert_eq!(town.server(1).signed().unwrap().cluster, first, "n2 has not agreed");
    town.settle(&[1, 2, 3]);
    assert_ne!(town.cluster_of(&[1, 2, 3]), first);
}

#[test]
fn f4_an_agreement_outlives_the_restart_of_who_gave_it() {
    let mut town = Town::new(3);
    town.say(2, 1);
    town.say(3, 1);
    let first = town.server(1).signed().unwrap().cluster;
    town.wipe(3, 2);
    town.settle(&[1, 3]);
    let ask = town.servers.get_mut(&NodeId(1)).unwrap().asks().find(|ask| ask.to == NodeId(2)).unwrap();
    town.hand_over(&ask);
    town.restart(2);
    assert_eq!(town.server(2).memory.voided[&first], nodes(&[3]));
}

#[test]
fn f4_no_drop_once_a_majority_of_founders_forgot() {
    let mut town = one_of_three_formed(); // n3 formed; n2 might have, too, and they decided something
    town.wipe(2, 2);
    town.wipe(3, 2);
    town.mail.clear();
    town.settle(&[1, 2, 3]);
    assert!(town.formed.is_empty());
    let charter = town.server(1).signed().unwrap().cluster;
    assert!(town.told(1, &Problem::MajorityForgot(charter, nodes(&[2, 3]))));
}

#[test]
fn f5_a_wiped_member_joins_as_a_newcomer_and_is_asked_in_turn() {
    let mut town = Town::new(3);
    town.settle(&[1, 2, 3]);
    let cluster = town.cluster_of(&[1, 2, 3]);
    town.wipe(3, 2);
    town.settle(&[1, 2, 3]);
    let genesis = town.joins[&NodeId(3)].clone();
    assert_eq!(genesis.cluster, cluster);
    assert!(town.server(3).formed().is_none(), "not before the log admits it");
    let effects = town.servers.get_mut(&NodeId(3)).unwrap().joined(genesis.clone());
    assert_eq!(
        effects.last(),
        Some(&Effect::Formed(genesis.clone())),
        "its acceptor may start, in this very life"
    );
    town.carry_out(NodeId(3), effects);
    town.restart(3);
    assert_eq!(town.server(3).formed(), Some(&genesis));
    town.wipe(2, 2);
    town.settle(&[2, 3]);
    assert_eq!(town.joins[&NodeId(2)].cluster, cluster, "the newcomer's word is good");
}

#[test]
fn f5_who_is_no_member_does_not_join() {
    let mut town = Town::new(3);
    town.settle(&[1, 2, 3]);
    let cluster = town.cluster_of(&[1, 2, 3]);
    (1..=2).for_each(|n| town.servers.get_mut(&NodeId(n)).unwrap().set_members(nodes(&[1, 2])));
    town.wipe(3, 2);
    town.settle(&[1, 2, 3]);
    assert!(town.joins.is_empty() && town.told(3, &Problem::NotAMember(cluster)));
}

#[test]
fn f5_two_clusters_are_reported_and_none_is_joined_twice() {
    let (mut one, mut other) = (Town::new(3), Town::new(3));
    other.wipe(1, 7);
    other.mail.clear();
    one.settle(&[1, 2, 3]);
    other.settle(&[1, 2, 3]);
    let (a, b) = (one.cluster_of(&[1]), other.cluster_of(&[1]));
    let (from_one, from_other) = (one.word(1, 3), other.word(2, 3));
    one.wipe(3, 2);
    one.hand_over(&from_one);
    one.hand_over(&from_other);
    assert!(one.told(3, &Problem::TwoClusters(a.min(b), a.max(b))));
    assert_eq!(one.joins[&NodeId(3)].cluster, a);
}

#[test]
fn different_plans_are_reported_and_form_nothing() {
    let mut town = Town::new(3);
    let mut server = Formation::new(voter(3, 2), plan_with(3, 9)).unwrap();
    server.start();
    town.servers.insert(NodeId(3), server);
    town.mail.clear();
    town.settle(&[1, 2, 3]);
    assert!(town.formed.is_empty() && (1..=3).all(|n| town.server(n).signed().is_none()));
    assert!(town.told(1, &Problem::PlansDiffer(NodeId(3))) && town.told(3, &Problem::PlansDiffer(NodeId(1))));
    town.wipe(3, 3); // corrected
    town.settle(&[1, 2, 3]);
    town.cluster_of(&[1, 2, 3]);
}

#[test]
fn strangers_are_reported_and_a_plan_must_name_its_server() {
    let mut town = Town::new(3);
    let stranger = Formation::new(voter(4, 1), plan(4)).unwrap();
    town.servers.insert(NodeId(4), stranger);
    town.say(4, 1);
    assert!(town.told(1, &Problem::Stranger(NodeId(4))));
    assert_eq!(Formation::new(voter(4, 1), plan(3)), Err(FormationError::NotInPlan(NodeId(4))));
    let size = MAX_FOUNDERS as u64 + 1;
    assert_eq!(Formation::new(voter(4, 1), plan(size)), Err(FormationError::TooMany(MAX_FOUNDERS + 1)));
}

/// Fault catalogue, section 4, "Formation". Under the naive rule, "form once every initial member has been
/// seen blank", each step marked "naively" founds a cluster, and there are two with a majority each.
#[test]
fn the_story_of_one_wipe_and_two_majorities() {
    let mut town = Town::new(3);
    let (a, b, c) = (1, 2, 3);
    town.say(b, a); // a sees b blank
    town.say(a, b); // b sees a
    town.say(c, b); // ... and c blank. Naively it forms {a1 b1 c1};
    let first = town.server(b).signed().unwrap().clone(); // it only signs that.
    town.say(a, c);
    town.say(b, c); // Naively c joins {a1 b1 c1}: a majority. Here it signs, too,
    assert_eq!(town.server(c).signed(), Some(&first));
    assert!(town.formed.is_empty()); // and neither starts.
    town.mail.clear();
    town.wipe(c, 2); // c forgets.
    town.say(c, a); // a, remembering b as blank, sees c2. Naively it forms {a1 b1 c2};
    let second = town.server(a).signed().unwrap().clone(); // it signs that.
    assert_ne!(first, second);
    town.say(a, c);
    town.say(b, c); // Naively c2 joins a: a second majority. Here it sees that a and b signed different lists.
    assert!(town.formed.is_empty() && town.server(c).signed().is_none());

    // b hears of c2, asks around, and drops {a1 b1 c1}; then all three sign and form the other list.
    town.settle(&[a, b, c]);
    assert_eq!(town.cluster_of(&[a, b, c]), second.cluster);
}

#[test]
fn a_dead_founders_late_word_does_not_revive_a_dropped_charter() {
    let mut town = one_of_three_formed();
    let first = town.formed[&NodeId(3)];
    let late = [town.word(3, 1), town.word(3, 2)]; // "formed", and then it forgets that
    town.wipe(3, 2);
    town.settle(&[1, 2, 3]);
    let second = town.cluster_of(&[1, 2, 3]);
    assert_ne!(first, second);
    late.iter().for_each(|letter| town.hand_over(letter));
    assert_eq!(town.cluster_of(&[1, 2, 3]), second);
    assert!(town.joins.is_empty());
}

#[test]
fn a_second_server_under_the_same_identity_is_reported() {
    let mut town = Town::new(3);
    town.say(2, 1);
    town.say(3, 1);
    let charter = town.server(1).signed().unwrap().clone();
    let claim = FormationMessage::Ask {
        from: voter(2, 1),
        plan: plan(3).digest(),
        stance: Stance::Signed { charter, dead: nodes(&[1]) },
    };
    town.hand_over(&Outgoing { to: NodeId(1), message: claim });
    assert!(town.told(1, &Problem::Doubled));
    assert!(town.server(1).memory.voided.is_empty());
}

#[test]
fn a_restored_backup_does_not_pass_for_a_founder() {
    let mut town = Town::new(3);
    town.settle(&[1, 2, 3]);
    let cluster = town.cluster_of(&[1, 2, 3]);
    town.wipe(3, 1); // an empty disk, and yet the old incarnation
    town.settle(&[1, 2, 3]);
    assert!(town.joins.is_empty() && town.told(3, &Problem::Forgotten(cluster)));
}

#[test]
fn another_incarnation_inherits_the_cluster_but_no_signature() {
    let mut town = one_of_three_formed();
    let formed = Formation::restore(voter(3, 2), plan(3), town.disks[&NodeId(3)].clone()).unwrap();
    assert!(formed.formed().is_some());
    let signed = Formation::restore(voter(2, 2), plan(3), town.disks[&NodeId(2)].clone()).unwrap();
    assert!(signed.signed().is_none());
    // A formed server ignores what its command line says about the members.
    town.disks.insert(NodeId(4), town.disks[&NodeId(3)].clone());
    let moved = Formation::restore(voter(4, 1), plan(3), town.disks[&NodeId(4)].clone()).unwrap();
    assert_eq!(moved.formed(), formed.formed());
}

#[test]
fn damaged_bytes_are_errors_never_panics() {
    let mut town = one_of_three_formed();
    town.wipe(2, 2);
    town.settle(&[1, 2]);
    let states: Vec<Bytes> = town.disks.values().cloned().collect();
    let asks = town.servers.values().flat_map(|server| server.asks().map(|ask| ask.message));
    let void = Some(Void { charter: ClusterId(9), dead: nodes(&[1, 2]) });
    let answer =
        FormationMessage::Answer { from: voter(1, 1), plan: PlanDigest(1), stance: Stance::Blank, void };
    let messages: Vec<Bytes> = asks.chain([answer]).map(|message| message.encode()).collect();
    assert!(states.len() == 2 && messages.len() > 5);
    for state in states {
        assert!((0..state.len()).all(|cut| Memory::decode(state.slice(..cut)).is_err()));
        for bad in damaged(&state) {
            drop(Memory::decode(bad));
        }
    }
    for message in messages {
        assert!((0..message.len()).all(|cut| FormationMessage::decode(message.slice(..cut)).is_err()));
        // Some damage makes another message, which must not upset anybody either.
        for message in damaged(&message).filter_map(|bad| FormationMessage::decode(bad).ok()) {
            town.servers.values().for_each(|server| drop(server.clone().receive(message.clone())));
        }
    }
}

/// `bytes` with one byte damaged in some way, for every byte.
fn damaged(bytes: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    (0..bytes.len()).flat_map(move |at| {
        [0x01, 0x80, 0xff].into_iter().map(move |flip| {
            let mut bad = bytes.to_vec();
            bad[at] ^= flip;
            Bytes::from(bad)
        })
    })
}

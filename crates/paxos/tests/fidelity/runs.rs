//! Whole runs: PMS-2, 4, 14, 24, 30 and 37. The facts are checked at every step, see [`crate::town`].

use crate::town::Town;
use crate::*;
use std::time::Duration;

const SEEDS: u64 = 6;

fn all_agree(town: &Town) {
    let longest = town.sites.values().map(|site| &site.log).max_by_key(|log| log.len()).expect("sites");
    for site in town.sites.values() {
        assert_eq!(site.log, longest[..site.log.len()], "{}", site.id);
    }
    assert!(!longest.is_empty(), "a run that chooses nothing proves nothing");
}

#[test]
fn pms_02_one_value_per_slot_whatever_happens() {
    for seed in 0..SEEDS {
        let mut town = Town::elected(3, seed);
        town.calm(Duration::from_secs(1));
        town.chaos(Duration::from_secs(4));
        town.calm(Duration::from_secs(4));
        all_agree(&town);
        assert!(town.restarts > 0);
    }
}

/// Any message ever said is said again at any time, also to a process that has restarted since.
#[test]
fn pms_04_old_messages_do_no_harm_at_any_time() {
    let mut town = Town::elected(5, 4);
    town.calm(Duration::from_secs(1));
    town.chaos(Duration::from_secs(10));
    assert!(town.replayed > 100 && town.restarts > 10);
    town.calm(Duration::from_secs(4));
    all_agree(&town);
}

/// Lost messages cost time only: when the losses end, everything asked for gets done.
#[test]
fn pms_14_lost_messages_cost_only_progress() {
    for seed in 0..SEEDS {
        let mut town = Town::elected(5, 100 + seed);
        town.calm(Duration::from_secs(1));
        town.chaos(Duration::from_secs(3));
        for node in 1..=5 {
            town.write(NodeId(node));
        }
        town.calm(Duration::from_secs(6));
        assert_eq!(town.waiting(), 0, "seed {seed}");
        all_agree(&town);
    }
}

/// No election at all: whoever the coin tells to campaigns, also two at a time.
#[test]
fn pms_24_safety_owes_nothing_to_election() {
    for seed in 0..SEEDS {
        let mut town = Town::coin(5, 200 + seed);
        town.chaos(Duration::from_secs(8));
        assert!(town.facts.reigns.len() > 5, "rivals were there: {:?}", town.facts.reigns);
        town.calm(Duration::from_secs(1));
        town.campaign(NodeId(1));
        town.calm(Duration::from_millis(200));
        town.campaign(NodeId(1)); // above whatever refused the first
        town.calm(Duration::from_secs(4));
        all_agree(&town);
        let leader = &town.sites[&NodeId(1)].log;
        assert_eq!(leader.len(), town.facts.chosen.len(), "seed {seed}: no slot is left open");
    }
}

/// Rival leaders, lost and doubled submissions: what was asked for is applied, and applied once.
#[test]
fn pms_30_each_command_is_applied_once_whoever_leads() {
    let mut town = Town::elected(3, 30);
    town.calm(Duration::from_secs(1));
    for round in 0..10 {
        for node in 1..=3 {
            town.write(NodeId(node));
        }
        town.chaos(Duration::from_millis(100 * (round % 4)));
        town.calm(Duration::from_millis(100));
    }
    town.calm(Duration::from_secs(5));
    assert_eq!(town.waiting(), 0);
    all_agree(&town);
}

/// Every message is lost exactly once; without anything new to say, everything is decided.
#[test]
fn pms_37_what_was_not_answered_is_sent_again() {
    let mut town = Town::coin(3, 37);
    town.lose_each_once();
    town.campaign(NodeId(1));
    town.calm(Duration::from_secs(1));
    assert!(town.ballot(NodeId(1)).is_some(), "Prepare and Promise were each lost once");
    for _ in 0..4 {
        town.write(NodeId(1));
    }
    town.calm(Duration::from_secs(3));
    assert_eq!(town.waiting(), 0, "Submit, Accept and Accepted, too");
    assert_eq!(town.sites[&NodeId(1)].log.len(), town.facts.chosen.len());
    all_agree(&town);
}

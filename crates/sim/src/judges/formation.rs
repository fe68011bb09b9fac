//! One cluster: never two different beginnings, and no vote before there is one.
//!
//! How it breaks: servers form a cluster as soon as they have seen each other blank. One of them is wiped, is seen
//! blank once more, and a second cluster of the same servers forms beside the first; each chooses values of its
//! own (fault catalogue, section 4, "Formation"; T8 of its models). Hence *sign, then start*: what every replica
//! takes part in is the one list that all its founders signed, and an acceptor speaks only in a process that knows
//! itself a member of it.

use super::ledger::Ledger;
use super::{Invariant, Rule, Verdict, hold};
use synod_paxos::acceptor::{Acceptor, Record};
use synod_paxos::membership::Genesis;
use synod_paxos::types::{NodeId, VoterId};

const RULE: Rule = Rule { name: "one cluster", clause: "fault catalogue, formation" };

/// See the module.
pub(super) struct OneCluster;

fn check_member(ledger: &Ledger, node: NodeId) -> Verdict {
    let member = ledger.node(node).is_some_and(|node| node.is_member);
    hold!(member, RULE, "the acceptor of {node} works in a process that does not belong to a cluster");
    Ok(())
}

impl Invariant for OneCluster {
    fn on_formed(&mut self, ledger: &Ledger, node: NodeId, genesis: &Genesis) -> Verdict {
        let first = ledger.genesis().unwrap_or(genesis);
        hold!(first == genesis, RULE, "{node} takes part in {genesis:?}, others in {first:?}");
        Ok(())
    }

    fn on_restored(&mut self, ledger: &Ledger, node: NodeId, _: &Acceptor) -> Verdict {
        check_member(ledger, node)
    }

    fn on_durable(&mut self, ledger: &Ledger, voter: VoterId, _: &Record) -> Verdict {
        check_member(ledger, voter.node)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn everybody_takes_part_in_the_same_cluster() {
        let mut story = Story::of(OneCluster);
        story.decide(ballot(1, 1), 1, &put(1)).unwrap();
        story.formed(4, &genesis(), false).unwrap();
    }

    #[test]
    fn a_second_cluster_is_condemned() {
        let mut story = Story::of(OneCluster);
        let mut other = genesis();
        other.members.get_mut(&node(3)).unwrap().voter = Some(voter(3, 30).incarnation);
        broken(story.formed(3, &other, true), RULE);
    }

    #[test]
    fn an_acceptor_that_speaks_before_it_is_a_member_is_condemned() {
        let mut story = Story::of(OneCluster);
        story.formed(4, &genesis(), false).unwrap();
        broken(story.durable(voter(4, 4), promised(ballot(1, 1))), RULE);
        story.court.on_process_ended(node(2), false);
        broken(story.restored(voter(2, 2), vec![]), RULE);
    }
}

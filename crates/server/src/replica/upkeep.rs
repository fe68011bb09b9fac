//! What a replica sees to by itself: that its acceptor votes, that its disk holds what was decided before the present
//! voters, and that the log says where clients find it.
//!
//! An acceptor whose incarnation is not the one that votes asks, as an ordinary command, to take the other's
//! place. It asks only once this replica's durable store covers every trim point of the others (rule R6): a
//! voter should hold what its predecessor held. That may be little; the rest is seen to before it may count, by the
//! learner. Both commands are conditional, so repeating them is harmless.

use super::shared::Shared;
use std::time::Duration;
use synod_paxos::membership::{Change, Membership};
use synod_paxos::mutants::{Mutant, is};
use synod_paxos::types::{Prefix, Time};
use synod_paxos::value::Action;

/// How long to wait for one such command to be applied before it is repeated.
const AGAIN: Duration = Duration::from_secs(2);

/// With so many commands waiting, nothing is being applied, or much is; another one would not help.
const MANY: usize = 1_000;

/// See the module.
pub(crate) struct Upkeep {
    /// How far this replica's durable store covers.
    pub(crate) durable: Prefix,
    asked: Option<(Change, Time)>,
    /// When a checkpoint was last asked for.
    wanted_checkpoint: Option<Time>,
}

impl Upkeep {
    pub(crate) fn new() -> Upkeep {
        Upkeep { durable: Prefix::EMPTY, asked: None, wanted_checkpoint: None }
    }

    /// Looks at the membership as applied here, and at `trimmed`, the highest trim point of the others; none as
    /// long as too few of them have told theirs.
    pub(crate) fn run(
        &mut self,
        shared: &Shared,
        membership: &Membership,
        trimmed: Option<Prefix>,
        now: Time,
    ) {
        let Some(change) = self.wanted(shared, membership, trimmed, now) else {
            self.asked = None;
            return;
        };
        let waits = |(asked, at): &(Change, Time)| *asked == change && now.since(*at) < AGAIN;
        // What waits is sent again by the front; asking anew is for when it came too late to do anything.
        if self.asked.as_ref().is_some_and(waits) || shared.desk().waiting() > MANY {
            return;
        }
        let submitted = shared.desk().submit(Action::Reconfigure(change.clone()), None, now);
        if submitted.is_ok() {
            shared.core.wake();
            self.asked = Some((change, now));
        }
    }

    fn wanted(
        &mut self,
        shared: &Shared,
        membership: &Membership,
        trimmed: Option<Prefix>,
        now: Time,
    ) -> Option<Change> {
        let member = membership.members().get(&shared.node)?;
        let mine = shared.home.incarnation();
        if member.voter != Some(mine) {
            if self.durable < trimmed? {
                self.want_checkpoint(shared, now);
                return None;
            }
            return Some(Change::Replace { node: shared.node, old: member.voter, new: mine });
        }
        // What was decided by earlier voters shall not rest on their memories for long: fewer than a majority of them
        // may still vote, as when several members were removed, and who no longer votes is soon switched off.
        let since = membership.configurations().newest_from();
        let in_force = membership.configurations().applied().contains(since);
        if in_force && self.durable < Prefix::before(since) && !is(Mutant::VotesWithoutStore) {
            self.want_checkpoint(shared, now);
        }
        let config = &shared.config;
        (member.name != config.name || member.client_urls != config.client_urls).then(|| Change::Publish {
            node: shared.node,
            name: config.name.clone(),
            client_urls: config.client_urls.clone(),
        })
    }

    /// Not too often: a disk that has no room for one is not to be kept busy with trying.
    fn want_checkpoint(&mut self, shared: &Shared, now: Time) {
        if self.wanted_checkpoint.is_none_or(|at| now.since(at) >= AGAIN) {
            self.wanted_checkpoint = Some(now);
            shared.checkpoint_soon();
        }
    }
}

//! Is the cluster well again?

use std::time::{Duration, Instant};

use synod_client::requests;
use synod_client::rpc::synodpb::InspectResponse;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::cluster::look::{missing, takes_part};

/// How long a cluster may take to be well after the last fault has ended. Much of it is the rest that a role takes
/// that failed again and again, which grows up to 10 s.
pub(super) const WELL_WITHIN: Duration = Duration::from_secs(45);
const POLL: Duration = Duration::from_millis(20);

/// What must be different from before the fault.
#[derive(Clone, Debug, Default)]
pub(super) struct Expect {
    /// The server at this place must not be this incarnation any more.
    pub(super) not: Option<(usize, String)>,
}

impl Expect {
    fn unmet(&self, place: usize, seen: &InspectResponse) -> bool {
        self.not.as_ref().is_some_and(|(who, former)| *who == place && *former == seen.incarnation)
    }
}

/// Waits until every server takes full part, has applied all that was chosen when they all did, and answers a
/// newest read.
///
/// # Errors
/// With what is missing, if that takes longer than [`WELL_WITHIN`].
pub(super) async fn until_well(cluster: &Cluster, expect: &Expect) -> Result<(), String> {
    let deadline = Instant::now() + WELL_WITHIN;
    let mut target = None;
    loop {
        let looks = cluster.look().await;
        let ill = looks.iter().enumerate().find_map(|(place, seen)| {
            let why = match seen {
                None => "does not answer".to_owned(),
                Some(seen) if expect.unmet(place, seen) => "still says that it is who it was".to_owned(),
                Some(seen) if !takes_part(seen) => missing(seen),
                Some(seen) => match target {
                    Some(target) if seen.applied_slot < target => {
                        format!("has applied {} slots of {target}", seen.applied_slot)
                    }
                    _ => return None,
                },
            };
            Some(format!("{}: {why}", cluster.nodes[place].name))
        });
        let ill = match (ill, target) {
            (Some(ill), _) => ill,
            (None, None) => {
                target = looks.iter().flatten().map(|seen| seen.chosen_slot).max();
                continue;
            }
            (None, Some(_)) => match reads(cluster).await {
                Ok(()) => return Ok(()),
                Err(ill) => ill,
            },
        };
        if Instant::now() >= deadline {
            return Err(format!("not well after {} s: {ill}", WELL_WITHIN.as_secs()));
        }
        sleep(POLL).await;
    }
}

async fn reads(cluster: &Cluster) -> Result<(), String> {
    for node in &cluster.nodes {
        let read = node.admin.range(requests::get("a")).await;
        read.map_err(|error| format!("{}: a read failed: {error}", node.name))?;
    }
    Ok(())
}

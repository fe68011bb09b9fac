//! The leader, found and killed, while clients write to the others.
//!
//! What a leader's end costs is the time in which nobody's write is acknowledged. Clients of the dead server would
//! have to find another first, which says something about clients; so here there are none. And clients do not wait for
//! long: what a server passed on to the dead leader may be lost, and etcd tells so after seven seconds only. If all
//! clients waited for that, nobody would notice that there is a leader again.

use std::time::{Duration, Instant};

use synod_client::requests;
use tokio::time::sleep;

use super::super::course::Extent;
use super::super::growth::Watched;
use super::super::measure::Target;
use super::super::own::Servers;
use super::super::point::Point;
use super::super::workload::Workload;
use super::Args;
use crate::cluster::Cluster;
use crate::failed::Failed;
use crate::options::Context;

/// How many clients write meanwhile.
const CLIENTS: usize = 64;
/// How long each waits for an answer before it sends another write.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long they do so before the leader is killed, and afterwards.
const BEFORE: Duration = Duration::from_secs(2);
const AFTERWARDS: Duration = Duration::from_secs(6);
/// Leadership may pass to another server just before it strikes: then it strikes nobody, and is tried again.
const ATTEMPTS: usize = 5;
/// How long a cluster may take until all its servers are there again and agree.
const WELL_WITHIN: Duration = Duration::from_secs(60);
/// And so long it is left alone then.
const REST: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);

/// Kills the leader once, lets it come back, and tells what clients of the others saw.
///
/// # Errors
/// If there is no lasting leader, or the cluster does not recover.
pub(super) async fn kill(servers: &Servers, args: &Args, context: &Context) -> Result<Point, Failed> {
    for _ in 0..ATTEMPTS {
        let leader = until_well(&servers.cluster).await?;
        let others = servers.endpoints.iter().enumerate().filter(|(place, _)| *place != leader);
        let others = others.map(|(_, endpoint)| endpoint.clone()).collect();
        // The processes are not looked at: one of them is about to end.
        let target = Target { limit: PATIENCE, ..args.target_at(others, Watched::default(), context) };
        let effort = args.lasting(Workload::Put, CLIENTS, Extent::Time(BEFORE + AFTERWARDS));
        let striking = async {
            sleep(effort.warm_up + BEFORE).await;
            let still = leader_of(&servers.cluster).await == Some(leader);
            if still {
                servers.cluster.nodes[leader].kill().await?;
            }
            Ok(still)
        };
        let (struck, measured) = tokio::try_join!(striking, target.measure(effort, |_| ()))?;
        if struck {
            servers.cluster.nodes[leader].start().await?;
            until_well(&servers.cluster).await?;
            return Ok(Point::new(Workload::Put, 0, &effort, &measured));
        }
    }
    Err(servers.cluster.failed("no server leads for long enough to be killed as the leader"))
}

/// Waits until all servers answer and know the same leader; returns its place.
async fn until_well(cluster: &Cluster) -> Result<usize, Failed> {
    let deadline = Instant::now() + WELL_WITHIN;
    while Instant::now() < deadline {
        if let Some(leader) = leader_of(cluster).await
            && all_read(cluster).await
        {
            sleep(REST).await;
            if leader_of(cluster).await == Some(leader) {
                return Ok(leader);
            }
        }
        sleep(POLL).await;
    }
    Err(cluster.failed("the servers do not all agree on a leader"))
}

/// Whether each of them answers a linearizable read, so that it has caught up, too.
async fn all_read(cluster: &Cluster) -> bool {
    for node in &cluster.nodes {
        if node.admin.range(requests::get("a")).await.is_err() {
            return false;
        }
    }
    true
}

async fn leader_of(cluster: &Cluster) -> Option<usize> {
    let mut claims = Vec::new();
    for node in &cluster.nodes {
        let status = node.admin.status().await.ok()?;
        claims.push(Claim { member: status.header?.member_id, leader: status.leader });
    }
    agreed(&claims)
}

/// What a server says in its status: who it is, and who leads, or 0.
#[derive(Clone, Copy, Debug)]
struct Claim {
    member: u64,
    leader: u64,
}

/// The place of the leader, if all name the same and it is among them.
fn agreed(claims: &[Claim]) -> Option<usize> {
    let leader = claims.first()?.leader;
    let all = claims.iter().all(|claim| claim.leader == leader);
    if all { claims.iter().position(|claim| claim.member == leader) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_who_all_say_it_is() {
        let agreed = |leaders: [u64; 3]| {
            let claims = [7, 8, 9].into_iter().zip(leaders);
            agreed(&claims.map(|(member, leader)| Claim { member, leader }).collect::<Vec<_>>())
        };
        assert_eq!(agreed([9, 9, 9]), Some(2));
        assert_eq!(agreed([9, 9, 8]), None);
        assert_eq!(agreed([0, 0, 0]), None, "nobody leads");
        assert_eq!(agreed([5, 5, 5]), None, "somebody who does not belong here");
        assert_eq!(super::agreed(&[]), None);
    }
}

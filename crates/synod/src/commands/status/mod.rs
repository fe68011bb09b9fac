//! `status`: every replica on one screen, and what that means.

mod screen;
mod verdict;

use std::collections::BTreeSet;

use tonic::Code;

use self::verdict::{Level, Observed, View};
use crate::failed::{Call, Failed, Why};
use crate::options::Context;
use crate::output::{self, Format};
use synod_client::{Client, Config, Replica};
use synod_rpc::etcdserverpb::Member;

const EXAMPLES: &str = "\
Examples:
  synod status
  synod status --endpoints 127.0.0.1:2379     one address is enough, it knows the others
  synod status -w json | jq .may_fail

ROLE     leader, follower, or down if it does not answer
RUNS     which of proposer, acceptor, learner run; - is stopped, ! has failed
BALLOT   the highest proposal number seen
CHOSEN   every slot of the log up to here is decided; APPLIED: and in the store
LAG      slots decided somewhere and not applied here

The last line says how many more replicas may be lost, or what is wrong.
Exit codes: 0 requests are served, 1 they are not, 3 replicas contradict each other.";

/// Nothing beside the global options.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

/// Asks everybody and shows the answers.
pub(crate) async fn run(Args {}: Args, context: &Context) -> Result<(), Failed> {
    if context.format == Format::Fields {
        return Err(Failed::usage(Why::Unsupported, "fields not supported as output format")
            .hint("The status comes as simple (the same as table) or json."));
    }
    // Two rounds of questions have to fit into the time a command may take.
    let client = Client::connect(Config {
        endpoints: context.endpoints.clone(),
        dial_timeout: context.dial_timeout.min(context.command_timeout / 2),
        request_timeout: context.command_timeout / 2,
    })
    .map_err(|error| Failed::call(&error, Call::Read))?;
    let (replicas, members) = observe(&client).await?;
    let verdict = verdict::judge(&replicas, &members);
    output::emit(match context.format {
        Format::Json => screen::json(&replicas, &verdict),
        _ => screen::text(&replicas, &verdict, context.colour),
    })?;
    match verdict.level {
        Level::Healthy | Level::Degraded => Ok(()),
        Level::Stopped => Err(Failed::silently()),
        Level::Wrong => Err(Failed::wrong()),
    }
}

/// Asks the given endpoints, and then the members they name that did not
/// answer there.
async fn observe(client: &Client) -> Result<(Vec<Observed>, Vec<Member>), Failed> {
    let given: Vec<Replica> = client.replicas().to_vec();
    let (mut seen, members) = tokio::join!(look_at(given.clone()), members(given));

    // A member is asked at its own addresses unless it has answered already.
    let asked: BTreeSet<String> = seen.iter().map(|replica| replica.endpoint.clone()).collect();
    let answered: BTreeSet<u64> = seen.iter().filter_map(|replica| replica.id).collect();
    let mut others = Vec::new();
    for member in members.iter().filter(|member| !answered.contains(&member.id)) {
        for url in &member.client_urls {
            let replica = client.on(url).map_err(|error| Failed::call(&error, Call::Read))?;
            if !asked.contains(replica.endpoint()) {
                others.push(replica);
            }
        }
    }
    seen.extend(look_at(others).await);
    Ok((assign(seen, &members), members))
}

/// Looks at each of these replicas, all at once.
async fn look_at(replicas: Vec<Replica>) -> Vec<Observed> {
    let looks: Vec<_> = replicas.into_iter().map(|replica| tokio::spawn(look(replica))).collect();
    let mut seen = Vec::with_capacity(looks.len());
    for look in looks {
        seen.push(look.await.expect("looking at a replica does not panic"));
    }
    seen
}

async fn look(replica: Replica) -> Observed {
    let endpoint = replica.endpoint().to_owned();
    let unknown = |view| Observed { endpoint: endpoint.clone(), id: None, name: endpoint.clone(), view };
    match replica.inspect().await {
        Ok(inspect) => Observed {
            id: Some(inspect.node_id),
            name: inspect.name.clone(),
            ..unknown(View::Synod(Box::new(inspect)))
        },
        Err(error) if error.code() == Some(Code::Unimplemented) => match replica.status().await {
            Ok(status) => Observed {
                id: status.header.as_ref().map(|header| header.member_id),
                ..unknown(View::Etcd(Box::new(status)))
            },
            Err(error) => unknown(View::Silent(error.failure.to_string())),
        },
        Err(error) => unknown(View::Silent(error.failure.to_string())),
    }
}

/// The longest member list that any of these replicas has; they are asked for
/// what they know themselves, so that the list is there without a majority.
async fn members(replicas: Vec<Replica>) -> Vec<Member> {
    let asked: Vec<_> = replicas
        .into_iter()
        .map(|replica| tokio::spawn(async move { replica.known_members().await }))
        .collect();
    let mut longest = Vec::new();
    for answer in asked {
        if let Ok(list) = answer.await.expect("asking for members does not panic")
            && list.members.len() > longest.len()
        {
            longest = list.members;
        }
    }
    longest
}

/// Says whose silence it is, names who did not name itself, and keeps one
/// observation of each replica, in the order of the names.
fn assign(seen: Vec<Observed>, members: &[Member]) -> Vec<Observed> {
    let trimmed = |url: &str| url.trim_end_matches('/').to_owned();
    let mut replicas: Vec<Observed> = Vec::new();
    for mut replica in seen {
        let member = members.iter().find(|member| match replica.id {
            Some(id) => member.id == id,
            None => member.client_urls.iter().any(|url| trimmed(url) == replica.endpoint),
        });
        if let Some(member) = member {
            replica.id = Some(member.id);
            if !member.name.is_empty() {
                replica.name.clone_from(&member.name);
            }
        }
        let known = replicas.iter_mut().find(|known| known.id.is_some() && known.id == replica.id);
        match known {
            // An answer from any of its addresses is an answer.
            Some(known) if matches!(known.view, View::Silent(_)) => *known = replica,
            Some(_) => {}
            None => replicas.push(replica),
        }
    }
    replicas.sort_by(|one, other| one.name.cmp(&other.name));
    replicas
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent(endpoint: &str) -> Observed {
        let view = View::Silent("refused".to_owned());
        Observed { endpoint: endpoint.to_owned(), id: None, name: endpoint.to_owned(), view }
    }

    fn answer(endpoint: &str, id: u64, name: &str) -> Observed {
        let view = View::Synod(Box::default());
        Observed { endpoint: endpoint.to_owned(), id: Some(id), name: name.to_owned(), view }
    }

    fn member(id: u64, name: &str, urls: &[&str]) -> Member {
        let client_urls = urls.iter().map(|url| (*url).to_owned()).collect();
        Member { id, name: name.to_owned(), client_urls, ..Member::default() }
    }

    #[test]
    fn a_silent_address_gets_the_name_of_its_member() {
        let members = [member(1, "n1", &["http://h:1"]), member(2, "n2", &["http://h:2/"])];
        let replicas = assign(vec![silent("http://h:2"), answer("http://h:1", 1, "n1")], &members);
        let names: Vec<_> = replicas.iter().map(|replica| (replica.id, replica.name.as_str())).collect();
        assert_eq!(names, [(Some(1), "n1"), (Some(2), "n2")]);
    }

    #[test]
    fn a_replica_with_two_addresses_is_one_and_up_if_either_answers() {
        let members = [member(1, "n1", &["http://a:1", "http://b:1"])];
        let replicas = assign(vec![silent("http://a:1"), answer("http://b:1", 1, "n1")], &members);
        assert_eq!(replicas.len(), 1);
        assert!(matches!(replicas[0].view, View::Synod(_)));
        let replicas = assign(vec![answer("http://b:1", 1, "n1"), silent("http://a:1")], &members);
        assert_eq!(replicas.len(), 1);
        assert!(matches!(replicas[0].view, View::Synod(_)));
    }

    #[test]
    fn strangers_stay_strangers() {
        let replicas = assign(vec![silent("http://x:1"), silent("http://y:1")], &[]);
        assert_eq!(replicas.len(), 2);
    }
}

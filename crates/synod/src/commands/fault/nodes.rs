//! Which replica is meant by `n2`, by `3f`, or by `127.0.0.1:2381`.

use crate::failed::{Call, Failed, Why};
use synod_client::{Client, Replica};
use synod_rpc::etcdserverpb::Member;

/// The members of the cluster, and how to reach them.
pub(super) struct Nodes {
    client: Client,
    members: Vec<Member>,
}

impl Nodes {
    /// Asks any endpoint for the members it knows; that takes no majority, which
    /// the faults may have cost.
    ///
    /// # Errors
    /// If no endpoint answers.
    pub(super) async fn find(client: &Client) -> Result<Self, Failed> {
        let mut last = None;
        for replica in client.replicas() {
            match replica.known_members().await {
                Ok(list) => return Ok(Self { client: client.clone(), members: list.members }),
                Err(error) => last = Some(error),
            }
        }
        let error = last.expect("a client has at least one endpoint");
        Err(Failed::call(&error, Call::Read))
    }

    /// The replica of that name, hexadecimal id, or address.
    pub(super) async fn one(&self, node: &str) -> Result<Replica, Failed> {
        let url = match self.member(node) {
            Some(member) => member.client_urls.first().map(String::as_str).ok_or_else(|| {
                Failed::new(format!("the replica {node} has not told where clients reach it"))
                    .hint("Name it by HOST:PORT instead.")
            })?,
            None if node.contains(':') => node,
            None => return Err(self.unknown(node)),
        };
        self.client.on(url).map_err(|error| Failed::call(&error, Call::Read))
    }

    /// The name by which other replicas know this one.
    pub(super) async fn peer(&self, node: &str) -> Result<String, Failed> {
        if let Some(member) = self.member(node) {
            return Ok(member.name.clone());
        }
        if !node.contains(':') {
            return Err(self.unknown(node));
        }
        let inspect = self.one(node).await?.inspect().await;
        Ok(inspect.map_err(|error| Failed::call(&error, Call::Read))?.name)
    }

    /// The named replicas; all members if none is named.
    pub(super) async fn some(&self, nodes: &[String]) -> Result<Vec<Replica>, Failed> {
        let all: Vec<String>;
        let nodes = match nodes {
            [] => {
                all = self.members.iter().map(|member| member.name.clone()).collect();
                &all
            }
            nodes => nodes,
        };
        let mut replicas = Vec::with_capacity(nodes.len());
        for node in nodes {
            replicas.push(self.one(node).await?);
        }
        Ok(replicas)
    }

    fn member(&self, node: &str) -> Option<&Member> {
        let by_name = self.members.iter().find(|member| member.name == node);
        by_name.or_else(|| {
            let id = u64::from_str_radix(node, 16).ok()?;
            self.members.iter().find(|member| member.id == id)
        })
    }

    fn unknown(&self, node: &str) -> Failed {
        let names: Vec<&str> = self.members.iter().map(|member| member.name.as_str()).collect();
        Failed::usage(Why::Arguments, format!("there is no replica {node}"))
            .hint(format!("The cluster has {}; an address HOST:PORT will do too.", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_client::Config;

    fn nodes() -> Nodes {
        let member = |id: u64, url: &str| Member {
            id,
            name: format!("n{id}"),
            client_urls: vec![url.to_owned()],
            ..Member::default()
        };
        let members = vec![member(1, "http://127.0.0.1:11"), member(0xbeef, "http://127.0.0.1:12")];
        Nodes { client: Client::connect(Config::default()).unwrap(), members }
    }

    #[tokio::test]
    async fn a_node_is_a_name_an_id_or_an_address() {
        let nodes = nodes();
        let endpoint = async |node| nodes.one(node).await.map(|replica| replica.endpoint().to_owned());
        assert_eq!(endpoint("n1").await, Ok("http://127.0.0.1:11".to_owned()));
        assert_eq!(endpoint("beef").await, Ok("http://127.0.0.1:12".to_owned()));
        assert_eq!(endpoint("127.0.0.1:99").await, Ok("http://127.0.0.1:99".to_owned()));
    }

    #[tokio::test]
    async fn an_unknown_node_is_wrong_usage_and_the_known_ones_are_named() {
        let failed = nodes().one("n9").await.unwrap_err();
        let personality = crate::failed::Personality::Synod;
        assert_eq!(failed.code(personality), 2);
        assert!(failed.message(personality).contains("n1, n48879"), "{failed:?}");
    }

    #[tokio::test]
    async fn no_node_means_every_node() {
        assert_eq!(nodes().some(&[]).await.unwrap().len(), 2);
        assert_eq!(nodes().some(&["n1".to_owned()]).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn peers_go_by_their_names() {
        assert_eq!(nodes().peer("beef").await, Ok("n48879".to_owned()));
    }
}

//! Cutting links between servers, one direction at a time.
//!
//! Where this process is root and may make network namespaces, each server has one of its own, and a real
//! Ethernet between them: a bridge, and a virtual cable for each. A link is cut by giving the sender a false
//! hardware address for the receiver: its frames leave and arrive nowhere, without a word to anybody, and nothing
//! outside the namespace knows. That takes `ip` alone, and it ends with the namespaces, which end with the
//! [`Network`], however the run ends short of kill -9.
//!
//! Elsewhere the servers themselves lose the messages (`synod fault link`), which no connection notices.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use synod_client::rpc::synodpb::inject_fault_request::Fault;
use synod_client::rpc::synodpb::{HealLinks, Link, LinkDirection};

use crate::cluster::{Node, Site};

/// From one server to another, by their places.
pub(super) type Way = (usize, usize);

/// How links are cut.
pub(super) enum Links {
    /// Frames go astray.
    Frames(Network),
    /// Servers lose messages.
    Messages,
}

impl Links {
    /// As `--output json` and the first lines of a run name it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Links::Frames(_) => "namespaces",
            Links::Messages => "built-in",
        }
    }

    /// Where the servers are to live.
    pub(super) fn sites(&self, servers: usize) -> Vec<Site> {
        match self {
            Links::Frames(network) => network
                .ends
                .iter()
                .map(|end| Site { host: end.address, namespace: Some(end.namespace.clone()), disk: None })
                .collect(),
            Links::Messages => vec![Site::loopback(); servers],
        }
    }

    /// Lets nothing through in these directions.
    pub(super) async fn cut(&self, nodes: &[Arc<Node>], ways: &[Way]) -> Result<(), String> {
        for &(from, to) in ways {
            match self {
                Links::Frames(network) => network.cut(from, to)?,
                Links::Messages => {
                    let fault = Fault::Link(Link {
                        peer: nodes[to].name.clone(),
                        direction: LinkDirection::Out.into(),
                        cut: true,
                        ..Link::default()
                    });
                    tell(&nodes[from], fault).await?;
                }
            }
        }
        Ok(())
    }

    /// Ends what [`cut`](Self::cut) did with the same directions.
    pub(super) async fn heal(&self, nodes: &[Arc<Node>], ways: &[Way]) -> Result<(), String> {
        match self {
            Links::Frames(network) => ways.iter().try_for_each(|&(from, to)| network.heal(from, to)),
            Links::Messages => {
                for (place, node) in nodes.iter().enumerate() {
                    if ways.iter().any(|&(from, _)| from == place) {
                        tell(node, Fault::HealLinks(HealLinks {})).await?;
                    }
                }
                Ok(())
            }
        }
    }
}

async fn tell(node: &Node, fault: Fault) -> Result<(), String> {
    let told = node.admin.inject_fault(fault).await;
    told.map(|_| ()).map_err(|error| format!("cannot disturb the links of {}: {error}", node.name))
}

/// Every pair of one and another group, in both directions.
pub(super) fn between(one: &[usize], other: &[usize]) -> Vec<Way> {
    let pairs = one.iter().flat_map(|&a| other.iter().map(move |&b| (a, b)));
    pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}

/// One server's end of the network.
#[derive(Clone, Debug)]
struct End {
    namespace: String,
    /// The outer end of its cable.
    cable: String,
    address: Ipv4Addr,
}

/// Namespaces, cables and a bridge, which go when this is dropped.
pub(super) struct Network {
    bridge: String,
    ends: Vec<End>,
}

/// The end of the cable inside of each namespace.
const INNER: &str = "eth0";
/// Nobody has it: locally administered, all zeroes.
const NOWHERE: &str = "02:00:00:00:00:00";
/// Networks to try, in the range that is set aside for measuring networks (RFC 2544).
const ATTEMPTS: u8 = 16;

impl Network {
    /// Builds a network of its own for as many servers, and joins this process to it.
    ///
    /// # Errors
    /// With the first thing that could not be done. What was built until then is gone again.
    pub(super) fn build(servers: usize) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces need root".to_owned());
        }
        let own = std::process::id();
        let net = free_net(own as u8)?;
        let host = |last: usize| Ipv4Addr::new(198, 18, net, last as u8);
        let ends = (1..=servers).map(|number| End {
            namespace: format!("synod-chaos-{own}-n{number}"),
            cable: format!("sc{own:x}v{number}"),
            address: host(number),
        });
        // From here on, whatever fails, dropping it takes down what stands.
        let network = Self { bridge: format!("sc{own:x}b"), ends: ends.collect() };
        let bridge = &network.bridge;
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {}/24 dev {bridge}", host(254)))?;
        ip(&format!("link set {bridge} up"))?;
        for End { namespace, cable, address } in &network.ends {
            ip(&format!("netns add {namespace}"))?;
            ip(&format!("link add {cable} type veth peer name {INNER} netns {namespace}"))?;
            ip(&format!("link set {cable} master {bridge} up"))?;
            ip(&format!("-n {namespace} addr add {address}/24 dev {INNER}"))?;
            ip(&format!("-n {namespace} link set {INNER} up"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
        }
        Ok(network)
    }

    fn cut(&self, from: usize, to: usize) -> Result<(), String> {
        let (from, to) = (&self.ends[from].namespace, self.ends[to].address);
        ip(&format!("-n {from} neigh replace {to} lladdr {NOWHERE} nud permanent dev {INNER}"))
    }

    fn heal(&self, from: usize, to: usize) -> Result<(), String> {
        let (from, to) = (&self.ends[from].namespace, self.ends[to].address);
        ip(&format!("-n {from} neigh del {to} dev {INNER}"))
    }
}

impl Drop for Network {
    /// Takes down exactly what has this run's names. Some of it may never have been built.
    fn drop(&mut self) {
        for end in &self.ends {
            let _ = ip(&format!("link del {}", end.cable));
            let _ = ip(&format!("netns del {}", end.namespace));
        }
        let _ = ip(&format!("link del {}", self.bridge));
    }
}

/// A network of which this machine has no address yet.
fn free_net(first: u8) -> Result<u8, String> {
    for net in (0..ATTEMPTS).map(|step| first.wrapping_add(step)) {
        let addresses = said(&format!("-4 -o addr show to 198.18.{net}.0/24"))?;
        if addresses.trim().is_empty() {
            return Ok(net);
        }
    }
    Err("no network in 198.18.0.0/16 is free".to_owned())
}

fn ip(arguments: &str) -> Result<(), String> {
    said(arguments).map(|_| ())
}

/// Runs `ip`; none of our arguments has a blank in it.
fn said(arguments: &str) -> Result<String, String> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run ip: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            let why = String::from_utf8_lossy(&output.stderr);
            Err(format!("`ip {arguments}` failed: {}", why.trim()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_has_two_directions_for_each_pair() {
        assert_eq!(between(&[0], &[2, 3]), [(0, 2), (2, 0), (0, 3), (3, 0)]);
        assert!(between(&[], &[1, 2]).is_empty());
    }

    #[test]
    fn a_network_leaves_nothing_behind() {
        let network = match Network::build(2) {
            Ok(network) => network,
            Err(why) => return eprintln!("skipped: {why}"),
        };
        let (bridge, namespace) = (network.bridge.clone(), network.ends[0].namespace.clone());
        assert!(said("link show").unwrap().contains(&bridge));
        network.cut(0, 1).unwrap();
        let neighbours = said(&format!("-n {namespace} neigh show")).unwrap();
        assert!(neighbours.contains(NOWHERE), "{neighbours}");
        network.heal(0, 1).unwrap();
        let neighbours = said(&format!("-n {namespace} neigh show")).unwrap();
        assert!(!neighbours.contains(NOWHERE), "{neighbours}");
        drop(network);
        assert!(!said("link show").unwrap().contains(&bridge));
        assert!(!said("netns list").unwrap().contains(&namespace));
    }
}

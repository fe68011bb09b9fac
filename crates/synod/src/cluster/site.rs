//! Where a server lives: an address, and ports on it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

/// Where one server is to live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// What it listens on, and where it is reached.
    pub(crate) host: Ipv4Addr,
    /// The network namespace that its process runs in; that of this process if there is none.
    pub(crate) namespace: Option<String>,
    /// A folder of its own, such as where a small disk is mounted. If there is none, its data lies
    /// with that of the others.
    pub(crate) disk: Option<PathBuf>,
}

impl Site {
    /// On loopback, beside everything else.
    pub(crate) fn loopback() -> Self {
        Self { host: Ipv4Addr::LOCALHOST, namespace: None, disk: None }
    }
}

/// Where ports for servers are looked for: below those that the system gives to outgoing connections, so that a
/// server that is down for a while finds its own again.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// Ports that nobody uses now, from a random one on. All are held until the last is found, so that none is
/// found twice.
pub(super) fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let range = usize::from(PORTS.end - PORTS.start);
    let first = rand::random_range(0..range);
    let candidates = (0..range).map(|i| PORTS.start + ((first + i) % range) as u16);
    let held: Vec<TcpListener> = candidates
        .filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
        .take(count)
        .collect();
    if held.len() < count {
        return Err(std::io::Error::other(format!("fewer than {count} ports are free in {PORTS:?}")));
    }
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn free_ports_are_all_different() {
        let ports = free_ports(10).unwrap();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 10);
    }
}

//! Where servers listen and where they are reached.
//!
//! Everything is `http://host:port` here: no path, no TLS yet, and always a port, because a forgotten one
//! would be 80. One address has one spelling, so that a server can find itself in the list of all servers.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use axum::http::uri::Authority;

/// An address: `http://host:port`, the host in lower case. Ordered and printed as text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpUrl {
    host: String,
    port: u16,
}

/// Why text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is no address: {problem}; write http://host:port")]
pub struct UrlError {
    url: String,
    problem: &'static str,
}

impl HttpUrl {
    /// An address on this machine alone.
    pub fn localhost(port: u16) -> HttpUrl {
        HttpUrl { host: "localhost".to_owned(), port }
    }

    /// The host: a name or an address, an IPv6 one in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 lets the system pick one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Does it mean "every address of this machine"? Nobody can be told to connect there.
    pub fn is_wildcard(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
    }
}

impl FromStr for HttpUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<HttpUrl, UrlError> {
        let bad = |problem| UrlError { url: text.to_owned(), problem };
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some(("https", _)) => return Err(bad("TLS is not offered yet")),
            Some(_) => return Err(bad("the scheme is unknown")),
            None => return Err(bad("the scheme is missing")),
        };
        let authority: Authority = rest.parse().map_err(|_| bad("it is malformed"))?;
        let host = authority.host();
        if host.is_empty() || rest.contains('@') {
            return Err(bad("it is malformed"));
        }
        let port = authority.port_u16().ok_or_else(|| bad("the port is missing"))?;
        Ok(HttpUrl { host: host.to_ascii_lowercase(), port })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

/// Addresses, separated by commas; at least one, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlList(pub Vec<HttpUrl>);

impl FromStr for UrlList {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<UrlList, UrlError> {
        let mut urls = Vec::new();
        for part in text.split(',') {
            let url: HttpUrl = part.trim().parse()?;
            if urls.contains(&url) {
                return Err(UrlError { url: part.to_owned(), problem: "it is there twice" });
            }
            urls.push(url);
        }
        Ok(UrlList(urls))
    }
}

impl fmt::Display for UrlList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, url) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            url.fmt(f)?;
        }
        Ok(())
    }
}

/// All servers of a cluster by name, with where their peers reach them: `n1=http://..,n2=http://..`. A name
/// that is there twice has two addresses, as with etcd; an address belongs to one name, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialCluster(pub BTreeMap<String, Vec<HttpUrl>>);

/// Why text does not list the servers of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// An entry is no pair.
    #[error("{0:?} is not name=http://host:port")]
    NotAPair(String),
    /// An entry has a bad address.
    #[error("{name}: {source}")]
    Url {
        /// Of whom.
        name: String,
        /// What is wrong with it.
        source: UrlError,
    },
    /// One address is given to two servers, or twice to one.
    #[error("{url} is there twice, for {first} and for {second}")]
    SharedUrl {
        /// The address.
        url: HttpUrl,
        /// Who had it.
        first: String,
        /// Who was to have it as well.
        second: String,
    },
}

impl FromStr for InitialCluster {
    type Err = ClusterError;

    fn from_str(text: &str) -> Result<InitialCluster, ClusterError> {
        let mut members: BTreeMap<String, Vec<HttpUrl>> = BTreeMap::new();
        let mut owners: BTreeMap<HttpUrl, String> = BTreeMap::new();
        for entry in text.split(',') {
            let pair = entry.split_once('=').map(|(name, url)| (name.trim(), url.trim()));
            let Some((name, url)) = pair.filter(|(name, _)| !name.is_empty()) else {
                return Err(ClusterError::NotAPair(entry.to_owned()));
            };
            let url: HttpUrl =
                url.parse().map_err(|source| ClusterError::Url { name: name.to_owned(), source })?;
            if let Some(first) = owners.insert(url.clone(), name.to_owned()) {
                return Err(ClusterError::SharedUrl { url, first, second: name.to_owned() });
            }
            members.entry(name.to_owned()).or_default().push(url);
        }
        Ok(InitialCluster(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        text.parse::<HttpUrl>().expect_err(text).to_string()
    }

    #[test]
    fn one_address_has_one_spelling() {
        for text in ["http://Node1:2380", "http://node1:2380/"] {
            assert_eq!(text.parse::<HttpUrl>().unwrap().to_string(), "http://node1:2380");
        }
        assert_eq!("http://[::1]:2380".parse::<HttpUrl>().unwrap().to_string(), "http://[::1]:2380");
    }

    #[test]
    fn what_is_no_address_is_refused_with_advice() {
        for (text, why) in [
            ("node1:2380", "scheme is missing"),
            ("ftp://node1:2380", "scheme is unknown"),
            ("https://node1:2380", "TLS is not offered yet"),
            ("http://node1", "port is missing"),
            ("http://node1:99999", "port is missing"),
            ("http://:2380", "malformed"),
            ("http://node1:2380/path", "malformed"),
            ("http://me@node1:2380", "malformed"),
        ] {
            let said = problem(text);
            assert!(said.contains(why) && said.contains("http://host:port"), "{said}");
        }
        assert!("http://a:1,http://a:1".parse::<UrlList>().unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn wildcards_are_known() {
        let wildcard = |text: &str| text.parse::<HttpUrl>().unwrap().is_wildcard();
        assert!(wildcard("http://0.0.0.0:1") && wildcard("http://[::]:1"));
        assert!(!wildcard("http://127.0.0.1:1") && !wildcard("http://localhost:1"));
    }

    #[test]
    fn a_cluster_is_names_with_addresses() {
        let InitialCluster(members) = "a=http://h:1,b=http://h:2,a=http://h:3".parse().unwrap();
        let count: Vec<_> = members.iter().map(|(name, urls)| (name.as_str(), urls.len())).collect();
        assert_eq!(count, [("a", 2), ("b", 1)]);
    }

    #[test]
    fn a_cluster_list_says_what_is_wrong_with_it() {
        let problem = |text: &str| text.parse::<InitialCluster>().expect_err(text).to_string();
        assert_eq!(problem("a"), "\"a\" is not name=http://host:port");
        assert_eq!(problem(""), "\"\" is not name=http://host:port");
        assert_eq!(problem("=http://h:1"), "\"=http://h:1\" is not name=http://host:port");
        assert!(problem("a=h:1").starts_with("a: \"h:1\" is no address"));
        assert_eq!(problem("a=http://h:1,b=http://H:1/"), "http://h:1 is there twice, for a and for b");
    }
}

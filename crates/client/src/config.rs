//! Where the replicas are, and how long to wait for them.

use std::time::Duration;

use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::{Authority, Scheme};

use crate::error::{ClientError, Failure};

/// Where the replicas are, and how long to wait for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `http://host:port` or `host:port`, one per replica. Tried in this order,
    /// starting with the one that worked last; a repeated one counts once.
    pub endpoints: Vec<String>,
    /// How long a connection may take to be established.
    pub dial_timeout: Duration,
    /// How long a call may take, with all its retries.
    pub request_timeout: Duration,
}

impl Default for Config {
    /// `127.0.0.1:2379`, with etcdctl's two seconds to connect and five to answer.
    fn default() -> Self {
        Self {
            endpoints: vec!["127.0.0.1:2379".to_owned()],
            dial_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// These endpoints with the default timeouts.
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        Self { endpoints: endpoints.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

/// The one spelling of an endpoint: `http://host:port`.
pub(crate) fn parse_endpoint(text: &str) -> Result<Uri, ClientError> {
    let bad = |why: &str| ClientError::before_sending(text, Failure::BadEndpoint(why.to_owned()));
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest.strip_suffix('/').unwrap_or(rest),
        Some(("https", _)) => return Err(bad("TLS is not supported, use http://host:port")),
        Some(_) => return Err(bad("unknown scheme, use http://host:port or host:port")),
        None => text,
    };
    let authority: Authority = rest.parse().map_err(|_| bad("use http://host:port or host:port"))?;
    if authority.host().is_empty() || authority.as_str().contains('@') {
        return Err(bad("use http://host:port or host:port"));
    }
    if authority.port_u16().is_none() {
        return Err(bad("the port is missing, use host:port"));
    }
    let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query("/").build();
    uri.map_err(|_| bad("use http://host:port or host:port"))
}

/// How an endpoint is named to people: without the path that every URI has.
pub(crate) fn display(uri: &Uri) -> String {
    uri.to_string().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_endpoint_has_one_spelling() {
        for text in ["http://n1:2379", "http://n1:2379/", "n1:2379"] {
            assert_eq!(display(&parse_endpoint(text).unwrap()), "http://n1:2379");
        }
        assert_eq!(display(&parse_endpoint("[::1]:2379").unwrap()), "http://[::1]:2379");
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_advice() {
        for text in
            ["", "n1", "n1:", ":2379", "n1:99999", "https://n1:2379", "ftp://n1:1", "n1:1/path", "me@n1:1"]
        {
            let error = parse_endpoint(text).unwrap_err();
            assert!(matches!(error.failure, Failure::BadEndpoint(_)), "{text}: {error}");
            assert!(error.to_string().contains("host:port"), "{text}: {error}");
        }
    }
}

//! `version`: which program this is.

use crate::failed::{Failed, Personality};
use crate::options::Context;
use crate::output;

/// The version of etcd's API that is served and spoken.
const API: &str = "3.6";

/// Prints the version.
pub(crate) fn run(context: &Context) -> Result<(), Failed> {
    let version = env!("CARGO_PKG_VERSION");
    output::emit(match context.personality {
        Personality::Synod => format!("synod {version}\netcd API {API}\n"),
        Personality::Etcdctl => format!("etcdctl version: {version} (synod)\nAPI version: {API}\n"),
    })
}

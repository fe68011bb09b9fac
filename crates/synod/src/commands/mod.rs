//! The subcommands, one file each: arguments, what is done with them, examples.

pub(crate) mod bench;
pub(crate) mod chaos;
pub(crate) mod compaction;
pub(crate) mod completion;
pub(crate) mod del;
pub(crate) mod demo;
pub(crate) mod endpoint;
pub(crate) mod fault;
pub(crate) mod get;
pub(crate) mod member;
pub(crate) mod put;
pub(crate) mod server;
pub(crate) mod sim;
pub(crate) mod status;
pub(crate) mod trace;
pub(crate) mod txn;
pub(crate) mod version;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use bytes::Bytes;

use crate::failed::{Failed, Why};
use synod_client::requests::{self, Interval};

/// A key or value as it was typed, which need not be UTF-8.
fn to_bytes(text: OsString) -> Bytes {
    text.into_vec().into()
}

/// The keys that `get` and `del` are about: one, an interval, all with a
/// prefix, or all from one on.
///
/// # Errors
/// If more than one of these is asked for.
fn interval(
    key: OsString,
    range_end: Option<OsString>,
    prefix: bool,
    from_key: bool,
) -> Result<Interval, Failed> {
    let key = to_bytes(key);
    match (range_end, prefix, from_key) {
        (_, true, true) => Err(Failed::usage(
            Why::Arguments,
            "`--prefix` and `--from-key` cannot be set at the same time, choose one",
        )),
        (Some(_), true, _) | (Some(_), _, true) => Err(Failed::usage(
            Why::Arguments,
            "too many arguments, only accept one argument when `--prefix` or `--from-key` is set",
        )),
        (Some(end), false, false) => Ok((key, to_bytes(end))),
        (None, true, false) => Ok(requests::prefix(key)),
        (None, false, true) => Ok(requests::from_key(key)),
        (None, false, false) => Ok((key, Bytes::new())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kv_1_keys_are_one_or_an_interval() {
        let interval = |end: Option<&str>, prefix, from_key| {
            super::interval("k".into(), end.map(OsString::from), prefix, from_key)
        };
        let pair = |key: &'static str, end: &'static str| Ok((Bytes::from(key), Bytes::from(end)));
        assert_eq!(interval(None, false, false), pair("k", ""));
        assert_eq!(interval(Some("m"), false, false), pair("k", "m"));
        assert_eq!(interval(None, true, false), pair("k", "l"));
        assert_eq!(interval(None, false, true), pair("k", "\0"));
        for contradiction in [interval(None, true, true), interval(Some("m"), true, false)] {
            assert_eq!(contradiction.unwrap_err().code(crate::failed::Personality::Etcdctl), 128);
        }
    }
}

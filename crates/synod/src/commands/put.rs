//! `put`: writes a key.

use std::ffi::OsString;
use std::io::{IsTerminal, Read};

use bytes::Bytes;

use super::to_bytes;
use crate::failed::{Call, Failed, Personality, Why};
use crate::options::Context;
use crate::output::{self, Answer};
use synod_rpc::etcdserverpb::PutRequest;

const EXAMPLES: &str = "\
Examples:
  synod put fruit/kiwi green
  synod put config < config.json          the value comes from standard input
  synod put --prev-kv fruit/kiwi brown    also shows what was there before
  synod put -- -5 minus                   after --, nothing is an option

The key holds the value on a majority of the replicas once OK is printed.
After a timeout the write may still take effect: read the key before repeating it.";

/// What to write.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The key
    key: OsString,
    /// The value; read from standard input if it is not given
    value: Option<OsString>,
    /// Also print the key and value from before
    #[arg(long)]
    prev_kv: bool,
    /// Attach the key to this lease, in hexadecimal
    #[arg(long, value_name = "ID", default_value = "0", hide_default_value = true)]
    lease: String,
    /// Keep the value the key has, and change the lease only
    #[arg(long)]
    ignore_value: bool,
    /// Keep the lease the key has
    #[arg(long)]
    ignore_lease: bool,
}

impl Args {
    /// The request; `missing` is asked for a value that was not given.
    ///
    /// # Errors
    /// If the arguments contradict each other, or there is no value.
    pub(crate) fn request(
        self,
        missing: impl FnOnce() -> Result<Option<Bytes>, Failed>,
    ) -> Result<PutRequest, Failed> {
        let wrong = |what: String| Failed::usage(Why::Arguments, what);
        let value = match (self.value, self.ignore_value) {
            (Some(_), true) => {
                return Err(wrong("put command needs only 1 argument when 'ignore-value' is set".to_owned()));
            }
            (None, true) => Bytes::new(),
            (Some(value), false) => to_bytes(value),
            (None, false) => missing()?.ok_or_else(|| {
                wrong("put command needs 1 argument and input from stdin or 2 arguments".to_owned())
            })?,
        };
        let lease = i64::from_str_radix(&self.lease, 16)
            .map_err(|why| wrong(format!("bad lease ID {:?} ({why}), expecting ID in Hex", self.lease)))?;
        Ok(PutRequest {
            key: to_bytes(self.key),
            value,
            lease,
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        })
    }
}

/// Writes the key.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failed> {
    let style = context.style()?;
    let request = args.request(|| from_stdin(context.personality))?;
    let response = context.client()?.put(request).await.map_err(|error| Failed::call(&error, Call::Write))?;
    output::emit(output::answer(Answer::Put(&response), style))
}

/// All of standard input; none if it is empty, as an empty value is rather
/// written as "".
fn from_stdin(personality: Personality) -> Result<Option<Bytes>, Failed> {
    let mut stdin = std::io::stdin().lock();
    if personality == Personality::Synod && stdin.is_terminal() {
        output::tell("Type the value and end it with Ctrl-D.\n");
    }
    let mut value = Vec::new();
    stdin
        .read_to_end(&mut value)
        .map_err(|error| Failed::new(format!("cannot read the value from standard input: {error}")))?;
    Ok(if value.is_empty() { None } else { Some(value.into()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn request(line: &[&str]) -> Result<PutRequest, Failed> {
        let line = Line::try_parse_from(std::iter::once(&"put").chain(line)).unwrap();
        line.args.request(|| Ok(None))
    }

    #[test]
    fn arguments_become_a_request() {
        let request = request(&["k", "v", "--lease", "1f", "--prev-kv"]).unwrap();
        assert_eq!((&request.key[..], &request.value[..]), (&b"k"[..], &b"v"[..]));
        assert_eq!((request.lease, request.prev_kv), (0x1f, true));
        assert!(!request.ignore_value && !request.ignore_lease);
    }

    #[test]
    fn kv_10_the_value_may_be_kept() {
        assert!(request(&["k", "--ignore-value"]).unwrap().ignore_value);
        assert!(request(&["k", "v", "--ignore-value"]).is_err());
    }

    #[test]
    fn a_value_is_needed_from_somewhere() {
        assert!(request(&["k"]).unwrap_err().to_string().contains("stdin"));
        let line = Line::try_parse_from(["put", "k"]).unwrap();
        let request = line.args.request(|| Ok(Some(Bytes::from_static(b"typed\n")))).unwrap();
        assert_eq!(request.value, "typed\n");
        assert_eq!(super::tests::request(&["k", ""]).unwrap().value, "");
    }

    #[test]
    fn a_lease_is_hexadecimal() {
        assert_eq!(request(&["k", "v", "--lease=zz"]).unwrap_err().code(Personality::Etcdctl), 128);
    }
}

//! `del`: deletes a key or a range of keys.

use std::ffi::OsString;

use super::interval;
use crate::failed::{Call, Failed};
use crate::options::Context;
use crate::output::{self, Answer};
use synod_rpc::etcdserverpb::DeleteRangeRequest;

const EXAMPLES: &str = "\
Examples:
  synod del fruit/kiwi
  synod del --prefix fruit/ --prev-kv    also shows what was deleted
  synod del a m                          from a up to, not including, m

Prints how many keys were deleted; none is no error.";

/// What to delete.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The key, or where the range begins
    key: OsString,
    /// Where the range ends; this key is not part of it
    range_end: Option<OsString>,
    /// All keys that begin with KEY
    #[arg(long)]
    prefix: bool,
    /// All keys from KEY on
    #[arg(long)]
    from_key: bool,
    /// Also print the deleted keys and values
    #[arg(long)]
    prev_kv: bool,
    /// Accepted for etcdctl's sake, which wants ranges confirmed
    #[arg(long, hide = true)]
    range: bool,
}

impl Args {
    /// The request.
    ///
    /// # Errors
    /// If the arguments contradict each other.
    pub(crate) fn request(self) -> Result<DeleteRangeRequest, Failed> {
        let (key, range_end) = interval(self.key, self.range_end, self.prefix, self.from_key)?;
        Ok(DeleteRangeRequest { key, range_end, prev_kv: self.prev_kv })
    }
}

/// Deletes the keys.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failed> {
    let style = context.style()?;
    let request = args.request()?;
    let response =
        context.client()?.delete_range(request).await.map_err(|error| Failed::call(&error, Call::Write))?;
    output::emit(output::answer(Answer::Delete(&response), style))
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

    #[test]
    fn an_empty_prefix_is_every_key() {
        let request =
            Line::try_parse_from(["del", "--prefix", "", "--prev-kv"]).unwrap().args.request().unwrap();
        assert_eq!((&request.key[..], &request.range_end[..]), (&b"\0"[..], &b"\0"[..]));
        assert!(request.prev_kv);
    }
}

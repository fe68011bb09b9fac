//! `get`: reads a key or a range of keys.

use std::ffi::OsString;

use clap::ValueEnum;

use super::interval;
use crate::failed::{Call, Failed, Personality, Why};
use crate::options::Context;
use crate::output::{self, Answer, Format};
use synod_rpc::etcdserverpb::RangeRequest;
use synod_rpc::etcdserverpb::range_request::{SortOrder, SortTarget};

const EXAMPLES: &str = "\
Examples:
  synod get fruit/kiwi                   key and value, a line each; nothing if it is missing
  synod get fruit/kiwi --print-value-only
  synod get --prefix fruit/              every key that begins with fruit/
  synod get a m                          from a up to, not including, m
  synod get fruit/kiwi --rev 12          as it was at revision 12
  synod get --prefix '' --keys-only --limit 10 --sort-by MODIFY --order DESCEND
  synod get fruit/kiwi --consistency s   from the replica itself, without asking a majority

A missing key is no error: the exit code is 0.";

/// What to read.
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
    /// Read this revision instead of the newest
    #[arg(
        long,
        value_name = "REV",
        default_value_t = 0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    rev: i64,
    /// At most so many keys
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    limit: i64,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
    /// Only count the keys
    #[arg(long)]
    count_only: bool,
    /// Leave the keys out (with -w simple)
    #[arg(long)]
    print_value_only: bool,
    /// l: the newest value, confirmed by a majority; s: what the asked replica has
    #[arg(long, value_name = "l|s", value_enum, default_value_t = Consistency::L, hide_possible_values = true)]
    consistency: Consistency,
    /// ASCEND or DESCEND
    #[arg(long, value_enum, ignore_case = true, hide_possible_values = true)]
    order: Option<Order>,
    /// CREATE, KEY, MODIFY, VALUE or VERSION
    #[arg(long, value_enum, ignore_case = true, hide_possible_values = true)]
    sort_by: Option<SortBy>,
}

/// Whether a majority confirms that the answer is the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Consistency {
    L,
    S,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Order {
    Ascend,
    Descend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum SortBy {
    Create,
    Key,
    Modify,
    Value,
    Version,
}

impl Args {
    /// The request.
    ///
    /// # Errors
    /// If the arguments contradict each other.
    pub(crate) fn request(self) -> Result<RangeRequest, Failed> {
        if self.keys_only && self.count_only {
            let both = "`--keys-only` and `--count-only` cannot be set at the same time, choose one";
            return Err(Failed::usage(Why::Arguments, both));
        }
        let (key, range_end) = interval(self.key, self.range_end, self.prefix, self.from_key)?;
        let order = match self.order {
            None => SortOrder::None,
            Some(Order::Ascend) => SortOrder::Ascend,
            Some(Order::Descend) => SortOrder::Descend,
        };
        let target = match self.sort_by {
            None | Some(SortBy::Key) => SortTarget::Key,
            Some(SortBy::Create) => SortTarget::Create,
            Some(SortBy::Modify) => SortTarget::Mod,
            Some(SortBy::Value) => SortTarget::Value,
            Some(SortBy::Version) => SortTarget::Version,
        };
        Ok(RangeRequest {
            key,
            range_end,
            limit: self.limit,
            revision: self.rev.max(0),
            sort_order: order.into(),
            sort_target: target.into(),
            serializable: self.consistency == Consistency::S,
            keys_only: self.keys_only,
            count_only: self.count_only,
            ..RangeRequest::default()
        })
    }
}

/// Reads the keys.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failed> {
    let mut style = context.style()?;
    style.value_only = args.print_value_only;
    if style.value_only && style.format != Format::Simple {
        let what = "print-value-only is only for `--write-out=simple`";
        return Err(Failed::usage(Why::Arguments, what));
    }
    let count_only = args.count_only;
    if count_only && context.personality == Personality::Etcdctl && style.format != Format::Fields {
        let what = "--count-only is only for `--write-out=fields`";
        return Err(Failed::usage(Why::Arguments, what));
    }
    let request = args.request()?;
    let response =
        context.client()?.range(request).await.map_err(|error| Failed::call(&error, Call::Read))?;
    if count_only && style.format == Format::Simple {
        return output::emit(format!("{}\n", response.count));
    }
    output::emit(output::answer(Answer::Range(&response), style))
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

    fn request(line: &[&str]) -> Result<RangeRequest, Failed> {
        Line::try_parse_from(std::iter::once(&"get").chain(line)).unwrap().args.request()
    }

    #[test]
    fn the_plain_request_is_linearizable_and_unsorted() {
        let expected = RangeRequest { key: "k".into(), ..RangeRequest::default() };
        assert_eq!(request(&["k"]).unwrap(), expected);
    }

    #[test]
    fn options_become_fields() {
        let request = request(&[
            "k",
            "m",
            "--rev=5",
            "--limit",
            "3",
            "--consistency",
            "s",
            "--order",
            "descend",
            "--sort-by",
            "MODIFY",
            "--keys-only",
        ])
        .unwrap();
        assert_eq!(request.range_end, "m");
        assert_eq!((request.revision, request.limit), (5, 3));
        assert_eq!((request.sort_order(), request.sort_target()), (SortOrder::Descend, SortTarget::Mod));
        assert!(request.serializable && request.keys_only);
    }

    #[test]
    fn every_sort_target_has_its_own_number() {
        let target = |name| request(&["k", "--sort-by", name]).unwrap().sort_target();
        assert_eq!(target("KEY"), SortTarget::Key);
        assert_eq!(target("CREATE"), SortTarget::Create);
        assert_eq!(target("VALUE"), SortTarget::Value);
        assert_eq!(target("VERSION"), SortTarget::Version);
    }

    #[test]
    fn kv_2_a_negative_revision_is_the_newest() {
        assert_eq!(request(&["k", "--rev", "-4"]).unwrap().revision, 0);
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(request(&["k", "--keys-only", "--count-only"]).is_err());
        assert!(request(&["k", "m", "--prefix"]).is_err());
    }
}

//! One line of a transaction: a condition, or a request.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::{Parser, Subcommand};

use super::words;
use crate::commands::{del, get, put};
use crate::failed::{Failed, Why};
use synod_client::requests;
use synod_rpc::etcdserverpb::compare::{CompareResult, TargetUnion};
use synod_rpc::etcdserverpb::{Compare, RequestOp};

/// A request is a command line of `put`, `get` or `del`.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
struct Line {
    #[command(subcommand)]
    op: Op,
}

#[derive(Subcommand)]
enum Op {
    #[command(disable_help_flag = true)]
    Put(put::Args),
    #[command(disable_help_flag = true)]
    Get(get::Args),
    #[command(disable_help_flag = true)]
    Del(del::Args),
}

/// Reads a request, such as `put k "a value" --prev-kv`.
///
/// # Errors
/// If it is none.
pub(super) fn op(line: &str) -> Result<RequestOp, Failed> {
    let invalid = |why: &str| {
        Failed::usage(Why::Input, format!("invalid txn request: {line}"))
            .hint(format!("{why}. A request looks like: put KEY \"VALUE\", get --prefix KEY, del KEY."))
            .etcd(format!("invalid txn request: {line}"))
    };
    let words = words::split(line).map_err(|why| invalid(&capitalized(&why)))?;
    let words = words.into_iter().map(OsString::from_vec);
    let parsed = Line::try_parse_from(words).map_err(|error| {
        let text = error.render().to_string();
        let why = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        invalid(&capitalized(why))
    })?;
    Ok(match parsed.op {
        // Standard input holds the transaction, not a value.
        Op::Put(args) => requests::op(args.request(|| Ok(None))?),
        Op::Get(args) => requests::op(args.request()?),
        Op::Del(args) => requests::op(args.request()?),
    })
}

/// Reads a condition, such as `mod("k") > "0"`.
///
/// # Errors
/// If it is none. Unlike etcdctl, which stops reading after the value, this
/// refuses what follows it: half a condition is another condition.
pub(super) fn compare(line: &str) -> Result<Compare, Failed> {
    let malformed = |why: &str| {
        Failed::usage(Why::Input, format!("malformed comparison: {line}"))
            .hint(format!("{}. A comparison looks like: mod(\"KEY\") > \"0\".", capitalized(why)))
    };
    let (target, rest) = line.split_once('(').ok_or_else(|| malformed("the ( is missing"))?;
    let (key, rest) = words::unquote(rest.trim_start()).map_err(|why| malformed(&why))?;
    let rest = rest.trim_start().strip_prefix(')').ok_or_else(|| malformed("the ) is missing"))?;
    let rest = rest.trim_start();
    let operator_ends = rest.find(|char: char| !"=!<>".contains(char)).unwrap_or(rest.len());
    let (operator, rest) = rest.split_at(operator_ends);
    let result = match operator {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        "<" => CompareResult::Less,
        ">" => CompareResult::Greater,
        _ => return Err(malformed("the operator must be =, !=, < or >")),
    };
    let (value, rest) = words::unquote(rest.trim_start()).map_err(|why| malformed(&why))?;
    if !rest.trim().is_empty() {
        return Err(malformed("nothing may follow the value"));
    }
    let number = |radix| {
        let text = std::str::from_utf8(&value).ok();
        text.and_then(|text| i64::from_str_radix(text, radix).ok()).ok_or_else(|| {
            Failed::usage(Why::Input, format!("invalid txn compare request: {line}"))
                .hint("The value must be a number in quotes.")
        })
    };
    let operand = match target.trim() {
        "ver" | "version" => TargetUnion::Version(number(10)?),
        "c" | "create" => TargetUnion::CreateRevision(number(10)?),
        "m" | "mod" => TargetUnion::ModRevision(number(10)?),
        "val" | "value" => TargetUnion::Value(value.into()),
        "lease" => TargetUnion::Lease(number(16)?),
        _ => return Err(malformed("the target must be mod, create, version, value or lease")),
    };
    Ok(requests::compare(key, result, operand))
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failed::Personality;
    use synod_rpc::etcdserverpb::compare::CompareTarget;
    use synod_rpc::etcdserverpb::request_op::Request;

    fn request(line: &str) -> Request {
        op(line).unwrap().request.unwrap()
    }

    #[test]
    fn tx_2_every_target_by_both_names() {
        for (line, target, operand) in [
            ("mod(\"k\") = \"7\"", CompareTarget::Mod, TargetUnion::ModRevision(7)),
            ("m(\"k\") = \"7\"", CompareTarget::Mod, TargetUnion::ModRevision(7)),
            ("create(\"k\") = \"0\"", CompareTarget::Create, TargetUnion::CreateRevision(0)),
            ("c(\"k\") = \"0\"", CompareTarget::Create, TargetUnion::CreateRevision(0)),
            ("version(\"k\") = \"3\"", CompareTarget::Version, TargetUnion::Version(3)),
            ("ver(\"k\") = \"-3\"", CompareTarget::Version, TargetUnion::Version(-3)),
            ("value(\"k\") = \"x\\ty\"", CompareTarget::Value, TargetUnion::Value("x\ty".into())),
            ("val(\"k\") = \"\"", CompareTarget::Value, TargetUnion::Value("".into())),
            ("lease(\"k\") = \"1f\"", CompareTarget::Lease, TargetUnion::Lease(0x1f)),
        ] {
            let compare = compare(line).unwrap();
            assert_eq!(compare.key, "k", "{line}");
            assert_eq!(compare.target(), target, "{line}");
            assert_eq!(compare.target_union, Some(operand), "{line}");
        }
    }

    #[test]
    fn tx_2_every_operator() {
        for (operator, result) in [
            ("=", CompareResult::Equal),
            ("!=", CompareResult::NotEqual),
            ("<", CompareResult::Less),
            (">", CompareResult::Greater),
        ] {
            assert_eq!(compare(&format!("mod(\"k\") {operator} \"1\"")).unwrap().result(), result);
        }
    }

    #[test]
    fn blanks_do_not_matter_and_keys_may_hold_anything() {
        assert_eq!(compare("mod(`k`)>`1`").unwrap(), compare("mod( \"k\" )  >  \"1\"").unwrap());
        assert_eq!(compare(r#"mod("a\x00(\")") > "1""#).unwrap().key, &b"a\0(\")"[..]);
    }

    #[test]
    fn what_is_no_comparison_is_refused_with_a_reason() {
        for (line, reason) in [
            ("xx", "The ( is missing"),
            ("mod(k) > \"0\"", "quoted string"),
            ("mod(\"k\" > \"0\"", "The ) is missing"),
            ("mod(\"k\") ? \"0\"", "The operator"),
            ("mod(\"k\") => \"0\"", "The operator"),
            ("mod(\"k\") > 0", "quoted string"),
            ("mod(\"k\") > \"x\"", "number in quotes"),
            ("lease(\"k\") > \"zz\"", "number in quotes"),
            ("foo(\"k\") > \"0\"", "The target"),
            ("mod(\"k\") > \"0\" extra", "Nothing may follow"),
            ("mod(\"k) > \"0\"", "The ) is missing"),
        ] {
            let failed = compare(line).unwrap_err();
            assert_eq!(failed.code(Personality::Etcdctl), 3, "{line}");
            let message = failed.message(Personality::Synod);
            assert!(message.contains(reason), "{line}: {message}");
        }
    }

    #[test]
    fn requests_take_the_options_of_their_commands() {
        let Request::RequestPut(put) = request("put k 'a value' --prev-kv --lease=1f") else { panic!() };
        assert_eq!((&put.value[..], put.lease, put.prev_kv), (&b"a value"[..], 0x1f, true));
        let Request::RequestRange(get) = request("get --prefix \"\" --limit 3") else { panic!() };
        assert_eq!((&get.key[..], &get.range_end[..], get.limit), (&b"\0"[..], &b"\0"[..], 3));
        let Request::RequestDeleteRange(del) = request("\"del\" a b") else { panic!() };
        assert_eq!((&del.key[..], &del.range_end[..]), (&b"a"[..], &b"b"[..]));
        let Request::RequestPut(put) = request(r#"put "\xff" -- -v"#) else { panic!() };
        assert_eq!((&put.key[..], &put.value[..]), (&b"\xff"[..], &b"-v"[..]));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for line in
            ["foo a b", "get", "watch a", "get a --nonsense", "get --help", "put a b -w json", "put 'a"]
        {
            let failed = op(line).unwrap_err();
            assert_eq!(failed.code(Personality::Etcdctl), 3, "{line}");
            assert_eq!(
                failed.message(Personality::Etcdctl),
                format!("Error: invalid txn request: {line}\n"),
                "{line}"
            );
        }
        assert_eq!(op("put a").unwrap_err().code(Personality::Etcdctl), 128);
    }
}

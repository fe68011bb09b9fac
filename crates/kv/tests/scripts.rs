//! Stories of stores, told as transcripts under `testscripts/`.
//!
//! To rewrite the transcripts after a change that you can explain:
//! `UPDATE_GOLDENFILES=1 cargo test -p synod-kv --test scripts`.

mod common;

use std::error::Error;
use std::fmt::Write as _;
use std::num::NonZeroU64;

use common::*;
use goldenscript::{ArgumentConsumer, Command, Context, Runner};
use synod_kv::{
    Compare, DeleteRangeRequest, KeyValue, LeaseId, NestedResponse, Operand, PutRequest, RangeRequest,
    Relation, Request, Response, Revision, SortOrder, SortTarget, Store, TxnRequest,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Runs one story. Commands between `txn` and `commit` are gathered, those after
/// `else` in the other branch.
#[derive(Default)]
struct Stage {
    store: Store,
    txn: Option<TxnRequest>,
    in_else: bool,
}

impl Stage {
    fn request(&mut self, request: Request) -> Outcome<String> {
        if let Some(txn) = &mut self.txn {
            if self.in_else { &mut txn.failure } else { &mut txn.success }.push(request);
            return Ok(String::new());
        }
        // The way every command goes: as bytes.
        let request = Request::decode(request.encode())?;
        let applied = self.store.apply(&request)??;
        let mut out = String::new();
        show(&mut out, &applied.response, "");
        writeln!(out, "revision {}", applied.revision)?;
        Ok(out)
    }

    fn command(&mut self, command: &Command) -> Outcome<String> {
        let mut args = command.consume_args();
        let output = match command.name.as_str() {
            "put" => {
                let flags = flags(&mut args, &["prev", "ignore_value", "ignore_lease"])?;
                let lease = number(&mut args, "lease")?.and_then(LeaseId::from_wire);
                let (key, value) = args.next_key().ok_or("which key?")?;
                self.request(Request::Put(PutRequest {
                    lease,
                    prev_kv: flags[0],
                    ignore_value: flags[1],
                    ignore_lease: flags[2],
                    ..PutRequest::new(key.to_owned(), value.to_owned())
                }))
            }
            "del" => {
                let prev_kv = flags(&mut args, &["prev"])?[0];
                let range = interval(args.next_pos().unwrap_or(""), args.next_pos().unwrap_or(""));
                self.request(Request::DeleteRange(DeleteRangeRequest {
                    prev_kv,
                    ..DeleteRangeRequest::new(range)
                }))
            }
            "get" => {
                let flags = flags(&mut args, &["keys_only", "count_only"])?;
                let request = RangeRequest {
                    keys_only: flags[0],
                    count_only: flags[1],
                    revision: number(&mut args, "rev")?.and_then(Revision::from_wire),
                    limit: number(&mut args, "limit")?.and_then(|limit| NonZeroU64::new(limit as u64)),
                    order: match args.take_key("order") {
                        None => SortOrder::None,
                        Some("descend") => SortOrder::Descend,
                        Some(_) => SortOrder::Ascend,
                    },
                    target: match args.take_key("by") {
                        None => SortTarget::Key,
                        Some("value") => SortTarget::Value,
                        Some("mod") => SortTarget::Mod,
                        Some(other) => return Err(format!("by {other}?").into()),
                    },
                    ..read(args.next_pos().unwrap_or(""), args.next_pos().unwrap_or(""))
                };
                if self.txn.is_some() {
                    self.request(Request::Range(request))
                } else {
                    let response = self.store.range(&request)??;
                    let mut out = String::new();
                    show(&mut out, &Response::Range(response), "");
                    Ok(out)
                }
            }
            "compact" => self.request(compact(args.next_pos().ok_or("at which revision?")?.parse()?)),
            "txn" => {
                let compares = args.next_pos().map(parse_compare).transpose()?.into_iter().collect();
                self.txn = Some(TxnRequest { compares, ..TxnRequest::default() });
                self.in_else = false;
                Ok(String::new())
            }
            "else" => {
                self.in_else = true;
                Ok(String::new())
            }
            "commit" => {
                let txn = self.txn.take().ok_or("commit what?")?;
                self.request(Request::Txn(txn))
            }
            "sweep" => {
                let budget = args.next_pos().ok_or("how much?")?.parse()?;
                Ok(if self.store.sweep(budget) { "more to do\n" } else { "clean\n" }.to_owned())
            }
            "changes" => {
                let from = args.next_pos().ok_or("from which revision?")?.parse()?;
                let mut out = String::new();
                for change in self.store.changes_from(Revision(from))? {
                    let (position, change) = change?;
                    match change.pair() {
                        Some(kv) => writeln!(out, "{position} put {}", pair(kv))?,
                        None => writeln!(out, "{position} delete {}", text(change.key()))?,
                    }
                }
                Ok(out)
            }
            "state" => {
                let stats = self.store.stats();
                let compacted = self.store.compacted().map_or("never".to_owned(), |r| r.to_string());
                let hash = self.store.state_hash().to_string();
                Ok(format!(
                    "revision {} compacted {compacted} keys {} versions {} hash {}\n",
                    self.store.revision(),
                    stats.keys,
                    stats.versions,
                    &hash[..8],
                ))
            }
            // Out of the window and back: nothing may be different.
            "reincarnate" => {
                let image = image(&self.store.snapshot());
                self.store = restore(&image, 3)?;
                Ok(String::new())
            }
            other => Err(format!("unknown command {other}").into()),
        };
        args.reject_next()?;
        output
    }
}

impl Runner for Stage {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Outcome<String> {
        self.command(command)
    }
}

fn flags<const N: usize>(args: &mut ArgumentConsumer<'_>, names: &[&str; N]) -> Outcome<[bool; N]> {
    let mut flags = [false; N];
    for (flag, name) in flags.iter_mut().zip(names) {
        *flag = args.take_key(name).map_or(Ok(false), str::parse)?;
    }
    Ok(flags)
}

fn number(args: &mut ArgumentConsumer<'_>, name: &str) -> Outcome<Option<i64>> {
    Ok(args.take_key(name).map(str::parse).transpose()?)
}

/// "mod(key) = 3", "value(key) > x".
fn parse_compare(text: &str) -> Outcome<Compare> {
    let (target, rest) = text.split_once('(').ok_or("no (")?;
    let (key, rest) = rest.split_once(')').ok_or("no )")?;
    let (relation, operand) = rest.trim().split_once(' ').ok_or("no operand")?;
    let relation = match relation {
        "=" => Relation::Equal,
        "!=" => Relation::NotEqual,
        ">" => Relation::Greater,
        "<" => Relation::Less,
        other => return Err(format!("unknown relation {other}").into()),
    };
    let operand = match target {
        "value" => Operand::Value(bytes(operand)),
        "mod" => Operand::Mod(operand.parse()?),
        "create" => Operand::Create(operand.parse()?),
        "version" => Operand::Version(operand.parse()?),
        other => return Err(format!("unknown target {other}").into()),
    };
    Ok(compare(key, relation, operand))
}

fn pair(kv: &KeyValue) -> String {
    let life = format!("create {} mod {} version {}", kv.create_revision, kv.mod_revision, kv.version);
    format!("{}={} ({life})", text(&kv.key), text(&kv.value))
}

fn show(out: &mut String, response: &Response, indent: &str) {
    let mut line = |text: String| writeln!(out, "{indent}{text}").expect("a string has room");
    match response {
        Response::Put(put) => put.prev.iter().for_each(|kv| line(format!("prev {}", pair(kv)))),
        Response::DeleteRange(delete) => {
            line(format!("deleted {}", delete.deleted));
            delete.prev_kvs.iter().for_each(|kv| line(format!("prev {}", pair(kv))));
        }
        Response::Range(range) => {
            range.kvs.iter().for_each(|kv| line(pair(kv)));
            line(format!("count {}{}", range.count, if range.more { ", more" } else { "" }));
        }
        Response::Compact => {}
        Response::Txn(txn) => {
            line(if txn.succeeded { "then" } else { "else" }.to_owned());
            for NestedResponse { revision, response } in &txn.responses {
                writeln!(out, "{indent}  at {revision}").expect("a string has room");
                show(out, response, &format!("{indent}    "));
            }
        }
    }
}

macro_rules! stories {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let path = concat!("tests/testscripts/", stringify!($name));
            goldenscript::run(&mut Stage::default(), path).expect("the story goes as told");
        }
    )*};
}

stories!(lives_of_a_key intervals compaction transactions reincarnation);

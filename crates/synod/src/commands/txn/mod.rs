//! `txn`: several requests as one.
//!
//! The transaction comes from standard input in etcdctl's text format: lines of
//! conditions, an empty line, lines of requests for when they all hold, an
//! empty line, lines of requests for when they do not, an empty line. The lines
//! themselves are the business of [`grammar`].

mod grammar;
mod words;

use std::io::BufRead;

use crate::failed::{Call, Failed, Why};
use crate::options::Context;
use crate::output::{self, Answer};
use synod_client::requests;
use synod_rpc::etcdserverpb::TxnRequest;

const EXAMPLES: &str = r#"Conditions, one per line; all must hold, and none always hold:
  mod("KEY") > "0"        revision of the last change (0: there is no such key)
  create("KEY") = "0"     revision of the creation
  version("KEY") < "3"    changes since the creation
  value("KEY") = "green"  false for a missing key, whatever it is compared with
  lease("KEY") = "1f"     in hexadecimal
with = != < >. Requests are put, get and del with the options of these commands.

Examples:
  Create a key unless it exists, else show it:

  synod txn <<'END'
  create("lock") = "0"

  put lock "held by me"

  get lock

  END

Prints SUCCESS or FAILURE, for which requests were run, and then their answers. Both exit with 0."#;

/// How to read the transaction.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Say which part is being read
    #[arg(short, long)]
    interactive: bool,
}

/// Runs the transaction on standard input.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failed> {
    let style = context.style()?;
    let client = context.client()?;
    let request = read(&mut std::io::stdin().lock(), |part| {
        if args.interactive { output::emit(format!("{part}:\n")) } else { Ok(()) }
    })?;
    let response = client.txn(request).await.map_err(|error| Failed::call(&error, Call::Write))?;
    output::emit(output::answer(Answer::Txn(&response), style))
}

/// Reads the three parts, each announced to `prompt` first.
fn read(
    input: &mut impl BufRead,
    mut prompt: impl FnMut(&str) -> Result<(), Failed>,
) -> Result<TxnRequest, Failed> {
    let mut part = |name: &str| {
        prompt(name)?;
        lines(input, name)
    };
    let compare: Result<Vec<_>, _> = part("compares")?.iter().map(|line| grammar::compare(line)).collect();
    let compare = compare?;
    let ops = |lines: Vec<String>| lines.iter().map(|line| grammar::op(line)).collect::<Result<Vec<_>, _>>();
    let success = ops(part("success requests (get, put, del)")?)?;
    let failure = ops(part("failure requests (get, put, del)")?)?;
    Ok(requests::txn(compare, success, failure))
}

/// The lines up to an empty one. A transaction that just ends is refused: its
/// tail may be missing.
fn lines(input: &mut impl BufRead, part: &str) -> Result<Vec<String>, Failed> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        let length = input
            .read_line(&mut line)
            .map_err(|error| Failed::new(format!("cannot read the transaction: {error}")))?;
        if length == 0 {
            return Err(Failed::usage(Why::Input, format!("the input ends within the {part}"))
                .hint("Each of the three parts, also an empty one, ends with an empty line.")
                .hint("See `synod help txn` for an example.")
                .etcd("EOF"));
        }
        match line.trim() {
            "" => return Ok(lines),
            line => lines.push(line.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failed::Personality;
    use synod_rpc::etcdserverpb::request_op::Request;

    fn txn(text: &str) -> Result<TxnRequest, Failed> {
        read(&mut text.as_bytes(), |_| Ok(()))
    }

    #[test]
    fn three_parts_each_ended_by_an_empty_line() {
        let request = txn("mod(\"k\") > \"0\"\n\nput k 1\nget k\n\n  del k  \n \t\r\n").unwrap();
        assert_eq!((request.compare.len(), request.success.len(), request.failure.len()), (1, 2, 1));
        let Some(Request::RequestDeleteRange(delete)) = &request.failure[0].request else {
            panic!("{request:?}");
        };
        assert_eq!(delete.key, "k");
    }

    #[test]
    fn tx_7_an_empty_transaction_is_one() {
        assert_eq!(txn("\n\n\n").unwrap(), TxnRequest::default());
    }

    #[test]
    fn an_input_that_ends_early_is_not_run() {
        for text in ["", "mod(\"k\") > \"0\"\n", "\nput k 1\n", "\n\nput k 1"] {
            let failed = txn(text).unwrap_err();
            assert_eq!((failed.code(Personality::Synod), failed.code(Personality::Etcdctl)), (2, 3));
            assert_eq!(failed.message(Personality::Etcdctl), "Error: EOF\n");
        }
    }

    #[test]
    fn the_parts_are_announced_in_order() {
        let mut announced = Vec::new();
        read(&mut "\n\n\n".as_bytes(), |part| {
            announced.push(part.to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(
            announced,
            ["compares", "success requests (get, put, del)", "failure requests (get, put, del)"]
        );
    }
}

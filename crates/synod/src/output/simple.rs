//! etcdctl's default format: bare lines, for people and for shell scripts.

use super::{Answer, Style, go};
use synod_rpc::etcdserverpb::response_op::Response;
use synod_rpc::mvccpb::KeyValue;

/// Keys and values alternate, a line each. Values are raw bytes, so this
/// writes bytes and not text.
pub(super) fn render(out: &mut Vec<u8>, answer: Answer<'_>, style: Style) {
    match answer {
        Answer::Put(put) => {
            line(out, b"OK");
            pairs(out, &put.prev_kv, style);
        }
        Answer::Range(range) => pairs(out, &range.kvs, style),
        Answer::Delete(delete) => {
            line(out, delete.deleted.to_string().as_bytes());
            pairs(out, &delete.prev_kvs, style);
        }
        Answer::Txn(txn) => {
            line(out, if txn.succeeded { b"SUCCESS" } else { b"FAILURE" });
            for response in txn.responses.iter().filter_map(|op| op.response.as_ref()) {
                line(out, b"");
                let answer = match response {
                    Response::ResponseRange(range) => Answer::Range(range),
                    Response::ResponsePut(put) => Answer::Put(put),
                    Response::ResponseDeleteRange(delete) => Answer::Delete(delete),
                    Response::ResponseTxn(txn) => Answer::Txn(txn),
                };
                render(out, answer, style);
            }
        }
    }
}

fn pairs<'a>(out: &mut Vec<u8>, pairs: impl IntoIterator<Item = &'a KeyValue>, style: Style) {
    for pair in pairs {
        if !style.value_only {
            text(out, &pair.key, style);
        }
        text(out, &pair.value, style);
    }
}

fn text(out: &mut Vec<u8>, bytes: &[u8], style: Style) {
    if style.hex { line(out, go::hex(bytes).as_bytes()) } else { line(out, bytes) }
}

fn line(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.push(b'\n');
}

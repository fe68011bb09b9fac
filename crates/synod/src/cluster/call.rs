//! One call to one replica, and what it told, in the words of the judges.
//!
//! Every call is sent once: what becomes of a second attempt says nothing about the first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use synod_client::rpc::etcdserverpb::compare::{CompareResult, TargetUnion};
use synod_client::rpc::etcdserverpb::response_op::Response as Step;
use synod_client::rpc::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeResponse, ResponseHeader,
    TxnResponse,
};
use synod_client::rpc::mvccpb::KeyValue;
use synod_client::{ClientError, Outcome, requests};
use synod_sim::{Call, ClientId, Entry, Key, Operation, Revision, Saw, Value, Version};

use super::Node;
use super::record::{Open, Recorder};

/// An operation that ended, and how it looked to its client.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) operation: Operation,
    pub(crate) took: Duration,
    pub(crate) error: Option<String>,
}

/// Sends one call to one replica, once, and writes down what became of it.
pub(crate) async fn perform(recorder: &Arc<Recorder>, node: &Node, client: ClientId, call: Call) -> Done {
    let started = Instant::now();
    let open = recorder.begin(client, &node.name, call.clone());
    let answer = match &call {
        Call::Put { key, value } => {
            let (key, value) = (Bytes::from(key.0.clone()), Bytes::from(value.0.clone()));
            let request = PutRequest { prev_kv: true, ..requests::put(key, value) };
            node.replica.put(request).await.map(|answer| told_by_put(&answer))
        }
        Call::Get { key } => {
            let request = requests::get(key.0.clone());
            node.replica.range(request).await.map(|answer| told_by_get(&answer))
        }
        Call::Delete { key } => {
            let request = DeleteRangeRequest { prev_kv: true, ..requests::delete(key.0.clone()) };
            node.replica.delete_range(request).await.map(|answer| told_by_delete(&answer))
        }
    };
    match answer {
        Ok(Some((revision, saw))) => done(started, open.answered(revision, saw), None),
        Ok(None) => done(started, open.unknown(), Some("an answer without a header".to_owned())),
        Err(error) => failed(started, open, error),
    }
}

/// Puts `value` if `key` was last written at `expected`, and reads it otherwise; `None` stands for a key that is
/// not there.
///
/// To the judges a transaction is what it did: a put or a get. What they cannot see, that it did so against its own
/// condition, is the second thing returned.
pub(crate) async fn swap(
    recorder: &Arc<Recorder>,
    node: &Node,
    client: ClientId,
    (key, value): (Key, Value),
    expected: Option<Revision>,
) -> (Done, Option<String>) {
    let started = Instant::now();
    let operand = expected.map_or(0, |revision| i64::try_from(revision.0).unwrap_or(i64::MAX));
    let request = requests::txn(
        [requests::compare(key.0.clone(), CompareResult::Equal, TargetUnion::ModRevision(operand))],
        [requests::op(PutRequest { prev_kv: true, ..requests::put(key.0.clone(), value.0.clone()) })],
        [requests::op(requests::get(key.0.clone()))],
    );
    let open = recorder.begin(client, &node.name, Call::Put { key: key.clone(), value });
    let answer = match node.replica.txn(request).await {
        Ok(answer) => answer,
        Err(error) => return (failed(started, open, error), None),
    };
    let operation = match (told_by_swap(&answer), answer.succeeded) {
        (Some((revision, saw)), true) => open.answered(revision, saw),
        (Some((revision, saw)), false) => open.answered_as(Call::Get { key }, revision, saw),
        (None, _) => {
            let error = "an answer that does not fit the transaction".to_owned();
            return (done(started, open.unknown(), Some(error.clone())), Some(error));
        }
    };
    let against = contradiction(&operation, expected, answer.succeeded);
    (done(started, operation, None), against)
}

fn told_by_swap(answer: &TxnResponse) -> Told {
    let saw = match answer.responses.first()?.response.as_ref()? {
        // The header that counts is the transaction's own.
        Step::ResponsePut(put) if answer.succeeded => put.prev_kv.as_ref(),
        Step::ResponseRange(range) if !answer.succeeded => range.kvs.first(),
        _ => return None,
    };
    Some((revision(answer.header.as_ref())?, saw.map_or(Saw::Absent, |kv| Saw::Was(entry(kv)))))
}

/// What a transaction saw must agree with the branch that it took.
fn contradiction(operation: &Operation, expected: Option<Revision>, succeeded: bool) -> Option<String> {
    let found = match &operation.answer()?.saw {
        Saw::Was(entry) => Some(entry.modified),
        _ => None,
    };
    let in_words =
        |at: Option<Revision>| at.map_or("absent".to_owned(), |at| format!("of revision {}", at.0));
    ((found == expected) != succeeded).then(|| {
        let took = if succeeded { "as if it were so" } else { "as if it were not so" };
        format!(
            "a transaction on the key being {} acted {took}, and saw it {}\n{operation}",
            in_words(expected),
            in_words(found)
        )
    })
}

fn done(started: Instant, operation: Operation, error: Option<String>) -> Done {
    Done { operation, took: started.elapsed(), error }
}

fn failed(started: Instant, open: Open, error: ClientError) -> Done {
    let operation = match error.outcome {
        Outcome::NotApplied => open.not_applied(),
        Outcome::Unknown => open.unknown(),
    };
    done(started, operation, Some(error.failure.to_string()))
}

type Told = Option<(Revision, Saw)>;

fn told_by_put(answer: &PutResponse) -> Told {
    let saw = answer.prev_kv.as_ref().map_or(Saw::Absent, |kv| Saw::Was(entry(kv)));
    Some((revision(answer.header.as_ref())?, saw))
}

fn told_by_get(answer: &RangeResponse) -> Told {
    let saw = answer.kvs.first().map_or(Saw::Absent, |kv| Saw::Was(entry(kv)));
    Some((revision(answer.header.as_ref())?, saw))
}

fn told_by_delete(answer: &DeleteRangeResponse) -> Told {
    let saw = match (answer.deleted, answer.prev_kvs.first()) {
        (0, _) => Saw::Absent,
        (_, Some(kv)) => Saw::Was(entry(kv)),
        (_, None) => Saw::Present,
    };
    Some((revision(answer.header.as_ref())?, saw))
}

fn revision(header: Option<&ResponseHeader>) -> Option<Revision> {
    header.map(|header| Revision(header.revision.unsigned_abs()))
}

/// A key and its value, as the judges know them.
pub(crate) fn entry(kv: &KeyValue) -> Entry {
    Entry {
        value: Value(kv.value.to_vec()),
        version: Version(kv.version.unsigned_abs()),
        created: Revision(kv.create_revision.unsigned_abs()),
        modified: Revision(kv.mod_revision.unsigned_abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_client::rpc::etcdserverpb::ResponseOp;
    use synod_sim::Moment;

    fn header() -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: 9, ..ResponseHeader::default() })
    }

    fn kv() -> KeyValue {
        KeyValue {
            key: "k".into(),
            value: "v".into(),
            version: 3,
            create_revision: 4,
            mod_revision: 8,
            lease: 0,
        }
    }

    fn seen() -> Saw {
        Saw::Was(Entry {
            value: "v".into(),
            version: Version(3),
            created: Revision(4),
            modified: Revision(8),
        })
    }

    #[test]
    fn answers_are_told_in_the_words_of_the_judges() {
        let put = |prev_kv| told_by_put(&PutResponse { header: header(), prev_kv });
        assert_eq!(put(None), Some((Revision(9), Saw::Absent)));
        assert_eq!(put(Some(kv())), Some((Revision(9), seen())));

        let get = |kvs| told_by_get(&RangeResponse { header: header(), kvs, ..RangeResponse::default() });
        assert_eq!(get(vec![]), Some((Revision(9), Saw::Absent)));
        assert_eq!(get(vec![kv()]), Some((Revision(9), seen())));

        let delete =
            |deleted, prev_kvs| told_by_delete(&DeleteRangeResponse { header: header(), deleted, prev_kvs });
        assert_eq!(delete(0, vec![]), Some((Revision(9), Saw::Absent)));
        assert_eq!(delete(1, vec![]), Some((Revision(9), Saw::Present)));
        assert_eq!(delete(1, vec![kv()]), Some((Revision(9), seen())));
        assert_eq!(told_by_put(&PutResponse::default()), None);
    }

    #[test]
    fn a_transaction_is_told_as_what_it_did() {
        let step = |response| ResponseOp { response: Some(response) };
        let put = Step::ResponsePut(PutResponse { header: None, prev_kv: Some(kv()) });
        let read = Step::ResponseRange(RangeResponse::default());
        let txn = |succeeded, response| {
            told_by_swap(&TxnResponse { header: header(), succeeded, responses: vec![step(response)] })
        };
        assert_eq!(txn(true, put.clone()), Some((Revision(9), seen())));
        assert_eq!(txn(false, read), Some((Revision(9), Saw::Absent)));
        assert_eq!(txn(false, put), None, "a put in the branch that only reads");
    }

    #[test]
    fn a_transaction_must_keep_to_its_condition() {
        let operation = |saw| Operation {
            client: ClientId(1),
            via: None,
            invoked: Moment(0),
            call: Call::Get { key: "k".into() },
            outcome: synod_sim::Outcome::Answered(synod_sim::Answer {
                returned: Moment(1),
                revision: Revision(9),
                saw,
            }),
        };
        let against =
            |saw, expected, succeeded| contradiction(&operation(saw), expected, succeeded).is_some();
        assert!(!against(seen(), Some(Revision(8)), true));
        assert!(against(seen(), Some(Revision(8)), false));
        assert!(against(seen(), Some(Revision(7)), true));
        assert!(!against(seen(), Some(Revision(7)), false));
        assert!(!against(Saw::Absent, None, true));
        assert!(against(Saw::Absent, Some(Revision(8)), true));
    }
}

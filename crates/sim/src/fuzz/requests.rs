//! What clients ask, and what replicas agree on because of it.
//!
//! ```text
//!   input = request*           each: kind, length in two bytes, bytes
//! ```

use super::Outcome::{Refused, Understood};
use super::input::Input;
use super::{Outcome, bounded};
use bytes::Bytes;
use prost::Message;
use std::fmt::Debug;
use synod_kv::{Limits, Request, Response, Restore, Store, Unreadable};
use synod_rpc::convert::{RequestError, Responder};
use synod_rpc::etcdserverpb as pb;

/// Requests beyond this many in one input are ignored.
const MAX_REQUESTS: usize = 64;

/// Decodes requests of etcd's clients, whose kinds are chosen by number, and applies what is valid of them to
/// two stores (see [`kv_request`]). The answers can be put into etcd's words.
pub fn client_request(data: &[u8]) -> Outcome {
    let mut input = Input::new(bounded(data));
    let mut twins = Twins::new();
    let mut outcome = Refused;
    for _ in 0..MAX_REQUESTS {
        if input.is_empty() {
            break;
        }
        let kind = input.u8();
        let bytes = Bytes::copy_from_slice(input.string());
        let request = match store_request(kind % KINDS, bytes.clone()) {
            Some(Ok(request)) => request,
            Some(Err(_)) => continue,
            None => {
                if other_request(kind % KINDS, bytes) {
                    outcome = Understood;
                }
                continue;
            }
        };
        if request.validate(&Limits::default()).is_err() {
            continue;
        }
        outcome = Understood;
        let encoded = request.encode();
        assert_eq!(encoded.len(), request.encoded_len());
        assert_eq!(Request::decode(encoded), Ok(request.clone()));
        twins.apply(&request);
    }
    twins.compare();
    outcome
}

/// Decodes the requests that replicas agree on, each from its bytes. There is one spelling of everything, so
/// what is understood is, encoded again, the very same bytes. It is then applied, valid or not, to two stores
/// of which one sweeps after every request and the other never: they answer alike, have the same hash, and
/// make the same image. What is refused changes nothing (TX-5, TX-6).
pub fn kv_request(data: &[u8]) -> Outcome {
    let mut input = Input::new(bounded(data));
    let mut twins = Twins::new();
    let mut outcome = Refused;
    for _ in 0..MAX_REQUESTS {
        if input.is_empty() {
            break;
        }
        let _kind = input.u8();
        let bytes = Bytes::copy_from_slice(input.string());
        let Ok(request) = Request::decode(bytes.clone()) else { continue };
        outcome = Understood;
        assert_eq!(request.encode(), bytes, "two spellings of {request:?}");
        twins.apply(&request);
    }
    twins.compare();
    outcome
}

/// Two stores that are asked the same.
struct Twins {
    swept: Store,
    other: Store,
}

impl Twins {
    fn new() -> Twins {
        Twins { swept: Store::new(), other: Store::new() }
    }

    fn apply(&mut self, request: &Request) {
        let (hash, revision) = (self.swept.state_hash(), self.swept.revision());
        let read = match request {
            Request::Range(range) => Some(at_hand(self.swept.range(range)).map(Response::Range)),
            Request::Txn(txn) if request.is_read_only() => {
                Some(at_hand(self.swept.txn_read(txn)).map(Response::Txn))
            }
            _ => None,
        };
        let answer = at_hand(self.swept.apply(request));
        assert_eq!(answer, at_hand(self.other.apply(request)));
        if let Some(read) = read {
            assert_eq!(
                read,
                answer.clone().map(|applied| applied.response),
                "a read through the log differs"
            );
        }
        if answer.is_err() || request.is_read_only() {
            assert_eq!(
                (self.swept.state_hash(), self.swept.revision()),
                (hash, revision),
                "it changed something"
            );
        }
        assert!(self.swept.revision().0 <= revision.0 + 1, "a request takes one revision");
        if let Ok(applied) = answer {
            assert_eq!(applied.revision, self.swept.revision());
            answers(applied.revision, applied.response);
        }
        self.swept.sweep(3);
    }

    fn compare(mut self) {
        assert_eq!(self.swept.state_hash(), self.other.state_hash());
        assert_eq!(self.swept.revision(), self.other.revision());
        let image = image_of(&self.swept);
        assert_eq!(image, image_of(&self.other));
        while self.swept.sweep(64) {}
        assert_eq!(image, image_of(&self.swept));
        let mut restore = Restore::new();
        restore.push(image.clone().into()).expect("a store's own image");
        let restored = restore.finish().expect("a store's own image");
        assert_eq!(restored.state_hash(), self.swept.state_hash());
        assert_eq!(image_of(&restored), image);
    }
}

/// What a store says all of which is in memory.
pub(super) fn at_hand<T>(read: Result<T, Unreadable>) -> T {
    read.expect("nothing has to be read")
}

/// The image of a store, in one piece.
pub(super) fn image_of(store: &Store) -> Vec<u8> {
    store.snapshot().chunks(64 << 10).fold(Vec::new(), |mut image, chunk| {
        image.extend_from_slice(&at_hand(chunk));
        image
    })
}

/// An answer in etcd's words is the same after its journey.
fn answers(revision: synod_kv::Revision, response: Response) {
    let responder = Responder { cluster_id: 1, member_id: 2, raft_term: 3 };
    match response {
        Response::Put(it) => travels(&responder.put(revision, it)),
        Response::DeleteRange(it) => travels(&responder.delete_range(revision, it)),
        Response::Txn(it) => {
            // Twenty levels of transactions are a hundred of messages, which is all that prost reads.
            let answer = responder.txn(revision, it);
            assert!(!answer.encode_to_vec().is_empty());
        }
        Response::Compact => travels(&responder.compact(revision)),
        Response::Range(it) => travels(&responder.range(revision, it)),
    }
}

fn travels<M: Message + Default + PartialEq + Debug>(message: &M) {
    assert_eq!(&M::decode(&*message.encode_to_vec()).expect("our own words"), message);
}

/// How many kinds of requests there are.
pub(super) const KINDS: u8 = 5 + OTHERS.len() as u8;

/// A request to the store, if the kind is one of those.
fn store_request(kind: u8, bytes: Bytes) -> Option<Result<Request, RequestError>> {
    fn read<M: Message + Default>(bytes: Bytes) -> Option<M> {
        M::decode(bytes).ok()
    }
    match kind {
        0 => read::<pb::RangeRequest>(bytes).map(|it| Ok(Request::Range(it.try_into()?))),
        1 => read::<pb::PutRequest>(bytes).map(|it| Ok(Request::Put(it.into()))),
        2 => read::<pb::DeleteRangeRequest>(bytes).map(|it| Ok(Request::DeleteRange(it.into()))),
        3 => read::<pb::TxnRequest>(bytes).map(|it| Ok(Request::Txn(it.try_into()?))),
        4 => read::<pb::CompactionRequest>(bytes).map(|it| Ok(Request::Compact(it.try_into()?))),
        _ => None,
    }
}

/// Decodes a request that the store has no part in. True if it says something.
fn other_request(kind: u8, bytes: Bytes) -> bool {
    let read = kind.checked_sub(5).and_then(|kind| OTHERS.get(usize::from(kind)));
    read.is_some_and(|read| read(bytes))
}

fn reads<M: Message + Default + PartialEq + Debug>(bytes: Bytes) -> bool {
    match M::decode(bytes) {
        Ok(message) => {
            travels(&message);
            true
        }
        Err(_) => false,
    }
}

const OTHERS: &[fn(Bytes) -> bool] = &[
    reads::<pb::WatchRequest>,
    reads::<pb::LeaseGrantRequest>,
    reads::<pb::LeaseRevokeRequest>,
    reads::<pb::LeaseKeepAliveRequest>,
    reads::<pb::LeaseTimeToLiveRequest>,
    reads::<pb::LeaseLeasesRequest>,
    reads::<pb::MemberAddRequest>,
    reads::<pb::MemberRemoveRequest>,
    reads::<pb::MemberUpdateRequest>,
    reads::<pb::MemberListRequest>,
    reads::<pb::MemberPromoteRequest>,
    reads::<pb::AlarmRequest>,
    reads::<pb::StatusRequest>,
    reads::<pb::DefragmentRequest>,
    reads::<pb::HashRequest>,
    reads::<pb::HashKvRequest>,
    reads::<pb::SnapshotRequest>,
    reads::<pb::MoveLeaderRequest>,
    reads::<pb::DowngradeRequest>,
    reads::<pb::AuthEnableRequest>,
    reads::<pb::AuthDisableRequest>,
    reads::<pb::AuthStatusRequest>,
    reads::<pb::AuthenticateRequest>,
    reads::<pb::AuthUserAddRequest>,
    reads::<pb::AuthUserGetRequest>,
    reads::<pb::AuthUserListRequest>,
    reads::<pb::AuthUserDeleteRequest>,
    reads::<pb::AuthUserChangePasswordRequest>,
    reads::<pb::AuthUserGrantRoleRequest>,
    reads::<pb::AuthUserRevokeRoleRequest>,
    reads::<pb::AuthRoleAddRequest>,
    reads::<pb::AuthRoleGetRequest>,
    reads::<pb::AuthRoleListRequest>,
    reads::<pb::AuthRoleDeleteRequest>,
    reads::<pb::AuthRoleGrantPermissionRequest>,
    reads::<pb::AuthRoleRevokePermissionRequest>,
];

//! etcd's KV service: read, write, both under a condition, forget.
//!
//! A write is checked, encoded once, and handed to the replica; it is answered when it was applied here. A
//! read asks the replica when the store is new enough (KV-6), and then looks. A transaction that cannot
//! write is a read (TX-8).

use bytes::Bytes;
use synod_kv as kv;
use synod_kv::{RangeEnd, Request};
use synod_rpc::convert::status::refused;
use synod_rpc::etcdserverpb as pb;
use tonic::{Response, Status};

use super::context::Reads;
use super::errors::{unanswered, unreadable};
use super::{Context, Node};
use crate::replica::{Answer, Consistency};

/// See the module.
pub(super) struct Kv<N> {
    context: Context<N>,
}

impl<N: Node> Kv<N> {
    pub(super) fn new(context: Context<N>) -> Self {
        Kv { context }
    }

    /// Checks what can be checked without the store, so that nonsense is not agreed on.
    fn check(&self, request: &Request) -> Result<(), Status> {
        request.validate(self.context.limits()).map_err(|error| refused(&error))
    }

    /// Has a request agreed on and applied.
    async fn write(&self, request: Request) -> Result<kv::Applied, Status> {
        self.check(&request)?;
        let encoded: Bytes = request.encode();
        drop(request);
        match self.context.node().propose(encoded).await.map_err(unanswered)? {
            Answer::Store(applied) => applied.map_err(|error| refused(&error)),
            Answer::Reconfigured(_) => Err(mismatch()),
        }
    }

    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        let request = Request::Range(request.try_into()?);
        self.check(&request)?;
        let Request::Range(request) = request else { return Err(mismatch()) };
        let responder = self.context.responder();
        self.context
            .look(consistency(request.serializable), request, move |view, request| {
                let found = view.range(&request).map_err(|error| unreadable(&error))?;
                let found = found.map_err(|error| refused(&error))?;
                Ok(responder.range(view.revision(), found))
            })
            .await?
    }

    async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        let request = Request::Txn(request.try_into()?);
        if !request.is_read_only() {
            let applied = self.write(request).await?;
            let kv::Response::Txn(done) = applied.response else { return Err(mismatch()) };
            return Ok(self.context.responder().txn(applied.revision, done));
        }
        self.check(&request)?;
        let consistency = consistency(request.is_serializable());
        let Request::Txn(request) = request else { return Err(mismatch()) };
        let responder = self.context.responder();
        self.context
            .look(consistency, request, move |view, request| {
                let seen = view.txn_read(&request).map_err(|error| unreadable(&error))?;
                let seen = seen.map_err(|error| refused(&error))?;
                Ok(responder.txn(view.revision(), seen))
            })
            .await?
    }
}

impl Reads for kv::RangeRequest {
    fn all(&self, holds: &dyn Fn(&kv::RangeRequest) -> bool) -> bool {
        holds(self)
    }

    fn about_few_keys(&self) -> bool {
        self.range.end == RangeEnd::Single
    }
}

impl Reads for kv::TxnRequest {
    fn all(&self, holds: &dyn Fn(&kv::RangeRequest) -> bool) -> bool {
        self.success.iter().chain(&self.failure).all(|op| match op {
            Request::Range(range) => holds(range),
            Request::Txn(txn) => txn.all(holds),
            _ => true,
        })
    }

    fn about_few_keys(&self) -> bool {
        let one_key = |compare: &kv::Compare| compare.range.end == RangeEnd::Single;
        let flat = self.success.iter().chain(&self.failure).all(|op| matches!(op, Request::Range(_)));
        flat && self.compares.iter().all(one_key) && self.all(&kv::RangeRequest::about_few_keys)
    }
}

fn consistency(serializable: bool) -> Consistency {
    if serializable { Consistency::Serializable } else { Consistency::Linearizable }
}

/// The replica answered another question than was asked: our own mistake, and no reason to stop serving.
fn mismatch() -> Status {
    tracing::error!("a request was answered with something else");
    Status::internal("the answer does not fit the request; a write may have taken effect")
}

#[tonic::async_trait]
impl<N: Node> pb::kv_server::Kv for Kv<N> {
    async fn range(
        &self,
        request: tonic::Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let answer = async {
            self.context.admit(request.metadata())?;
            self.range(request.into_inner()).await
        };
        self.context.methods().range.track(answer).await
    }

    async fn put(
        &self,
        request: tonic::Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let answer = async {
            self.context.admit(request.metadata())?;
            let applied = self.write(Request::Put(request.into_inner().into())).await?;
            let kv::Response::Put(done) = applied.response else { return Err(mismatch()) };
            Ok(self.context.responder().put(applied.revision, done))
        };
        self.context.methods().put.track(answer).await
    }

    async fn delete_range(
        &self,
        request: tonic::Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let answer = async {
            self.context.admit(request.metadata())?;
            let applied = self.write(Request::DeleteRange(request.into_inner().into())).await?;
            let kv::Response::DeleteRange(done) = applied.response else { return Err(mismatch()) };
            Ok(self.context.responder().delete_range(applied.revision, done))
        };
        self.context.methods().delete_range.track(answer).await
    }

    async fn txn(
        &self,
        request: tonic::Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let answer = async {
            self.context.admit(request.metadata())?;
            self.txn(request.into_inner()).await
        };
        self.context.methods().txn.track(answer).await
    }

    /// Answers after the logical step, `physical` or not: what it frees is freed in the background, and
    /// nothing that a client could ask for depends on it (CP-3).
    async fn compact(
        &self,
        request: tonic::Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let answer = async {
            self.context.admit(request.metadata())?;
            let applied = self.write(Request::Compact(request.into_inner().try_into()?)).await?;
            Ok(self.context.responder().compact(applied.revision))
        };
        self.context.methods().compact.track(answer).await
    }
}

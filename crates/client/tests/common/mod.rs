//! Servers that behave badly on request, in this process and on loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use synod_client::rpc::etcdserverpb::kv_server::{Kv, KvServer};
use synod_client::rpc::etcdserverpb::*;
use synod_client::rpc::mvccpb::KeyValue;
use synod_client::rpc::synodpb::admin_server::{Admin, AdminServer};
use synod_client::rpc::synodpb::*;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tonic::codegen::BoxStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

/// What a server does with whatever it is asked.
#[derive(Clone)]
pub(crate) enum Behaviour {
    Answer,
    Fail(Code, &'static str),
    /// Never answers.
    Hang,
}

/// A server on a port of its own. It counts the calls that reached it.
pub(crate) struct Fake {
    pub(crate) endpoint: String,
    calls: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Fake {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), behaviour)
    }

    fn start_on(listener: TcpListener, behaviour: Behaviour) -> Self {
        let endpoint = listener.local_addr().unwrap().to_string();
        let calls = Arc::new(AtomicUsize::new(0));
        let service = Service { behaviour, calls: calls.clone() };
        let task = tokio::spawn(async move {
            Server::builder()
                .add_service(KvServer::new(service.clone()))
                .add_service(AdminServer::new(service))
                .serve_with_incoming(TcpIncoming::from(listener))
                .await
                .unwrap();
        });
        Self { endpoint, calls, task }
    }

    /// Takes calls, but closes the connection instead of answering.
    pub(crate) async fn start_breaking() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = calls.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if swallow_a_call(stream).await.is_ok() {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self { endpoint, calls, task }
    }

    /// How many calls arrived.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address where nobody listens, and nobody else can begin to.
pub(crate) struct Nobody {
    pub(crate) endpoint: String,
    socket: TcpSocket,
}

impl Nobody {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self { endpoint: socket.local_addr().unwrap().to_string(), socket }
    }

    /// From now on somebody listens there.
    pub(crate) fn become_server(self, behaviour: Behaviour) -> Fake {
        Fake::start_on(self.socket.listen(16).unwrap(), behaviour)
    }
}

/// Reads HTTP/2 up to the headers that open a call, and no further.
async fn swallow_a_call(mut stream: TcpStream) -> std::io::Result<()> {
    const PREFACE_BYTES: usize = 24;
    const FRAME_HEADER_BYTES: usize = 9;
    const HEADERS: u8 = 1;

    stream.read_exact(&mut [0; PREFACE_BYTES]).await?;
    loop {
        let mut frame = [0; FRAME_HEADER_BYTES];
        stream.read_exact(&mut frame).await?;
        let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await?;
        if frame[3] == HEADERS {
            return Ok(());
        }
    }
}

#[derive(Clone)]
struct Service {
    behaviour: Behaviour,
    calls: Arc<AtomicUsize>,
}

impl Service {
    async fn act<T>(&self, answer: T) -> Result<Response<T>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match self.behaviour {
            Behaviour::Answer => Ok(Response::new(answer)),
            Behaviour::Fail(code, message) => Err(Status::new(code, message)),
            Behaviour::Hang => std::future::pending().await,
        }
    }
}

#[tonic::async_trait]
impl Kv for Service {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let key = request.into_inner().key;
        let kvs = vec![KeyValue { key, value: "v".into(), ..KeyValue::default() }];
        self.act(RangeResponse { kvs, count: 1, ..RangeResponse::default() }).await
    }

    async fn put(&self, _: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.act(PutResponse::default()).await
    }

    async fn txn(&self, _: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        self.act(TxnResponse { succeeded: true, ..TxnResponse::default() }).await
    }
}

#[tonic::async_trait]
impl Admin for Service {
    async fn inspect(&self, _: Request<InspectRequest>) -> Result<Response<InspectResponse>, Status> {
        self.act(InspectResponse { name: "n1".to_owned(), ..InspectResponse::default() }).await
    }

    async fn fault_events(
        &self,
        _: Request<FaultEventsRequest>,
    ) -> Result<Response<BoxStream<FaultEvent>>, Status> {
        let event = FaultEvent { text: "acceptor stopped".to_owned(), ..FaultEvent::default() };
        self.act(Box::pin(tokio_stream::once(Ok(event))) as BoxStream<FaultEvent>).await
    }
}

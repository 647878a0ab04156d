//! The server's end: speaks HTTP/2 on each connection and routes calls to their service.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::timeout,
};
use tonic::{
    body::Body,
    codegen::{Body as HttpBody, BoxFuture, Service as _, StdError, http},
};

use crate::{
    api::{service::Service, socket::Socket, stop::Stop, watches::Watches},
    hooks::Hooks,
    limits::{
        CALL_WINDOW_BYTES, CALLS_MAX, CONNECTION_WINDOW_BYTES, CONNECTIONS_MAX, MESSAGE_BYTES_MAX,
        REPLY_BYTES_MAX, STOP_GRACE,
    },
    net::Net,
    node::Node,
    wire::api::{DESCRIPTOR, lattice_server::LatticeServer},
};

/// Serves the API of one node. Cheap to clone; all clones stop together.
#[derive(Debug, Clone)]
pub struct Server {
    routes: Routes,
    watches: Watches,
    stop: Stop,
}

impl Server {
    /// Returns a server of `node` that does not listen yet.
    ///
    /// `status` reports `socket` to clients; this call does not bind it. Without a `net`, calls
    /// that need peers fail with the code `no_net`. `hooks` can be changed and listed whether or
    /// not they are started.
    pub fn new(node: Node, net: Option<Net>, hooks: Hooks, socket: Option<PathBuf>) -> Self {
        let (watches, stop) = (Watches::default(), Stop::default());
        let service = Service::new(node, net, hooks, socket, watches.clone(), stop.clone());
        Self {
            routes: Routes::new(service),
            watches,
            stop,
        }
    }

    /// Returns the watches that clients have open.
    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    /// Resolves when a client has called `Down`.
    pub fn down_requested(&self) -> impl Future<Output = ()> + Send + 'static {
        self.stop.asked.clone().cancelled_owned()
    }

    /// Begins the stop: `serve` accepts no more connections, watches end, and calls in flight
    /// continue.
    pub fn stop(&self) {
        self.stop.ending.cancel();
    }

    /// Serves every connection that `socket` accepts, until `stop` is called.
    ///
    /// After `stop` it removes the socket, gives calls in flight `STOP_GRACE` to finish, and closes
    /// the connections of the calls that have not finished. On return no connection is open.
    pub async fn serve(self, socket: Socket) {
        let mut connections = JoinSet::new();
        loop {
            // At the limit, the next client waits in the backlog of the socket.
            let full = connections.len() >= CONNECTIONS_MAX;
            tokio::select! {
                () = self.stop.ending.cancelled() => break,
                Some(_ended) = connections.join_next() => {}
                stream = socket.accept(), if !full => {
                    connections.spawn(self.clone().serve_connection(stream));
                }
            }
        }
        drop(socket);
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(STOP_GRACE, drained).await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "closed connections whose calls did not finish in time"
            );
        }
        connections.shutdown().await;
    }

    /// Serves one connection until the client closes it or `stop` is called.
    pub(super) async fn serve_connection<Io>(self, io: Io)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
        builder
            .http2()
            .auto_date_header(false)
            .initial_stream_window_size(CALL_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(CALLS_MAX);
        let service = TowerToHyperService::new(self.routes);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = self.stop.ending.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(error, "a connection ended with an error");
        }
    }
}

type Answer = BoxFuture<http::Response<Body>, Infallible>;

/// Routes each call to its service, by the path of the request.
#[derive(Clone)]
struct Routes {
    lattice: LatticeServer<Service>,
    reflection: Reflection,
    // The same service under its older name, which the libraries of some languages still use.
    reflection_alpha: Reflection,
}

// A closure, because tonic does not name the type of the reflection service.
type Reflection = Arc<dyn Fn(http::Request<Body>) -> Answer + Send + Sync>;

impl Routes {
    fn new(service: Service) -> Self {
        let lattice = LatticeServer::new(service)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(REPLY_BYTES_MAX);
        let describe = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTOR)
        };
        let reflection = describe().build_v1().expect(VALID);
        let alpha = describe().build_v1alpha().expect(VALID);
        Self {
            lattice,
            reflection: Arc::new(move |request| reflection.clone().call(request)),
            reflection_alpha: Arc::new(move |request| alpha.clone().call(request)),
        }
    }
}

impl<B> tower::Service<http::Request<B>> for Routes
where
    B: HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Answer {
        let path = request.uri().path();
        if path.starts_with("/grpc.reflection.v1alpha.") {
            (self.reflection_alpha)(request.map(Body::new))
        } else if path.starts_with("/grpc.reflection.") {
            (self.reflection)(request.map(Body::new))
        } else {
            self.lattice.call(request)
        }
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").finish_non_exhaustive()
    }
}

const VALID: &str = "the build script wrote a valid descriptor";

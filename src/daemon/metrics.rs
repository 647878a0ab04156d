//! The health of the node, over HTTP on a loopback address: `/metrics` for Prometheus, `/healthz`
//! for a supervisor that restarts a node that hangs.
//!
//! The text follows the Prometheus exposition format, version 0.0.4. Every user of this machine can
//! read it. It contains names of stores and consumers, ids of nodes, and the prefixes and patterns
//! of watches; no other keys, and no values.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};
use tonic::codegen::http::{Method, Request, Response, StatusCode, header};

use crate::{api::watches::Watches, daemon::metrics_text, net::Net, node::Node};

/// Serves `/metrics` and `/healthz` until it is dropped.
#[derive(Debug)]
pub struct Metrics {
    address: SocketAddr,
    // Accepts connections. The drop aborts this task; connections end within `CONNECTION_TIMEOUT`.
    serving: JoinHandle<()>,
}

/// Metrics that could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// Other machines could read metrics on this address.
    #[error(
        "metrics are served to this machine only, and {address} is not a loopback address: use for \
        example 127.0.0.1:9464"
    )]
    NotLoopback {
        /// Address that was asked for.
        address: SocketAddr,
    },
    /// The system refused to listen on the address.
    #[error("cannot serve metrics on {address}: {source}")]
    Bind {
        /// Address that was asked for.
        address: SocketAddr,
        /// Error of the system.
        source: io::Error,
    },
}

// The parts of the node from which answers are made.
#[derive(Debug)]
struct Subject {
    node: Node,
    net: Net,
    watches: Watches,
    started_ms: u64,
}

impl Metrics {
    /// Serves the metrics of `node`, `net` and `watches` on `address`. Port 0 chooses a free port.
    ///
    /// # Errors
    /// Every variant of `MetricsError`.
    pub(super) async fn start(
        node: &Node,
        net: &Net,
        watches: &Watches,
        address: SocketAddr,
    ) -> Result<Self, MetricsError> {
        if !address.ip().is_loopback() {
            return Err(MetricsError::NotLoopback { address });
        }
        let bind = |source| MetricsError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let subject = Arc::new(Subject {
            started_ms: node.clock().now_ms(),
            node: node.clone(),
            net: net.clone(),
            watches: watches.clone(),
        });
        Ok(Self {
            address,
            serving: tokio::spawn(serve(listener, subject)),
        })
    }

    /// Returns the address that metrics are served on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, subject: Arc<Subject>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // At the limit, the next connection waits in the backlog of the listener.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _who)) => {
                let subject = Arc::clone(&subject);
                tokio::spawn(async move {
                    drop(timeout(CONNECTION_TIMEOUT, talk(stream, subject)).await);
                    drop(place);
                });
            }
            // The process may be out of file descriptors: an immediate retry would also fail.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for metrics");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

async fn talk(stream: TcpStream, subject: Arc<Subject>) {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(REQUEST_BYTES_MAX)
        .keep_alive(false);
    let answer = tower::service_fn(move |request: Request<_>| {
        let subject = Arc::clone(&subject);
        async move { Ok::<_, Infallible>(subject.answer(&request).await) }
    });
    let service = TowerToHyperService::new(answer);
    let served = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(error, "a connection for metrics ended with an error");
    }
}

impl Subject {
    async fn answer<B>(&self, request: &Request<B>) -> Response<String> {
        if !is_local(request) {
            let what = "this is only served under a loopback address or localhost\n";
            return reply(StatusCode::FORBIDDEN, what.to_owned());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return reply(
                StatusCode::METHOD_NOT_ALLOWED,
                "use the method GET\n".to_owned(),
            );
        }
        match request.uri().path() {
            "/metrics" => {
                let Self {
                    node,
                    net,
                    watches,
                    started_ms,
                } = self;
                let text = metrics_text::text(node, net, watches, *started_ms);
                reply(StatusCode::OK, text.await)
            }
            "/healthz" => match self.ailments().await.as_slice() {
                [] => reply(StatusCode::OK, self.alarms() + "ok\n"),
                ailments => reply(StatusCode::SERVICE_UNAVAILABLE, ailments.join("\n") + "\n"),
            },
            _other => reply(
                StatusCode::NOT_FOUND,
                "the pages are /metrics and /healthz\n".to_owned(),
            ),
        }
    }

    // Returns a line for each member that has signed another state than that of this node; empty without
    // one. The node works all the same: no member can make it look broken by its word alone.
    fn alarms(&self) -> String {
        let mut alarms = String::new();
        for info in self.node.stores() {
            for (node, divergence) in self.net.divergences(&info.id) {
                alarms.push_str(&format!(
                    "warning: {}: node {} says that its state differs from the state here, with the \
                     same entries: {} of {} that signed a state agree with this node\n",
                    info.name,
                    node.short(),
                    divergence.with_here,
                    divergence.with_here + divergence.with_there,
                ));
            }
        }
        alarms
    }

    // Returns the reasons why the node does not work, one line each; empty if it works.
    async fn ailments(&self) -> Vec<String> {
        let removed = self.node.removed_by().map(|by| match by == self.node.id() {
            true => "this node has left the mesh: its writes are refused".to_owned(),
            false => format!(
                "node {} has removed this node from the mesh: its writes are refused",
                by.short()
            ),
        });
        let mut ailments: Vec<String> = self.net.trouble().into_iter().chain(removed).collect();
        for info in self.node.stores() {
            let Some(store) = self.node.open_store(&info.id) else {
                continue;
            };
            let name = &info.name;
            match timeout(HEALTH_TIMEOUT, store.status()).await {
                Err(_elapsed) => {
                    ailments.push(format!(
                        "{name}: its writer has not answered for {} s",
                        HEALTH_TIMEOUT.as_secs()
                    ));
                }
                Ok(status) => {
                    let refused = status.poisoned.map(|why| format!("{name}: {why}"));
                    ailments.extend(refused);
                }
            }
        }
        ailments
    }
}

// Checks the Host header. A web page may let its own host name resolve to 127.0.0.1, so that a
// browser on this machine fetches the metrics for the page; such a request has that host name.
fn is_local<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(header::HOST);
    let Some(host) = host.and_then(|host| host.to_str().ok()) else {
        return true;
    };
    let named = host.rsplit_once(':').map_or(host, |(name, port)| {
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
        if is_port { name } else { host }
    });
    let ip = named.trim_start_matches('[').trim_end_matches(']').parse();
    named == "localhost" || ip.is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn reply(status: StatusCode, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let text = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

/// Largest number of connections at a time.
const CONNECTIONS_MAX: usize = 16;
/// Largest number of bytes in the head of a request.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// Longest time of a connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time until the head of a request is complete.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A store whose writer does not answer within this time counts as hanging.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Wait after a failed accept.
const RETRY_AFTER: Duration = Duration::from_secs(1);

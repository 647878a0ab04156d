//! The daemon: starts the parts that serve a node, and stops them in order.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal as listen},
    task::JoinHandle,
};

use crate::{
    api::{
        client::Client,
        error::{ApiError, EXIT_FAILED},
        local,
        server::Server,
        socket::{Socket, SocketError},
        socket_access::SocketAccess,
    },
    daemon::{Metrics, MetricsError},
    hooks::Hooks,
    net::{Net, NetConfig},
    node::{Node, Tending},
    store::WriteError,
};

/// A node that serves its socket, meets its peers and runs its hooks.
///
/// End it with [`Daemon::stop`]. Dropping it breaks off all calls, connections and runs at once and
/// does not close the node.
#[derive(Debug)]
pub struct Daemon {
    node: Node,
    net: Net,
    hooks: Hooks,
    server: Server,
    socket: std::path::PathBuf,
    // Runs `Server::serve` on `calls`. `stop` joins it; the drop aborts it.
    serving: JoinHandle<()>,
    // Threads for calls of clients only, so that such calls do not wait behind work for peers.
    // `None` only during drop.
    calls: Option<Runtime>,
    // Ends the history of stores. `stop` and the drop abort it; what it has begun is finished or undone at
    // the next start.
    tending: JoinHandle<()>,
    // Set by `serve_metrics`. Serving ends when the value is dropped.
    metrics: Option<Metrics>,
}

/// A daemon that could not start, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The socket could not be bound.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The system refused threads for calls.
    #[error("cannot start threads that serve calls: {0}")]
    Threads(#[source] io::Error),
    /// The node did not close cleanly; acknowledged writes are in its log nevertheless.
    #[error("the node did not close cleanly: {0}")]
    Close(#[source] WriteError),
}

impl Daemon {
    /// Binds the socket of `node` for this user alone, then serves calls, meets peers and runs hooks in
    /// the background.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// `Socket`, `Threads`. The node is left open.
    pub fn start(node: Node, config: NetConfig) -> Result<Self, DaemonError> {
        Self::start_with(node, config, &SocketAccess::default())
    }

    /// Starts the daemon as `start` does, with a socket for the users that `access` names.
    ///
    /// # Errors
    /// `Socket`, `Threads`. The node is left open.
    pub fn start_with(
        node: Node,
        config: NetConfig,
        access: &SocketAccess,
    ) -> Result<Self, DaemonError> {
        let socket = Socket::bind(node.data_dir(), access)?;
        let path = socket.path().to_owned();
        let net = Net::start(node.clone(), config);
        let hooks = Hooks::of(node.clone());
        let server = Server::new(
            node.clone(),
            Some(net.clone()),
            hooks.clone(),
            Some(path.clone()),
        );
        let calls = Builder::new_multi_thread()
            .thread_name("calls")
            .enable_all()
            .build()
            .map_err(DaemonError::Threads)?;
        let serving = calls.spawn(server.clone().serve(socket));
        let tending = tokio::spawn(tend(node.clone()));
        // Hooks start last, so that a command that a hook runs finds the socket.
        hooks.start();
        Ok(Self {
            node,
            net,
            hooks,
            server,
            socket: path,
            serving,
            calls: Some(calls),
            tending,
            metrics: None,
        })
    }

    /// Serves `/metrics` and `/healthz` over HTTP on a loopback address until the daemon is
    /// dropped. Returns the address, which has the chosen port if `at` has port 0.
    ///
    /// # Errors
    /// Every variant of `MetricsError`.
    pub async fn serve_metrics(&mut self, at: SocketAddr) -> Result<SocketAddr, MetricsError> {
        let metrics = Metrics::start(&self.node, &self.net, self.server.watches(), at).await?;
        let address = metrics.address();
        self.metrics = Some(metrics);
        Ok(address)
    }

    /// Stops serving `/metrics` and `/healthz`.
    pub fn stop_metrics(&mut self) {
        self.metrics = None;
    }

    /// Reads `hooks.toml` again if it has changed. Returns the mistake in it, if there is one; the
    /// hooks then run as before.
    pub async fn reload_hooks(&self) -> Option<String> {
        self.hooks.reload().await
    }

    /// Returns the node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Returns a client of this node that does not use its socket.
    pub fn client(&self) -> Client {
        local::of_server(self.server.clone())
    }

    /// Returns the path of the socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Resolves when a client has called `Down`. The server answers that call; the caller should
    /// then `stop` the daemon.
    pub fn shutdown_requested(&self) -> impl Future<Output = ()> + Send + 'static {
        self.server.down_requested()
    }

    /// Stops in order:
    ///
    /// 1. The server accepts no more connections, and removes the socket. The lock of the data
    ///    directory is still held, so the removed socket is never that of the next node.
    /// 2. Watches end with the code `stopping`; open connections take no new calls.
    /// 3. Calls in flight have `STOP_GRACE` to finish; their connections are then closed.
    /// 4. Hooks take no more changes, and their runs have `HOOKS_STOP_GRACE` to finish; unfinished
    ///    runs are then ended. History is not ended any more.
    /// 5. The connections to peers close.
    /// 6. The node closes: it flushes writes, closes files and releases the lock.
    ///
    /// # Errors
    /// `Close`. The daemon has stopped nevertheless.
    ///
    /// # Panics
    /// If the server panicked.
    pub async fn stop(mut self) -> Result<(), DaemonError> {
        self.server.stop();
        (&mut self.serving)
            .await
            .expect("serving neither panics nor is aborted before drop");
        self.hooks.stop().await;
        self.tending.abort();
        self.net.stop().await;
        self.node.close().await.map_err(DaemonError::Close)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.serving.abort();
        self.tending.abort();
        self.hooks.abort();
        if let Some(calls) = self.calls.take() {
            calls.shutdown_background();
        }
    }
}

impl From<DaemonError> for ApiError {
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::Socket(error) => error.into(),
            DaemonError::Threads(_) => Self::new("no_threads", EXIT_FAILED, error.to_string())
                .hint("the process limit of this user or systemd unit may be too low"),
            DaemonError::Close(error) => error.into(),
        }
    }
}

async fn tend(node: Node) {
    let (mut tending, mut before) = (Tending::default(), Instant::now());
    loop {
        tokio::time::sleep(TEND_EVERY).await;
        let now = Instant::now();
        tending.look(&node, now - before).await;
        before = now;
    }
}

// A look at a store that has not changed costs next to nothing.
const TEND_EVERY: Duration = Duration::from_secs(2);

/// Returns the stream of SIGHUPs, which no longer end the process from this call on.
///
/// # Errors
/// The system refused a handler.
pub fn hangups() -> io::Result<Signal> {
    listen(SignalKind::hangup())
}

/// Returns a future that resolves at the first SIGINT or SIGTERM, with the name of the signal.
///
/// From this call on, these signals no longer end the process.
///
/// # Errors
/// The system refused a handler.
pub fn signal() -> io::Result<impl Future<Output = &'static str> + Send + 'static> {
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        }
    })
}

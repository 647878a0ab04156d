//! The daemon: a node and what serves it, from start to an ordered stop.

use std::{io, net::SocketAddr, path::Path};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal as listen},
    task::JoinHandle,
};

use crate::{
    api::{
        client::Client,
        error::{ApiError, EXIT_FAILED},
        local,
        server::Server,
        socket::{Socket, SocketError},
    },
    daemon::{Metrics, MetricsError},
    hooks::Hooks,
    net::{Net, NetConfig},
    node::Node,
    store::WriteError,
};

/// A node that serves its socket.
///
/// Dropping it stops the serving without order; [`Daemon::stop`] is the way to end it.
#[derive(Debug)]
pub struct Daemon {
    node: Node,
    net: Net,
    hooks: Hooks,
    server: Server,
    socket: std::path::PathBuf,
    // Runs `Server::serve`; joined by `stop`, aborted by drop.
    serving: JoinHandle<()>,
    // Where calls are served: who asks is not behind what goes to peers. Left before `drop`.
    calls: Option<Runtime>,
    metrics: Option<Metrics>,
}

/// Why a daemon did not start or stop as it should.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// There is no socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The system gives no threads.
    #[error("cannot start threads that serve calls: {0}")]
    Threads(#[source] io::Error),
    /// The node did not close cleanly; what was acknowledged is in its log all the same.
    #[error("the node did not close cleanly: {0}")]
    Close(#[source] WriteError),
}

impl Daemon {
    /// Binds the socket of `node`, serves it and meets other nodes in the background.
    ///
    /// To be called inside a runtime.
    ///
    /// # Errors
    /// `Socket`; the node is left open.
    pub fn start(node: Node, config: NetConfig) -> Result<Self, DaemonError> {
        let socket = Socket::bind(node.data_dir())?;
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
        // Last: a command that a hook runs finds the socket.
        hooks.start();
        Ok(Self {
            node,
            net,
            hooks,
            server,
            socket: path,
            serving,
            calls: Some(calls),
            metrics: None,
        })
    }

    /// Tells on a loopback address how the node is, over HTTP: `/metrics` and `/healthz`, until the
    /// daemon is stopped. Returns the address.
    ///
    /// # Errors
    /// `MetricsError`.
    pub async fn serve_metrics(&mut self, at: SocketAddr) -> Result<SocketAddr, MetricsError> {
        let metrics = Metrics::start(&self.node, &self.net, self.server.watches(), at).await?;
        let address = metrics.address();
        self.metrics = Some(metrics);
        Ok(address)
    }

    /// Returns the node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Returns a client of this node that needs no socket.
    pub fn client(&self) -> Client {
        local::of_server(self.server.clone())
    }

    /// Returns where clients connect.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Resolves when a client has called `Down`. The call is answered; the rest is for the
    /// caller, who should `stop`.
    pub fn shutdown_requested(&self) -> impl Future<Output = ()> + Send + 'static {
        self.server.down_requested()
    }

    /// Stops in order:
    ///
    /// 1. No connection is accepted any more, and the socket is removed. This comes first and
    ///    under the lock of the data directory, so that it can never hit a successor's socket.
    /// 2. Watches end with the code `stopping`; open connections take no new calls.
    /// 3. Calls in flight finish, within `STOP_GRACE`; after that they are cut off.
    /// 4. Hooks take no more changes, what runs finishes, within `HOOKS_STOP_GRACE`; after that it
    ///    is ended.
    /// 5. Peers are told goodbye: their connections close.
    /// 6. The node closes: writes are flushed, files closed, the lock released.
    ///
    /// # Errors
    /// `Close`. The daemon has stopped also then.
    ///
    /// # Panics
    /// If serving panicked.
    pub async fn stop(mut self) -> Result<(), DaemonError> {
        self.server.stop();
        (&mut self.serving)
            .await
            .expect("serving neither panics nor is aborted before drop");
        self.hooks.stop().await;
        self.net.stop().await;
        self.node.close().await.map_err(DaemonError::Close)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.serving.abort();
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
                .hint("the limit of processes of this user or unit may be too low"),
            DaemonError::Close(error) => error.into(),
        }
    }
}

/// Resolves at the first SIGINT or SIGTERM after the call, with its name.
///
/// From the call on these signals no longer end the process.
///
/// # Errors
/// When the system does not let us listen.
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

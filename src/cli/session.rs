//! Connects to the running node, or opens or runs the node in this process.

use std::{
    io::ErrorKind,
    mem,
    net::SocketAddr,
    time::{Duration, Instant},
};

use lattice::{
    api::{
        client::{self, Client, ConnectError},
        local,
        socket::SocketError,
        socket_access::SocketAccess,
        whole,
    },
    daemon::{Daemon, MetricsError},
    node::{FileConfig, Node, OpenError},
};

use crate::cli::{
    exit::{Exit, Failure},
    global::Global,
    input::net_flags::NetArgs,
    output::{
        print::{Output, escape},
        vocabulary::NodeNames,
    },
    place::Place,
    screens::stores,
};

/// How long a command needs its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// One call. With no node running, this process opens the store, uses it and closes it.
    Short,
    /// As long as the command runs. With no node running, this process is the node meanwhile.
    Long,
}

/// The shared state of a command: data directory, store, output, and the node once it is needed.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) place: Place,
    /// Store of the command as the API takes it: a name, a UUID, or empty for the data store.
    pub(crate) store: String,
    /// Store named by a flag or the environment. A shell returns to it after a line that names
    /// another store.
    pub(crate) store_named: Option<String>,
    pub(crate) out: Output,
    // Set by the first call of `client` or by `serve`; taken by `close`.
    session: Option<Session>,
    // True until the store that `store use` chose was named.
    notes_store: bool,
}

/// How this process reaches the node.
#[derive(Debug)]
enum Session {
    /// The node runs in another process.
    Connected(Client),
    /// This process has opened the node for one command; other processes wait for the lock.
    Opened(Client, Node),
    /// This process is the node and serves the socket.
    Serving(Client, Box<Daemon>),
}

impl Context {
    /// Makes the context for these flags. Opens nothing.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let mut place = Place::find(global.data_dir.as_deref())?;
        place.passphrase_file.clone_from(&global.passphrase_file);
        let out = Output::new(global.form(), global.color, global.verbose > 0);
        let store_named = global.store.clone();
        let store = String::new();
        let mut context = Self {
            place,
            store,
            store_named,
            out,
            session: None,
            notes_store: false,
        };
        context.choose_store(global.store.as_deref())?;
        Ok(context)
    }

    /// Selects the store `named`, else the choice of `store use`, else the data store.
    pub(crate) fn choose_store(&mut self, named: Option<&str>) -> Result<(), Failure> {
        self.store = match named {
            Some(store) => store.to_owned(),
            None => self.place.store_used()?.unwrap_or_default(),
        };
        Ok(())
    }

    /// Has the command name, on a terminal, the store that it uses, if it is the choice of `store use` in
    /// this directory: in another one the answer may be another.
    pub(crate) fn note_store_used(&mut self) {
        let is_chosen = self.store_named.is_none() && !self.store.is_empty();
        self.notes_store = is_chosen && self.out.for_people();
    }

    /// Returns the name of the store of the command, for people; what it was called if the node does not
    /// know it.
    pub(crate) async fn store_name(&self, client: &mut Client) -> String {
        let stores = whole::stores(client).await.unwrap_or_default();
        let used = stores
            .iter()
            .find(|info| stores::is_used(&self.store, info));
        used.map_or_else(|| self.store.clone(), stores::name)
    }

    /// Returns a client of the node. The first call connects to it or opens it.
    pub(crate) async fn client(&mut self, lifetime: Lifetime) -> Result<Client, Failure> {
        let net = NetArgs::of_environment()?;
        self.client_with(lifetime, &net).await
    }

    /// Returns a client of the node if it runs in another process; opens nothing.
    pub(crate) async fn running(&self) -> Result<Option<Client>, Failure> {
        connect(&self.place).await
    }

    /// Returns the client for a command that follows the node until it is stopped, and whether
    /// the command reconnects when the node disconnects.
    ///
    /// False means that this process is the node for as long as the command runs; a notice says so.
    pub(crate) async fn client_to_follow(&mut self) -> Result<(Client, bool), Failure> {
        let client = self.client(Lifetime::Long).await?;
        let reconnects = self.is_connected();
        if !reconnects {
            self.out.notice(
                "is_node",
                "no node is running; this process is the node until it ends",
            );
        }
        Ok((client, reconnects))
    }

    /// Like `client`, with the network flags for the case that this process becomes the node.
    pub(crate) async fn client_with(
        &mut self,
        lifetime: Lifetime,
        net: &NetArgs,
    ) -> Result<Client, Failure> {
        if self.session.is_none() {
            self.session = Some(Session::find(&self.place, lifetime, net).await?);
        }
        let mut client = match &self.session {
            Some(
                Session::Connected(client)
                | Session::Opened(client, _)
                | Session::Serving(client, _),
            ) => client.clone(),
            None => unreachable!("set above"),
        };
        if mem::take(&mut self.notes_store) {
            let store = self.store_name(&mut client).await;
            let store = escape(store.as_bytes());
            let what = format!("store {store}, which `lattice store use` chose for this directory");
            self.out.notice("store_used", &what);
        }
        if self.out.wants_names() {
            // Without an answer, the objects have ids alone.
            let names = whole::peers(&mut client).await.unwrap_or_default();
            let nodes = names.own.iter().chain(&names.peers);
            self.out.set_names(NodeNames::new(nodes));
        }
        Ok(client)
    }

    /// Makes this process the node: serves `node` on the socket until `close`. Flags and environment
    /// variables override the settings in `file`.
    pub(crate) async fn serve(
        &mut self,
        node: Node,
        net: &NetArgs,
        file: FileConfig,
    ) -> Result<Client, Failure> {
        let session = Session::serve(node, net, file).await?;
        self.session = Some(session);
        self.client(Lifetime::Long).await
    }

    /// Serves the metrics of this process's node over HTTP at `at`; returns the bound address.
    pub(crate) async fn serve_metrics(&mut self, at: SocketAddr) -> Result<SocketAddr, Failure> {
        let Some(Session::Serving(_, daemon)) = &mut self.session else {
            unreachable!("`up` serves the node before its metrics")
        };
        let served = daemon.serve_metrics(at).await;
        served.map_err(|error| match &error {
            MetricsError::NotLoopback { .. } => Failure::usage("bad_metrics", error.to_string()),
            _not_bound => Failure::failed("metrics", error.to_string()).hint(
                "if another program listens there, give another --metrics, or port 0 for any",
            ),
        })
    }

    /// Stops serving the metrics of this process's node.
    pub(crate) fn stop_metrics(&mut self) {
        if let Some(Session::Serving(_, daemon)) = &mut self.session {
            daemon.stop_metrics();
        }
    }

    /// Has this process's node read hooks.toml again. Returns the mistake in it, if there is one.
    pub(crate) async fn reload_hooks(&self) -> Option<String> {
        match &self.session {
            Some(Session::Serving(_, daemon)) => daemon.reload_hooks().await,
            _not_the_node => None,
        }
    }

    /// Resolves when another process asks this node to stop; never if this process is not the node.
    pub(crate) fn down_requested(&self) -> impl Future<Output = ()> + Send + 'static {
        let requested = match &self.session {
            Some(Session::Serving(_, daemon)) => Some(daemon.shutdown_requested()),
            _not_the_node => None,
        };
        async move {
            match requested {
                Some(requested) => requested.await,
                None => std::future::pending().await,
            }
        }
    }

    /// True if the node runs in another process and may therefore disconnect.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.session, Some(Session::Connected(_)))
    }

    /// Prints a notice after a write if no node is running that could send it to peers.
    pub(crate) fn note_unsent_write(&self) {
        if matches!(self.session, Some(Session::Opened(..))) {
            self.out.notice(
                "no_node",
                "no node is running; written to the store here, peers get it when one runs",
            );
        }
    }

    /// Closes the node if this process opened it; a node in another process goes on running.
    pub(crate) async fn close(&mut self) -> Result<(), Failure> {
        match self.session.take() {
            None | Some(Session::Connected(_)) => Ok(()),
            Some(Session::Opened(client, node)) => {
                drop(client);
                node.close()
                    .await
                    .map_err(|error| Failure::failed("close", error.to_string()))
            }
            Some(Session::Serving(client, daemon)) => {
                drop(client);
                Ok(daemon
                    .stop()
                    .await
                    .map_err(lattice::api::error::ApiError::from)?)
            }
        }
    }
}

impl Session {
    async fn find(place: &Place, lifetime: Lifetime, net: &NetArgs) -> Result<Self, Failure> {
        let held_until = Instant::now() + LOCK_WAIT;
        loop {
            if let Some(client) = connect(place).await? {
                return Ok(Self::Connected(client));
            }
            // Read before the node is opened, so that a bad file leaves nothing open.
            let file = match lifetime {
                Lifetime::Long => FileConfig::read(&place.data_dir)?,
                Lifetime::Short => FileConfig::default(),
            };
            match Node::open(place.node_config()).await {
                Ok(node) if lifetime == Lifetime::Long => {
                    return Self::serve(node, net, file).await;
                }
                Ok(node) => return Ok(Self::Opened(local::in_process(node.clone()), node)),
                // A node that starts and does not serve its socket yet, or a short command like
                // this one.
                Err(OpenError::AlreadyRunning { .. }) if Instant::now() < held_until => {
                    tokio::time::sleep(LOCK_RETRY).await;
                }
                Err(error @ OpenError::AlreadyRunning { .. }) => {
                    return Err(Failure::new(
                        Exit::Unavailable,
                        "already_running",
                        format!("{error}, and it has not served its socket for {LOCK_WAIT:?}"),
                    )
                    .hint("wait for it to start or to end; if it hangs, end that process"));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn serve(node: Node, net: &NetArgs, file: FileConfig) -> Result<Self, Failure> {
        let access = SocketAccess::of(&file).map_err(|error| SocketError::from(error).into());
        let started =
            access.and_then(|access| Daemon::start_with(node.clone(), net.config(file), &access));
        let daemon = match started {
            Ok(daemon) => daemon,
            Err(error) => {
                node.close()
                    .await
                    .map_err(|error| Failure::failed("close", error.to_string()))?;
                return Err(lattice::api::error::ApiError::from(error).into());
            }
        };
        Ok(Self::Serving(daemon.client(), Box::new(daemon)))
    }
}

/// Connects to the node of `place`; returns `None` if none is running.
pub(crate) async fn connect(place: &Place) -> Result<Option<Client>, Failure> {
    match client::connect(&place.socket()).await {
        Ok(client) => Ok(Some(client)),
        Err(ConnectError::NoSocket { .. } | ConnectError::Refused { .. }) => Ok(None),
        // No node can serve a socket there, but a command can open the store.
        Err(ConnectError::PathTooLong { .. }) => Ok(None),
        // The node is stopping and closed the connection before it accepted it.
        Err(ConnectError::Io { source, .. }) if source.kind() == ErrorKind::ConnectionReset => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// How long a command waits for the lock of the data directory while the process that holds it
/// serves no socket: another short command, or a node that starts.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Time between two attempts to take the lock.
pub(crate) const LOCK_RETRY: Duration = Duration::from_millis(50);

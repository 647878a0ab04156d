//! The temporary directory of a bench, and the nodes in it.

use std::{
    env, fs,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio, id},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use lattice::{
    api::client::{self, Client},
    node::{HistoryPolicy, Node, NodeConfig},
    wire::api,
};

use crate::cli::{bench::error::failed, exit::Failure};

/// A temporary directory; removed on drop.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    // Number of the next path in it.
    next: AtomicU32,
}

impl Scratch {
    /// Creates a directory in `parent`, else in the system's temporary directory.
    pub(super) fn make(parent: Option<&Path>) -> Result<Self, Failure> {
        let parent = parent.map_or_else(env::temp_dir, Path::to_owned);
        let path = parent.join(format!("bench-lattice-{}", id()));
        let path = std::path::absolute(&path).unwrap_or(path);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| {
                failed(&format!("cannot create {}", path.display()), &error)
                    .hint("name an existing directory with --dir")
            })?;
        Ok(Self {
            path,
            next: AtomicU32::new(0),
        })
    }

    /// Returns the path of the directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns a new path in the directory.
    pub(super) fn new_path(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.path.join(number.to_string())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A failure is ignored: the directory is temporary.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// Opens the node at `dir` in this process; creates it if it does not exist.
pub(super) async fn open(dir: &Path) -> Result<Node, Failure> {
    Ok(Node::open(NodeConfig::new(dir).create(true)).await?)
}

/// Closes a node.
pub(super) async fn close(node: Node) -> Result<(), Failure> {
    let closed = node.close().await;
    closed.map_err(|error| failed("cannot close the node", &error))
}

/// Makes all entries of the node final and removes them. Returns the bytes of the base.
pub(super) async fn end_history(dir: &Path) -> Result<u64, Failure> {
    let node = open(dir).await?;
    let (store, policy) = (node.data(), HistoryPolicy::default());
    let ended = async {
        node.make_final(&store, &policy, true).await?;
        node.prune(&store, &policy, true).await
    };
    let ended = ended.await;
    ended.map_err(|error| failed("the history cannot be ended", &error))?;
    let bytes = store.folded().map_or(0, |folded| folded.bytes);
    drop(store);
    close(node).await?;
    Ok(bytes)
}

/// A node in another process; killed on drop.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    /// Starts `lattice up` on `dir` and waits for its socket. It listens for peers on any port.
    pub(super) async fn start(dir: &Path) -> Result<Self, Failure> {
        Self::start_at(dir, ([127, 0, 0, 1], 0).into()).await
    }

    /// Starts `lattice up` on `dir`, to listen for peers at `bind`, and waits for its socket.
    pub(super) async fn start_at(dir: &Path, bind: SocketAddr) -> Result<Self, Failure> {
        let program = env::current_exe()
            .map_err(|error| failed("cannot find this program's file", &error))?;
        let child = Command::new(program)
            .arg("--data-dir")
            .arg(dir)
            .args(["up", "--no-mdns", "--bind", &bind.to_string()])
            .env_remove("LATTICE_STORE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| failed("cannot start a node", &error))?;
        let socket = lattice::api::socket::path(dir);
        let daemon = Self { child, socket };
        let deadline = Instant::now() + START_WAIT;
        while let Err(error) = client::connect(&daemon.socket).await {
            if Instant::now() >= deadline {
                return Err(error.into());
            }
            tokio::time::sleep(START_RETRY).await;
        }
        Ok(daemon)
    }

    /// Returns the process id of the node.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns a client of the node.
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        Ok(client::connect(&self.socket).await?)
    }

    /// Returns a thin client of the node.
    pub(super) async fn thin(&self) -> Result<lattice::client::Client, Failure> {
        Ok(lattice::client::Client::connect(&self.socket).await?)
    }

    /// Stops the node in order.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        self.connect().await?.down(api::DownRequest {}).await?;
        let ended = tokio::task::spawn_blocking(move || self.child.wait()).await;
        ended
            .unwrap_or_else(|panic| Err(std::io::Error::other(panic)))
            .map_err(|error| failed("cannot wait for the node", &error))?;
        Ok(())
    }

    /// Kills the node, as a crash would.
    pub(super) fn kill(mut self) -> Result<(), Failure> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map_err(|error| failed("cannot kill the node", &error))?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Has no effect if the process was waited for.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Longest wait until a node serves its socket.
const START_WAIT: Duration = Duration::from_secs(60);
/// Time between two attempts to connect during that wait.
const START_RETRY: Duration = Duration::from_millis(20);

//! A socket in front of that of a node, which counts calls and cuts connections.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

/// Passes bytes on in both directions. Dropping it closes all connections.
pub(crate) struct Proxy {
    path: PathBuf,
    calls: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

/// Bytes of answers after which connections are cut: the first one after `first`, each further one after
/// `more` than the one before.
#[derive(Clone, Copy)]
pub(crate) struct Cuts {
    pub(crate) first: usize,
    pub(crate) more: usize,
}

impl Proxy {
    /// Listens at `path` for connections to `node`.
    pub(crate) fn start(path: PathBuf, node: &Path, cuts: Option<Cuts>) -> Self {
        let (calls, connections) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let listener = UnixListener::bind(&path).unwrap();
        let (node, counted, count) = (node.to_owned(), Arc::clone(&calls), connections.clone());
        let accepting = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            loop {
                let (client, _address) = listener.accept().await.unwrap();
                // Otherwise the node is not running.
                let Ok(node) = UnixStream::connect(&node).await else {
                    continue;
                };
                let number = count.fetch_add(1, Ordering::SeqCst);
                let room = cuts.map(|cuts| cuts.first + number * cuts.more);
                open.spawn(pass(client, node, Arc::clone(&counted), room));
            }
        });
        Self {
            path,
            calls,
            connections,
            accepting,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Number of calls that clients have begun.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Number of connections that clients have made to the node.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(client: UnixStream, node: UnixStream, calls: Arc<AtomicUsize>, room: Option<usize>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_node, mut to_node) = node.into_split();
    let requests = async move {
        let mut frames = Frames::default();
        let mut bytes = [0; 1 << 14];
        while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
            calls.fetch_add(frames.headers_in(&bytes[..count]), Ordering::SeqCst);
            if to_node.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    let answers = async move {
        let mut room = room.unwrap_or(usize::MAX);
        let mut bytes = [0; 1 << 14];
        while let Ok(count @ 1..) = from_node.read(&mut bytes).await {
            let count = count.min(room);
            room -= count;
            if to_client.write_all(&bytes[..count]).await.is_err() || room == 0 {
                return;
            }
        }
    };
    tokio::select! {
        () = requests => {}
        () = answers => {}
    }
}

/// The frames of an HTTP/2 connection, from its preface on (RFC 9113, section 4.1).
#[derive(Default)]
struct Frames {
    preface: usize,
    // Bytes of the header of a frame so far.
    header: Vec<u8>,
    // Bytes of the frame that are still to come.
    rest: usize,
}

impl Frames {
    /// Returns how many frames of the type HEADERS begin in the next bytes.
    fn headers_in(&mut self, mut bytes: &[u8]) -> usize {
        let mut found = 0;
        while let [first, after @ ..] = bytes {
            if self.preface < b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len() {
                self.preface += 1;
                bytes = after;
            } else if self.rest > 0 {
                let skipped = self.rest.min(bytes.len());
                self.rest -= skipped;
                bytes = &bytes[skipped..];
            } else {
                self.header.push(*first);
                bytes = after;
                if let [a, b, c, kind, ..] = self.header[..]
                    && self.header.len() == 9
                {
                    self.rest = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                    found += usize::from(kind == 1);
                    self.header.clear();
                }
            }
        }
        found
    }
}

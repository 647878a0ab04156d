//! A client of a node in the same process, without a socket.

use crate::{
    api::{
        client::{Client, client},
        link::{Link, Stream},
        server::Server,
    },
    hooks::Hooks,
    node::Node,
};

/// Returns a client of `node`, in this process, without a socket.
///
/// Must be called inside a tokio runtime. The server behind the client ends when the last clone of
/// the client is dropped. The server answers `Down` and does not stop the node: the caller opened
/// the node, and closes it.
pub fn in_process(node: Node) -> Client {
    let hooks = Hooks::of(node.clone());
    of_server(Server::new(node, None, hooks, None))
}

/// Returns a client of `server` that does not use its socket. Otherwise like [`in_process`].
pub fn of_server(server: Server) -> Client {
    client(Link::new(move || {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let connection = server.clone().serve_connection(theirs);
        // This task ends when `ours` is dropped, which the link owns.
        tokio::spawn(connection);
        Box::pin(std::future::ready(Ok(Box::new(ours) as Box<dyn Stream>)))
    }))
}

/// Bytes that one end may send before the other end reads.
const PIPE_BYTES: usize = 256 << 10;

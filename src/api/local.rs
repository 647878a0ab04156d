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
/// To be called inside a runtime. What serves it ends when the last clone of it is dropped.
/// `down` is answered and does nothing more: who opened the node closes it.
pub fn in_process(node: Node) -> Client {
    let hooks = Hooks::of(node.clone());
    of_server(Server::new(node, None, hooks, None))
}

/// Returns a client of `server`, without its socket; otherwise as `in_process`.
pub fn of_server(server: Server) -> Client {
    client(Link::new(move || {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let connection = server.clone().serve_connection(theirs);
        // Ends when `ours` is dropped, which the link owns.
        tokio::spawn(connection);
        Box::pin(std::future::ready(Ok(Box::new(ours) as Box<dyn Stream>)))
    }))
}

/// Bytes between the two ends inside a process.
const PIPE_BYTES: usize = 256 << 10;

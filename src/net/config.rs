//! The settings of the net.

use std::net::SocketAddr;

pub use crate::node::Relay;

/// How a node listens for peers and finds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConfig {
    /// The address to listen on. `None`: any free port on all interfaces.
    pub bind: Option<SocketAddr>,
    /// Looks for members on the local network by mDNS, and is found there. Default: true.
    pub mdns: bool,
    /// The relay for peers that cannot reach each other. Default: none.
    pub relay: Relay,
    /// Takes this node's clock for right, whatever the members say. Default: false.
    pub accept_clock: bool,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            bind: None,
            mdns: true,
            relay: Relay::Off,
            accept_clock: false,
        }
    }
}

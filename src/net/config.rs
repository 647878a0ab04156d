//! How a node meets others, as its owner wants it.

use std::net::SocketAddr;

pub use crate::node::Relay;

/// How a node meets others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConfig {
    /// The address to listen on; `None`: any port of any interface.
    pub bind: Option<SocketAddr>,
    /// Look for members on the local network, and be found there. Default: yes.
    pub mdns: bool,
    /// Who helps peers that cannot reach each other. Default: nobody.
    pub relay: Relay,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            bind: None,
            mdns: true,
            relay: Relay::Off,
        }
    }
}

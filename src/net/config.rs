//! How a node meets others, as its owner wants it.

use std::net::SocketAddr;

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

/// Who passes on what peers cannot send each other directly.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Relay {
    /// Nobody: no third party learns of this node.
    #[default]
    Off,
    /// The public relays and the address lookup of number 0.
    N0,
    /// One of your own, by URL.
    Url(String),
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

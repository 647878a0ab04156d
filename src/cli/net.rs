//! Flags of commands that meet other nodes.

use std::net::SocketAddr;

use clap::Args;
use lattice::net::{NetConfig, Relay};

/// How the node meets others.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct NetArgs {
    /// Listen on this address for peers [default: any port, all interfaces, once there are peers]
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "LATTICE_BIND",
        hide_env_values = true
    )]
    bind: Option<SocketAddr>,
    /// Neither look for members on the local network nor be found there
    #[arg(
        long,
        env = "LATTICE_NO_MDNS",
        hide_env_values = true,
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    no_mdns: bool,
    /// Who helps peers that cannot reach each other: off, n0 (public relays), or a relay's URL
    #[arg(
        long,
        value_name = "RELAY",
        env = "LATTICE_RELAY",
        hide_env_values = true
    )]
    relay: Option<String>,
}

impl NetArgs {
    /// Returns what the environment alone says, for commands without these flags.
    pub(crate) fn of_environment() -> Self {
        let said = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            bind: said("LATTICE_BIND").and_then(|address| address.parse().ok()),
            no_mdns: said("LATTICE_NO_MDNS").is_some_and(|value| value != "false"),
            relay: said("LATTICE_RELAY"),
        }
    }

    /// Returns what the flags say.
    pub(crate) fn config(&self) -> NetConfig {
        NetConfig {
            bind: self.bind,
            mdns: !self.no_mdns,
            relay: match self.relay.as_deref() {
                None | Some("off") => Relay::Off,
                Some("n0") => Relay::N0,
                Some(url) => Relay::Url(url.to_owned()),
            },
        }
    }
}

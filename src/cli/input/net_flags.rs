//! The network flags of a node, and their environment variables.

use std::{fmt::Display, net::SocketAddr, str::FromStr};

use clap::Args;
use lattice::{
    net::{NetConfig, Relay},
    node::FileConfig,
};

use crate::cli::exit::Failure;

/// How the node finds and reaches its peers.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct NetArgs {
    /// Listen for peers on this address [default: any port on all interfaces, once there are peers]
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "LATTICE_BIND",
        hide_env_values = true
    )]
    bind: Option<SocketAddr>,
    /// Do not look for members on the local network, and do not be found there
    #[arg(
        long,
        env = "LATTICE_NO_MDNS",
        hide_env_values = true,
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    no_mdns: bool,
    /// Relay for peers that cannot connect directly: off, n0 (public relays), or a relay's URL
    #[arg(
        long,
        value_name = "RELAY",
        env = "LATTICE_RELAY",
        hide_env_values = true
    )]
    relay: Option<Relay>,
    /// Take the clock of this machine for right, even if the other members say that it is ahead
    #[arg(long)]
    accept_clock: bool,
}

impl NetArgs {
    /// Returns the values of the environment variables alone, for commands without these flags.
    pub(crate) fn of_environment() -> Result<Self, Failure> {
        Ok(Self {
            bind: parsed("LATTICE_BIND")?,
            no_mdns: variable("LATTICE_NO_MDNS")
                .is_some_and(|value| !FALSE.contains(&value.as_str())),
            relay: parsed("LATTICE_RELAY")?,
            accept_clock: false,
        })
    }

    /// Returns the configuration: flags, then environment variables, then `file`, then defaults.
    pub(crate) fn config(&self, file: FileConfig) -> NetConfig {
        // The flag can only turn mDNS off; the variable can also keep it on against `file`.
        let is_set = variable("LATTICE_NO_MDNS").is_some();
        NetConfig {
            bind: self.bind.or(file.bind),
            mdns: !self.no_mdns && (is_set || file.mdns.unwrap_or(true)),
            relay: self.relay.clone().or(file.relay).unwrap_or_default(),
            accept_clock: self.accept_clock,
        }
    }
}

// Returns an environment variable; an empty one counts as unset.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn parsed<T: FromStr<Err: Display>>(name: &str) -> Result<Option<T>, Failure> {
    let parse = |value: String| {
        let bad = |error| Failure::usage("bad_environment", format!("${name}: {error}"));
        value.parse().map_err(bad)
    };
    variable(name).map(parse).transpose()
}

// The values that clap's FalseyValueParser reads as false.
const FALSE: [&str; 6] = ["0", "f", "false", "n", "no", "off"];

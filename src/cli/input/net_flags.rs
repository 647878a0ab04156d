//! Flags of commands that meet other nodes.

use std::{fmt::Display, net::SocketAddr, str::FromStr};

use clap::Args;
use lattice::{
    net::{NetConfig, Relay},
    node::FileConfig,
};

use crate::cli::exit::Failure;

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
    relay: Option<Relay>,
}

impl NetArgs {
    /// Returns what the environment alone says, for commands without these flags.
    pub(crate) fn of_environment() -> Result<Self, Failure> {
        Ok(Self {
            bind: parsed("LATTICE_BIND")?,
            no_mdns: said("LATTICE_NO_MDNS").is_some_and(|value| !FALSE.contains(&value.as_str())),
            relay: parsed("LATTICE_RELAY")?,
        })
    }

    /// Returns what the flags and the environment say, and `file` where they say nothing.
    pub(crate) fn config(&self, file: FileConfig) -> NetConfig {
        // A flag can only turn it off; the environment can also leave it on.
        let said_so = said("LATTICE_NO_MDNS").is_some();
        NetConfig {
            bind: self.bind.or(file.bind),
            mdns: !self.no_mdns && (said_so || file.mdns.unwrap_or(true)),
            relay: self.relay.clone().or(file.relay).unwrap_or_default(),
        }
    }
}

fn said(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn parsed<T: FromStr<Err: Display>>(name: &str) -> Result<Option<T>, Failure> {
    let parse = |value: String| {
        let bad = |error| Failure::usage("bad_environment", format!("${name}: {error}"));
        value.parse().map_err(bad)
    };
    said(name).map(parse).transpose()
}

// As clap's FalseyValueParser reads them.
const FALSE: [&str; 6] = ["0", "f", "false", "n", "no", "off"];

//! `service print`, `service install`, `service uninstall`: a systemd unit for the node.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::{
    command::service::{
        install::{Install, Uninstall},
        unit::Unit,
    },
    exit::Failure,
    session::Context,
};

/// Run the node as a systemd service
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice service install --user
  sudo lattice service install
  lattice service print")]
pub(crate) struct Service {
    #[command(subcommand)]
    action: ServiceAction,
}

#[derive(Debug, Subcommand)]
enum ServiceAction {
    /// Print a unit that starts the node, and restarts it if it fails or does not answer
    ///
    /// A system service runs as the user `lattice` and keeps its data in /var/lib/lattice. With
    /// --user, it is the node that `lattice up` starts for that user. --data-dir names another
    /// directory.
    #[command(after_help = "\
Examples:
  lattice service print
  lattice service print --user > ~/.config/systemd/user/lattice.service
  systemctl --user enable --now lattice")]
    Print {
        /// Print a unit for the user's systemd instance
        #[arg(long)]
        user: bool,
        /// Give the service this encrypted credential with the node's key, made by `key move --to
        /// credential`
        #[arg(long, value_name = "PATH")]
        credential: Option<PathBuf>,
    },
    Install(Install),
    Uninstall(Uninstall),
}

impl Service {
    pub(crate) fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self.action {
            ServiceAction::Print { user, credential } => {
                let unit = Unit::of_this_program(user, &context.place)?;
                let unit = unit.with_credential(credential);
                context.out.bytes(unit.text().as_bytes())
            }
            ServiceAction::Install(install) => install.run(context),
            ServiceAction::Uninstall(uninstall) => uninstall.run(context),
        }
    }
}

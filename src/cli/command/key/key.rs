//! `key show`, `key move`, `key export`.

use clap::{Args, Subcommand};

use crate::cli::{
    command::key::{export::Export, move_key::Move, show::Show},
    exit::Failure,
    session::Context,
};

/// Show where the secret of this node's key is, and move it to a safer place
///
/// With the secret, anybody can write as this node. A new node keeps it in identity.key, which only the
/// user of the node can read. `lattice help keys` compares the places. If it is sealed, --passphrase-file FILE
/// or $LATTICE_PASSPHRASE_FILE gives every command the passphrase.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice key show
  lattice key move --to passphrase
  lattice key export | secret-tool store --label=lattice node kitchen
  lattice key move --to command -- secret-tool lookup node kitchen")]
pub(crate) struct Key {
    #[command(subcommand)]
    action: KeyAction,
}

#[derive(Debug, Subcommand)]
enum KeyAction {
    Show(Show),
    Move(Move),
    Export(Export),
}

impl Key {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self.action {
            KeyAction::Show(show) => show.run(context).await,
            KeyAction::Move(moving) => moving.run(context).await,
            KeyAction::Export(export) => export.run(context).await,
        }
    }
}

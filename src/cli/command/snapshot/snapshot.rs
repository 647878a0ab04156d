//! The command and its subcommands.

use clap::{Args, Subcommand};

use crate::cli::{
    command::snapshot::{
        check::{List, Verify},
        create::Create,
        restore::Restore,
    },
    exit::Failure,
    session::Context,
};

/// Back up all stores into one file, check it anywhere, restore it
///
/// A snapshot has every entry of the stores as it was signed: values, history, members and proofs. Of
/// entries that the node has removed (`lattice retention`) it has what they left: keys, values, conflicts. It is made while the node runs, and checked without a node. Not in it: the files that you write
/// yourself (config.toml, hooks.toml), the positions of consumers and hooks, and, without --with-key,
/// the secret key of the node. Without that key nobody can write as this node: keep a copy of
/// identity.key, or of a snapshot made with --with-key, where nobody else can read it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice snapshot create backup.lsnap
  lattice snapshot verify backup.lsnap
  lattice --data-dir new/ snapshot restore backup.lsnap --identity old/identity.key
  lattice snapshot restore backup.lsnap --as-puts /config/ --dry-run")]
pub(crate) struct Snapshot {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Create(Create),
    #[command(visible_alias = "ls")]
    List(List),
    Verify(Verify),
    Restore(Restore),
}

impl Snapshot {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self.action {
            Action::Create(create) => create.run(context).await,
            Action::List(list) => list.run(context),
            Action::Verify(verify) => verify.run(context).await,
            Action::Restore(restore) => restore.run(context).await,
        }
    }
}

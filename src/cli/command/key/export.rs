//! `key export`: prints the secret, for a backup or for a program that keeps it.

use clap::Args;
use lattice::{api::error::ApiError, node::Node};

use crate::cli::{exit::Failure, session::Context};

/// Print the secret of this node's key, as identity.key has it
///
/// Keep it as you keep a password: with it, anybody can write as this node. The node may run meanwhile.
/// `lattice snapshot restore --identity FILE` takes a file with it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice key export | age -p > node.key.age
  lattice key export | secret-tool store --label=lattice node kitchen")]
pub(crate) struct Export {
    /// Print it on a terminal, too
    #[arg(long)]
    show: bool,
}

impl Export {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        if context.out.terminal && !self.show {
            let message = "the secret would stay on this terminal";
            return Err(Failure::usage("terminal", message)
                .hint("pipe it to the program that keeps it, or add --show"));
        }
        let config = context.place.node_config();
        let seed = Node::fetch_key(config).await.map_err(ApiError::from)?;
        context.out.bytes(seed.to_text().as_bytes())
    }
}

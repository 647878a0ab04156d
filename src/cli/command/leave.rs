//! `leave`: ends the membership of this node itself.

use clap::Args;
use lattice::{api::whole, wire::api};

use crate::cli::{
    exit::Failure,
    input::confirm,
    output::object::{self, hex},
    session::{Context, Lifetime},
};

/// End this node's own membership of its mesh, for ever
///
/// The entries that it wrote remain valid for the others, and its data stays here to be read. The
/// node can join another mesh; to join the same one again it needs a new identity.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice leave
  lattice leave --yes && lattice join TOKEN        another mesh")]
pub(crate) struct Leave {
    /// Do not ask for confirmation; required if stdin is not a terminal
    #[arg(long)]
    yes: bool,
}

impl Leave {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        // The node must connect, so that a member learns of it.
        let mut client = context.client(Lifetime::Long).await?;
        let node = hex(&whole::status(&mut client).await?.node);
        if !self.yes {
            confirm::require_terminal("leave asks before it ends the membership of this node")?;
            let question = format!("end the membership of this node ({}) for ever?", &node[..8]);
            confirm::ask(question, "this node has not left").await?;
        }
        let members = client
            .leave(api::LeaveRequest {})
            .await?
            .into_inner()
            .members;
        let out = &mut context.out;
        if out.json {
            let r#type = "left";
            return out.object(&object::Left {
                r#type,
                node,
                members,
            });
        }
        out.line(&format!("left     node {node}"))?;
        if members == 0 {
            out.notice(
                "not_known",
                "no member knows of it yet: it was written here, and goes out when one connects to \
                 this node while it runs",
            );
        }
        out.line("next     the data is still here; `lattice join TOKEN` joins another mesh")
    }
}

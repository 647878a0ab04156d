//! `prune`: removes final entries from the logs of this node.

use clap::Args;
use lattice::wire::api;

use crate::cli::{
    command::{retention, verify::named},
    exit::Failure,
    output::{object, retention::Pruned},
    session::{Context, Lifetime},
};

/// Remove final entries of a store from the logs of this node
///
/// On an admin it first makes final what all members have on disk. Every node removes entries for
/// itself; no key loses its value, and no conflict is lost. What only the logs had is gone from this node:
/// older values, who wrote them, and the signatures of removed entries. A watch that had not got them gets
/// one gap, and then the state. A consumer that had not got them stops, unless it was made with
/// --on-gap state.
///
/// The root store, from which the members follow, keeps all its entries.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice prune --dry-run
  lattice prune
  lattice prune --store jobs")]
pub(crate) struct Prune {
    /// Show what is final and what holds the rest, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

impl Prune {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let store = context.store.clone();
        if self.dry_run {
            let request = api::RetentionRequest { store, now: true };
            let reply = client.retention(request).await?.into_inner();
            return retention::print(context, &mut client, &reply).await;
        }
        let reply = client
            .prune(api::PruneRequest { store })
            .await?
            .into_inner();
        let out = &mut context.out;
        if out.json {
            return out.object(&Pruned::new(&reply));
        }
        let info = object::Store::new(reply.info.as_ref());
        let size = |bytes: u64| indicatif::BinaryBytes(bytes).to_string();
        if reply.act == 0 {
            return out.line(&format!(
                "nothing  {}{}: no final entries are in the logs",
                info.store,
                named(&info)
            ));
        }
        let (before, after) = (size(reply.bytes_before), size(reply.bytes_after));
        out.line(&format!(
            "pruned   {}{}: logs {before} -> {after}",
            info.store,
            named(&info)
        ))
    }
}

//! `repair`: give up what is gone and close a fork, so that the node writes again.

use clap::Args;
use lattice::wire::api;

use crate::cli::{
    command::verify::named,
    exit::Failure,
    input::confirm,
    output::{health, object},
    session::{Context, Lifetime},
};

/// Make this node able to write again after its own log was lost in part, or has forked
///
/// A log file that was truncated, deleted or restored from an older copy lacks entries that were
/// acknowledged. The node then refuses to write: an entry in a place that was taken would be a
/// fork. Where peers have them, `lattice up` fetches them. Where a newer copy of the file exists,
/// stop the node and put it back. Otherwise this gives the missing entries up: the state is built
/// again from what is in the logs, and writes go on from the newest entry that is there.
///
/// Two nodes that use one data directory, or a copy of it, sign two entries for one place: a fork.
/// Every node keeps both branches and shows it; the node itself refuses to write. End the other one
/// for good, then let this close the fork: nothing is lost by that.
///
/// All stores, unless --store names one. Works with the node running or not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice repair
  lattice repair --store notes --yes")]
pub(crate) struct Repair {
    /// Do not ask; needed when nobody can be asked
    #[arg(long)]
    yes: bool,
}

impl Repair {
    /// Runs the command.
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let store = context.store.clone();
        let mut request = api::RepairRequest {
            all: store.is_empty(),
            store,
            accept_loss: false,
        };
        let mut stores = client.repair(request.clone()).await?.into_inner().stores;
        let lost = stores.iter().flat_map(|store| &store.lost);
        let entries: u64 = lost.map(|lost| lost.through - lost.first + 1).sum();
        if entries > 0 {
            if !self.yes {
                confirm::possible("repair asks before it gives entries up")?;
                let question = format!("give up {entries} entries of this node's own log?");
                confirm::ask(question, "nothing was repaired").await?;
            }
            request.accept_loss = true;
            stores = client.repair(request).await?.into_inner().stores;
        }
        for store in &stores {
            tell(context, store)?;
        }
        Ok(())
    }
}

fn tell(context: &mut Context, store: &api::StoreRepaired) -> Result<(), Failure> {
    let out = &mut context.out;
    if out.json {
        return out.object(&health::Repaired::from(store));
    }
    let info = object::Store::new(store.info.as_ref());
    let of = format!("store {}{}", info.store, named(&info));
    if let Some(closed) = &store.closed {
        out.line(&format!(
            "{of}: closed the fork of this node's log with entry {} ({})",
            closed.seq,
            object::short(&closed.id)
        ))?;
    }
    if store.lost.is_empty() && store.closed.is_none() {
        return out.line(&format!("{of}: nothing to repair"));
    }
    for lost in &store.lost {
        out.line(&format!(
            "{of}: gave up {} entries, {} to {} of {}",
            lost.through - lost.first + 1,
            lost.first,
            lost.through,
            lost.file
        ))?;
    }
    Ok(())
}

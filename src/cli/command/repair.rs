//! `repair`: gives up lost entries, takes back entries that are stamped far ahead, and closes a fork,
//! so that the node can write again.

use clap::Args;
use lattice::{api::whole, wire::api};

use crate::cli::{
    command::{peer, verify::named},
    exit::Failure,
    input::confirm,
    output::{
        health,
        object::{self, short},
        print::harmless,
    },
    session::{Context, Lifetime},
};

/// Make this node able to write again after it lost a part of its own log, or forked
///
/// A log file that was truncated, deleted or restored from an older copy is missing entries that
/// were acknowledged. The node then refuses to write, because a second entry with the same sequence
/// number would be a fork. If peers have the entries, `lattice up` fetches them. If a newer copy of
/// the file exists, stop the node and put it back. Otherwise this command gives the missing entries
/// up: it rebuilds the state from the logs, and the node writes on from its newest remaining entry.
///
/// Two nodes that use one data directory, or a copy of it, sign two entries with the same sequence
/// number: a fork. Every node keeps both branches and reports the fork; the node itself refuses to
/// write. Stop the other node for good, then close the fork with this command. Nothing is lost by
/// that.
///
/// A node whose clock was far ahead has written entries that the other members wait with until their
/// own clocks come to them, and refuses to write more. Set its clock, let it run and meet members, then
/// use this command: it writes the same values again, stamped now, and takes the entries back. Nothing
/// is lost by that. Grants, removals and invites of that time are not written again.
///
/// A node that was restored from a snapshot refuses to write until it has met a member, which has what this
/// node wrote after the snapshot. If there never was another member, or all are gone for good, this command
/// lets it write at once. If a member comes back with newer entries of this node, the log has forked.
///
/// Two members that have the same entries and not the same state (`lattice status` says so, `lattice
/// compare` shows the keys) settle it with --state-from: this node gives up its own state and takes that of
/// the other one. Choose the node whose values are right. A node needs it, too, when an admin was removed by
/// one who had not heard how it ended history: then no act of an admin vouches for what was kept. The other
/// node must have removed history; `lattice prune` there does it.
///
/// Repairs all stores, unless --store names one. Works with the node running or not; --state-from needs it
/// running, and takes the data store unless --store names another.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice repair
  lattice repair --store notes --yes
  lattice repair --state-from kitchen")]
pub(crate) struct Repair {
    /// Do not ask for confirmation; required if stdin is not a terminal
    #[arg(long)]
    yes: bool,
    /// Take the state of this member in place of that of this node: its id, the first digits of it, or its
    /// name
    #[arg(long, value_name = "NODE")]
    state_from: Option<String>,
}

impl Repair {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        if let Some(node) = &self.state_from {
            return self.take_state(context, node).await;
        }
        let mut client = context.client(Lifetime::Short).await?;
        let store = context.store.clone();
        let mut request = api::RepairRequest {
            all: store.is_empty(),
            store,
            accept_loss: false,
        };
        let mut stores = whole::repaired(&mut client, request.clone()).await?;
        let lost = stores.iter().flat_map(|store| &store.lost);
        let entries: u64 = lost.map(|lost| lost.through - lost.first + 1).sum();
        let restored = stores.iter().any(|store| store.restored);
        if entries > 0 || restored {
            if !self.yes {
                confirm::require_terminal("repair asks for confirmation")?;
                let question = match restored {
                    true => "let this node write without asking another member? If one has entries that \
                             this node wrote after the snapshot, they will be a fork"
                        .to_owned(),
                    false => {
                        let entries = counted(entries, "entry", "entries");
                        format!("give up {entries} of this node's own log?")
                    }
                };
                confirm::ask(question, "nothing was repaired").await?;
            }
            request.accept_loss = true;
            stores = whole::repaired(&mut client, request).await?;
        }
        for store in &stores {
            print_repaired(context, store)?;
        }
        Ok(())
    }

    async fn take_state(&self, context: &mut Context, node: &str) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Long).await?;
        let peer = peer::find(context, node).await?;
        let name = format!("{} ({})", harmless(&peer.name), short(&peer.node));
        if !self.yes {
            confirm::require_terminal("repair asks for confirmation")?;
            let question = format!(
                "take the state of {name} in place of that of this node? Values that only this node has \
                 are lost"
            );
            confirm::ask(question, "nothing was changed").await?;
        }
        let request = api::TakeStateRequest {
            store: context.store.clone(),
            node: peer.node.clone(),
        };
        let taken = client.take_state(request).await?.into_inner();
        let out = &mut context.out;
        if out.json {
            return out.object(&health::StateTaken::new(&taken, &peer));
        }
        let info = object::Store::new(taken.info.as_ref());
        out.line(&format!(
            "store {}{}: has the state of {name} now, {}",
            info.store,
            named(&info),
            counted(taken.keys, "key", "keys")
        ))
    }
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn print_repaired(context: &mut Context, store: &api::StoreRepaired) -> Result<(), Failure> {
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
            short(&closed.id)
        ))?;
    }
    if let Some(back) = &store.taken_back {
        out.line(&format!(
            "{of}: took back {} stamped far ahead, and wrote {} again before; this node's log goes on \
             at entry {} ({})",
            counted(back.entries, "entry", "entries"),
            counted(back.keys, "key", "keys"),
            back.seq,
            short(&back.tip)
        ))?;
    }
    if store.restored {
        out.line(&format!(
            "{of}: writes again; what this node wrote after the snapshot was not fetched"
        ))?;
    }
    let is_left = store.lost.is_empty() && !store.restored;
    if is_left && store.closed.is_none() && store.taken_back.is_none() {
        return out.line(&format!("{of}: nothing to repair"));
    }
    for lost in &store.lost {
        out.line(&format!(
            "{of}: gave up {}, {} to {} of {}",
            counted(lost.through - lost.first + 1, "entry", "entries"),
            lost.first,
            lost.through,
            lost.file
        ))?;
    }
    Ok(())
}

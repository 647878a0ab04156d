//! `status`: shows the node, its stores and their health, or the members that have a key.

use std::{cmp::Reverse, ffi::OsString};

use bytes::Bytes;
use clap::Args;
use lattice::{
    api::whole,
    limits::{STORES_OF_LISTER_MAX, STORES_SHARED_MAX},
    wire::api,
};

use crate::cli::{
    command::{get::not_found, verify::named},
    exit::Failure,
    input::{key::KeyFlags, time::date_time},
    output::{
        health::{self, NOT_LISTENING_HINT},
        object::{self, hex, short},
        print::{Output, harmless},
    },
    session::{Context, Lifetime},
};

/// Show the node, its stores and their health
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice status
  lattice status /hello             the members that have its value on disk
  lattice status --json | jq '.stores[] | select(.data).entries'")]
pub(crate) struct Status {
    /// Show instead the members that have the value of this key on disk
    key: Option<OsString>,
    #[command(flatten)]
    flags: KeyFlags,
}

impl Status {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        if let Some(key) = self.key {
            let key = self.flags.key(key)?;
            return who_has(context, key).await;
        }
        let status = whole::status(&mut client).await?;
        let is_running = context.is_connected();
        let out = &mut context.out;
        if out.json {
            return out.object(&health::Status::from(&status));
        }
        out.line(&format!("node     {}", hex(&status.node)))?;
        out.line(&format!("version  {}", status.version))?;
        out.line(&format!("data     {}", status.data_dir))?;
        if is_running {
            out.line(&format!("socket   {}", status.socket))?;
            let since = date_time(status.started_ms);
            out.line(&format!("running  since {since}, process {}", status.pid))?;
        } else {
            out.line("running  no; opened for this command, start it with `lattice up`")?;
        }
        if status.removed_by == status.node {
            out.line("left     this node has left the mesh: its writes are refused")?;
        } else if !status.removed_by.is_empty() {
            out.line(&format!(
                "removed  node {} has removed this node from the mesh: its writes are refused",
                short(&status.removed_by)
            ))?;
        }
        if !status.not_listening.is_empty() {
            out.line(&format!("! {}; it tries again", status.not_listening))?;
            out.line(&format!("  {NOT_LISTENING_HINT}"))?;
        }
        for store in &status.stores {
            print_store(out, store)?;
        }
        status
            .unopened
            .map_or(Ok(()), |it| print_unopened(out, &it))
    }
}

async fn who_has(context: &mut Context, key: Bytes) -> Result<(), Failure> {
    let mut client = context.client(Lifetime::Short).await?;
    let request = api::WhoHasRequest {
        store: context.store.clone(),
        key: key.clone(),
    };
    let api::WhoHasReply {
        entry,
        nodes,
        members,
    } = client.who_has(request).await?.into_inner();
    let entry = entry.ok_or_else(|| not_found(&key))?;
    let out = &mut context.out;
    let nodes: Vec<String> = nodes.iter().map(|node| hex(node)).collect();
    if out.json {
        return out.object(&object::WhoHas {
            entry: hex(&entry.id),
            nodes,
            members,
        });
    }
    out.line(&format!("entry    {}", hex(&entry.id)))?;
    out.line(&format!("on disk  of {} of {members} members", nodes.len()))?;
    nodes
        .iter()
        .try_for_each(|node| out.line(&format!("  {node}")))
}

fn print_unopened(out: &mut Output, unopened: &api::UnopenedStores) -> Result<(), Failure> {
    let limited = unopened.of_lister.saturating_add(unopened.in_all);
    if limited.saturating_add(unopened.failed) > 0 {
        out.line("")?;
    }
    if limited > 0 {
        out.line(&format!(
            "! {limited} listed stores are not open here: {STORES_OF_LISTER_MAX} of one other node \
             are opened, {STORES_SHARED_MAX} in all"
        ))?;
    }
    if unopened.failed > 0 {
        let error = harmless(&unopened.error);
        let failed = unopened.failed;
        out.line(&format!(
            "! {failed} listed stores cannot be opened: {error}"
        ))?;
    }
    Ok(())
}

fn print_history(out: &mut Output, history: &api::StoreHistory) -> Result<(), Failure> {
    let (done, open) = (bytes(history.final_bytes), bytes(history.open_bytes));
    let awaited = match history.awaited.len() {
        0 => String::new(),
        1 => format!(", waits for {}", short(&history.awaited[0])),
        many => format!(
            ", waits for {} and {} more",
            short(&history.awaited[0]),
            many - 1
        ),
    };
    out.line(&format!("  history {done} final, {open} not yet{awaited}"))?;
    if history.trouble.is_empty() {
        return Ok(());
    }
    out.line(&format!("! history does not end: {}", history.trouble))
}

fn print_store(out: &mut Output, store: &api::StoreStatus) -> Result<(), Failure> {
    let info = object::Store::new(store.info.as_ref());
    out.line("")?;
    out.line(&format!("store    {}{}", info.store, named(&info)))?;
    out.line(&format!(
        "  {} entries, {} keys, log {}, state {}, {} {}",
        store.entries,
        store.keys,
        bytes(store.log_bytes),
        bytes(store.state_bytes),
        store.watchers,
        if store.watchers == 1 {
            "watcher"
        } else {
            "watchers"
        },
    ))?;
    if let Some(history) = &store.history {
        print_history(out, history)?;
    }
    // The authors who take most room come first.
    let mut tips: Vec<_> = store.applied.iter().collect();
    tips.sort_by_key(|tip| Reverse(tip.log_bytes));
    for tip in tips.into_iter().take(TIPS_SHOWN_MAX) {
        out.line(&format!(
            "  author {} at {}, entry {}, log {}",
            hex(&tip.author),
            tip.seq,
            short(&tip.id),
            bytes(tip.log_bytes)
        ))?;
    }
    let not_shown = store.applied.len().saturating_sub(TIPS_SHOWN_MAX) as u64;
    let more = store.more_authors.saturating_add(not_shown);
    if more > 0 {
        out.line(&format!("  and {more} more authors"))?;
    }
    if store.pending_entries > 0 {
        let size = bytes(store.pending_bytes);
        out.line(&format!(
            "  {} entries ({size}) wait for missing entries",
            store.pending_entries
        ))?;
    }
    if store.held_entries > 0 {
        out.line(&format!(
            "  {} entries are stamped more than 1 h ahead of the clock here and wait for it{}",
            store.held_entries,
            if store.held_entries > store.held.len() as u64 {
                "; the longest:"
            } else {
                ":"
            }
        ))?;
    }
    for held in &store.held {
        let (id, due) = (short(&held.id), date_time(held.due_ms));
        out.line(&format!(
            "    entry {id} of {} until {due}",
            short(&held.author)
        ))?;
    }
    if store.void_acts > 0 {
        out.line(&format!(
            "  {} membership changes without effect: their authors may not make them",
            store.void_acts
        ))?;
    }
    for fork in &store.forks {
        let entries: Vec<String> = fork.entries.iter().map(|id| short(id)).collect();
        out.line(&format!(
            "  {} author {} signed two entries with number {}: {}; {}",
            if fork.closed && !fork.spent { " " } else { "!" },
            hex(&fork.author),
            fork.seq,
            entries.join(" and "),
            match fork {
                fork if fork.spent =>
                    "it has more than 64 forks, so nothing that it wrote here counts",
                fork if fork.closed => "the fork is closed",
                _open => "the fork is open",
            },
        ))?;
    }
    if store.more_forks > 0 {
        out.line(&format!("  ! and {} more forks", store.more_forks))?;
    }
    for diverged in &store.diverged {
        print_diverged(out, diverged)?;
    }
    for damage in &store.damage {
        out.line(&format!("  ! damaged: {}", harmless(damage)))?;
    }
    if !store.poisoned.is_empty() {
        out.line(&format!(
            "  ! writes are refused: {}",
            harmless(&store.poisoned)
        ))?;
    }
    for mended in &store.recovered {
        out.line(&format!("  repaired when opened: {}", harmless(mended)))?;
    }
    Ok(())
}

fn print_diverged(out: &mut Output, diverged: &api::Divergence) -> Result<(), Failure> {
    let members = |count| match count {
        1 => "1 member".to_owned(),
        count => format!("{count} members"),
    };
    out.line(&format!(
        "  ! node {} says that its state differs from the state here, with the same entries: {} signed \
         the state here, {} signed that of node {0}",
        short(&diverged.node),
        members(diverged.with_here),
        members(diverged.with_there),
    ))?;
    out.line(
        "    `lattice verify` on both nodes shows whose state does not follow from its log; without its \
         state.db that node builds it again when it starts",
    )
}

fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// Authors that are shown to people; `--json` has all.
const TIPS_SHOWN_MAX: usize = 16;

//! `status`: shows the node, its stores and their health, or the members that have a key.

use std::ffi::OsString;

use bytes::Bytes;
use clap::Args;
use lattice::{
    api::{client::Client, whole},
    wire::api,
};

use crate::cli::{
    command::get::not_found,
    exit::Failure,
    input::key::KeyFlags,
    output::{
        health,
        json::typed,
        object::{self, hex, uuid},
    },
    screens::{health::Health, names::Names},
    session::{Context, Lifetime},
};

/// Show the node, its stores and their health
///
/// The first line is the verdict: OK, WARNING if a person should look at something, PROBLEM if the node
/// cannot do its work or data is in danger, or STOPPED. It is about the members that are online: the one
/// that is away is behind, and that is no fault. Below it, the reasons are listed, and the stores; a star
/// marks the store that commands use here. With -v also the authors of each store, and whole ids.
///
/// Above 100,000 keys, the verdict is not about conflicts: `lattice conflicts` looks at all.
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
        if context.out.json {
            let status = whole::status(&mut client).await?;
            let status = health::Status::from(&status);
            return context.out.object(&typed("status", status));
        }
        let health = health(&mut client, context.store.clone()).await?;
        let health = Health {
            conflicts: conflicts(&mut client, &health.status).await?,
            is_running: context.is_connected(),
            ..health
        };
        let out = &mut context.out;
        let lines = health.draw(&out.screen());
        lines.iter().try_for_each(|line| out.line(line))
    }
}

/// Asks the node that runs for everything that the verdict follows from, but for the conflicts.
pub(crate) async fn health(client: &mut Client, store: String) -> Result<Health, Failure> {
    let status = whole::status(client).await?;
    let hooks = whole::hooks(client).await;
    Ok(Health {
        members: whole::peers(client).await?,
        hooks: hooks.map(|reply| reply.hooks).unwrap_or_default(),
        consumers: consumers(client, &status).await,
        conflicts: None,
        is_running: true,
        store,
        status,
    })
}

// Returns the consumers of each store, without those of hooks. A store whose consumers are unreadable
// reports that itself, and the others are shown.
async fn consumers(
    client: &mut Client,
    status: &api::StatusReply,
) -> Vec<(api::StoreInfo, Vec<api::ConsumerStatus>)> {
    let mut all = Vec::new();
    for info in status.stores.iter().filter_map(|store| store.info.as_ref()) {
        let of_store = whole::consumers(client, uuid(&info.id)).await;
        let mut of_store = of_store.unwrap_or_default();
        of_store.retain(|it| !it.consumer.starts_with("hook."));
        all.push((info.clone(), of_store));
    }
    all
}

/// Counts the keys with several heads in each store; `None` if there are more keys than are looked at.
pub(crate) async fn conflicts(
    client: &mut Client,
    status: &api::StatusReply,
) -> Result<Option<Vec<(api::StoreInfo, u64)>>, Failure> {
    let keys = status.stores.iter().map(|store| store.keys);
    if keys.fold(0, u64::saturating_add) > KEYS_MAX {
        return Ok(None);
    }
    let mut all = Vec::new();
    for info in status.stores.iter().filter_map(|store| store.info.as_ref()) {
        let request = api::ListRequest {
            store: uuid(&info.id),
            keys_only: true,
            ..api::ListRequest::default()
        };
        let mut pages = client.list(request).await?.into_inner();
        let mut conflicts = 0;
        while let Some(page) = pages.message().await? {
            conflicts += page.items.iter().filter(|item| item.heads > 1).count() as u64;
        }
        all.push((info.clone(), conflicts));
    }
    Ok(Some(all))
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
    if context.out.json {
        let nodes = nodes.iter().map(|node| hex(node)).collect();
        let who_has = object::WhoHas {
            entry: hex(&entry.id),
            nodes,
            members,
        };
        return context.out.object(&typed("who_has", who_has));
    }
    let names = Names::fetch(&mut client).await?;
    let out = &mut context.out;
    let screen = out.screen();
    out.line(&format!("entry    {}", hex(&entry.id)))?;
    out.line(&format!("on disk  of {} of {members} members", nodes.len()))?;
    nodes
        .iter()
        .try_for_each(|node| out.line(&format!("  {}", names.with_id(node, &screen))))
}

/// Keys that `status` looks at for conflicts.
const KEYS_MAX: u64 = 100_000;

//! `snapshot restore --as-puts`: the values that keys had in a snapshot, written again as new entries.

use std::{
    env, fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use lattice::{
    api::{client::Client, error::ApiError},
    node::{Identity, Node, NodeConfig, RestoreOptions, StoreInfo},
    store::{Item, List},
    wire::api,
};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::cli::{
    command::snapshot::{object::counted, progress},
    exit::{Exit, Failure},
    output::{object::Key, print::escape},
    session::{Context, Lifetime},
};

/// Puts the keys of the snapshot in `file` that begin with `prefix` again, as far as they are otherwise
/// now. With `dry_run`, prints them only.
pub(super) async fn restore(
    context: &mut Context,
    file: PathBuf,
    prefix: String,
    dry_run: bool,
) -> Result<(), Failure> {
    let mut client = context.client(Lifetime::Short).await?;
    let target = target(&mut client, &context.store).await?;
    let scratch = Scratch::make()?;
    let config = || NodeConfig::new(scratch.0.join("node"));
    // A node of its own: it signs nothing.
    let options = RestoreOptions {
        file,
        identity: Identity::New,
    };
    progress::restore(config(), options).await?;
    let node = Node::open(config()).await?;
    let copied = copy(context, client, &node, &target, prefix, dry_run).await;
    let closed = node.close().await;
    let counts = copied?;
    closed.map_err(ApiError::from)?;
    let out = &mut context.out;
    if out.json {
        out.object(&counts)?;
    } else {
        let verb = if dry_run { "would restore" } else { "restored" };
        out.line(&format!(
            "{verb} {}; {} the same value already",
            counted(counts.put, "key", "keys"),
            counted(counts.same, "key has", "keys have")
        ))?;
    }
    if counts.changed > 0 {
        let changed = counted(counts.changed, "key was", "keys were");
        let message = format!("{changed} written by somebody else meanwhile, and left alone");
        return Err(Failure::new(Exit::Partly, "changed", message).hint(
            "run it again to replace those, too; `lattice history KEY` shows who wrote them",
        ));
    }
    Ok(())
}

/// Numbers of keys, by what became of them.
#[derive(Debug, Default, Serialize)]
struct Counts {
    r#type: &'static str,
    /// Keys that were put again.
    put: u64,
    /// Keys that have the same value now.
    same: u64,
    /// Keys that somebody else wrote between the look at them and the put.
    changed: u64,
}

/// A key that is put.
#[derive(Serialize)]
struct Put {
    r#type: &'static str,
    #[serde(flatten)]
    key: Key,
}

enum Outcome {
    Put,
    Same,
    Changed,
}

async fn copy(
    context: &mut Context,
    client: Client,
    node: &Node,
    target: &api::StoreInfo,
    prefix: String,
    dry_run: bool,
) -> Result<Counts, Failure> {
    let source = node
        .stores()
        .into_iter()
        .find(|info| is_source(info, target));
    let Some(source) = source else {
        let message = format!("the snapshot has no store {}", target.name);
        return Err(Failure::new(Exit::NotFound, "unknown_store", message)
            .hint("`lattice snapshot list` shows the stores of each snapshot"));
    };
    let store = node.store(&source.id.to_string()).map_err(ApiError::from)?;
    let mut scan = store.scan(List {
        prefix: prefix.into(),
        ..List::default()
    });
    let store = target.name.clone();
    let mut counts = Counts {
        r#type: if dry_run {
            "would_restore_keys"
        } else {
            "restored_keys"
        },
        ..Counts::default()
    };
    loop {
        let page = scan.next_page().await.map_err(ApiError::from)?;
        if page.is_empty() {
            return Ok(counts);
        }
        for items in page.chunks(AT_ONCE) {
            let mut puts = JoinSet::new();
            for item in items.iter().filter(|item| !is_reserved(&source, item)) {
                let (client, item, store) = (client.clone(), item.clone(), store.clone());
                puts.spawn(async move {
                    let put = put(client, store, &item, dry_run).await;
                    put.map(|outcome| (item, outcome))
                });
            }
            let mut done: Vec<(Item, Outcome)> = Vec::new();
            while let Some(put) = puts.join_next().await {
                done.push(put.map_err(std::io::Error::other)??);
            }
            done.sort_by(|(a, _), (b, _)| a.key.cmp(&b.key));
            for (item, outcome) in done {
                count(context, &mut counts, &item, &outcome, dry_run)?;
            }
        }
    }
}

fn count(
    context: &mut Context,
    counts: &mut Counts,
    item: &Item,
    outcome: &Outcome,
    dry_run: bool,
) -> Result<(), Failure> {
    let out = &mut context.out;
    match outcome {
        Outcome::Same => counts.same += 1,
        Outcome::Changed => counts.changed += 1,
        Outcome::Put => {
            counts.put += 1;
            if dry_run && out.json {
                out.object(&Put {
                    r#type: "would_restore",
                    key: Key::new(&item.key),
                })?;
            } else if dry_run {
                out.line(&format!("would restore {}", escape(&item.key)))?;
            }
        }
    }
    Ok(())
}

// Puts the item if the key has another value now, and still has it then.
async fn put(
    mut client: Client,
    store: String,
    item: &Item,
    dry_run: bool,
) -> Result<Outcome, Failure> {
    let request = api::GetRequest {
        store: store.clone(),
        key: item.key.clone(),
        ..api::GetRequest::default()
    };
    let now = client.get(request).await?.into_inner().item;
    let is_same = |now: &api::Item| now.value == item.value && now.expires_ms == item.expires_ms;
    if now.as_ref().is_some_and(is_same) {
        return Ok(Outcome::Same);
    }
    if dry_run {
        return Ok(Outcome::Put);
    }
    let winner = now.and_then(|now| now.entry).map(|entry| entry.id);
    let ttl_ms = item.expires_ms.map(|at| {
        let now_ms = lattice::clock::Clock::system().now_ms();
        at.saturating_sub(now_ms).max(1)
    });
    let request = api::PutRequest {
        store,
        key: item.key.clone(),
        value: item.value.clone(),
        ttl_ms,
        if_absent: winner.is_none(),
        if_head: winner.unwrap_or_default(),
    };
    match client.put(request).await.map_err(ApiError::from) {
        Ok(_written) => Ok(Outcome::Put),
        Err(error) if error.code == "precondition_failed" => Ok(Outcome::Changed),
        Err(error) => Err(error.into()),
    }
}

async fn target(client: &mut Client, named: &str) -> Result<api::StoreInfo, Failure> {
    let mut parts = client
        .list_stores(api::ListStoresRequest {})
        .await?
        .into_inner();
    while let Some(part) = parts.message().await? {
        let mut stores = part.stores.into_iter();
        let id = named.parse::<lattice::id::StoreId>().ok();
        let is_meant = |it: &api::StoreInfo| match named {
            "" => it.data,
            named => it.name == named || id.is_some_and(|id| it.id == id.0.as_slice()),
        };
        if let Some(store) = stores.find(is_meant) {
            return Ok(store);
        }
    }
    let message = format!("there is no store {named:?} here");
    Err(Failure::new(Exit::NotFound, "unknown_store", message).hint("see `lattice store list`"))
}

// The root stores of two meshes have other ids, and stores of one name may have, too.
fn is_source(info: &StoreInfo, target: &api::StoreInfo) -> bool {
    match target.root {
        true => info.root,
        false => info.name == target.name || target.id == info.id.0.as_slice(),
    }
}

// The node's own keys in the root store are not put by clients.
fn is_reserved(source: &StoreInfo, item: &Item) -> bool {
    let prefixes = lattice::protocol::membership::reserved::PREFIXES;
    let mut prefixes = prefixes.iter();
    source.root && prefixes.any(|prefix| item.key.starts_with(prefix.as_bytes()))
}

/// A temporary directory that only this user can read; removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Result<Self, Failure> {
        let path = env::temp_dir().join(format!("lattice-restore-{}", std::process::id()));
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| refused(&path, &error))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A failure is ignored: the directory is temporary.
        drop(fs::remove_dir_all(&self.0));
    }
}

fn refused(path: &Path, error: &std::io::Error) -> Failure {
    let message = format!("cannot create {}: {error}", path.display());
    Failure::failed("temporary_directory", message).hint("$TMPDIR names another place")
}

// Puts that are in flight at a time.
const AT_ONCE: usize = 64;

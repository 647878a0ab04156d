//! `store`: creates, lists and chooses the stores of a node.

use clap::{Args, Subcommand};
use lattice::{
    api::{client::Client, whole},
    wire::api,
};

use crate::cli::{
    command::verify::named,
    exit::{Exit, Failure},
    input::confirm,
    output::{json::typed, object, print::harmless},
    screens::stores,
    session::{Context, Lifetime},
};

/// Create, list, choose, rename and delete stores
///
/// Every mesh has two: `data`, which commands use unless another is named, and `root`, which lists
/// members, invites and stores, and keeps all its history.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice store create notes
  lattice --store notes put /hello world
  lattice store use notes           for commands in this directory
  lattice store list")]
pub(crate) struct StoreCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a store
    #[command(after_help = "Examples:\n  lattice store create notes")]
    Create {
        /// Name of the store on this node, up to 64 characters
        name: String,
    },
    /// List the stores of the node; a star marks the one used here
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  lattice store list --json"
    )]
    List,
    /// Rename a store, here and for all members
    ///
    /// The node that created the store may, and every admin. A private store is renamed here only.
    #[command(after_help = "Examples:\n  lattice store rename notes diary")]
    Rename {
        /// Name or UUID of the store
        store: String,
        /// Its new name, up to 64 characters
        name: String,
    },
    /// Delete a store with all that is in it, here and on all members, for ever
    ///
    /// The node that created the store may, and every admin. Members that are offline delete it when
    /// they connect again. A private store is deleted here only.
    #[command(after_help = "Examples:\n  lattice store delete notes")]
    Delete {
        /// Name or UUID of the store
        store: String,
        /// Do not ask for confirmation; required if stdin is not a terminal
        #[arg(long)]
        yes: bool,
    },
    /// Give a private store to all members
    ///
    /// Private stores are those that this node had before it joined its mesh.
    #[command(after_help = "Examples:\n  lattice store share root-4ae21824")]
    Share {
        /// Name or UUID of the store
        store: String,
    },
    /// Choose the store for commands in this directory
    ///
    /// --store and $LATTICE_STORE override the choice. Without a name, shows the choice.
    #[command(after_help = "\
Examples:
  lattice store use notes
  lattice store use
  lattice store use --clear")]
    Use {
        /// Name or UUID of the store
        name: Option<String>,
        /// Use the data store again
        #[arg(long, conflicts_with = "name")]
        clear: bool,
    },
}

impl StoreCommand {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self.action {
            Action::Create { name } => {
                let mut client = context.client(Lifetime::Short).await?;
                let request = api::CreateStoreRequest { name };
                let info = client.create_store(request).await?.into_inner();
                let store = object::Store::new(Some(&info));
                if context.out.json {
                    return context.out.object(&typed("store", store));
                }
                let text = format!("{}{}", store.store, named(&store));
                context.out.line(&text)
            }
            Action::Rename { store, name } => {
                let mut client = context.client(Lifetime::Short).await?;
                let request = api::RenameStoreRequest { store, name };
                let info = client.rename_store(request).await?.into_inner();
                print_changed(context, "renamed", &info)
            }
            Action::Delete { store, yes } => delete(context, store, yes).await,
            Action::Share { store } => {
                let mut client = context.client(Lifetime::Short).await?;
                let request = api::StoreRequest { store };
                let info = client.share_store(request).await?.into_inner();
                print_changed(context, "shared", &info)
            }
            Action::List => list(context).await,
            Action::Use { clear: true, .. } => {
                context.place.use_store(None)?;
                print_used(context, None, None)
            }
            Action::Use { name: None, .. } => {
                let used = context.place.store_used()?;
                let name = match &used {
                    Some(store) => name_of(context, store).await,
                    None => None,
                };
                print_used(context, used, name)
            }
            Action::Use {
                name: Some(name), ..
            } => {
                let mut client = context.client(Lifetime::Short).await?;
                let info = find(&mut client, &name).await?;
                let store = object::uuid(&info.id);
                context.place.use_store(Some(&store))?;
                print_used(context, Some(store), Some(stores::name(&info)))
            }
        }
    }
}

async fn delete(context: &mut Context, store: String, yes: bool) -> Result<(), Failure> {
    let mut client = context.client(Lifetime::Short).await?;
    let info = find(&mut client, &store).await?;
    if !yes {
        let status = whole::status(&mut client).await?;
        let of_it =
            |status: &&api::StoreStatus| status.info.as_ref().is_some_and(|it| it.id == info.id);
        let keys = status
            .stores
            .iter()
            .find(of_it)
            .map_or(0, |status| status.keys);
        let place = match info.private {
            true => "here; no other node has it",
            false => "here and on all members",
        };
        let shown = format!(
            "store {} ({}), {keys} keys, {place}",
            info.name,
            object::uuid(&info.id)
        );
        confirm::require_terminal(&format!("store delete asks before it deletes {shown}"))?;
        let question = format!("delete {shown}, for ever?");
        confirm::ask(question, "the store was not deleted").await?;
    }
    let request = api::StoreRequest {
        store: object::uuid(&info.id),
    };
    let info = client.delete_store(request).await?.into_inner();
    print_changed(context, "deleted", &info)
}

fn print_changed(
    context: &mut Context,
    what: &'static str,
    info: &api::StoreInfo,
) -> Result<(), Failure> {
    let store = object::Store::new(Some(info));
    if context.out.json {
        return context.out.object(&object::StoreChanged {
            r#type: format!("store_{what}"),
            store: store.store,
            name: store.name,
        });
    }
    context
        .out
        .line(&format!("{what:<8} {}{}", store.store, named(&store)))
}

async fn list(context: &mut Context) -> Result<(), Failure> {
    let mut client = context.client(Lifetime::Short).await?;
    let stores = whole::stores(&mut client).await?;
    let used = |info: &api::StoreInfo| stores::is_used(&context.store, info);
    let screen = context.out.screen();
    let lines = match context.out.json {
        true => Vec::new(),
        false => {
            let status = whole::status(&mut client).await?;
            stores::draw(&stores, &status.stores, used, &screen, 0)
        }
    };
    let out = &mut context.out;
    if out.json {
        let mut stores = stores.iter().map(|info| object::Store::new(Some(info)));
        return stores.try_for_each(|store| out.object(&typed("store", store)));
    }
    lines.iter().try_for_each(|line| out.line(line))
}

// Returns the name of a store; `None` if there is no node to ask, or the store is gone.
async fn name_of(context: &mut Context, store: &str) -> Option<String> {
    let mut client = context.client(Lifetime::Short).await.ok()?;
    let info = find(&mut client, store).await.ok()?;
    Some(stores::name(&info))
}

fn print_used(
    context: &mut Context,
    store: Option<String>,
    name: Option<String>,
) -> Result<(), Failure> {
    if context.out.json {
        let used = object::Used { store, name };
        return context.out.object(&typed("store_used", used));
    }
    let name = name.as_deref().map(harmless);
    let store = name.as_deref().or(store.as_deref());
    let store = store.unwrap_or("the data store");
    context
        .out
        .line(&format!("commands in this directory use {store}"))
}

async fn find(client: &mut Client, name: &str) -> Result<api::StoreInfo, Failure> {
    let stores = whole::stores(client).await?;
    let is_it = |info: &api::StoreInfo| {
        let is_root = info.root && name == "root";
        info.name == name || object::uuid(&info.id).eq_ignore_ascii_case(name) || is_root
    };
    stores.into_iter().find(is_it).ok_or_else(|| {
        Failure::new(
            Exit::NotFound,
            "unknown_store",
            format!("no store has the name or UUID {name:?}"),
        )
        .hint("`lattice store list` lists the stores, `lattice store create` makes one")
    })
}

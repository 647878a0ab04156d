//! `store`: creates, lists and chooses the stores of a node.

use clap::{Args, Subcommand};
use lattice::{api::client::Client, wire::api};

use crate::cli::{
    command::verify::named,
    exit::{Exit, Failure},
    output::object,
    session::{Context, Lifetime},
};

/// Create, list and choose stores
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
        /// Use the root store again
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
                print_store(context, Some(&info), "")
            }
            Action::List => list(context).await,
            Action::Use { clear: true, .. } => {
                context.place.use_store(None)?;
                print_used(context, None)
            }
            Action::Use { name: None, .. } => {
                let used = context.place.store_used()?;
                print_used(context, used)
            }
            Action::Use {
                name: Some(name), ..
            } => {
                let mut client = context.client(Lifetime::Short).await?;
                let store = object::Store::new(Some(&find(&mut client, &name).await?)).store;
                context.place.use_store(Some(&store))?;
                print_used(context, Some(store))
            }
        }
    }
}

async fn list(context: &mut Context) -> Result<(), Failure> {
    let mut client = context.client(Lifetime::Short).await?;
    let stores = client
        .list_stores(api::ListStoresRequest {})
        .await?
        .into_inner()
        .stores;
    let used = |info: &api::StoreInfo| {
        let id = object::uuid(&info.id);
        let chosen = &context.store;
        if chosen.is_empty() {
            info.root
        } else {
            *chosen == info.name || *chosen == id
        }
    };
    let marks: Vec<bool> = stores.iter().map(used).collect();
    for (info, used) in stores.iter().zip(marks) {
        print_store(context, Some(info), if used { "* " } else { "  " })?;
    }
    Ok(())
}

fn print_store(
    context: &mut Context,
    info: Option<&api::StoreInfo>,
    mark: &str,
) -> Result<(), Failure> {
    let store = object::Store::new(info);
    if context.out.json {
        return context.out.object(&store);
    }
    context
        .out
        .line(&format!("{mark}{}{}", store.store, named(&store)))
}

fn print_used(context: &mut Context, store: Option<String>) -> Result<(), Failure> {
    if context.out.json {
        return context.out.object(&object::Used { store });
    }
    let store = store.as_deref().unwrap_or("the root store");
    context
        .out
        .line(&format!("commands in this directory use {store}"))
}

async fn find(client: &mut Client, name: &str) -> Result<api::StoreInfo, Failure> {
    let stores = client
        .list_stores(api::ListStoresRequest {})
        .await?
        .into_inner()
        .stores;
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

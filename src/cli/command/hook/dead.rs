//! `hook dead`: lists, retries or skips the dead letters of a hook.

use clap::Args;
use lattice::{api::whole, wire::api};

use crate::cli::{
    command::{consumer::dead::Action, hook::name::Name},
    exit::Failure,
    session::{Context, Lifetime},
};

/// List the dead letters of a hook, run them again, or drop them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice hook dead deploy
  lattice hook dead deploy retry 17
  lattice hook dead deploy retry --all
  lattice hook dead deploy skip 17 18")]
pub(super) struct Dead {
    #[command(flatten)]
    name: Name,
    #[command(subcommand)]
    action: Option<Action>,
}

impl Dead {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let mut hooks = whole::hooks(&mut client).await?.hooks.into_iter();
        // The store of the hook, not the one that this command selects.
        let hook = hooks.find(|hook| hook.hook == self.name.name);
        let store = hook.and_then(|hook| hook.definition).map(|hook| hook.store);
        let list = api::ConsumerRequest {
            store: store.unwrap_or_else(|| context.store.clone()),
            consumer: format!("hook.{}", self.name.name),
        };
        Action::run(self.action, context, list).await
    }
}

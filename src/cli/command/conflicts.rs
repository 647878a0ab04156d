//! `conflicts`: lists the keys that have several heads.

use std::ffi::OsString;

use clap::Args;
use lattice::wire::api;

use crate::cli::{
    command::get::{self, print_head},
    exit::Failure,
    input::key::KeyFlags,
    output::{object, print::escape},
    session::{Context, Lifetime},
};

/// List the keys that have several heads, and their heads
///
/// A key gets several heads when nodes write it without knowing of each other's write. Reads return
/// the head with the star; the next put merges them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice conflicts
  lattice conflicts /notes/
  lattice conflicts --json | jq -r .key | sort -u")]
pub(crate) struct Conflicts {
    /// Only keys that start with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: OsString,
    #[command(flatten)]
    flags: KeyFlags,
}

impl Conflicts {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let prefix = self.flags.key(self.prefix)?;
        let mut client = context.client(Lifetime::Short).await?;
        let store = context.store.clone();
        let request = api::ListRequest {
            store: store.clone(),
            prefix,
            keys_only: true,
            limit: 0,
            ..api::ListRequest::default()
        };
        let mut pages = client.list(request).await?.into_inner();
        let mut found = false;
        while let Some(page) = pages.message().await? {
            for item in page.items.into_iter().filter(|item| item.heads > 1) {
                found = true;
                let request = api::HeadsRequest {
                    store: store.clone(),
                    key: item.key.clone(),
                };
                let heads = get::heads(&mut client, request).await?;
                print_heads(context, &item.key, &heads)?;
            }
        }
        if !found {
            context
                .out
                .notice("no_conflicts", "no key has more than one head");
        }
        Ok(())
    }
}

fn print_heads(context: &mut Context, key: &[u8], heads: &[api::Head]) -> Result<(), Failure> {
    let out = &mut context.out;
    if out.json {
        return heads
            .iter()
            .try_for_each(|head| out.object(&object::Head::new(key, head)));
    }
    out.line(&escape(key))?;
    heads.iter().try_for_each(|head| print_head(out, head))
}

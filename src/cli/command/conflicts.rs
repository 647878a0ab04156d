//! `conflicts`: lists the keys that have several heads.

use std::ffi::OsString;

use bytes::Bytes;
use clap::Args;
use lattice::wire::api;

use crate::cli::{
    command::get::{self, print_head},
    exit::Failure,
    input::key::KeyFlags,
    output::{object, print::escape},
    screens::{heads, names::Names},
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
        let names = Names::fetch(&mut client).await?;
        let (mut found, mut is_empty) = (Vec::new(), true);
        while let Some(page) = pages.message().await? {
            for item in page.items.into_iter().filter(|item| item.heads > 1) {
                let request = api::HeadsRequest {
                    store: store.clone(),
                    key: item.key.clone(),
                };
                let heads = get::heads(&mut client, request).await?;
                found.push((item.key, heads));
                if found.len() == KEYS_AT_A_TIME {
                    print(context, &found, &names)?;
                    is_empty = false;
                    found.clear();
                }
            }
        }
        print(context, &found, &names)?;
        if is_empty && found.is_empty() {
            context
                .out
                .notice("no_conflicts", "no key has more than one head");
        }
        Ok(())
    }
}

fn print(
    context: &mut Context,
    found: &[(Bytes, Vec<api::Head>)],
    names: &Names,
) -> Result<(), Failure> {
    let out = &mut context.out;
    if out.for_people() {
        let lines = heads::draw_all(found, names, &out.screen());
        return lines.iter().try_for_each(|line| out.line(line));
    }
    for (key, heads) in found {
        if !out.json {
            out.line(&escape(key))?;
        }
        for head in heads {
            match out.json {
                true => out.object(&object::Head::new(key, head))?,
                false => print_head(out, head)?,
            }
        }
    }
    Ok(())
}

/// Keys whose heads are kept and aligned together.
const KEYS_AT_A_TIME: usize = 1000;

//! `root`: prints the hash of a store's state.

use std::ffi::OsString;

use clap::Args;
use lattice::wire::api;

use crate::cli::{
    command::verify::named,
    exit::Failure,
    input::key::KeyFlags,
    output::{
        json::typed,
        object::{self, hex, short},
        proven,
    },
    session::{Context, Lifetime},
};

/// Print the root of a store: one hash for its whole state
///
/// Two nodes with the same root have the same keys with the same values, conflicts and deletions. A
/// running node signs it and compares it with what other members sign; see `lattice status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice root
  lattice root --prefix /config/
  lattice root --json | jq -r .root")]
pub(crate) struct Root {
    /// Only keys that start with this
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: OsString,
    #[command(flatten)]
    flags: KeyFlags,
}

impl Root {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let prefix = self.flags.key(self.prefix)?;
        let mut client = context.client(Lifetime::Short).await?;
        let request = api::RootRequest {
            store: context.store.clone(),
            prefix: prefix.clone(),
        };
        let reply = client.root(request).await?.into_inner();
        let out = &mut context.out;
        if out.json {
            return out.object(&typed("root", proven::Root::new(&reply, &prefix)));
        }
        let info = object::Store::new(reply.info.as_ref());
        out.line(&format!("root     {}", hex(&reply.root)))?;
        out.line(&format!("store    {}{}", info.store, named(&info)))?;
        out.line(&format!("after    {} entries", reply.entries))?;
        if !prefix.is_empty() || reply.members < 2 {
            return Ok(());
        }
        let signers: Vec<String> = reply.signed_by.iter().map(|node| short(node)).collect();
        out.line(&match signers.as_slice() {
            [] => "signed   by no other member yet".to_owned(),
            _some => format!(
                "signed   by {} of {} other members: {}",
                signers.len(),
                reply.members.saturating_sub(1),
                signers.join(", ")
            ),
        })
    }
}

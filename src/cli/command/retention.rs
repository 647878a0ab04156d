//! `retention`: shows how much of a store's history is final, and who is in the way of the rest.

use clap::Args;
use lattice::wire::api;

use crate::cli::{
    command::verify::named,
    exit::Failure,
    output::{
        object::{self, short},
        retention::{self, reason},
    },
    session::{Context, Lifetime},
};

/// Show how much of a store's history is final, and what holds the rest
///
/// Entries become final once an admin has seen that all members have them on disk; members that are
/// marked as dormant are not waited for. A final entry counts for ever, and can be removed from the logs:
/// the keys keep their values, but who wrote older values is not known any more.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice retention --store jobs
  lattice retention --store jobs --json | jq .held")]
pub(crate) struct Retention {}

impl Retention {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let store = context.store.clone();
        let request = api::RetentionRequest { store, now: false };
        let reply = client.retention(request).await?.into_inner();
        print(context, &reply)
    }
}

/// Prints what of a store's history is final.
pub(super) fn print(context: &mut Context, reply: &api::RetentionReply) -> Result<(), Failure> {
    let out = &mut context.out;
    if out.json {
        return out.object(&retention::Retention::new(reply));
    }
    let info = object::Store::new(reply.info.as_ref());
    let size = |bytes: u64| indicatif::BinaryBytes(bytes).to_string();
    let final_bytes = reply.log_bytes.saturating_sub(reply.open_bytes);
    out.line(&format!("store    {}{}", info.store, named(&info)))?;
    out.line(&match reply.act {
        0 => "final    nothing yet".to_owned(),
        act => format!(
            "final    {} of {} of logs here, by act {act}",
            size(final_bytes),
            size(reply.log_bytes)
        ),
    })?;
    let (open, ready) = (size(reply.open_bytes), size(reply.ready_bytes));
    out.line(&format!(
        "open     {open}, of which {ready} could become final now"
    ))?;
    for held in &reply.held {
        let author = short(&held.author);
        let through = held.through;
        let from = held.after.saturating_add(1);
        let why = reason(held);
        out.line(&format!(
            "held     {author}: entries {from} to {through}, {why}"
        ))?;
    }
    if !reply.silent.is_empty() {
        let nodes = list(&reply.silent);
        out.line(&format!("held     all: nothing was heard yet of {nodes}"))?;
    }
    if !reply.dormant.is_empty() {
        let nodes = list(&reply.dormant);
        out.line(&format!("dormant  {nodes}: not waited for"))?;
    }
    if reply.base_keys > 0 {
        let bytes = size(reply.base_bytes);
        out.line(&format!("base     {} keys in {bytes}", reply.base_keys))?;
    }
    for why in &reply.kept {
        out.line(&format!("kept     {why}"))?;
    }
    Ok(())
}

fn list(nodes: &[bytes::Bytes]) -> String {
    let nodes: Vec<String> = nodes.iter().map(|node| short(node)).collect();
    nodes.join(", ")
}

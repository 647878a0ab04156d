//! `log`: lists the entries of an author.

use bytes::Bytes;
use clap::Args;
use lattice::wire::api;

use crate::cli::{
    exit::Failure,
    input::{author, time::date_time},
    output::{
        object::{self, by_hook, short},
        print::{escape, shorten},
        tsv,
    },
    session::{Context, Lifetime},
};

/// List the entries of a log
///
/// Shows the log of this node or of another author, oldest entry first. --limit shows the newest
/// entries; with --after, the first ones after that place. A note says which entries were removed from
/// the log of this node.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice log
  lattice log --limit 10                       the newest ten
  lattice log 3f6c01aa --after 0 --limit 10    the oldest ten
  lattice log --json | jq -r '.ops[].key'")]
pub(crate) struct Log {
    /// Author of the log: 64 hex digits, or the first few [default: this node]
    author: Option<String>,
    /// Only entries after this sequence number
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// List at most this many entries: the newest, or with --after the first ones after it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Print the puts and deletes as lines that `put --stdin` reads, and nothing else
    #[arg(long)]
    tsv: bool,
}

impl Log {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let author = match &self.author {
            Some(text) => author::resolve(&mut client, text).await?,
            None => Bytes::new(),
        };
        let request = api::LogRequest {
            store: context.store.clone(),
            author,
            after: self.after.unwrap_or(0),
            limit: self.limit.unwrap_or(0),
            newest: self.after.is_none(),
            signed: false,
        };
        let mut entries = client.log(request).await?.into_inner();
        let out = &mut context.out;
        let columns = out.columns().unwrap_or(usize::MAX);
        while let Some(logged) = entries.message().await? {
            if logged.pruned_through > 0 {
                let through = logged.pruned_through;
                out.notice(
                    "pruned",
                    &format!(
                        "entries 1 to {through} were removed from this node's log; another member may \
                        have them"
                    ),
                );
            }
            if out.json {
                out.object(&object::Logged::from(&logged))?;
            } else if self.tsv {
                logged
                    .ops
                    .iter()
                    .try_for_each(|op| out.line(&tsv_line(op)))?;
            } else {
                out.line(&shorten(&line(&logged), columns))?;
            }
        }
        Ok(())
    }
}

fn tsv_line(op: &api::LogOp) -> String {
    match op.kind.as_str() {
        "put" => tsv::put(&op.key, &op.value, op.expires_ms),
        _delete => tsv::delete(&op.key),
    }
}

fn line(logged: &api::LogEntry) -> String {
    let entry = logged.entry.clone().unwrap_or_default();
    let branch = match logged.branch {
        0 => String::new(),
        branch => format!("  branch {branch}"),
    };
    let atomic = if logged.atomic { "  atomic" } else { "" };
    let mut ops: Vec<String> = logged
        .ops
        .iter()
        .take(OPS_SHOWN_MAX)
        .map(|op| match op.kind.as_str() {
            "put" => format!(
                "put {}={}",
                escape(&op.key),
                shorten(&escape(&op.value), VALUE_SHOWN_MAX)
            ),
            kind => format!("{kind} {}", escape(&op.key)),
        })
        .collect();
    if logged.ops.len() > OPS_SHOWN_MAX {
        ops.push(format!("and {} more", logged.ops.len() - OPS_SHOWN_MAX));
    }
    format!(
        "{:>6}  {}  {}{branch}{atomic}{}  {}",
        entry.seq,
        date_time(entry.wall_ms),
        short(&entry.id),
        by_hook(logged.cause.as_ref()),
        ops.join(", "),
    )
}

/// Ops of one entry that are shown to people; `--json` has all.
const OPS_SHOWN_MAX: usize = 8;
/// Characters of a value that are shown to people; `--json` has all.
const VALUE_SHOWN_MAX: usize = 40;

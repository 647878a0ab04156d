//! `log`: lists the entries of an author.

use bytes::Bytes;
use clap::Args;
use lattice::wire::api;

use crate::cli::{
    exit::Failure,
    input::{author, time::date_time},
    output::{
        object::{self, by_hook, short},
        tsv,
    },
    screens::past,
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
  lattice log kitchen --after 0 --limit 10     the oldest ten of another node
  lattice log --json | jq -r '.ops[].key'")]
pub(crate) struct Log {
    /// Author of the log: its name, its id, or the first digits of it [default: this node]
    author: Option<String>,
    /// Only entries after this sequence number
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// List at most this many entries: the newest, or with --after the first ones after it
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
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
        let for_people = out.for_people() && !self.tsv;
        let screen = out.screen();
        let (mut rows, mut is_first) = (Vec::new(), true);
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
            if for_people {
                rows.push(logged);
                if rows.len() == ROWS_MAX {
                    let lines = past::log(&rows, is_first, &screen);
                    lines.iter().try_for_each(|line| out.line(line))?;
                    is_first = false;
                    rows.clear();
                }
            } else if out.json {
                out.object(&object::Logged::from(&logged))?;
            } else if self.tsv {
                logged
                    .ops
                    .iter()
                    .try_for_each(|op| out.line(&tsv_line(op)))?;
            } else {
                out.line(&line(&logged))?;
            }
        }
        let lines = past::log(&rows, is_first, &screen);
        lines.iter().try_for_each(|line| out.line(line))
    }
}

fn tsv_line(op: &api::LogOp) -> String {
    match op.kind.as_str() {
        "put" => tsv::put(&op.key, &op.value, op.expires_ms),
        _delete => tsv::delete(&op.key),
    }
}

// Returns an entry as a plain line, for a pipe.
fn line(logged: &api::LogEntry) -> String {
    let entry = logged.entry.clone().unwrap_or_default();
    let branch = match logged.branch {
        0 => String::new(),
        branch => format!("  branch {branch}"),
    };
    let atomic = if logged.atomic { "  atomic" } else { "" };
    format!(
        "{:>6}  {}  {}{branch}{atomic}{}  {}",
        entry.seq,
        date_time(entry.wall_ms),
        short(&entry.id),
        by_hook(logged.cause.as_ref()),
        past::ops(logged),
    )
}

/// Rows that are aligned together.
const ROWS_MAX: usize = 1000;

//! `log`: lists the entries of an author.

use bytes::Bytes;
use clap::Args;
use lattice::{api::client::Client, wire::api};

use crate::cli::{
    exit::Failure,
    input::{author, time::date_time},
    output::{
        json::typed,
        object::{self, by_hook, short},
        print::Output,
        screen::Screen,
        tsv,
    },
    screens::past,
    session::{Context, Lifetime},
};

/// List the entries of a log
///
/// Shows the log of this node or of another author, newest entry first. --limit shows the newest
/// entries; with --after, the first ones after that place. A note says which entries were removed from
/// the log of this node. With --tsv, the oldest entry is first, so that `put --stdin` ends with the values
/// that the log ends with; with --json, --reverse does so.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice log
  lattice log --limit 10                       the newest ten
  lattice log kitchen --after 0 --limit 10     the oldest ten of another node
  lattice log --reverse                        the oldest entry first
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
    /// The oldest entry first
    #[arg(long)]
    reverse: bool,
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
            limit: 0,
            newest: self.after.is_none(),
            signed: false,
        };
        let mut lines = Lines::new(self.tsv, &mut context.out);
        if self.reverse || self.tsv {
            let limit = self.limit.unwrap_or(0);
            let request = api::LogRequest { limit, ..request };
            let mut entries = client.log(request).await?.into_inner();
            while let Some(logged) = entries.message().await? {
                lines.note_removed(&logged);
                lines.print(logged)?;
            }
        } else {
            self.newest_first(&mut client, &request, &mut lines).await?;
        }
        lines.end()
    }

    // Reads the log in pieces from its end, because the node lists a piece with the oldest entry first.
    async fn newest_first(
        &self,
        client: &mut Client,
        request: &api::LogRequest,
        lines: &mut Lines<'_>,
    ) -> Result<(), Failure> {
        let newest = newest_seq(client, request).await?;
        let (mut after, mut through) = match (self.after, self.limit) {
            (None, Some(limit)) => (newest.saturating_sub(limit), newest),
            (after, limit) => {
                let after = after.unwrap_or(0);
                let last = limit.map(|limit| after.saturating_add(limit));
                (after, last.map_or(newest, |last| last.min(newest)))
            }
        };
        while through > after {
            let begin = after.max(through.saturating_sub(PIECE_ENTRIES));
            let piece = api::LogRequest {
                after: begin,
                ..request.clone()
            };
            let mut entries = client.log(piece).await?.into_inner();
            let mut piece = Vec::new();
            while let Some(logged) = entries.message().await? {
                lines.note_removed(&logged);
                after = after.max(logged.pruned_through);
                if seq_of(&logged) > through {
                    break;
                }
                piece.push(logged);
            }
            let mut newest_first = piece.into_iter().rev();
            newest_first.try_for_each(|logged| lines.print(logged))?;
            through = begin;
        }
        Ok(())
    }
}

// Returns the greatest sequence number of the log; 0 if it is empty.
async fn newest_seq(client: &mut Client, request: &api::LogRequest) -> Result<u64, Failure> {
    let request = api::LogRequest {
        after: 0,
        limit: 1,
        newest: true,
        ..request.clone()
    };
    let mut entries = client.log(request).await?.into_inner();
    let mut newest = 0;
    while let Some(logged) = entries.message().await? {
        newest = newest.max(seq_of(&logged));
    }
    Ok(newest)
}

fn seq_of(logged: &api::LogEntry) -> u64 {
    logged.entry.as_ref().map_or(0, |entry| entry.seq)
}

/// Prints entries in the form that was chosen.
struct Lines<'a> {
    out: &'a mut Output,
    screen: Screen,
    tsv: bool,
    // Entries of a table that were not printed yet: they are aligned together.
    rows: Vec<api::LogEntry>,
    // True until a table was printed, which then has the titles.
    is_first: bool,
}

impl<'a> Lines<'a> {
    fn new(tsv: bool, out: &'a mut Output) -> Self {
        Self {
            screen: out.screen(),
            out,
            tsv,
            rows: Vec::new(),
            is_first: true,
        }
    }

    // Prints which entries were removed, if the entry says so.
    fn note_removed(&self, logged: &api::LogEntry) {
        let through = logged.pruned_through;
        if through > 0 {
            let what = format!(
                "entries 1 to {through} were removed from this node's log; another member may have them"
            );
            self.out.notice("pruned", &what);
        }
    }

    fn print(&mut self, logged: api::LogEntry) -> Result<(), Failure> {
        if self.tsv {
            let mut ops = logged.ops.iter();
            return ops.try_for_each(|op| self.out.line(&tsv_line(op)));
        }
        if self.out.json {
            return self
                .out
                .object(&typed("entry", object::Logged::from(&logged)));
        }
        if !self.out.for_people() {
            return self.out.line(&line(&logged));
        }
        self.rows.push(logged);
        match self.rows.len() {
            ROWS_MAX => self.draw(),
            _fewer => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.draw()
    }

    fn draw(&mut self) -> Result<(), Failure> {
        let lines = past::log(&self.rows, self.is_first, &self.screen);
        self.is_first = false;
        self.rows.clear();
        lines.iter().try_for_each(|line| self.out.line(line))
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
/// Entries that are read together to be listed in the other direction: each may have 2 MiB.
const PIECE_ENTRIES: u64 = 100;

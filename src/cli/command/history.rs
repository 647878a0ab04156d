//! `history`: draws the graph of a key's entries.

use std::ffi::OsString;

use clap::Args;
use lattice::{clock::time_text, wire::api};

use crate::cli::{
    command::get::{not_found, outcome},
    exit::Failure,
    input::{key::KeyFlags, time::date_time},
    output::{
        graph::Graph,
        object::{self, by_hook, short},
        print::Output,
    },
    screens::{names::Names, past},
    session::{Context, Lifetime},
};

/// Draw the history of a key
///
/// Shows the entries that wrote it, newest first, and which of them superseded which.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice history /hello
  lattice history /hello --limit 20
  lattice history /hello --json | jq -r .value")]
pub(crate) struct History {
    /// The key
    key: OsString,
    #[command(flatten)]
    flags: KeyFlags,
    /// Show at most this many entries
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl History {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let key = self.flags.key(self.key)?;
        let mut client = context.client(Lifetime::Short).await?;
        let request = api::HistoryRequest {
            store: context.store.clone(),
            key: key.clone(),
            limit: self.limit.unwrap_or(0),
        };
        let mut parts = client.history(request).await?.into_inner();
        let mut history = api::HistoryReply::default();
        while let Some(part) = parts.message().await? {
            history.entries.extend(part.entries);
            history.truncated |= part.truncated;
            history.reach_ms = history.reach_ms.or(part.reach_ms);
        }
        if history.entries.is_empty() {
            let missing = not_found(&key);
            return Err(match older(&history) {
                Some(text) => missing.hint(text),
                None => missing,
            });
        }
        let out = &mut context.out;
        if out.for_people() {
            let names = Names::fetch(&mut client).await?;
            let older = older_for_people(&history);
            let lines = past::history(&history.entries, older.as_deref(), &names, &out.screen());
            return lines.iter().try_for_each(|line| out.line(line));
        }
        if !out.json {
            return draw(out, &history);
        }
        for past in &history.entries {
            out.object(&object::Past::new(&key, past))?;
        }
        match older(&history) {
            Some(text) if history.reach_ms.is_some() => out.notice("pruned", &text),
            Some(text) => out.notice("truncated", &text),
            None => {}
        }
        Ok(())
    }
}

// Draws the graph with plain lines, for a pipe.
fn draw(out: &mut Output, history: &api::HistoryReply) -> Result<(), Failure> {
    let mut graph = Graph::new();
    for past in &history.entries {
        let entry = past.entry.clone().unwrap_or_default();
        let drawn = graph.draw(&entry.id, &past.parents);
        for line in &drawn.joins {
            out.line(line)?;
        }
        let line = format!(
            "{}  {}  {}  {}{}{}  {}",
            drawn.node,
            short(&entry.id),
            date_time(entry.wall_ms),
            short(&entry.author),
            by_hook(past.cause.as_ref()),
            role(past),
            outcome(&past.kind, &past.value, past.expires_ms, false),
        );
        out.line(&line)?;
        for line in &drawn.splits {
            out.line(line)?;
        }
    }
    match older_for_people(history) {
        Some(text) => out.line(&format!("{}  {text}", graph.loose_ends())),
        None => Ok(()),
    }
}

fn older_for_people(history: &api::HistoryReply) -> Option<String> {
    let how = match history.reach_ms {
        None => ", see --limit",
        Some(_) => "",
    };
    older(history).map(|text| text + how)
}

// Describes older entries that are not listed; `None` if there are none.
fn older(history: &api::HistoryReply) -> Option<String> {
    match history.reach_ms {
        Some(ms) => Some(format!(
            "older entries were removed here: this node has all since {}",
            time_text(ms)
        )),
        None => history.truncated.then(|| "older entries exist".to_owned()),
    }
}

fn role(past: &api::HistoryEntry) -> &'static str {
    match (past.wins, past.head) {
        (true, _) => "  (head, wins)",
        (false, true) => "  (head)",
        (false, false) => "",
    }
}

//! `history`: draws the graph of a key's entries.

use std::{collections::BTreeMap, ffi::OsString, mem};

use bytes::Bytes;
use clap::Args;
use lattice::{clock::time_text, wire::api};

use crate::cli::{
    command::get::{not_found, outcome},
    exit::Failure,
    input::{key::KeyFlags, time::date_time},
    output::{
        graph::Graph,
        json::typed,
        object::{self, by_hook, short},
        print::Output,
    },
    screens::{names::Names, past},
    session::{Context, Lifetime},
};

/// Draw the history of a key
///
/// Shows the entries that wrote it, newest first, and which of them superseded which. With --reverse, the
/// oldest of these entries is first, and the lines between them lead to the newer ones.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice history /hello
  lattice history /hello --limit 20
  lattice history /hello --reverse
  lattice history /hello --json | jq -r .value")]
pub(crate) struct History {
    /// The key
    key: OsString,
    #[command(flatten)]
    flags: KeyFlags,
    /// Show at most this many entries
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// The oldest entry first
    #[arg(long)]
    reverse: bool,
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
        if self.reverse {
            if context.out.json {
                history.entries.reverse();
            } else {
                history.entries = towards_the_newest(history.entries);
            }
            // The place of older entries would be above.
            if let Some(text) = older_for_people(&history).filter(|_| !context.out.json) {
                context.out.line(&text)?;
                (history.truncated, history.reach_ms) = (false, None);
            }
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
            out.object(&typed("version", object::Past::new(&key, past)))?;
        }
        match older(&history) {
            Some(text) if history.reach_ms.is_some() => out.notice("pruned", &text),
            Some(text) => out.notice("truncated", &text),
            None => {}
        }
        Ok(())
    }
}

// Reverses a history, and the lines between its entries: each entry has those as parents that supersede it.
fn towards_the_newest(mut entries: Vec<api::HistoryEntry>) -> Vec<api::HistoryEntry> {
    let mut newer: BTreeMap<Bytes, Vec<Bytes>> = BTreeMap::new();
    for past in &mut entries {
        let id = past.entry.as_ref().map(|entry| entry.id.clone());
        for parent in mem::take(&mut past.parents) {
            newer.entry(parent).or_default().extend(id.clone());
        }
    }
    for past in &mut entries {
        let id = past.entry.as_ref().map(|entry| &entry.id);
        past.parents = id.and_then(|id| newer.remove(id)).unwrap_or_default();
    }
    entries.reverse();
    entries
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

//! `get`, `list`, `heads`: read the state, now or at a past time.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

use bytes::Bytes;
use clap::Args;
use lattice::{api::client::Client, clock::Clock, wire::api};
use tonic::Streaming;

use crate::cli::{
    command::prove::{ProveFlag, prove},
    exit::{Exit, Failure},
    input::{
        key::KeyFlags,
        time::{When, date_time, parse_when},
    },
    output::{
        json::typed,
        object::{self, short},
        print::{Output, escape, escape_lines},
        tsv,
        width::shorten,
    },
    screens::{heads, items, names::Names, when::when},
    session::{Context, Lifetime},
};

/// Print the value of a key
///
/// Prints the bytes unchanged; on a terminal, escaped and with a newline. Exits with 3 if the key
/// is missing, deleted or expired; with --prove that is proven as well, and the exit code is 0.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice get /hello
  lattice get /logo > logo.png
  lattice get /hello --at 2h             as it was two hours ago
  lattice get /hello --prove hello.proof for `lattice verify --proof hello.proof`
  lattice get /hello --json | jq -r .author")]
pub(crate) struct Get {
    /// The key
    key: OsString,
    #[command(flatten)]
    flags: KeyFlags,
    /// The value at this time: 2h or 7d ago, 10:30, yesterday, a date, or an RFC 3339 time
    #[arg(long, value_name = "TIME", value_parser = parse_when, conflicts_with = "prove")]
    at: Option<When>,
    #[command(flatten)]
    proof: ProveFlag,
}

impl Get {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let key = self.flags.key(self.key)?;
        if let Some(file) = self.proof.prove {
            let request = api::ProveRequest {
                store: context.store.clone(),
                key,
                prefix: Bytes::new(),
            };
            return prove(context, request, file).await;
        }
        let mut client = context.client(Lifetime::Short).await?;
        let request = api::GetRequest {
            store: context.store.clone(),
            key: key.clone(),
            at_ms: at_ms(self.at),
        };
        let Some(item) = client.get(request).await?.into_inner().item else {
            return Err(match self.at {
                None => gone(context, &mut client, &key).await?,
                Some(_then) => not_found_then(&key),
            });
        };
        let in_conflict = item.heads > 1 && self.at.is_none() && !context.out.json;
        let values = match in_conflict {
            true => values(context, &mut client, &key).await?,
            false => String::new(),
        };
        let out = &mut context.out;
        if out.json {
            return out.object(&typed("item", object::Item::new(&item, false)));
        }
        if out.terminal {
            out.line(&escape_lines(&item.value))?;
        } else {
            out.bytes(&item.value)?;
        }
        // On stderr, because stdout has the value and nothing else.
        if in_conflict {
            out.flush()?;
            let heads = item.heads;
            out.notice(
                "conflict",
                &format!(
                    "!conflict ({heads} heads): {values}; see `lattice heads {}`",
                    escape(&key)
                ),
            );
        }
        Ok(())
    }
}

// Writes the values of all heads of a key on one line, with the names of their authors.
async fn values(context: &Context, client: &mut Client, key: &Bytes) -> Result<String, Failure> {
    let request = api::HeadsRequest {
        store: context.store.clone(),
        key: key.clone(),
    };
    let heads = heads(client, request).await?;
    let names = Names::fetch(client).await?;
    let values = heads::values(&heads, &names);
    Ok(shorten(&values, VALUES_COLUMNS_MAX).into_owned())
}

// Returns the failure for a key without a value, with the reason if the key once had one.
async fn gone(context: &Context, client: &mut Client, key: &Bytes) -> Result<Failure, Failure> {
    let request = api::HeadsRequest {
        store: context.store.clone(),
        key: key.clone(),
    };
    let heads = heads(client, request).await?;
    let Some(head) = heads.iter().find(|head| head.wins) else {
        return Ok(not_found(key));
    };
    let entry = head.entry.clone().unwrap_or_default();
    let (what, at_ms) = match head.expires_ms {
        Some(ms) if head.expired => ("it expired", ms),
        _deleted => ("it was deleted", entry.wall_ms),
    };
    let by = match head.expired {
        true => String::new(),
        false => format!(" by {}", Names::fetch(client).await?.of(&entry.author)),
    };
    let (key, at) = (escape(key), when(&context.out.screen(), at_ms));
    let message = format!("{key} has no value: {what} {at}{by}");
    let failure = Failure::new(Exit::NotFound, "not_found", message);
    Ok(failure.hint(format!("`lattice history {key}` shows its values")))
}

/// List keys and their values
///
/// The keys are sorted by their bytes and read from one snapshot. A key with several heads is marked
/// with !conflict and all values. Into a file or a pipe, each line is one that `put --stdin` reads back. With --prove, the proof
/// has every key under the prefix, deleted ones too, and only the hash of values above 1 KiB.
#[derive(Debug, Args)]
#[command(
    visible_alias = "ls",
    after_help = "\
Examples:
  lattice list
  lattice list /nodes/ --keys-only
  lattice list /config/ --at 2026-11-22T10:00:00Z
  lattice list /packages/ --limit 10 --json
  lattice list /packages/ --limit 10 --after-key /packages/curl     the next page
  lattice list / --delimiter /                                      like directories"
)]
pub(crate) struct List {
    /// Only keys that start with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: OsString,
    #[command(flatten)]
    flags: KeyFlags,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
    /// List at most this many keys
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Only keys after this one: the last of the page before
    #[arg(long, value_name = "KEY")]
    after_key: Option<OsString>,
    /// List keys that have this after the prefix as what they have in common through it, once
    #[arg(long, value_name = "TEXT", conflicts_with = "at")]
    delimiter: Option<OsString>,
    /// The values at this time: 2h or 7d ago, 10:30, yesterday, a date, or an RFC 3339 time
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    at: Option<When>,
    #[command(flatten)]
    proof: ProveFlag,
}

impl List {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let prefix = self.flags.key(self.prefix)?;
        if let Some(file) = self.proof.prove {
            let is_selective = self.keys_only
                || self.limit.is_some()
                || self.after_key.is_some()
                || self.delimiter.is_some()
                || self.at.is_some();
            if is_selective {
                let message = "a proof has all keys under the prefix, with their values as of now";
                return Err(Failure::usage("prove_all", message).hint(
                    "leave out --keys-only, --limit, --after-key, --delimiter and --at with --prove",
                ));
            }
            let request = api::ProveRequest {
                store: context.store.clone(),
                key: Bytes::new(),
                prefix,
            };
            return prove(context, request, file).await;
        }
        let mut client = context.client(Lifetime::Short).await?;
        let request = api::ListRequest {
            store: context.store.clone(),
            prefix,
            keys_only: self.keys_only,
            limit: self.limit.unwrap_or(0),
            at_ms: at_ms(self.at),
            after_key: self.flags.key(self.after_key.unwrap_or_default())?,
            delimiter: self.delimiter.unwrap_or_default().into_vec().into(),
        };
        let mut pages = client.list(request).await?.into_inner();
        if context.out.for_people() {
            return list_for_people(context, client, pages, self.keys_only, self.at.is_some())
                .await;
        }
        let out = &mut context.out;
        while let Some(page) = pages.message().await? {
            let mut prefixes = page.prefixes.iter().peekable();
            for item in &page.items {
                while let Some(prefix) = prefixes.next_if(|prefix| **prefix < item.key) {
                    print_prefix(out, prefix)?;
                }
                if out.json {
                    out.object(&typed("item", object::Item::new(item, self.keys_only)))?;
                } else if self.keys_only {
                    out.line(&format!(
                        "{}{}",
                        escape(&item.key),
                        conflict_suffix(item.heads)
                    ))?;
                } else {
                    out.line(&tsv::item(item))?;
                }
            }
            prefixes.try_for_each(|prefix| print_prefix(out, prefix))?;
            out.flush()?;
        }
        Ok(())
    }
}

fn print_prefix(out: &mut Output, prefix: &[u8]) -> Result<(), Failure> {
    match out.json {
        true => out.object(&typed("prefix", object::Prefix::new(prefix))),
        false => out.line(&escape(prefix)),
    }
}

// Prints the keys as tables, one for each page of the answer.
async fn list_for_people(
    context: &mut Context,
    mut client: Client,
    mut pages: Streaming<api::Items>,
    keys_only: bool,
    is_past: bool,
) -> Result<(), Failure> {
    let names = Names::fetch(&mut client).await?;
    let screen = context.out.screen();
    let mut is_first = true;
    while let Some(page) = pages.message().await? {
        let mut prefixes = page.prefixes.into_iter().peekable();
        let mut rows = Vec::new();
        for item in page.items {
            while let Some(prefix) = prefixes.next_if(|prefix| *prefix < item.key) {
                rows.push(items::Row::Prefix(prefix));
            }
            // The heads are those of now.
            let heads = match item.heads > 1 && !is_past && !keys_only {
                true => {
                    let request = api::HeadsRequest {
                        store: context.store.clone(),
                        key: item.key.clone(),
                    };
                    heads(&mut client, request).await?
                }
                false => Vec::new(),
            };
            rows.push(items::Row::Item(item, heads));
        }
        rows.extend(prefixes.map(items::Row::Prefix));
        for part in rows.chunks(ROWS_MAX) {
            let lines = items::draw(part, &names, keys_only, is_first, &screen);
            lines.iter().try_for_each(|line| context.out.line(line))?;
            is_first = false;
        }
        context.out.flush()?;
    }
    Ok(())
}

/// Returns the end of a line about a key with several heads; empty for a single head.
pub(crate) fn conflict_suffix(heads: u32) -> String {
    if heads > 1 {
        format!(" !conflict ({heads} heads)")
    } else {
        String::new()
    }
}

/// Show all heads of a key
///
/// The heads are the entries that nothing supersedes. Reads return the first one; the next put
/// merges them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice heads /hello
  lattice heads /hello --json | jq -r .entry
  lattice put /hello merged --if-head 3f6c01aa")]
pub(crate) struct Heads {
    /// The key
    key: OsString,
    #[command(flatten)]
    flags: KeyFlags,
}

impl Heads {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let key = self.flags.key(self.key)?;
        let mut client = context.client(Lifetime::Short).await?;
        let request = api::HeadsRequest {
            store: context.store.clone(),
            key: key.clone(),
        };
        let heads = heads(&mut client, request).await?;
        if heads.is_empty() {
            return Err(not_found(&key));
        }
        let out = &mut context.out;
        if out.for_people() {
            let names = Names::fetch(&mut client).await?;
            let lines = heads::draw(&heads, &names, &out.screen());
            return lines.iter().try_for_each(|line| out.line(line));
        }
        for head in &heads {
            if out.json {
                out.object(&typed("head", object::Head::new(&key, head)))?;
            } else {
                print_head(out, head)?;
            }
        }
        Ok(())
    }
}

/// Returns all heads of a key.
pub(crate) async fn heads(
    client: &mut Client,
    request: api::HeadsRequest,
) -> Result<Vec<api::Head>, Failure> {
    let mut parts = client.heads(request).await?.into_inner();
    let mut heads = Vec::new();
    while let Some(part) = parts.message().await? {
        heads.extend(part.heads);
    }
    Ok(heads)
}

/// Prints a head on one line, for a pipe; a star marks the one that reads return.
pub(crate) fn print_head(out: &mut Output, head: &api::Head) -> Result<(), Failure> {
    let entry = head.entry.clone().unwrap_or_default();
    let wins = if head.wins { '*' } else { ' ' };
    out.line(&format!(
        "{wins} {}  {}+{}  author {}  seq {}  {}",
        short(&entry.id),
        date_time(entry.wall_ms),
        entry.counter,
        short(&entry.author),
        entry.seq,
        outcome(&head.kind, &head.value, head.expires_ms, head.expired),
    ))
}

/// Describes what an entry did to its key, on one line.
pub(crate) fn outcome(kind: &str, value: &[u8], expires_ms: Option<u64>, expired: bool) -> String {
    let mut text = match kind {
        "put" => format!("put {}", escape(value)),
        other => other.to_owned(),
    };
    if let Some(ms) = expires_ms {
        let verb = if expired { "expired" } else { "expires" };
        text.push_str(&format!(" ({verb} {})", date_time(ms)));
    }
    text
}

fn at_ms(at: Option<When>) -> Option<u64> {
    at.map(|at| at.at_ms(Clock::system().now_ms()))
}

fn not_found_then(key: &[u8]) -> Failure {
    let message = format!("{} had no value at that time", escape(key));
    Failure::new(Exit::NotFound, "not_found", message)
}

/// Returns the failure for a key without a value.
pub(crate) fn not_found(key: &[u8]) -> Failure {
    Failure::new(
        Exit::NotFound,
        "not_found",
        format!("{} has no value", escape(key)),
    )
}

/// Columns of the values of a conflict that `get` shows.
const VALUES_COLUMNS_MAX: usize = 200;
/// Rows that are aligned together in a list.
const ROWS_MAX: usize = 1000;

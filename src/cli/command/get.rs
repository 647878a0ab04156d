//! `get`, `list`, `heads`: the state as it is, or was.

use clap::Args;
use lattice::{clock::Clock, wire::api};

use crate::cli::{
    exit::{Exit, Failure},
    input::time::{When, date_time, parse_when},
    output::{
        object::{self, short},
        print::{Output, cut, escape, escape_lines},
    },
    session::{Context, Lifetime},
};

/// Print the value of a key
///
/// The bytes as they are, with a newline only on a terminal. Missing, deleted or expired: exit 3.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice get /hello
  lattice get /logo > logo.png
  lattice get /hello --at 2h             as it was two hours ago
  lattice get /hello --json | jq -r .author")]
pub(crate) struct Get {
    /// The key
    key: String,
    /// As it was then: 30s, 5m, 2h, 7d ago, a date, or an RFC 3339 time
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    at: Option<When>,
}

impl Get {
    /// Runs the command.
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let key = self.key;
        let request = api::GetRequest {
            store: context.store.clone(),
            key: key.clone().into(),
            at_ms: at_ms(self.at),
        };
        let Some(item) = client.get(request).await?.into_inner().item else {
            return Err(match self.at {
                None => not_found(&key),
                Some(_then) => had_none(&key),
            });
        };
        let out = &mut context.out;
        if out.json {
            return out.object(&object::Item::new(&item, false));
        }
        if out.terminal {
            out.line(&escape_lines(&item.value))?;
        } else {
            out.bytes(&item.value)?;
        }
        // Not on stdout: that has the value and nothing else.
        if item.heads > 1 && self.at.is_none() {
            out.flush()?;
            let heads = item.heads;
            out.notice(
                "conflict",
                &format!(
                    "!conflict ({heads} heads), see `lattice heads {}`",
                    escape(key.as_bytes())
                ),
            );
        }
        Ok(())
    }
}

/// List keys and their values
///
/// In byte order, from one snapshot. A key with several heads is marked.
#[derive(Debug, Args)]
#[command(
    visible_alias = "ls",
    after_help = "\
Examples:
  lattice list
  lattice list /nodes/ --keys-only
  lattice list /config/ --at 2026-11-22T10:00:00Z
  lattice list /packages/ --limit 10 --json"
)]
pub(crate) struct List {
    /// Only keys that start with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
    /// At most so many keys
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// As they were then: 30s, 5m, 2h, 7d ago, a date, or an RFC 3339 time
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    at: Option<When>,
}

impl List {
    /// Runs the command.
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let request = api::ListRequest {
            store: context.store.clone(),
            prefix: self.prefix.into(),
            keys_only: self.keys_only,
            limit: self.limit.unwrap_or(0),
            at_ms: at_ms(self.at),
        };
        let mut pages = client.list(request).await?.into_inner();
        let out = &mut context.out;
        let columns = out.columns();
        while let Some(page) = pages.message().await? {
            for item in &page.items {
                if out.json {
                    out.object(&object::Item::new(item, self.keys_only))?;
                } else {
                    out.line(&line(item, self.keys_only, columns))?;
                }
            }
            out.flush()?;
        }
        Ok(())
    }
}

fn line(item: &api::Item, keys_only: bool, columns: Option<usize>) -> String {
    let mut line = escape(&item.key).into_owned();
    if !keys_only {
        line.push('\t');
        line.push_str(&escape(&item.value));
    }
    // Cut before the mark: that is what must be seen. A tab takes up to eight columns.
    if let Some(columns) = columns {
        line = cut(&line, columns.saturating_sub(8 + mark(item.heads).len())).into_owned();
    }
    line + &mark(item.heads)
}

/// Returns what shows that a key has several heads.
pub(crate) fn mark(heads: u32) -> String {
    if heads > 1 {
        format!(" !conflict ({heads} heads)")
    } else {
        String::new()
    }
}

/// Show all heads of a key
///
/// The entries that nothing supersedes, the one that reads see first. The next put merges them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice heads /hello
  lattice heads /hello --json | jq -r .entry
  lattice put /hello merged --if-head 3f6c01aa")]
pub(crate) struct Heads {
    /// The key
    key: String,
}

impl Heads {
    /// Runs the command.
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let key = self.key;
        let request = api::HeadsRequest {
            store: context.store.clone(),
            key: key.clone().into(),
        };
        let heads = client.heads(request).await?.into_inner().heads;
        if heads.is_empty() {
            return Err(not_found(&key));
        }
        let out = &mut context.out;
        for head in &heads {
            if out.json {
                out.object(&object::Head::new(key.as_bytes(), head))?;
            } else {
                tell_head(out, head)?;
            }
        }
        Ok(())
    }
}

/// Prints a head for people; the star is the one that reads see.
pub(crate) fn tell_head(out: &mut Output, head: &api::Head) -> Result<(), Failure> {
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

/// Tells what an entry did to its key, on one line.
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

fn had_none(key: &str) -> Failure {
    let message = format!("{} had no value then", escape(key.as_bytes()));
    Failure::new(Exit::NotFound, "not_found", message)
}

/// Says that a key has no value.
pub(crate) fn not_found(key: &str) -> Failure {
    Failure::new(
        Exit::NotFound,
        "not_found",
        format!("{} has no value", escape(key.as_bytes())),
    )
}

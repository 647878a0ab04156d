//! `delete`: deletes one key, or all keys under a prefix.

use std::{collections::VecDeque, ffi::OsString};

use bytes::Bytes;
use clap::Args;
use lattice::wire::api;
use tokio::sync::mpsc;

use crate::cli::{
    command::{
        put,
        put_stream::{self, Progress},
    },
    exit::{Exit, Failure},
    input::{confirm, key::KeyFlags, lines::Chunk},
    output::{json::typed, object, print::escape},
    session::{Context, Lifetime},
};

/// Delete a key, or all keys under a prefix
///
/// Prints the id of the entry once it is on disk. The history keeps the old values. If the key has no
/// value, a note says so, nothing is written, and the exit code is 0: the key is gone. With --prefix,
/// keys that only the node itself writes (/nodes/, /invites/ and /stores/) are
/// left, and so are keys that are written meanwhile: then it exits with 7.
#[derive(Debug, Args)]
#[command(visible_aliases = ["del", "rm"], after_help = "\
Examples:
  lattice delete /hello
  lattice delete /jobs/7/lease --if-head 3f6c01aa
  lattice delete --prefix /tmp/ --yes")]
pub(crate) struct Delete {
    /// The key
    #[arg(required_unless_present = "prefix")]
    key: Option<OsString>,
    /// Delete all keys that start with this, each in a write of its own
    #[arg(long, conflicts_with = "key")]
    prefix: Option<OsString>,
    #[command(flatten)]
    flags: KeyFlags,
    /// Do not ask for confirmation; required if stdin is not a terminal
    #[arg(long, requires = "prefix")]
    yes: bool,
    /// Delete only if reads return this entry (an id, or its first digits); else exit 4
    #[arg(long, value_name = "ENTRY", conflicts_with = "prefix")]
    if_head: Option<String>,
}

impl Delete {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        if let Some(prefix) = self.prefix {
            let prefix = self.flags.key(prefix)?;
            return delete_all(context, prefix, self.yes).await;
        }
        let key = self.flags.key(self.key.unwrap_or_default())?;
        let mut client = context.client(Lifetime::Short).await?;
        let if_head = match &self.if_head {
            Some(head) => put::find_head(&mut client, &context.store, &key, head).await?,
            None => Bytes::new(),
        };
        let request = api::DeleteRequest {
            store: context.store.clone(),
            key: key.clone(),
            if_head,
        };
        let written = client.delete(request).await?.into_inner();
        if written.entry.is_empty() {
            let text = format!("{} has no value; nothing was written", escape(&key));
            context.out.notice("nothing_to_delete", &text);
            return Ok(());
        }
        put::print_written(context, &written, "deleted", &escape(&key))
    }
}

async fn delete_all(context: &mut Context, prefix: Bytes, yes: bool) -> Result<(), Failure> {
    if !yes {
        confirm::require_terminal("delete --prefix asks for confirmation")?;
    }
    let mut client = context.client(Lifetime::Short).await?;
    let request = api::ListRequest {
        store: context.store.clone(),
        prefix: prefix.clone(),
        keys_only: true,
        limit: 0,
        ..api::ListRequest::default()
    };
    let mut listed = VecDeque::new();
    let mut keys = None;
    if !yes {
        // Kept, so that nothing is deleted that was not counted.
        let mut pages = client.list(request.clone()).await?.into_inner();
        let mut count = 0;
        while let Some(page) = pages.message().await? {
            count += page.items.len();
            listed.push_back(page);
        }
        keys = Some(count as u64);
        let noun = if count == 1 { "key" } else { "keys" };
        let question = format!("delete {count} {noun} under \"{}\"?", escape(&prefix));
        confirm::ask(question, "nothing was deleted").await?;
    }
    let mut pages = match yes {
        true => Some(client.list(request).await?.into_inner()),
        false => None,
    };
    // Made after the question, so that the bar measures the deletes only.
    let progress = Progress::of_deletes(keys);
    let (sender, mut input) = mpsc::channel(CHUNKS_AHEAD_MAX);
    let read = async move {
        let mut number = 0;
        loop {
            let page = match &mut pages {
                Some(pages) => pages.message().await?,
                None => listed.pop_front(),
            };
            let Some(page) = page else { break };
            let mut chunk = Chunk::default();
            for item in page.items {
                number += 1;
                chunk.numbers.push(number);
                chunk.ops.push(api::Op {
                    key: item.key,
                    delete: true,
                    // A value that nobody has seen yet is not deleted.
                    if_head: item.entry.map(|entry| entry.id).unwrap_or_default(),
                    ..api::Op::default()
                });
            }
            // The bar counts keys.
            chunk.bytes_read = number;
            if sender.send(Ok(chunk)).await.is_err() {
                break;
            }
        }
        Ok::<(), Failure>(())
    };
    let write = put_stream::write_chunks(client, &context.store, &mut input, &SKIPPED, progress);
    let (read, sent) = tokio::join!(read, write);
    let deleted = sent.written;
    let skipped = |code: &str| sent.skipped.get(code).copied().unwrap_or(0);
    let (reserved, changed) = (skipped(RESERVED), skipped(CHANGED));
    let out = &mut context.out;
    if out.json {
        let deleted = object::Deleted {
            deleted,
            reserved,
            changed,
        };
        out.object(&typed("keys_deleted", deleted))?;
    } else {
        out.line(&format!("{deleted} deleted"))?;
    }
    out.flush()?;
    if reserved > 0 {
        let keys = if reserved == 1 {
            "key was"
        } else {
            "keys were"
        };
        let text = format!("{reserved} {keys} left: only the node itself writes there");
        out.notice("reserved_keys", &text);
    }
    if deleted > 0 {
        context.note_unsent_write();
    }
    if let Some(stop) = sent.stop {
        return Err(stop.failure(deleted));
    }
    read?;
    if changed == 0 {
        return Ok(());
    }
    let keys = if changed == 1 { "key was" } else { "keys were" };
    let message = format!("{changed} {keys} written meanwhile and left");
    Err(Failure::new(Exit::Partly, "changed_keys", message)
        .hint("look at the new values, then run the command again to delete them, too"))
}

/// Codes of the errors of deletes that are left out.
const RESERVED: &str = "reserved_key";
const CHANGED: &str = "precondition_failed";
const SKIPPED: [&str; 2] = [RESERVED, CHANGED];

/// Chunks of keys that are read ahead of the next request.
const CHUNKS_AHEAD_MAX: usize = 4;

//! `delete`: deletes one key, or all keys under a prefix.

use bytes::Bytes;
use clap::Args;
use lattice::wire::api;
use tokio::sync::mpsc;

use crate::cli::{
    command::{put, put_stream},
    exit::Failure,
    input::{confirm, lines::Chunk},
    output::{object, print::escape},
    session::{Context, Lifetime},
};

/// Delete a key, or all keys under a prefix
///
/// Prints the id of the entry once it is on disk. The history keeps the old values.
#[derive(Debug, Args)]
#[command(visible_aliases = ["del", "rm"], after_help = "\
Examples:
  lattice delete /hello
  lattice delete /jobs/7/lease --if-head 3f6c01aa
  lattice delete --prefix /tmp/ --yes")]
pub(crate) struct Delete {
    /// The key
    #[arg(required_unless_present = "prefix")]
    key: Option<String>,
    /// Delete all keys that start with this, each in a write of its own
    #[arg(long, conflicts_with = "key")]
    prefix: Option<String>,
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
            return delete_all(context, prefix, self.yes).await;
        }
        let key = Bytes::from(self.key.unwrap_or_default());
        let mut client = context.client(Lifetime::Short).await?;
        let if_head = match &self.if_head {
            Some(head) => put::find_head(&mut client, &context.store, &key, head).await?,
            None => Bytes::new(),
        };
        let request = api::DeleteRequest {
            store: context.store.clone(),
            key,
            if_head,
        };
        let written = client.delete(request).await?.into_inner();
        put::print_written(context, &written)
    }
}

async fn delete_all(context: &mut Context, prefix: String, yes: bool) -> Result<(), Failure> {
    if !yes {
        confirm::require_terminal("delete --prefix asks for confirmation")?;
    }
    let mut client = context.client(Lifetime::Short).await?;
    let request = api::ListRequest {
        store: context.store.clone(),
        prefix: prefix.clone().into(),
        keys_only: true,
        limit: 0,
        at_ms: None,
    };
    if !yes {
        let mut pages = client.list(request.clone()).await?.into_inner();
        let mut keys = 0;
        while let Some(page) = pages.message().await? {
            keys += page.items.len();
        }
        let question = format!("delete {keys} keys under {:?}?", escape(prefix.as_bytes()));
        confirm::ask(question, "nothing was deleted").await?;
    }
    let mut pages = client.list(request).await?.into_inner();
    let (sender, mut input) = mpsc::channel(CHUNKS_AHEAD_MAX);
    let read = async move {
        let mut number = 0;
        while let Some(page) = pages.message().await? {
            let mut chunk = Chunk::default();
            for item in page.items {
                number += 1;
                chunk.numbers.push(number);
                chunk.ops.push(api::Op {
                    key: item.key,
                    delete: true,
                    ..api::Op::default()
                });
            }
            if sender.send(Ok(chunk)).await.is_err() {
                break;
            }
        }
        Ok::<(), Failure>(())
    };
    let write = put_stream::write_chunks(client, &context.store, &mut input);
    let (read, result) = tokio::join!(read, write);
    let deleted = match &result {
        Ok(deleted) => *deleted,
        Err((deleted, _stop)) => *deleted,
    };
    if context.out.json {
        context.out.object(&object::Deleted { deleted })?;
    } else {
        context.out.line(&format!("{deleted} deleted"))?;
    }
    context.out.flush()?;
    if deleted > 0 {
        context.note_unsent_write();
    }
    result.map_err(|(deleted, stop)| stop.failure(deleted))?;
    read
}

/// Chunks of keys that are read ahead of the next request.
const CHUNKS_AHEAD_MAX: usize = 4;

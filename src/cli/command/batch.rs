//! `batch`: writes lines as one atomic entry.

use std::io;

use clap::Args;
use lattice::{
    limits::{OPS_BYTES_MAX, OPS_MAX},
    wire::api,
};

use crate::cli::{
    command::{put, put_stream},
    exit::Failure,
    input::lines::{BadLine, Dialect, Format, Lines},
    screens::when::count,
    session::{Context, Lifetime},
};

/// Apply puts and deletes from stdin as one atomic entry
///
/// Either all of it is applied or nothing, and watchers get it in one piece. At most 1024 lines,
/// each with another key. Prints the id of the entry once it is on disk. Deletes of keys that have no
/// value are left out of it; a note on stderr says how many.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  printf 'put\\t/a\\t1\\ndelete\\t/b\\n' | lattice batch
  lattice batch --format json < changes.jsonl

Lines of --format tsv:   put<TAB>key<TAB>value   delete<TAB>key   (escapes as in `put --stdin`)
Lines of --format json:  {\"key\": \"/a\", \"value\": \"1\"}   {\"key\": \"/b\", \"delete\": true}")]
pub(crate) struct Batch {
    /// Format of the lines
    #[arg(long, value_enum, default_value_t = Format::Tsv)]
    format: Format,
}

impl Batch {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let format = self.format;
        let ops = tokio::task::spawn_blocking(move || read_ops(format))
            .await
            .map_err(|error| Failure::failed("stdin", error.to_string()))??;
        let mut client = context.client(Lifetime::Short).await?;
        let request = api::BatchRequest {
            store: context.store.clone(),
            ops,
        };
        let lines = u64::try_from(request.ops.len()).unwrap_or(u64::MAX);
        let written = client.batch(request).await?.into_inner();
        if written.entry.is_empty() {
            let text = "the keys that it deletes have no value; nothing was written";
            context.out.notice("nothing_to_delete", text);
            return Ok(());
        }
        let changes = count(written.op_count.into(), "change");
        put::print_written(context, &written, "ok", &changes)?;
        let left_out = lines.saturating_sub(written.op_count.into());
        if left_out > 0 {
            context
                .out
                .notice("nothing_to_delete", &put_stream::left_out(left_out));
        }
        Ok(())
    }
}

fn read_ops(format: Format) -> Result<Vec<api::Op>, Failure> {
    let mut lines = Lines::new(io::stdin().lock(), format, Dialect::Batch, None);
    let mut ops = Vec::new();
    let mut bytes = 0;
    while let Some(op) = lines.next_op().map_err(|bad: BadLine| bad.failure())? {
        bytes += op.key.len() + op.value.len();
        ops.push(op);
        if ops.len() > OPS_MAX {
            return Err(Failure::usage(
                "too_many_ops",
                format!("stdin has more than {OPS_MAX} lines"),
            )
            .hint("split it into several batches, or use `lattice put --stdin`"));
        }
        if bytes > OPS_BYTES_MAX {
            return Err(Failure::usage(
                "ops_too_long",
                format!("the keys and values have more than {OPS_BYTES_MAX} bytes"),
            )
            .hint("split it into several batches, or use `lattice put --stdin`"));
        }
    }
    if ops.is_empty() {
        return Err(Failure::usage("empty", "stdin has no lines"));
    }
    Ok(ops)
}

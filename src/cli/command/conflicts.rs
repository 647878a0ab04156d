//! `conflicts`: lists the keys that have several heads, and settles one of them.

use std::ffi::OsString;

use bytes::Bytes;
use clap::{Args, Subcommand};
use lattice::{
    api::{client::Client, error::ApiError},
    wire::api,
};

use crate::cli::{
    command::{
        get::{self, print_head},
        put::print_written,
    },
    exit::{Exit, Failure},
    input::key::KeyFlags,
    output::{
        json::typed,
        object::{self, hex, short},
        print::escape,
    },
    screens::{heads, names::Names},
    session::{Context, Lifetime},
};

/// List the keys that have several heads, and their heads
///
/// A key gets several heads when nodes write it without knowing of each other's write. Reads return
/// the head with the star; the next put merges them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice conflicts
  lattice conflicts /notes/
  lattice conflicts --json | jq -r .key | sort -u
  lattice conflicts resolve /notes/a --pick 5683caaf")]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Conflicts {
    #[command(subcommand)]
    command: Option<ConflictsCommand>,
    /// Only keys that start with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: OsString,
    #[command(flatten)]
    flags: KeyFlags,
}

#[derive(Debug, Subcommand)]
enum ConflictsCommand {
    Resolve(Resolve),
}

/// Settle a conflict: one of the heads becomes the value of the key, on all nodes
///
/// Writes the value of that head again, with the time at which it expires, or deletes the key if the head
/// is a delete. If the heads of the key change meanwhile, nothing is written (exit 4): look at them again.
/// To write another value, use `put`, which settles a conflict, too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice conflicts
  lattice conflicts resolve /notes/a --pick 5683caaf    the head with this id
  lattice conflicts resolve /notes/a --pick kitchen     the head that the node kitchen wrote")]
struct Resolve {
    /// The key
    key: OsString,
    /// The head: the first digits of its id, or the name or id of the node that wrote it
    #[arg(long, value_name = "HEAD")]
    pick: String,
    #[command(flatten)]
    flags: KeyFlags,
}

impl Conflicts {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        if let Some(ConflictsCommand::Resolve(resolve)) = self.command {
            return resolve.run(context).await;
        }
        let prefix = self.flags.key(self.prefix)?;
        let mut client = context.client(Lifetime::Short).await?;
        let store = context.store.clone();
        let request = api::ListRequest {
            store: store.clone(),
            prefix,
            keys_only: true,
            limit: 0,
            ..api::ListRequest::default()
        };
        let mut pages = client.list(request).await?.into_inner();
        let names = Names::fetch(&mut client).await?;
        let (mut found, mut is_empty) = (Vec::new(), true);
        while let Some(page) = pages.message().await? {
            for item in page.items.into_iter().filter(|item| item.heads > 1) {
                let request = api::HeadsRequest {
                    store: store.clone(),
                    key: item.key.clone(),
                };
                let heads = get::heads(&mut client, request).await?;
                found.push((item.key, heads));
                if found.len() == KEYS_AT_A_TIME {
                    print(context, &found, &names)?;
                    is_empty = false;
                    found.clear();
                }
            }
        }
        print(context, &found, &names)?;
        if is_empty && found.is_empty() {
            context.out.notice("no_conflicts", "no conflicts");
        }
        Ok(())
    }
}

impl Resolve {
    async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let key = self.flags.key(self.key)?;
        let mut client = context.client(Lifetime::Short).await?;
        let request = api::HeadsRequest {
            store: context.store.clone(),
            key: key.clone(),
        };
        let heads = get::heads(&mut client, request).await?;
        let names = Names::fetch(&mut client).await?;
        let picked = pick(&heads, &self.pick, &names, &escape(&key))?;
        let op = api::Op {
            key: key.clone(),
            delete: picked.kind == "delete",
            value: picked.value.clone(),
            expires_ms: picked.expires_ms,
            if_heads: heads.iter().map(id_of).collect(),
            ..api::Op::default()
        };
        let (did, written) = (
            if op.delete { "deleted" } else { "ok" },
            write(&mut client, &context.store, op).await?,
        );
        print_written(context, &written, did, &escape(&key))
    }
}

// The head that `text` names.
fn pick<'a>(
    heads: &'a [api::Head],
    text: &str,
    names: &Names,
    key: &str,
) -> Result<&'a api::Head, Failure> {
    if heads.len() < 2 {
        let message = match heads.len() {
            0 => format!("{key} was never written"),
            _one => format!("{key} has one head, so there is no conflict"),
        };
        return Err(Failure::new(Exit::Precondition, "no_conflict", message)
            .hint("`lattice conflicts` lists the keys that have several heads"));
    }
    let author = |head: &api::Head| head.entry.clone().unwrap_or_default().author;
    let start = text.to_ascii_lowercase();
    let is_named = |head: &&api::Head| names.of(&author(head)) == text;
    let by_id = |head: &&api::Head| {
        start.len() >= PICK_DIGITS_MIN
            && (hex(&id_of(head)).starts_with(&start) || hex(&author(head)).starts_with(&start))
    };
    let mut found: Vec<&api::Head> = heads.iter().filter(is_named).collect();
    if found.is_empty() {
        found = heads.iter().filter(by_id).collect();
    }
    if let [picked] = found[..] {
        return Ok(picked);
    }
    let all: Vec<String> = heads
        .iter()
        .map(|head| format!("{} of {}", short(&id_of(head)), names.of(&author(head))))
        .collect();
    let (code, what) = match found.len() {
        0 => ("no_such_head", "no head"),
        _several => ("ambiguous", "more than one head"),
    };
    let message = format!(
        "--pick {text}: {what} of {key} is meant; its heads: {}",
        all.join(", ")
    );
    Err(Failure::usage(code, message)
        .hint("`lattice heads KEY` shows their values; the first digits of an id name one"))
}

fn id_of(head: &api::Head) -> Bytes {
    head.entry.clone().unwrap_or_default().id
}

// Writes `op`, whose condition must hold.
async fn write(client: &mut Client, store: &str, op: api::Op) -> Result<api::Written, Failure> {
    let request = api::PutStreamRequest {
        store: store.to_owned(),
        ops: vec![op],
    };
    let mut replies = client
        .put_stream(tokio_stream::once(request))
        .await?
        .into_inner();
    let reply = replies.message().await?.unwrap_or_default();
    let result = reply.results.into_iter().next().unwrap_or_default();
    if let Some(failed) = result.failed {
        let mut failure = Failure::from(ApiError::from_wire(failed));
        if failure.exit == Exit::Precondition {
            "the heads of the key have changed meanwhile: nothing was written"
                .clone_into(&mut failure.message);
            "`lattice conflicts` shows them as they are now".clone_into(&mut failure.hint);
        }
        return Err(failure);
    }
    result
        .written
        .ok_or_else(|| Failure::new(Exit::Unavailable, "unavailable", "the node ended the call"))
}

fn print(
    context: &mut Context,
    found: &[(Bytes, Vec<api::Head>)],
    names: &Names,
) -> Result<(), Failure> {
    let out = &mut context.out;
    if out.for_people() {
        let lines = heads::draw_all(found, names, &out.screen());
        return lines.iter().try_for_each(|line| out.line(line));
    }
    for (key, heads) in found {
        if !out.json {
            out.line(&escape(key))?;
        }
        for head in heads {
            match out.json {
                true => out.object(&typed("head", object::Head::new(key, head)))?,
                false => print_head(out, head)?,
            }
        }
    }
    Ok(())
}

/// Fewest digits of an id that name a head.
const PICK_DIGITS_MIN: usize = 4;
/// Keys whose heads are kept and aligned together.
const KEYS_AT_A_TIME: usize = 1000;

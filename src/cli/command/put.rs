//! `put`: writes one key from the arguments, or many from lines of stdin.

use std::{
    ffi::OsString,
    io::{self, Read as _},
    os::unix::ffi::OsStringExt as _,
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use lattice::{
    api::{client::Client, whole},
    limits::VALUE_BYTES_MAX,
    wire::api,
};

use crate::cli::{
    command::{get, put_stream},
    exit::{Exit, Failure},
    input::{
        key::KeyFlags,
        lines::Format,
        time::{millis, parse_duration},
    },
    output::{
        ink::Ink,
        json::typed,
        object::{self, hex},
        print::escape,
    },
    session::{Context, Lifetime},
};

/// Set a key
///
/// Prints the id of the entry once it is on disk; on a terminal, the key and the first digits of it.
///
/// With --stdin, lines as `list`, `watch --tsv` and `log --tsv` print them are read back exactly
/// (--format tsv): a key, a tab, a value. In both, \\ is a backslash, \n a newline, \t a tab, \r a
/// carriage return and \xNN any byte. Notes may follow, each after a tab: expires_ms=TIME (ms since
/// 1970), ttl_ms=MS (from now), or `deleted` after an empty value. --format raw takes keys and values
/// as they are. --format json takes the lines that `list`, `watch`, `log` and `consumer next` print
/// with --json: key or key_base64, value or value_base64 or "delete": true, and ttl_ms or expires_ms;
/// an unknown field is an error. A delete of a key that has no value writes nothing; a note on stderr
/// says how many there were.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice put /hello world
  lattice put /hello world --wait-for 2
  lattice put /jobs/7/lease worker-3 --ttl 30s --if-absent
  date | lattice put /clock -
  lattice put /logo --file logo.png
  dpkg-query -W -f '/packages/${Package}\\t${Version}\\n' | lattice put --stdin
  lattice list /a/ > backup.tsv; lattice --store other put --stdin < backup.tsv
  lattice list /a/ --json | lattice --store other put --stdin --format json")]
pub(crate) struct Put {
    /// The key, 1 to 4096 bytes; by convention a path such as /nodes/7/state
    #[arg(required_unless_present = "stdin")]
    key: Option<OsString>,
    /// The value, up to 1 MiB; `-` reads it from stdin
    #[arg(required_unless_present_any = ["stdin", "file"], allow_hyphen_values = true)]
    value: Option<OsString>,
    #[command(flatten)]
    flags: KeyFlags,
    /// Read the value from a file
    #[arg(long, value_name = "PATH", conflicts_with = "value")]
    file: Option<PathBuf>,
    /// Read keys and values from stdin, one pair per line, each a write of its own
    #[arg(long, conflicts_with_all = ["key", "value", "file", "if_absent", "if_head"])]
    stdin: bool,
    /// Format of the lines of --stdin
    #[arg(long, value_enum, default_value_t = Format::Tsv, requires = "stdin")]
    format: Format,
    /// Expire the value after this long: 30s, 5m, 2h, 7d; watchers then get `expire`
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// Write only if the key has no value; else exit 4
    #[arg(long, conflicts_with = "if_head")]
    if_absent: bool,
    /// Write only if reads return this entry (an id, or its first digits); else exit 4
    #[arg(long, value_name = "ENTRY")]
    if_head: Option<String>,
    /// Wait until this many members have it on disk, this node included; exit 8 after --timeout
    #[arg(long, value_name = "MEMBERS", conflicts_with = "stdin")]
    wait_for: Option<u32>,
    /// How long --wait-for waits; the write stays written
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "30s",
        value_parser = parse_duration,
        requires = "wait_for"
    )]
    timeout: Duration,
}

impl Put {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let ttl_ms = self.ttl.map(millis);
        if self.stdin {
            return put_stream::put_lines(context, None, self.format, ttl_ms).await;
        }
        let key = self.flags.key(self.key.unwrap_or_default())?;
        let value = match (self.value, self.file) {
            (_, Some(path)) => read_file(path).await?,
            (Some(value), None) if value == "-" => read_stdin().await?,
            (value, None) => value.unwrap_or_default().into_vec().into(),
        };
        let mut client = context.client(Lifetime::Short).await?;
        if let Some(wanted) = self.wait_for {
            check_members(&mut client, wanted).await?;
        }
        let if_head = match &self.if_head {
            Some(head) => find_head(&mut client, &context.store, &key, head).await?,
            None => Bytes::new(),
        };
        let request = api::PutRequest {
            store: context.store.clone(),
            key: key.clone(),
            value,
            ttl_ms,
            if_absent: self.if_absent,
            if_head,
        };
        let written = client.put(request).await?.into_inner();
        print_written(context, &written, "ok", &escape(&key))?;
        match self.wait_for {
            Some(members) => wait_for(context, &written, members, self.timeout).await,
            None => Ok(()),
        }
    }
}

// Checks that there are `wanted` members: otherwise no wait for them ends.
async fn check_members(client: &mut Client, wanted: u32) -> Result<(), Failure> {
    let peers = whole::peers(client).await?.peers;
    let is_member = |peer: &&api::Peer| !matches!(peer.role.as_str(), "removed" | "spent");
    let members = peers.iter().filter(is_member).count() + 1;
    if usize::try_from(wanted).is_ok_and(|wanted| wanted <= members) {
        return Ok(());
    }
    let message = format!(
        "--wait-for {wanted} asks for more members than there are ({members}); nothing was written"
    );
    Err(Failure::new(Exit::Precondition, "too_few_members", message)
        .hint("`lattice peers` lists them; this node counts, too"))
}

async fn wait_for(
    context: &mut Context,
    written: &api::Written,
    members: u32,
    timeout: Duration,
) -> Result<(), Failure> {
    context.out.flush()?;
    let mut client = context.client(Lifetime::Short).await?;
    let request = api::WaitForRequest {
        store: context.store.clone(),
        author: written.author.clone(),
        seq: written.seq,
        entry: written.entry.clone(),
        members,
        timeout_ms: millis(timeout),
    };
    let have = client.wait_for(request).await?.into_inner().members;
    if have >= members {
        return Ok(());
    }
    let message =
        format!("{have} of {members} members have it on disk after {timeout:?}; it is written");
    Err(Failure::new(Exit::TimedOut, "timed_out", message)
        .hint("`lattice status KEY` lists the members that have it, `lattice peers` those online"))
}

/// Prints the entry that was written: into a pipe its id, for people `did`, `what` and the first digits
/// of the id.
pub(crate) fn print_written(
    context: &mut Context,
    written: &api::Written,
    did: &str,
    what: &str,
) -> Result<(), Failure> {
    if context.out.json {
        let written = typed("written", object::Entry::from(written));
        context.out.object(&written)?;
    } else if context.out.for_people() {
        let screen = context.out.screen();
        let id = screen.id(&written.entry);
        let what = screen.fit(what, did.len() + id.len() + 4);
        let (did, id) = (screen.paint(Ink::Good, did), screen.paint(Ink::Dim, &id));
        context.out.line(&format!("{did}  {what}  {id}"))?;
    } else {
        context.out.line(&hex(&written.entry))?;
    }
    context.note_unsent_write();
    Ok(())
}

/// Returns the id of the head of `key` whose id is, or starts with, `text`.
pub(crate) async fn find_head(
    client: &mut Client,
    store: &str,
    key: &Bytes,
    text: &str,
) -> Result<Bytes, Failure> {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex || !(HEAD_DIGITS_MIN..=64).contains(&text.len()) {
        return Err(
            Failure::usage("bad_entry", format!("{text:?} is not an entry id")).hint(format!(
                "an entry id has 64 hex digits; the first {HEAD_DIGITS_MIN} are enough for a head"
            )),
        );
    }
    let text = text.to_ascii_lowercase();
    if text.len() == 64 {
        // Not looked up: the node compares it with the head in one step with the write.
        let id = text.parse::<lattice::id::EntryId>();
        let id = id.map_err(|error| Failure::usage("bad_entry", error.to_string()))?;
        return Ok(Bytes::copy_from_slice(&id.0));
    }
    let request = api::HeadsRequest {
        store: store.to_owned(),
        key: key.clone(),
    };
    let heads = get::heads(client, request).await?;
    let mut found = heads
        .into_iter()
        .filter_map(|head| head.entry)
        .map(|entry| entry.id)
        .filter(|id| hex(id).starts_with(&text));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(Failure::new(
            Exit::Precondition,
            "precondition_failed",
            format!("no head of the key has an id that starts with {text}"),
        )
        .hint("`lattice heads KEY` lists the heads")),
        (Some(_), Some(_)) => Err(Failure::usage(
            "ambiguous",
            format!("the ids of several heads start with {text}"),
        )
        .hint("give more digits")),
    }
}

async fn read_file(path: PathBuf) -> Result<Bytes, Failure> {
    let failed = |error| unreadable("file", &path.display().to_string(), &error);
    let file = tokio::fs::File::open(&path).await.map_err(failed)?;
    read_value(file.into_std().await).await.map_err(failed)
}

async fn read_stdin() -> Result<Bytes, Failure> {
    let failed = |error| unreadable("stdin", "stdin", &error);
    read_value(io::stdin()).await.map_err(failed)
}

// Reads a value. Of one that is too long only the limit is read, however long it is.
async fn read_value(from: impl io::Read + Send + 'static) -> io::Result<Bytes> {
    let limit = u64::try_from(VALUE_BYTES_MAX + 1).unwrap_or(u64::MAX);
    tokio::task::spawn_blocking(move || {
        let mut value = Vec::new();
        from.take(limit).read_to_end(&mut value)?;
        if value.len() > VALUE_BYTES_MAX {
            let what = format!("it has more than {VALUE_BYTES_MAX} bytes, the limit of a value");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        Ok(value.into())
    })
    .await
    .map_err(io::Error::other)?
}

// Returns the failure of a value that could not be read from `source`.
fn unreadable(code: &str, source: &str, error: &io::Error) -> Failure {
    let message = format!("cannot read {source}: {error}");
    match error.kind() {
        io::ErrorKind::FileTooLarge => Failure::usage("value_too_long", message)
            .hint("keep large data in a file and put its path or hash into the value"),
        _other => Failure::failed(code, message),
    }
}

/// Fewest digits that name a head.
const HEAD_DIGITS_MIN: usize = 4;

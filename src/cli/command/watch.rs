//! `watch`: prints the changes of keys as they happen.

use std::{
    ffi::OsString,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use lattice::{
    api::{client::Client, whole},
    clock::Clock,
    wire::api::{self, watch_reply::Event, watch_request::Start},
};

use crate::cli::{
    command::{
        get::{conflict_suffix, heads},
        tree,
    },
    exit::{Exit, Failure},
    input::{
        author,
        key::KeyFlags,
        time::{When, brief, parse_duration, parse_past, parse_when},
    },
    output::{
        event,
        object::{hex, incomplete, short},
        print::{Output, escape, harmless, stderr_line, stdout_closed},
        tsv,
        vocabulary::NodeNames,
        width::shorten,
    },
    reconnect::Backoff,
    screens::{changes, names::Names},
    session::Context,
};

/// Print the changes of keys as they happen
///
/// Prints the current state first, then every change, each once. On a terminal, the line `-- live --`
/// is between them, and the state has the age of each value. If the node disconnects, waits for it and
/// goes on from the last position. If history is missing, prints a `gap` and the state again.
///
/// `(late)` marks a change over which a newer one of its key was already known here: it is history,
/// and not what reads return. `CONFLICT`, in a pipe `!conflict`, marks a key that was written in several
/// places at once; see `lattice heads`. An `expire` line has the time at which the value expired.
///
/// With --tree, a live screen has the prefixes of the keys on the left, split at `/`, and the keys below the
/// chosen one on the right. The arrows move, Tab changes the side, `/` filters the keys, Enter on a key shows its
/// history, Esc goes back, and q leaves.
///
/// With no node running, the watch is the node until it ends. At a SIGHUP, as when its terminal is
/// closed, it ends like at Ctrl-C, unless it was started with nohup; only `lattice up` goes on.
#[derive(Debug, Args)]
#[command(visible_aliases = ["subscribe", "sub"], after_help = "\
Examples:
  lattice watch /nodes/
  lattice watch --tree                               a live screen of all keys
  lattice watch /jobs/ --no-initial --only put
  lattice watch /nodes/ -g '/jobs/*/done'            a prefix and a pattern
  lattice watch /hello --exact -n 1 --timeout 30s    wait for one change
  lattice watch / --since 2h --until-caught-up       what happened in the last two hours
  lattice watch / --since 2026-11-21 --until 1d      what happened until this time yesterday
  lattice watch / --arrived-since 2h                 also changes written earlier that came late
  lattice watch /jobs/ --json --cursors | my-worker  later go on with --after and the last cursor
  lattice watch /audit/ --json --proof >> audit.jsonl  later check with `lattice verify --lines`
  lattice watch /jobs/ --after CURSOR --wait         go on after the cursor on another node")]
pub(crate) struct Watch {
    /// Only keys that start with this, byte by byte: /jobs/1 also matches /jobs/10
    #[arg(value_name = "PREFIX")]
    prefixes: Vec<OsString>,
    #[command(flatten)]
    flags: KeyFlags,
    /// Match the keys exactly, not as prefixes
    #[arg(long, requires = "prefixes")]
    exact: bool,
    /// Also keys that match: * matches bytes other than /, ** any bytes, ? one byte other than /
    #[arg(short, long = "glob", value_name = "PATTERN")]
    globs: Vec<String>,
    /// Begin with the current state (the default)
    #[arg(long, conflicts_with_all = ["no_initial", "after", "since", "arrived_since"])]
    initial: bool,
    /// Begin with changes from now on
    #[arg(long, conflicts_with_all = ["after", "since", "arrived_since"])]
    no_initial: bool,
    /// Begin after a cursor that a watch of this store printed, here or on another node
    #[arg(long, value_name = "CURSOR", conflicts_with_all = ["since", "arrived_since"])]
    after: Option<String>,
    /// With --after: wait for entries of the cursor that this node is missing
    #[arg(long, requires = "after")]
    wait: bool,
    /// Begin with changes written since: 2h or 7d ago, 10:30, yesterday, a date, or an RFC 3339 time
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    since: Option<When>,
    /// Begin with changes that arrived here since, whenever they were written; times as for --since
    #[arg(long, value_name = "TIME", value_parser = parse_past, conflicts_with = "since")]
    arrived_since: Option<When>,
    /// Only changes written until then; ends once that time has passed and they are printed
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    until: Option<When>,
    /// If the watch falls behind, skip to the newest change of each key
    #[arg(long)]
    latest: bool,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
    /// Only changes of these kinds
    #[arg(long, value_name = "KIND", value_enum, value_delimiter = ',')]
    only: Vec<Only>,
    /// Only changes by this author: its name, its id, or the first digits of it
    #[arg(long, value_name = "AUTHOR")]
    author: Option<String>,
    /// Print a cursor with every change, even within an entry
    #[arg(long)]
    cursors: bool,
    /// Print puts and deletes as lines that `put --stdin` reads, and nothing else
    #[arg(long, conflicts_with_all = ["keys_only", "cursors", "proof"])]
    tsv: bool,
    /// With --json: add to each put and delete its entry, as the author signed it
    #[arg(long, conflicts_with = "keys_only")]
    proof: bool,
    /// With --json: add to caught_up and progress the root of the keys, as `lattice root --prefix PREFIX`
    /// prints it on every node with the same state; absent while changes are on their way
    #[arg(long, conflicts_with_all = ["exact", "globs", "tsv"])]
    hash: bool,
    /// End once the state, or the history since the start, is complete
    #[arg(long)]
    until_caught_up: bool,
    /// End after this many changes
    #[arg(short = 'n', long = "limit", short_alias = 'c', alias = "count", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this long, with exit 8
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Exit with 5 if the node disconnects
    #[arg(long)]
    no_reconnect: bool,
    /// Show the keys on a live screen, as a tree of their prefixes
    #[arg(long, conflicts_with_all = [
        "exact", "globs", "initial", "no_initial", "after", "since", "arrived_since", "until", "latest", "keys_only",
        "only", "author", "cursors", "tsv", "proof", "hash", "until_caught_up", "count", "timeout", "no_reconnect",
    ])]
    tree: bool,
}

/// Kinds of changes that `--only` selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    Put,
    Delete,
    Expire,
    /// Heads that changed because entries of a removed node no longer count
    Retract,
    /// Changes after which the key has several heads
    Conflict,
}

impl Watch {
    /// Runs the command until it ends, is stopped, or stdout is closed.
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        if self.tree {
            tree::check(context)?;
            let mut prefixes = self.flags.keys(self.prefixes)?;
            if prefixes.len() > 1 {
                let message = "--tree shows the keys under one prefix";
                return Err(Failure::usage("too_many_prefixes", message));
            }
            return tree::run(context, prefixes.pop().unwrap_or_default()).await;
        }
        if self.proof && !context.out.json {
            return Err(Failure::usage("proof_without_json", "--proof needs --json"));
        }
        let (mut client, is_connected) = context.client_to_follow().await?;
        let author = match &self.author {
            Some(text) => author::resolve(&mut client, text).await?,
            None => Vec::new().into(),
        };
        let (timeout, cursors) = (self.timeout, self.cursors);
        let mut follow = Follow {
            reconnects: is_connected && !self.no_reconnect,
            cursors,
            tsv: self.tsv,
            count: self.count,
            until_caught_up: self.until_caught_up,
            ..Follow::new(client, self.request(context.store.clone(), author)?)
        };
        let down = context.down_requested();
        let timed_out = async {
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = follow.run(&mut context.out) => result,
            () = stdout_closed() => Err(Failure::pipe_closed()),
            // This process is the node, and `lattice down` asks it to stop.
            () = down => Ok(()),
            () = timed_out => {
                let after = timeout.unwrap_or_default();
                Err(Failure::new(Exit::TimedOut, "timed_out", format!("timed out after {after:?}")))
            }
        }
    }

    fn request(self, store: String, author: bytes::Bytes) -> Result<api::WatchRequest, Failure> {
        let kind = |only: &Only| match only {
            Only::Put => Some("put"),
            Only::Delete => Some("delete"),
            Only::Expire => Some("expire"),
            Only::Retract => Some("retract"),
            Only::Conflict => None,
        };
        let now_ms = Clock::system().now_ms();
        let bytes = |text: String| bytes::Bytes::from(text);
        Ok(api::WatchRequest {
            prefixes: self.flags.keys(self.prefixes)?,
            patterns: self.globs.into_iter().map(bytes).collect(),
            exact: self.exact,
            start: Some(match (self.after, self.since, self.arrived_since) {
                (Some(cursor), _, _) => Start::After(cursor),
                (None, Some(when), _) => Start::SinceAuthoredMs(when.at_ms(now_ms)),
                (None, None, Some(when)) => Start::SinceArrivedMs(when.at_ms(now_ms)),
                (None, None, None) if self.no_initial => Start::Now(true),
                (None, None, None) => Start::Initial(true),
            }),
            until_ms: self.until.map(|when| when.at_ms(now_ms)),
            wait: self.wait,
            latest: self.latest,
            proofs: self.proof,
            hashes: self.hash,
            keys_only: self.keys_only,
            kinds: self
                .only
                .iter()
                .filter_map(kind)
                .map(str::to_owned)
                .collect(),
            conflicts_only: self.only.contains(&Only::Conflict),
            author,
            ..request(store, bytes::Bytes::new())
        })
    }
}

/// Makes the request for all changes under `prefix`, after the state.
///
/// It always asks for cursors, because the connection may break at any change.
pub(crate) fn request(store: String, prefix: bytes::Bytes) -> api::WatchRequest {
    api::WatchRequest {
        store,
        prefix,
        start: Some(Start::Initial(true)),
        cursors: true,
        ..api::WatchRequest::default()
    }
}

/// A watch that can go on over several connections.
#[derive(Debug)]
pub(crate) struct Follow {
    client: Client,
    // `start` is moved to each new cursor: the next connection begins there.
    request: api::WatchRequest,
    reconnects: bool,
    // Whether changes are printed with their cursor.
    cursors: bool,
    // Whether only puts and deletes are printed, as lines of `put --stdin`.
    tsv: bool,
    // Changes that are still to be printed; `None` means no limit.
    count: Option<u64>,
    until_caught_up: bool,
    // True during the state, which comes in the order of keys: its cursors stay at the position
    // before it.
    is_filling: bool,
    // True once the reader knows that this node was removed from the mesh.
    is_removed: bool,
    // True once an event was printed that a new start would repeat.
    has_printed: bool,
    // Number of values that could not be read.
    damaged: u64,
    // Names of the members, as of `named_at`; only asked for if people read the lines.
    names: Names,
    named_at: Option<Instant>,
}

impl Follow {
    /// Makes a watch that does not reconnect and never ends.
    pub(crate) fn new(client: Client, request: api::WatchRequest) -> Self {
        Self {
            client,
            is_filling: matches!(request.start, Some(Start::Initial(_))),
            is_removed: false,
            request,
            reconnects: false,
            cursors: false,
            tsv: false,
            count: None,
            until_caught_up: false,
            has_printed: false,
            damaged: 0,
            names: Names::default(),
            named_at: None,
        }
    }

    /// Prints events until the count or the end is reached; reconnects if it may.
    pub(crate) async fn run(&mut self, out: &mut Output) -> Result<(), Failure> {
        let mut backoff = Backoff::default();
        loop {
            let lost = match self.stream(out, &mut backoff).await {
                Ok(()) => return self.result(),
                Err(failure) if self.reconnects && failure.exit == Exit::Unavailable => failure,
                ended => return ended,
            };
            if backoff.lost(&lost, out) {
                self.start_again(out)?;
            }
            backoff.wait().await;
        }
    }

    // Returns a failure if any value could not be read.
    fn result(&self) -> Result<(), Failure> {
        let message = match self.damaged {
            0 => return Ok(()),
            1 => "1 value could not be read".to_owned(),
            count => format!("{count} values could not be read"),
        };
        Err(Failure::new(Exit::Damaged, "damaged", message)
            .hint("`lattice verify` reports what is damaged and where"))
    }

    // Prints events until the end, or until the connection is lost.
    async fn stream(&mut self, out: &mut Output, backoff: &mut Backoff) -> Result<(), Failure> {
        let mut replies = self.client.watch(self.request.clone()).await?.into_inner();
        backoff.connected(out);
        while let Some(reply) = replies.message().await? {
            if self.print(reply, out).await? {
                return Ok(());
            }
        }
        if self.request.until_ms.is_some() {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Unavailable,
            "unavailable",
            "the node ended the watch",
        ))
    }

    // Prints an event; returns true if it was the last one to print.
    async fn print(&mut self, reply: api::WatchReply, out: &mut Output) -> Result<bool, Failure> {
        let event = reply.event.ok_or_else(|| incomplete("an event"))?;
        match &event {
            Event::Gap(_) => self.is_filling = true,
            Event::CaughtUp(_) => self.is_filling = false,
            Event::Damaged(_) => self.damaged += 1,
            Event::Progress(progress) => self.note_removal(&progress.removed_by, out),
            Event::Change(_) => {}
        }
        let cursor = Some(reply.cursor).filter(|cursor| !cursor.is_empty());
        if let Some(cursor) = &cursor
            && !self.is_filling
        {
            self.request.start = Some(Start::After(cursor.clone()));
        }
        let is_last = match &event {
            Event::Change(_) => {
                self.count = self.count.map(|count| count - 1);
                self.count == Some(0)
            }
            Event::CaughtUp(_) => self.until_caught_up,
            Event::Progress(_) | Event::Gap(_) | Event::Damaged(_) => false,
        };
        self.has_printed = true;
        let shown = cursor.filter(|_| self.cursors || !matches!(event, Event::Change(_)));
        if out.json {
            if let Event::Change(change) = &event {
                self.learn_names_beside(change, out).await;
            }
            out.object(&to_object(&event, shown))?;
        } else if let Event::Damaged(it) = &event {
            let (key, what) = (escape(&it.key), harmless(&it.what));
            stderr_line(&format!("damaged: {key} cannot be read: {what}"));
        } else if self.tsv {
            match &event {
                Event::Change(change) => tsv_line(change).map_or(Ok(()), |line| out.line(&line))?,
                Event::Gap(gap) => out.notice("gap", &harmless(&gap.reason)),
                Event::CaughtUp(_) | Event::Progress(_) | Event::Damaged(_) => {}
            }
        } else if out.for_people() {
            self.show(&event, shown.filter(|_| self.cursors), out)
                .await?;
        } else if let Some(line) = to_line(&event, shown.filter(|_| self.cursors)) {
            out.line(&line)?;
        }
        out.flush()?;
        Ok(is_last)
    }

    // Prints an event for people: with names, with all values of a conflict, and with a line where the
    // state ends. Without an answer of the node there are ids and no values, and no event is lost.
    async fn show(
        &mut self,
        event: &Event,
        cursor: Option<String>,
        out: &mut Output,
    ) -> Result<(), Failure> {
        let screen = out.screen();
        match event {
            Event::Change(change) => {
                self.learn_names(change).await;
                let heads = match change.conflict {
                    true => {
                        let request = api::HeadsRequest {
                            store: self.request.store.clone(),
                            key: change.key.clone(),
                        };
                        heads(&mut self.client, request).await.unwrap_or_default()
                    }
                    false => Vec::new(),
                };
                out.line(&changes::line(change, &heads, &self.names, &screen))?;
            }
            Event::Gap(gap) => out.line(&changes::gap(gap, &screen))?,
            Event::CaughtUp(_) if !self.until_caught_up => out.line(&changes::live(&screen))?,
            Event::CaughtUp(_) | Event::Progress(_) | Event::Damaged(_) => {}
        }
        match cursor {
            Some(cursor) => out.line(&format!("-- cursor {cursor} --")),
            None => Ok(()),
        }
    }

    // Asks for the names of the members, if that was long ago or the author of a change is unknown.
    async fn learn_names(&mut self, change: &api::Change) {
        let author = change.entry.as_ref().map(|entry| &entry.author);
        let is_known = author.is_some_and(|author| self.names.knows(author));
        let may_be_old = if is_known {
            NAMES_KEPT
        } else {
            NAMES_KEPT_IF_UNKNOWN
        };
        if self.named_at.is_some_and(|at| at.elapsed() < may_be_old) {
            return;
        }
        self.named_at = Some(Instant::now());
        if let Ok(names) = Names::fetch(&mut self.client).await {
            self.names = names;
        }
    }

    // Asks for the names of the members again, if objects lack the name of an author.
    async fn learn_names_beside(&mut self, change: &api::Change, out: &mut Output) {
        let author = change.entry.as_ref().map(|entry| &entry.author);
        let is_old = |at: Instant| at.elapsed() >= NAMES_KEPT_IF_UNKNOWN;
        if author.is_some_and(|author| out.wants_name(author)) && self.named_at.is_none_or(is_old) {
            self.named_at = Some(Instant::now());
            if let Ok(reply) = whole::peers(&mut self.client).await {
                out.set_names(NodeNames::new(reply.own.iter().chain(&reply.peers)));
            }
        }
    }

    // Prints, once, that no changes of other nodes come any more.
    fn note_removal(&mut self, by: &[u8], out: &Output) {
        if by.is_empty() || self.is_removed {
            return;
        }
        self.is_removed = true;
        out.notice(
            "removed",
            "this node is no longer a member of the mesh: no changes of other nodes come any more",
        );
    }

    // Decides where the next connection begins. Without a cursor, the same start would repeat the
    // state (`Initial`) or miss changes (`Now`); then this prints a gap and begins with the state.
    fn start_again(&mut self, out: &mut Output) -> Result<(), Failure> {
        let repeats = matches!(self.request.start, Some(Start::Initial(_))) && self.has_printed;
        let misses = matches!(self.request.start, Some(Start::Now(_)));
        if !(repeats || misses) {
            return Ok(());
        }
        self.request.start = Some(Start::Initial(true));
        self.is_filling = true;
        let reason = "the connection was lost before the first cursor".to_owned();
        let gap = Event::Gap(api::Gap {
            reason,
            reach_ms: None,
        });
        if out.json {
            out.object(&to_object(&gap, None))?;
        } else if let Some(line) = to_line(&gap, None) {
            out.line(&line)?;
        }
        out.flush()
    }
}

fn to_object(event: &Event, cursor: Option<String>) -> event::Event<'_> {
    let marker = |r#type| event::Marker {
        reach_ms: None,
        r#type,
        reason: None,
        now_ms: None,
        root: None,
        cursor: cursor.clone(),
    };
    let root = |root: &bytes::Bytes| (!root.is_empty()).then(|| hex(root));
    event::Event::Marker(match event {
        Event::Change(change) => {
            return event::Event::Change(Box::new(event::Change::new(change, cursor)));
        }
        Event::Damaged(it) => return event::Event::Damaged(event::Damaged::new(it)),
        Event::CaughtUp(it) => event::Marker {
            root: root(&it.root),
            ..marker("caught_up")
        },
        Event::Progress(it) => event::Marker {
            now_ms: Some(it.now_ms),
            root: root(&it.root),
            ..marker("progress")
        },
        Event::Gap(it) => event::Marker {
            reach_ms: it.reach_ms,
            reason: Some(it.reason.clone()),
            ..marker("gap")
        },
    })
}

// Returns an event as a line for a pipe; `None` if it has none.
fn to_line(event: &Event, cursor: Option<String>) -> Option<String> {
    let change = match event {
        Event::Change(change) => change,
        Event::Gap(gap) => {
            return Some(format!(
                "-- gap: {}; the state follows --",
                changes::reason(gap)
            ));
        }
        Event::CaughtUp(_) | Event::Progress(_) | Event::Damaged(_) => {
            return cursor.map(|cursor| format!("-- cursor {cursor} --"));
        }
    };
    Some(line(change, cursor, None))
}

// Returns a change as a line that `put --stdin` reads; `None` if no write repeats it. The put of a
// value that expired has its expiry.
fn tsv_line(change: &api::Change) -> Option<String> {
    match (change.kind.as_str(), &change.value) {
        ("put", Some(value)) => Some(tsv::put(&change.key, value, change.expires_ms)),
        ("delete", _) => Some(tsv::delete(&change.key)),
        _view => None,
    }
}

/// Returns a change as a line of a pipe or of a consumer's changes, shortened to `columns`.
pub(crate) fn line(change: &api::Change, cursor: Option<String>, columns: Option<usize>) -> String {
    let entry = change.entry.clone().unwrap_or_default();
    // Nobody writes an expiry: it has the time at which the value expired.
    let expired_ms = change.expires_ms.filter(|_| change.kind == "expire");
    let at_ms = expired_ms.unwrap_or(entry.wall_ms);
    let time = brief(at_ms, Clock::system().now_ms());
    if let Some(gap) = &change.gap {
        let time = brief(change.arrived_ms, Clock::system().now_ms());
        return format!(
            "{time}  gap     {}; the state follows",
            changes::reason(gap)
        );
    }
    let mut text = format!("{time}  {:<7} {}", change.kind, escape(&change.key));
    if let Some(value) = &change.value {
        text.push_str("  ");
        text.push_str(&escape(value));
    }
    let heads = u32::try_from(change.heads.len()).unwrap_or(u32::MAX);
    let late = if change.late { " (late)" } else { "" };
    let tail = format!("  {}{late}{}", short(&entry.author), conflict_suffix(heads));
    // The key and the value are shortened; the author and a conflict are not.
    let room = columns.map_or(usize::MAX, |columns| columns.saturating_sub(tail.len()));
    let cursor = cursor
        .map(|cursor| format!("  {cursor}"))
        .unwrap_or_default();
    format!("{}{tail}{cursor}", shorten(&text, room))
}

/// Time for which the names of members are kept.
const NAMES_KEPT: Duration = Duration::from_secs(60);
/// Time for which they are kept if the author of a change is not among them.
const NAMES_KEPT_IF_UNKNOWN: Duration = Duration::from_secs(5);

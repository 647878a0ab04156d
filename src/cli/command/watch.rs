//! `watch`: head changes of some keys, as they happen.

use std::time::Duration;

use clap::{Args, ValueEnum};
use lattice::{
    api::client::Client,
    clock::Clock,
    wire::api::{self, watch_reply::Event, watch_request::Start},
};

use crate::cli::{
    command::get::mark,
    exit::{Exit, Failure},
    input::{
        author,
        time::{When, brief, parse_duration, parse_when},
    },
    output::{
        event,
        object::{incomplete, short},
        print::{Output, complain, cut, escape, stdout_closed},
    },
    reconnect::Pause,
    session::Context,
};

/// Stream the changes of keys under some prefixes
///
/// The state first, then every change as it happens, each once. When the node goes away, waits
/// and goes on where it was; when history is gone, says so with a `gap`.
#[derive(Debug, Args)]
#[command(visible_aliases = ["subscribe", "sub"], after_help = "\
Examples:
  lattice watch /nodes/
  lattice watch /jobs/ --no-initial --only put
  lattice watch /nodes/ -g '/jobs/*/done'            all of one, and some of the other
  lattice watch /hello --exact -c 1 --timeout 30s    wait for one change
  lattice watch / --since 2h --until-caught-up       what happened in the last two hours
  lattice watch / --since 2026-11-21 --until 1d      what happened until this time yesterday
  lattice watch / --arrived-since 2h                 also what was written earlier and came late
  lattice watch /jobs/ --json --cursors | my-worker  and later --after the last cursor
  lattice watch /audit/ --json --proof >> audit.jsonl  and later `lattice verify --lines`
  lattice watch /jobs/ --after CURSOR --wait         on another node: exactly the rest")]
pub(crate) struct Watch {
    /// Only keys that start with this, byte by byte: /jobs/1 also matches /jobs/10
    #[arg(value_name = "PREFIX")]
    prefixes: Vec<String>,
    /// Only these very keys
    #[arg(long, requires = "prefixes")]
    exact: bool,
    /// Also keys that match: * is any run of bytes but /, ** any run, ? one byte but /
    #[arg(short, long = "glob", value_name = "PATTERN")]
    globs: Vec<String>,
    /// Begin with the state as it is: the default
    #[arg(long, conflicts_with_all = ["no_initial", "after", "since", "arrived_since"])]
    initial: bool,
    /// Begin with what happens from now on
    #[arg(long, conflicts_with_all = ["after", "since", "arrived_since"])]
    no_initial: bool,
    /// Begin after a cursor that a watch of this store printed, here or on another node
    #[arg(long, value_name = "CURSOR", conflicts_with_all = ["since", "arrived_since"])]
    after: Option<String>,
    /// With --after: wait for what the cursor knows and this node lacks
    #[arg(long, requires = "after")]
    wait: bool,
    /// Begin with what was written since: 30s, 5m, 2h, 7d, a date, or an RFC 3339 time
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    since: Option<When>,
    /// Begin with what arrived here since, whenever it was written: times as for --since
    #[arg(long, value_name = "TIME", value_parser = parse_when, conflicts_with = "since")]
    arrived_since: Option<When>,
    /// Only what was written until then; ends when that has passed and is told
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    until: Option<When>,
    /// When behind, skip to the newest change of each key
    #[arg(long)]
    latest: bool,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
    /// Only changes of these kinds
    #[arg(long, value_name = "KIND", value_enum, value_delimiter = ',')]
    only: Vec<Only>,
    /// Only changes by this author: 64 hex digits, or the first few
    #[arg(long, value_name = "AUTHOR")]
    author: Option<String>,
    /// Print a cursor with every change, also inside an entry
    #[arg(long)]
    cursors: bool,
    /// With --json: put the entry as its author signed it on every put and delete
    #[arg(long, conflicts_with = "keys_only")]
    proof: bool,
    /// End when the state, or the past, is complete
    #[arg(long)]
    until_caught_up: bool,
    /// End after so many changes
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this long, with exit 8
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// End with exit 5 when the node goes away
    #[arg(long)]
    no_reconnect: bool,
}

/// What `--only` selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    Put,
    Delete,
    Expire,
    /// Changes after which the key has several heads
    Conflict,
}

impl Watch {
    /// Runs the command until it ends, is stopped, or nobody reads any more.
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        if self.proof && !context.out.json {
            return Err(Failure::usage(
                "proof_without_json",
                "--proof is for --json",
            ));
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
            count: self.count,
            until_caught_up: self.until_caught_up,
            ..Follow::new(client, self.request(context.store.clone(), author))
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
            // This is the node, and `lattice down` ends it.
            () = down => Ok(()),
            () = timed_out => {
                let after = timeout.unwrap_or_default();
                Err(Failure::new(Exit::TimedOut, "timed_out", format!("ended after {after:?}")))
            }
        }
    }

    fn request(self, store: String, author: bytes::Bytes) -> api::WatchRequest {
        let kind = |only: &Only| match only {
            Only::Put => Some("put"),
            Only::Delete => Some("delete"),
            Only::Expire => Some("expire"),
            Only::Conflict => None,
        };
        let now_ms = Clock::system().now_ms();
        let bytes = |text: String| bytes::Bytes::from(text);
        api::WatchRequest {
            prefixes: self.prefixes.into_iter().map(bytes).collect(),
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
            keys_only: self.keys_only,
            kinds: self
                .only
                .iter()
                .filter_map(kind)
                .map(str::to_owned)
                .collect(),
            conflicts_only: self.only.contains(&Only::Conflict),
            author,
            ..request(store, String::new())
        }
    }
}

/// Makes the request for everything under `prefix`, the state first.
///
/// With cursors always: the connection may break at any change.
pub(crate) fn request(store: String, prefix: String) -> api::WatchRequest {
    api::WatchRequest {
        store,
        prefix: prefix.into(),
        start: Some(Start::Initial(true)),
        cursors: true,
        ..api::WatchRequest::default()
    }
}

/// A watch that survives its connection.
#[derive(Debug)]
pub(crate) struct Follow {
    client: Client,
    // `start` moves along: it is where the next connection begins.
    request: api::WatchRequest,
    reconnects: bool,
    // Whether changes are printed with theirs.
    cursors: bool,
    // Changes that are still wanted; `None`: no end.
    count: Option<u64>,
    until_caught_up: bool,
    // True while the state comes, in the order of keys: a cursor then is still the one before.
    is_filling: bool,
    // True once something was printed that a new start would repeat.
    has_printed: bool,
    // Keys whose value could not be read.
    damaged: u64,
}

impl Follow {
    /// Makes a watch that does not reconnect and never ends.
    pub(crate) fn new(client: Client, request: api::WatchRequest) -> Self {
        Self {
            client,
            is_filling: matches!(request.start, Some(Start::Initial(_))),
            request,
            reconnects: false,
            cursors: false,
            count: None,
            until_caught_up: false,
            has_printed: false,
            damaged: 0,
        }
    }

    /// Prints events until enough is seen; over several connections, if it may.
    pub(crate) async fn run(&mut self, out: &mut Output) -> Result<(), Failure> {
        let mut pause = Pause::default();
        loop {
            let lost = match self.stream(out, &mut pause).await {
                Ok(()) => return self.damage(),
                Err(failure) if self.reconnects && failure.exit == Exit::Unavailable => failure,
                ended => return ended,
            };
            if pause.begin(&lost, out) {
                self.start_again(out)?;
            }
            pause.pass().await;
        }
    }

    fn damage(&self) -> Result<(), Failure> {
        let message = match self.damaged {
            0 => return Ok(()),
            1 => "1 value could not be read".to_owned(),
            count => format!("{count} values could not be read"),
        };
        Err(Failure::new(Exit::Damaged, "damaged", message)
            .hint("`lattice verify` says what is damaged and where"))
    }

    // One connection.
    async fn stream(&mut self, out: &mut Output, pause: &mut Pause) -> Result<(), Failure> {
        let mut replies = self.client.watch(self.request.clone()).await?.into_inner();
        pause.end(out);
        while let Some(reply) = replies.message().await? {
            if self.tell(reply, out)? {
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

    // Prints an event; true when it was the last one wanted.
    fn tell(&mut self, reply: api::WatchReply, out: &mut Output) -> Result<bool, Failure> {
        let event = reply.event.ok_or_else(|| incomplete("an event"))?;
        match &event {
            Event::Gap(_) => self.is_filling = true,
            Event::CaughtUp(_) => self.is_filling = false,
            Event::Damaged(_) => self.damaged += 1,
            Event::Change(_) | Event::Progress(_) => {}
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
            out.object(&to_object(&event, shown))?;
        } else if let Event::Damaged(it) = &event {
            let (key, what) = (escape(&it.key), escape(it.what.as_bytes()));
            complain(&format!("damaged: {key} cannot be read: {what}"));
        } else if let Some(line) = to_line(&event, shown.filter(|_| self.cursors), out.columns()) {
            out.line(&line)?;
        }
        out.flush()?;
        Ok(is_last)
    }

    // Decides where the next connection begins. Without a cursor a start is not where this one
    // was: then it says so, and gives the state again.
    fn start_again(&mut self, out: &mut Output) -> Result<(), Failure> {
        let begins_anew = matches!(self.request.start, Some(Start::Initial(_)));
        let begins_later = matches!(self.request.start, Some(Start::Now(_)));
        if !(begins_anew && self.has_printed || begins_later) {
            return Ok(());
        }
        self.request.start = Some(Start::Initial(true));
        self.is_filling = true;
        let reason = "the connection was lost before the first cursor".to_owned();
        let gap = Event::Gap(api::Gap { reason });
        if out.json {
            out.object(&to_object(&gap, None))?;
        } else if let Some(line) = to_line(&gap, None, None) {
            out.line(&line)?;
        }
        out.flush()
    }
}

fn to_object(event: &Event, cursor: Option<String>) -> event::Event<'_> {
    let mark = |r#type| event::Mark {
        r#type,
        reason: None,
        now_ms: None,
        cursor: cursor.clone(),
    };
    event::Event::Mark(match event {
        Event::Change(change) => {
            return event::Event::Change(Box::new(event::Change::new(change, cursor)));
        }
        Event::Damaged(it) => return event::Event::Damaged(event::Damaged::new(it)),
        Event::CaughtUp(_) => mark("caught_up"),
        Event::Progress(it) => event::Mark {
            now_ms: Some(it.now_ms),
            ..mark("progress")
        },
        Event::Gap(it) => event::Mark {
            reason: Some(it.reason.clone()),
            ..mark("gap")
        },
    })
}

// A line for people; `None`: nothing that they need to see.
fn to_line(event: &Event, cursor: Option<String>, columns: Option<usize>) -> Option<String> {
    let change = match event {
        Event::Change(change) => change,
        Event::Gap(gap) => {
            let reason = escape(gap.reason.as_bytes());
            return Some(format!("-- gap: {reason}; the state follows --"));
        }
        Event::CaughtUp(_) | Event::Progress(_) | Event::Damaged(_) => {
            return cursor.map(|cursor| format!("-- cursor {cursor} --"));
        }
    };
    Some(line(change, cursor, columns))
}

/// Returns a change as a line for people, cut to `columns`.
pub(crate) fn line(change: &api::Change, cursor: Option<String>, columns: Option<usize>) -> String {
    let entry = change.entry.clone().unwrap_or_default();
    let time = brief(entry.wall_ms, Clock::system().now_ms());
    let mut text = format!("{time}  {:<7} {}", change.kind, escape(&change.key));
    if let Some(value) = &change.value {
        text.push_str("  ");
        text.push_str(&escape(value));
    }
    let heads = u32::try_from(change.heads.len()).unwrap_or(u32::MAX);
    let late = if change.late { " (late)" } else { "" };
    let tail = format!("  {}{late}{}", short(&entry.author), mark(heads));
    // The key and the value give way; who wrote it and that it is contested do not.
    let room = columns.map_or(usize::MAX, |columns| columns.saturating_sub(tail.len()));
    let cursor = cursor
        .map(|cursor| format!("  {cursor}"))
        .unwrap_or_default();
    format!("{}{tail}{cursor}", cut(&text, room))
}

//! `on`: acts on each change, for as long as the command runs.

use std::{
    collections::{BTreeSet, VecDeque},
    ffi::OsString,
    io::Write as _,
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use lattice::{
    api::{client::Client, whole},
    clock::Clock,
    hooks::{
        self, Action, Captured, Command, HookError, HooksError, Job, Named, Ran, RunId, Secret,
    },
    wire::api::{self, watch_reply::Event, watch_request::Start},
};
use tokio::task::JoinSet;

use crate::cli::{
    command::{hook::object, watch},
    exit::{Exit, Failure},
    input::{
        action_flags::ActionArgs,
        key::KeyFlags,
        time::{When, parse_duration, parse_past},
    },
    output::{
        event,
        json::typed,
        object::{hex, incomplete},
        print::{Output, escape, harmless, stderr_line, stdout_closed},
        vocabulary::{NodeNames, to_line},
    },
    place::current_dir,
    reconnect::Backoff,
    session::Context,
    signals::{self, second_interrupt},
};

/// Run a command, or post to a URL, for each change while this runs
///
/// The command gets the change on stdin, as a line of `lattice watch --json`. Its environment has
/// PATH, HOME, LATTICE_DATA, LATTICE_STORE, LATTICE_KEY, LATTICE_KIND, LATTICE_ENTRY,
/// LATTICE_RUN_ID and LATTICE_ATTEMPT, and nothing else. It is started directly, not by a shell. A
/// run that fails is reported and not tried again, and changes after this ends are not handled: for
/// changes that must not be missed, use `lattice hook add`. At a SIGHUP, as when its terminal is closed,
/// it ends like at Ctrl-C, unless it was started with nohup.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice on /deploy/ -- ./deploy.sh
  lattice on /pages/ --latest -- ./render --all
  lattice on /jobs/ --parallel 4 --initial -- sh -c 'echo \"$LATTICE_KEY\"; jq -r .value'
  lattice on /alerts/ --http http://127.0.0.1:8080/alert")]
pub(crate) struct On {
    /// Only keys that start with this, byte by byte
    prefix: OsString,
    #[command(flatten)]
    flags: KeyFlags,
    /// While changes of a key wait, keep only the newest
    #[arg(long)]
    latest: bool,
    /// Begin with the current state: a run for each key
    #[arg(long, conflicts_with = "since")]
    initial: bool,
    /// Begin with changes written since: 2h or 7d ago, 10:30, yesterday, a date, or an RFC 3339 time
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    since: Option<When>,
    /// Number of runs at a time; never two for one key
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// Kill a run that takes longer, with all processes it has started
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    timeout: Duration,
    /// End after this many runs
    #[arg(short = 'n', long = "limit", short_alias = 'c', alias = "count", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    action: ActionArgs,
}

impl On {
    /// Follows the changes until the command is stopped or `--limit` runs have ended.
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        // From here on, a signal ends the loop below, which kills the running commands. They are in
        // process groups of their own and would not get the signal.
        let signal = signals::listen_for_end()?;
        tokio::spawn(second_interrupt());
        let action = self.action()?;
        let prefix = self.flags.key(self.prefix.clone())?;
        let (client, reconnects) = context.client_to_follow().await?;
        let start = match self.since {
            Some(when) => Start::SinceAuthoredMs(when.at_ms(Clock::system().now_ms())),
            None if self.initial => Start::Initial(true),
            None => Start::Now(true),
        };
        let down = context.down_requested();
        let mut runs = Runs {
            data_dir: context.place.data_dir.clone(),
            store: context.store.clone(),
            action,
            is_filling: matches!(start, Start::Initial(_)),
            request: api::WatchRequest {
                start: Some(start),
                ..watch::request(context.store.clone(), prefix)
            },
            left: self.count,
            on: self,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            keys: BTreeSet::new(),
            tasks: JoinSet::new(),
            names: NodeNames::default(),
            ended: 0,
            failed: 0,
        };
        let result = tokio::select! {
            result = runs.follow(client, reconnects, &mut context.out) => result,
            () = stdout_closed() => Err(Failure::pipe_closed()),
            // This process is the node, and `lattice down` asks it to stop.
            () = down => Ok(()),
            () = signal => Err(Failure::interrupted()),
        };
        runs.tasks.shutdown().await;
        result
    }

    fn action(&self) -> Result<Action, Failure> {
        let failure = |error: HooksError| Failure::from(lattice::api::error::ApiError::from(error));
        let flags = &self.action;
        if let Some(url) = &flags.http {
            let file = flags.secret_file.clone().map(Secret::File);
            let secret = file.or_else(|| flags.secret_env.clone().map(Secret::Env));
            return Action::post(url, secret, flags.ca_file.as_deref()).map_err(failure);
        }
        let command = Command::new(&flags.command, &current_dir()?).ok_or(HookError::Action);
        Ok(Action::Run(command.map_err(|error| failure(error.into()))?))
    }
}

/// The changes that wait, and the runs.
struct Runs {
    on: On,
    action: Action,
    data_dir: PathBuf,
    store: String,
    // `start` is moved to each new cursor: the next connection begins there.
    request: api::WatchRequest,
    // True during the initial state, when cursors stay at the position before it.
    is_filling: bool,
    waiting: VecDeque<api::Change>,
    // Bytes of the keys and values in `waiting`.
    waiting_bytes: usize,
    // Keys of the changes that are running.
    keys: BTreeSet<Bytes>,
    tasks: JoinSet<(api::HookRun, Ran)>,
    // Names that the changes have beside the ids of authors, as of the beginning of the connection.
    names: NodeNames,
    // Runs that may still begin; `None` means no limit.
    left: Option<u64>,
    // Runs that have ended.
    ended: u64,
    // Runs that have ended and failed; part of `ended`.
    failed: u64,
}

impl Runs {
    // Follows the changes, over several connections if `reconnects`.
    async fn follow(
        &mut self,
        mut client: Client,
        reconnects: bool,
        out: &mut Output,
    ) -> Result<(), Failure> {
        let mut backoff = Backoff::default();
        loop {
            match self.connection(&mut client, out, &mut backoff).await {
                Err(lost) if reconnects && lost.exit == Exit::Unavailable => {
                    backoff.lost(&lost, out);
                    backoff.wait().await;
                }
                Ok(()) if self.failed > 0 => {
                    let message = format!("{} of {} runs failed", self.failed, self.ended);
                    return Err(Failure::new(Exit::Partly, "runs_failed", message));
                }
                ended => return ended,
            }
        }
    }

    async fn connection(
        &mut self,
        client: &mut Client,
        out: &mut Output,
        backoff: &mut Backoff,
    ) -> Result<(), Failure> {
        // Without an answer, the changes have ids alone.
        let names = whole::peers(client).await.unwrap_or_default();
        self.names = NodeNames::new(names.own.iter().chain(&names.peers));
        let mut replies = client.watch(self.request.clone()).await?.into_inner();
        backoff.connected(out);
        loop {
            self.start_runs();
            if self.left == Some(0) && self.tasks.is_empty() {
                return Ok(());
            }
            tokio::select! {
                reply = replies.message(), if self.has_room() => {
                    let reply = reply?.ok_or_else(|| {
                        Failure::new(Exit::Unavailable, "unavailable", "the node ended the watch")
                    })?;
                    self.handle(reply, out)?;
                }
                Some(ended) = self.tasks.join_next() => {
                    let (run, ran) =
                        ended.map_err(|error| Failure::failed("run", error.to_string()))?;
                    self.finish_run(run, &ran, out)?;
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX && self.waiting_bytes < WAITING_BYTES
    }

    fn handle(&mut self, reply: api::WatchReply, out: &Output) -> Result<(), Failure> {
        match reply.event.ok_or_else(|| incomplete("an event"))? {
            Event::Change(change) => self.enqueue(change),
            Event::CaughtUp(_) => self.is_filling = false,
            Event::Gap(gap) => {
                self.is_filling = true;
                let text = format!("{}; a run follows for every key", gap.reason);
                out.notice("gap", &harmless(&text));
            }
            Event::Damaged(damaged) => out.notice("damaged", &harmless(&damaged.what)),
            Event::Progress(_) => {}
        }
        if !self.is_filling && !reply.cursor.is_empty() {
            self.request.start = Some(Start::After(reply.cursor));
        }
        Ok(())
    }

    fn enqueue(&mut self, change: api::Change) {
        let same = |other: &&mut api::Change| other.key == change.key;
        self.waiting_bytes += bytes(&change);
        match self
            .waiting
            .iter_mut()
            .find(same)
            .filter(|_| self.on.latest)
        {
            Some(older) => {
                self.waiting_bytes -= bytes(older);
                *older = change;
            }
            None => self.waiting.push_back(change),
        }
    }

    // Starts every run that may start now: the oldest change of each key that is not running.
    fn start_runs(&mut self) {
        let mut at = 0;
        while self.tasks.len() < usize::from(self.on.parallel)
            && self.left != Some(0)
            && let Some(change) = self.waiting.get(at)
        {
            if self.keys.contains(&change.key) {
                at += 1;
                continue;
            }
            let Some(change) = self.waiting.remove(at) else {
                return;
            };
            self.waiting_bytes -= bytes(&change);
            self.left = self.left.map(|left| left - 1);
            self.keys.insert(change.key.clone());
            let (action, timeout) = (self.action.clone(), self.on.timeout);
            let (data_dir, store) = (self.data_dir.clone(), self.store.clone());
            let line = to_line(&event::Change::new(&change, None), &self.names) + "\n";
            self.tasks.spawn(async move {
                let place = [
                    ("LATTICE_DATA", data_dir.into()),
                    ("LATTICE_STORE", store.into()),
                ];
                run_one(&action, &change, line.into_bytes(), timeout, place).await
            });
        }
    }

    fn finish_run(
        &mut self,
        run: api::HookRun,
        ran: &Ran,
        out: &mut Output,
    ) -> Result<(), Failure> {
        self.keys.remove(&run.key);
        let is_success = ran.end.is_success();
        self.ended += 1;
        self.failed += u64::from(!is_success);
        if out.json {
            out.object(&typed("run", object::Run::new(&run)))?;
            return out.flush();
        }
        out.bytes(&ran.stdout.bytes)?;
        out.flush()?;
        // Unchanged, like stdout.
        drop(std::io::stderr().lock().write_all(&ran.stderr.bytes));
        if !is_success {
            stderr_line(&format!(
                "failed: {} {}: {}",
                run.kind,
                escape(&run.key),
                run.what
            ));
        }
        Ok(())
    }
}

// Acts on one change.
async fn run_one(
    action: &Action,
    change: &api::Change,
    stdin: Vec<u8>,
    timeout: Duration,
    place: [(&'static str, OsString); 2],
) -> (api::HookRun, Ran) {
    let entry = change.entry.clone().unwrap_or_default().id;
    let id: [u8; 32] = entry.as_ref().try_into().unwrap_or_default();
    let named = || Named {
        entry: &id,
        kind: &change.kind,
        key: &change.key,
    };
    let run = RunId::of("on", [named()]);
    let mut variables = hooks::variables(run, 1, named());
    variables.extend(place);
    let began_ms = Clock::system().now_ms();
    let job = Job {
        variables,
        stdin,
        timeout,
        stdout_bytes_max: OUTPUT_BYTES_MAX,
        stderr_bytes_max: OUTPUT_BYTES_MAX,
    };
    let ran = action.perform(job, run, began_ms).await;
    let is_success = ran.end.is_success();
    let text = |captured: &Captured| String::from_utf8_lossy(&captured.bytes).into_owned();
    let record = api::HookRun {
        at_ms: began_ms,
        run: run.to_string(),
        attempt: 1,
        changes: 1,
        kind: change.kind.clone(),
        key: change.key.clone(),
        entry: hex(&entry),
        outcome: if is_success { "done" } else { "failed" }.to_owned(),
        what: if is_success {
            String::new()
        } else {
            ran.end.to_string()
        },
        took_ms: Clock::system().now_ms().saturating_sub(began_ms),
        stdout: text(&ran.stdout),
        stdout_bytes: ran.stdout.total,
        stderr: text(&ran.stderr),
        stderr_bytes: ran.stderr.total,
        ..api::HookRun::default()
    };
    (record, ran)
}

fn bytes(change: &api::Change) -> usize {
    change.key.len() + change.value.as_ref().map_or(0, Bytes::len)
}

/// Changes that wait here for a run; further ones stay at the node.
const WAITING_MAX: usize = 1000;
/// Bytes of waiting keys and values after which further changes stay at the node.
const WAITING_BYTES: usize = 4 << 20;
/// Bytes of stdout, and of stderr, that are kept of a run.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

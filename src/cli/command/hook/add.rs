//! `hook add`: adds a hook to hooks.toml.

use std::{
    ffi::OsString,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::{Args, ValueEnum};
use lattice::wire::api;

use crate::cli::{
    command::{
        consumer::create::{From, OnGap, parse_from},
        hook::show::print_status,
    },
    exit::Failure,
    input::{
        action_flags::ActionArgs,
        key::KeyFlags,
        time::{millis, parse_duration},
    },
    output::print::harmless,
    place::current_dir,
    session::{Context, Lifetime},
};

/// Run a command, or post to a URL, whenever a key changes
///
/// The command gets the change on stdin, as a line of `lattice watch --json`. Its environment has
/// PATH, HOME, LATTICE_DATA, LATTICE_STORE, LATTICE_KEY, LATTICE_KIND, LATTICE_ENTRY,
/// LATTICE_RUN_ID (the same at every attempt, to make work idempotent), LATTICE_ATTEMPT,
/// LATTICE_HOOK and LATTICE_CHANGES, and nothing else. It is started directly, not by a shell; use
/// `sh -c '...'` for one. Exit code 0 means done; after any other, the run is tried again. Two runs
/// never handle the same key at the same time.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice hook add deploy /deploy/ -- ./deploy.sh
  lattice hook add mail /orders/ --only put --attempts 10 --timeout 5m -- /usr/local/bin/mail-order
  lattice hook add render /pages/ --mode latest --debounce 500ms -- ./render --all
  lattice hook add load /rows/ --mode batch --batch 500 --debounce 1s --since start -- ./load.py
  lattice hook add index /pages/ --writes -- ./index.py
  lattice hook add tell /alerts/ --http https://example.org/alert --secret-file alert.secret")]
pub(super) struct Add {
    /// Name of the hook: letters, digits, '-', '_' and '.'
    name: String,
    /// Only keys that start with this, byte by byte
    prefix: OsString,
    #[command(flatten)]
    flags: KeyFlags,
    /// Only changes of these kinds
    #[arg(long, value_name = "KIND", value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// How changes become runs
    #[arg(long, value_enum, default_value_t = Mode::Each)]
    mode: Mode,
    /// In mode latest, wait until the key has not changed for this long; in mode batch, wait this
    /// long for more changes
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    debounce: Option<Duration>,
    /// In mode latest, run after this long even if the key still changes [default: ten times
    /// --debounce]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    debounce_max: Option<Duration>,
    /// In mode batch, changes in one run at most [default: 100]
    #[arg(long, value_name = "N")]
    batch: Option<u32>,
    /// Kill a run that takes longer, with all processes it has started [default: 1m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Failed runs before a change becomes a dead letter [default: 5]
    #[arg(long, value_name = "N")]
    attempts: Option<u32>,
    /// Waits before the 2nd, 3rd ... attempt [default: 1s,5s,30s,2m]
    #[arg(
        long,
        value_name = "DURATION",
        value_delimiter = ',',
        value_parser = parse_duration
    )]
    backoff: Vec<Duration>,
    /// Write the puts and deletes that the command prints, as JSON lines in the format of `put
    /// --stdin --format json`. They become one entry that names its cause, and are never written
    /// twice
    #[arg(long)]
    writes: bool,
    /// Number of runs at a time; never two for one key [default: 4]
    #[arg(long, value_name = "N")]
    parallel: Option<u32>,
    /// Runs per second at most; further ones wait [default: 100]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Where to begin: now, start, a cursor of a watch, an age such as 2h, a date, or an RFC 3339
    /// time
    #[arg(long = "since", alias = "from", value_name = "WHERE", default_value = "now", value_parser = parse_from)]
    from: From,
    /// Step to take where the log no longer has the next changes: state runs the command with one
    /// change of type gap, which says to forget what is known, then with each live key; stop runs
    /// nothing until on_gap is changed in hooks.toml [default: state]
    #[arg(long, value_enum)]
    on_gap: Option<OnGap>,
    #[command(flatten)]
    action: ActionArgs,
}

/// Kinds of changes that `--only` selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Put,
    Delete,
    Expire,
    Retract,
}

/// How changes become runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// A run for every change
    Each,
    /// A run for the newest change of a key; older waiting ones are skipped
    Latest,
    /// A run for several changes, one line each on stdin, with each key at most once
    Batch,
}

impl Add {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let request = api::AddHookRequest {
            hook: self.name.clone(),
            from: Some(self.from.to_wire()),
            definition: Some(self.definition(context.store.clone())?),
        };
        let status = client.add_hook(request).await?.into_inner();
        print_status(context, &status)?;
        if let Some(what) = missing(&status) {
            context.out.flush()?;
            context.out.notice("no_command", &what);
        }
        Ok(())
    }

    fn definition(self, store: String) -> Result<api::Hook, Failure> {
        let here = current_dir()?;
        // hooks.toml is text.
        let (on, on_base64) = match String::from_utf8(self.flags.key(self.prefix)?.into()) {
            Ok(text) => (text, String::new()),
            Err(error) => (String::new(), BASE64_STANDARD.encode(error.as_bytes())),
        };
        let text = |path: PathBuf| {
            path.into_os_string().into_string().map_err(|path| {
                let message = format!("{} is not UTF-8", path.display());
                Failure::usage("path", message).hint("hooks.toml cannot hold it")
            })
        };
        let absolute =
            |path: Option<PathBuf>| path.map_or(Ok(String::new()), |path| text(here.join(path)));
        let some_ms = |duration: Option<Duration>| duration.map_or(0, millis);
        Ok(api::Hook {
            on,
            on_base64,
            store,
            // The directory for relative paths; a command without a slash is looked up in PATH.
            dir: match self.action.command.is_empty() {
                true => String::new(),
                false => text(here.clone())?,
            },
            run: self.action.command,
            http: self.action.http.unwrap_or_default(),
            secret_file: absolute(self.action.secret_file)?,
            secret_env: self.action.secret_env.unwrap_or_default(),
            ca_file: absolute(self.action.ca_file)?,
            kinds: self.only.iter().map(|kind| name(*kind)).collect(),
            mode: name(self.mode),
            batch: self.batch.unwrap_or(0),
            debounce_ms: some_ms(self.debounce),
            debounce_max_ms: some_ms(self.debounce_max),
            timeout_ms: some_ms(self.timeout),
            parallel: self.parallel.unwrap_or(0),
            attempts: self.attempts.unwrap_or(0),
            backoff_ms: self.backoff.into_iter().map(millis).collect(),
            rate: self.rate.unwrap_or(0),
            writes: self.writes,
            on_gap: OnGap::to_wire(self.on_gap),
        })
    }
}

// Returns a note if the command of the hook is a path at which no program is. One without a slash is
// looked up in the PATH of the node, which may be another than that here.
fn missing(status: &api::HookStatus) -> Option<String> {
    let hook = status.definition.as_ref()?;
    let program = hook.run.first().filter(|program| program.contains('/'))?;
    let path = Path::new(&hook.dir).join(program.trim_start_matches("./"));
    let mode = path
        .metadata()
        .map(|it| (it.is_file(), it.permissions().mode()));
    let is = match mode {
        Ok((true, mode)) if mode & 0o111 != 0 => return None,
        Ok((true, _mode)) => "is not executable",
        Ok((false, _mode)) => "is not a file",
        Err(_missing) => "does not exist",
    };
    let path = path.display().to_string();
    Some(format!(
        "{} {is} (yet); until it is a program, every run fails",
        harmless(&path)
    ))
}

// Returns the name of a choice, which is the same in the API.
fn name(choice: impl ValueEnum) -> String {
    let value = choice.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

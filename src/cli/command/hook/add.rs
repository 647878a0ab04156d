//! `hook add`: writes a hook to hooks.toml.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use lattice::wire::api;

use crate::cli::{
    command::{
        consumer::create::{From, parse_from},
        hook::show::tell,
    },
    exit::Failure,
    input::{
        action_flags::ActionArgs,
        time::{millis, parse_duration},
    },
    place::current_dir,
    session::{Context, Lifetime},
};

/// Run a command, or post to a URL, whenever a key changes
///
/// The command gets the change on stdin, as a line of `lattice watch --json`, and in its
/// environment LATTICE_KEY, LATTICE_KIND, LATTICE_ENTRY, LATTICE_RUN_ID (the same at every attempt:
/// a key for idempotent work), LATTICE_ATTEMPT and LATTICE_HOOK; besides PATH and HOME, nothing
/// else. No shell sees it: say `sh -c '...'` where you want one. Exit code 0 means done; anything
/// else is tried again. A key is never worked on twice at a time.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice hook add deploy /deploy/ -- ./deploy.sh
  lattice hook add mail /orders/ --only put --attempts 10 --timeout 5m -- /usr/local/bin/mail-order
  lattice hook add render /pages/ --mode latest --debounce 500ms -- ./render --all
  lattice hook add load /rows/ --mode batch --batch 500 --debounce 1s --from start -- ./load.py
  lattice hook add index /pages/ --writes -- ./index.py
  lattice hook add tell /alerts/ --http https://example.org/alert --secret-file alert.secret")]
pub(super) struct Add {
    /// Its name: letters, digits, '-', '_' and '.'
    name: String,
    /// Only keys that start with this, byte by byte
    prefix: String,
    /// Only changes of these kinds
    #[arg(long, value_name = "KIND", value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Which changes make a run
    #[arg(long, value_enum, default_value_t = Mode::Each)]
    mode: Mode,
    /// latest: wait until the key was quiet for so long; batch: wait so long for more
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    debounce: Option<Duration>,
    /// latest: wait no longer than this, quiet or not [default: ten times --debounce]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    debounce_max: Option<Duration>,
    /// Changes of one run in mode batch [default: 100]
    #[arg(long, value_name = "N")]
    batch: Option<u32>,
    /// End a run that takes longer, with all it has started [default: 1m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Runs of one change that fail before it is a dead letter [default: 5]
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
    /// Write what the command prints: puts and deletes as JSON lines, as `put --stdin --format json`
    /// reads them. They become one entry that names its cause, and are never written twice
    #[arg(long)]
    writes: bool,
    /// Runs at a time, never two of one key [default: 4]
    #[arg(long, value_name = "N")]
    parallel: Option<u32>,
    /// Runs a second, at most; more wait [default: 100]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Where it begins: now, start, or a time: 30s, 2h, 7d ago, a date, an RFC 3339 time
    #[arg(long, value_name = "WHERE", default_value = "now", value_parser = parse_from)]
    from: From,
    #[command(flatten)]
    action: ActionArgs,
}

/// What `--only` selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Put,
    Delete,
    Expire,
    Retract,
}

/// What `--mode` selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Every change
    Each,
    /// Only what is the newest of its key when its turn comes
    Latest,
    /// Several changes at once, one line each on stdin; a key once at most
    Batch,
}

impl Add {
    /// Runs the command.
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let request = api::AddHookRequest {
            hook: self.name.clone(),
            from: Some(self.from.to_wire()),
            definition: Some(self.definition(context.store.clone())?),
        };
        let status = client.add_hook(request).await?.into_inner();
        tell(context, &status)
    }

    fn definition(self, store: String) -> Result<api::Hook, Failure> {
        let here = current_dir()?;
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
            on: self.prefix,
            store,
            // A bare command is looked for in PATH, wherever it runs.
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
        })
    }
}

// As it is typed, and as the API has it.
fn name(choice: impl ValueEnum) -> String {
    let value = choice.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

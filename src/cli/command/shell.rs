//! `shell`: the same commands, one per line, with history and completion.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    pin::pin,
    time::Duration,
};

use clap::{Args, CommandFactory as _, Parser as _};
use lattice::{api::client::Client, wire::api};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::{
    Editor, Helper, completion::Completer, error::ReadlineError, highlight::Highlighter,
    hint::Hinter, history::FileHistory, validate::Validator,
};
use tokio::runtime::Handle;

use crate::cli::{
    args::{self, Cli},
    dispatch,
    exit::{Exit, Failure},
    input::shell_words,
    interrupted,
    output::print::complain,
    session::{Context, Lifetime},
};

/// Type commands, with history and completion of commands and keys
///
/// The same commands without `lattice`; `quit` or Ctrl-D ends it. With no node running, the shell
/// is the node while it lives.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice shell
  printf 'put /a 1\\nget /a\\n' | lattice shell")]
pub(crate) struct Shell {}

impl Shell {
    /// Runs lines until the last one.
    ///
    /// A script (stdin is no terminal) ends with the exit code of its last line, as in sh.
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let client = context.client(Lifetime::Long).await?;
        let json = context.out.json;
        let is_script = !io::stdin().is_terminal();
        if !is_script {
            complain("type `help` for the commands, `quit` or Ctrl-D to leave");
        }
        let mut prompt = Prompt::new(client, context, is_script)?;
        let mut down = pin!(context.down_requested());
        let mut last = Exit::Done;
        loop {
            let terminal = Terminal::remember();
            let line = tokio::select! {
                line = prompt.next() => line?,
                () = &mut down => return terminal.stopped(),
                // At the prompt Ctrl-C is a key, not a signal: this is SIGTERM.
                () = interrupted() => {
                    terminal.restore();
                    return Err(Failure::interrupted());
                }
            };
            let Some(line) = line else { break };
            let result = match parse(&line) {
                Ok(Line::Nothing) => continue,
                Ok(Line::Quit) => break,
                Ok(Line::Run(cli)) => {
                    context.out.json = json || cli.global.json;
                    let named = cli.global.store.or_else(|| context.store_named.clone());
                    context.choose_store(named.as_deref())?;
                    tokio::select! {
                        result = Box::pin(dispatch(context, cli.command)) => result,
                        () = interrupted() => Err(Failure::interrupted()),
                        () = &mut down => return terminal.stopped(),
                    }
                }
                Err(failure) => Err(failure),
            };
            context.out.flush()?;
            last = result.map_or_else(
                |failure| {
                    failure.report(context.out.json);
                    failure.exit
                },
                |()| Exit::Done,
            );
        }
        prompt.save_history();
        match last {
            // What failed was told where it failed.
            failed if is_script && failed != Exit::Done => Err(Failure::new(failed, "", "")),
            _any => Ok(()),
        }
    }
}

/// What a line asks for.
enum Line {
    Nothing,
    Quit,
    Run(Box<Cli>),
}

fn parse(line: &str) -> Result<Line, Failure> {
    let words =
        shell_words::split(line).map_err(|error| Failure::usage("usage", error.to_string()))?;
    match words.first().map(String::as_str) {
        None => return Ok(Line::Nothing),
        Some(comment) if comment.starts_with('#') => return Ok(Line::Nothing),
        Some("quit" | "exit") => return Ok(Line::Quit),
        // People type what they would type outside.
        Some("lattice") => return parse_words(words),
        Some(_) => {}
    }
    parse_words(std::iter::once("lattice".to_owned()).chain(words))
}

fn parse_words(words: impl IntoIterator<Item = String>) -> Result<Line, Failure> {
    match Cli::try_parse_from(words) {
        Ok(cli) => Ok(Line::Run(Box::new(cli))),
        Err(error) if error.use_stderr() => Err(args::usage(&error)),
        // Help: what was asked for.
        Err(help) => Ok(help.print().map(|()| Line::Nothing)?),
    }
}

/// Where lines come from.
struct Prompt {
    // `None` while a thread waits for a line with it.
    editor: Option<Editor<Completing, FileHistory>>,
    /// `None`: a script leaves no history.
    history: Option<PathBuf>,
}

impl Prompt {
    fn new(client: Client, context: &Context, is_script: bool) -> Result<Self, Failure> {
        let config = rustyline::Config::builder()
            .completion_type(rustyline::CompletionType::List)
            .auto_add_history(true)
            .history_ignore_space(true)
            .build();
        let mut editor = Editor::with_config(config).map_err(terminal_failed)?;
        let store = context.store.clone();
        editor.set_helper(Some(Completing {
            client,
            store,
            runtime: Handle::current(),
        }));
        let history = context.place.data_dir.join("shell-history");
        let history = (!is_script).then_some(history);
        if let Some(path) = &history
            && path.exists()
        {
            editor.load_history(path).map_err(terminal_failed)?;
        }
        Ok(Self {
            editor: Some(editor),
            history,
        })
    }

    // Waits for a line on a thread of its own; `None` at the end. Not to be called again when
    // it was dropped: the thread still waits.
    async fn next(&mut self) -> Result<Option<String>, Failure> {
        let mut editor = self.editor.take().expect("the last call returned");
        let read = tokio::task::spawn_blocking(move || {
            let line = editor.readline(PROMPT);
            (editor, line)
        });
        let (editor, line) = read
            .await
            .map_err(|error| Failure::failed("terminal", error.to_string()))?;
        self.editor = Some(editor);
        match line {
            Ok(line) => Ok(Some(line)),
            // Ctrl-C at the prompt gives up the line.
            Err(ReadlineError::Interrupted) => Ok(Some(String::new())),
            Err(ReadlineError::Eof) => Ok(None),
            Err(error) => Err(terminal_failed(error)),
        }
    }

    // Best effort: a read-only directory has no history.
    fn save_history(&mut self) {
        if let (Some(editor), Some(path)) = (&mut self.editor, &self.history)
            && let Err(error) = editor.save_history(path)
        {
            complain(&format!("note: cannot save the history: {error}"));
        }
    }
}

fn terminal_failed(error: ReadlineError) -> Failure {
    Failure::failed("terminal", format!("cannot read a line: {error}"))
}

/// The terminal's settings before a line is read: a thread that is left waiting in raw mode never
/// puts them back.
struct Terminal(Option<Termios>);

impl Terminal {
    fn remember() -> Self {
        Self(tcgetattr(io::stdin()).ok())
    }

    fn restore(&self) {
        if let Some(settings) = &self.0
            && let Err(error) = tcsetattr(io::stdin(), OptionalActions::Now, settings)
        {
            complain(&format!("note: cannot restore the terminal: {error}"));
        }
    }

    fn stopped(&self) -> Result<(), Failure> {
        self.restore();
        complain("note: stopped by `lattice down`");
        Ok(())
    }
}

/// Completes commands, flags and keys.
struct Completing {
    client: Client,
    store: String,
    runtime: Handle,
}

impl Completer for Completing {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _context: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let before = line.get(..position).unwrap_or_default();
        let start = before
            .rfind(char::is_whitespace)
            .map_or(0, |space| space + 1);
        let (earlier, word) = before.split_at(start);
        let candidates = match earlier.split_whitespace().next() {
            None => commands(word),
            Some(command) if word.starts_with('-') => flags(command, word),
            Some(_) => self.keys(word),
        };
        Ok((start, candidates))
    }
}

impl Completing {
    // Keys that begin with `word`, up to the next slash: like directories.
    fn keys(&self, word: &str) -> Vec<String> {
        let mut client = self.client.clone();
        let request = api::ListRequest {
            store: self.store.clone(),
            prefix: word.to_owned().into(),
            keys_only: true,
            limit: KEYS_MAX,
            at_ms: None,
        };
        let list = async {
            let mut keys = Vec::new();
            let mut pages = client.list(request).await?.into_inner();
            while let Some(page) = pages.message().await? {
                keys.extend(page.items.into_iter().map(|item| item.key));
            }
            Ok::<_, tonic::Status>(keys)
        };
        let list = self
            .runtime
            .block_on(async { tokio::time::timeout(KEYS_WAIT, list).await });
        // No completion is better than an error in the middle of a line.
        let Ok(Ok(keys)) = list else {
            return Vec::new();
        };
        let mut candidates: Vec<String> = keys
            .iter()
            .filter_map(|key| str::from_utf8(key).ok())
            // Those that would have to be quoted.
            .filter(|key| !key.contains(|c: char| c.is_whitespace() || c.is_control()))
            .filter(|key| !key.contains(['\'', '"', '\\']))
            .filter_map(|key| {
                let rest = key.get(word.len()..)?;
                let end = rest
                    .find('/')
                    .map_or(key.len(), |slash| word.len() + slash + 1);
                key.get(..end).map(str::to_owned)
            })
            .collect();
        candidates.dedup();
        candidates
    }
}

fn commands(word: &str) -> Vec<String> {
    let root = Cli::command();
    let names = root.get_subcommands().map(|command| command.get_name());
    let mut names: Vec<String> = names
        .filter(|name| !matches!(*name, "up" | "shell"))
        .chain(["help", "quit"])
        .filter(|name| name.starts_with(word))
        .map(|name| format!("{name} "))
        .collect();
    names.sort();
    names
}

fn flags(command: &str, word: &str) -> Vec<String> {
    let mut root = Cli::command();
    root.build();
    let Some(command) = root.find_subcommand(command) else {
        return Vec::new();
    };
    let longs = command
        .get_arguments()
        .filter_map(|argument| argument.get_long());
    let flags = longs
        .map(|long| format!("--{long} "))
        .filter(|flag| flag.starts_with(word));
    flags.collect()
}

impl Hinter for Completing {
    type Hint = String;
}
impl Highlighter for Completing {}
impl Validator for Completing {}
impl Helper for Completing {}

const PROMPT: &str = "lattice> ";
/// Keys that a completion looks at.
const KEYS_MAX: u64 = 500;
/// A person who presses Tab waits no longer.
const KEYS_WAIT: Duration = Duration::from_millis(500);

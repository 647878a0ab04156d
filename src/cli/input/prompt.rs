//! Reads the lines of `shell` from a terminal or a script.

use std::{io, path::PathBuf, time::Duration};

use clap::Command;
use lattice::{api::client::Client, wire::api};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::{
    Editor, Helper, completion::Completer, error::ReadlineError, highlight::Highlighter,
    hint::Hinter, history::FileHistory, validate::Validator,
};
use tokio::runtime::Handle;

use crate::cli::{exit::Failure, output::print::stderr_line};

/// The source of a shell's lines.
pub(crate) struct Prompt {
    // `None` while a thread reads a line with it.
    editor: Option<Editor<Completing, FileHistory>>,
    /// File of the history; `None` for a script, which leaves none.
    history: Option<PathBuf>,
}

impl Prompt {
    /// Makes a prompt that completes the commands of `tree` and the keys of `store`, and loads
    /// `history`.
    pub(crate) fn new(
        client: Client,
        store: String,
        history: Option<PathBuf>,
        tree: Command,
    ) -> Result<Self, Failure> {
        let config = rustyline::Config::builder()
            .completion_type(rustyline::CompletionType::List)
            .auto_add_history(true)
            .history_ignore_space(true)
            .build();
        let mut editor = Editor::with_config(config).map_err(terminal_failed)?;
        editor.set_helper(Some(Completing {
            client,
            store,
            tree,
            runtime: Handle::current(),
        }));
        if let Some(path) = &history
            && path.is_file()
        {
            editor.load_history(path).map_err(terminal_failed)?;
        }
        Ok(Self {
            editor: Some(editor),
            history,
        })
    }

    /// Reads the next line on a thread of its own, after `label`; `None` at the end of the input. Keys are
    /// completed from `store`.
    ///
    /// Must not be called again after a call was dropped: its thread still waits for a line.
    pub(crate) async fn next(
        &mut self,
        label: String,
        store: &str,
    ) -> Result<Option<String>, Failure> {
        let mut editor = self.editor.take().expect("the last call returned");
        if let Some(completing) = editor.helper_mut() {
            store.clone_into(&mut completing.store);
        }
        let read = tokio::task::spawn_blocking(move || {
            let line = editor.readline(&label);
            (editor, line)
        });
        let (editor, line) = read
            .await
            .map_err(|error| Failure::failed("terminal", error.to_string()))?;
        self.editor = Some(editor);
        match line {
            Ok(line) => Ok(Some(line)),
            // Ctrl-C at the prompt discards the line.
            Err(ReadlineError::Interrupted) => Ok(Some(String::new())),
            Err(ReadlineError::Eof) => Ok(None),
            Err(error) => Err(terminal_failed(error)),
        }
    }

    /// Saves the history. A failure is only printed: the data directory may be read-only.
    pub(crate) fn save_history(&mut self) {
        if let (Some(editor), Some(path)) = (&mut self.editor, &self.history)
            && let Err(error) = editor.save_history(path)
        {
            stderr_line(&format!("note: cannot save the history: {error}"));
        }
    }
}

fn terminal_failed(error: ReadlineError) -> Failure {
    Failure::failed("terminal", format!("cannot read a line: {error}"))
}

/// The terminal's settings before a line is read.
///
/// The editor reads in raw mode; if its thread is abandoned, nothing else restores them.
pub(crate) struct Terminal(Option<Termios>);

impl Terminal {
    /// Reads the current settings.
    pub(crate) fn remember() -> Self {
        Self(tcgetattr(io::stdin()).ok())
    }

    /// Restores the settings; a failure is printed.
    pub(crate) fn restore(&self) {
        if let Some(settings) = &self.0
            && let Err(error) = tcsetattr(io::stdin(), OptionalActions::Now, settings)
        {
            stderr_line(&format!("note: cannot restore the terminal: {error}"));
        }
    }

    /// Restores the settings and prints that the node was stopped.
    pub(crate) fn stopped(&self) -> Result<(), Failure> {
        self.restore();
        stderr_line("note: stopped by `lattice down`");
        Ok(())
    }
}

/// Completes commands, flags and keys.
struct Completing {
    client: Client,
    store: String,
    tree: Command,
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
            None => commands(&self.tree, word),
            Some(command) if word.starts_with('-') => flags(&self.tree, command, word),
            Some(_) => self.keys(word),
        };
        Ok((start, candidates))
    }
}

impl Completing {
    // Returns the keys that begin with `word`, each up to its next slash, as for directories.
    fn keys(&self, word: &str) -> Vec<String> {
        let mut client = self.client.clone();
        let request = api::ListRequest {
            store: self.store.clone(),
            prefix: word.to_owned().into(),
            keys_only: true,
            limit: KEYS_MAX,
            ..api::ListRequest::default()
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
        // An error while a line is edited would be worse than no completion.
        let Ok(Ok(keys)) = list else {
            return Vec::new();
        };
        let mut candidates: Vec<String> = keys
            .iter()
            .filter_map(|key| str::from_utf8(key).ok())
            // Keys that would need quotes are left out.
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

fn commands(tree: &Command, word: &str) -> Vec<String> {
    let names = tree.get_subcommands().map(|command| command.get_name());
    let mut names: Vec<String> = names
        .filter(|name| !matches!(*name, "up" | "shell"))
        .chain(["help", "quit"])
        .filter(|name| name.starts_with(word))
        .map(|name| format!("{name} "))
        .collect();
    names.sort();
    names
}

fn flags(tree: &Command, command: &str, word: &str) -> Vec<String> {
    let mut tree = tree.clone();
    tree.build();
    let Some(command) = tree.find_subcommand(command) else {
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

/// Keys that one completion reads.
const KEYS_MAX: u64 = 500;
/// Longest wait for the keys of a completion.
const KEYS_WAIT: Duration = Duration::from_millis(500);

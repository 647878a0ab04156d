//! The commands by task, as `lattice --help` lists them.

use std::{ffi::OsString, fmt::Write as _};

use anstyle::{Effects, Style};
use clap::{ArgMatches, Command, CommandFactory as _, Error, FromArgMatches as _};

use crate::cli::args::Cli;

const GROUPS: [(&str, &[&str]); 6] = [
    (
        "Start",
        &["up", "down", "init", "status", "top", "service", "demo"],
    ),
    (
        "Data",
        &[
            "put",
            "get",
            "delete",
            "batch",
            "list",
            "export",
            "import",
            "heads",
            "history",
            "diff",
            "conflicts",
            "log",
            "store",
        ],
    ),
    (
        "Watch and react",
        &["watch", "on", "hook", "consumer", "wait", "lock"],
    ),
    (
        "Mesh",
        &["invite", "join", "peers", "peer", "connect", "leave"],
    ),
    (
        "Care",
        &[
            "verify",
            "repair",
            "snapshot",
            "key",
            "retention",
            "prune",
            "root",
            "compare",
        ],
    ),
    ("Tools", &["shell", "bench", "completions", "man", "help"]),
];

/// Returns the command line's grammar, with a help that lists the commands by task.
pub(crate) fn tree() -> Command {
    let tree = Cli::command();
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{}\n{}\n{{options}}{{after-help}}",
        groups(&tree),
        heading("Options"),
    );
    tree.help_template(template)
}

/// Parses these words, the first of which is the name of the program.
///
/// # Errors
/// Clap's: an error in the words, or an answer to print.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Cli, Error> {
    let words: Vec<OsString> = words.into_iter().collect();
    let parsed = tree().try_get_matches_from(&words);
    let mut matches: ArgMatches = parsed.map_err(|error| of_the_words(error, &words))?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut tree()))
}

// Clap's usage line counts flags that the environment sets among those that were typed. So returns the error
// that these words have without it, unless the environment is at fault.
fn of_the_words(error: Error, words: &[OsString]) -> Error {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as Help;
    // The help names the variables.
    if !error.use_stderr() || error.kind() == Help {
        return error;
    }
    match without_environment(tree()).try_get_matches_from(words) {
        Err(same) if same.kind() == error.kind() => same,
        _other => error,
    }
}

fn without_environment(tree: Command) -> Command {
    tree.mut_args(|arg| arg.env(None))
        .mut_subcommands(without_environment)
}

fn groups(tree: &Command) -> String {
    let mut text = String::new();
    for (group, names) in GROUPS {
        write!(text, "\n{}\n", heading(group)).expect("a string takes everything");
        let commands = names.iter().filter_map(|name| tree.find_subcommand(name));
        for command in commands {
            let about = command.get_about().map(ToString::to_string);
            let about = about.unwrap_or_default();
            let (name, bold) = (command.get_name(), Style::new().effects(Effects::BOLD));
            let gap = " ".repeat(NAME_COLUMNS.saturating_sub(name.len()));
            writeln!(text, "  {bold}{name}{bold:#}{gap}{about}")
                .expect("a string takes everything");
        }
    }
    text
}

fn heading(text: &str) -> String {
    let style = Style::new().effects(Effects::BOLD | Effects::UNDERLINE);
    format!("{style}{text}:{style:#}")
}

const NAME_COLUMNS: usize = 13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_in_one_group() {
        let mut grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| *names)
            .copied()
            .collect();
        let tree = Cli::command();
        let shown = tree.get_subcommands().filter(|it| !it.is_hide_set());
        let mut all: Vec<&str> = shown.map(Command::get_name).collect();
        grouped.sort_unstable();
        all.sort_unstable();
        assert_eq!(grouped, all);
    }
}

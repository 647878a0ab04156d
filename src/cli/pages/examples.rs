//! Every command in the README and in the manual is one that this program has.

use std::collections::BTreeSet;

use clap::{Command, CommandFactory as _, Parser as _};
use lattice::manual::PAGES;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::cli::{args::Cli, input::shell_words};

/// The pages that have examples, with their names.
fn pages() -> impl Iterator<Item = (&'static str, &'static str)> {
    let readme = ("README", include_str!("../../../README.md"));
    PAGES
        .iter()
        .map(|page| (page.name, page.text))
        .chain([readme])
}

#[test]
fn every_command_line_is_accepted() {
    let mut count = 0;
    for (name, text) in pages() {
        for line in lines(text) {
            for command in commands(&line) {
                count += 1;
                if let Err(error) = accepted(&command) {
                    panic!("{name}: {command}\n{error}");
                }
            }
        }
    }
    assert!(count > 80, "{count} commands were read");
}

#[test]
fn every_option_in_a_sentence_exists() {
    let tree = Cli::command();
    let options = options(&tree);
    let mut count = 0;
    for (name, text) in pages() {
        for span in spans(text).iter().filter(|span| is_ours(span, &tree)) {
            for option in options_in(span) {
                count += 1;
                assert!(options.contains(&option), "{name}: `{span}`: no {option}");
            }
        }
    }
    assert!(count > 60, "{count} options were read");
}

/// Returns the lines of a page that are typed into a shell: all of a block `sh`, and those after a
/// `$` in a block `text`. A line that ends with a backslash goes on in the next one.
fn lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut language = None;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(named))) => {
                language = Some(named.to_string());
            }
            Event::End(TagEnd::CodeBlock) => language = None,
            Event::Text(code) if language.as_deref() == Some("sh") => {
                let whole = code.replace("\\\n", " ");
                lines.extend(whole.lines().map(str::to_owned));
            }
            Event::Text(code) if language.as_deref() == Some("text") => {
                let typed = code.lines().filter_map(|line| line.strip_prefix("$ "));
                lines.extend(typed.map(str::to_owned));
            }
            _other => {}
        }
    }
    lines
}

/// Returns the code inside the sentences of a page.
fn spans(text: &str) -> Vec<String> {
    let events = Parser::new_ext(text, Options::ENABLE_TABLES);
    let codes = events.filter_map(|event| match event {
        Event::Code(code) => Some(code.to_string()),
        _other => None,
    });
    codes.collect()
}

/// Returns the commands of this program in a line of a shell, each from `lattice` to its end: an
/// operator, a redirection or a comment outside of quotes.
fn commands(line: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find("lattice ") {
        let before = rest[..at].chars().next_back();
        let (command, after) = rest[at..].split_at(end(&rest[at..]));
        // Not in a path, in a comment, or behind `man` or `sudo -u`.
        let begins = before.is_none_or(|before| before == ' ' || before == '(');
        let is_argument = ["-u ", "# "].iter().any(|word| rest[..at].ends_with(word));
        if begins && !is_argument && !rest[..at].contains(" # ") {
            commands.push(command.trim().to_owned());
            rest = after;
        } else {
            rest = &rest[at + "lattice".len()..];
        }
    }
    commands
}

fn end(command: &str) -> usize {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in command.char_indices() {
        match quote {
            Some(open) if open == c => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if "|;&<>)".contains(c) => return at,
            None if c == '#' && before == ' ' => return at,
            None => {}
        }
        before = c;
    }
    command.len()
}

fn accepted(command: &str) -> Result<(), String> {
    let words = shell_words::commands(command)
        .map_err(|error| error.to_string())?
        .concat();
    match Cli::try_parse_from(words) {
        Err(error) if error.use_stderr() => Err(error.to_string()),
        _accepted => Ok(()),
    }
}

/// True for code that is an option, a command with its arguments, or a line with `lattice`.
fn is_ours(span: &str, tree: &Command) -> bool {
    let first = span.split(' ').next().unwrap_or_default();
    first.starts_with("--") || first == "lattice" || tree.find_subcommand(first).is_some()
}

/// Returns the long options in some code, without their values.
fn options_in(span: &str) -> Vec<String> {
    let words = span.split([' ', '[', ']', '|', '=']);
    let options = words.filter(|word| word.len() > 2 && word.starts_with("--"));
    options.map(str::to_owned).collect()
}

/// Returns the long options of all commands.
fn options(command: &Command) -> BTreeSet<String> {
    let own = command
        .get_arguments()
        .filter_map(|argument| argument.get_long());
    let mut all: BTreeSet<String> = own.map(|name| format!("--{name}")).collect();
    all.extend(["--help", "--version"].map(str::to_owned));
    all.extend(command.get_subcommands().flat_map(options));
    all
}

mod the_checks_fail_when_they_should {
    use super::*;

    #[test]
    fn commands_in_a_line_are_found() {
        let line = "timeout 1 lattice put /a 'x; y' | jq .; x=$(lattice get /a) && lattice up & # lattice x";
        assert_eq!(
            commands(line),
            ["lattice put /a 'x; y'", "lattice get /a", "lattice up"]
        );
        assert_eq!(
            commands("sudo -u lattice lattice status > ~/.local/share/lattice /x"),
            ["lattice status"]
        );
        assert_eq!(commands("lattice on /a # lattice b"), ["lattice on /a"]);
    }

    #[test]
    fn wrong_commands_are_refused() {
        assert_eq!(accepted("lattice put /a b --ttl 3s"), Ok(()));
        assert_eq!(accepted("lattice help"), Ok(()));
        for wrong in [
            "lattice put /a b --tll 3s",
            "lattice putt /a b",
            "lattice put /a b --ttl soon",
            "lattice connect",
        ] {
            assert!(accepted(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lines_and_spans_are_read() {
        let page = "`a --b` c\n\n```sh\nlattice up \\\n    --watch /\n```\n\n```text\n$ lattice down\nno\n```\n";
        assert_eq!(lines(page), ["lattice up      --watch /", "lattice down"]);
        assert_eq!(spans(page), ["a --b"]);
        let options = options(&Cli::command());
        assert!(options.contains("--max-in-flight") && !options.contains("--max"));
        assert_eq!(
            options_in("put KEY [--ttl 3s|--file=F]"),
            ["--ttl", "--file"]
        );
        assert!(is_ours("--ttl 3s", &Cli::command()) && !is_ours("cargo --x", &Cli::command()));
    }
}

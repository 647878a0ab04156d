//! `help`: prints the help of a command, or a page of the manual.

use clap::{Args, Command};
use lattice::manual::{PAGES, Page};
use serde::Serialize;

use crate::cli::{
    exit::Failure,
    output::{
        screen::Screen,
        table::{Column, Table},
    },
    pages::text_page,
    session::Context,
};

/// Print the help of a command, or a page of the manual
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice help               all commands, and the topics of the manual
  lattice help watch         the help of a command
  lattice help store create
  lattice help topics        the topics alone
  lattice help mesh          a page of the manual")]
pub(crate) struct Help {
    /// A command such as `watch` or `store create`, a topic of the manual, or `topics` for their list
    topic: Vec<String>,
}

/// A page, with `--json`.
#[derive(Debug, Serialize)]
struct PageObject<'a> {
    r#type: &'static str,
    topic: &'a str,
    summary: &'a str,
    /// Markdown.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

impl Help {
    /// Prints the help of a command in `tree`, the whole command line, or a page.
    pub(crate) fn run(self, context: &mut Context, mut tree: Command) -> Result<(), Failure> {
        tree.build();
        let screen = context.out.screen();
        let words: Vec<&str> = self.topic.iter().map(String::as_str).collect();
        match words.as_slice() {
            [] => {
                print_help(context, tree, &[])?;
                context.out.line("")?;
                print_topics(context, &screen)
            }
            ["topics"] => print_topics(context, &screen),
            [name] if tree.find_subcommand(name).is_none() => match Page::find(name) {
                Some(page) => print_page(context, page, &screen),
                None => Err(unknown(&words, &tree)),
            },
            words if has(&tree, words) => print_help(context, tree, words),
            words => Err(unknown(words, &tree)),
        }
    }
}

fn has(tree: &Command, words: &[&str]) -> bool {
    let mut command = tree;
    words
        .iter()
        .all(|word| match command.find_subcommand(word) {
            Some(below) => {
                command = below;
                true
            }
            None => false,
        })
}

// Prints what `--help` prints.
fn print_help(context: &mut Context, tree: Command, words: &[&str]) -> Result<(), Failure> {
    let asked = ["lattice"].iter().chain(words).chain(&["--help"]);
    let Err(help) = tree.try_get_matches_from(asked) else {
        return Ok(());
    };
    let help = help.render();
    let text = match context.out.screen().colour {
        true => help.ansi().to_string(),
        false => help.to_string(),
    };
    context.out.bytes(text.as_bytes())
}

fn print_topics(context: &mut Context, screen: &Screen) -> Result<(), Failure> {
    if context.out.json {
        for page in PAGES {
            context.out.object(&PageObject {
                r#type: "page",
                topic: page.name,
                summary: page.summary,
                text: None,
            })?;
        }
        return Ok(());
    }
    context.out.line("Topics, for `lattice help TOPIC`:")?;
    let mut table = Table::new(&[Column::Text(""), Column::Text("")]).untitled();
    for page in PAGES {
        table.row([page.name.into(), page.summary.into()]);
    }
    for line in table.draw(screen, 2) {
        context.out.line(&line)?;
    }
    Ok(())
}

fn print_page(context: &mut Context, page: &Page, screen: &Screen) -> Result<(), Failure> {
    if context.out.json {
        return context.out.object(&PageObject {
            r#type: "page",
            topic: page.name,
            summary: page.summary,
            text: Some(page.text),
        });
    }
    for line in text_page::draw(page, screen) {
        context.out.line(&line)?;
    }
    Ok(())
}

// Names the nearest command or topic in the hint.
fn unknown(words: &[&str], tree: &Command) -> Failure {
    let asked = words.join(" ");
    let failure = Failure::usage(
        "unknown_topic",
        format!("{asked} is neither a command nor a topic of the manual"),
    );
    match nearest(&asked, tree) {
        Some(name) => failure.hint(format!("did you mean `lattice help {name}`?")),
        None => failure.hint("see `lattice help topics` and `lattice --help`"),
    }
}

fn nearest(asked: &str, tree: &Command) -> Option<String> {
    let mut names: Vec<String> = PAGES.iter().map(|page| page.name.to_owned()).collect();
    for command in tree
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
    {
        names.push(command.get_name().to_owned());
        let below = command.get_subcommands();
        names.extend(below.map(|below| format!("{} {}", command.get_name(), below.get_name())));
    }
    let near = |name: String| (strsim::jaro_winkler(asked, &name), name);
    let nearest = names
        .into_iter()
        .map(near)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    nearest
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .map(|(_, name)| name)
}

/// Jaro-Winkler likeness, 0 to 1, from which a name is worth a hint.
const LIKENESS_MIN: f64 = 0.8;

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::args::Cli;

    #[test]
    fn no_topic_has_the_name_of_a_command() {
        let tree = Cli::command();
        for page in PAGES {
            assert!(tree.find_subcommand(page.name).is_none(), "{}", page.name);
        }
    }

    #[test]
    fn nearest_name_is_a_command_or_a_topic() {
        let tree = Cli::command();
        let nearest = |asked| nearest(asked, &tree);
        assert_eq!(nearest("hoks").as_deref(), Some("hooks"));
        assert_eq!(nearest("wacth").as_deref(), Some("watch"));
        assert_eq!(nearest("store crate").as_deref(), Some("store create"));
        assert_eq!(nearest("qqqq"), None);
    }
}

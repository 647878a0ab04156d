//! `completions`, `man`: print the script for a shell, and what is generated from the command tree.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Command};
use clap_complete::env::Shells;
use lattice::manual::{PAGES, Page};

use crate::cli::{exit::Failure, pages::roff_page, session::Context};

/// Print the script with which a shell completes commands, keys and names
///
/// The shell asks the running node for keys, stores, nodes, hooks and consumers. With no node running, it
/// completes commands and flags. Print the script again after an update.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice completions bash > ~/.local/share/bash-completion/completions/lattice
  lattice completions zsh > ~/.zfunc/_lattice
  lattice completions fish > ~/.config/fish/completions/lattice.fish")]
pub(crate) struct Completions {
    /// The shell to print completions for
    shell: clap_complete::Shell,
}

impl Completions {
    pub(crate) fn run(self, context: &mut Context) -> Result<(), Failure> {
        let shells = Shells::builtins();
        let shell = shells.completer(&self.shell.to_string());
        let shell = shell.ok_or_else(|| {
            let message = format!("no completions for {}", self.shell);
            Failure::usage("usage", message)
        })?;
        let name = "lattice";
        let mut script = Vec::new();
        shell.write_registration(COMPLETE_VARIABLE, name, name, name, &mut script)?;
        context.out.bytes(&script)
    }
}

/// Print the manual page of lattice, of one command, or of a topic
///
/// `lattice help topics` lists the topics. With --dir, the pages of topics are written into `man7`
/// beside the directory if its name is `man1`, and else into the directory, too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice man | man -l -
  lattice man watch | man -l -
  lattice man hooks | man -l -
  lattice man --dir ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// A command such as `watch` or `store create`, or a topic of the manual
    #[arg(conflicts_with = "dir")]
    command: Vec<String>,
    /// Write all pages into this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    /// Prints or writes the pages of `tree`, the whole command line.
    pub(crate) fn run(self, context: &mut Context, mut tree: Command) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::failed("man", error.to_string());
        if let Some(dir) = self.dir {
            fs::create_dir_all(&dir).map_err(failed)?;
            clap_mangen::generate_to(tree, &dir).map_err(failed)?;
            write_topics(&dir).map_err(failed)?;
            return context.out.line(&format!("written to {}", dir.display()));
        }
        tree.build();
        if let [name] = self.command.as_slice()
            && tree.find_subcommand(name).is_none()
            && let Some(page) = Page::find(name)
        {
            return context.out.bytes(roff_page::write(page).as_bytes());
        }
        let mut command = &tree;
        for name in &self.command {
            command = command.find_subcommand(name).ok_or_else(|| {
                Failure::usage("usage", format!("unknown command or topic {name:?}"))
                    .hint("see `lattice --help` and `lattice help topics`")
            })?;
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone())
            .render(&mut page)
            .map_err(failed)?;
        context.out.bytes(&page)
    }
}

// Writes the pages of the topics. `man` finds pages of section 7 in a directory `man7`.
fn write_topics(dir: &Path) -> io::Result<()> {
    let dir = match dir.file_name() {
        Some(name) if name == "man1" => dir.with_file_name("man7"),
        _other => dir.to_owned(),
    };
    fs::create_dir_all(&dir)?;
    for page in PAGES {
        let file = dir.join(format!("lattice-{}.7", page.name));
        fs::write(file, roff_page::write(page))?;
    }
    Ok(())
}

/// Variable with which a shell asks this program for candidates; its value is the name of the shell.
pub(crate) const COMPLETE_VARIABLE: &str = "LATTICE_COMPLETE";

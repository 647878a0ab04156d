//! `completions`, `man`: print what is generated from the command tree.

use std::{fs, path::PathBuf};

use clap::{Args, Command};

use crate::cli::{exit::Failure, session::Context};

/// Print completions for a shell
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
    /// Prints the completions of `tree`, the whole command line.
    pub(crate) fn run(self, context: &mut Context, mut tree: Command) -> Result<(), Failure> {
        // Generated in memory, because the generator panics if a pipe is closed.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut tree, "lattice", &mut script);
        context.out.bytes(&script)
    }
}

/// Print the manual page of lattice or of one command
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice man | man -l -
  lattice man watch | man -l -
  lattice man --dir ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// The command, for instance `watch` or `store create`
    #[arg(conflicts_with = "dir")]
    command: Vec<String>,
    /// Write all pages into this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    /// Prints or writes the pages of `tree`, the whole command line.
    pub(crate) fn run(self, context: &mut Context, mut tree: Command) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::failed("man", error.to_string());
        if let Some(dir) = self.dir {
            fs::create_dir_all(&dir).map_err(failed)?;
            clap_mangen::generate_to(tree.disable_help_subcommand(true), &dir).map_err(failed)?;
            return context.out.line(&format!("written to {}", dir.display()));
        }
        tree.build();
        let mut command = &tree;
        for name in &self.command {
            command = command.find_subcommand(name).ok_or_else(|| {
                Failure::usage("usage", format!("unknown command {name:?}"))
                    .hint("see `lattice --help`")
            })?;
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone())
            .render(&mut page)
            .map_err(failed)?;
        context.out.bytes(&page)
    }
}

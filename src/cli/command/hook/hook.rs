//! The group of `hook` commands.

use clap::{Args, Subcommand};

use crate::cli::{
    command::hook::{
        add::Add,
        dead::Dead,
        logs::Logs,
        show::{List, Pause, Remove, Resume},
        test::Test,
    },
    exit::Failure,
    session::Context,
};

/// Hooks: the node runs a command, or posts to a URL, when a key changes
///
/// Hooks are kept in hooks.toml in the data directory. The file may also be edited by hand; changes
/// take effect at once. Hooks never replicate: each machine decides which commands it runs. A run
/// that fails is tried again; after the last attempt, its change becomes a dead letter.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice hook add deploy /deploy/ -- ./deploy.sh     gets each change as JSON on stdin
  lattice hook list
  lattice hook logs deploy
  lattice hook test deploy --since 24h --dry-run      shows what it would have done
  lattice hook dead deploy retry --all")]
pub(crate) struct Hook {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Add(Box<Add>),
    List(List),
    Logs(Logs),
    Test(Test),
    Pause(Pause),
    Resume(Resume),
    Remove(Remove),
    Dead(Dead),
}

impl Hook {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self.action {
            Action::Add(add) => add.run(context).await,
            Action::List(list) => list.run(context).await,
            Action::Logs(logs) => logs.run(context).await,
            Action::Test(test) => test.run(context).await,
            Action::Pause(pause) => pause.run(context).await,
            Action::Resume(resume) => resume.run(context).await,
            Action::Remove(remove) => remove.run(context).await,
            Action::Dead(dead) => dead.run(context).await,
        }
    }
}

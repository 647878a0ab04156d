//! `consumer`: the group of commands.

use clap::{Args, Subcommand};

use crate::cli::{
    command::consumer::{
        answer::{Ack, Extend, Nack, Term},
        create::{Create, Reset},
        dead::Dead,
        next::Next,
        show::{Delete, List, Pause, Resume, Show},
    },
    exit::Failure,
    session::Context,
};

/// Durable consumers: every change under a prefix is given out until it is acknowledged
///
/// A consumer belongs to this node and survives everything that the node survives. Any number of
/// processes share its changes: each change goes to one of them, those of one key in order. What
/// is not acknowledged in time, or was with a process that died, is given out again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice consumer create billing /orders/ --from start
  lattice consumer next billing                       one change, to be acknowledged
  lattice consumer ack billing 5e0c...a1.1
  lattice consumer next billing --stream --ack        each acknowledged once it is printed
  lattice consumer list")]
pub(crate) struct Consumer {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Create(Create),
    Next(Next),
    Ack(Ack),
    Nack(Nack),
    Term(Term),
    Extend(Extend),
    List(List),
    Show(Show),
    Pause(Pause),
    Resume(Resume),
    Reset(Reset),
    Delete(Delete),
    Dead(Dead),
}

impl Consumer {
    /// Runs the command.
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self.action {
            Action::Create(create) => create.run(context).await,
            Action::Next(next) => next.run(context).await,
            Action::Ack(ack) => ack.run(context).await,
            Action::Nack(nack) => nack.run(context).await,
            Action::Term(term) => term.run(context).await,
            Action::Extend(extend) => extend.run(context).await,
            Action::List(list) => list.run(context).await,
            Action::Show(show) => show.run(context).await,
            Action::Pause(pause) => pause.run(context).await,
            Action::Resume(resume) => resume.run(context).await,
            Action::Reset(reset) => reset.run(context).await,
            Action::Delete(delete) => delete.run(context).await,
            Action::Dead(dead) => dead.run(context).await,
        }
    }
}

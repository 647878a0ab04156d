//! The group of `consumer` commands.

use clap::{Args, Subcommand};

use crate::cli::{
    command::consumer::{
        answer::{Ack, Extend, Nack, Term},
        create::{Create, Reset, Set},
        dead::Dead,
        next::Next,
        show::{Delete, List, Pause, Resume, Show},
    },
    exit::Failure,
    session::Context,
};

/// Durable consumers: every change under a prefix is delivered until it is acknowledged
///
/// A consumer belongs to this node and survives its restarts and crashes. Any number of processes
/// share its changes: each change goes to one of them, and the changes of one key go out in order.
/// A change that is not acknowledged in time, or whose process died, is delivered again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice consumer create billing /orders/ --since start
  lattice consumer next billing                       takes one change
  lattice consumer ack billing 5e0c...a1.1            acknowledges it
  lattice consumer next billing --stream --ack        acknowledges each change once it is printed
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
    Set(Set),
    Reset(Reset),
    Delete(Delete),
    Dead(Dead),
}

impl Consumer {
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
            Action::Set(set) => set.run(context).await,
            Action::Reset(reset) => reset.run(context).await,
            Action::Delete(delete) => delete.run(context).await,
            Action::Dead(dead) => dead.run(context).await,
        }
    }
}

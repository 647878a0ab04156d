//! Asks for confirmation before an action that cannot be undone.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::cli::exit::{Exit, Failure};

/// Fails if stdin is not a terminal, so that nobody could confirm; `asks` names the command.
pub(crate) fn require_terminal(asks: &str) -> Result<(), Failure> {
    if io::stdin().is_terminal() {
        return Ok(());
    }
    let message = format!("{asks}, but stdin is not a terminal");
    Err(Failure::usage("not_confirmed", message).hint("add --yes"))
}

/// Asks `question` and succeeds if the answer is yes; else fails with the message `declined`.
pub(crate) async fn ask(question: String, declined: &str) -> Result<(), Failure> {
    match choose(question, "[y/N]").await.as_deref() {
        Ok("y" | "Y" | "yes") => Ok(()),
        _no => Err(Failure::new(Exit::Failed, "not_confirmed", declined)),
    }
}

/// Asks `question`, shows the possible `answers`, and returns the line that was typed.
pub(crate) async fn choose(question: String, answers: &'static str) -> Result<String, Failure> {
    let answer = tokio::task::spawn_blocking(move || {
        let mut stderr = io::stderr();
        write!(stderr, "{question} {answers} ")?;
        stderr.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok::<_, io::Error>(answer.trim().to_owned())
    });
    let answer = answer.await.map_err(io::Error::other).flatten();
    answer.map_err(|error| Failure::failed("stdin", error.to_string()))
}

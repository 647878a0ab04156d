//! Asking a person before something that cannot be taken back.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::cli::exit::{Exit, Failure};

/// Refuses a command that `asks` where there is nobody to answer.
pub(crate) fn possible(asks: &str) -> Result<(), Failure> {
    if io::stdin().is_terminal() {
        return Ok(());
    }
    let message = format!("{asks}, and stdin is no terminal");
    Err(Failure::usage("not_confirmed", message).hint("add --yes"))
}

/// Returns when the answer is yes; any other one fails with what was not done.
pub(crate) async fn ask(question: String, undone: &str) -> Result<(), Failure> {
    let answer = tokio::task::spawn_blocking(move || {
        let mut stderr = io::stderr();
        write!(stderr, "{question} [y/N] ")?;
        stderr.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok::<_, io::Error>(answer)
    });
    let answer = answer.await.map_err(io::Error::other).flatten();
    match answer.as_deref().map(str::trim) {
        Ok("y" | "Y" | "yes") => Ok(()),
        _no => Err(Failure::new(Exit::Failed, "not_confirmed", undone)),
    }
}

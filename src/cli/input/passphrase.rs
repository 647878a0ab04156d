//! The passphrase of a sealed key: from a file, from a credential, or typed on the terminal.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use lattice::{
    id::Author,
    limits::PASSPHRASE_BYTES_MAX,
    permissions::{self, Trust},
    vault::AskPassphrase,
};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use crate::cli::{
    exit::{Exit, Failure},
    output::print::stderr_line,
    signals::interrupted,
};

/// Asks for the passphrase of this node's key.
#[derive(Debug)]
pub(crate) struct Passphrases {
    /// The file that has it.
    pub(crate) file: Option<PathBuf>,
}

impl AskPassphrase for Passphrases {
    fn ask(&self, node: &Author, attempt: u32) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        if let Some(file) = self.its_file() {
            return read(&file).map(Some);
        }
        let again = if attempt > 1 { "wrong, again: " } else { "" };
        match prompt(&format!("{again}passphrase of node {}: ", node.short())) {
            // Nobody can be asked: the process has no terminal.
            Err(error) if error.raw_os_error() == Some(NO_TERMINAL) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            typed => typed.map(Some),
        }
    }

    fn asks_again(&self) -> bool {
        self.its_file().is_none()
    }
}

impl Passphrases {
    fn its_file(&self) -> Option<PathBuf> {
        self.file.clone().or_else(|| {
            let dir = std::env::var_os("CREDENTIALS_DIRECTORY")?;
            let file = PathBuf::from(dir).join(CREDENTIAL_NAME);
            file.exists().then_some(file)
        })
    }
}

/// Returns a new passphrase: the content of `file`, else what is typed on the terminal, twice.
pub(crate) async fn choose(file: Option<&Path>) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let file = file.map(Path::to_owned);
    let choosing = tokio::task::spawn_blocking(move || match file {
        Some(file) => read(&file),
        None => {
            let first = prompt("new passphrase: ")?;
            match prompt("the same again: ")? == first {
                true => Ok(first),
                false => Err(io::Error::other("the two are not the same")),
            }
        }
    });
    let chosen = choosing.await.map_err(io::Error::other).flatten();
    chosen.map_err(|error| {
        let message = format!("the passphrase cannot be read: {error}");
        Failure::failed("passphrase", message).hint("without a terminal, use --new-passphrase-file")
    })
}

// Reads a file whose line break at the end does not count.
fn read(file: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let bytes = permissions::read(file, Trust::Secret, PASSPHRASE_BYTES_MAX + 1);
    let mut bytes = Zeroizing::new(bytes.map_err(|error| io::Error::other(error.with_remedy()))?);
    if bytes.ends_with(b"\n") {
        let end = bytes.len() - 1;
        bytes.truncate(end);
    }
    Ok(bytes)
}

// Asks on a thread of its own. A signal meanwhile ends the process: nothing is open yet, and the thread could
// not be stopped.
fn prompt(label: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    let terminal = File::options().read(true).write(true).open("/dev/tty")?;
    let settings = tcgetattr(&terminal)?;
    *asking() = Some((terminal, settings));
    let label = label.to_owned();
    let typed = Handle::current().block_on(async {
        let typing = tokio::task::spawn_blocking(move || rpassword::prompt_password(label));
        tokio::select! {
            typed = typing => typed.map_err(io::Error::other).flatten(),
            () = interrupted() => Err(io::ErrorKind::Interrupted.into()),
        }
    });
    // The read may end by the signal, too.
    if matches!(&typed, Err(error) if error.kind() == io::ErrorKind::Interrupted) {
        restore_terminal();
        std::process::exit(Exit::Interrupted.code());
    }
    *asking() = None;
    let typed = Zeroizing::new(typed?);
    Ok(Zeroizing::new(typed.as_bytes().to_vec()))
}

/// Restores the terminal if the process ends while a passphrase is asked for: what is typed is not shown
/// meanwhile.
pub(crate) fn restore_terminal() {
    if let Some((terminal, settings)) = asking().take()
        && let Err(error) = tcsetattr(&terminal, OptionalActions::Now, &settings)
    {
        stderr_line(&format!("note: cannot restore the terminal: {error}"));
    }
}

// The terminal on which a passphrase is asked for, and its settings before.
fn asking() -> MutexGuard<'static, Option<(File, Termios)>> {
    static ASKING: Mutex<Option<(File, Termios)>> = Mutex::new(None);
    ASKING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Name of the credential that has the passphrase, if systemd gave one.
const CREDENTIAL_NAME: &str = "lattice.passphrase";
// ENXIO: the process has no terminal.
const NO_TERMINAL: i32 = 6;

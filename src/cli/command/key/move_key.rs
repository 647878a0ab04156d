//! `key move`: the secret goes to another place.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use lattice::{
    api::error::ApiError,
    node::{KeyMove, KeyMoveError, KeyMoved, Node},
    vault::{CREDENTIAL_NAME, KeyPlace},
};
use serde::Serialize;

use crate::cli::{
    command::key::systemd_creds,
    exit::{Exit, Failure},
    input::{confirm, passphrase},
    session::Context,
};

/// Move the secret of this node's key to another place
///
/// It is put there and read back, the node is started with it once, and only then it is wiped where it was.
/// The node must not run meanwhile: stop it with `lattice down`.
///
/// file: into identity.key, as it is. passphrase: into identity.key, sealed; each start asks for it.
/// credential PATH: encrypted by systemd with a key of this machine; `lattice service install
/// --credential PATH` gives it to the service. command -- PROGRAM ARGS: the program has it already and
/// prints it; it is run without a shell, by whatever opens the node.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice key move --to passphrase
  lattice key move --to command -- pass show lattice/kitchen
  sudo lattice key move --to credential /etc/credstore.encrypted/lattice.key
  lattice key move --to file")]
pub(crate) struct Move {
    /// The new place
    #[arg(long, value_enum, value_name = "PLACE")]
    to: To,
    /// File with the passphrase that seals it [default: the terminal asks, twice]
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// Key of the machine that encrypts a credential, as `systemd-creds --with-key` names it. One of the
    /// TPM is lost with an update of the firmware
    #[arg(long, value_name = "KEY", default_value = "host")]
    with_key: String,
    /// Do not ask for confirmation; required if stdin is not a terminal
    #[arg(long)]
    yes: bool,
    /// Path of the credential, or the program and its arguments
    #[arg(value_name = "PATH or PROGRAM")]
    arguments: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    File,
    Passphrase,
    Credential,
    Command,
}

/// The secret is in another place, printed by `key move`.
#[derive(Serialize)]
struct NodeKeyMoved {
    /// `node_key_moved`.
    r#type: &'static str,
    node: String,
    from: &'static str,
    to: &'static str,
    /// True if the old place still has it, because it is not this program's to wipe.
    left_behind: bool,
}

impl Move {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        self.check_arguments()?;
        let config = context.place.node_config();
        let to = match self.to {
            To::File => KeyMove::File,
            To::Passphrase => {
                let file = self.new_passphrase_file.as_deref();
                KeyMove::Passphrase(passphrase::choose(file).await?)
            }
            To::Credential => {
                // A credential that was made before the refusal would be in the way of the next attempt.
                if context.place.is_locked() {
                    let message = "the node is running, and keeps its key where it is meanwhile";
                    let running = Failure::new(Exit::Unavailable, "already_running", message);
                    return Err(running.hint("stop it with `lattice down`"));
                }
                self.confirm_credential().await?;
                let seed = Node::fetch_key(config.clone())
                    .await
                    .map_err(ApiError::from)?;
                let path = self
                    .arguments
                    .first()
                    .map(PathBuf::from)
                    .unwrap_or_default();
                let with_key = self.with_key.clone();
                let encrypting = move || systemd_creds::encrypt(&seed, &path, &with_key);
                let encrypted = tokio::task::spawn_blocking(encrypting).await;
                let read_back = encrypted
                    .map_err(|_panic| Failure::failed("panicked", "a task has panicked"))??;
                KeyMove::Credential {
                    name: CREDENTIAL_NAME.to_owned(),
                    read_back,
                }
            }
            To::Command => KeyMove::Command {
                argv: self.arguments.clone(),
            },
        };
        let moved = Node::move_key(config, to).await;
        let moved = moved.map_err(|error| self.failure(error))?;
        self.print(context, &moved)
    }

    fn check_arguments(&self) -> Result<(), Failure> {
        let expected = match (self.to, self.arguments.len()) {
            (To::File | To::Passphrase, 0) | (To::Credential, 1) => return Ok(()),
            (To::Command, 1..) => return Ok(()),
            (To::File | To::Passphrase, _) => "nothing may follow this place",
            (To::Credential, _) => "expected the path of the credential that is made",
            (To::Command, _) => "expected `--` and the program that prints the key",
        };
        Err(Failure::usage("arguments", expected).hint("see `lattice key move --help`"))
    }

    async fn confirm_credential(&self) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        confirm::require_terminal(
            "a credential is readable on this machine only, so `key move` asks",
        )?;
        let question = "this machine alone can read the credential: without a backup (`lattice key export`) \
             the node is lost with it. Go on?";
        confirm::ask(question.to_owned(), "the key was not moved").await
    }

    fn failure(&self, error: KeyMoveError) -> Failure {
        match error {
            KeyMoveError::Open(error) => ApiError::from(error).into(),
            KeyMoveError::New(source) => {
                let hint = match self.to {
                    To::Command => {
                        "give the key to that program first: `lattice key export` prints it"
                    }
                    _others => source.remedy(),
                };
                let message = format!("the key was not moved: {source}");
                Failure::new(Exit::Failed, "key", message).hint(hint)
            }
            other => {
                let message = match std::error::Error::source(&other) {
                    Some(source) => format!("{other}: {source}"),
                    None => other.to_string(),
                };
                Failure::failed("key_move", message)
            }
        }
    }

    fn print(&self, context: &mut Context, moved: &KeyMoved) -> Result<(), Failure> {
        let left_behind = moved.is_left_behind();
        let out = &mut context.out;
        if let Some(why) = &moved.not_wiped {
            out.notice(
                "not_wiped",
                &format!("the secret is still where it was: {why}"),
            );
        }
        if out.json {
            return out.object(&NodeKeyMoved {
                r#type: "node_key_moved",
                node: moved.node.to_string(),
                from: moved.from.word(),
                to: moved.to.word(),
                left_behind,
            });
        }
        out.line(&format!(
            "moved    the secret of node {}",
            moved.node.short()
        ))?;
        out.line(&format!("from     {}", moved.from))?;
        out.line(&format!("to       {}", moved.to))?;
        if left_behind {
            out.notice("left_behind", "the old place still has it: remove it there");
        }
        if matches!(moved.from, KeyPlace::File(_)) {
            out.notice(
                "backups",
                "backups and copies of identity.key still have it, and a disk may keep the old bytes",
            );
        }
        match (&moved.to, self.arguments.first()) {
            (KeyPlace::Credential { .. }, Some(path)) => out.line(&format!(
                "next     lattice service install --credential {}",
                Path::new(path).display()
            )),
            (KeyPlace::Passphrase(_), _) => out
                .line("next     `lattice up` asks for the passphrase, or takes --passphrase-file"),
            _others => Ok(()),
        }
    }
}

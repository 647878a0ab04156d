//! `service install`, `service uninstall`: write the unit and start the node with it, and undo that.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;
use nix::unistd::User;
use serde::Serialize;

use crate::cli::{
    command::service::{
        installed::{self, Found},
        manager::Manager,
        unit::Unit,
    },
    exit::{Exit, Failure},
    place::Place,
    session::Context,
};

/// Write the unit, start the node with it, and start it with the system from then on
///
/// Writes the unit that `service print` prints to /etc/systemd/system, and makes the user `lattice` if
/// there is none; with --user, writes it to ~/.config/systemd/user. A unit that this command did not
/// write is left as it is. An own unit is written again, for a program or a data directory that has
/// moved, and the node is started again if the unit has changed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo lattice service install
  lattice service install --user
  sudo lattice service install --data-dir /srv/lattice")]
pub(crate) struct Install {
    /// Install for the user's systemd instance; the node then runs as this user
    #[arg(long)]
    user: bool,
    /// Give the service this encrypted credential with the node's key, made by `key move --to credential`
    #[arg(long, value_name = "PATH")]
    credential: Option<PathBuf>,
    /// Write the unit also in place of one that this command did not write
    #[arg(long)]
    replace: bool,
    /// Install into the system in this directory, which does not run now
    #[arg(long, value_name = "DIR", hide = true, conflicts_with = "user")]
    root: Option<PathBuf>,
}

/// Stop the node, and remove the unit that `service install` wrote
///
/// The data stays, and so does the user `lattice`, who owns it. A unit that `service install` did not
/// write stays, too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo lattice service uninstall
  lattice service uninstall --user")]
pub(crate) struct Uninstall {
    /// Uninstall from the user's systemd instance
    #[arg(long)]
    user: bool,
    /// Uninstall from the system in this directory, which does not run now
    #[arg(long, value_name = "DIR", hide = true, conflicts_with = "user")]
    root: Option<PathBuf>,
}

impl Install {
    pub(crate) fn run(self, context: &mut Context) -> Result<(), Failure> {
        let manager = Manager::find(self.user, self.root.clone())?;
        let unit = Unit::of_this_program(self.user, &context.place)?
            .with_credential(self.credential.clone());
        let path = manager.unit_path()?;
        let before = Found::at(&path)?;
        self.check(context, &manager, &unit, &path, &before)?;
        let adds_user = !self.user && !has_user(&manager)?;
        if adds_user {
            manager.add_user()?;
        }
        let text = installed::marked(&unit.text());
        installed::write(&path, &text)?;
        let changed = matches!(&before, Found::Ours(before) if *before != text);
        let started = manager
            .reload()
            .and_then(|()| manager.enable())
            .and_then(|()| manager.start(changed || before == Found::Foreign));
        started.map_err(|failure| {
            let message = format!(
                "{} is written, and the node does not run: {}",
                path.display(),
                failure.message
            );
            let hint = format!(
                "see `{}`; `{}` removes the unit",
                manager.typed("status"),
                self.undo()
            );
            Failure::new(Exit::Partly, "not_started", message).hint(hint)
        })?;
        let data_dir = unit.data_dir().unwrap_or(&context.place.data_dir);
        let data_dir = data_dir.display().to_string();
        let out = &mut context.out;
        if out.json {
            return out.object(&ServiceObject {
                r#type: "service_installed",
                unit: path.display().to_string(),
                user: self.user,
                data_dir: Some(data_dir),
                running: manager.is_running(),
                added_user: adds_user,
            });
        }
        out.line(&format!("wrote    {}", path.display()))?;
        if adds_user {
            out.line("user     lattice (created)")?;
        }
        out.line(&format!("data     {data_dir}"))?;
        out.line(match (manager.is_running(), self.user) {
            (true, true) => "running  and starts when you log in",
            (true, false) => "running  and starts with the system",
            (false, _) => "enabled  starts with the system",
        })?;
        if self.user {
            out.line(
                "next     loginctl enable-linger, so that it runs also while you are logged out",
            )?;
        }
        out.line(&format!("status   {}", manager.typed("status")))?;
        out.line(&format!("undo     {}", self.undo()))
    }

    // Finds what would make the service fail, before anything is written.
    fn check(
        &self,
        context: &Context,
        manager: &Manager,
        unit: &Unit,
        path: &Path,
        before: &Found,
    ) -> Result<(), Failure> {
        if *before == Found::Foreign && !self.replace {
            let hint = "look at it; with --replace it is overwritten".to_owned();
            return Err(installed::foreign(path, hint));
        }
        if let Some(packaged) = manager.packaged_unit()
            && *before == Found::Nothing
            && !self.replace
        {
            let message = format!("a package installed {}", packaged.display());
            let start = manager.typed("enable --now");
            return Err(Failure::failed("packaged_unit", message).hint(format!(
                "`{start}` starts it; with --replace another unit overrides it"
            )));
        }
        // The programs and directories of another system are not those of this one.
        if !manager.is_running() {
            return Ok(());
        }
        if unit.hides_its_program() {
            let message = format!("a system service cannot see {}", unit.binary.display());
            return Err(Failure::failed("binary_hidden", message).hint(format!(
                "copy it first: `sudo install -m 755 {} /usr/local/bin/lattice`, and then \
                 `sudo /usr/local/bin/lattice service install`",
                unit.binary.display()
            )));
        }
        if let (false, Some(dir)) = (self.user, unit.named_dir())
            && !dir.is_dir()
        {
            let message = format!("there is no directory {}", dir.display());
            return Err(Failure::failed("no_data_dir", message).hint(format!(
                "make it for the user of the service: `sudo install -d -o lattice -m 700 {}`",
                dir.display()
            )));
        }
        let place = Place {
            data_dir: unit.data_dir().unwrap_or(&context.place.data_dir).into(),
            is_named: true,
            ..context.place.clone()
        };
        if *before == Found::Nothing && place.is_locked() {
            let message = format!("a node is running on {}", place.data_dir.display());
            return Err(Failure::failed("already_running", message)
                .hint("stop it with `lattice down`, then install the service"));
        }
        Ok(())
    }

    fn undo(&self) -> &'static str {
        match self.user {
            true => "lattice service uninstall --user",
            false => "sudo lattice service uninstall",
        }
    }
}

impl Uninstall {
    pub(crate) fn run(self, context: &mut Context) -> Result<(), Failure> {
        let manager = Manager::find(self.user, self.root)?;
        let path = manager.unit_path()?;
        match Found::at(&path)? {
            Found::Ours(_) => {}
            Found::Foreign => {
                let by_hand = manager.typed("disable --now");
                let hint = format!("`{by_hand}` stops it; then remove the file by hand");
                return Err(installed::foreign(&path, hint));
            }
            Found::Nothing => {
                let message = format!("there is no {}", path.display());
                let failure = Failure::new(Exit::NotFound, "no_unit", message);
                return Err(match manager.packaged_unit() {
                    Some(packaged) => failure.hint(format!(
                        "{} belongs to a package; `{}` stops it",
                        packaged.display(),
                        manager.typed("disable --now")
                    )),
                    None => failure.hint(match self.user {
                        true => "without --user, the unit of the system is removed",
                        false => "with --user, the unit of this user is removed",
                    }),
                });
            }
        }
        manager.disable()?;
        installed::remove(&path)?;
        manager.reload()?;
        let out = &mut context.out;
        if out.json {
            return out.object(&ServiceObject {
                r#type: "service_uninstalled",
                unit: path.display().to_string(),
                user: self.user,
                data_dir: None,
                running: false,
                added_user: false,
            });
        }
        if manager.is_running() {
            out.line("stopped")?;
        }
        out.line(&format!("removed  {}", path.display()))?;
        out.line(match self.user {
            true => "kept     the data of the node",
            false => "kept     the data of the node, and the user lattice, who owns it",
        })
    }
}

/// The result of `service install` and `service uninstall`.
#[derive(Serialize)]
struct ServiceObject {
    r#type: &'static str,
    /// Path of the unit.
    unit: String,
    /// True for a unit of the user's systemd instance.
    user: bool,
    /// Data directory of the node; absent after `uninstall`.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<String>,
    /// True if the node runs now.
    running: bool,
    /// True if the user `lattice` was made.
    added_user: bool,
}

fn has_user(manager: &Manager) -> Result<bool, Failure> {
    let failed = |error: io::Error| {
        Failure::failed("user", format!("cannot look up the user lattice: {error}"))
    };
    let Some(root) = manager.root() else {
        let found = User::from_name("lattice").map_err(|errno| failed(errno.into()))?;
        return Ok(found.is_some());
    };
    let users = fs::read_to_string(root.join("etc/passwd")).map_err(failed)?;
    Ok(users.lines().any(|line| line.starts_with("lattice:")))
}

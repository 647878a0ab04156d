//! systemd: where its units are, and the calls of `systemctl` that a service needs.

use std::{
    env,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::cli::exit::Failure;

/// Name of the unit.
pub(super) const UNIT: &str = "lattice.service";

/// An instance of systemd.
#[derive(Debug)]
pub(super) struct Manager {
    // True for the instance of this user, false for that of the system.
    user: bool,
    // A system that does not run now, in this directory: its units are only enabled and disabled.
    root: Option<PathBuf>,
}

impl Manager {
    /// Returns the instance of this user or of the system, or the system in `root`.
    ///
    /// # Errors
    /// `not_root` if this user may not change the system's units, `no_systemd` if no systemd answers.
    pub(super) fn find(user: bool, root: Option<PathBuf>) -> Result<Self, Failure> {
        let manager = Self { user, root };
        if manager.root.is_some() {
            return Ok(manager);
        }
        if !user && !rustix::process::geteuid().is_root() {
            return Err(
                Failure::failed("not_root", "only root may change the system's services")
                    .hint("put sudo before it, or give --user for a service of this user alone"),
            );
        }
        // A question that systemd answers at any time.
        match manager.run(&["show", "--property=Version"]) {
            Ok(_answer) => Ok(manager),
            Err(failure) => Err(Failure::failed(
                "no_systemd",
                format!("no systemd answers: {}", failure.message),
            )
            .hint(match user {
                true => NO_USER_SYSTEMD,
                false => NO_SYSTEMD,
            })),
        }
    }

    /// True if the manager runs, so that it can start and stop the node.
    pub(super) fn is_running(&self) -> bool {
        self.root.is_none()
    }

    /// Returns the directory of the system that does not run.
    pub(super) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// Returns the path at which `service install` writes the unit.
    ///
    /// # Errors
    /// `no_home` if this user has no home directory.
    pub(super) fn unit_path(&self) -> Result<PathBuf, Failure> {
        if !self.user {
            return Ok(self.in_root("/etc/systemd/system").join(UNIT));
        }
        let config = env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute());
        let home = || env::home_dir().filter(|home| !home.as_os_str().is_empty());
        let config = config.or_else(|| home().map(|home| home.join(".config")));
        let config = config.ok_or_else(|| {
            Failure::usage("no_home", "no home directory to keep the unit in")
                .hint("set $HOME or $XDG_CONFIG_HOME")
        })?;
        Ok(config.join("systemd/user").join(UNIT))
    }

    /// Returns the path of the unit of a package, if there is one.
    pub(super) fn packaged_unit(&self) -> Option<PathBuf> {
        let kind = if self.user { "user" } else { "system" };
        ["/usr/lib/systemd", "/lib/systemd"]
            .into_iter()
            .map(|dir| self.in_root(dir).join(kind).join(UNIT))
            .find(|path| path.symlink_metadata().is_ok())
    }

    /// Returns the command that a person types to ask about the unit or to start it.
    pub(super) fn typed(&self, verb: &str) -> String {
        let user = if self.user { " --user" } else { "" };
        format!("systemctl{user} {verb} lattice")
    }

    /// Reads the units again.
    pub(super) fn reload(&self) -> Result<(), Failure> {
        match self.is_running() {
            true => self.run(&["daemon-reload"]).map(drop),
            false => Ok(()),
        }
    }

    /// Has the unit start with the system, or when this user logs in.
    pub(super) fn enable(&self) -> Result<(), Failure> {
        self.run(&["enable", UNIT]).map(drop)
    }

    /// Starts the unit, or starts it again with a unit that has changed. Returns when the node serves.
    pub(super) fn start(&self, again: bool) -> Result<(), Failure> {
        let verb = if again { "restart" } else { "start" };
        match self.is_running() {
            true => self.run(&[verb, UNIT]).map(drop),
            false => Ok(()),
        }
    }

    /// Stops the unit and undoes `enable`.
    pub(super) fn disable(&self) -> Result<(), Failure> {
        match self.is_running() {
            true => self.run(&["disable", "--now", UNIT]).map(drop),
            false => self.run(&["disable", UNIT]).map(drop),
        }
    }

    /// Makes the system user `lattice` with a group of its own. Its home is the data directory.
    ///
    /// # Errors
    /// `user` if `useradd` refuses.
    pub(super) fn add_user(&self) -> Result<(), Failure> {
        let mut command = Command::new("useradd");
        if let Some(root) = &self.root {
            command.arg("--prefix").arg(root);
        }
        command
            .args(["--system", "--user-group", "--no-create-home"])
            .args(["--home-dir", "/var/lib/lattice"])
            .args(["--shell", "/usr/sbin/nologin", "lattice"]);
        output("useradd", &mut command)
            .map(drop)
            .map_err(|failure| {
                Failure::failed("user", failure.message)
                    .hint("make a system user named lattice by hand; the service runs as that user")
            })
    }

    fn in_root(&self, path: &str) -> PathBuf {
        match &self.root {
            Some(root) => root.join(path.trim_start_matches('/')),
            None => path.into(),
        }
    }

    fn run(&self, arguments: &[&str]) -> Result<Output, Failure> {
        let mut command = Command::new("systemctl");
        if self.user {
            command.arg("--user");
        }
        if let Some(root) = &self.root {
            command.arg(format!("--root={}", root.display()));
        }
        let name = format!("systemctl {}", arguments.join(" "));
        output(&name, command.args(arguments))
    }
}

// Runs a command to its end, and returns its complaint as the failure.
fn output(name: &str, command: &mut Command) -> Result<Output, Failure> {
    let ran = command.output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            let program = command.get_program().to_string_lossy().into_owned();
            Failure::failed("systemctl", format!("{program} is not here"))
        }
        _other => Failure::failed("systemctl", format!("{name}: {error}")),
    })?;
    if ran.status.success() {
        return Ok(ran);
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    let said = match said.trim() {
        "" => ran.status.to_string(),
        said => said.to_owned(),
    };
    Err(Failure::failed("systemctl", format!("{name}: {said}")))
}

const NO_SYSTEMD: &str = "without systemd, have the service manager of this machine run `lattice up` as a user of \
     its own; `lattice service print` prints the unit for another machine";
const NO_USER_SYSTEMD: &str = "log in as this user, not through su or sudo; where there is no systemd, have the \
     service manager of this machine run `lattice up`";
